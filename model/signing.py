"""Making a model's signature, from the fitted estimator and the data that it is tried on."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.base import is_classifier, is_regressor
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import ExtraTreesRegressor, RandomForestRegressor
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.impute import SimpleImputer
from sklearn.linear_model import ARDRegression, BayesianRidge
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder, TargetEncoder

from app.engines.signature import Column, Kind, Scalar, Signature, text_of
from model import table
from model.table import Table

_ENCODERS = (OneHotEncoder, OrdinalEncoder, TargetEncoder)
# Those that know `return_std`, and forests, whose trees predict one by one.
_WITH_SPREAD = (ARDRegression, BayesianRidge, GaussianProcessRegressor, RandomForestRegressor, ExtraTreesRegressor)


class Unservable(Exception):
    """A model that no engine can serve. The message is one line: what is wrong, and the remedy."""


def slug(path: Path) -> str:
    """A model's name from that of its file."""
    return re.sub(r"[^a-z0-9]+", "-", path.stem.lower()).strip("-") or "model"


def of_texts(estimator: Any, model: str) -> Signature:
    """Return the signature of an estimator that takes texts. Raises Unservable."""
    return Signature(model, kind_of(estimator), (), *_outputs(estimator))


def of_table(estimator: Any, model: str, data: Table | None) -> Signature:
    """Return the signature of an estimator for tables; without data all columns are numbers. Raises Unservable."""
    names = column_names(estimator, data)
    encoded = _encoded(estimator, names)
    columns = tuple(_column(name, data.columns[name] if data else (0.0,), encoded.get(name)) for name in names)
    if data is None:
        columns = tuple(column._replace(range=None) for column in columns)
    return Signature(model, kind_of(estimator), columns, *_outputs(estimator))


def kind_of(estimator: Any) -> Kind:
    """Raises Unservable where it is neither a classifier nor a regressor."""
    if is_classifier(estimator):
        return "classes"
    if is_regressor(estimator):
        return "number"
    raise Unservable(
        f"a {type(estimator).__name__} is neither a classifier nor a regressor, and says nothing of single inputs that "
        "could be served; use it as a step before one"
    )


def _outputs(estimator: Any) -> tuple[tuple[Scalar, ...], bool, bool]:
    """Labels, whether there are probabilities, whether there is a spread. Raises Unservable."""
    if kind_of(estimator) == "number":
        return (), False, isinstance(_last(estimator), _WITH_SPREAD)
    classes = estimator.classes_
    if isinstance(classes, list) or np.asarray(classes).ndim > 1:
        raise Unservable("it gives several labels at once (multilabel or multioutput); serve one model for each label")
    labels: tuple[Scalar, ...] = tuple(np.asarray(classes).tolist())
    odd = next((label for label in labels if not isinstance(label, str | int | float | bool)), None)
    if odd is not None:
        raise Unservable(f"the label {odd!r} is a {type(odd).__name__}; fit it on texts, numbers or booleans")
    if len(labels) < 2:
        raise Unservable(f"it knows {len(labels)} label; fit it on at least two")
    if len({text_of(label) for label in labels}) < len(labels):
        raise Unservable(
            f"two of its labels read the same as texts ({', '.join(map(repr, labels[:6]))}); make them differ"
        )
    return labels, callable(getattr(estimator, "predict_proba", None)), False


def _last(estimator: Any) -> Any:
    inner = getattr(estimator, "best_estimator_", estimator)
    return inner.steps[-1][1] if isinstance(inner, Pipeline) else inner


def column_names(estimator: Any, data: Table | None) -> list[str]:
    """From the model where it knows them, otherwise from the data. Raises Unservable where the two disagree."""
    names = getattr(estimator, "feature_names_in_", None)
    if names is not None:
        known = [str(name) for name in names]
        missing = [name for name in known if data and name not in data.columns]
        if data and missing:
            raise Unservable(
                f"the model takes the column {missing[0]!r}, which {data.path.name} does not have (its columns are "
                f"{', '.join(data.columns)}); give the data that the model was fitted on"
            )
        return known
    number = int(estimator.n_features_in_)
    if data is None:
        return [f"x{i}" for i in range(number)]
    if len(data.columns) != number:
        raise Unservable(
            f"the model takes {number} columns without names, and {data.path.name} has {len(data.columns)}: "
            f"{', '.join(data.columns)}; leave out what is no input (TARGET=column names what is predicted)"
        )
    return list(data.columns)


def _column(name: str, values: Sequence[Scalar | None], encoded: Sequence[Scalar] | None) -> Column:
    present = [value for value in values if value is not None]
    nullable = len(present) < len(values)
    if not present:
        raise Unservable(f"the column {name!r} of the data is empty; give data that has it")
    most = Counter(present).most_common(1)[0][0]
    if encoded:
        return Column(name, "category", most if most in encoded else encoded[0], tuple(encoded), None, nullable)
    kind = table.type_of(values)
    if kind == "category":
        return Column(name, kind, most, tuple(sorted({str(value) for value in present})), None, nullable)
    if kind in ("text", "boolean"):
        return Column(name, kind, most, (), None, nullable)
    ordered = sorted(float(value) for value in present)
    middle = ordered[len(ordered) // 2]
    return Column(name, kind, int(middle) if kind == "integer" else middle, (), (ordered[0], ordered[-1]), nullable)


def _encoded(step: Any, names: Sequence[str]) -> Mapping[str, Sequence[Scalar]]:
    """Values by column of what an encoder of categories was fitted on, as far as the pipeline shows it."""
    for attribute in ("best_estimator_", "estimator_"):
        if hasattr(step, attribute) and not isinstance(step, Pipeline):
            return _encoded(getattr(step, attribute), names)
    if isinstance(step, _ENCODERS) and len(step.categories_) == len(names):
        return {name: _values(values) for name, values in zip(names, step.categories_, strict=True)}
    if isinstance(step, ColumnTransformer):
        found: dict[str, Sequence[Scalar]] = {}
        for part, transformer, _ in step.transformers_:
            inside = [names[i] for i in step._transformer_to_input_indices.get(part, ())]
            found |= _encoded(transformer, inside)
        return found
    if isinstance(step, Pipeline):
        for _, part in step.steps:
            if not isinstance(part, SimpleImputer) and part not in (None, "passthrough"):
                return _encoded(part, names)
    return {}


def _values(categories: Any) -> list[Scalar]:
    """Without what stands for missing values; whole numbers as integers."""
    values = [value for value in np.asarray(categories).tolist() if value is not None and value == value]
    whole = all(isinstance(value, float) and value.is_integer() for value in values)
    return [int(value) for value in values] if whole else values
