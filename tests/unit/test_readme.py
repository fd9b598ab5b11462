"""The README's commands, tables and links lead somewhere."""

from __future__ import annotations

import re
import subprocess

import pytest

from tests.paths import ROOT
from tests.readme import READMES, command_lines, commands

TEXT = "\n".join((ROOT / name).read_text() for name in READMES)
TARGETS = set(re.findall(r"^([a-z-]+):.*## ", (ROOT / "Makefile").read_text(), re.MULTILINE))


def test_every_command_is_of_a_kind_that_a_test_runs() -> None:
    lines = {line for name in READMES for line in command_lines(name)}
    assert lines == {line for program in ("make", "curl", "cp", "ansible-playbook") for line in commands(program)}


def test_both_languages_give_the_same_commands() -> None:
    english, french = map(command_lines, READMES)
    assert french == english


def test_both_languages_name_the_same_messages() -> None:
    quoted = [set(re.findall(r"^\| `([^`]* [^`]*)` \|", (ROOT / name).read_text(), re.MULTILINE)) for name in READMES]
    assert quoted[0] == quoted[1]
    assert quoted[0]


def test_both_languages_give_the_same_figures() -> None:
    """French separates thousands by a space; digits that belong to a word, such as v1, are no figures."""
    english, french = ((ROOT / name).read_text() for name in READMES)
    figures = {re.sub(r"[\s,]", "", figure) for figure in re.findall(r"(?<![\w.-])\d[\d,.]*\d(?![\w.])", english)}
    found = [f for f in re.findall(r"(?<![\w.-])\d+(?: \d{3})*(?:\.\d+)?(?![\w.])", french) if len(f) > 1]
    assert any(" " in figure for figure in found), found
    assert {figure.replace(" ", "") for figure in found} <= figures


@pytest.mark.parametrize("target", sorted(set(re.findall(r"\bmake ([a-z-]+)", TEXT))))
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
    sorted(set(re.findall(r"\]\(([^)#:]+)", TEXT)) | set(re.findall(r"`([a-z_]+/[\w./]*|site\.yml)`", TEXT))),
)
def test_path_exists(path: str) -> None:
    if path == "defaults/main.yml":  # of each role
        return
    built = {"inventory/production", "certs/production/ca.crt"}  # the reader's own
    assert (ROOT / path).exists() or path.rstrip("/") in built
