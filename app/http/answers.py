"""What a handler gives back: a status, headers and bytes, made once and sent as they are."""

from __future__ import annotations

import json
from typing import NamedTuple

Headers = tuple[tuple[bytes, bytes], ...]

JSON = b"application/json"
REQUEST_ID = b"x-request-id"


class Answer(NamedTuple):
    status: int
    headers: Headers
    body: bytes

    @classmethod
    def of(cls, status: int, body: bytes, media_type: bytes = JSON, headers: Headers = ()) -> Answer:
        length = str(len(body)).encode()
        return cls(status, ((b"content-type", media_type), (b"content-length", length), *headers), body)

    def identified(self, request_id: str) -> Answer:
        return Answer(self.status, (*self.headers, (REQUEST_ID, request_id.encode())), self.body)


def to_json(document: object) -> bytes:
    """Compact, in UTF-8. Raises ValueError on a number that JSON does not have."""
    return json.dumps(document, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()
