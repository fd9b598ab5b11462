"""What scoring on a cluster does to those who ask the API on the same host, and what more workers give.

python -m tests.load.bench.workers beside|scaling, to docs/scoring.json, docs/scoring.png and standard output.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")

import matplotlib.pyplot as plt

from app.engines.loading import load_engine
from batch import cluster, tables
from batch.__main__ import prepare
from batch.scoring import Model
from tests.authority import Authority
from tests.load.bench import load, machine
from tests.load.bench.machine import WORK, Machine
from tests.local_cluster import LocalCluster
from tests.paths import ROOT

ENVIRONMENT = "bench"
ACCESS = ROOT / "certs" / machine.INVENTORY.name / "workers"
SUDO = [] if os.geteuid() == 0 else ["sudo"]
WORKERS = Path(__file__).with_name("workers.yml")
RATES = (200.0, 1000.0, 2000.0)  # requests a second
SECONDS, PAIRS = 10.0, 5  # the length of a measurement, how many with and without at each rate
SHARE, COUNTS, ROUNDS = 10, (1, 2, 4), 2  # percent of a core that each worker may have
SCALED_ROWS = 40_000
RESULT = ROOT / "docs" / "scoring.json"
PLOT = ROOT / "docs" / "scoring.png"


def sentences() -> list[str]:
    with (ROOT / "data/tweet_emotions.csv").open(newline="", encoding="utf-8") as file:
        return [row["content"] for row in csv.DictReader(file)]


def write_rows(path: Path, rows: int) -> Path:
    every = sentences()
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["n", "content"])
        writer.writerows((n, f"{every[n % len(every)]} {n}") for n in range(rows))
    return path


# --- beside those who are served ---


@contextmanager
def scoring(source: Path, scratch: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A run on the machine's workers meanwhile. Its own side, elsewhere another computer's, gets what is left of this one."""
    output = scratch / "scored.csv"
    # As python -m batch, but the environment of the benchmark is no folder of inventory/.
    access = f"cluster.read_access({ENVIRONMENT!r}, pathlib.Path({str(ACCESS)!r}))"
    program = (
        f"import pathlib; from batch import __main__, cluster; cluster.access = lambda _: {access}; __main__.main()"
    )
    command = ["chrt", "--idle", "0", sys.executable, "-c", program, "--on", "cluster"]
    command += ["--input", str(source), "--output", str(output)]
    log = (scratch / "scoring.log").open("w")
    with log, subprocess.Popen(command, cwd=ROOT, stderr=log) as run:
        journal = output.with_name(f"{output.name}.journal")
        try:
            while not journal.exists():
                if run.poll() is not None:
                    raise RuntimeError((scratch / "scoring.log").read_text())
                time.sleep(0.1)
            yield run
        finally:
            run.send_signal(signal.SIGINT)
            run.wait()
            for left in scratch.glob("scored.csv*"):
                left.unlink()


def rows_done(scratch: Path) -> int:
    return int(json.loads((scratch / "scored.csv.journal").read_text())["rows"])


@contextmanager
def without_autogroups() -> Iterator[None]:
    """On a lab machine, without cgroup controllers, CPUWeight= does nothing, and CPUSchedulingPolicy=idle holds only within a
    session where the kernel shares the processor between sessions. A server has the controllers, and then no such groups.
    """
    name = "kernel.sched_autogroup_enabled"
    before = Path("/proc/sys", *name.split(".")).read_text().strip()
    subprocess.run([*SUDO, "sysctl", "-q", "-w", f"{name}=0"], check=True)
    try:
        yield
    finally:
        subprocess.run([*SUDO, "sysctl", "-q", "-w", f"{name}={before}"], check=True)


def beside(keep: bool) -> dict[str, Any]:
    """p99 of predictions at a steady rate, with a scoring run on the same host and without, in turn."""
    with Machine(keep) as here, tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        if not here.found or not ACCESS.exists():
            machine.playbook("site.yml", "-i", str(WORKERS))
        scratch = Path(name)
        source = write_rows(scratch / "in.csv", 2_000_000)
        bodies = load.write_bodies(WORK / "bodies" / "beside", [{"sentence": text} for text in sentences()])
        target = load.Target(here.address, 443, "/predict", bodies, ("admin", "admin"))
        load.at_rate_apart(target, RATES[0], 3)
        stack.enter_context(without_autogroups())
        pairs: dict[float, list[dict[str, Any]]] = {rate: [] for rate in RATES}
        for rate in RATES * PAIRS:
            without = load.at_rate_apart(target, rate, SECONDS)
            with scoring(source, scratch):
                began, first = time.monotonic(), rows_done(scratch)
                with_it = load.at_rate_apart(target, rate, SECONDS)
                scored = (rows_done(scratch) - first) / (time.monotonic() - began)
            pairs[rate].append({"without": without, "with": with_it, "rows_s": scored})
            print(
                f"{rate:.0f} requests/s: p99 {without['p99_ms']:.2f} ms, "
                f"beside scoring {with_it['p99_ms']:.2f} ms, {scored:.0f} rows/s",
                flush=True,
            )
    return {f"{rate:.0f}": medians(found) for rate, found in pairs.items()}


