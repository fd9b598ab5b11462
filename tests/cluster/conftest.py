"""The cluster of `make cluster` from outside: machines over SSH, the gateways' shared address, clients that keep asking."""

from __future__ import annotations

import http.client
import json
import os
import ssl
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import pytest

from host import cluster
from tests.paths import ROOT

SUDO = [] if os.geteuid() == 0 else ["sudo"]
BODY = json.dumps({"sentence": "Oh yeah, that was soooo cool!"})
HEADERS = {"Authorization": "Basic YWRtaW46YWRtaW4=", "Content-Type": "application/json"}  # admin:admin


@dataclass
class Cluster:
    address: str
    hosts: dict[str, str]

    def ssh(self, host: str, command: str, check: bool = True) -> str:
        """Return what a command of root's writes on a machine."""
        call = ["ssh", "-F", str(cluster.CONTROL / "ssh_config"), host, f"sudo sh -c {command!r}"]
        result = subprocess.run(call, check=False, capture_output=True, text=True, timeout=60)
        assert result.returncode == 0 or not check, f"{host}: {command}: {result.stderr}{result.stdout}"
        return result.stdout.strip()

    def device(self, host: str) -> str:
        """The machine's network device on this computer; set down, nothing of it arrives anywhere, which is a pulled cable."""
        number = (
            int(self.hosts[host].rpartition(".")[2]) - int(min(self.hosts.values(), key=key).rpartition(".")[2]) + 1
        )
        bridge = subprocess.run(
            ["ip", "-o", "-4", "addr", "show"], check=True, capture_output=True, text=True
        ).stdout.splitlines()
        network = self.hosts[host].rpartition(".")[0]
        name = next(line.split()[1] for line in bridge if f" {network}." in line and line.split()[1].startswith("vml-"))
        return f"{name}-{number}"

    @contextmanager
    def cut_off(self, host: str) -> Iterator[None]:
        device = self.device(host)
        subprocess.run([*SUDO, "ip", "link", "set", device, "down"], check=True)
        try:
            yield
        finally:
            subprocess.run([*SUDO, "ip", "link", "set", device, "up"], check=True)

    def owners(self) -> list[str]:
        """The gateways that have the shared address."""
        gateways = [host for host in self.hosts if host.startswith("gateway")]
        return [host for host in gateways if f" {self.address}/" in self.ssh(host, "ip -o addr")]

    def playbook(self, name: str, *options: str) -> subprocess.CompletedProcess[str]:
        command = ["ansible-playbook", "-i", "inventory/cluster", name, *options]
        return subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True)


def key(address: str) -> int:
    return int(address.rpartition(".")[2])


@dataclass
class Load:
    """What clients of the shared address saw, each keeping a connection and sending a request every 0.25 seconds.

    Attributes:
        codes: answers by status, and errors by their class.
        slowest: seconds of the slowest answer, errors and new connections included.
        failures: moments (time.monotonic) of what was not 200.
        reconnected: how often a kept connection turned out to be gone and the request was sent on a new one.
    """

    codes: Counter[str] = field(default_factory=Counter)
    slowest: float = 0.0
    failures: list[float] = field(default_factory=list)
    reconnected: int = 0


def client(address: str, load: Load, stop: threading.Event, guard: threading.Lock) -> None:
    context = ssl.create_default_context(cafile=str(cluster.CONTROL / "certs/ca.crt"))
    connection = http.client.HTTPSConnection(address, context=context, timeout=2)
    kept = False
    while not stop.wait(0.25):
        start = time.monotonic()
        for last in (not kept, True):
            try:
                connection.request("POST", "/predict", BODY, HEADERS)
                answer = connection.getresponse()
                answer.read()
                outcome, kept = str(answer.status), True
                break
            except OSError as error:
                connection.close()
                outcome, kept = type(error).__name__, False
                with guard:
                    load.reconnected += 1
                if last:
                    break
        with guard:
            load.codes[outcome] += 1
            load.slowest = max(load.slowest, time.monotonic() - start)
            if outcome != "200":
                load.failures.append(time.monotonic())
    connection.close()


@pytest.fixture(scope="session")
def fleet() -> Cluster:
    assert (cluster.CONTROL / "ssh_config").exists(), "there is no cluster: make cluster"
    return Cluster(cluster.virtual_address(), cluster.hosts())


@pytest.fixture
def load(fleet: Cluster) -> Callable[..., object]:
    """with load() as load: … — two clients ask the shared address meanwhile, below the rate limit together."""

    @contextmanager
    def start() -> Iterator[Load]:
        load, stop, guard = Load(), threading.Event(), threading.Lock()
        clients = [threading.Thread(target=client, args=(fleet.address, load, stop, guard)) for _ in range(2)]
        for thread in clients:
            thread.start()
        try:
            yield load
        finally:
            stop.set()
            for thread in clients:
                thread.join()
            print(dict(load.codes), f"slowest {load.slowest:.2f} s, reconnected {load.reconnected}")

    return start


@pytest.fixture
def eventually() -> Callable[..., None]:
    def poll(probe: Callable[[], bool], what: str, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while not probe():
            assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
            time.sleep(0.1)

    return poll
