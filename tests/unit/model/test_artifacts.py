"""A model directory is served whole and unaltered, or not at all."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from app.engines.artifact import ArtifactError, sha256
from app.engines.loading import load_engine
from model.manifest import ROOT
from tests.unit.model.conftest import Built


@pytest.fixture
def directory(built: Built, tmp_path: Path) -> Path:
    return Path(shutil.copytree(built.directory / "artifacts", tmp_path / "artifacts"))


def edit(directory: Path, **entries: Any) -> None:
    path = directory / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | entries))


def refusal(directory: Path) -> str:
    with pytest.raises(ArtifactError) as error:
        load_engine(directory)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_unchanged_artifacts_are_served(directory: Path) -> None:
    assert load_engine(directory).score("so happy").label == "happiness"


@pytest.mark.parametrize("name", ["weights.npy", "steps.npy", "text0.npy", "intercept.npy"])
def test_tampered(directory: Path, name: str) -> None:
    content = bytearray((directory / name).read_bytes())
    content[-1] ^= 1
    (directory / name).write_bytes(content)
    assert refusal(directory).startswith(f"{directory / name}: has sha256 ")


def test_truncated(directory: Path) -> None:
    file = directory / "weights.npy"
    file.write_bytes(file.read_bytes()[:-100])
    assert "has sha256" in refusal(directory)


def test_missing_file(directory: Path) -> None:
    (directory / "idf.npy").unlink()
    assert "idf.npy: cannot be read (No such file or directory)" in refusal(directory)


def test_missing_manifest(directory: Path) -> None:
    (directory / "manifest.json").unlink()
    assert "manifest.json: is missing; build it again with `make model`" in refusal(directory)


@pytest.mark.parametrize("content", ["", "[]", '{"format": 0}', '{"format": 3}', "{" * 50, "\x00"])
def test_broken_manifest(directory: Path, content: str) -> None:
    (directory / "manifest.json").write_text(content)
    assert "manifest.json: " in refusal(directory)


def test_a_file_outside_the_model_directory_is_refused(directory: Path) -> None:
    edit(directory, files={"../x": "0"})
    assert "outside of its directory" in refusal(directory)


def test_unknown_engine(directory: Path) -> None:
    edit(directory, engine="torch")
    assert "names the engine 'torch'" in refusal(directory)


def test_array_without_sha256(directory: Path) -> None:
    files = json.loads((directory / "manifest.json").read_text())["files"]
    del files["steps.npy"]
    edit(directory, files=files)
    assert "has no sha256 of steps.npy" in refusal(directory)


def test_pickle_in_an_array(directory: Path) -> None:
    np.save(directory / "idf.npy", np.array([{}], dtype=object), allow_pickle=True)
    files = json.loads((directory / "manifest.json").read_text())["files"]
    edit(directory, files=files | {"idf.npy": sha256(directory / "idf.npy")})
    assert "idf.npy: is not a plain array" in refusal(directory)


def test_scorer_not_described(directory: Path) -> None:
    edit(directory, scorer={"link": "softmax"})
    assert "does not describe the scorer" in refusal(directory)


def test_labels_disagree(directory: Path) -> None:
    signature = json.loads((directory / "manifest.json").read_text())["signature"]
    edit(directory, signature=signature | {"labels": ["one", "two"]})
    assert "disagree" in refusal(directory)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"kind": "ranks"}, "the kind 'ranks' does not exist"),
        ({"labels": ["one"]}, "1 labels"),
        ({"labels": ["1", 1]}, "two labels read the same"),
        ({"columns": [{"name": "", "type": "number", "typical": 1}]}, "a column without a name"),
        ({"columns": [{"name": "a", "type": "complex", "typical": 1}]}, "'a' has no type"),
        ({"columns": None}, "the signature lacks something"),
    ],
)
def test_signature_that_makes_no_sense(directory: Path, changed: dict[str, Any], said: str) -> None:
    signature = json.loads((directory / "manifest.json").read_text())["signature"]
    edit(directory, signature=signature | changed)
    assert said in refusal(directory)


def test_serving_needs_python_alone(directory: Path) -> None:
    program = """
import sys
for name in ("numpy", "sklearn", "scipy", "joblib", "pickle5", "model", "threadpoolctl"):
    sys.modules[name] = None
from pathlib import Path
from app.engines.loading import load_engine
print(load_engine(Path(sys.argv[1])).score("I love you so much").label)
"""
    command = [sys.executable, "-c", program, str(directory)]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (run.stdout, run.stderr) == ("love\n", "")
