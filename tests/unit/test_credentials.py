"""make credentials: random passwords for what an environment refers to."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
import yaml

from host.commands import Problem
from host.credentials import FILE, credentials, make
from tests.paths import ROOT

REFERRING = """---
gateway_users:
  - {name: reader, password: "{{ vault_reader_password }}"}
  - {name: known, password: "{{ vault_known_password }}"}
grafana_admin_password: "{{ vault_grafana_admin_password }}"
pager: "{{ vault_pager_url }}"
"""


@pytest.fixture
def environment(tmp_path: Path) -> Path:
    variables = tmp_path / "group_vars/all"
    variables.mkdir(parents=True)
    (variables / "20-own.yml").write_text(REFERRING)
    (variables / "30-own.yml").write_text("vault_known_password: of the owner\n")
    return tmp_path


def test_what_is_missing_is_made_and_what_is_there_is_kept(environment: Path) -> None:
    mask = os.umask(0)
    try:
        made = make(environment)
    finally:
        os.umask(mask)
    path = environment / FILE
    assert sorted(made) == ["vault_grafana_admin_password", "vault_reader_password"]
    assert yaml.safe_load(path.read_text()) == made
    assert path.stat().st_mode & 0o777 == 0o600
    assert len(set(made.values())) == 2
    assert all(len(value) >= 32 for value in made.values())
    assert make(environment) == {}
    assert [file.name for file in path.parent.iterdir() if file.suffix != ".yml"] == []

    lines = path.read_text().splitlines()
    path.write_text("\n".join(line for line in lines if "reader" not in line) + "\n")
    again = make(environment)
    assert list(again) == ["vault_reader_password"]
    assert again["vault_reader_password"] != made["vault_reader_password"]
    assert yaml.safe_load(path.read_text()) == made | again


def test_an_encrypted_file_may_have_them_already(environment: Path) -> None:
    (environment / "group_vars/all/40-vault.yml").write_text("$ANSIBLE_VAULT;1.1;AES256\n3136\n")
    with pytest.raises(Problem, match=r"40-vault\.yml is encrypted"):
        make(environment)
    assert not (environment / FILE).exists()


def test_an_unknown_environment_is_refused() -> None:
    with pytest.raises(Problem, match="set ENVIRONMENT"):
        credentials("nowhere")


def test_git_ignores_the_file() -> None:
    path = f"inventory/production/{FILE}"
    assert subprocess.run(["git", "check-ignore", "--quiet", path], cwd=ROOT, check=False).returncode == 0
