"""The verdict: wrong as seldom as it promises, soon where there is much to see, and in words with the numbers."""

from __future__ import annotations

import io
import json
import statistics
import subprocess
from collections import Counter
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

import pytest
import yaml

from app.observed.histogram import DURATION_SECONDS
from release import __main__, prometheus
from release.prometheus import NoAnswerError, Running
from release.sequential import proportion
from release.verdict import ALPHA, Clients, Counts, Labelled, Verdict, judge
from tests.paths import ROOT


def alike(n: int, *, different: float = 0.1, failures: int = 0, change: float = 0.0) -> Counts:
    """Of `n` copies; `change` is the mean change of confidence, which is spread by 0.1."""
    apart = round(n * different)
    pairs = {("fun", "fun"): n - apart, ("fun", "love"): apart}
    squares = n * (0.01 + change**2)
    return Counts(pairs, failures, (0.66 * n, (0.66 + change) * n), change * n, squares)


def states(found: Verdict) -> dict[tuple[str, str], str]:
    print(found)
    return {(piece.name, piece.unit): piece.state for piece in found.evidence}


def test_without_compared_requests_there_is_no_verdict() -> None:
    found = judge(Counts())
    assert found.decision == "wait"
    assert "gateway_shadow_percent" in found.reason


def test_promotes_when_all_is_fine() -> None:
    found = judge(alike(3000))
    assert found.decision == "promote"
    assert set(states(found).values()) == {"fine"}


