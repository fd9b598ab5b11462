"""Watches what was rolled out for a while, and says whether it has to go back.

It has to where clients get more errors or slow answers than an objective allows and than they got in the ten minutes before, and
where v2 was rolled out and the verdict on it is *go back*. Both are told by intervals that hold however often one looks.
Runs on the host of Prometheus, with nothing but Python's own library.
"""

from __future__ import annotations

import json
import time
import urllib.parse
import urllib.request
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from release import prometheus
from release.sequential import proportion
from release.verdict import ALPHA, judge

LONGEST_PAUSE = 15.0  # seconds between two looks
SHORTEST_WINDOW = 60  # seconds: some samples at any scrape interval
BEFORE_SECONDS = 600
# By objective, as the recording rules name them (slo:objective:ratio): outcomes that count, and what they do to a client.
OBJECTIVES = {
    "availability": ("in_time|late|failed|abandoned", "failed|abandoned", "failed"),
    "latency": ("in_time|late", "late", "were slow"),
}

Ask = Callable[[str], prometheus.Answer]


class Outcome(NamedTuple):
    decision: str  # "stay" or "go back"
    reason: str


def client(url: str) -> Ask:
    """Return a function that asks a Prometheus. It raises NoAnswerError."""
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def ask(query: str) -> prometheus.Answer:
        try:
            body = urllib.parse.urlencode({"query": query}).encode()
            with direct.open(f"{url}/api/v1/query", body, timeout=10) as answer:
                read: dict[str, Any] = json.load(answer)
        except (OSError, ValueError) as error:
            raise prometheus.NoAnswerError(f"Prometheus at {url}: {error}") from None
        return read

    return ask


def watch(
    ask: Ask,
    versions: Sequence[str],
    seconds: float,
    allowed: Mapping[str, float],
    promised: float,
    rolled: float = 0.0,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Outcome:
    """Look until `seconds` have passed or it has to go back. What happened in the `rolled` seconds before, while instance after
    instance was replaced, counts as well. Raises NoAnswerError where the last look failed.
    """
    began = clock()
    pause = min(LONGEST_PAUSE, seconds / 4)
    while True:
        left = began + seconds - clock()
        sleep(max(min(pause, left), 0))
        elapsed = clock() - began
        try:
            outcome = look(ask, versions, rolled + elapsed, allowed, promised)
        except prometheus.NoAnswerError:
            if elapsed >= seconds:
                raise
            continue
        if outcome.decision == "go back" or elapsed >= seconds:
            return outcome


def look(ask: Ask, versions: Sequence[str], elapsed: float, allowed: Mapping[str, float], promised: float) -> Outcome:
    """What can be said `elapsed` seconds after the rollout began. Raises NoAnswerError where Prometheus does not answer."""
    if reason := burns(ask(burn_query(versions, elapsed)), versions):
        return Outcome("go back", reason)
    if "v2" in versions:
        answer = ask(prometheus.running_query())
        try:
            what = prometheus.running(answer)
        except prometheus.NoAnswerError:
            return Outcome("stay", "there is no verdict: v1 and v2 do not both run one release")
        if what.releases[0] != what.releases[1]:
            now = max(sample["value"][0] for sample in answer["data"]["result"])
            verdict = judge(prometheus.counts(ask(prometheus.counts_query(what, now)), promised), allowed)
            if verdict.decision == "go back":
                return Outcome("go back", verdict.reason)
    return Outcome("stay", "no objective is missed by more than before")


def burn_query(versions: Sequence[str], elapsed: float) -> str:
    window = max(int(elapsed), SHORTEST_WINDOW)
    of = "|".join(versions)
    parts = {"objective": "max by (slo) (slo:objective:ratio)"}
    for slo, (valid, bad, _) in OBJECTIVES.items():
        for name, outcomes in (("asked", valid), ("bad", bad)):
            series = f'edge_predictions_total{{version=~"{of}",outcome=~"{outcomes}"}}'
            parts[f"{slo} {name}"] = f"sum by (version) (increase({series}[{window}s]))"
            parts[f"{slo} {name} before"] = f"sum by (version) (increase({series}[{BEFORE_SECONDS}s] offset {window}s))"
    return prometheus.union(**parts)


def burns(answer: prometheus.Answer, versions: Sequence[str]) -> str:
    """The first objective that is certainly missed, and by more than in the ten minutes before; empty where there is none."""
    found: defaultdict[tuple[str, str], float] = defaultdict(float)
    for part, labels, value in prometheus.samples(answer):
        found[part, labels.get("slo") or labels.get("version", "")] = value
    alpha = ALPHA / (len(OBJECTIVES) * len(versions))
    for slo, (_, _, what) in OBJECTIVES.items():
        budget = 1 - (found["objective", slo] or 1.0)
        for version in versions:
            asked, bad = round(found[f"{slo} asked", version]), round(found[f"{slo} bad", version])
            asked_before, bad_before = (round(found[f"{slo} {of} before", version]) for of in ("asked", "bad"))
            before = proportion(min(bad_before, asked_before), asked_before, alpha).low
            if proportion(min(bad, asked), asked, alpha).low > max(budget, before):
                return (
                    f"{bad:,} of {asked:,} predictions of {version} {what}; "
                    f"the objective allows {budget:.1%}, and before it were {bad_before:,} of {asked_before:,}"
                )
    return ""
