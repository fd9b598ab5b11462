"""A rollout that bakes, in front of a Prometheus that is simulated: it stays, or goes back before the time is over."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import pytest

from release import bake, prometheus
from release.verdict import ALLOWED
from tests.paths import ROOT
from tests.unit.release.test_verdict import answer, answers, runs

Answer = dict[str, Any]
Ask = Callable[[str], Answer]
GOOD = {"asked": 1000, "bad": 0}
BOTH = runs(("v1", "r1", "m1", 10, 1000, 1000), ("v2", "r2", "m2", 400, 1000, 1000))
HARM = answer(
    ({"part": "pairs", "reference": "fun", "candidate": "fun"}, 200),
    ({"part": "pairs", "reference": "fun", "candidate": "love"}, 300),
)
NO_HARM = answer(({"part": "pairs", "reference": "fun", "candidate": "fun"}, 500))


def edge(
    bad: int, asked: int = 1000, *, slo: str = "availability", before: float = 0, version: str = "v1", slow: int = 0
) -> Answer:
    """What the burn query is answered: `bad` of `asked` since the rollout, a share of `before` in the ten minutes before."""
    parts = [
        ({"part": "objective", "slo": "availability"}, 0.995),
        ({"part": "objective", "slo": "latency"}, 0.95),
        ({"part": f"{slo} asked", "version": version}, asked),
        ({"part": f"{slo} bad", "version": version}, bad),
        ({"part": f"{slo} asked before", "version": version}, 10_000),
        ({"part": f"{slo} bad before", "version": version}, 10_000 * before),
    ]
    return answer(*parts)


def prometheus_says(burn: Answer, running: Answer = BOTH, counted: Answer = NO_HARM) -> Ask:
    def ask(query: str) -> Answer:
        if "edge_predictions_total" in query:
            return burn
        return counted if "shadow_pairs" in query else running

    return ask


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def watched(ask: Ask, *versions: str, seconds: float = 600) -> tuple[bake.Outcome, float]:
    """The outcome, and after how many seconds it was there."""
    clock = Clock()
    outcome = bake.watch(ask, versions or ("v1",), seconds, ALLOWED, 0.25, 0, lambda: clock.now, clock.sleep)
    print(outcome, clock.now)
    return outcome, clock.now


def test_what_does_no_harm_stays_when_the_time_is_over() -> None:
    outcome, seconds = watched(prometheus_says(edge(2)), "v1", "v2")
    assert (outcome.decision, seconds) == ("stay", 600)


@pytest.mark.parametrize(
    ("burn", "reason"),
    [
        (edge(40), "40 of 1,000 predictions of v1 failed; the objective allows 0.5%, and before it were 0 of 10,000"),
        (edge(120, slo="latency"), "120 of 1,000 predictions of v1 were slow; the objective allows 5.0%"),
    ],
)
def test_a_burn_of_the_error_budget_goes_back_at_once(burn: Answer, reason: str) -> None:
    outcome, seconds = watched(prometheus_says(burn))
    assert outcome.decision == "go back"
    assert outcome.reason.startswith(reason)
    assert seconds == 15


def test_what_was_bad_before_is_not_the_rollouts_doing() -> None:
    assert watched(prometheus_says(edge(40, before=0.04)))[0].decision == "stay"
    assert watched(prometheus_says(edge(140, before=0.04)))[0].decision == "go back"


def test_what_happened_while_it_was_rolled_out_counts_and_is_not_before() -> None:
    asked = []

    def ask(query: str) -> Answer:
        asked.append(query)
        return edge(0)

    clock = Clock()
    bake.watch(ask, ["v1"], 60, ALLOWED, 0.25, 100, lambda: clock.now, clock.sleep)
    assert "[115s]" in asked[0]
    assert "[600s] offset 115s" in asked[0]


def test_an_error_or_two_are_no_burn() -> None:
    assert watched(prometheus_says(edge(1, 10)))[0].decision == "stay"
    assert watched(prometheus_says(edge(0, 0)))[0].decision == "stay"


def test_errors_of_a_version_that_was_not_rolled_out_are_not_looked_at() -> None:
    assert watched(prometheus_says(edge(40, version="v2")), "v1")[0].decision == "stay"
    assert 'version=~"v1"' in bake.burn_query(["v1"], 60)


def test_the_verdict_goes_back_where_v2_was_rolled_out() -> None:
    ask = prometheus_says(edge(0), counted=HARM)
    outcome, seconds = watched(ask, "v2")
    assert (outcome.decision, seconds) == ("go back", 15)
    assert "disagreement" in outcome.reason
    assert watched(ask, "v1")[0].decision == "stay", "it speaks of v2"


def test_versions_with_the_same_release_are_not_compared() -> None:
    same = runs(("v1", "r1", "m1", 10, 1000, 1000), ("v2", "r1", "m1", 400, 1000, 1000))
    assert watched(prometheus_says(edge(0), same, HARM), "v1", "v2")[0].decision == "stay"
    assert watched(prometheus_says(edge(0), runs(), HARM), "v2")[0].decision == "stay"


def test_a_prometheus_that_is_away_for_a_moment_is_asked_again() -> None:
    calls = []

    def ask(query: str) -> Answer:
        calls.append(query)
        if len(calls) < 4:
            raise prometheus.NoAnswerError("away")
        return edge(40)

    outcome, seconds = watched(ask)
    assert (outcome.decision, seconds) == ("go back", 60)


def test_nobody_says_that_it_stays_where_nobody_could_look() -> None:
    def ask(_: str) -> Answer:
        raise prometheus.NoAnswerError("away")

    with pytest.raises(prometheus.NoAnswerError, match="away"):
        watched(ask)


@contextmanager
def stub(ask: Ask) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"])).decode()
            said = json.dumps(ask(parse_qs(body)["query"][0])).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(said)))
            self.end_headers()
            self.wfile.write(said)

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def run(url: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """As the role does it: with the distribution's Python, from a directory that has nothing but the package."""
    command = [sys.executable, "-I", "-S", "-c", f"import sys; sys.path.insert(0, {str(ROOT)!r})\nimport runpy\n"]
    command[-1] += "sys.argv[0] = 'release'\nrunpy.run_module('release', run_name='__main__')"
    return subprocess.run([*command, "bake", url, *arguments], capture_output=True, text=True, check=False, timeout=60)


