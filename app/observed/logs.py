"""Log lines as JSON, one object a line, on standard error: systemd hands them to the journal.

No line holds a client's text. An exception is told by its type and the lines of code that it came through, without its
message, which could quote the text.
"""

from __future__ import annotations

import json
import logging
import traceback
from datetime import UTC, datetime
from typing import Any

from app.settings import LogLevel


class JsonFormatter(logging.Formatter):
    """`extra={"fields": {...}}` adds members to the object."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info and record.exc_info[1]:
            error = record.exc_info[1]
            line["exception"] = type(error).__name__
            line["trace"] = [
                f"{frame.filename}:{frame.lineno} {frame.name}" for frame in traceback.extract_tb(error.__traceback__)
            ]
        return json.dumps(line, ensure_ascii=False, default=str)


def logging_config(level: LogLevel) -> dict[str, Any]:
    """For logging.config.dictConfig, and so for gunicorn's logconfig_dict."""
    ours = {"handlers": ["journal"], "level": level.upper(), "propagate": False}
    # gunicorn hands its handlers on to uvicorn. At info both tell every step of a start; ours tells it in one line.
    servers = {**ours, "level": "DEBUG" if level == "debug" else "WARNING"}
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"json": {"()": JsonFormatter}},
        "handlers": {"journal": {"class": "logging.StreamHandler", "stream": "ext://sys.stderr", "formatter": "json"}},
        "root": {"handlers": ["journal"], "level": "WARNING"},
        "loggers": {"vmlops": ours, "gunicorn.error": servers},
    }
