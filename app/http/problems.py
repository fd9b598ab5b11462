"""Errors as clients see them: problem documents (RFC 9457).

Every document has `type`, `title`, `status`, `detail` and `request_id`; `errors` lists what is wrong with which field.
The type is about:blank, so the title is the status phrase of RFC 9110; the gateway's own errors look the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypedDict

from app.http.answers import Answer, Headers, to_json

MEDIA_TYPE = b"application/problem+json"
# Written out, because http.HTTPStatus renamed 413 and 422 between the versions of Python that we run on.
TITLES = {
    400: "Bad Request",
    401: "Unauthorized",
    404: "Not Found",
    405: "Method Not Allowed",
    413: "Content Too Large",
    415: "Unsupported Media Type",
    422: "Unprocessable Content",
    429: "Too Many Requests",
    499: "Client Closed Request",  # as nginx calls it; nobody reads it, the metrics count it
    500: "Internal Server Error",
    503: "Service Unavailable",
}

NOT_DECLARED = "Send the body as JSON, with the header Content-Type: application/json."
ENCODED = "Send the body as it is, without Content-Encoding."
GONE = "The client closed the connection."
FAILED = "The request could not be answered. The log has the reason under this request_id."


class FieldError(TypedDict):
    field: str
    reason: str


class Problem(Exception):
    """An error that is answered with a problem document. `status` must be a key of TITLES."""

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
