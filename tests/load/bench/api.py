"""`make bench-api`: what a replica costs, written to docs/api-benchmarks.md.

Time is measured inside the process, without a network: a request is one call of the ASGI application. Memory and start
are those of real gunicorn processes, four replicas at once, with the model that is in model/artifacts.
"""

from __future__ import annotations

import argparse
import asyncio
import http.client
import json
import os
import platform
import re
import signal
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from importlib.metadata import version
from pathlib import Path
from time import perf_counter, process_time
from typing import Any
from unittest.mock import patch

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from app.engines.engine import Engine, Score
from app.engines.loading import load_engine
from app.factory import create_app
from app.http.asgi import Application
from app.observed.histogram import DURATION_SECONDS
from app.observed.metrics import LENGTH_CHARACTERS, Metrics
from app.settings import Settings
from tests.paths import ROOT
from tests.ports import free_port

OUTPUT = ROOT / "docs" / "api-benchmarks.md"
SENTENCES = [
    "Oh yeah, that was soooo cool!",
    "i can't believe they cancelled the last train home, two hours in the rain now",
    "@sam finally passed the exam!! drinks on me tonight #relief",
    "Is the library open on Sundays?",
]
REPLICAS = (("v1", 3), ("v2", 1))
LIMIT_START_SECONDS, LIMIT_PSS_MB = 1.0, 60.0


class LibraryMetrics(Metrics):
    """The same numbers in prometheus-client's own types, their children resolved beforehand."""

    def __init__(self, settings: Settings, engine: Engine) -> None:
        registry = CollectorRegistry()
        common = (settings.version, engine.model_version)
        names = ("version", "model_version")
        requests = Counter("requests", "", (*names, "route", "code"), registry=registry)
        duration = Histogram("duration", "", (*names, "route"), registry=registry, buckets=DURATION_SECONDS)
        predictions = Counter("predictions", "", (*names, "label"), registry=registry)
        self._requests = requests.labels(*common, "/predict", "200")
        self._duration = duration.labels(*common, "/predict")
        self._by_label = {label: predictions.labels(*common, label) for label in engine.signature.labels}
        tenths = [i / 10 for i in range(1, 10)]
        self._values = [
            Histogram(name, "", names, registry=registry, buckets=buckets).labels(*common)
            for name, buckets in (("confidence", tenths), ("unknown", tenths), ("length", LENGTH_CHARACTERS))
        ]
        self._in_flight = Gauge("in_flight", "", names, registry=registry).labels(*common)

    @property
    def in_flight(self) -> int:
        return 0

    @in_flight.setter
    def in_flight(self, value: int) -> None:
        self._in_flight.inc(value)

    def answered(self, route: str, status: int, seconds: float) -> None:
        self._requests.inc()
        self._duration.observe(seconds)

    def predicted(self, text: str, score: Score) -> None:
        self._by_label[score.label].inc()
        for histogram, value in zip(self._values, (score.confidence, 0.1, len(text)), strict=True):
            histogram.observe(value)


class NoMetrics(Metrics):
    def answered(self, route: str, status: int, seconds: float) -> None:
        pass

    def predicted(self, text: str, score: Score) -> None:
        pass


def settings_of(model: Path, **changes: Any) -> Settings:
    given = {"version": "v1", "bind": "127.0.0.1:0", "instance": "bench", "release": "bench", "log_level": "info"}
    return Settings(**(given | changes), model_dir=model, runtime_dir=Path(tempfile.gettempdir()))


async def call(app: Application, path: str, bodies: Sequence[bytes], headers: list[tuple[bytes, bytes]]) -> float:
    """CPU seconds a request."""

    async def send(message: Any) -> None:
        pass

    started = process_time()
    for body in bodies:

        async def receive(body: bytes = body) -> dict[str, Any]:
            return {"type": "http.request", "body": body}

        scope = {"type": "http", "method": "POST", "path": path, "query_string": b"", "headers": headers}
        await app(scope, receive, send)
    return (process_time() - started) / len(bodies)


