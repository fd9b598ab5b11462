"""Columns of a Parquet file, as model.sheet gives those of a CSV file: texts, row after row, in little memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from app.engines.artifact import sha256
from model import sheet
from model.sheet import DataError, Sheet

MAGIC = b"PAR1"
_ROWS = 1 << 16  # that are decoded at a time


def read(path: Path, wanted: Sequence[str]) -> Sheet:
    """The columns `wanted` of the file in `path`. Numbers, truth values and dates are written as texts, null as nothing.

    Raises DataError.
    """
    try:
        # Not in the lock that trains, for the many who have CSV.
        import pyarrow as pa
        from pyarrow.parquet import ParquetFile
    except ImportError:
        raise DataError(
            f"{path}: is a Parquet file, which needs pyarrow; run make .venv/batch, or save it as CSV"
        ) from None
    try:
        with ParquetFile(path) as file:
            sheet.named(path, file.schema_arrow.names, wanted)
    except (pa.ArrowException, OSError) as reason:
        raise DataError(f"{path}: cannot be read as Parquet ({_line(reason)}); write the file again") from None
    return Sheet(path, sha256(path), list(wanted), _rows(path, list(wanted)), "{path}: row {line}")


def _rows(path: Path, columns: list[str]) -> Iterator[tuple[int, list[str]]]:
    import pyarrow as pa
    from pyarrow.parquet import ParquetFile

    number = 0
    try:
        with ParquetFile(path) as file:
            for batch in file.iter_batches(_ROWS, columns=columns):
                texts = [batch.column(name).cast(pa.string()).to_pylist() for name in columns]
                for row in zip(*texts, strict=True):
                    number += 1
                    yield number, [text or "" for text in row]
    except (pa.ArrowException, OSError) as reason:
        wrong = f"columns {' and '.join(columns)} cannot be read as texts ({_line(reason)})"
        raise DataError(f"{path}: {wrong}; write them as texts") from None


def _line(reason: Any) -> str:
    return " ".join(str(reason).split())
