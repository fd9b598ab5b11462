"""The gunicorn worker: uvicorn, without the features that nginx already provides."""

from __future__ import annotations

import mmap
import os
import socket
import struct
import time
from contextlib import suppress
from typing import Any, ClassVar

# uvicorn imports these two when it starts, in the worker; before the fork they are shared with the master.
import uvicorn.lifespan.on
import uvicorn.loops.uvloop  # noqa: F401
from gunicorn.workers.workertmp import WorkerTmp  # type: ignore[import-untyped]
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol
from uvicorn_worker import UvicornWorker  # type: ignore[import-untyped]

KEEPALIVE_SECONDS = 75  # longer than nginx keeps an idle connection (60 s), so that nginx is the one to close it
DRAIN_SECONDS = 15  # for requests that are being answered when the process is told to stop
MASTER_SECONDS = 2.0  # a master that has not looked at its worker for so long hangs: it looks every second


class Protocol(HttpToolsProtocol):
    """uvicorn's, with two differences.

    It refuses what asks for another protocol: after that, uvicorn leaves the parser of a connection in no defined state, drops
    the request's body and reads what follows as new requests.

    And where the application has a way to answer a request at once (asgi.Application.answer_whole), that is used for requests
    that arrive in one piece, which saves the objects of ASGI: a task, an event, a scope and four messages. Everything else, a
    body in pieces above all, goes uvicorn's way.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._immediate = getattr(self.app, "immediate", {})
        self._body: bytes | None = None  # of a request that may be answered at once, as far as it has arrived

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._body is not None:
            self._go_uvicorns_way()

    def on_message_begin(self) -> None:
        self.url, self.headers, self.expect_100_continue = b"", [], False

    def on_headers_complete(self) -> None:
        """Raises ValueError for an Upgrade and for CONNECT; uvicorn answers 400 and reads no more."""
        parser = self.parser
        if parser.should_upgrade():
            raise ValueError("another protocol was asked for")
        self._body = b""
        if (
            self.url not in self._immediate
            or parser.get_method() != b"POST"
            or parser.get_http_version() != "1.1"
            or not parser.should_keep_alive()
            or self.expect_100_continue
            or self.flow.write_paused
            or not (self.cycle is None or self.cycle.response_complete)  # an earlier request's answer comes first
        ):
            self._go_uvicorns_way()

    def on_body(self, body: bytes) -> None:
        if self._body is None:
            super().on_body(body)
        else:
            self._body += body

    def on_message_complete(self) -> None:
        body, self._body = self._body, None
        if body is None:
            super().on_message_complete()
            return
        answer = self.app.answer_whole(self.url, self.headers, body)
        lines = [STATUS_LINE[answer.status]]
        for name, value in (*self.server_state.default_headers, *answer.headers):
            lines += (name, b": ", value, b"\r\n")
        lines += (b"\r\n", answer.body)
        self.transport.write(b"".join(lines))
        self.on_response_complete()

    def _go_uvicorns_way(self) -> None:
        """Have uvicorn begin the request whose headers have arrived, and perhaps some of its body."""
        body, self._body = self._body, None
        if self.transport.is_closing():
            return
        url, headers, expect_100_continue = self.url, self.headers, self.expect_100_continue
        super().on_message_begin()
        self.url, self.expect_100_continue = url, expect_100_continue
        self.headers += headers  # the scope's
        super().on_headers_complete()
        if body:
            super().on_body(body)


class Heartbeat(WorkerTmp):  # type: ignore[misc]
    """gunicorn's sign of life, of the worker to its master, and beside it the master's to the worker."""

    def __init__(self, cfg: Any) -> None:
        super().__init__(cfg)
        self._looked = mmap.mmap(-1, struct.calcsize("d"))  # made before the fork: both have it
        self.last_update()

    def last_update(self) -> float:
        """Called by the master alone, about once a second. Returns when the worker was last alive."""
        struct.pack_into("d", self._looked, 0, time.monotonic())
        return float(super().last_update())

    def master_silence(self) -> float:
        """Return the seconds since the master last looked."""
        return float(time.monotonic() - struct.unpack_from("d", self._looked)[0])


def feed_watchdog() -> None:
    """Tell systemd that this process is alive (sd_notify(3)), without waiting: gunicorn's own sd_notify would hold up the event
    loop for as long as nobody reads the socket."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as notification, suppress(OSError):
        notification.sendto(b"WATCHDOG=1", f"\0{address[1:]}" if address.startswith("@") else address)


class Worker(UvicornWorker):  # type: ignore[misc]
    """Tells gunicorn's master and systemd's watchdog that its event loop goes round, systemd only while the master lives, too.

    So a worker that hangs is replaced by systemd (WatchdogSec= of the unit), and a master that hangs with its worker: it would
    replace no worker that dies.
    """

    CONFIG_KWARGS: ClassVar[dict[str, Any]] = {
        "loop": "uvloop",
        "http": Protocol,
        "ws": "none",
        "interface": "asgi3",
        "lifespan": "on",
        "access_log": False,
        "proxy_headers": False,  # client addresses are used by nginx only: X-Forwarded-For is ignored here
        "server_header": False,
        "timeout_graceful_shutdown": DRAIN_SECONDS,
        "timeout_notify": 0.5,  # uvicorn looks once a second whether so much has passed
    }

    tmp: Heartbeat

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.tmp.close()
        self.tmp = Heartbeat(self.cfg)

    async def callback_notify(self) -> None:
        """Called by the event loop, about once a second."""
        self.notify()
        if self.tmp.master_silence() < MASTER_SECONDS:
            feed_watchdog()