def measure_requests(model: Path, rounds: int) -> dict[str, list[float]]:
    """µs of CPU a request by what is measured, interleaved so that each meets the same noise."""
    engine = load_engine(model)
    headers = [
        (b"host", b"api_v1"),
        (b"x-request-id", b"9b2f5c1e0d7a4c86b0f3a9d2e4c8170f"),
        (b"content-length", b"60"),
        (b"content-type", b"application/json"),
    ]

    def app(kind: type[Metrics] = Metrics, fast: bool = True, version: str = "v1") -> Application:
        with patch("app.factory.Metrics", kind):
            made = create_app(settings_of(model, version=version), engine)
        made.fast = made.fast if fast else {}
        return made

    one = [json.dumps({"sentence": sentence}).encode() for sentence in SENTENCES * 50]
    batch = [json.dumps({"sentences": SENTENCES * 64}).encode()]
    apps: dict[str, tuple[Application, str, list[bytes]]] = {
        "without metrics": (app(NoMetrics), "/predict", one),
        "as it is": (app(), "/predict", one),
        "prometheus-client's types": (app(LibraryMetrics), "/predict", one),
        "through FastAPI": (app(fast=False), "/predict", one),
        "v2": (app(version="v2"), "/predict", one),
        "batch of 256, a sentence": (app(), "/predict/batch", batch),
    }
    figures: dict[str, list[float]] = {name: [] for name in ("the scorer alone", *apps)}
    for _ in range(rounds):
        started = process_time()
        for _ in range(50):
            for sentence in SENTENCES:
                engine.score(sentence)
        figures["the scorer alone"].append((process_time() - started) / 200 * 1e6)
        for name, (application, path, bodies) in apps.items():
            each = asyncio.run(call(application, path, bodies, headers)) * 1e6
            figures[name].append(each / 256 if bodies is batch else each)
    return figures


def ask(port: int, method: str, path: str, body: str | None = None) -> bytes:
    """Raises OSError where the replica does not answer, RuntimeError where it does not answer 200."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request(method, path, body, {"Content-Type": "application/json"})
        response = connection.getresponse()
        received = response.read()
    finally:
        connection.close()
    if response.status != 200:
        raise RuntimeError(f"{path} answered {response.status}")
    return received


@contextmanager
def replica(model: Path, version: str) -> Iterator[tuple[int, int, float]]:
    """A real one: pid of its master, port, seconds from its start to the first 200 of /ready."""
    port = free_port()
    environ = {
        "PATH": os.environ["PATH"],
        "OPENBLAS_NUM_THREADS": "1",
        "OMP_NUM_THREADS": "1",
        "VMLOPS_VERSION": version,
        "VMLOPS_BIND": f"127.0.0.1:{port}",
        "VMLOPS_INSTANCE": f"{version}@{port}",
        "VMLOPS_MODEL_DIR": str(model),
    }
    command = [sys.executable, "-m", "gunicorn", "--config", "python:app.gunicorn_conf", "app.main:app"]
    started = perf_counter()
    process = subprocess.Popen(command, cwd=ROOT, env=environ, stderr=subprocess.DEVNULL)
    try:
        while True:
            try:
                ask(port, "GET", "/ready")
                break
            except OSError:
                if process.poll() is not None or perf_counter() - started > 30:
                    raise RuntimeError("the replica did not start") from None
        yield process.pid, port, perf_counter() - started
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)


def processes(master: int) -> list[int]:
    children = Path(f"/proc/{master}/task/{master}/children").read_text().split()
    return [master, *map(int, children)]


def pss_mb(masters: Sequence[int]) -> float:
    """Proportional set size of a number of replicas, master and worker each."""
    total = 0
    for master in masters:
        for pid in processes(master):
            rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
            total += int(re.search(r"^Pss:\s+(\d+) kB", rollup, re.MULTILINE)[1])  # type: ignore[index]
    return total / 1024


def weights_kb(model: Path, masters: Sequence[int]) -> tuple[int, int]:
    """Resident and proportional size of the model's mapped arrays, summed over all processes."""
    resident = proportional = 0
    for master in masters:
        for pid in processes(master):
            mapping = ""
            for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
                if re.match(r"[0-9a-f]+-[0-9a-f]+ ", line):
                    mapping = line
                elif f"{model}/" in mapping and line.startswith("Rss:"):
                    resident += int(line.split()[1])
                elif f"{model}/" in mapping and line.startswith("Pss:"):
                    proportional += int(line.split()[1])
    return resident, proportional


