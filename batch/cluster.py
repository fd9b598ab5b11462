"""The workers of an environment (roles/workers), as a client of their scheduler on this computer.

What runs on the workers is whatever a client sends, so both sides show a certificate of a CA that signs for nothing else. The way
there is an SSH tunnel to the scheduler's host, as Ansible reaches it, since its port is open to workers only.
"""

from __future__ import annotations

import json
import logging
import os
import shlex
import socket
import ssl
import subprocess
import time
import warnings
from collections.abc import Iterator
from concurrent.futures import CancelledError
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import joblib
from dask import config
from distributed import Client
from distributed.client import ClosedClientError
from distributed.comm.core import CommClosedError
from distributed.security import Security
from distributed.versions import VersionMismatchWarning

from batch.code import ROOT, kind

# What a client raises where its scheduler is gone, or has been started anew and knows nothing.
LOST = (CancelledError, ClosedClientError, CommClosedError)
_UNANSWERED = (*LOST, OSError)  # and where nobody answers
ANSWER_SECONDS = 20.0  # within which the host, the scheduler and a worker must each answer
_SSH = (
    "-N -T -o BatchMode=yes -o ExitOnForwardFailure=yes -o ControlPath=none "
    "-o ConnectTimeout=10 -o ServerAliveInterval=5 -o ServerAliveCountMax=3"
)


class ClusterError(Exception):
    """The workers cannot be used; the message is one line with the remedy."""


class _Client(Client):
    async def _ensure_connected(self, timeout: float | None = None) -> None:
        """Raises OSError where tornado raises ValueError: a tunnel takes connections for a scheduler that is not there, and
        closes them. Dask tries again after an OSError; after a ValueError it does nothing any more, and cannot be closed.
        """
        try:
            await super()._ensure_connected(timeout)
        except ValueError as error:
            raise ConnectionResetError(str(error)) from None


class Access(NamedTuple):
    """What the role workers leaves on this computer: how to reach the scheduler, and as whom."""

    environment: str
    host: str  # its name in the inventory
    address: str  # where the scheduler listens, as its host sees it
    port: int
    ssh: list[str]  # options and host for ssh(1); empty where the host is this computer
    directory: Path  # ca.crt, client.crt, client.key

    @property
    def security(self) -> Security:
        files = {"ca_file": "ca.crt", "client_cert": "client.crt", "client_key": "client.key"}
        named = {f"tls_{option}": str(self.directory / file) for option, file in files.items()}
        return Security(require_encryption=True, tls_min_version=ssl.TLSVersion.TLSv1_3, **named)


def access(environment: str, root: Path = ROOT) -> Access:
    """Raises ClusterError where the environment has no workers."""
    if not environment:
        raise ClusterError("ENVIRONMENT is not set: name the folder of inventory/ that has the workers")
    if Path(environment).name != environment or not (root / "inventory" / environment).is_dir():
        raise ClusterError(f"ENVIRONMENT={environment}: inventory/ has no such folder")
    directory = root / "certs" / environment / "workers"
    if not (directory / "access.json").exists():
        raise ClusterError(
            f"inventory/{environment} has no workers yet: name hosts in its group workers, then run "
            f"ansible-playbook -i inventory/{environment} site.yml"
        )
    return read_access(environment, directory)


def read_access(environment: str, directory: Path) -> Access:
    """What the role workers wrote. Raises ClusterError."""
    try:
        found = json.loads((directory / "access.json").read_text())
    except (OSError, ValueError) as error:
        raise ClusterError(f"{directory}/access.json: cannot be read ({error}); site.yml writes it anew") from None
    way = [*map(str, found["options"]), *shlex.split(found["arguments"]), found["destination"]]
    ssh = way if found["destination"] else []
    return Access(environment, found["host"], found["address"], found["port"], ssh, directory)


