"""A rollout whose control process is killed: nothing serves half a release, no request is lost, and the next run completes it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from roles.api.library import vmlops_release
from tests.faults.conftest import Start
from tests.paths import ROOT

INVENTORY = os.environ.get("VMLOPS_INVENTORY", "inventory/lab")
TREE = "/opt/vmlops/releases"
# What is true on the machine at the moment at which the control process dies; {id} is the release.
MOMENTS = {
    "while it copies": f"test -d {TREE}/{{id}} || ls /root/.ansible/tmp/*/source",
    "while it installs": "pgrep -f '[v]mlops-api install {id}'",
    "when it switches": "test $(basename $(readlink /opt/vmlops/v1)) = {id}",
    "between two replicas": "vmlops-api status | grep '^v1.* ready .*{id}'",
}


@pytest.fixture(scope="module")
def release(host: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], tuple[str, Path]]]:
    """Return a function that makes a release with a file more than the repository's: id and archive."""
    about = json.loads(host.check_output(f"cat {TREE}/$(basename $(readlink /opt/vmlops/v1))/release.json"))
    target = {name: about[name] for name in ("python_version", "architecture")}
    before = host.check_output("basename $(readlink /opt/vmlops/v1)")
    project = tmp_path_factory.mktemp("project")
    for name in ("app", "requirements", "model/artifacts"):
        shutil.copytree(ROOT / name, project / name)
    for name in ("host", "release"):
        (project / name).symlink_to(ROOT / name)

    def make(content: str) -> tuple[str, Path]:
        (project / "app/interrupted.txt").write_text(content)
        _, identity, path = vmlops_release.make_release(project, project / "out", target, False)
        return identity, path

    yield make
    for version in ("v1", "v2"):
        host.check_output(f"vmlops-api activate {version} {before}")


def deploy(archive: Path) -> subprocess.Popen[str]:
    program = str(Path(sys.executable).with_name("ansible-playbook"))
    command = [program, "-i", INVENTORY, "playbooks/deploy.yml", "-e", json.dumps({"api_release_file": str(archive)})]
    return subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )


def running(host: Any) -> dict[str, str]:
    """The release that each instance runs from."""
    lines = host.check_output("vmlops-api status").splitlines()
    return {line.split()[0]: line.split()[-2] for line in lines}


@pytest.mark.parametrize("moment", MOMENTS)
def test_the_next_run_completes_it(
    host: Any, load: Start, release: Callable[[str], tuple[str, Path]], moment: str, tmp_path: Path
) -> None:
    before = set(running(host).values())
    identity, archive = release(f"{moment} {tmp_path}")
    assert identity not in before
    over = f"/tmp/over-{identity}"
    with load(seconds=240, until=over) as clients:
        first = deploy(archive)
        condition = MOMENTS[moment].format(id=identity)
        host.check_output(f'timeout 120 sh -c "until {condition}; do sleep 0.02; done" >/dev/null 2>&1')
        os.killpg(first.pid, signal.SIGKILL)
        said = first.communicate()[0]
        interrupted = running(host)
        print(f"killed {moment}: {interrupted}\n{said[-600:]}")
        assert set(interrupted.values()) <= before | {identity}, interrupted
        for found in set(interrupted.values()):
            host.check_output(f"test -e {TREE}/{found}/INSTALLED")

        second = deploy(archive)
        said = second.communicate()[0]
        host.check_output(f"touch {over}")
    host.check_output(f"rm {over}")
    assert second.returncode == 0, said[-3000:]
    assert set(running(host).values()) == {identity}, said[-3000:]
    print(f"killed {moment}: {sum(clients.codes.values())} predictions: {clients.codes}")
    assert set(clients.codes) == {"200"}
