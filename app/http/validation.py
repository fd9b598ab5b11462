"""Bodies as schemas.py wants them, and pydantic's errors as problem documents."""

from __future__ import annotations

from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from app.engines.signature import Row, Signature
from app.http.problems import FieldError, Problem
from app.http.schemas import Sentence, Sentences, forms_of, row_of
from app.http.sentences import TOO_LONG

MAX_ERRORS = 16  # a batch can have 256; nobody reads more than the first few

LONGEST_NAME = 100  # of a field, in an error

NOT_JSON = "The body is not JSON in UTF-8"


Document = TypeVar("Document", bound=BaseModel)


def sentence(body: bytes) -> str:
    """Raises Problem: 400, 413 or 422."""
    return parse(Sentence, body).sentence


def sentences(body: bytes) -> list[str]:
    """Raises Problem: 400, 413 or 422."""
    return parse(Sentences, body).sentences


class Rows:
    """Bodies of a model that takes tables, as rows in the order of its columns."""

    def __init__(self, signature: Signature) -> None:
        forms = forms_of(signature)
        self._one, self._many = forms.one, forms.many
        self._columns = ", ".join(column.name for column in signature.columns)

    def one(self, body: bytes) -> Row:
        """Raises Problem: 400, 413 or 422."""
        return row_of(parse(self._one, body, self._columns))

    def many(self, body: bytes) -> list[Row]:
        """Raises Problem: 400, 413 or 422."""
        rows: Any = parse(self._many, body, self._columns)
        return [row_of(row) for row in rows.root]


def parse(model: type[Document], body: bytes, columns: str = "") -> Document:
    """The document that the body is; `columns` are those that it may have. Raises Problem: 400, 413 or 422."""
    try:
        return model.model_validate_json(body)
    except ValidationError as error:
        raise _invalid(error, columns) from None


def _invalid(error: ValidationError, columns: str) -> Problem:
    """400 for what is not JSON, 413 for a text that is too long, 422 for the rest. Repeats no input."""
    details = error.errors(include_url=False, include_input=False, include_context=False)
    first = details[0]
    if first["type"] == "json_invalid":
        return Problem(400, f"{NOT_JSON}: {first['msg'].removeprefix('Invalid JSON: ')}.")
    errors = [FieldError(field=_field(detail), reason=_reason(detail, columns)) for detail in details[:MAX_ERRORS]]
    summary = f"{errors[0]['field']}: {errors[0]['reason']}."
    if any(detail["type"] == TOO_LONG for detail in details):
        return Problem(413, summary, errors)
    return Problem(422, summary, errors)


def _field(detail: ErrorDetails) -> str:
    """("sentences", 3) → sentences[3]; () → body. Of a column that the model does not have, no more than a line."""
    path = "".join(f"[{step}]" if isinstance(step, int) else f".{step[:LONGEST_NAME]}" for step in detail["loc"])
    return path.removeprefix(".") or "body"


def _reason(detail: ErrorDetails, columns: str) -> str:
    if detail["type"] == "extra_forbidden":
        return f"is no column of this model; its columns are {columns}"
    return "is required" if detail["type"] == "missing" else detail["msg"]
