"""docs/variables.md, made from the roles' argument specs and defaults: python -m tests.variables > docs/variables.md"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import yaml

from tests.paths import ROOT

LIMITS = yaml.safe_load((ROOT / "roles/preflight/vars/main.yml").read_text())["_preflight_limits"]
STACK = ROOT / "inventory/stack.yml"
HEAD = """# Variables

Every variable that an environment may set, in its `group_vars`. `make variables` makes this page from the roles'
`meta/argument_specs.yml` and `defaults/main.yml`. The role `preflight` holds the variables against the same specifications when a
run starts. A value has to have its type already, so with `-e` what is no text is given as JSON: `-e '{"gateway_rate": 20}'`.
`ansible-playbook -i inventory/<environment> site.yml --tags never` checks the settings and does nothing else.
"""
TABLE = "| variable | type | default | what it is |\n| --- | --- | --- | --- |"


def specifications() -> Iterator[tuple[str, str, dict[str, Any], dict[str, Any]]]:
    """Yield the title, the summary, the options and the defaults of each role that has any; first what roles share."""
    stack = yaml.safe_load((ROOT / "roles/preflight/meta/argument_specs.yml").read_text())["argument_specs"]["stack"]
    yield "inventory/stack.yml", stack["short_description"], stack["options"], yaml.safe_load(STACK.read_text())
    for path in sorted(ROOT.glob("roles/*/meta/argument_specs.yml")):
        main = yaml.safe_load(path.read_text())["argument_specs"]["main"]
        defaults = path.parents[1] / "defaults/main.yml"
        if main.get("options"):
            values = yaml.safe_load(defaults.read_text()) if defaults.exists() else {}
            yield path.parts[-3], main["short_description"], main["options"], values or {}


def kind(option: dict[str, Any], path: str) -> str:
    """The type of an option, its range and its choices, in words."""
    name = {"int": "whole number", "float": "number", "bool": "true or false", "dict": "mapping"}.get(
        option.get("type", "str"), option.get("type", "text")
    )
    name = "text" if name == "str" else name
    if name == "list":
        name = f"list of {kind({'type': option.get('elements', 'str')}, path)}"
    limit = LIMITS.get(path, {})
    if "choices" in option:
        return f"{name}: {', '.join(f'`{choice}`' for choice in option['choices'])}"
    if "range" in limit:
        return f"{name}, {limit['range'][0]} to {limit['range'][1]}"
    return f"{name}: {limit['words']}" if "words" in limit else name


def default_of(name: str, option: dict[str, Any], values: dict[str, Any]) -> str:
    """The default of an option, as YAML on one line."""
    if name not in values:
        return "required" if option.get("required") else ""
    text = yaml.safe_dump(values[name], default_flow_style=True, width=10_000, allow_unicode=True)
    return f"`{' '.join(text.removesuffix('...' + chr(10)).split())}`"


def rows(options: dict[str, Any], values: dict[str, Any], path: str = "") -> Iterator[str]:
    for name, option in options.items():
        cells = [f"`{path}{name}`", kind(option, f"{path}{name}"), default_of(name, option, values)]
        cells.append(option["description"].strip())
        yield f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"
        yield from rows(option.get("options", {}), {}, f"{path}{name}.")


def page() -> str:
    parts = [HEAD]
    for title, summary, options, values in specifications():
        parts.append(f"## {title}\n{summary}.\n\n{TABLE}\n" + "\n".join(rows(options, values)) + "\n")
    return "\n".join(parts)


if __name__ == "__main__":
    sys.stdout.write(page())
