"""Clients that hold on to connections or tear at them: others are answered meanwhile, and nginx does not grow."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import h2.config
import h2.connection
import h2.exceptions
import pytest
from hyperframe.frame import ContinuationFrame, HeadersFrame

from tests.templates.gateway_edge import Edge, running
from tests.templates.test_gateway import SENTENCE, UNLIMITED

ATTACKER, BYSTANDER = "127.0.0.7", "127.0.0.8"
CONNECTIONS = 200  # three times what a client may have
GROWTH_MEGABYTES = 32
GOAWAY = 7  # the type of the frame that ends an HTTP/2 connection
HEAD = (
    b"POST /predict HTTP/1.1\r\nHost: localhost\r\nAuthorization: Basic YWRtaW46YWRtaW4=\r\n"
    b"Content-Type: application/json\r\nContent-Length: 1000\r\n\r\n"
)


@pytest.fixture(scope="module")
def edge(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Edge]:
    with running(tmp_path_factory.mktemp("edge"), **UNLIMITED) as edge:
        yield edge


def connect(edge: Edge, *protocols: str) -> ssl.SSLSocket:
    context = ssl._create_unverified_context()
    if protocols:
        context.set_alpn_protocols(list(protocols))
    plain = socket.create_connection(("127.0.0.1", edge.https), timeout=10, source_address=(ATTACKER, 0))
    return context.wrap_socket(plain, server_hostname="localhost")


def memory(edge: Edge) -> float:
    """Return the resident megabytes of nginx's master and workers."""
    kilobytes = 0
    for status in Path("/proc").glob("[0-9]*/status"):
        with suppress(OSError):
            fields = dict(line.split(":", 1) for line in status.read_text().splitlines() if ":" in line)
            if edge.gateway.pid in (int(status.parent.name), int(fields["PPid"])):
                kilobytes += int(fields["VmRSS"].split()[0])
    return kilobytes / 1024


def assert_others_are_served(edge: Edge) -> None:
    with edge.client(BYSTANDER) as client:
        statuses = [client.post("/predict", json=SENTENCE).status_code for _ in range(30)]
    assert statuses == [200] * 30


def begin_a_body(connection: ssl.SSLSocket) -> None:
    connection.sendall(HEAD + b'{"sentence": "')


def begin_a_header(connection: ssl.SSLSocket) -> None:
    connection.sendall(HEAD[:60])


def ask_and_never_read(connection: ssl.SSLSocket) -> None:
    connection.sendall(b"GET /static/page.js HTTP/1.1\r\nHost: localhost\r\n\r\n" * 50)


@pytest.mark.parametrize("attack", [begin_a_header, begin_a_body, ask_and_never_read])
def test_slow_clients_hold_up_nobody(edge: Edge, attack: Callable[[ssl.SSLSocket], None]) -> None:
    before = memory(edge)
    with ExitStack() as stack:
        for _ in range(CONNECTIONS):
            with suppress(OSError):
                attack(stack.enter_context(connect(edge)))
        assert_others_are_served(edge)
        assert memory(edge) - before < GROWTH_MEGABYTES


def test_rapid_resets_hold_up_nobody(edge: Edge) -> None:
    """Streams that are opened and cancelled at once (CVE-2023-44487)."""
    before = memory(edge)
    headers = [(":method", "GET"), (":scheme", "https"), (":authority", "localhost"), (":path", "/health")]
    opened = 0
    for _ in range(5):
        client = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True))
        client.initiate_connection()
        with connect(edge, "h2") as connection, suppress(OSError, h2.exceptions.ProtocolError):
            for _ in range(2000):
                stream = client.get_next_available_stream_id()
                client.send_headers(stream, headers)
                client.reset_stream(stream)
                connection.sendall(client.data_to_send())
                opened += 1
    print(opened)
    assert opened > 1000
    assert_others_are_served(edge)
    assert memory(edge) - before < GROWTH_MEGABYTES


def test_header_without_end_is_refused(edge: Edge) -> None:
    """CONTINUATION frames for ever (VU#421644): nginx ends it at the size of its header buffers, and reads on for nothing."""
    before = memory(edge)
    client = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True))
    client.initiate_connection()
    answer = b""
    with connect(edge, "h2") as connection:
        connection.sendall(client.data_to_send())
        first = HeadersFrame(1)
        first.data = b"\x82\x87\x84"  # GET https /
        connection.sendall(first.serialize())
        with suppress(OSError):
            for _ in range(1000):
                more = ContinuationFrame(1)
                more.data = (b"\x00\x01x\x7f\xbf\x01" + b"y" * 318) * 50  # fields of one letter and 318 bytes
                connection.sendall(more.serialize())
        assert_others_are_served(edge)
        assert memory(edge) - before < GROWTH_MEGABYTES
        with suppress(OSError):
            while chunk := connection.recv(65536):
                answer += chunk
    kinds = []
    while len(answer) >= 9:
        length = int.from_bytes(answer[:3], "big")
        kinds.append(answer[3])
        answer = answer[9 + length :]
    print(kinds)
    assert GOAWAY in kinds
