"""/metrics counts what happened, and nothing else."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from app.observed.exposition import family
from app.observed.histogram import DURATION_SECONDS, Histogram
from app.observed.shadow import ShadowAnswer
from app.settings import FeedbackSettings
from tests.paths import ROOT
from tests.unit.app.stub_api import LABELS, Client, StubEngine, make_app

DOCS = ROOT / "docs" / "api.md"


@pytest.fixture
def client() -> Client:
    return Client(make_app("v2", feedback=FeedbackSettings(Path("/nowhere/feedback.db"), 90, 256, 0, 30)))


def test_requests_by_route_and_code(client: Client) -> None:
    client.predict("a b", "c d", "", "x" * 9000)
    client.post("/predict/batch", json={"sentences": ["a", "b", "c"]})
    client.get("/predict")
    client.get("/version")
    client.get("/v2/models/emotion")
    client.get("/v2/models/other")
    client.get("/nothing/at/all")
    series = client.series()
    counted = {name: value for name, value in series.items() if name.startswith("vmlops_requests_total")}
    print(counted)
    assert counted == {
        'vmlops_requests_total{code="200",route="/predict"}': 2,
        'vmlops_requests_total{code="422",route="/predict"}': 1,
        'vmlops_requests_total{code="413",route="/predict"}': 1,
        'vmlops_requests_total{code="405",route="/predict"}': 1,
        'vmlops_requests_total{code="200",route="/predict/batch"}': 1,
        'vmlops_requests_total{code="200",route="/version"}': 1,
        'vmlops_requests_total{code="200",route="/v2/models/{name}"}': 1,
        'vmlops_requests_total{code="404",route="/v2/models/{name}"}': 1,
        'vmlops_requests_total{code="404",route="other"}': 1,
    }
    assert series['vmlops_request_duration_seconds_count{route="/predict"}'] == 5
    assert series["vmlops_requests_in_flight"] == 0


def test_probes_and_scrapes_are_no_load(client: Client) -> None:
    client.app.start()
    for path in ("/health", "/ready", "/metrics", "/v2/health/live", "/v2/health/ready"):
        assert client.get(path).status_code == 200
        client.post(path)
    client.app.stop()
    assert not [name for name in client.series() if name.startswith(("vmlops_requests_total", "vmlops_request_d"))]


def test_predictions_are_described(client: Client) -> None:
    sentences = ["a b c", "d e f g h i", "j"]
    client.predict(sentences[0], "")
    client.post("/predict/batch", json={"sentences": sentences[1:]})
    scores = [StubEngine().score(sentence) for sentence in sentences]
    series = client.series()
    made = {label: series[f'vmlops_predictions_total{{label="{label}"}}'] for label in LABELS}
    assert made == {label: sum(score.label == label for score in scores) for label in LABELS}
    for name, values in (
        ("vmlops_prediction_confidence_ratio", [score.confidence for score in scores]),
        ("vmlops_prediction_unknown_ratio", [score.unknown / score.tokens for score in scores]),
        ("vmlops_sentence_length_characters", [len(sentence) for sentence in sentences]),
    ):
        assert series[f"{name}_count"] == 3
        assert series[f"{name}_sum"] == pytest.approx(sum(values))
        bounds = {
            float(match[1]): value
            for key, value in series.items()
            if (match := re.fullmatch(rf'{name}_bucket{{le="(.+)"}}', key))
        }
        print(name, bounds)
        assert bounds == {bound: sum(value <= bound for value in values) for bound in bounds}


def test_model_info_and_process(client: Client) -> None:
    series = client.series()
    assert series['vmlops_model_info{engine="stub",release="0123456789ab",replica="v2@8101"}'] == 1
    assert series["process_resident_memory_bytes"] > 1e6
    assert series["process_start_time_seconds"] > 1.5e9
    assert series["process_open_fds"] > 2


def test_buckets_hold_their_upper_bound() -> None:
    histogram = Histogram((1, 2))
    for x in (0, 1, 1.5, 2, 2.1, 99):
        histogram.observe(x)
    assert histogram.counts == [2, 2, 2]
    assert histogram.buckets() == [("1.0", 2), ("2.0", 4), ("+Inf", 6)]
    assert histogram.sum == pytest.approx(105.6)
    assert DURATION_SECONDS[0] == 1e-4


def test_the_documented_table_is_what_is_exported(client: Client) -> None:
    """Names, types and labels in docs/api.md are those of the exposition, for each family of ours."""
    client.predict(*["a b c d e f"] * 500)
    assert client.app.metrics.shadow
    for request_id, answer in (("paired", ShadowAnswer("reference", "fun", 0.5, 1e-4)), ("lost", None)):
        client.app.metrics.shadow.candidate(request_id, answer)
        client.app.metrics.shadow.reference(request_id, ShadowAnswer("reference", "fun", 0.5, 1e-4))
    families = {family.name: family for family in text_string_to_metric_families(client.get("/metrics").text)}
    exported = {
        (
            name + ("_total" if family.type == "counter" else ""),
            family.type,
            frozenset({label for sample in family.samples for label in sample.labels} - {"le"}),
        )
        for name, family in families.items()
        if name.startswith("vmlops_")
    }
    # Those of models of numbers are not this model's.
    table = re.sub(r"^.*of models of numbers.*$", "", DOCS.read_text(), flags=re.MULTILINE)
    rows = re.findall(r"^\| `(vmlops_\w+)` \| (\w+)[^|]* \| ([^|]*) \|", table, re.MULTILINE)
    common = {"version", "model_version"}
    documented = {(name, kind, frozenset(common | set(re.findall(r"`(\w+)`", labels)))) for name, kind, labels in rows}
    assert documented == exported


def test_a_label_may_have_any_text() -> None:
    odd = 'a"b\\c\nd'
    (read,) = text_string_to_metric_families("".join(family("odd", "gauge", "Odd", [("", {"label": odd}, 1.5)])))
    assert [(sample.labels, sample.value) for sample in read.samples] == [({"label": odd}, 1.5)]
