"""The cluster of `make cluster` from outside: machines over SSH, the gateways' shared address, clients that keep asking."""

from __future__ import annotations

import http.client
import ipaddress
import json
import os
import shlex
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
from tests.cluster import table
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
        call = ["ssh", "-F", str(cluster.CONTROL / "ssh_config"), host, f"sudo sh -c {shlex.quote(command)}"]
        result = subprocess.run(call, check=False, capture_output=True, text=True, timeout=60)
        assert result.returncode == 0 or not check, f"{host}: {command}: {result.stderr}{result.stdout}"
        return result.stdout.strip()

    @property
    def network(self) -> ipaddress.IPv4Network:
        return ipaddress.IPv4Interface(f"{self.address}/28").network

    @property
    def bridge(self) -> str:
        """The device of the machines' network on this computer."""
        route = subprocess.run(["ip", "-o", "route", "get", self.address], check=True, capture_output=True, text=True)
        return route.stdout.split(" dev ")[1].split()[0]

    def device(self, host: str) -> str:
        """The machine's network device on this computer; set down, nothing of it arrives anywhere, which is a pulled cable."""
        number = int(ipaddress.ip_address(self.hosts[host])) - int(self.network[1])
        return f"{self.bridge}-{number}"

    @contextmanager
    def cut_off(self, host: str) -> Iterator[None]:
        device = self.device(host)
        subprocess.run([*SUDO, "ip", "link", "set", device, "down"], check=True)
        try:
            yield
        finally:
            subprocess.run([*SUDO, "ip", "link", "set", device, "up"], check=True)

    @property
    def apis(self) -> list[str]:
        return [host for host in self.hosts if host.startswith("api")]

    @property
    def gateways(self) -> list[str]:
        return [host for host in self.hosts if host.startswith("gateway")]

    def has_address(self, gateway: str) -> bool:
        return f" {self.address}/" in self.ssh(gateway, "ip -o addr")

    def owners(self) -> list[str]:
        """The gateways that have the shared address."""
        return [gateway for gateway in self.gateways if self.has_address(gateway)]

    @contextmanager
    def unreachable(self, host: str, other: str) -> Iterator[None]:
        """Packets between the two are lost, and nobody is told."""
        rules = ["table inet cut"]
        for hook, end in (("input", "saddr"), ("output", "daddr")):
            rules.append(f"chain inet cut {hook} {{ type filter hook {hook} priority -10; }}")
            rules.append(f"rule inet cut {hook} ip {end} {self.hosts[other]} drop")
        self.ssh(host, "".join(f"nft add '{rule}';" for rule in rules))
        try:
            yield
        finally:
            self.ssh(host, "nft delete table inet cut")

    def playbook(self, name: str, *options: str, inventory: str = "inventory/cluster") -> str:
        """Run a playbook and return what it said; a failure fails the test."""
        result = self.try_playbook(name, *options, inventory=inventory)
        assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-1000:]
        return result.stdout

    def try_playbook(
        self, name: str, *options: str, inventory: str = "inventory/cluster"
    ) -> subprocess.CompletedProcess[str]:
        command = ["ansible-playbook", "-i", inventory, name, *options]
        return subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True)


@dataclass
class Load:
    """What clients of the shared address saw, each keeping a connection and sending a request every 0.25 seconds.

    Attributes:
        codes: answers by status, and errors by their class.
        slowest: seconds of the slowest answer, errors and new connections included.
        failures: moments (time.monotonic) of what was not 200.
        reconnected: how often a kept connection turned out to be gone and the request was sent on a new one.
        begun: clients that have had an answer, and so have a connection that they keep.
        remark: what else is worth a word in the row.
    """

    codes: Counter[str] = field(default_factory=Counter)
    slowest: float = 0.0
    failures: list[float] = field(default_factory=list)
    reconnected: int = 0
    begun: int = 0
    remark: str = ""

    def answers(self) -> int:
        return self.codes["200"]


def client(address: str, source: str, load: Load, stop: threading.Event, guard: threading.Lock) -> None:
    context = ssl.create_default_context(cafile=str(cluster.CONTROL / "certs/ca.crt"))
    connection = http.client.HTTPSConnection(address, context=context, timeout=2, source_address=(source, 0))
    kept = begun = False
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
            elif not begun:
                load.begun, begun = load.begun + 1, True
    connection.close()


@pytest.fixture(scope="session")
def fleet() -> Cluster:
    assert (cluster.CONTROL / "ssh_config").exists(), "there is no cluster: make cluster"
    return Cluster(cluster.virtual_address(), cluster.hosts())


@pytest.fixture(scope="session")
def sources(fleet: Cluster) -> Iterator[list[str]]:
    """Addresses of this computer in the machines' network that no machine has: the limits are by client."""
    addresses = [str(fleet.network[number]) for number in (9, 10, 11, 12)]
    for address in addresses:
        subprocess.run([*SUDO, "ip", "addr", "replace", f"{address}/28", "dev", fleet.bridge], check=True)
    yield addresses
    for address in addresses:
        subprocess.run([*SUDO, "ip", "addr", "del", f"{address}/28", "dev", fleet.bridge], check=True)


@pytest.fixture
def load(fleet: Cluster, sources: list[str], eventually: Callable[..., None]) -> Callable[..., object]:
    """with load("fault") as load: … — clients ask the shared address meanwhile, two from each source, within their limits.

    It begins when each of them has had an answer: what a fault does to a client's first connection is another matter.

    What they saw is the fault's row in docs/faults-cluster.md, with load.remark.
    """

    @contextmanager
    def start(fault: str) -> Iterator[Load]:
        load, stop, guard = Load(), threading.Event(), threading.Lock()
        clients = [
            threading.Thread(target=client, args=(fleet.address, source, load, stop, guard)) for source in sources * 2
        ]
        for thread in clients:
            thread.start()
        try:
            eventually(lambda: load.begun == len(clients), "every client has had an answer", 20)
            yield load
        finally:
            stop.set()
            for thread in clients:
                thread.join()
            table.add(fault, load.codes, load.reconnected, load.slowest, load.remark)

    return start


@pytest.fixture
def eventually() -> Callable[..., None]:
    def poll(probe: Callable[[], bool], what: str, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while not probe():
            assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
            time.sleep(0.1)

    return poll
