"""How far the live predictions are from those that the model made of its held-out data.

The measure is the population stability index, the sum over bins of (p - q) ln(p / q) with p live and q baseline: the
symmetric Kullback-Leibler divergence. Credit scoring, where it comes from, reads 0.1 as "look" and 0.25 as "shifted"
(Siddiqi, Credit Risk Scorecards, 2006).
"""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from collections.abc import Mapping, Sequence
from math import log
from pathlib import Path
from typing import Any, NamedTuple

from app.engines.artifact import MANIFEST, ArtifactError
from app.engines.engine import Engine
from app.engines.signature import Scalar, text_of

WINDOW = 1000  # predictions that the index looks at, at least
ENOUGH = 500  # below it noise alone comes near 0.1: with b bins and n predictions it is about (b - 1) / n
STEP = 100  # predictions between two snapshots, so that frequent scrapes cost no memory
FLOOR = 1e-4  # least share of a bin of the baseline: values that the held-out data never had are rare, not impossible


class Bins(NamedTuple):
    """A histogram of shares: (b - 1) upper bounds and (b) shares, bins as in metrics.Histogram."""

    bounds: tuple[float, ...]
    shares: tuple[float, ...]

    @classmethod
    def of(cls, histogram: Mapping[str, Any], total: float = 1.0) -> Bins:
        """From edges (b + 1) and shares (b) as the manifest has them; the outer edges bound nothing.

        Raises KeyError, TypeError and ValueError.
        """
        edges, shares = histogram["edges"], histogram["shares"]
        if len(shares) != len(edges) - 1 or edges != sorted(set(edges)) or abs(sum(shares) - total) > 0.01:
            raise ValueError("edges and shares do not fit")
        return cls(tuple(float(f"{edge:.9g}") for edge in edges[1:-1]), tuple(map(float, shares)))


class Places(NamedTuple):
    """How often each value of a column occurs: a share for each of its `values`, or for each bin between `bounds` (of
    numbers, and of the lengths of texts), and last that of missing values."""

    values: Mapping[Scalar, int]
    bounds: tuple[float, ...]
    shares: tuple[float, ...]

    @classmethod
    def of(cls, column: Mapping[str, Any]) -> Places:
        """From the manifest's entry. Raises KeyError, TypeError and ValueError."""
        missing = float(column["missing"])
        if "edges" in column:
            bins = Bins.of(column, 1 - missing)
            return cls({}, bins.bounds, (*bins.shares, missing))
        values = {value: i for i, value in enumerate(column["values"])}
        shares = tuple(map(float, column["shares"]))
        if len(shares) != len(values):
            raise ValueError("values and shares do not fit")
        return cls(values, (), (*shares, missing))

    def place(self, value: Scalar | None) -> int:
        """The index in `shares` that a value counts for."""
        if value is None:
            return len(self.shares) - 1
        if self.values:
            return self.values[value]
        return bisect_left(self.bounds, len(value) if isinstance(value, str) else value)


class Baseline(NamedTuple):
    """The manifest's entry `baseline`: each distribution that the model has. A model that was imported without data has
    none."""

    labels: tuple[float, ...]  # shares in the order of the signature's labels
    confidence: Bins | None  # of the probability of the predicted label
    unknown: Bins | None  # of the share of a text's tokens that the model does not know
    prediction: Bins | None  # of the predicted number
    columns: dict[str, Places]

    @classmethod
    def of(cls, engine: Engine) -> Baseline:
        """Raises ArtifactError where the manifest has none that can be used."""
        signature = engine.signature
        try:
            baseline = engine.manifest["baseline"]
            if not baseline and not signature.takes_text:
                return cls((), None, None, None, {})
            return cls(
                tuple(float(baseline["labels"][text_of(label)]) for label in signature.labels),
                Bins.of(baseline["confidence"]) if signature.probabilities else None,
                Bins.of(baseline["oov"]) if signature.takes_text else None,
                Bins.of(baseline["prediction"]) if signature.kind == "number" else None,
                {column.name: Places.of(baseline["columns"][column.name]) for column in signature.columns},
            )
        except (KeyError, TypeError, ValueError) as error:
            raise ArtifactError(Path(MANIFEST), f"has no usable baseline ({error!r})") from None

    def shares(self) -> dict[str, Sequence[float]]:
        """Return the shares by distribution, in the order of metrics.Metrics.totals."""
        bins = {"confidence": self.confidence, "unknown": self.unknown, "prediction": self.prediction}
        return {
            **({"label": self.labels} if self.labels else {}),
            **{name: of.shares for name, of in bins.items() if of},
            **{f"column {name}": of.shares for name, of in self.columns.items()},
        }


def psi(counts: Sequence[int], shares: Sequence[float]) -> float:
    """The index of counts (b,) against a baseline's shares (b,): 0 where they agree.

    Every bin gets half a count more (the Jeffreys prior): that one is empty after some hundred predictions says little.
    """
    total = sum(counts) + len(counts) / 2
    floored = [max(share, FLOOR) for share in shares]
    scale = sum(floored)
    pairs = [((count + 0.5) / total, share / scale) for count, share in zip(counts, floored, strict=True)]
    return sum((p - q) * log(p / q) for p, q in pairs)


class Drift:
    """The index over the latest predictions, from running totals that are looked at now and then.

    Nothing is done for a prediction: who reads the index brings the totals. The window is what they grew by since the
    latest snapshot that is at least WINDOW predictions old, or since the start.
    """

    def __init__(self, baseline: Baseline) -> None:
        self._shares = baseline.shares()
        self._window = [[0] * len(shares) for shares in self._shares.values()]
        self._snapshots = deque([(0, self._window)])  # predictions made, and the totals then
        self.size = 0  # predictions in the window

    def update(self, *totals: Sequence[int]) -> None:
        """Counts by bin since the start, in the order of Baseline.shares. Each has the same sum."""
        if not totals:
            return
        made = sum(totals[0])
        snapshots = self._snapshots
        if made - snapshots[-1][0] >= STEP:
            snapshots.append((made, [list(counts) for counts in totals]))
        while len(snapshots) > 1 and made - snapshots[1][0] >= WINDOW:
            snapshots.popleft()
        before, earlier = snapshots[0]
        self.size = made - before
        self._window = [
            [now - then for now, then in zip(counts, past, strict=True)]
            for counts, past in zip(totals, earlier, strict=True)
        ]

    def psi(self) -> dict[str, float]:
        """Return the index by distribution; empty until the window holds ENOUGH predictions."""
        if self.size < ENOUGH:
            return {}
        return {
            name: psi(counts, shares) for counts, (name, shares) in zip(self._window, self._shares.items(), strict=True)
        }
