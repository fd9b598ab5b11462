"""Releases: a new one replaces the old under load without a failed request, a bad one is refused, the old one comes back."""

from __future__ import annotations

import json
import shlex
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.acceptance.conftest import SENTENCE, Machine

PROBE = "0" * 11
# Run in a release's directory: names its files as they are now, as if it had been made so.
RESEAL = """
import hashlib, json, pathlib
about = json.loads(pathlib.Path("release.json").read_text())
made = ("venv/bin/", "venv/include/", "venv/lib64", "venv/pyvenv.cfg", "release.json", "INSTALLED")
files = [str(path) for path in pathlib.Path(".").rglob("*") if path.is_file() and "__pycache__" not in path.parts]
kept = [name for name in sorted(files) if not name.startswith(made)]
about["files"] = {name: hashlib.sha256(pathlib.Path(name).read_bytes()).hexdigest() for name in kept}
pathlib.Path("release.json").write_text(json.dumps(about))
"""


@pytest.fixture
def releases(host: Any, machine: Machine) -> Iterator[Callable[[str, str], str]]:
    """Return a function that copies the running release under another id and changes it with a shell command.

    Afterwards the first release serves again and the copies are gone.
    """
    original = host.check_output("basename $(readlink /opt/vmlops/v1)")
    copies = []

    def copy(digit: str, change: str) -> str:
        identity = PROBE + digit
        copies.append(identity)
        tree = f"/opt/vmlops/releases/{identity}"
        host.check_output(f"rm -rf {tree} && cp -a /opt/vmlops/releases/{original} {tree} && rm -f {tree}/INSTALLED")
        host.check_output(f"cd {tree} && {change} && python3 -c {shlex.quote(RESEAL)}")
        return identity

    yield copy
    host.check_output(f"vmlops-api activate v1 {original}")
    host.check_output("rm -f /opt/vmlops/v1.previous")
    for identity in copies:
        host.check_output(f"rm -rf /opt/vmlops/releases/{identity}")


@contextmanager
def load(machine: Machine, seconds_between: float = 0.12) -> Iterator[Counter[int]]:
    """Send predictions at under 10 a second while the block runs; yields the count of answers by status."""
    codes: Counter[int] = Counter()
    over = threading.Event()

    def send() -> None:
        with machine.client() as client:
            while not over.wait(seconds_between):
                codes[client.post("/predict", json=SENTENCE).status_code] += 1

    sender = threading.Thread(target=send)
    sender.start()
    try:
        yield codes
    finally:
        over.set()
        sender.join()


def running(host: Any, version: str) -> set[str]:
    """The releases that the instances of a version run from."""
    lines = host.check_output("vmlops-api status").splitlines()
    return {line.split()[-2] for line in lines if line.startswith(f"{version}@")}


def test_new_release_replaces_the_old_one_without_a_failed_request(
    host: Any, machine: Machine, rested: None, releases: Callable[[str, str], str]
) -> None:
    (original,) = running(host, "v1")
    identity = releases("1", "touch app/another-release")
    host.check_output(f"vmlops-api install {identity}")
    with load(machine) as codes:
        said = host.check_output(f"vmlops-api activate v1 {identity}")
    assert set(codes) == {200}, codes
    assert codes[200] > 3, codes
    assert running(host, "v1") == {identity}, said
    assert running(host, "v2") == {original}, "v2 must keep the release that it had"
    assert host.check_output(f"vmlops-api activate v1 {identity}") == "", "a second time changes nothing"

    with load(machine) as codes:
        host.check_output("vmlops-api rollback v1")
    assert set(codes) == {200}, codes
    assert running(host, "v1") == {original}


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        ("truncate -s -1 $(ls model/*.npy | head -n 1)", "refused"),
        ('sed -i \'s/"files"/"flies"/\' model/manifest.json', "refused"),
        ("rm model/manifest.json", "refused"),
        ("sed -i 's/3\\./2./' release.json", "is for Python 2."),
    ],
)
def test_damaged_release_is_refused_before_anything_restarts(
    host: Any, machine: Machine, releases: Callable[[str, str], str], damage: str, reason: str
) -> None:
    before = running(host, "v1")
    pids = host.check_output("systemctl show --value -p MainPID 'vmlops-api-v1@*'")
    identity = releases("2", damage)
    result = host.run(f"vmlops-api install {identity}")
    assert result.rc == 1, result
    assert reason in result.stderr, result.stderr
    assert len(result.stderr.splitlines()) == 1, result.stderr
    assert "is not installed here" in host.run(f"vmlops-api activate v1 {identity}").stderr
    assert running(host, "v1") == before
    assert host.check_output("systemctl show --value -p MainPID 'vmlops-api-v1@*'") == pids


def test_release_that_was_altered_is_refused(host: Any, releases: Callable[[str, str], str]) -> None:
    identity = releases("4", "true")
    host.check_output(f"echo >> /opt/vmlops/releases/{identity}/app/main.py")
    result = host.run(f"vmlops-api install {identity}")
    assert result.rc == 1, result
    assert "is damaged or was altered: app/main.py" in result.stderr, result.stderr
    assert "is not installed here" in host.run(f"vmlops-api activate v1 {identity}").stderr


@pytest.mark.parametrize("instance", ["v1@8001", "v1@8003"], ids=["the first", "the last"])
def test_release_that_does_not_start_goes_back_and_never_stops_serving(
    host: Any, machine: Machine, rested: None, releases: Callable[[str, str], str], instance: str
) -> None:
    before = running(host, "v1")
    # The check passes and an instance does not start: what the check cannot see.
    broken = (
        f"if __import__('os').environ.get('VMLOPS_INSTANCE') == '{instance}': raise SystemExit('broken on purpose')"
    )
    identity = releases("3", f'touch INSTALLED && echo "{broken}" >> app/main.py')
    with load(machine) as codes:
        result = host.run(f"vmlops-api --timeout 5 activate v1 {identity}")
    assert result.rc == 1, result
    assert "went back to" in result.stderr, result.stderr
    assert "broken on purpose" in result.stderr, result.stderr
    assert set(codes) == {200}, codes
    assert running(host, "v1") == before
    assert host.check_output("systemctl --failed --no-legend") == ""


def test_version_endpoint_names_the_release(host: Any) -> None:
    (release,) = running(host, "v1")
    answer = json.loads(host.check_output("curl -sf http://127.0.0.1:8001/version"))
    assert release in answer.values(), answer
