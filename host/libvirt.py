"""libvirt for Vagrant: its packages, a start where no systemd does it, and an end that leaves nothing behind."""

from __future__ import annotations

import re
import subprocess
import time
from pathlib import Path

from host import disk, packages, providers
from host.commands import Problem, as_root, output, run, succeeds

# What we started: <daemon>.pid, and the nftables tables that were there before.
RUN = Path("/run/vmlops-libvirt")
VIRSH = ("virsh", "--quiet", "--connect", "qemu:///system")
DAEMONS = ("libvirtd", "virtlogd", "dbus-daemon")
COMMANDS = {
    "vagrant": "vagrant",
    "libvirtd": "libvirt-daemon-system",
    "virsh": "libvirt-clients",
    "qemu-system-x86_64": "qemu-system-x86",
    "dnsmasq": "dnsmasq-base",
    "iptables": "iptables",
    "dbus-daemon": "dbus",
    "mmdebstrap": "mmdebstrap",
    # Even for root: with it alone vagrant-libvirt ends the tunnel of a port up to 1024 together with its VM. One that stays
    # holds the port, and leads nowhere.
    "sudo": "sudo",
    **disk.COMMANDS,
}


def install() -> None:
    plugin = {} if providers.has_vagrant_libvirt() else {"the plugin vagrant-libvirt": "vagrant-libvirt"}
    packages.install(COMMANDS | plugin)


def answers() -> bool:
    return succeeds(*as_root(*VIRSH, "version"))


def tables() -> set[str]:
    """The tables that iptables makes for the virtual network's rules, and libvirt leaves behind."""
    listing = output(*as_root("nft", "list", "tables"))
    return set(re.findall(r"^table (ip6? (?:filter|nat|mangle))$", listing, re.MULTILINE))


def await_answer() -> None:
    deadline = time.monotonic() + 10
    while not answers():
        if time.monotonic() > deadline:
            raise Problem(
                "libvirtd does not answer within 10 seconds: journalctl -u libvirtd or /var/log/libvirt may say why"
            )
        time.sleep(0.1)


def start() -> None:
    if answers():
        return
    if Path("/run/systemd/system").is_dir():
        run(*as_root("systemctl", "start", "libvirtd"))
        await_answer()
        return
    run(*as_root("mkdir", "-p", RUN, "/run/dbus"))
    output(*as_root("tee", RUN / "tables"), data="\n".join(sorted(tables())))
    get_id = ("--dest=org.freedesktop.DBus", "--print-reply", "/", "org.freedesktop.DBus.GetId")
    if not succeeds(*as_root("dbus-send", "--system", *get_id)):
        run(*as_root("rm", "-f", "/run/dbus/pid"))
        pid = output(*as_root("dbus-daemon", "--system", "--fork", "--print-pid"))
        output(*as_root("tee", RUN / "dbus-daemon.pid"), data=pid)
    for daemon in ("virtlogd", "libvirtd"):
        if not succeeds("pgrep", "-x", daemon):
            run(*as_root(daemon, "--daemon", "--pid-file", RUN / f"{daemon}.pid"))
    await_answer()


def stop() -> None:
    """End what start() started, unless machines of others still run in it."""
    if not RUN.is_dir():
        return
    if answers():
        machines = output(*as_root(*VIRSH, "list", "--name")).split()
        if machines:
            print("libvirt goes on for the machines that run:", *machines)
            return
        # The network's DHCP server outlives libvirtd otherwise.
        for network in output(*as_root(*VIRSH, "net-list", "--name")).split():
            output(*as_root(*VIRSH, "net-destroy", network))
    for daemon in DAEMONS:
        pid = subprocess.run(
            as_root("cat", RUN / f"{daemon}.pid"), check=False, capture_output=True, text=True
        ).stdout.strip()
        if pid and not succeeds(*as_root("kill", pid)) and Path(f"/proc/{pid}").exists():
            raise Problem(f"{daemon} (pid {pid}) cannot be ended")
    before = set(output(*as_root("cat", RUN / "tables")).splitlines())
    for table in tables() - before:
        run(*as_root("nft", "delete", "table", *table.split()))
    run(*as_root("rm", "-rf", RUN))
