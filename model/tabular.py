"""A fitted estimator of a table as the arrays that app.engines.rows maps."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from math import isnan, nan
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import (
    ExtraTreesClassifier,
    ExtraTreesRegressor,
    GradientBoostingClassifier,
    GradientBoostingRegressor,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.feature_selection import SelectorMixin
from sklearn.impute import SimpleImputer
from sklearn.linear_model import (
    ElasticNet,
    ElasticNetCV,
    GammaRegressor,
    HuberRegressor,
    Lasso,
    LassoCV,
    LinearRegression,
    PoissonRegressor,
    Ridge,
    RidgeCV,
    SGDRegressor,
)
from sklearn.pipeline import FeatureUnion, Pipeline
from sklearn.preprocessing import (
    FunctionTransformer,
    MaxAbsScaler,
    MinMaxScaler,
    OneHotEncoder,
    OrdinalEncoder,
    RobustScaler,
    StandardScaler,
)
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor, ExtraTreeClassifier, ExtraTreeRegressor

from app.engines.rows import LEAF, STEPS
from app.engines.signature import Column, Scalar, Signature
from model.arrays import Arrays, save
from model.linear import Floats, NotCompilable, linear

# Comparisons for a row up to which Python is about as fast as onnxruntime with all that it is given (docs/model-benchmarks.md).
MOST_COMPARISONS = 2000

_REGRESSIONS = {
    **dict.fromkeys((LinearRegression, Ridge, RidgeCV, Lasso, LassoCV, ElasticNet, ElasticNetCV), "identity"),
    **dict.fromkeys((HuberRegressor, SGDRegressor), "identity"),
    **dict.fromkeys((PoissonRegressor, GammaRegressor), "exp"),
}
_TREES = (DecisionTreeClassifier, DecisionTreeRegressor, ExtraTreeClassifier, ExtraTreeRegressor)
_FORESTS = (RandomForestClassifier, RandomForestRegressor, ExtraTreesClassifier, ExtraTreesRegressor)
_BOOSTED = (GradientBoostingClassifier, GradientBoostingRegressor)
_HISTOGRAMS = (HistGradientBoostingClassifier, HistGradientBoostingRegressor)


class Feature(NamedTuple):
    """What a step is given of a column: a number after some steps, or a value for each of the column's values."""

    column: int
    steps: tuple[tuple[str, float], ...] = ()
    values: tuple[Scalar, ...] | None = None
    missing: Scalar = nan  # what stands for a missing value

    def then(self, step: str, by: float) -> Feature:
        """Add, multiply by or divide by a number."""
        missing = STEPS[step](_number(self.missing), by)
        if self.values is None:
            return self._replace(steps=(*self.steps, (step, by)), missing=missing)
        return self._replace(values=tuple(STEPS[step](_number(value), by) for value in self.values), missing=missing)

    def mapped(self, change: Callable[[Scalar], float], missing: float, what: str) -> Feature:
        """Change each of the column's values."""
        if self.values is None:
            raise NotCompilable(f"{what} of numbers")
        return self._replace(values=tuple(map(change, self.values)), missing=missing)

    def spec(self) -> dict[str, Any]:
        """The manifest's entry."""
        missing = _number(self.missing)
        given = {"column": self.column, "missing": None if isnan(missing) else missing}
        if self.values is None:
            return {**given, "steps": self.steps}
        return {**given, "values": [_number(value) for value in self.values]}


class Tree(NamedTuple):
    """A tree of n nodes whose leaves have k values."""

    left: NDArray[np.int64]  # (n,), the node itself where it is a leaf
    right: NDArray[np.int64]
    feature: NDArray[np.int64]
    threshold: Floats
    missing_left: NDArray[np.bool_]
    values: Floats  # (n, k)

    def depth_first(self) -> Iterator[tuple[int, int]]:
        """The nodes, each with its depth, a node's left child after it."""
        waiting = [(0, 0)]
        while waiting:
            node, depth = waiting.pop()
            yield node, depth
            if self.left[node] != node:
                waiting += [(self.right[node], depth + 1), (self.left[node], depth + 1)]


