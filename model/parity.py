"""The compiled scorer against the pipeline that it came from."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from sklearn.pipeline import Pipeline

from app.engines.engine import Engine

TOLERANCE = 1e-6  # of a probability
_CHUNK = 1000


class Disparity(Exception):
    """A text that the two judge differently. The message says which, and how."""


def check(pipeline: Pipeline, engine: Engine, texts: Sequence[str]) -> float:
    """The largest difference of a probability over all texts and labels. Raises Disparity at a text with another label,
    or with a probability that differs by more than TOLERANCE."""
    largest = 0.0
    for start in range(0, len(texts), _CHUNK):
        chunk = texts[start : start + _CHUNK]
        expected = pipeline.predict_proba(chunk)
        named = pipeline.predict(chunk)
        for text, p, label, score in zip(chunk, expected, named, engine.score_batch(chunk), strict=True):
            difference = float(np.abs(p - score.probabilities).max())
            if difference > TOLERANCE or str(label) != score.label:
                raise Disparity(
                    f"{text!r} is {label} at {p.max():.9f}, compiled {score.label} at {score.confidence:.9f}"
                )
            largest = max(largest, difference)
    return largest
