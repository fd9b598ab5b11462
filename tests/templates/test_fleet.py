"""What the gateways, Prometheus and the firewalls know of the API hosts, as inventories name more or fewer of them."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.paths import ROOT
from tests.templates.render import evaluate, render

ADDRESSES = {"gate": "10.0.0.1", "api1": "10.0.0.2", "api2": "10.0.0.3", "watch": "10.0.0.9", "score": "10.0.0.8"}


@pytest.fixture
def environment(tmp_path: Path) -> Any:
    """environment(api1={…}) is the path of an inventory with these API hosts and their variables."""

    def write(**apis: dict[str, Any]) -> Path:
        (tmp_path / "group_vars/all").mkdir(parents=True, exist_ok=True)
        for link, to in (("10-stack.yml", "stack.yml"), ("15-trial.yml", "trial.yml")):
            (tmp_path / "group_vars/all" / link).unlink(missing_ok=True)
            (tmp_path / "group_vars/all" / link).symlink_to(ROOT / "inventory" / to)
        groups: dict[str, dict[str, dict[str, Any]]] = {
            "gateway": {"gate": {}},
            "api": apis,
            "monitoring": {"watch": {}},
            "workers": {"score": {}},
        }
        hosts = {
            group: {"hosts": {host: {"vmlops_address": ADDRESSES[host], **own} for host, own in members.items()}}
            for group, members in groups.items()
        }
        (tmp_path / "hosts.yml").write_text(yaml.safe_dump(hosts))
        return tmp_path

    return write


def asked(environment: Path) -> dict[str, str]:
    """Each server of v1's upstream, and what stands behind its address."""
    text = render("gateway", "etc/nginx/vmlops/upstreams.conf", environment=environment)
    group = text.partition("upstream api_v1 {")[2].partition("}")[0]
    return dict(re.findall(r"server (\S+) max_fails=1 fail_timeout=2s ?(\w*);", group))


def test_every_run_has_the_machines_in_the_same_order(environment: Any) -> None:
    """The inventory's: else a run that has nothing to do writes Prometheus' targets anew."""
    hosts = evaluate("_prometheus_machine_jobs[0].hosts", "prometheus", environment=environment(api2={}, api1={}))
    assert hosts == ["api1", "api2", "gate", "watch", "score"]


def test_a_machine_that_only_scores_files_is_watched_too(environment: Any) -> None:
    fleet = environment(api1={})
    config = yaml.safe_load(render("prometheus", "etc/prometheus/prometheus.yml.j2", environment=fleet))
    (node,) = [job["static_configs"] for job in config["scrape_configs"] if job["job_name"] == "node"]
    assert {"targets": ["10.0.0.8:9100"], "labels": {"host": "score"}} in node
    assert {"address": "10.0.0.8", "port": 9100} in evaluate("_prometheus_asks", "prometheus", environment=fleet)
    exported = evaluate("node_exporter_units", "node_exporter", environment=fleet)
    for unit in ("vmlops-scheduler.service", "vmlops-worker@8801.service"):
        assert re.fullmatch(exported, unit)


def test_a_drained_host_stays_in_the_upstreams_and_gets_no_request(environment: Any) -> None:
    servers = asked(environment(api1={}, api2={"vmlops_drained": True}))
    assert {address: state for address, state in servers.items() if address.startswith("10.0.0.2")} == {
        f"10.0.0.2:{port}": "" for port in (8001, 8002, 8003)
    }
    assert {state for address, state in servers.items() if address.startswith("10.0.0.3")} == {"down"}


def test_a_host_that_does_not_answer_the_run_gets_no_request(environment: Any) -> None:
    servers = asked(environment(api1={"_vmlops_ping": {"unreachable": True}}, api2={"_vmlops_ping": {"ping": "pong"}}))
    assert servers["10.0.0.2:8001"] == "down"
    assert servers["10.0.0.3:8001"] == ""


def test_hosts_take_turns_in_the_upstreams(environment: Any) -> None:
    many = {"vmlops_instances": [{"version": "v1", "port": port} for port in (8001, 8002)]}
    one = {"vmlops_instances": [{"version": "v1", "port": 8001}]}
    assert list(asked(environment(api1=many, api2=many))) == [
        f"10.0.0.{host}:{port}" for port in (8001, 8002) for host in (2, 3)
    ]
    assert list(asked(environment(api1=many, api2=one))) == ["10.0.0.2:8001", "10.0.0.3:8001", "10.0.0.2:8002"]


@pytest.mark.parametrize(("apis", "tries"), [(["api1"], 3), (["api1", "api2"], 4)])
def test_a_request_outlives_all_replicas_of_one_host(environment: Any, apis: list[str], tries: int) -> None:
    text = render("gateway", "etc/nginx/vmlops/proxy_api.conf", environment=environment(**{api: {} for api in apis}))
    assert re.findall(r"proxy_next_upstream_tries (\S+);", text) == [str(tries)]


