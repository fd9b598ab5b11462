"""python -m model.importing --model FILE: artifacts from an estimator that somebody else fitted.

The engines are tried from the fastest on, and the first one that agrees with the estimator on every input serves it:
`compiled` (texts and tables), `onnx` (tables), `sklearn` (everything). What each was refused for is said.
"""

from __future__ import annotations

import argparse
import asyncio
import shutil
import sys
import warnings
from collections.abc import Callable, Sequence
from math import inf
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import skops.io

from app import check as release
from app.engines.artifact import ArtifactError, sha256
from app.engines.engine import Engine
from app.engines.loading import load_engine
from app.engines.signature import Input, Signature, text_of
from app.engines.sklearn_engine import ESTIMATOR
from app.settings import SHARED_MEMORY, Settings
from model import dataset, extremes, known_answers, manifest, measures, onnx, opening, parity, signing, table, train
from model.compile import compile_pipeline, tolerance
from model.dataset import Dataset
from model.linear import NotCompilable
from model.sheet import DataError
from model.signing import Unservable
from model.table import Table
from model.tabular import MOST_COMPARISONS, compile_rows


class Tried(NamedTuple):
    """An engine that an import tries for an estimator."""

    engine: str
    make: Callable[[Path], dict[str, Any]]  # writes the files, and returns further entries of the manifest
    tolerance: float


class Reference:
    """An estimator that is given inputs as whoever fitted it gave them: a table with named columns, where it knows names."""

    def __init__(self, estimator: Any, signature: Signature) -> None:
        self._estimator = estimator
        self._names = [column.name for column in signature.columns]
        self._named = hasattr(estimator, "feature_names_in_")

    def predict(self, inputs: Sequence[Input]) -> Any:
        return self._estimator.predict(self._given(inputs))

    def predict_proba(self, inputs: Sequence[Input]) -> Any:
        return self._estimator.predict_proba(self._given(inputs))

    def answerable(self, inputs: Sequence[Input]) -> list[Input]:
        """Return those inputs that the estimator itself answers with finite numbers: a step may take a logarithm."""
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                predicted = np.asarray(self.predict(inputs))
            finite = predicted.dtype.kind != "f" or bool(np.isfinite(predicted).all())
        except ValueError:
            finite = False
        if finite:
            return list(inputs)
        return [x for one in inputs for x in self.answerable([one])] if len(inputs) > 1 else []

    def _given(self, inputs: Sequence[Input]) -> Any:
        if not self._names:
            return list(inputs)
        import pandas as pd

        columns = zip(self._names, zip(*inputs, strict=True), strict=True)
        frame = pd.DataFrame({name: pd.Series(map(_present, values), dtype=_dtype(values)) for name, values in columns})
        return frame if self._named else frame.to_numpy()


def _present(value: Any) -> Any:
    return np.nan if value is None else value


def _dtype(values: Sequence[Any]) -> Any:
    """Return the dtype that pandas.read_csv would choose."""
    kinds = {type(value) for value in values}
    if kinds <= {int, float, type(None)}:
        return np.int64 if kinds == {int} else np.float64
    return np.bool_ if kinds == {bool} else object


def takes_text(estimator: Any) -> bool:
    """Whether an estimator takes texts rather than columns."""
    return not hasattr(estimator, "n_features_in_") and not hasattr(estimator, "feature_names_in_")


def build(path: Path, data: Dataset | Table | None, output: Path, *, name: str = "", trust: bool = False) -> Engine:
    """Make artifacts/ in `output` from the model in `path`, or nothing, and return the engine that serves it.

    The data says what inputs and predictions look like in normal times, and where it has the labels, how good they are.
    Raises ArtifactError, Unservable.
    """
    return serve(opening.estimator(path, trust), path, data, output, name)


