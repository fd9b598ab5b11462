"""A small compiled model, made in a moment: what is tested here is the scoring of files, not the model."""

from __future__ import annotations

from pathlib import Path

import pytest
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import FeatureUnion, Pipeline

from app.engines.engine import Engine
from app.engines.loading import load_engine
from model.compile import compiled
from model.dataset import Dataset

WORDS = {
    "joy": "glad sunny party laugh win",
    "grief": "rain loss alone tears grave",
    "calm": "tea book chair quiet lake",
}
TEXTS = [f"{a} {b} today, I {a}!" for words in WORDS.values() for a in words.split() for b in words.split()]
LABELS = [label for label, words in WORDS.items() for _ in range(len(words.split()) ** 2)]


def fitted(*vectorizers: TfidfVectorizer) -> Pipeline:
    union = FeatureUnion([(str(number), vectorizer) for number, vectorizer in enumerate(vectorizers)])
    return Pipeline([("features", union), ("classifier", LogisticRegression())]).fit(TEXTS, LABELS)


@pytest.fixture(scope="session")
def artifacts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("artifacts")
    compiled(
        fitted(TfidfVectorizer(ngram_range=(1, 2))), directory, Dataset(Path("small.csv"), "0" * 64, TEXTS, LABELS)
    )
    return directory


@pytest.fixture(scope="session")
def engine(artifacts: Path) -> Engine:
    return load_engine(artifacts)
