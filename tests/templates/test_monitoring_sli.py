"""From the access log to the objectives: the distribution's mtail and Prometheus with the rendered program and rules.

Prometheus must say what a client would have counted, the first failure after a start included.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

from tests.paths import ROOT
from tests.ports import free_port
from tests.templates.gateway_edge import wait_for
from tests.templates.render import render
from tests.templates.test_monitoring_edge import REFUSED, line

TOOLS = ROOT / "build/tools/usr/bin"
CONFIG = """
global: {scrape_interval: 1s, evaluation_interval: 1s}
rule_files: [recording.yml]
scrape_configs:
  - job_name: edge
    static_configs: [{targets: ["127.0.0.1:PORT"], labels: {host: lab}}]
"""
# Refused connections, as nginx logs them once it has asked every replica.
DEAD = {
    "upstream_addr": "127.0.0.1:8001, 127.0.0.1:8002",
    "upstream_status": "502, 502",
    "upstream_time": "0.000, 0.000",
}
# What happens to clients, with how often, and what each of them counts it as.
EVENTS = [
    (line(), 40, "in time"),
    (line(request_time="0.900", upstream_time="0.900"), 7, "late"),
    (line(status=502, request_time="0.001", **DEAD), 9, "failed"),
    (line(status=503, **REFUSED), 1, "failed"),  # one of its kind: the first occurrence of a code
    (line(status=499, request_time="5.000", upstream_status="-"), 3, "failed"),
    (line(status=499, request_time="0.010", upstream_status="-"), 50, "the client's doing"),
    (line(status=401, **REFUSED), 50, "the client's doing"),
    (line(status=429, **REFUSED), 50, "the client's doing"),
    (line(status=404, route="/v2/models/{name}/infer", upstream_status="404"), 50, "the client's doing"),
    (line(status=404, route="other", path="/v2/nowhere", upstream_status="404"), 50, "no prediction"),
    (line(route="/v2/health/ready"), 50, "no prediction"),
    (line(status=503, version="v2", **REFUSED), 30, "of v2"),
]


class Stack:
    """mtail that reads a log, and Prometheus that reads mtail every second."""

    def __init__(self, directory: Path, running: ExitStack) -> None:
        mtail, self.port = free_port(), free_port()
        (directory / "edge.mtail").write_text(render("mtail", "etc/mtail/edge.mtail.j2"))
        (directory / "recording.yml").write_text(render("prometheus", "etc/prometheus/rules/recording.yml.j2"))
        (directory / "prometheus.yml").write_text(CONFIG.replace("PORT", str(mtail)))
        self.log, start = directory / "log", directory / "start"
        self.log.touch()
        os.mkfifo(start)
        self.run(
            running,
            directory / "mtail.err",
            [TOOLS / "mtail", "--address=127.0.0.1", f"--port={mtail}", f"--progs={directory / 'edge.mtail'}",
             f"--logs={self.log},{start}", "--emit_prog_label=false", "--poll_interval=100ms", "--logtostderr"],
        )  # fmt: skip
        start.write_text("start\n")  # waits until mtail reads, as the unit does
        self.run(
            running,
            directory / "prometheus.err",
            [TOOLS / "prometheus", f"--config.file={directory / 'prometheus.yml'}",
             f"--storage.tsdb.path={directory / 'data'}", f"--web.listen-address=127.0.0.1:{self.port}"],
        )  # fmt: skip

    def run(self, running: ExitStack, errors: Path, command: list[object]) -> None:
        output = running.enter_context(errors.open("wb"))
        process = running.enter_context(subprocess.Popen([str(word) for word in command], stderr=output))
        running.callback(process.terminate)

    def query(self, expression: str) -> dict[str, float]:
        """Values of an instant query under the names of their label ``version`` (or "")."""
        try:
            answer = httpx.get(f"http://127.0.0.1:{self.port}/api/v1/query", params={"query": expression})
        except httpx.TransportError:
            return {}
        if answer.status_code == 503:  # Prometheus has not read its data yet
            return {}
        return {
            sample["metric"].get("version", ""): float(sample["value"][1])
            for sample in answer.json().get("data", {}).get("result", [])
        }


@pytest.fixture
def stack(tmp_path: Path) -> Iterator[Stack]:
    with ExitStack() as running:
        yield Stack(tmp_path, running)


def test_prometheus_says_what_clients_count(stack: Stack) -> None:
    known = "count(edge_requests_total) + count(edge_predictions_total)"
    wait_for(lambda: stack.query(known), "a first sample of the known series", 30)
    assert set(stack.query("sum by (version) (edge_requests_total)").values()) == {0}

    with stack.log.open("a") as log:
        for text, times, _ in EVENTS:
            log.write(f"{text}\n" * times)
    everything = sum(times for _, times, _ in EVENTS)
    total = "sum(edge_requests_total)"
    wait_for(lambda: stack.query(total).get("") == everything, "that Prometheus has all requests", 30)

    count = {kind: sum(times for _, times, counted in EVENTS if counted == kind) for _, _, kind in EVENTS}
    answered = count["in time"] + count["late"]
    expected = {
        "availability": count["failed"] / (answered + count["failed"]),
        "latency": count["late"] / answered,
    }

    def said() -> dict[str, float]:
        return {slo: stack.query(f'slo:bad:ratio5m{{slo="{slo}"}}').get("v1", -1) for slo in expected}

    try:
        wait_for(lambda: said() == pytest.approx(expected), "that the rules say what was counted", 30)
    finally:
        print(count, "expected:", expected, "said:", said())
    assert stack.query('slo:bad:ratio5m{slo="availability"}')["v2"] == 1
    # The only 503 of v1 is in the rates by code as well.
    every = 'rate(edge_requests_total{route="/predict", version="v1"}[5m])'
    share = stack.query(f"sum({every.replace('}', ', code=~`503`}')}) / sum({every})")
    assert share[""] == pytest.approx(1 / (40 + 7 + 9 + 1 + 3 + 50 + 50 + 50))
