"""What a model takes and gives: the entry `signature` of the manifest, and the only place that says it.

model.signing makes it when a model is trained or imported. Made from it are: the validation of requests and the OpenAPI
document (app.http.schemas), the tensors of the Open Inference Protocol (app.http.oip), the form on the page for people
(roles/gateway), the distributions that drift is measured from (app.observed), what an explanation compares with
(app.engines.occlusion), and what a release is asked before it is served (app.check).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple, cast, get_args

Kind = Literal["classes", "number"]
ColumnType = Literal["number", "integer", "boolean", "category", "text"]
Scalar = str | int | float | bool
Row = tuple[Scalar | None, ...]  # a value for each column, in their order; None where it is missing
Input = Any  # str where the model takes a text, otherwise Row

SENTENCE = "Oh yeah, that was soooo cool!"  # the sample input for models that take a text


class Column(NamedTuple):
    """An input of a model that takes tables."""

    name: str
    type: ColumnType
    typical: Scalar  # the middle of the values in the data, or the most frequent one
    values: tuple[Scalar, ...] = ()  # of a category: all that there are
    range: tuple[float, float] | None = (
        None  # of a number: the least and the greatest value in the data, if there was data
    )
    nullable: bool = False  # whether a value may be missing


class Signature(NamedTuple):
    model: str  # its name
    kind: Kind
    columns: tuple[Column, ...]  # none: the input is one text
    labels: tuple[Scalar, ...]  # of kind "classes", in the order of the probabilities
    probabilities: bool  # whether there are any
    spread: bool = False  # of kind "number": whether each prediction comes with a standard deviation

    @property
    def takes_text(self) -> bool:
        return not self.columns

    @property
    def typical(self) -> Input:
        """A sample input, which the model must be able to answer."""
        return SENTENCE if self.takes_text else tuple(column.typical for column in self.columns)

    def to_json(self) -> dict[str, Any]:
        columns = [
            {key: value for key, value in column._asdict().items() if value not in ((), None)}
            for column in self.columns
        ]
        return {**self._asdict(), "columns": columns}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Signature:
        """Raises ValueError where the document is no signature."""
        try:
            columns = tuple(
                Column(
                    column["name"],
                    column["type"],
                    column["typical"],
                    tuple(column.get("values", ())),
                    cast(tuple[float, float], tuple(column["range"])) if "range" in column else None,
                    column.get("nullable", False),
                )
                for column in document["columns"]
            )
            signature = cls(
                document["model"],
                document["kind"],
                columns,
                tuple(document["labels"]),
                document["probabilities"],
                document.get("spread", False),
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"the signature lacks something or has it wrong: {error!r}") from None
        signature._check()
        return signature

    def _check(self) -> None:
        texts = [text_of(label) for label in self.labels]
        names = [column.name for column in self.columns]
        if self.kind not in get_args(Kind):
            raise ValueError(f"the kind {self.kind!r} does not exist")
        if (self.kind == "classes") != (len(texts) > 1):
            raise ValueError(f"{len(texts)} labels of kind {self.kind}")
        if len(set(texts)) < len(texts):
            raise ValueError("two labels read the same")
        if len(set(names)) < len(names) or not all(isinstance(name, str) and name for name in names):
            raise ValueError("a column without a name, or two of one name")
        for column in self.columns:
            if column.type not in get_args(ColumnType) or (column.type == "category") != bool(column.values):
                raise ValueError(f"the column {column.name!r} has no type that exists, or no values")


def text_of(label: Scalar) -> str:
    """A label as a key of JSON, a label of metrics, an element of a tensor: a text as it is, the others as in JSON."""
    return label if isinstance(label, str) else json.dumps(label)
