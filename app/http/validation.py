"""Bodies as schemas.py wants them, and pydantic's errors as problem documents."""

from __future__ import annotations

from typing import TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from app.http.problems import FieldError, Problem
from app.http.schemas import Sentence, Sentences
from app.http.sentences import TOO_LONG

MAX_ERRORS = 16  # a batch can have 256; nobody reads more than the first few

NOT_JSON = "The body is not JSON in UTF-8"


Document = TypeVar("Document", bound=BaseModel)


def sentence(body: bytes) -> str:
    """Raises Problem: 400, 413 or 422."""
    return parse(Sentence, body).sentence


def sentences(body: bytes) -> list[str]:
    """Raises Problem: 400, 413 or 422."""
    return parse(Sentences, body).sentences


def parse(model: type[Document], body: bytes) -> Document:
    """The document that the body is. Raises Problem: 400, 413 or 422."""
    try:
        return model.model_validate_json(body)
    except ValidationError as error:
        raise _invalid(error) from None


def _invalid(error: ValidationError) -> Problem:
    """400 for what is not JSON, 413 for a text that is too long, 422 for the rest. Repeats no input."""
    details = error.errors(include_url=False, include_input=False, include_context=False)
    first = details[0]
    if first["type"] == "json_invalid":
        return Problem(400, f"{NOT_JSON}: {first['msg'].removeprefix('Invalid JSON: ')}.")
    errors = [FieldError(field=_field(detail), reason=_reason(detail)) for detail in details[:MAX_ERRORS]]
    summary = f"{errors[0]['field']}: {errors[0]['reason']}."
    if any(detail["type"] == TOO_LONG for detail in details):
        return Problem(413, summary, errors)
    return Problem(422, summary, errors)


def _field(detail: ErrorDetails) -> str:
    """("sentences", 3) → sentences[3]; () → body."""
    path = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in detail["loc"])
    return path.removeprefix(".") or "body"


def _reason(detail: ErrorDetails) -> str:
    return "is required" if detail["type"] == "missing" else detail["msg"]
