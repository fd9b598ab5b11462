"""How good predictions are, and what they look like."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import accuracy_score, f1_score, log_loss, mean_absolute_error, r2_score

from app.engines.engine import Score
from app.engines.signature import Column, Input, Signature, text_of

Floats = NDArray[np.float64]
Labels = NDArray[np.str_]

BINS = 15  # of Guo et al., ICML 2017

# Edges of the baseline's histograms. Values below the first or above the last edge are counted in the first or last bin.
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


def mean_and_spread(by_split: Sequence[dict[str, float]]) -> tuple[dict[str, float], dict[str, float]]:
    """Return the mean and the standard deviation of each measure over the splits."""
    columns = {name: [measured[name] for measured in by_split] for name in by_split[0]}
    return (
        {name: float(np.mean(values)) for name, values in columns.items()},
        {name: float(np.std(values)) for name, values in columns.items()},
    )


def histogram(values: Sequence[float], edges: list[float]) -> dict[str, Any]:
    """Shares of values by bin; a value on an edge belongs to the bin below, as in Prometheus."""
    counts = np.bincount(np.searchsorted(edges[1:-1], values), minlength=len(edges) - 1)
    return {"edges": edges, "shares": (counts / len(values)).tolist(), "mean": float(np.mean(values))}


def baseline(inputs: Sequence[Input], scores: Sequence[Score], signature: Signature) -> dict[str, Any]:
    """What inputs and predictions look like where all is as in training: the manifest's entry that drift is measured from."""
    predicted = [score.label for score in scores]
    made: dict[str, Any] = {
        "rows": len(inputs),
        "labels": {text_of(label): predicted.count(label) / len(inputs) for label in signature.labels},
    }
    if signature.kind == "number":
        made["prediction"] = histogram([float(number) for number in predicted], deciles(predicted))
    if signature.probabilities:
        made["confidence"] = histogram([score.confidence for score in scores], CONFIDENCE)
    if signature.takes_text:
        unknown = [score.unknown / score.tokens if score.tokens else 0.0 for score in scores]
        made["oov"] = histogram(unknown, UNKNOWN_SHARE)
        made["length"] = histogram([float(len(text)) for text in inputs], [float(edge) for edge in CHARACTERS])
    else:
        columns = zip(signature.columns, zip(*inputs, strict=True), strict=True)
        made["columns"] = {column.name: _places(column, values) for column, values in columns}
    return made


def _places(column: Column, values: Sequence[Any]) -> dict[str, Any]:
    """Return a column's baseline: shares of its values, or of bins between its deciles, and that of missing values."""
    present = [value for value in values if value is not None]
    missing = 1 - len(present) / len(values)
    if column.type in ("category", "boolean"):
        known = column.values or (False, True)
        return {
            "values": list(known),
            "shares": [present.count(value) / len(values) for value in known],
            "missing": missing,
        }
    numbers = [float(len(value)) if isinstance(value, str) else float(value) for value in present]
    made = histogram(numbers, deciles(numbers))
    return {"edges": made["edges"], "shares": [share * (1 - missing) for share in made["shares"]], "missing": missing}


def deciles(values: Sequence[Any]) -> list[float]:
    """Edges of bins that hold about a tenth of the values each: fewer where many are the same."""
    array = np.asarray(values, dtype=np.float64)
    inner = sorted({float(f"{edge:.9g}") for edge in np.quantile(array, np.arange(1, 10) / 10)})
    beyond = float(array.max() - array.min()) or 1.0
    return [inner[0] - beyond, *inner, inner[-1] + beyond]


def agreement(scores: Sequence[Score], target: Sequence[Any], signature: Signature) -> dict[str, float]:
    """How good predictions are for inputs whose labels or numbers are known; nothing where they are others than the
    model's."""
    predicted = [score.label for score in scores]
    if signature.kind == "number":
        if not all(isinstance(value, int | float) for value in target):
            return {}
        return {
            "mean_absolute_error": float(mean_absolute_error(target, predicted)),
            "r2": float(r2_score(target, predicted)),
        }
    named = [text_of(label) for label in target]
    if not set(named) <= {text_of(label) for label in signature.labels}:
        return {}
    texts = [text_of(label) for label in predicted]
    return {
        "accuracy": float(accuracy_score(named, texts)),
        "macro_f1": float(f1_score(named, texts, average="macro", zero_division=0)),
    }
