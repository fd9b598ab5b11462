"""The firewall's rules for one host and for several, checked by nft itself."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.paths import ROOT
from tests.templates import crowd
from tests.templates.render import evaluate, render

RULES = "etc/vmlops/firewall.nft.j2"
UNIT = "etc/systemd/system/vmlops-firewall.service.j2"
SUDO = [] if os.geteuid() == 0 else ["sudo"]

CLUSTER = {
    "groups": {
        "all": ["edge", "one", "two", "watch"],
        "api": ["one", "two"],
        "gateway": ["edge"],
        "monitoring": ["watch"],
    },
    "hostvars": {
        "edge": {"vmlops_address": "10.0.0.1"},
        "one": {"vmlops_address": "10.0.0.2"},
        "two": {"vmlops_address": "10.0.0.3"},
        "watch": {"vmlops_address": "fd00::4"},
    },
}


def opened(rules: str) -> dict[str, set[int]]:
    """Return the TCP ports that each source may reach; ``""`` is everybody."""
    result: dict[str, set[int]] = {}
    for source, ports in re.findall(r"^ +(?:ip6? saddr (\S+) )?tcp dport (\d+|{[^}]*}) accept", rules, re.MULTILINE):
        result.setdefault(source, set()).update(map(int, re.findall(r"\d+", ports)))
    return result


def assert_loadable(rules: str) -> None:
    command = [*SUDO, "unshare", "--net", "nft", "--check", "--file", "-"]
    result = subprocess.run(command, input=rules, check=False, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr + rules


def test_one_host_opens_ssh_and_http_only() -> None:
    rules = render("firewall", RULES, vmlops_account="nogroup")
    assert_loadable(rules)
    assert opened(rules) == {"": {22, 80, 443}}


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("edge", {"": {22, 80, 443}, "fd00::4": {9100, 9113, 3903}}),
        ("one", {"": {22}, "10.0.0.1": {8001, 8002, 8003, 8101}, "fd00::4": {8001, 8002, 8003, 8101, 9100}}),
        ("watch", {"": {22}, "10.0.0.1": {9090, 9093, 3000}}),
    ],
)
def test_hosts_of_a_cluster_open_to_each_other_what_they_are_asked_for(
    host: str, expected: dict[str, set[int]]
) -> None:
    rules = render("firewall", RULES, vmlops_account="nogroup", inventory_hostname=host, **CLUSTER)
    assert_loadable(rules)
    assert opened(rules) == expected, rules


def test_only_the_gateway_may_tell_v2_what_v1_answered() -> None:
    rules = render("firewall", RULES, vmlops_account="nogroup", inventory_hostname="one", **CLUSTER)
    assert re.findall(r"saddr (\S+) udp dport { ([\d, ]+) }", rules) == [("10.0.0.1", "8101")]
    without = render(
        "firewall",
        RULES,
        vmlops_account="nogroup",
        inventory_hostname="one",
        vmlops_instances=[{"version": "v1", "port": 8001}],
        **CLUSTER,
    )
    assert_loadable(without)
    assert "} accept" in without
    assert " udp dport {" not in without


def test_rules_of_the_environment_are_added() -> None:
    rules = render(
        "firewall",
        RULES,
        vmlops_account="nogroup",
        firewall_ssh_port=2022,
        firewall_rules=["udp dport 51820 accept"],
    )
    assert_loadable(rules)
    assert opened(rules)[""] == {2022, 80, 443}
    assert "        udp dport 51820 accept\n" in rules


def test_unit_is_one_that_systemd_understands(tmp_path: Path) -> None:
    path = tmp_path / "vmlops-firewall.service"
    path.write_text(render("firewall", UNIT).replace("/usr/sbin/nft", "/bin/true"))
    result = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", path], check=False, capture_output=True, text=True
    )
    assert (result.returncode, result.stderr) == (0, "")


def test_gateways_that_share_an_address_let_each_other_announce_it() -> None:
    """Protocols are written as numbers, because a small machine has no list of their names."""
    groups = {"all": ["edge", "one"], "api": ["one"], "gateway": ["edge", "one"], "monitoring": []}
    names = {**CLUSTER, "groups": groups, "inventory_hostname": "edge"}
    rules = render("firewall", RULES, vmlops_account="nogroup", **names, vmlops_virtual_address="10.0.0.9")
    assert_loadable(rules)
    assert re.findall(r"saddr (\S+) meta l4proto (\d+) accept", rules) == [("10.0.0.2", "112")]
    assert "112" not in render("firewall", RULES, vmlops_account="nogroup", **names, vmlops_virtual_address="")


def test_half_open_handshakes_of_one_client_cost_no_other_client_an_answer(tmp_path: Path) -> None:
    """Three times as many as nginx can hold: without the bound, those at other addresses would not be answered."""
    rules = tmp_path / "rules"
    exempt = [f"{crowd.EXEMPT}/32", "fd00::/32"]
    rules.write_text(
        render(
            "firewall",
            RULES,
            vmlops_account="nogroup",
            firewall_client_connections=60,
            vmlops_exempt_networks=exempt,
        )
    )
    command = [*SUDO, "unshare", "--net", sys.executable, "-m", "tests.templates.crowd", str(tmp_path), str(rules)]
    done = subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True)
    print(done.stdout, done.stderr)
    assert done.returncode == 0
    found = json.loads(done.stdout.splitlines()[-1] or done.stdout.splitlines()[-2])
    assert found["ipv4"] | {"slowest_ms": 0} == {"open": 60, "codes": {"200": 20}, "slowest_ms": 0}
    assert found["ipv6"] | {"slowest_ms": 0} == {"open": 60, "codes": {"200": 20}, "slowest_ms": 0}
    assert found["exempt"]["open"] == 300


def test_nginx_may_send_what_its_configuration_sends() -> None:
    """To the replicas, and v1's answers to those of v2, in datagrams."""
    upstreams = render("gateway", "etc/nginx/vmlops/upstreams.conf")
    shadow = render("gateway", "etc/nginx/vmlops/shadow.conf", gateway_shadow_percent=10)
    sent = {("tcp", *found) for found in re.findall(r"\bserver ([\d.]+):(\d+)", upstreams)}
    datagrams = {("udp", *found) for found in re.findall(r"syslog:server=([\d.]+):(\d+)", shadow)}
    assert len(sent) >= 4, sent
    assert len(datagrams) == 1, datagrams
    rules = render(
        "confined_service",
        "etc/vmlops/firewall.d/service.nft.j2",
        _confined_service_unit="nginx",
        _confined_service_account="www-data",
        _confined_service_connects=evaluate("_gateway_asks", "gateway"),
        __confined_service_account={"uid": 33},
    )
    allowed = set(re.findall(r"meta skuid 33 ip daddr ([\d.]+) (tcp|udp) dport (\d+) accept", rules))
    missing = {(address, protocol, port) for protocol, address, port in sent | datagrams} - allowed
    assert not missing, rules
