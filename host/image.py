"""An image of a machine that carries the whole system: a disk in three formats, a Vagrant box, and the tree itself.

site.yml provisions a lab machine, the role image adds a kernel and what a first boot needs, and the tree that is left when the
machine has stopped is cleaned and written to disks. docs/image.md tells what a machine made from it then does.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import stat
import sys
from collections.abc import Iterator
from pathlib import Path

from app import __version__
from host import box, checks, disk, machine, packages
from host.commands import BUILD, ROOT, as_root, os_release, output, run
from release.seal import sha256

PLACE = BUILD / "image"
CONTROL = ROOT / ".lab/image"
TREES = Path("/var/lib/vmlops")
BOX_NAME = "vmlops/image"
# The account that clients of a machine to try things on use; its password is no secret (inventory/trial.yml).
BOX_ACCOUNT, BOX_PASSWORD = "admin", "admin"
# What is another on every machine, was needed only to make this one, or tells of the computer that it was made on.
REMOVED = (
    "etc/apt/apt.conf.d/90proxy", "etc/machine-id", "etc/resolv.conf", "etc/.resolv.conf.*", "etc/ssh/ssh_host_*",
    "etc/systemd/network/10-eth0.network",
    "etc/nginx/vmlops.key", "etc/nginx/vmlops.names", "etc/vmlops/passwords", "etc/vmlops/ca", "etc/vmlops/tls/*",
    "etc/*-", "etc/.pwd.lock", "etc/.updated", "etc/ssl/private/*",
    "home/*/.[!.]*", "root/.[!.]*",
    "run/*", "tmp/*", "tmp/.[!.]*", "var/tmp/*", "var/tmp/.[!.]*", "var/.updated",
    "var/backups/*", "var/cache/apt/*.bin", "var/cache/apt/archives/*.deb", "var/cache/debconf/*-old", "var/cache/ldconfig/*",
    "var/cache/man/*", "var/lib/apt/daily_lock", "var/lib/apt/lists/*", "var/lib/apt/periodic/*", "var/lib/cloud/*",
    "var/lib/dbus/machine-id", "var/lib/dpkg/*-old", "var/lib/grafana/grafana.db", "var/lib/logrotate/status",
    "var/lib/prometheus/alertmanager/*", "var/lib/prometheus/metrics2/*", "var/lib/prometheus/node-exporter/*",
    "var/lib/systemd/credential.secret", "var/lib/systemd/random-seed", "var/lib/systemd/timers/*", "var/lib/systemd/timesync/*",
    "var/log/journal/*", "var/log/**/*.gz", "var/log/**/*.[0-9]",
)  # fmt: skip
# Kept for what every home has; the rest is of who logged in.
SKELETON = (".bashrc", ".profile", ".bash_logout")
# Logs that stay, since their owners and modes matter, and lose what was written.
EMPTIED = ("var/log/**/*",)
# Files of the tree that are others in each build of the same inputs, and why. The disks' sums differ with them, and by the times
# at which the files' descriptions (inodes) were changed, which nobody can set.
DIFFERS = {
    "boot/initrd.img-*": "an archive of files with their times",
    "etc/shadow": "the day on which an account was made",
}


def build() -> None:
    """Write build/image/vmlops-VERSION-COMMIT-DISTRIBUTION-amd64 with the endings json, tar.zst, raw, qcow2, vmdk and box."""
    disk.kernel()
    checks.check_host()
    checks.check_space({Path("/var"): 3000, ROOT: 4000})
    packages.install({**packages.LAB, **disk.COMMANDS, "vagrant": "vagrant", "zstd": "zstd"})
    release = os_release()
    commit = output("git", "rev-parse", "--short=8", "HEAD").strip()
    changed = "+" if output("git", "status", "--porcelain") else ""
    name = f"vmlops-{__version__}-{commit}{changed}-{release['ID']}-{release['VERSION_ID']}-amd64"
    epoch = os.environ.get("SOURCE_DATE_EPOCH") or output("git", "log", "-1", "--format=%ct").strip()
    shutil.rmtree(PLACE, ignore_errors=True)
    PLACE.mkdir(parents=True)
    try:
        machine.lab("absent", "image")  # of a run that was ended in the middle
        machine.lab("started", "image")
        machine.playbook("site.yml", "image")
        machine.playbook("playbooks/image.yml", "image")
        machine.lab("stopped", "image")
        print("Cleaning the tree and writing disks…", flush=True)
        run(*as_root("env", f"SOURCE_DATE_EPOCH={epoch}", sys.executable, "-m", "host.image", tree(), PLACE / name))
    finally:
        machine.lab("absent", "image")
        shutil.rmtree(CONTROL, ignore_errors=True)
    box.add(BOX_NAME, PLACE / f"{name}.box")
    for path in sorted(PLACE.iterdir()):
        print(f"{path.relative_to(ROOT)}: {path.stat().st_blocks * 512 // 1_000_000} MB")


def tree() -> Path:
    """Where the machine's tree is; inventory/lab_machine.yml makes the name."""
    seed = hashlib.sha256(str((ROOT / "inventory/image").resolve()).encode()).hexdigest()
    return TREES / f"vml-{seed[:8]}-1/root"


