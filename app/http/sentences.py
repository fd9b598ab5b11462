"""What a sentence may be, and the short way from a body to one.

Nearly every body is an object with one member, a well-formed sentence. It is recognised here, without pydantic, whose
import would cost every replica memory and time at its start (docs/own-code.md); validation.py says what every other
body is, good or bad.
"""

from __future__ import annotations

import json

SENTENCE_BYTES = 8192  # in UTF-8
BATCH_SENTENCES = 256
# JSON may spell a byte of text as six (\u0001): the longest sentence in its longest spelling, and room for the rest.
PREDICT_BODY_BYTES = 64 * 1024
# 256 of the longest sentences in UTF-8 are 2 MiB; as \uXXXX escapes, which many clients send, at most 6 MiB.
BATCH_BODY_BYTES = 8 * 1024 * 1024

TOO_LONG = "sentence_too_long"
BLANK = "sentence_blank"
FLAWS = {
    TOO_LONG: f"must not be longer than {SENTENCE_BYTES} bytes in UTF-8",
    BLANK: "must have something other than white space",
}

# Objects as lists of pairs, so that a member that is there twice is seen.
_decode = json.JSONDecoder(object_pairs_hook=list).decode


def flaw(text: str) -> str | None:
    """A key of FLAWS, or None. Raises UnicodeEncodeError where a long text is none that UTF-8 can spell."""
    # UTF-8 takes at most four bytes a character: most sentences need not be encoded to be measured.
    if len(text) > SENTENCE_BYTES // 4 and len(text.encode()) > SENTENCE_BYTES:
        return TOO_LONG
    return BLANK if not text or text.isspace() else None


def sentence_of(body: bytes) -> str | None:
    """The sentence of a usual body, which pydantic would take as well; None where pydantic is to be asked."""
    try:
        members = _decode(body.decode())
        if type(members) is not list or len(members) != 1 or type(members[0]) is not tuple:
            return None
        name, text = members[0]
        if name != "sentence" or type(text) is not str:
            return None
        if not text.isascii():
            text.encode()  # JSON can spell half of a surrogate pair
        return None if flaw(text) else text
    except (ValueError, RecursionError):
        return None
