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
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn_worker import UvicornWorker  # type: ignore[import-untyped]

KEEPALIVE_SECONDS = 75  # longer than nginx keeps an idle connection (60 s), so that nginx is the one to close it
DRAIN_SECONDS = 15  # for requests that are being answered when the process is told to stop
MASTER_SECONDS = 2.0  # a master that has not looked at its worker for so long hangs: it looks every second


class Protocol(HttpToolsProtocol):
    """uvicorn's, which leaves the parser of a connection in no defined state after a request for another protocol: it
    drops that request's body and reads what follows as new requests. Here such a connection is refused and closed."""

    def on_headers_complete(self) -> None:
        """Raises ValueError for an Upgrade and for CONNECT; uvicorn answers 400 and reads no more."""
        if self.parser.should_upgrade():
            raise ValueError("another protocol was asked for")
        super().on_headers_complete()


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
