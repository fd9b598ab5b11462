"""Configuration of the daemons: what they scrape, where they listen, whom they tell."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from ansible.parsing.vault import VaultLib, VaultSecret

from tests.paths import ROOT
from tests.templates.render import DISTRIBUTIONS, evaluate, render

TOOLS = ROOT / "build/tools/usr/bin"


def check(*command: object) -> None:
    run = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr


def test_scrape_targets_come_from_the_instances(tmp_path: Path) -> None:
    instances = [{"version": "v1", "port": 8001}, {"version": "v1", "port": 8009}, {"version": "v2", "port": 8101}]
    endpoints = [i | {"host": "one", "name": f"{i['version']}@{i['port']}", "address": "10.0.0.1"} for i in instances]
    text = render("prometheus", "etc/prometheus/prometheus.yml.j2", vmlops_endpoints=endpoints)
    (tmp_path / "prometheus.yml").write_text(text)
    check(TOOLS / "promtool", "check", "config", "--syntax-only", tmp_path / "prometheus.yml")
    jobs = {job["job_name"]: job for job in yaml.safe_load(text)["scrape_configs"]}
    assert [(group["targets"], group["labels"]) for group in jobs["api"]["static_configs"]] == [
        (["10.0.0.1:8001"], {"host": "one", "version": "v1", "replica": "v1@8001"}),
        (["10.0.0.1:8009"], {"host": "one", "version": "v1", "replica": "v1@8009"}),
        (["10.0.0.1:8101"], {"host": "one", "version": "v2", "replica": "v2@8101"}),
    ]
    assert list(jobs) == evaluate("_prometheus_jobs", "prometheus")
    assert jobs["edge"]["static_configs"] == [{"targets": ["127.0.0.1:3903"], "labels": {"host": "lab"}}]


@pytest.mark.parametrize(
    ("role", "unit"),
    [
        ("prometheus", "prometheus"),
        ("alertmanager", "prometheus-alertmanager"),
        ("node_exporter", "prometheus-node-exporter"),
        ("nginx_exporter", "prometheus-nginx-exporter"),
        ("mtail", "mtail"),
    ],
)
def test_daemons_listen_where_they_are_told(role: str, unit: str) -> None:
    port = evaluate("vmlops_ports", role)[role]
    text = render(role, f"etc/default/{unit}.j2", vmlops_address="10.9.8.7")
    assert f"10.9.8.7:{port}" in text or f"HOST=10.9.8.7\nPORT={port}" in text, text
    # systemd reads this file: a value goes on over lines only inside quotes with a backslash at the line's end.
    assert text.count('"') % 2 == 0, text


@pytest.mark.parametrize(
    ("distribution", "packages"),
    [("Debian-12", ["prometheus"]), ("Debian-13", ["prometheus", "promtool"]), ("Ubuntu-24.04", ["prometheus"])],
)
def test_packages(distribution: str, packages: list[str]) -> None:
    assert distribution in DISTRIBUTIONS
    assert evaluate("_prometheus_packages", "prometheus", distribution=distribution) == packages


def test_alerts_go_to_the_configured_receivers(tmp_path: Path) -> None:
    receivers = [
        {"name": "nobody"},
        {"name": "pager", "webhook_configs": [{"url": "https://pager.example.org/"}]},
        {"name": "mail", "email_configs": [{"to": "a@example.org", "from": "b@example.org", "smarthost": "mx:25"}]},
    ]
    config = tmp_path / "alertmanager.yml"
    config.write_text(
        render(
            "alertmanager",
            "etc/prometheus/alertmanager.yml.j2",
            alertmanager_receivers=receivers,
            alertmanager_page_receiver="pager",
            alertmanager_ticket_receiver="mail",
        )
    )
    check(TOOLS / "amtool", "check-config", config)
    for labels, receiver in (
        (["alertname=ReplicaDown", "severity=ticket"], "mail"),
        (["alertname=NginxDown", "severity=page"], "pager"),
        (["alertname=Watchdog", "severity=none"], "nobody"),
    ):
        options = [f"--config.file={config}", f"--verify.receivers={receiver}"]
        check(TOOLS / "amtool", "config", "routes", "test", *options, *labels)


def test_receivers_that_are_encrypted_in_the_inventory_arrive_in_clear_text(tmp_path: Path) -> None:
    password, receivers, written = tmp_path / "password", tmp_path / "receivers.yml", tmp_path / "alertmanager.yml"
    password.write_text("only for this test")
    secret = VaultSecret(password.read_bytes())
    cipher = VaultLib().encrypt("https://pager.example.org/token", secret=secret).decode().splitlines()
    receivers.write_text(
        "\n".join(
            [
                "alertmanager_receivers:",
                "  - name: nobody",
                "  - name: pager",
                "    webhook_configs:",
                "      - url: !vault |",
                *(f"          {line}" for line in cipher),
            ]
        )
    )
    role = ROOT / "roles/alertmanager"
    command = [
        *("ansible", "localhost", "--inventory=localhost,", "--connection=local", f"--vault-password-file={password}"),
        *(
            f"--extra-vars=@{role}/defaults/main.yml",
            f"--extra-vars=@{receivers}",
            f"--extra-vars=ansible_python_interpreter={sys.executable}",
        ),
        "--module-name=ansible.builtin.template",
        f"--args=src={role}/templates/etc/prometheus/alertmanager.yml.j2 dest={written}",
    ]
    check(*command)
    assert yaml.safe_load(written.read_text())["receivers"][1]["webhook_configs"] == [
        {"url": "https://pager.example.org/token"}
    ]
    check(TOOLS / "amtool", "check-config", written)


def test_only_the_daemon_reads_the_receivers() -> None:
    tasks = yaml.safe_load((ROOT / "roles/alertmanager/tasks/main.yml").read_text())
    [task] = [t for t in tasks if "alertmanager.yml.j2" in str(t)]
    options = task["ansible.builtin.template"]
    assert (options["owner"], options["group"], options["mode"]) == ("root", "prometheus-alertmanager", "0640")
    assert task["diff"] is False


@pytest.mark.parametrize(("role", "unit"), [("prometheus", "prometheus"), ("alertmanager", "prometheus-alertmanager")])
def test_links_of_notifications_lead_through_the_gateway(role: str, unit: str) -> None:
    text = render(role, f"etc/default/{unit}.j2", vmlops_server_names=["emotions.example.org"], vmlops_https_port=8443)
    assert f"--web.external-url=https://emotions.example.org:8443/{role}/ " in text
    assert "--web.route-prefix=/ " in text
    published = render("gateway", "etc/nginx/vmlops/server.conf")
    assert f"location /{role}/" in published


def test_a_runbook_is_linked_only_where_it_is_published() -> None:
    path = "etc/prometheus/rules/alerts.yml.j2"
    assert "runbook_url" not in render("prometheus", path)
    text = render("prometheus", path, prometheus_runbook_url="https://wiki.example.org/runbook")
    rules = [rule for group in yaml.safe_load(text)["groups"] for rule in group["rules"]]
    assert {rule["annotations"]["runbook_url"] for rule in rules} == {
        f"https://wiki.example.org/runbook#{rule['alert'].lower()}" for rule in rules
    }
