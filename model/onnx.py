"""A fitted estimator of a table as a graph for onnxruntime."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from app.engines.onnx_engine import GRAPH
from app.engines.signature import Column, Signature
from model.linear import NotCompilable


def convert(estimator: Any, signature: Signature, directory: Path, double: bool) -> None:
    """Write the graph, which computes in 64 bits if `double`. Raises NotCompilable for what skl2onnx cannot express."""
    from skl2onnx import to_onnx
    from skl2onnx.common.data_types import DoubleTensorType, FloatTensorType, Int64TensorType, StringTensorType

    number = DoubleTensorType if double else FloatTensorType
    if signature.takes_text or signature.spread:
        raise NotCompilable(
            "texts in ONNX, which cuts words in another way" if signature.takes_text else "a spread in ONNX"
        )
    if all(column.type in ("number", "integer") for column in signature.columns):
        inputs: list[tuple[str, Any]] = [("columns", number([None, len(signature.columns)]))]
    else:

        def tensor(column: Column) -> Any:
            kinds = {type(value) for value in column.values} or {str}
            if column.type in ("text", "category") and kinds == {str}:
                return StringTensorType([None, 1])
            return Int64TensorType([None, 1]) if column.type == "category" else number([None, 1])

        inputs = [(column.name, tensor(column)) for column in signature.columns]
    options = {id(part): {"zipmap": False} for part in _classifiers(estimator)}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            graph = to_onnx(estimator, initial_types=inputs, options=options or None)
    except Exception as error:  # skl2onnx has many of its own
        said = str(error).strip().splitlines() or [""]
        raise NotCompilable(f"{type(error).__name__}: {said[0][:200]}") from None
    (directory / GRAPH).write_bytes(graph.SerializeToString())


def _classifiers(estimator: Any) -> Iterator[Any]:
    """The estimator whose probabilities would come as a list of dictionaries."""
    if hasattr(estimator, "predict_proba"):
        yield estimator