def serve(estimator: Any, path: Path, data: Dataset | Table | None, output: Path, name: str = "") -> Engine:
    """Do what `build` does, for an estimator that is loaded already."""
    name = name or signing.slug(path)
    served = opening.by_position(estimator)
    inputs: list[Input]
    odd: Sequence[Input]
    target: list[Any]
    try:
        if isinstance(data, Dataset):
            signature = signing.of_texts(estimator, name)
            inputs, target = list(data.texts), list(data.labels)
            odd = extremes.texts(data.texts)
        else:
            signature = signing.of_table(estimator, name, data)
            inputs = list(data.rows([column.name for column in signature.columns])) if data else _drawn(signature)
            target = list(data.target or []) if data else []
            odd = extremes.rows(signature)
        reference = Reference(estimator, signature)
        _check(reference, signature, inputs)
        odd = reference.answerable(odd)
    except Unservable as error:
        raise Unservable(f"{path}: {error}") from None
    with manifest.staging(output) as made, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the estimator's own warnings: it was checked above
        directory = made / "artifacts"
        about = data or _NoData()
        source = {"name": path.name, "sha256": sha256(path)}
        refusals: set[str] = set()
        for tried in ways(served, signature):
            shutil.rmtree(directory, ignore_errors=True)
            directory.mkdir()
            try:
                entries = {"source": source, **tried.make(directory)}
                manifest.write(directory, tried.engine, signature, about, metrics={}, baseline={}, **entries)
                engine = load_engine(directory)
                entries["parity"] = parity.check(reference, engine, inputs, tried.tolerance)
                parity.check(reference, engine, odd, tried.tolerance)
            except Exception as reason:  # a library's own error, or Disparity: try the next engine
                if tried.engine == "sklearn":
                    raise Unservable(f"{path}: no engine serves it as it is: {reason}") from None
                refused = f"not served by the engine {tried.engine}: {' '.join(str(reason).split())[:300]}"
                if refused not in refusals:
                    print(f"{path}: {refused}", file=sys.stderr)
                refusals.add(refused)
                continue
            break
        known_answers.write(directory, engine, inputs)
        scores = engine.score_batch(inputs)
        metrics = measures.agreement(scores, target, signature) if target else {}
        baseline = measures.baseline(inputs, scores, signature) if data else {}
        manifest.write(directory, engine.name, signature, about, metrics=metrics, baseline=baseline, **entries)
        _answers(directory)
    return load_engine(output / "artifacts")


class _NoData:
    def about(self) -> dict[str, Any]:
        return {"name": None, "rows": 0}


def ways(estimator: Any, signature: Signature) -> list[Tried]:
    """What an import tries, in order: an engine may be there twice."""

    def texts(directory: Path) -> dict[str, Any]:
        if not signature.probabilities:
            raise NotCompilable("a model of texts without probabilities")
        return {"scorer": compile_pipeline(estimator, directory)}

    def rows(most: float) -> Callable[[Path], dict[str, Any]]:
        return lambda directory: {"scorer": compile_rows(estimator, signature, directory, most)}

    def graph(double: bool) -> Callable[[Path], dict[str, Any]]:
        def make(directory: Path) -> dict[str, Any]:
            onnx.convert(estimator, signature, directory, double)
            return {"bits": 64 if double else 32}

        return make

    def itself(directory: Path) -> dict[str, Any]:
        skops.io.dump(estimator, directory / ESTIMATOR)
        return {}

    last = Tried("sklearn", itself, parity.TOLERANCE)
    if signature.takes_text:
        return [Tried("compiled", texts, tolerance(estimator)), last]
    return [
        Tried("compiled", rows(MOST_COMPARISONS), parity.TOLERANCE),
        Tried("onnx", graph(True), parity.TOLERANCE),
        Tried("onnx", graph(False), parity.SINGLE_TOLERANCE),
        # Large forests that ONNX does not have: faster than scikit-learn.
        Tried("compiled", rows(inf), parity.TOLERANCE),
        last,
    ]


def _drawn(signature: Signature) -> list[Input]:
    """Rows of numbers of several sizes, where there is no data."""
    random = np.random.default_rng(0)
    drawn = random.normal(size=(300, len(signature.columns))) * random.choice([0.1, 1, 100], size=(300, 1))
    return [
        tuple(
            column.values[i % len(column.values)] if column.values else value
            for column, value in zip(signature.columns, row, strict=True)
        )
        for i, row in enumerate(drawn.tolist())
    ]


