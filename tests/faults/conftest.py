"""Load from the machine itself while something breaks there. Fixtures of the acceptance tests are these tests' too."""

from __future__ import annotations

import json
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.conftest import Machine, client, eventually, host, machine
from tests.faults import table
from tests.faults.rollouts import Make, make, releases

__all__ = ["client", "eventually", "host", "machine"]

SCRIPT = (Path(__file__).parent / "load.py").read_text()


@dataclass
class Load:
    """Clients on the machine; the result is there after wait()."""

    process: subprocess.Popen[str]
    codes: dict[str, int]
    reconnected: int = 0
    median: float = 0.0  # milliseconds, as the two that follow
    p99: float = 0.0
    slowest: float = 0.0

    def wait(self) -> None:
        if self.median:
            return
        out, error = self.process.communicate(timeout=180)
        print(out, error)
        result = json.loads(out)
        self.codes, self.reconnected = result["codes"], result["reconnected"]
        self.median, self.p99, self.slowest = result["milliseconds"]


Start = Callable[..., Any]
MakeUnderLoad = Callable[..., tuple[int, str, Load]]


@pytest.fixture
def load(machine: Machine) -> Start:
    """with load(seconds=5, clients=20, …) as load: … — load.py runs meanwhile, and has ended afterwards.

    It runs on the machine, or, if it is told the address to ask, on this computer.
    """

    @contextmanager
    def start(*flags: str, **options: float | str) -> Iterator[Load]:
        words = ["-", *flags, *(f"--{name}={value}" for name, value in options.items())]
        there = ["ssh", "-F", str(machine.ssh_config), machine.name, "python3"]
        command = [*([sys.executable] if "address" in options else there), *words]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert process.stdin
        process.stdin.write(SCRIPT)
        process.stdin.close()
        process.stdin = None
        load = Load(process, {})
        try:
            yield load
            load.wait()
        finally:
            process.kill()
            process.wait()

    return start


@pytest.fixture
def new(host: Any, tmp_path: Path) -> Iterator[Make]:
    """Makes releases; v1 and v2 run what they ran before, afterwards."""
    with releases(host, tmp_path) as make:
        yield make


@pytest.fixture
def make_under_load(host: Any, load: Start) -> MakeUnderLoad:
    """`make WORD …` while ten clients ask: its exit status, what it said, and what the clients got."""

    def run(*words: str) -> tuple[int, str, Load]:
        over = f"/tmp/over-{uuid.uuid4().hex}"
        with load(seconds=1800, clients=10, until=over) as clients:
            status, said = make(*words)
            host.check_output(f"touch {over}")
        host.check_output(f"rm {over}")
        return status, said, clients

    return run


@pytest.fixture
def note(host: Any) -> Callable[[str, Load, float], None]:
    """note(fault, load, seconds) puts a row into docs/faults.md; alerts are those that began to fire since the test began."""

    def fired(seconds: int) -> set[str]:
        """The alerts that fired at any time within so many seconds, with their labels."""
        ready = "curl -sf -o /dev/null http://127.0.0.1:9090/-/ready"
        host.check_output(f"timeout 30 sh -c 'until {ready}; do sleep 0.2; done'")  # it may be what was killed
        query = f'max_over_time(ALERTS{{alertstate="firing",alertname!="Watchdog"}}[{seconds}s])'
        said = host.check_output(f"curl -s --data-urlencode 'query={query}' http://127.0.0.1:9090/api/v1/query")
        return {json.dumps(alert["metric"], sort_keys=True) for alert in json.loads(said)["data"]["result"]}

    before, begin = fired(10), time.monotonic()

    def add(fault: str, load: Load, seconds: float) -> None:
        new = fired(int(time.monotonic() - begin) + 1) - before
        names = ", ".join(sorted({json.loads(alert)["alertname"] for alert in new}))
        table.add(fault, table.Row(load.codes, load.reconnected, load.p99, load.slowest, seconds, names or "none"))

    return add
