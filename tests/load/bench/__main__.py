"""`python -m tests.load.bench [--quick] [--keep]`: measures, and writes docs/benchmarks.md, .json and the
pictures; a quick run to build/bench/."""

from __future__ import annotations

import argparse
import csv
import http.client
import json
import shutil
import ssl
import statistics
import subprocess
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic
from typing import Any

from tests.load.bench import gateway, growth, load, machine, parts, report, stacks
from tests.load.bench.machine import CONTROL, WORK, Machine, MachineError
from tests.load.bench.stacks import Stack
from tests.paths import ROOT

SENTENCES = 200
CONNECTIONS = 32
HALF_LOAD_SECONDS = 10.0  # of a row
PARTS_SECONDS = 3.0  # of a row in a round
GROWTH_SECONDS = 4.0  # of a point
RESTLESS = 20_000  # µs of CPU in an idle second
CREDENTIALS = ("admin", "admin")
FAILURES = (MachineError, RuntimeError, OSError, ValueError, KeyError, subprocess.SubprocessError)


@dataclass(frozen=True)
class Effort:
    """How long each measurement takes."""

    rounds: int
    seconds: float  # of a row in a round
    starts: int
    compared: int  # sentences whose labels are
    whole: bool  # second runs of the playbooks, half load and growth


FULL = Effort(rounds=7, seconds=5, starts=5, compared=200, whole=True)
QUICK = Effort(rounds=2, seconds=1, starts=1, compared=50, whole=False)


@dataclass
class Bench:
    """The results so far."""

    machine: Machine
    effort: Effort
    sentences: list[str]
    rows: dict[str, dict[str, Any]] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)  # what could not be measured, and why
    provisioning: dict[str, dict[str, Any]] = field(default_factory=dict)
    parts: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    growth: dict[str, list[growth.Point]] = field(default_factory=dict)
    ours: Stack = field(default_factory=lambda: stacks.ours(machine.instances()))

    @contextmanager
    def attempt(self, what: str) -> Iterator[None]:
        """Run a measurement; where it fails, record it as missing and go on with the others."""
        began = monotonic()
        print(f"{what} …", end=" ", flush=True)
        try:
            yield
            print(f"{monotonic() - began:.0f} s", flush=True)
        except FAILURES as error:
            self.missing[what] = str(error) or repr(error)
            print(f"missing: {self.missing[what]}", flush=True)
            if not isinstance(error, (MachineError, RuntimeError)):
                traceback.print_exc()

    def target(self, stack: Stack) -> load.Target:
        bodies = WORK / "bodies" / stack.name
        load.write_bodies(bodies, [stack.body(sentence) for sentence in self.sentences])
        return load.Target(self.machine.address, stack.gateway_port, stack.path, bodies, CREDENTIALS)


