"""What parts of the gateway and of a replica cost: each switched off in turn, beside the whole, in the same rounds.

No setting turns these parts off: they are taken out of a copy of the rendered tree. A tree without them is an error.
"""

from __future__ import annotations

import json
import re
import socket
import ssl
import statistics
import subprocess
from collections.abc import Sequence
from pathlib import Path
from time import perf_counter
from typing import Any, NamedTuple

from tests.load.bench import gateway, load
from tests.load.bench.machine import Machine
from tests.load.bench.stacks import HOME, Stack, units

RUN = "/run/vmlops-bench"
HANDSHAKES = 300
MONITORING = (
    "prometheus.service",
    "prometheus-node-exporter.service",
    "prometheus-nginx-exporter.service",
    "mtail.service",
)
# One line of a rendered file, and what stands there without the part.
NO_PASSWORD = ("vmlops/proxy_api.conf", "auth_request /.verdict/users;", "")
NO_LOG = ("vmlops/logging.conf", r"^access_log .*$", "access_log off;")


class Row(NamedTuple):
    """`stops` are units that rest while the row is measured."""

    title: str
    stack: Stack
    cut: tuple[str, str, str] | None = None
    stops: Sequence[str] = ()


def counting(name: str, port: int, first: int, uncounted: str) -> Stack:
    """Three replicas of v1 of our own, so that both of the pair run in the same way."""
    variables = {
        "VMLOPS_VERSION": "v1",
        "VMLOPS_BIND": "127.0.0.1:@PORT@",
        "VMLOPS_INSTANCE": "v1@@PORT@",
        "VMLOPS_MODEL_DIR": "/opt/vmlops/v1/model",
        "UNCOUNTED": uncounted,
    }
    command = "/opt/vmlops/v1/venv/bin/python -m gunicorn --config python:app.gunicorn_conf"
    return Stack(
        name,
        name,
        port,
        **units(name, *range(first, first + 3)),
        gateway_units=(f"bench-part-{name}.service",),
        directory="/opt/vmlops/v1",
        command=f"{command} --pythonpath {HOME}/code/bench uncounted:app",
        variables=variables,
    )


def rows(ours: Stack) -> list[Row]:
    def copy(name: str, port: int) -> Stack:
        unit = f"bench-part-{name}.service"
        return Stack(name, name, port, ours.units, ours.unit_ports, (unit, "vmlops-verifier.service"))

    return [
        Row("a copy of the gateway, whole", copy("whole", 9451)),
        Row("without the password check", copy("password", 9452), NO_PASSWORD),
        Row("without the access log", copy("log", 9453), NO_LOG),
        Row("replicas that count", counting("counted", 9454, 9461, "0")),
        Row(
            "replicas that count nothing, monitoring at rest", counting("uncounted", 9455, 9471, "1"), None, MONITORING
        ),
    ]


def install(here: Machine, measured: Sequence[Row], nginx: str) -> None:
    """Put each row's replicas and its copy of the gateway on the machine, and start them."""
    files: dict[str, str | Path] = {f"{HOME[1:]}/code/bench": Path(__file__).parent}
    for i, (_, stack, cut, _) in enumerate(measured):
        place = f"{RUN}/part-{stack.name}"
        tree = gateway.tree(
            here.address,
            {stack.gateway_port: stack.unit_ports},
            nginx,
            9481 + i,
            "",
            directory=place,
            _gateway_http_listen=[f"127.0.0.1:{9491 + i}"],
            _gateway_pid=f"{place}.pid",
            _gateway_verdicts=f"{place}.verdicts",
            vmlops_access_log=f"/var/log/nginx/bench-{stack.name}.access.json",
        )
        if cut:
            file = f"{place[1:]}/{cut[0]}"
            tree[file], found = re.subn(cut[1], cut[2], tree[file], flags=re.MULTILINE)
            if not found:
                raise RuntimeError(f"{cut[0]} has no {cut[1]!r}")
        files |= tree
        files |= stack.unit_files()
        files[f"run/systemd/system/bench-part-{stack.name}.service"] = (
            f"[Service]\nExecStart=/usr/sbin/nginx -c {place}/nginx.conf -g 'daemon off;'\nKillSignal=SIGQUIT\n"
            "TimeoutStopSec=5\nLimitNOFILE=65536\n"
        )
    here.put(files)
    here.ask("units", verb="restart", units=[f"bench-part-{stack.name}.service" for _, stack, _, _ in measured])
    for _, stack, _, _ in measured:
        if stack.command:
            here.ask("units", verb="restart", units=stack.units)
            for unit, port in zip(stack.units, stack.unit_ports, strict=True):
                here.ask("ready", unit=unit, port=port)


def by_rate(
    here: Machine, ours: Stack, nginx: str, target: load.Target, rounds: int, seconds: float
) -> list[dict[str, Any]]:
    """Each row's requests a second, and µs of CPU a request in nginx and in the replicas, by round."""
    measured = rows(ours)
    found: list[dict[str, Any]] = [{"title": row.title, "runs": []} for row in measured]
    try:
        install(here, measured, nginx)
        for n in range(rounds + 1):  # the first does not count: nobody has asked these before
            for row, kept in zip(measured, found, strict=True):
                if row.stops:
                    here.ask("units", verb="stop", units=row.stops)
                run = one(here, row.stack, target._replace(port=row.stack.gateway_port), seconds if n else 1)
                if row.stops:
                    here.ask("units", verb="start", units=row.stops)
                    here.ssh("sleep 2")  # what they do at their start is no part of the next row
                if n:
                    kept["runs"].append(run)
    finally:
        here.ask("units", verb="start", units=MONITORING)
        stopped = [f"bench-part-{row.stack.name}.service" for row in measured]
        stopped += [unit for row in measured if row.stack.command for unit in row.stack.units]
        here.ask("units", verb="stop", units=stopped)
    return found


