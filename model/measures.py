"""How good predictions are, and what they look like."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import accuracy_score, f1_score, log_loss

from app.engines.engine import Score

Floats = NDArray[np.float64]
Labels = NDArray[np.str_]

BINS = 15  # of Guo et al., ICML 2017

# Inner edges of the baseline's histograms. The outer ones bound nothing; they say how far values go.
CONFIDENCE = [0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0]
UNKNOWN_SHARE = [0.0, 0.05, 0.1, 0.15, 0.2, 0.3, 0.5, 1.0]
CHARACTERS = [0, 20, 40, 60, 80, 100, 120, 140, 8192]


def reliability(p: Floats, labels: Labels) -> list[tuple[float, float, float]]:
    """Of probabilities (n, k), columns in alphabetical order of labels (n,): for each of BINS equal bins of confidence
    that is not empty, its share of all, mean confidence and accuracy."""
    names = np.unique(labels)
    confidence = p.max(axis=1)
    right = names[p.argmax(axis=1)] == labels
    bins = np.minimum((confidence * BINS).astype(int), BINS - 1)
    return [
        (float((bins == b).mean()), float(confidence[bins == b].mean()), float(right[bins == b].mean()))
        for b in np.unique(bins)
    ]


def measure(p: Floats, labels: Labels) -> dict[str, float]:
    """Accuracy, macro-F1, expected calibration error (Naeini et al., AAAI 2015), log loss of probabilities (n, k)."""
    predicted = np.unique(labels)[p.argmax(axis=1)]
    return {
        "accuracy": float(accuracy_score(labels, predicted)),
        "macro_f1": float(f1_score(labels, predicted, average="macro", zero_division=0)),
        "ece": sum(share * abs(confidence - accuracy) for share, confidence, accuracy in reliability(p, labels)),
        "log_loss": float(log_loss(labels, p)),
    }


def histogram(values: Sequence[float], edges: list[float]) -> dict[str, Any]:
    """Shares of values by bin; a value on an edge belongs to the bin below, as in Prometheus."""
    counts = np.bincount(np.searchsorted(edges[1:-1], values), minlength=len(edges) - 1)
    return {"edges": edges, "shares": (counts / len(values)).tolist(), "mean": float(np.mean(values))}


def baseline(texts: Sequence[str], scores: Sequence[Score], labels: Sequence[str]) -> dict[str, Any]:
    """What predictions look like where all is as in training: the manifest's entry that drift is measured from."""
    predicted = [score.label for score in scores]
    return {
        "rows": len(texts),
        "labels": {label: predicted.count(label) / len(texts) for label in labels},
        "confidence": histogram([score.confidence for score in scores], CONFIDENCE),
        "oov": histogram([score.unknown / score.tokens if score.tokens else 0.0 for score in scores], UNKNOWN_SHARE),
        "length": histogram([float(len(text)) for text in texts], [float(edge) for edge in CHARACTERS]),
    }
