"""What the gateway does with requests: the rendered tree in a real nginx, in front of stub replicas."""

from __future__ import annotations

import base64
import json
import re
import signal
import socket
import ssl
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path

import httpx
import pytest

from app.http.asgi import request_id_of
from tests.templates.gateway_edge import Edge, running, wait_for
from tests.templates.gateway_stub import Seen

SENTENCE = {"sentence": "Oh yeah, that was soooo cool!"}
PROBLEM = {"type", "title", "status", "detail", "request_id"}
NOBODY = httpx.Auth()  # sends no password; None would send the client's own
UNLIMITED = {"gateway_rate": 10000, "gateway_burst": 10000, "gateway_guess_rate": 1000, "gateway_guess_burst": 1000}


@pytest.fixture(scope="module")
def edge(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Edge]:
    """A gateway whose limits are out of the way."""
    with running(tmp_path_factory.mktemp("edge"), **UNLIMITED) as edge:
        yield edge


@pytest.fixture(scope="module")
def client(edge: Edge) -> httpx.Client:
    return edge.client()


def assert_problem(answer: httpx.Response, status: int) -> None:
    print(answer.status_code, answer.text, dict(answer.headers))
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    document = answer.json()
    assert set(document) == PROBLEM
    assert document["status"] == status
    assert document["request_id"] == answer.headers["x-request-id"]
    assert document["title"] != "Error"


def raw(edge: Edge, request: bytes, *, tls: bool = True) -> bytes:
    """The answer to bytes that no HTTP client would send. The connection names no host, as with an address."""
    context = ssl._create_unverified_context()
    plain = socket.create_connection(("127.0.0.1", edge.https), timeout=20)
    with context.wrap_socket(plain) if tls else plain as connection:
        connection.sendall(request)
        answer = b""
        with suppress(ConnectionResetError):
            while chunk := connection.recv(65536):
                answer += chunk
        return answer


def parse(answer: bytes) -> httpx.Response:
    head, _, body = answer.partition(b"\r\n\r\n")
    status, *lines = head.decode().split("\r\n")
    headers = [tuple(line.split(": ", 1)) for line in lines]
    return httpx.Response(int(status.split()[1]), headers=headers, content=body)  # type: ignore[arg-type]


# --- routing ---


@pytest.mark.parametrize(
    ("value", "version"),
    [
        (None, "v1"),
        ("debug", "v2"),
        ("Debug", "v1"),
        ("DEBUG", "v1"),
        ("debugger", "v1"),
        ("xdebug", "v1"),
        ("debug, debug", "v1"),
        ("control", "v1"),
    ],
)
def test_only_the_exact_header_leads_to_v2(client: httpx.Client, value: str | None, version: str) -> None:
    headers = {} if value is None else {"X-Experiment-Group": value}
    answer = client.post("/predict", json=SENTENCE, headers=headers)
    print(value, answer.text)
    assert answer.json()["replica"].startswith(version)


@pytest.mark.parametrize(
    "path",
    ["/predict", "/predict/batch", "/v2/models/emotion/infer", "/v2/models/a%20b/infer", "/predict?verbose=1&a=%2F"],
)
def test_the_path_arrives_as_it_was_sent(client: httpx.Client, path: str) -> None:
    assert client.post(path, json=SENTENCE).json()["path"] == path


def test_the_replicas_of_v1_share_the_load(edge: Edge, client: httpx.Client) -> None:
    before = edge.answered()
    for _ in range(60):
        client.post("/predict", json=SENTENCE)
    shares = edge.answered() - before
    print(shares)
    assert len(shares) == 3
    assert min(shares.values()) >= 15


def test_connections_to_replicas_are_kept(edge: Edge, client: httpx.Client) -> None:
    ports = set()

    def remember(seen: Seen) -> tuple[int, bytes]:
        ports.add((seen.replica, seen.peer))
        return 200, b"{}"

    with edge.answering(remember):
        for _ in range(60):
            client.post("/predict", json=SENTENCE)
    print(ports)
    assert len(ports) <= 6  # three replicas, as many again for a second nginx process


