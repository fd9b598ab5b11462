"""What people expect at the door of a repository, and that it is of one mind with the rest."""

from __future__ import annotations

import re

import yaml

from app import __version__
from tests.paths import ROOT


def test_the_changelog_begins_with_this_version() -> None:
    headings = re.findall(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert headings[0].rstrip(",") == __version__


def test_the_licence_is_the_one_that_the_roles_name() -> None:
    named = re.search(r"SPDX-License-Identifier: (\S+)", (ROOT / "LICENSE").read_text())
    assert named is not None
    roles = {path.parts[-3]: yaml.safe_load(path.read_text()) for path in (ROOT / "roles").glob("*/meta/main.yml")}
    assert roles
    assert {name for name, meta in roles.items() if meta["galaxy_info"]["license"] != named.group(1)} == set()


def test_every_lock_is_made_by_one_target_in_the_order_of_its_constraints() -> None:
    order = re.search(r"^locks := (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert order is not None
    names = order.group(1).split()
    requirements = ROOT / "requirements"
    assert sorted(names) == sorted(path.stem for path in requirements.glob("*.in"))
    assert sorted(names) == sorted(path.stem for path in requirements.glob("*.txt"))
    for number, name in enumerate(names):
        wanted = re.findall(r"^-c (\S+)\.txt$", (requirements / f"{name}.in").read_text(), re.MULTILINE)
        assert set(wanted) <= set(names[:number]), name
