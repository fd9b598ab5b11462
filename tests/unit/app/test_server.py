"""The real gunicorn with the real worker: start, signals, idle connections, and where the process writes."""

from __future__ import annotations

import json
import os
import re
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from app import worker
from tests.replica import PATIENCE, Server, serving
from tests.unit.app.stub_api import StubEngine

NGINX_IDLE_SECONDS = 60


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with serving(tmp_path) as server:
        yield server


def answer_to(client: socket.socket) -> bytes:
    received = b""
    with client:
        while chunk := client.recv(65536):
            received += chunk
    return received


def test_sigterm_in_mid_request(server: Server) -> None:
    client = server.half_a_request()
    server.process.send_signal(signal.SIGTERM)
    server.until(server.refuses)
    assert server.process.poll() is None
    client.sendall(b"}")
    answer = answer_to(client)
    print(answer)
    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"connection: close" in answer.lower()
    assert server.process.wait(PATIENCE) == 0
    messages = [json.loads(line)["message"] for line in server.log.read_text().splitlines()]
    assert messages[0] == "started"
    assert messages[-1] == "stopped"


def test_hup_replaces_the_worker_and_loses_no_request(server: Server) -> None:
    before = server.worker()
    client = server.half_a_request()
    statuses: list[int] = []
    done = threading.Event()

    def load() -> None:
        while not done.is_set():
            for _ in range(2):  # like nginx, which goes to the next connection where one was closed on it
                try:
                    statuses.append(server.get("/version").status)
                    break
                except OSError:
                    continue
            else:
                statuses.append(0)

    thread = threading.Thread(target=load)
    thread.start()
    try:
        server.process.send_signal(signal.SIGHUP)
        server.until(lambda: server.worker() not in (0, before))
        client.sendall(b"}")
        assert answer_to(client).startswith(b"HTTP/1.1 200 OK\r\n")
        server.until(lambda: not Path(f"/proc/{before}").exists())
        seen = len(statuses)
        server.until(lambda: len(statuses) > seen + 20)
    finally:
        done.set()
        thread.join()
    print(before, server.worker(), len(statuses))
    assert set(statuses) == {200}
    assert server.stop() == 0


def test_a_worker_that_dies_is_replaced(server: Server) -> None:
    before = server.worker()
    os.kill(before, signal.SIGKILL)
    server.until(lambda: server.worker() not in (0, before) and server.get("/ready").status == 200)
    assert server.stop() == 0


def test_idle_connections_outlast_nginx(server: Server) -> None:
    """uvicorn's own default is 5 s: a connection that is open after 6 shows that ours has reached it."""
    assert worker.KEEPALIVE_SECONDS > NGINX_IDLE_SECONDS
    connection = server.connect()
    assert server.get("/health", connection).status == 200
    readable, _, _ = select.select([connection.sock], [], [], 6)
    assert not readable, "the server closed the connection"
    assert server.get("/health", connection).status == 200
    connection.close()


def written_files(pid: int) -> Iterator[str]:
    """What the process has open for writing, but for devices, pipes and sockets."""
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):
            details = Path(f"/proc/{pid}/fdinfo/{descriptor.name}").read_text()
            target = str(descriptor.readlink())
            writable = int(details.partition("flags:")[2].split()[0], 8) & os.O_ACCMODE != os.O_RDONLY
            if writable and target.startswith("/") and not target.startswith("/dev/"):
                yield target.removesuffix(" (deleted)")


def test_it_writes_to_its_runtime_directory_alone(server: Server) -> None:
    server.get("/version")
    server.get("/docs/swagger-ui.css")
    opened = [Path(target) for pid in (server.process.pid, server.worker()) for target in written_files(pid)]
    print(opened)
    assert opened
    assert all(target.is_relative_to(server.runtime) or target == server.log for target in opened)
    assert server.stop() == 0
    left = [path for path in server.directory.rglob("*") if path.is_file() and path != server.log]
    assert left == []