def sentences() -> list[str]:
    """Return texts spread evenly over the data."""
    with (ROOT / "data" / "tweet_emotions.csv").open(newline="", encoding="utf-8") as file:
        texts = [row["content"] for row in csv.DictReader(file)]
    return texts[:: max(len(texts) // SENTENCES, 1)][:SENTENCES]


def labels(bench: Bench, stack: Stack) -> list[str]:
    """Its answers to the sentences, through the gateway. Raises RuntimeError on any other status than 200."""
    context = ssl.create_default_context(cafile=str(CONTROL / "certs" / "ca.crt"))
    target = bench.target(stack)
    connection = http.client.HTTPSConnection(target.address, target.port, timeout=30, context=context)
    found = []
    try:
        for body in target.bodies.read_text().splitlines()[: bench.effort.compared]:
            headers = {"Content-Type": "application/json", "Authorization": target.authorization}
            connection.request("POST", target.path, body, headers)
            response = connection.getresponse()
            received = response.read()
            if response.status != 200:
                raise RuntimeError(f"answered {response.status}: {received[:200].decode(errors='replace')}")
            found.append(stack.label(json.loads(received)))
    finally:
        connection.close()
    return found


def provision(bench: Bench) -> None:
    """site.yml; and, if there is time, once more, and the deploy of another model. Raises MachineError."""
    if bench.machine.found:
        bench.missing["provisioning"] = "the machine was there already"
        return
    bench.provisioning["a fresh machine: its tree and its boot"] = bench.machine.boot
    bench.provisioning["`site.yml` on it"] = machine.playbook("site.yml")
    if not bench.effort.whole:
        return
    bench.provisioning["`site.yml` again"] = machine.playbook("site.yml")
    redeploy(bench)


def redeploy(bench: Bench) -> None:
    """Another model, and back. Raises MachineError."""
    project = WORK / "project"
    shutil.rmtree(project, ignore_errors=True)
    for part in ("app", "host", "release", "requirements", "model/artifacts"):
        shutil.copytree(ROOT / part, project / part, ignore=shutil.ignore_patterns("__pycache__"))
    manifest = project / "model" / "artifacts" / "manifest.json"
    document = json.loads(manifest.read_text())
    manifest.write_text(json.dumps({**document, "model_version": "0" * 12}, ensure_ascii=False))
    other = ["-e", f"api_project_dir={project}", "-e", f"api_archive_dir={WORK / 'releases'}"]
    bench.provisioning["`make deploy` of another model"] = machine.playbook("playbooks/deploy.yml", *other)
    bench.provisioning["`make rollback`"] = machine.playbook("playbooks/rollback.yml")


def install(bench: Bench) -> list[Stack]:
    """Install everything but our stack on the machine; return what was installed."""
    here = bench.machine
    python = here.python()
    tests = Path(__file__).parents[1]
    files: dict[str, str | Path] = {
        f"{stacks.MODEL[1:]}": ROOT / "model" / "model.joblib",
        f"{stacks.HOME[1:]}/code/bench": tests / "bench",
        f"{stacks.HOME[1:]}/code/reference": tests / "reference",
        f"{stacks.HOME[1:]}/code/peers": tests / "peers",
        **stacks.GATEWAY_FILES,
    }
    usable: dict[str, bool] = {"": True}
    on_machine = here.ssh(f"[ ! -e {stacks.HOME} ] || ls {stacks.HOME}").decode().split()
    for environment in dict.fromkeys(stack.environment for stack in stacks.OTHERS if stack.environment):
        usable[environment] = False
        with bench.attempt(f"packages of {environment}"):
            tree = machine.fetch(environment, python)
            if environment not in on_machine or not here.found:
                files[f"{stacks.HOME[1:]}/{environment}/site-packages"] = tree
            usable[environment] = True
    present = [stack for stack in stacks.OTHERS if usable[stack.environment]]
    for stack in present:
        files |= stack.unit_files()
    upstreams = {
        stack.gateway_port: stack.unit_ports for stack in present if stack.gateway_units == (stacks.GATEWAY_UNIT,)
    }
    for count in growth.REPLICAS:
        upstreams[growth.FIRST_GATEWAY_PORT + count] = tuple(8000 + n for n in range(1, count + 1))
    constant = '{"prediction":"neutral","model_version":"000000000000"}'
    nginx = here.ssh("/usr/sbin/nginx -v 2>&1").decode().rpartition("/")[2].strip()
    files |= gateway.tree(here.address, upstreams, nginx, stacks.CONSTANT, constant)
    with bench.attempt("copying to the machine"):
        here.put(files)
    here.ask("gateway", directory=gateway.DIRECTORY)
    here.ask(
        "reference",
        template=f"{stacks.HOME}/code/reference/nginx.conf",
        user=CREDENTIALS[0],
        password=CREDENTIALS[1],
        port=stacks.REFERENCE.gateway_port,
        servers=stacks.REFERENCE.unit_ports,
        certificate="/etc/vmlops/tls/server.crt",
        key="/etc/vmlops/tls/server.key",
    )
    # The copy of our gateway runs as nginx does, and the firewall knows whom that account may ask.
    here.ask("units", verb="reload", units=["vmlops-firewall.service"])
    here.ask("units", verb="restart", units=[stacks.GATEWAY_UNIT, stacks.REFERENCE_UNIT])
    return present


def begin(bench: Bench, stack: Stack) -> None:
    """Start a row and take the time, have it answer every sentence, and read its memory."""
    row: dict[str, Any] = {"title": stack.title, "runs": []}
    here = bench.machine
    if stack.units and not stack.shares:
        request = {"path": stack.path, "body": stacks.body_of(stack, bench.sentences[0])}
        row["starts"] = here.ask(
            "start", unit=stack.units[0], port=stack.unit_ports[0], times=bench.effort.starts, **request
        )
        if stack is not bench.ours and stack.units[1:]:
            here.ask("units", verb="restart", units=stack.units[1:])
        for unit, port in zip(stack.units[1:], stack.unit_ports[1:], strict=True):
            here.ask("ready", unit=unit, port=port, **request)
    row["labels"] = labels(bench, stack)
    load.wrk(bench.target(stack), CONNECTIONS, 1)
    if stack.units and not stack.shares:
        row |= here.ask("memory", units=stack.memory_units or stack.units)
        busy = here.cpu(stack.units)
        here.ssh("sleep 1")
        row["idle_us"] = sum(here.cpu(stack.units).values()) - sum(busy.values())
        row["restless"] = row["idle_us"] > RESTLESS and stack is not bench.ours
        if row["restless"]:
            here.ask("units", verb="freeze", units=stack.units)
    bench.rows[stack.name] = row


@contextmanager
def thawed(bench: Bench, stack: Stack) -> Iterator[None]:
    """A row that keeps the processor busy while nobody asks it is frozen while others are measured."""
    if not bench.rows[stack.name].get("restless"):
        yield
        return
    bench.machine.ask("units", verb="thaw", units=stack.units)
    yield
    bench.machine.ask("units", verb="freeze", units=stack.units)


def run(bench: Bench, stack: Stack) -> None:
    """One round of a row."""
    before = bench.machine.cpu([*stack.units, *stack.gateway_units])
    found = load.wrk(bench.target(stack), CONNECTIONS, bench.effort.seconds)
    after = bench.machine.cpu([*stack.units, *stack.gateway_units])
    used = {unit: after[unit] - before[unit] for unit in after}
    found["rate"] = found["requests"] / found["seconds"]
    found["app_us"] = sum(used[unit] for unit in stack.units) / found["requests"] if stack.units else None
    found["gateway_us"] = sum(used[unit] for unit in stack.gateway_units) / found["requests"]
    bench.rows[stack.name]["runs"].append(found)


def measure(bench: Bench) -> None:
    here, effort = bench.machine, bench.effort
    present = install(bench)
    with bench.attempt(bench.ours.title.replace("*", "")):
        begin(bench, bench.ours)
    # The others once before it counts, which writes their byte code.
    first = [stack for stack in present if stack.units and not stack.shares]
    here.ask("units", verb="start", units=[stack.units[0] for stack in first])
    for stack in first:
        with bench.attempt(f"byte code of {stack.name}"):
            body = stacks.body_of(stack, bench.sentences[0])
            here.ask("ready", unit=stack.units[0], port=stack.unit_ports[0], path=stack.path, body=body)
    for stack in present:
        with bench.attempt(stack.title.replace("*", "")):
            begin(bench, stack)
    running = [stack for stack in (bench.ours, *present) if stack.name in bench.rows]
    with bench.attempt(f"{effort.rounds} rounds of {len(running)} rows"):
        for _ in range(effort.rounds):
            for stack in running:
                with thawed(bench, stack):
                    run(bench, stack)
    if not effort.whole:
        return
    with bench.attempt("half load"):
        for stack in running:
            runs = bench.rows[stack.name]["runs"]
            rate = statistics.median(run["rate"] for run in runs) / 2
            with thawed(bench, stack):
                found = load.at_rate_apart(bench.target(stack), rate, HALF_LOAD_SECONDS)
            bench.rows[stack.name]["half"] = found
    # What follows is about our stack alone.
    here.ask("units", verb="stop", units=[unit for stack in present if not stack.shares for unit in stack.units])
    with bench.attempt("what each part costs"):
        nginx = here.ask("describe")["nginx"]
        target = bench.target(bench.ours)
        bench.parts = parts.measure(here, bench.ours, nginx, target, WORK, effort.rounds, PARTS_SECONDS)
    curves = growth.Curves(here, bench.ours, bench.target(bench.ours), bench.sentences, GROWTH_SECONDS)
    for name in growth.CURVES:
        with bench.attempt(f"growth by {name}"):
            bench.growth[name] = getattr(curves, f"by_{name}")()


def versions(bench: Bench) -> dict[str, str]:
    found: dict[str, str] = bench.machine.ask("describe")
    for name in ("litserve", "bentoml", "mlserver"):
        if (WORK / name).exists():
            found[name] = machine.installed(WORK / name / "site-packages", name)
    for name in ("scikit-learn", "fastapi", "uvicorn"):
        found[name] = machine.installed(WORK / "reference" / "site-packages", name)
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="rough figures in a few minutes")
    parser.add_argument("--keep", action="store_true", help="leave the machine behind, and use it again")
    options = parser.parse_args()
    effort = QUICK if options.quick else FULL
    began = monotonic()
    if not (ROOT / "model" / "model.joblib").exists():
        sys.exit("vmlops: model/model.joblib is missing: run `make model` first")
    with Machine(options.keep) as here:
        bench = Bench(here, effort, sentences())
        with bench.attempt("provisioning"):
            provision(bench)
        if bench.missing and not here.found:  # nothing to measure
            return 1
        with bench.attempt("everything after provisioning"):
            measure(bench)
        found = {
            "quick": options.quick,
            "effort": vars(effort),
            "connections": CONNECTIONS,
            "sentences": len(bench.sentences),
            "versions": versions(bench),
            "rows": bench.rows,
            "parts": bench.parts,
            "growth": bench.growth,
            "provisioning": bench.provisioning,
            "missing": bench.missing,
            "seconds": monotonic() - began,
        }
    (WORK / "found.json").write_text(json.dumps(found))
    output = WORK if options.quick else ROOT / "docs"
    report.write(found, output)
    print((output / "benchmarks.md").read_text())
    return 0


if __name__ == "__main__":
    sys.exit(main())