def make(tree: Path, target: Path) -> None:
    """As root: turn the tree of a machine that has stopped into disks and their listing."""
    os.umask(0o022)
    epoch = int(os.environ["SOURCE_DATE_EPOCH"])
    clean(tree)
    disk.furnish(tree, "vmlops")
    # A lab machine has no console. What waits for the network stays masked: it waits for a router's advertisement too, for 13
    # seconds where there is none, and nginx after it.
    disk.systemctl(tree, "unmask", "getty@", "console-getty")
    date(tree, epoch)
    archive, raw = with_ending(target, "tar.zst"), with_ending(target, "raw")
    options = ("--sort=name", "--numeric-owner", "--one-file-system", "--xattrs", "--xattrs-include=*")
    # As a container it has no disk to mount.
    run("tar", *options, "--exclude=./etc/fstab", "-C", tree, "-I", "zstd -T0 -9 --quiet", "-cf", archive, ".")
    disk.make(tree, raw)
    disk.convert(raw, with_ending(target, "qcow2"), "qcow2", "-c", "-o", "compression_type=zstd")
    disk.convert(raw, with_ending(target, "vmdk"), "vmdk", "-o", "subformat=streamOptimized")
    listing = describe(tree, target.name)
    make_box(tree, epoch, with_ending(target, "box"))
    endings = ("tar.zst", "raw", "qcow2", "vmdk", "box")
    listing["files"] = {
        path.name: {"sha256": sha256(path), "bytes": path.stat().st_size}
        for path in (with_ending(target, ending) for ending in endings)
    }
    with_ending(target, "json").write_text(json.dumps(listing, indent=1) + "\n")
    owner = target.parent.stat()
    for path in target.parent.iterdir():
        os.chown(path, owner.st_uid, owner.st_gid)


def with_ending(target: Path, ending: str) -> Path:
    return target.with_name(f"{target.name}.{ending}")


def clean(tree: Path) -> None:
    """Remove from a tree what no two machines may share."""
    for pattern in REMOVED:
        # A link that leads nowhere is not found by its name alone.
        found = list(tree.glob(pattern)) if "*" in pattern else [tree / pattern]
        for path in found:
            if path.name in SKELETON or not os.path.lexists(path):
                continue
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()
    for pattern in EMPTIED:
        for path in tree.glob(pattern):
            if path.is_file() and not path.is_symlink():
                os.truncate(path, 0)
    # Of the accounts' files, the line for unknown names stays: it tells how many rounds a hash has.
    for realm in ("users", "operators"):
        path = tree / f"etc/nginx/vmlops.{realm}"
        lines = path.read_text().splitlines(keepends=True)
        path.write_text("".join(line for line in lines if line.startswith("(unknown):")))
    # There and empty: systemd makes one at every boot until it can be written.
    (tree / "etc/machine-id").touch()


def date(tree: Path, epoch: int) -> None:
    """Give what was made since ``epoch`` that time, links included; and every directory, whose own time would tell of files
    that came and went, such as those of timers that one build sees run."""
    for path in (tree, *files(tree)):
        status = path.lstat()
        if stat.S_ISDIR(status.st_mode) or status.st_mtime > epoch:
            os.utime(path, (epoch, epoch), follow_symlinks=False)


def files(tree: Path) -> Iterator[Path]:
    """Everything in a tree, whatever its name begins with."""
    for folder, directories, names in os.walk(tree):
        yield from (Path(folder) / name for name in (*directories, *names))


def describe(tree: Path, name: str) -> dict[str, object]:
    """What an image consists of."""
    form = "--showformat=${Package} ${Version}\n"
    lines = output("dpkg-query", f"--admindir={tree}/var/lib/dpkg", "--show", form).splitlines()
    release = dict(
        line.partition("=")[::2] for line in (tree / "etc/os-release").read_text().splitlines() if "=" in line
    )
    return {
        "image": name,
        "distribution": release["PRETTY_NAME"].strip('"'),
        "releases": {link.name: link.readlink().name for link in sorted((tree / "opt/vmlops").glob("v[12]"))},
        "packages": dict(line.split() for line in sorted(lines)),
        "differs": DIFFERS,
    }


def make_box(tree: Path, epoch: int, target: Path) -> None:
    """Write the Vagrant box: the same tree with Vagrant's account, and a password that is no secret."""
    run("chroot", tree, "useradd", "--create-home", "--shell", "/bin/bash", "vagrant")
    sudoers = tree / "etc/sudoers.d/vagrant"
    sudoers.write_text("vagrant ALL=(ALL) NOPASSWD: ALL\n")
    sudoers.chmod(0o440)
    box.let_vagrant_in(tree)
    # Vagrant's forwarded ports come through SSH. Read before the role hardening's own file.
    (tree / "etc/ssh/sshd_config.d/05-vagrant.conf").write_text("AllowTcpForwarding local\n")
    (tree / "etc/hostname").write_text("vagrant\n")
    (tree / "etc/hosts").write_text(disk.hosts("vagrant"))
    # As the role gateway makes it for a host of this name, so that site.yml finds nothing to do.
    salt = hashlib.sha256(f"vagrant {BOX_ACCOUNT}".encode()).hexdigest()[:16]
    rounds = (tree / "etc/nginx/vmlops.users").read_text().split("$")[2]
    hashed = output("openssl", "passwd", "-6", "-salt", f"{rounds}${salt}", "-stdin", data=f"{BOX_PASSWORD}\n").strip()
    data = tree / "etc/vmlops/first-boot.json"
    data.write_text(json.dumps({"users": {BOX_ACCOUNT: hashed}}) + "\n")
    data.chmod(0o600)
    date(tree, epoch)
    raw = target.with_suffix(".box.raw")
    disk.make(tree, raw)
    box.pack(raw, target)
    raw.unlink()


if __name__ == "__main__":
    make(Path(sys.argv[1]), Path(sys.argv[2]))
