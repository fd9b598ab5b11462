"""What a fleet runs, from what its hosts say; and the lock that lets one rollout at a time change it."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import pytest

from roles.api.files import vmlops_api
from roles.api.files.vmlops_api import Failure, lock, point, record, releases, unlock
from roles.api.filter_plugins.fleet import fleet_releases

OLD, NEW, OTHER = "aaaaaaaaaaaa", "bbbbbbbbbbbb", "cccccccccccc"


def report(
    active: str, recorded: str = "", previous: str = "", since: float = 0.0
) -> dict[str, dict[str, str | float]]:
    return {"v1": {"active": active, "recorded": recorded, "previous": previous, "since": since}}


def test_a_host_that_was_away_does_not_count() -> None:
    reports = [report(OLD, OLD, OTHER, since=1), report(NEW, NEW, OLD, since=2), report(NEW, NEW, OLD, since=2)]
    assert fleet_releases(reports, ["v1"]) == {"v1": {"release": NEW, "previous": OLD}}


def test_a_rollout_that_did_not_reach_the_end_does_not_count() -> None:
    reports = [report(NEW, OLD, OTHER, since=1), report(OLD, OLD, OTHER, since=1)]
    assert fleet_releases(reports, ["v1"]) == {"v1": {"release": OLD, "previous": OTHER}}


def test_hosts_without_a_record_run_what_they_run() -> None:
    assert fleet_releases([report(OLD), {}], ["v1", "v2"]) == {
        "v1": {"release": OLD, "previous": ""},
        "v2": {"release": "", "previous": ""},
    }


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(vmlops_api, "HOME", tmp_path)
    monkeypatch.setattr(vmlops_api, "RELEASES", tmp_path / "releases")
    monkeypatch.setattr(vmlops_api, "ROLLOUT", tmp_path / "rollout.json")
    return tmp_path


def test_record_is_what_a_rollback_goes_back_to(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    point(home / "v1", NEW)
    record("v1", OLD)
    python = home / f"releases/{OLD}/venv/lib/python{sys.version_info.major}.{sys.version_info.minor}"
    python.mkdir(parents=True)
    found = releases()
    assert {name: found["v1"][name] for name in ("active", "recorded", "previous")} == {
        "active": NEW,
        "recorded": NEW,
        "previous": OLD,
    }
    assert float(found["v1"]["since"]) == pytest.approx(time.time(), abs=60)
    assert list(found) == ["v1"]
    capsys.readouterr()
    record("v1", NEW)
    record("v1", OLD)
    assert capsys.readouterr().out == "", "a second time changes nothing, and what runs is never what to go back to"
    python.rename(python.with_name("python3.2"))
    assert releases()["v1"]["previous"] == "", "the machine has another Python by now"
    record("v1", "")
    assert not (home / "v1.previous").is_symlink()
    record("v1", "")
    assert capsys.readouterr().out == "v1: previous is none\n", "a second time changes nothing"


ME, SOMEBODY = ["desk", "100"], ["desk", "200"]


def test_a_second_rollout_is_refused_with_who_and_since_when() -> None:
    lock(SOMEBODY, [])
    with pytest.raises(
        Failure, match=r"process 200 of desk has been rolling out since \d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC"
    ):
        lock(ME, ["100", "200"])
    unlock(ME)
    with pytest.raises(Failure, match="process 200"):
        lock(ME, ["200"])
    unlock(SOMEBODY)
    lock(ME, [])


def test_a_rollout_renews_its_own_lock_and_keeps_its_beginning(home: Path) -> None:
    lock(ME, [])
    first = json.loads((home / "rollout.json").read_text())
    lock(ME, [])
    second = json.loads((home / "rollout.json").read_text())
    assert second["since"] == first["since"]
    assert second["renewed"] >= first["renewed"]


def test_the_lock_of_a_process_that_died_is_taken_over() -> None:
    lock(SOMEBODY, [])
    lock(ME, ["100"])
    with pytest.raises(Failure, match="process 100"):
        lock(SOMEBODY, ["100", "200"])


def test_the_lock_of_another_control_machine_is_taken_over_once_it_is_old(home: Path) -> None:
    lock(["elsewhere", "100"], [])
    with pytest.raises(Failure, match="process 100 of elsewhere"):
        lock(ME, [])
    held = json.loads((home / "rollout.json").read_text())
    held["renewed"] -= vmlops_api.ROLLOUT_SECONDS + 1
    (home / "rollout.json").write_text(json.dumps(held))
    lock(ME, [])
