"""make score ON=cluster on lab machines: what fails under a run, what the firewall lets in, and how it is all taken away."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.paths import ROOT
from tests.workers.conftest import ENVIRONMENT, Hosts, lab, playbook

ROWS = 400_000
SCHEDULER, PORT, FIRST = "worker1", 8786, 8801


@pytest.fixture(scope="session")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sentences of data/, again and again, each with its number, so that no two rows are the same."""
    with (ROOT / "data/tweet_emotions.csv").open(newline="", encoding="utf-8") as file:
        sentences = [row["content"] for row in csv.DictReader(file)]
    path = tmp_path_factory.mktemp("workers") / "in.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["n", "content"])
        writer.writerows((n, f"{sentences[n % len(sentences)]} {n}") for n in range(ROWS))
    return path


@pytest.fixture(scope="session")
def whole(source: Path) -> bytes:
    """What this computer alone makes of it."""
    output = source.with_name("whole.csv")
    subprocess.run(score(source, output), cwd=ROOT, check=True, env=environment())
    return output.read_bytes()


def score(source: Path, output: Path, *variables: str) -> list[str]:
    return ["make", "score", f"INPUT={source}", f"OUTPUT={output}", *variables]


def environment() -> dict[str, str]:
    return {**os.environ, "MAKEFLAGS": "", "ENVIRONMENT": ENVIRONMENT}


class Run:
    """make score ON=cluster, broken into when a third of the rows is done."""

    def __init__(self, source: Path, output: Path) -> None:
        self.output, self.log = output, output.with_suffix(".log")
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                score(source, output, "ON=cluster"), cwd=ROOT, env=environment(), stdout=log, stderr=log
            )

    def await_rows(self, rows: int) -> None:
        journal = self.output.with_name(f"{self.output.name}.journal")
        deadline = time.monotonic() + 300
        while not (journal.exists() and json.loads(journal.read_text())["rows"] > rows):
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.2)

    def end(self) -> str:
        status = self.process.wait(timeout=580)
        said = self.log.read_text()
        print(said)
        assert status == 0, said
        return said


