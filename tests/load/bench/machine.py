"""The machine that is measured: made, provisioned and removed as the Makefile does it, and what is asked of it."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from time import monotonic
from typing import Any

import yaml

from host.commands import ask_become_pass
from tests.paths import ROOT

INVENTORY = Path(__file__).with_name("inventory")
CONTROL = ROOT / ".lab" / "bench"
WORK = ROOT / "build" / "bench"
AGENT = "/opt/vmlops-bench/code/bench/agent.py"


class MachineError(RuntimeError):
    """Something on the machine failed; the text says what."""


def playbook(name: str, *arguments: str) -> dict[str, Any]:
    """Run a playbook; return seconds, number of tasks, of changes, and the slowest tasks."""
    command = ["ansible-playbook", "-i", str(INVENTORY), name, *arguments]
    environ = {
        **os.environ,
        "ANSIBLE_CALLBACKS_ENABLED": "ansible.posix.profile_tasks",
        "PROFILE_TASKS_TASK_OUTPUT_LIMIT": "5",
    }
    began = monotonic()
    result = subprocess.run(command, check=False, capture_output=True, text=True, cwd=ROOT, env=environ)
    seconds = monotonic() - began
    log = WORK / f"{Path(name).stem}.log"  # one each: the removal of the machine must not cover what failed on it
    log.write_text(result.stdout + result.stderr)
    if result.returncode:
        raise MachineError(f"{name} failed, see {log}: {result.stdout.strip()[-400:]}")
    counts = dict(re.findall(r"(ok|changed|skipped)=(\d+)", result.stdout))
    slowest = re.findall(r"^(.+?) -+ ([0-9.]+)s$", result.stdout, re.MULTILINE)
    return {
        "seconds": seconds,
        "tasks": int(counts["ok"]) + int(counts["skipped"]),
        "changed": int(counts["changed"]),
        "slowest": [[task.strip(), float(took)] for task, took in slowest[:5]],
    }


class Machine:
    """`with Machine(keep=...) as machine`: booted, not yet provisioned. `keep` leaves it behind, and finds it again."""

    def __init__(self, keep: bool) -> None:
        self.keep = keep

    def __enter__(self) -> Machine:
        WORK.mkdir(parents=True, exist_ok=True)
        self.found = self.keep and (CONTROL / "ssh_config").exists()
        if not self.found:
            self.remove()
        try:
            self.prepared = self.lab("prepared")
            self.boot = self.lab("started")
            words = (CONTROL / "ssh_config").read_text().split()
            self.name, self.address = words[1], words[words.index("HostName") + 1]
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        if not self.keep:
            self.remove()

    def remove(self) -> None:
        self.lab("absent")

    def lab(self, state: str) -> dict[str, Any]:
        return playbook("playbooks/lab.yml", "-e", f"lab_machine_state={state}", *ask_become_pass())

    def ssh(self, command: str, data: bytes = b"") -> bytes:
        mux = ["-o", "ControlMaster=auto", "-o", f"ControlPath={CONTROL}/mux", "-o", "ControlPersist=60"]
        full = ["ssh", "-F", str(CONTROL / "ssh_config"), *mux, self.name, command]
        result = subprocess.run(full, check=False, capture_output=True, input=data)
        if result.returncode:
            raise MachineError(
                result.stderr.decode(errors="replace").strip()[-500:] or f"{command}: {result.returncode}"
            )
        return result.stdout

    def ask(self, verb: str, /, **request: Any) -> Any:
        """What agent.py answers. Raises MachineError."""
        return json.loads(self.ssh(f"sudo python3 {AGENT} {verb}", json.dumps(request).encode()))

    def python(self) -> str:
        """The version of its Python, such as 3.11."""
        return self.ssh("python3 -c 'import sys; print(\"%d.%d\" % sys.version_info[:2])'").decode().strip()

    def cpu(self, units: Sequence[str]) -> dict[str, int]:
        found: dict[str, int] = self.ask("cpu", units=units) if units else {}
        return found

    def put(self, files: Mapping[str, str | Path]) -> None:
        """Text or files and trees of this host, by path on the machine without the first slash."""
        with subprocess.Popen(
            ["ssh", "-F", str(CONTROL / "ssh_config"), self.name, "sudo tar -x --no-same-owner -C /"],
            stdin=subprocess.PIPE,
            stderr=subprocess.PIPE,
        ) as process:
            assert process.stdin
            with tarfile.open(fileobj=process.stdin, mode="w|") as tar:
                for name, content in files.items():
                    if isinstance(content, Path):
                        tar.add(content, name, filter=lambda member: None if "__pycache__" in member.name else member)
                    else:
                        member = tarfile.TarInfo(name)
                        member.size = len(content.encode())
                        member.mode = 0o644
                        tar.addfile(member, io.BytesIO(content.encode()))
            process.stdin.close()
            error = process.stderr.read().decode() if process.stderr else ""
        if process.returncode:
            raise MachineError(f"copying to the machine failed: {error.strip()[-300:]}")


def instances() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = yaml.safe_load((ROOT / "inventory" / "stack.yml").read_text())["vmlops_instances"]
    return found


def fetch(environment: str, python_version: str) -> Path:
    """The packages of requirements/bench-<environment>.txt, for the machine's Python. Raises MachineError."""
    lock = ROOT / "requirements" / f"bench-{environment}.txt"
    tree = WORK / environment
    mark = tree / "fetched.txt"
    wanted = f"{python_version}\n{lock.read_text()}"
    if mark.exists() and mark.read_text() == wanted:
        return tree / "site-packages"
    shutil.rmtree(tree, ignore_errors=True)
    command = [sys.executable, "-m", "host", "wheels", str(tree / "site-packages"), python_version, os.uname().machine]
    command += [str(lock)]
    result = subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True)
    if result.returncode:
        lines = [line for line in result.stderr.strip().splitlines() if line.strip()]
        raise MachineError(f"{lock.name} cannot be installed: {' '.join(lines)[-300:]}")
    mark.write_text(wanted)
    return tree / "site-packages"


def installed(tree: Path, name: str) -> str:
    """The version of a distribution in a tree of site-packages."""
    pattern = re.sub(r"[-_.]+", "[-_.]", name)
    for found in tree.glob("*.dist-info"):
        if match := re.fullmatch(rf"{pattern}-(.+)\.dist-info", found.name, re.IGNORECASE):
            return match[1]
    return "?"
