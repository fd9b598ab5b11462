"""POST /predict where the gateway compares v1 with v2 on copies of its requests; see app/observed/shadow.py.

Two headers, which the gateway sets and no client can: ANSWER asks v1 for its answer in a header of that name, which the
gateway keeps to itself; COPY_OF tells v2 that this is a copy, and of which request. Nobody reads what a copy is answered.
"""

from __future__ import annotations

from time import perf_counter

from app.engines.engine import Score
from app.engines.signature import text_of
from app.http.answers import Answer
from app.http.asgi import Headers
from app.http.predictor import Predictor
from app.observed.shadow import Shadow, ShadowAnswer

ANSWER = b"x-shadow-answer"
COPY_OF = b"x-shadow-of"
_ASKED = (ANSWER, b"1")
_TAKEN = Answer.of(204, b"")


def is_asked(headers: Headers) -> bool:
    """Whether the gateway asks v1 to repeat its answer in a header."""
    return _ASKED in headers


def copied(headers: Headers) -> str:
    """The id of the request that this one is a copy of; empty where it is none."""
    return next((value.decode("latin-1") for name, value in headers if name == COPY_OF), "")


def answer_telling(predictor: Predictor, body: bytes, request_id: str) -> Answer:
    """v1's answer, with ANSWER as a header. Raises Problem."""
    score, told = _scored(predictor, body, request_id)
    plain = predictor.answer_of(score)
    return plain._replace(headers=(*plain.headers, (ANSWER, told.encode().encode())))


def take_copy(predictor: Predictor, shadow: Shadow, copy_of: str, body: bytes, request_id: str) -> Answer:
    """Score a copy and keep only what the comparison needs. `copy_of` is nginx's id of the request, `request_id` the client's.
    Raises whatever scoring raises.
    """
    answer = None
    try:
        _, answer = _scored(predictor, body, request_id)
    finally:
        shadow.candidate(copy_of, answer)
    return _TAKEN


def _scored(predictor: Predictor, body: bytes, request_id: str) -> tuple[Score, ShadowAnswer]:
    started = perf_counter()
    _, score = predictor.scored(body, request_id)
    seconds = perf_counter() - started
    label = text_of(score.label) if predictor.engine.signature.kind == "classes" else "number"
    confidence = score.confidence if score.probabilities else 0.0
    return score, ShadowAnswer(predictor.engine.model_version, label, confidence, seconds)