def medians(pairs: list[dict[str, Any]]) -> dict[str, Any]:
    """Of the pairs of measurements at one rate."""
    return {
        "pairs": pairs,
        "p99_ratio": statistics.median(pair["with"]["p99_ms"] / pair["without"]["p99_ms"] for pair in pairs),
        "p50_ratio": statistics.median(pair["with"]["p50_ms"] / pair["without"]["p50_ms"] for pair in pairs),
        **{f"p99_{how}": statistics.median(pair[how]["p99_ms"] for pair in pairs) for how in ("without", "with")},
        "failed": sum(pair[how]["failed"] for pair in pairs for how in ("without", "with")),
        "rows_s": statistics.median(pair["rows_s"] for pair in pairs),
    }


# --- more workers ---


@contextmanager
def held_workers(count: int) -> Iterator[cluster.Access]:
    """A scheduler and so many workers on this computer, over TLS, each worker held to its share of a core by cpulimit."""
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        here = LocalCluster(Authority().issue(directory / "own", "cluster"))
        stack.callback(here.end)
        names = [f"worker{number}" for number in range(count)]
        here.start("scheduler", *names)
        here.wait(count)
        scored(write_rows(directory / "first.csv", 2000 * count), here.access)  # each loads the model once
        for name in names:
            limit = ["cpulimit", "--quiet", f"--limit={SHARE}", f"--pid={here.running[name].pid}"]
            held = subprocess.Popen(limit, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            stack.callback(held.wait)
            stack.callback(held.terminate)
        yield here.access


def scored(source: Path, reached: cluster.Access) -> float:
    """Rows a second, from file to file."""
    cluster.access = lambda *_: reached
    output = source.with_name("scored.csv")
    options = argparse.Namespace(input=source, output=output, text=None, probabilities=False)
    model = ROOT / "model" / "artifacts"
    _, run = prepare(options, load_engine(model))
    with cluster.client(patience=60) as client:
        began = time.monotonic()
        rows = run.score(client, Model.read(model)).rows
        rate = rows / (time.monotonic() - began)
    output.unlink()
    return rate


def scaling() -> dict[str, Any]:
    tables.PIECE_BYTES = 1 << 15  # so that each worker gets many pieces
    rates: dict[int, list[float]] = {count: [] for count in COUNTS}
    with tempfile.TemporaryDirectory() as name:
        source = write_rows(Path(name) / "in.csv", SCALED_ROWS)
        for _ in range(ROUNDS):
            for count in COUNTS:
                with held_workers(count) as reached:
                    rates[count].append(scored(source, reached))
                print(f"{count} workers: {rates[count][-1]:.0f} rows/s", flush=True)
    return {"share": SHARE, "rows": SCALED_ROWS, "rates": {str(count): found for count, found in rates.items()}}


def draw(found: dict[str, Any], path: Path) -> None:
    counts = [int(count) for count in found["rates"]]
    medians = [statistics.median(rates) for rates in found["rates"].values()]
    figure, axes = plt.subplots(figsize=(5, 3.2), layout="constrained")
    axes.plot(counts, [medians[0] * count / counts[0] for count in counts], "--", color="0.7", label="proportional")
    for count, rates in zip(counts, found["rates"].values(), strict=True):
        axes.plot([count] * len(rates), rates, ".", color="C0", alpha=0.5)
    axes.plot(counts, medians, "o-", color="C0", label="measured, median")
    axes.set(xlabel=f"workers, each with {found['share']} % of a core", ylabel="rows/s", xticks=counts, ylim=(0, None))
    axes.legend()
    figure.savefig(path, dpi=120)
    plt.close(figure)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["beside", "scaling"])
    parser.add_argument("--keep", action="store_true", help="leave the machine behind, and use it again")
    options = parser.parse_args()
    result = json.loads(RESULT.read_text()) if RESULT.exists() else {}
    result[options.what] = beside(options.keep) if options.what == "beside" else scaling()
    RESULT.write_text(json.dumps(result, indent=1) + "\n")
    if options.what == "scaling":
        draw(result["scaling"], PLOT)
    else:
        for rate, found in result["beside"].items():
            print(rate, {name: value for name, value in found.items() if name != "pairs"})
    return 0


if __name__ == "__main__":
    sys.exit(main())
