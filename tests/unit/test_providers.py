"""Where `make start-project` runs the system, and why; what is remembered of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from host import providers
from host.commands import ROOT, Problem


def have(monkeypatch: pytest.MonkeyPatch, *commands: str, plugin: bool = False, kvm: bool = False) -> None:
    """Let the host have these commands, Vagrant's libvirt plugin, and hardware virtualization that works."""
    monkeypatch.setattr(providers, "find", lambda name: f"/usr/bin/{name}" if name in commands else None)
    monkeypatch.setattr(providers, "output", lambda *words: "vagrant-libvirt (0.11.2, system)\n" if plugin else "")
    monkeypatch.setattr(providers, "kvm_works", lambda: kvm)
    monkeypatch.setattr(providers, "has_virtualization_flag", lambda: kvm)


@pytest.mark.parametrize(
    ("commands", "kvm", "plugin", "provider", "reason"),
    [
        ([], True, True, "lab", "Vagrant is not installed"),
        (["vagrant"], True, True, "libvirt", "hardware virtualization works"),
        (["vagrant"], False, True, "lab", "hardware virtualization does not work here"),
        (["vagrant"], True, False, "lab", "neither its libvirt plugin nor VirtualBox"),
        (["vagrant", "VBoxManage"], True, False, "virtualbox", "Vagrant and VirtualBox are installed"),
        (["vagrant", "VBoxManage"], False, False, "lab", "hardware virtualization does not work here"),
    ],
)
def test_choice_and_its_reason(
    commands: list[str],
    kvm: bool,
    plugin: bool,
    provider: str,
    reason: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    have(monkeypatch, *commands, plugin=plugin, kvm=kvm)
    assert providers.choose("", "") == provider
    said = capsys.readouterr().err
    assert said.startswith(f"PROVIDER={provider}: ")
    assert reason in said
    assert said.count("\n") == 1


@pytest.mark.parametrize("provider", providers.PROVIDERS)
def test_what_was_asked_for_or_is_there_is_taken_without_a_word(
    provider: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert providers.choose(provider, "") == providers.choose("", provider) == providers.choose(provider, provider)
    assert capsys.readouterr().err == ""


def test_an_unknown_provider_is_refused() -> None:
    with pytest.raises(Problem, match="PROVIDER=docker is not known"):
        providers.choose("docker", "")


@pytest.mark.parametrize(
    ("asked", "there"),
    [
        ({"PROVIDER": "lab"}, {"PROVIDER": "libvirt", "SUITE": ""}),
        ({"SUITE": "trixie"}, {"PROVIDER": "lab", "SUITE": ""}),
        ({"SUITE": "trixie"}, {"PROVIDER": "lab", "SUITE": "bookworm"}),
    ],
)
def test_another_machine_than_the_one_that_is_there_is_refused(asked: dict[str, str], there: dict[str, str]) -> None:
    with pytest.raises(Problem, match=r"this clone has a machine made with.*: make destroy-project first"):
        providers.check_unchanged(asked, there)
    providers.check_unchanged(asked, {})
    providers.check_unchanged({"SUITE": ""}, there)


def test_kvm_is_believed_only_with_the_processors_flag_and_the_device(tmp_path: Path) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text("processor\t: 0\nflags\t\t: fpu vme svm_lock\n")
    assert not providers.has_virtualization_flag(cpuinfo)
    cpuinfo.write_text("processor\t: 0\nflags\t\t: fpu svm vme\n")
    assert providers.has_virtualization_flag(cpuinfo)
    assert not providers.kvm_works(device=tmp_path / "none")


def test_ports_come_from_the_environment_else_from_the_machine_that_is_there(tmp_path: Path) -> None:
    file = tmp_path / ".lab/settings.json"
    assert providers.settings({}, providers.remembered(file)) == {**providers.PORTS, "PROVIDER": "lab", "SUITE": ""}
    first = providers.settings({"HTTPS_PORT": "8443", "PROVIDER": "libvirt"}, {})
    providers.remember(first, file)
    assert providers.settings({"HTTP_PORT": "8080", "HTTPS_PORT": ""}, providers.remembered(file)) == {
        **providers.PORTS,
        "HTTPS_PORT": "8443",
        "HTTP_PORT": "8080",
        "PROVIDER": "libvirt",
        "SUITE": "",
    }


def test_vagrantfile_and_programs_share_one_list_of_boxes() -> None:
    boxes = json.loads((ROOT / "host/boxes.json").read_text())
    assert set(boxes) == set(providers.PROVIDERS) - {"lab"}
    assert all(len(box) == 2 for box in boxes.values())
    assert "host/boxes.json" in (ROOT / "Vagrantfile").read_text()