def one(here: Machine, stack: Stack, target: load.Target, seconds: float) -> dict[str, Any]:
    every = [*stack.units, *stack.gateway_units]
    before = here.cpu(every)
    run = load.wrk(target, 32, seconds)
    used = {unit: after - before[unit] for unit, after in here.cpu(every).items()}
    run["rate"] = run["requests"] / run["seconds"]
    run["app_us"] = sum(used[unit] for unit in stack.units) / run["requests"]
    run["gateway_us"] = sum(used[unit] for unit in stack.gateway_units) / run["requests"]
    return run


def h2load(target: load.Target, body: Path, http2: bool, seconds: float) -> float:
    """Requests a second over 32 connections, one request at a time on each. Raises RuntimeError where one fails."""
    command = ["h2load", "--clients=32", "--threads=2", f"--duration={seconds:.0f}", f"--data={body}"]
    command += ["--header=content-type: application/json", f"--header=authorization: {target.authorization}"]
    command += [*(() if http2 else ("--h1",)), f"https://{target.address}:{target.port}{target.path}"]
    result = subprocess.run(command, check=False, capture_output=True, text=True, timeout=seconds + 60)
    rate = re.search(r"finished in .*?, ([\d.]+) req/s", result.stdout)
    codes = re.search(r"status codes: (\d+) 2xx, 0 3xx, 0 4xx, 0 5xx", result.stdout)
    if result.returncode or not rate or not codes or not int(codes[1]):
        raise RuntimeError(f"h2load: {(result.stderr + result.stdout).strip()[-300:]}")
    return float(rate[1])


def by_protocol(
    here: Machine, ours: Stack, target: load.Target, scratch: Path, rounds: int, seconds: float
) -> list[dict[str, Any]]:
    """HTTP/1.1 and HTTP/2, by the same client, with one sentence."""
    body = scratch / "one.json"
    body.write_text(target.bodies.read_text().splitlines()[0])
    found: list[dict[str, Any]] = [{"title": "HTTP/1.1", "runs": []}, {"title": "HTTP/2", "runs": []}]
    for _ in range(rounds):
        for http2, kept in enumerate(found):
            before = here.cpu(ours.gateway_units)
            rate = h2load(target, body, bool(http2), seconds)
            used = sum(here.cpu(ours.gateway_units).values()) - sum(before.values())
            kept["runs"].append({"rate": rate, "gateway_us": used / (rate * seconds)})
    return found


def by_handshake(here: Machine, ours: Stack, target: load.Target, rounds: int) -> list[dict[str, Any]]:
    """A new connection for each request, with a full handshake or a session that is resumed: ms for the client, µs in nginx."""
    found: list[dict[str, Any]] = [{"title": "full handshake", "runs": []}, {"title": "resumed", "runs": []}]
    for _ in range(rounds):
        for resumes, kept in enumerate(found):
            before = here.cpu(ours.gateway_units)
            kept["runs"].append(handshakes(target, bool(resumes)))
            used = sum(here.cpu(ours.gateway_units).values()) - sum(before.values())
            kept["runs"][-1]["gateway_us"] = used / HANDSHAKES
    return found


def handshakes(target: load.Target, resume: bool) -> dict[str, float]:
    """Raises RuntimeError where a session is not resumed although it should be."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE  # as wrk
    request = f"GET /health HTTP/1.1\r\nHost: {target.address}\r\nConnection: close\r\n\r\n".encode()
    session: ssl.SSLSession | None = None
    taken = []
    for n in range(HANDSHAKES):
        began = perf_counter()
        with (
            socket.create_connection((target.address, target.port), timeout=20) as plain,
            context.wrap_socket(plain, server_hostname=target.address, session=session) as connection,
        ):
            connection.sendall(request)
            while connection.recv(65536):
                pass
            if resume and n and not connection.session_reused:
                raise RuntimeError("the session was not resumed")
            session = connection.session if resume else None
        taken.append((perf_counter() - began) * 1e3)
    return {"ms": statistics.median(taken)}


def measure(
    here: Machine, ours: Stack, nginx: str, target: load.Target, scratch: Path, rounds: int, seconds: float
) -> dict[str, Any]:
    """Everything, by what it is compared with."""
    found = by_rate(here, ours, nginx, target, rounds, seconds)
    return {
        "rate": found[:3],
        "counting": found[3:],
        "protocol": by_protocol(here, ours, target, scratch, rounds, seconds),
        "handshake": by_handshake(here, ours, target, rounds),
    }


if __name__ == "__main__":
    # python -m tests.load.bench.parts ROUNDS SECONDS: on the machine that `make bench KEEP=1` left behind.
    import sys

    from tests.load.bench import stacks
    from tests.load.bench.__main__ import CREDENTIALS, sentences
    from tests.load.bench.machine import WORK, instances

    with Machine(keep=True) as machine:
        machine.put({f"{HOME[1:]}/code/bench": Path(__file__).parent})
        system = stacks.ours(instances())
        bodies = load.write_bodies(WORK / "bodies" / "parts", [system.body(text) for text in sentences()])
        at = load.Target(machine.address, 443, "/predict", bodies, CREDENTIALS)
        version = machine.ask("describe")["nginx"]
        print(json.dumps(measure(machine, system, version, at, WORK, int(sys.argv[1]), float(sys.argv[2])), indent=1))
