"""The comparison and the benchmark, on little: that they run, and that the scorer is fast."""

from __future__ import annotations

import sys
from itertools import cycle
from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import load_iris
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.naive_bayes import MultinomialNB
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MaxAbsScaler
from sklearn.tree import DecisionTreeClassifier

from model import compare, table, train
from model.dataset import Dataset
from model.linear import LINKS
from tests.load.bench import model as bench
from tests.unit.model.conftest import SHIPPED, Built


def test_fifteen_times_faster_than_scikit_learn(built: Built, data: Dataset) -> None:
    texts = cycle(data.texts)
    with train.one_thread():
        ours, theirs = bench.measure(
            [lambda: built.engine.score(next(texts)), lambda: built.pipeline.predict_proba([next(texts)])]
        )
    print(ours, theirs)
    assert theirs >= 15 * ours


def test_benchmark_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "ROUNDS", 1)
    monkeypatch.setattr(bench, "ROUND_SECONDS", 0)
    iris = load_iris(as_frame=True)
    iris.data.to_csv(tmp_path / "iris.csv", index=False)
    model = make_pipeline(MaxAbsScaler(), DecisionTreeClassifier(random_state=0)).fit(iris.data, iris.target)
    lines, refused = bench.rows(bench.Case("a tree", model, table.read(tmp_path / "iris.csv")), tmp_path)
    print(lines, refused)
    assert [line.split(" | ")[1] for line in lines] == ["**compiled**", "onnx", "sklearn"]
    assert all(line.endswith("| 0e+00 |") for line in lines if "onnx" not in line)


def test_benchmark_of_texts_has_the_scoring_of_files(
    data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench, "ROUNDS", 1)
    monkeypatch.setattr(bench, "ROUND_SECONDS", 0)
    monkeypatch.setattr(bench, "COMPARED", 1500)
    model = make_pipeline(TfidfVectorizer(min_df=5), MultinomialNB()).fit(data.texts, data.labels)
    lines, refused = bench.rows(bench.Case("texts", model, data), tmp_path)
    print(lines, refused)
    cells = [[cell.strip() for cell in line.strip("| ").split("|")] for line in lines]
    assert [row[1] for row in cells] == ["**compiled**", "sklearn", "`make score`"]
    assert float(cells[2][-1]) < 1e-9


def test_comparison_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    few = train.Recipe(compare.NaiveBayesWeighted, ("sigmoid",), 0, (0.2,))
    rows = [compare.candidates()[0], compare.Candidate("words", "NB", compare.union(TfidfVectorizer(min_df=5)), few)]
    monkeypatch.setattr(compare, "candidates", lambda: rows)
    output = tmp_path / "table.md"
    monkeypatch.setattr(sys, "argv", ["compare", "--data", str(SHIPPED), "--output", str(output)])
    assert compare.main() == 0
    first, second = output.read_text().splitlines()[-2:]
    assert first.startswith("| none | majority | 1 | temperature | 0.1")
    assert second.startswith("| words | NB | 0.2 | sigmoid | 0.5"), second


def test_every_candidate_is_a_recipe() -> None:
    candidates = compare.candidates()
    assert sum("chosen" in candidate.classifier for candidate in candidates) == 1
    assert all(set(candidate.recipe.methods) <= {"sigmoid", "temperature"} for candidate in candidates)


@pytest.mark.parametrize("link", LINKS)
def test_temperature_is_found(link: str) -> None:
    """Labels drawn from known probabilities: logits that are three times too small are multiplied by three."""
    random = np.random.default_rng(0)
    logits = random.normal(size=(20_000, 3)) * 2
    cumulative = LINKS[link](logits).cumsum(axis=1)
    labels = np.array(["a", "b", "c"])[(random.random((20_000, 1)) > cumulative).sum(axis=1)]
    assert train.temperature(logits / 3, link, labels) == pytest.approx(3, rel=0.05)


def test_weights() -> None:
    labels = np.array(["a"] * 8 + ["b"] * 2)
    assert train.weights(labels, 0) == pytest.approx(np.ones(10))
    balanced = train.weights(labels, 1)
    assert balanced[:8].sum() == pytest.approx(balanced[8:].sum())
