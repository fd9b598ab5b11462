"""python -m model.compare --data CSV --output FILE.md: the comparison that the recipe in model.train was chosen by.

Only the four fifths that the model may see take part. Every row is tuned and calibrated like the recipe itself, by
cross-validation; its temperature is found on the other folds than those that it is measured on.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from scipy import sparse
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold
from sklearn.pipeline import FeatureUnion
from sklearn.svm import LinearSVC

from model import dataset, measures, train, workers
from model.linear import LINKS, Floats
from model.train import FOLDS, SEED, Labels, prefixes, words


class Majority:
    """Predicts each label with its share of the rows, whatever the text: the least that a model has to beat."""

    def fit(self, _: Any, labels: Labels, sample_weight: Floats) -> None:
        self.logits = np.log(np.unique(labels, return_counts=True)[1] / len(labels))

    def decision_function(self, x: Any) -> Floats:
        return np.tile(self.logits, (x.shape[0], 1))


def logistic(strength: float) -> LogisticRegression:
    # At twice a ridge regression's 1 / alpha, its C restrains about as much.
    return LogisticRegression(C=2 * strength, max_iter=500, tol=1e-3)


def svm(strength: float) -> LinearSVC:
    return LinearSVC(C=strength / 2, random_state=SEED)


class NaiveBayesWeighted:
    """Logistic regression, one label against the rest, on features times their log-count ratio.

    Wang and Manning, "Baselines and Bigrams", ACL 2012.
    """

    def __init__(self, strength: float) -> None:
        self.strength = strength

    def fit(self, x: sparse.csr_array, labels: Labels, sample_weight: Floats) -> None:
        self.parts = []
        for name in np.unique(labels):
            inside = labels == name
            p, q = 1 + x[inside].sum(axis=0), 1 + x[~inside].sum(axis=0)
            ratio = np.log(p / p.sum()) - np.log(q / q.sum())
            model = LogisticRegression(C=2 * self.strength, solver="liblinear")
            self.parts.append((ratio, model.fit(x.multiply(ratio).tocsr(), inside, sample_weight)))

    def decision_function(self, x: sparse.csr_array) -> Floats:
        return np.column_stack([model.decision_function(x.multiply(ratio).tocsr()) for ratio, model in self.parts])


def characters(**options: Any) -> TfidfVectorizer:
    return TfidfVectorizer(analyzer="char_wb", min_df=3, sublinear_tf=True, **options)


def union(*vectorizers: TfidfVectorizer) -> FeatureUnion:
    return FeatureUnion([(str(i), vectorizer) for i, vectorizer in enumerate(vectorizers)])


class Candidate(NamedTuple):
    """A row of the table."""

    features: str
    classifier: str
    vectorizer: FeatureUnion
    recipe: train.Recipe


def candidates() -> list[Candidate]:
    recipe = train.RECIPE
    power = recipe.rebalancing
    ours, best = "words, signs; prefixes 4 and pairs", f"ridge, weights^{power:g}"
    regression = train.Recipe(logistic, ("temperature",), 0, recipe.strengths)
    weighted = train.Recipe(NaiveBayesWeighted, ("sigmoid",), 0, recipe.strengths)
    words_2 = words(ngram_range=(1, 2))
    before = TfidfVectorizer(max_features=10_000, ngram_range=(1, 2), stop_words="english")
    default = TfidfVectorizer(ngram_range=(1, 2), min_df=2, sublinear_tf=True)
    prefixes_4, prefixes_3 = prefixes(4, ngram_range=(1, 2)), prefixes(3, ngram_range=(1, 2))
    characters_4, characters_5 = characters(ngram_range=(2, 4)), characters(ngram_range=(2, 5))
    return [
        Candidate("none", "majority", union(words()), train.Recipe(lambda _: Majority(), ("temperature",), 0, (1,))),
        Candidate("10,000 words and pairs, no stop words", "logistic", union(before), regression),
        Candidate("words and pairs", "logistic", union(default), regression),
        Candidate("words, signs and pairs", "logistic", union(words_2), regression),
        Candidate("words, signs and pairs", "logistic, NB-weighted", union(words_2), weighted),
        Candidate(ours, "logistic", train.features(), regression),
        Candidate(ours, f"logistic, weights^{power:g}", train.features(), regression._replace(rebalancing=power)),
        Candidate(ours, "logistic, balanced", train.features(), regression._replace(rebalancing=1)),
        Candidate(ours, "ridge", train.features(), recipe._replace(rebalancing=0)),
        Candidate(ours, f"{best}: **chosen**", train.features(), recipe),
        Candidate(ours, "ridge, balanced", train.features(), recipe._replace(rebalancing=1)),
        Candidate(ours, f"SVM, weights^{power:g}", train.features(), recipe._replace(classifier=svm)),
        Candidate("words, signs and pairs", best, union(words_2), recipe),
        Candidate("characters 2-5", best, union(characters_5), recipe),
        Candidate("words, signs; characters 2-5", best, union(words(), characters_5), recipe),
        Candidate("words, signs; prefixes 3 and pairs, 5", best, union(words(), prefixes_3, prefixes(5)), recipe),
        Candidate(f"{ours}; characters 2-4", best, union(words(), prefixes_4, characters_4), recipe),
    ]


def calibrated(tuning: train.Tuning, texts: Sequence[str], labels: Labels) -> Floats:
    """Probabilities (n, k) of the out-of-fold logits, by the temperature of the other folds."""
    p = np.zeros_like(tuning.logits)
    for others, fold in StratifiedKFold(FOLDS, shuffle=True, random_state=SEED).split(texts, labels):
        factor = train.temperature(tuning.logits[others], tuning.link, labels[others])
        p[fold] = LINKS[tuning.link](factor * tuning.logits[fold])
    return p


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m model.compare", description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True, help="the table, in Markdown")
    workers.add_option(parser)
    arguments = parser.parse_args()
    try:
        data = dataset.read(arguments.data)
    except dataset.DataError as error:
        print(error, file=sys.stderr)
        return 1
    texts, _, labels, _ = train.split(data.texts, data.labels)
    header = (
        "features",
        "classifier",
        "strength",
        "calibration",
        "accuracy",
        "macro-F1",
        "ECE",
        "log loss",
        "thousand features",
    )
    rows = [header, ("---",) * len(header)]
    for candidate in candidates():
        print(f"{candidate.features} · {candidate.classifier}", file=sys.stderr, flush=True)
        with workers.joblib_workers(arguments.on):
            tuning = train.tune(candidate.vectorizer, candidate.recipe, texts, labels)
        m = measures.measure(calibrated(tuning, texts, labels), labels)
        width = candidate.vectorizer.fit(texts).get_feature_names_out().size / 1000
        figures = (f"{tuning.strength:g}", tuning.method, *(f"{value:.4f}" for value in m.values()), f"{width:.1f}")
        rows.append((candidate.features, candidate.classifier, *figures))
        print(rows[-1], file=sys.stderr, flush=True)
    lines = [
        f"# What the recipe was chosen by: {data.path.name}, {len(data.texts):,} texts",
        "",
        "Made by `make compare-models`; `model/compare.py` says how each row is tuned, calibrated and measured.",
        f"{len(texts):,} texts (four fifths of `{data.path.name}`, sha256 `{data.sha256[:12]}…`), {FOLDS}-fold.",
        "",
        *("| " + " | ".join(row) + " |" for row in rows),
    ]
    arguments.output.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    with train.one_thread():
        sys.exit(main())
