"""The archive of a release: the same inputs give the same id, everything that matters gives another."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

import pytest

from roles.api.library import vmlops_release as release
from tests.paths import ROOT

TARGET = {"python_version": "3.11", "architecture": "x86_64"}


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A repository with the least that a release is made from; its requirements name no package."""
    files = {
        "app/main.py": "app = 1\n",
        "app/__pycache__/main.pyc": "never shipped",
        "model/artifacts/manifest.json": json.dumps({"engine": "compiled"}),
        "model/artifacts/weights.npy": "weights",
        "requirements/api.txt": "",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    (tmp_path / "host").symlink_to(ROOT / "host")
    return tmp_path


def make(project: Path, **target: str) -> tuple[bool, str, Path]:
    result: tuple[bool, str, Path] = release.make_release(project, project / "out", {**TARGET, **target}, False)
    return result


def test_archive_holds_application_model_and_identity(project: Path) -> None:
    changed, identity, path = make(project)
    assert changed
    with tarfile.open(path) as archive:
        names = [name for name in archive.getnames() if not name.startswith(f"{identity}/venv")]
        stored = archive.extractfile(f"{identity}/release.json")
        assert stored is not None
        assert json.load(stored) == {"id": identity, **TARGET}
    assert f"{identity}/app/main.py" in names
    assert f"{identity}/model/weights.npy" in names
    assert not [name for name in names if "__pycache__" in name]


def test_same_inputs_are_not_made_again_and_give_the_same_bytes(project: Path) -> None:
    _, identity, path = make(project)
    first = path.read_bytes()
    assert make(project) == (False, identity, path)
    path.unlink()
    assert make(project) == (True, identity, path)
    assert path.read_bytes() == first


@pytest.mark.parametrize("name", ["app/main.py", "model/artifacts/weights.npy", "requirements/api.txt"])
def test_every_input_changes_the_id(project: Path, name: str) -> None:
    _, identity, _ = make(project)
    (project / name).write_text((project / name).read_text() + "# more\n")
    assert make(project)[1] != identity


def test_another_python_or_architecture_is_another_release(project: Path) -> None:
    identities = {make(project)[1], make(project, python_version="3.12")[1]}
    identities.add(make(project, architecture="aarch64")[1])
    assert len(identities) == 3


def test_missing_model_names_the_command_that_makes_it(project: Path) -> None:
    (project / "model/artifacts/manifest.json").unlink()
    with pytest.raises(release.ReleaseError, match="run `make model` first"):
        make(project)


def test_unavailable_wheel_leaves_no_archive(project: Path) -> None:
    (project / "requirements/api.txt").write_text("vmlops-there-is-no-such-wheel==1.0 --hash=sha256:" + "0" * 64 + "\n")
    with pytest.raises(release.ReleaseError, match="could not be fetched"):
        make(project)
    assert list((project / "out").iterdir()) == []
