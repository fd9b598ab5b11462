"""Outages behind the gateway and attacks on it: which errors and delays clients see."""

from __future__ import annotations

import os
import re
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.acceptance.conftest import SENTENCE, Machine
from tests.faults.conftest import Start
from tests.paths import ROOT

V1 = "'vmlops-api-v1@*.service'"


def test_a_killed_replica_costs_no_answer(host: Any, load: Start) -> None:
    with load(seconds=8) as clients:
        time.sleep(2)
        assert host.run("systemctl kill --signal=KILL vmlops-api-v1@8002.service").rc == 0
    assert set(clients.codes) == {"200"}, clients.codes
    assert clients.codes["200"] > 800
    assert clients.reconnected == 0


def test_a_restarted_replica_costs_no_answer(host: Any, load: Start) -> None:
    with load(seconds=8) as clients:
        for port in (8001, 8003):
            assert host.run(f"systemctl restart vmlops-api-v1@{port}.service").rc == 0
    assert set(clients.codes) == {"200"}, clients.codes


def test_with_all_of_v1_down(host: Any, client: httpx.Client, load: Start, eventually: Callable[..., Any]) -> None:
    instances = host.check_output(f"systemctl list-units --plain --no-legend {V1} | cut -d' ' -f1").split()
    try:
        with load("--debug", seconds=10, clients=5) as debug:
            assert host.run(f"systemctl stop {' '.join(instances)}").rc == 0
            start = time.monotonic()
            answer = client.post("/predict", json=SENTENCE)
            seconds = time.monotonic() - start
            print(answer.status_code, answer.text, f"{seconds:.3f} s")
            assert answer.status_code == 503
            assert answer.json()["status"] == 503
            assert answer.headers["retry-after"] == "1"
            assert seconds < 1

            assert host.run(f"systemctl start {instances[0]}").rc == 0
            host.run("until curl -sf http://127.0.0.1:8001/ready; do sleep 0.05; done")
            start = time.monotonic()
            eventually(lambda: client.post("/predict", json=SENTENCE).status_code == 200, "recovery", 5)
            print(f"served again {time.monotonic() - start:.2f} s after the replica's return")
    finally:
        host.run(f"systemctl start {' '.join(instances)}")
    assert set(debug.codes) == {"200"}, debug.codes


def test_without_v2_nobody_of_v1_notices(host: Any, load: Start) -> None:
    try:
        with load(seconds=5) as clients:
            assert host.run("systemctl stop vmlops-api-v2@8101.service").rc == 0
    finally:
        host.run("systemctl start vmlops-api-v2@8101.service")
    assert set(clients.codes) == {"200"}, clients.codes


@pytest.mark.parametrize("path", ["/predict", "/docs"])
def test_a_flood_of_wrong_passwords_slows_nobody(load: Start, path: str) -> None:
    """One client guesses as fast as it can, and its own work costs this machine something, too."""
    with load(seconds=4, clients=5) as quiet:
        pass
    with load("--guess", seconds=7, clients=1, rate=0, path=path, network=30) as guesser:
        time.sleep(1.5)
        with load(seconds=4, clients=5) as flooded:
            pass
    ratio = flooded.median / quiet.median
    print(
        f"median {quiet.median} → {flooded.median} ms, {ratio:.2f} times; p99 {quiet.p99} → {flooded.p99} ms",
        guesser.codes,
    )
    assert set(flooded.codes) == set(quiet.codes) == {"200"}
    assert set(guesser.codes) <= {"401", "429"}
    assert guesser.codes["401"] <= 21 + 2 * 8  # the burst, and two a second
    assert ratio < 2


def test_slow_clients_are_disconnected(machine: Machine, load: Start) -> None:
    """200 connections that send a header byte by byte delay no other client, and are closed after ten seconds."""
    context = ssl._create_unverified_context()
    dawdlers = []
    try:
        for _ in range(200):
            connection = context.wrap_socket(socket.create_connection((machine.address, 443), timeout=30))
            connection.sendall(b"POST /predict HTTP/1.1\r\nHost: localhost\r\nX-Slow: ")
            dawdlers.append(connection)
        start = time.monotonic()
        with load(seconds=4) as clients:
            while clients.process.poll() is None and time.monotonic() - start < 4:
                for connection in dawdlers:
                    connection.sendall(b"a")
                time.sleep(1)
        assert set(clients.codes) == {"200"}, clients.codes
        for connection in dawdlers:
            try:
                answer = connection.recv(100)
            except ConnectionResetError:
                answer = b""
            assert answer == b"" or b" 408 " in answer
        assert time.monotonic() - start < 14
    finally:
        for connection in dawdlers:
            connection.close()


def test_every_variable_can_be_changed_under_load(tmp_path: Path, host: Any, load: Start) -> None:
    """The play twice: to other values, and back. Nobody's request fails."""
    other = tmp_path / "other.yml"
    other.write_text(
        """
        gateway_tls_profile: modern
        gateway_hsts_seconds: 60
        gateway_burst: 20
        gateway_guess_rate: 3
        gateway_connections: 100
        vmlops_exempt_networks: [127.99.0.0/16]
        gateway_canary_percent: 10
        gateway_shadow_percent: 50
        gateway_upstream_read_seconds: 3
        gateway_upstream_batch_seconds: 9
        gateway_upstream_keepalive: 16
        gateway_worker_connections: 2048
        gateway_log_days: 7
        gateway_users:
          - {name: admin, password: admin}
          - {name: second, password: another one}
        """
    )
    program = str(Path(sys.executable).with_name("ansible-playbook"))
    play = [program, "-i", os.environ.get("VMLOPS_INVENTORY", "inventory/lab"), "site.yml", "--tags", "gateway"]
    started = "systemctl show --property=ActiveEnterTimestampMonotonic --value nginx.service"
    stop = "/run/vmlops-load-stop"
    before = host.check_output(started)
    runs = []
    for options in (["-e", f"@{other}"], []):
        host.run(f"rm -f {stop}")
        with load(seconds=300, until=stop) as clients:
            done = subprocess.run([*play, *options], cwd=ROOT, capture_output=True, text=True, timeout=280, check=False)
            host.run(f"touch {stop}")
        print(done.stdout[-3000:], done.stderr[-1000:])
        assert done.returncode == 0
        runs.append((clients, done.stdout))
    for clients, said in runs:
        assert re.search(r"Put the configuration in place.*\n(?:.*\n)?changed", said), "the play changed nothing"
        # A reload closes the connections that wait for their client's next request; clients open new ones.
        print(f"{clients.codes}, {clients.reconnected} of them on a new connection")
        assert set(clients.codes) == {"200"}
    assert host.check_output(started) == before, "nginx was restarted"
