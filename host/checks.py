"""Checks of the host before a machine is started. Each problem is one line with its remedy. Nothing is changed."""

from __future__ import annotations

import re
import shutil
import socket
import subprocess
from collections.abc import Mapping
from pathlib import Path

from host.commands import ROOT, Problem, as_root, find, os_release, succeeds

# MB that a clone, and the tree of a machine, take.
SPACE = {ROOT: 1500, Path("/var"): 2500}


def check_clone(root: Path) -> None:
    """Refuse a path that make, the scripts of a virtual environment or an ssh_config cannot hold."""
    bad = sorted(set(re.findall(r"[^A-Za-z0-9/._+@-]", str(root))))
    if bad:
        raise Problem(
            f"the path of this clone contains {' '.join(map(repr, bad))}, which not all tools bear: "
            "move the clone to a path of letters, digits and /._+@-"
        )


def check_distribution() -> None:
    release = os_release()
    if release.get("ID") not in ("debian", "ubuntu"):
        raise Problem(
            f"the lab machine needs a Debian or Ubuntu host, this is {release.get('PRETTY_NAME', 'unknown')}: "
            "use `vagrant up`, or site.yml on servers of yours"
        )


def check_root() -> None:
    if as_root() and not (find("sudo") and subprocess.run(["sudo", "-v"], check=False).returncode == 0):
        raise Problem(
            "neither root nor sudo: a lab machine has a network of its own, which only root may make; "
            "run make as root, or install sudo and add yourself to its group"
        )


def check_ports(ports: Mapping[str, str], machine_of: Path | None = None) -> None:
    """Refuse an invalid port number, and a port that another program than this clone's own machine uses.

    Args:
        ports: the port by the name of the variable that sets it.
        machine_of: the clone, where it has a machine; the programs that forward the machine's ports name the clone's folders on
            their command lines.
    """
    for variable, value in ports.items():
        if not (value.isascii() and value.isdigit() and 1 <= int(value) <= 65535):
            raise Problem(f"{variable}={value} is not a port number: give one from 1 to 65535")
        port = int(value)
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) != 0:
                continue
        owner = port_owner(port)
        if owner and machine_of and owns(machine_of, int(owner.rpartition(" ")[2])):
            continue
        raise Problem(
            f"port {port} of this host is taken ({owner or 'by an unknown process'}): stop it, or choose another: "
            f"{variable}={port % 57000 + 8000} make start-project"
        )
    twice = sorted({value for value in ports.values() if list(ports.values()).count(value) > 1})
    if twice:
        names = " and ".join(variable for variable, value in ports.items() if value == twice[0])
        raise Problem(f"{names} are both {twice[0]}: give each its own")


def port_owner(port: int) -> str:
    """Return who listens on a port, such as ``nginx, pid 12``, or nothing where that cannot be told."""
    if not find("ss"):
        return ""
    command = as_root("ss", "-Hltnp", f"sport = :{port}")
    listing = subprocess.run(command, check=False, capture_output=True, text=True).stdout
    found = re.search(r'users:\(\("([^"]*)",pid=(\d+)', listing)
    return f"{found[1]}, pid {found[2]}" if found else ""


def owns(root: Path, pid: int) -> bool:
    """Whether a process was started for the machine of the clone at ``root``."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace")
    except OSError:
        return False
    return any(f"{root}/{folder}/" in words for folder in (".lab", ".vagrant"))


def check_space(space: Mapping[Path, int] = SPACE) -> None:
    for place, needed in space.items():
        free = shutil.disk_usage(place).free // 1_000_000
        if free < needed:
            raise Problem(f"only {free} MB are free for {place}, {needed} MB are needed: make room, or move the clone")


def check_namespaces() -> None:
    isolate = (
        "unshare",
        "--mount",
        "--pid",
        "--net",
        "--uts",
        "--ipc",
        "--fork",
        "mount",
        "-t",
        "tmpfs",
        "none",
        "/mnt",
    )
    if "cgroup2" not in Path("/proc/filesystems").read_text() or not succeeds(*as_root(*isolate)):
        raise Problem(
            "this kernel or container forbids the namespaces that systemd-nspawn needs: use a host or VM of your own, "
            "or `vagrant up`"
        )


def check_host() -> None:
    """Everything that a lab machine needs of its host, but its ports."""
    check_distribution()
    check_root()
    check_space()
    check_namespaces()
