"""Pipelines that people bring: compiled where that is possible, with scikit-learn's own answers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.calibration import CalibratedClassifierCV
from sklearn.decomposition import TruncatedSVD
from sklearn.ensemble import RandomForestClassifier
from sklearn.feature_extraction.text import CountVectorizer, HashingVectorizer, TfidfTransformer, TfidfVectorizer
from sklearn.feature_selection import SelectKBest, chi2
from sklearn.linear_model import LogisticRegression, SGDClassifier
from sklearn.model_selection import GridSearchCV
from sklearn.multiclass import OneVsRestClassifier
from sklearn.naive_bayes import ComplementNB, MultinomialNB
from sklearn.pipeline import FeatureUnion, make_pipeline, make_union
from sklearn.preprocessing import MaxAbsScaler
from sklearn.svm import LinearSVC

from app.engines import scorer
from app.engines.engine import Engine
from app.engines.loading import load_engine
from app.engines.scorer import CompiledEngine
from model import extremes, parity
from model.compile import compile_pipeline, compiled, tolerance
from model.dataset import Dataset
from model.linear import NotCompilable

LOGISTIC = LogisticRegression(C=0.3, max_iter=1000)
SVM = LinearSVC(C=0.1, random_state=0)

# Each with what it is about; the classifier fits 900 texts in a fraction of a second.
PIPELINES: dict[str, Any] = {
    "words": make_pipeline(TfidfVectorizer(), LOGISTIC),
    "pairs and triples only": make_pipeline(TfidfVectorizer(ngram_range=(2, 3), min_df=2), LOGISTIC),
    "sublinear, l1, no idf": make_pipeline(TfidfVectorizer(sublinear_tf=True, norm="l1", use_idf=False), LOGISTIC),
    "no norm, binary": make_pipeline(TfidfVectorizer(norm=None, binary=True), LOGISTIC),
    "stop words, accents stripped": make_pipeline(
        TfidfVectorizer(stop_words="english", strip_accents="unicode", ngram_range=(1, 2)), LOGISTIC
    ),
    "ASCII, case kept": make_pipeline(TfidfVectorizer(strip_accents="ascii", lowercase=False), LOGISTIC),
    "few features": make_pipeline(TfidfVectorizer(max_features=50, ngram_range=(1, 3)), LOGISTIC),
    "characters": make_pipeline(TfidfVectorizer(analyzer="char", ngram_range=(2, 4), min_df=2), LOGISTIC),
    "one character": make_pipeline(TfidfVectorizer(analyzer="char"), LOGISTIC),
    "characters in words": make_pipeline(TfidfVectorizer(analyzer="char_wb", ngram_range=(4, 5), min_df=2), LOGISTIC),
    "group in the pattern": make_pipeline(TfidfVectorizer(token_pattern=r"(\w)\w*"), LOGISTIC),
    "empty tokens": make_pipeline(TfidfVectorizer(token_pattern=r"\w*", ngram_range=(1, 2)), LOGISTIC),
    "counts, then TF-IDF": make_pipeline(
        CountVectorizer(ngram_range=(1, 2)), TfidfTransformer(sublinear_tf=True), LOGISTIC
    ),
    "best features, scaled": make_pipeline(TfidfVectorizer(), SelectKBest(chi2, k=300), MaxAbsScaler(), LOGISTIC),
    "weighted union": make_pipeline(
        FeatureUnion(
            [
                ("words", TfidfVectorizer(ngram_range=(1, 2))),
                ("dropped", "drop"),
                ("characters", TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 3), min_df=2)),
            ],
            transformer_weights={"words": 0.5, "characters": 2.0},
        ),
        LOGISTIC,
    ),
    "multinomial Bayes": make_pipeline(CountVectorizer(), MultinomialNB()),
    "complement Bayes": make_pipeline(TfidfVectorizer(), ComplementNB()),
    "SGD": make_pipeline(TfidfVectorizer(), SGDClassifier(loss="log_loss", random_state=0)),
    "one against the rest": make_pipeline(TfidfVectorizer(), OneVsRestClassifier(LOGISTIC)),
    "SVM, Platt": make_pipeline(TfidfVectorizer(), CalibratedClassifierCV(SVM, ensemble=False, cv=3)),
    "SVM, temperature": make_pipeline(
        TfidfVectorizer(), CalibratedClassifierCV(SVM, method="temperature", ensemble=False, cv=3)
    ),
    "counts": make_pipeline(CountVectorizer(), SGDClassifier(loss="log_loss", random_state=0)),
    "32 bits": make_pipeline(TfidfVectorizer(dtype=np.float32), LOGISTIC),
    "search": GridSearchCV(make_pipeline(TfidfVectorizer(), LOGISTIC), {"logisticregression__C": [0.1, 1]}, cv=2),
    "two labels, SVM, Platt": make_pipeline(TfidfVectorizer(), CalibratedClassifierCV(SVM, ensemble=False, cv=3)),
    "two labels, SVM, temperature": make_pipeline(
        TfidfVectorizer(), CalibratedClassifierCV(SVM, method="temperature", ensemble=False, cv=3)
    ),
    "two labels": make_pipeline(TfidfVectorizer(), LOGISTIC),
    "two labels, SGD": make_pipeline(TfidfVectorizer(), SGDClassifier(loss="log_loss", random_state=0)),
    "one word": make_pipeline(TfidfVectorizer(vocabulary=["love"]), LOGISTIC),
}

ODD = [
    "",
    " ",
    "\x00",
    "a\x00b love\x00",
    "\ud800 lone \udfff surrogates",
    "e\u0301 combining, fi ligature, İstanbul ß SS",
    "\u05e9\u05dc\u05d5\u05dd \u202e reversed",
    "\U0001f468\u200d\U0001f469\u200d\U0001f467 so cute \u2764\ufe0f",
    "no\u00a0break\u2028line\x85next\x1cfile",
    "A  B\n\nC\t\tD\r\nE",
    "love" * 1000,
    "love " * 1000,
    "x" * 1_000_000,
    "'" * 50 + "!" * 50 + "?!?!" * 20,
    "i",
    "I a m",
]


@pytest.fixture(scope="module", params=PIPELINES)
def fitted(request: pytest.FixtureRequest, data: Dataset, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path]:
    texts, labels = data.texts[:900], data.labels[:900]
    if "two labels" in request.param:
        labels = ["bad" if label in ("anger", "hate", "sadness", "worry") else "good" for label in labels]
    pipeline = PIPELINES[request.param].fit(texts, labels)
    directory = tmp_path_factory.mktemp("compiled")
    compiled(pipeline, directory, data)
    return pipeline, directory


@pytest.fixture(scope="module", params=["in C", "in Python"])
def pair(request: pytest.FixtureRequest, fitted: tuple[Any, Path]) -> tuple[Any, Engine]:
    """The pipeline, and the engine that does its arithmetic in either language."""
    pipeline, directory = fitted
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "in Python":
            patch.setattr(scorer, "kernel", None)
        engine = load_engine(directory)
    assert isinstance(engine, CompiledEngine)
    assert (engine._to_logits == engine._in_python) == (request.param == "in Python")
    return pipeline, engine


def test_every_text(pair: tuple[Any, Engine], data: Dataset) -> None:
    pipeline, engine = pair
    close = tolerance(pipeline) / 1000
    assert parity.check(pipeline, engine, data.texts[:2000]) < close
    for text in data.texts[:100]:
        assert engine.score(text).probabilities == pytest.approx(pipeline.predict_proba([text])[0].tolist(), abs=close)


def test_extremes(pair: tuple[Any, Engine], data: Dataset) -> None:
    """Words by the thousand, all words at once: the ends of what floats can hold."""
    pipeline, engine = pair
    texts = extremes.texts(data.texts[:900])
    assert len(texts) > 100
    parity.check(pipeline, engine, texts, tolerance(pipeline))
    for score in engine.score_batch(texts):
        assert sum(score.probabilities) == pytest.approx(1)


def test_odd_texts(pair: tuple[Any, Engine]) -> None:
    pipeline, engine = pair
    assert parity.check(pipeline, engine, ODD) < tolerance(pipeline) / 1000
    for text, batched in zip(ODD, engine.score_batch(ODD), strict=True):
        score = engine.score(text)
        assert score.label == batched.label
        assert 0 <= score.unknown <= score.tokens
        engine.explain(text, score.label)


@settings(max_examples=25, deadline=None)
@given(texts=st.lists(st.text(st.characters(exclude_categories=())), max_size=5))
def test_any_text(pair: tuple[Any, Engine], texts: list[str]) -> None:
    pipeline, engine = pair
    if texts:
        assert parity.check(pipeline, engine, texts) < tolerance(pipeline) / 1000
    assert len(engine.score_batch(texts)) == len(texts)


def test_explanation_and_intercept_add_up_to_the_logit(pair: tuple[Any, Engine], data: Dataset) -> None:
    """Intercept and explained weights together are the logit."""
    _, engine = pair
    link = engine.manifest["scorer"]["link"]
    for text in data.texts[:50]:
        p = np.array(engine.score(text).probabilities)
        sums = np.array(
            [sum(weight for _, weight in engine.explain(text, label, 10**6)) for label in engine.signature.labels]
        )
        logits = sums + engine._intercept  # type: ignore[attr-defined]
        expected = np.exp(logits) if link == "softmax" else 1 / (1 + np.exp(-logits))
        assert p == pytest.approx(expected / expected.sum(), abs=1e-9)


REFUSED: dict[str, tuple[Any, str]] = {
    "no pipeline": (LOGISTIC, "not a Pipeline"),
    "hashing": (make_pipeline(HashingVectorizer(n_features=512), LOGISTIC), "HashingVectorizer"),
    "tokenizer": (make_pipeline(TfidfVectorizer(tokenizer=str.split, token_pattern=None), LOGISTIC), "tokenizer"),
    "analyzer": (make_pipeline(TfidfVectorizer(analyzer=str.split), LOGISTIC), "analyzer"),
    "forest": (make_pipeline(CountVectorizer(), RandomForestClassifier(3, random_state=0)), "RandomForestClassifier"),
    "SVD": (make_pipeline(TfidfVectorizer(), TruncatedSVD(5, random_state=0), LOGISTIC), "TruncatedSVD"),
    "ensemble": (make_pipeline(TfidfVectorizer(), CalibratedClassifierCV(SVM, cv=3)), "several models"),
    "isotonic": (
        make_pipeline(TfidfVectorizer(), CalibratedClassifierCV(SVM, method="isotonic", ensemble=False, cv=3)),
        "isotonic",
    ),
    "unlike parts": (make_pipeline(make_union(TfidfVectorizer(), CountVectorizer()), LOGISTIC), "differ"),
    "spaces in tokens": (make_pipeline(TfidfVectorizer(token_pattern=r"\w+ \w+"), LOGISTIC), "parts"),
    "classifier only": (make_pipeline(LOGISTIC), "begins with NoneType"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused_with_a_reason(name: str, data: Dataset, tmp_path: Path) -> None:
    pipeline, reason = REFUSED[name]
    if name not in ("no pipeline", "classifier only"):
        pipeline.fit(data.texts[:600], data.labels[:600])
    with pytest.raises(NotCompilable, match=reason):
        compile_pipeline(pipeline, tmp_path)
    assert not list(tmp_path.iterdir())


def test_what_raises_is_refused_too(data: Dataset, tmp_path: Path) -> None:
    """An estimator whose attributes are not what its class usually has, such as one that was edited by hand."""
    pipeline = make_pipeline(TfidfVectorizer(), LogisticRegression()).fit(data.texts[:600], data.labels[:600])
    pipeline[-1].coef_ = None
    with pytest.raises(NotCompilable, match="what raises"):
        compile_pipeline(pipeline, tmp_path)
    assert not list(tmp_path.iterdir())


def test_sigmoids_that_are_all_zero(tmp_path: Path, data: Dataset) -> None:
    """Logits far below what a float can be the exponential of: no error, and scikit-learn's own label."""
    texts = [
        "win cash now",
        "free prize win",
        "see you at lunch",
        "lunch at noon",
        "call me later",
        "later then bye",
    ] * 10
    pipeline = make_pipeline(CountVectorizer(), SGDClassifier(loss="log_loss", random_state=0))
    pipeline.fit(texts, ["offer", "offer", "food", "food", "talk", "talk"] * 10)
    pipeline[-1].coef_ *= 100
    engine = compiled(pipeline, tmp_path, data)
    text = "win cash lunch later " * 100
    score = engine.score(text)
    assert pipeline.decision_function([text]).max() < -800
    assert score.label == pipeline.predict([text])[0]
    assert score.probabilities == pytest.approx([1 / 3] * 3)
    assert engine.explain(text, score.label)


def test_labels_that_are_equally_probable(tmp_path: Path, data: Dataset) -> None:
    """Two labels with the same texts: the compiled model names the one that scikit-learn names."""
    texts = [text for text in data.texts[:200] for _ in range(2)]
    pipeline = make_pipeline(CountVectorizer(), MultinomialNB()).fit(texts, ["one", "two"] * 200)
    engine = compiled(pipeline, tmp_path, data)
    assert parity.check(pipeline, engine, texts) < 1e-9
