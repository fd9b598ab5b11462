"""What TLS with certificates on both sides costs a replica: python -m tests.load.bench.mutual_tls

Processor time of the worker from /proc, which another load on the machine changes little: for requests on a connection that is
kept, as nginx keeps it, and for new connections.
"""

from __future__ import annotations

import os
import statistics
import tempfile
from contextlib import closing
from pathlib import Path

from tests.authority import API, Authority, TLSServer
from tests.replica import Server

REQUESTS, CONNECTIONS, ROUNDS = 4000, 300, 5
BODY, HEADERS = b'{"sentence": "Oh yeah, that was soooo cool!"}', {"Content-Type": "application/json"}


def processor_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def ask(server: Server, requests: int) -> None:
    with closing(server.connect()) as connection:
        for _ in range(requests):
            connection.request("POST", "/predict", BODY, HEADERS)
            answer = connection.getresponse()
            answer.read()
            assert answer.status == 200, answer.status


def cost(server: Server, connections: int, requests: int) -> float:
    """Microseconds of the worker a request."""
    worker = server.worker()
    before = processor_seconds(worker)
    for _ in range(connections):
        ask(server, requests)
    return (processor_seconds(worker) - before) / (connections * requests) * 1e6


def main() -> None:
    with tempfile.TemporaryDirectory() as scratch:
        own = Authority().issue(Path(scratch, "api"), API)
        for name in ("plain", "tls"):
            Path(scratch, name).mkdir()
        servers = {
            "plain": Server(Path(scratch, "plain")),
            "TLS": TLSServer(Path(scratch, "tls"), VMLOPS_TLS_DIR=str(own)),
        }
        try:
            for server in servers.values():
                server.wait_ready()
            for what, size in (("kept connection", (1, REQUESTS)), ("new connection each", (CONNECTIONS, 1))):
                for name, server in servers.items():
                    rounds = [cost(server, *size) for _ in range(ROUNDS)]
                    print(
                        f"{what}, {name}: {statistics.median(rounds):.0f} µs ({min(rounds):.0f} to {max(rounds):.0f})"
                    )
        finally:
            for server in servers.values():
                server.log.write_text("")
                server.close()


if __name__ == "__main__":
    main()
