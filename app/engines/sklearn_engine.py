"""The engine for models that can neither be compiled nor had in ONNX: scikit-learn itself, in the very versions that the
manifest names, on an estimator that skops has written down. A skops file is data: reading it runs nothing but the
constructors of the types that are trusted here.
"""

from __future__ import annotations

import html
import warnings
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import skops.io
from numpy.typing import NDArray
from sklearn.ensemble._forest import ForestRegressor
from sklearn.exceptions import InconsistentVersionWarning
from sklearn.pipeline import Pipeline
from sklearn.utils.validation import check_array

from app.engines.artifact import MANIFEST, ArtifactError
from app.engines.batched import BatchEngine, Predicted
from app.engines.signature import Input, Row, Scalar, Signature

ESTIMATOR = "model.skops"
# Besides what skops trusts itself: scikit-learn's estimators, numpy's and scipy's arrays and ufuncs, Python's plain types.
# None of these can open a file, a connection or a process.
_TRUSTED_FUNCTIONS: tuple[Callable[..., Any], ...] = (html.unescape, check_array)
_TRUSTED = {
    *(f"{function.__module__}.{function.__qualname__}" for function in _TRUSTED_FUNCTIONS),
    *(
        "functools.partial",
        "operator.itemgetter",
        "collections.Counter",
        "collections.defaultdict",
        "collections.OrderedDict",
    ),
    *("numpy.dtype", "numpy.random.mtrand.RandomState", "numpy.random._generator.Generator"),
    "scipy.interpolate._interpolate.interp1d",
}
_TRUSTED_PREFIXES = tuple(
    f"sklearn.{package}."
    for package in (
        *(
            "_loss",
            "calibration",
            "cluster",
            "compose",
            "covariance",
            "cross_decomposition",
            "decomposition",
            "discriminant_analysis",
        ),
        *("dummy", "ensemble", "feature_extraction", "feature_selection", "gaussian_process", "impute", "isotonic"),
        *("kernel_approximation", "kernel_ridge", "linear_model", "manifold", "metrics", "mixture", "model_selection"),
        *("multiclass", "multioutput", "naive_bayes", "neighbors", "neural_network", "pipeline", "preprocessing"),
        *("random_projection", "semi_supervised", "svm", "tree", "utils._bunch", "utils._encode"),
    )
)


def untrusted(path: Path) -> list[str]:
    """Return the types in a skops file that are not trusted. Raises ArtifactError where it is no skops file."""
    try:
        names = skops.io.get_untrusted_types(file=path)
    except Exception as error:  # of zip files, of JSON, of skops
        wrong = f"is no skops file that can be read ({type(error).__name__}: {' '.join(str(error).split())})"
        raise ArtifactError(path, wrong, "save the estimator again with skops.io.dump") from None
    return [name for name in names if name not in _TRUSTED and not name.startswith(_TRUSTED_PREFIXES)]


def load_estimator(path: Path) -> Any:
    """The estimator in a skops file.

    Raises ArtifactError: types that are not trusted, another scikit-learn, a broken file.
    """
    if names := untrusted(path):
        raise ArtifactError(
            path, f"holds {', '.join(names)}, which is not on the list of trusted types", "use scikit-learn's own parts"
        )
    with warnings.catch_warnings():
        warnings.simplefilter("error", InconsistentVersionWarning)
        try:
            return skops.io.load(path, trusted=skops.io.get_untrusted_types(file=path))
        except InconsistentVersionWarning as warning:
            saved, here = warning.original_sklearn_version, warning.current_sklearn_version
            raise ArtifactError(
                path, f"was saved by scikit-learn {saved}, here is {here}", f"fit it again with {here}"
            ) from None
        except Exception as error:  # whatever the constructors raise
            wrong = f"cannot be loaded ({type(error).__name__}: {' '.join(str(error).split())})"
            raise ArtifactError(path, wrong, "save it again with this scikit-learn") from None


