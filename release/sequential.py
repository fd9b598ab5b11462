"""Intervals that stay valid however often one looks at them: confidence sequences.

An ordinary 95 % interval is right 19 times of 20 if it is looked at once, when the sample is complete. Looked at after
every request it is wrong sooner or later. A confidence sequence at level alpha contains the true value at *all* times
at once with probability 1 - alpha, so it may be read at any time, and may decide when to stop.

Both are functions of running totals, which is all that Prometheus keeps. confseq has them too, from C++ that every
machine would have to compile against Boost; the two formulas are shorter than that.

Sources: Robbins, Statistical methods related to the law of the iterated logarithm, Ann. Math. Statist. 41 (1970);
Howard, Ramdas, McAuliffe, Sekhon, Time-uniform, nonparametric, nonasymptotic confidence sequences, Ann. Statist. 49
(2021), here HRMS.
"""

from __future__ import annotations

from math import exp, lgamma, log, log1p, sqrt
from typing import NamedTuple

_STEPS = 60  # of bisection: to the resolution of a float
_PRIOR = 0.5  # of the mixture, Jeffreys': near 0 and 1, where error ratios live, the interval is short
# Of HRMS' stitched boundary: how fast the epochs grow, how much of alpha each gets, zeta(s), and the variance from
# which on it is valid.
_ETA, _S, _ZETA, _FROM = 2.0, 1.4, 3.105473, 1.0


class Interval(NamedTuple):
    low: float
    high: float


def proportion(successes: int, n: int, alpha: float) -> Interval:
    """Of a probability, after `n` independent trials: the p that the beta-binomial mixture has not refuted.

    The ratio of the mixture's likelihood to that of p is a nonnegative martingale with mean 1 if p is true, so by
    Ville's inequality it ever exceeds 1 / alpha with probability alpha at most (Robbins 1970; HRMS, section 3.2).
    """
    if not 0 <= successes <= n:
        raise ValueError(f"{successes} successes of {n}")
    failures = n - successes
    return Interval(_lower(successes, failures, alpha), 1 - _lower(failures, successes, alpha))


def mean_change(total: float, squares: float, n: int, alpha: float) -> Interval:
    """Of the mean of values in [-1, 1], from their sum and the sum of their squares.

    The empirical-Bernstein confidence sequence (HRMS, theorem 4, where 0 predicts each value) with the stitched
    boundary (HRMS, equation 10), each side at alpha / 2. Values may depend on each other, as long as none knows those
    that come after it.
    """
    if n == 0:
        return Interval(-1.0, 1.0)
    c = 2.0  # the length of the range
    v = max(squares, _FROM)
    ell = _S * log(log(_ETA * v / _FROM)) + log(2 * _ZETA / (alpha * log(_ETA) ** _S))
    k1, k2 = (_ETA**0.25 + _ETA**-0.25) / sqrt(2), (sqrt(_ETA) + 1) / 2
    radius = (sqrt(k1**2 * v * ell + (k2 * c * ell) ** 2) + k2 * c * ell) / n
    return Interval(max(total / n - radius, -1.0), min(total / n + radius, 1.0))


def difference(a: tuple[int, int], b: tuple[int, int], alpha: float) -> Interval:
    """Of two probabilities, b less a, each from (successes, n) of its own: both intervals at alpha / 2."""
    first, second = proportion(*a, alpha / 2), proportion(*b, alpha / 2)
    return Interval(second.low - first.high, second.high - first.low)


def _lower(successes: int, failures: int, alpha: float) -> float:
    """The smallest probability that is not refuted, found by bisection of its logarithm, since it may be tiny."""
    if not successes:
        return 0.0
    mixture = _log_beta(_PRIOR + successes, _PRIOR + failures) - _log_beta(_PRIOR, _PRIOR) - log(1 / alpha)
    low, high = -700.0, log(successes / (successes + failures))
    if not failures:
        return exp(mixture / successes)
    for _ in range(_STEPS):
        middle = (low + high) / 2
        refuted = mixture > successes * middle + failures * log1p(-exp(middle))
        low, high = (middle, high) if refuted else (low, middle)
    return exp(low)


def _log_beta(a: float, b: float) -> float:
    return lgamma(a) + lgamma(b) - lgamma(a + b)
