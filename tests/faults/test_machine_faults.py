"""What processes live on breaks under load: memory, disks, the journal, the clock, the certificate, the whole machine."""

from __future__ import annotations

import datetime
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization

from tests.acceptance.conftest import Machine
from tests.faults.conftest import Start
from tests.paths import ROOT

SUDO = [] if os.geteuid() == 0 else ["sudo"]
REPLICA = "vmlops-api-v1@8002"
RELEASES = "/opt/vmlops/releases"
BOOT_SECONDS = 30
Note = Callable[..., None]
Eventually = Callable[..., Any]


def ansible(playbook: str, *options: str) -> subprocess.CompletedProcess[str]:
    program = str(Path(sys.executable).with_name("ansible-playbook"))
    inventory = os.environ.get("VMLOPS_INVENTORY", "inventory/lab")
    return subprocess.run(
        [program, "-i", inventory, playbook, *options], cwd=ROOT, capture_output=True, text=True, check=False
    )


def here(script: str) -> str:
    """Run a shell's commands as root on this computer."""
    result = subprocess.run([*SUDO, "sh", "-ec", script], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


WORKER = f"cat /proc/$(systemctl show --value -p MainPID {REPLICA})/task/*/children"


@contextmanager
def bound_on_memory(host: Any) -> Iterator[None]:
    """Let the replica have a megabyte more than it uses now. The kernel kills what grows beyond it."""
    if "memory" in host.check_output("cat /sys/fs/cgroup/cgroup.controllers").split():
        used = int(host.check_output(f"systemctl show --value -p MemoryCurrent {REPLICA}"))
        host.check_output(f"systemctl set-property --runtime {REPLICA} MemoryMax={used + (1 << 20)}")
        yield
        host.check_output(f"systemctl revert {REPLICA}")
        return
    # A machine on a computer with cgroups of version 1 has no such controller. That computer has, and the same kernel.
    worker, identity = host.check_output(WORKER).split()[0], host.check_output("cat /etc/machine-id")
    group = "/sys/fs/cgroup/memory/vmlops-fault"
    here(
        f"mkdir -p {group}\n"
        f"for p in $(grep -ls '^NSpid:.*[[:space:]]{worker}$' /proc/[0-9]*/status | cut -d/ -f3); do\n"
        f'  if [ "$(cat /proc/$p/root/etc/machine-id)" = {identity} ]; then echo $p > {group}/cgroup.procs; fi\n'
        f"done\n"
        f"echo 1M > {group}/memory.limit_in_bytes"  # of what it takes from now on
    )
    try:
        yield
        control = here(f"cat {group}/memory.oom_control")
        assert "oom_kill 0" not in control, control
    finally:
        here(f"for p in $(cat {group}/cgroup.procs); do echo $p > {group}/../cgroup.procs; done; rmdir {group}")


def test_a_replica_reaches_its_bound_on_memory(host: Any, load: Start, note: Note, eventually: Eventually) -> None:
    """Batches make it grow. The kernel kills it, and others answer what it was asked."""
    before = host.check_output(WORKER)
    with bound_on_memory(host), load(seconds=14) as clients:
        time.sleep(1)
        with load(seconds=10, clients=4, rate=2, path="/predict/batch", batch=256, network=40) as batches:
            eventually(lambda: before not in host.run(WORKER).stdout, "the worker is killed", 10)
            start = time.monotonic()
            ready = "curl -sf -m 1 -o /dev/null http://127.0.0.1:8002/ready"
            eventually(lambda: host.run(ready).rc == 0, "there is another one", 10)
            seconds = time.monotonic() - start
    print("batches:", batches.codes)
    note("a replica reaches its bound on memory", clients, seconds)
    assert seconds <= 5
    assert set(clients.codes) == {"200"}, clients.codes
    assert set(batches.codes) == {"200"}, batches.codes


FULL = ["/var/log", "/var/lib/prometheus", "/var/lib/nginx"]
WRITERS = "systemd-journald nginx.socket mtail prometheus prometheus-alertmanager"


def test_full_disk(host: Any, load: Start, note: Note, eventually: Eventually) -> None:
    """Logs, samples and temporary files are on a file system of which nothing is left."""

    def newest(job: str) -> float:
        """The time of Prometheus's newest sample of a job."""
        query = f'max(timestamp(up{{job="{job}"}}))'
        said = host.run(f"curl -sf --data-urlencode 'query={query}' http://127.0.0.1:9090/api/v1/query").stdout
        found = json.loads(said)["data"]["result"] if said else []
        return float(found[0]["value"][1]) if found else 0.0

    log = "/var/log/nginx/vmlops.access.json"
    binds = "\n".join(f"mkdir -p /mnt{d} && cp -a {d}/. /mnt{d}/ && mount --bind /mnt{d} {d}" for d in FULL)
    host.check_output(f"mount -t tmpfs -o size=1g full /mnt\n{binds}\nsystemctl restart {WRITERS}")
    try:
        eventually(lambda: newest("node") > 0, "Prometheus has a sample", 30)
        seen = newest("node")
        with load(seconds=25) as clients:
            time.sleep(2)
            assert "No space left" in host.run("cat /dev/zero > /mnt/filler").stderr
            time.sleep(8)
            print(host.check_output("df -h /var/log"))
            size = int(host.check_output(f"stat -c %s {log}"))
            start, moment = time.monotonic(), float(host.check_output("rm /mnt/filler; date +%s"))
            eventually(lambda: int(host.check_output(f"stat -c %s {log}")) > size, "the log goes on", 10)
            eventually(lambda: newest("node") >= moment, "Prometheus goes on", 20)
            seconds = time.monotonic() - start
        kept = host.check_output(
            f"curl -s 'http://127.0.0.1:9090/api/v1/query?query=up&time={seen:.0f}' | grep -c '\"job\":\"node\"'"
        )
        note("the disk of logs and samples is full for eight seconds", clients, seconds)
    finally:
        host.check_output(
            f"systemctl stop {WRITERS}; umount --lazy {' '.join(FULL)} /mnt; systemctl start {WRITERS} nginx"
        )
    assert set(clients.codes) == {"200"}, clients.codes
    assert kept == "1", "samples from before are there"
    eventually(lambda: host.run("curl -sf http://127.0.0.1:9090/-/ready").rc == 0, "Prometheus is back on its disk", 30)


def test_read_only_opt(host: Any, load: Start, note: Note) -> None:
    """Instances start from their releases as before, and a rollout says what is wrong before it changes anything."""
    host.check_output("mount --bind /opt /opt && mount -o remount,bind,ro /opt")
    try:
        with load(seconds=8) as clients:
            time.sleep(1)
            start = time.monotonic()
            host.check_output(f"systemctl restart {REPLICA}")
            seconds = time.monotonic() - start
        done = ansible("playbooks/deploy.yml")
    finally:
        host.check_output(f"umount --lazy /opt && systemctl restart {REPLICA}")
    said = " ".join(done.stdout.split())
    note("/opt is read-only, and a replica starts anew", clients, seconds)
    assert set(clients.codes) == {"200"}, clients.codes
    assert done.returncode != 0
    assert "/opt/vmlops/releases is read-only: find out why" in said, said[-3000:]
    assert "Traceback" not in said


JOURNALD = (
    "systemd-journald.socket systemd-journald-dev-log.socket systemd-journald-audit.socket systemd-journald.service"
)


def test_journald_down(host: Any, load: Start, note: Note, eventually: Eventually) -> None:
    """Nobody takes what services say, a replica restarts meanwhile, and afterwards the journal goes on."""
    with load(seconds=14) as clients:
        time.sleep(1)
        host.check_output(f"systemctl stop {JOURNALD} 2>/dev/null")
        try:
            host.check_output(f"systemctl restart {REPLICA}")
            time.sleep(6)
        finally:
            start = time.monotonic()
            host.check_output(f"systemctl start {JOURNALD}")
        host.check_output("logger --tag vmlops-fault after")
        eventually(
            lambda: host.check_output("journalctl -q -o cat -t vmlops-fault -S -1min"), "the journal goes on", 10
        )
        seconds = time.monotonic() - start
    note("journald is down for seven seconds", clients, seconds)
    assert set(clients.codes) == {"200"}, clients.codes
    assert host.check_output("systemctl --failed --no-legend --plain") == ""


# What decides by the time of day: how long verdicts and failures of replicas hold. (Python's sleep fails under libfaketime.)
FAKED = ["vmlops-verifier", "nginx"]


@pytest.fixture(scope="module")
def faked_clock(host: Any) -> Iterator[None]:
    """The gateway asks libfaketime for the time, which has it from /etc/faketimerc."""
    host.check_output(
        "apt-get install -qq -y --no-install-recommends libfaketime >/dev/null && echo +0 > /etc/faketimerc"
    )
    library = host.check_output("dpkg -L libfaketime | grep 'libfaketimeMT.so.1$'")
    lines = (
        f"[Service]\\nEnvironment=LD_PRELOAD={library} FAKETIME_NO_CACHE=1 FAKETIME_DONT_FAKE_MONOTONIC=1 "
        "FAKETIME_DISABLE_SHM=1"
    )
    for unit in FAKED:
        place = f"/run/systemd/system/{unit}.service.d"
        host.check_output(f"mkdir -p {place} && printf '{lines}\\n' > {place}/clock.conf")
    host.check_output(f"systemctl daemon-reload && systemctl restart nginx.socket {' '.join(FAKED)}")
    yield
    host.check_output(
        "rm -f /run/systemd/system/*/clock.conf /etc/faketimerc && systemctl daemon-reload && "
        f"systemctl restart nginx.socket {' '.join(FAKED)}"
    )


@pytest.mark.parametrize("days", ["+1d", "-1d"])
def test_the_clock_is_a_day_off(
    host: Any, machine: Machine, load: Start, note: Note, eventually: Eventually, faked_clock: None, days: str
) -> None:
    """It jumps, and back."""

    def date() -> str:
        with machine.client() as client:
            return str(client.get("/health").headers["date"])

    try:
        with load(seconds=14) as clients:
            time.sleep(3)
            today = date()
            host.check_output(f"echo {days} > /etc/faketimerc")
            eventually(lambda: date()[:16] != today[:16], "nginx has another day", 5)
            time.sleep(4)
            start = time.monotonic()
            host.check_output("echo +0 > /etc/faketimerc")
            eventually(lambda: date()[:16] == today[:16], "nginx has today", 5)
            seconds = time.monotonic() - start
    finally:
        host.check_output("echo +0 > /etc/faketimerc")
    note(f"the clock jumps by {days.replace('d', ' day')}, and back", clients, seconds)
    assert set(clients.codes) == {"200"}, clients.codes
    assert clients.slowest < 2500


def test_expired_certificate(
    host: Any, machine: Machine, load: Start, note: Note, eventually: Eventually, tmp_path: Path
) -> None:
    """Clients refuse it, somebody is woken, and the run that the runbook names puts a good one in its place."""
    paths = host.check_output("sed -n 's/^ssl_certificate.* \\(.*\\);/\\1/p' /etc/nginx/vmlops/tls.conf").split()
    good = x509.load_pem_x509_certificate(host.check_output(f"cat {paths[0]}").encode())
    key = serialization.load_pem_private_key((machine.ca_file.with_suffix(".key")).read_bytes(), None)
    now = datetime.datetime.now(datetime.UTC)
    builder = x509.CertificateBuilder(
        issuer_name=good.issuer, subject_name=good.subject, public_key=good.public_key(),
        serial_number=x509.random_serial_number(), extensions=list(good.extensions),
        not_valid_before=now - datetime.timedelta(days=30), not_valid_after=now - datetime.timedelta(hours=1),
    )  # fmt: skip
    expired = builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM).decode()  # type: ignore[arg-type]
    host.check_output(f"cat > {paths[0]} <<'END'\n{expired}END\nsystemctl reload nginx")

    def is_refused() -> bool:
        try:
            with machine.client() as client:
                client.get("/health")
        except httpx.ConnectError:
            return True
        return False

    try:
        eventually(is_refused, "nginx' workers have the expired certificate", 10)
        host.check_output("systemctl start vmlops-certificate-metrics")
        with load(seconds=8, clients=1, address=machine.address, ca=str(machine.ca_file)) as clients:
            pass
        query = 'ALERTS{alertname="CertificateExpiresNow",alertstate="firing"}'
        asked = f"curl -s --data-urlencode 'query={query}' http://127.0.0.1:9090/api/v1/query"
        eventually(lambda: json.loads(host.check_output(asked))["data"]["result"], "CertificateExpiresNow fires", 120)
    finally:
        start = time.monotonic()
        done = ansible("site.yml", "--tags", "tls")
        assert done.returncode == 0, done.stdout[-3000:]
        with machine.client() as client:
            eventually(lambda: client.get("/health").status_code == 200, "clients take it again", 10)
        seconds = time.monotonic() - start
    note("the certificate has expired (recovered by `site.yml --tags tls`)", clients, seconds)
    assert set(clients.codes) == {"error SSLCertVerificationError"}, clients.codes


