"""The module that makes lab machines: what it refuses and what it derives. Machines themselves are tests/lab's."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest

from roles.lab_machine.library import lab_network
from roles.lab_machine.library.lab_network import LabError, network, processes, put


def parameters(**changes: Any) -> dict[str, Any]:
    machine = {"suite": "bookworm", "image": "", "forwarded_ports": None}
    machines = [{"name": f"api{n}", "number": n, **machine} for n in (1, 2)]
    return {
        "network": "vml-0a1b2c3d",
        "subnet": "10.213.7.16/28",
        "machines": machines,
        "components": "main",
        "packages": ["sudo"],
        "user": "ops",
        "control_dir": "/control",
        "trees_dir": "/trees",
        "cache_dir": "/cache",
        **changes,
    }


def test_every_machine_has_an_address_a_device_and_a_tree_of_its_own() -> None:
    lab = network(parameters())
    assert str(lab.host_address) == "10.213.7.17"
    assert [str(machine.address) for machine in lab.machines] == ["10.213.7.18", "10.213.7.19"]
    assert [machine.unit for machine in lab.machines] == ["vml-0a1b2c3d-1", "vml-0a1b2c3d-2"]
    assert [str(machine.root) for machine in lab.machines] == [f"/trees/vml-0a1b2c3d-{n}/root" for n in (1, 2)]
    assert all(len(machine.unit) <= 15 for machine in lab.machines), "a device's name has at most 15 characters"


def test_a_machine_keeps_its_address_while_others_come_and_go() -> None:
    both = network(parameters())
    second = network(parameters(machines=parameters()["machines"][1:]))
    assert second.machines == both.machines[1:]


@pytest.mark.parametrize("number", [0, 13, 300])
def test_number_without_an_address_is_refused(number: int) -> None:
    machine = {**parameters()["machines"][0], "number": number}
    with pytest.raises(LabError, match=f"api1: lab_machine_number {number} .* 1 to 12"):
        network(parameters(machines=[machine]))


def test_number_given_twice_is_refused() -> None:
    machine = parameters()["machines"][0]
    with pytest.raises(LabError, match="same lab_machine_number"):
        network(parameters(machines=[machine, {**machine, "name": "other"}]))


def test_another_recipe_is_another_base_tree() -> None:
    trees = {network(parameters()).machines[0].base.path}
    for change in ({"packages": ["sudo", "less"]}, {"user": "vagrant"}, {"components": "main,universe"}):
        trees.add(network(parameters(**change)).machines[0].base.path)
    machine = {**parameters()["machines"][0], "suite": "trixie"}
    trees.add(network(parameters(machines=[machine])).machines[0].base.path)
    assert len(trees) == 5


def test_machine_of_an_image_needs_no_base_tree_and_gets_no_host_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = tmp_path / "image.tar"
    (tmp_path / "etc").mkdir()
    subprocess.run(["tar", "-C", tmp_path, "-cf", image, "etc"], check=True)
    given = {**parameters()["machines"][0], "image": str(image)}
    lab = network(parameters(machines=[given], trees_dir=str(tmp_path / "trees"), cache_dir=str(tmp_path / "cache")))
    monkeypatch.setattr(lab_network.BaseTree, "make", lambda base: pytest.fail("a base tree was made"))
    lab.prepare(lab.machines)
    assert lab.machines[0].make_tree()
    assert [path.name for path in lab.machines[0].root.rglob("*")] == ["etc"]


def test_name_servers_are_those_that_the_host_asks_and_not_its_own_stub(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lab_network, "UPLINK", tmp_path / "resolv.conf")
    (tmp_path / "resolv.conf").write_text("# one\nnameserver 10.0.0.53\nsearch example.org\nnameserver fd00::53\n")
    assert lab_network.name_servers() == ["10.0.0.53", "fd00::53"]


def test_command_lines_are_compared_by_words_and_not_as_a_pattern(tmp_path: Path) -> None:
    assert processes("python", "--machine=vml-.*") == []
    mine = Path("/proc/self/cmdline").read_bytes().decode().split("\0")
    assert int(Path("/proc/self").readlink().name) in processes(*mine[:2])


def test_a_file_that_is_right_is_left_alone(tmp_path: Path) -> None:
    file = tmp_path / "hosts"
    assert put(file, "one\n", tmp_path, 0o600)
    inode = file.stat().st_ino
    assert not put(file, "one\n", tmp_path, 0o600)
    assert file.stat().st_ino == inode
    assert put(file, "two\n", tmp_path, 0o600)
    assert (file.read_text(), file.stat().st_mode & 0o777) == ("two\n", 0o600)


def test_what_failed_is_said_with_the_programs_own_words() -> None:
    with pytest.raises(LabError, match=r"sh failed: E: no such suite"):
        lab_network.run("sh", "-c", "echo noise >&2; echo 'E: no such suite' >&2; exit 1")
