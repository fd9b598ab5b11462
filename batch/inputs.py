"""What a model takes, from the columns of a row: a text, or the values that its signature names."""

from __future__ import annotations

from collections.abc import Callable
from math import isnan
from typing import Any, NamedTuple, Protocol

from pydantic import ValidationError

from app.engines.signature import Column, Input, Signature, text_of
from app.http.schemas import forms_of, row_of
from batch.tables import Row
from model.table import MISSING, is_number

Reader = Callable[[Row], Input]  # raises ValueError with the reason where a row is none


class Inputs(Protocol):
    """Can be pickled and sent to another process, which makes the reader."""

    def reader(self) -> Reader: ...


class Text(NamedTuple):
    """The column of the text, for models of texts."""

    column: str

    def reader(self) -> Reader:
        return self._read

    def _read(self, row: Row) -> str:
        if self.column not in row:
            raise ValueError(f"has no {self.column!r}")
        text = row[self.column]
        if not isinstance(text, str):
            raise ValueError(f"{self.column!r} is no text but {type(text).__name__}")
        if not text.strip():
            raise ValueError(f"{self.column!r} is empty")
        return text


class Columns(NamedTuple):
    """The columns of a model of tables; what the API would refuse is refused here by the same rules."""

    signature: Signature

    def reader(self) -> Reader:
        form = forms_of(self.signature).one
        columns = self.signature.columns

        def read(row: Row) -> Input:
            values = {column.name: value_of(row.get(column.name), column) for column in columns}
            for column in columns:
                if values[column.name] is None and not column.nullable:
                    raise ValueError(f"{column.name!r} is missing")
            try:
                return row_of(form.model_validate(values))
            except ValidationError as error:
                (first, *_) = error.errors(include_url=False, include_input=False, include_context=False)
                raise ValueError(f"{str(first['loc'][0])!r}: {first['msg']}") from None

        return read


def value_of(value: Any, column: Column) -> Any:
    """Return the value as the column's type has it where it is written as a text, as in CSV, and None where it is missing."""
    if isinstance(value, float) and isnan(value):
        return None
    if not isinstance(value, str):
        return value
    text = value.strip()
    if text.lower() in MISSING:
        return None
    if column.type in ("number", "integer") and is_number(text):
        return int(text) if text.lstrip("+-").isdecimal() else float(text)
    if column.type == "boolean":
        return {"true": True, "false": False}.get(text.lower(), text)
    if column.type == "category":
        named = {text_of(known): known for known in column.values}
        # A column of whole numbers of which some are missing is written with fractions by many programs.
        return named.get(text, named.get(text.removesuffix(".0"), text))
    return value
