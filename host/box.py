"""A Vagrant box for libvirt out of the distribution's packages alone.

It is the tree of the lab machine with a kernel, a boot loader, and the daemons that the roles would install: they work without,
and under emulation it saves minutes.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

from host import disk, libvirt, packages
from host.commands import BUILD, ROOT, Problem, as_root, ask_become_pass, first_line, os_release, output, run

BOX = BUILD / "box/vmlops.box"


def name() -> str:
    release = os_release()
    return f"vmlops/{release['ID']}-{release['VERSION_ID']}"


def build() -> None:
    """Make the box of this distribution and add it to Vagrant."""
    kernel = disk.kernel()
    libvirt.install()
    BOX.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=BOX.parent) as scratch:
        print(f"Building the box {name()}: packages…", flush=True)
        variables = {
            "lab_machine_state": "prepared",
            "lab_machine_user": "vagrant",
            "lab_machine_cache_dir": scratch,
            "lab_machine_extra_packages": [kernel, "systemd-resolved", "e2fsprogs", *packages.DAEMONS],
        }
        log = BUILD / "box.log"
        playbook = ("ansible-playbook", "-i", "inventory/lab", "playbooks/lab.yml", *ask_become_pass())
        try:
            run(*playbook, "-e", json.dumps(variables), log=log)
        except subprocess.CalledProcessError:
            raise Problem(f"the tree of the box cannot be made: {first_line(log, 'E:', 'fatal:')}") from None
        print(f"Building the box {name()}: disk and image…", flush=True)
        run(*as_root(sys.executable, "-m", "host.box", scratch))
        shutil.move(Path(scratch) / "vmlops.box", BOX)
    add(name(), BOX)
    print(f"Built {name()}: {BOX.stat().st_size // 1_000_000} MB")


def add(box_name: str, box: Path) -> None:
    try:
        run("vagrant", "box", "add", "--force", "--name", box_name, box, log=BUILD / "vagrant.log")
    except subprocess.CalledProcessError:
        raise Problem(f"Vagrant refuses the box: {first_line(BUILD / 'vagrant.log')}") from None


def make_image(scratch: Path) -> None:
    """As root: turn the one tree in ``scratch`` into ``vmlops.box`` beside it."""
    os.umask(0o022)
    owner = scratch.stat()
    (archive,) = scratch.glob("*.tar")
    # Where root alone may look: the tree holds setuid programs.
    with tempfile.TemporaryDirectory(dir="/var/tmp", prefix="vmlops-box.") as work:
        tree, raw = Path(work) / "tree", Path(work) / "disk.raw"
        tree.mkdir()
        run("tar", "-C", tree, "-xf", archive)
        archive.unlink()
        disk.furnish(tree, "vagrant")
        # As on a bare machine, the roles configure a service before it starts.
        disk.systemctl(tree, "disable", *(name for name in packages.DAEMONS if not name.startswith("lib")))
        disk.systemctl(tree, "mask", "apt-daily.timer", "apt-daily-upgrade.timer")
        let_vagrant_in(tree)
        disk.make(tree, raw)
        pack(raw, scratch / "vmlops.box")
    os.chown(scratch / "vmlops.box", owner.st_uid, owner.st_gid)


def let_vagrant_in(tree: Path) -> None:
    """Write the key that Vagrant logs in with once, before it puts another in its place."""
    home = tree / "home/vagrant"
    (key,) = [line for line in output("dpkg", "-L", "vagrant").splitlines() if line.endswith("/keys/vagrant.pub")]
    (home / ".ssh").mkdir(mode=0o700)
    shutil.copy(key, home / ".ssh/authorized_keys")
    (home / ".ssh/authorized_keys").chmod(0o600)
    for place in (home / ".ssh", home / ".ssh/authorized_keys"):
        os.chown(place, home.stat().st_uid, home.stat().st_gid)


def pack(raw: Path, box: Path) -> None:
    """Write the box of a raw disk."""
    with tempfile.TemporaryDirectory(dir=raw.parent) as scratch:
        image, description = Path(scratch) / "box.img", Path(scratch) / "metadata.json"
        disk.convert(raw, image, "qcow2", "-c")
        description.write_text(json.dumps({"provider": "libvirt", "format": "qcow2", "virtual_size": disk.GIB}))
        with tarfile.open(box, "w") as tar:
            for part in (description, image):
                tar.add(part, part.name)


if __name__ == "__main__":
    make_image(ROOT / sys.argv[1])
