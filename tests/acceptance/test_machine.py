"""The machine as an operator finds it."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from tests.acceptance.conftest import Machine


def test_nothing_has_failed(host: Any) -> None:
    failed = host.check_output("systemctl --failed --no-legend --plain")
    assert failed == "", failed + host.run("journalctl -b -p err -n 30 --no-pager").stdout


def test_only_nginx_and_sshd_listen_on_the_network(host: Any) -> None:
    lines = host.check_output("ss -Hltnp").splitlines() + host.check_output("ss -Hlunp").splitlines()
    assert lines
    open_to_all = {
        (line.split()[3].rpartition(":")[2], re.search(r'\(\("([^"]+)', line).group(1))  # type: ignore[union-attr]
        for line in lines
        if not re.match(r"(127\.|\[::1\])", line.split()[3])
    }
    # A VM asks for its address by DHCP.
    assert open_to_all - {("68", "systemd-network")} == {("22", "sshd"), ("443", "nginx"), ("80", "nginx")}, "\n".join(
        lines
    )


def test_every_instance_of_the_list_runs_and_no_other(host: Any, machine: Machine) -> None:
    units = host.check_output("systemctl list-units --plain --no-legend 'vmlops-api-*@*.service'").splitlines()
    running = {line.split()[0] for line in units if line.split()[3] == "running"}
    assert running == {f"vmlops-api-{name}.service" for name in machine.instances}, units


@pytest.mark.parametrize(
    "unit", ["vmlops-api.target", "nginx", "prometheus", "prometheus-node-exporter", "prometheus-nginx-exporter"]
)
def test_service_starts_at_boot(host: Any, unit: str) -> None:
    assert host.check_output(f"systemctl is-enabled {unit}") == "enabled"
    assert host.check_output(f"systemctl is-active {unit}") == "active"


def test_instances_run_from_their_release_and_cannot_write(host: Any, machine: Machine) -> None:
    for name in machine.instances:
        unit = f"vmlops-api-{name}.service"
        pid = host.check_output(f"systemctl show --value -p MainPID {unit}")
        release = host.check_output(f"readlink /proc/{pid}/cwd")
        assert re.fullmatch(r"/opt/vmlops/releases/[0-9a-f]{12}", release), release
        assert host.check_output(f"stat -c %U /proc/{pid}") == "vmlops"
        as_service = f"nsenter -t {pid} -m setpriv --reuid vmlops --regid vmlops --clear-groups"
        # find ends with an error where it may not even look, which is as good.
        found = host.run(
            f"{as_service} find / ( -path /proc -o -path /sys ) -prune -o -type d -writable -print".replace(
                "(", "\\("
            ).replace(")", "\\)")
        )
        assert found.stdout.split() == [f"/run/vmlops-api-{name.replace('@', '-')}"], found.stdout


def test_units_are_confined(host: Any, machine: Machine) -> None:
    for name in machine.instances:
        report = host.check_output(f"systemd-analyze security --no-pager --json=short vmlops-api-{name}.service")
        exposed = {
            check["name"] for check in json.loads(report) if not check["set"] and float(check["exposure"] or 0) >= 0.3
        }
        # It serves HTTP: these two are what it is for.
        assert exposed == {"PrivateNetwork=", "RestrictAddressFamilies=~AF_(INET|INET6)"}, report


def test_serving_process_has_no_pickle_reader_installed(host: Any) -> None:
    found = host.check_output(
        "find -L /opt/vmlops/v1/venv -maxdepth 5 -name sklearn -o -maxdepth 5 -name scipy -o -maxdepth 5 -name joblib"
    )
    assert found == "", found