@pytest.mark.parametrize(
    ("role", "template", "options"),
    [
        ("gateway", "etc/nginx/vmlops/upstreams.conf", {}),
        ("prometheus", "etc/prometheus/prometheus.yml.j2", {}),
        ("confined_service", "etc/vmlops/firewall.d/service.nft.j2", {
            "_confined_service_unit": "nginx", "_confined_service_account": "www-data",
            "_confined_service_connects": "{{ vmlops_endpoints }}", "__confined_service_account": {"uid": 33},
        }),
        ("api", "etc/systemd/system/vmlops-api@.service.j2", {"version": "v1"}),
    ],
    ids=["upstreams", "targets", "firewall", "units"],
)  # fmt: skip
def test_a_host_comes_and_goes_by_one_line_of_the_inventory(
    environment: Any, role: str, template: str, options: dict[str, Any]
) -> None:
    two, one = (
        render(role, template, environment=environment(**{host: {} for host in hosts}), **options)
        for hosts in (("api1", "api2"), ("api1",))
    )
    assert "10.0.0.3" in two
    assert "10.0.0.3" not in one
    assert "10.0.0.2" in one


@pytest.mark.parametrize(
    ("role", "template", "expected"),
    [
        ("gateway", "etc/nginx/vmlops/proxy_api.conf", "proxy_pass https://api_$version;"),
        ("gateway", "etc/nginx/vmlops/proxy_api.conf", "include vmlops/proxy_tls.conf;"),
        ("prometheus", "etc/prometheus/prometheus.yml.j2", "cert_file: /etc/vmlops/host/host.crt"),
        ("api", "etc/systemd/system/vmlops-api@.service.j2", "Environment=VMLOPS_TLS_DIR=/etc/vmlops/host"),
        ("api", "etc/systemd/system/vmlops-api@.service.j2", "SupplementaryGroups=vmlops-tls"),
    ],
)
def test_the_api_is_asked_over_tls_where_hosts_are_several(
    environment: Any, role: str, template: str, expected: str
) -> None:
    several = environment(api1={}, api2={})
    assert expected in render(role, template, environment=several, version="v1")
    assert expected not in render(role, template, environment="lab", version="v1")


@pytest.mark.parametrize(("minor", "release"), [(11, "bbbbbbbbbbbb"), (13, "cccccccccccc")])
def test_hosts_with_another_python_have_another_release_of_the_same(minor: int, release: str) -> None:
    def host(python: int, active: str, since: int) -> dict[str, Any]:
        said = {"v1": {"active": active, "recorded": active, "previous": "", "since": since}}
        facts = {"python": {"version": {"major": 3, "minor": python}}, "architecture": "x86_64"}
        return {"ansible_facts": facts, "__api_releases": {"stdout": json.dumps(said)}}

    hosts = {"a": host(11, "aaaaaaaaaaaa", 1), "b": host(11, "bbbbbbbbbbbb", 2), "c": host(13, "cccccccccccc", 3)}
    facts = {"python": {"version": {"major": 3, "minor": minor}}, "architecture": "x86_64"}
    options: dict[str, Any] = {"hostvars": hosts, "groups": {"api": list(hosts)}, "ansible_facts": facts}
    assert evaluate("_api_fleet", "api", _api_rolled_versions=["v1"], **options)["v1"]["release"] == release


@pytest.mark.parametrize("host", ["api1", "gate", "watch", "score"])
def test_after_another_release_of_the_distribution_a_host_runs_the_roles_that_site_gives_it(
    environment: Any, host: str
) -> None:
    fleet = environment(api1={})
    groups = evaluate("groups", "upgrade", environment=fleet)
    site = yaml.safe_load((ROOT / "site.yml").read_text())
    # The API's roles are those of playbooks/api.yml, which the upgrade runs as a rollout.
    wanted = [
        role["role"]
        for play in site
        if host in groups.get(play.get("hosts"), [])
        for role in play.get("roles", [])
        if "when" not in role
    ]
    assert evaluate("_upgrade_roles", "upgrade", environment=fleet, inventory_hostname=host) == wanted


def test_hosts_that_only_score_files_can_be_upgraded() -> None:
    """Their environment has neither gateways nor a group of monitoring."""
    options: dict[str, Any] = {"environment": "scoring", "inventory_hostname": "worker1"}
    assert evaluate("_upgrade_roles", "upgrade", **options)[-1] == "workers"
    for path in (ROOT / "roles/upgrade/tasks").glob("*.yml"):
        for condition in re.findall(r"when: (inventory_hostname in groups.*)", path.read_text()):
            assert evaluate(condition, "upgrade", **options) is False, f"{path.name}: {condition}"
