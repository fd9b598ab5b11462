"""Machines made from the image of the last `make image`: lab machines of its tree, and an emulated VM of its disk."""

from __future__ import annotations

import json
import re
import ssl
import subprocess
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest

from host import image
from host.commands import as_root
from tests.lab.machine import Lab

SENTENCE = {"sentence": "Oh yeah, that was soooo cool!"}
TREES = Path("/var/lib/vmlops")


class Image:
    """What `make image` wrote."""

    def __init__(self) -> None:
        listings = sorted(image.PLACE.glob("*.json"))
        assert len(listings) == 1, f"make image writes one listing, there are {listings}"
        self.listing: dict[str, Any] = json.loads(listings[0].read_text())

    def file(self, ending: str) -> Path:
        return image.PLACE / f"{self.listing['image']}.{ending}"


class Made(Lab):
    """A lab machine that is made from the image, with what a site puts into the tree before the first boot."""

    def __init__(self, control: Path, source: Image) -> None:
        super().__init__(control)
        self.archive = source.file("tar.zst")
        self.variables["lab_machine_image"] = str(self.archive)
        self.tree = TREES / f"{self.name}-1/root"

    def give(self, files: Mapping[str, str]) -> None:
        """Unpack the tree, as the start of the machine would, and put files into it."""
        subprocess.run(as_root("mkdir", "-p", self.tree), check=True)
        subprocess.run(as_root("tar", "-C", self.tree, "--numeric-owner", "-xpf", self.archive), check=True)
        for path, content in files.items():
            subprocess.run(as_root("mkdir", "-p", (self.tree / path).parent), check=True)
            write = as_root("tee", self.tree / path)
            subprocess.run(write, check=True, input=content, text=True, stdout=subprocess.DEVNULL)

    @property
    def address(self) -> str:
        found = re.search(r"HostName (\S+)", (self.control / "ssh_config").read_text())
        assert found
        return found[1]

    def read(self, path: str) -> str:
        return self.ssh(f"sudo cat {path}")

    def passwords(self) -> dict[str, str]:
        """What the first boot made, by account."""
        await_answer(lambda: self.ssh("sudo ls /etc/vmlops").split().index("passwords"))
        lines = self.read("/etc/vmlops/passwords").splitlines()
        return dict(line.rsplit(" ", 1) for line in lines if ": " in line)


def await_answer(ask: Any, seconds: int = 180) -> Any:
    """What `ask` returns once it raises no more; its last error after that time."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            return ask()
        except (httpx.HTTPError, AssertionError, ValueError):
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)


def predict(url: str, ca: str, account: tuple[str, str], name: str = "") -> str:
    """The answer to the sentence, as a client gets it; a connection to `url` may ask for another name."""
    context = ssl.create_default_context(cadata=ca)
    headers, extensions = ({"Host": name}, {"sni_hostname": name}) if name else ({}, {})

    def ask() -> str:
        with httpx.Client(verify=context, auth=account, trust_env=False, timeout=30) as client:
            answer = client.post(f"{url}/predict", json=SENTENCE, headers=headers, extensions=extensions)
        assert answer.status_code == 200, f"{answer.status_code} {answer.text}"
        found: str = answer.json()["prediction"]
        return found

    said: str = await_answer(ask)
    return said


@pytest.fixture(scope="session")
def source() -> Image:
    return Image()


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory, source: Image) -> Iterator[list[Made]]:
    """Two machines that nobody told anything."""
    machines = [Made(tmp_path_factory.mktemp("made") / "control", source) for _ in range(2)]
    for machine in machines:
        machine.bring("started")
    yield machines
    for machine in machines:
        machine.bring("absent")
