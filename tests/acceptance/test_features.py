"""tests/run_tests.sh, which anybody with curl can run against a system."""

from __future__ import annotations

import os
import subprocess

from tests.acceptance.conftest import Machine
from tests.paths import ROOT


def run(machine: Machine, **changes: str) -> subprocess.CompletedProcess[str]:
    host, port = machine.http
    variables = {
        "HTTPS_URL": machine.url,
        "HTTP_URL": f"http://{host}:{port}",
        "CACERT": str(machine.ca_file),
        "CREDENTIALS": ":".join(machine.credentials),
    }
    command = ["tests/run_tests.sh"]
    found = subprocess.run(
        command, cwd=ROOT, env={**os.environ, **variables, **changes}, capture_output=True, text=True, check=False
    )
    print(found.stdout, found.stderr)
    return found


def test_every_key_feature(machine: Machine, rested: None) -> None:
    found = run(machine)
    assert found.returncode == 0
    assert found.stdout.count("ok ") == len(found.stdout.splitlines()) >= 14


def test_it_fails_where_a_feature_does(machine: Machine) -> None:
    found = run(machine, CREDENTIALS="admin:wrong")
    assert found.returncode == 1
    assert "FAILED  a prediction" in found.stdout
    assert "ok      a wrong password" in found.stdout