def test_waits_and_says_for_how_much() -> None:
    found = judge(alike(1000))
    assert found.decision == "wait"
    (needed,) = [piece.needed for piece in found.evidence if piece.name == "accuracy"]
    assert f"about {needed:,} more copies until the accuracy can be judged" in found.reason
    assert judge(alike(1000 + needed // 2)).decision == "wait"
    assert judge(alike(1000 + needed + needed // 10)).decision == "promote"


@pytest.mark.parametrize(
    ("counts", "worse"),
    [
        (alike(2000, failures=60), "errors of copies"),
        (alike(2000, different=0.3), "disagreement of copies"),
        (alike(2000, change=-0.06), "accuracy of copies"),
        (Counts({("a", "a"): 2000}, 0, (1000, 1000), 0, 20, slow=(10, 200)), "latency of copies"),
        (Counts({("a", "a"): 2000}, clients=(Clients(900, 4), Clients(100, 20))), "errors of clients"),
        (Counts({("a", "a"): 2000}, clients=(Clients(900, 0, 4), Clients(100, 0, 20))), "latency of clients"),
        (Counts({("a", "a"): 2000}, labelled=(Labelled(500, 350), Labelled(500, 250))), "accuracy of labels"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_goes_back_for_each_kind_of_harm(counts: Counts, worse: str) -> None:
    found = judge(counts)
    assert (found.decision, found.reason) == ("go back", f"v2 is worse in {worse}")


def test_a_failure_or_two_and_a_few_clients_stop_nothing() -> None:
    assert judge(alike(6000, failures=2)).decision == "promote"
    few = Counts(
        **{**vars(alike(6000)), "clients": (Clients(50, 1), Clients(5)), "labelled": (Labelled(3, 2), Labelled(2, 1))}
    )
    assert judge(few).decision == "promote"


def test_what_is_allowed_can_be_changed() -> None:
    counts = alike(3000, different=0.3)
    assert judge(counts).decision == "go back"
    allowed = {"errors": 0.005, "latency": 0.01, "disagreement": 0.4, "accuracy": 0.02}
    assert judge(counts, allowed).decision == "promote"


class Traffic:
    """Copies, one after the other."""

    def __init__(self, seed: int, *, failing: float = 0.001, different: float = 0.1, change: float = 0.0) -> None:
        self.random = Random(seed)
        self.failing, self.different, self.mean = failing, different, change
        self.pairs: Counter[tuple[str, str]] = Counter({("fun", "fun"): 0, ("fun", "love"): 0})
        self.failures = 0
        self.change = self.squares = 0.0

    def step(self) -> Counts:
        random = self.random
        if random.random() < self.failing:
            self.failures += 1
        else:
            self.pairs["fun", "love" if random.random() < self.different else "fun"] += 1
            change = random.gauss(self.mean, 0.1)
            self.change += change
            self.squares += change * change
        n = sum(self.pairs.values())
        return Counts(self.pairs, self.failures, (0.66 * n, 0.66 * n + self.change), self.change, self.squares)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Intervals of counts that come again are not computed again, and no forecast is made: thousands of verdicts a second."""
    monkeypatch.setattr("release.verdict.proportion", cache(proportion))
    monkeypatch.setattr("release.verdict._needed", lambda n, state: 0)


@pytest.mark.usefixtures("quick")
def test_no_false_alarm_though_it_is_asked_after_every_request() -> None:
    """v2 is as good as v1: sent back in ALPHA of the rollouts at most."""
    alarms = 0
    for seed in range(100):
        traffic = Traffic(seed, different=0.15)
        alarms += any(judge(traffic.step()).decision == "go back" for _ in range(300))
    print(f"{alarms} false alarms in 100 rollouts")
    assert alarms / 100 <= ALPHA


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("harm", [{"failing": 0.006}, {"change": -0.021}, {"different": 0.201}], ids=str)
def test_what_is_just_worse_than_allowed_is_seldom_promoted(harm: dict[str, float]) -> None:
    """Asked after every ten of 4,000 copies, promoted in ALPHA of the rollouts at most."""
    promoted = 0
    for seed in range(25):
        traffic = Traffic(seed, **{"failing": 0.0, **harm})
        counts = [traffic.step() for _ in range(10)][-1]
        for _ in range(400):
            decision = judge(counts).decision
            if decision != "wait":
                promoted += decision == "promote"
                break
            counts = [traffic.step() for _ in range(10)][-1]
    print(f"{harm}: {promoted} of 25 promoted")
    assert promoted / 25 <= ALPHA


@pytest.mark.parametrize(
    ("harm", "most"),
    [({"failing": 0.05}, 400), ({"failing": 0.02}, 1500), ({"change": -0.05}, 2500), ({"different": 0.35}, 500)],
    ids=str,
)
def test_power(harm: dict[str, float], most: int) -> None:
    """The copies until it goes back: the median is within `most`, asked after every 25."""
    took = []
    for seed in range(9):
        traffic = Traffic(seed, **harm)
        for n in range(1, 4000):
            counts = traffic.step()
            if n % 25 == 0 and judge(counts).decision != "wait":
                assert judge(counts).decision == "go back"
                took.append(n)
                break
    print(f"{harm}: went back after {sorted(took)} copies")
    assert statistics.median(took) <= most


# --- what Prometheus is asked, and says ---

WHAT = Running(("reference001", "candidate002"), ("release1", "release2"), 0.0)
PROMTOOL = ROOT / "build/tools/usr/bin/promtool"


def info(version: str, release: str, model: str) -> str:
    return f'vmlops_model_info{{version="{version}",release="{release}",model_version="{model}",replica="{version}@1"}}'


def answers(query: str, series: dict[str, str], at: str, tmp_path: Path, expected: Sequence[tuple[str, float]]) -> None:
    """Asserts through promtool what Prometheus answers to a query: labels and value of each sample."""
    document = {
        "evaluation_interval": "1m",
        "tests": [
            {
                "interval": "1m",
                "input_series": [{"series": name, "values": values} for name, values in series.items()],
                "promql_expr_test": [
                    {
                        "expr": query,
                        "eval_time": at,
                        "exp_samples": [{"labels": labels, "value": value} for labels, value in expected],
                    }
                ],
            }
        ],
    }
    (tmp_path / "test.yml").write_text(yaml.safe_dump(document))
    done = subprocess.run(
        [PROMTOOL, "test", "rules", tmp_path / "test.yml"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_prometheus_says_what_runs_and_since_when(tmp_path: Path) -> None:
    old, new = ("v2", "release0", "candidate000"), ("v2", "release2", "candidate002")
    one = ("v1", "release1", "reference001")
    series = {info(*one): "1x60", info(*old): "1x30 _x30", info(*new): "_x31 1x29"}

    def sample(part: str, key: tuple[str, str, str], value: float) -> tuple[str, float]:
        version, release, model = key
        return f'{{model_version="{model}", part="{part}", release="{release}", version="{version}"}}', value

    expected = [
        sample("now", one, 3600), sample("now", new, 3600),
        sample("first", one, 0), sample("first", old, 0), sample("first", new, 31 * 60),
        sample("last", one, 3600), sample("last", old, 30 * 60), sample("last", new, 3600),
    ]  # fmt: skip
    answers(prometheus.running_query(), series, "60m", tmp_path, expected)


def test_prometheus_counts_what_was_compared(tmp_path: Path) -> None:
    pair = 'version="v2",model_version="candidate002",reference_model_version="reference001"'
    other = pair.replace("reference001", "reference000")
    shadow = "vmlops_shadow_"
    series = {
        f'{shadow}pairs_total{{{pair},replica="a",reference="fun",candidate="fun"}}': "0+60x60",
        f'{shadow}pairs_total{{{pair},replica="b",reference="fun",candidate="fun"}}': "0+60x60",
        f'{shadow}pairs_total{{{pair},replica="a",reference="fun",candidate="love"}}': "0+1x60",
        f'{shadow}pairs_total{{{other},replica="a",reference="fun",candidate="love"}}': "0+7x60",
        f"{shadow}failures_total{{{pair}}}": "0+2x60",
        f'{shadow}confidence_total{{{pair},side="candidate"}}': "0+50x60",
        f"{shadow}confidence_change_squares_total{{{pair}}}": "0+5x60",
        f'{shadow}duration_seconds_bucket{{{pair},side="candidate",le="0.25"}}': "0+100x60",
        f'{shadow}duration_seconds_bucket{{{pair},side="candidate",le="0.5"}}': "0+120x60",
        f'{shadow}duration_seconds_count{{{pair},side="candidate"}}': "0+121x60",
        "edge_lost_copies_total": "0+1x60",
        'edge_clients_total{version="v1",outcome="good"}': "0+3x60",
        'vmlops_feedback_total{version="v1",model_version="reference001",right="true"}': "0+4x60",
        'vmlops_feedback_total{version="v1",model_version="reference000",right="true"}': "0+9x60",
    }
    expected = [
        ('{candidate="fun", part="pairs", reference="fun"}', 7200),
        ('{candidate="love", part="pairs", reference="fun"}', 60),
        ('{part="failures"}', 120),
        ('{part="lost"}', 60),
        ('{part="confidence", side="candidate"}', 3000),
        ('{part="squares"}', 300),
        ('{le="0.25", part="within", side="candidate"}', 6000),
        ('{le="0.5", part="within", side="candidate"}', 7200),
        ('{part="timed", side="candidate"}', 7260),
        ('{outcome="good", part="clients", version="v1"}', 180),
        ('{part="labelled", right="true", version="v1"}', 240),
    ]
    answers(prometheus.counts_query(WHAT, 3600.0), series, "60m", tmp_path, expected)


def test_prometheus_counts_what_a_series_begins_with(tmp_path: Path) -> None:
    """A pair that was seen before the first scrape, one seen once, one from before the window, and a replica started again."""
    pair = 'version="v2",model_version="candidate002",reference_model_version="reference001"'
    what = WHAT._replace(since=600.0)
    series = {
        f'vmlops_shadow_pairs_total{{{pair},reference="fun",candidate="{name}"}}': values
        for name, values in {
            "often": "_x20 40+10x39",
            "once": "_x20 1x39",
            "before": "100+10x60",
            "again": "0+10x30 0+10x29",
            "gone": "_x20 5+5x9 _x30",
        }.items()
    }
    expected = [
        ('{candidate="often", part="pairs", reference="fun"}', 430),
        ('{candidate="once", part="pairs", reference="fun"}', 1),
        ('{candidate="before", part="pairs", reference="fun"}', 500),
        ('{candidate="gone", part="pairs", reference="fun"}', 50),
        ('{candidate="again", part="pairs", reference="fun"}', 490),
    ]
    answers(prometheus.counts_query(what, 3600.0), series, "60m", tmp_path, expected)


def answer(*samples: tuple[dict[str, str], float]) -> dict[str, Any]:
    result = [{"metric": labels, "value": [1000.0, str(value)]} for labels, value in samples]
    return {"status": "success", "data": {"resultType": "vector", "result": result}}


def runs(*releases: tuple[str, str, str, float, float, float | None]) -> dict[str, Any]:
    """Version, release, model, first and last seen, and now (None where it does not run now)."""
    samples = []
    for version, release, model, first, last, now in releases:
        labels = {"version": version, "release": release, "model_version": model}
        for part, value in (("first", first), ("last", last), ("now", now)):
            if value is not None:
                samples.append(({**labels, "part": part}, value))
    return answer(*samples)


def test_counted_is_what_came_after_the_last_change_of_either_version() -> None:
    found = prometheus.running(
        runs(
            ("v1", "r1", "m1", 10, 1000, 1000),
            ("v2", "r0", "m0", 10, 400, None),
            ("v2", "r2", "m2", 20, 1000, 1000),  # it ran before, too
        )
    )
    assert found == Running(("m1", "m2"), ("r1", "r2"), 400)


@pytest.mark.parametrize(
    ("said", "why"),
    [
        (runs(("v1", "r1", "m1", 0, 9, 9)), "v2 does not run"),
        (runs(("v1", "r1", "m1", 0, 9, 9), ("v1", "r2", "m2", 0, 9, 9)), "v1 runs two releases"),
        ({"status": "error", "error": "too many samples"}, "Prometheus: too many samples"),
        (runs(("v1", "r1", "m1", 0, 9, 9), ("v2", "r1", "m1", 0, 9, 9)), "v1 and v2 run the same release, r1: deploy"),
    ],
)
def test_a_missing_verdict_is_reported_with_its_reason(
    said: dict[str, Any], why: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(NoAnswerError, match=why):
        __main__.verdict([said], {}, 0.25)
    monkeypatch.setattr("sys.stdin", io.StringIO(json.dumps([said])))
    assert __main__.main(["verdict", "--promised", "0.25"]) == 1
    assert capsys.readouterr().err.startswith(f"no verdict: {why}")


@pytest.mark.parametrize(
    ("promised", "slow"),
    [(0.1, (90, 50)), (0.25, (20, 40)), (0.3, (20, 40)), (0.5, (1, 30)), (1.0, (0, 0)), (60, (0, 0))],
)
def test_a_copy_is_slow_above_the_highest_bound_within_what_is_promised(promised: float, slow: tuple[int, int]) -> None:
    sides = {"reference": {"0.1": 10, "0.25": 80, "0.5": 99}, "candidate": {"0.1": 50, "0.25": 60, "0.5": 70}}
    samples: list[tuple[dict[str, str], float]] = [({"part": "pairs", "reference": "fun", "candidate": "fun"}, 100)]
    for side, within in sides.items():
        samples.append(({"part": "timed", "side": side}, 100))
        for bound, n in {**within, "1": 100, "+Inf": 100}.items():
            samples.append(({"part": "within", "side": side, "le": bound}, n))
    assert prometheus.counts(answer(*samples), promised).slow == slow


def test_what_is_promised_by_default_is_a_bound() -> None:
    assert yaml.safe_load((ROOT / "inventory/stack.yml").read_text())["vmlops_promised_seconds"] in DURATION_SECONDS


def test_from_the_first_question_to_the_report(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def ask(*answers: dict[str, Any]) -> Any:
        monkeypatch.setattr("sys.stdin", io.StringIO(json.dumps(answers)))
        assert __main__.main(["verdict", "--disagreement", "0.3", "--promised", "0.25"]) == 0
        return json.loads(capsys.readouterr().out)

    running = runs(("v1", "r1", "m1", 10, 1000, 1000), ("v2", "r2", "m2", 400, 1000, 1000))
    assert ask()["question"] == prometheus.running_query()
    assert "[600s]" in ask(running)["question"]
    counted = answer(
        ({"part": "pairs", "reference": "fun", "candidate": "fun"}, 2700.4),
        ({"part": "pairs", "reference": "fun", "candidate": "love"}, 299.6),
        ({"part": "confidence", "side": "reference"}, 1980.0),
        ({"part": "confidence", "side": "candidate"}, 1995.0),
        ({"part": "squares"}, 30.0),
        ({"part": "timed", "side": "reference"}, 3000.0),
        ({"part": "within", "side": "reference", "le": "0.25"}, 2999.0),
    )
    found = ask(running, counted)
    print("\n".join(found["report"]))
    assert (found["decision"], found["release"]) == ("promote", "r2")
    report = "\n".join(found["report"])
    assert "PROMOTE: v2 is no worse than is allowed." in report
    assert "v1 release r1 (model m1), v2 release r2 (model m2), since 1970-01-01 00:06 UTC" in report
    assert "fun → love (300)" in report
    assert [line.split()[0] for line in found["report"][3:7]] == ["errors", "latency", "disagreement", "accuracy"]
