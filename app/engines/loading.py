"""From a model directory to the engine that serves it."""

from __future__ import annotations

from pathlib import Path

from app.engines.artifact import MANIFEST, ArtifactError, read_manifest
from app.engines.engine import Engine


def load_engine(directory: Path) -> Engine:
    """The engine that the manifest in `directory` names, with every file checked against its sha256.

    Raises ArtifactError, one line, where anything is missing, altered or made by other library versions.
    """
    manifest = read_manifest(directory)
    # Imported when asked for: a target with a compiled model has neither numpy nor scikit-learn nor onnxruntime.
    if manifest["engine"] == "compiled" and manifest["signature"].get("columns"):
        from app.engines.rows import CompiledRows

        return CompiledRows(directory, manifest)
    if manifest["engine"] == "compiled":
        from app.engines.scorer import CompiledEngine

        return CompiledEngine(directory, manifest)
    if manifest["engine"] == "sklearn":
        from app.engines.sklearn_engine import SklearnEngine

        return SklearnEngine(directory, manifest)
    if manifest["engine"] == "onnx":
        from app.engines.onnx_engine import OnnxEngine

        return OnnxEngine(directory, manifest)
    raise ArtifactError(directory / MANIFEST, f"names the engine {manifest['engine']!r}, which does not exist")
