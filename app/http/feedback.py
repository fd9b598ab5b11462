"""POST /feedback: the right label of an earlier prediction, by its request id. See app/observed/feedback.py."""

from __future__ import annotations

import asyncio
import logging
import sqlite3

from app.engines.signature import text_of
from app.http.answers import Answer
from app.http.problems import FieldError, Problem
from app.observed.feedback import FLUSH_SECONDS, Feedback

BODY_BYTES = 1024
UNKNOWN = "There is no prediction of that request_id: only those of /predict are kept, for a limited time."
NOT_KEPT = "Labels cannot be kept now. The log has the reason."

_TAKEN = Answer.of(204, b"")
_log = logging.getLogger("vmlops.feedback")


async def take_label(feedback: Feedback, body: bytes) -> Answer:
    """Raises Problem: 400 or 422 for the body, 404 where no prediction has that id, 503 where it cannot be written."""
    from app.http.schemas import LabelledRequest  # imports pydantic: see sentences.py
    from app.http.validation import parse

    wanted = parse(LabelledRequest, body)
    label = text_of(wanted.label)
    if label not in feedback.names:
        reason = f"must be a label of the model: {', '.join(feedback.names)}"
        raise Problem(422, f"label: {reason}.", [FieldError(field="label", reason=reason)])
    try:
        found = await asyncio.to_thread(feedback.label, wanted.request_id, label)
        if found is None:  # perhaps not yet
            await asyncio.sleep(2 * FLUSH_SECONDS)
            found = await asyncio.to_thread(feedback.label, wanted.request_id, label)
    except sqlite3.Error as error:
        _log.warning("a label cannot be kept", extra={"fields": {"reason": str(error)}})
        raise Problem(503, NOT_KEPT) from None
    if found is None:
        raise Problem(404, UNKNOWN)
    feedback.count(found)
    return _TAKEN