def test_http_below_the_application(server: Server) -> None:
    """What nginx would never send is answered 400, and the server lives on."""
    for garbage in (
        b"\x16\x03\x01\x02\x00\x01",
        b"GET\r\n\r\n",
        b"POST /predict HTTP/1.1\r\nContent-Length: x\r\n\r\n",
    ):
        with socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE) as client:
            client.sendall(garbage)
            assert client.recv(4096).startswith(b"HTTP/1.1 400 ")
    response = server.get("/health")
    assert response.status == 200
    assert response.getheader("server") is None


# In a process of its own: the client's library, gevent, changes the interpreter that imports it.
OIP_CLIENT = """
import json, sys
import numpy as np
from tritonclient.http import InferInput, InferenceServerClient, InferRequestedOutput
from tritonclient.utils import InferenceServerException

client = InferenceServerClient(sys.argv[1])
assert client.is_server_live() and client.is_server_ready() and client.is_model_ready("emotion")
metadata = client.get_model_metadata("emotion")
tensor = InferInput("sentence", [2], "BYTES")
tensor.set_data_from_numpy(np.array(["so glad", "\u00fcnlucky \U0001f642"], dtype=object), binary_data=False)
both = client.infer("emotion", [tensor])
label = client.infer("emotion", [tensor], outputs=[InferRequestedOutput("label", binary_data=False)], request_id="7")
errors = []
tensor.set_data_from_numpy(np.array(["a", "b"], dtype=object), binary_data=True)
for model in ("other", "emotion"):
    try:
        client.infer(model, [tensor])
    except InferenceServerException as error:
        errors.append([error.status(), error.message()])
print(json.dumps([
    metadata["versions"], both.as_numpy("label").tolist(), both.as_numpy("probabilities").shape,
    label.as_numpy("label").tolist(), label.get_response()["id"], errors,
]))
"""


def test_the_inference_protocol_s_own_client(server: Server) -> None:
    done = subprocess.run(
        [sys.executable, "-c", OIP_CLIENT, f"127.0.0.1:{server.port}"], capture_output=True, text=True, check=False
    )
    print(done.stdout, done.stderr)
    expected = [StubEngine().score(text).label for text in ("so glad", "ünlucky 🙂")]
    versions, labels, shape, only, request_id, errors = json.loads(done.stdout)
    assert (versions, labels, shape, only, request_id) == (["stub00000001"], expected, [2, 13], expected, "7")
    assert [status for status, _ in errors] == ["404", "415"]
    assert "binary_data=False" in errors[1][1]


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [("VMLOPS_VERSION", "v9", "vmlops: VMLOPS_VERSION is 'v9'"), ("VMLOPS_DEBUG", "1", "vmlops: unknown variable")],
)
def test_a_bad_environment_ends_the_start(tmp_path: Path, variable: str, value: str, message: str) -> None:
    server = Server(tmp_path, **{variable: value})
    try:
        assert server.process.wait(PATIENCE) == 1
        assert server.log.read_text().startswith(message)
        assert server.log.read_text().count("\n") == 1
    finally:
        server.close()


PREDICT = b"POST /predict HTTP/1.1\r\nHost: x\r\nX-Request-ID: one\r\n"
JSON = b"Content-Type: application/json\r\n"
USUAL = b'{"sentence": "so glad"}'
# Head, and body; each is answered at once where it comes in one piece, and by way of ASGI where it does not.
PREDICTIONS = {
    "usual": (PREDICT + JSON, USUAL),
    "charset": (PREDICT + b"content-type: Application/JSON; charset=utf-8\r\n", USUAL),
    "byte order mark": (PREDICT + JSON, b"\xef\xbb\xbf" + USUAL),
    "no type": (PREDICT, USUAL),
    "compressed": (PREDICT + JSON + b"Content-Encoding: gzip\r\n", USUAL),
    "identity": (PREDICT + JSON + b"Content-Encoding: Identity\r\n", USUAL),
    "not JSON": (PREDICT + JSON, b"sentence"),
    "another member": (PREDICT + JSON, b'{"sentence": "so glad", "more": 1}'),
    "blank": (PREDICT + JSON, b'{"sentence": "  "}'),
    "too long": (PREDICT + JSON, b'{"sentence": "' + b"x" * 9000 + b'"}'),
    "too large": (PREDICT + JSON, b'{"sentence": "' + b"x" * 2**16 + b'"}'),
    "shadow": (PREDICT + JSON + b"X-Shadow-Answer: 1\r\n", USUAL),
    "closing": (PREDICT + JSON + b"Connection: close\r\n", USUAL),
    "HTTP/1.0": (b"POST /predict HTTP/1.0\r\nX-Request-ID: one\r\n" + JSON, USUAL),
    "expecting": (PREDICT + JSON + b"Expect: 100-continue\r\n", USUAL),
    "no body": (PREDICT + JSON, b""),
    "query": (b"POST /predict?x=1 HTTP/1.1\r\nHost: x\r\nX-Request-ID: one\r\n" + JSON, USUAL),
    "get": (b"GET /predict HTTP/1.1\r\nHost: x\r\nX-Request-ID: one\r\n", b""),
}


