"""Looked at after every single observation, the intervals are wrong as seldom as they promise."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from random import Random

import pytest

from release.sequential import Interval, difference, mean_change, proportion

ALPHA = 0.1
RUNS = 400
LENGTH = 600
interval = cache(proportion)


def wrong(looks: Callable[[Random], bool]) -> float:
    """The share of RUNS in which an interval ever missed the truth."""
    share = sum(looks(Random(seed)) for seed in range(RUNS)) / RUNS
    print(f"wrong at some time in {share:.1%} of the runs, promised: {ALPHA:.0%} at most")
    return share


@pytest.mark.parametrize("p", [0.01, 0.2, 0.9])
def test_proportion_is_valid_at_all_times(p: float) -> None:
    def looks(random: Random) -> bool:
        successes = 0
        for n in range(1, LENGTH):
            successes += random.random() < p
            low, high = interval(successes, n, ALPHA)
            if not low <= p <= high:
                return True
        return False

    assert wrong(looks) <= ALPHA


def test_repeated_looks_at_an_ordinary_interval_raise_false_alarms() -> None:
    """What this is for: the same looks at the usual 90 % interval."""

    def looks(random: Random) -> bool:
        successes = 0
        for n in range(1, LENGTH):
            successes += random.random() < 0.5
            if n > 30 and abs(successes / n - 0.5) > 1.645 * (0.25 / n) ** 0.5:
                return True
        return False

    assert wrong(looks) > 3 * ALPHA


@pytest.mark.parametrize("spread", [0.02, 0.3, 1.0])
def test_mean_change_is_valid_at_all_times(spread: float) -> None:
    def looks(random: Random) -> bool:
        total = squares = 0.0
        for n in range(1, LENGTH):
            value = spread if random.random() < 0.25 else -spread / 3  # mean 0, not symmetric
            total, squares = total + value, squares + value * value
            low, high = mean_change(total, squares, n, ALPHA)
            if not low <= 0 <= high:
                return True
        return False

    assert wrong(looks) <= ALPHA


def test_difference_covers_the_difference() -> None:
    def looks(random: Random) -> bool:
        one = other = 0
        for n in range(1, LENGTH):
            one, other = one + (random.random() < 0.05), other + (random.random() < 0.05)
            if interval(other, n, ALPHA / 2).low > interval(one, n, ALPHA / 2).high:
                return True
        return False

    assert wrong(looks) <= ALPHA
    assert difference((5, 100), (50, 100), ALPHA) == Interval(
        proportion(50, 100, ALPHA / 2).low - proportion(5, 100, ALPHA / 2).high,
        proportion(50, 100, ALPHA / 2).high - proportion(5, 100, ALPHA / 2).low,
    )


def test_they_close_in() -> None:
    for n, width in ((100, 0.09), (1000, 0.012), (10_000, 0.0015)):
        low, high = proportion(0, n, 0.01)
        print(n, low, high)
        assert (low, high < width) == (0.0, True)
    assert proportion(0, 0, ALPHA) == (0.0, 1.0)
    assert mean_change(0.0, 0.0, 0, ALPHA) == (-1.0, 1.0)
    low, high = proportion(10**6, 10**7, 0.01)
    assert 0.099 < low < 0.1 < high < 0.101
    low, high = proportion(990, 1000, 0.01)
    other = proportion(10, 1000, 0.01)
    assert (low, high) == pytest.approx((1 - other.high, 1 - other.low))


@pytest.mark.parametrize(("successes", "n"), [(2, 1), (-1, 1)])
def test_impossible_counts_are_refused(successes: int, n: int) -> None:
    with pytest.raises(ValueError, match=f"{successes} successes of {n}"):
        proportion(successes, n, ALPHA)
