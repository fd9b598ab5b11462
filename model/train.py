"""The recipe: which features, which classifier, and how its two numbers are chosen. docs/model.md says why."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.metrics import log_loss
from sklearn.model_selection import StratifiedKFold, train_test_split
from sklearn.pipeline import FeatureUnion, Pipeline
from sklearn.svm import LinearSVC
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from model.linear import LINKS, Floats, Linear, linear

Texts = Sequence[str]
Labels = NDArray[np.str_]
Fit = Callable[[float, Any, Labels], Linear]  # strength, matrix (n, f), labels (n,)

SEED = 0
FOLDS = 5  # of tuning: with fewer, models of fewer texts are judged, and all of them are better than they believe
STRENGTHS = (0.05, 0.2, 0.8)  # of the fit to the data: scikit-learn's C
REBALANCING = 0.3  # 0: labels count as often as they occur; 1: all labels count the same

# Words with their apostrophes, and what carries feeling on its own: emoticons, hearts, runs of ! and ?, emoji. Of links
# and mentions only that there is one; the name of who is spoken to says nothing.
SIGNS_AND_WORDS = (
    r"https?://|@(?=\w)|(?<!@)\b\w[\w']*|[:;=8xX]['\-]?[)(\]\[DdPpOo/\\|*3]+|<3+|[!?]+|\.\.+|&\w+;|[^\w\s]"
)


def one_thread() -> AbstractContextManager[object]:
    """Around all arithmetic: its sums then have one order, and the same data give the same bytes."""
    limits: AbstractContextManager[object] = threadpool_limits(1)
    return limits


def words(**options: Any) -> TfidfVectorizer:
    """Vectorizer of words and signs as they stand."""
    return TfidfVectorizer(token_pattern=SIGNS_AND_WORDS, min_df=2, sublinear_tf=True, **options)


def prefixes(length: int, **options: Any) -> TfidfVectorizer:
    """Vectorizer of the words' first letters: what stemming and characters give, at the price of words."""
    pattern = rf"(?<!@)\b\w{{1,{length}}}"
    return TfidfVectorizer(token_pattern=pattern, min_df=2, sublinear_tf=True, **options)


def features() -> FeatureUnion:
    """The features that are shipped."""
    return FeatureUnion([("words", words()), ("prefixes", prefixes(4, ngram_range=(1, 2)))])


def weights(labels: Labels, rebalancing: float = REBALANCING) -> Floats:
    """Of each row (n,): more for rare labels, which would never be named otherwise."""
    _, inverse, counts = np.unique(labels, return_inverse=True, return_counts=True)
    weight: Floats = (len(labels) / (len(counts) * counts)) ** rebalancing
    return weight[inverse]


def classifier(strength: float) -> CalibratedClassifierCV:
    """A linear SVM for each label against the rest, its margins made probabilities by Platt's sigmoids."""
    svm = LinearSVC(C=strength, random_state=SEED)
    return CalibratedClassifierCV(svm, method="sigmoid", ensemble=False, cv=3)


def fit_linear(strength: float, x: Any, labels: Labels) -> Linear:
    """The classifier, fitted, as coefficients."""
    return linear(classifier(strength).fit(x, labels, sample_weight=weights(labels)))


class Tuning(NamedTuple):
    """What cross-validation found."""

    strength: float
    temperature: float  # what logits are multiplied by: the inverse of the usual T
    logits: Floats  # (n, k) of each text, by a model that did not see it; not multiplied yet
    link: str


def temperature(logits: Floats, link: str, labels: Labels) -> float:
    """The factor of logits (n, k) with the least log loss: temperature scaling (Guo et al., ICML 2017)."""
    column = np.searchsorted(np.unique(labels), labels)

    def loss(log_factor: float) -> float:
        p = LINKS[link](np.exp(log_factor) * logits)
        return float(-np.log(p[np.arange(len(labels)), column]).mean())

    return float(np.exp(minimize_scalar(loss, bounds=(-2, 2), method="bounded", options={"xatol": 1e-4}).x))


def tune(
    vectorizer: FeatureUnion,
    fit: Fit,
    texts: Texts,
    labels: Labels,
    strengths: Sequence[float] = STRENGTHS,
    report: Callable[[str], None] = lambda _: None,
) -> Tuning:
    """Strength and temperature with the least log loss in stratified k-fold cross-validation.

    Strengths are tried in order until one is worse than the one before.
    """
    array = np.array(texts, dtype=object)
    folds = []
    for seen, unseen in StratifiedKFold(FOLDS, shuffle=True, random_state=SEED).split(array, labels):
        fold = clone(vectorizer)
        folds.append((seen, unseen, fold.fit_transform(array[seen]), fold.transform(array[unseen])))
    tunings: list[tuple[float, Tuning]] = []
    for strength in strengths:
        logits = np.zeros((len(labels), len(np.unique(labels))))
        for number, (seen, unseen, x, rest) in enumerate(folds, 1):
            report(f"C={strength:g}, fold {number} of {FOLDS}")
            model = fit(strength, x, labels[seen])
            logits[unseen] = model.logits(rest)
        factor = temperature(logits, model.link, labels)
        loss = log_loss(labels, LINKS[model.link](factor * logits))
        tunings.append((loss, Tuning(strength, factor, logits, model.link)))
        if len(tunings) > 1 and loss > tunings[-2][0]:
            break
    return min(tunings, key=lambda tuning: tuning[0])[1]


def fit(texts: Texts, labels: Labels, tuning: Tuning) -> Pipeline:
    """The pipeline of features() and classifier(), fitted. The temperature is multiplied into its sigmoids, so that
    predict_proba is calibrated and nothing but scikit-learn is needed to load it."""
    pipeline = Pipeline([("features", features()), ("classifier", classifier(tuning.strength))])
    pipeline.fit(texts, labels, classifier__sample_weight=weights(labels))
    for sigmoid in pipeline["classifier"].calibrated_classifiers_[0].calibrators:
        sigmoid.a_ *= tuning.temperature
        sigmoid.b_ *= tuning.temperature
    return pipeline


def split(texts: Texts, labels: Sequence[str]) -> tuple[list[str], list[str], Labels, Labels]:
    """Stratified four fifths to learn from and a fifth to hold out: texts, held-out texts, labels, held-out labels."""
    seen, unseen, y, held = train_test_split(
        list(texts), np.array(labels), test_size=0.2, stratify=labels, random_state=SEED
    )
    return seen, unseen, y, held
