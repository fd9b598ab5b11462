"""Requests at the edge of HTTP: each gets the answer that RFC 9110 and 9112 have for it, and none becomes an error of ours."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.templates.gateway_edge import Edge, running
from tests.templates.render import evaluate
from tests.templates.test_gateway import NOBODY, SENTENCE, UNLIMITED, assert_problem, parse, raw

ROUTES: list[dict[str, Any]] = evaluate("_gateway_routes", "gateway")
WITH_METHODS = [route for route in ROUTES if "methods" in route]
LARGEST = 510  # bytes of name, colon and password
NAME = "admin"
LONG_PASSWORD = "ü" * ((LARGEST - len(NAME) - 1) // 2)
AUTHORIZATION = b"Authorization: Basic YWRtaW46YWRtaW4=\r\n"
SHORT = b"POST /predict HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n" + AUTHORIZATION


@pytest.fixture(scope="module")
def edge(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Edge]:
    users = [{"name": NAME, "password": "admin"}, {"name": "long", "password": "x"}]
    operators = [{"name": NAME, "password": LONG_PASSWORD}]
    options: dict[str, Any] = {
        "gateway_users": users,
        "gateway_operators": operators,
        "vmlops_feedback": True,
        **UNLIMITED,
    }
    with running(tmp_path_factory.mktemp("edge"), **options) as edge:
        yield edge


@pytest.fixture(scope="module")
def client(edge: Edge) -> httpx.Client:
    return edge.client()


def concrete(path: str) -> str:
    """A path of the route: a name for {name}, a file for the slash at the end."""
    return path.replace("{name}", "emotion").replace("{version}", "1").replace("/static/", "/static/page.js")


# --- credentials ---


def test_the_longest_password_is_taken(edge: Edge) -> None:
    client = edge.client(auth=(NAME, LONG_PASSWORD))
    assert len(f"{NAME}:{LONG_PASSWORD}".encode()) in (LARGEST - 1, LARGEST)
    with edge.monitoring():
        assert client.get("/prometheus/classic/graph").status_code == 200


@pytest.mark.parametrize("length", [LARGEST, LARGEST + 1, 511, 512, 513, 600, 1000, 3000, 5000])
@pytest.mark.parametrize("name", ["admin", "nobody", ""])
def test_credentials_of_any_length_are_refused_without_an_error_of_ours(
    client: httpx.Client, name: str, length: int
) -> None:
    sent = base64.b64encode(f"{name}:".ljust(length, "x").encode())
    answer = client.post("/predict", json=SENTENCE, auth=NOBODY, headers={"Authorization": f"Basic {sent.decode()}"})
    assert_problem(answer, 401 if length <= LARGEST else 431)


def test_a_long_token_of_another_scheme_is_431(client: httpx.Client) -> None:
    answer = client.post("/predict", json=SENTENCE, auth=NOBODY, headers={"Authorization": "Bearer " + "x" * 4000})
    assert_problem(answer, 431)


# --- methods ---


@pytest.mark.parametrize(
    "method", ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "FOO", "GETS", "PROPFIND"]
)
@pytest.mark.parametrize("route", WITH_METHODS, ids=lambda route: route["path"])
def test_every_route_takes_its_methods_and_no_other(
    edge: Edge, client: httpx.Client, route: dict[str, Any], method: str
) -> None:
    taken = {*route["methods"], *(["HEAD"] if "GET" in route["methods"] else [])}
    before = sum(edge.answered().values())
    answer = client.request(method, concrete(route["path"]), json=SENTENCE if method == "POST" else None)
    if method in taken:
        assert answer.status_code == 200
        assert bool(answer.content) is (method != "HEAD")
    else:
        assert answer.status_code == 405
        assert set(answer.headers["allow"].split(", ")) == taken
        assert sum(edge.answered().values()) == before, "a replica was asked"


@pytest.mark.parametrize("path", ["/version", "/v2", "/docs", "/", "/health", "/static/page.js"])
def test_head_says_what_get_does(client: httpx.Client, path: str) -> None:
    get, head = client.get(path), client.head(path)
    for header in ("content-type", "content-length", "content-security-policy"):
        assert get.headers[header] == head.headers[header], header


@pytest.mark.parametrize(("method", "status"), [("TRACE", 405), ("CONNECT", 405), ("get", 400), ("G ET", 400)])
def test_methods_that_nginx_itself_refuses(edge: Edge, method: str, status: int) -> None:
    answer = parse(raw(edge, f"{method} / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode()))
    assert_problem(answer, status)


# --- headers ---


@pytest.mark.parametrize("expectation", ["foo", "100-continue, foo", "100-continued", "200-ok"])
def test_other_expectations_are_417(client: httpx.Client, expectation: str) -> None:
    assert_problem(client.post("/predict", json=SENTENCE, headers={"Expect": expectation}), 417)
    assert_problem(client.get("/health", headers={"Expect": expectation}), 417)


@pytest.mark.parametrize("expectation", ["100-continue", "100-Continue"])
def test_the_one_expectation_that_there_is(edge: Edge, expectation: str) -> None:
    request = SHORT + f"Expect: {expectation}\r\nContent-Length: 2\r\n\r\n{{}}".encode()
    answer = raw(edge, request)
    assert answer.startswith(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK"), answer


def test_http_1_0_has_no_expectations(edge: Edge) -> None:
    request = b"GET /health HTTP/1.0\r\nHost: localhost\r\nExpect: foo\r\n\r\n"
    assert parse(raw(edge, request)).status_code == 200


@pytest.mark.parametrize(
    "line", [b"no colon here", b"X-Name : value", b"X-Na\x00me: value", b": value", b" folded", b"X-Name\t: value"]
)
def test_malformed_header_lines_are_400(edge: Edge, line: bytes) -> None:
    answer = raw(edge, b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n" + line + b"\r\n\r\n")
    assert_problem(parse(answer), 400)


def test_a_name_without_a_colon_is_an_empty_header(edge: Edge) -> None:
    """nginx reads it so and has no setting against it. It reaches a replica as a header of its own, and ends no other."""
    answer = parse(raw(edge, SHORT + b"Lonely\r\nX-Request-ID: lonely-1\r\nContent-Length: 2\r\n\r\n{}"))
    assert answer.status_code == 200
    seen = next(seen for stub in edge.replicas for seen in stub.seen if seen.headers["x-request-id"] == "lonely-1")
    print(seen.headers)
    assert seen.headers.get("lonely", "") == ""
    assert seen.body == b"{}"


@pytest.mark.parametrize(
    "coding",
    [
        b"\tchunked",
        b"chunked\t",
        b" \tchunked",
        b"chunked, chunked",
        b"gzip, chunked",
        b"xchunked",
        b"\x0bchunked",
        b"",
    ],
)
def test_transfer_codings_are_taken_or_refused(edge: Edge, coding: bytes) -> None:
    """Whichever: the body is never read as a request."""
    before = sum(edge.answered().values())
    smuggled = b"GET /version HTTP/1.1\r\nHost: localhost\r\n" + AUTHORIZATION + b"\r\n"
    body = b"%x\r\n%s\r\n0\r\n\r\n" % (len(smuggled), smuggled)
    answer = raw(edge, SHORT.replace(b"close", b"keep-alive") + b"Transfer-Encoding:" + coding + b"\r\n\r\n" + body)
    print(answer)
    status = int(answer.split()[1])
    assert status in (200, 400, 411, 501)
    assert b'"/version"' not in answer
    assert sum(edge.answered().values()) - before == (status == 200)


# --- hosts and redirects ---


@pytest.mark.parametrize("tls", [True, False])
@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost", None),
        ("LOCALHOST:8443", None),
        ("localhost:", None),
        ("localhost.", None),
        ("localhost:evil", 400),
        ("localhost:80@evil.example", 400),
        ("localhost:80:80", 400),
        ("localhost:123456", 400),
        ("localhost/evil", 400),
        ("local host", 400),
        ("[::1", 400),
        ("evil.example", 421),
        ("localhost@evil.example", 400),
        ("localhost.evil.example", 421),
        ("evil.example:443", 421),
        ("", 400),
    ],
)
def test_hosts(edge: Edge, tls: bool, host: str, status: int | None) -> None:
    request = f"GET /health HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode()
    answer = parse(raw(edge, request) if tls else plain(edge, request))
    if status is None:
        assert answer.status_code == (200 if tls else 308), answer.text
    else:
        assert_problem(answer, status)


def plain(edge: Edge, request: bytes) -> bytes:
    import socket

    with socket.create_connection(("127.0.0.1", edge.http), timeout=20) as connection:
        connection.sendall(request)
        answer = b""
        while chunk := connection.recv(65536):
            answer += chunk
        return answer


@pytest.mark.parametrize(
    ("target", "host", "status"),
    [("https://localhost/health", "evil.example", 200), ("https://evil.example/health", "localhost", 421)],
)
def test_a_host_in_the_request_line_counts(edge: Edge, target: str, host: str, status: int) -> None:
    """RFC 9112, section 3.2.2: the Host header is then ignored."""
    request = f"GET {target} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode()
    assert parse(raw(edge, request)).status_code == status


def test_a_replica_is_told_the_host_that_was_checked(edge: Edge) -> None:
    request = b"POST https://localhost:8443/predict HTTP/1.1\r\nHost: evil.example:8443\r\nX-Request-ID: the-host\r\n"
    parse(raw(edge, request + b"Connection: close\r\n" + AUTHORIZATION + b"Content-Length: 2\r\n\r\n{}"))
    seen = next(seen for stub in edge.replicas for seen in stub.seen if seen.headers["x-request-id"] == "the-host")
    assert seen.headers["host"] == "localhost:8443"


@pytest.mark.parametrize("path", ["/prometheus", "/grafana", "/grafana/"])
@pytest.mark.parametrize("host", ["localhost", "localhost:8443", "127.0.0.1:1234"])
def test_redirects_within_the_gateway_name_no_host(edge: Edge, path: str, host: str) -> None:
    client = edge.client(auth=(NAME, LONG_PASSWORD), headers={"Host": host})
    answer = client.get(path, follow_redirects=False)
    print(answer.status_code, answer.headers)
    assert answer.status_code in (301, 302)
    assert answer.headers["location"] in (f"{path}/", "/prometheus/consoles/vmlops.html")


def test_plain_http_leads_to_our_names_and_the_forwarded_port_only(edge: Edge) -> None:
    for host, location in {
        f"localhost:{edge.http}": f"https://localhost:{edge.https}/docs?a=b",
        f"LOCALHOST:{edge.http}": f"https://localhost:{edge.https}/docs?a=b",
        "localhost": "https://localhost/docs?a=b",
        "localhost:81": "https://localhost/docs?a=b",
    }.items():
        request = f"GET /docs?a=b HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"
        assert parse(plain(edge, request.encode())).headers["location"] == location
    absolute = b"GET http://evil.example/ HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    assert_problem(parse(plain(edge, absolute)), 421)


# --- operators ---


@pytest.mark.parametrize(
    "path",
    [
        "debug/",
        "debug",
        "debug/pprof/heap",
        "/debug/pprof/",
        "%64ebug/pprof/",
        "x/../debug/",
        "./debug/",
        "-/quit",
        "-/reload",
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST", "PUT"])
def test_what_would_harm_prometheus_is_closed(edge: Edge, path: str, method: str) -> None:
    with edge.monitoring() as (prometheus, _):
        request = f"{method} /prometheus/{path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
        password = base64.b64encode(f"{NAME}:{LONG_PASSWORD}".encode()).decode()
        answer = raw(edge, f"{request}Authorization: Basic {password}\r\nContent-Length: 0\r\n\r\n".encode())
        assert_problem(parse(answer), 404)
        assert prometheus.seen == []
