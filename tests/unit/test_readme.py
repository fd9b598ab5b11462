"""The README's commands, tables and links lead somewhere."""

from __future__ import annotations

import re
import subprocess

import pytest

from tests.paths import ROOT
from tests.readme import commands, shell_blocks

README = (ROOT / "README.md").read_text()
TARGETS = set(re.findall(r"^([a-z-]+):.*## ", (ROOT / "Makefile").read_text(), re.MULTILINE))


def test_every_command_is_of_a_kind_that_a_test_runs() -> None:
    lines = [line for block in shell_blocks() for line in block.splitlines() if line.strip()]
    tested = {line for program in ("make", "curl", "cp", "ansible-playbook") for line in commands(program)}
    assert {line.partition("   #")[0].strip() for line in lines} == tested


@pytest.mark.parametrize("target", sorted(set(re.findall(r"\bmake ([a-z-]+)", README))))
def test_make_target_exists(target: str) -> None:
    assert target in TARGETS


@pytest.mark.parametrize(
    "target",
    ["help", "build-project", "start-project", "run-project", "stop-project", "test", "test-api", "test-api-debug"],
)
def test_targets_that_people_type_exist(target: str) -> None:
    assert target in TARGETS


def test_help_is_the_default_and_lists_every_target() -> None:
    said = subprocess.run(["make"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    assert {line.split()[0] for line in re.sub(r"\x1b\[[0-9;]*m", "", said).splitlines()} == TARGETS


@pytest.mark.parametrize(
    "path",
    sorted(set(re.findall(r"\]\(([^)#:]+)", README)) | set(re.findall(r"`([a-z_]+/[\w./]*|site\.yml)`", README))),
)
def test_path_exists(path: str) -> None:
    if path == "defaults/main.yml":  # of each role
        return
    built = {"inventory/production"}  # the reader's own
    assert (ROOT / path).exists() or path.rstrip("/") in built
