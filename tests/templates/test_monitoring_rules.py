"""Every alert fires when it should and is silent when it should be: promtool's unit tests of the rendered rules."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

from tests.paths import ROOT
from tests.templates.render import render

PROMTOOL = ROOT / "build/tools/usr/bin/promtool"
JOBS = ("api", "node", "nginx", "edge", "prometheus", "alertmanager")
V1 = '{version="v1", route="/predict", code="%s"}'
NGINX = 'node_systemd_unit_state{job="node", host="%s", name="nginx.service", state="active"}'
ADDRESS = "192.0.2.10"
DISK = '{host="lab", mountpoint="/", fstype="ext4"}'


class Case(NamedTuple):
    """Series in promtool's notation (one sample a minute), and how many alerts of the name they make fire at `at`."""

    alert: str
    series: dict[str, str]
    firing: int
    at: str = "20m"


def requests(**rates: int) -> dict[str, str]:
    """Requests to /predict of v1: how many more of each code a minute."""
    return {"edge_requests_total" + V1 % code.strip("_"): f"0+{rate}x2000" for code, rate in rates.items()}


def predictions(version: str = "v1", **rates: int) -> dict[str, str]:
    """Requests for predictions: how many more of each outcome a minute."""
    outcomes = dict.fromkeys(("in_time", "late", "failed", "abandoned"), 0) | rates
    name = 'edge_predictions_total{version="%s", outcome="%s"}'
    return {name % (version, outcome): f"0+{rate}x2000" for outcome, rate in outcomes.items()}


def jobs(host: str, **values: str) -> dict[str, str]:
    return {f'up{{host="{host}", job="{job}"}}': value for job, value in values.items()}


def replicas(version: str, *values: str) -> dict[str, str]:
    return {f'up{{job="api", version="{version}", replica="{i}"}}': value for i, value in enumerate(values)}


def served(*rates: int) -> dict[str, str]:
    name = 'vmlops_requests_total{version="v1", replica="%d", route="/predict", code="200"}'
    return {name % i: f"0+{rate}x400" for i, rate in enumerate(rates)}


HOLDS = f'node_network_address_info{{host="%s", address="{ADDRESS}"}}'
CERTIFICATE = 'vmlops_certificate_not_after_timestamp_seconds{host="lab"}'
DOWN, UP = "0x400", "1x400"


def accuracy(high: float) -> dict[str, str]:
    """Held out 0.7; estimated at most `high`."""
    return {
        'vmlops_estimated_accuracy_ratio{version="v1",bound="high",replica="v1@8001"}': f"{high}x400",
        'vmlops_held_out_accuracy_ratio{version="v1",replica="v1@8001"}': "0.7x400",
    }


