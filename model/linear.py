"""scikit-learn's linear classifiers, seen as what they have in common."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, softmax
from sklearn.calibration import CalibratedClassifierCV
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression, RidgeClassifier, SGDClassifier
from sklearn.multiclass import OneVsRestClassifier
from sklearn.naive_bayes import ComplementNB, MultinomialNB
from sklearn.svm import LinearSVC

Floats = NDArray[np.float64]


class NotCompilable(Exception):
    """A pipeline that the scorer's arrays cannot express. The message says which part of it."""


class Linear(NamedTuple):
    """Probabilities (n, k) = link(x @ coef.T + intercept), with coef (k, f) and intercept (k,)."""

    coef: Floats
    intercept: Floats
    link: str  # a key of LINKS
    decides_by: str = "logits"  # what `predict` takes the greatest of: "logits" or "probabilities"

    def logits(self, x: Any) -> Floats:
        """Return, for a matrix (n, f), dense or sparse, the values (n, k) that the link is applied to."""
        z: Floats = x @ self.coef.T + self.intercept
        return z


def _one_against_the_rest(z: Floats) -> Floats:
    p: Floats = expit(z)
    p /= p.sum(axis=1, keepdims=True)
    return p


LINKS: dict[str, Callable[[Floats], Floats]] = {"softmax": partial(softmax, axis=1), "sigmoid": _one_against_the_rest}


def linear(classifier: Any) -> Linear:
    """A fitted classifier's coefficients and link. Raises NotCompilable where it is not linear, or not known here."""
    kind = type(classifier)
    if kind is LogisticRegression:
        if len(classifier.classes_) == 2:
            return _of_two(classifier.coef_, classifier.intercept_)
        return Linear(classifier.coef_, classifier.intercept_, "softmax")
    if kind is MultinomialNB:
        return Linear(classifier.feature_log_prob_, classifier.class_log_prior_, "softmax")
    if kind is ComplementNB and len(classifier.classes_) > 1:
        return Linear(classifier.feature_log_prob_, np.zeros(len(classifier.classes_)), "softmax")
    if kind is SGDClassifier and classifier.loss == "log_loss":
        if len(classifier.classes_) == 2:
            return _of_two(classifier.coef_, classifier.intercept_)
        return Linear(classifier.coef_, classifier.intercept_, "sigmoid")
    if kind is OneVsRestClassifier and all(type(e) is LogisticRegression for e in classifier.estimators_):
        coef = np.concatenate([estimator.coef_ for estimator in classifier.estimators_])
        intercept = np.concatenate([estimator.intercept_ for estimator in classifier.estimators_])
        return Linear(coef, intercept, "sigmoid") if len(coef) > 1 else _of_two(coef, intercept)
    if kind is CalibratedClassifierCV and len(classifier.calibrated_classifiers_) == 1:
        return _calibrated(classifier.calibrated_classifiers_[0])
    raise NotCompilable(f"a {kind.__name__}" + (" of several models" if kind is CalibratedClassifierCV else ""))


def _of_two(coef: Floats, intercept: Floats) -> Linear:
    """The sigmoid of one score is the softmax of it and 0."""
    return Linear(np.vstack([np.zeros_like(coef), coef]), np.concatenate([[0.0], intercept]), "softmax")


def _calibrated(fitted: Any) -> Linear:
    base = fitted.estimator.estimator if type(fitted.estimator) is FrozenEstimator else fitted.estimator
    if type(base) not in (LogisticRegression, LinearSVC, RidgeClassifier, SGDClassifier):
        raise NotCompilable(f"a CalibratedClassifierCV of {type(base).__name__}")
    two = len(fitted.classes) == 2
    if fitted.method == "temperature":
        factor = float(fitted.calibrators[0].beta_)
        # Of two labels: the softmax of -z and z, which is that of 0 and 2 z.
        made = _of_two(base.coef_ * 2, base.intercept_ * 2) if two else Linear(base.coef_, base.intercept_, "softmax")
        made = made._replace(coef=made.coef * factor, intercept=made.intercept * factor)
    elif fitted.method == "sigmoid":
        slope = -np.array([calibrator.a_ for calibrator in fitted.calibrators])
        shift = -np.array([calibrator.b_ for calibrator in fitted.calibrators])
        coef, intercept = base.coef_ * slope[:, np.newaxis], base.intercept_ * slope + shift
        made = _of_two(coef, intercept) if two else Linear(coef, intercept, "sigmoid")
    else:
        raise NotCompilable(f"a CalibratedClassifierCV with method={fitted.method!r}")
    return made._replace(decides_by="probabilities")
