"""The machine itself: who may log in and how, what is kept current, and what the kernel gives away."""

from __future__ import annotations

import subprocess
from typing import Any

from tests.acceptance.conftest import Machine


def test_sshd_takes_keys_only(host: Any, machine: Machine) -> None:
    options = ["-F", str(machine.ssh_config), "-o", "BatchMode=yes", "-o", "PubkeyAuthentication=no", "-v"]
    refused = subprocess.run(["ssh", *options, machine.name, "true"], capture_output=True, text=True, check=False)
    assert refused.returncode == 255
    assert "Authentications that can continue: publickey\n" in refused.stderr.replace("\r", ""), refused.stderr[-1500:]
    values = dict(line.split(" ", 1) for line in host.check_output("sshd -T").splitlines())
    assert values["passwordauthentication"] == values["kbdinteractiveauthentication"] == "no"
    assert values["permitrootlogin"] in ("without-password", "prohibit-password")
    assert values["x11forwarding"] == values["allowagentforwarding"] == values["permittunnel"] == "no"
    assert "any" not in values["permitopen"].split()


def test_the_machine_keeps_itself_current(host: Any) -> None:
    for unit in ("apt-daily-upgrade.timer", "unattended-upgrades", "systemd-timesyncd"):
        assert host.check_output(f"systemctl is-enabled {unit}") == "enabled"
    assert host.check_output("systemctl is-active apt-daily.timer apt-daily-upgrade.timer").split() == ["active"] * 2
    # What it would take: the distribution's security updates.
    said = host.check_output("apt-config dump")
    assert 'APT::Periodic::Unattended-Upgrade "1";' in said
    assert "ecurity" in "".join(line for line in said.splitlines() if line.startswith("Unattended-Upgrade::")), said


def test_nothing_dumps_its_memory(host: Any) -> None:
    assert host.check_output("cat /proc/$(systemctl show --value -p MainPID nginx)/limits | grep core").split()[
        4:6
    ] == ["0", "0"]
    assert host.check_output("bash --login -c 'ulimit -c'") == "0"


def test_new_files_are_private(host: Any) -> None:
    settings = dict(line.split()[:2] for line in host.check_output("grep '^[A-Z]' /etc/login.defs").splitlines())
    assert settings["UMASK"] == "027"
    assert settings["HOME_MODE"] == "0750"


def test_network_variables_are_in_force(host: Any) -> None:
    """Those that a machine in a network namespace of its own may set."""
    values = {
        "net.ipv4.conf.all.accept_redirects": "0",
        "net.ipv4.conf.all.send_redirects": "0",
        "net.ipv4.conf.all.accept_source_route": "0",
        "net.ipv4.conf.all.forwarding": "0",
        "net.ipv4.conf.all.rp_filter": "2",
        "net.ipv4.tcp_syncookies": "1",
    }
    found = {name: host.check_output(f"sysctl -n {name}") for name in values}
    assert found == values


def test_new_passwords_are_checked(host: Any) -> None:
    """By pam-pwquality, whose dictionary has to be there. root is told what others are refused for."""
    host.check_output("useradd --no-create-home vmlops-probe")
    try:
        good, bad = (
            host.run(f"echo vmlops-probe:{word} | chpasswd") for word in ("plum-Kettle-41-harbour", "strawberry")
        )
    finally:
        host.check_output("userdel vmlops-probe")
    assert (good.rc, good.stdout + good.stderr) == (0, "")
    assert "based on a dictionary word" in bad.stdout + bad.stderr, bad