CASES = [
    Case("Watchdog", {}, 1),
    Case("TargetDown", {'up{job="node", instance="a"}': DOWN, 'up{job="edge", instance="a"}': UP}, 1),
    Case("TargetDown", {'up{job="node", instance="a"}': "1 0 0 0 0 1x400"}, 0),
    Case("PagesBlind", jobs("a", edge=DOWN, node=UP, nginx=UP), 1),
    Case("PagesBlind", jobs("a", edge=DOWN, node=DOWN, nginx=DOWN, api=UP), 3),
    Case("PagesBlind", jobs("a", edge=UP, node=UP, alertmanager=DOWN), 0),
    Case("PagesBlind", jobs("a", edge=DOWN, node=DOWN, nginx=DOWN) | jobs("b", prometheus=UP), 0),  # HostDown
    Case("ScrapeAbsent", {f'up{{job="{job}"}}': UP for job in JOBS if job != "edge"}, 1),
    Case("ScrapeAbsent", {f'up{{job="{job}"}}': DOWN for job in JOBS}, 0),
    Case("EdgeLogUnread", {'nginx_http_requests_total{host="lab"}': "0+150x400"}, 1),
    Case("EdgeLogUnread", {"edge_unparsed_lines_total": "0+1x400"}, 1),
    Case("EdgeLogUnread", {'nginx_http_requests_total{host="lab"}': "0+150x400",
                           'edge_requests_total{host="lab", code="200"}': "0+149x400",
                           "edge_unparsed_lines_total": "0x400"}, 0),
    Case("ConfigReloadFailed", {"prometheus_config_last_reload_successful": DOWN,
                                "alertmanager_config_last_reload_successful": DOWN}, 1),
    Case("ConfigReloadFailed", {"prometheus_config_last_reload_successful": UP}, 0),
    Case("RuleEvaluationFailing", {'prometheus_rule_evaluation_failures_total{rule_group="edge"}': "0+1x400"}, 1),
    Case("RuleEvaluationFailing", {'prometheus_rule_evaluation_failures_total{rule_group="edge"}': "7x400"}, 0),
    Case("NotificationsFailing", {'prometheus_notifications_dropped_total{job="prometheus"}': "0+1x400"}, 1),
    Case("NotificationsFailing", {'alertmanager_notifications_failed_total{job="alertmanager"}': "0+1x400"}, 1),
    Case("NotificationsFailing", {'prometheus_notifications_dropped_total{job="prometheus"}': "7x400"}, 0),
    Case("ReplicaDown", replicas("v1", UP, DOWN, UP), 1),
    Case("ReplicaDown", replicas("v1", UP, UP, UP) | replicas("v2", DOWN), 0),
    Case("ReplicaDown", replicas("v1", "1 1 1 1 0x400", UP), 0, at="5m"),
    Case("AllReplicasDown", replicas("v1", DOWN, DOWN, DOWN), 1, at="2m"),
    Case("AllReplicasDown", replicas("v1", DOWN, DOWN, UP) | replicas("v2", DOWN), 0),
    Case("DebugVersionDown", replicas("v1", UP) | replicas("v2", DOWN), 1),
    Case("DebugVersionDown", replicas("v1", DOWN) | replicas("v2", DOWN, UP), 0),
    Case("ReplicaSkew", served(300, 90, 300), 1),
    Case("ReplicaSkew", served(300, 300) | replicas("v1", UP, UP, UP), 1),  # the third one is never asked
    Case("ReplicaSkew", served(300, 200, 250), 0),
    Case("ReplicaSkew", served(3, 1, 9), 0),
    Case("MixedModelVersions", {f'vmlops_model_info{{version="v1", model_version="{v}"}}': UP for v in "ab"}, 1),
    Case("MixedModelVersions", {f'vmlops_model_info{{version="{v}", model_version="{v}"}}': UP for v in "ab"}, 0),
    Case("MixedModelVersions", {f'vmlops_model_info{{host="{h}", version="v1", model_version="m", release="{h}"}}': UP
                                for h in "ab"}, 1),
    Case("MixedModelVersions", {f'vmlops_model_info{{host="{h}", version="v1", model_version="m", release="r"}}': UP
                                for h in "ab"}, 0),
    Case("PredictionDrift", {'vmlops_drift_psi{version="v1", distribution="label"}': "0.3x400"}, 1, at="40m"),
    Case("PredictionDrift", {'vmlops_drift_psi{version="v1", distribution="label"}': "0.2x400"}, 0, at="40m"),
    Case("EstimatedAccuracyLow", accuracy(0.6), 1, at="40m"),
    Case("EstimatedAccuracyLow", accuracy(0.66), 0, at="40m"),
    Case("NginxDown", jobs("a", nginx=UP) | {'nginx_up{host="a"}': DOWN}, 1, at="2m"),
    Case("NginxDown", jobs("a", nginx=UP) | {'nginx_up{host="a"}': UP}, 0),
    # The exporter ended with nginx: nginx_up is not there.
    Case("NginxDown", jobs("a", nginx=DOWN) | {NGINX % "a": DOWN}, 1, at="2m"),
    Case("NginxDown", jobs("a", nginx=DOWN, node=DOWN), 1, at="2m"),
    Case("NginxDown", jobs("a", nginx=DOWN) | {NGINX % "a": UP}, 0),
    Case("NginxDown", jobs("a", nginx=DOWN) | jobs("b", nginx=UP) | {'nginx_up{host="b"}': UP}, 0),
    Case("NginxDown", jobs("a", nginx=DOWN) | jobs("b", nginx=UP) | {'nginx_up{host="b"}': DOWN}, 1),
    Case("GatewayDown", jobs("a", nginx=DOWN) | jobs("b", nginx=UP) | {'nginx_up{host="b"}': UP}, 1),
    Case("GatewayDown", jobs("a", nginx=DOWN), 0),
    Case("VirtualAddressTwice", {HOLDS % "a": UP, HOLDS % "b": UP}, 1),
    Case("VirtualAddressTwice", {HOLDS % "a": "1x9 stale", HOLDS % "b": "_x9 1x400"}, 0),
    Case("VirtualAddressLost", jobs("a", node=UP, nginx=UP) | jobs("b", node=DOWN, nginx=DOWN), 1),
    Case("VirtualAddressLost", jobs("a", node=UP, nginx=UP) | jobs("b", node=DOWN, nginx=DOWN) | {HOLDS % "a": UP}, 0),
    Case("VirtualAddressLost", jobs("a", node=UP, nginx=UP) | jobs("b", node=DOWN, nginx=UP), 0),
    # 10 % errors are 20 times the budget of 0.5 %: both pages and the ticket.
    Case("ErrorBudgetBurn", predictions(in_time=90, failed=10), 3, at="90m"),
    # 4 % are 8 times the budget: too slow for the one hour window.
    Case("ErrorBudgetBurn", predictions(in_time=96, failed=4), 2, at="7h"),
    # 1 % is twice the budget: a ticket.
    Case("ErrorBudgetBurn", predictions(in_time=99, failed=1), 1, at="8h"),
    Case("ErrorBudgetBurn", predictions(in_time=999, failed=1), 0, at="8h"),
    # To a client that gave up waiting, that is no answer.
    Case("ErrorBudgetBurn", predictions(in_time=90, abandoned=10), 3, at="90m"),
    # The debug version is a ticket at most, and none of v1's affair.
    Case("ErrorBudgetBurn", predictions(in_time=100) | predictions("v2", failed=100), 1, at="7h"),
    # What the client did wrong is neither good nor bad.
    Case("ErrorBudgetBurn", requests(_401=500, _404=500, _429=500) | predictions(in_time=9, failed=1), 3, at="90m"),
    # Half of a handful fail, then it is over.
    Case("ErrorBudgetBurn", predictions() | {
        'edge_predictions_total{version="v1", outcome="in_time"}': "0 1 2 3 4 5 5x400",
        'edge_predictions_total{version="v1", outcome="failed"}': "0 1 2 3 4 5 5x400"}, 0, at="10m"),
    # An hour of errors ended an hour ago: nobody is paged any more, the ticket stays.
    Case("ErrorBudgetBurn", predictions(in_time=90) | {
        'edge_predictions_total{version="v1", outcome="failed"}': "0+10x60 600x2000"}, 1, at="2h"),
    Case("ErrorBudgetBurn", predictions(in_time=20, late=80), 3, at="90m"),
    Case("ErrorBudgetBurn", predictions(in_time=98, late=2), 0, at="90m"),
    # Failures are quick or slow, but no late answers: one outage is told once.
    Case("ErrorBudgetBurn", predictions(in_time=98, failed=100), 3, at="90m"),
    Case("RateLimited", requests(_200=180, _429=60), 1, at="30m"),
    Case("RateLimited", requests(_200=960, _429=60), 0, at="30m"),
    Case("RateLimited", requests(_200=1, _429=1), 0, at="30m"),
    Case("WrongPasswords", requests(_401=90), 1),
    Case("WrongPasswords", requests(_401=10, _403=90), 0),
    Case("CertificateExpires", {CERTIFICATE: f"{13 * 86400}x400"}, 1),
    Case("CertificateExpires", {CERTIFICATE: f"{15 * 86400}x400"}, 0),
    Case("CertificateExpiresNow", {CERTIFICATE: f"{2 * 86400}x400"}, 1),
    Case("CertificateExpiresNow", {CERTIFICATE: f"{4 * 86400}x400"}, 0),
    # It was read, then the node exporter went away: the last reading counts for a day.
    Case("CertificateExpiresNow", {CERTIFICATE: f"{2 * 86400}x60 stale"}, 1, at="10h"),
    Case("CertificateUnread", jobs("lab", nginx="1x1000") | {
        'vmlops_certificate_read_timestamp_seconds{host="lab"}': "0x1000"}, 1, at="3h"),
    Case("CertificateUnread", jobs("lab", nginx=UP), 1),
    Case("CertificateUnread", jobs("lab", nginx=DOWN), 1),
    Case("CertificateUnread", jobs("lab", nginx=UP) | {
        'vmlops_certificate_read_timestamp_seconds{host="lab"}': "0x40 stale"}, 0, at="90m"),
    Case("CertificateUnread", jobs("lab", nginx=UP) | {
        'vmlops_certificate_read_timestamp_seconds{host="lab"}': "0x400"}, 0),
    Case("HostDown", jobs("a", node=DOWN, api=DOWN) | jobs("b", node=UP), 1, at="4m"),
    Case("HostDown", jobs("a", node=DOWN, api=UP) | jobs("b", node=DOWN, edge=UP), 0),
    Case("UnitFailed", {'node_systemd_unit_state{name="nginx.service", state="failed"}': UP}, 1),
    Case("UnitFailed", {'node_systemd_unit_state{name="nginx.service", state="active"}': UP}, 0),
    Case("RestartLoop", {'node_systemd_service_restart_total{name="nginx.service"}': "0+1x400"}, 1),
    Case("RestartLoop", {'node_systemd_service_restart_total{name="nginx.service"}': "0x20 1x400"}, 0),
    Case("DiskFilling", {"node_filesystem_avail_bytes" + DISK: "190-0.4x2000",
                         "node_filesystem_size_bytes" + DISK: "1000x2000"}, 1, at="7h"),
    Case("DiskFilling", {"node_filesystem_avail_bytes" + DISK: "190x2000",
                         "node_filesystem_size_bytes" + DISK: "1000x2000"}, 0, at="7h"),
    Case("DiskFull", {"node_filesystem_avail_bytes" + DISK: "40x400",
                      "node_filesystem_size_bytes" + DISK: "1000x400"}, 1),
    Case("DiskFull", {"node_filesystem_avail_bytes" + DISK: "60x400",
                      "node_filesystem_size_bytes" + DISK: "1000x400"}, 0),
    # Full by design, as a mounted image is.
    Case("DiskFull", {"node_filesystem_avail_bytes" + DISK: "0x400", "node_filesystem_size_bytes" + DISK: "1000x400",
                      "node_filesystem_readonly" + DISK: UP}, 0),
    Case("DiskFull", {"node_filesystem_avail_bytes" + DISK: "40x4 stale",
                      "node_filesystem_size_bytes" + DISK: "1000x4 stale"}, 1, at="25m"),
    Case("InodesFull", {"node_filesystem_files_free" + DISK: "40x400", "node_filesystem_files" + DISK: "1000x400",
                        "node_filesystem_readonly" + DISK: DOWN}, 1),
    Case("InodesFull", {"node_filesystem_files_free" + DISK: "60x400", "node_filesystem_files" + DISK: "1000x400"}, 0),
    Case("InodesFull", {"node_filesystem_files_free" + DISK: "0x400", "node_filesystem_files" + DISK: "0x400"}, 0),
    Case("DiskReadOnly", {"node_filesystem_readonly" + DISK: "0x10 1x400"}, 1),
    Case("DiskReadOnly", {"node_filesystem_readonly" + DISK: UP}, 0),
    Case("MemoryLow", {"node_memory_MemAvailable_bytes": "9x400", "node_memory_MemTotal_bytes": "100x400"}, 1),
    Case("MemoryLow", {"node_memory_MemAvailable_bytes": "11x400", "node_memory_MemTotal_bytes": "100x400"}, 0),
]  # fmt: skip


