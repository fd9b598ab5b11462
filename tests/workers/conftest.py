"""Lab machines that score files (inventory/scoring), made for these tests, removed after them but with KEEP=1."""

from __future__ import annotations

import ipaddress
import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.paths import ROOT

ENVIRONMENT = "scoring"
CONTROL = ROOT / ".lab" / ENVIRONMENT
SUDO = [] if os.geteuid() == 0 else ["sudo"]


def playbook(name: str, *options: str, check: bool = True) -> str:
    command = ["ansible-playbook", "-i", f"inventory/{ENVIRONMENT}", name, *options]
    result = subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True)
    assert result.returncode == 0 or not check, result.stdout[-5000:] + result.stderr[-1000:]
    return result.stdout


def lab(state: str, *options: str) -> None:
    playbook("playbooks/lab.yml", "-e", f"lab_machine_state={state}", *options)


@dataclass
class Hosts:
    """The addresses of the machines by name; the first has the scheduler."""

    addresses: dict[str, str]

    def ssh(self, host: str, command: str, check: bool = True) -> str:
        """Return what a command of root's writes on a machine."""
        call = ["ssh", "-F", str(CONTROL / "ssh_config"), host, f"sudo sh -c {shlex.quote(command)}"]
        result = subprocess.run(call, check=False, capture_output=True, text=True, timeout=120)
        assert result.returncode == 0 or not check, f"{host}: {command}: {result.stderr}{result.stdout}"
        return result.stdout.strip()

    def cable(self, host: str, state: str) -> None:
        """Set the machine's network device on this computer down or up: down, nothing of it arrives anywhere."""
        address = self.addresses[host]
        route = subprocess.run(["ip", "-o", "route", "get", address], check=True, capture_output=True, text=True)
        bridge = route.stdout.split(" dev ")[1].split()[0]
        number = int(ipaddress.ip_address(address)) - int(ipaddress.ip_interface(f"{address}/28").network[1])
        subprocess.run([*SUDO, "ip", "link", "set", f"{bridge}-{number}", state], check=True)


@pytest.fixture(scope="session")
def hosts() -> Iterator[Hosts]:
    found = bool(os.environ.get("KEEP")) and (CONTROL / "ssh_config").exists()
    try:
        if not found:
            lab("started")
            playbook("site.yml")
        yield Hosts(dict(re.findall(r"^Host (\S+) (\S+)$", (CONTROL / "ssh_config").read_text(), re.MULTILINE)))
    finally:
        if not os.environ.get("KEEP"):
            lab("absent")
            shutil.rmtree(CONTROL, ignore_errors=True)
            shutil.rmtree(ROOT / "certs" / ENVIRONMENT, ignore_errors=True)
