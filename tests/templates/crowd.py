"""A crowd before the gateway: `unshare --net python -m tests.templates.crowd DIRECTORY RULES [options]`, as root.

The network namespace is the gateway's machine, with the firewall's rules; another one at the other end of a cable has the
clients, each with an address of its own. One client begins TLS handshakes and leaves them there; the others ask for
predictions. Prints JSON.
"""

from __future__ import annotations

import argparse
import json
import resource
import socket
import ssl
import subprocess
import sys
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

from tests.templates.gateway_edge import running, wait_for

GATEWAY, GATEWAY6 = "10.77.0.1", "fd77::1"
ATTACKER, EXEMPT, BYSTANDERS = "10.77.0.2", "10.77.1.2", [f"10.77.0.{number}" for number in range(10, 14)]
NETWORK6, ATTACKERS6 = "fd77:0:0:1::/64", [f"fd77:0:0:1::{number}" for number in range(1, 9)]
BYSTANDER6 = "fd77:0:0:2::1"
REQUEST = (
    b"POST /predict HTTP/1.1\r\nHost: localhost\r\nAuthorization: Basic YWRtaW46YWRtaW4=\r\nConnection: close\r\n"
    b"Content-Length: 2\r\n\r\n{}"
)


def run(command: str) -> None:
    subprocess.run(command.split(), check=True)


def cable(clients: int) -> None:
    """Between this namespace and that of the process `clients`."""
    run("ip link set lo up")
    run(f"ip link add edge type veth peer name crowd netns {clients}")
    run(f"ip address add {GATEWAY}/16 dev edge")
    run(f"ip address add {GATEWAY6}/32 dev edge nodad")
    run("ip link set edge up")
    there = f"nsenter --target {clients} --net ip"
    for address in (ATTACKER, EXEMPT, *BYSTANDERS):
        run(f"{there} address add {address}/16 dev crowd")
    for address in (*ATTACKERS6, BYSTANDER6):
        run(f"{there} address add {address}/32 dev crowd nodad")
    run(f"{there} link set crowd up")


def connect(source: str) -> socket.socket | None:
    """A connection, or None where it is refused."""
    gateway = GATEWAY6 if ":" in source else GATEWAY
    try:
        return socket.create_connection((gateway, 443), timeout=5, source_address=(source, 0))
    except OSError:
        return None


def hello() -> bytes:
    """The first message of a TLS handshake, after which the gateway waits for an answer."""
    out = ssl.MemoryBIO()
    with suppress(ssl.SSLWantReadError):
        ssl._create_unverified_context().wrap_bio(ssl.MemoryBIO(), out, server_hostname="localhost").do_handshake()
    return out.read()


def begin(source: str, first: bytes) -> socket.socket | None:
    """A handshake that does not go on, or None where the connection is refused."""
    connection = connect(source)
    if connection:
        with suppress(OSError):
            connection.sendall(first)
    return connection


def ask(source: str) -> str:
    """The status of a request, or the name of what went wrong."""
    try:
        plain = connect(source)
        if plain is None:
            return "refused"
        with ssl._create_unverified_context().wrap_socket(plain, server_hostname="localhost") as connection:
            connection.sendall(REQUEST)
            return connection.recv(100)[9:12].decode() or "closed"
    except OSError as error:
        return type(error).__name__


def clients(attempts: int, seconds: float) -> dict[str, Any]:
    """What each of them sees; runs in the clients' namespace."""
    found: dict[str, Any] = {}
    first = hello()
    for name, sources, bystanders in (
        ("ipv4", [ATTACKER], BYSTANDERS),
        ("ipv6", ATTACKERS6, [BYSTANDER6]),
        ("exempt", [EXEMPT], []),
    ):
        held = [begin(sources[number % len(sources)], first) for number in range(attempts)]
        codes: Counter[str] = Counter()
        times = []
        end = time.monotonic() + seconds
        while bystanders and (sum(codes.values()) < 20 or time.monotonic() < end):
            start = time.monotonic()
            codes[ask(bystanders[sum(codes.values()) % len(bystanders)])] += 1
            times.append(time.monotonic() - start)
        found[name] = {"open": sum(connection is not None for connection in held), "codes": codes}
        if times:
            found[name]["slowest_ms"] = round(1000 * max(times), 1)
        for connection in held:
            if connection:
                connection.close()
    return found


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("directory", type=Path)
    parser.add_argument("rules", type=Path)
    parser.add_argument("--attempts", type=int, default=300)
    parser.add_argument("--worker-connections", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=0)
    parser.add_argument("--clients", action="store_true", help="in the namespace of the clients already")
    options = parser.parse_args()
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    if options.clients:
        print(json.dumps(clients(options.attempts, options.seconds)))
        return
    with subprocess.Popen(["unshare", "--net", "sleep", "600"]) as other:
        try:
            here = Path("/proc/self/ns/net").readlink()
            wait_for(lambda: Path(f"/proc/{other.pid}/ns/net").readlink() != here, "a namespace of the clients")
            cable(other.pid)
            run(f"nft --file {options.rules}")
            limits = {"gateway_rate": 10000, "gateway_burst": 10000, "gateway_connections": 1000}
            listen = {"_gateway_https_listen": ["443", "[::]:443"], "_gateway_http_listen": ["80"]}
            more = {"gateway_worker_connections": options.worker_connections, **limits, **listen}
            with running(options.directory, http=80, https=443, **more):
                command = [
                    "nsenter",
                    "--target",
                    str(other.pid),
                    "--net",
                    sys.executable,
                    "-m",
                    "tests.templates.crowd",
                ]
                command += [str(options.directory), str(options.rules), "--clients"]
                command += [f"--attempts={options.attempts}", f"--seconds={options.seconds}"]
                print(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        finally:
            other.terminate()


if __name__ == "__main__":
    main()
