"""From an input file to an output file through a Dask cluster: in order, in constant memory, and resumable.

While it runs, the output is OUTPUT.partial, to which pieces are added in the order of the input, and OUTPUT.journal says up to
where both were on the disk. A run that finds a journal goes on from there, so the bytes are those of a run without interruption.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from distributed import Client

from batch.scoring import Model, Scored, Task
from batch.tables import ArrowEncoder, Source, TableError, make_parquet, sync

JOURNAL_SECONDS = 2.0
_ENDS = 1 << 20  # bytes at each end of the input by which it is known again


WORKER_SECONDS = 30.0


class NoWorkers(Exception):
    """All workers have gone."""


class TooManyErrors(Exception):
    """More bad rows than the run may have. What is done is kept."""


@dataclass
class Position:
    """How far a run has come. The first two are what it is a run of."""

    input: str
    task: str
    read: int = 0  # in the unit of Source.size
    written: int = 0  # bytes of OUTPUT.partial
    errors: int = 0  # bytes of OUTPUT.errors.jsonl
    rows: int = 0
    bad: int = 0


def fingerprint(path: Path) -> str:
    """Return a hash of a file's size and its two ends, which shows without reading it all whether it is another file."""
    size = path.stat().st_size
    digest = hashlib.sha256(str(size).encode())
    with path.open("rb") as file:
        digest.update(file.read(_ENDS))
        file.seek(max(0, size - _ENDS))
        digest.update(file.read(_ENDS))
    return digest.hexdigest()


class Run:
    """One output, from nothing or from where an interrupted run stopped.

    Raises TableError where the output is there already, or belongs to a run of something else.
    """

    def __init__(self, source: Source, path: Path, output: Path, task: Task, about: str) -> None:
        self._source, self._output, self._task = source, output, task
        self._partial = output.with_name(f"{output.name}.partial")
        self._journal = output.with_name(f"{output.name}.journal")
        self.errors = output.with_name(f"{output.name}.errors.jsonl")
        self.position = Position(fingerprint(path), about)
        if output.exists():
            raise TableError(f"{output}: is there already; remove it, or give another name")
        if self._journal.exists():
            found = Position(**json.loads(self._journal.read_text()))
            if (found.input, found.task) != (self.position.input, self.position.task):
                other = "input has" if found.input != self.position.input else "model or the options have"
                raise TableError(
                    f"{self._journal}: the {other} changed since the interrupted run; remove it and {self._partial.name} "
                    "to start from the beginning"
                )
            self.position = found
        self.resumed_at = self.position.rows

    def score(
        self,
        client: Client,
        model: Model,
        most_errors: int | None = None,
        report: Callable[[Position], None] = lambda _: None,
    ) -> Position:
        """Work until the output is whole; called again after an exception, go on from where it was.

        Raises TooManyErrors, and what Dask raises when it cannot go on.
        """
        with self._opened() as (out, errors):
            if not self.position.written:
                out.write(self._task.encoder.header())
                self.position.written = out.tell()
            saved = time.monotonic()
            for end, scored in self._in_order(client, model):
                for bad in scored.bad:
                    entry = {"row": self.position.rows + bad.row + 1, "reason": bad.reason, "record": bad.record}
                    errors.write(json.dumps(entry, ensure_ascii=False).encode("utf-8", "replace") + b"\n")
                out.write(scored.data)
                self.position.read = end
                self.position.rows += scored.records
                self.position.bad += len(scored.bad)
                self.position.written, self.position.errors = out.tell(), errors.tell()
                report(self.position)
                if time.monotonic() - saved > JOURNAL_SECONDS:
                    self._save(out, errors)
                    saved = time.monotonic()
                if most_errors is not None and self.position.bad > most_errors:
                    self._save(out, errors)
                    raise TooManyErrors(f"{self.position.bad} bad rows, {most_errors} are allowed")
            self._save(out, errors)
        self._finish()
        return self.position

    def _in_order(self, client: Client, model: Model) -> Iterator[tuple[int, Scored]]:
        """Results in the order of the input. As many pieces are under way as keep every worker busy, and no more."""
        pieces = self._source.pieces(self.position.read)
        # The model is the result of a task, so that Dask brings it to every worker and makes it anew where it was lost.
        there = client.submit(Model, *model, pure=False)
        waiting: deque[tuple[int, Any]] = deque()
        while True:
            window = 2 * _cores(client) + 2
            while len(waiting) < window and (piece := next(pieces, None)):
                waiting.append((piece.end, client.submit(self._task.score, piece, there, pure=False)))
            if not waiting:
                return
            end, future = waiting.popleft()
            yield end, _awaited(client, future)

    @contextmanager
    def _opened(self) -> Iterator[tuple[Any, Any]]:
        """The partial output and the errors, cut to what the journal vouches for, for this process alone."""
        self._output.parent.mkdir(parents=True, exist_ok=True)
        with self._partial.open("ab") as out, self.errors.open("ab") as errors:
            try:
                fcntl.flock(out, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise TableError(f"{self._partial}: another run is writing it; wait for it, or end it") from None
            for file, length in ((out, self.position.written), (errors, self.position.errors)):
                if file.tell() < length:
                    raise TableError(
                        f"{file.name}: is shorter than the journal says; remove it and {self._journal.name}"
                    )
                file.truncate(length)
                file.seek(length)
            yield out, errors

    def _save(self, out: Any, errors: Any) -> None:
        for file in (out, errors):
            file.flush()
            os.fsync(file.fileno())
        new = self._journal.with_name(f"{self._journal.name}.new")
        new.write_text(json.dumps(asdict(self.position)))
        sync(new)
        new.replace(self._journal)
        sync(self._journal.parent)

    def _finish(self) -> None:
        whole = self._partial
        if isinstance(self._task.encoder, ArrowEncoder):
            whole = self._partial.with_name(f"{self._partial.name}.parquet")
            make_parquet(self._partial, whole)
            sync(whole)
        whole.rename(self._output)
        sync(self._output.parent)
        self._partial.unlink(missing_ok=True)
        self._journal.unlink()
        if not self.position.bad:
            self.errors.unlink()


def _awaited(client: Client, future: Any) -> Scored:
    """Return the result. Raises NoWorkers where none has been there for a while, since Dask would wait for ever."""
    while True:
        try:
            scored: Scored = future.result(timeout=WORKER_SECONDS)
            return scored
        except TimeoutError:
            if not _cores(client):
                raise NoWorkers from None


def _cores(client: Client) -> int:
    """The workers' cores together. Raises NoWorkers where the scheduler does not answer."""
    try:
        return sum(client.nthreads().values())
    except (OSError, ValueError) as error:  # ValueError as batch.cluster has it
        raise NoWorkers from error
