"""Inputs in, predictions out: the one implementation behind every route, as bytes of JSON."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from math import isfinite
from time import perf_counter
from typing import Any

from app.engines.engine import Engine, Score, Unanswerable
from app.engines.signature import Input, text_of
from app.http.answers import Answer, to_json
from app.http.problems import Problem
from app.http.sentences import sentence_of
from app.observed.metrics import Metrics
from app.settings import Settings

SLICE = 16  # inputs of a batch that are scored in one go; then waiting requests are answered
NOT_READY = "The model has not made its first prediction yet."


class Predictor:
    """One version's view of a model. Its methods raise Problem where the request is wrong."""

    def __init__(self, settings: Settings, engine: Engine, metrics: Metrics) -> None:
        self.engine = engine
        self.metrics = metrics
        self.ready = False
        self.parse: Callable[[bytes], Input] = parse_sentence
        self._parse_batch: Callable[[bytes], list[Input]] = _parse_sentences
        if not engine.signature.takes_text:
            from app.http.validation import Rows  # imports pydantic: see sentences.py

            rows = Rows(engine.signature)
            self.parse, self._parse_batch = rows.one, rows.many
        self._origin = {"engine": engine.name, "instance": settings.instance}
        self._names = [text_of(label) for label in engine.signature.labels]
        # v1 has as many answers as the model has labels, so they are made once.
        self._answers = {label: self._answer(label) for label in engine.signature.labels}
        debug = settings.version == "v2"
        self._batch_item = self._explained if debug else self._prediction
        self._batch_members = self._origin if debug else {}

    def warm_up(self) -> None:
        """One prediction, after which the replica is ready. Raises RuntimeError where the prediction is invalid."""
        signature = self.engine.signature
        score = self.engine.score(signature.typical)
        known = score.label in signature.labels if signature.labels else isfinite(float(score.label))
        if not known or not all(map(isfinite, score.probabilities)):
            raise RuntimeError(f"the model gave {score} for {signature.typical!r}")
        self.ready = True

    def check_ready(self) -> None:
        """Raises Problem 503 before warm_up."""
        if not self.ready:
            raise Problem(503, NOT_READY)

    def answer_of(self, score: Score) -> Answer:
        """v1's answer to a score."""
        return self._answers[score.label] if self._answers else self._answer(score.label)

    def scored(self, body: bytes, request_id: str) -> tuple[Input, Score]:
        """Score one input; count it, and keep it for its label where that is wanted. Raises Problem."""
        x = self.parse(body)
        try:
            score = self.engine.score(x)
        except Unanswerable as error:
            raise _unanswerable(error) from None
        self.metrics.predicted(x, score)
        if self.metrics.feedback:
            self.metrics.feedback.record(request_id, x, score)
        return x, score

    def predict(self, body: bytes, request_id: str) -> Answer:
        """v1's answer to a body. Raises Problem."""
        _, score = self.scored(body, request_id)
        return self.answer_of(score)

    async def predict_debug(self, body: bytes, request_id: str) -> Answer:
        """v2's answer to a body. Raises Problem."""
        started = perf_counter()
        x, score = self.scored(body, request_id)
        # A slow engine explains in a thread, so that the explanation of a long text holds up no other request.
        explain = self.engine.explain
        parts = await asyncio.to_thread(explain, x, score.label) if self.engine.slow else explain(x, score.label)
        named = ("top_ngrams", "ngram") if self.engine.signature.takes_text else ("top_columns", "column")
        document = {
            "prediction": score.label,
            "model_version": self.engine.model_version,
            **self._details(score),
            named[0]: [{named[1]: part, "weight": weight} for part, weight in parts],
            **self._origin,
            "elapsed_ms": _milliseconds(started),
        }
        return Answer.of(200, to_json(document))

    async def predict_batch(self, body: bytes) -> Answer:
        started = perf_counter()
        inputs = self._parse_batch(body)
        document: dict[str, Any] = {
            "predictions": [self._batch_item(score) for score in await self.score(inputs)],
            "model_version": self.engine.model_version,
            **self._batch_members,
        }
        if self._batch_members:
            document["elapsed_ms"] = _milliseconds(started)
        return Answer.of(200, to_json(document))

    async def score(self, inputs: Sequence[Input]) -> list[Score]:
        """Score the inputs in order and count them in the metrics. Other requests are answered in between. Raises Problem."""
        try:
            scores = await self._scores(inputs)
        except Unanswerable as error:
            raise _unanswerable(error) from None
        for x, score in zip(inputs, scores, strict=True):
            self.metrics.predicted(x, score)
        return scores

    async def _scores(self, inputs: Sequence[Input]) -> list[Score]:
        if self.engine.slow:
            return await asyncio.to_thread(self.engine.score_batch, inputs)
        scores: list[Score] = []
        for start in range(0, len(inputs), SLICE):
            if start:
                await asyncio.sleep(0)
            scores += self.engine.score_batch(inputs[start : start + SLICE])
        return scores

    def _answer(self, label: object) -> Answer:
        return Answer.of(200, to_json({"prediction": label, "model_version": self.engine.model_version}))

    def _prediction(self, score: Score) -> dict[str, Any]:
        return {"prediction": score.label}

    def _explained(self, score: Score) -> dict[str, Any]:
        return {"prediction": score.label, **self._details(score)}

    def _details(self, score: Score) -> dict[str, Any]:
        """Return what v2 adds to an answer: probabilities by label, or the number's spread, where the model has them."""
        if score.probabilities:
            return {"prediction_proba_dict": dict(zip(self._names, score.probabilities, strict=True))}
        return {} if score.spread is None else {"prediction_spread": score.spread}


def parse_sentence(body: bytes) -> str:
    """Raises Problem: 400, 413 or 422."""
    text = sentence_of(body)
    if text is None:
        from app.http.validation import sentence  # imports pydantic: see sentences.py

        return sentence(body)
    return text


def _parse_sentences(body: bytes) -> list[str]:
    """Raises Problem: 400, 413 or 422."""
    from app.http.validation import sentences  # imports pydantic: see sentences.py

    return sentences(body)


def _unanswerable(error: Unanswerable) -> Problem:
    return Problem(422, f"The model cannot answer this: {error}.")


def _milliseconds(started: float) -> float:
    return round((perf_counter() - started) * 1000, 3)
