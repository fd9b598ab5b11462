"""Two replicas compared on the same sentences: v1's answers and v2's to the copies, paired by the gateway's id."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from app.engines.engine import Score
from app.factory import create_app
from app.observed.shadow import PENDING, Shadow, ShadowAnswer
from tests.ports import free_port
from tests.unit.app.stub_api import LABELS, SETTINGS, Client, StubEngine, make_app

FAILING = "fails in v2"


class Candidate(StubEngine):
    """Calls fun what the stub calls anger, and is a little less sure of everything."""

    model_version = "stub00000002"

    def score(self, text: str) -> Score:
        if text == FAILING:
            raise ZeroDivisionError
        score = super().score(text)
        label = "fun" if score.label == "anger" else score.label
        return score._replace(label=label, confidence=score.confidence - 0.125)


def text_of(label: str) -> str:
    return next(text for text in (f"word{i}" for i in range(1000)) if StubEngine().score(text).label == label)


class Pair:
    """v1 and v2, and in between what the gateway does."""

    def __init__(self) -> None:
        self.port = free_port()
        self.v1 = Client(make_app("v1"))
        settings = SETTINGS._replace(version="v2", bind=f"127.0.0.1:{self.port}", instance="v2@8101")
        self.v2 = Client(create_app(settings, Candidate()))
        self.v2.app.start()
        self.sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)

    def answer(self, text: str) -> str:
        """v1's answer as the gateway reads it in the header."""
        response = self.v1.post("/predict", json={"sentence": text}, headers={"X-Shadow-Answer": "1"})
        return str(response.headers.get("X-Shadow-Answer", "-"))

    def tell(self, request_id: str, answer: str) -> None:
        message = f"<190>Nov 25 09:00:00 shadow: {request_id} {answer}"
        self.sender.sendto(message.encode(), ("127.0.0.1", self.port))

    def copy(self, request_id: str, text: str) -> httpx.Response:
        return self.v2.post("/predict", json={"sentence": text}, headers={"X-Shadow-Of": request_id})

    def series(self) -> dict[str, float]:
        """v2's counts, by name and the values of its own labels, in alphabetical order of the labels."""
        families = text_string_to_metric_families(self.v2.get("/metrics").text)
        common = ("version", "model_version", "reference_model_version")
        return {
            " ".join(
                [sample.name, *(value for label, value in sample.labels.items() if label not in common)]
            ): sample.value
            for family in families
            for sample in family.samples
            if "shadow" in sample.name and sample.labels.get("reference_model_version") in (None, "stub00000001")
        }


@pytest.fixture
def pair() -> Iterator[Pair]:
    pair = Pair()
    try:
        yield pair
    finally:
        pair.sender.close()
        pair.v2.app.stop()


def test_pairs_whichever_half_comes_first(pair: Pair) -> None:
    angry, happy = text_of("anger"), text_of("happiness")
    pair.tell("a", pair.answer(angry))
    assert pair.copy("a", angry).status_code == 204
    pair.copy("b", happy)
    pair.tell("b", pair.answer(happy))
    series = pair.series()
    print(series)
    assert {name: value for name, value in series.items() if "pairs" in name} == {
        "vmlops_shadow_pairs_total fun anger": 1,
        "vmlops_shadow_pairs_total happiness happiness": 1,
    }
    scores = [StubEngine().score(text).confidence for text in (angry, happy)]
    assert series["vmlops_shadow_confidence_total reference"] == pytest.approx(sum(scores))
    assert series["vmlops_shadow_confidence_total candidate"] == pytest.approx(sum(scores) - 0.25)
    assert series["vmlops_shadow_confidence_change_ratio_sum"] == pytest.approx(-0.25)
    assert series["vmlops_shadow_confidence_change_squares_total"] == pytest.approx(2 * 0.125**2)
    for side in ("reference", "candidate"):
        assert series[f"vmlops_shadow_duration_seconds_count {side}"] == 2
        assert 0 < series[f"vmlops_shadow_duration_seconds_sum {side}"] < 1


def test_a_copy_that_fails_is_told(pair: Pair) -> None:
    pair.tell("a", pair.answer(FAILING))
    assert pair.copy("a", FAILING).status_code == 500
    series = pair.series()
    assert series["vmlops_shadow_failures_total"] == 1
    assert not [name for name in series if "pairs" in name]


def test_what_v1_refused_is_no_pair(pair: Pair) -> None:
    assert pair.answer("") == "-"
    pair.tell("a", "-")
    assert pair.copy("a", "").status_code == 422
    pair.tell("", "nonsense that nobody sends")
    pair.sender.sendto(b"\xff", ("127.0.0.1", pair.port))
    assert set(pair.series().values()) == {0}


def test_clients_see_what_they_always_saw(pair: Pair) -> None:
    """Without the gateway's header nothing is said; and v2 answers a client, who is sent no copies, as ever."""
    plain = pair.v1.post("/predict", json={"sentence": "a b"}, headers={"X-Request-ID": "same"})
    asked = pair.v1.post("/predict", json={"sentence": "a b"}, headers={"X-Request-ID": "same", "X-Shadow-Answer": "1"})
    assert plain.content == asked.content
    assert {name for name in asked.headers if name not in plain.headers} == {"x-shadow-answer"}
    assert "prediction_proba_dict" in pair.v2.post("/predict", json={"sentence": "a b"}).json()
    # v1 has nothing to compare, whatever it is sent.
    assert pair.v1.post("/predict", json={"sentence": "a"}, headers={"X-Shadow-Of": "x"}).status_code == 200
    assert not [name for name in pair.v1.series() if "shadow" in name]


def test_an_answer_survives_the_way_through_a_header_and_a_log() -> None:
    for label in (*LABELS, "two words", 'quotes " and ; : \\', "жар", "%20"):
        answer = ShadowAnswer("0123456789ab", label, 0.123456789, 1e-4)
        text = answer.encode()
        assert text.isascii()
        assert '"' not in text
        assert ShadowAnswer.decode(text) == answer


def test_what_waits_is_bounded() -> None:
    shadow = Shadow()
    answer = ShadowAnswer("a", "fun", 0.5, 0.1)
    for number in range(PENDING + 10):
        shadow.reference(f"lost{number}", answer)
        shadow.candidate(f"never{number}", answer)
    assert shadow.unpaired == 10
    shadow.candidate(f"lost{PENDING}", answer)
    shadow.candidate("lost0", answer)  # given up
    assert shadow.comparisons["a"].labels.total() == 1
