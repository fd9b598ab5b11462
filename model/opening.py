"""From a file that somebody hands over to a fitted estimator, without running what is in the file.

A skops file is data and is read by the engine's own list of types. A pickle (joblib) is a program: it is shown what it
would import, refused where targets do not have that, and opened only where its owner says TRUST=1, in model.sandbox.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

from sklearn.base import BaseEstimator
from sklearn.compose import ColumnTransformer
from sklearn.exceptions import NotFittedError
from sklearn.model_selection._search import BaseSearchCV
from sklearn.utils.validation import check_is_fitted

from app.engines.artifact import ArtifactError
from app.engines.sklearn_engine import ESTIMATOR, load_estimator
from model import sandbox
from model.manifest import ROOT
from model.sheet import LFS_POINTER
from model.signing import Unservable

# What an import of a pickle may begin with, besides the standard library: targets have these. pandas is there only when a
# model is imported; what an estimator has of it are names of columns.
_KNOWN = {"sklearn", "numpy", "scipy", "joblib", "pandas"}
_SHOWN = 12  # imports of numpy, scipy and scikit-learn are many and say little


def estimator(path: Path, trust: bool) -> Any:
    """The fitted estimator in a skops or joblib file. Raises ArtifactError or Unservable, which say what is wrong."""
    if path.is_dir():
        raise Unservable(f"{path}: is a directory; give the model's file in it (.joblib, .pkl or .skops)")
    if not path.is_file():
        raise Unservable(f"{path}: there is no such file; make model-import MODEL=path")
    with path.open("rb") as file:
        start = file.read(64)
    if start.startswith(LFS_POINTER):
        raise Unservable(f"{path}: is a Git LFS pointer, not the model; run git lfs pull")
    try:
        found = load_estimator(path) if zipfile.is_zipfile(path) else _from_pickle(path, trust)
        found = searched(found)
        check(found)
    except Unservable as error:
        raise Unservable(f"{path}: {error}") from None
    return found


def check(found: object) -> None:
    """Raises Unservable where an object is no fitted estimator with predict."""
    name = type(found).__name__
    if isinstance(found, dict):
        parts = ", ".join(f"{key} ({type(value).__name__})" for key, value in list(found.items())[:5])
        raise Unservable(
            f"is a dictionary of {parts}; make one pipeline of it, make_pipeline(vectorizer, model), and save that"
        )
    if isinstance(found, list | tuple):
        raise Unservable(f"is a {name} of {len(found)} objects; save one estimator or pipeline")
    if not isinstance(found, BaseEstimator):
        raise Unservable(f"is a {name}, not an estimator of scikit-learn; save the fitted estimator or pipeline")
    if not hasattr(found, "predict"):
        if hasattr(found, "transform") and not hasattr(found, "classes_"):
            raise Unservable(f"is a {name} without predict: a step before a model; save the whole pipeline after fit")
        raise Unservable(f"is a {name} that cannot predict; save the fitted classifier or regressor")
    try:
        check_is_fitted(found)
    except NotFittedError:
        raise Unservable(f"is a {name} that was not fitted; call fit, then save it") from None


def searched(found: Any) -> Any:
    """What a search (GridSearchCV and the like) found; anything else as it is. Raises Unservable."""
    if not isinstance(found, BaseSearchCV):
        return found
    if not hasattr(found, "best_estimator_"):
        raise Unservable(f"is a {type(found).__name__} that kept no estimator; fit it with refit=True, then save it")
    return found.best_estimator_


def _from_pickle(path: Path, trust: bool) -> Any:
    """Raises ArtifactError, Unservable."""
    names = _run("imports", path)["imports"]
    foreign = sorted({name.partition(".")[0] for name in names} - _KNOWN - set(sys.stdlib_module_names))
    dull = [name for name in names if name.partition(".")[0] in _KNOWN]
    telling = [name for name in names if name not in dull]
    listed = [
        *telling,
        *dull[:_SHOWN],
        *([f"{len(dull) - _SHOWN} more of scikit-learn and numpy"] if len(dull) > _SHOWN else []),
    ]
    print(f"{path}: a pickle, which imports {', '.join(listed)}", file=sys.stderr)
    if foreign:
        needing = next(name for name in names if name.partition(".")[0] == foreign[0])
        raise Unservable(
            f"it needs the module {foreign[0]} ({needing}), which targets do not have; use scikit-learn's own parts"
        )
    if not trust:
        raise Unservable(
            "opening a pickle runs what is in it, and the list above is all that can be known before; if you trust who made "
            "it: TRUST=1; or have it saved with skops.io.dump, which is data"
        )
    with tempfile.TemporaryDirectory() as name:
        _run("convert", path, Path(name))
        return load_estimator(Path(name) / ESTIMATOR)


def _run(task: str, path: Path, scratch: Path | None = None) -> dict[str, Any]:
    """The sandbox's answer. Raises Unservable, with the reason that it gives."""
    if scratch is None:
        with tempfile.TemporaryDirectory() as name:
            return _run(task, path, Path(name))
    command = [sys.executable, "-m", "model.sandbox", str(scratch), task]
    with path.open("rb") as file:
        run = subprocess.run(command, cwd=ROOT, stdin=file, capture_output=True, text=True, check=False)
    if run.returncode == sandbox.NO_NAMESPACES:
        raise Unservable(
            f"no sandbox can be made for it here ({run.stderr.strip()}); run this with sudo, or have the model saved with "
            "skops.io.dump, which needs none"
        )
    try:
        answer: dict[str, Any] = json.loads((scratch / sandbox.ANSWER).read_bytes())
    except (OSError, ValueError):
        raise Unservable(f"the process that opened it ended with {run.returncode}; it is no model") from None
    if "error" in answer:
        if answer["kind"] == Unservable.__name__:
            raise Unservable(answer["error"])
        raise ArtifactError(
            path,
            f"cannot be loaded ({answer['kind']}: {answer['error']})",
            "save a fitted pipeline of scikit-learn's own classes",
        )
    return answer


def without_pandas(found: Any) -> None:
    """Replaces names of columns that are a pandas Index by lists, anywhere in an estimator: they are all of pandas that
    scikit-learn keeps."""
    for part in _parts(found, set()):
        for key, value in vars(part).items():
            setattr(part, key, _plain(value))


def by_position(found: Any) -> Any:
    """A copy of an estimator that finds its columns by position: what serves it has rows, and no names."""
    found = deepcopy(found)
    for part in _parts(found, set()):
        if isinstance(part, ColumnTransformer):
            places = part._transformer_to_input_indices
            part.transformers_ = [
                (name, step, places[name][0] if isinstance(columns, str) else list(map(int, places[name])))
                for name, step, columns in part.transformers_
            ]
    return found


def _plain(value: Any) -> Any:
    if type(value).__module__.partition(".")[0] == "pandas" and hasattr(value, "tolist"):
        return value.tolist()
    if type(value) in (list, tuple):
        return type(value)(map(_plain, value))
    return value


def _parts(value: Any, seen: set[int]) -> Iterator[Any]:
    """The estimators in an object, each once."""
    if id(value) in seen:
        return
    seen.add(id(value))
    if isinstance(value, BaseEstimator):
        yield value
        value = list(vars(value).values())
    elif isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list | tuple):
        for item in value:
            yield from _parts(item, seen)
