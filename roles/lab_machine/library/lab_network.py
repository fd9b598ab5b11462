#!/usr/bin/python
"""Ansible module: lab machines on a private network of this host, each booted by systemd-nspawn."""

from __future__ import annotations

import hashlib
import ipaddress
import json
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from fcntl import LOCK_EX, flock
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = r"""
module: lab_network
short_description: Make, boot, stop or remove lab machines on a private network of this host
description:
  - A network is a bridge with a subnet, from which machines reach the outside through the host. It is there while a machine runs.
  - Every state is reached from what is found, so that what a killed run left behind is healed.
options:
  state: {description: What they should be., choices: [prepared, started, stopped, absent], required: true, type: str}
  network: {description: Name of the network and of its bridge; at most 12 characters., required: true, type: str}
  subnet: {description: The network's addresses; the first is the host's., required: true, type: str}
  machines:
    description: Every machine of the network.
    required: true
    type: list
    elements: dict
    options:
      name: {description: Host name., required: true, type: str}
      number: {description: Its place in the network; from 1., required: true, type: int}
      suite: {description: Its distribution release., required: true, type: str}
      image: {description: A tar file of its tree; empty for the base tree of its release., default: "", type: str}
      forwarded_ports: {description: Ports of the host's loopback that lead to its own., type: list, elements: dict}
  chosen: {description: Names of the machines to bring into the state., required: true, type: list, elements: str}
  components: {description: The archive's components., required: true, type: str}
  packages: {description: Packages of a base tree., required: true, type: list, elements: str}
  user: {description: The account that logs in; it may sudo without a password., required: true, type: str}
  control_dir: {description: Where the SSH key, the host keys and ssh_config lie., required: true, type: path}
  trees_dir: {description: Trees of machines., required: true, type: path}
  cache_dir: {description: Base trees., required: true, type: path}
author: [vmlops]
"""

RUN = Path("/run/vmlops")
SYSTEMD = Path("/run/systemd/system")
# What systemd-nspawn ends with where its machine reboots. Its new device then goes into the bridge as the first did.
REBOOTS = 133
# Arguments: the device, the bridge, the command. On a host with systemd, that does the same.
SUPERVISE = f"""
device=$1 bridge=$2; shift 2
while "$@"; [ $? -eq {REBOOTS} ]; do
    (tries=0; until ip link set "$device" master "$bridge" up || [ $((tries += 1)) -gt 100 ]; do sleep 0.1; done) 2>&- &
done
"""
# The stub of systemd-resolved listens on the host's loopback, where a machine cannot ask it.
UPLINK = Path("/run/systemd/resolve/resolv.conf")
HIERARCHIES = [Path("/sys/fs/cgroup"), Path("/sys/fs/cgroup/unified"), Path("/sys/fs/cgroup/systemd")]


class LabError(Exception):
    """The wanted state was not reached; the text says why."""


def run(*command: str | Path, data: str | None = None) -> str:
    """Return what a program writes to standard output; raises LabError with its last words where it fails."""
    words = [str(word) for word in command]
    result = subprocess.run(words, check=False, capture_output=True, text=True, input=data)
    if result.returncode:
        said = (result.stderr or result.stdout).strip().splitlines()
        raise LabError(f"{words[0]} failed: {next((s for s in said if s.startswith('E:')), ' '.join(said[-3:]))}")
    return result.stdout


def succeeds(*command: str | Path) -> bool:
    words = [str(word) for word in command]
    return subprocess.run(words, check=False, capture_output=True, stdin=subprocess.DEVNULL).returncode == 0


