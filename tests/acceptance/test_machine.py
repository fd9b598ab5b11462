"""The machine as an operator finds it."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest

from tests.acceptance.conftest import Machine


def test_nothing_has_failed(host: Any) -> None:
    failed = host.check_output("systemctl --failed --no-legend --plain")
    assert failed == "", failed + host.run("journalctl -b -p err -n 30 --no-pager").stdout


def test_only_nginx_and_sshd_listen_on_the_network(host: Any) -> None:
    lines = host.check_output("ss -Hltnp").splitlines() + host.check_output("ss -Hlunp").splitlines()
    assert lines
    open_to_all: dict[str, set[str]] = {}
    for line in lines:
        address = line.split()[3]
        if not re.match(r"(127\.|\[::1\])", address):
            open_to_all.setdefault(address.rpartition(":")[2], set()).update(re.findall(r'"([^"]+)",pid=', line))
    # A VM asks for its address by DHCP. systemd holds nginx's sockets.
    open_to_all.pop("68", None)
    nginx = {"nginx", "systemd"}
    assert open_to_all == {"22": {"sshd"}, "443": nginx, "80": nginx}, "\n".join(lines)


def test_every_instance_of_the_list_runs_and_no_other(
    host: Any, machine: Machine, eventually: Callable[..., Any]
) -> None:
    def running() -> set[str]:
        units = host.check_output("systemctl list-units --plain --no-legend 'vmlops-api-*@*.service'").splitlines()
        return {line.split()[0] for line in units if line.split()[3] == "running"}

    wanted = {f"vmlops-api-{name}.service" for name in machine.instances}
    # The watchdog may be replacing an instance that this busy computer kept waiting.
    eventually(lambda: running() == wanted, f"exactly {sorted(wanted)} run")


@pytest.mark.parametrize(
    "unit", ["vmlops-api.target", "nginx", "prometheus", "prometheus-node-exporter", "prometheus-nginx-exporter"]
)
def test_service_starts_at_boot(host: Any, unit: str) -> None:
    assert host.check_output(f"systemctl is-enabled {unit}") == "enabled"
    assert host.check_output(f"systemctl is-active {unit}") == "active"


def test_instances_run_from_their_release(host: Any, machine: Machine) -> None:
    for name in machine.instances:
        pid = host.check_output(f"systemctl show --value -p MainPID vmlops-api-{name}.service")
        release = host.check_output(f"readlink /proc/{pid}/cwd")
        assert re.fullmatch(r"/opt/vmlops/releases/[0-9a-f]{12}", release), release


def test_serving_process_has_no_pickle_reader_installed(host: Any) -> None:
    found = host.check_output(
        "find -L /opt/vmlops/v1/venv -maxdepth 5 -name sklearn -o -maxdepth 5 -name scipy -o -maxdepth 5 -name joblib"
    )
    assert found == "", found
