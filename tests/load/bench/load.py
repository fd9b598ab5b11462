"""Load generators: wrk, which sends the next request as soon as one is answered, and one that sends at a given rate."""

from __future__ import annotations

import gc
import json
import random
import select
import socket
import ssl
import statistics
import subprocess
import sys
from base64 import b64encode
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter
from typing import Any, NamedTuple

SCRIPT = Path(__file__).with_name("post.lua")
THREADS = 2


class Target(NamedTuple):
    """Where requests go. `bodies` is a file of JSON documents, one a line, which are sent in turn."""

    address: str
    port: int
    path: str
    bodies: Path
    credentials: tuple[str, str]

    @property
    def authorization(self) -> str:
        return "Basic " + b64encode(":".join(self.credentials).encode()).decode()


def wrk_command(target: Target, connections: int, seconds: float) -> list[str]:
    threads = min(THREADS, connections)
    command = ["wrk", f"-t{threads}", f"-c{connections}", f"-d{seconds:.0f}s", "--timeout", "10s", "-s", str(SCRIPT)]
    command += [f"https://{target.address}:{target.port}", "--"]
    return [*command, str(target.bodies), target.path, target.authorization]


@contextmanager
def background(target: Target, connections: int, seconds: float) -> Iterator[None]:
    """wrk, for at most so long, while the block runs."""
    with subprocess.Popen(wrk_command(target, connections, seconds), stdout=subprocess.DEVNULL) as process:
        try:
            yield
        finally:
            process.terminate()


def wrk(target: Target, connections: int, seconds: float) -> dict[str, Any]:
    """requests, seconds, p50_ms, p99_ms, non_2xx, broken (connections). Raises RuntimeError where wrk fails."""
    command = wrk_command(target, connections, seconds)
    result = subprocess.run(command, check=False, capture_output=True, text=True, timeout=seconds + 60)
    lines = result.stdout.strip().splitlines()
    if result.returncode or not lines or not lines[-1].startswith("{"):
        raise RuntimeError(f"wrk: {(result.stderr or result.stdout).strip()[-300:]}")
    found: dict[str, Any] = json.loads(lines[-1])
    if not found["requests"]:
        raise RuntimeError("wrk: no request was answered")
    return found


class Connection:
    """One request at a time over TLS, without blocking."""

    def __init__(self, target: Target) -> None:
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE  # as wrk
        plain = socket.create_connection((target.address, target.port), timeout=10)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket = context.wrap_socket(plain, server_hostname=target.address)
        self.socket.setblocking(False)
        self.due = 0.0
        self._received = b""

    def fileno(self) -> int:
        return self.socket.fileno()

    def ask(self, request: bytes, due: float) -> None:
        self.due, self._received = due, b""
        self.socket.send(request)

    def answered(self) -> int:
        """The status, or 0 while the answer is not complete. Raises OSError where the connection was closed."""
        try:
            while True:
                received = self.socket.recv(65536)
                if not received:
                    raise ConnectionResetError
                self._received += received
                if not self.socket.pending():  # else select(2) would not say that there is more
                    break
        except ssl.SSLWantReadError:
            pass
        head, found, body = self._received.partition(b"\r\n\r\n")
        if not found:
            return 0
        lower = head.lower()
        at = lower.find(b"content-length:")
        length = int(lower[at + 15 :].split(b"\r\n", 1)[0]) if at >= 0 else 0
        complete = len(body) >= length if at >= 0 else body.endswith(b"0\r\n\r\n")  # else it is chunked
        return int(head[9:12]) if complete else 0


def at_rate(target: Target, rate: float, seconds: float, connections: int = 64) -> dict[str, float]:
    """Latency in ms when requests come at random (Poisson), whether or not those before them are answered.

    It counts from when a request was due, so that one that waits for a free connection waits in the figures too.
    """
    requests = [
        f"POST {target.path} HTTP/1.1\r\nHost: {target.address}\r\nContent-Type: application/json\r\n"
        f"Authorization: {target.authorization}\r\nContent-Length: {len(body)}\r\n\r\n".encode()
        + body
        for body in target.bodies.read_bytes().splitlines()
    ]
    chance = random.Random(0)
    dues, due = [], 0.0
    while due < seconds:
        due += chance.expovariate(rate)
        dues.append(due)
    idle = deque(Connection(target) for _ in range(connections))
    busy: set[Connection] = set()
    waiting: deque[float] = deque()
    latencies: list[float] = []
    failed = sent = upcoming = 0
    began = perf_counter()
    while len(latencies) + failed < len(dues):
        now = perf_counter() - began
        if now > seconds + 20:
            break
        while upcoming < len(dues) and dues[upcoming] <= now:
            waiting.append(dues[upcoming])
            upcoming += 1
        while waiting and idle:
            connection = idle.popleft()
            connection.ask(requests[sent % len(requests)], waiting.popleft())
            busy.add(connection)
            sent += 1
        # select(2) and no event loop: those wait in whole milliseconds, this one in microseconds.
        patience = max(0.0, dues[upcoming] - (perf_counter() - began)) if upcoming < len(dues) else 1.0
        for connection in select.select(busy, (), (), patience)[0]:
            try:
                status = connection.answered()
            except OSError:
                status, replacement = -1, Connection(target)
                busy.discard(connection)
                idle.append(replacement)
                failed += 1
                continue
            if not status:
                continue
            busy.discard(connection)
            idle.append(connection)
            if status == 200:
                latencies.append((perf_counter() - began - connection.due) * 1e3)
            else:
                failed += 1
    centiles = statistics.quantiles(latencies, n=100) if len(latencies) > 1 else [float("nan")] * 99
    return {
        "rate": rate,
        "answered": len(latencies),
        "failed": len(dues) - len(latencies),  # those that were never answered among them
        "p50_ms": centiles[49],
        "p99_ms": centiles[98],
    }


def at_rate_apart(target: Target, rate: float, seconds: float) -> dict[str, float]:
    """`at_rate` in a process of its own, so that nothing else of this one is in the figures."""
    arguments = json.dumps(
        [target.address, target.port, target.path, str(target.bodies), target.credentials, rate, seconds]
    )
    command = [sys.executable, "-m", "tests.load.bench.load", arguments]
    result = subprocess.run(command, check=False, capture_output=True, text=True, timeout=seconds + 60)
    if result.returncode:
        raise RuntimeError(result.stderr.strip().splitlines()[-1])
    found: dict[str, float] = json.loads(result.stdout)
    return found


def write_bodies(path: Path, documents: Sequence[object]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(document) + "\n" for document in documents))
    return path


if __name__ == "__main__":
    # No real-time priority: what the kernel had put on the generator's core waited there for milliseconds, and p99 was four
    # times what it is without.
    gc.disable()
    address, port, path, bodies, credentials, rate, seconds = json.loads(sys.argv[1])
    print(json.dumps(at_rate(Target(address, port, path, Path(bodies), tuple(credentials)), rate, seconds)))
