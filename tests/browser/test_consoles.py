"""Prometheus's console pages: the role's files, served by the distribution's Prometheus, in headless Chromium."""

from __future__ import annotations

import math
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, expect

from tests.browser.conftest import SHARES
from tests.paths import ROOT
from tests.ports import free_port
from tests.templates.gateway_edge import wait_for

OpenConsole = Callable[..., Page]

TOOLS = ROOT / "build/tools/usr/bin"
FILES = ROOT / "roles/prometheus/files/etc/prometheus"
CONFIG = """
scrape_configs:
  - job_name: prometheus
    scrape_interval: 1s
    static_configs: [{targets: ["127.0.0.1:PORT"]}]
"""
FIGURES = {"vmlops": 6, "vmlops-model": 8, "vmlops-comparison": 4, "vmlops-machine": 8}
REPLICAS = ["v1@8001", "v1@8002", "v1@8003", "v2@8101"]
GIB = 2**30


def gauges() -> dict[str, float]:
    """Series with the value around which each one moves."""
    made = {
        "edge:requests_all:rate5m": 46.5,
        'edge:requests_by_code:rate5m{code="200"}': 42.0,
        'edge:requests_by_code:rate5m{code="401"}': 1.5,
        'edge:requests_by_code:rate5m{code="429"}': 3.0,
        "node:cpu_in_use:ratio5m": 0.25,
        "node:load1_per_core:ratio": 0.35,
        "node:memory_in_use:ratio": 0.38,
        'node:filesystem_in_use:ratio{mountpoint="/"}': 0.3,
        'node:disk_busy:ratio5m{device="sda"}': 0.05,
        'node:network_sent_bytes:rate5m{device="eth0"}': 90000.0,
        'api:estimated_accuracy:ratio{version="v1",bound="low"}': 0.64,
        'api:estimated_accuracy:ratio{version="v1",bound="mean"}': 0.67,
        'api:estimated_accuracy:ratio{version="v1",bound="high"}': 0.7,
        "shadow:agreement:ratio5m": 0.91,
        "shadow:pairs:rate5m": 12.0,
        'shadow:confidence:mean5m{side="reference"}': 0.66,
        'shadow:confidence:mean5m{side="candidate"}': 0.68,
        'shadow:duration_seconds:p95{side="reference"}': 0.0002,
        'shadow:duration_seconds:p95{side="candidate"}': 0.0003,
        "nginx_connections_active": 24.0,
        "nginx_connections_waiting": 17.0,
    }
    for quantile, seconds in (("50", 0.002), ("95", 0.0045), ("99", 0.009)):
        for version, factor in (("v1", 1.0), ("v2", 1.4)):
            made[f'edge:request_duration_seconds:p{quantile}{{version="{version}"}}'] = factor * seconds
    for slo, bad in (("availability", 0.02), ("latency", 0.3)):
        made[f'slo:bad:ratio5m{{slo="{slo}",version="v1"}}'] = bad / 42
    for replica in REPLICAS:
        version = replica[:2]
        made[f'api:requests:rate5m{{version="{version}",replica="{replica}"}}'] = 12.0 if version == "v1" else 4.0
        made[f'process_resident_memory_bytes{{job="api",replica="{replica}"}}'] = (0.06 + len(made) / 4000) * GIB
    for version, rate in (("v1", 36.0), ("v2", 4.0)):
        for label, share in SHARES.items():
            made[f'api:predictions:ratio5m{{version="{version}",label="{label}"}}'] = share
            made[f'api:predictions:rate5m{{version="{version}",label="{label}"}}'] = rate * share
        for distribution in ("labels", "confidence", "length"):
            made[f'api:drift_psi:max{{version="{version}",distribution="{distribution}"}}'] = (
                0.01 + len(distribution) / 200
            )
        made[f'api:confidence:mean5m{{version="{version}"}}'] = 0.37
        made[f'api:unknown:mean5m{{version="{version}"}}'] = 0.08
        made[f'api:sentence_length:mean5m{{version="{version}"}}'] = 71.0
        made[f'api:request_duration_seconds:p95{{version="{version}"}}'] = 0.0006
    return made


