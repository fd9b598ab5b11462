"""What is wrong with the host is said in one line, with its remedy, before anything changes."""

from __future__ import annotations

import os
import shutil
import socket
import stat
import subprocess
from pathlib import Path

import pytest

from tests.paths import ROOT


def check_host(*ports: str, path: str | None = None, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, **({"PATH": path} if path else {})}
    return subprocess.run(
        [str(cwd / "scripts/check-host"), *ports], check=False, capture_output=True, text=True, env=environment
    )


def only_line(result: subprocess.CompletedProcess[str]) -> str:
    assert result.returncode == 1, result
    assert len(result.stderr.splitlines()) == 1, result.stderr
    return result.stderr


def fake(directory: Path, name: str, body: str) -> None:
    """Put a command into ``directory``, whose real namesake behaves otherwise on this host."""
    (directory / name).write_text(f"#!/bin/sh\n{body}\n")
    (directory / name).chmod((directory / name).stat().st_mode | stat.S_IXUSR)


def test_taken_port_names_the_variable_that_changes_it() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        line = only_line(check_host("HTTP_PORT=1", f"HTTPS_PORT={port}"))
    assert f"port {port} of this host is taken" in line
    assert "HTTPS_PORT=" in line
    assert "make start-project" in line


@pytest.mark.parametrize("value", ["", "eight", "80a", "-1"])
def test_port_that_is_no_number(value: str) -> None:
    assert f"HTTPS_PORT={value} is not a port number" in only_line(check_host(f"HTTPS_PORT={value}"))


def test_free_ports_pass() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    result = check_host(f"HTTPS_PORT={port}")
    assert result.returncode == 0, result.stderr


def test_neither_root_nor_sudo(tmp_path: Path) -> None:
    fake(tmp_path, "id", "echo 1000")
    for name in ("python3", "dirname", "sh", "grep"):
        (tmp_path / name).symlink_to(str(shutil.which(name)))
    line = only_line(check_host(path=str(tmp_path)))
    assert "neither root nor sudo" in line
    assert "install sudo" in line


def test_old_python(tmp_path: Path) -> None:
    fake(tmp_path, "python3", '[ "$1" = -V ] && echo Python 3.9.2; exit 1')
    line = only_line(check_host(path=f"{tmp_path}:{os.environ['PATH']}"))
    assert "Python 3.11 or newer is needed, Python 3.9.2 was found" in line


def test_short_disk(tmp_path: Path) -> None:
    fake(tmp_path, "df", "echo header; echo /dev/x 100 90 10 90% /")
    line = only_line(check_host(path=f"{tmp_path}:{os.environ['PATH']}"))
    assert "only 10 MB are free" in line
    assert "make room" in line


def test_forbidden_namespaces(tmp_path: Path) -> None:
    fake(tmp_path, "unshare", "exit 1")
    fake(tmp_path, "sudo", 'case $1 in -v) ;; *) "$@" ;; esac')
    line = only_line(check_host(path=f"{tmp_path}:{os.environ['PATH']}"))
    assert "forbids the namespaces" in line


def test_clone_path_with_a_blank(tmp_path: Path) -> None:
    clone = tmp_path / "my clone"
    (clone / "scripts").mkdir(parents=True)
    shutil.copy(ROOT / "scripts/check-host", clone / "scripts")
    assert "contains a blank" in only_line(check_host(cwd=clone))
