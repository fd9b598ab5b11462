"""What rollouts and an operator's work do to a fleet, and what its clients notice: nothing."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
import yaml

from host import cluster
from tests.cluster.conftest import Cluster, Load
from tests.paths import ROOT

Start = Callable[[str], AbstractContextManager[Load]]
BOOT = "systemctl show --property=UserspaceTimestampMonotonic"


def releases(fleet: Cluster) -> dict[str, str]:
    """The release that v1 runs, by API host."""
    return {host: json.loads(fleet.ssh(host, "vmlops-api releases"))["v1"]["active"] for host in fleet.apis}


def upstreams(fleet: Cluster) -> dict[str, list[str]]:
    """The addresses that each gateway asks for v1."""
    found = {}
    for gateway in fleet.gateways:
        servers = re.findall(
            r"server (\S+):8001 [^;]*?(down)?;", fleet.ssh(gateway, "cat /etc/nginx/vmlops/upstreams.conf")
        )
        found[gateway] = sorted(address for address, down in servers if not down)
    return found


def test_one_gateway_has_the_shared_address_and_names_resolve(fleet: Cluster) -> None:
    assert len(fleet.owners()) == 1
    for name, address in fleet.hosts.items():
        assert fleet.ssh("monitoring1", f"getent hosts {name}").split()[0] == address


def test_keepalived_is_confined(fleet: Cluster) -> None:
    for gateway in fleet.gateways:
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
        with load("a rollout fails on the second host, and the fleet goes back") as seen:
            result = fleet.try_playbook("playbooks/deploy.yml", "-e", '{"api_ready_timeout": 5}')
    finally:
        fleet.ssh(
            "api2", f"rm -rf {drop_in} && systemctl daemon-reload; systemctl start vmlops-api.target", check=False
        )
    assert result.returncode != 0
    assert "api2 failed with release" in result.stdout, result.stdout[-3000:]
    assert releases(fleet) == before
    assert set(seen.codes) == {"200"}


@pytest.mark.usefixtures("another_release")
def test_a_rollout_that_is_killed_between_two_hosts_is_completed_and_taken_back_as_one(
    fleet: Cluster, load: Start
) -> None:
    """Its lock keeps other control machines out, and the next run from its own takes it over. The rollback goes to what the
    fleet ran before, although one host had the new release before the other.
    """
    before = releases(fleet)
    assert len(set(before.values())) == 1, before
    with load("a rollout is killed between two hosts, done again, and taken back") as seen:
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
        refused = fleet.ssh("api2", "vmlops-api lock another.example 1 2>&1", check=False)
        assert f"process {first.pid} of " in refused, refused
        assert "has been rolling out since 20" in refused
        fleet.playbook("playbooks/deploy.yml")
        after = releases(fleet)
        assert len(set(after.values())) == 1, after
        assert set(after.values()).isdisjoint(before.values())
        fleet.playbook("playbooks/rollback.yml")
    assert releases(fleet) == before
    assert set(seen.codes) == {"200"}


@pytest.fixture
def without(tmp_path: Path) -> Callable[[str], tuple[str, list[str]]]:
    """without(host) is inventory/cluster with a host less, for the same machines, and the options that say so."""

    def change(host: str) -> tuple[str, list[str]]:
        copy = tmp_path / "cluster"
        shutil.copytree(ROOT / "inventory/cluster", copy)  # what links lead to is copied
        for name in ("hosts.yml", "lab.yml"):
            groups = yaml.safe_load((copy / name).read_text())
            for group in groups.values():
                group["hosts"].pop(host, None)
            (copy / name).write_text(yaml.safe_dump(groups))
        same = {"lab_seed": str(ROOT / "inventory/cluster"), "lab_machine_control_dir": str(cluster.CONTROL)}
        return str(copy), ["-e", json.dumps(same)]

    return change


def test_a_host_that_is_taken_out_of_the_inventory_and_put_back(
    fleet: Cluster, load: Start, without: Callable[[str], tuple[str, list[str]]]
) -> None:
    both = sorted(fleet.hosts[host] for host in fleet.apis)
    inventory, options = without("api2")
    with load("an API host is taken out of the inventory and put back") as seen:
        fleet.playbook("site.yml", "--tags", "firewall,gateway,monitoring", *options, inventory=inventory)
        assert set(map(tuple, upstreams(fleet).values())) == {(fleet.hosts["api1"],)}
        for host, file in (
            ("monitoring1", "/etc/prometheus/prometheus.yml"),
            ("gateway1", "/etc/vmlops/firewall.d/nginx.nft"),
        ):
            assert fleet.hosts["api2"] not in fleet.ssh(host, f"cat {file}")
        # Nobody asks it: it may go.
        fleet.ssh("api2", "systemctl stop 'vmlops-api-v*@*.service'")
        time.sleep(2)
        said = fleet.playbook("site.yml", "--tags", "api,firewall,gateway,monitoring")
        print(said[-1500:])
    assert all(addresses == both for addresses in upstreams(fleet).values())
    assert set(seen.codes) == {"200"}


def test_updates_and_reboots_lose_no_request(fleet: Cluster, load: Start) -> None:
    (owner,) = fleet.owners()
    chosen = {"api2", owner}
    boots = {host: fleet.ssh(host, BOOT) for host in fleet.hosts}
    for host in chosen:
        fleet.ssh(host, "touch /run/reboot-required")
    with load("updates, with a reboot of an API host and of the gateway that has the address") as seen:
        said = fleet.playbook("playbooks/upgrade.yml")
    print(said[-2000:])
    again = {host for host in fleet.hosts if fleet.ssh(host, BOOT) != boots[host]}
    assert again == chosen
    assert fleet.owners() != [owner]
    assert all(addresses == sorted(fleet.hosts[host] for host in fleet.apis) for addresses in upstreams(fleet).values())
    assert set(seen.codes) == {"200"}


def test_an_empty_machine_takes_the_place_of_one_that_is_lost(fleet: Cluster, load: Start) -> None:
    """With what operations.md says to back up: the environment, its CA and the model."""
    before = releases(fleet)
    with load("an API host is lost, and an empty machine takes its place") as seen:
        for state in ("absent", "started"):
            fleet.playbook("playbooks/lab.yml", "--limit", "api2", "-e", f"lab_machine_state={state}")
        assert "vmlops-api" not in fleet.ssh("api2", "ls /usr/local/sbin")
        fleet.playbook("site.yml")
    assert releases(fleet) == before
    assert set(seen.codes) == {"200"}
