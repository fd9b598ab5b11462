"""The recipe: which features, which classifier, and how its numbers are chosen. docs/model.md says why."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any, NamedTuple

import numpy as np
from joblib import Parallel, delayed
from numpy.typing import NDArray
from scipy import sparse
from scipy.optimize import minimize_scalar
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression, RidgeClassifier
from sklearn.metrics import log_loss
from sklearn.model_selection import StratifiedKFold, train_test_split
from sklearn.pipeline import FeatureUnion, Pipeline
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from model.linear import LINKS, Floats

Texts = Sequence[str]
Labels = NDArray[np.str_]

SEED = 0
SPLITS = 6  # of the evaluation, because the figures of a single split can be lucky
# Folds of the cross-validation that tunes the recipe. With fewer folds each model would be fitted on fewer texts, and
# its scores would fall further short of those of the final model, which is fitted on all of them.
FOLDS = 5
EMPTY = 0.03  # share of the texts that are learned a second time without their words
TUNED_ON = 50_000  # texts at most, because tuning on more takes longer and chooses the same
START = 10.0  # what a vectorizer's features of any text begin with: the value of the empty token
STRENGTHS = (0.1, 0.3, 1.0)  # of the fit to the data: 1 / alpha of a ridge regression
REBALANCING = 0.36  # 0: labels count as often as they occur; 1: all labels count the same

# Tokens are words with their apostrophes, and signs that express a feeling: emoticons, hearts, runs of ! and ?, emoji.
# Of a link or a mention only its beginning is a token, because addresses and user names say nothing about feelings.
SIGNS_AND_WORDS = (
    r"https?://|@(?=\w)|(?<!@)\b\w[\w']*|[:;=8xX]['\-]?[)(\]\[DdPpOo/\\|*3]+|<3+|[!?]+|\.\.+|&\w+;|[^\w\s]"
)


def one_thread() -> AbstractContextManager[object]:
    """Return a context in which linear algebra uses one thread: sums keep one order, so the same data give the same bytes."""
    limits: AbstractContextManager[object] = threadpool_limits(1)
    return limits


def words(**options: Any) -> TfidfVectorizer:
    """Return the vectorizer whose tokens are whole words and signs, and an empty one at the beginning (fit_features)."""
    return TfidfVectorizer(token_pattern=rf"\A|{SIGNS_AND_WORDS}", min_df=2, sublinear_tf=True, **options)


def prefixes(length: int, **options: Any) -> TfidfVectorizer:
    """Return the vectorizer of the first `length` letters of words: as useful as stemming or character n-grams, but cheap.

    A text begins and ends with an empty token, so that pairs know which word came first and which last (and fit_features).
    """
    pattern = rf"\A|(?<!@)\b\w{{1,{length}}}|\Z"
    return TfidfVectorizer(token_pattern=pattern, min_df=2, sublinear_tf=True, **options)


def features() -> FeatureUnion:
    """The features that are shipped."""
    return FeatureUnion([("words", words()), ("prefixes", prefixes(4, ngram_range=(1, 2)))])


def fit_features(union: FeatureUnion, texts: Texts) -> FeatureUnion:
    """Fit a copy of the vectorizers, and give the empty token the value START in every text.

    TfidfVectorizer makes the values of each text as long as 1, so that a word that stands alone would have all of it, however
    little it tells. With START among them, the others are as long as x / sqrt(x² + START²), x being their length before.
    """
    fitted = clone(union).fit(texts)
    for _, vectorizer in fitted.transformer_list:
        if "" in vectorizer.vocabulary_:
            times = vectorizer.build_analyzer()("text").count("")
            idf = vectorizer.idf_.copy()
            idf[vectorizer.vocabulary_[""]] = START / (1 + np.log(times))
            vectorizer.idf_ = idf
    return fitted


def matrix(union: FeatureUnion, texts: Texts) -> sparse.csr_array:
    """The features (n, f) of texts to learn from. The empty token's are 0, so that it gets the weight 0: it tells nothing."""
    x = sparse.csr_array(union.transform(texts))
    first = 0
    for _, vectorizer in union.transformer_list:
        if "" in vectorizer.vocabulary_:
            x.data[x.indices == first + vectorizer.vocabulary_[""]] = 0
        first += len(vectorizer.vocabulary_)
    x.eliminate_zeros()
    return x


def weights(labels: Labels, rebalancing: float) -> Floats:
    """Return each row's weight (n,): rare labels weigh more, since the model would never predict them otherwise."""
    _, inverse, counts = np.unique(labels, return_inverse=True, return_counts=True)
    weight: Floats = (len(labels) / (len(counts) * counts)) ** rebalancing
    return weight[inverse]


def ridge(strength: float) -> RidgeClassifier:
    """Least squares for each label against the rest. Its time grows as the data do; that of an SVM grows faster."""
    return RidgeClassifier(alpha=1 / strength, solver="sparse_cg", tol=1e-3)


class Recipe(NamedTuple):
    """A classifier, and the values of its parameters that cross-validation chooses from."""

    classifier: Callable[[float], Any]  # by its strength; with decision_function
    methods: Sequence[str]  # of calibration, as in CalibratedClassifierCV: "sigmoid", "temperature"
    rebalancing: float
    strengths: Sequence[float]


RECIPE = Recipe(ridge, ("sigmoid", "temperature"), REBALANCING, STRENGTHS)


class Tuning(NamedTuple):
    """The parameters that cross-validation chose."""

    strength: float
    method: str
    temperature: float  # what logits are multiplied by: the inverse of the usual T
    logits: Floats  # (n, k) of each text, by a model that did not see it; not multiplied yet
    link: str  # of logits to probabilities


