"""Seconds from the start of a machine of the image to its first prediction over HTTPS: python -m tests.image.measure lab|vm

Of a lab machine from the start of its systemd-nspawn, at its first and its second boot; of an emulated VM from the start of
QEMU, at its first. A client asks five times a second from before the start.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import threading
import time
from pathlib import Path

import httpx

from tests.image.conftest import SENTENCE, Image, Made
from tests.image.test_user_data import READER, booted, seed, user_data

SITE = json.dumps({"users": dict([READER])})


def first_answer(url: str) -> float:
    """When the first prediction was answered."""
    deadline = time.time() + 600
    while time.time() < deadline:
        try:  # what the certificate is, the tests look at
            answer = httpx.post(f"{url}/predict", json=SENTENCE, auth=READER, verify=False, timeout=30, trust_env=False)
            if answer.status_code == 200:
                return time.time()
        except httpx.HTTPError:
            pass
        time.sleep(0.2)
    raise SystemExit(f"no answer from {url}")


def age(machine: Made) -> float:
    """Seconds since the start of the machine's systemd-nspawn."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        arguments = path.read_bytes().split(b"\0")
        if arguments[0] == b"systemd-nspawn" and f"--machine={machine.name}-1".encode() in arguments:
            ticks = int((path.parent / "stat").read_text().rpartition(")")[2].split()[19])
            return float(Path("/proc/uptime").read_text().split()[0]) - ticks / os.sysconf("SC_CLK_TCK")
    raise SystemExit("the machine does not run")


def boot(machine: Made) -> float:
    thread = threading.Thread(target=machine.bring, args=["started"])
    thread.start()
    while not (machine.control / "ssh_config").exists():
        time.sleep(0.1)
    answered = first_answer(f"https://{machine.address}")
    thread.join()
    return answered - (time.time() - age(machine))


def lab(source: Image, place: Path) -> None:
    machine = Made(place / "control", source)
    try:
        machine.give({"etc/vmlops/first-boot.json": SITE})
        print(f"lab machine, first boot: {boot(machine):.1f} s")
        machine.bring("stopped")
        print(f"lab machine, second boot: {boot(machine):.1f} s")
    finally:
        machine.bring("absent")


def vm(source: Image, place: Path) -> None:
    disk = seed(place, user_data({"/etc/vmlops/first-boot.json": SITE}))
    begun = time.time()
    with booted(place, source.file("qcow2"), "qcow2", disk) as machine:
        print(f"emulated VM, first boot: {first_answer(f'https://127.0.0.1:{machine.https}') - begun:.0f} s")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        {"lab": lab, "vm": vm}[sys.argv[1]](Image(), Path(folder))
