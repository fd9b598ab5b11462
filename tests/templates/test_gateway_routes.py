"""The list of routes, compared with what the API says of itself and with what the documents say."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.http.sentences import BATCH_BODY_BYTES, PREDICT_BODY_BYTES
from app.settings import FeedbackSettings
from tests.paths import ROOT
from tests.ports import free_port
from tests.templates.gateway_edge import running
from tests.templates.gateway_stub import Replica
from tests.templates.render import evaluate
from tests.unit.app.stub_api import make_app

ROUTES: list[dict[str, Any]] = evaluate("_gateway_routes", "gateway")
API: list[dict[str, Any]] = evaluate("_gateway_api_routes", "gateway")
LIMITED = {"proxy_predict", "proxy_feedback"}
# Every route, those that are off by default, too.
FEEDBACK = FeedbackSettings(Path("/nowhere/feedback.db"), 90, 256, 0, 30)
UNITS = {"k": 1 << 10, "m": 1 << 20}
# What the API answers and the gateway does not publish, and what its OpenAPI document leaves out.
NOT_PUBLISHED = {"/metrics"}
NOT_IN_THE_DOCUMENT = {"/docs", "/docs/{name}", "/openapi.json"}
ANSWERED_BY_NGINX = {"/health"}  # the gateway's own health, not a replica's


def operations(document: dict[str, Any]) -> set[tuple[str, str]]:
    return {(path, method.upper()) for path, item in document["paths"].items() for method in item}


def in_bytes(size: str) -> int:
    return int(size[:-1]) * UNITS[size[-1]]


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_what_the_api_documents_is_published(version: Any) -> None:
    document = make_app(version, feedback=FEEDBACK).framework.openapi()  # type: ignore[attr-defined]
    published = {(route["path"], method) for route in API for method in route["methods"]}
    named = {(path.replace("{model}", "{name}"), method) for path, method in operations(document)}
    print(sorted(published ^ named))
    assert {path for path, _ in published - named} == NOT_IN_THE_DOCUMENT
    assert {path for path, _ in named - published} == ANSWERED_BY_NGINX


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_what_the_api_answers_is_published_or_left_out_on_purpose(version: Any) -> None:
    framework = make_app(version, feedback=FEEDBACK).framework
    answered = {route.path for route in framework.routes}  # type: ignore[attr-defined]
    published = {route["path"] for route in ROUTES}
    assert answered - published == NOT_PUBLISHED
    assert {route["path"] for route in API} <= answered


def test_what_a_replica_answers_by_fastapi_has_the_time_that_its_import_takes() -> None:
    fast = {path for _, path in make_app("v1", feedback=FEEDBACK).fast}
    assert {route["path"] for route in API if not route.get("slow")} <= fast


def test_bodies_are_as_large_as_the_api_takes_them() -> None:
    document = make_app("v1", feedback=FEEDBACK).framework.openapi()  # type: ignore[attr-defined]
    with_body = {
        path for path, item in document["paths"].items() for operation in item.values() if "requestBody" in operation
    }
    largest = {route["path"]: in_bytes(route["body"]) for route in API if "body" in route}
    assert set(largest) == with_body - {"/feedback"}, "which fits into the 1k of routes without the key"
    assert largest.pop("/predict") == PREDICT_BODY_BYTES
    assert set(largest.values()) == {BATCH_BODY_BYTES}


def test_what_predicts_has_the_limit_by_client_and_a_body() -> None:
    assert [route["path"] for route in ROUTES if route["by"] == "proxy_predict"] == [
        route["path"] for route in API if "body" in route
    ]


def test_what_is_counted_as_a_prediction_is_what_predicts() -> None:
    counted = evaluate("_mtail_prediction_routes", "mtail")
    assert counted == [route["path"] for route in ROUTES if route["by"] == "proxy_predict"]


def test_the_manual_lists_every_route() -> None:
    """Its table under "What is published": path, methods and the largest body of each."""
    table = (ROOT / "docs/gateway.md").read_text().partition("## What is published\n")[2].partition("\n\nPort 80")[0]
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines() if line.startswith("| `")
    ]
    documented = {re.sub("[`…]", "", row[0]): (row[1], row[4]) for row in rows}
    expected = {}
    for route in ROUTES:
        methods = ", ".join(route["methods"]) if "methods" in route else "any"
        limits = ["rate"] if route["by"] in LIMITED else []
        limits += [f"{route['body'][:-1]} {route['body'][-1].upper()}B"] if "body" in route else []
        expected[route["path"]] = (methods, ", ".join(limits))
    assert documented == expected


def test_the_log_names_routes_as_the_metrics_of_the_api_do() -> None:
    """So that both can be looked at together: the API's label is the path of its OpenAPI document."""
    tree = evaluate("_gateway_tree", "gateway", vmlops_feedback=True)
    names = re.findall(r'set \$published "?([^";]+)', tree["vmlops/server.conf"])
    assert set(names) == {route["path"] for route in ROUTES}


def test_challenges_of_an_authority_are_found_at_whichever_gateway_has_them(tmp_path: Path) -> None:
    """An authority looks at the gateway with the shared address, which need not be the one that asked it."""
    without, asking = Replica("gateway2", free_port()), Replica("gateway3", free_port())
    without.answer = lambda _: (404, b"")
    asking.answer = lambda _: (200, b"key")
    own = tmp_path / "acme/.well-known/acme-challenge/own"
    own.parent.mkdir(parents=True)
    own.write_text("own key")
    peers = [f"127.0.0.1:{peer.port}" for peer in (without, asking)]
    try:
        with running(tmp_path, _gateway_peers=peers, vmlops_acme_webroot=str(tmp_path / "acme")) as edge:

            def ask(token: str, **headers: str) -> tuple[int, str]:
                url = f"http://127.0.0.1:{edge.http}/.well-known/acme-challenge/{token}"
                answer = httpx.get(url, headers=headers)
                return answer.status_code, answer.text

            assert ask("own") == (200, "own key")
            assert (without.seen, asking.seen) == ([], [])
            assert [ask("token") for _ in range(2)] == [(200, "key")] * 2
            assert {seen.path for seen in asking.seen} == {"/.well-known/acme-challenge/token"}
            before = len(asking.seen)
            assert all(seen.headers["x-asked-by-peer"] == "1" for seen in asking.seen)
            assert ask("token", **{"X-Asked-By-Peer": "1"})[0] == 404
            assert len(asking.seen) == before
    finally:
        without.stop()
        asking.stop()


def test_labels_are_published_only_where_they_are_taken() -> None:
    assert "/feedback" not in evaluate("_gateway_tree", "gateway")["vmlops/server.conf"]
    assert "location = /feedback {" in evaluate("_gateway_tree", "gateway", vmlops_feedback=True)["vmlops/server.conf"]