def temperature(logits: Floats, link: str, labels: Labels) -> float:
    """The factor of logits (n, k) that makes the mean confidence equal to the accuracy.

    Temperature scaling (Guo et al., ICML 2017), fitted to that instead of the log loss: labels are weighted, so that the
    probabilities of rare ones are too high, and the log loss sees that before it sees the confidence.
    """
    accuracy = (np.unique(labels)[logits.argmax(axis=1)] == labels).mean()

    def gap(log_factor: float) -> float:
        return float(abs(LINKS[link](np.exp(log_factor) * logits).max(axis=1).mean() - accuracy))

    return float(np.exp(minimize_scalar(gap, bounds=(-3, 3), method="bounded", options={"xatol": 1e-4}).x))


def sigmoids(margins: Floats, labels: Labels, weight: Floats) -> Floats:
    """Margins (n, k) as the logits of each label against the rest (Platt, 1999)."""
    logits = np.empty_like(margins)
    for column, name in enumerate(np.unique(labels)):
        margin = margins[:, [column]]
        logistic = LogisticRegression(C=np.inf).fit(margin, labels == name, sample_weight=weight)
        logits[:, column] = logistic.decision_function(margin)
    return logits


def by_label(decision: Floats) -> Floats:
    """A classifier's decision_function as margins (n, k); of two labels scikit-learn gives one column, the second's."""
    return decision if decision.ndim == 2 else np.column_stack([-decision, decision])


def tune(
    vectorizer: FeatureUnion,
    recipe: Recipe,
    texts: Texts,
    labels: Labels,
    report: Callable[[str], None] = lambda _: None,
) -> Tuning:
    """Strength, method and temperature with the least log loss in stratified k-fold cross-validation.

    Strengths are tried in order until one is worse than the one before. The vectorizer sees the texts of all folds, and
    no label. Of more than TUNED_ON texts, a stratified sample of that size is used.
    """
    if len(texts) > TUNED_ON:
        texts, _, labels, _ = train_test_split(
            list(texts), labels, train_size=TUNED_ON, stratify=labels, random_state=SEED
        )
    x = matrix(fit_features(vectorizer, texts), texts)
    folds = list(StratifiedKFold(FOLDS, shuffle=True, random_state=SEED).split(x, labels))
    found: list[tuple[float, Tuning]] = []
    for strength in recipe.strengths:
        margins = np.zeros((len(labels), len(np.unique(labels))))
        report(f"strength {strength:g}")
        # One after the other, or where joblib was told to have them done (batch.cluster.joblib_workers).
        found_by_fold = Parallel()(
            delayed(_unseen_margins)(recipe.classifier(strength), x, labels, fold, recipe.rebalancing) for fold in folds
        )
        for (_, unseen), margin in zip(folds, found_by_fold, strict=True):
            margins[unseen] = margin
        trials = [_calibrate(margins, labels, strength, method, recipe.rebalancing) for method in recipe.methods]
        found.append(min(trials, key=lambda trial: trial[0]))
        if len(found) > 1 and found[-1][0] > found[-2][0]:
            break
    return min(found, key=lambda trial: trial[0])[1]


def _unseen_margins(
    model: Any, x: Any, labels: Labels, fold: tuple[NDArray[np.int64], NDArray[np.int64]], rebalancing: float
) -> Floats:
    """What the model says of one part of a fold when it has learned the other."""
    seen, unseen = fold
    model.fit(x[seen], labels[seen], sample_weight=weights(labels[seen], rebalancing))
    return by_label(model.decision_function(x[unseen]))


def _calibrate(
    margins: Floats, labels: Labels, strength: float, method: str, rebalancing: float
) -> tuple[float, Tuning]:
    """Log loss, and what has it."""
    platt = method == "sigmoid"
    logits = sigmoids(margins, labels, weights(labels, rebalancing)) if platt else margins
    link = "sigmoid" if platt else "softmax"
    factor = temperature(logits, link, labels)
    loss = log_loss(labels, LINKS[link](factor * logits))
    return loss, Tuning(strength, method, factor, logits, link)


def fit(texts: Texts, labels: Labels, tuning: Tuning) -> Pipeline:
    """The pipeline of features() and a calibrated ridge(), fitted. The temperature is in its calibrators, so that
    predict_proba is calibrated and nothing but scikit-learn is needed to load it.

    Some texts are learned a second time as empty ones. They have no feature, so that a text of which the model knows
    nothing gets about the labels' shares of the data, not the label with the largest intercept.
    """
    emptied = np.random.default_rng(SEED).choice(labels, round(EMPTY * len(labels)))
    texts, labels = [*texts, *[""] * len(emptied)], np.concatenate([labels, emptied])
    classifier = CalibratedClassifierCV(ridge(tuning.strength), method=tuning.method, ensemble=False, cv=FOLDS)
    union = fit_features(features(), texts)
    classifier.fit(matrix(union, texts), labels, sample_weight=weights(labels, REBALANCING))
    scale(classifier, tuning.temperature)
    return Pipeline([("features", union), ("classifier", classifier)])


def scale(classifier: CalibratedClassifierCV, factor: float) -> None:
    """Multiply the logits that its calibrators make by the temperature's factor."""
    for calibrator in classifier.calibrated_classifiers_[0].calibrators:
        if classifier.method == "sigmoid":
            calibrator.a_ *= factor
            calibrator.b_ *= factor
        else:
            calibrator.beta_ = factor


def split(texts: Texts, labels: Sequence[str], number: int = SEED) -> tuple[list[str], list[str], Labels, Labels]:
    """Stratified four fifths to learn from and a fifth to hold out: texts, held-out texts, labels, held-out labels.

    `number` is train_test_split's random_state.
    """
    seen, unseen, y, held = train_test_split(
        list(texts), np.array(labels), test_size=0.2, stratify=labels, random_state=number
    )
    return seen, unseen, y, held
