"""What differs between distributions stands in roles/*/vars/<Distribution>.yml and nowhere else, for each of them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.paths import ROOT
from tests.templates.render import DISTRIBUTIONS, evaluate

ROLES = ROOT / "roles"
FACT = re.compile(r"\bansible_(?:facts\W+)?(?:distribution|os_family|lsb)\w*")
# These ask which distribution it is because their work depends on it: a check, a tree, a kit's packages, an upgrade.
EXEMPT = {"preflight", "lab_machine", "base", "upgrade"}
READERS = {path.parents[1].name for path in ROLES.glob("*/vars/*.yml") if path.name != "main.yml"}


def tasks(role: str) -> Iterator[dict[str, Any]]:
    for path in sorted((ROLES / role / "tasks").glob("*.yml")):
        yield from yaml.safe_load(path.read_text()) or []


def vars_file(role: str, distribution: str) -> Path:
    """Return the file that the role's include_vars finds on a distribution such as ``Debian-12``."""
    (task,) = [task for task in tasks(role) if "ansible.builtin.include_vars" in task]
    include, names = task["ansible.builtin.include_vars"], task.get("vars", {})
    expressions = names["_files"] if isinstance(include, dict) else [include]
    local = {name: value for name, value in names.items() if name != "_files"}
    for expression in expressions:
        template = "".join(
            f" ~ ({part[2:-2]})" if part.startswith("{{") else f" ~ {part!r}"
            for part in re.split(r"({{.*?}})", expression)
        )
        path = ROLES / role / "vars" / str(evaluate(f"''{template}", role, distribution=distribution, **local))
        if path.exists():
            return path
    raise AssertionError(f"{role} has no file for {distribution}: {expressions}")


def test_roles_that_differ_are_found() -> None:
    assert {"gateway", "prometheus"} <= READERS


@pytest.mark.parametrize("role", sorted({path.name for path in ROLES.iterdir()} - EXEMPT))
def test_only_the_choice_of_a_vars_file_asks_for_the_distribution(role: str) -> None:
    for task in tasks(role):
        assert "ansible.builtin.include_vars" in task or not FACT.search(str(task)), task
    for path in (ROLES / role).rglob("*"):
        if path.is_file() and path.relative_to(ROLES / role).parts[0] in {"defaults", "handlers", "templates", "vars"}:
            asked = FACT.findall(path.read_text())
            assert not asked, f"{path}: {asked}"


@pytest.mark.parametrize("role", sorted(READERS))
def test_every_distribution_has_its_file_with_the_same_variables(role: str) -> None:
    files = {distribution: vars_file(role, distribution) for distribution in DISTRIBUTIONS}
    keys = {distribution: set(yaml.safe_load(path.read_text())) for distribution, path in files.items()}
    print(role, {distribution: path.name for distribution, path in files.items()})
    assert len(set(map(frozenset, keys.values()))) == 1, keys
    unread = (
        {path.name for path in (ROLES / role / "vars").glob("*.yml")} - {"main.yml"} - {p.name for p in files.values()}
    )
    assert not unread, f"no distribution reads {unread}"
