"""A lab machine from nothing to nothing: what it changes on the host is taken back, and what a killed run left is healed.

Runs the real role with a machine of its own (about half a minute once the base tree is there).
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.lab.machine import Lab

SUDO = [] if os.geteuid() == 0 else ["sudo"]


def output(*command: str) -> list[str]:
    return subprocess.run([*SUDO, *command], check=True, capture_output=True, text=True).stdout.splitlines()


def host_state(name: str) -> dict[str, Any]:
    """What machines of the network ``name`` could leave behind; those of other clones come and go meanwhile."""
    places = {
        "mounts": output("findmnt", "-rno", "TARGET"),
        "devices": output("ip", "-br", "link"),
        "tables": output("nft", "list", "tables"),
        "processes": output("ps", "-eo", "args"),
        "cgroups": output("find", "/sys/fs/cgroup", "-maxdepth", "2"),
        "runtime": output("sh", "-c", "[ ! -e /run/vmlops ] || find /run/vmlops"),
        "trees": output("find", "/var/lib/vmlops", "-maxdepth", "1"),
    }
    found = {place: sorted(line for line in lines if name in line) for place, lines in places.items()}
    machines = any(line.startswith("vml-") for line in places["devices"])
    # The last machine of the host puts it back.
    return found if machines else found | {"forwarding": output("sysctl", "-n", "net.ipv4.ip_forward")}


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """A started machine, and in ``lab.before`` what the host was like without it."""
    lab = Lab(tmp_path_factory.mktemp("lab") / "control")
    lab.bring("prepared")  # the base tree stays on purpose
    lab.before = host_state(lab.name)
    lab.bring("started")
    yield lab
    lab.bring("absent")


def supervisor(lab: Lab) -> str:
    pids = output("pgrep", "-f", f"^systemd-nspawn .*--machine={lab.name}-1 ")
    assert len(pids) == 1, pids
    return pids[0]


def test_started_machine_is_left_alone(lab: Lab) -> None:
    assert lab.ssh("cat /proc/1/comm") == "systemd"
    assert "changed=0" in lab.bring("started")


def test_stopped_machine_leaves_its_tree_only_and_comes_back_as_it_was(lab: Lab) -> None:
    lab.ssh("echo kept | sudo tee /var/lib/kept")
    lab.bring("stopped")
    assert host_state(lab.name) == {**lab.before, "trees": [f"/var/lib/vmlops/{lab.name}-1"]}
    lab.bring("started")
    assert lab.ssh("cat /var/lib/kept") == "kept"


def half_made_tree(lab: Lab) -> None:
    output("mkdir", "-p", f"/var/lib/vmlops/{lab.name}-1/root.part/etc")
    output("mv", f"/var/lib/vmlops/{lab.name}-1/root", f"/var/lib/vmlops/{lab.name}-1/gone")
    killed_supervisor(lab)


def killed_supervisor(lab: Lab) -> None:
    output("kill", "-KILL", supervisor(lab))


def lost_address(lab: Lab) -> None:
    output("ip", "addr", "flush", "dev", lab.name)


def unplugged_device(lab: Lab) -> None:
    output("ip", "link", "set", f"{lab.name}-1", "nomaster")


def lost_table(lab: Lab) -> None:
    output("nft", "delete", "table", "ip", lab.name)


@pytest.mark.parametrize("damage", [half_made_tree, killed_supervisor, lost_address, unplugged_device, lost_table])
def test_what_a_killed_run_left_behind_is_healed(lab: Lab, damage: Callable[[Lab], None]) -> None:
    damage(lab)
    lab.bring("started")
    assert lab.ssh("cat /proc/1/comm") == "systemd"


def test_removed_machine_leaves_nothing(lab: Lab) -> None:
    lab.bring("absent")
    assert host_state(lab.name) == lab.before
    assert not lab.control.exists()
