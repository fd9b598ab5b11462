"""What the monitoring of a machine shows, and whom it tells, on the machine itself."""

from __future__ import annotations

import json
import math
import re
import shlex
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urljoin, urlsplit

import httpx
import pytest
import yaml

from tests.acceptance.conftest import Machine
from tests.paths import ROOT
from tests.templates.render import evaluate, render

Query = Callable[..., list[Any]]
DASHBOARDS = ROOT / "roles/grafana/files/etc/grafana/dashboards"
DEBUG = {"X-Experiment-Group": "debug"}
SENTENCES = [
    "I love this",
    "how could you do that",
    "nothing to do again, so dull",
    "xyzzy plugh qwrtz",
    "what a day!",
] * 20
# Not in vocabulary of metrics: PromQL's own words, where a name of a metric could stand.
WORDS = {"and", "or", "unless", "bool", "offset"}


@pytest.fixture(scope="module")
def query(client: httpx.Client) -> Query:
    """Ask Prometheus through the gateway: samples of an instant query; with start, end and step, of a range query."""

    def run(expression: str, **over: float) -> list[Any]:
        path = "query_range" if over else "query"
        answer = client.get(f"/prometheus/api/v1/{path}", params={"query": expression, **over}).json()
        assert answer["status"] == "success", (expression, answer)
        result: list[Any] = answer["data"]["result"]
        return result

    return run


@pytest.fixture(scope="module")
def told(host: Any, machine: Machine) -> Callable[[], set[str]]:
    """Return the names of the alerts that Alertmanager has, but for those that inhibit each other."""

    def names() -> set[str]:
        answer = host.check_output(f"curl -s http://127.0.0.1:{machine.ports['alertmanager']}/api/v2/alerts")
        return {alert["labels"]["alertname"] for alert in json.loads(answer)}

    return names


@pytest.fixture(scope="module")
def traffic(client: httpx.Client, machine: Machine, host: Any) -> Callable[[], None]:
    """Return a function that makes one of everything that a panel shows: both versions, batches, 401, 404, 422, and a
    copy for v2 to compare, as the gateway would send it."""
    copy = (
        "curl -sf -H 'Content-Type: application/json' -H 'X-Shadow-Of: one' -d '{\"sentence\": \"x\"}' http://127.0.0.1:8101/predict"
        " && bash -c \"echo 'shadow: one model fun 0.5 0.001' > /dev/udp/127.0.0.1/8101\""
    )

    def make() -> None:
        for headers in ({}, {}, {}, DEBUG):
            client.post("/predict", json={"sentence": "I love this"}, headers=headers)
            client.post("/predict/batch", json={"sentences": SENTENCES}, headers=headers)
        host.check_output(copy)
        client.post("/predict", json={"sentence": 1})
        client.get("/nowhere")
        client.post("/predict", json={"sentence": "x"}, auth=(machine.credentials[0], "wrong"))

    return make


@pytest.fixture
def all_up_again(host: Any) -> Iterator[None]:
    yield
    host.check_output("systemctl start vmlops-api.target && systemctl start 'vmlops-api-v*@*' --all")


def rules() -> list[Any]:
    files = [render("prometheus", f"{file}.j2") for file in evaluate("_prometheus_rules", "prometheus")]
    return [rule for file in files for group in yaml.safe_load(file)["groups"] for rule in group["rules"]]


def targets() -> list[tuple[str, str, Any]]:
    """Every query of every panel: dashboard, panel, target."""
    found = []
    for file in sorted(DASHBOARDS.glob("*.json")):
        for panel in json.loads(file.read_text())["panels"]:
            found += [(file.stem, panel["title"], target) for target in panel.get("targets", [])]
    return found


def pages(host: Any, machine: Machine) -> dict[str, str]:
    """Prometheus's pages as they are delivered."""
    names = [
        path.rpartition("/")[2] for path in evaluate("_prometheus_consoles", "prometheus") if path.endswith("html")
    ]
    url = f"http://127.0.0.1:{machine.ports['prometheus']}/consoles"
    return {name: host.check_output(f"curl -sf {url}/{name}") for name in names}


