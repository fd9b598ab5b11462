"""What a site gives a machine before its first boot, by cloud-init: in a lab machine's tree, and on an emulated VM's disk."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml

from tests.authority import Authority
from tests.image.conftest import Image, Made, await_answer, predict

NAME = "emotions.example.org"
READER, OPERATOR = ("reader", "nine-green-lamps"), ("watcher", "seven-blue-chairs")


def user_data(files: dict[str, str], key: str = "") -> str:
    written = [{"path": path, "content": content, "permissions": "0600"} for path, content in files.items()]
    data = {"hostname": "emotions", "write_files": written, **({"ssh_authorized_keys": [key]} if key else {})}
    return "#cloud-config\n" + yaml.safe_dump(data)


def given(place: Path) -> tuple[dict[str, str], str]:
    """Files of a site that has decided on everything, and the CA of its certificate."""
    tls = Authority().issue(place, NAME)
    site = {"names": [NAME], "users": dict([READER]), "operators": dict([OPERATOR])}
    files = {
        "/etc/vmlops/first-boot.json": json.dumps(site),
        "/etc/vmlops/tls/server.crt": (tls / "host.crt").read_text(),
        "/etc/vmlops/tls/server.key": (tls / "host.key").read_text(),
    }
    return files, (tls / "ca.crt").read_text()


def seed(place: Path, data: str) -> Path:
    """The disk that cloud-init's datasource NoCloud looks for."""
    folder, disk = place / "seed", place / "seed.iso"
    folder.mkdir()
    (folder / "user-data").write_text(data)
    (folder / "meta-data").write_text("instance-id: told\n")
    command = ["xorriso", "-as", "mkisofs", "-quiet", "-volid", "cidata", "-joliet", "-rock", "-o"]
    subprocess.run([*command, disk, folder], check=True)
    return disk


# --- a lab machine ---


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory, source: Image) -> Iterator[tuple[Made, str]]:
    """A machine that was given names, accounts and a certificate; and the CA of that certificate."""
    place = tmp_path_factory.mktemp("told")
    files, ca = given(place / "tls")
    machine = Made(place / "control", source)
    folder = "var/lib/cloud/seed/nocloud"
    # cloud-init would ask for an address by DHCP otherwise; nobody gives any here, and the machine's own file comes later.
    network = {"version": 2, "ethernets": {"none": {"match": {"name": "none0"}, "optional": True}}}
    machine.give(
        {
            f"{folder}/user-data": user_data(files),
            f"{folder}/meta-data": "instance-id: told\n",
            f"{folder}/network-config": yaml.safe_dump(network),
        }
    )
    machine.bring("started")
    yield machine, ca
    machine.bring("absent")


def test_machine_serves_the_given_names_with_the_given_certificate(told: tuple[Made, str]) -> None:
    machine, ca = told
    assert predict(f"https://{machine.address}", ca, READER, NAME)
    assert machine.ssh("hostname") == "emotions"
    assert machine.ssh("sudo ls /etc/vmlops").split().count("ca") == 0


def test_given_accounts_are_the_only_ones(told: tuple[Made, str]) -> None:
    machine, _ = told
    assert machine.passwords() == {}
    curl = f"curl -sk -o /dev/null -w '%{{http_code}} ' --resolve {NAME}:443:127.0.0.1 https://{NAME}"
    said = machine.ssh(
        f"{curl}/version -u {':'.join(READER)}; {curl}/prometheus/classic/targets -u {':'.join(OPERATOR)}; "
        f"{curl}/version -u admin:admin; {curl}/prometheus/classic/targets -u {':'.join(READER)}"
    )
    assert said.split() == ["200", "200", "401", "401"]


def test_links_lead_to_the_first_name(told: tuple[Made, str]) -> None:
    machine, _ = told
    assert f"--web.external-url=https://{NAME}:443/prometheus/" in machine.read("/etc/default/prometheus")
    # grep ends with 1 where it finds nothing, and with 2 where it could not look.
    assert machine.ssh("sudo grep -rlF vmlops.invalid /etc; [ $? -le 1 ]") == ""


