"""Sentences in, labels out: the one implementation behind every route, as bytes of JSON."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from math import isfinite
from time import perf_counter
from typing import Any

from app.engines.engine import Engine, Score
from app.http.answers import Answer, to_json
from app.http.problems import Problem
from app.http.sentences import sentence_of
from app.observed.metrics import Metrics
from app.settings import Settings

PROBE = "ready?"
SLICE = 16  # sentences of a batch that are scored before other requests get their turn
NOT_READY = "The model has not made its first prediction yet."


class Predictor:
    """One version's view of a model. Its methods raise Problem for whatever is the client's fault."""

    def __init__(self, settings: Settings, engine: Engine, metrics: Metrics) -> None:
        self.engine = engine
        self.metrics = metrics
        self.ready = False
        self._origin = {"engine": engine.name, "instance": settings.instance}
        # v1 has as many answers as the model has labels, so they are made once.
        self._answers = {
            label: Answer.of(200, to_json({"prediction": label, "model_version": engine.model_version}))
            for label in engine.labels
        }
        debug = settings.version == "v2"
        self.predict: Callable[[bytes], Answer] = self._predict_debug if debug else self._predict
        self._batch_items = self._explained if debug else self._labels
        self._batch_members = self._origin if debug else {}

    def warm_up(self) -> None:
        """One prediction, after which the replica is ready. Raises RuntimeError where it makes no sense."""
        score = self.engine.score(PROBE)
        if score.label not in self.engine.labels or not all(map(isfinite, score.probabilities)):
            raise RuntimeError(f"the model gave {score} for {PROBE!r}")
        self.ready = True

    def check_ready(self) -> None:
        """Raises Problem 503 before warm_up."""
        if not self.ready:
            raise Problem(503, NOT_READY)

    def answer_of(self, score: Score) -> Answer:
        """v1's answer."""
        return self._answers[score.label]

    def _predict(self, body: bytes) -> Answer:
        text = parse_sentence(body)
        score = self.engine.score(text)
        self.metrics.predicted(text, score)
        return self._answers[score.label]

    def _predict_debug(self, body: bytes) -> Answer:
        started = perf_counter()
        text = parse_sentence(body)
        score = self.engine.score(text)
        self.metrics.predicted(text, score)
        ngrams = self.engine.explain(text, score.label)
        document = {
            "prediction": score.label,
            "model_version": self.engine.model_version,
            "prediction_proba_dict": self._probabilities(score),
            "top_ngrams": [{"ngram": ngram, "weight": weight} for ngram, weight in ngrams],
            **self._origin,
            "elapsed_ms": _milliseconds(started),
        }
        return Answer.of(200, to_json(document))

    async def predict_batch(self, body: bytes) -> Answer:
        started = perf_counter()
        from app.http.validation import sentences  # imports pydantic: see sentences.py

        texts = sentences(body)
        document: dict[str, Any] = {
            "predictions": self._batch_items(await self.score(texts)),
            "model_version": self.engine.model_version,
            **self._batch_members,
        }
        if self._batch_members:
            document["elapsed_ms"] = _milliseconds(started)
        return Answer.of(200, to_json(document))

    async def score(self, texts: Sequence[str]) -> list[Score]:
        """In order, and counted. Other requests are answered in between."""
        scores: list[Score] = []
        for start in range(0, len(texts), SLICE):
            if start:
                await asyncio.sleep(0)
            scores += self.engine.score_batch(texts[start : start + SLICE])
        for text, score in zip(texts, scores, strict=True):
            self.metrics.predicted(text, score)
        return scores

    def _labels(self, scores: list[Score]) -> list[dict[str, Any]]:
        return [{"prediction": score.label} for score in scores]

    def _explained(self, scores: list[Score]) -> list[dict[str, Any]]:
        return [{"prediction": score.label, "prediction_proba_dict": self._probabilities(score)} for score in scores]

    def _probabilities(self, score: Score) -> dict[str, float]:
        return dict(zip(self.engine.labels, score.probabilities, strict=True))


def parse_sentence(body: bytes) -> str:
    """Raises Problem: 400, 413 or 422."""
    text = sentence_of(body)
    if text is None:
        from app.http.validation import sentence  # imports pydantic: see sentences.py

        return sentence(body)
    return text


def _milliseconds(started: float) -> float:
    return round((perf_counter() - started) * 1000, 3)
