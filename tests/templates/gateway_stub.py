"""Stub replicas of the API for tests of the gateway: each answers on a port of its own and remembers what it saw."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Seen:
    """A request as a replica got it. Header names are in lower case; `peer` is nginx's end of the connection."""

    replica: str
    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    peer: int


Answer = Callable[[Seen], tuple[int, bytes]]


def echo(seen: Seen) -> tuple[int, bytes]:
    return 200, json.dumps({"replica": seen.replica, "path": seen.path}).encode()


class Gate:
    """Holds back every answer from __enter__ until open() or __exit__."""

    def __init__(self, replicas: list[Replica]) -> None:
        self.replicas = replicas
        self.event = threading.Event()

    def answer(self, seen: Seen) -> tuple[int, bytes]:
        self.event.wait(30)
        return echo(seen)

    def open(self) -> None:
        self.event.set()

    def __enter__(self) -> Gate:
        for replica in self.replicas:
            replica.answer = self.answer
        return self

    def __exit__(self, *_: object) -> None:
        self.open()
        for replica in self.replicas:
            replica.answer = echo


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    replica: Replica

    def answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        headers = {name.lower(): value for name, value in self.headers.items()}
        seen = Seen(self.replica.name, self.command, self.path, headers, body, self.client_address[1])
        self.replica.seen.append(seen)
        status, content = self.replica.answer(seen)
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        for name, value in self.replica.extra.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_POST = answer

    def log_message(self, format: str, *args: Any) -> None:
        pass


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256

    def __init__(self, address: tuple[str, int], handler: type[Handler]) -> None:
        self.connections: set[Any] = set()
        super().__init__(address, handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        self.connections.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self.connections.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """An answer that raises closes its connection: a replica that dies."""


class Replica:
    """`answer` may be exchanged while the replica runs. stop() closes the port and every connection; start() opens it again."""

    def __init__(self, name: str, port: int) -> None:
        self.name, self.port = name, port
        self.seen: list[Seen] = []
        self.answer: Answer = echo
        self.extra: dict[str, str] = {}  # headers of every answer
        self.start()

    def start(self) -> None:
        handler = type("ReplicaHandler", (Handler,), {"replica": self})
        self.server = Server(("127.0.0.1", self.port), handler)
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    def stop(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        for connection in list(self.server.connections):
            self.server.shutdown_request(connection)
