"""python -m model.importing --model JOBLIB: artifacts from a pipeline that somebody else trained.

What can be compiled is compiled; anything else is to be served by the engine `sklearn`, with the library versions of
this environment.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator

from app.engines.artifact import ArtifactError, sha256
from app.engines.engine import Engine
from app.engines.loading import load_engine
from app.engines.sklearn_engine import PIPELINE, load_pipeline
from model import dataset, manifest, measures, parity, train
from model.compile import compiled
from model.dataset import Dataset
from model.linear import NotCompilable

_INSTALLED = {"sklearn", "numpy", "scipy", "builtins"}  # top-level modules that a target has


class Unservable(Exception):
    """A model that no engine can serve. The message is one line."""


def check(path: Path) -> Any:
    """The fitted text classifier in a joblib file. Raises ArtifactError or Unservable, which say what is wrong."""
    if not path.is_file():
        raise Unservable(f"{path}: there is no such file; make model-import MODEL=path")
    pipeline = load_pipeline(path)
    if not callable(getattr(pipeline, "predict_proba", None)):
        remedy = "wrap its classifier in CalibratedClassifierCV"
        raise Unservable(f"{path}: the {type(pipeline).__name__} in it has no predict_proba; {remedy}")
    for module in sorted(_modules(pipeline) - _INSTALLED):
        raise Unservable(
            f"{path}: it needs the module {module}, which targets do not have; use scikit-learn's own parts"
        )
    try:
        p = pipeline.predict_proba(["a text", ""])
    except Exception as error:  # whatever a pipeline for other input raises
        remedy = "save the whole pipeline, vectorizer and classifier, after fit"
        said = " ".join(str(error).split())
        raise Unservable(f"{path}: it does not take texts ({type(error).__name__}: {said}); {remedy}") from None
    if p.shape != (2, len(pipeline.classes_)) or not np.isfinite(p).all():
        raise Unservable(
            f"{path}: its probabilities are {p.shape}, not one for each of {len(pipeline.classes_)} labels"
        )
    return pipeline


def _modules(part: Any) -> set[str]:
    """Top-level modules of the classes and functions in an estimator's parameters."""
    if isinstance(part, BaseEstimator):
        inner = [_modules(value) for value in part.get_params(deep=False).values()]
        return {type(part).__module__.partition(".")[0]}.union(*inner)
    if isinstance(part, (list, tuple)):
        return set().union(*map(_modules, part))
    if callable(part):
        return {str(getattr(part, "__module__", None) or "builtins").partition(".")[0]}
    return set()


def build(path: Path, data: Dataset, output: Path) -> Engine:
    """Makes artifacts/ in `output` from the model in `path`, or nothing, and returns the engine that serves it.

    The data says what predictions look like in normal times, and where its labels are the model's, how good they are.
    Raises ArtifactError, Unservable.
    """
    pipeline = check(path)
    labels = [str(label) for label in pipeline.classes_]
    about: dict[str, Any] = {"source": {"name": path.name, "sha256": sha256(path)}}
    with manifest.staging(output) as made:
        directory = made / "artifacts"
        directory.mkdir()
        try:
            tried = compiled(pipeline, directory, data)
            about |= {"scorer": tried.manifest["scorer"], "parity": parity.check(pipeline, tried, data.texts)}
            engine = "compiled"
        except (NotCompilable, parity.Disparity) as reason:
            print(f"{path}: served by scikit-learn itself, since the scorer does not know {reason}", file=sys.stderr)
            shutil.rmtree(directory)
            directory.mkdir()
            shutil.copyfile(path, directory / PIPELINE)
            manifest.write(directory, "sklearn", labels, data, metrics={}, baseline={})
            engine = "sklearn"
        scores = load_engine(directory).score_batch(data.texts)
        p = np.array([score.probabilities for score in scores])
        known = labels == sorted(set(data.labels))
        metrics = measures.measure(p, np.array(data.labels)) if known else {}
        baseline = measures.baseline(data.texts, scores, labels)
        manifest.write(directory, engine, labels, data, metrics=metrics, baseline=baseline, **about)
    return load_engine(output / "artifacts")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m model.importing", description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, required=True, help="a fitted pipeline, saved with joblib")
    parser.add_argument(
        "--data", type=Path, required=True, help="texts to try it on: CSV, columns sentiment and content"
    )
    parser.add_argument("--output", type=Path, default=manifest.OUTPUT, help="directory (default: model)")
    arguments = parser.parse_args()
    try:
        with train.one_thread():
            engine = build(arguments.model, dataset.read(arguments.data), arguments.output)
    except (ArtifactError, Unservable, dataset.DataError) as error:
        print(error, file=sys.stderr)
        return 1
    print(f"Model {engine.model_version}: {len(engine.labels)} labels, engine {engine.name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
