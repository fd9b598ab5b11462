"""`make profile`: where a request's time goes, written to docs/profile.md; a flame graph to build/bench.

py-spy samples the worker of one replica on the machine while wrk asks; what is outside the Python interpreter counts for
the line of Python that it was called from. The split between nginx and the replicas is that of their cgroups.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from tests.load.bench import load, machine, stacks
from tests.load.bench.__main__ import CONNECTIONS, CREDENTIALS, sentences
from tests.load.bench.growth import measured
from tests.load.bench.machine import WORK, Machine
from tests.load.bench.report import figure, table
from tests.paths import ROOT

SECONDS, RATE = 6, 400
FLAME = WORK / "profile.svg"
SPY = f"{stacks.HOME}/profile/site-packages/bin/py-spy"
# As py-spy names it: "name (/long/way/app/engines/scorer.py:12)".
FUNCTION = re.compile(r"(\S+) \((?:.*/(?:site-packages|releases/\w+|lib)/)?(.*?)(?::\d+)?\)$")
# Which part of the stack a frame belongs to: the innermost that is named here takes the sample.
PARTS = (
    ("app/engines/scorer.py", "the scorer"),
    ("app/observed/metrics.py", "metrics"),
    ("app/http/sentences.py", "validation"),
    *(
        (server, "HTTP, sockets (worker.py, uvicorn, httptools, uvloop, kernel)")
        for server in ("app/worker.py", "uvicorn/", "gunicorn/", "asyncio/")
    ),
    ("app/", "request ids, routing, answers (app)"),
)


def part(frames: list[str]) -> str:
    for frame in reversed(frames):
        for pattern, name in PARTS:
            if pattern in frame:
                return name
    return "else"


def sample(here: Machine) -> list[tuple[list[str], int]]:
    """Stacks from the outermost frame to the innermost, and how often each was seen."""
    unit = "vmlops-api-v1@8001.service"
    pids = here.ssh(f"cat /sys/fs/cgroup$(systemctl show --value --property=ControlGroup {unit})/cgroup.procs").split()
    worker = int(pids[-1])  # the master is the older one
    common = f"sudo {SPY} record --pid {worker} --duration {SECONDS} --rate {RATE} --nonblocking"
    at = "/run/vmlops-bench/profile"
    here.ssh(
        f"{common} --format raw --full-filenames --output {at}.raw >/dev/null && {common} --output {at}.svg >/dev/null"
    )
    FLAME.write_bytes(here.ssh(f"sudo cat {at}.svg"))
    found = []
    for line in here.ssh(f"sudo cat {at}.raw").decode().splitlines():
        frames, _, count = line.rpartition(" ")
        found.append((frames.split(";"), int(count)))
    return found


def report(samples: list[tuple[list[str], int]], run: dict[str, Any]) -> str:
    total = sum(count for _, count in samples)
    parts: Counter[str] = Counter()
    functions: Counter[str] = Counter()
    for frames, count in samples:
        parts[part(frames)] += count
        functions[FUNCTION.sub(r"\1 (\2)", frames[-1])] += count
    each = run["app_us"] / total
    by_part = [[name, f"{count / total:.0%}", figure(count * each)] for name, count in parts.most_common()]
    by_function = [
        [f"`{name}`", f"{count / total:.1%}", figure(count * each)] for name, count in functions.most_common(20)
    ]
    return f"""\
# Where a request's time goes

Written by `make profile` (tests/load/bench/profile.py), not by hand: {total:,} samples of one replica's worker at {RATE} Hz
while wrk asked the whole stack over {CONNECTIONS} connections. Without py-spy these were {figure(run["rate"])} requests/s; CPU a
request {figure(run["app_us"])} µs in the replica, {figure(run["gateway_us"])} µs in nginx (TLS, password check, log).
`build/bench/profile.svg` is the flame graph.

{table(["part of the replica", "share", "µs a request"], by_part)}

The innermost functions of Python, with what they call in C:

{table(["function", "share", "µs a request"], by_function)}
"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--keep", action="store_true", help="leave the machine behind, and use it again")
    options = parser.parse_args()
    with Machine(options.keep) as here:
        if not here.found:
            machine.playbook("site.yml")
        tree = machine.fetch("profile", here.python())
        code = Path(__file__).parent
        here.put({f"{stacks.HOME[1:]}/profile/site-packages": tree, f"{stacks.HOME[1:]}/code/bench": code})
        ours = stacks.ours(machine.instances())
        bodies = load.write_bodies(WORK / "bodies" / "profile", [ours.body(text) for text in sentences()])
        target = load.Target(here.address, ours.gateway_port, ours.path, bodies, CREDENTIALS)
        load.wrk(target, CONNECTIONS, 1)
        run = measured(here, ours, target, CONNECTIONS, 3)
        with load.background(target, CONNECTIONS, 2 * SECONDS + 6):
            samples = sample(here)
    text = report(samples, run)
    (ROOT / "docs" / "profile.md").write_text(text)
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
