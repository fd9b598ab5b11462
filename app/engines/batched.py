"""What the engines have in common that ask a library for many inputs at once.

An explanation is by occlusion, since the model may be of any shape: what the log odds of the label, or the number, lose
where a word is left out, or where a column has its typical value. For a model that adds up its columns that is exact:
the weight of a linear model's column is its coefficient times the distance from the typical value. Where columns work
together it is an approximation.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from app.engines.artifact import read_signature
from app.engines.engine import Score
from app.engines.signature import Input, Row, Scalar

Floats = NDArray[np.float64]

# What one explanation may cost: parts that are tried, and bytes of text that are read for it.
MOST_PARTS = 64
MOST_BYTES = 128 * 1024
_WORD = re.compile(r"\w+")
_LEAST = 1e-12


class Predicted(NamedTuple):
    """A library's predictions for n inputs."""

    labels: Sequence[Scalar]  # (n,): labels of the signature, or numbers
    probabilities: Floats | None = None  # (n, labels)
    spread: Floats | None = None  # (n,)


class BatchEngine(ABC):
    name: str
    slow = True

    def __init__(self, directory: Path, manifest: Mapping[str, Any]) -> None:
        """Raises ArtifactError where the manifest has no signature."""
        self.manifest = manifest
        self.model_version: str = manifest["model_version"]
        self.signature = read_signature(directory, manifest)

    @abstractmethod
    def predict(self, inputs: Sequence[Input]) -> Predicted:
        """Predict one or more inputs."""

    def tokens(self, x: Input) -> tuple[int, int]:
        """Return how many tokens a text has, and how many of them the model does not know."""
        return 0, 0

    def score(self, x: Input) -> Score:
        return self.score_batch([x])[0]

    def score_batch(self, inputs: Sequence[Input]) -> list[Score]:
        if not inputs:
            return []
        labels, probabilities, spread = self.predict(inputs)
        rows = [[]] * len(inputs) if probabilities is None else probabilities.tolist()
        spreads = [None] * len(inputs) if spread is None else spread.tolist()
        place = {label: i for i, label in enumerate(self.signature.labels)}
        return [
            Score(label, p[place[label]] if p else float("nan"), p, *self.tokens(x), s)
            for x, label, p, s in zip(inputs, labels, rows, spreads, strict=True)
        ]

    def explain(self, x: Input, label: Scalar, top: int = 10) -> list[tuple[str, float]]:
        signature = self.signature
        if signature.kind == "classes" and label not in signature.labels:
            raise KeyError(label)
        if signature.kind == "classes" and not signature.probabilities:
            return []
        without = self._without_words(x) if signature.takes_text else self._without_columns(x)
        if not without:
            return []
        labels, probabilities, _ = self.predict([x, *without.values()])
        if probabilities is None:
            values = np.array(labels, dtype=float)
        else:
            p = np.clip(probabilities[:, signature.labels.index(label)], _LEAST, 1 - _LEAST)
            values = np.log(p / (1 - p))
        weights = zip(without, (values[0] - values[1:]).tolist(), strict=True)
        return sorted(weights, key=lambda item: -abs(item[1]))[:top]

    def _without_words(self, text: str) -> dict[str, str]:
        """The text without each of its first words, as many as an explanation may cost."""
        most = min(MOST_PARTS, MOST_BYTES // max(len(text), 1))
        words = list(dict.fromkeys(_WORD.findall(text)))[:most]
        return {word: re.sub(rf"\b{re.escape(word)}\b", "", text) for word in words}

    def _without_columns(self, row: Row) -> dict[str, Row]:
        """The row with each of its first columns that is not typical as if it were."""
        changed = [
            (i, column)
            for i, (column, value) in enumerate(zip(self.signature.columns, row, strict=True))
            if value != column.typical
        ]
        return {column.name: (*row[:i], column.typical, *row[i + 1 :]) for i, column in changed[:MOST_PARTS]}
