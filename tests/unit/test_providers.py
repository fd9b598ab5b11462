"""Where `make start-project` runs the system, and why."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.paths import ROOT


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """The script in a folder of its own, beside commands that this host need not have."""
    for name in ("scripts", "commands", ".lab"):
        (tmp_path / name).mkdir()
    shutil.copy(ROOT / "scripts/choose-provider", tmp_path / "scripts")
    for name in ("sh", "sed", "grep", "dirname"):
        (tmp_path / "commands" / name).symlink_to(str(shutil.which(name)))
    return tmp_path


def put(path: Path, body: str) -> None:
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)


def choose(clone: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [str(clone / "scripts/choose-provider"), *arguments]
    environment = {"PATH": str(clone / "commands")}
    return subprocess.run(command, check=False, capture_output=True, text=True, env=environment)


def test_without_vagrant_it_is_the_lab_machine(clone: Path) -> None:
    result = choose(clone)
    assert (result.stdout, result.stderr) == ("lab\n", "PROVIDER=lab: Vagrant is not installed\n")


@pytest.mark.parametrize(
    ("kvm_works", "plugin", "provider", "reason"),
    [
        (True, True, "libvirt", "hardware virtualization works"),
        (False, True, "lab", "hardware virtualization does not work here"),
        (True, False, "lab", "neither its libvirt plugin nor VirtualBox"),
    ],
)
def test_vagrant_is_used_with_hardware_virtualization_only(
    clone: Path, kvm_works: bool, plugin: bool, provider: str, reason: str
) -> None:
    put(clone / "commands/vagrant", "echo 'vagrant-libvirt (0.11.2, system)'" if plugin else ":")
    put(clone / "scripts/kvm-works", f"exit {int(not kvm_works)}")
    result = choose(clone)
    assert result.stdout == f"{provider}\n"
    assert len(result.stderr.splitlines()) == 1
    assert reason in result.stderr


@pytest.mark.parametrize("provider", ["lab", "libvirt", "virtualbox"])
def test_what_was_asked_for_is_taken_without_a_word(clone: Path, provider: str) -> None:
    result = choose(clone, provider)
    assert (result.stdout, result.stderr) == (f"{provider}\n", "")


def test_a_machine_that_is_there_goes_on(clone: Path) -> None:
    (clone / ".lab/settings.mk").write_text("PROVIDER ?= libvirt\nHTTPS_PORT ?= 8443\n")
    assert choose(clone).stdout == choose(clone, "libvirt").stdout == "libvirt\n"


@pytest.mark.parametrize(
    ("there", "asked", "complaint"),
    [("", "docker", "PROVIDER=docker is not known"), ("libvirt", "lab", "make destroy-project first")],
)
def test_what_cannot_be_is_refused_in_one_line(clone: Path, there: str, asked: str, complaint: str) -> None:
    if there:
        (clone / ".lab/settings.mk").write_text(f"PROVIDER ?= {there}\n")
    result = choose(clone, asked)
    assert (result.returncode, result.stdout, len(result.stderr.splitlines())) == (1, "", 1)
    assert complaint in result.stderr


def test_kvm_is_believed_only_if_the_processor_and_a_guest_say_so() -> None:
    status = subprocess.run([ROOT / "scripts/kvm-works"], check=False).returncode
    flags = next(
        (line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("flags")), ""
    ).split()
    print(f"kvm-works: {status}; flag: {sorted({'vmx', 'svm'} & set(flags))}; device: {Path('/dev/kvm').exists()}")
    assert status in (0, 1)
    if not {"vmx", "svm"} & set(flags):
        assert status == 1