def test_a_replica_sees_who_asked_but_no_password(edge: Edge, client: httpx.Client) -> None:
    client.post("/predict", json=SENTENCE, headers={"X-Request-ID": "who-asked", "X-Forwarded-For": "1.2.3.4"})
    headers = next(seen.headers for stub in edge.replicas for seen in stub.seen if "who-asked" in seen.headers.values())
    print(headers)
    assert headers["x-forwarded-for"] == "127.0.0.1"
    assert headers["x-forwarded-proto"] == "https"
    assert "authorization" not in headers
    assert "connection" not in headers


# --- who may ask ---


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/predict"),
        ("POST", "/predict/batch"),
        ("POST", "/v2/models/m/infer"),
        ("GET", "/v2/models/m"),
        ("GET", "/docs"),
        ("GET", "/openapi.json"),
    ],
)
@pytest.mark.parametrize("auth", [None, ("admin", "wrong"), ("nobody", "admin"), ("operator", "watch"), ("admin", "")])
def test_without_a_users_password_nothing_reaches_the_api(
    edge: Edge, client: httpx.Client, method: str, path: str, auth: tuple[str, str] | None
) -> None:
    before = edge.answered()
    answer = client.request(method, path, json=SENTENCE, auth=auth or NOBODY)
    assert_problem(answer, 401)
    assert answer.headers["www-authenticate"] == 'Basic realm="vmlops"'
    assert edge.answered() == before


@pytest.mark.parametrize(
    "header",
    [
        "Basic",
        "Basic !!!",
        "Basic YWRtaW4=",
        "Bearer YWRtaW46YWRtaW4=",
        "YWRtaW46YWRtaW4=",
        "Basic YWRtaW46YWRtaW4=, Basic YWRtaW46YWRtaW4=",
        "Basic YWRtaW46YWRtaW4= realm=x",
        "Basic YWRtaW46YWRtaW4=x",
        "Basic YWRtaW46YWRtaW4===",
        "Basic\tYWRtaW46YWRtaW4=",
        "Basic YWRtaW46YWRtaW4AeA==",  # admin:admin, NUL, x
        "Basic YWRtaW4",
        "Basic A",
        "Basic Og==",  # a colon
    ],
)
def test_odd_credentials_are_refused(client: httpx.Client, header: str) -> None:
    assert_problem(client.post("/predict", json=SENTENCE, auth=NOBODY, headers={"Authorization": header}), 401)


def test_a_verdict_holds_no_secret(edge: Edge, client: httpx.Client) -> None:
    assert client.post("/predict", json=SENTENCE).status_code == 200
    verdicts = [file.read_bytes() for file in (edge.directory / "run/vmlops-verdicts").iterdir()]
    print(verdicts)
    assert verdicts
    for secret in (b"admin", base64.b64encode(b"admin:admin"), b"0123456789abcdef"):
        assert not any(secret in verdict for verdict in verdicts)


def test_a_right_password_is_checked_once(edge: Edge, client: httpx.Client) -> None:
    client.post("/predict", json=SENTENCE)
    start = edge.verifier_seconds()
    for _ in range(100):
        assert client.post("/predict", json=SENTENCE).status_code == 200
    assert edge.verifier_seconds() - start < 0.02


def test_the_password_file_costs_a_thief_ten_milliseconds_a_guess(edge: Edge, client: httpx.Client) -> None:
    start = edge.verifier_seconds()
    for number in range(10):
        assert client.post("/predict", json=SENTENCE, auth=("admin", f"guess {number}")).status_code == 401
    cost = (edge.verifier_seconds() - start) / 10
    print(f"{cost * 1000:.1f} ms of a processor a guess")
    assert cost >= 0.01


# --- limits ---


def burst(client: httpx.Client, requests: int) -> list[httpx.Response]:
    with ThreadPoolExecutor(10) as pool:
        return list(pool.map(lambda _: client.post("/predict", json=SENTENCE), range(requests)))


