"""The estimated accuracy against what is known to be right: on data as in training, shifted data, and where it must be wrong."""

from __future__ import annotations

from random import Random

from app.observed.accuracy import Estimate, EstimatedAccuracy
from app.observed.drift import ENOUGH, WINDOW


class Stream:
    """Calibrated predictions: each is right with its confidence, unless the world has changed."""

    def __init__(self) -> None:
        self.random = Random(0)
        self.estimated = EstimatedAccuracy()
        self.made, self.confidence, self.squares = 0, 0.0, 0.0

    def predict(self, n: int, low: float, high: float, *, changed: float = 0.0) -> tuple[Estimate | None, float]:
        """The estimate after `n` predictions with confidence between `low` and `high`, and their true accuracy; of
        `changed` of them the right label is another one now."""
        right = 0
        found = None
        for _ in range(n):
            p = self.random.uniform(low, high)
            right += self.random.random() < p * (1 - changed)
            self.made += 1
            self.confidence, self.squares = self.confidence + p, self.squares + p * p
            found = self.estimated.update(self.made, self.confidence, self.squares)
        print(found, right / n)
        return found, right / n


def test_nothing_is_said_of_too_few() -> None:
    assert Stream().predict(ENOUGH - 1, 0.5, 0.9)[0] is None


def test_the_interval_holds_the_true_accuracy_of_most_windows() -> None:
    held = 0
    stream = Stream()
    for _ in range(60):
        found, accuracy = stream.predict(WINDOW, 0.2, 1.0)
        assert found
        held += found.low <= accuracy <= found.high
    assert held >= 54  # of 60; 57 are expected


def test_a_shift_of_the_input_is_followed() -> None:
    stream = Stream()
    stream.predict(3000, 0.6, 1.0)
    found, accuracy = stream.predict(3000, 0.2, 0.6)
    assert found
    assert abs(found.mean - accuracy) < 0.05
    assert found.high < 0.5
    assert found.low < found.mean < found.high


def test_a_change_of_meaning_is_not_noticed() -> None:
    """Concept drift, where it lies: docs/releases.md says so."""
    found, accuracy = Stream().predict(3000, 0.6, 1.0, changed=0.5)
    assert found
    assert accuracy < 0.45 < 0.75 < found.low
