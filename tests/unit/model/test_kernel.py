"""The scorer's compiled arithmetic is made the same everywhere, and is done without where it cannot be made or loaded."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from model import kernel
from model.manifest import ROOT

PROGRAM = "from app.engines import scorer; print(scorer.kernel is None)"


def test_the_same_source_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in ("one.so", "two.so"):
        kernel.compile_kernel(tmp_path / name)
    assert (tmp_path / "one.so").read_bytes() == (tmp_path / "two.so").read_bytes()
    assert str(ROOT).encode() not in (tmp_path / "one.so").read_bytes()


@pytest.mark.parametrize("cc", ["", "#!/bin/sh\necho 'kernel.c:1: fatal error: Python.h: No such file' >&2\nexit 1\n"])
def test_without_a_compiler_what_was_made_goes_and_the_remedy_is_said(
    cc: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    made = tmp_path / "kernel.abi3.so"
    made.write_bytes(b"of an older source")
    if cc:
        (tmp_path / "cc").write_text(cc)
        (tmp_path / "cc").chmod(0o755)
    monkeypatch.setattr(kernel, "KERNEL", made)
    monkeypatch.setenv("PATH", str(tmp_path))
    kernel.main()
    said = capsys.readouterr().err
    print(said)
    assert ("Python.h" if cc else "there is no C compiler") in said
    assert "apt install gcc python3-dev" in said
    assert not made.exists()


@pytest.mark.parametrize("content", [b"", b"\x7fELF of another processor"])
def test_a_file_that_cannot_be_loaded_leaves_the_scorer_in_python(content: bytes, tmp_path: Path) -> None:
    shutil.copytree(ROOT / "app", tmp_path / "app", ignore=shutil.ignore_patterns("*.so", "__pycache__"))
    (tmp_path / "app" / "engines" / "kernel.abi3.so").write_bytes(content)
    result = subprocess.run([sys.executable, "-c", PROGRAM], cwd=tmp_path, check=True, capture_output=True, text=True)
    assert result.stdout == "True\n", result.stderr
