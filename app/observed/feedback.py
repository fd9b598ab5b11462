"""Predictions that wait for their labels, in one SQLite database that all replicas of a machine share.

A prediction is written by a thread, up to FLUSH_SECONDS after it was answered, so it costs its client nothing and a slow or
full disk holds up nobody: what cannot be written is counted and forgotten. A label is written before it is acknowledged.
"""

from __future__ import annotations

import json
import logging
import os
import random
import sqlite3
import threading
import time
from collections import Counter, deque
from collections.abc import Iterable
from contextlib import closing
from typing import Any, NamedTuple

from app.engines.engine import Score
from app.engines.signature import Input, Scalar, Signature, text_of
from app.settings import FeedbackSettings

FLUSH_SECONDS = 0.2
BUSY_SECONDS = 1.0  # that one replica waits for another's transaction
MOST_WAITING = 10_000  # predictions in memory
PAGE_BYTES = 4096
HOUR, DAY = 3600.0, 86400.0
# `vmlops-api` reads and erases these rows, too. `made` and `labelled` are seconds since the epoch; `input` is JSON.
_SCHEMA = """
CREATE TABLE IF NOT EXISTS predictions (
    request_id TEXT NOT NULL, version TEXT NOT NULL, model_version TEXT NOT NULL, made REAL NOT NULL,
    predicted TEXT NOT NULL, confidence REAL, input TEXT, label TEXT, labelled REAL,
    PRIMARY KEY (request_id, version)
);
CREATE INDEX IF NOT EXISTS predictions_made ON predictions (made);
"""
_INSERT = """INSERT OR REPLACE INTO predictions (request_id, version, model_version, made, predicted, confidence, input)
VALUES (?, ?, ?, ?, ?, ?, ?)"""
_DELETE_OLDEST = """DELETE FROM predictions WHERE made <=
(SELECT made FROM predictions ORDER BY made LIMIT 1 OFFSET (SELECT count(*) / 10 FROM predictions))"""

_log = logging.getLogger("vmlops.feedback")

Waiting = tuple[str, float, Scalar, float | None, Input]  # request id, when, label, confidence, what came in or None


class Labelled(NamedTuple):
    """A prediction that got its first label."""

    version: str
    model_version: str
    right: bool


