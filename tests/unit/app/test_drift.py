"""The drift index: its formula, its window, and what it says of simulated shifts."""

from __future__ import annotations

import random
from math import log
from typing import Any

import pytest

from app.engines.artifact import ArtifactError
from app.engines.engine import Score
from app.observed.drift import ENOUGH, STEP, WINDOW, Baseline, Bins, Drift, psi
from tests.unit.app.stub_api import LABELS, MANIFEST, Client, StubEngine, make_app

LOOK, SHIFTED = 0.1, 0.25
DISTRIBUTIONS = ("label", "confidence", "unknown")
SHARES = (0.3, 0.2, 0.2, 0.1, 0.1, 0.05, 0.03, 0.01, 0.01, 0.0)


def draw(rng: random.Random, shares: tuple[float, ...], n: int) -> list[int]:
    counts = [0] * len(shares)
    for i in rng.choices(range(len(shares)), shares, k=n):
        counts[i] += 1
    return counts


def test_psi_is_the_formula() -> None:
    """With half a count a bin, so that 3 of 4 is 3.5 of 5."""
    assert psi([3, 1], [0.5, 0.5]) == pytest.approx((0.7 - 0.5) * log(0.7 / 0.5) + (0.3 - 0.5) * log(0.3 / 0.5))


def test_psi_of_many_agreeing_predictions_is_nought() -> None:
    assert psi([300_000, 200_000, 500_000], [0.3, 0.2, 0.5]) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("n", [ENOUGH, WINDOW, 10_000])
def test_noise_is_not_taken_for_drift(n: int) -> None:
    rng = random.Random(0)
    values = sorted(psi(draw(rng, SHARES, n), SHARES) for _ in range(300))
    print(f"n={n}: median {values[150]:.4f}, 99 % below {values[297]:.4f}, expected about {9 / n:.4f}")
    assert values[297] < LOOK
    if n >= WINDOW:
        assert values[297] < LOOK / 2


@pytest.mark.parametrize(
    "shifted",
    [tuple(reversed(SHARES)), (0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1), (0, 0, 0, 0, 1, 0, 0, 0, 0, 0)],
    ids=["reversed", "uniform", "one bin"],
)
@pytest.mark.parametrize("n", [ENOUGH, WINDOW])
def test_shifts_are_seen(shifted: tuple[float, ...], n: int) -> None:
    rng = random.Random(0)
    values = [psi(draw(rng, shifted, n), SHARES) for _ in range(100)]
    print(f"n={n}: least {min(values):.3f}")
    assert min(values) > SHIFTED


def make_drift() -> Drift:
    bins = Bins((0.5,), (0.5, 0.5))
    return Drift(Baseline((0.5, 0.5), bins, bins, None, {}))


def test_nothing_is_said_of_few_predictions() -> None:
    drift = make_drift()
    few = ENOUGH - 1
    drift.update([few, 0], [few, 0], [few, 0])
    assert drift.psi() == {}
    drift.update([ENOUGH, 0], [ENOUGH, 0], [ENOUGH, 0])
    assert tuple(drift.psi()) == DISTRIBUTIONS


def test_the_window_slides_and_stays_small() -> None:
    drift = make_drift()
    a = b = 0
    for made in range(0, 50_000, 10):
        a, b = (made // 2, made // 2) if made < 25_000 else (12_500, made - 12_500)
        drift.update([a, b], [a, b], [a, b])
        assert drift.size == made if made < WINDOW else WINDOW <= drift.size < WINDOW + STEP
    assert len(drift._snapshots) <= WINDOW // STEP + 2
    # The last thousand predictions are all of the second label; the first 25,000 are forgotten.
    assert drift.psi()["label"] == pytest.approx(psi([0, drift.size], (0.5, 0.5)))


def test_one_scrape_after_a_burst_sees_all_of_it() -> None:
    drift = make_drift()
    drift.update([50_000, 0], [50_000, 0], [50_000, 0])
    assert drift.size == 50_000


class Shifting(StubEngine):
    """Predictions drawn from the baseline, and from `mode` on from somewhere else in one respect."""

    def __init__(self) -> None:
        self.rng = random.Random(1)
        self.mode = "baseline"

    def pick(self, histogram: dict[str, Any]) -> float:
        (i,) = self.rng.choices(range(10), histogram["shares"])
        return (i + self.rng.uniform(0.01, 0.99)) / 10

    def score(self, text: str) -> Score:
        label = "worry" if self.mode == "label" else self.rng.choice(LABELS)
        confidence = 0.95 if self.mode == "confidence" else self.pick(MANIFEST["baseline"]["confidence"])
        unknown = 0.9 if self.mode == "unknown" else self.pick(MANIFEST["baseline"]["oov"])
        return Score(label, confidence, [1 / 13] * 13, 1000, round(1000 * unknown))


@pytest.mark.parametrize("shift", ["baseline", "label", "confidence", "unknown"])
def test_a_simulated_shift_shows_in_its_gauge_alone(shift: str) -> None:
    engine = Shifting()
    client = Client(make_app("v1", engine))

    def gauges(batches: int) -> dict[str, float]:
        for _ in range(batches):
            client.post("/predict/batch", json={"sentences": ["x"] * 250})
            series = client.series()
        print(shift, engine.mode, {name: value for name, value in series.items() if "drift" in name})
        return {name: series[f'vmlops_drift_psi{{distribution="{name}"}}'] for name in DISTRIBUTIONS}

    assert max(gauges(8).values()) < LOOK
    engine.mode = shift
    after = gauges(8)
    assert {name for name, value in after.items() if value > SHIFTED} == {shift} - {"baseline"}
    assert {name for name, value in after.items() if value > LOOK} == {shift} - {"baseline"}
    engine.mode = "baseline"
    assert max(gauges(8).values()) < LOOK


def test_the_baseline_is_exported() -> None:
    series = Client(make_app()).series()
    assert {name for name in series if name.startswith("vmlops_baseline")} == {
        f'vmlops_baseline_label_ratio{{label="{label}"}}' for label in LABELS
    }


@pytest.mark.parametrize(
    "baseline",
    [
        None,
        {},
        {**MANIFEST["baseline"], "labels": {"anger": 1.0}},
        {**MANIFEST["baseline"], "confidence": {"edges": [0, 0.5, 1], "shares": [1.0]}},
        {**MANIFEST["baseline"], "confidence": {"edges": [0, 1, 0.5], "shares": [0.5, 0.5]}},
        {**MANIFEST["baseline"], "oov": {"edges": [0, 0.5, 1], "shares": [0.1, 0.1]}},
    ],
    ids=["none", "empty", "a label missing", "too few shares", "out of order", "no distribution"],
)
def test_a_model_without_a_usable_baseline_is_refused(baseline: Any) -> None:
    class Without(StubEngine):
        manifest = {"baseline": baseline}  # noqa: RUF012

    with pytest.raises(ArtifactError, match="no usable baseline"):
        make_app("v1", Without())
