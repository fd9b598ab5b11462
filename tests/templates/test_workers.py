"""What a host of the group workers gets: units at idle priority, and a way to the other workers and nowhere else."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.paths import ROOT
from tests.templates.render import evaluate, render

SUDO = [] if os.geteuid() == 0 else ["sudo"]
FIREWALL = "etc/vmlops/firewall.nft.j2"
MADE: dict[str, Any] = {
    "environment": "scoring",
    "inventory_hostname": "worker1",
    "__workers_archives": {"venv": "venv-0", "code": "code-0"},
    "__workers_group": {"gid": 990},
    "workers_memory_max": 1024,
    "ansible_host": "10.0.0.1",
}


@pytest.mark.parametrize("unit", ["vmlops-scheduler.service", "vmlops-worker@.service"])
def test_units_take_what_is_left_and_have_a_bound(unit: str) -> None:
    lines = render("workers", f"etc/systemd/system/{unit}.j2", **MADE).splitlines()
    for wanted in (
        "CPUSchedulingPolicy=idle",
        "CPUWeight=idle",
        "Nice=19",
        "IOSchedulingClass=idle",
        "MemoryMax=1024M",
    ):
        assert wanted in lines
    (start,) = [line for line in lines if line.startswith("ExecStart=")]
    assert "--protocol tls" in start
    assert "0.0.0.0" not in start


def test_everything_is_encrypted_and_http_serves_nothing() -> None:
    settings = yaml.safe_load(render("workers", "etc/vmlops/workers/dask.yaml.j2", **MADE))["distributed"]
    assert settings["comm"]["require-encryption"] is True
    assert settings["comm"]["tls"]["ca-file"] == "/etc/vmlops/workers/ca.crt"
    assert settings["scheduler"]["http"]["routes"] == settings["worker"]["http"]["routes"] == []


def test_workers_may_open_connections_to_workers_alone() -> None:
    rules = render("workers", "etc/vmlops/firewall.d/vmlops-workers.nft.j2", **MADE).splitlines()[2:]
    assert len(rules) == 4
    assert all(
        re.fullmatch(r"meta skgid 990 ip daddr \S+ tcp dport \{ 8786, 8801-8864 \} accept", rule) for rule in rules[:3]
    )
    assert rules[3] == "meta skgid 990 counter reject with icmpx type admin-prohibited"


def test_the_first_host_has_the_scheduler_and_only_it_lets_ssh_through() -> None:
    sshd = "etc/ssh/sshd_config.d/10-vmlops.conf.j2"
    for host, here in (("worker1", True), ("worker2", False)):
        made = MADE | {"inventory_hostname": host}
        assert ("vmlops-scheduler.service" in evaluate("_workers_units", "workers", **made)) is here
        hardened = render("hardening", sshd, **made, hardening_ssh_forwards=[])
        assert ("PermitOpen 10.0.0.1:8786" in hardened) is here
        assert ("AllowTcpForwarding no" in hardened) is not here


def test_the_control_machine_is_told_how_ansible_reaches_the_scheduler() -> None:
    found = evaluate("_workers_access", "workers", **MADE)
    assert found["host"] == "worker1"
    assert found["destination"]
    assert found["arguments"].startswith("-F ")
    assert json.loads(json.dumps(found)) == found


def archive(folder: Path, name: str, *modules: str) -> None:
    """An archive with these modules, which are empty, and what makes them packages."""
    for module in modules:
        (folder / name / module).parent.mkdir(parents=True, exist_ok=True)
        (folder / name / module).touch()
    with tarfile.open(folder / f"{name}.tar.gz", "w:gz") as tar:
        tar.add(folder / name, name)


def test_another_python_gets_its_packages_once_though_the_code_is_the_same(tmp_path: Path) -> None:
    """The role's tasks, run on this computer with small archives in place of the real ones."""
    shutil.copytree(ROOT / "roles/workers", tmp_path / "roles/workers")
    version = "import sys; print('{}.{}'.format(*sys.version_info))"
    done = subprocess.run(["/usr/bin/python3", "-c", version], capture_output=True, text=True, check=True)
    site = f"lib/python{done.stdout.strip()}/site-packages/distributed/cli"
    archive(tmp_path, "code-0", "batch/scoring.py", "model/train.py")
    for venv in ("venv-old", "venv-new"):
        archive(tmp_path, venv, f"{site}/dask_scheduler.py", f"{site}/dask_worker.py")
    target = tmp_path / "target"
    variables = {"_workers_directory": str(target), "vmlops_workers": {"directory": str(tmp_path / "etc")}}
    play = {
        "hosts": "localhost",
        "connection": "local",
        "gather_facts": True,
        "tasks": [{"ansible.builtin.import_role": {"name": "workers", "tasks_from": "code"}}],
        "vars": variables | {"ansible_python_interpreter": sys.executable},
    }
    (tmp_path / "play.yml").write_text(yaml.safe_dump([play]))
    (tmp_path / "batch").mkdir()

    def run(venv: str) -> str:
        made = {"directory": str(tmp_path), "venv": venv, "code": "code-0", "changed": False}
        (tmp_path / "batch/archive.py").write_text(f"print({json.dumps(json.dumps(made))})\n")
        extra = ["-e", json.dumps(variables)]
        command = [*SUDO, sys.executable, "-m", "ansible", "playbook", "-i", "localhost,", *extra, "play.yml"]
        result = subprocess.run(command, cwd=tmp_path, check=False, capture_output=True, text=True)
        assert result.returncode == 0, result.stdout + result.stderr
        return result.stdout

    run("venv-old")
    said = run("venv-new")
    found = {path.relative_to(target).as_posix() for path in target.glob("*/COMPLETE")}
    assert found == {"venv-new/COMPLETE", "code-0/COMPLETE"}, said
    assert "changed=0 " in (said := run("venv-new")), said
