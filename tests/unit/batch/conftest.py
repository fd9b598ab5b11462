"""A small compiled model, made in a moment, and the command that scores files: what is tested is the scoring, not the model."""

from __future__ import annotations

import csv
import gc
import json
import sys
import warnings
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from distributed import Client
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import FeatureUnion, Pipeline

from app.engines.engine import Engine
from app.engines.loading import load_engine
from batch.__main__ import main, on_this_machine
from model.compile import compiled
from model.dataset import Dataset

WORDS = {
    "joy": "glad sunny party laugh win",
    "grief": "rain loss alone tears grave",
    "calm": "tea book chair quiet lake",
}
TEXTS = [f"{a} {b} today, I {a}!" for words in WORDS.values() for a in words.split() for b in words.split()]
LABELS = [label for label, words in WORDS.items() for _ in range(len(words.split()) ** 2)]
SMALL = Dataset(Path("small.csv"), "0" * 64, TEXTS, LABELS)


def fitted(*vectorizers: TfidfVectorizer) -> Pipeline:
    union = FeatureUnion([(str(number), vectorizer) for number, vectorizer in enumerate(vectorizers)])
    return Pipeline([("features", union), ("classifier", LogisticRegression())]).fit(TEXTS, LABELS)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Dask and tornado leave the socket of a connection behind that was begun to a process which is killed meanwhile: Python
    closes it some time later, in whatever test then runs."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning"))


@pytest.fixture(scope="package", autouse=True)
def left_sockets() -> Iterator[None]:
    """They are closed before tests of other directories run, where such a socket is an error."""
    yield
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


@pytest.fixture(scope="session")
def artifacts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("artifacts")
    compiled(fitted(TfidfVectorizer(ngram_range=(1, 2))), directory, SMALL)
    return directory


@pytest.fixture(scope="session")
def engine(artifacts: Path) -> Engine:
    return load_engine(artifacts)


def command(artifacts: Path, source: Path, output: Path, *options: str) -> list[str]:
    files = ["--input", str(source), "--output", str(output), "--model", str(artifacts)]
    return [sys.executable, "-m", "batch", *files, "--workers", "1", *options]


def rows(path: Path) -> list[dict[str, Any]]:
    if path.suffix == ".parquet":
        found: list[dict[str, Any]] = pq.read_table(path).to_pylist()
        return found
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file)) if path.suffix == ".csv" else [json.loads(line) for line in file]


class Scorer:
    """The command in this process, on workers that are started once for all tests."""

    def __init__(self, client: Client, patch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self._patch, self._capsys = patch, capsys
        patch.setattr("batch.__main__.on_this_machine", lambda _workers: nullcontext(client))

    def __call__(self, command: list[str]) -> tuple[int, str, str]:
        self._patch.setattr(sys, "argv", command[2:])
        status = main()
        said = self._capsys.readouterr()
        return status, said.out, said.err


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    with on_this_machine(1) as client:
        yield client


@pytest.fixture
def scorer(client: Client, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Scorer:
    return Scorer(client, monkeypatch, capsys)
