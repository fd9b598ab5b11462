"""Check mode runs to the end on a new machine: a unit that is not there yet must not stop it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import yaml

from tests.paths import ROOT


def tasks(entries: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for entry in entries:
        yield entry
        for part in ("block", "rescue", "always"):
            yield from tasks(entry.get(part, []))


def test_every_task_that_asks_systemd_goes_on_in_check_mode() -> None:
    asked = 0
    strict = []
    for path in [*ROOT.glob("roles/*/tasks/*.yml"), *ROOT.glob("roles/*/handlers/*.yml")]:
        for task in tasks(yaml.safe_load(path.read_text()) or []):
            if "ansible.builtin.systemd_service" in task:
                asked += 1
                if task.get("ignore_errors") != "{{ ansible_check_mode }}":
                    strict.append(f"{path.relative_to(ROOT)}: {task['name']}")
    assert asked > 10
    assert not strict
