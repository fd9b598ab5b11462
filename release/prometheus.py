"""What the verdict asks Prometheus, and the counts in its answers.

There are two queries: which releases run and since when, then everything that was counted since. Each is a union whose parts
are distinguished by the label `part`, so that it takes one request wherever Prometheus is asked from.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from release.verdict import Clients, Counts, Labelled

LONGEST_SECONDS = 29 * 86400  # Prometheus keeps 30 days (prometheus_retention_time)
VERSIONS = ("v1", "v2")
SIDES = ("reference", "candidate")

Answer = Mapping[str, Any]  # of Prometheus' /api/v1/query


class NoAnswerError(Exception):
    """Prometheus' answer cannot be used; the text says why and what to do."""


class Running(NamedTuple):
    """What each version runs, reference first, and since when (seconds since the epoch) both run it."""

    models: tuple[str, str]
    releases: tuple[str, str]
    since: float


def running_query() -> str:
    seen = f"timestamp(vmlops_model_info)[{LONGEST_SECONDS}s:1m]"
    by = "version, release, model_version"
    return union(
        now=f"max by ({by}) (timestamp(vmlops_model_info))",
        first=f"min by ({by}) (min_over_time({seen}))",
        last=f"max by ({by}) (max_over_time({seen}))",
    )


def running(answer: Answer) -> Running:
    """Raises NoAnswerError where a version does not run, or is in the middle of a rollout."""
    times: dict[str, dict[tuple[str, str, str], float]] = defaultdict(dict)
    for part, labels, value in samples(answer):
        times[part][labels["version"], labels["release"], labels["model_version"]] = value
    models, releases, began = [], [], []
    for version in VERSIONS:
        now = [key for key in times["now"] if key[0] == version]
        if len(now) != 1:
            what = "runs two releases: wait for the rollout to end" if now else "does not run: start it, or deploy it"
            raise NoAnswerError(f"{version} {what}")
        (key,) = now
        before = [time for other, time in times["last"].items() if other[0] == version and other != key]
        began.append(max([times["first"].get(key, times["now"][key]), *before]))
        releases.append(key[1])
        models.append(key[2])
    return Running((models[0], models[1]), (releases[0], releases[1]), max(began))


def counts_query(what: Running, now: float) -> str:
    """`now` is in seconds since the epoch."""
    seconds = max(int(now - what.since), 60)
    pair = f'model_version="{what.models[1]}",reference_model_version="{what.models[0]}"'

    def sum_by(labels: str, metric: str, *matchers: str) -> str:
        series = f"vmlops_{metric}{{{','.join(matchers)}}}"
        return f"sum by ({labels}) ({grown(series, seconds)})"

    labelled = " or ".join(
        sum_by("version, right", "feedback_total", f'version="{version}"', f'model_version="{model}"')
        for version, model in zip(VERSIONS, what.models, strict=True)
    )
    return union(
        pairs=sum_by("reference, candidate", "shadow_pairs_total", pair),
        failures=sum_by("", "shadow_failures_total", pair),
        lost=f"sum({grown('edge_lost_copies_total', seconds)})",
        confidence=sum_by("side", "shadow_confidence_total", pair),
        squares=sum_by("", "shadow_confidence_change_squares_total", pair),
        within=sum_by("side, le", "shadow_duration_seconds_bucket", pair),
        timed=sum_by("side", "shadow_duration_seconds_count", pair),
        clients=f"sum by (version, outcome) ({grown('edge_clients_total', seconds)})",
        labelled=labelled,
    )


def grown(series: str, seconds: int) -> str:
    """What counters grew by, for a sum.

    `increase` takes what a series begins with as nothing, and a replica begins one when it first has something to count. So a
    series that was not there before counts from 0, and only one whose process was started again is left to `increase`.
    """
    last, before = f"last_over_time({series}[{seconds}s])", f"{series} offset {seconds}s"
    again = f"resets({series}[{seconds}s]) > 0"
    return f"({last} - {before} or {last}) unless {again} or increase({series}[{seconds}s]) and {again}"


def counts(answer: Answer, promised: float) -> Counts:
    """Slow is a copy that took more than the highest bound of the replicas' histogram that is not above `promised`, in seconds.

    Where a process was started again, Prometheus extrapolates, so its counts are not whole; these are rounded.
    """
    pairs: dict[tuple[str, str], int] = {}
    within: defaultdict[str, dict[float, float]] = defaultdict(dict)  # of each side, by bound
    single: defaultdict[tuple[str, ...], float] = defaultdict(float)
    for part, labels, value in samples(answer):
        if part == "pairs":
            pairs[labels["reference"], labels["candidate"]] = round(value)
        elif part == "within":
            within[labels["side"]][float(labels["le"])] = value
        else:
            single[part, *(labels[name] for name in ("side", "version", "outcome", "right") if name in labels)] = value
    first, second = (single["confidence", side] for side in SIDES)

    def slow(side: str) -> int:
        bound = max((bound for bound in within[side] if bound <= promised), default=None)
        in_time = 0.0 if bound is None else within[side][bound]
        return max(round(single["timed", side] - in_time), 0)

    def clients(version: str) -> Clients:
        good, failed, late = (round(single["clients", version, outcome]) for outcome in ("good", "failed", "slow"))
        return Clients(good + failed + late, failed, late)

    def labelled(version: str) -> Labelled:
        right, wrong = (round(single["labelled", version, answer]) for answer in ("true", "false"))
        return Labelled(right + wrong, right)

    return Counts(
        pairs,
        round(single["failures",]) + round(single["lost",]),
        (first, second),
        second - first,
        single["squares",],
        (min(slow(SIDES[0]), sum(pairs.values())), min(slow(SIDES[1]), sum(pairs.values()))),
        (clients("v1"), clients("v2")),
        (labelled("v1"), labelled("v2")),
    )


def union(**parts: str) -> str:
    """One query of several, each with its name as the label `part`."""
    return " or ".join(f'label_replace({query}, "part", "{name}", "", "")' for name, query in parts.items())


def samples(answer: Answer) -> Iterable[tuple[str, Mapping[str, str], float]]:
    """The part, labels and value of each sample of an instant query."""
    if answer.get("status") != "success":
        raise NoAnswerError(f"Prometheus: {answer.get('error', 'no answer')}")
    for sample in answer["data"]["result"]:
        labels = dict(sample["metric"])
        yield labels.pop("part"), labels, float(sample["value"][1])
