"""python -m batch as somebody types it: every row once, whatever happens on the way."""

from __future__ import annotations

import csv
import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from distributed import Client, KilledWorker

from app.engines.engine import Engine
from batch.run import Position, Run
from tests.paths import ROOT
from tests.unit.batch.conftest import TEXTS, Scorer, command, rows

ADDED = ["prediction", "confidence", "model_version"]
MEGABYTE = 1 << 20


def score(artifacts: Path, source: Path, output: Path, *options: str, **how: Any) -> subprocess.CompletedProcess[str]:
    made = command(artifacts, source, output, *options)
    done = subprocess.run(made, cwd=ROOT, capture_output=True, text=True, check=False, timeout=300, **how)
    print(done.returncode, done.stdout, done.stderr)
    return done


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A file of 20,000 rows."""
    path = tmp_path / "in.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["n", "text", "note"])
        writer.writerows([n, TEXTS[n % len(TEXTS)], 'a "note",\nof two lines' + "…" * 20] for n in range(20_000))
    return path


def test_every_kind_of_file_into_the_next(
    scorer: Scorer, artifacts: Path, engine: Engine, source: Path, tmp_path: Path
) -> None:
    expected = rows(source)
    for number, kind in enumerate(("jsonl", "parquet", "csv")):
        output = tmp_path / f"out{number}.{kind}"
        options = ["--probabilities"] if kind == "jsonl" else []
        assert scorer(command(artifacts, source, output, *options))[0] == 0
        found = rows(output)
        assert [{key: row[key] for key in ("n", "text", "note")} for row in found] == expected
        for row in found[:200]:
            alone = engine.score(row["text"])
            assert row["prediction"] == alone.label
            assert float(row["confidence"]) == pytest.approx(alone.confidence, abs=1e-9)
            assert row["model_version"] == engine.model_version
        if kind == "jsonl":
            assert [found[0][f"probability_{name}"] for name in engine.signature.labels] == pytest.approx(
                alone_of(engine, found[0])
            )
        # What was added would be there twice.
        source = tmp_path / f"in{number}.{kind}"
        strip(output, source)
    assert sorted(path.name for path in tmp_path.iterdir() if "out" in path.name) == [
        "out0.jsonl",
        "out1.parquet",
        "out2.csv",
    ]


def alone_of(engine: Engine, row: dict[str, Any]) -> list[float]:
    return engine.score(row["text"]).probabilities


def strip(output: Path, source: Path) -> None:
    if output.suffix == ".jsonl":
        kept = ({key: row[key] for key in ("n", "text", "note")} for row in rows(output))
        source.write_text("".join(f"{json.dumps(row)}\n" for row in kept))
    elif output.suffix == ".parquet":
        pq.write_table(pq.read_table(output).drop_columns(ADDED), source)


def killed_on_the_way(process: subprocess.Popen[bytes], journal: Path, rows_done: int) -> bool:
    """Kills the run and its workers once its journal says that so many rows are done; False where it was quicker."""
    while process.poll() is None:
        if journal.exists() and json.loads(journal.read_text())["rows"] > rows_done:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            return True
        time.sleep(0.005)
    return False


def test_killed_again_and_again_the_bytes_are_the_same(artifacts: Path, source: Path, tmp_path: Path) -> None:
    with source.open("ab") as file:
        file.write(b"bad row\n" * 100)
    whole = tmp_path / "whole.parquet"
    assert score(artifacts, source, whole).returncode == 0
    output = tmp_path / "out.parquet"
    # With many small pieces and a journal after each, so that a kill finds one.
    small = "batch.tables.PIECE_BYTES = 1 << 15; batch.run.JOURNAL_SECONDS = 0"
    often = f"import batch.run, batch.tables, batch.__main__; {small}; batch.__main__.main()"
    eager = [sys.executable, "-c", often, *command(artifacts, source, output)[3:]]
    kills = 0
    done = 0
    for _ in range(3):
        process = subprocess.Popen(eager, cwd=ROOT, start_new_session=True, stderr=subprocess.DEVNULL)
        if not killed_on_the_way(process, tmp_path / "out.parquet.journal", done):
            break
        kills += 1
        done = json.loads((tmp_path / "out.parquet.journal").read_text())["rows"]
        assert not output.exists(), "the output must not have its name before it is whole"
    final = score(artifacts, source, output) if not output.exists() else None
    print(kills, done, final)
    assert kills >= 2
    assert output.read_bytes() == whole.read_bytes()
    assert (tmp_path / "out.parquet.errors.jsonl").read_bytes() == (
        tmp_path / "whole.parquet.errors.jsonl"
    ).read_bytes()


def test_a_worker_that_is_killed_is_replaced_and_the_bytes_are_the_same(
    scorer: Scorer, client: Client, monkeypatch: pytest.MonkeyPatch, artifacts: Path, source: Path, tmp_path: Path
) -> None:
    monkeypatch.setattr("batch.tables.PIECE_BYTES", 1 << 16)
    whole, output = tmp_path / "whole.csv", tmp_path / "out.csv"
    assert scorer(command(artifacts, source, whole))[0] == 0
    killed: list[int] = []

    class Killing:
        """A report of progress that kills the worker once, in the middle."""

        def __init__(self, *_: Any) -> None:
            pass

        def __call__(self, position: Position) -> None:
            if not killed and position.rows > 5000:
                killed.extend(client.run(os.getpid).values())
                os.kill(killed[0], signal.SIGKILL)

        def end(self) -> None:
            pass

    monkeypatch.setattr("batch.__main__.Progress", Killing)
    status, _, complaint = scorer(command(artifacts, source, output))
    assert status == 0, complaint
    assert list(client.run(os.getpid).values()) != killed
    assert len(killed) == 1
    assert output.read_bytes() == whole.read_bytes()


def test_workers_that_die_of_every_piece_end_the_run_in_a_line(
    scorer: Scorer, monkeypatch: pytest.MonkeyPatch, artifacts: Path, source: Path, tmp_path: Path
) -> None:
    worker: Any = None

    def die(*_: Any) -> None:
        raise KilledWorker("score", worker, 3)

    monkeypatch.setattr(Run, "score", die)
    status, _, complaint = scorer(command(artifacts, source, tmp_path / "out.csv"))
    assert status == 1
    assert complaint.startswith("vmlops: the workers died again and again after row 0")
    assert complaint.count("\n") == 1


def test_bad_rows_are_kept_with_number_and_reason(scorer: Scorer, artifacts: Path, tmp_path: Path) -> None:
    source, output = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    bad = ['{"text": 3}', '{"txt": "glad"}', "{", '{"text": "  "}', '{"text": "glad", "note": "\\ud800"}']
    source.write_text("\n".join(['{"text": "glad party"}', *bad, '{"text": "rain loss"}']))
    assert scorer(command(artifacts, source, output, "--max-errors", "4"))[0] == 1
    assert not output.exists()
    status, said, _ = scorer(command(artifacts, source, output, "--max-errors", "5"))
    assert status == 0
    assert "5 bad" in said
    assert [row["prediction"] for row in rows(output)] == ["joy", "grief"]
    errors = rows(tmp_path / "out.jsonl.errors.jsonl")
    assert [entry["row"] for entry in errors] == [2, 3, 4, 5, 6]
    for entry, reason in zip(
        errors, ("no text but int", "has no 'text'", "not JSON", "empty", "cannot be written"), strict=True
    ):
        assert reason in entry["reason"]


def test_a_file_larger_than_the_memory(artifacts: Path, tmp_path: Path) -> None:
    """Each process may have 330 MB of data, of which Python and its libraries take 200; the file has more."""
    source, output = tmp_path / "in.csv", tmp_path / "out.csv"
    note = "n" * (MEGABYTE // 8)
    with source.open("w") as file:
        file.write("text,note\n")
        file.writelines(f'"{TEXTS[n % len(TEXTS)]}",{note}\n' for n in range(2700))
    assert source.stat().st_size > 330 * MEGABYTE

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_DATA, (330 * MEGABYTE, 330 * MEGABYTE))

    assert score(artifacts, source, output, preexec_fn=limit).returncode == 0
    csv.field_size_limit(MEGABYTE)
    with output.open(newline="") as file:
        assert sum(1 for _ in csv.reader(file)) == 2701


@pytest.fixture
def refusals(artifacts: Path, source: Path, tmp_path: Path) -> dict[str, tuple[list[str], str]]:
    (tmp_path / "there.csv").touch()
    (tmp_path / "taken.csv").write_text("text,prediction\n")
    (tmp_path / "two.csv").write_text("text,content\n")

    def to(output: str, *options: str, of: Path = source) -> list[str]:
        return command(artifacts, of, tmp_path / output, *options)

    return {
        "output exists": (to("there.csv"), "is there already"),
        "unknown kind": (to("out.xlsx"), "must end in one of .csv"),
        "no such column": (to("out.csv", "--text", "txt"), "has no column 'txt'; name one of n, text, note"),
        "two columns of text": (to("out.csv", of=tmp_path / "two.csv"), "more than one column of text"),
        "a column is taken": (to("out.csv", of=tmp_path / "taken.csv"), "a column 'prediction' of its own"),
        "no model": (command(tmp_path / "nowhere", source, tmp_path / "out.csv"), "manifest.json: is missing"),
    }


def test_what_cannot_be_done_is_said_in_a_line(
    scorer: Scorer, refusals: dict[str, tuple[list[str], str]], tmp_path: Path
) -> None:
    for case, (made, message) in refusals.items():
        status, said, complaint = scorer(made)
        assert (status, said) == (1, ""), (case, complaint)
        assert message in complaint, case
        assert complaint.count("\n") == 1, case
    assert not (tmp_path / "out.csv.partial").exists()


def test_another_input_does_not_go_on_where_the_old_one_was(
    scorer: Scorer, artifacts: Path, source: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out.csv"
    source.write_text(source.read_text() + "bad\n")
    assert scorer(command(artifacts, source, output, "--max-errors", "0"))[0] == 1
    source.write_text(source.read_text() + "1,glad,\n")
    status, _, complaint = scorer(command(artifacts, source, output))
    assert status == 1
    assert "the input has changed since the interrupted run" in complaint
