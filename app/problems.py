"""Errors as clients see them: problem documents (RFC 9457).

Every document has `type`, `title`, `status`, `detail` and `request_id`; `errors` lists what is wrong with which field.
The type is about:blank, so the title is the status phrase of RFC 9110; the gateway's own errors look the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypedDict

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from app.answers import Answer, Headers, to_json
from app.schemas import TOO_LONG

MEDIA_TYPE = b"application/problem+json"
# Written out, because http.HTTPStatus renamed 413 and 422 between the versions of Python that we run on.
TITLES = {
    400: "Bad Request",
    404: "Not Found",
    405: "Method Not Allowed",
    413: "Content Too Large",
    415: "Unsupported Media Type",
    422: "Unprocessable Content",
    499: "Client Closed Request",  # as nginx calls it; nobody reads it, the metrics count it
    500: "Internal Server Error",
    503: "Service Unavailable",
}
MAX_ERRORS = 16  # a batch can have 256; nobody reads more than the first few

NOT_JSON = "The body is not JSON in UTF-8"
NOT_DECLARED = "Send the body as JSON, with the header Content-Type: application/json."
GONE = "The client closed the connection."
FAILED = "The request could not be answered. The log has the reason under this request_id."


class FieldError(TypedDict):
    field: str
    reason: str


class Problem(Exception):
    """An answer other than the wanted one. `status` must be a key of TITLES."""

    def __init__(
        self,
        status: int,
        detail: str,
        errors: Sequence[FieldError] = (),
        headers: Headers = (),
    ) -> None:
        super().__init__(f"{status}: {detail}")
        self.status = status
        self.detail = detail
        self.errors = errors
        self.headers = headers

    def answer(self, request_id: str, **members: str) -> Answer:
        """The document, with any further members."""
        document: dict[str, object] = {
            "type": "about:blank",
            "title": TITLES[self.status],
            "status": self.status,
            "detail": self.detail,
            "request_id": request_id,
            **members,
        }
        if self.errors:
            document["errors"] = self.errors
        return Answer.of(self.status, to_json(document), MEDIA_TYPE, self.headers)


def invalid(error: ValidationError) -> Problem:
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
