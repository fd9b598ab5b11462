"""Counts by bin."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from itertools import accumulate

from app.observed.exposition import number

# A sentence takes about 100 µs, a batch of the longest ones about a second.
DURATION_SECONDS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)


class Histogram:
    """Counts by bin: the i-th holds bounds[i-1] < x <= bounds[i], the last what exceeds every bound."""

    __slots__ = ("bounds", "counts", "sum")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = tuple(bounds)
        self.counts = [0] * (len(self.bounds) + 1)
        self.sum = 0.0

    def observe(self, x: float) -> None:
        self.counts[bisect_left(self.bounds, x)] += 1
        self.sum += x

    def buckets(self) -> list[tuple[str, int]]:
        """Return cumulative counts by upper bound, as Prometheus expects them."""
        return list(zip([*map(number, self.bounds), "+Inf"], accumulate(self.counts), strict=True))
