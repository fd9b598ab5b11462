"""The verbs, each with the function that does it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable

from host import audit, box, checks, cluster, credentials, machine, packages
from host.commands import ROOT, Problem


def replace(command: list[str]) -> None:
    """Become ``command``, whose exit status is then this program's."""
    sys.stdout.flush()
    os.chdir(ROOT)
    os.execvp(command[0], command)  # noqa: S606


def ssh() -> None:
    command = os.environ.get("CMD", "")
    replace(machine.ssh(*([command] if command else [])))


def install(*extra: str) -> None:
    """Packages of a lab machine's host, and those of ``COMMAND[:PACKAGE]`` words."""
    wanted = (word.partition(":")[::2] for word in extra)
    packages.install(packages.LAB | {command: package or command for command, package in wanted})


def playbook(name: str) -> None:
    machine.playbook(name, os.environ.get("ENVIRONMENT", ""))


VERBS: dict[str, Callable[..., None]] = {
    "check": checks.check_host,
    "packages": install,
    "tools": packages.fetch_tools,
    "venv": lambda *files: packages.make_venv(files),
    "prepare": machine.prepare,
    "start": machine.start,
    "stop": machine.stop,
    "destroy": machine.destroy,
    "start-cluster": cluster.start,
    "stop-cluster": cluster.stop,
    "destroy-cluster": cluster.destroy,
    "playbook": playbook,
    "ssh": ssh,
    "status": lambda: replace(machine.status()),
    "logs": lambda: replace(machine.logs()),
    "predict": lambda *headers: replace([*machine.predict(*headers), "-sS", "--include"]),
    "box": box.build,
    "test-vm": machine.test_vm,
    "credentials": lambda: credentials.credentials(os.environ.get("ENVIRONMENT") or "production"),
    "audit": audit.audit,
    "uv": lambda *words: sys.exit(packages.uv(list(words))),
}


def run_verb(arguments: list[str]) -> int:
    if not arguments or arguments[0] not in VERBS:
        print("usage: python3 -m host", "|".join(VERBS), "[ARGUMENT …]", file=sys.stderr)
        return 2
    try:
        checks.check_clone(ROOT)
        VERBS[arguments[0]](*arguments[1:])
    except Problem as error:
        print(f"vmlops: {error}", file=sys.stderr)
        return 1
    except subprocess.CalledProcessError as error:  # it has said itself what was wrong
        return error.returncode if error.returncode > 0 else 1
    except KeyboardInterrupt:
        return 130
    return 0
