"""What the artifacts say about themselves, and putting them in place all at once."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from platform import python_version
from typing import Any

from app.engines.artifact import FORMAT, MANIFEST, sha256
from model.dataset import Dataset

ROOT = Path(__file__).parent.parent
OUTPUT = ROOT / "model"
LOCK = ROOT / "requirements" / "train.txt"
LIBRARIES = ("numpy", "scipy", "scikit-learn", "joblib", "threadpoolctl")  # what a pickled pipeline depends on


def libraries() -> dict[str, str]:
    """Versions that made the artifacts, and that the engine `sklearn` insists on."""
    return {name: version(name) for name in LIBRARIES}


def write(directory: Path, engine: str, labels: Iterable[object], data: Dataset, **entries: Any) -> dict[str, Any]:
    """Writes manifest.json for all files in `directory`, and returns it. No time is in it: same inputs, same bytes."""
    files = {path.name: sha256(path) for path in sorted(directory.iterdir()) if path.name != MANIFEST}
    names = [str(label) for label in labels]
    manifest = {
        "format": FORMAT,
        "engine": engine,
        "model_version": hashlib.sha256(json.dumps([engine, names, files]).encode()).hexdigest()[:12],
        "labels": names,
        "data": {"name": data.path.name, "sha256": data.sha256, "rows": len(data.texts), "labels": data.counts()},
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