def measure_replicas(model: Path) -> dict[str, float]:
    figures: dict[str, float] = {}

    def load(port: int) -> None:
        for sentence in SENTENCES * 50:
            ask(port, "POST", "/predict", json.dumps({"sentence": sentence}))
        ask(port, "GET", "/metrics")

    with ExitStack() as stack:
        started = [stack.enter_context(replica(model, version)) for version, count in REPLICAS for _ in range(count)]
        masters = [master for master, _, _ in started]
        for _, port, _ in started:
            load(port)
        figures["pss"] = pss_mb(masters)
        figures["weights rss"], figures["weights pss"] = weights_kb(model, masters)
        for _, port, _ in started:
            ask(port, "GET", "/openapi.json")
        figures["pss with FastAPI"] = pss_mb(masters)
    return figures


def measure_starts(model: Path, rounds: int) -> list[float]:
    seconds = []
    for _ in range(rounds):
        with replica(model, "v1") as (_, _, took):
            seconds.append(took)
    return seconds


def spread(values: Sequence[float]) -> str:
    return f"{statistics.median(values):.1f} | {min(values):.1f} to {max(values):.1f}"


def report(model: Path, requests: dict[str, list[float]], replicas: dict[str, float], starts: list[float]) -> str:
    manifest = json.loads((model / "manifest.json").read_bytes())
    size = sum(file.stat().st_size for file in model.iterdir()) / 1e6
    count = sum(count for _, count in REPLICAS)
    median = {name: statistics.median(values) for name, values in requests.items()}
    bare, whole = median["without metrics"], median["as it is"]
    rows = "\n".join(f"| {name} | {spread(values)} |" for name, values in requests.items())
    packages = ", ".join(f"{name} {version(name)}" for name in ("fastapi", "gunicorn", "pydantic", "uvicorn"))
    return f"""\
# What a replica costs
Written by `make bench-api` (tests/load/bench/api.py), not by hand.
Machine: {os.cpu_count()} cores, {platform.machine()}. Python {platform.python_version()}, {packages}.
Model: {manifest["engine"]} {manifest["model_version"]}, {len(manifest["labels"])} labels, {size:.1f} MB.

## A request
CPU of one `POST /predict` inside the process, without sockets and HTTP parsing, over {len(SENTENCES)} sentences of
{min(map(len, SENTENCES))} to {max(map(len, SENTENCES))} characters.

| | µs, median | least to most |
| --- | --- | --- |
{rows}

- Metrics cost {whole - bare:.1f} µs a request; in prometheus-client's own types, with their children resolved
  beforehand, they would cost {median["prometheus-client's types"] - bare:.1f} µs.
- A route of FastAPI costs {median["through FastAPI"] - whole:.0f} µs more than the same handler below it.

## Memory
PSS from `/proc/<pid>/smaps_rollup` of {count} replicas at once, gunicorn's master and its worker each, after 200
predictions and a scrape.

| | MB |
| --- | --- |
| {count} replicas | {replicas["pss"]:.1f} |
| a replica (goal: at most {LIMIT_PSS_MB:.0f}) | {replicas["pss"] / count:.1f} |
| a replica once somebody has opened /docs, which loads FastAPI | {replicas["pss with FastAPI"] / count:.1f} |

The model's arrays are mapped and shared: {replicas["weights rss"] / 1024:.1f} MB of them are resident when counted for
every process, {replicas["weights pss"] / 1024:.1f} MB in fact.

## Start
From `exec` to the first 200 of `/ready`, {len(starts)} starts one after the other: median
{statistics.median(starts):.2f} s, {min(starts):.2f} to {max(starts):.2f} s (goal: under {LIMIT_START_SECONDS:.0f} s).
"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=ROOT / "model" / "artifacts")
    parser.add_argument("--output", type=Path, default=OUTPUT)
    parser.add_argument("--rounds", type=int, default=25)
    options = parser.parse_args()
    model = options.model.resolve()
    steps: list[Callable[[], Any]] = [
        lambda: measure_starts(model, 5),
        lambda: measure_replicas(model),
        lambda: measure_requests(model, options.rounds),
    ]
    results = []
    for name, step in zip(("starts", "four replicas", "requests"), steps, strict=True):
        print(f"{name} …", file=sys.stderr, flush=True)
        results.append(step())
    starts, replicas, requests = results
    text = report(model, requests, replicas, starts)
    options.output.write_text(text)
    print(text)
    each = replicas["pss"] / sum(count for _, count in REPLICAS)
    return int(statistics.median(starts) >= LIMIT_START_SECONDS or each > LIMIT_PSS_MB)


if __name__ == "__main__":
    sys.exit(main())
