"""python -m batch --input FILE --output FILE: scores every row of a file."""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dask import config
from distributed import Client, KilledWorker, LocalCluster
from distributed.security import Security

from app.engines.artifact import ArtifactError
from app.engines.engine import Engine
from app.engines.loading import load_engine
from app.engines.signature import Signature
from batch import cluster
from batch.code import OtherCode, kind
from batch.inputs import Columns, Inputs, Text
from batch.run import NoWorkers, Position, Run, TooManyErrors
from batch.scoring import Model, Task, added_columns
from batch.tables import Source, TableError, encoder, open_source
from model.manifest import ROOT

LOST_SECONDS = 300.0  # in which a cluster must be back
TEXT_COLUMNS = ("sentence", "content", "text")


def inputs(source: Source, signature: Signature, named: str | None, path: Path) -> Inputs:
    """Raises TableError where columns are missing, or more than one could be the text."""
    if signature.takes_text:
        return Text(text_column(source, named, path))
    if named:
        raise TableError(f"the model {signature.model} takes columns, not a text: leave TEXT away")
    if missing := [column.name for column in signature.columns if column.name not in source.columns]:
        raise TableError(
            f"{path}: has no column {missing[0]!r}, which the model {signature.model} takes; add it, empty where it is missing"
        )
    return Columns(signature)


def text_column(source: Source, named: str | None, path: Path) -> str:
    """Raises TableError where there is none, or more than one that it could be."""
    found = [named] if named else [name for name in TEXT_COLUMNS if name in source.columns]
    if len(found) == 1 and found[0] in source.columns:
        return found[0]
    if named:
        wrong = f"has no column {named!r}"
    else:
        wrong = "has more than one column of text" if found else "has no column that is known for text"
    raise TableError(f"{path}: {wrong}; name one of {', '.join(source.columns)}: TEXT=…")


class Progress:
    """Rows, rows a second and the time left, on stderr."""

    def __init__(self, source: Source, position: Position) -> None:
        self._size, self._rows, self._read = source.size, position.rows, position.read
        self._begin = self._said = time.monotonic()
        self._live = sys.stderr.isatty()

    def __call__(self, position: Position) -> None:
        now = time.monotonic()
        if now - self._said < (0.5 if self._live else 10):
            return
        self._said = now
        seconds = now - self._begin
        left = seconds * (self._size - position.read) / max(position.read - self._read, 1)
        rate = (position.rows - self._rows) / seconds
        text = f"{position.rows:,} rows, {rate:,.0f} rows/s, {_duration(left)} left, {position.bad:,} bad"
        print(f"\r\033[K{text}" if self._live else text, end="" if self._live else "\n", file=sys.stderr, flush=True)

    def end(self) -> None:
        if self._live:
            print("\r\033[K", end="", file=sys.stderr, flush=True)


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {seconds} s" if minutes else f"{seconds} s"


@contextmanager
def on_this_machine(workers: int | None) -> Iterator[Client]:
    """A worker for each core, gone afterwards. Encrypted, since other accounts of this machine reach loopback as well."""
    config.set({"distributed.worker.daemon": True})
    with (
        tempfile.TemporaryDirectory(prefix="vmlops-") as scratch,
        LocalCluster(
            n_workers=workers,
            threads_per_worker=1,
            dashboard_address=None,
            local_directory=scratch,
            security=Security.temporary(),
            silence_logs="ERROR",
        ) as cluster,
        Client(cluster) as client,
    ):
        yield client


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m batch", description="Score every row of a CSV, JSON lines or Parquet file."
    )
    parser.add_argument("--input", type=Path, required=True, help="file.csv, .jsonl or .parquet")
    parser.add_argument(
        "--output", type=Path, required=True, help="file of the same or another of these kinds; must not exist"
    )
    parser.add_argument(
        "--model", type=Path, default=ROOT / "model" / "artifacts", help="directory (default: model/artifacts)"
    )
    parser.add_argument("--text", metavar="COLUMN", help=f"the column of the text (default: {', '.join(TEXT_COLUMNS)})")
    parser.add_argument("--probabilities", action="store_true", help="add the probability of every label")
    parser.add_argument("--max-errors", type=int, metavar="N", help="stop when more rows than that are bad")
    parser.add_argument("--workers", type=int, metavar="N", help="processes here (default: one for each core)")
    parser.add_argument(
        "--on", choices=["cluster"], help="score on the workers of the environment that ENVIRONMENT names, not here"
    )
    return parser.parse_args()


def prepare(options: argparse.Namespace, engine: Engine) -> tuple[Source, Run]:
    """Everything that can be wrong before any work is done. Raises TableError."""
    signature = engine.signature
    if options.probabilities and not signature.probabilities:
        raise TableError(f"the model {signature.model} gives no probabilities: leave PROBABILITIES away")
    source = open_source(options.input)
    read = inputs(source, signature, options.text, options.input)
    added = added_columns(signature, options.probabilities)
    task = Task(source.decoder(), encoder(options.output, source, added), read, options.probabilities, kind())
    taken = read.column if isinstance(read, Text) else "columns"
    about = f"{engine.model_version} {taken} {sorted(added)}"
    return source, Run(source, options.input, options.output, task, about)


def scored(options: argparse.Namespace, run: Run, model: Model, progress: Progress) -> Position:
    """Score on the workers that are asked for. A cluster that is lost in the middle is looked for anew, for a while."""

    if not options.on:
        with on_this_machine(options.workers) as client:
            return run.score(client, model, options.max_errors, progress)
    patience = 0.0
    while True:
        try:
            with cluster.client(patience) as client:
                return run.score(client, model, options.max_errors, progress)
        except (*cluster.LOST, NoWorkers):
            progress.end()
            print(f"The workers were lost after row {run.position.rows:,}; looking for them again.", file=sys.stderr)
        except cluster.ClusterError as error:
            if run.position.rows == run.resumed_at:
                raise
            raise cluster.ClusterError(f"{error}; the same command goes on after row {run.position.rows:,}") from None
        patience = LOST_SECONDS


def main() -> int:
    options = arguments()
    try:
        engine = load_engine(options.model)
        source, run = prepare(options, engine)
        if run.resumed_at:
            print(f"Going on after row {run.resumed_at:,} of an interrupted run.", file=sys.stderr)
        progress = Progress(source, run.position)
        begin = time.monotonic()
        try:
            position = scored(options, run, Model.read(options.model), progress)
        finally:
            progress.end()
    except (ArtifactError, TableError, cluster.ClusterError, OtherCode) as error:
        print(f"vmlops: {error}", file=sys.stderr)
        return 1
    except TooManyErrors as error:
        print(
            f"vmlops: {error}: see {run.errors}; the same command with more allowed (MAX_ERRORS) goes on from here",
            file=sys.stderr,
        )
        return 1
    except KilledWorker:
        wrong = f"the workers died again and again after row {run.position.rows:,}, perhaps for want of memory"
        print(f"vmlops: {wrong}; the same command goes on from here", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("vmlops: interrupted; the same command goes on from here", file=sys.stderr)
        return 130
    rows, seconds = position.rows - run.resumed_at, time.monotonic() - begin
    bad = f", {position.bad:,} bad ones in {run.errors}" if position.bad else ""
    print(f"{options.output}: {position.rows:,} rows{bad}; {rows / seconds:,.0f} rows/s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
