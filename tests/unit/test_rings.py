"""The fast ring of tests runs where Ansible is not installed."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from tests.paths import ROOT

PROGRAMS = {"ansible", "ansible-inventory", "ansible-playbook", "ansible-vault"}


def imported(tree: ast.AST) -> Iterator[str]:
    """The modules that a module imports at its top or anywhere else; of `from x import y` both x and x.y."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def needs_ansible(path: Path, seen: set[Path]) -> Iterator[str]:
    """Imports of Ansible in a module and in the modules of the project that it imports, and the module's own calls."""
    if path in seen or not path.is_file():
        return
    seen.add(path)
    tree = ast.parse(path.read_text())
    for name in imported(tree):
        if name.partition(".")[0] == "ansible":
            yield f"{path.relative_to(ROOT)} imports {name}"
        yield from needs_ansible(ROOT / f"{name.replace('.', '/')}.py", seen)
    for node in ast.walk(tree) if path.is_relative_to(ROOT / "tests/unit") else ():
        if isinstance(node, ast.List) and node.elts and getattr(node.elts[0], "value", None) in PROGRAMS:
            yield f"{path.relative_to(ROOT)}:{node.lineno} calls {ast.unparse(node.elts[0])}"


def test_unit_tests_need_no_ansible() -> None:
    seen: set[Path] = set()
    found = [line for path in sorted((ROOT / "tests/unit").rglob("*.py")) for line in needs_ansible(path, seen)]
    assert (ROOT / "roles/api/files/vmlops_api.py") in seen, "what is imported is followed"
    assert found == []
