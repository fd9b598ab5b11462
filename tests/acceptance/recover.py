"""Sends a signal to a process of a unit and prints the seconds until the unit is whole again, on the machine itself.

    python3 - UNIT main|child SIGNAL ADDRESS < recover.py

ADDRESS is where the service answers HTTP (host:port, or the path of a socket), or - where it does not speak HTTP. Whole again is:
the process is gone, the unit is active with a main process (and, if a child was hit, another child), and it answers.
Exits with 1 after half a minute.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path


def show(unit: str, prop: str) -> str:
    command = ["systemctl", "show", "--value", f"--property={prop}", unit]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def children(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def is_there(pid: int) -> bool:
    """Whether the process runs; one that has ended and was not waited for yet does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[0] not in (b"Z", b"X")
    except OSError:
        return False


def answers(address: str) -> bool:
    if address == "-":
        return True
    unix = address.startswith("/")
    host, _, port = address.rpartition(":")
    try:
        with socket.socket(socket.AF_UNIX if unix else socket.AF_INET) as connection:
            connection.settimeout(0.5)
            connection.connect(address if unix else (host, int(port)))
            connection.sendall(b"GET / HTTP/1.0\r\n\r\n")
            return connection.recv(1) != b""
    except OSError:
        return False


def is_whole(unit: str, victim: int, child: bool, address: str) -> bool:
    if is_there(victim) or show(unit, "ActiveState") != "active":
        return False
    pid = int(show(unit, "MainPID"))
    return is_there(pid) and (not child or bool(children(pid))) and answers(address)


def main() -> None:
    unit, which, name, address = sys.argv[1:]
    pid = int(show(unit, "MainPID"))
    victim = children(pid)[0] if which == "child" else pid
    start = time.monotonic()
    os.kill(victim, getattr(signal, f"SIG{name}"))
    while not is_whole(unit, victim, which == "child", address):
        if time.monotonic() > start + 30:
            print(f"{unit} is not whole again after 30 s")
            sys.exit(1)
        time.sleep(0.05)
    print(f"{time.monotonic() - start:.1f}")


main()
