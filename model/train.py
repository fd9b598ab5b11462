"""The recipe: which features, which classifier, and how its two numbers are chosen. docs/model-comparison-*.md say why."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax
from sklearn.base import clone
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.model_selection import StratifiedKFold, train_test_split
from sklearn.pipeline import FeatureUnion, Pipeline

Floats = NDArray[np.float64]
Texts = Sequence[str]
Labels = NDArray[np.str_]

SEED = 0
FOLDS = 3
STRENGTHS = (0.25, 1.0, 4.0)  # of the classifier's fit to the data: scikit-learn's C
REBALANCING = 0.4  # 0: labels count as often as they occur; 1: all labels count the same

# Words with their apostrophes, and what carries feeling on its own: emoticons, hearts, runs of ! and ?, emoji. Of links
# and mentions only that there is one; the name of who is spoken to says nothing.
TOKEN = r"https?://|@(?=\w)|(?<!@)\b\w[\w']*|[:;=8xX]['\-]?[)(\]\[DdPpOo/\\|*3]+|<3+|[!?]+|\.\.+|&\w+;|[^\w\s]"


def words(**options: Any) -> TfidfVectorizer:
    """Vectorizer of words and signs as they stand."""
    return TfidfVectorizer(token_pattern=TOKEN, min_df=2, sublinear_tf=True, **options)


def prefixes(length: int, **options: Any) -> TfidfVectorizer:
    """Vectorizer of the words' first letters: what stemming and characters give, at the price of words."""
    pattern = rf"(?<!@)\b\w{{1,{length}}}"
    return TfidfVectorizer(token_pattern=pattern, min_df=2, sublinear_tf=True, **options)


def features() -> FeatureUnion:
    """The features that are shipped."""
    return FeatureUnion([("words", words()), ("prefixes", prefixes(4, ngram_range=(1, 2)))])


def classifier(strength: float, labels: Labels, rebalancing: float = REBALANCING) -> LogisticRegression:
    """Multinomial logistic regression. Weights lean towards rare labels, or it would never name them."""
    names, counts = np.unique(labels, return_counts=True)
    weights = (len(labels) / (len(names) * counts)) ** rebalancing
    weight = dict(zip(names.tolist(), weights.tolist(), strict=True))
    return LogisticRegression(C=strength, class_weight=weight, max_iter=500, tol=1e-3)


class Tuning(NamedTuple):
    """What cross-validation found."""

    strength: float
    temperature: float  # what logits are multiplied by: the inverse of the usual T
    logits: Floats  # (n, k) of each text, by a model that did not see it; not multiplied yet


def temperature(logits: Floats, labels: Labels) -> float:
    """The factor of logits (n, k) with the least log loss: temperature scaling (Guo et al., ICML 2017)."""
    column = np.searchsorted(np.unique(labels), labels)

    def loss(log_factor: float) -> float:
        return float(-log_softmax(np.exp(log_factor) * logits, axis=1)[np.arange(len(labels)), column].mean())

    return float(np.exp(minimize_scalar(loss, bounds=(-3, 3), method="bounded", options={"xatol": 1e-4}).x))


def tune(
    vectorizer: FeatureUnion,
    make: Callable[[float, Labels], Any],
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
            logits[unseen] = make(strength, labels[seen]).fit(x, labels[seen]).decision_function(rest)
        factor = temperature(logits, labels)
        loss = log_loss(labels, softmax(factor * logits, axis=1))
        tunings.append((loss, Tuning(strength, factor, logits)))
        if len(tunings) > 1 and loss > tunings[-2][0]:
            break
    return min(tunings, key=lambda tuning: tuning[0])[1]


def fit(texts: Texts, labels: Labels, tuning: Tuning) -> Pipeline:
    """The pipeline of features() and classifier(); its coefficients have the temperature in them, so that
    predict_proba is calibrated and nothing but scikit-learn is needed to load it."""
    pipeline = Pipeline([("features", features()), ("classifier", classifier(tuning.strength, labels))])
    pipeline.fit(texts, labels)
    pipeline["classifier"].coef_ *= tuning.temperature
    pipeline["classifier"].intercept_ *= tuning.temperature
    return pipeline


def split(texts: Texts, labels: Sequence[str]) -> tuple[list[str], list[str], Labels, Labels]:
    """Four fifths to learn from and the fifth that is held out, stratified: texts, held-out texts, labels, held-out labels."""
    seen, unseen, y, held = train_test_split(
        list(texts), np.array(labels), test_size=0.2, stratify=labels, random_state=SEED
    )
    return seen, unseen, y, held
