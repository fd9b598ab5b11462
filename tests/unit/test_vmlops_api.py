"""The order in which a rollout restarts instances, forward and back, on a machine made of a folder and a simulated systemd."""

from __future__ import annotations

import hashlib
import http.server
import json
import os
import shlex
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from roles.api.files import vmlops_api
from roles.api.files.vmlops_api import Failure, Instance, activate, exclusive, rollback
from tests.paths import ROOT

OLD, NEW = "aaaaaaaaaaaa", "bbbbbbbbbbbb"


class Machine:
    """Instances of v1 and what happens to them, in order, in ``log``.

    Attributes:
        runs: release of each running instance.
        fails: instances that do not get ready, with the release that they fail with.
    """

    def __init__(self, home: Path) -> None:
        self.home = home
        self.runs = {f"v1@800{number}": OLD for number in (1, 2, 3)}
        self.fails: set[tuple[str, str]] = set()
        self.log: list[str] = []

    def restart(self, instance: Instance, timeout: float) -> None:
        release = vmlops_api.active("v1")
        self.runs.pop(instance.name, None)
        self.log.append(f"{instance.name} {release}")
        if (instance.name, release) in self.fails:
            raise Failure(f"{instance.name} was not ready")
        self.runs[instance.name] = release

    def settle(self, seconds: float) -> None:
        assert seconds == 3.2, "fail_timeout, a second that nginx may add, and a little"
        self.log.append("settle")


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    machine = Machine(tmp_path)
    for release in (OLD, NEW):
        tree = tmp_path / "releases" / release
        tree.mkdir(parents=True)
        (tree / vmlops_api.MARK).touch()
    units = tmp_path / "wants"
    units.mkdir()
    for name in machine.runs:
        (units / f"vmlops-api-{name}.service").touch()
    monkeypatch.setattr(vmlops_api, "HOME", tmp_path)
    monkeypatch.setattr(vmlops_api, "RELEASES", tmp_path / "releases")
    monkeypatch.setattr(vmlops_api, "WANTED", units)
    monkeypatch.setattr(vmlops_api, "LOCK", tmp_path / "lock")
    monkeypatch.setattr(vmlops_api, "check", lambda tree: None)
    monkeypatch.setattr("time.sleep", machine.settle)
    monkeypatch.setattr(Instance, "restart", lambda self, timeout: machine.restart(self, timeout))
    monkeypatch.setattr(Instance, "environment", {"FAIL_TIMEOUT_SECONDS": "2"})
    monkeypatch.setattr(Instance, "is_ready", lambda self: self.name in machine.runs)
    monkeypatch.setattr(Instance, "release", property(lambda self: machine.runs.get(self.name, "")))
    monkeypatch.setattr(
        Instance,
        "is_current",
        property(lambda self: machine.runs.get(self.name) == vmlops_api.active("v1")),
    )
    vmlops_api.point(tmp_path / "v1", OLD)
    return machine


def test_forward_waits_after_each_instance(machine: Machine, capsys: Any) -> None:
    activate("v1", NEW, 1)
    assert machine.log == [f"v1@8001 {NEW}", "settle", f"v1@8002 {NEW}", "settle", f"v1@8003 {NEW}", "settle"]
    assert capsys.readouterr().out.splitlines()[-1] == f"v1 went from {OLD} to {NEW}"
    machine.log.clear()
    activate("v1", NEW, 1)
    assert machine.log == [], "a second time changes nothing"


def test_the_way_back_starts_with_what_is_down_and_waits_as_well(machine: Machine) -> None:
    machine.fails = {("v1@8003", NEW)}
    with pytest.raises(Failure, match=f"went back to {OLD}, which serves; {NEW} failed: v1@8003 was not ready"):
        activate("v1", NEW, 1)
    forward = [f"v1@8001 {NEW}", "settle", f"v1@8002 {NEW}", "settle", f"v1@8003 {NEW}"]
    back = [f"v1@8003 {OLD}", "settle", f"v1@8001 {OLD}", "settle", f"v1@8002 {OLD}", "settle"]
    assert machine.log == forward + back
    assert set(machine.runs.values()) == {OLD}
    assert vmlops_api.active("v1") == OLD
    assert vmlops_api.active("v1.previous") == ""


def test_a_way_back_that_fails_stops_and_names_both_reasons(machine: Machine) -> None:
    machine.fails = {("v1@8002", NEW), ("v1@8002", OLD)}
    with pytest.raises(Failure, match=rf"(?s){NEW} failed: .*could not go back to {OLD} everywhere: v1@8002"):
        activate("v1", NEW, 1)
    assert set(machine.runs) == {"v1@8001", "v1@8003"}, "two instances serve: no third was taken down"


def test_rollback_is_a_rollout_of_the_release_before(machine: Machine) -> None:
    activate("v1", NEW, 1)
    rollback("v1", 1)
    assert set(machine.runs.values()) == {OLD}
    assert vmlops_api.active("v1.previous") == NEW


def test_a_release_that_is_not_installed_changes_nothing(machine: Machine) -> None:
    with pytest.raises(Failure, match=f"release cccccccccccc is not installed here; installed are: .*{OLD}"):
        activate("v1", "cccccccccccc", 1)
    assert machine.log == []


