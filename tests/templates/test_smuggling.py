"""Request smuggling: what one client sends as a body must never be read as another client's request."""

from __future__ import annotations

import base64
import json
import ssl
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from socket import create_connection
from typing import Any

import pytest

from tests.replica import Server, serving
from tests.templates.gateway_edge import Edge, running
from tests.templates.test_gateway import UNLIMITED
from tests.unit.app.stub_api import StubEngine

ATTACKER, BYSTANDER = "127.0.0.7", "127.0.0.8"
ATTACKS = 12
TEXTS = [f"text number {number}" for number in range(13)]
PASSWORD = b"Authorization: Basic " + base64.b64encode(b"admin:admin") + b"\r\n"
SMUGGLED = b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n"
# Headers that belong to one connection: none of them may reach a replica.
UPGRADES = {
    "upgrade": b"Connection: Upgrade\r\nUpgrade: foo\r\n",
    "websocket": b"Connection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n",
    "h2c": b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n",
    "without Connection": b"Upgrade: foo\r\n",
}


@pytest.fixture(scope="module")
def replica(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("replica")) as server:
        yield server


@pytest.fixture(scope="module")
def edge(replica: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Edge]:
    """The gateway in front of one real replica: what leaks from a connection to it meets the next client."""
    endpoints = [
        {
            "name": f"{version}@{replica.port}",
            "version": version,
            "address": "127.0.0.1",
            "port": replica.port,
            "asked": True,
        }
        for version in ("v1", "v2")
    ]
    options: dict[str, Any] = {**UNLIMITED, "vmlops_endpoints": endpoints, "gateway_upstream_keepalive": 2}
    with running(tmp_path_factory.mktemp("edge"), replicas=0, **options) as edge:
        yield edge


def post(path: str, body: bytes, *headers: bytes) -> bytes:
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n".encode()
    return head + b"".join(headers) + b"Content-Length: %d\r\n\r\n" % len(body) + body


def exchange(port: int, request: bytes, source: str = ATTACKER, *, tls: bool = True) -> bytes:
    """All that is answered to the bytes before the connection ends or is silent for a moment."""
    answer = b""
    with create_connection(("127.0.0.1", port), timeout=20, source_address=(source, 0)) as plain:
        context = ssl._create_unverified_context()
        with context.wrap_socket(plain, server_hostname="localhost") if tls else plain as connection, suppress(OSError):
            connection.sendall(request)
            while chunk := connection.recv(65536):
                answer += chunk
                connection.settimeout(0.3)
    return answer


def statuses(answer: bytes) -> list[int]:
    return [int(part[:3]) for part in answer.split(b"HTTP/1.1 ")[1:]]


@pytest.mark.parametrize("kind", UPGRADES)
def test_an_upgrade_is_ignored_by_the_gateway(edge: Edge, kind: str) -> None:
    """As RFC 9110, section 7.8, allows: the request is answered as if it had not asked for another protocol."""
    request = post("/predict", json.dumps({"sentence": TEXTS[0]}).encode(), PASSWORD, UPGRADES[kind])
    answer = exchange(edge.https, request)
    print(answer)
    assert statuses(answer) == [200]
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["prediction"] == StubEngine().score(TEXTS[0]).label


@pytest.mark.parametrize("kind", UPGRADES)
def test_no_client_is_answered_what_another_smuggled(edge: Edge, kind: str) -> None:
    """A bystander compares its answers while bodies of line ends and a request are sent as upgrades."""
    expected = {text: StubEngine().score(text).label for text in TEXTS}
    wrong: Counter[str] = Counter()
    answered = 0
    done = threading.Event()

    def bystander() -> None:
        nonlocal answered
        with edge.client(BYSTANDER) as client:
            while not done.is_set():
                for text in TEXTS:
                    answer = client.post("/predict", json={"sentence": text})
                    if answer.status_code == 504:  # of a busy machine: nobody's answer, so nobody else's either
                        continue
                    if answer.status_code != 200 or answer.json()["prediction"] != expected[text]:
                        wrong[f"{answer.status_code} {answer.text[:100]}"] += 1
                    answered += 1

    thread = threading.Thread(target=bystander)
    thread.start()
    try:
        leaked = []
        for attack in range(ATTACKS):
            padding = b"\r\n" * (1000 * (70 + 130 * attack // ATTACKS))  # 140 to 400 KB
            request = post("/predict/batch", padding + SMUGGLED, PASSWORD, UPGRADES[kind])
            answer = exchange(edge.https, request)
            if b"vmlops_requests" in answer or len(statuses(answer)) > 1:
                leaked.append(answer[:300])
    finally:
        done.set()
        thread.join()
    print(answered, wrong, leaked)
    assert answered > 0
    assert not wrong
    assert not leaked


@pytest.mark.parametrize("size", [0, 1, 100, 70_000, 300_000])
@pytest.mark.parametrize("kind", ["upgrade", "websocket", "h2c"])
def test_a_replica_ends_a_connection_that_asks_for_another_protocol(replica: Server, kind: str, size: int) -> None:
    """Whatever the gateway lets through: after the refusal nothing more is read from the connection."""
    request = post("/predict/batch", b"\r\n" * size, UPGRADES[kind]) + SMUGGLED
    answer = exchange(replica.port, request, tls=False)
    print(answer[:300])
    assert statuses(answer) in ([400], [])  # the refusal is lost where the connection ends before all was sent
    assert b"vmlops_requests" not in answer
    assert replica.get("/health").status == 200


def test_a_replica_is_no_proxy(replica: Server) -> None:
    answer = exchange(
        replica.port, b"CONNECT localhost:443 HTTP/1.1\r\nHost: localhost:443\r\n\r\n" + SMUGGLED, tls=False
    )
    print(answer[:300])
    assert statuses(answer) == [400]


@pytest.mark.parametrize("path", ["/predict", "/nowhere", "/ready"])
def test_a_body_that_nobody_read_is_not_the_next_request(replica: Server, path: str) -> None:
    """The answer may come before the body has: what is left of it belongs to the old request all the same."""
    body = SMUGGLED * 2000
    request = post(path, body).replace(b"application/json", b"text/plain") + b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n"
    answer = exchange(replica.port, request, tls=False)
    print(answer[:400])
    assert b"vmlops_requests" not in answer
    assert statuses(answer)[1:] in ([200], [])
