"""The machine of this clone, a lab machine or a VM: started, looked at, stopped, removed."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path

from host import box, checks, libvirt, providers
from host.commands import ROOT, Problem, ask_become_pass, find, output, run, succeeds

# Patterns of whole names, suffix included: `systemctl list-units nginx` finds nothing.
UNITS = ("vmlops-*", "nginx*", "prometheus*", "grafana*", "mtail*")
SENTENCE = '{"sentence": "Oh yeah, that was soooo cool!"}'
# What Vagrant keeps of a VM, also of one that `vagrant up` made.
VM_SETTINGS = ROOT / ".vagrant/settings.json"
# The acceptance tests that see that everything serves again after a reboot; how it fails was seen before it.
AFTER_REBOOT = (
    "test_contract.py", "test_features.py", "test_firewall.py", "test_machine.py", "test_readme.py",
    "test_monitoring.py::test_every_target_answers",
)  # fmt: skip


def settings() -> dict[str, str]:
    return providers.settings(os.environ, providers.remembered())


def ports(of: Mapping[str, str]) -> dict[str, str]:
    """Those of some settings that are ports."""
    return {name: of[name] for name in providers.PORTS}


def environment() -> str:
    """The inventory of the machine, which is also its name."""
    return "lab" if settings()["PROVIDER"] == "lab" else "vagrant"


def ssh_config() -> Path:
    path = ROOT / (".vagrant/ssh_config" if environment() == "vagrant" else ".lab/lab/ssh_config")
    if not path.exists():
        raise Problem("this clone has no machine: make start-project")
    return path


def ssh(*words: str) -> list[str]:
    """The command that runs ``words`` in the machine, as ssh passes them to its shell."""
    return ["ssh", "-F", str(ssh_config()), environment(), *words]


def playbook(name: str, inventory: str = "", *arguments: str) -> None:
    run("ansible-playbook", "-i", f"inventory/{inventory or environment()}", name, *arguments)


def lab(state: str, inventory: str = "lab") -> None:
    playbook("playbooks/lab.yml", inventory, "-e", f"lab_machine_state={state}", *ask_become_pass())


def make(*targets: str) -> None:
    run("make", "--no-print-directory", *targets, environment={"MAKEFLAGS": ""})


def prepare() -> None:
    """Make the lab machine's base tree, where there is no machine yet."""
    if not (ROOT / ".lab/lab/ssh_config").exists():
        lab("prepared")


def start() -> None:
    there = providers.remembered()
    providers.check_unchanged(os.environ, there)
    wanted = {
        **settings(),
        "PROVIDER": providers.choose(os.environ.get("PROVIDER", ""), there.get("PROVIDER", "")),
    }
    checks.check_ports(ports(wanted), machine_of=ROOT if there or VM_SETTINGS.exists() else None)
    if wanted["PROVIDER"] == "lab":
        checks.check_host()
        providers.remember(wanted)
        make("build-project")
        lab("started")
        playbook("site.yml")
    else:
        checks.check_space()
        providers.remember(wanted)
        make(".venv/control")
        start_vm(wanted)
    print(summary())


def start_vm(wanted: dict[str, str]) -> None:
    environ = ports(wanted)
    if wanted["PROVIDER"] == "libvirt":
        libvirt.install()
        libvirt.start()
        if not providers.kvm_works():
            environ["EMULATE"] = "1"
            print("Hardware virtualization does not work here: the processor is emulated; it takes 15 minutes.")
        if not os.environ.get("BOX") and not VM_SETTINGS.exists() and not published_box_is_there():
            environ["BOX"] = box.name()
            if box.name() not in output("vagrant", "box", "list"):
                print("The published box cannot be downloaded: building one from this distribution's packages.")
                box.build()
    if not find("vagrant"):
        raise Problem("Vagrant is not installed: install it, or use PROVIDER=lab")
    run("vagrant", "up", f"--provider={wanted['PROVIDER']}", "--provision", environment=environ)


def published_box_is_there() -> bool:
    published: str = json.loads((ROOT / "host/boxes.json").read_text())["libvirt"][0]
    url = f"https://vagrantcloud.com/{published}"
    return published in output("vagrant", "box", "list") or succeeds("curl", "-sSfI", "--max-time", "10", url)


def stop() -> None:
    if environment() == "lab":
        lab("stopped")
    else:
        run("vagrant", "halt")


