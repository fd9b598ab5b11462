"""Runs on the machine, as root, with its Python alone: `agent.py VERB`, a JSON document on stdin, one on stdout."""

from __future__ import annotations

import http.client
import json
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

RUN = Path("/run/vmlops-bench")
PATIENCE = 240  # seconds; on a busy host MLServer takes one of the four minutes
CGROUPS = Path("/sys/fs/cgroup")


def run(*command: str) -> str:
    result = subprocess.run(command, check=False, capture_output=True, text=True)
    if result.returncode:
        raise RuntimeError(f"{' '.join(command)}: {(result.stderr or result.stdout).strip()[-500:]}")
    return result.stdout.strip()


def cgroup(unit: str) -> Path:
    return CGROUPS / run("systemctl", "show", "--value", "--property=ControlGroup", unit).lstrip("/")


def cpu(request: dict[str, Any]) -> dict[str, int]:
    """µs of CPU that each unit has used since its start, all its processes, in user and kernel."""
    found = {}
    for unit in request["units"]:
        stat = (cgroup(unit) / "cpu.stat").read_text()
        found[unit] = int(re.search(r"^usage_usec (\d+)", stat, re.MULTILINE)[1])  # type: ignore[index]
    return found


def memory(request: dict[str, Any]) -> dict[str, Any]:
    """PSS of all processes of the units in kB, and their number."""
    kilobytes = processes = 0
    for unit in request["units"]:
        for pid in (cgroup(unit) / "cgroup.procs").read_text().split():
            try:
                rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
            except (FileNotFoundError, ProcessLookupError):  # it ended just now
                continue
            kilobytes += int(re.search(r"^Pss:\s+(\d+) kB", rollup, re.MULTILINE)[1])  # type: ignore[index]
            processes += 1
    return {"pss_kb": kilobytes, "processes": processes}


def answers(port: int, path: str, body: str) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("POST", path, body, {"Content-Type": "application/json"})
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()


def wait(unit: str, port: int, path: str, body: str, patience: float) -> None:
    """Until the unit's first 200. Raises RuntimeError with the end of its journal where none comes."""
    began = time.monotonic()
    while not answers(port, path, body):
        if time.monotonic() - began > patience:
            state = run("systemctl", "show", "--property=ActiveState,SubState,Result", unit)
            log = run("journalctl", "--unit", unit, "--lines=5", "--output=cat")
            raise RuntimeError(f"{unit} did not answer: {' '.join(state.split())}: {log[-300:]}")
        time.sleep(0.005)


def start(request: dict[str, Any]) -> list[float]:
    """Seconds from the start of one unit to its first 200, `times` times."""
    seconds = []
    for _ in range(request["times"]):
        run("systemctl", "stop", request["unit"])
        began = time.monotonic()
        run("systemctl", "start", "--no-block", request["unit"])
        wait(request["unit"], request["port"], request["path"], request["body"], PATIENCE)
        seconds.append(time.monotonic() - began)
    return seconds


def ready(request: dict[str, Any]) -> None:
    """Wait until a replica has answered."""
    path, body = request.get("path", "/predict"), request.get("body", '{"sentence": "ready?"}')
    wait(request["unit"], request["port"], path, body, PATIENCE)


def units(request: dict[str, Any]) -> None:
    """Starts, stops, freezes or thaws units: systemctl takes one at a time for the last two."""
    run("systemctl", "daemon-reload")
    for unit in request["units"]:
        run("systemctl", request["verb"], unit)


def gateway(request: dict[str, Any]) -> None:
    """Has nginx test the tree that gateway.py rendered for the other applications."""
    run("nginx", "-t", "-q", "-c", f"{request['directory']}/nginx.conf")


def reference(request: dict[str, Any]) -> None:
    """The gateway of the reference, from tests/load/reference/nginx.conf."""
    password = run("openssl", "passwd", "-apr1", request["password"])
    (RUN / "htpasswd").write_text(f"{request['user']}:{password}\n")
    text = Path(request["template"]).read_text()
    values = {
        "RUN": f"{RUN}/reference",
        "PORT": str(request["port"]),
        "SERVERS": "\n".join(f"        server 127.0.0.1:{port};" for port in request["servers"]),
        "CERTIFICATE": request["certificate"],
        "KEY": request["key"],
    }
    for name, value in values.items():
        text = text.replace(f"@{name}@", value)
    (RUN / "reference").mkdir(parents=True, exist_ok=True)
    (RUN / "htpasswd").rename(RUN / "reference" / "htpasswd")
    (RUN / "reference" / "nginx.conf").write_text(text)
    run("nginx", "-t", "-q", "-c", f"{RUN}/reference/nginx.conf")


def describe(_request: dict[str, Any]) -> dict[str, str]:
    """Versions of what the rows have in common."""
    release = dict(line.split("=", 1) for line in Path("/etc/os-release").read_text().splitlines() if "=" in line)
    nginx = subprocess.run(["nginx", "-v"], check=True, capture_output=True, text=True).stderr
    return {
        "distribution": release["PRETTY_NAME"].strip('"'),
        "nginx": nginx.rpartition("/")[2].split()[0],
        "python": ".".join(map(str, sys.version_info[:3])),
        "openssl": run("openssl", "version").split()[1],
    }


VERBS = {verb.__name__: verb for verb in (cpu, memory, start, ready, units, gateway, reference, describe)}

if __name__ == "__main__":
    RUN.mkdir(mode=0o755, exist_ok=True)
    try:
        print(json.dumps(VERBS[sys.argv[1]](json.load(sys.stdin))))
    except (RuntimeError, OSError) as error:
        sys.exit(f"{sys.argv[1]}: {error}")
