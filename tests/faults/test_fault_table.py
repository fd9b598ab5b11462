"""Each kind of process killed and stopped under load; each has its row in docs/faults.md."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest

from tests.acceptance.conftest import Machine
from tests.acceptance.test_recovery import KILLED_SECONDS, addresses, seconds_to_recover
from tests.faults.conftest import Start

HUNG_SECONDS = 10
PATIENCE_MILLISECONDS = (
    4000  # the gateway waits 2 s for a hung replica, and then another one answers; and room for a busy computer
)
PORTS = (8001, 8002, 8003)


class Fault(NamedTuple):
    """A process that gets a signal.

    Attributes:
        what: the process, as the table names it.
        unit: its unit.
        which: main or child.
        codes: answers that clients may get besides 200.
        patience: milliseconds within which each request is answered.
        flags: options of the load.
    """

    what: str
    unit: str
    which: str
    codes: tuple[str, ...] = ()
    patience: float = PATIENCE_MILLISECONDS
    flags: tuple[str, ...] = ()


# Whoever asks nginx while it hangs waits until the watchdog has seen it and nginx has started again.
OUTAGE = ("502", "503", "504")
NGINX = PATIENCE_MILLISECONDS + 1000 * HUNG_SECONDS
FAULTS = [
    Fault("worker of a replica of v1", "vmlops-api-v1@8002", "child"),
    Fault("master of a replica of v1", "vmlops-api-v1@8002", "main"),
    Fault("worker of the replica of v2, clients of v2", "vmlops-api-v2@8101", "child", OUTAGE, NGINX, ("--debug",)),
    Fault("worker of nginx", "nginx", "child", (), NGINX),
    Fault("master of nginx", "nginx", "main", (), NGINX),
    Fault("worker of the verifier", "vmlops-verifier", "child"),
    Fault("master of the verifier", "vmlops-verifier", "main"),
    Fault("mtail", "mtail", "main"),
    Fault("node exporter", "prometheus-node-exporter", "main"),
    Fault("nginx exporter", "prometheus-nginx-exporter", "main"),
    Fault("Prometheus", "prometheus", "main"),
    Fault("Alertmanager", "prometheus-alertmanager", "main"),
    Fault("watchdog", "vmlops-watchdog", "main"),
    Fault("journald", "systemd-journald", "main"),
]  # fmt: skip


@pytest.mark.parametrize("signal", ["KILL", "STOP"])
@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.what)
def test_one_process(
    host: Any, machine: Machine, load: Start, note: Callable[..., None], fault: Fault, signal: str
) -> None:
    with load(*fault.flags, seconds=14) as clients:
        time.sleep(2)
        address = addresses(machine).get(fault.unit, "-")
        seconds = seconds_to_recover(host, fault.unit, fault.which, signal, address)
    note(f"{fault.what} {'killed' if signal == 'KILL' else 'stopped'}", clients, seconds)
    assert seconds <= (KILLED_SECONDS if signal == "KILL" else HUNG_SECONDS)
    assert set(clients.codes) <= {"200", *fault.codes}, clients.codes
    assert clients.slowest < fault.patience


@pytest.mark.parametrize("signal", ["KILL", "STOP"])
def test_all_replicas_of_v1(host: Any, load: Start, note: Callable[..., None], signal: str) -> None:
    with load(seconds=16) as clients:
        time.sleep(2)
        start = time.monotonic()
        host.check_output(f"systemctl kill --signal={signal} 'vmlops-api-v1@*.service'")
        for port in PORTS:
            asked = f"curl -s --fail --max-time 1 --output /dev/null http://127.0.0.1:{port}/ready"
            host.check_output(f"timeout 30 sh -c 'until {asked}; do sleep 0.05; done'")
        seconds = time.monotonic() - start
    note(f"all replicas of v1 {'killed' if signal == 'KILL' else 'stopped'} at once", clients, seconds)
    assert seconds <= (KILLED_SECONDS if signal == "KILL" else HUNG_SECONDS)
    assert set(clients.codes) <= {"200", *OUTAGE}, clients.codes
