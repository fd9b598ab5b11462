"""The image of a machine: what is taken out of its tree, and what is written into it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from host import disk, image
from host.commands import Problem


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Of a machine that ran, what matters here."""
    files = {
        "etc/apt/apt.conf.d/90proxy": "", "etc/apt/apt.conf.d/90vmlops": "",
        "etc/hostname": "image\n", "etc/machine-id": "0123\n",
        "etc/nginx/vmlops.key": "", "etc/nginx/vmlops.names": "", "etc/nginx/nginx.conf": "",
        "etc/nginx/vmlops.users": "admin:$6$x\n(unknown):$6$rounds=5000$nobody$z\n",
        "etc/nginx/vmlops.operators": "admin:$6$x\n(unknown):$6$rounds=5000$nobody$z\n",
        "etc/.resolv.conf.systemd-resolved.bak": "",
        "etc/passwd": "", "etc/passwd-": "", "etc/ssh/ssh_host_ed25519_key": "", "etc/ssh/sshd_config": "",
        "etc/vmlops/tls/server.key": "", "etc/vmlops/firewall.nft": "", "etc/ssl/private/ssl-cert-snakeoil.key": "",
        "home/ops/.bashrc": "", "home/ops/.ssh/authorized_keys": "", "home/ops/.ansible/tmp/x": "", "root/.bash_history": "",
        "run/x": "", "tmp/.x/y": "", "var/lib/apt/lists/x": "", "var/lib/dpkg/status": "", "var/lib/dpkg/status-old": "",
        "var/lib/prometheus/metrics2/01/index": "", "var/lib/systemd/random-seed": "",
        "var/log/journal/0123/system.journal": "x", "var/log/nginx/error.log": "x", "var/log/nginx/error.log.1": "x",
        "var/log/dpkg.log": "x",
    }  # fmt: skip
    for path, content in files.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(content)
    (tmp_path / "etc/resolv.conf").symlink_to("/run/nowhere")
    return tmp_path


def test_what_no_two_machines_may_share_is_removed_and_all_else_stays(tree: Path) -> None:
    (tree / "var/log/nginx/error.log").chmod(0o640)
    image.clean(tree)
    assert sorted(str(path.relative_to(tree)) for path in image.files(tree) if not path.is_dir()) == [
        "etc/apt/apt.conf.d/90vmlops",
        "etc/hostname",
        "etc/machine-id",
        "etc/nginx/nginx.conf",
        "etc/nginx/vmlops.operators",
        "etc/nginx/vmlops.users",
        "etc/passwd",
        "etc/ssh/sshd_config",
        "etc/vmlops/firewall.nft",
        "home/ops/.bashrc",
        "var/lib/dpkg/status",
        "var/log/dpkg.log",
        "var/log/nginx/error.log",
    ]
    log = (tree / "var/log/nginx/error.log").stat()
    assert (log.st_size, log.st_mode & 0o777) == (0, 0o640)
    assert (tree / "etc/machine-id").read_text() == ""
    for realm in ("users", "operators"):
        assert (tree / f"etc/nginx/vmlops.{realm}").read_text() == "(unknown):$6$rounds=5000$nobody$z\n"


def test_a_link_that_leads_out_of_the_tree_harms_nothing_there(
    tree: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    outside = tmp_path_factory.mktemp("outside")
    (outside / "log").write_text("kept")
    (tree / "var/log/link").symlink_to(outside / "log")
    (tree / "var/tmp").mkdir()
    (tree / "var/tmp/link").symlink_to(outside)
    image.clean(tree)
    assert (outside / "log").read_text() == "kept"
    assert not (tree / "var/tmp/link").is_symlink()


def test_files_are_no_younger_than_what_they_were_made_of(tree: Path) -> None:
    os.utime(tree / "etc/passwd", (1000, 1000))
    image.date(tree, 5000)
    assert (tree / "etc/passwd").stat().st_mtime == 1000
    assert {path.lstat().st_mtime for path in image.files(tree) if path.name != "passwd"} == {5000}


@pytest.mark.parametrize(
    ("links", "expected"), [("vmlinuz", "linux /vmlinuz"), ("boot/vmlinuz", "linux /boot/vmlinuz")]
)
def test_boot_loader_finds_the_kernel_where_the_distribution_links_it(
    links: str, expected: str, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(disk, "systemctl", lambda *words: None)
    (tree / links).parent.mkdir(exist_ok=True)
    (tree / links).symlink_to("nowhere")
    disk.furnish(tree, "vmlops")
    assert (tree / "boot/grub/grub.cfg").read_text().startswith(expected)
    assert (tree / "etc/hostname").read_text() == "vmlops\n"
    assert "127.0.1.1 vmlops\n" in (tree / "etc/hosts").read_text()


@pytest.mark.parametrize(("distribution", "architecture"), [("fedora", "amd64"), ("debian", "arm64")])
def test_disk_is_refused_where_it_cannot_be_made(
    distribution: str, architecture: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(disk, "os_release", lambda: {"ID": distribution})
    monkeypatch.setattr(disk, "output", lambda *words: f"{architecture}\n")
    with pytest.raises(Problem, match="Debian or Ubuntu on amd64 only"):
        disk.kernel()


def test_a_directory_does_not_tell_whether_something_was_removed_from_it(tree: Path) -> None:
    times = []
    for state in ("", "ran on Monday"):
        folder = tree / "var/lib/logrotate"
        folder.mkdir(exist_ok=True)
        if state:
            (folder / "status").write_text(state)
        os.utime(folder, (1000, 1000))
        image.clean(tree)
        image.date(tree, 5000)
        assert list(folder.iterdir()) == []
        times.append(folder.stat().st_mtime)
    assert times == [5000, 5000]
