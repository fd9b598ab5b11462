"""The contract of POST /predict and /predict/batch, in both versions."""

from __future__ import annotations

import json

import pytest

from app.engines.engine import Score
from app.http import schemas, sentences
from app.settings import Version
from tests.unit.app.stub_api import LABELS, Client, StubEngine, make_app

SENTENCE = "Oh yeah, that was soooo cool!"


@pytest.fixture(params=["v1", "v2"])
def version(request: pytest.FixtureRequest) -> Version:
    chosen: Version = request.param
    return chosen


@pytest.fixture
def client(version: Version) -> Client:
    return Client(make_app(version))


def test_v1_says_the_label_and_the_model_and_no_more() -> None:
    answer = Client(make_app("v1")).post("/predict", json={"sentence": SENTENCE})
    expected = StubEngine().score(SENTENCE)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/json"
    assert answer.json() == {"prediction": expected.label, "model_version": "stub00000001"}


def test_v2_says_why() -> None:
    answer = Client(make_app("v2")).post("/predict", json={"sentence": SENTENCE})
    expected = StubEngine().score(SENTENCE)
    document = answer.json()
    print(answer.text)
    schemas.forms_of(StubEngine.signature).debug.model_validate_json(answer.content)
    assert list(document)[:3] == ["prediction", "model_version", "prediction_proba_dict"]
    assert document["prediction"] == expected.label
    assert tuple(document["prediction_proba_dict"]) == LABELS
    assert sum(document["prediction_proba_dict"].values()) == pytest.approx(1, abs=1e-9)
    assert document["prediction_proba_dict"][expected.label] == max(expected.probabilities)
    weights = [abs(ngram["weight"]) for ngram in document["top_ngrams"]]
    assert document["top_ngrams"][0]["ngram"] == "oh"
    assert weights == sorted(weights, reverse=True)
    assert (document["engine"], document["instance"]) == ("stub", "v2@8101")
    assert document["elapsed_ms"] > 0


def test_a_batch_is_answered_in_order(client: Client, version: Version) -> None:
    texts = [f"sentence {i} of a batch, {i * 7919}" for i in range(sentences.BATCH_SENTENCES)]
    document = client.post("/predict/batch", json={"sentences": texts}).json()
    single = [answer.json() for answer in client.predict(*texts)]
    wanted = ("prediction", "prediction_proba_dict") if version == "v2" else ("prediction",)
    assert document["predictions"] == [{key: one[key] for key in wanted} for one in single]
    assert document["model_version"] == "stub00000001"
    forms = schemas.forms_of(StubEngine.signature)
    model = forms.debug_predictions if version == "v2" else forms.predictions
    model.model_validate(document)


@pytest.mark.parametrize(
    "text",
    [
        *("é", "日本語", "🙂", "👩‍👩‍👧", "e\u0301", "\u202eabc", "a\x00b", "\x7f", "a" * sentences.SENTENCE_BYTES),
        *(
            "é" * (sentences.SENTENCE_BYTES // 2),
            "🙂" * (sentences.SENTENCE_BYTES // 4),
            "\x1f.",
            "\ufeff",
            "null",
            '"',
        ),
    ],
    ids=lambda text: f"{text[:3]!r} {len(text)}",
)
@pytest.mark.parametrize("ascii_only", [True, False], ids=["escaped", "utf-8"])
def test_any_text_up_to_the_limit_is_answered(client: Client, text: str, ascii_only: bool) -> None:
    body = json.dumps({"sentence": text}, ensure_ascii=ascii_only).encode()
    answer = client.post("/predict", content=body, headers={"content-type": "application/json; charset=utf-8"})
    assert answer.status_code == 200, answer.text
    assert answer.json()["prediction"] == StubEngine().score(text).label


def test_the_limits_let_the_longest_allowed_bodies_in() -> None:
    longest = "\x01" * (sentences.SENTENCE_BYTES - 1) + "x"
    one = json.dumps({"sentence": longest})
    many = json.dumps({"sentences": ["é" * (sentences.SENTENCE_BYTES // 2)] * sentences.BATCH_SENTENCES})
    print(len(one), len(many))
    assert len(one) < sentences.PREDICT_BODY_BYTES
    assert len(many) < sentences.BATCH_BODY_BYTES
    assert Client(make_app()).post("/predict", content=one, headers=JSON).status_code == 200
    assert Client(make_app()).post("/predict/batch", content=many, headers=JSON).status_code == 200


def test_unknown_members_are_ignored(client: Client) -> None:
    answer = client.post("/predict", json={"sentence": SENTENCE, "id": 7})
    assert answer.status_code == 200


def test_other_requests_are_answered_during_a_batch() -> None:
    """One slice of the batch at a time: /health does not wait for the last."""

    class Counting(StubEngine):
        def score(self, text: str) -> Score:
            order.append("sentence")
            return super().score(text)

    import asyncio

    import httpx

    order: list[str] = []
    app = make_app("v1", Counting())

    async def both() -> None:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://replica") as client:
            batch = asyncio.create_task(client.post("/predict/batch", json={"sentences": ["a b"] * 256}))
            while not order:
                await asyncio.sleep(0)
            await client.get("/health")
            order.append("health")
            assert (await batch).status_code == 200

    asyncio.run(both())
    print(order.index("health"), len(order))
    assert 0 < order.index("health") < 256


JSON = {"content-type": "application/json"}
