"""A system whose services have addresses of IPv6: whatever names a host and a port has the address in brackets."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.paths import ROOT
from tests.templates.gateway_edge import certificate, check, write_tree
from tests.templates.render import evaluate, facts, render

ADDRESS = "fd00::5"
TEMPLATES = sorted(
    (path.parts[path.parts.index("roles") + 1], str(path).partition("/templates/")[2])
    for path in ROOT.glob("roles/*/templates/**/*")
    if path.is_file()
)
# Variables that tasks give to a template when they render it.
GIVEN: dict[str, dict[str, Any]] = {
    "etc/systemd/system/vmlops.conf.j2": {"_confined_service_unit": "service"},
    "etc/vmlops/firewall.d/service.nft.j2": {"_confined_service_unit": "service"},
    "etc/nginx/users": {"item": {"name": "users", "accounts": []}},
    "etc/systemd/system/vmlops-api@.service.j2": {"version": "v1"},
    "decision.prom.j2": {"_api_decision": {"decision": "promoted", "version": "v1", "release": "0", "reason": "asked"}},
}


# And to all of a role's.
GIVEN_TO_ALL: dict[str, dict[str, Any]] = {
    "workers": {
        "groups": {"workers": ["lab"]},
        "workers_memory_max": 1024,
        "__workers_archives": {"venv": "venv-0", "code": "code-0"},
        "__workers_group": {"gid": 990},
    }
}


def options(role: str, template: str) -> dict[str, Any]:
    hostvars = {"lab": {"vmlops_address": ADDRESS}}
    addresses = {"vmlops_address": ADDRESS, "_gateway_monitoring": ADDRESS, "hostvars": hostvars}
    return addresses | GIVEN_TO_ALL.get(role, {}) | GIVEN.get(template, {})


def endpoints() -> list[dict[str, Any]]:
    listed: list[dict[str, Any]] = evaluate("vmlops_endpoints", "gateway")
    return [endpoint | {"address": ADDRESS} for endpoint in listed]


@pytest.mark.parametrize(("role", "template"), [row for row in TEMPLATES if "dashboard.json" not in row[1]])
def test_no_template_joins_such_an_address_and_a_port_without_brackets(role: str, template: str) -> None:
    text = render(role, template, vmlops_endpoints=endpoints(), **options(role, template))
    joined = re.findall(rf".*(?<!\[){re.escape(ADDRESS)}:.*", text)
    assert not joined, joined


def test_every_service_listens_and_is_asked_there() -> None:
    everything = "\n".join(
        render(role, template, vmlops_endpoints=endpoints(), **options(role, template))
        for role, template in TEMPLATES
        if "dashboard.json" not in template
    )
    ports = evaluate("vmlops_ports", "gateway")
    del ports["nginx_status"]  # always on 127.0.0.1
    for name, port in ports.items():
        # mtail and Grafana take the address by itself, and join the two themselves.
        assert f"[{ADDRESS}]:{port}" in everything, name
    assert f"\nHOST={ADDRESS}\n" in everything
    assert f"\nhttp_addr = {ADDRESS}\n" in everything
    assert f"VMLOPS_BIND=[{ADDRESS}]:%i" in everything


def test_nginx_and_prometheus_accept_it(tmp_path: Path) -> None:
    certificate(tmp_path)
    write_tree(tmp_path, 18080, 18443, vmlops_endpoints=endpoints(), **options("gateway", ""))
    assert check(tmp_path) == ""
    config = tmp_path / "prometheus.yml"
    config.write_text(render("prometheus", "etc/prometheus/prometheus.yml.j2", vmlops_endpoints=endpoints()))
    command = [str(ROOT / "build/tools/usr/bin/promtool"), "check", "config", "--syntax-only", str(config)]
    result = subprocess.run(command, check=False, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
    jobs = yaml.safe_load(config.read_text())["scrape_configs"]
    assert jobs[0]["static_configs"][0]["targets"] == ["[fd00::5]:8001"]


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["API.Example.ORG", "api.example.org"], "api.example.org"),
        (["bücher.example", "FD00::0005"], "xn--bcher-kva.example [fd00::5]"),
        (["a" * 63 + "." + "b" * 63 + "." + "c" * 63 + ".example.org"], None),
    ],
)
def test_nginx_answers_for_names_however_they_are_written(
    tmp_path: Path, names: list[str], expected: str | None
) -> None:
    certificate(tmp_path)
    write_tree(tmp_path, 18080, 18443, vmlops_server_names=names)
    assert check(tmp_path) == ""
    assert f"server_name {expected or names[0]};" in (tmp_path / "vmlops/server.conf").read_text()


@pytest.mark.parametrize(
    ("found", "address"),
    [
        ({"default_ipv4": {"address": "192.0.2.7"}, "default_ipv6": {}}, "192.0.2.7"),
        ({"default_ipv4": {}, "default_ipv6": {"address": "2001:db8::7"}}, "2001:db8::7"),
        ({"default_ipv4": {}, "default_ipv6": {}, "all_ipv4_addresses": ["10.0.0.7", "10.1.0.7"]}, "10.0.0.7"),
        ({"default_ipv4": {}, "default_ipv6": {}, "all_ipv4_addresses": []}, "127.0.0.1"),
    ],
)
def test_a_host_without_a_default_route_has_a_name_all_the_same(found: dict[str, Any], address: str) -> None:
    names = evaluate("vmlops_server_names", "gateway", ansible_facts=facts("Debian-12") | found)
    assert names == ["localhost", "127.0.0.1", "lab", address]
