"""The example of a table on the running lab machine: its README's commands are run, and taken back in the end."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.conftest import client, eventually, host, machine
from tests.browser.conftest import browser
from tests.paths import ROOT
from tests.readme import command_lines

__all__ = ["browser", "client", "eventually", "host", "machine"]

README = "examples/iris/README.md"
ARTIFACTS = ROOT / "model/artifacts"


def make(command: str) -> str:
    done = subprocess.run(command, shell=True, cwd=ROOT, check=False, capture_output=True, text=True)
    print(done.stdout[-20_000:], done.stderr)
    assert done.returncode == 0, command
    return done.stdout


@pytest.fixture(scope="session")
def deployed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[str]]:
    """What the two commands printed."""
    texts: Path = tmp_path_factory.mktemp("texts") / "artifacts"
    shutil.copytree(ARTIFACTS, texts)
    commands = [line for line in command_lines(README) if line.startswith("make ")]
    assert len(commands) == 2
    try:
        yield [make(command) for command in commands]
    finally:
        shutil.rmtree(ARTIFACTS)
        shutil.copytree(texts, ARTIFACTS)
        make("make rollback VERSION=v2")
