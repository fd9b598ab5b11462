"""What is said of the roles' variables in several places is the same everywhere."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from tests import variables
from tests.paths import ROOT

ROLES = sorted(path.parts[-3] for path in ROOT.glob("roles/*/meta/argument_specs.yml"))
# Ansible prints the specification when it refuses a role's arguments, and this default is a list of passwords.
NOT_REPEATED = {"gateway_operators"}


def load(path: str) -> Any:
    file = ROOT / path
    return yaml.safe_load(file.read_text()) if file.exists() else {}


@pytest.mark.parametrize("role", ROLES)
def test_defaults_and_argument_specs_agree(role: str) -> None:
    defaults = load(f"roles/{role}/defaults/main.yml")
    options = load(f"roles/{role}/meta/argument_specs.yml")["argument_specs"]["main"]["options"]
    specified = {name: option["default"] for name, option in options.items() if "default" in option}
    assert specified == {name: value for name, value in defaults.items() if name not in NOT_REPEATED}
    undecided = {name for name, option in options.items() if not option.get("required")} - set(defaults)
    assert not undecided, f"neither required nor with a default: {undecided}"


def test_what_roles_share_is_specified_and_has_its_value_in_the_stack() -> None:
    stack = load("roles/preflight/meta/argument_specs.yml")["argument_specs"]["stack"]["options"]
    computed = {"vmlops_canonical_names", "vmlops_endpoints", "vmlops_kit"}
    assert set(stack) == set(load("inventory/stack.yml")) - computed


def test_the_page_of_variables_is_that_of_the_roles() -> None:
    said = (ROOT / "docs/variables.md").read_text()
    assert said == variables.page(), "run `make variables`"
