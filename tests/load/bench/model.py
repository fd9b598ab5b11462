"""python -m tests.load.bench.model --data CSV: what a prediction takes, by every engine that can serve a model.

Times are processor times of one thread, medians of rounds in which the engines take turns, so that a busy machine does not
tell. Memory and start are those of a process of its own that loads the model and answers once.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import joblib
import numpy as np
import pandas as pd
from sklearn.compose import ColumnTransformer
from sklearn.datasets import load_iris
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from app.engines.engine import Engine
from app.engines.loading import load_engine
from app.engines.scorer import CompiledEngine
from app.engines.signature import Input, Signature
from batch.vectorised import VectorisedEngine
from model import dataset, importing, manifest, opening, parity, signing, table, train
from model.dataset import Dataset
from model.table import Table
from tests.paths import ROOT

ROUNDS = 7
ROUND_SECONDS = 0.05  # that a round takes at least, so that the clock is fine enough
BATCH = 1000
COMPARED = 5000  # inputs that an engine is compared with scikit-learn on

ONCE = """
import json, sys, time
from pathlib import Path
from app.engines.loading import load_engine
engine = load_engine(Path(sys.argv[1]))
engine.score(engine.signature.typical)
memory = dict(line.split()[:2] for line in open("/proc/self/smaps_rollup") if line[0].isupper())
print(json.dumps([int(memory["Pss:"]) / 1024, time.process_time()]))
"""


class Case(NamedTuple):
    """A fitted model with inputs to ask it."""

    title: str
    estimator: Any
    data: Dataset | Table


class Served(NamedTuple):
    """A model as an engine serves it."""

    engine: Engine
    directory: Path
    difference: float  # the largest from scikit-learn


def texts(data: Dataset, shipped: Any) -> list[Case]:
    """The shipped model, and the usual pipeline of tutorials: TF-IDF of words and pairs, and logistic regression."""
    simple = make_pipeline(TfidfVectorizer(ngram_range=(1, 2), min_df=2), LogisticRegression(C=0.25, max_iter=500))
    return [
        Case("texts, shipped", shipped, data),
        Case("texts, words and pairs", simple.fit(data.texts, data.labels), data),
    ]


def passengers(rows: int) -> tuple[pd.DataFrame, Any]:
    """A table like that of the Titanic: categories, numbers, missing values."""
    random = np.random.default_rng(0)
    frame = pd.DataFrame(
        {
            "class": random.integers(1, 4, rows),
            "sex": random.choice(["female", "male"], rows),
            "age": np.where(random.random(rows) < 0.2, np.nan, random.normal(30, 12, rows).clip(0.5, 80).round(1)),
            "fare": random.exponential(30, rows).round(2),
            "port": random.choice(["C", "Q", "S"], rows),
        }
    )
    odds = 2.5 * (frame["sex"] == "female") - 0.9 * frame["class"] + 0.01 * frame["fare"]
    return frame, random.random(rows) < 1 / (1 + np.exp(-odds))


def prepared(model: Any) -> Pipeline:
    numbers = make_pipeline(SimpleImputer(strategy="median"), StandardScaler())
    columns = [("numbers", numbers, ["age", "fare"]), ("categories", OneHotEncoder(), ["class", "sex", "port"])]
    return make_pipeline(ColumnTransformer(columns), model)


def tables(directory: Path) -> list[Case]:
    def case(title: str, model: Any, frame: pd.DataFrame, target: Any) -> Case:
        path = directory / "data.csv"
        frame.to_csv(path, index=False)
        return Case(title, model.fit(frame, target), table.read(path))

    iris = load_iris(as_frame=True)
    scaled = make_pipeline(StandardScaler(), LogisticRegression())
    few, survived = passengers(900)
    random = np.random.default_rng(0)
    many = pd.DataFrame(random.normal(size=(100_000, 20)), columns=[f"x{i}" for i in range(20)])
    noisy = many["x0"] * many["x1"] + many["x2"] + random.normal(size=len(many)) > 0
    return [
        case("Iris, logistic regression", scaled, iris.data, iris.target_names[iris.target]),
        case("Titanic-like, logistic regression", prepared(LogisticRegression()), few, survived),
        case("Titanic-like, forest of 300 trees", prepared(RandomForestClassifier(300, random_state=0)), few, survived),
        case("boosted trees of 100,000 rows", HistGradientBoostingClassifier(random_state=0), many, noisy),
    ]


def inputs_of(case: Case, signature: Signature) -> list[Input]:
    if isinstance(case.data, Dataset):
        return list(case.data.texts[:COMPARED])
    return list(case.data.rows([column.name for column in signature.columns]))[:COMPARED]


def serve(case: Case, signature: Signature, inputs: Sequence[Input], directory: Path) -> tuple[list[Served], list[str]]:
    """The engines that agree with scikit-learn, in the order in which an import tries them, and why others do not serve."""
    reference = importing.Reference(case.estimator, signature)
    served: list[Served] = []
    refused: list[str] = []
    for number, tried in enumerate(importing.ways(opening.by_position(case.estimator), signature)):
        if tried.engine in [one.engine.name for one in served]:
            continue
        made = directory / str(number)
        made.mkdir(parents=True)
        try:
            entries = tried.make(made)
            manifest.write(made, tried.engine, signature, case.data, metrics={}, baseline={}, **entries)
            engine = load_engine(made)
            served.append(Served(engine, made, parity.check(reference, engine, inputs, tried.tolerance)))
        except Exception as error:  # skl2onnx and onnxruntime raise many types of their own
            reason = " ".join(str(error).split()).replace(str(directory), "…").replace("|", "/")[:160]
            refused.append(f"- {case.title}, `{tried.engine}`: {reason}")
    return served, list(dict.fromkeys(refused))


def measure(calls: Sequence[Callable[[], Any]]) -> list[float]:
    """Seconds a call: for each, the median of rounds."""
    took: list[list[float]] = [[] for _ in calls]
    for _ in range(ROUNDS):
        for call, times in zip(calls, took, strict=True):
            number, passed, began = 0, 0.0, time.process_time()
            while number == 0 or passed < ROUND_SECONDS:
                call()
                number, passed = number + 1, time.process_time() - began
            times.append(passed / number)
    return list(map(median, took))


def one_by_one(engine: Engine, inputs: Sequence[Input]) -> Callable[[], Any]:
    turns = iter(range(sys.maxsize))
    return lambda: engine.score(inputs[next(turns) % len(inputs)])


def in_pieces(score_batch: Callable[[Sequence[Input]], Any], pieces: Sequence[Sequence[Input]]) -> Callable[[], Any]:
    return lambda: [score_batch(piece) for piece in pieces]


def anew(served: Served, pieces: Sequence[Sequence[Input]]) -> Callable[[], Any]:
    """What `make score` does with texts, from an engine that has seen no word yet: on a large file it has seen most."""

    def call() -> None:
        engine = VectorisedEngine(served.directory, served.engine.manifest)
        for piece in pieces:
            engine.scores(piece)

    return call


def vectorised_difference(case: Case, served: Served, pieces: Sequence[Sequence[Input]]) -> float:
    """The largest from scikit-learn's probabilities."""
    engine = VectorisedEngine(served.directory, served.engine.manifest)
    return max(float(np.abs(engine.scores(piece)[1] - case.estimator.predict_proba(piece)).max()) for piece in pieces)


