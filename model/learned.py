"""What learning gives: the model, and what was measured on texts that a model had not seen."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from sklearn.pipeline import Pipeline

from app.engines.engine import Score
from model.measures import Labels
from model.train import Tuning


class Evaluation(NamedTuple):
    """What m held-out texts said, by k labels."""

    texts: list[str]
    labels: Labels  # (m,)
    scores: list[Score]
    by_split: list[dict[str, float]]  # the measures of each split of the texts
    how: str  # texts were held out and measured, in sentences


class Learned(NamedTuple):
    """A pipeline that learned from all texts, with the evaluation of one or more that did not."""

    pipeline: Pipeline
    classifier: str  # in words
    tuning: Tuning
    evaluation: Evaluation
    # What compares the artifacts in a directory with the pipeline on all texts, where engine and pipeline would take too long
    # for all of them, and are compared on the held-out ones. Raises Disparity.
    compare_all: Callable[[Path], float] | None = None
