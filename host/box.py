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

from host import libvirt, packages
from host.commands import BUILD, ROOT, Problem, as_root, ask_become_pass, first_line, os_release, output, run

BOX = BUILD / "box/vmlops.box"
DISK_GIB = 10
# The kernel without drivers for hardware that no VM has.
KERNELS = {"debian": "linux-image-cloud-amd64", "ubuntu": "linux-image-virtual"}
FILES = {
    "etc/hostname": "vagrant\n",
    "etc/hosts": "127.0.0.1 localhost\n127.0.1.1 vagrant\n::1 localhost\n",
    "etc/fstab": "LABEL=vmlops / ext4 errors=remount-ro 0 1\n",
    "etc/systemd/network/10-dhcp.network": "[Match]\nName=eth*\n\n[Network]\nDHCP=yes\n",
    # A resolver for this machine only: by itself it answers the whole network.
    "etc/systemd/resolved.conf.d/vmlops.conf": "[Resolve]\nLLMNR=no\nMulticastDNS=no\n",
    "etc/systemd/system/ssh-host-keys.service": """\
[Unit]
Description=The SSH host keys of this machine
Before=ssh.service
ConditionPathExists=!/etc/ssh/ssh_host_ed25519_key

[Service]
Type=oneshot
ExecStart=/usr/bin/ssh-keygen -A

[Install]
WantedBy=multi-user.target
""",
}
GRUB = """\
linux {links}vmlinuz root=LABEL=vmlops ro console=tty0 console=ttyS0 net.ifnames=0
initrd {links}initrd.img
boot
"""


def name() -> str:
    release = os_release()
    return f"vmlops/{release['ID']}-{release['VERSION_ID']}"


def build() -> None:
    """Make the box of this distribution and add it to Vagrant."""
    kernel = KERNELS.get(os_release().get("ID", ""))
    if not kernel or output("dpkg", "--print-architecture").strip() != "amd64":
        raise Problem(
            "a box can be built on Debian or Ubuntu on amd64 only: name one with BOX=, or use the lab machine"
        )
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
    try:
        run("vagrant", "box", "add", "--force", "--name", name(), BOX, log=BUILD / "vagrant.log")
    except subprocess.CalledProcessError:
        raise Problem(f"Vagrant refuses the box: {first_line(BUILD / 'vagrant.log')}") from None
    print(f"Built {name()}: {BOX.stat().st_size // 1_000_000} MB")


def make_image(scratch: Path) -> None:
    """As root: turn the one tree in ``scratch`` into ``vmlops.box`` beside it. Nothing is mounted for it."""
    os.umask(0o022)
    owner = scratch.stat()
    (archive,) = scratch.glob("*.tar")
    # Where root alone may look: the tree holds setuid programs.
    with tempfile.TemporaryDirectory(dir="/var/tmp", prefix="vmlops-box.") as work:
        tree, image = Path(work) / "tree", Path(work) / "disk.raw"
        tree.mkdir()
        run("tar", "-C", tree, "-xf", archive)
        archive.unlink()
        furnish(tree)
        with image.open("wb") as disk:
            disk.truncate(DISK_GIB << 30)
        # Sector 0 the first stage, from sector 1 GRUB itself, from 1 MiB the file system.
        output("sfdisk", "--quiet", image, data="2048,,83,*\n")
        options = (
            "-q",
            "-t",
            "ext4",
            "-L",
            "vmlops",
            "-O",
            "^metadata_csum_seed,^orphan_file",
            "-E",
            f"offset={1 << 20}",
        )
        run("/sbin/mke2fs", *options, "-d", tree, image, f"{(DISK_GIB << 20) - 1024}k")
        core = Path(work) / "core.img"
        modules = ("biosdisk", "part_msdos", "ext2", "linux", "normal", "configfile")
        run("grub-mkimage", "-O", "i386-pc", "-o", core, "-p", "(hd0,msdos1)/boot/grub", *modules)
        with image.open("r+b") as disk:
            disk.write(Path("/usr/lib/grub/i386-pc/boot.img").read_bytes()[:440])
            disk.seek(512)
            disk.write(core.read_bytes())
        run("qemu-img", "convert", "-c", "-O", "qcow2", image, scratch / "box.img")
    (scratch / "metadata.json").write_text(
        json.dumps({"provider": "libvirt", "format": "qcow2", "virtual_size": DISK_GIB})
    )
    with tarfile.open(scratch / "vmlops.box", "w") as box:
        for part in ("metadata.json", "box.img"):
            box.add(scratch / part, part)
            (scratch / part).unlink()
    os.chown(scratch / "vmlops.box", owner.st_uid, owner.st_gid)


def furnish(tree: Path) -> None:
    """Write what a VM needs into the tree: network, host keys, boot loader, and the key that Vagrant logs in with once."""
    # The distribution's kernel packages keep two links up to date: Debian in /, Ubuntu in /boot.
    links = "/" if (tree / "vmlinuz").is_symlink() else "/boot/"
    for path, content in {**FILES, "boot/grub/grub.cfg": GRUB.format(links=links)}.items():
        (tree / path).parent.mkdir(parents=True, exist_ok=True)
        (tree / path).write_text(content)
    (tree / "etc/resolv.conf").unlink(missing_ok=True)
    (tree / "etc/resolv.conf").symlink_to("/run/systemd/resolve/stub-resolv.conf")
    # As on a bare machine, the roles configure a service before it starts.
    daemons = [name for name in packages.DAEMONS if not name.startswith("lib")]
    for action in (
        ("enable", "ssh-host-keys", "systemd-resolved"),
        ("disable", *daemons),
        ("mask", "apt-daily.timer", "apt-daily-upgrade.timer"),
    ):
        run("chroot", tree, "systemctl", "--quiet", *action)
    home = tree / "home/vagrant"
    (key,) = [line for line in output("dpkg", "-L", "vagrant").splitlines() if line.endswith("/keys/vagrant.pub")]
    (home / ".ssh").mkdir(mode=0o700)
    shutil.copy(key, home / ".ssh/authorized_keys")
    (home / ".ssh/authorized_keys").chmod(0o600)
    for place in (home / ".ssh", home / ".ssh/authorized_keys"):
        os.chown(place, home.stat().st_uid, home.stat().st_gid)


if __name__ == "__main__":
    make_image(ROOT / sys.argv[1])
