"""What `make start-project` says when it is done, and `make status` of what runs."""

from __future__ import annotations

import http.server
import shlex
import sys
import threading
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path

import pytest

from host import machine
from host.commands import Problem
from tests.ports import free_port


class Refusing(http.server.BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        self.send_response(503)
        self.end_headers()
        self.wfile.write(b"no replica is left")

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def refusing() -> Iterator[str]:
    """The address of a system that answers every prediction with 503."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Refusing)
    threading.Thread(target=server.serve_forever).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_a_refused_prediction_fails_with_what_was_answered(refusing: str) -> None:
    command = machine.predict(at=refusing, ca="/dev/null")
    with pytest.raises(Problem, match=r"does not answer a prediction: .*503.*no replica is left; see make status"):
        machine.first_prediction(command)


def test_a_system_that_is_not_there_fails() -> None:
    command = machine.predict(at=f"http://127.0.0.1:{free_port()}", ca="/dev/null")
    with pytest.raises(Problem, match=r"does not answer a prediction: curl: \(7\)"):
        machine.first_prediction(command)


def test_an_answer_is_returned() -> None:
    assert machine.first_prediction([sys.executable, "-c", "print('love')"]) == "love\n"


@pytest.mark.parametrize("unit", ["nginx", "mtail", "prometheus", "grafana-server", "vmlops-api-v1@8001"])
def test_status_names_every_service(unit: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Patterns are of whole names: systemctl adds no suffix to them."""
    monkeypatch.setattr(machine, "ssh_config", lambda: tmp_path / "ssh_config")
    patterns = shlex.split(machine.status()[-1].rpartition("--plain")[2])
    assert any(fnmatch(f"{unit}.service", pattern) for pattern in patterns), patterns
