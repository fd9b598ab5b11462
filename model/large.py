"""Learning from more texts than cross-validation has time for: the same features and calibration, each text seen few times.

model.train fits six ridge regressions for each of seven sets of texts, and the time of each grows faster than the texts do. Here
two logistic regressions are fitted, by stochastic gradient descent, whose time grows as the texts do; vocabulary, calibration and
evaluation are made of samples, whose sizes do not grow at all. docs/training.md compares the solvers.
"""

from __future__ import annotations

import tempfile
import warnings
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from joblib import Parallel, cpu_count, delayed
from numpy.typing import NDArray
from scipy import sparse
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import SGDClassifier
from sklearn.pipeline import FeatureUnion, Pipeline

from app.engines.artifact import read_manifest
from batch.vectorised import VectorisedEngine
from model import measures, parity, train
from model.compile import compiled
from model.dataset import Dataset
from model.learned import Evaluation, Learned
from model.parity import Disparity
from model.progress import Progress
from model.train import FOLDS, RECIPE, SEED, SPLITS, TUNED_ON, Labels, Recipe, Texts

ROWS = 100_000  # more than these are learned from in this way
HELD = 30_000  # rows to measure on: by so many the accuracy is known to 0.3 points
CALIBRATED = 15_000  # rows that the calibration is made from
VOCABULARY_FROM = 400_000  # texts: a word that is in two of these is a feature
FEATURES = 100_000  # of a vectorizer at most, the most frequent: 10 MB of a model with 13 labels
STRENGTHS = (0.1, 0.3, 1.0, 3.0, 10.0)  # as C of scikit-learn's LogisticRegression
STEP = 0.8  # of the gradient descent; texts have at most the length 1 in each vectorizer's features
PASSES = 3  # of the gradient descent over the texts at least,
SEEN = 200_000  # and as many as it takes to see so many
CHUNK = 100_000  # texts that a process is given at a time

Rows = NDArray[np.intp]


