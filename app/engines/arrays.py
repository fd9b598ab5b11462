"""Plain arrays on disk, mapped: `.npy` files (numpy.lib.format, version 1.0) as memoryviews, without numpy.

What is mapped costs nothing to load and lies in the page cache, where the replicas of a machine share it.
"""

from __future__ import annotations

import ast
import mmap
from pathlib import Path
from typing import Any, NamedTuple

_MAGIC = b"\x93NUMPY\x01\x00"
_FORMATS: dict[str, Any] = {"|u1": "B", "<u4": "I", "<f8": "d"}


class Array(NamedTuple):
    """An array in C order: its items one after the other, and its shape."""

    items: memoryview[Any]
    shape: tuple[int, ...]


def read(path: Path) -> Array:
    """Raises ValueError where the file is no array of unsigned bytes, uint32 or float64 in little endian and C order."""
    with path.open("rb") as file:
        mapped = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    start = 10 + int.from_bytes(mapped[8:10], "little")
    if mapped[:8] != _MAGIC:
        raise ValueError("it does not begin as one of version 1.0")
    try:
        header = ast.literal_eval(bytes(mapped[10:start]).decode("latin-1").strip())
        descr, shape, in_columns = header["descr"], header["shape"], header["fortran_order"]
        if in_columns or descr not in _FORMATS:
            raise ValueError(f"it holds {descr}")
    except (SyntaxError, KeyError, TypeError) as error:
        raise ValueError(f"its header makes no sense: {error!r}") from None
    return Array(mapped[start:].cast(_FORMATS[descr]), shape)
