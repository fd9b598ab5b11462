"""Running programs, as root where that is needed, and saying in one line why something cannot be done."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
BUILD = ROOT / "build"
# Where packages come from, and the way there.
SOURCES = ("http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "APT_CONFIG")


class Problem(Exception):
    """A verb cannot do its work; the text is one line that says why, with the remedy."""


def run(*command: str | Path, log: Path | None = None, environment: Mapping[str, str] | None = None) -> None:
    """Run a program in the root of the clone, its output to ``log`` if there is one.

    Raises:
        subprocess.CalledProcessError: it did not exit with 0.
    """
    arguments = [str(word) for word in command]
    environ = {**os.environ, **(environment or {})}
    if log is None:
        subprocess.run(arguments, cwd=ROOT, env=environ, check=True)
        return
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("w") as stream:
        subprocess.run(arguments, cwd=ROOT, env=environ, check=True, stdout=stream, stderr=subprocess.STDOUT)


def output(*command: str | Path, data: str | None = None) -> str:
    """Return what a program writes to standard output.

    Raises:
        subprocess.CalledProcessError: it did not exit with 0.
    """
    arguments = [str(word) for word in command]
    return subprocess.run(arguments, cwd=ROOT, check=True, text=True, input=data, stdout=subprocess.PIPE).stdout


def succeeds(*command: str | Path) -> bool:
    arguments = [str(word) for word in command]
    try:
        result = subprocess.run(arguments, cwd=ROOT, check=False, stdin=subprocess.DEVNULL, capture_output=True)
    except OSError:
        return False
    return result.returncode == 0


def find(command: str) -> str | None:
    """Return the path of a command, which may lie where only root's PATH leads."""
    return shutil.which(command) or shutil.which(command, path="/usr/sbin:/sbin")


def as_root(*command: str | Path) -> list[str]:
    """Return the command with sudo before it, unless this is root already; sudo must not drop SOURCES."""
    words = [str(word) for word in command]
    if os.geteuid() == 0:
        return words
    return ["sudo", "env", *(f"{name}={os.environ[name]}" for name in SOURCES if name in os.environ), *words]


def ask_become_pass() -> list[str]:
    """Return the option with which Ansible asks for sudo's password, where sudo wants one.

    Where it was typed a moment ago sudo does not ask again, but only on this terminal, which Ansible's processes leave: -k.
    """
    return [] if os.geteuid() == 0 or succeeds("sudo", "-k", "-n", "true") else ["--ask-become-pass"]


def first_line(log: Path, *words: str) -> str:
    """Return the first line of a log that begins with one of ``words``, or its last one."""
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return next((line for line in lines if line.startswith(words)), lines[-1] if lines else "nothing")


def os_release() -> dict[str, str]:
    try:
        lines = Path("/etc/os-release").read_text().splitlines()
    except OSError:
        return {}
    return {name: value.strip('"') for name, _, value in (line.partition("=") for line in lines)}
