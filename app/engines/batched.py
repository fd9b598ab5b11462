"""What the engines have in common that ask a library for many inputs at once."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from app.engines import occlusion
from app.engines.artifact import read_signature
from app.engines.engine import NOT_FINITE, Score, Unanswerable
from app.engines.signature import Input, Scalar

Floats = NDArray[np.float64]


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
        labels, probabilities, spread = self._answers(inputs)
        rows = [[]] * len(inputs) if probabilities is None else probabilities.tolist()
        spreads = [None] * len(inputs) if spread is None else spread.tolist()
        place = {label: i for i, label in enumerate(self.signature.labels)}
        return [
            Score(label, p[place[label]] if p else float("nan"), p, *self.tokens(x), s)
            for x, label, p, s in zip(inputs, labels, rows, spreads, strict=True)
        ]

    def _answers(self, inputs: Sequence[Input]) -> Predicted:
        """Raises Unanswerable, which of several inputs names the first one."""
        try:
            made = self.predict(inputs)
            numbers = made.labels if self.signature.kind == "number" else made.probabilities
            if numbers is not None and not np.isfinite(np.asarray(numbers, dtype=np.float64)).all():
                raise ValueError(NOT_FINITE)
            return made
        except ValueError as error:
            # Also scikit-learn's own, for NaN and infinity that a step of the pipeline has made.
            if len(inputs) == 1:
                raise Unanswerable(str(error).partition("\n")[0].rstrip(".")) from None
        for i, x in enumerate(inputs):
            try:
                self._answers([x])
            except Unanswerable as error:
                raise Unanswerable(f"input {i}: {error}") from None
        raise Unanswerable("these inputs at once")

    def explain(self, x: Input, label: Scalar, top: int = 10) -> list[tuple[str, float]]:
        return occlusion.explain(self.signature, self.score_batch, x, label, top)
