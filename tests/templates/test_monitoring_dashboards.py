"""The dashboards that Grafana's own SDK makes (tests/dashboards.py), and the pages of Prometheus beside them."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from tests import dashboards
from tests.paths import ROOT
from tests.templates.render import evaluate, render


@pytest.fixture(params=sorted(dashboards.DASHBOARDS))
def dashboard(request: pytest.FixtureRequest) -> Any:
    return json.loads((dashboards.FOLDER / f"{request.param}.json").read_text())


def panels(dashboard: Any) -> list[Any]:
    return [panel for panel in dashboard["panels"] if panel["type"] != "row"]


def test_files_are_what_the_sdk_makes() -> None:
    assert {file.name: file.read_text() for file in dashboards.FOLDER.iterdir()} == dict(dashboards.files()), (
        "run `make dashboards`"
    )


def test_provisioned_from_a_file(dashboard: Any) -> None:
    assert dashboard["id"] is None
    assert dashboard["uid"].startswith("vmlops-")
    assert "__inputs" not in dashboard
    assert dashboard["annotations"]["list"][0]["name"] == "Deployments"


def test_panels_can_be_read(dashboard: Any) -> None:
    for panel in panels(dashboard):
        assert panel["title"], panel
        assert panel["description"].endswith("."), panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"], panel["title"]
        assert panel["type"] in {"stat", "timeseries", "bargauge", "table"}, panel["title"]
        assert all(target["datasource"]["uid"] == "prometheus" for target in panel["targets"]), panel["title"]


def test_panels_lie_beside_each_other(dashboard: Any) -> None:
    taken: dict[tuple[int, int], str] = {}
    ids = [panel["id"] for panel in dashboard["panels"]]
    assert len(ids) == len(set(ids))
    for panel in dashboard["panels"]:
        at = panel["gridPos"]
        assert at["x"] + at["w"] <= 24, panel["title"]
        for cell in [(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])]:
            assert taken.setdefault(cell, panel["title"]) == panel["title"], (cell, taken[cell], panel["title"])


def test_legends_name_labels_that_the_query_keeps(dashboard: Any) -> None:
    for panel in panels(dashboard):
        for target in panel["targets"]:
            if not (kept := re.findall(r"\bby \(([^)]*)\)", target["expr"])):
                continue
            missing = set(re.findall(r"{{(\w+)}}", target["legendFormat"])) - set(re.findall(r"\w+", kept[0]))
            assert not missing, (panel["title"], missing)


def test_every_line_has_a_name(dashboard: Any) -> None:
    """A legend names what tells lines apart, and no query makes a series without its labels."""
    for panel in panels(dashboard):
        for target in panel["targets"]:
            assert target["legendFormat"], panel["title"]
            if "vector(0)" in target["expr"]:
                assert "{{" not in target["legendFormat"], panel["title"]


def test_what_pages_and_dashboards_share_is_recorded() -> None:
    """A computation that both show is a recording rule; what both may have is the name of a series, with its labels."""
    folder = ROOT / "roles/prometheus/files/etc/prometheus/consoles"
    on_pages = {
        query.replace("'", '"')
        for page in folder.glob("*.html")
        for query in re.findall(r'vmlops_(?:chart|tile)" \(args "[^"]*" "([^"]*)"', page.read_text())
    }
    in_grafana = {
        target["expr"]
        for uid in dashboards.DASHBOARDS
        for panel in panels(dashboards.made(uid))
        for target in panel["targets"]
    }
    assert len(on_pages) > 20
    shared = on_pages & in_grafana
    assert len(shared) > 10
    assert [query for query in shared if not re.fullmatch(r"[\w:]+({[^}]*})?( > 0)?", query)] == []


def test_data_source_and_configuration() -> None:
    source = render("grafana", "etc/grafana/provisioning/datasources/vmlops.yaml.j2")
    assert "uid: prometheus" in source
    assert "timeInterval: 5s" in source
    assert "http://127.0.0.1:9090" in source
    options = {"grafana_admin_password": "a;b#c", "vmlops_https_port": 443}
    configuration = render("grafana", "etc/grafana/grafana.ini.j2", **options)
    for line in (
        "http_addr = 127.0.0.1",
        "root_url = https://localhost:443/grafana/",
        'admin_password = """a;b#c"""',
        "reporting_enabled = false",
        "check_for_updates = false",
        "preinstall_disabled = true",
    ):
        assert line in configuration.splitlines()
    assert re.search(r"\[auth\.anonymous\]\nenabled = false", configuration)


def test_repository_key_is_the_expected_one_and_has_not_expired(tmp_path: Any) -> None:
    """The fingerprint is that which Grafana publishes."""
    import subprocess
    import time

    key = ROOT / "roles/grafana/files" / evaluate("grafana_repository_key", "grafana")
    run = subprocess.run(
        ["gpg", "--show-keys", "--with-colons", key],
        env={"GNUPGHOME": str(tmp_path), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=True,
    )
    fields = {line.split(":")[0]: line.split(":") for line in reversed(run.stdout.splitlines())}
    assert fields["fpr"][9] == evaluate("grafana_repository_fingerprint", "grafana")
    left = (int(fields["pub"][6]) - time.time()) / 86400
    print(f"{left:.0f} days left")
    assert left > 30, "ask Grafana for the present key"


def test_pages_of_prometheus_load_nothing_from_elsewhere() -> None:
    files = [ROOT / "roles/prometheus/files" / path for path in evaluate("_prometheus_consoles", "prometheus")]
    assert len(files) == 5
    for file in files:
        assert not re.search(r"""(src|href)=["'](https?:|/)|@import|url\(""", file.read_text()), file
