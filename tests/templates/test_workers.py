"""What a host of the group workers gets: units at idle priority, and a way to the other workers and nowhere else."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
import yaml

from tests.templates.render import evaluate, render

FIREWALL = "etc/vmlops/firewall.nft.j2"
MADE: dict[str, Any] = {
    "environment": "scoring",
    "inventory_hostname": "worker1",
    "__workers_archives": {"venv": "venv-0", "code": "code-0"},
    "__workers_group": {"gid": 990},
    "workers_memory_max": 1024,
    "ansible_host": "10.0.0.1",
}


@pytest.mark.parametrize("unit", ["vmlops-scheduler.service", "vmlops-worker@.service"])
def test_units_take_what_is_left_and_have_a_bound(unit: str) -> None:
    lines = render("workers", f"etc/systemd/system/{unit}.j2", **MADE).splitlines()
    for wanted in (
        "CPUSchedulingPolicy=idle",
        "CPUWeight=idle",
        "Nice=19",
        "IOSchedulingClass=idle",
        "MemoryMax=1024M",
    ):
        assert wanted in lines
    (start,) = [line for line in lines if line.startswith("ExecStart=")]
    assert "--protocol tls" in start
    assert "0.0.0.0" not in start


def test_everything_is_encrypted_and_http_serves_nothing() -> None:
    settings = yaml.safe_load(render("workers", "etc/vmlops/workers/dask.yaml.j2", **MADE))["distributed"]
    assert settings["comm"]["require-encryption"] is True
    assert settings["comm"]["tls"]["ca-file"] == "/etc/vmlops/workers/ca.crt"
    assert settings["scheduler"]["http"]["routes"] == settings["worker"]["http"]["routes"] == []


def test_workers_may_open_connections_to_workers_alone() -> None:
    rules = render("workers", "etc/vmlops/firewall.d/vmlops-workers.nft.j2", **MADE).splitlines()[2:]
    assert len(rules) == 4
    assert all(
        re.fullmatch(r"meta skgid 990 ip daddr \S+ tcp dport \{ 8786, 8801-8864 \} accept", rule) for rule in rules[:3]
    )
    assert rules[3] == "meta skgid 990 counter reject with icmpx type admin-prohibited"


def test_the_first_host_has_the_scheduler_and_only_it_lets_ssh_through() -> None:
    sshd = "etc/ssh/sshd_config.d/10-vmlops.conf.j2"
    for host, here in (("worker1", True), ("worker2", False)):
        made = MADE | {"inventory_hostname": host}
        assert ("vmlops-scheduler.service" in evaluate("_workers_units", "workers", **made)) is here
        hardened = render("hardening", sshd, **made, hardening_ssh_forwards=[])
        assert ("PermitOpen 10.0.0.1:8786" in hardened) is here
        assert ("AllowTcpForwarding no" in hardened) is not here


def test_the_control_machine_is_told_how_ansible_reaches_the_scheduler() -> None:
    found = evaluate("_workers_access", "workers", **MADE)
    assert found["host"] == "worker1"
    assert found["destination"]
    assert found["arguments"].startswith("-F ")
    assert json.loads(json.dumps(found)) == found