def test_the_machine_is_stopped_hard_and_booted(
    host: Any, machine: Machine, load: Start, note: Note, eventually: Eventually
) -> None:
    """All its processes are killed under load. Once it has booted, everything serves, and what was on its disk is there."""
    identity = host.check_output("cat /etc/machine-id")

    def supervisor() -> str:
        """The process of this computer that is the machine's power supply."""
        directory = "tr '\\0' '\\n' < /proc/$p/cmdline | sed -n 's/^--directory=//p'"
        return here(
            f"for p in $(pgrep -x systemd-nspawn); do d=$({directory})\n"
            f'if [ "$(cat $d/etc/machine-id)" = {identity} ]; then echo $p; fi; done'
        )

    def kept() -> str:
        """Releases, accounts, and whether Prometheus has the samples of before."""
        return str(
            host.check_output(
                f"vmlops-api releases; ls {RELEASES}; sha256sum /etc/nginx/vmlops.users /etc/nginx/vmlops.key; "
                f"curl -s 'http://127.0.0.1:9090/api/v1/query?query=max(up)&time={moment}'; "
                f"head -n {lines} /var/log/nginx/vmlops.access.json | sha256sum"
            )
        )

    moment = int(time.time()) - 20
    lines = int(host.check_output("wc -l < /var/log/nginx/vmlops.access.json"))
    before, victim = kept(), supervisor()
    with load(seconds=45, clients=1, timeout=1, address=machine.address) as clients:
        time.sleep(3)
        here(f"kill -KILL {victim}")
        eventually(lambda: not supervisor(), "the machine is off", 10)
        boot = subprocess.Popen(
            [str(Path(sys.executable).with_name("ansible-playbook")), "-i", "inventory/lab", "playbooks/lab.yml"],
            cwd=ROOT, stdout=subprocess.DEVNULL,
        )  # fmt: skip
        eventually(supervisor, "the machine is on", 60)
        start = time.monotonic()

        def serves() -> bool:
            try:
                with machine.client(timeout=1) as client:
                    return client.post("/predict", json={"sentence": "good"}).is_success
            except httpx.TransportError:
                return False

        eventually(serves, "it serves", BOOT_SECONDS)
        seconds = time.monotonic() - start
        assert boot.wait() == 0
    host.run("true")  # the connection of before is gone, and this notices
    eventually(lambda: host.run("curl -sf http://127.0.0.1:9090/-/ready").rc == 0, "Prometheus is ready", 30)
    note("the machine is stopped hard and booted", clients, seconds)
    assert kept() == before
    running = host.run("systemctl is-system-running --wait").stdout.strip()
    assert running == "running", host.check_output("systemctl --failed --no-legend --plain")
    assert clients.codes["200"] > 20


def test_a_release_that_does_not_fit_is_refused_before_it_is_copied(host: Any) -> None:
    """Where releases lie, a file system of 20 MB that has none of them."""
    host.check_output(f"mount -t tmpfs -o size=20m tmpfs {RELEASES}")
    try:
        done = ansible("playbooks/deploy.yml")
        copied = host.check_output(f"ls {RELEASES}")
    finally:
        host.check_output(f"umount {RELEASES}")
    said = " ".join(done.stdout.split())
    assert done.returncode != 0, said
    assert re.search(r"/opt/vmlops/releases has 2[01] MB left, and release [0-9a-f]{12} takes \d+ MB", said), said
    assert "Traceback" not in said
    assert copied == ""