def destroy() -> None:
    """Remove the machine and all that it changed on this host."""
    if environment() == "lab":
        if (ROOT / ".venv/control").exists():
            lab("absent")
    else:
        run("vagrant", "destroy", "--force")
        libvirt.stop()
    shutil.rmtree(ROOT / ".lab/lab", ignore_errors=True)
    for file in (".lab/settings.json", "certs/ca.crt", "certs/ca.key", f"certs/{environment()}.crt"):
        (ROOT / file).unlink(missing_ok=True)


def predict(*headers: str, at: str = "", ca: str = "certs/ca.crt") -> list[str]:
    """The command that asks a running system for a prediction, as a person types it; by default this clone's machine."""
    options = [word for header in ("Content-Type: application/json", *headers) for word in ("-H", header)]
    return ["curl", "--cacert", ca, "-u", "admin:admin", f"{at or url()}/predict", *options, "-d", SENTENCE]


def url() -> str:
    port = settings()["HTTPS_PORT"]
    return f"https://localhost:{port}".removesuffix(":443")


def first_prediction(command: list[str]) -> str:
    """The answer to a command of predict(); raises Problem with what was answered in its place."""
    result = subprocess.run(
        [*command, "-sS", "--fail-with-body"], cwd=ROOT, check=False, capture_output=True, text=True
    )
    if result.returncode:
        said = " ".join((result.stderr + result.stdout).split())
        raise Problem(
            f"the system is provisioned, but does not answer a prediction: {said}; see make status and make logs"
        )
    return result.stdout


def left_out(*ssh_command: str) -> str:
    """What the roles left out on a machine, and why."""
    return output(*ssh_command, "cat /etc/vmlops/left_out.d/* 2>/dev/null || true").strip()


def summary() -> str:
    """What runs now and how to use it; raises Problem where the machine does not answer its first prediction."""
    command, made = predict(), settings()
    answer, missing = first_prediction(command), left_out(*ssh())
    http = f"http://localhost:{made['HTTP_PORT']}".removesuffix(":80")
    address = re.search(r"HostName (\S+)", ssh_config().read_text())
    what = f"{'lab machine' if environment() == 'lab' else 'VM'} {address[1] if address else ''}"
    grafana = f"http://localhost:{made['GRAFANA_PORT']}/   {url()}/grafana/"
    return f"""
vmlops runs in the {what} and is published on this host's loopback:

  API          {url()}/predict   ({http} redirects)
  Credentials  admin / admin
  CA           certs/ca.crt
  Monitoring   {url()}/prometheus/consoles/vmlops.html   (Prometheus's API: http://localhost:{made["PROMETHEUS_PORT"]}/api/v1/)
  Grafana      {"left out, see below" if "Grafana" in missing else grafana}

Try it:

  {shlex.join(command)}

  {answer}

The debug version answers with -H 'X-Experiment-Group: debug'.   make ssh · make status · make logs · make stop-project
{"Left out: " + missing if missing else ""}""".rstrip()


def status() -> list[str]:
    units = " ".join(map(shlex.quote, UNITS))
    return ssh(f"sudo vmlops-api status; systemctl list-units --no-legend --plain {units}")


def logs() -> list[str]:
    return ssh("sudo journalctl --follow --lines=50 " + " ".join(f"--unit={shlex.quote(unit)}" for unit in UNITS))


def test_vm() -> None:
    """The acceptance tests on a VM that is made for them, before and after a reboot; KEEP=1 leaves it behind."""
    if providers.remembered():
        raise Problem("this clone has a machine: make destroy-project first, or test in another clone")
    os.environ.setdefault("PROVIDER", "libvirt")
    begin = time.monotonic()

    def say(what: str) -> None:
        minutes, seconds = divmod(int(time.monotonic() - begin), 60)
        print(f"{what} after {minutes} min {seconds} s", flush=True)

    # `direct` tests ask the machine at its own address: of a VM, only the forwarded ports are for others.
    # `native` tests measure processor time or need much of it: an emulated processor has too little.
    emulated = os.environ["PROVIDER"] == "libvirt" and not providers.kvm_works()
    pytest = ("pytest", "-m", "not direct and not native" if emulated else "not direct")
    control = {"VMLOPS_CONTROL_DIR": str(ROOT / ".vagrant")}
    try:
        start()
        say("Provisioned")
        run(*pytest, "--durations=10", "tests/acceptance", environment=control)
        say("Tested")
        run("vagrant", "reload", "--no-provision")
        again = [f"tests/acceptance/{test}" for test in AFTER_REBOOT]
        run(*pytest, *again, environment=control)
        say("Rebooted and tested")
    finally:
        # Nothing is remembered where start() refused, and then there is nothing to remove.
        if providers.remembered() and not os.environ.get("KEEP"):
            taken = ports(settings())
            destroy()
            checks.check_ports(taken)
            say("Removed")