def _check(reference: Reference, signature: Signature, inputs: Sequence[Input]) -> None:
    """Raises Unservable where the estimator does not do for the data what the signature says."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            predicted = np.asarray(reference.predict(inputs))
            p = np.asarray(reference.predict_proba(inputs)) if signature.probabilities else None
    except Exception as error:  # whatever an estimator for other inputs raises
        what = "texts" if signature.takes_text else "the rows of the data"
        said = " ".join(str(error).split())[:300]
        remedy = "save the whole pipeline, with all that comes before the model, and give data as it was fitted on"
        raise Unservable(f"it does not take {what} ({type(error).__name__}: {said}); {remedy}") from None
    if predicted.ndim > 1 and predicted.shape[1] > 1:
        raise Unservable(
            f"it gives {predicted.shape[1]} answers for each input (multilabel or multioutput); serve one model for each"
        )
    if signature.kind == "number":
        if not np.isfinite(predicted.astype(float)).all():
            raise Unservable("it predicts NaN or infinity for a row of the data; fit it on finite targets")
        return
    strange = sorted(
        {text_of(label) for label in predicted.ravel().tolist()} - {text_of(label) for label in signature.labels}
    )
    if strange:
        raise Unservable(f"it predicts {strange[0]!r}, which is none of its classes_; fit it again")
    if p is not None:
        if p.shape != (len(inputs), len(signature.labels)):
            raise Unservable(f"its probabilities are {p.shape}, not one for each of {len(signature.labels)} labels")
        wrong = np.flatnonzero(~(np.abs(p.sum(axis=1) - 1) < 1e-6))
        if len(wrong):
            total = p[wrong[0]].sum()
            raise Unservable(
                f"the probabilities of {len(wrong)} of {len(p)} inputs do not sum to 1 (the first to {total:.3g}); wrap the "
                "classifier in CalibratedClassifierCV"
            )


def _answers(directory: Path) -> None:
    """Raises Unservable where a release with these artifacts would be refused: the same check is made on the target."""
    engine = load_engine(directory)
    settings = Settings("v2", "127.0.0.1:0", "check", directory, "check", "error", SHARED_MEMORY)
    try:
        asyncio.run(release.ask(settings, engine))
    except Exception as error:
        raise Unservable(f"a release would refuse it: {error!r}") from None


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m model.importing", description=__doc__.splitlines()[0])
    parser.add_argument(
        "--model", type=Path, required=True, help="a fitted estimator or pipeline: a skops or joblib file"
    )
    parser.add_argument("--data", type=Path, help="inputs to try it on: CSV (texts: default, the shipped ones)")
    parser.add_argument("--target", help="column of the data that the model predicts")
    parser.add_argument("--text", help="column of the texts")
    parser.add_argument("--name", default="", help="of the model (default: from the file's)")
    parser.add_argument("--trust", action="store_true", help="open a pickle, in a sandbox")
    parser.add_argument("--output", type=Path, default=manifest.OUTPUT, help="directory (default: model)")
    arguments = parser.parse_args()
    try:
        with train.one_thread():
            estimator = opening.estimator(arguments.model, arguments.trust)
            data: Dataset | Table | None
            if takes_text(estimator):
                label, text = arguments.target or dataset.COLUMNS[0], arguments.text or dataset.COLUMNS[1]
                data = dataset.read(arguments.data or SHIPPED, label, text, fewest=0)
            else:
                data = table.read(arguments.data, arguments.target) if arguments.data else None
            engine = serve(estimator, arguments.model, data, arguments.output, arguments.name)
    except (ArtifactError, Unservable, DataError) as error:
        print(error, file=sys.stderr)
        return 1
    signature = engine.signature
    gives = f"{len(signature.labels)} labels" if signature.labels else "a number"
    takes = "texts" if signature.takes_text else f"{len(signature.columns)} columns"
    print(f"Model {engine.model_version} ({signature.model}): takes {takes}, gives {gives}, engine {engine.name}")
    return 0


SHIPPED = manifest.ROOT / "data" / "tweet_emotions.csv"

if __name__ == "__main__":
    sys.exit(main())