def charts(page: str) -> list[str]:
    from html import unescape

    return [unescape(text) for text in re.findall(r'data-query="([^"]*)"', page)]


def metric_names(expression: str) -> set[str]:
    """Names of metrics in an expression of PromQL."""
    bare = re.sub(r'"[^"]*"|\'[^\']*\'|\{[^}]*\}|\[[^\]]*\]', " ", re.sub(r'"[^"]*"|\'[^\']*\'', "", expression))
    bare = re.sub(r"\b(by|without|on|ignoring|group_left|group_right)\s*\([^)]*\)", " ", bare)
    return set(re.findall(r"(?<![\w.:])[a-zA-Z_:][\w:]*(?![\w:]|\s*\()", bare)) - WORDS


def test_metric_names_are_found() -> None:
    assert metric_names(
        'sum by (a, b) (rate(x_total{c="d", e=~"f|g"}[5m])) / on (host) y:z and up == 0 or vector(0)'
    ) == {
        "x_total",
        "y:z",
        "up",
    }


def test_every_target_answers(query: Query, machine: Machine, eventually: Any) -> None:
    eventually(
        lambda: all(s["value"][1] == "1" for s in query("up{host!=''} or up{replica!=''}")), "all targets are up"
    )
    by_job = {s["metric"]["job"]: int(s["value"][1]) for s in query("count by (job) (up{host!=''} or up{replica!=''})")}
    assert by_job == {
        job: len(machine.instances) if job == "api" else 1 for job in evaluate("_prometheus_jobs", "prometheus")
    }


def test_every_name_in_rules_and_panels_exists(host: Any, machine: Machine, traffic: Any, eventually: Any) -> None:
    expressions = [rule["expr"] for rule in rules()] + [target["expr"] for _, _, target in targets()]
    expressions += [chart for page in pages(host, machine).values() for chart in charts(page)]
    wanted = set().union(*map(metric_names, expressions))
    url = f"http://127.0.0.1:{machine.ports['prometheus']}/api/v1/label/__name__/values"
    print(f"{len(wanted)} names in {len(expressions)} expressions")

    def missing() -> set[str]:
        traffic()
        return wanted - set(json.loads(host.check_output(f"curl -s {url}"))["data"])

    try:
        eventually(lambda: not missing(), "every name is a metric", seconds=150)
    finally:
        print("missing:", missing())


def test_every_panel_has_data(query: Query, host: Any, machine: Machine, traffic: Any, eventually: Any) -> None:
    queries = {
        f"{uid}: {panel} ({t['refId']})": t["expr"].replace("$__rate_interval", "1m") for uid, panel, t in targets()
    }
    for name, page in pages(host, machine).items():
        queries |= {f"{name}: {chart}": chart for chart in charts(page)}
    assert len(queries) > 60

    def empty() -> list[str]:
        traffic()
        return [
            name
            for name, expression in queries.items()
            if not any(not math.isnan(float(sample["value"][1])) for sample in query(expression))
        ]

    try:
        eventually(lambda: not empty(), "every panel has data", seconds=150)
    finally:
        print("empty:", empty())


def test_pages_show_numbers(host: Any, machine: Machine, traffic: Any, eventually: Any) -> None:
    def without() -> list[str]:
        """Tiles that have no number yet: rates are of the last five minutes."""
        traffic()
        found = []
        for name, page in pages(host, machine).items():
            # An alert that fires is shown, and one has the word in its name.
            words = page.replace("ErrorBudgetBurn", "").lower().replace("answer.error", "")
            assert "error" not in words, name
            tiles = re.findall(r"<dt>(.*?)</dt><dd[^>]*>(.*?)</dd>", page, re.DOTALL)
            found += [f"{name}: {title}" for title, value in tiles if "nothing to show" in value]
        return found

    try:
        eventually(lambda: not without(), "every tile has a number", seconds=60)
    finally:
        print("without:", without())


