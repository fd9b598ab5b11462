"""What the clients of a fleet notice when a part of it fails, and what a rollout does to a fleet."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

import pytest

from tests.cluster.conftest import Cluster, Load
from tests.paths import ROOT

Start = Callable[[], AbstractContextManager[Load]]
Eventually = Callable[..., None]


def releases(fleet: Cluster) -> dict[str, str]:
    """The release that v1 runs, by API host."""
    apis = [host for host in fleet.hosts if host.startswith("api")]
    return {host: json.loads(fleet.ssh(host, "vmlops-api releases"))["v1"]["active"] for host in apis}


def test_one_gateway_has_the_shared_address_and_names_resolve(fleet: Cluster) -> None:
    assert len(fleet.owners()) == 1
    for name, address in fleet.hosts.items():
        assert fleet.ssh("monitoring1", f"getent hosts {name}").split()[0] == address


def test_a_gateway_that_is_cut_off_loses_the_address_within_three_seconds(
    fleet: Cluster, load: Start, eventually: Eventually
) -> None:
    (owner,) = fleet.owners()
    with load() as seen:
        time.sleep(1)
        with fleet.cut_off(owner):
            lost = time.monotonic()
            (other,) = {"gateway1", "gateway2"} - {owner}
            eventually(lambda: f" {fleet.address}/" in fleet.ssh(other, "ip -o addr"), f"{other} has the address", 3)
            moved = time.monotonic()
            time.sleep(3)
        eventually(lambda: fleet.owners() == [other], f"{owner} is back, and {other} keeps the address", 20)
        time.sleep(2)
    print(f"moved after {moved - lost:.1f} s; failures at {[round(moment - lost, 1) for moment in seen.failures]}")
    assert [moment for moment in seen.failures if moment > lost + 5] == []
    assert seen.codes["200"] > 20


def test_keepalived_is_confined(fleet: Cluster) -> None:
    for gateway in ("gateway1", "gateway2"):
        said = fleet.ssh(gateway, "systemd-analyze security --no-pager --threshold=30 keepalived", check=False)
        assert float(said.splitlines()[-1].rpartition(": ")[2].split()[0]) <= 3.0, said


@pytest.fixture
def another_release() -> Iterator[None]:
    """The repository makes another release meanwhile."""
    extra = ROOT / "app/another_release.txt"
    extra.write_text(f"{time.time()}\n")
    yield
    extra.unlink()


@pytest.mark.usefixtures("another_release")
def test_a_rollout_that_fails_on_the_second_host_takes_the_first_one_back(fleet: Cluster, load: Start) -> None:
    before = releases(fleet)
    assert len(set(before.values())) == 1, before
    # Its check passes and its service does not start: the unit is what is broken, on one host.
    drop_in = "/etc/systemd/system/vmlops-api-v1@.service.d"
    broken = f"mkdir -p {drop_in} && printf '[Service]\\nExecStartPre=/bin/false\\n' > {drop_in}/broken.conf"
    fleet.ssh("api2", f"{broken} && systemctl daemon-reload")
    try:
        with load() as seen:
            result = fleet.playbook("playbooks/deploy.yml", "-e", '{"api_ready_timeout": 5}')
    finally:
        fleet.ssh(
            "api2", f"rm -rf {drop_in} && systemctl daemon-reload; systemctl start vmlops-api.target", check=False
        )
    assert result.returncode != 0
    assert "api2 failed with release" in result.stdout, result.stdout[-3000:]
    assert releases(fleet) == before
    assert set(seen.codes) == {"200"}


@pytest.mark.usefixtures("another_release")
def test_rollout_and_rollback_lose_no_request_and_mean_the_fleet(fleet: Cluster, load: Start) -> None:
    before = releases(fleet)
    with load() as seen:
        result = fleet.playbook("playbooks/deploy.yml")
        assert result.returncode == 0, result.stdout[-3000:]
        assert len(set(releases(fleet).values())) == 1
        assert releases(fleet) != before
        result = fleet.playbook("playbooks/rollback.yml")
        assert result.returncode == 0, result.stdout[-3000:]
    assert releases(fleet) == before
    assert set(seen.codes) == {"200"}


@pytest.mark.usefixtures("another_release")
def test_a_rollout_that_is_killed_between_two_hosts_is_completed_by_the_next(fleet: Cluster, load: Start) -> None:
    before = releases(fleet)
    assert len(set(before.values())) == 1, before
    with load() as seen:
        command = ["ansible-playbook", "-i", "inventory/cluster", "playbooks/deploy.yml"]
        first = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, start_new_session=True)
        deadline = time.monotonic() + 300
        while (between := releases(fleet)) == before:
            assert first.poll() is None, "it ended before it was killed"
            assert time.monotonic() < deadline, between
        os.killpg(first.pid, signal.SIGKILL)
        first.wait()
        print(f"killed between {before} and {between}")
        assert len(set(between.values())) == 2, between
        result = fleet.playbook("playbooks/deploy.yml")
    assert result.returncode == 0, result.stdout[-3000:]
    after = releases(fleet)
    assert len(set(after.values())) == 1, after
    assert set(after.values()).isdisjoint(before.values())
    assert set(seen.codes) == {"200"}