def wait_until(condition: Callable[[], bool], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def processes(*words: str) -> list[int]:
    """Return the processes whose command line begins with the first word and has each of the others."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            arguments = path.read_bytes().decode(errors="replace").split("\0")
        except OSError:  # it has ended
            continue
        if arguments[0] == words[0] and set(words) <= set(arguments):
            found.append(int(path.parts[2]))
    return found


def kill(pid: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, number)


def name_servers() -> list[str]:
    """Those that this host asks."""
    file = UPLINK if UPLINK.exists() else Path("/etc/resolv.conf")
    lines = [line.split() for line in file.read_text().splitlines()] if file.exists() else []
    return [words[1] for words in lines if len(words) > 1 and words[0] == "nameserver"]


def put(path: Path, content: str, like: Path, mode: int = 0o644) -> bool:
    """Write a file with the owner of ``like``, in one step; return whether it was another before."""
    if path.exists() and path.read_text() == content:
        return False
    scratch = path.with_name(f"{path.name}.new")
    scratch.write_text(content)
    os.chown(scratch, like.stat().st_uid, like.stat().st_gid)
    scratch.chmod(mode)
    scratch.rename(path)
    return True


@dataclass(frozen=True)
class BaseTree:
    """A Debian or Ubuntu tree as a tar file, from which the trees of machines are unpacked.

    What tells machines apart (host keys, machine id, host name) is left out: each gets its own.
    """

    cache: Path
    suite: str
    components: str
    packages: tuple[str, ...]
    user: str

    @property
    def recipe(self) -> list[str]:
        sudoers = f"$1/etc/sudoers.d/{self.user}"
        hooks = (
            'rm -f "$1"/etc/ssh/ssh_host_*',
            ': > "$1/etc/machine-id"',
            'chroot "$1" systemctl enable ssh systemd-networkd',
            'chroot "$1" systemctl mask systemd-networkd-wait-online getty@ console-getty',
            f'chroot "$1" useradd --create-home --shell /bin/bash {self.user}',
            f"echo '{self.user} ALL=(ALL) NOPASSWD: ALL' > \"{sudoers}\"",
            f'chmod 0440 "{sudoers}"',
        )
        # The package lists stay: Ansible takes their directory's age for the age of what is in it, and would not fetch them.
        options = ["--quiet", "--variant=minbase", "--format=tar", "--skip=cleanup/apt/lists"]
        options += [f"--components={self.components}", f"--include={','.join(self.packages)}"]
        options += [f"--dpkgopt=path-exclude=/usr/share/{name}/*" for name in ("man", "locale")]
        return [*options, *(f"--customize-hook={hook}" for hook in hooks), self.suite]

    @property
    def path(self) -> Path:
        """Another recipe gives another name, so that no old tree is mistaken for it."""
        digest = hashlib.sha256(json.dumps(self.recipe).encode()).hexdigest()[:8]
        return self.cache / f"{self.suite}-{digest}.tar"

    def make(self) -> bool:
        """Make it if it is not there; return whether it was made."""
        self.cache.mkdir(parents=True, exist_ok=True, mode=0o700)
        with self.path.with_suffix(".lock").open("w") as lock:
            flock(lock, LOCK_EX)  # two clones may want the same base tree at the same time
            if self.path.exists():
                return False
            partial = self.path.with_suffix(".part")
            try:
                run("mmdebstrap", *self.recipe, partial)
                partial.rename(self.path)
            finally:
                partial.unlink(missing_ok=True)
        return True


@dataclass(frozen=True)
class Machine:
    """One machine.

    Attributes:
        unit: its name on the host, as of its tree, its network device and its systemd unit; at most 15 characters.
        directory: where its tree is.
        image: a tar file of a tree in place of the base tree. Its host keys are made by its own first boot.
    """

    name: str
    unit: str
    address: ipaddress.IPv4Address
    base: BaseTree
    directory: Path
    ports: tuple[tuple[int, int], ...]
    image: Path | None = None

    @property
    def bridge(self) -> str:
        return self.unit.rpartition("-")[0]

    @property
    def root(self) -> Path:
        return self.directory / "root"

    @property
    def console(self) -> Path:
        return self.directory / "console.log"

    @property
    def socket(self) -> Path:
        return RUN / f"{self.unit}.ssh"

    def supervisor(self) -> list[int]:
        return processes("systemd-nspawn", f"--machine={self.unit}")

    def tunnel(self) -> list[int]:
        return processes("ssh", "-S", str(self.socket))

    @property
    def host_key(self) -> Path:
        return self.root / "etc/ssh/ssh_host_ed25519_key.pub"

    def make_tree(self) -> bool:
        """Unpack the tree that it is made from; return whether that was to be done."""
        if self.root.exists():
            return False
        # Under another name first: a tree that an interrupted run left half-made is never booted.
        partial = self.directory / "root.part"
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        run("tar", "-C", partial, "--numeric-owner", "-xpf", self.image or self.base.path)
        if self.image is None:
            run("ssh-keygen", "-q", "-A", "-f", partial)
        partial.rename(self.root)
        return True

    def boot(self) -> None:
        """Start its systemd; what a killed supervisor left running is ended first: two guests on one tree would destroy it."""
        self.kill_orphans()
        resolver = "copy-uplink" if UPLINK.exists() else "copy-host"
        command = ["systemd-nspawn", "--quiet", "--boot", f"--machine={self.unit}", f"--directory={self.root}"]
        command += ["--keep-unit", "--register=no", "--link-journal=no", f"--resolv-conf={resolver}"]
        command += [f"--network-veth-extra={self.unit}:eth0"]
        if SYSTEMD.is_dir():
            options = ["Type=notify", "KillMode=mixed", "Delegate=yes", "DevicePolicy=auto"]
            options += [f"RestartForceExitStatus={REBOOTS}", f"SuccessExitStatus={REBOOTS}"]
            options += [f"ExecStartPost=ip link set {self.unit} master {self.bridge} up"]
            unit = ["systemd-run", "--quiet", "--collect", f"--unit=vmlops-{self.unit}"]
            run(*unit, *(f"--property={option}" for option in options), *command)
            return

        # Each machine in a cgroup of its own: the payloads of two would meet in the one they were started from. The
        # guest's systemd wants version 2, whatever the host has mounted beside it.
        def enter_cgroups() -> None:
            for group in self.cgroups():
                group.mkdir(exist_ok=True)
                (group / "cgroup.procs").write_text("0")

        with self.console.open("w") as console:
            subprocess.Popen(
                ["sh", "-c", SUPERVISE, "supervise", self.unit, self.bridge, *command],
                preexec_fn=enter_cgroups,
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=console,
                start_new_session=True,
                env={**os.environ, "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1"},
            )

    def cgroups(self) -> list[Path]:
        """Its cgroups on a host without systemd; with it, systemd makes and removes them."""
        return [place / self.unit for place in HIERARCHIES if (place / "cgroup.procs").is_file()]

    def orphans(self) -> Iterator[int]:
        for group in self.cgroups():
            for path in group.rglob("cgroup.procs"):
                yield from map(int, path.read_text().split())

    def kill_orphans(self) -> None:
        if SYSTEMD.is_dir():
            if succeeds("systemctl", "is-active", f"vmlops-{self.unit}"):
                run("systemctl", "stop", f"vmlops-{self.unit}")
            return
        for pid in self.orphans():
            kill(pid, signal.SIGKILL)
        if not wait_until(lambda: not any(self.orphans()), 10):
            raise LabError(f"processes of {self.unit} do not end: {sorted(self.orphans())}")

    def await_device(self) -> None:
        if not wait_until(lambda: Path(f"/sys/class/net/{self.unit}").exists(), 20):
            end = self.console.read_text().strip()[-500:] if self.console.exists() else "see its journal"
            raise LabError(f"systemd-nspawn did not boot {self.name}: {end}")

    def await_ssh(self) -> None:
        def greets() -> bool:
            try:
                with socket.create_connection((str(self.address), 22), timeout=2) as connection:
                    return connection.recv(4) == b"SSH-"
            except OSError:
                return False

        if not wait_until(greets, 60):
            raise LabError(
                f"{self.name} has booted, but nothing answers ssh at {self.address}; its console: {self.console}"
            )

    def forward(self, ssh_config: Path) -> bool:
        """Lead ports of the host's loopback to the machine's; return whether that was to be done."""
        marker, wanted = RUN / f"{self.unit}.ports", json.dumps(self.ports)
        if self.tunnel() and marker.exists() and marker.read_text() == wanted:
            return False
        closed = self.close_tunnel()
        if not self.ports:
            return closed
        RUN.mkdir(exist_ok=True)
        leads = [word for host, guest in self.ports for word in ("-L", f"127.0.0.1:{host}:127.0.0.1:{guest}")]
        options = ["ExitOnForwardFailure=yes", "ServerAliveInterval=10", "ServerAliveCountMax=3"]
        command = ["ssh", "-F", str(ssh_config), "-f", "-N", "-M", "-S", str(self.socket), *leads]
        result = subprocess.run(
            [*command, *(word for option in options for word in ("-o", option)), self.name],
            check=False,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            start_new_session=True,
            text=True,
        )
        if result.returncode:
            raise LabError(f"the ports {wanted} of this host cannot be forwarded: {result.stderr.strip()}")
        marker.write_text(wanted)
        return True

    def close_tunnel(self) -> bool:
        pids = self.tunnel()
        for pid in pids:
            kill(pid, signal.SIGTERM)
        for path in (self.socket, RUN / f"{self.unit}.ports"):
            path.unlink(missing_ok=True)
        return bool(pids)

    def stop(self) -> bool:
        """Shut it down in an orderly way; return whether it ran."""
        ran = bool(self.supervisor()) | self.close_tunnel()
        for number, seconds in ((signal.SIGTERM, 60), (signal.SIGKILL, 10)):
            for pid in self.supervisor():
                kill(pid, number)
            if wait_until(lambda: not self.supervisor(), seconds):
                break
        else:
            raise LabError(f"the supervisor of {self.name} (pid {self.supervisor()}) does not end")
        self.kill_orphans()
        if Path(f"/sys/class/net/{self.unit}").exists():
            run("ip", "link", "delete", self.unit)
        if not SYSTEMD.is_dir():
            for group in self.cgroups():
                for path in sorted(group.rglob("*/"), reverse=True) if group.exists() else ():
                    path.rmdir()
                if group.exists():
                    group.rmdir()
        return ran


@dataclass
class Network:
    """A bridge of this host with a subnet, masqueraded to the outside, and the machines on it."""

    name: str
    subnet: ipaddress.IPv4Network
    machines: list[Machine]
    control: Path
    user: str
    changes: list[str] = field(default_factory=list)

    @property
    def host_address(self) -> ipaddress.IPv4Address:
        return self.subnet[1]

    def log(self, changed: bool, what: str) -> None:
        if changed:
            self.changes.append(what)

    def prepare(self, chosen: list[Machine]) -> None:
        for base in {machine.base for machine in chosen if machine.image is None}:
            self.log(base.make(), f"made {base.path}")

    def start(self, chosen: list[Machine]) -> None:
        self.prepare(chosen)
        self.make_key()
        for machine in chosen:
            self.log(machine.make_tree(), f"made {machine.root}")
        for machine in self.machines:
            if machine.root.exists():
                self.introduce(machine)
        self.write_ssh_config()
        self.raise_bridge()
        booted = [machine for machine in chosen if not machine.supervisor()]
        for machine in booted:
            machine.boot()
        for machine in booted:
            machine.await_device()
            self.log(True, f"booted {machine.name} at {machine.address}")
        for machine in chosen:
            self.log(self.plug(machine), f"connected {machine.name}")
        for machine in chosen:
            machine.await_ssh()
        self.write_ssh_config()  # with the host keys that a first boot made
        for machine in chosen:
            self.log(machine.forward(self.control / "ssh_config"), f"forwarded {machine.ports} to {machine.name}")

    def stop(self, chosen: list[Machine]) -> None:
        for machine in chosen:
            self.log(machine.stop(), f"stopped {machine.name}")
        if not any(machine.supervisor() for machine in self.machines):
            self.lower_bridge()

    def remove(self, chosen: list[Machine]) -> None:
        self.stop(chosen)
        for machine in chosen:
            self.log(machine.directory.exists(), f"removed {machine.directory}")
            if machine.directory.exists():
                shutil.rmtree(machine.directory)
        if self.control.exists() and not any(machine.directory.exists() for machine in self.machines):
            shutil.rmtree(self.control)
            self.log(True, f"removed {self.control}")

    def make_key(self) -> None:
        """Make the control side's SSH key, which belongs to who owns the clone."""
        owner = next(path for path in (self.control, *self.control.parents) if path.exists()).stat()
        missing = [path for path in (self.control, *self.control.parents) if not path.exists()]
        for path in reversed(missing):
            path.mkdir(mode=0o700)
            os.chown(path, owner.st_uid, owner.st_gid)
        key = self.control / "id_ed25519"
        if not key.exists():
            run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "vmlops-lab", "-f", key)
            for path in (key, key.with_suffix(".pub")):
                os.chown(path, owner.st_uid, owner.st_gid)
            self.log(True, f"made {key}")

    def introduce(self, machine: Machine) -> None:
        """Tell a machine its name, its address, its neighbours' names, and the key that may log in."""
        neighbours = "".join(f"{each.address} {each.name}\n" for each in self.machines)
        address = f"{machine.address}/{self.subnet.prefixlen}"
        link = f"[Match]\nName=eth0\n\n[Network]\nAddress={address}\nGateway={self.host_address}\n"
        # For a machine with a resolver of its own; the others' resolv.conf comes from systemd-nspawn.
        link += "".join(f"DNS={server}\n" for server in name_servers())
        etc, home = machine.root / "etc", machine.root / "home" / self.user
        ssh = home / ".ssh"
        ssh.mkdir(mode=0o700, exist_ok=True)
        os.chown(ssh, home.stat().st_uid, home.stat().st_gid)
        key = (self.control / "id_ed25519.pub").read_text()
        proxy = next((os.environ[name] for name in ("http_proxy", "HTTP_PROXY") if os.environ.get(name)), "")
        files = (
            (etc / "hostname", f"{machine.name}\n", etc, 0o644),
            (etc / "hosts", f"127.0.0.1 localhost\n::1 localhost\n{neighbours}", etc, 0o644),
            (etc / "systemd/network/10-eth0.network", link, etc, 0o644),
            # Its packages come the way that the host's do.
            (etc / "apt/apt.conf.d/90proxy", f'Acquire::http::Proxy "{proxy}";\n' if proxy else "", etc, 0o644),
            (ssh / "authorized_keys", key, home, 0o600),
        )
        changed = [put(*file) for file in files]
        self.log(any(changed), f"wrote names and addresses into {machine.name}")

    def write_ssh_config(self) -> None:
        made = [machine for machine in self.machines if machine.root.exists()]
        keys = {machine: machine.host_key.read_text() for machine in made if machine.host_key.exists()}
        known = "".join(f"{machine.address} {key}" for machine, key in keys.items())
        config = "".join(
            f"Host {machine.name} {machine.address}\n"
            f"  HostName {machine.address}\n"
            f"  User {self.user}\n"
            f"  IdentityFile {self.control}/id_ed25519\n"
            "  IdentitiesOnly yes\n"
            f"  UserKnownHostsFile {self.control}/known_hosts\n"
            "  BatchMode yes\n"
            "  LogLevel ERROR\n"
            for machine in made
        )
        changed = [put(self.control / "known_hosts", known, self.control, 0o600)]
        changed += [put(self.control / "ssh_config", config, self.control, 0o600)]
        self.log(any(changed), f"wrote {self.control}/ssh_config")

    def raise_bridge(self) -> None:
        address = f"{self.host_address}/{self.subnet.prefixlen}"
        for line in run("ip", "-o", "-4", "addr", "show").splitlines():
            device, taken = line.split()[1], ipaddress.ip_interface(line.split()[3])
            if device != self.name and taken.ip in self.subnet:
                raise LabError(
                    f"the network {self.subnet} is in use on this host ({device}): move this clone to another path"
                )
        if address not in run("ip", "-o", "-4", "addr", "show").split() or not succeeds(
            "nft", "list", "table", "ip", self.name
        ):
            if not Path(f"/sys/class/net/{self.name}").exists():
                # Without a delay: there is no loop that a new port could close.
                run("ip", "link", "add", self.name, "type", "bridge", "forward_delay", "0")
            run("ip", "addr", "replace", address, "dev", self.name)
            run("ip", "link", "set", self.name, "up")
            table = f"table ip {self.name}"
            rule = f'ip saddr {self.subnet} oifname != "{self.name}" masquerade'
            chain = f"chain postrouting {{\n type nat hook postrouting priority srcnat\n {rule}\n}}"
            run("nft", "-f", "-", data=f"{table}\ndelete {table}\n{table} {{\n{chain}\n}}\n")
            self.log(True, f"made the network {self.subnet}")
        forwarding = Path("/proc/sys/net/ipv4/ip_forward")
        if forwarding.read_text().strip() == "0":
            forwarding.write_text("1")
            RUN.mkdir(exist_ok=True)
            (RUN / "ip_forward_was_0").touch()
            self.log(True, "turned on the forwarding of packets")

    def plug(self, machine: Machine) -> bool:
        """Put a machine's device into the bridge; return whether that was to be done."""
        port = Path(f"/sys/class/net/{machine.unit}")
        is_up = int((port / "flags").read_text(), 16) & 1
        if is_up and (port / "master").exists():
            return False
        run("ip", "link", "set", machine.unit, "master", self.name, "up")
        return True

    def lower_bridge(self) -> None:
        if succeeds("nft", "list", "table", "ip", self.name):
            run("nft", "delete", "table", "ip", self.name)
        if Path(f"/sys/class/net/{self.name}").exists():
            run("ip", "link", "delete", self.name)
            self.log(True, f"removed the network {self.subnet}")
        mark = RUN / "ip_forward_was_0"
        if mark.exists() and not any(Path("/sys/class/net").glob("vml-*")):
            Path("/proc/sys/net/ipv4/ip_forward").write_text("0")
            mark.unlink()
        if RUN.exists() and not any(RUN.iterdir()):
            RUN.rmdir()