class Feedback:
    """One replica's side of the database."""

    def __init__(self, settings: FeedbackSettings, version: str, model_version: str, signature: Signature) -> None:
        self.settings = settings
        self.names = tuple(map(text_of, signature.labels))
        # Beginning with 0, so that Prometheus sees the first.
        self.counts: Counter[Labelled] = Counter(
            {Labelled(version, model_version, right): 0 for right in (True, False)}
        )
        self.dropped = 0  # predictions that could not be kept
        self._origin = (version, model_version)
        self._columns = ["sentence"] if signature.takes_text else [column.name for column in signature.columns]
        self._probabilities = signature.probabilities
        self._share = settings.capture_percent / 100
        self._most_pages = settings.megabytes * 1_000_000 // PAGE_BYTES
        self._waiting: deque[Waiting] = deque()
        self._over = threading.Event()
        self._thread: threading.Thread | None = None

    def record(self, request_id: str, x: Input, score: Score) -> None:
        """Keep a prediction for its label; the input as well, of the share that is captured."""
        if len(self._waiting) >= MOST_WAITING:
            self.dropped += 1
            return
        captured = x if random.random() < self._share else None  # noqa: S311 — a sample
        confidence = score.confidence if self._probabilities else None
        self._waiting.append((request_id, time.time(), score.label, confidence, captured))

    def label(self, request_id: str, label: str) -> list[Labelled] | None:
        """Write a label, over an earlier one if there is one. Returns the predictions of that id, one of each version that
        made one, that had no label before; None where no prediction is known. Raises sqlite3.Error.
        """
        with closing(self.connect()) as database, database:
            database.execute("BEGIN IMMEDIATE")
            rows = database.execute(
                "SELECT version, model_version, predicted, label FROM predictions WHERE request_id = ?", (request_id,)
            ).fetchall()
            database.execute(
                "UPDATE predictions SET label = ?, labelled = ? WHERE request_id = ?", (label, time.time(), request_id)
            )
        if not rows:
            return None
        return [Labelled(version, model, predicted == label) for version, model, predicted, old in rows if old is None]

    def count(self, labelled: Iterable[Labelled]) -> None:
        for one in labelled:
            # The other answer begins with 0, for Prometheus to see its first one.
            self.counts.setdefault(one._replace(right=not one.right), 0)
            self.counts[one] += 1

    def start(self) -> None:
        self._thread = threading.Thread(target=self._run, name="feedback", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Write what waits, and end."""
        self._over.set()
        if self._thread:
            self._thread.join()

    def connect(self) -> sqlite3.Connection:
        """Open the database, made if need be. Raises sqlite3.Error."""
        try:
            file = os.open(self.settings.path, os.O_RDWR | os.O_CREAT, 0o660)
        except OSError as error:
            raise sqlite3.OperationalError(str(error)) from None
        try:
            # Every replica has an account of its own, and all have one group. SQLite gives its other files the same mode.
            if os.fstat(file).st_uid == os.geteuid():
                os.fchmod(file, 0o660)
        finally:
            os.close(file)
        database = sqlite3.connect(self.settings.path, timeout=BUSY_SECONDS, isolation_level=None)
        try:
            database.execute("PRAGMA journal_mode = WAL")
            database.execute("PRAGMA synchronous = NORMAL")
            database.execute("PRAGMA secure_delete = ON")  # what is erased is overwritten
            database.execute(f"PRAGMA max_page_count = {self._most_pages}")
            database.executescript(_SCHEMA)
        except sqlite3.Error:
            database.close()
            raise
        return database

    def flush(self) -> None:
        """Write the predictions that wait; those that cannot be written are dropped."""
        rows = [self._waiting.popleft() for _ in range(len(self._waiting))]
        if not rows:
            return
        try:
            with closing(self.connect()) as database:
                made = list(map(self._row, rows))
                while not self._insert(database, made):
                    if not database.execute(_DELETE_OLDEST).rowcount:
                        raise sqlite3.DataError("they do not fit into the database")
        except sqlite3.Error as error:
            # Another replica held the database for longer than BUSY_SECONDS: the next flush has them.
            if getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_BUSY:
                self._waiting.extendleft(reversed(rows))
                return
            if not self.dropped:
                _log.warning("predictions cannot be kept for their labels", extra={"fields": {"reason": str(error)}})
            self.dropped += len(rows)

    def expire(self) -> None:
        """Delete what is older than the settings say. Raises sqlite3.Error."""
        now = time.time()
        with closing(self.connect()) as database:
            database.execute("DELETE FROM predictions WHERE made < ?", (now - self.settings.days * DAY,))
            database.execute(
                "UPDATE predictions SET input = NULL WHERE made < ? AND input IS NOT NULL",
                (now - self.settings.capture_days * DAY,),
            )
            database.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def _insert(self, database: sqlite3.Connection, rows: list[tuple[Any, ...]]) -> bool:
        """Return False where the database is as large as it may get. Raises sqlite3.Error, also where the disk is full."""
        try:
            with database:
                database.execute("BEGIN IMMEDIATE")
                database.executemany(_INSERT, rows)
        except sqlite3.OperationalError as error:
            pages, free = (database.execute(f"PRAGMA {of}").fetchone()[0] for of in ("page_count", "freelist_count"))
            wanted = sum(512 + 2 * len(row[-1] or "") for row in rows)
            # Where it has room, the disk has none, and to delete something would not help.
            if error.sqlite_errorcode != sqlite3.SQLITE_FULL or pages - free + wanted // PAGE_BYTES < self._most_pages:
                raise
            return False
        return True

    def _row(self, waiting: Waiting) -> tuple[Any, ...]:
        request_id, made, label, confidence, x = waiting
        return (request_id, *self._origin, made, text_of(label), confidence, None if x is None else self._document(x))

    def _document(self, x: Input) -> str:
        values = [x] if isinstance(x, str) else x
        return json.dumps(dict(zip(self._columns, values, strict=True)), ensure_ascii=False)

    def _run(self) -> None:
        expired = -HOUR
        while not self._over.wait(FLUSH_SECONDS):
            self.flush()
            if time.monotonic() - expired > HOUR:
                expired = time.monotonic()
                try:
                    self.expire()
                except sqlite3.Error as error:
                    _log.warning("old predictions cannot be deleted", extra={"fields": {"reason": str(error)}})
        self.flush()
