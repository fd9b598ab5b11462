"""The real gunicorn with the real worker, in front of the stub engine: one replica on loopback, as a unit starts it."""

from __future__ import annotations

import http.client
import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from time import monotonic

from tests.paths import ROOT
from tests.ports import free_port

PATIENCE = 20.0


class Server:
    """gunicorn as the unit starts it, serving the stub engine on a free port."""

    def __init__(self, directory: Path, **environment: str) -> None:
        self.port = free_port()
        self.directory = directory
        self.runtime = directory / "run"
        self.home = directory / "home"
        for made in (self.runtime, self.home, directory / "tmp"):
            made.mkdir()
        self.log = directory / "log"
        self.notifications = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.notifications.bind(str(directory / "notify"))
        self.notifications.settimeout(PATIENCE)
        self.environment = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(ROOT),
            "PYTHONDONTWRITEBYTECODE": "1",
            "HOME": str(self.home),
            "TMPDIR": str(directory / "tmp"),
            "RUNTIME_DIRECTORY": str(self.runtime),
            "NOTIFY_SOCKET": str(directory / "notify"),
            "VMLOPS_VERSION": "v1",
            "VMLOPS_BIND": f"127.0.0.1:{self.port}",
            "VMLOPS_INSTANCE": f"v1@{self.port}",
            "VMLOPS_MODEL_DIR": "/nowhere",
            **environment,
        }
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [
                    sys.executable,
                    "-m",
                    "gunicorn",
                    "--config",
                    "python:app.gunicorn_conf",
                    "tests.unit.app.stub_api:app",
                ],
                cwd=self.home,
                env=self.environment,
                stderr=log,
                stdout=log,
                start_new_session=True,
            )

    def wait_ready(self) -> None:
        assert b"READY=1" in self.notifications.recv(4096)
        self.until(lambda: self.get("/ready").status == 200)

    def until(self, condition: object) -> None:
        """Polls: every try is a request, so there is no busy wait to speak of."""
        deadline = monotonic() + PATIENCE
        while True:
            try:
                if callable(condition) and condition():
                    return
            except OSError:
                pass
            assert monotonic() < deadline, self.log.read_text()
            select.select([], [], [], 0.01)

    def connect(self) -> http.client.HTTPConnection:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        connection.connect()
        return connection

    def get(self, path: str, connection: http.client.HTTPConnection | None = None) -> http.client.HTTPResponse:
        used = connection or self.connect()
        used.request("GET", path, headers={} if connection else {"Connection": "close"})
        response = used.getresponse()
        response.body = response.read()  # type: ignore[attr-defined]
        if not connection:
            used.close()
        return response

    def series(self, name: str) -> float:
        response = self.get("/metrics")
        lines = response.body.decode().splitlines()  # type: ignore[attr-defined]
        return float(next(line for line in lines if line.startswith(f"{name}{{")).rpartition(" ")[2])

    def worker(self) -> int:
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        return int(children[-1]) if children else 0

    def half_a_request(self) -> socket.socket:
        """A POST /predict without the last byte of its body, which the worker has begun to answer."""
        client = socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE)
        client.sendall(
            b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            b'Content-Length: 17\r\n\r\n{"sentence": "x"'
        )
        self.until(lambda: self.series("vmlops_requests_in_flight") == 1)
        return client

    def refuses(self) -> bool:
        try:
            self.connect().close()
        except ConnectionRefusedError:
            return True
        return False

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(PATIENCE)

    def close(self) -> None:
        # Workers outlive a master that is killed: systemd ends them all, and so do we.
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self.notifications.close()
        print(self.log.read_text())


@contextmanager
def serving(directory: Path) -> Iterator[Server]:
    """A replica that is ready, and has ended afterwards."""
    server = Server(directory)
    try:
        server.wait_ready()
        yield server
    finally:
        server.close()
