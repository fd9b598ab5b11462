"""README's 'Your own servers', done on a machine that is nothing but a server, by somebody whose umask lets nobody else read.

One walk, since each run of site.yml takes a minute.
"""

from __future__ import annotations

import os
import re
import shutil
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import yaml

from tests.lab.machine import Lab
from tests.paths import ROOT
from tests.readme import commands

PASSWORDS = {f"vault_{name}_password": f"{name}-0b9d1c66c1bd4b73" for name in ("reader", "operator", "grafana_admin")}
(SITE,) = [line for line in commands("ansible-playbook") if line.endswith("site.yml")]


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    lab = Lab(tmp_path_factory.mktemp("own") / "control")
    lab.bring("started")
    yield lab
    lab.bring("absent")


@pytest.fixture(scope="module")
def clone(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the project with the environment that README's commands make, and what its reader edits in it."""
    clone = tmp_path_factory.mktemp("clone")
    names = subprocess.check_output(["git", "ls-files"], cwd=ROOT, text=True).splitlines()
    for name in [name for name in names if (ROOT / name).exists()]:
        (clone / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, clone / name, follow_symlinks=False)
    shutil.copytree(ROOT / "model/artifacts", clone / "model/artifacts")
    if (ROOT / ".kit").exists():
        (clone / ".kit").symlink_to(ROOT / ".kit")
    for command in commands("cp"):
        subprocess.run(command, shell=True, cwd=clone, check=True)
    edited = {
        "ansible_host": lab.ssh("hostname -I").split()[0],
        "ansible_ssh_common_args": f"-F {lab.control}/ssh_config",
        "grafana_required": False,  # its packages are not the distribution's
        **PASSWORDS,
    }
    (clone / "inventory/production/group_vars/all/30-edited.yml").write_text(yaml.safe_dump(edited))
    return clone


def run(clone: Path, *options: str) -> dict[str, int]:
    """Run README's command for site.yml with these options, under umask 077; the numbers of its recap."""
    command = ["sh", "-c", f"umask 077; exec {SITE} {' '.join(options)}"]
    result = subprocess.run(command, cwd=clone, check=False, capture_output=True, text=True)
    print(result.stdout[-20_000:], result.stderr)
    assert result.returncode == 0
    said = result.stdout + result.stderr
    assert [secret for secret in PASSWORDS.values() if secret in said] == []
    return {name: int(number) for name, number in re.findall(r"(\w+)=(\d+)", result.stdout.rpartition("PLAY RECAP")[2])}


def test_servers_of_ones_own(lab: Lab, clone: Path) -> None:
    lab.ssh("echo 'Defaults umask=0077, umask_override' | sudo tee /etc/sudoers.d/zz-umask")

    # What would change on a new machine, and nothing does.
    assert run(clone, "--check", "--diff")["changed"] > 30
    assert lab.ssh("find /etc -maxdepth 1 '(' -name nginx -o -name vmlops ')'") == ""
    assert not (clone / "certs").exists()

    assert run(clone)["changed"] > 30
    address = lab.ssh("hostname -I").split()[0]
    authority = ssl.create_default_context(cafile=str(clone / "certs/production/ca.crt"))
    url = f"https://{address}/predict"
    # The certificate carries the names of the environment, so the server is asked by its address under one of them.
    with httpx.Client(verify=authority, auth=("reader", PASSWORDS["vault_reader_password"])) as client:
        answer = client.post(
            url,
            json={"sentence": "Oh yeah, that was soooo cool!"},
            headers={"Host": "emotions.example.org"},
            extensions={"sni_hostname": "emotions.example.org"},
        )
    assert answer.status_code == 200, answer.text
    assert answer.json()["prediction"]

    recap = run(clone, "--check", "--diff")
    assert (recap["changed"], recap["ignored"]) == (0, 0)
    recap = run(clone, "--tags", "gateway", "--limit", "emotions.example.org")
    assert recap["changed"] == 0

    # A proxy for the rest of the world is none for the machine itself, and a reader that leaves is no error.
    status = lab.ssh(
        "sudo env http_proxy=http://127.0.0.1:9 HTTP_PROXY=http://127.0.0.1:9 vmlops-api status 2>&1 | head -1"
    )
    assert re.fullmatch(r"v1@8001 +active +ready +\S+ +http://127.0.0.1:8001", status), status


def test_other_playbooks_are_what_they_should_be(clone: Path) -> None:
    for command in commands("ansible-playbook"):
        result = subprocess.run(
            [*command.split(), "--syntax-check"], cwd=clone, check=False, capture_output=True, text=True, env=os.environ
        )
        assert result.returncode == 0, (command, result.stdout, result.stderr)
