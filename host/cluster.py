"""Lab machines on one network of this host, as inventory/cluster says: gateways, API hosts and one that watches."""

from __future__ import annotations

import ipaddress
import re
import shlex
import shutil
from pathlib import Path

from host import checks, machine
from host.commands import ROOT

CONTROL = ROOT / ".lab/cluster"


def start() -> None:
    checks.check_host()
    checks.check_space({Path("/var"): 6000})
    machine.make("build-project")
    machine.lab("started", "cluster")
    machine.playbook("site.yml", "cluster")
    print(summary())


def stop() -> None:
    machine.lab("stopped", "cluster")


def destroy() -> None:
    machine.lab("absent", "cluster")
    shutil.rmtree(CONTROL, ignore_errors=True)


def hosts() -> dict[str, str]:
    """The address of each machine by its name."""
    return dict(re.findall(r"^Host (\S+) (\S+)$", (CONTROL / "ssh_config").read_text(), re.MULTILINE))


def virtual_address() -> str:
    """The address that the gateways share: the last usable one of the machines' network, as inventory/lab_machine.yml has it."""
    address = next(iter(hosts().values()))
    return str(ipaddress.ip_interface(f"{address}/28").network[-2])


def summary() -> str:
    """What runs now and how to use it; raises Problem where the cluster does not answer its first prediction."""
    url = f"https://{virtual_address()}"
    command = machine.predict(at=url, ca=".lab/cluster/certs/ca.crt")
    answer = machine.first_prediction(command)
    missing = machine.left_out("ssh", "-F", str(CONTROL / "ssh_config"), "monitoring1")
    machines = "\n".join(f"               {name:12} {address}" for name, address in hosts().items()).lstrip()
    return f"""
vmlops runs in a cluster of lab machines, whose gateways share the address {virtual_address()}:

  API          {url}/predict
  Credentials  admin / admin
  CA           .lab/cluster/certs/ca.crt
  Monitoring   {url}/prometheus/consoles/vmlops.html
  Grafana      {"left out, see below" if "Grafana" in missing else url + "/grafana/"}
  Machines     {machines}

Try it:

  {shlex.join(command)}

  {answer}

ssh -F .lab/cluster/ssh_config gateway1 logs in.   ENVIRONMENT=cluster make deploy · make stop-cluster · make destroy-cluster
{"Left out: " + missing if missing else ""}""".rstrip()