@pytest.fixture(scope="module")
def rules(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The rendered rules as production has them (the lab's alerts are quicker), checked by promtool."""
    directory = tmp_path_factory.mktemp("rules")
    for name in ("recording.yml", "alerts.yml"):
        options = {"prometheus_alert_time_scale": 1, "vmlops_virtual_address": ADDRESS}
        text = render("prometheus", f"etc/prometheus/rules/{name}.j2", **options)
        (directory / name).write_text(text)
    promtool("check", "rules", *sorted(directory.glob("*.yml")))
    return directory


def promtool(*arguments: object) -> str:
    run = subprocess.run([PROMTOOL, *map(str, arguments)], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
    return run.stdout


def alerts(rules: Path) -> list[dict[str, Any]]:
    groups = yaml.safe_load((rules / "alerts.yml").read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


@pytest.mark.parametrize("case", CASES, ids=[f"{i}-{case.alert}-{case.firing}" for i, case in enumerate(CASES)])
def test_alert(case: Case, rules: Path, tmp_path: Path) -> None:
    firing = f'count(ALERTS{{alertname="{case.alert}", alertstate="firing"}}) or vector(0)'
    test = tmp_path / "test.yml"
    document = {
        "rule_files": [str(rules / "recording.yml"), str(rules / "alerts.yml")],
        "evaluation_interval": "5m" if case.at.endswith("h") else "1m",
        "tests": [
            {
                "interval": "1m",
                "input_series": [{"series": series, "values": values} for series, values in case.series.items()],
                "promql_expr_test": [
                    {"expr": firing, "eval_time": case.at, "exp_samples": [{"labels": "{}", "value": case.firing}]}
                ],
            }
        ],
    }
    test.write_text(yaml.safe_dump(document, sort_keys=False))
    promtool("test", "rules", test)


def test_each_alert_is_seen_firing_and_silent(rules: Path) -> None:
    names = {rule["alert"] for rule in alerts(rules)}
    assert names == {case.alert for case in CASES if case.firing}
    assert names - {"Watchdog"} == {case.alert for case in CASES if not case.firing}


def test_a_fleet_reads_right(rules: Path, tmp_path: Path) -> None:
    """Two gateways, two API hosts with replicas of the same names, and one that watches."""
    hosts = ["gateway1", "gateway2", "api1", "api2", "monitoring1"]
    series = {f'up{{job="node", host="{host}"}}': UP for host in hosts}
    for host in hosts:
        disk = f'{{host="{host}", mountpoint="/", fstype="ext4"}}'
        series |= {f"node_filesystem_avail_bytes{disk}": "30x400", f"node_filesystem_size_bytes{disk}": "100x400"}
    # gateway2 answers as many requests as gateway1, and a fifth of them fail there.
    for host, good, bad in (("gateway1", 50, 0), ("gateway2", 40, 10)):
        series[f'up{{job="nginx", host="{host}"}}'] = UP
        series[f'nginx_up{{host="{host}"}}'] = UP
        for outcome, rate in (("in_time", good), ("late", 0), ("failed", bad), ("abandoned", 0)):
            series[f'edge_predictions_total{{host="{host}", version="v1", outcome="{outcome}"}}'] = f"0+{rate}x400"
        labels = f'host="{host}", version="v1", route="/predict"'
        series[f'edge_requests_total{{{labels}, code="200"}}'] = f"0+{good}x400"
        series[f'edge_requests_total{{{labels}, code="502"}}'] = f"0+{bad}x400"
    for host in ("api1", "api2"):
        for replica in ("v1@8001", "v1@8002"):
            labels = f'host="{host}", version="v1", replica="{replica}"'
            series[f'up{{job="api", {labels}}}'] = DOWN if (host, replica) == ("api2", "v1@8002") else UP
            series[f'vmlops_requests_total{{{labels}, route="/predict", code="200"}}'] = "0+30x400"
    expected: dict[str, dict[str, float]] = {
        'round(slo:bad:ratio5m{slo="availability"} * 100)': {'{slo="availability", version="v1"}': 10},
        "round(edge:requests_all:rate5m * 60)": {"{}": 100},
        "round(edge:requests_by_code:rate5m * 60)": {'{code="200"}': 90, '{code="502"}': 10},
        "count(edge:nginx:up == 1)": {"{}": 2},
        "count(api:requests:rate5m)": {"{}": 4},
        "api:replicas_up:count": {'api:replicas_up:count{version="v1"}': 3},
        "count by (host) (node:filesystem_in_use:ratio)": {f'{{host="{host}"}}': 1 for host in hosts},
        'count by (host, replica) (ALERTS{alertname="ReplicaDown", alertstate="firing"})': {
            '{host="api2", replica="v1@8002"}': 1
        },
    }
    document = {
        "rule_files": [str(rules / "recording.yml"), str(rules / "alerts.yml")],
        "evaluation_interval": "1m",
        "tests": [
            {
                "interval": "1m",
                "input_series": [{"series": name, "values": values} for name, values in series.items()],
                "promql_expr_test": [
                    {
                        "expr": expression,
                        "eval_time": "20m",
                        "exp_samples": [{"labels": labels, "value": value} for labels, value in samples.items()],
                    }
                    for expression, samples in expected.items()
                ],
            }
        ],
    }
    (tmp_path / "test.yml").write_text(yaml.safe_dump(document, sort_keys=False))
    promtool("test", "rules", tmp_path / "test.yml")


# By whose absence the metrics with such names go away.
EXPORTERS = {
    "edge_": "edge",
    "nginx_": "nginx",
    "node_": "node",
    "vmlops_certificate_": "node",
    "vmlops_": "api",
    "prometheus_": "prometheus",
    "alertmanager_": "alertmanager",
}
SEVERITIES = ["none", "ticket", "page"]


def exporters_of(expression: str, recorded: dict[str, str]) -> set[str]:
    """Jobs whose metrics an expression needs, those of recorded series included."""
    names = set(re.findall(r"[a-z]\w*(?::\w+)*", re.sub(r'"[^"]*"|{[^}]*}', "", expression)))
    found = {EXPORTERS[prefix] for name in names for prefix in EXPORTERS if name.startswith(prefix)}
    if any(name.startswith("vmlops_certificate_") for name in names):
        found.discard("api")
    for name in names & recorded.keys():
        found |= exporters_of(recorded[name], {other: expr for other, expr in recorded.items() if other != name})
    return found


@pytest.mark.parametrize("job", sorted({*EXPORTERS.values()} - {"prometheus"}))
def test_an_absent_exporter_is_as_urgent_as_what_it_measures(job: str, rules: Path, tmp_path: Path) -> None:
    """Every alert survives its exporter: if the metrics are gone, an alert of the same severity or a louder one fires."""
    groups = yaml.safe_load((rules / "recording.yml").read_text())["groups"]
    recorded: dict[str, str] = {}
    for rule in (rule for group in groups for rule in group["rules"]):
        recorded[rule["record"]] = f"{recorded.get(rule['record'], '')} {rule['expr']}"
    lost = [rule for rule in alerts(rules) if job in exporters_of(rule["expr"], recorded)]
    loudest = max(SEVERITIES.index(rule["labels"]["severity"]) for rule in lost)
    series = jobs("a", **{name: DOWN if name == job else UP for name in JOBS})
    if job != "nginx":
        series['nginx_up{host="a"}'] = UP
    if job != "node":
        series |= {NGINX % "a": UP, HOLDS % "a": UP, 'vmlops_certificate_read_timestamp_seconds{host="a"}': UP}
    up = series.pop('up{host="a", job="api"}')
    series['up{host="a", job="api", version="v1"}'] = up
    firing = 'count(ALERTS{alertstate="firing", severity="%s"}) > bool 0 or vector(0)'
    document = {
        "rule_files": [str(rules / "recording.yml"), str(rules / "alerts.yml")],
        "evaluation_interval": "1m",
        "tests": [
            {
                "interval": "1m",
                "input_series": [{"series": name, "values": value} for name, value in series.items()],
                "promql_expr_test": [
                    {
                        "expr": " + ".join(firing % severity for severity in SEVERITIES[loudest:]) + " > bool 0",
                        "eval_time": "30m",
                        "exp_samples": [{"labels": "{}", "value": 1}],
                    }
                ],
            }
        ],
    }
    print(job, "silences", sorted({rule["alert"] for rule in lost}), "loudest:", SEVERITIES[loudest])
    (tmp_path / "test.yml").write_text(yaml.safe_dump(document, sort_keys=False))
    promtool("test", "rules", tmp_path / "test.yml")


def test_each_alert_says_what_to_do(rules: Path) -> None:
    sections = re.findall(r"^## (\w+)$", (ROOT / "docs/runbook.md").read_text(), re.MULTILINE)
    assert sections == list(dict.fromkeys(rule["alert"] for rule in alerts(rules)))
    for rule in alerts(rules):
        assert rule["labels"]["severity"] in {"page", "ticket", "none"}, rule
        assert rule["annotations"]["summary"].endswith("."), rule


def test_waiting_times_can_be_scaled() -> None:
    text = render("prometheus", "etc/prometheus/rules/alerts.yml.j2", prometheus_alert_time_scale=0.1)
    held = {rule["alert"]: rule.get("for") for group in yaml.safe_load(text)["groups"] for rule in group["rules"]}
    assert (held["ReplicaDown"], held["AllReplicasDown"], held["Watchdog"]) == ("12s", "3s", None)