def without_times(answer: bytes) -> list[bytes]:
    """Lines of an answer but for those that differ from one time to the next: the date, and how long a shadow's answer took."""
    return [line for line in answer.split(b"\r\n") if not line.startswith((b"date:", b"x-shadow-answer:"))]


def until_idle(client: socket.socket) -> bytes:
    """What is answered until nothing more comes for a moment, or the server closes."""
    received = b""
    while select.select([client], [], [], 0.3 if received else PATIENCE)[0]:
        chunk = client.recv(2**20)
        if not chunk:
            break
        received += chunk
    return received


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("shared")) as server:
        yield server


@pytest.mark.parametrize("name", PREDICTIONS)
def test_a_request_in_one_piece_is_answered_as_one_in_pieces(shared: Server, name: str) -> None:
    head, body = PREDICTIONS[name]
    request = head + b"Content-Length: %d\r\n\r\n" % len(body) + body
    answers = []
    for cut in (len(request), len(head) - 5, len(request) - max(len(body) // 2, 1)):
        with socket.create_connection(("127.0.0.1", shared.port), timeout=PATIENCE) as client:
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            client.sendall(request[:cut])
            if cut < len(request):
                shared.get("/health")  # after which the worker has read the first piece
                client.sendall(request[cut:])
            answers.append(without_times(until_idle(client)))
    print(answers)
    assert answers[0][0].startswith(b"HTTP/1.1 ")
    assert answers[0] == answers[1]
    if name != "expecting":  # whose first piece is answered 100
        assert answers[0] == answers[2]


def test_requests_in_one_piece_are_counted_like_others(server: Server) -> None:
    request = PREDICT + JSON + b"Content-Length: %d\r\n\r\n" % len(USUAL) + USUAL
    wrong = PREDICT + JSON + b"Content-Length: 2\r\n\r\n{}"
    with socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE) as client:
        client.sendall(request + wrong + request)
        answers = b""
        while answers.count(b"x-request-id") < 3:
            answers += client.recv(65536)
    print(answers)
    assert re.findall(rb"HTTP/1.1 (\d+)", answers) == [b"200", b"422", b"200"]
    exposition = server.get("/metrics").body.decode()  # type: ignore[attr-defined]
    counted = {line for line in exposition.splitlines() if line.startswith("vmlops_requests_total")}
    print(counted)
    found = {(re.findall(r'code="(\d+)"', line)[0], float(line.rpartition(" ")[2])) for line in counted}
    assert found == {("200", 2), ("422", 1)}
    assert server.series("vmlops_requests_in_flight") == 0


def test_answers_keep_the_order_of_requests_that_come_at_once(server: Server) -> None:
    """A route of FastAPI's takes longer than a prediction that came after it on the same connection."""
    slow = b"GET /version HTTP/1.1\r\nHost: x\r\nX-Request-ID: first\r\n\r\n"
    fast = PREDICT.replace(b"one", b"second") + JSON + b"Content-Length: %d\r\n\r\n" % len(USUAL) + USUAL
    with socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE) as client:
        client.sendall(slow + fast)
        answers = b""
        while answers.count(b"x-request-id") < 2:
            answers += client.recv(65536)
    assert 0 < answers.index(b"first") < answers.index(b"second")