def constants() -> dict[str, float]:
    """Series that do not move."""
    made = {
        'slo:objective:ratio{slo="availability"}': 0.999,
        'slo:objective:ratio{slo="latency"}': 0.99,
        'slo:budget_remaining:ratio30d{slo="availability",version="v1"}': 0.52,
        'slo:budget_remaining:ratio30d{slo="latency",version="v1"}': 0.04,
        "shadow:pairs:sum": 43200.0,
        "shadow:agreement:ratio": 0.91,
        "shadow:failures:sum": 0.0,
        'shadow:confidence:mean{side="reference"}': 0.66,
        'shadow:confidence:mean{side="candidate"}': 0.68,
        'vmlops_shadow_pairs_total{reference="fun",candidate="fun"}': 39312.0,
        'vmlops_shadow_pairs_total{reference="fun",candidate="love"}': 3888.0,
        "edge:certificate_left:days": 83.2,
        "node:units_failed:count": 0.0,
        'api:replicas_up:count{version="v1"}': 3.0,
        'api:replicas_up:count{version="v2"}': 1.0,
    }
    for replica in REPLICAS:
        labels = f'version="{replica[:2]}",replica="{replica}"'
        made[f'up{{job="api",{labels}}}'] = 1.0
        made[f'vmlops_model_info{{{labels},model_version="3f9c2a7be014",engine="compiled",release="0a1b2c3d4e5f"}}'] = (
            1.0
        )
    for label, share in SHARES.items():
        made[f'api:baseline_label:ratio{{version="v1",label="{label}"}}'] = share
    # A model of v2 may have other labels, of any characters.
    made['api:baseline_label:ratio{version="v2",label="it\'s \\"new\\""}'] = 0.25
    return made


ALERT = 'ALERTS{alertname="ReplicaDown",alertstate="firing",severity="warning",replica="v1@8002"}'


ONE = {"": ["lab"]}
# By the beginning of a series' name, the machines of a fleet that have it; the rest is of all of them together.
FLEET = {
    "node": ["api1", "api2", "gateway1", "gateway2", "monitoring1"],
    "nginx": ["gateway1", "gateway2"],
    "edge:certificate": ["gateway1", "gateway2"],
    "api:requests": ["api1", "api2"],
    "process": ["api1", "api2"],
    "up": ["api1", "api2"],
    "vmlops_model_info": ["api1", "api2"],
}


def samples(*alerts: str, hosts: dict[str, list[str]] = ONE) -> str:
    """The last hour of all that the pages query, every 15 seconds, in OpenMetrics' format."""
    now = time.time()
    moving, still = gauges(), constants() | dict.fromkeys(alerts, 1.0)
    lines = []
    for age in range(3600, -1, -15):
        at = now - age
        values = dict(still)
        for number, (series, middle) in enumerate(moving.items()):
            values[series] = middle * (1 + 0.12 * math.sin(at / 500 + number) + 0.04 * math.sin(at / 70 + 3 * number))
        for series, value in values.items():
            name, _, labels = series.partition("{")
            for host in next((hosts[start] for start in hosts if name.startswith(start)), [""]):
                own = f'host="{host}"' if host else ""
                all_labels = ",".join(part for part in (own, labels.rstrip("}")) if part)
                lines.append(f"{name}{{{all_labels}}} {value} {at:.3f}")
    return "\n".join([*lines, "# EOF\n"])


@contextmanager
def prometheus(directory: Path, openmetrics: str = "") -> Iterator[str]:
    """The address of a Prometheus that has the role's consoles, `openmetrics` as its past, and itself as its target."""
    port = free_port()
    config, past, data = directory / "prometheus.yml", directory / "past.txt", directory / "data"
    config.write_text(CONFIG.replace("PORT", str(port)))
    if openmetrics:
        past.write_text(openmetrics)
        fill = [f"{TOOLS}/promtool", "tsdb", "create-blocks-from", "openmetrics", str(past), str(data)]
        subprocess.run(fill, check=True, timeout=60, stdout=subprocess.DEVNULL)
    address = f"http://127.0.0.1:{port}"
    command = [
        f"{TOOLS}/prometheus",
        f"--config.file={config}",
        f"--storage.tsdb.path={data}",
        f"--web.listen-address=127.0.0.1:{port}",
        f"--web.console.templates={FILES / 'consoles'}",
        f"--web.console.libraries={FILES / 'console_libraries'}",
        "--web.external-url=https://localhost/prometheus/",
        "--web.route-prefix=/",
    ]
    log = directory / "prometheus.log"
    with log.open("wb") as output, subprocess.Popen(command, stderr=output) as process:
        try:
            wait_for(lambda: process.poll() is not None or ready(address), "Prometheus's start", 30)
            assert process.poll() is None, log.read_text()
            yield address
        finally:
            process.terminate()


def ready(address: str) -> bool:
    try:
        return httpx.get(f"{address}/-/ready").is_success
    except httpx.TransportError:
        return False


