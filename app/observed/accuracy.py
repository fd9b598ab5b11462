"""How often the latest predictions are probably right, without anybody's labels.

Probabilities are calibrated: of the sentences that were classified with confidence 0.7, about 70 % are right. So the mean
confidence over a window estimates the window's accuracy (Garg et al., Leveraging unlabeled data to predict
out-of-distribution performance, ICLR 2022, call it average confidence; NannyML, confidence-based performance estimation).
Where the same words begin to mean something else, confidence does not notice, and the estimate is wrong.
"""

from __future__ import annotations

from collections import deque
from math import sqrt
from typing import NamedTuple

from app.observed.drift import ENOUGH, STEP, WINDOW

_95_PERCENT = 1.96


class Estimate(NamedTuple):
    """Ratios."""

    mean: float
    low: float
    high: float


class EstimatedAccuracy:
    """Over the same window as drift: the latest WINDOW predictions, or somewhat more, or all since the start."""

    def __init__(self) -> None:
        self._snapshots: deque[tuple[int, float, float]] = deque([(0, 0.0, 0.0)])

    def update(self, made: int, confidence: float, squares: float) -> Estimate | None:
        """From totals since the start: predictions, sums of confidence and of its square. None before ENOUGH are made.

        Each prediction is right with its own probability p, so their number has the variance sum of p (1 - p): the
        interval is that of 95 % of the windows, if the calibration holds.
        """
        snapshots = self._snapshots
        if made - snapshots[-1][0] >= STEP:
            snapshots.append((made, confidence, squares))
        while len(snapshots) > 1 and made - snapshots[1][0] >= WINDOW:
            snapshots.popleft()
        before, then, then_squares = snapshots[0]
        n = made - before
        if n < ENOUGH:
            return None
        right = confidence - then
        radius = _95_PERCENT * sqrt(max(right - (squares - then_squares), 0.0)) / n
        mean = right / n
        return Estimate(mean, max(mean - radius, 0.0), min(mean + radius, 1.0))
