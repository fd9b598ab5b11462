"""What the artifacts say about themselves, and putting them in place all at once."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from platform import python_version
from typing import Any, Protocol

from app.engines.artifact import FORMAT, MANIFEST, sha256
from app.engines.signature import Signature

ROOT = Path(__file__).parent.parent
OUTPUT = ROOT / "model"
LOCK = ROOT / "requirements" / "train.txt"
LIBRARIES = ("numpy", "scipy", "scikit-learn", "joblib", "threadpoolctl")  # what a fitted estimator depends on


class About(Protocol):
    """The data behind a model."""

    def about(self) -> dict[str, Any]:
        """The manifest's entry `data`."""
        ...


def libraries() -> dict[str, str]:
    """Versions that made the artifacts, and that the engine `sklearn` insists on."""
    return {name: version(name) for name in LIBRARIES}


def write(directory: Path, engine: str, signature: Signature, data: About, **entries: Any) -> dict[str, Any]:
    """Write manifest.json for all files in `directory` and return it. No time is in it: same inputs, same bytes."""
    files = {path.name: sha256(path) for path in sorted(directory.iterdir()) if path.name != MANIFEST}
    manifest = {
        "format": FORMAT,
        "engine": engine,
        "model_version": hashlib.sha256(json.dumps([engine, signature.to_json(), files]).encode()).hexdigest()[:12],
        "signature": signature.to_json(),
        "data": data.about(),
        "lock": {"name": LOCK.name, "sha256": sha256(LOCK)},
        "python": python_version(),
        "libraries": libraries(),
        **entries,
        "files": files,
    }
    text = json.dumps(manifest, indent=1, ensure_ascii=False, allow_nan=False)
    (directory / MANIFEST).write_text(text + "\n", encoding="utf-8")
    return manifest


@contextmanager
def staging(output: Path) -> Iterator[Path]:
    """An empty directory beside the outputs. What is in it replaces its namesakes in `output` when the block ends
    without an exception; otherwise nothing has happened."""
    output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".staging-", dir=output) as name:
        made = Path(name)
        yield made
        for path in sorted(made.iterdir()):
            old = made / f"{path.name}.old"
            if (output / path.name).exists():
                (output / path.name).rename(old)
            path.rename(output / path.name)
