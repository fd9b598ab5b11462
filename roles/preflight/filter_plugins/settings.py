"""Hold the settings of a host against the argument specs of the roles.

Stricter than Ansible's own check at the start of a role, which turns one type into another and then hands the role the value
as it was: a value must have its type already. ``-e gateway_ocsp_stapling=false`` is a text, and every text is true.
No message has the value of an option that is marked ``no_log``, nor of anything below it.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from jinja2 import pass_context
from jinja2.runtime import Context

# This role makes the machine itself; environments of machines that exist already have none of its settings.
NOT_EVERYWHERE = "lab_machine"
TYPES: dict[str, tuple[tuple[type, ...], str]] = {
    "str": ((str,), "text"),
    "path": ((str,), "text"),
    "int": ((int,), "a whole number"),
    "float": ((int, float), "a number"),
    "bool": ((bool,), "true or false"),
    "list": ((list, tuple), "a list"),
    "dict": ((dict,), "a mapping"),
}
Option = Mapping[str, Any]


class Variables(Mapping[str, Any]):
    """The variables as the task sees them whose template this is, each evaluated when it is looked at."""

    def __init__(self, context: Context) -> None:
        self.context = context
        self.names = {*context.parent, *context.vars}

    def __getitem__(self, name: str) -> Any:
        if name not in self.names:
            raise KeyError(name)
        return self.context.resolve(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)


@cache
def declared_settings(roles: Path) -> dict[str, Any]:
    """Return every variable that a role's ``meta/argument_specs.yml`` declares, with its specification and role."""
    declared: dict[str, Any] = {}
    for path in sorted(roles.glob("*/meta/argument_specs.yml")):
        for entry in yaml.safe_load(path.read_text())["argument_specs"].values():
            for name, option in entry.get("options", {}).items():
                declared.setdefault(name, {**option, "role": path.parts[-3]})
    return declared