class Ensemble(NamedTuple):
    """Trees whose values are added to `intercept` (outputs,), or averaged; then comes the link."""

    trees: list[Tree]
    intercept: Sequence[float]
    link: str
    mean: bool  # whether values are averaged
    single: bool  # whether features are compared in 32 bits
    turns: Sequence[int] = ()  # the outputs that leaves with one value add to, in turns


def compile_rows(
    estimator: Any, signature: Signature, directory: Path, most: float = MOST_COMPARISONS
) -> dict[str, Any]:
    """Write the arrays into `directory` and return the manifest's entry `scorer`.

    Raises NotCompilable before anything is written: what the arrays cannot express, or more comparisons than `most`.
    """
    return save(directory, lambda: _compile(estimator, signature, most))


def _compile(estimator: Any, signature: Signature, most: float) -> tuple[dict[str, Any], Arrays]:
    features = [_given(i, column) for i, column in enumerate(signature.columns)]
    if isinstance(estimator, Pipeline):
        for _, step in estimator.steps[:-1]:
            features = _after(step, features)
        estimator = estimator.steps[-1][1]
    if signature.spread and type(estimator) not in _FORESTS:
        raise NotCompilable(f"the spread of a {type(estimator).__name__}")
    if signature.labels and not signature.probabilities:
        raise NotCompilable(f"a {type(estimator).__name__}, which has no probabilities")
    form: dict[str, Any] = {"features": [feature.spec() for feature in features], "decides_by": "probabilities"}
    if ensemble := _ensemble(estimator):
        comparisons = sum(max(depth for _, depth in tree.depth_first()) for tree in ensemble.trees)
        if comparisons > most:
            raise NotCompilable(f"up to {comparisons:,} comparisons for a row, for which Python is slow")
        form |= {"model": "trees", "link": ensemble.link, "mean": ensemble.mean, "single": ensemble.single}
        return {**form, "turns": list(ensemble.turns)}, _laid_out(ensemble)
    if type(estimator) in _REGRESSIONS:
        link, decides_by = _REGRESSIONS[type(estimator)], "probabilities"
        coef, intercept = np.atleast_2d(estimator.coef_), np.atleast_1d(estimator.intercept_)
    else:
        coef, intercept, link, decides_by = linear(estimator)
        if link == "softmax":  # which ignores what is added to all logits alike; explanations do not
            coef, intercept = coef - coef.mean(axis=0), intercept - intercept.mean()
    if coef.shape[1] != len(features):
        raise NotCompilable("a model that was not fitted on these columns")
    arrays = {"weights": coef.T.astype(np.float64), "intercept": intercept.astype(np.float64)}
    return {**form, "model": "linear", "link": link, "decides_by": decides_by}, arrays


def _given(place: int, column: Column) -> Feature:
    if column.type == "text":
        return Feature(place, missing="")  # which no step takes, so that only steps that drop it are left
    return Feature(place, values=(False, True) if column.type == "boolean" else column.values or None)


def _number(value: Scalar) -> float:
    if isinstance(value, str):
        raise NotCompilable("a text that no step turns into a number")
    return float(value)


# --- what comes before the model ---


def _after(step: Any, features: list[Feature]) -> list[Feature]:
    """The features after a step. Raises NotCompilable for one that does not work column by column."""
    if step is None or isinstance(step, str):
        return [] if step == "drop" else features
    if isinstance(step, Pipeline):
        for _, part in step.steps:
            features = _after(part, features)
        return features
    if type(step) in (ColumnTransformer, FeatureUnion) and step.transformer_weights:
        raise NotCompilable("weights of transformers")
    if type(step) is FeatureUnion:
        return [made for _, part in step.transformer_list for made in _after(part, features)]
    if type(step) is ColumnTransformer:
        places = step._transformer_to_input_indices
        return [
            made for name, part, _ in step.transformers_ for made in _after(part, [features[i] for i in places[name]])
        ]
    if isinstance(step, SelectorMixin):
        return [feature for feature, chosen in zip(features, step.get_support(), strict=True) if chosen]
    if type(step) is FunctionTransformer and step.func is None:  # "passthrough" in a ColumnTransformer
        return features
    if type(step) not in _STEPS:
        raise NotCompilable(f"a {type(step).__name__} before the model")
    return _STEPS[type(step)](step, features)


