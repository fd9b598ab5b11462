"""From logits to probabilities."""

from __future__ import annotations

from collections.abc import Sequence
from math import exp


def sigmoid(z: Sequence[float]) -> list[float]:
    """One against the rest, normalised, as OneVsRestClassifier and Platt's calibration do it."""
    # Of the two forms, the one whose exp cannot overflow.
    return _shares([1 / (1 + exp(-x)) if x > 0 else exp(x) / (1 + exp(x)) for x in z])


def softmax(z: Sequence[float]) -> list[float]:
    top = max(z)
    return _shares([exp(x - top) for x in z])


def _shares(parts: list[float]) -> list[float]:
    total = sum(parts)
    if not total:  # every sigmoid is less than a float can be; scikit-learn then prefers no label either
        return [1 / len(parts)] * len(parts)
    return [part / total for part in parts]
