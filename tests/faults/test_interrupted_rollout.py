"""A rollout whose control process is killed: nothing serves half a release, no request is lost, and the next run completes it."""

from __future__ import annotations

import os
import shlex
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.faults.conftest import Start
from tests.faults.rollouts import TREES, Release, deploy, releases, running, start_deploy

# Which versions are rolled out, and what is true on the machine at the moment at which the control process is killed; {id} is the
# release.
MOMENTS = {
    "while it copies": (["v2"], "find /root /home -path '*/.ansible/tmp/*' -size +1M | grep ."),
    "while it installs": (["v2"], "pgrep -f '[v]mlops-api install {id}'"),
    "when it switches v2": (["v2"], "test $(basename $(readlink /opt/vmlops/v2)) = {id}"),
    "between two replicas of v1": (["v1"], "vmlops-api status | grep '^v1.* ready .*{id}'"),
}


@pytest.fixture
def release(host: Any, tmp_path: Path) -> Iterator[Release]:
    """A release that has a file more than the one that runs; that one serves again afterwards."""
    with releases(host, tmp_path) as make:
        yield make({"app/interrupted.txt": str(tmp_path)})


def test_a_rollout_that_is_killed_again_and_again_is_completed_by_the_next_run(
    host: Any, load: Start, release: Release
) -> None:
    before = running(host)
    identity, archive = release
    over = f"/tmp/over-{identity}"
    with load(clients=10, seconds=900, until=over) as clients:
        try:
            for moment, (versions, condition) in MOMENTS.items():
                run = start_deploy(archive, versions)
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
            status, said = deploy(archive, ["v1", "v2"])
        finally:
            host.check_output(f"touch {over}")
    host.check_output(f"rm {over}")
    assert status == 0, said[-3000:]
    assert set(running(host).values()) == {identity}, said[-3000:]
    print(f"{sum(clients.codes.values())} predictions: {clients.codes}")
    assert set(clients.codes) == {"200"}
