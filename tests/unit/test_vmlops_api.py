"""The order in which a rollout restarts instances, forward and back, on a machine made of a folder and a simulated systemd."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from roles.api.files import vmlops_api
from roles.api.files.vmlops_api import Failure, Instance, activate, exclusive, rollback

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
        assert seconds == vmlops_api.SETTLE_SECONDS
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


def test_two_calls_at_once_are_refused(machine: Machine) -> None:
    with exclusive(), pytest.raises(Failure, match="another vmlops-api"), exclusive():
        pass
