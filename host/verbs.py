"""The verbs of the command line and their functions."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

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
    chosen = rollout_settings(os.environ)
    extra = ["-e", json.dumps(chosen)] if chosen else []
    machine.playbook(name, os.environ.get("ENVIRONMENT", ""), *extra)


def rollout_settings(environ: Mapping[str, str]) -> dict[str, object]:
    """The role's variables for RELEASE, VERSION, KEY, FORCE and BAKE, those that are set."""
    given = {name: environ[name] for name in ("RELEASE", "VERSION", "KEY", "FORCE", "BAKE") if environ.get(name)}
    chosen: dict[str, object] = {}
    for name, variable in (("RELEASE", "api_release_file"), ("KEY", "api_release_key")):
        if name in given:
            path = Path(given[name]).expanduser().resolve()
            if not path.is_file():
                raise Problem(f"{name}={given[name]}: there is no such file")
            chosen[variable] = str(path)
    if "VERSION" in given:
        if given["VERSION"] not in ("v1", "v2"):
            raise Problem(f"VERSION={given['VERSION']}: it is v1 or v2")
        chosen["api_deploy_versions"] = [given["VERSION"]]
    if "BAKE" in given:
        seconds = re.fullmatch(r"(\d{1,5})([smh])", given["BAKE"])
        if not seconds:
            raise Problem(f"BAKE={given['BAKE']}: it is a time such as 90s, 10m or 1h")
        chosen["api_bake_seconds"] = int(seconds[1]) * {"s": 1, "m": 60, "h": 3600}[seconds[2]]
    if "FORCE" in given:
        if given["FORCE"] != "1":
            raise Problem(f"FORCE={given['FORCE']}: it is 1, or not set")
        chosen["promote_anyway"] = True
    return chosen


def releases() -> None:
    """What every host has and runs."""
    on_api_hosts("vmlops-api list")


def labels() -> None:
    output = Path(os.environ.get("OUTPUT") or ROOT / "build/labels.csv").resolve()
    machine.playbook(
        "playbooks/labels.yml", os.environ.get("ENVIRONMENT", ""), "-e", json.dumps({"labels_file": str(output)})
    )


def forget() -> None:
    """Erase what is kept of a request, on every host."""
    request = os.environ.get("ID", "")
    if not re.fullmatch(r"[A-Za-z0-9._-]{1,64}", request):
        raise Problem(f"ID={request}: it is the X-Request-ID of an answer, such as make forget ID=2b41c0de")
    on_api_hosts(f"vmlops-api forget {request}")


def on_api_hosts(command: str) -> None:
    inventory = os.environ.get("ENVIRONMENT", "") or machine.environment()
    words = ["ansible", "api", "-i", f"inventory/{inventory}", "--become", "-m", "ansible.builtin.command"]
    replace([*words, "-a", command])


def make_kit() -> None:
    from host import kit  # which needs what .venv/control has

    kit.build()


def make_image() -> None:
    from host import image  # which needs what .venv/control has

    image.build()


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
    "releases": releases,
    "labels": labels,
    "forget": forget,
    "ssh": ssh,
    "status": lambda: replace(machine.status()),
    "logs": lambda: replace(machine.logs()),
    "predict": lambda *headers: replace([*machine.predict(*headers), "-sS", "--include"]),
    "box": box.build,
    "image": make_image,
    "kit": make_kit,
    "test-vm": machine.test_vm,
    "credentials": lambda: credentials.credentials(os.environ.get("ENVIRONMENT") or "production"),
    "audit": audit.audit,
    "wheels": lambda *words: sys.exit(packages.fetch_wheels(*words)),
    "uv": lambda *words: sys.exit(packages.uv(list(words))),
}


def run_verb(arguments: list[str]) -> int:
    if not arguments or arguments[0] not in VERBS:
        print("usage: python3 -m host", "|".join(VERBS), "[ARGUMENT …]", file=sys.stderr)
        return 2
    try:
        checks.check_clone(ROOT)
        os.environ.update(packages.sources())
        VERBS[arguments[0]](*arguments[1:])
    except Problem as error:
        print(f"vmlops: {error}", file=sys.stderr)
        return 1
    except subprocess.CalledProcessError as error:  # it has said itself what was wrong
        return error.returncode if error.returncode > 0 else 1
    except KeyboardInterrupt:
        return 130
    return 0
