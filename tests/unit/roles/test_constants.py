"""What two roles must agree on is written once, in inventory/stack.yml."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator

import yaml

from tests.paths import ROOT

STACK = yaml.safe_load((ROOT / "inventory/stack.yml").read_text())
# Below which each role has what is its own.
SHARED_ROOTS = {"/etc/vmlops", "/opt/vmlops"}
KINDS = {".conf", ".j2", ".mtail", ".nft", ".py", ".service", ".sh", ".socket", ".yml", ""}


def lines() -> Iterator[tuple[str, str, str]]:
    """Role, file and text of each line of the roles that is no comment."""
    for path in sorted((ROOT / "roles").rglob("*")):
        if path.is_file() and path.suffix in KINDS:
            name = path.relative_to(ROOT / "roles")
            for line in path.read_text().splitlines():
                if not line.lstrip().startswith("#"):
                    yield name.parts[0], str(name), line


def test_no_path_of_the_product_stands_in_two_roles() -> None:
    found: defaultdict[str, dict[str, str]] = defaultdict(dict)
    for role, name, line in lines():
        for path in re.findall(r"/(?:etc|opt|run|srv|usr|var)/[\w./@-]*vmlops[\w./@-]*|\.kit\b", line):
            found[path.rstrip("/.")][role] = name
    twice = {path: roles for path, roles in found.items() if len(roles) > 1 and path not in SHARED_ROOTS}
    assert found["/opt/vmlops/releases"], "paths are found"
    assert not twice


def test_no_role_repeats_a_port_or_the_account_of_the_stack() -> None:
    ports = [*STACK["vmlops_ports"].values(), *(instance["port"] for instance in STACK["vmlops_instances"])]
    number = re.compile(rf"(?<![\w.])({'|'.join(map(str, ports))})(?![\w.])")
    account = re.compile(rf"\b(?:User|Group|user|group|owner)[=:] ?{STACK['vmlops_account']}$")
    found = [f"{name}: {line.strip()}" for _, name, line in lines() if number.search(line) or account.search(line)]
    assert not found