def _imputed(step: SimpleImputer, features: list[Feature]) -> list[Feature]:
    if step.add_indicator or len(step.statistics_) != len(features) or step.missing_values == step.missing_values:
        raise NotCompilable("a SimpleImputer of other than missing values, or with indicators")
    filled: list[Scalar] = np.asarray(step.statistics_).tolist()
    if any(value != value for value in filled):
        raise NotCompilable("a SimpleImputer that leaves out a column")
    return [
        feature._replace(missing=value) if feature.missing != feature.missing else feature
        for feature, value in zip(features, filled, strict=True)
    ]


def _moved(*steps: tuple[str, str, int]) -> Callable[[Any, list[Feature]], list[Feature]]:
    """Apply attributes (f,) of a scaler one after the other, each with its sign; one that is None does nothing."""

    def move(step: Any, features: list[Feature]) -> list[Feature]:
        if getattr(step, "clip", False):
            raise NotCompilable(f"a {type(step).__name__} that clips")
        for name, attribute, sign in steps:
            numbers = getattr(step, attribute)
            if numbers is not None:
                features = [f.then(name, sign * float(by)) for f, by in zip(features, numbers, strict=True)]
        return features

    return move


def _one_hot(step: OneHotEncoder, features: list[Feature]) -> list[Feature]:
    if any(rare is not None for rare in getattr(step, "infrequent_categories_", ())):
        raise NotCompilable("a OneHotEncoder that puts rare categories together")
    made = []
    for i, (feature, categories) in enumerate(zip(features, step.categories_, strict=True)):
        known = _known(feature, categories, step.handle_unknown == "ignore")
        places = feature.mapped(known, known(feature.missing), "categories")
        dropped = None if step.drop_idx_ is None else step.drop_idx_[i]
        made += [
            places.mapped(partial(_same, place), _same(place, places.missing), "")
            for place in range(len(categories))
            if place != dropped
        ]
    return made


def _same(place: int, value: Scalar) -> float:
    return float(value == place)


def _ordinal(step: OrdinalEncoder, features: list[Feature]) -> list[Feature]:
    made = []
    for feature, categories in zip(features, step.categories_, strict=True):
        known = _known(feature, categories, False)
        missing = known(feature.missing) if feature.missing == feature.missing else step.encoded_missing_value
        made.append(feature.mapped(known, missing, "categories"))
    return made


def _known(feature: Feature, categories: Any, unknown: bool) -> Callable[[Scalar], int]:
    """The place of a value in an encoder's categories; -1 for none. Raises NotCompilable where the column has others."""
    listed: list[Any] = np.asarray(categories).tolist()
    places = {value: i for i, value in enumerate(listed) if value is not None and value == value}
    of_missing = next((i for i, value in enumerate(listed) if value is None or value != value), -1)
    if not unknown and any(value not in places for value in feature.values or ()):
        raise NotCompilable("an encoder of other categories than the column's")
    return lambda value: places.get(value, -1) if value == value else of_missing


_STEPS: dict[type, Callable[[Any, list[Feature]], list[Feature]]] = {
    SimpleImputer: _imputed,
    StandardScaler: _moved(("add", "mean_", -1), ("divide", "scale_", 1)),
    RobustScaler: _moved(("add", "center_", -1), ("divide", "scale_", 1)),
    MinMaxScaler: _moved(("multiply", "scale_", 1), ("add", "min_", 1)),
    MaxAbsScaler: _moved(("divide", "scale_", 1)),
    OneHotEncoder: _one_hot,
    OrdinalEncoder: _ordinal,
}


# --- trees ---


