"""Files of rows for models of tables."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from sklearn.linear_model import BayesianRidge, PoissonRegressor

from app.engines.engine import Engine
from tests.unit.batch.conftest import Scorer, command, rows
from tests.unit.model.test_tables import brought, passengers, survival

GOOD: list[dict[str, Any]] = [
    {"class": 1, "sex": "female", "age": 30.5, "alone": True},
    {"class": 3, "sex": "male", "age": None, "alone": False},
    {"class": 2.0, "sex": "female", "age": 41, "alone": False},
]
BAD: list[tuple[dict[str, Any], str]] = [
    ({"class": 1.5}, "'class': Input should be 1, 2 or 3"),
    ({"class": None}, "'class' is missing"),
    ({"sex": "robot"}, "'sex': Input should be 'female' or 'male'"),
    ({"age": "old"}, "'age': Input should be a valid number"),
    ({"age": 1e300}, "'age': Input should be less than"),
    ({"alone": "perhaps"}, "'alone': Input should be a valid boolean"),
]


@pytest.fixture(scope="module")
def titanic(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Engine]:
    directory = tmp_path_factory.mktemp("titanic")
    frame, survived = passengers()
    return directory / "artifacts", brought(survival(), frame, survived, directory)


@pytest.fixture(scope="module")
def line(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Engine]:
    """A model of numbers with a spread."""
    directory = tmp_path_factory.mktemp("line")
    x = np.random.default_rng(0).normal(size=(60, 2))
    frame = pd.DataFrame(x, columns=["left", "right"])
    return directory / "artifacts", brought(BayesianRidge(), frame, x[:, 0] - 2 * x[:, 1], directory)


def written(path: Path, records: list[dict[str, Any]]) -> Path:
    if path.suffix == ".csv":
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, ["note", *GOOD[0]])
            writer.writeheader()
            writer.writerows(records)
    else:
        path.write_text("".join(f"{json.dumps(record)}\n" for record in records))
    return path


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_rows_get_what_the_engine_says(scorer: Scorer, titanic: tuple[Path, Engine], kind: str, tmp_path: Path) -> None:
    artifacts, engine = titanic
    records = [{"note": n, **GOOD[n % len(GOOD)]} for n in range(90)]
    source, output = written(tmp_path / f"in.{kind}", records), tmp_path / "out.jsonl"
    status, _, complaint = scorer([*command(artifacts, source, output, "--probabilities")])
    assert status == 0, complaint
    found = rows(output)
    assert len(found) == len(records)
    for row, record in zip(found, records, strict=True):
        (score,) = engine.score_batch([tuple(record[column.name] for column in engine.signature.columns)])
        assert row["note"] == (str(record["note"]) if kind == "csv" else record["note"])
        assert row["prediction"] is score.label
        assert row["confidence"] == pytest.approx(score.confidence, abs=1e-6)
        assert [row["probability_false"], row["probability_true"]] == pytest.approx(score.probabilities, abs=1e-6)


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_what_the_api_would_refuse_is_a_bad_row(
    scorer: Scorer, titanic: tuple[Path, Engine], kind: str, tmp_path: Path
) -> None:
    records = [{"note": 0, **GOOD[0]}, *({"note": n, **GOOD[0], **changed} for n, (changed, _) in enumerate(BAD))]
    source, output = written(tmp_path / f"in.{kind}", records), tmp_path / f"out.{kind}"
    assert scorer(command(titanic[0], source, output))[0] == 0
    assert len(rows(output)) == 1
    errors = rows(tmp_path / f"out.{kind}.errors.jsonl")
    assert [entry["row"] for entry in errors] == list(range(2, len(BAD) + 2))
    for entry, (_, reason) in zip(errors, BAD, strict=True):
        assert reason in entry["reason"]


def test_what_the_model_cannot_answer_is_a_bad_row(scorer: Scorer, tmp_path: Path) -> None:
    frame = pd.DataFrame({"hours": np.arange(60.0)})
    brought(PoissonRegressor(), frame, np.arange(60), tmp_path)
    source, output = tmp_path / "in.csv", tmp_path / "out.csv"
    source.write_text("hours\n1\n1e9\n2\n")
    status, _, complaint = scorer(command(tmp_path / "artifacts", source, output))
    assert status == 0, complaint
    assert [row["hours"] for row in rows(output)] == ["1", "2"]
    (bad,) = rows(tmp_path / "out.csv.errors.jsonl")
    assert (bad["row"], bad["reason"]) == (2, "the model cannot answer this: it predicts NaN or infinity")


def test_numbers_and_their_spread(scorer: Scorer, line: tuple[Path, Engine], tmp_path: Path) -> None:
    artifacts, engine = line
    source, output = tmp_path / "in.csv", tmp_path / "out.parquet"
    source.write_text("right,left\n0.5,1\n-1,2e0\n")
    status, _, complaint = scorer(command(artifacts, source, output))
    assert status == 0, complaint
    table = pq.read_table(output)
    assert table.column_names == ["right", "left", "prediction", "prediction_spread", "model_version"]
    for row, x in zip(table.to_pylist(), [(1.0, 0.5), (2.0, -1.0)], strict=True):
        score = engine.score(x)
        assert (row["prediction"], row["prediction_spread"]) == pytest.approx((score.label, score.spread))


def test_what_does_not_fit_the_model_is_said_before_any_work(
    scorer: Scorer, line: tuple[Path, Engine], tmp_path: Path
) -> None:
    source, output = tmp_path / "in.csv", tmp_path / "out.csv"
    source.write_text("right\n1\n")
    cases = {
        ("--text", "right"): "takes columns, not a text: leave TEXT away",
        ("--probabilities",): "gives no probabilities: leave PROBABILITIES away",
        (): "has no column 'left', which the model theirs takes",
    }
    for options, message in cases.items():
        status, said, complaint = scorer(command(line[0], source, output, *options))
        assert (status, said) == (1, ""), complaint
        assert message in complaint
        assert complaint.count("\n") == 1
