"""The first process of a machine without a network: `unshare … python -m tests.kit.island TREE KIT QUESTIONS`.

It makes TREE its root, with KIT in /media, and is the name server of the machine: who asks for a name is answered that
there is none, and every question is a line of QUESTIONS. There is a loopback device, and not one route.
"""

from __future__ import annotations

import ctypes
import os
import selectors
import socket
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

# Of a block for documentation (RFC 5737). Lab machines reach it, since their default route is this machine.
RESOLVER = "192.0.2.53"
MNT_DETACH = 2


def run(*command: str | Path) -> None:
    subprocess.run([str(word) for word in command], check=True)


def enter(tree: Path, kit: Path) -> None:
    """Turn ``tree`` into the root of this mount namespace, with what a machine has mounted."""
    run("mount", "--make-rprivate", "/")
    run("mount", "--bind", tree, tree)
    run("mount", "-t", "proc", "proc", tree / "proc")
    run("mount", "-t", "sysfs", "sysfs", tree / "sys")  # of this network namespace
    for place in ("/sys/fs/cgroup", "/dev"):
        run("mount", "--rbind", place, f"{tree}{place}")
    run("mount", "-t", "tmpfs", "tmpfs", tree / "run")
    run("mount", "--bind", kit, tree / "media")
    run("ip", "link", "set", "lo", "up")
    run("ip", "address", "add", f"{RESOLVER}/32", "dev", "lo")
    (tree / "etc/resolv.conf").write_text(f"nameserver {RESOLVER}\n")
    # As an installer does: a machine knows its own name.
    (tree / "etc/hosts").write_text("127.0.0.1 localhost\n127.0.1.1 island\n")
    socket.sethostname("island")
    libc = ctypes.CDLL(None)
    os.chdir(tree)
    run("pivot_root", ".", "mnt")
    # By the C library: the tree need not have umount.
    assert libc.umount2(b"/mnt", MNT_DETACH) == 0, "what was the root cannot be unmounted"
    os.chdir("/")


def name_of(query: bytes) -> str:
    """The name that a DNS message asks for (RFC 1035, 4.1)."""
    labels, at = [], 12
    while at < len(query) and query[at]:
        labels.append(query[at + 1 : at + 1 + query[at]].decode(errors="replace"))
        at += 1 + query[at]
    return ".".join(labels) or "."


def serve(questions: int) -> None:
    """Answer NXDOMAIN for ever, and bury the processes whose parents have ended."""
    udp, tcp = (socket.socket(type=kind) for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM))
    selector = selectors.DefaultSelector()
    for each in (udp, tcp):
        each.bind(("", 53))
        selector.register(each, selectors.EVENT_READ)
    tcp.listen()
    os.write(questions, b"ready\n")
    while True:
        with suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        for key, _ in selector.select(timeout=1):
            if key.fileobj is tcp:
                connection, (asker, _) = tcp.accept()
                connection.close()
                os.write(questions, f"{asker} over TCP\n".encode())
            else:
                query, address = udp.recvfrom(4096)
                os.write(questions, f"{address[0]} {name_of(query)}\n".encode())
                # The same message as a response with the code 3, no such name.
                udp.sendto(query[:2] + b"\x81\x83" + query[4:], address)


def main(tree: str, kit: str, questions: str) -> None:
    log = os.open(questions, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    enter(Path(tree), Path(kit))
    serve(log)


if __name__ == "__main__":
    main(*sys.argv[1:])
