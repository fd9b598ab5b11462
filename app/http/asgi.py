"""The ASGI application: request ids, metrics, and the routes that carry the load; the others are FastAPI's.

A route of FastAPI takes longer than the prediction that it answers with, and its import a good part of a replica's
memory and start (docs/own-code.md). So what the gateway and Prometheus ask all day is answered here, and FastAPI is
made when somebody first asks for anything else. It has these routes too, for the OpenAPI document, and answers them by
the same handlers.
"""

from __future__ import annotations

import codecs
import logging
import os
import re
from collections.abc import Awaitable, Callable, Mapping, MutableMapping, Sequence
from functools import cached_property
from time import perf_counter
from typing import Any

from app.http.answers import REQUEST_ID, Answer
from app.http.problems import ENCODED, FAILED, GONE, NOT_DECLARED, Problem
from app.observed.metrics import NOT_COUNTED, Metrics

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
ASGIApp = Callable[[Scope, Receive, Send], Awaitable[None]]
Handler = Callable[[Scope, Receive], Awaitable[Answer]]
Routes = Mapping[tuple[str, str], Handler]  # by method and path
Headers = Sequence[tuple[bytes, bytes]]
# What answers a request that has arrived as a whole, without waiting for anything: its headers, body and id. Raises Problem.
Immediate = Callable[[Headers, bytes, str], Answer]

ELSEWHERE = "other"  # route label of all paths that do not exist: otherwise clients could make any number of series

# The same rule as the gateway's (roles/gateway, routing.conf), so that a request has one id all the way.
_well_formed = re.compile(rb"[A-Za-z0-9._-]{1,64}").fullmatch
_log = logging.getLogger("vmlops.request")


class Application:
    """`fast` are the routes that are answered here; `make_framework` makes what answers the rest. `immediate` are, by path,
    those POST requests that worker.Protocol may have answered at once, by `answer_whole`."""

    def __init__(
        self,
        fast: Routes,
        immediate: Mapping[str, Immediate],
        make_framework: Callable[[], ASGIApp],
        metrics: Metrics,
        start: Callable[[], None],
        stop: Callable[[], None],
    ) -> None:
        self.fast = dict(fast)
        self.immediate = {path.encode(): (path, handler) for path, handler in immediate.items()}
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
        self._note(request_id, method, path, status)

    def answer_whole(self, url: bytes, headers: Headers, body: bytes) -> Answer:
        """Answer a POST request to one of `immediate`, all of which has arrived, as `__call__` does."""
        started = perf_counter()
        path, handler = self.immediate[url]
        request_id = request_id_of(headers)
        try:
            answer = handler(headers, body, request_id)
        except Problem as problem:
            answer = problem.answer(request_id)
        except Exception:
            answer = failure(request_id)
        self.metrics.answered(path, answer.status, perf_counter() - started)
        self._note(request_id, "POST", path, answer.status)
        return answer.identified(request_id)

    def _note(self, request_id: str, method: str, path: str, status: int) -> None:
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
            answer = await handler(scope, receive)
        except Problem as problem:
            answer = problem.answer(request_id)
        except Exception:
            answer = failure(request_id)
        answer = answer.identified(request_id)
        await send({"type": "http.response.start", "status": answer.status, "headers": answer.headers})
        await send({"type": "http.response.body", "body": answer.body})
        return answer.status

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
    check_json(scope["headers"], 0, limit, undeclared)
    body = b""
    more = True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise Problem(499, GONE)
        body += message.get("body", b"")
        if len(body) > limit:
            raise too_long(limit)
        more = message.get("more_body", False)
    return without_mark(body)


def check_json(headers: Headers, length: int, limit: int, undeclared: bytes = b"") -> None:
    """Raises Problem 415 and 413 as read_json. `length` is how much of the body is there; more may be announced."""
    media_type, encoding = undeclared, b"identity"
    for name, value in headers:
        if name == b"content-type":
            media_type = value
        elif name == b"content-encoding":
            encoding = value
        elif name == b"content-length" and value.isdigit():
            length = int(value)
    if media_type != b"application/json" and media_type.partition(b";")[0].strip().lower() != b"application/json":
        raise Problem(415, NOT_DECLARED)
    if encoding != b"identity" and encoding.strip().lower() not in (b"identity", b""):
        raise Problem(415, ENCODED, headers=((b"accept-encoding", b"identity"),))
    if length > limit:
        raise too_long(limit)


def too_long(limit: int) -> Problem:
    return Problem(413, f"The body is longer than {limit} bytes.")


def without_mark(body: bytes) -> bytes:
    """Return the body without a byte order mark, which RFC 8259 lets a reader ignore."""
    return body.removeprefix(codecs.BOM_UTF8)


def request_id_of(headers: Headers) -> str:
    """Return the id that the gateway sent, or a new one where it is missing or not safe to log."""
    for name, value in headers:
        if name == REQUEST_ID and _well_formed(value):
            return value.decode()
    return os.urandom(16).hex()


def failure(request_id: str) -> Answer:
    """Log the exception that is being handled, which nothing else does, and return the answer 500."""
    _log.exception("request failed", extra={"fields": {"request_id": request_id}})
    return Problem(500, FAILED).answer(request_id)
