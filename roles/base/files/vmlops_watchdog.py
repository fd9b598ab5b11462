#!/usr/bin/python3
"""vmlops-watchdog DIRECTORY: ends processes that hang, so that systemd, or the master that they belong to, starts them anew.

systemd starts again what ended and notices nothing of what hangs, except in services that feed its watchdog, as the API does.
This looks after the others. Each file of the directory is named as a unit and holds the address at which it speaks HTTP
(host:port, or the path of a socket), or nothing. Twice a second:

- A process of the unit that is stopped (state T, as by SIGSTOP) at five looks in a row is killed, alone: a worker's master
  replaces it.
- A service that takes connections and answers none within two seconds, three times in a row, is killed as a whole. One that
  refuses connections is starting or has ended: that is systemd's business. Where systemd holds the socket, connections are taken
  while the service starts, and on a machine that has too much to do a start is slow: until the service has answered, each kill
  is waited for twice as long as the one before, a minute at most.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
from collections import Counter
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup/system.slice")
PAUSE_SECONDS = 0.5
STOPPED_LOOKS = 5
ANSWER_SECONDS = 2.0
SILENT_LOOKS = 3
MOST_SILENT_LOOKS = 24


def processes(unit: str) -> list[int]:
    """Return the unit's processes; none where it does not run."""
    try:
        return [int(pid) for pid in (CGROUPS / f"{unit}.service/cgroup.procs").read_text().split()]
    except OSError:
        return []


def is_stopped(pid: int) -> bool:
    try:
        # man proc_pid_stat: the state follows the name, which is in parentheses and may hold any byte
        return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[0] == b"T"
    except OSError:  # it ended just now
        return False


def kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


async def ask(address: str) -> None:
    if address.startswith("/"):
        reader, writer = await asyncio.open_unix_connection(address)
    else:
        host, _, port = address.rpartition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
    try:
        writer.write(b"HEAD / HTTP/1.0\r\n\r\n")
        await reader.read(1)
    finally:
        writer.close()


async def is_silent(address: str) -> bool:
    """Whether something takes a connection at ``address`` and then says nothing."""
    try:
        await asyncio.wait_for(ask(address), ANSWER_SECONDS)
    except TimeoutError:
        return True
    except OSError:
        return False
    return False


async def watch(unit: str, address: str) -> None:
    stopped: Counter[int] = Counter()
    silent, patience = 0, SILENT_LOOKS
    while True:
        pids = processes(unit)
        stopped = Counter({pid: stopped[pid] + 1 for pid in pids if is_stopped(pid)})
        for pid, looks in stopped.items():
            if looks >= STOPPED_LOOKS:
                print(f"{unit}: process {pid} is stopped: killed", flush=True)
                kill(pid)
        # Where one is stopped it is clear what is wrong, and asking would take two seconds.
        asked = bool(pids and address and not stopped)
        if asked and await is_silent(address):
            silent += 1
        else:
            silent, patience = 0, SILENT_LOOKS if asked else patience
        if silent >= patience:
            print(f"{unit}: takes connections at {address} and answers none: killed", flush=True)
            for pid in processes(unit):
                kill(pid)
            silent, patience = 0, min(2 * patience, MOST_SILENT_LOOKS)
        await asyncio.sleep(PAUSE_SECONDS)


def notify(state: str) -> None:
    """Tell systemd (man sd_notify)."""
    if path := os.environ.get("NOTIFY_SOCKET"):
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notification:
            notification.sendto(state.encode(), path.replace("@", "\0", 1) if path.startswith("@") else path)


async def main(directory: Path) -> None:
    watches: dict[tuple[str, str], asyncio.Task[None]] = {}
    while True:
        wanted = {(path.name, path.read_text().strip()) for path in directory.iterdir()}
        for gone in watches.keys() - wanted:
            watches.pop(gone).cancel()
        for added in wanted - watches.keys():
            watches[added] = asyncio.create_task(watch(*added))
        for task in watches.values():
            if task.done():
                task.result()  # raises what it failed with: this process ends and is started again
        notify("READY=1\nWATCHDOG=1")
        await asyncio.sleep(1)


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
