"""python -m model.compare --data CSV --output FILE.md: the comparison that the recipe in model.train was chosen by.

Only the four fifths that the model may see take part. Every row is tuned and calibrated like the recipe itself, by
cross-validation; its temperature is found on the other folds than those that it is measured on.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from scipy import sparse
from scipy.special import softmax
from sklearn.calibration import CalibratedClassifierCV
from sklearn.dummy import DummyClassifier
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold
from sklearn.pipeline import FeatureUnion
from sklearn.svm import LinearSVC
from threadpoolctl import threadpool_limits

from model import dataset, measures, train
from model.train import FOLDS, SEED, Floats, Labels, prefixes, words


class NaiveBayesWeighted:
    """Logistic regression, one label against the rest, on features times their log-count ratio (Wang and Manning, ACL 2012)."""

    def __init__(self, strength: float) -> None:
        self.strength = strength

    def fit(self, x: sparse.csr_matrix, labels: Labels) -> NaiveBayesWeighted:
        self.columns: list[tuple[Floats, LogisticRegression]] = []
        for name in np.unique(labels):
            inside = labels == name
            p, q = 1 + x[inside].sum(axis=0).A1, 1 + x[~inside].sum(axis=0).A1
            ratio = np.log(p / p.sum()) - np.log(q / q.sum())
            model = LogisticRegression(C=self.strength, solver="liblinear").fit(x.multiply(ratio).tocsr(), inside)
            self.columns.append((ratio, model))
        return self

    def decision_function(self, x: sparse.csr_matrix) -> Floats:
        return np.column_stack([m.decision_function(x.multiply(ratio).tocsr()) for ratio, m in self.columns])


class Probabilities:
    """Any classifier's probabilities as logits."""

    def __init__(self, model: Any) -> None:
        self.model = model

    def fit(self, x: Any, labels: Labels) -> Probabilities:
        self.model.fit(x, labels)
        return self

    def decision_function(self, x: Any) -> Floats:
        return np.log(np.maximum(self.model.predict_proba(x), 1e-12))


def calibrated_svm(strength: float, _: Labels) -> Probabilities:
    # At a tenth of it an SVM's C says about what a logistic regression's does.
    return Probabilities(CalibratedClassifierCV(LinearSVC(C=strength / 10, random_state=SEED), ensemble=False, cv=3))


def characters(**options: Any) -> TfidfVectorizer:
    return TfidfVectorizer(analyzer="char_wb", min_df=3, sublinear_tf=True, **options)


def union(*vectorizers: TfidfVectorizer) -> FeatureUnion:
    return FeatureUnion([(str(i), vectorizer) for i, vectorizer in enumerate(vectorizers)])


class Candidate(NamedTuple):
    """A row of the table."""

    features: str
    classifier: str
    vectorizer: FeatureUnion
    make: Callable[[float, Labels], Any]
    strengths: Sequence[float] = train.STRENGTHS


def candidates() -> list[Candidate]:
    logistic = train.classifier
    plain = partial(logistic, rebalancing=0)
    weighted = f"logistic, weights^{train.REBALANCING:g}"
    words_2 = words(ngram_range=(1, 2))
    old = TfidfVectorizer(max_features=10_000, ngram_range=(1, 2), stop_words="english")
    default = TfidfVectorizer(ngram_range=(1, 2), min_df=2, sublinear_tf=True)
    prefixes_4, prefixes_3 = prefixes(4, ngram_range=(1, 2)), prefixes(3, ngram_range=(1, 2))
    return [
        Candidate("none", "majority", union(words()), lambda *_: Probabilities(DummyClassifier()), (1,)),
        Candidate("10,000 words and pairs, no stop words", "logistic", union(old), plain),
        Candidate("words and pairs", "logistic", union(default), plain),
        Candidate("words, signs and pairs", "logistic", union(words_2), plain),
        Candidate("words, signs and pairs", weighted, union(words_2), logistic),
        Candidate(
            "words, signs and pairs, NB-weighted", "logistic", union(words_2), lambda c, _: NaiveBayesWeighted(c)
        ),
        Candidate("characters 2–5", weighted, union(characters(ngram_range=(2, 5))), logistic),
        Candidate("words, signs; characters 2–5", weighted, union(words(), characters(ngram_range=(2, 5))), logistic),
        Candidate("words, signs; prefixes 4 and pairs", "logistic", train.features(), plain),
        Candidate("words, signs; prefixes 4 and pairs", weighted, train.features(), logistic),
        Candidate(
            "words, signs; prefixes 4 and pairs",
            "logistic, balanced",
            train.features(),
            partial(logistic, rebalancing=1),
        ),
        Candidate("words, signs; prefixes 4 and pairs", "SVM, Platt", train.features(), calibrated_svm),
        Candidate("words, signs, pairs; prefixes 4 and pairs", weighted, union(words_2, prefixes_4), logistic),
        Candidate("words, signs; prefixes 3 and pairs, 5", weighted, union(words(), prefixes_3, prefixes(5)), logistic),
        Candidate(
            "words, signs; prefixes 4 and pairs; characters 2–4",
            weighted,
            union(words(), prefixes_4, characters(ngram_range=(2, 4))),
            logistic,
        ),
    ]


def calibrated(logits: Floats, texts: Sequence[str], labels: Labels) -> Floats:
    """Probabilities (n, k) of out-of-fold logits (n, k), by the temperature of the other folds."""
    p = np.zeros_like(logits)
    for others, fold in StratifiedKFold(FOLDS, shuffle=True, random_state=SEED).split(texts, labels):
        p[fold] = softmax(train.temperature(logits[others], labels[others]) * logits[fold], axis=1)
    return p


def microseconds(vectorizer: FeatureUnion, texts: Sequence[str]) -> float:
    """What the fitted vectorizer takes for one text, scikit-learn's own way; the median of some."""
    took = []
    for text in texts[:200]:
        started = time.perf_counter()
        vectorizer.transform([text])
        took.append(time.perf_counter() - started)
    return float(np.median(took)) * 1e6


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m model.compare", description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True, help="the table, in Markdown")
    arguments = parser.parse_args()
    try:
        data = dataset.read(arguments.data)
    except dataset.DataError as error:
        print(error, file=sys.stderr)
        return 1
    texts, _, labels, _ = train.split(data.texts, data.labels)
    lines = [
        f"{len(texts):,} texts (four fifths of `{data.path.name}`, sha256 `{data.sha256[:12]}…`), {FOLDS}-fold,",
        f"made by `python -m model.compare --data {data.path.name}`.",
        "",
        "| features | classifier | C | accuracy | macro-F1 | ECE | log loss | features, thousands | µs a text to vectorize |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for candidate in candidates():
        print(f"{candidate.features} · {candidate.classifier}", file=sys.stderr, flush=True)
        tuning = train.tune(candidate.vectorizer, candidate.make, texts, labels, candidate.strengths)
        m = measures.measure(calibrated(tuning.logits, texts, labels), labels)
        width = candidate.vectorizer.fit_transform(texts).shape[1] / 1000
        us = microseconds(candidate.vectorizer, texts)
        line = (
            f"| {candidate.features} | {candidate.classifier} | {tuning.strength:g} | {m['accuracy']:.4f} "
            f"| {m['macro_f1']:.4f} | {m['ece']:.4f} | {m['log_loss']:.4f} | {width:.1f} | {us:.0f} |"
        )
        print(line, file=sys.stderr, flush=True)
        lines.append(line)
    arguments.output.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    with threadpool_limits(1):
        sys.exit(main())
