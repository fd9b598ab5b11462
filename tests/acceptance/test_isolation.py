"""What a taken-over service can do: each unit's sandbox, account and rules of the firewall, tried from inside.

A copy of the unit, with its drop-ins, runs probe.py in place of the service.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.acceptance.conftest import STRAY_PORT, Machine

PROBE = Path(__file__).with_name("probe.py")
SECRETS = [
    "/etc/shadow",
    "/etc/ssh/ssh_host_ed25519_key",
    "/etc/nginx/vmlops.key",
    "/etc/nginx/vmlops.users",
    "/etc/nginx/vmlops.operators",
    "/etc/vmlops/tls/server.key",
    "/etc/prometheus/alertmanager.yml",
    "/home",
    "/root",
]


class Unit(NamedTuple):
    """What a unit may do, besides answering.

    Attributes:
        name: the unit, without ``.service``.
        writes: directories below which it may write.
        reads: those of SECRETS that it is there for.
        asks: names of ``vmlops_ports`` and of instances that it may connect to.
        settings: lines that make the copy what the probe is to be, besides running it.
    """

    name: str
    writes: list[str] = []  # noqa: RUF012 — never changed
    reads: list[str] = []  # noqa: RUF012
    asks: list[str] = []  # noqa: RUF012
    settings: list[str] = []  # noqa: RUF012


INSTANCES = ["v1@8001", "v1@8002", "v1@8003", "v2@8101"]
UNITS = [
    Unit("vmlops-api-v1@8001"),
    Unit("vmlops-api-v2@8101"),
    Unit(
        "vmlops-verifier",
        writes=["/run/vmlops-verifier"],
        reads=["/etc/nginx/vmlops.users", "/etc/nginx/vmlops.operators"],
    ),
    Unit("mtail", writes=["/run/mtail"]),
    Unit("prometheus-node-exporter"),
    Unit("prometheus-nginx-exporter", asks=["nginx_status"]),
    Unit(
        "prometheus-alertmanager",
        writes=["/var/lib/prometheus/alertmanager"],
        reads=["/etc/prometheus/alertmanager.yml"],
    ),
    Unit(
        "prometheus",
        writes=["/var/lib/prometheus/metrics2"],
        asks=[*INSTANCES, "node_exporter", "nginx_exporter", "mtail", "prometheus", "alertmanager"],
    ),
    Unit(
        "nginx",  # its workers, which talk to clients
        writes=["/var/lib/nginx", "/run/vmlops-verdicts"],
        asks=[*INSTANCES, "prometheus", "alertmanager", "grafana"],
        settings=["User=www-data", "Group=www-data", "CapabilityBoundingSet="],
    ),
]
# The copy runs once, without what belongs to the real one: its runtime directory would be removed with the copy.
ONCE = """[Unit]
Requires=
After=
[Service]
Type=oneshot
ExecCondition=
ExecStartPre=
ExecStartPost=
ExecStart=
ExecStart=/usr/bin/python3 -I /usr/local/libexec/vmlops-probe
StandardInput=file:/usr/local/libexec/vmlops-probe.json
ExecReload=
ExecStop=
PIDFile=
RuntimeDirectory=
WorkingDirectory=/
Restart=no
WatchdogSec=0
MemoryDenyWriteExecute=no
StandardOutput=truncate:/var/tmp/vmlops-probe.json
StandardError=inherit
"""


@contextmanager
def copy_of(host: Any, unit: Unit, argument: str) -> Iterator[str]:
    """Make the copy; yields its name."""
    prefix, at, instance = unit.name.partition("@")
    copy = f"vmlops-probe{at}{instance}"
    place = "/run/systemd/system"
    once = "\n".join([ONCE, *unit.settings])
    try:
        host.check_output(
            # The service is to read it, whatever root's own umask is.
            f"umask 022; mkdir -p {place}/vmlops-probe{at}.service.d && "
            f"cp $(systemctl show --value -p FragmentPath {unit.name}) {place}/vmlops-probe{at}.service && "
            f"cp /etc/systemd/system/{prefix}{at}.service.d/*.conf {place}/vmlops-probe{at}.service.d/ 2>/dev/null; "
            f"cat > {place}/vmlops-probe{at}.service.d/zz-once.conf <<'END'\n{once}\nEND\n"
            f"cat > /usr/local/libexec/vmlops-probe <<'END'\n{PROBE.read_text()}\nEND\n"
            f"echo '{argument}' > /usr/local/libexec/vmlops-probe.json; systemctl daemon-reload"
        )
        yield copy
    finally:
        host.run(
            f"rm -rf {place}/vmlops-probe* /usr/local/libexec/vmlops-probe* /var/tmp/vmlops-probe.json; "
            f"systemctl reset-failed {copy}; systemctl daemon-reload"
        )


def main_pid(host: Any, unit: str) -> int:
    return int(host.check_output(f"systemctl show --value -p MainPID {unit}"))


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
@pytest.mark.usefixtures("stray_listener")
def test_a_service_can_do_nothing_but_its_work(host: Any, machine: Machine, unit: Unit) -> None:
    ports = {**machine.ports, **{name: int(name.partition("@")[2]) for name in machine.instances}}
    other = "vmlops-api-v1@8002" if unit.name != "vmlops-api-v1@8002" else "mtail"
    wanted = {
        "pid": main_pid(host, other),
        "files": SECRETS,
        "addresses": [("127.0.0.1", port) for port in ports.values()] + [(machine.address, STRAY_PORT)],
    }
    with copy_of(host, unit, json.dumps(wanted)) as copy:
        host.run(f"systemctl start {copy}")
        said = host.run("cat /var/tmp/vmlops-probe.json").stdout
        evidence = host.run(f"journalctl --no-pager -n 20 -o cat -u {copy}").stdout
    assert said, f"the probe did not run in the sandbox of {unit.name}:\n{evidence}"
    found = json.loads(said)
    print(json.dumps(found, indent=2))

    outside = [path for path in found["writable"] if not any(path.startswith(place) for place in unit.writes)]
    # of systemd's PrivateTmp= and PrivateDevices=: nobody else has them
    assert [path for path in outside if path not in ("/tmp", "/var/tmp", "/dev/shm", "/dev/mqueue")] == []
    assert {path for path, error in found["files"].items() if error is None} == set(unit.reads)
    reached = {address for address, error in found["addresses"].items() if error in (None, "ECONNREFUSED")}
    assert reached == {f"127.0.0.1:{ports[name]}" for name in unit.asks}
    assert set(found["others"].values()) <= {"EPERM", "EACCES", "ESRCH", "ENOENT"}, found["others"]
    assert found["module"] == "EPERM"


def test_the_probe_finds_what_is_open(host: Any, machine: Machine, stray_listener: None) -> None:
    """The same attempts by root outside of any sandbox succeed: the test above can fail."""
    wanted = {
        "pid": main_pid(host, "vmlops-api-v1@8002"),
        "files": SECRETS,
        "addresses": [("127.0.0.1", machine.ports["alertmanager"]), (machine.address, STRAY_PORT)],
    }
    program = f"echo '{json.dumps(wanted)}' | python3 /dev/fd/3 3<<'END'\n{PROBE.read_text()}\nEND"
    found = json.loads(host.check_output(program))
    assert set(found["files"].values()) == {None}
    assert set(found["addresses"].values()) == {None}
    assert found["others"]["signal"] is None
    assert "/etc" in found["writable"] or "/" in found["writable"]


def test_services_share_no_account(host: Any, eventually: Callable[..., Any]) -> None:
    accounts: dict[str, str] = {}
    for unit in UNITS:
        account = host.check_output(f"stat -c %u /proc/{main_pid(host, unit.name)}")
        assert account not in accounts, f"{unit.name} and {accounts[account]} are both {account}"
        accounts[account] = unit.name


@pytest.mark.parametrize(
    ("pattern", "limit"),
    [("vmlops-*", 1.5), ("nginx mtail prometheus* grafana*", 3.0)],
    ids=["of this project", "of the distribution"],
)
def test_units_stay_below_their_limit_of_exposure(host: Any, pattern: str, limit: float) -> None:
    """What `systemd-analyze security` says of the units as they are loaded."""
    quoted = " ".join(f"'{word}.service'" for word in pattern.split())
    listed = host.check_output(f"systemctl list-units --all --plain --no-legend {quoted}").splitlines()
    # Timers of the distribution that we do not use have units here, too.
    units = [line.split()[0] for line in listed if line.split()[1] == "loaded"]
    exposure = {}
    for unit in units:
        report = json.loads(host.check_output(f"systemd-analyze security --no-pager --json=short {unit}"))
        overall = host.run(f"systemd-analyze security --no-pager --threshold={limit * 10:.0f} {unit}")
        exposure[unit] = (overall.rc, [c["name"] for c in report if not c["set"]], overall.stdout.splitlines()[-1])
    assert len(units) >= 5, units
    assert {unit: why for unit, why in exposure.items() if why[0] != 0} == {}
