"""The curls of the README do what the README says."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from typing import Any

import pytest

from tests.acceptance.conftest import Machine
from tests.readme import commands


@pytest.mark.parametrize("command", commands("curl"))
def test_curl_gets_a_prediction(command: str, machine: Machine, eventually: Callable[..., Any]) -> None:
    # The reader's machine is published on localhost; the one under test has the same certificate and an address.
    command = command.replace("certs/ca.crt", str(machine.ca_file))
    command += f" --silent --show-error --fail --connect-to localhost:443:{':'.join(map(str, machine.https))}"

    def attempt() -> str:
        return subprocess.run(command, shell=True, check=False, capture_output=True, text=True).stdout

    answer = json.loads(eventually(attempt, f"an answer to {command}", 5))
    assert answer["prediction"], answer
    assert ("prediction_proba_dict" in answer) == ("X-Experiment-Group: debug" in command), answer