# --- a VM ---


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


class VM:
    """An emulated machine of the image's disk, on which nothing is written."""

    def __init__(self, place: Path, disk: Path, kind: str, seed: Path | None = None) -> None:
        self.console, self.https, self.ssh = place / "console.log", free_port(), free_port()
        forwards = f"hostfwd=tcp:127.0.0.1:{self.https}-:443,hostfwd=tcp:127.0.0.1:{self.ssh}-:22"
        command = [
            "qemu-system-x86_64",
            "-accel",
            "tcg",
            "-cpu",
            "qemu64",
            "-smp",
            "2",
            "-m",
            "2048",
            "-display",
            "none",
        ]
        command += [
            "-serial",
            f"file:{self.console}",
            "-nic",
            f"user,model=virtio,{forwards}",
            "-snapshot",
            "-no-reboot",
        ]
        command += ["-drive", f"file={disk},format={kind},if=virtio"]
        command += ["-drive", f"file={seed},format=raw,if=virtio,readonly=on"] if seed else []
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL)

    def shown(self) -> str:
        return self.console.read_text(errors="replace") if self.console.exists() else ""

    def await_shown(self, pattern: str, seconds: int = 600) -> re.Match[str]:
        deadline = time.monotonic() + seconds
        while not (found := re.search(pattern, self.shown())):
            assert self.process.poll() is None, self.shown()[-4000:]
            assert time.monotonic() < deadline, self.shown()[-4000:]
            time.sleep(1)
        return found


@contextmanager
def booted(place: Path, disk: Path, kind: str, seed: Path | None = None) -> Iterator[VM]:
    vm = VM(place, disk, kind, seed)
    try:
        yield vm
    finally:
        vm.process.kill()
        vm.process.wait()


def test_vm_without_user_data_says_on_its_console_how_to_get_in(tmp_path: Path, source: Image) -> None:
    with booted(tmp_path, source.file("vmdk"), "vmdk") as vm:
        vm.await_shown(r"vmlops answers at https://[0-9a-z.]+/")
        found = vm.await_shown(r"Log in here, and nowhere else, as ops with (\S+)")
        assert len(found[1]) == 24
        vm.await_shown(r"login: ")


def test_vm_takes_user_data_from_a_disk(tmp_path: Path, source: Image) -> None:
    files, ca = given(tmp_path / "tls")
    key = tmp_path / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
    disk = seed(tmp_path, user_data(files, key.with_suffix(".pub").read_text().strip()))
    with booted(tmp_path, source.file("qcow2"), "qcow2", disk) as vm:
        vm.await_shown(rf"vmlops answers at https://{NAME}/")
        assert predict(f"https://127.0.0.1:{vm.https}", ca, READER, NAME)
        options = ["StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "IdentitiesOnly=yes", "LogLevel=ERROR"]
        command = ["ssh", "-i", str(key), "-p", str(vm.ssh), *(word for option in options for word in ("-o", option))]

        def over_ssh(command_line: str, seconds: int = 120) -> str:
            said = subprocess.run(
                [*command, "ops@127.0.0.1", command_line], check=False, capture_output=True, text=True, timeout=seconds
            )
            assert said.returncode == 0, said.stderr + said.stdout
            return said.stdout

        assert await_answer(lambda: over_ssh("hostname; df --output=fstype / | tail -1")).split() == [
            "emotions",
            "ext4",
        ]
        # The first boot of a VM differs from a lab machine's: the root file system is read-only at first, modules are loaded.
        failed = over_ssh("systemctl is-system-running --wait >&2 || systemctl --failed --no-legend --plain", 600)
        assert failed == "", over_ssh(f"sudo journalctl --boot --no-pager --unit={failed.split()[0]}")
        assert "policy drop" in over_ssh("sudo nft list table inet vmlops")
        assert "Log in here" not in vm.shown()
