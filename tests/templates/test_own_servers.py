"""README's recipe for servers of one's own: the files that it copies and the commands that it gives."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from tests.paths import ROOT
from tests.readme import commands


def test_own_servers_recipe_has_a_valid_playbook_and_inventory(tmp_path: Path) -> None:
    for name in ("inventory", "playbooks", "roles", "site.yml", "ansible.cfg"):
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, tmp_path / name, symlinks=True)
        else:
            shutil.copy(source, tmp_path)
    for command in [*commands("cp"), *(f"{line} --syntax-check" for line in commands("ansible-playbook"))]:
        result = subprocess.run(command, shell=True, cwd=tmp_path, check=False, capture_output=True, text=True)
        assert result.returncode == 0, (command, result.stdout, result.stderr)
    listing = subprocess.run(
        ["ansible-inventory", "-i", "inventory/production", "--host", "emotions.example.org"],
        cwd=tmp_path,
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    assert '"vmlops_instances"' in listing, "the copied environment must still have the shared variables"
