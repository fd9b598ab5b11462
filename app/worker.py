"""The gunicorn worker: uvicorn with nothing on that nginx does already."""

from __future__ import annotations

from typing import Any, ClassVar

# uvicorn imports these two when it starts, in the worker; before the fork they are shared with the master.
import uvicorn.lifespan.on
import uvicorn.loops.uvloop  # noqa: F401
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn_worker import UvicornWorker  # type: ignore[import-untyped]

KEEPALIVE_SECONDS = 75  # longer than nginx keeps an idle connection (60 s), so that nginx is the one to close it
DRAIN_SECONDS = 15  # for requests that are being answered when the process is told to stop


class Protocol(HttpToolsProtocol):
    """uvicorn's, which leaves the parser of a connection in no defined state after a request for another protocol: it
    drops that request's body and reads what follows as new requests. Here such a connection is refused and closed."""

    def on_headers_complete(self) -> None:
        """Raises ValueError for an Upgrade and for CONNECT; uvicorn answers 400 and reads no more."""
        if self.parser.should_upgrade():
            raise ValueError("another protocol was asked for")
        super().on_headers_complete()


class Worker(UvicornWorker):  # type: ignore[misc]
    CONFIG_KWARGS: ClassVar[dict[str, Any]] = {
        "loop": "uvloop",
        "http": Protocol,
        "ws": "none",
        "interface": "asgi3",
        "lifespan": "on",
        "access_log": False,
        "proxy_headers": False,  # who the client is matters to nginx; here nobody asks, and nobody is believed
        "server_header": False,
        "timeout_graceful_shutdown": DRAIN_SECONDS,
    }