def _ensemble(model: Any) -> Ensemble | None:
    """The trees of a model; None where it is of another kind. Raises NotCompilable."""
    labels = len(getattr(model, "classes_", ()))
    if type(model) in _TREES or type(model) in _FORESTS:
        trees = [_tree(part.tree_) for part in getattr(model, "estimators_", [model])]
        return Ensemble(trees, [0.0] * (labels or 1), "identity", mean=True, single=True, turns=[0])
    if type(model) in _BOOSTED:
        if model.init is not None and model.init != "zero":
            raise NotCompilable(f"a {type(model).__name__} that begins with another model")
        start = model._raw_predict_init(np.zeros((1, model.n_features_in_), dtype=np.float32)).ravel()
        twice = 2.0 if getattr(model, "loss", "") == "exponential" else 1.0  # its link is the sigmoid of 2 z
        trees = [_tree(part.tree_, twice * model.learning_rate) for stage in model.estimators_ for part in stage]
        return _boosted(trees, twice * start, labels, "identity")
    if type(model) in _HISTOGRAMS:
        if model._preprocessor is not None or (model.is_categorical_ is not None and model.is_categorical_.any()):
            raise NotCompilable("categories within boosting by histograms")
        link = {"poisson": "exp", "gamma": "exp"}.get(model.loss, "identity")
        trees = [_histogram(part.nodes) for stage in model._predictors for part in stage]
        return _boosted(trees, np.ravel(model._baseline_prediction), labels, link)._replace(single=False)
    return None


def _boosted(trees: list[Tree], start: Any, labels: int, link: str) -> Ensemble:
    if labels == 2:  # the sigmoid of one score is the softmax of 0 and it
        return Ensemble(trees, [0.0, float(start[0])], "softmax", mean=False, single=True, turns=[1])
    turns = list(range(labels or 1))
    return Ensemble(trees, start.tolist(), "softmax" if labels else link, mean=False, single=True, turns=turns)


def _tree(fitted: Any, scale: float = 1.0) -> Tree:
    values = fitted.value
    if values.shape[1] != 1:
        raise NotCompilable("a tree with several outputs")
    nodes = np.arange(fitted.node_count)
    leaf = fitted.children_left == -1
    left, right = (np.where(leaf, nodes, children) for children in (fitted.children_left, fitted.children_right))
    return Tree(
        left, right, fitted.feature, fitted.threshold, fitted.missing_go_to_left.astype(bool), scale * values[:, 0]
    )


def _histogram(nodes: Any) -> Tree:
    places = np.arange(len(nodes))
    leaf = nodes["is_leaf"].astype(bool)
    left, right = (np.where(leaf, places, nodes[name].astype(np.int64)) for name in ("left", "right"))
    missing = nodes["missing_go_to_left"].astype(bool)
    return Tree(left, right, nodes["feature_idx"], nodes["num_threshold"], missing, nodes["value"][:, np.newaxis])


def _laid_out(ensemble: Ensemble) -> Arrays:
    """The arrays of app.engines.rows."""
    feature: list[int] = []
    threshold: list[float] = []
    right: list[int] = []
    missing: list[bool] = []
    leaves: list[Floats] = []
    roots = []
    for tree in ensemble.trees:
        first = len(feature)
        roots.append(first)
        order = [node for node, _ in tree.depth_first()]
        places = {node: first + i for i, node in enumerate(order)}
        for node in order:
            leaf = tree.left[node] == node
            feature.append(LEAF if leaf else int(tree.feature[node]))
            threshold.append(0.0 if leaf else float(tree.threshold[node]))
            right.append(len(leaves) if leaf else places[tree.right[node]])
            missing.append(bool(tree.missing_left[node]))
            if leaf:
                leaves.append(tree.values[node])
    return {
        "roots": np.array(roots, np.uint32),
        "feature": np.array(feature, np.uint32),
        "threshold": np.array(threshold),
        "right": np.array(right, np.uint32),
        "missing": np.array(missing, np.uint8),
        "leaves": np.array(leaves, np.float64),
        "intercept": np.array(ensemble.intercept, np.float64),
    }
