"""The ASGI application: request ids, metrics, and the routes that carry the load; the others are FastAPI's.

FastAPI costs about 100 µs a request, several times what a prediction does, besides a fifth of a replica's memory and
half of its start. So what the gateway and Prometheus ask all day is answered here, and FastAPI is made when somebody
first asks for anything else. It has these routes too, for the OpenAPI document, and answers them by the same handlers.
"""

from __future__ import annotations

import codecs
import logging
import os
import re
from collections.abc import Awaitable, Callable, Iterable, Mapping, MutableMapping
from functools import cached_property
from time import perf_counter
from typing import Any

from app.http.answers import Answer
from app.http.problems import ENCODED, FAILED, GONE, NOT_DECLARED, Problem
from app.observed.metrics import NOT_COUNTED, Metrics

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
ASGIApp = Callable[[Scope, Receive, Send], Awaitable[None]]
Handler = Callable[[Scope, Receive], Awaitable[Answer]]
Routes = Mapping[tuple[str, str], Handler]  # by method and path

ELSEWHERE = "other"  # route label of all paths that do not exist: otherwise clients could make any number of series
REQUEST_ID = b"x-request-id"

# The same rule as the gateway's (roles/gateway, routing.conf), so that a request has one id all the way.
_well_formed = re.compile(rb"[A-Za-z0-9._-]{1,64}").fullmatch
_log = logging.getLogger("vmlops.request")


class Application:
    """`fast` are the routes that are answered here; `make_framework` makes what answers the rest."""

    def __init__(
        self,
        fast: Routes,
        make_framework: Callable[[], ASGIApp],
        metrics: Metrics,
        start: Callable[[], None],
        stop: Callable[[], None],
    ) -> None:
        self.fast = dict(fast)
        self.metrics = metrics
        self._make_framework = make_framework
        self.start = start
        self.stop = stop
        self._debug = _log.isEnabledFor(logging.DEBUG)

    @cached_property
    def framework(self) -> ASGIApp:
        return self._make_framework()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._live(receive, send)
            return
        started = perf_counter()
        method, path = scope["method"], scope["path"]
        request_id = request_id_of(scope["headers"])
        scope.setdefault("state", {})["request_id"] = request_id
        handler = self.fast.get((method, path))
        counted = path not in NOT_COUNTED
        self.metrics.in_flight += counted
        try:
            if handler:
                route = path
                status = await self._answer(handler, scope, receive, send, request_id)
            else:
                status = await self._delegate(scope, receive, send, request_id)
                route = getattr(scope.get("route"), "path", ELSEWHERE)
        finally:
            self.metrics.in_flight -= counted
        if counted:
            self.metrics.answered(route, status, perf_counter() - started)
        if self._debug:
            fields = {"request_id": request_id, "method": method, "path": path, "status": status}
            _log.debug("answered", extra={"fields": fields})

    async def _live(self, receive: Receive, send: Send) -> None:
        """Answer the startup and shutdown events of ASGI's lifespan protocol."""
        await receive()
        self.start()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        self.stop()
        await send({"type": "lifespan.shutdown.complete"})

    async def _answer(self, handler: Handler, scope: Scope, receive: Receive, send: Send, request_id: str) -> int:
        try:
            status, headers, body = await handler(scope, receive)
        except Problem as problem:
            status, headers, body = problem.answer(request_id)
        except Exception:
            status, headers, body = failure(request_id)
        head = [*headers, (REQUEST_ID, request_id.encode())]
        await send({"type": "http.response.start", "status": status, "headers": head})
        await send({"type": "http.response.body", "body": body})
        return status

    async def _delegate(self, scope: Scope, receive: Receive, send: Send, request_id: str) -> int:
        status = 0

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", ()), (REQUEST_ID, request_id.encode())]
            await send(message)

        try:
            await self.framework(scope, receive, send_with_id)
        except Exception:
            # Starlette raises again what the framework's handler, which is `failure`, has logged and answered.
            if not status:
                raise
        return status


async def read_json(scope: Scope, receive: Receive, limit: int, undeclared: bytes = b"") -> bytes:
    """Return the body: JSON, declared as such, uncompressed, of at most `limit` bytes. `undeclared` is the default type.

    Raises Problem 415 and 413, and 499 where the client left before its last byte.
    """
    headers = dict(scope["headers"])
    media_type = headers.get(b"content-type", undeclared)
    if media_type != b"application/json" and media_type.partition(b";")[0].strip().lower() != b"application/json":
        raise Problem(415, NOT_DECLARED)
    if headers.get(b"content-encoding", b"identity").strip().lower() not in (b"identity", b""):
        raise Problem(415, ENCODED, headers=((b"accept-encoding", b"identity"),))
    too_long = Problem(413, f"The body is longer than {limit} bytes.")
    length = headers.get(b"content-length", b"")
    if length.isdigit() and int(length) > limit:
        raise too_long
    body = b""
    more = True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise Problem(499, GONE)
        body += message.get("body", b"")
        if len(body) > limit:
            raise too_long
        more = message.get("more_body", False)
    return body.removeprefix(codecs.BOM_UTF8)  # which RFC 8259 lets a reader ignore


def request_id_of(headers: Iterable[tuple[bytes, bytes]]) -> str:
    """Return the id that the gateway sent, or a new one where it is missing or not safe to log."""
    for name, value in headers:
        if name == REQUEST_ID and _well_formed(value):
            return value.decode()
    return os.urandom(16).hex()


def failure(request_id: str) -> Answer:
    """Log the exception that is being handled, which nothing else does, and return the answer 500."""
    _log.exception("request failed", extra={"fields": {"request_id": request_id}})
    return Problem(500, FAILED).answer(request_id)
