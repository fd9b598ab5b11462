"""A rollout whose control process is killed: nothing serves half a release, no request is lost, and the next run completes it."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from roles.api.library import vmlops_release
from tests.faults.conftest import Start
from tests.paths import ROOT

INVENTORY = os.environ.get("VMLOPS_INVENTORY", "inventory/lab")
TREES = "/opt/vmlops/releases"
# Which versions are rolled out, and what is true on the machine at the moment at which the control process is killed; {id} is the
# release.
MOMENTS = {
    "while it copies": (["v2"], "find /root /home -path '*/.ansible/tmp/*' -size +1M | grep ."),
    "while it installs": (["v2"], "pgrep -f '[v]mlops-api install {id}'"),
    "when it switches v2": (["v2"], "test $(basename $(readlink /opt/vmlops/v2)) = {id}"),
    "between two replicas of v1": (["v1"], "vmlops-api status | grep '^v1.* ready .*{id}'"),
}


@pytest.fixture
def release(host: Any, tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """Id and archive of a release that has a file more than the one that runs; that one serves again afterwards."""
    before = host.check_output("basename $(readlink /opt/vmlops/v1)")
    about = json.loads(host.check_output(f"cat {TREES}/{before}/release.json"))
    target = {name: about[name] for name in ("python_version", "architecture")}
    for name in ("app", "requirements", "model/artifacts"):
        shutil.copytree(ROOT / name, tmp_path / name)
    for name in ("host", "release"):
        (tmp_path / name).symlink_to(ROOT / name)
    (tmp_path / "app/interrupted.txt").write_text(str(tmp_path))
    _, identity, path = vmlops_release.make_release(tmp_path, tmp_path / "out", target, False)
    yield identity, path
    for version in ("v1", "v2"):
        host.check_output(f"vmlops-api activate {version} {before}")


def deploy(archive: Path, versions: list[str]) -> subprocess.Popen[str]:
    program = str(Path(sys.executable).with_name("ansible-playbook"))
    settings = json.dumps({"api_release_file": str(archive), "api_deploy_versions": versions})
    command = [program, "-i", INVENTORY, "playbooks/deploy.yml", "-e", settings]
    return subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )


def running(host: Any) -> dict[str, str]:
    """The release that each instance runs from."""
    lines = host.check_output("vmlops-api status").splitlines()
    return {line.split()[0]: line.split()[-2] for line in lines}


def test_a_rollout_that_is_killed_again_and_again_is_completed_by_the_next_run(
    host: Any, load: Start, release: tuple[str, Path]
) -> None:
    before = running(host)
    identity, archive = release
    over = f"/tmp/over-{identity}"
    with load(clients=10, seconds=900, until=over) as clients:
        try:
            for moment, (versions, condition) in MOMENTS.items():
                run = deploy(archive, versions)
                wait = f"until {condition.format(id=identity)}; do sleep 0.02; done"
                seen = host.run(f"timeout 60 sh -c {shlex.quote(wait)} >/dev/null 2>&1")
                ended = run.poll() is not None
                if not ended:
                    os.killpg(run.pid, signal.SIGKILL)
                said = run.communicate()[0]
                now = running(host)
                print(f"killed {moment}: {now}")
                assert seen.rc == 0, f"not seen: {moment}; {said[-3000:]}"
                assert not ended, f"it ended before it was killed {moment}: {said[-3000:]}"
                assert set(now.values()) <= {*before.values(), identity}, now
                for found in set(now.values()):
                    assert host.file(f"{TREES}/{found}/INSTALLED").exists, (
                        f"{found} is half a release and serves: {now}"
                    )
                if moment in ("while it copies", "while it installs"):
                    assert now == before
                if moment == "between two replicas of v1":
                    assert len({found for name, found in now.items() if name.startswith("v1")}) == 2, now
            last = deploy(archive, ["v1", "v2"])
            said = last.communicate()[0]
        finally:
            host.check_output(f"touch {over}")
    host.check_output(f"rm {over}")
    assert last.returncode == 0, said[-3000:]
    assert set(running(host).values()) == {identity}, said[-3000:]
    print(f"{sum(clients.codes.values())} predictions: {clients.codes}")
    assert set(clients.codes) == {"200"}
