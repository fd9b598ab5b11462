"""What a worker must have in common with the run that it works for, or its answers might have other bytes."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("app", "batch", "model")
# What .venv/batch has of them (Makefile) and a worker too: the API's checks, training, and every engine.
LOCKS = ("api", "train", "sklearn", "onnx", "batch")


class OtherCode(Exception):
    """A worker runs something else than the run that it works for."""


def files(root: Path = ROOT) -> Iterator[Path]:
    """The project's own code that a worker needs, and the locks of the packages that it needs."""
    for package in PACKAGES:
        yield from sorted(path for path in (root / package).rglob("*") if path.suffix in (".py", ".so"))
    yield from (root / f"requirements/{name}.txt" for name in LOCKS)


@cache
def kind() -> str:
    """The version of Python and a hash of the code and the locks: `3.11 code 0123456789ab`.

    Python's version is part of it since what is a letter, and its lower case, is defined by its Unicode tables.
    """
    digest = hashlib.sha256()
    for path in files():
        digest.update(f"{path.relative_to(ROOT)}\0{path.stat().st_size}\0".encode() + path.read_bytes())
    return f"{'.'.join(platform.python_version_tuple()[:2])} code {digest.hexdigest()[:12]}"