def test_as_the_role_calls_it() -> None:
    with stub(prometheus_says(edge(40, version="v2"))) as url:
        done = run(url, "1", "v1", "v2", "--errors", "0.01", "--promised", "0.25", "--rolled", "40")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["decision"] == "go back"
    done = run("http://127.0.0.1:1", "1", "v1", "--promised", "0.25")
    assert done.returncode == 1
    assert done.stderr.startswith("no answer: Prometheus at http://127.0.0.1:1: ")
    assert done.stderr.count("\n") == 1


def test_prometheus_counts_before_and_after(tmp_path: Path) -> None:
    """Forty minutes of one error in ten, then ten of one in two; promtool asks at the end."""
    of = 'edge_predictions_total{version="v1",outcome="%s"}'
    series = {
        of % "in_time": "0+9x40 365+5x10",
        of % "failed": "0+1x40 45+5x10",
        'slo:objective:ratio{slo="availability"}': "0.995x60",
    }
    expected = [
        ('{part="objective", slo="availability"}', 0.995),
        ('{part="availability asked", version="v1"}', 100),
        ('{part="availability bad", version="v1"}', 50),
        ('{part="availability asked before", version="v1"}', 100),
        ('{part="availability bad before", version="v1"}', 10),
        ('{part="latency asked", version="v1"}', 50),
        ('{part="latency asked before", version="v1"}', 90),
    ]
    answers(bake.burn_query(["v1"], 600), series, "50m", tmp_path, expected)
