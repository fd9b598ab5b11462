"""A disk that boots, out of a tree: for the box, and for images. Nothing is mounted for it."""

from __future__ import annotations

import os
import tempfile
import uuid
from pathlib import Path

from host.commands import ROOT, Problem, os_release, output, run

COMMANDS = {
    "qemu-img": "qemu-utils",
    "grub-mkimage": "grub-common",
    "/usr/lib/grub/i386-pc/boot.img": "grub-pc-bin",
    "mke2fs": "e2fsprogs",
    "sfdisk": "fdisk",
}
GIB = 10
# Part of every disk, so that two of the same tree are alike.
FILE_SYSTEM = uuid.uuid5(uuid.NAMESPACE_DNS, "vmlops.invalid")
FILES = {
    "etc/fstab": "LABEL=vmlops / ext4 errors=remount-ro 0 1\n",
    # After what cloud-init or somebody else writes.
    "etc/systemd/network/90-dhcp.network": "[Match]\nName=en* eth*\n\n[Network]\nDHCP=yes\n",
    # A resolver for this machine only: by itself it answers the whole network.
    "etc/systemd/resolved.conf.d/vmlops.conf": "[Resolve]\nLLMNR=no\nMulticastDNS=no\n",
    "etc/systemd/system/ssh-host-keys.service": """\
[Unit]
Description=The SSH host keys of this machine
Before=ssh.service
ConditionPathExists=!/etc/ssh/ssh_host_ed25519_key

[Service]
Type=oneshot
# No RSA key: on an emulated processor it takes half a minute, and nobody can log in before it is made.
# The first key may be there already, from a boot that was interrupted.
ExecStart=-/usr/bin/ssh-keygen -q -t ecdsa -N "" -f /etc/ssh/ssh_host_ecdsa_key
ExecStart=/usr/bin/ssh-keygen -q -t ed25519 -N "" -f /etc/ssh/ssh_host_ed25519_key

[Install]
WantedBy=multi-user.target
""",
}
GRUB = """\
linux {links}vmlinuz root=LABEL=vmlops ro console=tty0 console=ttyS0 net.ifnames=0
initrd {links}initrd.img
boot
"""


def kernel() -> str:
    """The package of the kernel of this host's distribution; raises Problem where no disk can be made."""
    variables = ROOT / "roles/image/vars" / f"{os_release().get('ID', '').title()}.yml"
    if not variables.is_file() or output("dpkg", "--print-architecture").strip() != "amd64":
        raise Problem("a disk can be made on Debian or Ubuntu on amd64 only")
    return variables.read_text().split("_image_kernel: ")[1].strip()  # PyYAML is not there before .venv is


def furnish(tree: Path, name: str) -> None:
    """Write what a VM needs into the tree of a machine: its name, network, host keys and boot loader."""
    # The distribution's kernel packages keep two links up to date: Debian in /, Ubuntu in /boot.
    links = "/" if (tree / "vmlinuz").is_symlink() else "/boot/"
    files = {
        **FILES,
        "boot/grub/grub.cfg": GRUB.format(links=links),
        "etc/hostname": f"{name}\n",
        "etc/hosts": hosts(name),
    }
    for path, content in files.items():
        (tree / path).parent.mkdir(parents=True, exist_ok=True)
        (tree / path).write_text(content)
    (tree / "etc/resolv.conf").unlink(missing_ok=True)
    (tree / "etc/resolv.conf").symlink_to("/run/systemd/resolve/stub-resolv.conf")
    systemctl(tree, "enable", "ssh-host-keys", "systemd-resolved")


def hosts(name: str) -> str:
    return f"127.0.0.1 localhost\n127.0.1.1 {name}\n::1 localhost\n"


def systemctl(tree: Path, *words: str) -> None:
    run("chroot", tree, "systemctl", "--quiet", *words)


def make(tree: Path, disk: Path) -> None:
    """As root: write the tree to a raw disk that boots on a BIOS; its free space takes no room."""
    with disk.open("wb") as file:
        file.truncate(GIB << 30)
    # Sector 0 the first stage, from sector 1 GRUB itself, from 1 MiB the file system.
    output("sfdisk", "--quiet", disk, data=f"label-id: 0x{FILE_SYSTEM.hex[:8]}\n2048,,83,*\n")
    extended = f"offset={1 << 20},hash_seed={FILE_SYSTEM}"
    options = ("-q", "-t", "ext4", "-L", "vmlops", "-U", str(FILE_SYSTEM), "-O", "^metadata_csum_seed,^orphan_file")
    epoch = os.environ.get("SOURCE_DATE_EPOCH", "")
    environment = {"E2FSPROGS_FAKE_TIME": epoch} if epoch else {}
    command = ("/sbin/mke2fs", *options, "-E", extended, "-d", tree, disk, f"{(GIB << 20) - 1024}k")
    run(*command, environment=environment)
    with tempfile.TemporaryDirectory() as scratch:
        core = Path(scratch) / "core.img"
        modules = ("biosdisk", "part_msdos", "ext2", "linux", "normal", "configfile")
        run("grub-mkimage", "-O", "i386-pc", "-o", core, "-p", "(hd0,msdos1)/boot/grub", *modules)
        with disk.open("r+b") as file:
            file.write(Path("/usr/lib/grub/i386-pc/boot.img").read_bytes()[:440])
            file.seek(512)
            file.write(core.read_bytes())


def convert(disk: Path, image: Path, kind: str, *options: str) -> None:
    """Write a raw disk in another format; ``options`` are qemu-img's for it."""
    run("qemu-img", "convert", "-O", kind, *options, disk, image)
