"""Load from the machine itself while something breaks there. Fixtures of the acceptance tests are these tests' too."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.conftest import Machine, client, eventually, host, machine

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


@pytest.fixture
def load(machine: Machine) -> Start:
    """with load(seconds=5, clients=20, …) as load: … — load.py runs meanwhile, and has ended afterwards."""

    @contextmanager
    def start(*flags: str, **options: float | str) -> Iterator[Load]:
        words = [*flags, *(f"--{name}={value}" for name, value in options.items())]
        command = ["ssh", "-F", str(machine.ssh_config), machine.name, "python3", "-", *words]
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