class SklearnEngine(BatchEngine):
    """Serves any estimator that has `predict`, as fast as scikit-learn itself is."""

    name = "sklearn"

    def __init__(self, directory: Path, manifest: Mapping[str, Any]) -> None:
        """Raises ArtifactError where the installed libraries are not those of the manifest, or the labels differ."""
        super().__init__(directory, manifest)
        path = directory / MANIFEST
        if ESTIMATOR not in manifest["files"]:
            raise ArtifactError(path, f"has no sha256 of {ESTIMATOR}")
        for library, wanted in dict(manifest.get("libraries") or {}).items():
            try:
                found = version(library)
            except PackageNotFoundError:
                found = "not installed"
            if found != wanted:
                wrong = f"wants {library} {wanted}, here it is {found}"
                raise ArtifactError(path, wrong, f"install {library}=={wanted}, or import the model again")
        self._estimator = load_estimator(directory / ESTIMATOR)
        if self.signature.kind == "classes" and labels_of(self._estimator) != self.signature.labels:
            raise ArtifactError(path, "names other labels than the estimator")
        self._predict = predictor(self._estimator, self.signature)
        vectorizer = _vectorizer(self._estimator) if self.signature.takes_text else None
        self._vocabulary = vectorizer.vocabulary_ if vectorizer is not None else {}
        self._analyze = vectorizer.build_analyzer() if vectorizer is not None else None

    def predict(self, inputs: Sequence[Input]) -> Predicted:
        return self._predict(matrix(inputs, self.signature))

    def tokens(self, x: Input) -> tuple[int, int]:
        if self._analyze is None:
            return 0, 0
        tokens = self._analyze(x)
        return len(tokens), sum(token not in self._vocabulary for token in tokens)


def labels_of(estimator: Any) -> tuple[Scalar, ...]:
    """Return an estimator's classes as plain Python values."""
    return tuple(np.asarray(estimator.classes_).tolist())


def matrix(inputs: Sequence[Input], signature: Signature) -> Any:
    """What an estimator takes for inputs: a list of texts, or an array (n, columns), of floats where all columns are
    numbers. A missing value is NaN."""
    if signature.takes_text:
        return list(inputs)
    rows: list[Row] = [tuple(np.nan if value is None else value for value in row) for row in inputs]
    numeric = all(column.type in ("number", "integer") for column in signature.columns)
    return np.array(rows, dtype=np.float64 if numeric else object)


def predictor(estimator: Any, signature: Signature) -> Callable[[Any], Predicted]:
    """`predict` of an estimator, with its probabilities or its spread."""

    def predict(x: Any) -> Predicted:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of feature names: columns come in the signature's order
            if signature.spread:
                numbers, spread = with_spread(estimator, x)
                return Predicted(numbers.tolist(), None, spread)
            labels = np.asarray(estimator.predict(x))
            probabilities = (
                np.asarray(estimator.predict_proba(x), dtype=np.float64) if signature.probabilities else None
            )
        return Predicted(labels.ravel().tolist(), probabilities)

    return predict


def with_spread(estimator: Any, x: Any) -> tuple[NDArray[Any], NDArray[np.float64]]:
    """Predictions (n,) and their standard deviations (n,): of a model that has `return_std`, or over a forest's trees."""
    steps = estimator.steps if isinstance(estimator, Pipeline) else [("model", estimator)]
    model = steps[-1][1]
    if not isinstance(model, ForestRegressor):
        numbers, spread = estimator.predict(x, return_std=True)
        return np.asarray(numbers), np.asarray(spread, dtype=np.float64)
    for _, step in steps[:-1]:
        x = x if step in (None, "passthrough") else step.transform(x)
    x = model._validate_X_predict(x)  # in 32 bits, which the trees take
    by_tree = np.stack([tree.predict(x, check_input=False) for tree in model.estimators_])
    return by_tree.mean(axis=0), by_tree.std(axis=0)


def _vectorizer(step: Any) -> Any:
    """The first part with a vocabulary in a pipeline of pipelines and unions, or None."""
    if hasattr(step, "vocabulary_") and hasattr(step, "build_analyzer"):
        return step
    inner = [getattr(step, "best_estimator_", None), getattr(step, "estimator_", None)]
    for part in [*inner, *(part for _, part in [*getattr(step, "steps", ()), *getattr(step, "transformer_list", ())])]:
        if part is not None and (found := _vectorizer(part)) is not None:
            return found
    return None