def test_operators_reach_it_through_the_gateway(client: httpx.Client, machine: Machine) -> None:
    answer = client.get("/prometheus/api/v1/query", params={"query": "up"})
    assert (answer.status_code, answer.json()["status"]) == (200, "success")
    page = client.get("/prometheus/consoles/vmlops.html")
    assert (page.status_code, page.headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    with machine.client(auth=None) as stranger:
        assert stranger.get("/prometheus/api/v1/query").status_code == 401


def test_samples_are_bounded(host: Any, machine: Machine) -> None:
    answer = host.check_output(f"curl -s http://127.0.0.1:{machine.ports['prometheus']}/api/v1/status/flags")
    flags = json.loads(answer)["data"]
    assert flags["storage.tsdb.retention.time"] == "30d"
    assert flags["storage.tsdb.retention.size"] == "2GiB"


def test_watchdog_reaches_alertmanager(told: Any, eventually: Any) -> None:
    eventually(lambda: "Watchdog" in told(), "the Watchdog reaches Alertmanager", seconds=90)


def test_a_dead_replica_is_told_and_then_all_and_then_none(
    host: Any, machine: Machine, told: Any, query: Query, eventually: Any, all_up_again: None
) -> None:
    units = [f"vmlops-api-{name}" for name in machine.instances if name.startswith("v1@")]
    host.check_output(f"systemctl stop {units[0]}")
    eventually(lambda: "ReplicaDown" in told(), "ReplicaDown reaches Alertmanager", seconds=90)
    assert "AllReplicasDown" not in told()

    host.check_output(f"systemctl stop {' '.join(units)}")
    eventually(lambda: "AllReplicasDown" in told(), "AllReplicasDown reaches Alertmanager", seconds=90)
    page = query('ALERTS{alertname="AllReplicasDown", alertstate="firing"}')
    assert page[0]["metric"]["severity"] == "page"

    host.check_output(f"systemctl start {' '.join(units)}")
    firing = 'ALERTS{alertname=~"ReplicaDown|AllReplicasDown"}'
    eventually(lambda: not query(firing), "the alerts end", seconds=90)
    eventually(
        lambda: not {"ReplicaDown", "AllReplicasDown"} & told(), "Alertmanager knows that they ended", seconds=90
    )


def test_a_stopped_nginx_sends_an_urgent_alert(
    host: Any, told: Any, query: Query, eventually: Any, nginx_again: None
) -> None:
    """Also where the exporter is away with it: Debian 12's ends when nginx does not answer at its start."""
    host.check_output("systemctl stop nginx.socket")
    host.run(
        "systemctl restart prometheus-nginx-exporter"
    )  # which fails on Debian 12, and that is the case to be tested
    eventually(lambda: "NginxDown" in told(), "NginxDown reaches Alertmanager", seconds=90)
    answer = host.check_output("amtool alert query NginxDown --output=json")
    assert [alert["labels"]["severity"] for alert in json.loads(answer)] == ["page"], answer
    host.check_output("systemctl start nginx")
    eventually(lambda: query('up{job="nginx"} == 1'), "the exporter is back", seconds=60)
    eventually(lambda: not query('ALERTS{alertname="NginxDown"}'), "the alert ends", seconds=60)


@pytest.fixture
def nginx_again(host: Any) -> Iterator[None]:
    yield
    host.check_output("systemctl start nginx && systemctl restart prometheus-nginx-exporter")


def test_prometheus_counts_what_clients_count(
    host: Any, machine: Machine, client: httpx.Client, query: Query, eventually: Any, all_up_again: None, rested: None
) -> None:
    """Requests of all kinds, and an outage of v1 in the middle: the counters gain what the client got."""

    def counters() -> tuple[Counter[tuple[str, str]], Counter[tuple[str, str]]]:
        codes: Counter[tuple[str, str]] = Counter()
        outcomes: Counter[tuple[str, str]] = Counter()
        for sample in query('edge_requests_total{route="/predict"}'):
            codes[sample["metric"]["version"], sample["metric"]["code"]] = int(sample["value"][1])
        for sample in query("edge_predictions_total"):
            outcomes[sample["metric"]["version"], sample["metric"]["outcome"]] = int(sample["value"][1])
        return codes, outcomes

    got: Counter[tuple[str, str]] = Counter()

    def ask(times: int, version: str = "v1", **options: Any) -> None:
        headers = DEBUG if version == "v2" else {}
        for _ in range(times):
            answer = client.post("/predict", headers=headers, **({"json": {"sentence": "I love this"}} | options))
            got[version, str(answer.status_code)] += 1

    before, _ = counters()
    ask(30)
    ask(4, "v2")
    ask(3, json={"sentence": 1})
    ask(2, auth=(machine.credentials[0], "wrong"))
    v1 = " ".join(f"vmlops-api-{name}" for name in machine.instances if name.startswith("v1@"))
    host.check_output(f"systemctl stop {v1}")
    ask(10)
    host.check_output(f"systemctl start {v1}")
    print("the client got", dict(got))
    assert got["v1", "503"] + got["v1", "502"] > 0, "there was an outage"
    assert got["v1", "200"] > 0

    def gained() -> Counter[tuple[str, str]]:
        return counters()[0] - before

    try:
        eventually(lambda: gained() == got, "Prometheus has counted the same", seconds=30)
    finally:
        print("Prometheus says", dict(gained()))


def test_a_client_that_gives_up_is_counted(
    host: Any, machine: Machine, query: Query, eventually: Any, all_up_again: None, rested: None
) -> None:
    count = 'edge_predictions_total{version="v1", outcome="abandoned"}'
    before = float(query(count)[0]["value"][1])
    v1 = " ".join(f"vmlops-api-{name}" for name in machine.instances if name.startswith("v1@"))
    host.check_output(f"systemctl kill --kill-whom=all --signal=STOP {v1}")
    try:
        with machine.client(timeout=0.8) as impatient, pytest.raises(httpx.ReadTimeout):
            impatient.post("/predict", json={"sentence": "I love this"})
    finally:
        host.check_output(f"systemctl kill --kill-whom=all --signal=CONT {v1}")
    eventually(lambda: float(query(count)[0]["value"][1]) == before + 1, "one more has given up")


def runbook_commands() -> list[str]:
    blocks = re.findall(r"^```sh\n(.*?)^```$", (ROOT / "docs/runbook.md").read_text(), re.MULTILINE | re.DOTALL)
    return [line for block in blocks for line in block.splitlines()]


@pytest.mark.parametrize("command", runbook_commands())
def test_commands_of_the_runbook_work_as_typed(command: str, machine: Machine, all_up_again: None) -> None:
    """They run as the account that Ansible and `make ssh` log in with, in the order of the page."""
    ssh = ["ssh", "-F", str(machine.ssh_config), machine.name, command]
    run = subprocess.run(ssh, capture_output=True, text=True, check=False, timeout=60)
    print(run.stdout[-2000:], run.stderr[-2000:])
    assert run.returncode == 0
    assert not re.search("not permitted|denied", run.stderr, re.IGNORECASE)


def followed(client: httpx.Client, link: str) -> str:
    """What is wrong with a link, relative to the gateway or absolute; nothing if it leads to 200 on the gateway."""
    parts = urlsplit(link)
    path = parts.path + (f"?{parts.query}" if parts.query else "")
    for _ in range(5):
        answer = client.get(path)
        if answer.is_redirect:
            at = urljoin(str(answer.request.url), answer.headers["Location"])
            if urlsplit(at).netloc != urlsplit(str(client.base_url)).netloc:
                return f"{link} leads to another host: {at}"
            path = at
            continue
        return "" if answer.status_code == 200 else f"{link}: {answer.status_code} at {path}"
    return f"{link}: redirects without end"


def test_every_link_answers(host: Any, machine: Machine, client: httpx.Client, told: Any, eventually: Any) -> None:
    """Links in pages, documents, alerts and notifications, followed through the gateway."""
    grafana = not host.file("/etc/vmlops/left_out.d/grafana").exists
    links: dict[str, str] = {}
    for name, page in pages(host, machine).items():
        base = f"/prometheus/consoles/{name}"
        links |= {urljoin(base, link): name for link in re.findall(r'href="([^"#]+)"', page)}
    texts = [*ROOT.glob("docs/*.md"), *ROOT.glob("*.md"), *ROOT.glob("host/*.py")]
    for text in texts:
        found = re.findall(r"[^\w.](/(?:prometheus|alertmanager|grafana)/(?!debug/)[\w./-]*)", text.read_text())
        links |= {link.rstrip("."): text.name for link in found if grafana or not link.startswith("/grafana/")}

    eventually(lambda: "Watchdog" in told(), "an alert reaches Alertmanager", seconds=90)
    url = f"http://127.0.0.1:{machine.ports['alertmanager']}/api/v2/alerts"
    for alert in json.loads(host.check_output(f"curl -s {url}")):
        if "generatorURL" in alert:  # those that are made by hand have none
            links[alert["generatorURL"]] = f"notification of {alert['labels']['alertname']}"
        if "runbook_url" in alert["annotations"]:
            assert re.match("https?://", alert["annotations"]["runbook_url"]), alert
    options = host.check_output(
        "tr '\\0' '\\n' < /proc/$(systemctl show --value -p MainPID prometheus-alertmanager)/cmdline"
    )
    [external] = re.findall(r"--web\.external-url=(\S+)", options)
    links[external] = "Alertmanager's own link in notifications"
    assert {urlsplit(link).scheme for link in links} <= {"", "https"}
    print(len(links), "links:", *sorted(links), sep="\n  ")
    wrong = [f"{where}: {problem}" for link, where in links.items() if (problem := followed(client, link))]
    assert not wrong


def test_samples_survive_a_kill(host: Any, query: Query, eventually: Any) -> None:
    before = query("count_over_time(up{job='prometheus'}[1h])")[0]
    pid = host.check_output("systemctl show --value -p MainPID prometheus")
    host.check_output("systemctl kill --signal=KILL prometheus")
    ready = "curl -sf -o /dev/null http://127.0.0.1:9090/-/ready"
    eventually(
        lambda: host.check_output("systemctl show --value -p MainPID prometheus") not in ("0", pid), "it starts again"
    )
    eventually(lambda: host.run(ready).rc == 0, "it is ready again", seconds=60)
    at_that_time = query(
        "count_over_time(up{job='prometheus'}[1h])", start=before["value"][0], end=before["value"][0], step=15
    )
    print(before, at_that_time)
    # What had not been written when it died may be missing, not more.
    assert int(at_that_time[0]["values"][0][1]) >= int(before["value"][1]) - 1


def test_samples_survive_a_full_disk(host: Any, eventually: Any) -> None:
    """A Prometheus of its own on a small file system, which is filled and emptied again.

    Not as the account prometheus, which the firewall lets reach its own targets alone.
    """
    directory, url = "/run/vmlops-full-disk", "http://127.0.0.1:19090"
    config = "global: {scrape_interval: 1s}\nscrape_configs: [{job_name: self, static_configs: [{targets: ['127.0.0.1:19090']}]}]"

    def samples() -> int:
        answer = host.run(f"curl -sfG {url}/api/v1/query --data-urlencode 'query=count_over_time(up[10m])'")
        result = json.loads(answer.stdout or "{}").get("data", {}).get("result", [])
        return int(result[0]["value"][1]) if result else 0

    host.check_output(f"mkdir -p {directory} && mount -t tmpfs -o size=48m,mode=0755,uid=nobody full {directory}")
    try:
        host.check_output(f"printf '%s' {shlex.quote(config)} > {directory}/prometheus.yml")
        command = f"""systemd-run --quiet --collect --unit=vmlops-full-disk -p User=nobody -p Restart=no prometheus
            --config.file={directory}/prometheus.yml --storage.tsdb.path={directory}/data --web.listen-address=127.0.0.1:19090"""
        host.check_output(" ".join(command.split()))
        eventually(lambda: samples() >= 5, "it has samples")
        # It notes the queries that run in a mapped file with 20 places (--query.max-concurrency), which it takes in turn.
        # A place that was not written before the disk was full is one that ends it, by SIGBUS.
        places = host.run(
            f"for place in $(seq 20); do curl -sfG {url}/api/v1/query -d query=up -o /dev/null || exit; done"
        )
        assert places.rc == 0, places

        host.run(f"dd if=/dev/zero of={directory}/filling bs=1M")
        assert host.check_output(f"df --output=avail {directory} | tail -1").strip() == "0"
        eventually(
            lambda: "no space left" in host.run("journalctl -u vmlops-full-disk -n 50").stdout,
            "the full disk is noticed",
        )
        assert samples() >= 5, "what it had can be asked for while the disk is full"

        host.check_output(f"rm {directory}/filling")
        host.check_output("systemctl kill --signal=KILL vmlops-full-disk")
        state = "systemctl show --value -p LoadState vmlops-full-disk"
        eventually(lambda: host.check_output(state) == "not-found", "it is dead, and its name free")
        host.check_output(" ".join(command.split()))
        eventually(lambda: samples() >= 5, "what was on disk is still there")
        had = samples()
        eventually(lambda: samples() > had, "it goes on")
    finally:
        print(host.run("journalctl -u vmlops-full-disk -n 20 --no-pager").stdout)
        host.run("systemctl stop vmlops-full-disk")
        host.check_output(f"umount {directory} && rmdir {directory}")


def test_grafana_serves_or_says_why_not(host: Any, machine: Machine, client: httpx.Client) -> None:
    left_out = host.file("/etc/vmlops/left_out.d/grafana")
    if left_out.exists:
        assert re.fullmatch(r"Grafana: .*(cannot be reached|a kit does not have it).*\n", left_out.content_string)
        assert not host.file("/etc/apt/sources.list.d/grafana.sources").exists, "it would break apt update"
        assert not host.package("grafana").is_installed
        return
    url = f"http://127.0.0.1:{machine.ports['grafana']}"
    assert json.loads(host.check_output(f"curl -s {url}/api/health"))["database"] == "ok"
    assert host.check_output(f"curl -s -o /dev/null -w %{{http_code}} {url}/api/search") == "401"
    found = json.loads(host.check_output(f"curl -s -u admin:admin {url}/api/search?tag=vmlops"))
    assert {dashboard["uid"] for dashboard in found} == {file.stem for file in DASHBOARDS.glob("*.json")}
    assert client.get("/grafana/api/health").status_code == 200


@pytest.mark.native
def test_monitoring_is_cheap(host: Any, machine: Machine) -> None:
    """Under 300 MB and, at rest, under 5 % of one core: processes' proportional memory, control groups' CPU over 20 seconds."""
    units = ["prometheus", "prometheus-alertmanager", "prometheus-node-exporter", "prometheus-nginx-exporter", "mtail"]
    cpu = "; ".join(
        f"awk '/^usage_usec/ {{print $2}}' /sys/fs/cgroup$(systemctl show --value -p ControlGroup {u})/cpu.stat"
        for u in units
    )
    pss = "; ".join(
        f"awk '/^Pss:/ {{print $2}}' /proc/$(systemctl show --value -p MainPID {u})/smaps_rollup" for u in units
    )
    samples = host.check_output(f"({cpu}); sleep 20; ({cpu}); ({pss})").split()
    n = len(units)
    before, after, memory = ([int(s) for s in samples[i * n : (i + 1) * n]] for i in range(3))
    share = {u: (b - a) / 20e6 for u, a, b in zip(units, before, after, strict=True)}
    megabytes = {u: m / 1024 for u, m in zip(units, memory, strict=True)}
    print("\n".join(f"{u:28} {share[u]:6.2%} of a core {megabytes[u]:7.1f} MB" for u in units))
    assert sum(megabytes.values()) < 300
    assert sum(share.values()) < 0.05