def test_ten_requests_a_second(tmp_path: Path) -> None:
    with running(tmp_path, vmlops_exempt_networks=["127.9.0.0/16"]) as edge:
        client, other, exempt = edge.client(), edge.client("127.0.0.2"), edge.client("127.9.0.1")
        client.get("/docs")  # the password is known, the connection open; /docs has no limit of its own
        start = time.monotonic()
        codes = [answer.status_code for answer in burst(client, 10)]
        print("ten at once", codes)
        assert codes == [200] * 10
        answers = burst(client, 30)
        seconds = time.monotonic() - start
        refused = [answer for answer in answers if answer.status_code == 429]
        passed = len(answers) - len(refused)
        print(f"{passed} of 30 more passed, {seconds:.2f} s after the first")
        assert passed <= seconds * 10 + 1
        assert_problem(refused[0], 429)
        assert refused[0].headers["retry-after"] == "1"
        assert other.post("/predict", json=SENTENCE).status_code == 200
        assert {answer.status_code for answer in burst(exempt, 50)} == {200}
        wait_for(lambda: client.post("/predict", json=SENTENCE).status_code == 200, "an answer after the pause", 2)


def test_password_guesses_are_limited_and_slow_no_other_client(tmp_path: Path) -> None:
    options = {"gateway_rate": 1000, "gateway_burst": 1000, "gateway_guess_rate": 1, "gateway_guess_burst": 3}
    with running(tmp_path, **options) as edge:
        good, guesser = edge.client(), edge.client("127.0.0.2")
        assert good.post("/predict", json=SENTENCE).status_code == 200
        answers = [guesser.post("/predict", json=SENTENCE, auth=("admin", str(number))) for number in range(12)]
        print([answer.status_code for answer in answers])
        assert [answer.status_code for answer in answers[:4]] == [401] * 4
        assert_problem(answers[-1], 429)
        assert answers[-1].headers["retry-after"] == "1"
        # Without a password nothing is guessed; a password that is known is not asked about.
        assert guesser.post("/predict", json=SENTENCE, auth=NOBODY).status_code == 401
        assert guesser.post("/predict", json=SENTENCE).status_code == 200
        assert good.post("/predict", json=SENTENCE).status_code == 200


def test_without_the_verifier_known_users_are_served(tmp_path: Path) -> None:
    with running(tmp_path, **UNLIMITED) as edge:
        client = edge.client()
        assert client.post("/predict", json=SENTENCE).status_code == 200
        edge.verifier.terminate()
        edge.verifier.wait(10)
        assert client.post("/predict", json=SENTENCE).status_code == 200
        assert_problem(client.post("/predict", json=SENTENCE, auth=("admin", "other")), 503)


def test_connections_are_limited(tmp_path: Path) -> None:
    with running(tmp_path, gateway_connections=2, **UNLIMITED) as edge:
        slow, clients = edge.gate(), [edge.client() for _ in range(3)]
        with slow, ThreadPoolExecutor(2) as pool:
            held = [pool.submit(client.post, "/predict", json=SENTENCE) for client in clients[:2]]
            wait_for(lambda: sum(edge.answered().values()) == 2, "the arrival of two requests")
            assert_problem(clients[2].post("/predict", json=SENTENCE), 429)
            slow.open()
            assert [answer.result().status_code for answer in held] == [200, 200]


@pytest.mark.parametrize(
    ("method", "path", "largest"),
    [
        ("POST", "/predict", 64 << 10),
        ("POST", "/predict/batch", 8 << 20),
        ("POST", "/v2/models/m/infer", 8 << 20),
        ("GET", "/v2/models/m", 1 << 10),
    ],
)
def test_bodies_up_to_what_the_api_takes(client: httpx.Client, method: str, path: str, largest: int) -> None:
    assert client.request(method, path, content=b"x" * largest).status_code == 200
    assert_problem(client.request(method, path, content=b"x" * (largest + 1)), 413)


# --- errors ---


def test_unnamed_paths_are_404(client: httpx.Client) -> None:
    for path in ("/nope", "/metrics", "/nginx_status", "/stub_status", "/predict/", "/.problem",
                 "/.verdict/users", "/static/", "/static/none.js", "/index.html", "/.git/config", "/predict%00"):  # fmt: skip
        answer = client.get(path)
        print(path, answer.status_code)
        assert answer.status_code in {404, 400}
        assert answer.json()["status"] == answer.status_code


