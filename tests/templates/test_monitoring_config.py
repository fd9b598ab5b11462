"""Configuration of the daemons: what they scrape, where they listen, whom they tell."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
import yaml

from tests.paths import ROOT
from tests.templates.render import DISTRIBUTIONS, evaluate, render

TOOLS = ROOT / "build/tools/usr/bin"


def check(*command: object) -> None:
    run = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr


def test_scrape_targets_come_from_the_instances(tmp_path: Path) -> None:
    instances = [{"version": "v1", "port": 8001}, {"version": "v1", "port": 8009}, {"version": "v2", "port": 8101}]
    endpoints = [i | {"name": f"{i['version']}@{i['port']}", "address": "10.0.0.1"} for i in instances]
    text = render("prometheus", "etc/prometheus/prometheus.yml.j2", vmlops_endpoints=endpoints)
    (tmp_path / "prometheus.yml").write_text(text)
    check(TOOLS / "promtool", "check", "config", "--syntax-only", tmp_path / "prometheus.yml")
    jobs = {job["job_name"]: job for job in yaml.safe_load(text)["scrape_configs"]}
    assert [(group["targets"], group["labels"]) for group in jobs["api"]["static_configs"]] == [
        (["10.0.0.1:8001"], {"version": "v1", "replica": "v1@8001"}),
        (["10.0.0.1:8009"], {"version": "v1", "replica": "v1@8009"}),
        (["10.0.0.1:8101"], {"version": "v2", "replica": "v2@8101"}),
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


def test_alertmanager_tells_whom_it_should(tmp_path: Path) -> None:
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
