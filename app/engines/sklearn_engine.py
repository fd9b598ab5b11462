"""The engine for pipelines that cannot be compiled: scikit-learn itself, in the very versions that the manifest names.

Loading a pickle runs what is in it. It is loaded only because its sha256 stands in the manifest, which is as much as
trusting who built the release.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import joblib
import numpy as np
from sklearn.exceptions import InconsistentVersionWarning

from app.engines.artifact import MANIFEST, ArtifactError
from app.engines.engine import Score

PIPELINE = "model.joblib"
_WORD = re.compile(r"\w+")
_LEAST = 1e-12


def load_pipeline(path: Path) -> Any:
    """The pipeline in a joblib file. Raises ArtifactError where it was saved by another scikit-learn, or is broken."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", InconsistentVersionWarning)
        try:
            return joblib.load(path)
        except InconsistentVersionWarning as warning:
            saved, here = warning.original_sklearn_version, warning.current_sklearn_version
            wrong = f"was saved by scikit-learn {saved}, here is {here}"
            raise ArtifactError(path, wrong, f"fit it again with {here}") from None
        except Exception as error:  # whatever a pickle may raise
            wrong = f"cannot be loaded ({type(error).__name__}: {' '.join(str(error).split())})"
            raise ArtifactError(path, wrong, "save a fitted pipeline of scikit-learn's own classes") from None


class SklearnEngine:
    """Serves any pipeline with predict_proba, at scikit-learn's own pace."""

    name = "sklearn"

    def __init__(self, directory: Path, manifest: Mapping[str, Any]) -> None:
        """Raises ArtifactError where the installed libraries are not those of the manifest, or the labels differ."""
        path = directory / MANIFEST
        if PIPELINE not in manifest["files"]:
            raise ArtifactError(path, f"has no sha256 of {PIPELINE}")
        for library, wanted in dict(manifest.get("libraries") or {}).items():
            try:
                found = version(library)
            except PackageNotFoundError:
                found = "not installed"
            if found != wanted:
                wrong = f"wants {library} {wanted}, here it is {found}"
                raise ArtifactError(path, wrong, f"install {library}=={wanted}, or import the model again")
        self.manifest = manifest
        self.labels: tuple[str, ...] = tuple(manifest["labels"])
        self.model_version: str = manifest["model_version"]
        self._pipeline = load_pipeline(directory / PIPELINE)
        if tuple(map(str, self._pipeline.classes_)) != self.labels:
            raise ArtifactError(path, "names other labels than the pipeline")
        self._vectorizer = _vectorizer(self._pipeline)
        self._analyze = self._vectorizer.build_analyzer() if self._vectorizer is not None else None

    def score(self, text: str) -> Score:
        return self.score_batch([text])[0]

    def score_batch(self, texts: Sequence[str]) -> list[Score]:
        if not texts:
            return []
        return [
            Score(self.labels[int(p.argmax())], float(p.max()), p.tolist(), *self._count(text))
            for text, p in zip(texts, self._pipeline.predict_proba(list(texts)), strict=True)
        ]

    def explain(self, text: str, label: str, top: int = 10) -> list[tuple[str, float]]:
        """By occlusion, since the model may not be linear: what the log odds of the label lose without each word."""
        if label not in self.labels:
            raise KeyError(label)
        words = list(dict.fromkeys(_WORD.findall(text)))
        if not words:
            return []
        without = [re.sub(rf"\b{re.escape(word)}\b", "", text) for word in words]
        p = np.clip(self._pipeline.predict_proba([text, *without])[:, self.labels.index(label)], _LEAST, 1 - _LEAST)
        odds = np.log(p / (1 - p))
        weights = zip(words, (odds[0] - odds[1:]).tolist(), strict=True)
        return sorted(weights, key=lambda item: -abs(item[1]))[:top]

    def _count(self, text: str) -> tuple[int, int]:
        if self._vectorizer is None or self._analyze is None:
            return 0, 0
        tokens = self._analyze(text)
        return len(tokens), sum(token not in self._vectorizer.vocabulary_ for token in tokens)


def _vectorizer(step: Any) -> Any:
    """The first part with a vocabulary in a pipeline of pipelines and unions, or None."""
    if hasattr(step, "vocabulary_") and hasattr(step, "build_analyzer"):
        return step
    for _, part in [*getattr(step, "steps", ()), *getattr(step, "transformer_list", ())]:
        if (found := _vectorizer(part)) is not None:
            return found
    return None