def descent(strength: float, rows: int) -> SGDClassifier:
    """Logistic regression for each label against the rest, approached in passes over so many rows.

    The step is constant and the weights are averaged: Bach and Moulines, "Non-strongly-convex smooth stochastic approximation
    with convergence rate O(1/n)", NIPS 2013. The logistic loss, unlike the squared one, cannot throw the weights far off at a row
    whose label is rare and weighs much.
    """
    return SGDClassifier(
        loss="log_loss",
        alpha=1 / (strength * rows),
        learning_rate="constant",
        eta0=STEP,
        average=True,
        max_iter=max(PASSES, SEEN // rows),
        tol=None,
        random_state=SEED,
        n_jobs=cpu_count(),
    )


def recipe(rows: int) -> Recipe:
    """What train.tune() chooses from, where the classifier learns from so many rows."""
    return RECIPE._replace(classifier=partial(descent, rows=rows), strengths=STRENGTHS)


class Parts(NamedTuple):
    """Places of rows in the data, ascending."""

    tuned: Rows  # some of those learned
    learned: Rows
    calibrated: Rows
    held: Rows
    held_split: Rows  # (len(held),): which of SPLITS each is in


def part(labels: Labels) -> Parts:
    """Hold out about CALIBRATED and HELD rows, a fifth each at most: of each label its share, but some at least."""
    _, codes, counts = np.unique(labels, return_inverse=True, return_counts=True)
    order = np.random.default_rng(SEED).permutation(len(labels))
    order = order[np.argsort(codes[order], kind="stable")]
    place = np.arange(len(order)) - np.repeat(np.cumsum(counts) - counts, counts)  # among the rows of the label

    def share(rows: int, most: float, least: int) -> Rows:
        found: Rows = np.maximum((counts * min(rows / len(labels), most)).astype(int), least)
        return found

    def rows(first: Rows, last: Rows) -> Rows:
        return order[(place >= np.repeat(first, counts)) & (place < np.repeat(last, counts))]

    held = share(HELD, 0.2, SPLITS)
    unseen = held + share(CALIBRATED, 0.2, 3)
    tuned = np.minimum(unseen + share(TUNED_ON - FOLDS * len(counts), 1, FOLDS), counts)
    by_place = np.argsort(rows(0 * held, held))
    return Parts(
        np.sort(rows(unseen, tuned)),
        np.sort(rows(unseen, counts)),
        np.sort(rows(held, unseen)),
        rows(0 * held, held)[by_place],
        place[place < np.repeat(held, counts)][by_place] % SPLITS,
    )


def vocabulary(texts: Texts) -> FeatureUnion:
    """The recipe's features, fitted on a sample, and no more than FEATURES of each vectorizer."""
    union = clone(train.features())
    for _, vectorizer in union.transformer_list:
        vectorizer.set_params(max_features=FEATURES)
    if len(texts) > VOCABULARY_FROM:
        chosen = np.random.default_rng(SEED).choice(len(texts), VOCABULARY_FROM, replace=False)
        texts = [texts[row] for row in np.sort(chosen)]
    return train.fit_features(union, texts)


def matrix(union: FeatureUnion, texts: Texts) -> sparse.csr_array:
    """train.matrix() of texts, made by a process for each core."""
    starts = range(0, len(texts), CHUNK)
    made = Parallel(n_jobs=cpu_count())(delayed(train.matrix)(union, texts[start : start + CHUNK]) for start in starts)
    return sparse.csr_array(sparse.vstack(made, format="csr"))


def fitted(strength: float, x: sparse.csr_array, labels: Labels) -> SGDClassifier:
    """descent() of texts, some of which are learned a second time as empty ones, as in train.fit()."""
    emptied = np.random.default_rng(SEED).choice(labels, round(train.EMPTY * len(labels)))
    labels = np.concatenate([labels, emptied])
    ends = np.concatenate([x.indptr, np.full(len(emptied), x.indptr[-1], x.indptr.dtype)])
    x = sparse.csr_array((x.data, x.indices, ends), shape=(len(labels), x.shape[1]))
    classifier = descent(strength, len(labels))
    return classifier.fit(x, labels, sample_weight=train.weights(labels, RECIPE.rebalancing))


def calibrated(
    classifier: SGDClassifier, method: str, x: sparse.csr_array, labels: Labels
) -> tuple[CalibratedClassifierCV, float]:
    """The classifier with probabilities, and their temperature's factor, made from rows x that it did not see."""
    weight = train.weights(labels, RECIPE.rebalancing)
    made = CalibratedClassifierCV(FrozenEstimator(classifier), method=method)
    with warnings.catch_warnings():
        # That a frozen classifier does not learn from weights is no harm: it does not learn.
        warnings.filterwarnings("ignore", "Since FrozenEstimator does not appear to accept sample_weight")
        made.fit(x, labels, sample_weight=weight)
    logits, link = train.by_label(classifier.decision_function(x)), "softmax"
    if method == "sigmoid":
        logits, link = train.sigmoids(logits, labels, weight), "sigmoid"
    factor = train.temperature(logits, link, labels)
    train.scale(made, factor)
    return made, factor


def learn(data: Dataset, progress: Progress) -> Learned:
    """The pipeline of all texts, and the evaluation of one that learned from all but those of `part`."""
    texts, labels = data.texts, np.array(data.labels)
    parts = part(labels)
    with progress.stage(f"Tuning on {len(parts.tuned):,} texts"):
        some = recipe(len(parts.tuned) * (FOLDS - 1) // FOLDS)
        tuned = [texts[row] for row in parts.tuned]
        tuning = train.tune(train.features(), some, tuned, labels[parts.tuned], report=progress.detail)
    with progress.stage("Learning the vocabulary"):
        union = vocabulary([texts[row] for row in parts.learned])
    with progress.stage("Making the features of every text"):
        x = matrix(union, texts)
    held = [texts[row] for row in parts.held]
    with progress.stage(f"Evaluating on {len(held):,} held-out texts"):
        first = fitted(tuning.strength, x[parts.learned], labels[parts.learned])
        classifier, factor = calibrated(first, tuning.method, x[parts.calibrated], labels[parts.calibrated])
        pipeline = Pipeline([("features", union), ("classifier", classifier)])
        with tempfile.TemporaryDirectory() as scratch:
            scores = list(compiled(pipeline, Path(scratch), data).score_batch(held))
        truth = labels[parts.held]
        p = np.array([score.probabilities for score in scores])
        splits = [parts.held_split == number for number in range(SPLITS)]
        measured = [measures.measure(p[split], truth[split]) for split in splits]
    how = f"""Measured on {len(held):,} texts in {SPLITS} stratified splits, which one model was asked for that had learned
from {len(parts.learned):,} others. Figures are means with the standard deviation over the splits.
Strength and the kind of calibration were chosen by cross-validation on {len(parts.tuned):,} texts; the calibration is from
{len(parts.calibrated):,} that were not learned from."""
    with progress.stage("Fitting on all texts"):
        # The calibration is that of the model before, which has not seen the texts that it was made from.
        classifier.calibrated_classifiers_[0].estimator = FrozenEstimator(fitted(tuning.strength, x, labels))
    return Learned(
        pipeline,
        f"A logistic regression with C {tuning.strength:g}, fitted by stochastic gradient descent",
        tuning._replace(temperature=factor),
        Evaluation(held, truth, scores, measured, how),
        partial(check, classifier, x, texts=texts),
    )


def check(classifier: CalibratedClassifierCV, x: sparse.csr_array, directory: Path, texts: Texts) -> float:
    """The largest difference of a probability between the classifier and the artifacts in `directory`, by vectorised arithmetic.

    Of all texts, whose features are x, by a process for each core. Raises Disparity as parity.check() does.
    """
    starts = range(0, len(texts), CHUNK)
    compare = delayed(_difference)
    found = Parallel(n_jobs=cpu_count())(
        compare(classifier, x[start : start + CHUNK], directory, texts[start : start + CHUNK]) for start in starts
    )
    return max(map(float, found))


def _difference(classifier: CalibratedClassifierCV, x: sparse.csr_array, directory: Path, texts: Texts) -> float:
    engine = VectorisedEngine(directory, read_manifest(directory))
    expected = classifier.predict_proba(x)
    named = expected.argmax(axis=1)  # which is what CalibratedClassifierCV predicts
    labels, p = engine.scores(texts)
    differences = np.abs(p - expected).max(axis=1)
    every = np.arange(len(texts))
    # Labels that are equally probable to within rounding may change places.
    tie = np.abs(expected[every, labels] - expected[every, named]) < 1e-12
    for row in np.flatnonzero(~(differences <= parity.TOLERANCE) | ((labels != named) & ~tie)).tolist():
        raise Disparity(
            f"{texts[row]!r} is {classifier.classes_[named[row]]} at {expected[row].max():.9f}, "
            f"compiled {classifier.classes_[labels[row]]} at {p[row].max():.9f}"
        )
    return float(differences.max())