def drawn(page: Page, address: str, name: str) -> None:
    """Open a console and wait until its figures are drawn."""
    page.goto(f"{address}/consoles/{name}.html")
    page.wait_for_selector("body[data-drawn]")


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with prometheus(tmp_path_factory.mktemp("full"), samples(ALERT)) as address:
        yield address


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with prometheus(tmp_path_factory.mktemp("fleet"), samples(hosts=FLEET)) as address:
        yield address


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with prometheus(tmp_path_factory.mktemp("empty")) as address:
        yield address


@pytest.fixture
def open_console(browser: Browser, complaints: list[str]) -> Iterator[OpenConsole]:
    """Open a console. Fail afterwards if the console complained or a request went to any other host."""
    contexts: list[BrowserContext] = []
    requested: set[str] = set()
    addresses: set[str] = set()

    def note(message: ConsoleMessage) -> None:
        # The browser asks for an icon by itself; what is at this path is not the pages' affair.
        if not message.location["url"].endswith("/favicon.ico"):
            complaints.append(message.text)

    def open_console(address: str, name: str, **options: Any) -> Page:
        addresses.add(urlsplit(address).netloc)
        context = browser.new_context(**options)
        contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("console", note)
        page.on("request", lambda request: requested.add(urlsplit(request.url).netloc))
        drawn(page, address, name)
        return page

    yield open_console
    for context in contexts:
        context.close()
    assert complaints == []
    assert requested == addresses


@pytest.mark.parametrize("name", FIGURES)
@pytest.mark.parametrize("data", ["full", "fleet"])
def test_every_figure_is_drawn(request: pytest.FixtureRequest, data: str, open_console: OpenConsole, name: str) -> None:
    page = open_console(request.getfixturevalue(data), name)
    assert page.get_attribute("body", "data-drawn") == str(FIGURES[name])
    figures = page.locator("figure")
    expect(figures).to_have_count(FIGURES[name])
    for figure in figures.all():
        print(figure.inner_text().replace("\n", " | "))
        paths = figure.locator("svg path")
        names = [text.partition(":")[0] for text in figure.locator("li").all_inner_texts()]
        assert paths.count() == len(names) == len(set(names)) > 0  # each line has a name of its own
        assert "all" not in names, "a series without any of the labels that name it"
        # Rates need two samples, so that a line may begin a little late; of 538 units of width it has nearly all.
        assert all(width > 500 for width in paths.evaluate_all("paths => paths.map(path => path.getBBox().width)"))
    text = page.inner_text("body")
    assert not {word for word in ("NaN", "undefined", "Infinity", "no data") if word in text}


def test_labels_are_those_of_both_versions(full: str, open_console: OpenConsole) -> None:
    page = open_console(full, "vmlops-model")
    rows = [
        row.split("\t") for row in page.locator("table", has_text="Share of each label").locator("tr").all_inner_texts()
    ]
    print(rows)
    assert [row[0] for row in rows[1:]] == sorted([*SHARES, 'it\'s "new"'])
    values = {row[0]: row[1:] for row in rows[1:]}
    assert values['it\'s "new"'] == ["", "", "", "25%"]
    assert values["fun"][1] == "12.4%"
    assert all(values["fun"][:3])


def test_the_overview_says_how_it_is(full: str, open_console: OpenConsole) -> None:
    page = open_console(full, "vmlops")
    tiles = page.locator(".tiles > div")
    shown = dict(tile.split("\n")[:2] for tile in tiles.all_inner_texts())
    print(shown)
    assert shown["Replicas of v1 up"] == "3"
    assert shown["Replicas of v2 up"] == "1"
    assert shown["Certificate"] == "83 days"
    assert shown["Availability budget left (v1), 30 days"] == "52%"
    assert 35 < int(shown["Requests a second"]) < 58
    assert shown["95 % answered within (v1)"].endswith("ms")
    assert page.locator(".tiles .bad").all_inner_texts() == ["4%"]  # the budget of latency, and nothing else
    sticks_out = "all => all.filter(tile => tile.scrollWidth > tile.clientWidth).map(tile => tile.innerText)"
    assert page.locator(".tiles dd").evaluate_all(sticks_out) == []
    expect(page.locator("caption")).to_have_text("Firing alerts: 1")
    expect(page.get_by_role("row").nth(1)).to_contain_text("replica=v1@8002")


def test_a_small_rate_is_a_plain_number(open_console: OpenConsole, tmp_path: Path) -> None:
    sample = f"edge:requests_all:rate5m 0.01695 {time.time():.3f}\n# EOF\n"
    with prometheus(tmp_path, sample) as address:
        tile = open_console(address, "vmlops").locator(".tiles > div").first
        assert tile.inner_text().split("\n")[:2] == ["Requests a second", "0.02"]  # and not 16.95m


