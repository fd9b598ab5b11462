"""The interface between the API and a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from app.engines.signature import Input, Scalar, Signature

NOT_FINITE = "it predicts NaN or infinity"


class Unanswerable(Exception):
    """An input that fits the signature, and that the model itself cannot answer: a logarithm of it is taken, and it is
    negative, say. The message says why, in one line."""


class Score(NamedTuple):
    """The answer for one input."""

    label: Scalar  # what the model predicts: one of the signature's labels, or a number
    confidence: float  # its probability; NaN where the model gives none
    probabilities: list[float]  # in the order of Signature.labels, and they sum to 1; empty where the model gives none
    tokens: int = 0  # of a text: words (or characters, where a model has no words) that were looked up
    unknown: int = 0  # how many of these the model never saw in training
    spread: float | None = None  # of a number: its standard deviation, where the model has one


class Engine(Protocol):
    """A loaded model. It scores every text, even an empty one, and every row that fits the signature. Of a row that the model
    cannot answer it raises Unanswerable."""

    name: str  # "compiled", "onnx" or "sklearn"
    signature: Signature
    model_version: str
    manifest: Mapping[str, Any]
    slow: bool  # whether explanations and batches run in a thread, so that other requests are not held up

    def score(self, x: Input) -> Score: ...

    def score_batch(self, inputs: Sequence[Input]) -> list[Score]:
        """Return the scores of inputs in their order; takes less time for each input than `score`."""
        ...

    def explain(self, x: Input, label: Scalar, top: int = 10) -> list[tuple[str, float]]:
        """What weighed most for or against the prediction `label`, heaviest first: n-grams of a text, or columns.

        A weight is what the part adds to the label's logit, or to the predicted number. Empty for a model of classes
        without probabilities. Raises KeyError for an unknown label.
        """
        ...
