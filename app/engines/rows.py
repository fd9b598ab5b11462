"""The compiled model of a table: scikit-learn's linear models, and its trees, as memory-mapped arrays, in plain Python.

A row has a few columns, and a model of moderate size a few hundred comparisons for them: for so little, importing numpy
or onnxruntime would take more time and memory than the rest of the application.

Columns become features one by one: a number by some additions, multiplications and divisions, a category by a table.
Trees lie one after the other, each in depth-first order, so that a node's left child is the next node; `right` has the
other one. Where `feature` is LEAF, `right` is the leaf's row in `leaves`. Each leaf has a value for all outputs
(forests), or for one, and the trees take turns in whose (boosting).
"""

from __future__ import annotations

import operator
from array import array
from collections.abc import Callable, Mapping, Sequence
from itertools import cycle
from math import exp, inf, isfinite, nan, sqrt
from pathlib import Path
from typing import Any, NamedTuple

from app.engines import arrays, occlusion
from app.engines.artifact import MANIFEST, ArtifactError, read_array, read_signature
from app.engines.engine import NOT_FINITE, Score, Unanswerable
from app.engines.links import sigmoid, softmax
from app.engines.signature import Row, Scalar

LEAF = 0xFFFF_FFFF
STEPS: dict[str, Callable[[float, float], float]] = {
    "add": operator.add,
    "multiply": operator.mul,
    "divide": operator.truediv,
}


class Feature(NamedTuple):
    """How a feature is made from a column."""

    column: int
    missing: float  # what stands for a missing value; NaN where the trees know what to do
    steps: Sequence[tuple[Callable[[float, float], float], float]] = ()
    table: Mapping[Scalar, float] | None = None  # of a category or a boolean

    def of(self, value: Scalar | None) -> float:
        if value is None:
            return self.missing
        if self.table is not None:
            return self.table[value]
        number = float(value)
        for step, by in self.steps:
            number = step(number, by)
        return number


def _exponential(z: Sequence[float]) -> list[float]:
    try:
        return [exp(x) for x in z]
    except OverflowError:
        return [inf]


LINKS: dict[str, Callable[[Sequence[float]], Sequence[float]]] = {
    "identity": list,
    "exp": _exponential,
    "sigmoid": sigmoid,
    "softmax": softmax,
}


