"""The engine for tables that skl2onnx can express: onnxruntime, set for one small request at a time."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from app.engines.artifact import MANIFEST, ArtifactError
from app.engines.batched import BatchEngine, Predicted
from app.engines.signature import Input

# Official builds tell Microsoft about every session unless this is set before they are loaded.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
import onnxruntime

GRAPH = "model.onnx"
_DTYPES: dict[str, Any] = {
    "tensor(double)": np.float64,
    "tensor(float)": np.float32,
    "tensor(int64)": np.int64,
    "tensor(bool)": np.bool_,
    "tensor(string)": object,
}


def open_session(path: Path) -> onnxruntime.InferenceSession:
    """Return a session with one thread, no spinning worker threads, and no memory kept between requests."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # fatal errors only: the others are raised as exceptions anyway
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.enable_cpu_mem_arena = options.enable_mem_pattern = False
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


class OnnxEngine(BatchEngine):
    """Serves what model.onnx wrote: a graph with one input for each column, or one for all where all are numbers."""

    name = "onnx"

    def __init__(self, directory: Path, manifest: Mapping[str, Any]) -> None:
        """Raises ArtifactError where the graph cannot be opened, or does not take the signature's columns."""
        super().__init__(directory, manifest)
        if GRAPH not in manifest["files"]:
            raise ArtifactError(directory / MANIFEST, f"has no sha256 of {GRAPH}")
        try:
            self._session = open_session(directory / GRAPH)
        except Exception as error:  # onnxruntime raises many types of its own
            raise ArtifactError(directory / GRAPH, f"cannot be opened ({' '.join(str(error).split())})") from None
        # A graph has texts and integers only; in Python True equals 1, and 2.0 equals 2.
        self._labels = {label: label for label in self.signature.labels}
        self._inputs = [(given.name, _DTYPES[given.type]) for given in self._session.get_inputs()]
        if len(self._inputs) not in (1, len(self.signature.columns)):
            raise ArtifactError(directory / GRAPH, f"takes {len(self._inputs)} inputs, the signature has other columns")

    def predict(self, inputs: Sequence[Input]) -> Predicted:
        if len(self._inputs) == 1:
            ((name, dtype),) = self._inputs
            feed = {name: np.array([[_value(v, dtype) for v in row] for row in inputs], dtype=dtype)}
        else:
            columns = zip(*inputs, strict=True)
            feed = {
                name: np.array([[_value(v, dtype)] for v in column], dtype=dtype)
                for (name, dtype), column in zip(self._inputs, columns, strict=True)
            }
        outputs = self._session.run(None, feed)
        if self.signature.kind == "number":
            return Predicted(outputs[0].ravel().tolist())
        labels = [self._labels[label] for label in outputs[0].ravel().tolist()]
        return Predicted(labels, np.asarray(outputs[1], dtype=np.float64) if self.signature.probabilities else None)


def _value(value: Any, dtype: Any) -> Any:
    if value is None:
        return "" if dtype is object else np.nan
    return str(value) if dtype is object else value
