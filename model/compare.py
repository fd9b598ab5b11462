"""python -m model.compare --data CSV --output FILE.md: the comparison that the recipe in model.train was chosen by.

Only the four fifths that the model may see take part. Every row is tuned and calibrated like the recipe itself, by
cross-validation; its temperature is found on the other folds than those that it is measured on.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from scipy import sparse
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold
from sklearn.pipeline import FeatureUnion

from model import dataset, measures, train
from model.linear import LINKS, Floats, Linear, linear
from model.train import FOLDS, SEED, Labels, prefixes, words


def majority(_: float, x: Any, labels: Labels) -> Linear:
    names, counts = np.unique(labels, return_counts=True)
    return Linear(np.zeros((len(names), x.shape[1])), np.log(counts / len(labels)), "softmax")


def logistic(strength: float, x: Any, labels: Labels, rebalancing: float = 0) -> Linear:
    # A logistic regression's C says about what an SVM's does at a fifth of it.
    model = LogisticRegression(C=5 * strength, max_iter=500, tol=1e-3)
    return linear(model.fit(x, labels, sample_weight=train.weights(labels, rebalancing)))


def naive_bayes_weighted(strength: float, x: sparse.csr_matrix, labels: Labels) -> Linear:
    """One label against the rest, on features times their log-count ratio.

    Wang and Manning, "Baselines and Bigrams", ACL 2012.
    """
    coefs, intercepts = [], []
    for name in np.unique(labels):
        inside = labels == name
        p, q = 1 + x[inside].sum(axis=0).A1, 1 + x[~inside].sum(axis=0).A1
        ratio = np.log(p / p.sum()) - np.log(q / q.sum())
        model = LogisticRegression(C=5 * strength, solver="liblinear").fit(x.multiply(ratio).tocsr(), inside)
        coefs.append(model.coef_[0] * ratio)
        intercepts.append(model.intercept_[0])
    return Linear(np.array(coefs), np.array(intercepts), "sigmoid")


def svm(strength: float, x: Any, labels: Labels, rebalancing: float = 0) -> Linear:
    return linear(train.classifier(strength).fit(x, labels, sample_weight=train.weights(labels, rebalancing)))


def characters(**options: Any) -> TfidfVectorizer:
    return TfidfVectorizer(analyzer="char_wb", min_df=3, sublinear_tf=True, **options)


def union(*vectorizers: TfidfVectorizer) -> FeatureUnion:
    return FeatureUnion([(str(i), vectorizer) for i, vectorizer in enumerate(vectorizers)])


class Candidate(NamedTuple):
    """A row of the table."""

    features: str
    classifier: str
    vectorizer: FeatureUnion
    fit: train.Fit
    strengths: Sequence[float] = train.STRENGTHS


def candidates() -> list[Candidate]:
    power = train.REBALANCING
    ours, recipe = "words, signs; prefixes 4 and pairs", f"SVM, Platt, weights^{power:g}"
    words_2 = words(ngram_range=(1, 2))
    before = TfidfVectorizer(max_features=10_000, ngram_range=(1, 2), stop_words="english")
    default = TfidfVectorizer(ngram_range=(1, 2), min_df=2, sublinear_tf=True)
    prefixes_4, prefixes_3 = prefixes(4, ngram_range=(1, 2)), prefixes(3, ngram_range=(1, 2))
    characters_4, characters_5 = characters(ngram_range=(2, 4)), characters(ngram_range=(2, 5))
    return [
        Candidate("none", "majority", union(words()), majority, (1,)),
        Candidate("10,000 words and pairs, no stop words", "logistic", union(before), logistic),
        Candidate("words and pairs", "logistic", union(default), logistic),
        Candidate("words, signs and pairs", "logistic", union(words_2), logistic),
        Candidate("words, signs and pairs", "logistic, NB-weighted", union(words_2), naive_bayes_weighted),
        Candidate(ours, "logistic", train.features(), logistic),
        Candidate(ours, f"logistic, weights^{power:g}", train.features(), partial(logistic, rebalancing=power)),
        Candidate(ours, "logistic, balanced", train.features(), partial(logistic, rebalancing=1)),
        Candidate(ours, "SVM, Platt", train.features(), svm),
        Candidate(ours, f"{recipe}: the recipe", train.features(), train.fit_linear),
        Candidate(ours, "SVM, Platt, balanced", train.features(), partial(svm, rebalancing=1)),
        Candidate("words, signs and pairs", recipe, union(words_2), train.fit_linear),
        Candidate("characters 2-5", recipe, union(characters_5), train.fit_linear),
        Candidate("words, signs; characters 2-5", recipe, union(words(), characters_5), train.fit_linear),
        Candidate(
            "words, signs; prefixes 3 and pairs, 5", recipe, union(words(), prefixes_3, prefixes(5)), train.fit_linear
        ),
        Candidate(f"{ours}; characters 2-4", recipe, union(words(), prefixes_4, characters_4), train.fit_linear),
    ]


def calibrated(tuning: train.Tuning, texts: Sequence[str], labels: Labels) -> Floats:
    """Probabilities (n, k) of the out-of-fold logits, by the temperature of the other folds."""
    p = np.zeros_like(tuning.logits)
    for others, fold in StratifiedKFold(FOLDS, shuffle=True, random_state=SEED).split(texts, labels):
        factor = train.temperature(tuning.logits[others], tuning.link, labels[others])
        p[fold] = LINKS[tuning.link](factor * tuning.logits[fold])
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
        "| features | classifier | C | accuracy | macro-F1 | ECE | log loss | thousand features | µs to cut one |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for candidate in candidates():
        print(f"{candidate.features} · {candidate.classifier}", file=sys.stderr, flush=True)
        tuning = train.tune(candidate.vectorizer, candidate.fit, texts, labels, candidate.strengths)
        m = measures.measure(calibrated(tuning, texts, labels), labels)
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
    with train.one_thread():
        sys.exit(main())