def once(directory: Path) -> tuple[float, float]:
    """Megabytes and seconds of processor time of a process that loads a model and answers once."""
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", ONCE, str(directory)]
    done = subprocess.run(command, cwd=ROOT, env=environment, check=True, capture_output=True, text=True)
    megabytes, seconds = json.loads(done.stdout)
    return megabytes, seconds


def rows(case: Case, directory: Path) -> tuple[list[str], list[str]]:
    """Lines of a Markdown table, and of a list of what does not serve."""
    signature = signing.of_texts(case.estimator, "bench")
    if isinstance(case.data, Table):
        signature = signing.of_table(case.estimator, "bench", case.data)
    inputs = inputs_of(case, signature)
    served, refused = serve(case, signature, inputs, directory)
    single = measure([one_by_one(one.engine, inputs) for one in served])
    pieces = [inputs[start : start + BATCH] for start in range(0, len(inputs), BATCH)]
    if len(inputs) < BATCH:
        pieces = [(inputs * (BATCH // len(inputs) + 1))[:BATCH]]
    calls = [in_pieces(one.engine.score_batch, pieces) for one in served]
    vectorised = isinstance(served[0].engine, CompiledEngine)
    if vectorised:
        calls.append(anew(served[0], pieces))
    batch = [seconds / sum(map(len, pieces)) for seconds in measure(calls)]
    slowest, slowest_batch = single[-1], batch[len(served) - 1]  # scikit-learn, which is tried last
    lines = []
    for number, (one, alone, together) in enumerate(zip(served, single, batch, strict=False)):
        megabytes, seconds = once(one.directory)
        name = f"**{one.engine.name}**" if number == 0 else one.engine.name
        lines.append(
            f"| {case.title} | {name} | {alone * 1e6:,.0f} | {slowest / alone:,.1f} | {together * 1e6:,.1f} "
            f"| {1 / together:,.0f} | {slowest_batch / together:,.1f} | {megabytes:.0f} | {seconds:.2f} | {one.difference:.0e} |"
        )
    if vectorised:
        together, difference = batch[-1], vectorised_difference(case, served[0], pieces)
        lines.append(
            f"| {case.title} | `make score` | | | {together * 1e6:,.1f} "
            f"| {1 / together:,.0f} | {slowest_batch / together:,.1f} | | | {difference:.0e} |"
        )
    return lines, refused


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.load.bench.model", description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="texts: CSV, columns sentiment and content")
    parser.add_argument("--model", type=Path, default=manifest.OUTPUT, help="where make model put it (default: model)")
    parser.add_argument("--output", type=Path, help="write the page there as well, in Markdown")
    arguments = parser.parse_args()
    try:
        data = dataset.read(arguments.data)
        shipped = joblib.load(arguments.model / "model.joblib")
    except (dataset.DataError, OSError) as error:
        print(f"{error}; make model first", file=sys.stderr)
        return 1
    lines: list[str] = []
    refused: list[str] = []
    with train.one_thread(), tempfile.TemporaryDirectory() as name:
        for number, case in enumerate([*texts(data, shipped), *tables(Path(name))]):
            print(case.title, file=sys.stderr)
            more, reasons = rows(case, Path(name) / str(number))
            lines += more
            refused += reasons
    page = [
        "# What a prediction takes",
        "",
        f"Made by `make bench-model` on {data.path.name} and on tables made up for it. Microseconds are processor time of",
        f"one thread, medians of {ROUNDS} rounds in turns. MB (proportional set size) and start (processor time) are of a",
        "process that loads the model and answers once, without HTTP. The last column is the largest difference of a",
        "probability from scikit-learn's; no label differs. An import takes the engine in bold. `make score` is the arithmetic",
        "of batch/vectorised.py for the same arrays, with nothing cached before. Times faster: than scikit-learn, at the same.",
        "",
        f"| model | engine | µs, one input | times faster | µs an input, {BATCH:,} at once "
        "| rows/s | times faster | MB | start, s | differs by |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
        *lines,
        "",
        "Not served, or not at first:",
        "",
        *refused,
    ]
    print("\n".join(page))
    if arguments.output:
        arguments.output.write_text("\n".join(page) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
