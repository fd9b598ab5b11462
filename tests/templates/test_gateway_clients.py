"""Who counts as one client, and which pages of other origins may ask."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest

from tests.templates.gateway_edge import Edge, running
from tests.templates.test_gateway import NOBODY, SENTENCE, UNLIMITED

BALANCER, STRANGER = "127.7.0.1", "127.8.0.1"
PAGE, OTHER_PAGE = "https://pages.example.org", "https://evil.example"
FEW = {"gateway_rate": 1, "gateway_burst": 3, "gateway_guess_rate": 1, "gateway_guess_burst": 3}


# --- load balancers and networks ---


@pytest.mark.parametrize(
    ("source", "forwarded", "client"),
    [
        (BALANCER, "192.0.2.1", "192.0.2.1"),
        (BALANCER, "198.51.100.7, 192.0.2.1", "192.0.2.1"),
        (BALANCER, "192.0.2.1, 127.7.0.9", "192.0.2.1"),
        (BALANCER, "2001:db8::1", "2001:db8::1"),
        (BALANCER, "nonsense", BALANCER),
        (BALANCER, None, BALANCER),
        (STRANGER, "192.0.2.1", STRANGER),
    ],
)
def test_only_load_balancers_say_who_the_client_is(
    balanced: Edge, source: str, forwarded: str | None, client: str
) -> None:
    headers = {} if forwarded is None else {"X-Forwarded-For": forwarded}
    name = uuid4().hex
    balanced.client(source).post("/predict", json=SENTENCE, headers={**headers, "X-Request-ID": name})
    seen = next(seen for stub in balanced.replicas for seen in stub.seen if seen.headers["x-request-id"] == name)
    logged = balanced.access_log(name)[name]
    assert (seen.headers["x-forwarded-for"], logged["client"]) == (client, client)


@pytest.fixture(scope="module")
def balanced(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Edge]:
    options: dict[str, Any] = {"vmlops_load_balancers": ["127.7.0.0/16"], **UNLIMITED}
    with running(tmp_path_factory.mktemp("balanced"), **options) as edge:
        edge.client().get("/health")  # a line in the access log
        yield edge


def passed(edge: Edge, addresses: list[str], *, guess: bool = False) -> list[bool]:
    """Whether requests through the load balancer from each address passed the limits, one after the other."""
    client = edge.client(BALANCER)
    found = []
    for number, address in enumerate(addresses):
        auth = ("admin", f"guess {number}") if guess else ("admin", "admin")
        answer = client.post("/predict", json=SENTENCE, auth=auth, headers={"X-Forwarded-For": address})
        found.append(answer.status_code != 429)
    return found


@pytest.mark.parametrize("guess", [False, True], ids=["requests", "guesses"])
def test_a_network_of_ipv6_has_one_allowance_and_an_address_of_ipv4_its_own(tmp_path: Path, guess: bool) -> None:
    options: dict[str, Any] = {"vmlops_load_balancers": ["127.7.0.0/16"], **UNLIMITED}
    options |= {name: value for name, value in FEW.items() if name.startswith("gateway_guess") is guess}
    with running(tmp_path, **options) as edge:
        one_network = [f"2001:db8::{number:x}" for number in range(1, 13)]
        assert not all(passed(edge, one_network, guess=guess)), "every address had an allowance of its own"
        many_networks = [f"2001:db8:0:{number:x}::1" for number in range(1, 13)]
        assert all(passed(edge, many_networks, guess=guess))
        assert all(passed(edge, [f"192.0.2.{number}" for number in range(1, 13)], guess=guess))
        assert not all(passed(edge, ["192.0.2.99"] * 12, guess=guess))


# --- pages of other origins (CORS) ---


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Edge]:
    options: dict[str, Any] = {"gateway_cors_origins": [PAGE, "http://localhost:5173"], **UNLIMITED}
    with running(tmp_path_factory.mktemp("shared"), **options) as edge:
        yield edge


def asks_first(client: httpx.Client, path: str, origin: str, method: str = "POST") -> httpx.Response:
    """What a browser sends before a request with an Authorization header."""
    headers = {
        "Origin": origin,
        "Access-Control-Request-Method": method,
        "Access-Control-Request-Headers": "authorization,content-type,x-experiment-group",
    }
    return client.request("OPTIONS", path, headers=headers, auth=NOBODY)


def allowed(answer: httpx.Response) -> dict[str, str]:
    return {name: value for name, value in answer.headers.items() if name.startswith("access-control-")}


@pytest.mark.parametrize("origin", [PAGE, "http://localhost:5173"])
def test_a_page_that_may_ask(shared: Edge, origin: str) -> None:
    client = shared.client()
    first = asks_first(client, "/predict", origin)
    assert first.status_code == 204
    assert allowed(first) == {
        "access-control-allow-origin": origin,
        "access-control-allow-methods": "POST",
        "access-control-allow-headers": "Authorization, Content-Type, X-Experiment-Group, X-Request-ID",
        "access-control-max-age": "600",
        "access-control-expose-headers": "X-Request-ID, Retry-After",
    }
    answer = client.post("/predict", json=SENTENCE, headers={"Origin": origin})
    assert answer.status_code == 200
    assert allowed(answer) == {
        "access-control-allow-origin": origin,
        "access-control-expose-headers": "X-Request-ID, Retry-After",
    }
    assert answer.headers["vary"] == "Origin"
    # The page must be able to read why it was refused.
    refused = client.post("/predict", json=SENTENCE, headers={"Origin": origin}, auth=NOBODY)
    assert (refused.status_code, refused.headers["access-control-allow-origin"]) == (401, origin)


@pytest.mark.parametrize("origin", [OTHER_PAGE, f"{PAGE}.evil.example", "https://pages.example.org:8443", "null", ""])
def test_other_pages_may_not(shared: Edge, origin: str) -> None:
    client = shared.client()
    first = asks_first(client, "/predict", origin)
    assert (first.status_code, allowed(first)) == (405, {})
    answer = client.post("/predict", json=SENTENCE, headers={"Origin": origin})
    assert (answer.status_code, allowed(answer)) == (200, {})
    assert answer.headers["vary"] == "Origin"  # a cache must not hand this answer to a page that may


@pytest.mark.parametrize("path", ["/", "/health", "/static/page.js", "/prometheus/graph", "/nope"])
def test_nothing_but_the_api_is_shared(shared: Edge, path: str) -> None:
    client = shared.client()
    assert allowed(client.get(path, headers={"Origin": PAGE})) == {}
    assert allowed(asks_first(client, path, PAGE, "GET")) == {}


def test_no_page_may_ask_with_a_password_that_the_browser_remembers(shared: Edge) -> None:
    client = shared.client()
    for answer in (asks_first(client, "/predict", PAGE), client.get("/version", headers={"Origin": PAGE})):
        assert "access-control-allow-credentials" not in answer.headers


def test_by_default_no_page_may_ask(balanced: Edge) -> None:
    client = balanced.client()
    first = asks_first(client, "/predict", PAGE)
    assert (first.status_code, allowed(first)) == (405, {})
    answer = client.post("/predict", json=SENTENCE, headers={"Origin": PAGE})
    assert (answer.status_code, allowed(answer)) == (200, {})
    assert "vary" not in answer.headers
