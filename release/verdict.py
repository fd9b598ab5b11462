"""The decision about v2, the candidate, compared with v1, the reference: promote, wait or go back.

Each piece of evidence is an interval of how much worse the candidate is. The pieces share the level ALPHA, so that a
candidate that is no worse is sent back with probability ALPHA at most, and one that is worse by more than is allowed is
promoted with probability ALPHA at most, however often one looks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from release.sequential import Interval, difference, mean_change, proportion

ALPHA = 0.05
PIECES = 7  # at most: four of copies, two of clients, one of labels
# How much worse the candidate may be; of disagreement, how much of it there may be.
ALLOWED: Mapping[str, float] = {"errors": 0.005, "latency": 0.01, "disagreement": 0.2, "accuracy": 0.02}
NOTHING = "nothing was compared yet: set gateway_shadow_percent, so that v2 gets copies of v1's requests"
_FARTHEST = 1 << 24  # times the present observations; a forecast beyond that would mean nothing

State = Literal["fine", "worse", "open"]
Decision = Literal["promote", "wait", "go back"]


class Clients(NamedTuple):
    """Clients of one version. Each counts once, by the first answer that it got."""

    n: int = 0
    failed: int = 0
    slow: int = 0


class Labelled(NamedTuple):
    """Answers whose right label is known."""

    n: int = 0
    right: int = 0


@dataclass(frozen=True)
class Counts:
    """Since both releases run. A pair of values is the reference's and the candidate's."""

    pairs: Mapping[tuple[str, str], int] = field(default_factory=dict)  # copies that both answered, by their labels
    failures: int = 0  # copies that the candidate did not answer, because it failed or because it was down
    confidence: tuple[float, float] = (0.0, 0.0)  # sums over the pairs
    change: float = 0.0  # sum of the candidate's confidence less the reference's
    change_squares: float = 0.0
    slow: tuple[int, int] = (0, 0)  # of the pairs, scored later than promised
    clients: tuple[Clients, Clients] = (Clients(), Clients())
    labelled: tuple[Labelled, Labelled] = (Labelled(), Labelled())


class Evidence(NamedTuple):
    """One comparison of the two versions; shares are between 0 and 1."""

    name: str
    n: int
    unit: str  # what n counts
    reference: float
    candidate: float
    worse_by: Interval
    allowed: float
    state: State
    needed: int  # how many more units until the state is not open, if they are like those so far


class Verdict(NamedTuple):
    decision: Decision
    reason: str
    evidence: list[Evidence]


def judge(counts: Counts, allowed: Mapping[str, float] = ALLOWED) -> Verdict:
    """Decide. Every comparison of copies must be fine for a promotion. Clients and labels can only stop one: each of them
    comes from one version only, so it would take very many to show that two versions are alike."""
    copies = _of_copies(counts, allowed)
    evidence = [*copies, *_of_clients(counts, allowed), *_of_labels(counts, allowed)]
    if worse := [f"{piece.name} of {piece.unit}" for piece in evidence if piece.state == "worse"]:
        return Verdict("go back", f"v2 is worse in {', '.join(worse)}", evidence)
    if not copies[0].n:
        return Verdict("wait", NOTHING, evidence)
    if still := [piece for piece in copies if piece.state == "open"]:
        last = max(still, key=lambda piece: piece.needed)
        return Verdict("wait", f"about {last.needed:,} more copies until the {last.name} can be judged", evidence)
    return Verdict("promote", "v2 is no worse than is allowed", evidence)


def _of_copies(counts: Counts, allowed: Mapping[str, float]) -> list[Evidence]:
    n = sum(counts.pairs.values())
    asked = n + counts.failures
    different = sum(times for (one, other), times in counts.pairs.items() if one != other)
    mean = [total / n if n else 0.0 for total in counts.confidence]
    slow, slower = counts.slow

    def errors(k: float, alpha: float) -> Interval:
        return proportion(round(k * counts.failures), round(k * max(asked, 1)), alpha)

    def latency(k: float, alpha: float) -> Interval:
        return _difference((slow, max(n, 1)), (slower, max(n, 1)), k, alpha)

    def disagreement(k: float, alpha: float) -> Interval:
        return proportion(round(k * different), round(k * max(n, 1)), alpha)

    def accuracy(k: float, alpha: float) -> Interval:
        better = mean_change(k * counts.change, k * counts.change_squares, round(k * max(n, 1)), alpha)
        return Interval(-better.high, -better.low)

    few, most = allowed["errors"], allowed["disagreement"]
    ratio = [count / max(n, 1) for count in (slow, slower, different)]
    return [
        # v1 answered all copied requests, so its share of errors here is 0 by construction: a few errors of v2 are not yet
        # worse. In the same way a different answer is not worse in itself.
        _piece("errors", asked, "copies", (0.0, counts.failures / max(asked, 1)), errors, few, harmless=few),
        _piece("latency", n, "copies", (ratio[0], ratio[1]), latency, allowed["latency"]),
        _piece("disagreement", n, "copies", (0.0, ratio[2]), disagreement, most, harmless=most),
        _piece("accuracy", n, "copies", (mean[0], mean[1]), accuracy, allowed["accuracy"]),
    ]


def _of_clients(counts: Counts, allowed: Mapping[str, float]) -> list[Evidence]:
    one, other = counts.clients
    if not other.n:
        return []
    return [
        _compared("errors", "clients", (one.failed, one.n), (other.failed, other.n), allowed["errors"]),
        _compared("latency", "clients", (one.slow, one.n), (other.slow, other.n), allowed["latency"]),
    ]


def _of_labels(counts: Counts, allowed: Mapping[str, float]) -> list[Evidence]:
    one, other = counts.labelled
    if not other.n:
        return []
    wrong = [(of.n - of.right, of.n) for of in (one, other)]
    piece = _compared("accuracy", "labels", wrong[0], wrong[1], allowed["accuracy"])
    return [piece._replace(reference=1 - piece.reference, candidate=1 - piece.candidate)]


def _compared(name: str, unit: str, one: tuple[int, int], other: tuple[int, int], allowed: float) -> Evidence:
    """Compare shares of bad units; each share comes from units of its own."""
    shares = (one[0] / max(one[1], 1), other[0] / max(other[1], 1))
    return _piece(name, other[1], unit, shares, lambda k, alpha: _difference(one, other, k, alpha), allowed)


def _difference(one: tuple[int, int], other: tuple[int, int], k: float, alpha: float) -> Interval:
    scaled = [(round(k * count), round(k * n)) for count, n in (one, other)]
    return difference(scaled[0], scaled[1], alpha)


def _piece(
    name: str,
    n: int,
    unit: str,
    shares: tuple[float, float],
    worse_by: Callable[[float, float], Interval],
    allowed: float,
    harmless: float = 0.0,
) -> Evidence:
    """`worse_by(k, alpha)` is the interval from k times the observations."""
    alpha = ALPHA / PIECES

    def state(k: float) -> State:
        low, high = worse_by(k, alpha)
        return "fine" if high <= allowed else "worse" if low > harmless else "open"

    now = worse_by(1, alpha) if n else Interval(-1.0, 1.0)
    return Evidence(name, n, unit, *shares, now, allowed, state(1) if n else "open", _needed(n, state))


def _needed(n: int, state: Callable[[float], State]) -> int:
    """How many more observations, to the nearest of two digits."""
    if n and state(1) != "open":
        return 0
    high = 1.0
    while state(high) == "open" and high < _FARTHEST:
        high *= 2
    low = high / 2
    for _ in range(10):
        middle = (low + high) / 2
        low, high = (middle, high) if state(middle) == "open" else (low, middle)
    more = round(high * max(n, 1)) - n
    return round(more, 2 - len(str(more)))