@pytest.mark.parametrize("newer", ["", "host.crt", "ca.crt", "vmlops-api-v1@.service"])
def test_an_instance_is_current_until_its_unit_or_its_certificate_is_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, newer: str
) -> None:
    started = time.monotonic() - 60
    for name in ("host.crt", "ca.crt", "vmlops-api-v1@.service"):
        (tmp_path / name).touch()
        moment = time.time() - (30 if name == newer else 90)
        os.utime(tmp_path / name, (moment, moment))
    monkeypatch.setattr(vmlops_api, "HOME", tmp_path)
    monkeypatch.setattr(vmlops_api, "UNITS", tmp_path)
    monkeypatch.setattr(Instance, "release", OLD)
    monkeypatch.setattr(Instance, "environment", {"VMLOPS_TLS_DIR": str(tmp_path)})
    monkeypatch.setattr(Instance, "show", lambda self, prop: str(int(started * 1e6)))
    vmlops_api.point(tmp_path / "v1", OLD)
    assert Instance("v1@8001").is_current is (newer == "")


def test_two_calls_at_once_are_refused(machine: Machine) -> None:
    with exclusive(), pytest.raises(Failure, match="another vmlops-api"), exclusive(patience=0):
        pass


def test_a_call_waits_for_one_that_ends(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    first = exclusive()
    first.__enter__()
    monkeypatch.setattr("time.sleep", lambda _: first.__exit__(None, None, None))
    with exclusive():
        pass


class Replica(http.server.BaseHTTPRequestHandler):
    """Answers /ready with 200."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


def test_a_replica_is_asked_directly_whatever_proxy_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    with http.server.HTTPServer(("127.0.0.1", 0), Replica) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        instance = Instance("v1@8001")
        instance.environment = {"VMLOPS_BIND": f"127.0.0.1:{server.server_port}"}
        assert instance.is_ready()
        server.shutdown()


def test_status_ends_quietly_when_its_reader_has_gone(tmp_path: Path) -> None:
    """As with `vmlops-api status | head -1`: more lines than a pipe holds, to a reader that takes one."""
    program = f"""
import sys
sys.path.insert(0, {str(ROOT)!r})
from roles.api.files import vmlops_api
vmlops_api.status = lambda: [vmlops_api.say("x" * 1000) for _ in range(1000)]
sys.argv = ["vmlops-api", "status"]
sys.exit(vmlops_api.main())
"""
    (tmp_path / "status.py").write_text(program)
    command = f"{shlex.quote(sys.executable)} {tmp_path}/status.py | head -1"
    result = subprocess.run(command, shell=True, check=True, capture_output=True, text=True)
    assert (result.stdout, result.stderr) == ("x" * 1000 + "\n", "")


def test_a_release_that_was_left_unreadable_is_made_readable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An interrupted install under umask 077 must not keep the next one from succeeding."""
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    tree = tmp_path / "releases" / NEW
    (tree / "app").mkdir(parents=True)
    (tree / "venv" / "lib").mkdir(parents=True)
    (tree / "app" / "main.py").write_text("app = 1\n")
    files = {"app/main.py": hashlib.sha256(b"app = 1\n").hexdigest()}
    (tree / "release.json").write_text(json.dumps({"python_version": python, "files": files}))
    for path in [tree, *tree.rglob("*")]:
        path.chmod(0o700 if path.is_dir() else 0o600)
    monkeypatch.setattr(vmlops_api, "RELEASES", tmp_path / "releases")
    seen: dict[str, int] = {}
    monkeypatch.setattr(
        vmlops_api, "check", lambda tree: seen.update({str(p): p.stat().st_mode for p in [tree, *tree.rglob("*")]})
    )
    vmlops_api.install(NEW)
    unreadable = [path for path, mode in seen.items() if not mode & 0o004 or (stat.S_ISDIR(mode) and not mode & 0o001)]
    assert seen
    assert not unreadable
    assert (tree / vmlops_api.MARK).exists()


def test_prune_removes_what_a_run_left_half_copied_but_not_what_one_copies_now(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    trees = machine.home / "releases"
    for name in ("cccccccccccc", "lost+found"):
        (trees / name).mkdir()
    vmlops_api.prune(3)
    assert (trees / "cccccccccccc").exists()
    now = time.time()
    monkeypatch.setattr("time.time", lambda: now + vmlops_api.ROLLOUT_SECONDS + 60)
    (trees / OLD / vmlops_api.MARK).unlink()  # v1 points at it
    vmlops_api.prune(3)
    assert sorted(path.name for path in trees.iterdir()) == [OLD, NEW, "lost+found"]
    assert capsys.readouterr().out == "removed cccccccccccc\n"


@pytest.mark.parametrize("served", [False, True], ids=["a new one", "the one that serves"])
def test_a_refused_release_is_removed_unless_it_serves(machine: Machine, served: bool) -> None:
    name = OLD if served else "cccccccccccc"
    tree = machine.home / "releases" / name
    tree.mkdir(exist_ok=True)
    (tree / vmlops_api.MARK).unlink(missing_ok=True)
    (tree / "release.json").write_text(json.dumps({"python_version": "3.11", "files": {"app/main.py": "0"}}))
    with pytest.raises(Failure, match=r"damaged or was altered: app/main\.py: missing"):
        vmlops_api.install(name)
    assert tree.exists() is served
