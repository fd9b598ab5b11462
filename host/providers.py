"""Choice of the provider (lab machine or VM) and of the ports, and the file that remembers them."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from host.commands import ROOT, Problem, find, output

PROVIDERS = ("lab", "libvirt", "virtualbox")
PORTS = {"HTTPS_PORT": "443", "HTTP_PORT": "80", "PROMETHEUS_PORT": "9090", "GRAFANA_PORT": "3000"}
# Written when a machine is started, removed with it. inventory/lab reads the ports.
SETTINGS = ROOT / ".lab/settings.json"


def remembered(path: Path = SETTINGS) -> dict[str, str]:
    """What the machine of this clone was started with: ``PROVIDER``, ``SUITE`` and the ports; empty where there is none."""
    settings: dict[str, str] = json.loads(path.read_text()) if path.exists() else {}
    return settings


def settings(environment: Mapping[str, str], there: Mapping[str, str]) -> dict[str, str]:
    """Provider, release and ports of the machine: as the environment asks, else as remembered, else the defaults."""
    defaults = {**PORTS, "PROVIDER": "lab", "SUITE": ""}
    return {name: environment.get(name) or there.get(name) or default for name, default in defaults.items()}


def remember(settings: Mapping[str, str], path: Path = SETTINGS) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(settings, indent=2) + "\n")


def check_unchanged(environment: Mapping[str, str], there: Mapping[str, str]) -> None:
    """Refuse another provider or distribution release than the machine that is there was made with."""
    for name in ("PROVIDER", "SUITE"):
        asked = environment.get(name, "")
        if there and asked and asked != there[name]:
            made = f"made with {name}={there[name]}" if there[name] else f"made without {name}"
            raise Problem(f"this clone has a machine {made}: make destroy-project first")


def choose(asked: str, there: str) -> str:
    """Return the provider to use, and say on standard error why if it was left to us.

    Args:
        asked: what ``PROVIDER`` says, or nothing.
        there: the provider of the machine that this clone has, or nothing.
    """
    provider = asked or there
    if provider:
        if provider not in PROVIDERS:
            raise Problem(f"PROVIDER={provider} is not known: {', '.join(PROVIDERS)}")
        return provider
    provider, reason = best()
    print(f"PROVIDER={provider}: {reason}", file=sys.stderr)
    return provider


def best() -> tuple[str, str]:
    """Return the provider that this host is good for, and the reason."""
    if not find("vagrant"):
        return "lab", "Vagrant is not installed"
    if find("VBoxManage") and has_virtualization_flag():
        return "virtualbox", "Vagrant and VirtualBox are installed"
    if not kvm_works():
        return "lab", (
            "Vagrant is installed, but hardware virtualization does not work here; PROVIDER=libvirt emulates a processor, "
            "which takes some 15 minutes"
        )
    if not has_vagrant_libvirt():
        return "lab", "Vagrant is installed, but neither its libvirt plugin nor VirtualBox"
    return "libvirt", "Vagrant with libvirt is installed, and hardware virtualization works"


def has_vagrant_libvirt() -> bool:
    try:
        return bool(re.search(r"^vagrant-libvirt ", output("vagrant", "plugin", "list"), re.MULTILINE))
    except (OSError, subprocess.CalledProcessError):
        return False


def has_virtualization_flag(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    return bool(re.search(r"^flags.* (vmx|svm)\b", cpuinfo.read_text(), re.MULTILINE))


def kvm_works(device: Path = Path("/dev/kvm")) -> bool:
    """Whether a guest of one sector ends as it should; /dev/kvm alone can be there and every guest die of it."""
    if not has_virtualization_flag() or not device.exists():
        return False
    # Without QEMU, or before libvirt opens the device for us, the flag is all there is to go by.
    if not os.access(device, os.W_OK) or not find("qemu-system-x86_64"):
        return True
    # mov al, 16; out 0xf4, al — the write to that port ends QEMU with the status 2 * 16 + 1.
    sector = b"\xb0\x10\xe6\xf4\xf4".ljust(510, b"\0") + b"\x55\xaa"
    with tempfile.NamedTemporaryFile() as disk:
        disk.write(sector)
        disk.flush()
        guest = ("-accel", "kvm", "-m", "16", "-nodefaults", "-display", "none", "-no-reboot")
        devices = ("-device", "isa-debug-exit,iobase=0xf4", "-drive", f"file={disk.name},format=raw,if=floppy")
        try:
            command = ["qemu-system-x86_64", *guest, *devices]
            return subprocess.run(command, check=False, capture_output=True, timeout=10).returncode == 33
        except subprocess.TimeoutExpired:
            return False