@pytest.fixture
def broken(hosts: Hosts, source: Path, whole: bytes, tmp_path: Path) -> Callable[..., str]:
    """broken(fault) breaks something in the middle of a run, which must end with the bytes of one that nothing happened to."""

    def run(*faults: Callable[[], object]) -> str:
        output = tmp_path / "out.csv"
        run = Run(source, output)
        for number, fault in enumerate(faults):
            run.await_rows(ROWS // 3 * (number + 1) // len(faults))
            fault()
        said = run.end()
        assert output.read_bytes() == whole
        return said

    return run


def test_a_worker_that_is_killed(hosts: Hosts, broken: Callable[..., str]) -> None:
    broken(lambda: hosts.ssh("worker2", "systemctl kill --signal=KILL 'vmlops-worker@*'"))
    assert hosts.ssh("worker2", f"systemctl is-active vmlops-worker@{FIRST}") == "active"


def test_a_scheduler_that_is_restarted(hosts: Hosts, broken: Callable[..., str]) -> None:
    said = broken(lambda: hosts.ssh(SCHEDULER, "systemctl restart vmlops-scheduler"))
    assert "The workers were lost after row" in said


def test_a_scheduler_that_is_killed(hosts: Hosts, broken: Callable[..., str]) -> None:
    said = broken(lambda: hosts.ssh(SCHEDULER, "systemctl kill --signal=KILL vmlops-scheduler"))
    assert "The workers were lost after row" in said


def test_a_host_that_is_cut_off_and_comes_back(hosts: Hosts, broken: Callable[..., str]) -> None:
    try:
        broken(lambda: hosts.cable("worker3", "down"))
    finally:
        hosts.cable("worker3", "up")


def test_the_schedulers_host_is_started_anew(hosts: Hosts, broken: Callable[..., str]) -> None:
    def reboot() -> None:
        hosts.cable(SCHEDULER, "down")  # at once: to shut it down takes longer than the rest of the run
        for state in ("stopped", "started"):
            lab(state, "--limit", SCHEDULER)

    said = broken(reboot)
    assert "The workers were lost after row" in said


def test_units_are_idle_and_confined(hosts: Hosts) -> None:
    for host in hosts.addresses:
        units = [f"vmlops-worker@{FIRST}", *(["vmlops-scheduler"] if host == SCHEDULER else [])]
        for unit in units:
            pid = hosts.ssh(host, f"systemctl show --property=MainPID --value {unit}")
            assert "SCHED_IDLE" in hosts.ssh(host, f"chrt --pid {pid}")
            assert hosts.ssh(host, f"systemctl show --property=Nice --value {unit}") == "19"
            assert hosts.ssh(host, f"systemctl show --property=MemoryMax --value {unit}") == str(1024 << 20)
            said = hosts.ssh(host, f"systemd-analyze security --no-pager {unit}", check=False)
            assert float(said.splitlines()[-1].rpartition(": ")[2].split()[0]) <= 1.5, said


def reaches(hosts: Hosts, source: str, target: str, port: int) -> bool:
    """Whether anything answers a connection, as an account without rules of its own."""
    return not hosts.ssh(
        source,
        f"timeout 3 bash -c '</dev/tcp/{hosts.addresses[target]}/{port}' 2>/dev/null; [ $? = 0 ] || echo no",
    )


def test_only_workers_reach_scheduler_and_workers(hosts: Hosts) -> None:
    assert reaches(hosts, "worker2", SCHEDULER, PORT)
    assert reaches(hosts, SCHEDULER, "worker2", FIRST)
    assert not reaches(hosts, "worker2", SCHEDULER, 8787)
    for host, port in ((SCHEDULER, PORT), ("worker2", FIRST)):
        probe = ["bash", "-c", f"timeout 3 bash -c '</dev/tcp/{hosts.addresses[host]}/{port}'"]
        assert subprocess.run(probe, check=False, capture_output=True).returncode != 0, (
            f"this computer reaches {host}:{port} without SSH"
        )


def test_again_changes_nothing(hosts: Hosts) -> None:
    assert hosts.addresses
    said = playbook("site.yml")
    assert said.count("changed=0") == len(hosts.addresses), said[-1500:]


@pytest.mark.usefixtures("hosts")
def test_a_model_is_the_same_where_the_workers_cross_validate(tmp_path: Path) -> None:
    """But model.joblib, in which scikit-learn pickles an address, and its hash in the report: no two runs make the same."""
    made = []
    for number, where in enumerate(([], ["--on", "cluster"])):
        output = tmp_path / str(number)
        output.mkdir()
        command = [sys.executable, "-m", "model", "--data", "data/tweet_emotions.csv", "--output", str(output), *where]
        subprocess.run(command, cwd=ROOT, check=True, env=environment())
        files = [path for path in output.rglob("*") if path.is_file()]
        assert output / "artifacts/manifest.json" in files
        made.append({str(path.relative_to(output)): path.read_bytes() for path in files})
    alone, there = made
    different = {name for name in alone.keys() | there.keys() if alone.get(name) != there.get(name)}
    assert different <= {"model.joblib", "report/pipeline.json"}


def test_a_host_that_leaves_the_group_is_as_before(hosts: Hosts, tmp_path: Path) -> None:
    leaving = tmp_path / "leaving.yml"
    leaving.write_text(
        "- hosts: worker3\n  become: true\n  tasks:\n"
        "    - ansible.builtin.import_role: {name: workers, tasks_from: absent}\n"
    )
    playbook(str(leaving))
    assert hosts.ssh("worker3", "ls -d /opt/vmlops/workers /etc/vmlops/workers 2>/dev/null; true") == ""
    assert hosts.ssh("worker3", "systemctl list-units --no-legend --plain 'vmlops-worker*' 'vmlops-scheduler*'") == ""
    assert "vmlops-workers" not in hosts.ssh("worker3", "ls /etc/vmlops/firewall.d; nft list chain inet vmlops output")
    playbook("site.yml", "--tags", "workers")
    assert hosts.ssh("worker3", f"systemctl is-active vmlops-worker@{FIRST}") == "active"
