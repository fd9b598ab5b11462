"""The routes that need no framework, as functions of an ASGI request."""

from __future__ import annotations

from app.http import shadow
from app.http.answers import Answer, to_json
from app.http.asgi import Handler, Headers, Immediate, Receive, Routes, Scope, check_json, read_json, without_mark
from app.http.predictor import Predictor
from app.http.sentences import BATCH_BODY_BYTES, PREDICT_BODY_BYTES
from app.observed.exposition import MEDIA_TYPE
from app.observed.metrics import Metrics


def fast_routes(predictor: Predictor, metrics: Metrics) -> Routes:
    """Return the handlers by method and path. They raise Problem instead of returning an error."""
    alive = Answer.of(200, to_json({"status": "ok"}))
    is_ready = Answer.of(200, to_json({"status": "ready"}))

    async def predict(scope: Scope, receive: Receive) -> Answer:
        body = await read_json(scope, receive, PREDICT_BODY_BYTES)
        headers, request_id = scope["headers"], scope["state"]["request_id"]
        if not metrics.shadow:  # v1
            return _answer(predictor, headers, body, request_id)
        if original := shadow.copied(headers):
            return shadow.take_copy(predictor, metrics.shadow, original, body, request_id)
        return await predictor.predict_debug(body, request_id)

    async def predict_batch(scope: Scope, receive: Receive) -> Answer:
        return await predictor.predict_batch(await read_json(scope, receive, BATCH_BODY_BYTES))

    async def health(_scope: Scope, _receive: Receive) -> Answer:
        return alive

    async def ready(_scope: Scope, _receive: Receive) -> Answer:
        predictor.check_ready()
        return is_ready

    async def exposition(_scope: Scope, _receive: Receive) -> Answer:
        return Answer.of(200, metrics.exposition(), MEDIA_TYPE)

    routes: dict[tuple[str, str], Handler] = {
        ("POST", "/predict"): predict,
        ("POST", "/predict/batch"): predict_batch,
        ("GET", "/health"): health,
        ("GET", "/ready"): ready,
        ("GET", "/metrics"): exposition,
    }
    if feedback := metrics.feedback:
        from app.http.feedback import BODY_BYTES, take_label

        async def label(scope: Scope, receive: Receive) -> Answer:
            return await take_label(feedback, await read_json(scope, receive, BODY_BYTES))

        routes["POST", "/feedback"] = label
    return routes


def immediate_routes(predictor: Predictor, metrics: Metrics) -> dict[str, Immediate]:
    """Return what v1 answers without waiting, by path. v2 may wait for a thread that explains."""

    def predict(headers: Headers, body: bytes, request_id: str) -> Answer:
        check_json(headers, len(body), PREDICT_BODY_BYTES)
        return _answer(predictor, headers, without_mark(body), request_id)

    return {} if metrics.shadow else {"/predict": predict}


def _answer(predictor: Predictor, headers: Headers, body: bytes, request_id: str) -> Answer:
    """v1's."""
    if shadow.is_asked(headers):
        return shadow.answer_telling(predictor, body, request_id)
    return predictor.predict(body, request_id)
