"""Our application as it is, or, with UNCOUNTED=1, without what it counts for /metrics: what parts.py compares."""

from __future__ import annotations

import os

from app.observed import metrics

if os.environ["UNCOUNTED"] == "1":

    class Nothing(metrics.Metrics):
        def answered(self, route: str, status: int, seconds: float) -> None:
            pass

        def _usual(self, text: object, score: object) -> None:
            pass

    metrics.Metrics = Nothing  # type: ignore[misc]

from app.main import app as app
