"""An engine against the estimator that it came from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from app.engines.engine import Engine
from app.engines.signature import Input

TOLERANCE = 1e-6  # of a probability, and of a number by the scale of all
SINGLE_TOLERANCE = 1e-4  # of a probability, where one of the two computes in 32 bits
_CHUNK = 1000


class Disparity(Exception):
    """An input that the two judge differently. The message says which, and how."""


class Estimator(Protocol):
    """What is compared with: predict, and predict_proba where the engine gives probabilities."""

    def predict(self, inputs: Any, /) -> Any: ...


def check(estimator: Estimator, engine: Engine, inputs: Sequence[Input], tolerance: float = TOLERANCE) -> float:
    """The largest difference of a probability, or of a number relative to the scale of all, over all inputs.

    Raises Disparity at an input with another label, or where the difference exceeds `tolerance`. Labels that are equally
    probable to within rounding may change places. Where the estimator's own probabilities are none (NaN, or not summing
    to 1, as at the ends of what floats can hold), only labels are compared.
    """
    largest = 0.0
    for start in range(0, len(inputs), _CHUNK):
        chunk = inputs[start : start + _CHUNK]
        compare = _numbers if engine.signature.kind == "number" else _classes
        largest = max(largest, compare(estimator, engine, chunk, tolerance))
    return largest


def _classes(estimator: Any, engine: Engine, chunk: Sequence[Input], tolerance: float) -> float:
    largest = 0.0
    named = np.asarray(estimator.predict(chunk)).ravel().tolist()
    scores = engine.score_batch(chunk)
    if not engine.signature.probabilities:
        for x, label, score in zip(chunk, named, scores, strict=True):
            if label != score.label:
                raise Disparity(f"{x!r} is {label}, {engine.name} {score.label}")
        return largest
    place = {label: i for i, label in enumerate(engine.signature.labels)}
    with np.errstate(all="ignore"):
        expected = np.asarray(estimator.predict_proba(chunk))
    for x, p, label, score in zip(chunk, expected, named, scores, strict=True):
        usable = bool(np.isfinite(p).all()) and abs(p.sum() - 1) < SINGLE_TOLERANCE
        difference = float(np.abs(p - score.probabilities).max()) if usable else 0.0
        tie = usable and abs(p[place[label]] - p[place[score.label]]) < 1e-12 < p[place[label]] < 1 - 1e-12
        if difference > tolerance or (label != score.label and not tie):
            raise Disparity(f"{x!r} is {label} at {p.max():.9f}, {engine.name} {score.label} at {score.confidence:.9f}")
        largest = max(largest, difference)
    return largest


def _numbers(estimator: Any, engine: Engine, chunk: Sequence[Input], tolerance: float) -> float:
    expected = np.asarray(estimator.predict(chunk), dtype=np.float64).ravel()
    given = np.array([score.label for score in engine.score_batch(chunk)], dtype=np.float64)
    differences = np.abs(expected - given) / max(float(np.abs(expected).max(initial=0.0)), 1e-300)
    worst = int(differences.argmax())
    if not differences[worst] <= tolerance:
        raise Disparity(f"{chunk[worst]!r} is {expected[worst]:.9g}, {engine.name} {given[worst]:.9g}")
    return float(differences[worst])
