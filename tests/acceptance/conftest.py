"""The machine under test, over real HTTPS and over SSH.

VMLOPS_CONTROL_DIR names the folder that the role lab_machine (ssh_config, keys) or the Vagrantfile (ssh_config, settings.json)
wrote; molecule and `make test-vm` set it, the default is the lab machine of `make start-project`.
"""

from __future__ import annotations

import json
import os
import ssl
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import testinfra
import yaml

from tests.paths import ROOT

SENTENCE = {"sentence": "Oh yeah, that was soooo cool!"}
STRAY_PORT = 9999
# By the name of the control folder.
INVENTORIES = {"lab": "inventory/lab", "molecule": "molecule/default/inventory"}

# What was done under load, and the answers by status and by release. Filled by test_rollout.py.
ROLLOUTS: list[tuple[str, Counter[str], Counter[str]]] = []


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Show what clients were answered during rollouts, also where all is well."""
    if ROLLOUTS:
        terminalreporter.section("predictions during rollouts")
    for what, codes, releases in ROLLOUTS:
        by_code, by_release = (", ".join(f"{n} of {key}" for key, n in sorted(of.items())) for of in (codes, releases))
        terminalreporter.line(f"{what}: {by_code or 'none'}; answered by release: {by_release or 'none'}")


@dataclass(frozen=True)
class Machine:
    """Where the machine is and what it is meant to run.

    Attributes:
        name: host name in the inventory.
        address: its address on the network of the host and the machine.
        https: host and port at which the gateway is reached: the machine's own, or of a VM what is forwarded to it.
        http: the same for the redirects.
        ca_file: the certificate that verifies the gateway's.
        ssh_config: configuration with which ``ssh name`` reaches it.
        ports: ``vmlops_ports`` of inventory/stack.yml.
        instances: names such as ``v1@8001``, from ``vmlops_instances`` of inventory/stack.yml.
        credentials: account of the gateway.
        inventory: with which a playbook reaches it.
    """

    name: str
    address: str
    https: tuple[str, int]
    http: tuple[str, int]
    ca_file: Path
    ssh_config: Path
    ports: dict[str, int]
    instances: list[str]
    credentials: tuple[str, str]
    inventory: Path

    @property
    def url(self) -> str:
        """The gateway's address as a client writes it."""
        host, port = self.https
        return f"https://{host}" if port == 443 else f"https://{host}:{port}"

    def client(self, **options: Any) -> httpx.Client:
        """Return a client of the gateway that verifies its certificate; ``options`` go to httpx.Client."""
        options = {"auth": self.credentials, "timeout": 10, "trust_env": False, **options}
        context = ssl.create_default_context(cafile=str(self.ca_file))
        return httpx.Client(base_url=self.url, verify=context, **options)


def evidence(answer: httpx.Response) -> str:
    """Return what a failed assertion shows of an answer."""
    return f"{answer.status_code} {dict(answer.headers)} {answer.text[:500]}"


@pytest.fixture(scope="session")
def machine() -> Machine:
    control = Path(os.environ.get("VMLOPS_CONTROL_DIR", ROOT / ".lab/lab"))
    assert (control / "ssh_config").exists(), (
        f"{control}/ssh_config is missing: run `make start-project` or `molecule converge`"
    )
    words = (control / "ssh_config").read_text().split()
    address = words[words.index("HostName") + 1]
    settings = control / "settings.json"
    entrance, ports = address, {"HTTPS_PORT": 443, "HTTP_PORT": 80}
    if settings.exists():
        entrance, ports = "localhost", json.loads(settings.read_text())
    own_ca = control / "certs/ca.crt"
    stack = yaml.safe_load((ROOT / "inventory/stack.yml").read_text())
    return Machine(
        name=words[1],
        address=address,
        https=(entrance, int(ports["HTTPS_PORT"])),
        http=(entrance, int(ports["HTTP_PORT"])),
        ca_file=own_ca if own_ca.exists() else ROOT / "certs/ca.crt",
        ssh_config=control / "ssh_config",
        ports=stack["vmlops_ports"],
        instances=[f"{instance['version']}@{instance['port']}" for instance in stack["vmlops_instances"]],
        credentials=("admin", "admin"),
        inventory=ROOT / INVENTORIES.get(control.name, "inventory/vagrant"),
    )


@pytest.fixture(scope="session")
def host(machine: Machine, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The machine as testinfra sees it, as root. All commands share a connection, which outlives the last by a minute."""
    path = tmp_path_factory.mktemp("ssh") / "c"  # short: a socket's path has at most 107 characters
    return testinfra.get_host(
        f"ssh://{machine.name}", ssh_config=str(machine.ssh_config), sudo=True, controlpersist=60, controlpath=str(path)
    )


@pytest.fixture(scope="session")
def client(machine: Machine) -> Iterator[httpx.Client]:
    with machine.client() as client:
        yield client


@pytest.fixture(scope="session")
def eventually() -> Callable[..., Any]:
    """Return a function that polls ``probe`` until it returns something true, and fails with its last value."""

    def poll(probe: Callable[[], Any], what: str, seconds: float = 30) -> Any:
        deadline = time.monotonic() + seconds
        while not (value := probe()):
            assert time.monotonic() < deadline, f"not within {seconds} s: {what}; last: {value!r}"
            time.sleep(0.1)
        return value

    return poll


@pytest.fixture
def rested() -> None:
    """Wait until the rate limit has forgotten an earlier test's requests, so that a whole burst is allowed again.

    nginx forgets ten requests a second and remembers at most ten. This waits for a fixed time, because asking whether
    a request is allowed is itself a request that counts.
    """
    time.sleep(1.1)


@pytest.fixture
def stray_listener(host: Any, eventually: Callable[..., Any]) -> Iterator[None]:
    """Something on the machine that listens on all addresses by mistake."""
    server = f"python3 -m http.server --bind 0.0.0.0 {STRAY_PORT}"
    host.check_output(f"systemd-run --quiet --unit=stray --property=DynamicUser=yes {server}")
    eventually(lambda: host.check_output(f"ss -Hltn sport = :{STRAY_PORT}"), "the stray service listens")
    yield
    host.check_output("systemctl stop stray")