def test_the_model_page_lists_what_runs(full: str, open_console: OpenConsole) -> None:
    page = open_console(full, "vmlops-model")
    runs, shares = page.locator("table").all()
    assert runs.locator("tr td:nth-child(2)").all_inner_texts() == REPLICAS
    assert shares.locator("tr td:first-child").all_inner_texts() == sorted(SHARES)
    cells = shares.get_by_role("row", name="happiness").get_by_role("cell").all_inner_texts()
    print(cells)
    assert cells[-1] == "41.2%"
    assert all(cell.endswith("%") for cell in cells[1:])


def test_consoles_show_each_of_five_machines(fleet: str, open_console: OpenConsole) -> None:
    page = open_console(fleet, "vmlops-machine")
    for title, wanted in (("CPU in use", FLEET["node"]), ("Memory in use", FLEET["node"])):
        figure = page.locator("figure", has=page.get_by_text(title, exact=True))
        names = [text.partition(":")[0] for text in figure.locator("li").all_inner_texts()]
        assert names == wanted
    page = open_console(fleet, "vmlops-model")
    rows = [row.split("\t")[:2] for row in page.locator("table").first.locator("tr").all_inner_texts()[1:]]
    assert rows == [[host, replica] for host in FLEET["api:requests"] for replica in REPLICAS]
    page = open_console(fleet, "vmlops")
    tiles = dict(tile.split("\n")[:2] for tile in page.locator(".tiles > div").all_inner_texts())
    assert tiles["Certificate"] == "83 days"


def test_links_lead_to_the_pages(full: str, open_console: OpenConsole) -> None:
    """Relative, so that they hold behind the gateway's /prometheus/ as well."""
    page = open_console(full, "vmlops")
    links = [str(link.get_attribute("href")) for link in page.locator("nav a").all()]
    assert not [link for link in links if link.startswith("/") or "://" in link]
    page.get_by_role("link", name="Machine").click()
    page.wait_for_selector("body[data-drawn]")
    expect(page.get_by_role("heading", level=1)).to_have_text("Machine")
    expect(page.get_by_role("link", name="Machine")).to_have_attribute("aria-current", "page")
    page.get_by_role("link", name="week").click()
    page.wait_for_url("**/vmlops-machine.html?hours=168")
    page.wait_for_selector("body[data-drawn]")
    expect(page.locator("figure svg path").first).to_be_attached()


@pytest.mark.parametrize("name", FIGURES)
def test_without_data_the_pages_say_so(empty: str, open_console: OpenConsole, name: str) -> None:
    page = open_console(empty, name)
    expect(page.locator("figure", has_text="no data in this time")).to_have_count(FIGURES[name])
    expect(page.locator("figure svg path")).to_have_count(0)
    assert "NaN" not in page.inner_text("body")
    if name == "vmlops":
        expect(page.get_by_text("No alert is firing.")).to_be_visible()


@pytest.mark.parametrize("name", FIGURES)
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("data", ["full", "empty"])
def test_everybody_can_read_it(
    request: pytest.FixtureRequest, open_console: OpenConsole, data: str, scheme: str, name: str
) -> None:
    """axe-core finds nothing serious (contrast, names, lists), wide and narrow."""
    address: str = request.getfixturevalue(data)
    page = open_console(address, name, color_scheme=scheme, viewport={"width": 1100, "height": 900})
    # The same colour that the browser paints behind everything, said aloud: axe takes no colour for white.
    page.add_style_tag(content="html { background: Canvas }")
    background, text = page.evaluate("""() => {
        const numbers = color => color.match(/[\\d.]+/g).slice(0, 3).map(Number);
        const label = document.querySelector("svg text");
        return [getComputedStyle(document.documentElement).backgroundColor, getComputedStyle(label).fill].map(numbers);
    }""")
    print("background", background, "labels of axes", text)
    dark, bright = (background, text) if scheme == "dark" else (text, background)
    assert sum(dark) < 150  # axe does not look at the text in figures
    assert sum(bright) > 600
    report = Axe().run(page)
    print(report.generate_report())
    serious = [found for found in report.response["violations"] if found["impact"] in ("serious", "critical")]
    assert [(found["id"], found["nodes"][0]["html"]) for found in serious] == []
    page.set_viewport_size({"width": 360, "height": 900})
    assert page.evaluate("document.documentElement.scrollWidth") <= 360, "it scrolls sideways"
