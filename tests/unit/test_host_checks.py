"""What is wrong with the host or the settings is said in one line, with its remedy, before anything changes."""

from __future__ import annotations

import ast
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from host import __main__ as program
from host import checks, commands, verbs
from host.commands import Problem
from tests.paths import ROOT


def test_taken_port_names_the_variable_that_changes_it() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with pytest.raises(Problem, match=rf"port {port} of this host is taken.*HTTPS_PORT=\d+ make start-project"):
            checks.check_ports({"HTTPS_PORT": str(port)})


@pytest.mark.parametrize("value", ["", "eight", "80a", "-1", "0", "65536", "²"])
def test_port_that_is_no_number(value: str) -> None:
    with pytest.raises(Problem, match=f"HTTPS_PORT={value} is not a port number"):
        checks.check_ports({"HTTPS_PORT": value})


def test_port_given_twice() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = str(server.getsockname()[1])
    with pytest.raises(Problem, match=f"HTTPS_PORT and HTTP_PORT are both {port}"):
        checks.check_ports({"HTTPS_PORT": port, "HTTP_PORT": port})


def test_port_of_this_clones_own_machine_is_not_taken(tmp_path: Path) -> None:
    """The tunnel into a clone's machine names the clone's folder on its command line; ``c++`` is no pattern."""
    listen = (
        "import socket, sys; server = socket.create_server(('127.0.0.1', 0)); "
        "print(server.getsockname()[1], flush=True); sys.stdin.read()"
    )
    clone = tmp_path / "c++"
    command = [sys.executable, "-c", listen, f"{clone}/.lab/lab/ssh_config"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as tunnel:
        assert tunnel.stdout
        assert tunnel.stdin
        port = tunnel.stdout.readline().strip()
        checks.check_ports({"HTTPS_PORT": port}, machine_of=clone)
        for machine_of in (tmp_path / "c", None):  # Without a machine, a tunnel that was left behind is in the way.
            with pytest.raises(Problem, match="is taken"):
                checks.check_ports({"HTTPS_PORT": port}, machine_of=machine_of)
        tunnel.stdin.close()


def test_neither_root_nor_sudo(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(checks, "find", lambda name: None)
    with pytest.raises(Problem, match=r"neither root nor sudo.*install sudo"):
        checks.check_root()


def test_root_needs_no_sudo_and_others_keep_their_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("https_proxy", "http://proxy:3128")
    for name in set(commands.SOURCES) - {"https_proxy"}:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert commands.as_root("apt-get", "update") == ["apt-get", "update"]
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    expected = ["sudo", "env", "https_proxy=http://proxy:3128", "apt-get", "update"]
    assert commands.as_root("apt-get", "update") == expected


def test_old_python(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    ast.parse((ROOT / "host/__main__.py").read_text(), feature_version=(3, 7))
    monkeypatch.setattr(sys, "version_info", (3, 9, 2))
    assert program.main(["check"]) == 1  # type: ignore[no-untyped-call]
    assert "Python 3.11 or newer is needed, this is 3.9.2" in capsys.readouterr().err


def test_short_disk(tmp_path: Path) -> None:
    with pytest.raises(Problem, match=rf"only \d+ MB are free for {tmp_path}, 1000000000 MB are needed: make room"):
        checks.check_space({tmp_path: 1_000_000_000})


def test_forbidden_namespaces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "succeeds", lambda *command: False)
    with pytest.raises(Problem, match="forbids the namespaces"):
        checks.check_namespaces()


@pytest.mark.parametrize("system", [{}, {"ID": "fedora", "PRETTY_NAME": "Fedora Linux 43"}])
def test_an_unsupported_distribution_is_refused(system: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "os_release", lambda: system)
    with pytest.raises(Problem, match=f"this is {system.get('PRETTY_NAME', 'unknown')}: use `vagrant up`"):
        checks.check_distribution()


@pytest.mark.parametrize("folder", ["c++", "ml_v1.2-b", "workspace@2"])
def test_path_that_works(folder: str) -> None:
    checks.check_clone(Path("/home/me") / folder)


@pytest.mark.parametrize(
    "folder", ["my clone", "l'atelier", 'so "so"', "a(b)", "a&b", "modèle", "a;b", "a$b", "a:b", "a,b"]
)
def test_path_that_not_all_tools_bear(folder: str) -> None:
    with pytest.raises(Problem, match=r"the path of this clone contains .*: move the clone"):
        checks.check_clone(Path("/home/me") / folder)


@pytest.mark.parametrize("target", ["build-project", "start-project", "test", "model"])
def test_make_refuses_such_a_path_at_once_in_one_line(target: str, tmp_path: Path) -> None:
    clone = tmp_path / "it's (a) modèle & more"
    for folder in ("host", "requirements"):
        shutil.copytree(ROOT / folder, clone / folder)
    shutil.copy(ROOT / "Makefile", clone)
    (clone / "data").mkdir()
    (clone / "data/tweet_emotions.csv").touch()
    result = subprocess.run(["make", target], cwd=clone, check=False, capture_output=True, text=True)
    said = [line for line in result.stderr.splitlines() if line.startswith("vmlops:")]
    assert result.returncode == 2, result
    assert said
    assert all("the path of this clone contains" in line for line in said), result.stderr
    assert not (clone / ".venv").exists()


def test_a_verb_that_is_unknown(capsys: pytest.CaptureFixture[str]) -> None:
    assert verbs.run_verb(["strat"]) == 2
    assert "start" in capsys.readouterr().err


# What it answers where a password was typed on this terminal a moment ago, and where none is ever wanted.
SUDO = {
    "ticket": 'case " $* " in *" -k "*) echo "sudo: a password is required" >&2; exit 1;; esac',
    "no password": "exit 0",
}


@pytest.fixture
def sudo(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user with this sudo: the directory of the programs."""
    for name, script in {"sudo": SUDO[request.param], "id": "echo 1000"}.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    return tmp_path


@pytest.mark.parametrize(("sudo", "asks"), [("ticket", True), ("no password", False)], indirect=["sudo"])
def test_a_password_typed_on_this_terminal_is_asked_for_again(sudo: Path, asks: bool) -> None:
    """Ansible's processes leave the terminal, and with it what sudo remembers."""
    assert commands.ask_become_pass() == (["--ask-become-pass"] if asks else [])


@pytest.mark.parametrize(("sudo", "asks"), [("ticket", True), ("no password", False)], indirect=["sudo"])
def test_the_question_is_not_overwritten_by_the_training(sudo: Path, asks: bool) -> None:
    database = subprocess.run(
        ["make", "-pn", "build-project"], cwd=ROOT, env=os.environ, capture_output=True, text=True, check=True
    )
    assert ("\n.NOTPARALLEL:" in database.stdout) == asks
