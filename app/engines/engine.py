"""What the API asks of a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol


class Score(NamedTuple):
    """The answer for one text."""

    label: str  # the most probable one
    confidence: float  # its probability
    probabilities: list[float]  # in the order of Engine.labels; they sum to 1
    tokens: int  # words (or characters, where a model has no words) that were looked up
    unknown: int  # how many of these the model never saw in training


class Engine(Protocol):
    """A loaded model. Any text is scored, empty or odd as it may be: no input raises."""

    name: str  # "compiled" or "sklearn"
    labels: tuple[str, ...]
    model_version: str
    manifest: Mapping[str, Any]

    def score(self, text: str) -> Score: ...

    def score_batch(self, texts: Sequence[str]) -> list[Score]:
        """As `score` for each text, in order; cheaper a text than one by one."""
        ...

    def explain(self, text: str, label: str, top: int = 10) -> list[tuple[str, float]]:
        """The n-grams of the text that weighed most for or against the label, heaviest first.

        A weight is what the n-gram adds to the label's logit: exact for a linear model.
        Raises KeyError for an unknown label.
        """
        ...
