"""Every service comes back by itself when its main process is killed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.conftest import Machine, evidence

SCRIPT = (Path(__file__).parent / "recover.py").read_text()
KILLED_SECONDS = 5


def addresses(machine: Machine) -> dict[str, str]:
    """Every unit that the system needs, and where it answers."""
    ports = machine.ports
    return {
        **{f"vmlops-api-{name}": f"127.0.0.1:{name.partition('@')[2]}" for name in machine.instances},
        "nginx": f"127.0.0.1:{ports['nginx_status']}",
        "vmlops-verifier": "/run/vmlops-verifier.socket",
        "vmlops-watchdog": "-",
        "mtail": f"127.0.0.1:{ports['mtail']}",
        "prometheus-node-exporter": f"127.0.0.1:{ports['node_exporter']}",
        "prometheus-nginx-exporter": f"127.0.0.1:{ports['nginx_exporter']}",
        "prometheus": f"127.0.0.1:{ports['prometheus']}",
        "prometheus-alertmanager": f"127.0.0.1:{ports['alertmanager']}",
    }


def seconds_to_recover(host: Any, unit: str, which: str, signal: str, address: str) -> float:
    """Send the signal to the unit's main process or first child; return the seconds until it is whole again."""
    result = host.run(f"python3 - {unit} {which} {signal} {address} <<'END'\n{SCRIPT}\nEND")
    assert result.rc == 0, (
        f"{result.stdout}{result.stderr}{host.run(f'journalctl -o cat --no-pager -n 20 -u {unit}').stdout}"
    )
    return float(result.stdout)


def test_watchdog_watches_every_service_that_runs(host: Any, machine: Machine) -> None:
    listed = host.check_output(
        "systemctl list-units --state=running --plain --no-legend 'vmlops-*.service' nginx.service mtail.service "
        "'prometheus*.service'"
    )
    assert {line.split()[0].removesuffix(".service") for line in listed.splitlines()} == set(addresses(machine))


# The instances of a version are alike, and so are their units: one of each.
@pytest.mark.parametrize(
    "unit",
    [
        "vmlops-api-v1@8001",
        "vmlops-api-v2@8101",
        "nginx",
        "vmlops-verifier",
        "vmlops-watchdog",
        "mtail",
        "prometheus-node-exporter",
        "prometheus-nginx-exporter",
        "prometheus",
        "prometheus-alertmanager",
    ],
)
def test_a_killed_service_comes_back(host: Any, machine: Machine, unit: str) -> None:
    seconds = seconds_to_recover(host, unit, "main", "KILL", addresses(machine)[unit])
    print(f"{unit}: {seconds} s")
    # An emulated processor ("qemu"; with hardware virtualization "kvm") is given the half a minute that recover.py waits.
    if host.run("systemd-detect-virt").stdout.strip() != "qemu":
        assert seconds <= KILLED_SECONDS


def test_nobody_is_refused_while_nginx_starts_again(host: Any, machine: Machine) -> None:
    """systemd holds its listening sockets: who connects meanwhile waits."""
    for _ in range(5):
        # The workers of the one that was killed before may have answered last, for a moment.
        master = "p=$(systemctl show --value -p MainPID nginx); [ $p != 0 ]"
        host.check_output(f"until {master}; do sleep 0.05; done; kill -KILL $p")
        with machine.client() as client:
            answer = client.get("/health")
        assert answer.status_code == 200, evidence(answer)


def test_no_service_gives_up(host: Any, machine: Machine) -> None:
    """However often it ends: no start limit leaves it for a person to find."""
    for unit in addresses(machine):
        properties = host.check_output(f"systemctl show -p Restart -p StartLimitIntervalUSec {unit}").splitlines()
        assert set(properties) == {"Restart=always", "StartLimitIntervalUSec=0"}, (unit, properties)