def test_errors_of_nginx_are_problem_documents(edge: Edge, client: httpx.Client) -> None:
    host = b"Host: 127.0.0.1\r\n"
    assert_problem(parse(raw(edge, b"GET / HTTP/1.1\r\n\r\n")), 400)
    assert_problem(parse(raw(edge, b"nonsense\r\n\r\n")), 400)
    assert_problem(parse(raw(edge, b"GET / HTTP/1.1\r\n" + host + b"\r\n", tls=False)), 400)
    assert_problem(client.post("/"), 405)
    assert_problem(client.request("TRACE", "/"), 405)
    assert_problem(parse(raw(edge, b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\n" + host + b"\r\n")), 414)
    assert_problem(parse(raw(edge, b"GET / HTTP/1.1\r\n" + host + b"Cookie: " + b"a" * 9000 + b"\r\n\r\n")), 431)
    assert_problem(parse(raw(edge, b"GET / HTTP/3.0\r\n" + host + b"\r\n")), 505)
    assert client.post("/").headers["allow"] == "GET, HEAD"


def refuse(status: int, _: Seen) -> tuple[int, bytes]:
    return status, b'{"mine": true}'


def test_errors_of_the_api_pass_through(edge: Edge, client: httpx.Client) -> None:
    for status in (400, 405, 413, 415, 422, 500):
        with edge.answering(partial(refuse, status)):
            answer = client.post("/predict", json=SENTENCE)
        assert (answer.status_code, answer.json()) == (status, {"mine": True})
        assert "allow" not in answer.headers


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        ("a", True),
        ("abc-1.2_Z", True),
        ("3f9c2a7b-e014-4b1f-8f6f-0a51c0ffee00", True),
        ("x" * 64, True),
        ("x" * 65, False),
        ("", False),
        ('a"b', False),
        ("a b", False),
        ("a,b", False),
        ("é".encode(), False),
    ],
)
def test_request_ids(edge: Edge, client: httpx.Client, sent: str | bytes, kept: bool) -> None:
    answer = client.post("/predict", json=SENTENCE, headers=[("X-Request-ID", sent)])  # type: ignore[arg-type]
    got = answer.headers["x-request-id"]
    seen = [seen for stub in edge.replicas for seen in stub.seen if seen.headers["x-request-id"] == got]
    print(sent, got)
    assert (got == sent) is kept
    assert kept or re.fullmatch("[0-9a-f]{32}", got)
    assert seen
    assert answer.headers.get_list("x-request-id") == [got]
    assert request_id_of([(b"x-request-id", got.encode())]) == got, "the API would make another one"


# --- failover ---


def test_a_dead_replica_costs_no_answer(tmp_path: Path) -> None:
    with running(tmp_path, **UNLIMITED) as edge:
        client = edge.client()
        codes = []
        for number in range(200):
            if number == 50:
                edge.replicas[0].stop()
            codes.append(client.post("/predict", json=SENTENCE).status_code)
        assert set(codes) == {200}

        edge.replicas[1].stop()
        edge.replicas[2].stop()
        start = time.monotonic()
        assert_problem(client.post("/predict", json=SENTENCE), 503)
        assert time.monotonic() - start < 1
        assert client.post("/predict", json=SENTENCE, headers={"X-Experiment-Group": "debug"}).status_code == 200
        edge.replicas[1].start()
        wait_for(lambda: client.post("/predict", json=SENTENCE).status_code == 200, "recovery", 5)

        edge.replicas[3].stop()
        answers = [client.post("/predict", json=SENTENCE, headers={"X-Experiment-Group": "debug"}), client.get("/docs")]
        assert_problem(answers[0], 503)
        assert answers[0].headers["retry-after"] == "1"
        assert answers[1].status_code == 200


def test_a_request_that_dies_with_its_replica_is_answered_by_another(edge: Edge, client: httpx.Client) -> None:
    def die(seen: Seen) -> tuple[int, bytes]:
        if seen.replica == "v1@1":
            raise ConnectionAbortedError
        return 200, seen.body

    with edge.answering(die):
        answers = [client.post("/predict", json=SENTENCE) for _ in range(9)]
    assert [answer.json() for answer in answers] == [SENTENCE] * 9


def test_a_replica_that_is_not_ready_is_passed_over(edge: Edge, client: httpx.Client) -> None:
    with edge.answering(lambda seen: (503 if seen.replica == "v1@2" else 200, b"{}")):
        assert {client.post("/predict", json=SENTENCE).status_code for _ in range(9)} == {200}


def test_a_replica_that_hangs_is_504_in_time(tmp_path: Path) -> None:
    options = {"gateway_upstream_read_seconds": 1, "gateway_upstream_total_seconds": 1}
    with running(tmp_path, replicas=1, **options, **UNLIMITED) as edge, edge.gate():
        start = time.monotonic()
        assert_problem(edge.client().post("/predict", json=SENTENCE), 504)
        assert time.monotonic() - start < 3


def test_what_fastapi_answers_is_waited_for_longer(tmp_path: Path) -> None:
    """A replica imports FastAPI when it is first asked for such a route, which takes seconds where the computer is busy."""
    options = {"gateway_upstream_read_seconds": 1, "gateway_upstream_total_seconds": 1}
    with running(tmp_path, replicas=1, **options, **UNLIMITED) as edge, ThreadPoolExecutor() as pool:
        with edge.gate():
            slow = pool.submit(edge.client().get, "/openapi.json")
            wait_for(lambda: edge.replicas[0].seen, "the arrival of the request")
            assert_problem(edge.client().post("/predict", json=SENTENCE), 504)
        assert slow.result().status_code == 200


# --- canary and shadow ---


def test_canary_share_and_stickiness(tmp_path: Path) -> None:
    """5,000 clients, each an address of the loopback network of its own."""
    with running(tmp_path, gateway_canary_percent=20, **UNLIMITED) as edge:
        sources = [f"127.1.{number // 250}.{number % 250 + 1}" for number in range(5000)]
        for source in sources:
            edge.ask(source)
        share = edge.answered()["v2@0"] / len(sources)
        print(f"{share:.2%} of {len(sources)} clients")
        assert abs(share - 0.20) < 0.02

        for source in sources[:40]:
            assert len({edge.ask(source)["replica"][:2] for _ in range(3)}) == 1
        chosen = next(source for source in sources if edge.ask(source)["replica"] == "v2@0")
        assert edge.ask(chosen, "X-Experiment-Group: control")["replica"].startswith("v1")
        assert edge.ask("127.0.0.1", "X-Experiment-Group: debug")["replica"] == "v2@0"


def test_shadow_traffic_slows_nobody(tmp_path: Path) -> None:
    with running(tmp_path, gateway_shadow_percent=100, **UNLIMITED) as edge:
        client, shadow = edge.client(), edge.replicas[3]
        client.post("/predict", json=SENTENCE)
        wait_for(lambda: shadow.seen, "the arrival of the copy")
        copy = shadow.seen[0]
        assert (copy.method, copy.path, json.loads(copy.body)) == ("POST", "/predict", SENTENCE)
        assert "authorization" not in copy.headers

        with edge.gate(only="v2"):
            start = time.monotonic()
            answers = [client.post("/predict", json=SENTENCE) for _ in range(50)]
            seconds = time.monotonic() - start
            print(f"{seconds / 50 * 1000:.1f} ms a request while v2 hangs")
            assert {answer.json()["replica"][:2] for answer in answers} == {"v1"}
            assert seconds < 2
        shadow.stop()
        assert client.post("/predict", json=SENTENCE).status_code == 200


def test_copies_that_v2_does_not_answer_are_logged(tmp_path: Path) -> None:
    """Whether it is away, dies of one or is not ready; not those that it answers, whatever it says, nor those of other routes."""

    def dies(_: Seen) -> tuple[int, bytes]:
        raise ConnectionError

    with running(tmp_path, gateway_shadow_percent=100, **UNLIMITED) as edge:
        client, shadow = edge.client(), edge.replicas[3]
        for status in (200, 422, 500):
            shadow.answer = lambda _, status=status: (status, b"{}")  # type: ignore[misc]
            client.post("/predict", json=SENTENCE)
        wait_for(lambda: len(shadow.seen) == 3, "the copies that v2 answers")
        shadow.answer = dies
        client.post("/predict", json=SENTENCE)
        client.post("/predict/batch", json={"sentences": ["x"]})
        wait_for(lambda: len(shadow.seen) == 5, "the copies that v2 dies of")
        shadow.answer = lambda _: (503, b"{}")
        client.post("/predict", json=SENTENCE)
        wait_for(lambda: len(shadow.seen) == 6, "the copy that comes too soon")
        shadow.stop()
        client.post("/predict", json=SENTENCE)

        def lost() -> list[dict[str, object]]:
            edge.gateway.send_signal(signal.SIGUSR1)  # has nginx write its buffer out
            lines = (edge.directory / "log/vmlops.access.json").read_text().splitlines()
            return [json.loads(line) for line in lines if "lost_copy_of" in line]

        wait_for(lambda: len(lost()) >= 3, "the lines of three copies")
        lines = lost()
        print(lines)
        assert sorted(str(line["status"]) for line in lines) == ["502", "502", "503"]
        assert all(re.fullmatch("[0-9a-f]{32}", str(line["lost_copy_of"])) for line in lines)


def test_part_of_the_traffic_is_shadowed(tmp_path: Path) -> None:
    with running(tmp_path, gateway_shadow_percent=30, **UNLIMITED) as edge:
        client = edge.client()
        for _ in range(400):
            client.post("/predict", json=SENTENCE)
        wait_for(lambda: 0.2 < edge.answered()["v2@0"] / 400 < 0.4, "a share of about 30 %")


def test_what_goes_to_v2_is_not_shadowed(tmp_path: Path) -> None:
    with running(tmp_path, gateway_shadow_percent=100, **UNLIMITED) as edge:
        client = edge.client()
        for _ in range(20):
            client.post("/predict", json=SENTENCE, headers={"X-Experiment-Group": "debug"})
        assert edge.answered()["v1@0"] == 0
        # Copies arrive in order: when this one is there, any of the requests before would be.
        client.post("/predict", json=SENTENCE)
        wait_for(lambda: edge.answered()["v2@0"] > 20, "the copy of a request to v1")
        assert edge.answered()["v2@0"] == 21


def test_v2_is_told_what_v1_answered_to_a_copied_request(tmp_path: Path) -> None:
    """The copy and v1's answer come to v2 under one id, which the client has no part in; the client sees nothing of it."""
    with (
        running(tmp_path, gateway_shadow_percent=100, **UNLIMITED) as edge,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as told,
    ):
        told.bind(("127.0.0.1", edge.replicas[3].port))
        told.settimeout(10)
        for replica in edge.replicas[:3]:
            replica.extra = {"X-Shadow-Answer": "model fun 0.5 0.0001"}
        forged = {"X-Shadow-Of": "forged", "X-Shadow-Answer": "forged", "X-Request-ID": "chosen"}
        answer = edge.client().post("/predict", json=SENTENCE, headers=forged)
        assert "x-shadow-answer" not in answer.headers
        message = told.recv(4096).decode()
        print(message)
        request_id, _, text = message.rpartition(": ")[2].partition(" ")
        wait_for(lambda: edge.replicas[3].seen, "the arrival of the copy")
        copy = edge.replicas[3].seen[0].headers
        assert (text, len(request_id), copy["x-shadow-of"]) == ("model fun 0.5 0.0001", 32, request_id)
        (original,) = [seen.headers for replica in edge.replicas[:3] for seen in replica.seen]
        assert (original["x-shadow-answer"], "x-shadow-of" in original) == ("1", False)

        # Nothing is asked for and nobody is told where there is no copy of one sentence.
        for path, headers in (("/predict/batch", {}), ("/predict", {"X-Experiment-Group": "debug"})):
            edge.client().post(path, json=SENTENCE, headers=headers | forged)
        asked = [seen.headers.get("x-shadow-answer") for replica in edge.replicas[:3] for seen in replica.seen]
        assert asked.count("1") == 1
        told.setblocking(False)
        with pytest.raises(BlockingIOError):
            told.recv(4096)


def test_without_copies_replicas_hear_nothing_of_them(edge: Edge, client: httpx.Client) -> None:
    client.post("/predict", json=SENTENCE, headers={"X-Shadow-Of": "forged", "X-Shadow-Answer": "1"})
    seen = [seen for replica in edge.replicas for seen in replica.seen][-1]
    assert not [name for name in seen.headers if name.startswith("x-shadow")]


# --- names, TLS, headers ---


def test_addresses_and_names_of_ours_are_served(edge: Edge, client: httpx.Client) -> None:
    for host in ("localhost", "127.0.0.1", "lab", f"127.0.0.1:{edge.https}"):
        assert client.get("/health", headers={"Host": host}).status_code == 200
    assert parse(raw(edge, b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")).status_code == 200


def test_other_names_are_refused(edge: Edge, client: httpx.Client) -> None:
    assert_problem(client.get("/health", headers={"Host": "example.org"}), 421)
    assert_problem(httpx.get(f"http://127.0.0.1:{edge.http}/", headers={"Host": "example.org"}), 421)


def test_plain_http_leads_to_https(edge: Edge) -> None:
    answer = httpx.post(f"http://127.0.0.1:{edge.http}/predict?a=b", json=SENTENCE)
    assert answer.status_code == 308
    assert answer.headers["location"] == f"https://127.0.0.1:{edge.https}/predict?a=b"
    direct = httpx.get(f"http://127.0.0.1:{edge.http}/docs", headers={"Host": "lab"})
    assert direct.headers["location"] == "https://lab/docs"


def test_http2(edge: Edge) -> None:
    answer = edge.client(http2=True).post("/predict", json=SENTENCE)
    assert (answer.http_version, answer.status_code) == ("HTTP/2", 200)


def handshake(edge: Edge, highest: ssl.TLSVersion) -> str | None:
    context = ssl._create_unverified_context()
    context.set_ciphers("DEFAULT:@SECLEVEL=0")
    context.minimum_version = ssl.TLSVersion.TLSv1
    context.maximum_version = highest
    with socket.create_connection(("127.0.0.1", edge.https)) as plain:
        try:
            with context.wrap_socket(plain, server_hostname="localhost") as connection:
                return connection.version()
        except (ssl.SSLError, ConnectionResetError):
            return None


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1:DeprecationWarning")
def test_tls_versions(edge: Edge, tmp_path: Path) -> None:
    assert handshake(edge, ssl.TLSVersion.TLSv1_3) == "TLSv1.3"
    assert handshake(edge, ssl.TLSVersion.TLSv1_2) == "TLSv1.2"
    assert handshake(edge, ssl.TLSVersion.TLSv1_1) is None
    with running(tmp_path, gateway_tls_profile="modern") as modern:
        assert handshake(modern, ssl.TLSVersion.TLSv1_3) == "TLSv1.3"
        assert handshake(modern, ssl.TLSVersion.TLSv1_2) is None


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_sessions_are_resumed(edge: Edge, version: ssl.TLSVersion) -> None:
    context = ssl._create_unverified_context()
    context.maximum_version = version
    session = None
    resumed = []
    for _ in range(2):
        with (
            socket.create_connection(("127.0.0.1", edge.https)) as plain,
            context.wrap_socket(plain, server_hostname="localhost", session=session) as connection,
        ):
            connection.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            while connection.recv(4096):
                pass
            session = connection.session
            resumed.append(connection.session_reused)
    assert resumed == [False, True]


@pytest.mark.parametrize("path", ["/", "/health", "/predict", "/nope"])
def test_every_answer_has_the_security_headers(client: httpx.Client, path: str) -> None:
    answer = client.post(path, json=SENTENCE) if path == "/predict" else client.get(path)
    for header in ("content-security-policy", "x-content-type-options", "x-frame-options", "referrer-policy"):
        assert len(answer.headers.get_list(header)) == 1, header
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert "unsafe" not in answer.headers["content-security-policy"]
    assert answer.headers["server"] == "nginx"


def test_localhost_is_not_told_to_insist_on_https(client: httpx.Client) -> None:
    """It would hold for the plain HTTP of Prometheus and Grafana on other ports, too."""
    assert "strict-transport-security" not in client.get("/health", headers={"Host": "localhost"}).headers
    assert client.get("/health", headers={"Host": "lab"}).headers["strict-transport-security"] == "max-age=63072000"


# --- operators ---


def test_prometheus_and_grafana_are_for_operators(edge: Edge) -> None:
    user, operator = edge.client(), edge.client(auth=("operator", "watch"))
    with edge.monitoring() as (prometheus, grafana):
        for path in ("/prometheus/classic/graph", "/grafana/login"):
            assert_problem(user.get(path), 401)
            assert operator.get(path).status_code == 200
        # Grafana knows its prefix, Prometheus does not.
        assert [seen.path for seen in prometheus.seen] == ["/classic/graph"]
        assert [seen.path for seen in grafana.seen] == ["/grafana/login"]
        assert "authorization" not in prometheus.seen[0].headers | grafana.seen[0].headers
        operator.get("/grafana/api/live/ws", headers={"Connection": "Upgrade", "Upgrade": "websocket"})
        assert grafana.seen[-1].headers["upgrade"] == "websocket"
        assert grafana.seen[-1].headers["connection"] == "upgrade"
    assert_problem(operator.get("/grafana/api/health"), 503)
    assert (
        operator.get("/grafana/", follow_redirects=False)
        .headers["location"]
        .endswith("/prometheus/consoles/vmlops.html")
    )
    assert_problem(user.get("/grafana/"), 401)
    for page in ("graph?g0.expr=up&g0.tab=1", "alerts", "alerts/"):
        answer = operator.get(f"/prometheus/{page}", follow_redirects=False)
        assert answer.headers["location"].endswith(f"/prometheus/classic/{page.rstrip('/')}")
    assert_problem(user.get("/alertmanager/"), 401)
    assert_problem(operator.get("/alertmanager/"), 503)
    assert operator.get("/prometheus", follow_redirects=False).headers["location"].endswith("/prometheus/")


def test_the_status_is_for_the_exporter_alone(edge: Edge) -> None:
    answer = httpx.get(f"http://127.0.0.1:{edge.ports['nginx_status']}/stub_status")
    assert answer.text.startswith("Active connections:")


# --- the access log ---


def test_the_access_log(edge: Edge, client: httpx.Client) -> None:
    sent = {"X-Request-ID": "in-the-log", "X-Experiment-Group": "debug"}
    client.post("/predict?token=abc", json=SENTENCE, headers=sent)
    client.post("/predict", json=SENTENCE, auth=("admin", "wrong"), headers={"X-Request-ID": "refused"})
    client.get("/nope/" + "x" * 100, headers={"X-Request-ID": "unknown"})
    client.post("/v2/models/emotion/infer", json=SENTENCE, headers={"X-Request-ID": "infer"})
    lines = edge.access_log("in-the-log", "refused", "unknown", "infer")
    line = lines["in-the-log"]
    print(line)
    documented = re.findall(
        r"^\| `(\w+)` \|", (Path(__file__).parents[2] / "docs/gateway.md").read_text(), re.MULTILINE
    )
    assert [name for name in documented if name in line] == list(line)
    assert line["upstream_addr"] == f"127.0.0.1:{edge.replicas[3].port}"
    assert line["status"] == 200
    assert line | {"client": "127.0.0.1", "user": "admin", "method": "POST", "path": "/predict", "route": "/predict",
                   "version": "v2", "tls": "TLSv1.3", "limit": "PASSED", "upstream_status": "200"} == line  # fmt: skip
    assert lines["refused"]["status"] == 401
    assert lines["refused"]["upstream_addr"] == ""
    assert lines["unknown"]["route"] == "other"
    assert lines["infer"]["route"] == "/v2/models/{name}/infer"
    text = (edge.directory / "log/vmlops.access.json").read_text()
    for secret in ("sooo", "token", "YWRtaW4", "wrong"):
        assert secret not in text
