"""Explanations of a model of any shape: what a prediction loses where a part of the input is left out.

A weight is what the log odds of the label, or the number, lose where a word is left out of a text, or where a column has
its typical value. For a model that adds up its columns that is exact: the weight of a linear model's column is its
coefficient times the distance from the typical value. Where columns work together it is an approximation.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from math import log

from app.engines.engine import Score, Unanswerable
from app.engines.signature import Input, Row, Scalar, Signature

# What one explanation may cost: parts that are tried, and bytes of text that are read for it.
MOST_PARTS = 64
MOST_BYTES = 128 * 1024
_WORD = re.compile(r"\w+")
_LEAST = 1e-12

ScoreBatch = Callable[[Sequence[Input]], list[Score]]


def explain(
    signature: Signature, score_batch: ScoreBatch, x: Input, label: Scalar, top: int
) -> list[tuple[str, float]]:
    """Do what Engine.explain promises. Raises KeyError for an unknown label."""
    if signature.kind == "classes" and label not in signature.labels:
        raise KeyError(label)
    if signature.kind == "classes" and not signature.probabilities:
        return []
    without = _without_words(x) if signature.takes_text else _without_columns(signature, x)
    if not without:
        return []

    def value(score: Score) -> float:
        if not score.probabilities:
            return float(score.label)
        p = min(max(score.probabilities[signature.labels.index(label)], _LEAST), 1 - _LEAST)
        return log(p / (1 - p))

    try:
        whole, *others = map(value, score_batch([x, *without.values()]))
    except Unanswerable:  # of a row that nobody asked for
        return []
    return heaviest(((part, whole - other) for part, other in zip(without, others, strict=True)), top)


def heaviest(weights: Iterable[tuple[str, float]], top: int) -> list[tuple[str, float]]:
    return sorted(weights, key=lambda item: -abs(item[1]))[:top]


def _without_words(text: str) -> dict[str, str]:
    """The text without each of its first words, as many as an explanation may cost."""
    most = min(MOST_PARTS, MOST_BYTES // max(len(text), 1))
    words = list(dict.fromkeys(_WORD.findall(text)))[:most]
    return {word: re.sub(rf"\b{re.escape(word)}\b", "", text) for word in words}


def _without_columns(signature: Signature, row: Row) -> dict[str, Row]:
    """The row with each of its first columns that is not typical as if it were."""
    changed = [
        (i, column)
        for i, (column, value) in enumerate(zip(signature.columns, row, strict=True))
        if value != column.typical
    ]
    return {column.name: (*row[:i], column.typical, *row[i + 1 :]) for i, column in changed[:MOST_PARTS]}
