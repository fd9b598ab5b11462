"""What the API asks of a model, and the one way to load it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from app.artifact import MANIFEST, ArtifactError, read_manifest

__all__ = ["ArtifactError", "Engine", "Score", "load_engine"]


class Score(NamedTuple):
    """The answer for one text."""

    label: str  # the most probable one
    confidence: float  # its probability
    probabilities: list[float]  # in the order of Engine.labels; they sum to 1
    tokens: int  # words (or characters, where a model has no words) that were looked up
    unknown: int  # how many of these the model never saw in training


class Engine(Protocol):
    """A loaded model. Any text is scored, empty or odd as it may be: no input raises."""

    name: str  # "compiled" or "sklearn"
    labels: tuple[str, ...]
    model_version: str
    manifest: Mapping[str, Any]

    def score(self, text: str) -> Score: ...

    def score_batch(self, texts: Sequence[str]) -> list[Score]:
        """As `score` for each text, in order; cheaper a text than one by one."""
        ...

    def explain(self, text: str, label: str, top: int = 10) -> list[tuple[str, float]]:
        """The n-grams of the text that weighed most for or against the label, heaviest first.

        A weight is what the n-gram adds to the label's logit: exact for a linear model.
        Raises KeyError for an unknown label.
        """
        ...


def load_engine(directory: Path) -> Engine:
    """The engine that the manifest in `directory` names, with every file checked against its sha256.

    Raises ArtifactError, one line, where anything is missing, altered or made by other library versions.
    """
    manifest = read_manifest(directory)
    # Imported when asked for: a target with a compiled model has no scikit-learn.
    if manifest["engine"] == "compiled":
        from app.scorer import CompiledEngine

        return CompiledEngine(directory, manifest)
    if manifest["engine"] == "sklearn":
        from app.sklearn_engine import SklearnEngine

        return SklearnEngine(directory, manifest)
    raise ArtifactError(directory / MANIFEST, f"names the engine {manifest['engine']!r}, which does not exist")
