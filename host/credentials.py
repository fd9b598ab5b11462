"""Random passwords for an environment, kept outside git.

Every variable `vault_…password` that the environment's group_vars refer to and that has no value yet gets one, in
group_vars/all/90-credentials.yml, which git ignores and only its owner can read.
"""

from __future__ import annotations

import os
import re
import secrets
from pathlib import Path

from host.commands import ROOT, Problem

FILE = "group_vars/all/90-credentials.yml"
REFERENCE = re.compile(r"\bvault_\w*password\b")
VALUE = re.compile(r"^(vault_\w*password):", re.MULTILINE)
BYTES = 24  # of randomness; 32 characters
HEAD = "---\n# Made by make credentials. Remove a line to have it made anew; site.yml brings it to the machines.\n"


def credentials(name: str) -> None:
    """Make the missing passwords of the environment `name`, and print them. Raises Problem."""
    environment = ROOT / "inventory" / name
    made = make(environment)
    for variable, value in made.items():
        print(f"{variable}: {value}")
    if made:
        print(f"Kept in inventory/{name}/{FILE}, which git ignores.")
    else:
        print(f"Nothing to make: every vault_…password that inventory/{name} refers to has a value.")


def make(environment: Path) -> dict[str, str]:
    """Give each missing password a random value, add them to the environment's file, and return them. Raises Problem."""
    made = {variable: secrets.token_urlsafe(BYTES) for variable in missing(environment)}
    if made:
        path = environment / FILE
        before = path.read_text() if path.exists() else HEAD
        new = path.with_suffix(".new")
        new.unlink(missing_ok=True)
        with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(before + "".join(f'{variable}: "{value}"\n' for variable, value in made.items()))
        new.replace(path)
    return made


def missing(environment: Path) -> list[str]:
    """Return the passwords that the environment refers to and that have no value. Raises Problem."""
    if not (environment / "group_vars/all").is_dir():
        raise Problem(f"{environment} is no environment: set ENVIRONMENT to the name of a folder of inventory/")
    referred: set[str] = set()
    given: set[str] = set()
    for path in sorted((environment / "group_vars").rglob("*.yml")):
        text = path.read_text()
        if text.startswith("$ANSIBLE_VAULT"):
            raise Problem(f"{path} is encrypted and may have the passwords already: use `ansible-vault edit` there")
        referred.update(REFERENCE.findall(text))
        given.update(VALUE.findall(text))
    return sorted(referred - given)
