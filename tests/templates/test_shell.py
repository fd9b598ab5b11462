"""Every shell script, also those that are templates, passes shellcheck."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.paths import ROOT
from tests.templates.render import render

TRACKED = subprocess.run(["git", "ls-files"], cwd=ROOT, check=True, capture_output=True, text=True).stdout.splitlines()


def is_shell(name: str) -> bool:
    path = ROOT / name
    return path.is_file() and path.read_bytes()[:64].split(b"\n")[0] in (b"#!/bin/sh", b"#!/bin/bash")


SCRIPTS = [name for name in TRACKED if is_shell(name)]


def test_scripts_are_found() -> None:
    assert "tests/run_tests.sh" in SCRIPTS


@pytest.mark.parametrize("name", SCRIPTS)
def test_shellcheck(name: str, tmp_path: Path) -> None:
    script = ROOT / name
    if "/templates/" in name:
        _, role, _, template = name.split("/", 3)
        script = tmp_path / "script"
        script.write_text(render(role, template))
    result = subprocess.run(["shellcheck", str(script)], check=False, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout
