"""Releases: a new one replaces the old under load without a failed request, a bad one is refused, the old one comes back."""

from __future__ import annotations

import json
import shlex
import subprocess
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest

from tests.acceptance.conftest import ROLLOUTS, SENTENCE, Machine
from tests.paths import ROOT

PROBE = "0" * 11
# Run in a release's directory: gives it the directory's name, and names its files as they are now, as if it had been made so.
RESEAL = """
import hashlib, json, pathlib
about = json.loads(pathlib.Path("release.json").read_text())
about["id"] = pathlib.Path.cwd().name
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
def load(machine: Machine, what: str, seconds_between: float = 0.12) -> Iterator[Counter[str]]:
    """Send predictions at under 10 a second while the block runs, and ask as often who answers.

    Yields counts of the predictions by status or error, and by the release that answered. They are shown after the tests.
    """
    codes: Counter[str] = Counter()
    releases: Counter[str] = Counter()
    over = threading.Event()

    def send() -> None:
        with machine.client() as client:
            while not over.wait(seconds_between):
                try:
                    codes[str(client.post("/predict", json=SENTENCE).status_code)] += 1
                    answer = client.get("/version")
                    releases[answer.json()["release"] if answer.status_code == 200 else str(answer.status_code)] += 1
                except httpx.HTTPError as error:
                    codes[type(error).__name__] += 1

    sender = threading.Thread(target=send)
    sender.start()
    try:
        yield codes
    finally:
        over.set()
        sender.join()
        ROLLOUTS.append((what, codes, releases))


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
    with load(machine, "deploy") as codes:
        said = host.check_output(f"vmlops-api activate v1 {identity}")
    assert set(codes) == {"200"}, codes
    assert codes["200"] > 3, codes
    assert running(host, "v1") == {identity}, said
    assert running(host, "v2") == {original}, "v2 must keep the release that it had"
    assert host.check_output(f"vmlops-api activate v1 {identity}") == "", "a second time changes nothing"

    with load(machine, "rollback") as codes:
        host.check_output("vmlops-api rollback v1")
    assert set(codes) == {"200"}, codes
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
    assert not host.file(f"/opt/vmlops/releases/{identity}").exists, "what was refused takes no room"
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
    with load(machine, f"deploy that fails on {instance}") as codes:
        result = host.run(f"vmlops-api --timeout 5 activate v1 {identity}")
    assert result.rc == 1, result
    assert "went back to" in result.stderr, result.stderr
    assert "broken on purpose" in result.stderr, result.stderr
    assert set(codes) == {"200"}, codes
    assert running(host, "v1") == before
    assert host.check_output("systemctl --failed --no-legend") == ""


def test_version_endpoint_names_the_release(host: Any) -> None:
    (release,) = running(host, "v1")
    answer = json.loads(host.check_output("curl -sf http://127.0.0.1:8001/version"))
    assert release in answer.values(), answer


def test_reloads_lose_no_request(host: Any, machine: Machine, rested: None) -> None:
    with load(machine, "reload of every replica and of nginx") as codes:
        for name in machine.instances:
            host.check_output(f"systemctl reload vmlops-api-{name}")
        host.check_output("systemctl reload nginx vmlops-verifier")
        for name in machine.instances:
            port = name.partition("@")[2]
            host.check_output(f"until curl -sf -o /dev/null http://127.0.0.1:{port}/ready; do sleep 0.05; done")
    assert set(codes) == {"200"}, codes


@pytest.mark.native
def test_replicas_come_and_go_without_a_failed_request(host: Any, machine: Machine, rested: None) -> None:
    """Three replicas of v1, five, and three again: a longer list, and what of site.yml depends on it for clients."""
    three = sorted(name for name in machine.instances if name.startswith("v1"))

    def provision(count: int) -> None:
        instances = [{"version": "v1", "port": 8001 + i} for i in range(count)] + [{"version": "v2", "port": 8101}]
        settings = json.dumps({"vmlops_instances": instances})
        tags = "firewall,api,gateway"
        command = ["ansible-playbook", "-i", str(machine.inventory), "site.yml", "--tags", tags, "-e", settings]
        done = subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout[-5000:] + done.stderr

    def present() -> list[str]:
        lines = host.check_output("vmlops-api status").splitlines()
        return sorted(line.split()[0] for line in lines if line.startswith("v1") and " ready " in line)

    assert present() == three == ["v1@8001", "v1@8002", "v1@8003"]
    with load(machine, "3 → 5 → 3 replicas") as codes:
        provision(5)
        assert present() == [*three, "v1@8004", "v1@8005"]
        metrics = "curl -s http://127.0.0.1:8005/metrics | grep -q '^vmlops_requests_total.*predict'"
        asked = host.run(f'timeout 20 sh -c "until {metrics}; do sleep 0.1; done"')
        provision(3)
        assert present() == three
    assert asked.rc == 0, "the gateway does not ask the new ones"
    assert set(codes) == {"200"}, codes


def test_a_release_that_none_of_the_signers_signed_is_refused(host: Any, releases: Callable[[str, str], str]) -> None:
    """With the signers' file that api_release_signers makes."""
    scratch = host.check_output("mktemp -d")
    key, other = f"{scratch}/key", f"{scratch}/other"
    generate = "ssh-keygen -q -t ed25519 -N '' -f"
    sign = "ssh-keygen -q -Y sign -n vmlops-release -f {0} /opt/vmlops/releases/{1}/release.json"
    install = "vmlops-api install {0}"
    assert not host.file("/etc/vmlops/release_signers").exists
    try:
        host.check_output(f"{generate} {other} && {generate} {key}")
        host.check_output(f"echo ann@example.org $(cut -d' ' -f1,2 {key}.pub) > /etc/vmlops/release_signers")
        identity = releases("5", "true")
        said = host.run(install.format(identity)).stderr
        assert "is not signed, and /etc/vmlops/release_signers names who has to" in said
        identity = releases("5", "true")  # what was refused is gone
        host.check_output(sign.format(other, identity))
        assert "the signature is not good for /etc/vmlops/release_signers" in host.run(install.format(identity)).stderr
        identity = releases("5", "true")
        host.check_output(sign.format(key, identity))
        assert host.check_output(install.format(identity)).startswith("installed ")
        listed = host.check_output("vmlops-api list")
        assert "signed by ED25519 key SHA256:" in listed, listed
    finally:
        host.check_output(f"rm -rf {scratch} /etc/vmlops/release_signers")