def network(params: dict[str, Any]) -> Network:
    """The network that the module's parameters describe; raises LabError where it cannot be."""
    subnet = ipaddress.IPv4Network(params["subnet"])
    machines = []
    for machine in params["machines"]:
        last = subnet.num_addresses - 4  # the network, the host, one address that machines may share, the broadcast
        if not 1 <= machine["number"] <= last:
            raise LabError(
                f"{machine['name']}: lab_machine_number {machine['number']} has no address in {subnet}: give one from 1 to {last}"
            )
        unit = f"{params['network']}-{machine['number']}"
        base = BaseTree(
            Path(params["cache_dir"]), machine["suite"], params["components"], tuple(params["packages"]), params["user"]
        )
        ports = tuple((port["host"], port["guest"]) for port in machine["forwarded_ports"] or ())
        directory, image = Path(params["trees_dir"]) / unit, Path(machine["image"]) if machine["image"] else None
        machines.append(Machine(machine["name"], unit, subnet[1 + machine["number"]], base, directory, ports, image))
    if len({machine.unit for machine in machines}) < len(machines):
        raise LabError("two machines of the network have the same lab_machine_number: give each its own")
    return Network(params["network"], subnet, machines, Path(params["control_dir"]), params["user"])


def main() -> None:
    text = {"type": "str", "required": True}
    path = {"type": "path", "required": True}
    port = {"host": {"type": "int", "required": True}, "guest": {"type": "int", "required": True}}
    machine = {
        "name": text,
        "number": {"type": "int", "required": True},
        "suite": text,
        "image": {"type": "str", "default": ""},
        "forwarded_ports": {"type": "list", "elements": "dict", "options": port},
    }
    module = AnsibleModule(
        argument_spec={
            "state": {**text, "choices": ["prepared", "started", "stopped", "absent"]},
            "network": text,
            "subnet": text,
            "machines": {"type": "list", "elements": "dict", "required": True, "options": machine},
            "chosen": {"type": "list", "elements": "str", "required": True},
            "components": text,
            "packages": {"type": "list", "elements": "str", "required": True},
            "user": text,
            "control_dir": path,
            "trees_dir": path,
            "cache_dir": path,
        }
    )
    os.umask(0o022)
    try:
        lab = network(module.params)
        chosen = [machine for machine in lab.machines if machine.name in module.params["chosen"]]
        act = {"prepared": lab.prepare, "started": lab.start, "stopped": lab.stop, "absent": lab.remove}
        act[module.params["state"]](chosen)
    except LabError as error:
        module.fail_json(msg=str(error))
    module.exit_json(changed=bool(lab.changes), changes=lab.changes)


if __name__ == "__main__":
    main()