class CompiledRows:
    """Serves what model.tabular wrote. Its arithmetic is float64, in scikit-learn's order of steps."""

    name = "compiled"

    def __init__(self, directory: Path, manifest: Mapping[str, Any]) -> None:
        """Raises ArtifactError where the arrays are not those that the manifest describes."""

        def read(name: str) -> arrays.Array:
            return read_array(directory, manifest, f"{name}.npy")

        self.manifest = manifest
        self.signature = signature = read_signature(directory, manifest)
        self.model_version: str = manifest["model_version"]
        try:
            form = manifest["scorer"]
            self._features = [self._feature(spec) for spec in form["features"]]
            self._link = LINKS[form["link"]]
            self._decides_by_logits: bool = form["decides_by"] == "logits"
            self._trees: bool = form["model"] == "trees"
            if self._trees:
                self._single: bool = form["single"]
                self._mean: bool = form["mean"]
                self._turns: list[int] = form["turns"]
        except (KeyError, TypeError, ValueError) as error:
            raise ArtifactError(directory / MANIFEST, f"does not describe the scorer ({error!r})") from None
        self.slow = self._trees  # whose explanations ask for many predictions
        self._intercept: Sequence[float] = read("intercept").items.tolist()
        self._outputs = len(self._intercept)
        if self._outputs != (len(signature.labels) or 1):
            raise ArtifactError(directory / MANIFEST, f"names other labels than the {self._outputs} of intercept.npy")
        if self._trees:
            self._roots = read("roots").items
            self._split, self._threshold = read("feature").items, read("threshold").items
            self._right, self._missing_left = read("right").items, read("missing").items
            leaves = read("leaves")
            self._leaves, self._width = leaves.items, leaves.shape[1]
            fits = len(self._split) == len(self._threshold) == len(self._right) == len(self._missing_left)
        else:
            weights = read("weights")
            self._weights = weights.items
            fits = weights.shape == (len(self._features), self._outputs)
        if not fits:
            raise ArtifactError(directory / MANIFEST, "and the arrays disagree")

    def _feature(self, spec: Mapping[str, Any]) -> Feature:
        missing = nan if spec["missing"] is None else float(spec["missing"])
        if "values" not in spec:
            return Feature(spec["column"], missing, [(STEPS[step], float(by)) for step, by in spec["steps"]])
        values = self.signature.columns[spec["column"]].values or (False, True)
        return Feature(spec["column"], missing, table=dict(zip(values, map(float, spec["values"]), strict=True)))

    def score(self, row: Row) -> Score:
        features = [feature.of(row[feature.column]) for feature in self._features]
        spread = None
        if not self._trees:
            z: Sequence[float] = self._linear(features)
        elif self.signature.spread:
            numbers = [self._leaves[leaf] for leaf in self._leaves_of(features)]
            mean = sum(numbers) / len(numbers)
            spread = sqrt(sum((number - mean) ** 2 for number in numbers) / len(numbers))
            z = [mean]
        else:
            z = self._added(self._leaves_of(features))
        outputs = self._link(z)
        if not self.signature.labels:
            if not isfinite(outputs[0]):
                raise Unanswerable(NOT_FINITE)
            return Score(outputs[0], nan, [], spread=spread)
        decisive = z if self._decides_by_logits else outputs
        best = decisive.index(max(decisive))
        return Score(self.signature.labels[best], outputs[best], list(outputs))

    def score_batch(self, rows: Sequence[Row]) -> list[Score]:
        return [self.score(row) for row in rows]

    def explain(self, row: Row, label: Scalar, top: int = 10) -> list[tuple[str, float]]:
        """Linear models: exactly what a column adds to the number, to the label's logit, or, of two labels, to its log odds."""
        signature = self.signature
        if self._trees or self._link is _exponential:
            return occlusion.explain(signature, self.score_batch, row, label, top)
        if signature.labels and label not in signature.labels:
            raise KeyError(label)
        place = signature.labels.index(label) if signature.labels else 0
        adds: dict[str, float] = {}
        for i, feature in enumerate(self._features):
            column = signature.columns[feature.column]
            change = feature.of(row[feature.column]) - feature.of(column.typical)
            if change:
                weights = self._weights[i * self._outputs : (i + 1) * self._outputs].tolist()
                weight = weights[place] - (weights[1 - place] if len(weights) == 2 else 0.0)
                adds[column.name] = adds.get(column.name, 0.0) + weight * change
        return occlusion.heaviest(adds.items(), top)

    def _linear(self, features: Sequence[float]) -> list[float]:
        z, k, weights = list(self._intercept), self._outputs, self._weights
        for i, value in enumerate(features):
            if value:
                for j in range(k):
                    z[j] += weights[i * k + j] * value
        return z

    def _leaves_of(self, features: Sequence[float]) -> list[int]:
        """The leaf of each tree."""
        if self._single:
            features = array("f", features)
        split, threshold, right, missing_left = self._split, self._threshold, self._right, self._missing_left
        found = []
        for node in self._roots:
            while (feature := split[node]) != LEAF:
                value = features[feature]
                # NaN, which alone differs from itself, is at most nothing.
                if value <= threshold[node] or (value != value and missing_left[node]):
                    node += 1
                else:
                    node = right[node]
            found.append(right[node])
        return found

    def _added(self, found: Sequence[int]) -> list[float]:
        leaves, width, z = self._leaves, self._width, list(self._intercept)
        if width == 1:
            for output, leaf in zip(cycle(self._turns), found, strict=False):
                z[output] += leaves[leaf]
        else:
            for leaf in found:
                for j in range(width):
                    z[j] += leaves[leaf * width + j]
        return [total / len(found) for total in z] if self._mean else z
