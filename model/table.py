"""The rows that a model of a table is tried on: a CSV file, with a type for each column."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from app.engines.signature import ColumnType, Row, Scalar
from model import sheet
from model.sheet import DataError

# As pandas reads them; a text that is one of these is taken for none.
MISSING = frozenset({"", "na", "n/a", "nan", "null", "none", "#n/a", "<na>"})
MOST_VALUES = 100  # of a category; a column with more different ones is text
_INTEGER = re.compile(r"[+-]?\d{1,18}").fullmatch


class Table(NamedTuple):
    """Columns by name, in the order of the file; None is a missing value."""

    path: Path
    sha256: str
    columns: dict[str, list[Scalar | None]]
    target: list[Scalar | None] | None  # what was to be predicted, if the file has it

    def about(self) -> dict[str, Any]:
        """The manifest's entry `data`."""
        return {"name": self.path.name, "sha256": self.sha256, "rows": len(next(iter(self.columns.values()), []))}

    def rows(self, names: Sequence[str]) -> list[Row]:
        """The columns named, as rows."""
        return list(zip(*(self.columns[name] for name in names), strict=True))


def read(path: Path, target: str | None = None) -> Table:
    """The table in `path`; `target` is the column that is predicted. Raises DataError."""
    file = sheet.read(path, (target,) if target else ())
    rows = [row for _, row in file.rows]
    if not rows:
        raise DataError(f"{path}: has no rows; give a CSV file with a header and rows")
    repeated = {name for name in file.header if file.header.count(name) > 1}
    if repeated:
        raise file.error(1, f"the column {min(repeated)!r} is there twice", "give each column a name of its own")
    columns = {name: typed([row[i].strip() for row in rows]) for i, name in enumerate(file.header) if name}
    return Table(path, file.sha256, columns, columns.pop(target) if target else None)


def typed(values: Sequence[str]) -> list[Scalar | None]:
    """A column as integers, numbers or booleans where all of its values are such, otherwise as texts."""
    present = [value for value in values if value.lower() not in MISSING]
    convert: Callable[[str], Scalar] = str
    if present and all(value.lower() in ("true", "false") for value in present):
        convert = lambda value: value.lower() == "true"  # noqa: E731
    elif present and all(map(_INTEGER, present)):
        convert = int
    elif present and all(map(is_number, present)):
        convert = float
    return [None if value.lower() in MISSING else convert(value) for value in values]


def is_number(value: str) -> bool:
    try:
        float(value)
    except ValueError:
        return False
    return "_" not in value


def type_of(values: Sequence[Scalar | None]) -> ColumnType:
    """Of a column's values."""
    present = [value for value in values if value is not None]
    kinds = {type(value) for value in present}
    if kinds == {bool}:
        return "boolean"
    if kinds == {int}:
        return "integer" if len(present) == len(values) else "number"
    if kinds <= {int, float}:
        return "number"
    different = len(set(present))
    return "category" if different <= MOST_VALUES and (different <= 20 or different <= len(present) / 2) else "text"
