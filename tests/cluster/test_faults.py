"""What the clients of a fleet notice when a part of it fails. Each test leaves the fleet as it found it."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager

import pytest

from tests.cluster.conftest import Cluster, Load

Start = Callable[[str], AbstractContextManager[Load]]
Eventually = Callable[..., None]

# Seconds that a client waits at most when an API host is lost, and for which a fault lasts.
PATIENCE = 2.0
FAULT = 6.0


@pytest.fixture(autouse=True)
def whole(fleet: Cluster, eventually: Eventually) -> None:
    """Every test begins with a fleet that is whole."""
    eventually(lambda: len(fleet.owners()) == 1, "one gateway has the shared address", 20)
    for host in fleet.apis:
        eventually(lambda host=host: "not ready" not in fleet.ssh(host, "vmlops-api status"), f"{host} is ready", 30)


def other_gateway(fleet: Cluster) -> tuple[str, str]:
    """The gateway that has the shared address, and the other one."""
    (owner,) = fleet.owners()
    (other,) = set(fleet.gateways) - {owner}
    return owner, other


def served(load: Load, seconds: float) -> None:
    """Wait for so long, and until clients were answered in the meantime."""
    before, deadline = load.answers(), time.monotonic() + seconds
    while time.monotonic() < deadline or load.answers() == before:
        assert time.monotonic() < deadline + 10, f"no answer for {seconds + 10:.0f} s: {dict(load.codes)}"
        time.sleep(0.1)


def test_the_active_gateway_is_cut_off_and_comes_back(fleet: Cluster, load: Start, eventually: Eventually) -> None:
    owner, other = other_gateway(fleet)
    with load("the gateway that has the address is cut off") as seen:
        served(seen, 1)
        with fleet.cut_off(owner):
            lost = time.monotonic()
            eventually(lambda: fleet.has_address(other), f"{other} has the address", 3)
            moved = time.monotonic() - lost
            seen.remark = f"the address moved after {moved:.1f} s"
            served(seen, FAULT)
    assert [round(moment - lost, 1) for moment in seen.failures if moment > lost + 5] == []
    with load("it comes back") as seen:
        eventually(lambda: fleet.owners() == [other], f"{owner} is back, and {other} keeps the address", 20)
        served(seen, 3)
    assert set(seen.codes) == {"200"}


def test_nginx_of_the_active_gateway_is_killed(fleet: Cluster, load: Start) -> None:
    owner, _ = other_gateway(fleet)
    with load("nginx of the gateway that has the address is killed") as seen:
        served(seen, 1)
        killed = time.monotonic()
        fleet.ssh(owner, "systemctl kill --signal=KILL nginx.service")
        served(seen, FAULT)
        failed = [moment - killed for moment in seen.failures]
        seen.remark = f"the last error after {max(failed):.1f} s" if failed else "systemd starts it again"
    assert [round(moment, 1) for moment in failed if moment > 5] == []


def test_an_api_host_is_cut_off(fleet: Cluster, load: Start) -> None:
    with load("an API host is cut off") as seen:
        served(seen, 1)
        with fleet.cut_off("api2"):
            served(seen, FAULT)
        served(seen, 3)
    assert set(seen.codes) == {"200"}
    assert seen.slowest < PATIENCE


def test_an_api_host_hangs(fleet: Cluster, load: Start, eventually: Eventually) -> None:
    """It takes connections and answers none, until its watchdog has seen that and replaced every instance."""
    with load("an API host hangs") as seen:
        served(seen, 1)
        fleet.ssh("api2", "systemctl kill --signal=STOP 'vmlops-api-v*@*.service'")
        stopped = time.monotonic()
        served(seen, FAULT)
        eventually(lambda: "not ready" not in fleet.ssh("api2", "vmlops-api status"), "api2 answers again", 30)
        seen.remark = f"it answered again after {time.monotonic() - stopped:.0f} s"
        served(seen, 3)
    assert set(seen.codes) == {"200"}
    assert seen.slowest < PATIENCE


def test_one_gateway_cannot_reach_one_api_host(fleet: Cluster, load: Start) -> None:
    owner, _ = other_gateway(fleet)
    with load("the network between the gateway and one API host is cut") as seen:
        served(seen, 1)
        with fleet.unreachable(owner, "api1"):
            served(seen, FAULT)
        served(seen, 3)
    assert set(seen.codes) == {"200"}
    assert seen.slowest < PATIENCE


def test_monitoring_is_gone(fleet: Cluster, load: Start) -> None:
    with load("monitoring is cut off") as seen:
        served(seen, 1)
        with fleet.cut_off("monitoring1"):
            served(seen, FAULT)
    assert set(seen.codes) == {"200"}
    assert seen.slowest < PATIENCE
