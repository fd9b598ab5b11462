"""Ports of loopback for the servers that tests and benchmarks start."""

from __future__ import annotations

import random
import socket

# Below the ports that Linux gives to clients (32768 and up), so that no connection of another test takes one meanwhile.
PORTS = range(20000, 32000)
_given: set[int] = set()


def free_port() -> int:
    """Return a TCP port of 127.0.0.1 on which nothing listens now and which was not given before.

    Raises OSError when every port of PORTS is taken.
    """
    for port in random.sample(PORTS, len(PORTS)):
        if port in _given:
            continue
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        _given.add(port)
        return port
    raise OSError(f"no TCP port of 127.0.0.1 in {PORTS} is free")
