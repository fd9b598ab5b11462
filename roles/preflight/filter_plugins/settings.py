"""What is wrong with the settings of a host, as lines for a person."""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

# This role makes the machine itself; environments of machines that exist already have none of its settings.
NOT_EVERYWHERE = "lab_machine"
KNOWN_PASSWORDS = {"", "admin", "changeme", "change-me", "password", "secret", "test", "vmlops"}


def declared_settings(roles: Path) -> dict[str, Any]:
    """Return every variable that a role's ``meta/argument_specs.yml`` declares, with its specification and role."""
    declared: dict[str, Any] = {}
    for path in sorted(roles.glob("*/meta/argument_specs.yml")):
        for entry in yaml.safe_load(path.read_text())["argument_specs"].values():
            for name, option in entry.get("options", {}).items():
                declared.setdefault(name, {**option, "role": path.parts[-3]})
    return declared


def unknown(settings: Mapping[str, Any], known: set[str], prefixes: tuple[str, ...]) -> Iterator[str]:
    """A misspelt variable is read by nobody, and the default is used without a word: so it is an error here."""
    for name in sorted(settings):
        if name.startswith(prefixes) and name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            yield f"unknown setting {name}: " + (f"did you mean {close[0]}?" if close else "no role reads it")


def missing(settings: Mapping[str, Any], declared: Mapping[str, Any]) -> Iterator[str]:
    for name, option in declared.items():
        if option.get("required") and option["role"] != NOT_EVERYWHERE and name not in settings:
            yield f"missing setting {name} ({option['description']}): set it in the environment's group_vars"


def clashing_ports(settings: Mapping[str, Any]) -> Iterator[str]:
    instances = settings.get("vmlops_instances", [])
    taken = Counter([instance["port"] for instance in instances] + list(settings.get("vmlops_ports", {}).values()))
    for port, times in taken.items():
        if times > 1:
            yield f"port {port} is given {times} times in vmlops_instances and vmlops_ports: give each its own"
    if instances and not any(instance["version"] == "v1" for instance in instances):
        yield "vmlops_instances has no instance of v1: requests without the debug header would have nowhere to go"


def known_passwords(settings: Mapping[str, Any]) -> Iterator[str]:
    accounts = [
        (setting, user) for setting in ("gateway_users", "gateway_operators") for user in settings.get(setting) or []
    ]
    if "grafana_admin_password" in settings:
        grafana = {"name": settings.get("grafana_admin_user", "admin"), "password": settings["grafana_admin_password"]}
        accounts.append(("grafana_admin_password", grafana))
    for setting, account in accounts:
        if account.get("password") in KNOWN_PASSWORDS | {account["name"]}:
            yield (
                f"{setting}: the password of {account['name']} is known to everybody: choose another, and keep it in a file "
                "encrypted with ansible-vault"
            )


def setting_problems(settings: Mapping[str, Any], roles_dir: str, stack_file: str) -> list[str]:
    """Return a line for each thing that is wrong.

    Args:
        settings: the variables of a host.
        roles_dir: the folder of the roles; its sub-folders' names are the prefixes of their variables.
        stack_file: the file of the variables that roles share, prefixed ``vmlops_``.
    """
    roles = Path(roles_dir)
    declared = declared_settings(roles)
    known = set(declared) | set(yaml.safe_load(Path(stack_file).read_text()))
    prefixes = ("vmlops_", *(f"{path.name}_" for path in roles.iterdir() if path.is_dir()))
    problems = [*unknown(settings, known, prefixes), *missing(settings, declared), *clashing_ports(settings)]
    if not settings.get("preflight_allow_known_passwords"):
        problems += known_passwords(settings)
    return problems


class FilterModule:
    """Filters of the role preflight."""

    def filters(self) -> dict[str, Any]:
        return {"setting_problems": setting_problems}