@contextmanager
def client(patience: float = 0) -> Iterator[Client]:
    """A client of the workers that ENVIRONMENT names, all of which are of this computer's kind.

    Args:
        patience: seconds for which it is tried again where nobody answers.

    Raises ClusterError.
    """
    reached = access(os.environ.get("ENVIRONMENT", ""))
    deadline = time.monotonic() + patience
    with ExitStack() as stack:
        while True:
            try:
                address = stack.enter_context(_tunnel(reached))
                connected = stack.enter_context(_connected(reached, address))
                break
            except ClusterError:
                stack.close()
                if time.monotonic() > deadline:
                    raise
                time.sleep(1)
        _check_kinds(reached, connected)
        yield connected


@contextmanager
def joblib_workers() -> Iterator[None]:
    """Meanwhile joblib's tasks, scikit-learn's cross-validation among them, are done by the workers. Raises ClusterError."""
    with client(), joblib.parallel_config("dask", n_jobs=-1):
        yield


@contextmanager
def _tunnel(reached: Access) -> Iterator[str]:
    """The scheduler's address from here, which leads there from now on. Raises ClusterError."""
    if not reached.ssh:
        yield _address(reached.address, reached.port)
        return
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    forward = f"127.0.0.1:{port}:{_host(reached.address)}:{reached.port}"
    process = subprocess.Popen(
        ["ssh", *shlex.split(_SSH), "-L", forward, *reached.ssh],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,  # Ctrl-C is for the run, which ends it
    )
    there = False
    try:
        if there := _listens(process, port):
            yield _address("127.0.0.1", port)
    finally:
        process.kill()
        said = process.communicate()[1].decode(errors="replace").strip()
    if not there:
        last = said.splitlines()[-1] if said else "no answer"
        raise ClusterError(f"{reached.host}, where the scheduler is, cannot be reached by ssh: {last}")


def _listens(process: subprocess.Popen[bytes], port: int) -> bool:
    deadline = time.monotonic() + ANSWER_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return True
        time.sleep(0.05)
    return False


def _host(address: str) -> str:
    return f"[{address}]" if ":" in address else address


def _address(address: str, port: int) -> str:
    return f"tls://{_host(address)}:{port}"


@contextmanager
def _connected(reached: Access, address: str) -> Iterator[Client]:
    """Raises ClusterError where no scheduler answers, or it has no worker."""
    see = f"see journalctl -u vmlops-scheduler on {reached.host}"
    # The run says itself what is wrong, in a line; and it compares more than Dask does (_check_kinds).
    for logger in ("distributed", "distributed.client"):
        logging.getLogger(logger).setLevel(logging.CRITICAL)
    warnings.simplefilter("ignore", VersionMismatchWarning)
    config.set({"distributed.admin.large-graph-warning-threshold": "1 GiB"})  # the model is sent with its task
    try:
        connected = _Client(address, security=reached.security, timeout=ANSWER_SECONDS)
    except _UNANSWERED as error:
        raise ClusterError(f"the scheduler on {reached.host} does not answer ({_first_line(error)}); {see}") from None
    with connected:
        try:
            connected.wait_for_workers(1, timeout=ANSWER_SECONDS)
        except TimeoutError:
            raise ClusterError(
                f"the scheduler on {reached.host} has no worker; {see}, and -u 'vmlops-worker@*'"
            ) from None
        except _UNANSWERED as error:
            raise ClusterError(f"the scheduler on {reached.host} went away ({_first_line(error)}); {see}") from None
        yield connected


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _check_kinds(reached: Access, connected: Client) -> None:
    """Raises ClusterError where a worker would answer by other rules. One that comes later is found out by its first task."""
    answers: dict[str, Any] = connected.run(kind, on_error="return")
    others = {str(answer) for answer in answers.values()} - {kind()}
    if others:
        hosts = sorted({worker.rpartition("/")[2] for worker, answer in answers.items() if answer != kind()})
        remedy = f"bring them up to date: ansible-playbook -i inventory/{reached.environment} site.yml --tags workers"
        if not any(other.startswith(kind().split()[0] + " ") for other in others):
            remedy = "use a Python of their version here, or hosts with this one's"
        raise ClusterError(
            f"{', '.join(hosts)} have Python {' and '.join(sorted(others))}, this computer {kind()}: {remedy}"
        )