def plain(value: Any) -> Any:
    """Return a copy in which every template is evaluated. Raises Ansible's exception for what is undefined."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if value is not None and not isinstance(value, str | int | float):
        str(value)  # raises for a variable that is not defined
    return value


def unknown(names: Iterable[str], known: Iterable[str], path: str = "") -> Iterator[str]:
    """A misspelt name is read by nobody, and the default is used without a word: so it is an error."""
    known = sorted(known)
    for name in sorted(set(names) - set(known)):
        close = difflib.get_close_matches(name, known, n=1)
        yield f"unknown setting {path}{name}: " + (
            f"did you mean {close[0]}?" if close else "remove it, nothing reads it"
        )


def is_a(value: Any, kind: str) -> bool:
    classes, _ = TYPES[kind]
    return isinstance(value, classes) and (kind == "bool") is isinstance(value, bool)


def wrong_type(path: str, value: Any, kind: str, secret: bool) -> str:
    """Say that a value has another type than the declared one, and how it is written."""
    _, wanted = TYPES[kind]
    if value is None:
        return f"{path} is empty, {wanted} is needed: give it a value, or remove it to have the default"
    if kind in ("str", "path"):
        number = "true or false" if isinstance(value, bool) else "a number" if isinstance(value, int | float) else ""
        return f"{path} is {number or 'no text'}, {wanted} is needed: put it in quotes"
    if isinstance(value, str) and not secret:
        meant = [value] if kind == "list" else yaml.safe_load(value) if re.fullmatch(r"[\w.+-]+", value) else None
        remedy = "without quotes"
        if is_a(meant, kind) and re.fullmatch(r"\w+", path):  # only whole variables are given with -e
            remedy += f"; on the command line as JSON: -e '{json.dumps({path: meant})}'"
        return f"{path} is the text {value!r}, {wanted} is needed: {remedy}"
    return f"{path} is not {wanted}"


def problems_of(
    path: str, value: Any, option: Option, limits: Mapping[str, Any], secret: bool = False
) -> Iterator[str]:
    """Yield a line for each thing that is wrong with the value of an option, or with what is in it.

    Args:
        path: where the value is, such as ``vmlops_instances[0].port``.
        option: its specification.
        limits: ranges and forms by the path without its indices.
        secret: whether messages must not have the value.
    """
    kind = option.get("type", "str")
    secret = secret or option.get("no_log", False)
    if not is_a(value, kind):
        yield wrong_type(path, value, kind, secret)
        return
    if kind == "list":
        inner = {**option, "type": option.get("elements", "str")}
        for index, item in enumerate(value):
            yield from problems_of(f"{path}[{index}]", item, inner, limits, secret)
    elif kind == "dict":
        yield from problems_inside(path, value, option, limits, secret)
    else:
        shown = "" if secret else f" is {value!r}:"
        choices = option.get("choices")
        limit = limits.get(re.sub(r"\[\d+\]", "", path), {})
        if choices and value not in choices:
            yield f"{path}{shown} must be one of {', '.join(map(str, choices))}"
        if "range" in limit and not limit["range"][0] <= value <= limit["range"][1]:
            yield f"{path}{shown} must be from {limit['range'][0]} to {limit['range'][1]}"
        if "form" in limit and not re.fullmatch(limit["form"], value):
            yield f"{path}{shown} must be {limit['words']}"


def problems_inside(path: str, value: Any, option: Option, limits: Mapping[str, Any], secret: bool) -> Iterator[str]:
    """The same for the keys of a mapping."""
    options: Mapping[str, Any] | None = option.get("options")
    if options is None:
        return
    yield from unknown(value, options, f"{path}.")
    for key, inner in options.items():
        if key in value:
            yield from problems_of(f"{path}.{key}", value[key], inner, limits, secret)
        elif inner.get("required"):
            yield f"{path} has no {key}: {inner['description']}"
    for keys in option.get("required_one_of", []):
        if not set(keys) & set(value):
            yield f"{path} has neither {' nor '.join(keys)}: give it one of them"
    for keys in option.get("mutually_exclusive", []):
        if set(keys) <= set(value):
            yield f"{path} has both {' and '.join(keys)}: give it one of them"


def setting_problems(settings: Mapping[str, Any], roles: Path, stack: Path, limits: Mapping[str, Any]) -> list[str]:
    """Return a line for each setting that no role knows, that is missing, or whose value the specification forbids.

    Args:
        settings: the variables of a host.
        roles: the folder of the roles; its sub-folders' names are the prefixes of their variables.
        stack: the file of the variables that roles share, prefixed ``vmlops_``.
        limits: what an argument spec cannot say, by the option's path: ``range``, or ``form`` with its ``words``.
    """
    declared = declared_settings(roles)
    known = set(yaml.safe_load(stack.read_text())) | set(declared)
    prefixes = ("vmlops_", *(f"{path.name}_" for path in roles.iterdir() if path.is_dir()))
    problems = list(unknown((name for name in settings if name.startswith(prefixes)), known))
    for name, option in declared.items():
        if name in settings:
            try:
                value = plain(settings[name])
            except (
                Exception
            ) as error:  # Ansible's own: an undefined variable, a look-up that failed, a wrong vault password
                problems.append(f"{name} cannot be evaluated: {' '.join(str(error).split())}")
            else:
                problems += problems_of(name, value, option, limits)
        elif option.get("required") and option["role"] != NOT_EVERYWHERE:
            problems.append(f"missing setting {name} ({option['description']}): set it in the environment's group_vars")
    return problems


def effective_settings(settings: Mapping[str, Any], roles: Path) -> dict[str, Any]:
    """Return what the roles will see: the host's settings, and the defaults of the others unless they are templates."""
    declared = declared_settings(roles)
    defaults = {name: option["default"] for name, option in declared.items() if "default" in option}
    return {name: value for name, value in defaults.items() if "{{" not in str(value)} | {
        name: plain(settings[name]) for name in declared if name in settings
    }


class FilterModule:
    """Filters of the role preflight. Both are given the folder of the roles, and see the variables of the task."""

    def filters(self) -> dict[str, Any]:
        @pass_context
        def problems(context: Context, roles: str, stack: str, limits: Mapping[str, Any]) -> list[str]:
            return setting_problems(Variables(context), Path(roles), Path(stack), limits)

        @pass_context
        def effective(context: Context, roles: str) -> dict[str, Any]:
            return effective_settings(Variables(context), Path(roles))

        return {"setting_problems": problems, "effective_settings": effective}
