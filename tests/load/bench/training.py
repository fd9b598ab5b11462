"""python -m tests.load.bench.training --data CSV: what `make model` takes of 40 thousand, 400 thousand and 4 million rows.

The rows are recombined from tweets (recombined.py), those of four fifths of the data, so that every model is asked for the tweets
of the last fifth, as they are. Training is the command itself, in a process of its own; its memory is that of all its processes.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import psutil  # type: ignore[import-untyped]

mpl.use("Agg")
from matplotlib.figure import Figure

from app.engines.loading import load_engine
from model import compare, dataset, large, measures, train
from model.linear import LINKS
from model.measures import Labels
from tests.load.bench import recombined
from tests.load.bench.model import once
from tests.load.bench.recombined import Recombined
from tests.load.bench.report import figure, table
from tests.paths import ROOT

Point = dict[str, Any]
Found = dict[str, Point]  # by rows

ROWS = (40_000, 400_000, 4_000_000)
WORK = ROOT / "build" / "training"
DOCS = ROOT / "docs"
SOLVED = (40_000, 160_000, 400_000)
MOST_OF_SVM = 160_000  # its time grows so that more takes minutes a fit
STRENGTHS = (0.03, 0.1, 0.3, 1.0)
MB = 1e6


def watched(command: Sequence[str]) -> tuple[Point, str]:
    """Run a command to its end: the seconds and the largest memory (PSS) of all its processes, and what it said."""
    began, largest = time.monotonic(), 0
    with tempfile.TemporaryFile("w+") as messages:
        with subprocess.Popen(command, cwd=ROOT, stdout=messages, stderr=messages) as running:
            while running.poll() is None:
                largest = max(largest, memory(running.pid))
                time.sleep(0.2)
        messages.seek(0)
        said = messages.read()
    if running.returncode:
        raise RuntimeError(f"{' '.join(command)}: {said}")
    return {"seconds": time.monotonic() - began, "mb": largest / MB}, said


def memory(pid: int) -> int:
    found = 0
    try:
        for process in (root := psutil.Process(pid), *root.children(recursive=True)):
            found += process.memory_full_info().pss
    except psutil.NoSuchProcess:
        pass
    return found


def processor() -> float:
    """Seconds that processes which this one started, and which have ended, computed."""
    times = os.times()
    return times.children_user + times.children_system


def file_of(rows: int) -> Path:
    """CSV, and Parquet for the most rows."""
    return WORK / f"{rows}{'.parquet' if rows == max(ROWS) else '.csv'}"


def trained(rows: int, held: Sequence[str], truth: Labels) -> Point:
    """One run of make model."""
    output = WORK / f"{rows}-model"
    before = processor()
    found, said = watched([sys.executable, "-m", "model", "--data", str(file_of(rows)), "--output", str(output)])
    found["cpu"] = processor() - before
    found["us_a_row"] = found["cpu"] / rows * 1e6
    print(said, flush=True)
    found["stages"] = {
        name: float(seconds) for name, seconds in re.findall(r"^(\S.*): ([\d.]+) s$", said, re.MULTILINE)
    }
    artifacts = output / "artifacts"
    engine = load_engine(artifacts)
    found["features"] = engine.manifest["features"]
    found["model_mb"] = sum(path.stat().st_size for path in artifacts.glob("*.npy")) / MB
    found["replica_mb"], _ = once(artifacts)
    found["real"] = measures.measure(np.array([score.probabilities for score in engine.score_batch(held)]), truth)
    found["version"] = engine.model_version
    return found


def solvers(rows: int, held: Sequence[str], truth: Labels, strengths: dict[str, float]) -> list[Point]:
    """A fit by each solver, on the same features: chosen by half of the held-out tweets, measured on the others.

    A solver's strength is that in `strengths`; the best of STRENGTHS is put there where it has none.
    """
    data = dataset.read(WORK / f"{rows}.csv")
    labels = np.array(data.labels)
    union = train.fit_features(train.features(), data.texts)
    x, unseen = train.matrix(union, data.texts), train.matrix(union, held)
    weight = train.weights(labels, train.RECIPE.rebalancing)
    choosing = np.arange(len(truth)) % 2 == 0
    made: dict[str, Callable[[float], Any]] = {
        "RidgeClassifier, sparse_cg": train.ridge,
        "SGDClassifier, log_loss": lambda strength: large.descent(strength, rows),
        "LinearSVC": compare.svm,
    }
    found = []
    for name, make in made.items():
        if name == "LinearSVC" and rows > MOST_OF_SVM:
            continue
        tried = []
        for strength in [strengths[name]] if name in strengths else STRENGTHS:
            began = time.process_time()
            classifier = make(strength).fit(x, labels, sample_weight=weight)
            took = time.process_time() - began
            logits = train.sigmoids(classifier.decision_function(unseen), truth, np.ones(len(truth)))
            p = LINKS["sigmoid"](logits)
            loss = measures.measure(p[choosing], truth[choosing])["log_loss"]
            tried.append((loss, took, strength, measures.measure(p[~choosing], truth[~choosing])))
        _, took, strength, measured = min(tried, key=lambda one: one[0])
        strengths[name] = strength
        found.append({"solver": name, "strength": strength, "cpu": took, "real": measured})
        print(rows, found[-1], flush=True)
    return found


def reading(rows: int) -> list[Point]:
    """What reading the same rows takes, as CSV and as Parquet."""
    found = []
    for path in (WORK / f"{rows}.csv", WORK / f"{rows}.parquet"):
        program = "import sys; from pathlib import Path; from model import dataset; dataset.read(Path(sys.argv[1]))"
        before = processor()
        point, _ = watched([sys.executable, "-c", program, str(path)])
        found.append(
            {**point, "file": path.suffix[1:], "cpu": processor() - before, "file_mb": path.stat().st_size / MB}
        )
    return found


def draw(path: Path, entries: Sequence[Point]) -> None:
    rows = np.array([entry["rows"] for entry in entries])
    picture = Figure(figsize=(9, 4), layout="constrained")
    left, right = picture.subplots(1, 2)
    for axes, name, unit in ((left, "cpu", "processor seconds"), (right, "mb", "MB, largest")):
        values = [entry["trained"][name] for entry in entries]
        axes.loglog(rows, values, marker="o", label="make model")
        axes.loglog(rows, values[0] * rows / rows[0], color="gray", linestyle="--", label="in proportion")
        axes.set(xlabel="rows", ylabel=unit)
        axes.set_xticks(rows, [f"{count:,}" for count in rows])
        axes.minorticks_off()
        axes.legend()
    picture.savefig(path, dpi=110, metadata={"Software": None})


def qualities(measured: dict[str, float]) -> list[str]:
    return [f"{measured[name]:.3f}" for name in ("accuracy", "macro_f1", "log_loss")]


def page(entries: Sequence[Point], held: int) -> str:
    trainings = {f"{entry['rows']:,}": entry["trained"] for entry in entries if "trained" in entry}
    header = (
        "rows",
        "elapsed, s",
        "processor, s",
        "µs a row",
        "largest memory, MB",
        "features",
        "model, MB",
        "replica, MB",
    )
    lines = [
        [
            rows,
            *(figure(one[name]) for name in ("seconds", "cpu", "us_a_row", "mb")),
            f"{one['features']:,}",
            *(figure(one[name]) for name in ("model_mb", "replica_mb")),
            *qualities(one["real"]),
        ]
        for rows, one in trainings.items()
    ]
    names = list(dict.fromkeys(name for one in trainings.values() for name in one["stages"]))
    stages = [[name, *(figure(one["stages"].get(name)) for one in trainings.values())] for name in names]
    solved = [
        [f"{entry['rows']:,}", one["solver"], f"{one['strength']:g}", figure(one["cpu"]), *qualities(one["real"])]
        for entry in entries
        for one in entry.get("solvers", ())
    ]
    read = [
        [f"{entry['rows']:,}", one["file"], *(figure(one[name]) for name in ("file_mb", "cpu", "mb"))]
        for entry in entries
        for one in entry.get("reading", ())
    ]
    strengths = ", ".join(f"{strength:g}" for strength in STRENGTHS)
    missing = [f"{rows:,}" for rows in ROWS if f"{rows:,}" not in trainings]
    left_out = f"Not measured yet: {'; '.join(missing)} rows, which `make bench-training` does.\n\n" if missing else ""
    words = ", ".join(f"{entry['words']:,} in {entry['rows']:,} rows" for entry in entries if "words" in entry)
    measured = f"""{table((*header, "accuracy", "macro-F1", "log loss"), lines)}

![Processor seconds and memory by rows](training.png)

CSV, and Parquet for the most rows, on {os.cpu_count()} cores that others computed on as well. Processor seconds, and memory
(proportional set size, looked at five times a second), are of all processes together. The smallest is by cross-validation on all
rows, which [the recipe](model.md#the-recipe) has for up to {large.ROWS:,} rows.

The accuracy of these rows is not that of so many tweets: halves of the same tweet are on both sides of the cross-validation,
which therefore chooses too hard a fit. In the next table the strength is chosen by tweets that nothing was learned from.

{table(("stage, elapsed s", *trainings), stages)}

Reading alone, and the different words that were read ({words}):

{table(("rows", "file", "file, MB", "processor, s", "largest memory, MB"), read)}

"""
    return f"""# Training on more rows

Made by `make bench-training DATA=` on the public data set (sha256 `{entries[0]["data"][:12]}…`). The rows are recombined
from four fifths of its tweets (`tests/load/bench/recombined.py`): the first half of one and the second half of another of the
same label, and in place of what the tweets have once, made-up words, which go on to be new as those of real text do.

Quality is measured on the last fifth, {held:,} tweets as people wrote them. More recombined rows tell nothing new about those, so
these figures compare ways of learning; they do not say what more tweets would give.

## What `make model` takes

{left_out}{measured if trainings else ""}## Solvers

A fit of the same features. Each solver has the best of the strengths {strengths} for the fewest rows, chosen by half of the
held-out tweets; all are measured on the other half. `LinearSVC` is left out beyond {MOST_OF_SVM:,} rows, where a fit takes
minutes.

{table(("rows", "solver", "strength", "a fit, processor s", "accuracy", "macro-F1", "log loss"), solved)}
"""


def make_files(source: Recombined, rows: int) -> None:
    """The same rows as CSV and as Parquet, unless they are there."""
    text, binary = WORK / f"{rows}.csv", WORK / f"{rows}.parquet"
    if not binary.exists():
        print(f"{text} …", flush=True)
        recombined.write_csv(text, source.rows(rows))
        data = dataset.read(text)
        recombined.write_parquet(binary, data.labels, data.texts)


def different_words(path: Path) -> int:
    return len({word for text in dataset.read(path).texts for word in text.split()})


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.load.bench.training", description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="the tweets that rows are recombined from")
    parser.add_argument(
        "--rows", type=int, nargs="*", default=ROWS, help="to train with; what was measured before is kept"
    )
    parser.add_argument("--solvers", type=int, nargs="*", default=SOLVED, help="rows to compare solvers with; the same")
    arguments = parser.parse_args()
    try:
        data = dataset.read(arguments.data)
    except dataset.DataError as error:
        print(error, file=sys.stderr)
        return 1
    seen, held, labels, truth = train.split(data.texts, data.labels)
    source = Recombined(seen, labels.tolist())
    WORK.mkdir(parents=True, exist_ok=True)
    kept = WORK / "found.json"
    found: Found = json.loads(kept.read_text()) if kept.exists() else {}

    def keep(rows: int, name: str, measure: Callable[[], Any]) -> None:
        print(f"{rows:,} rows: {name} …", flush=True)
        with train.one_thread():
            found.setdefault(str(rows), {"rows": rows, "data": data.sha256})[name] = measure()
        kept.write_text(json.dumps(found, indent=1) + "\n")

    for rows in arguments.rows:
        make_files(source, rows)
        keep(rows, "words", lambda rows=rows: different_words(WORK / f"{rows}.csv"))  # type: ignore[misc]
        keep(rows, "trained", lambda rows=rows: trained(rows, held, truth))  # type: ignore[misc]
        keep(rows, "reading", lambda rows=rows: reading(rows))  # type: ignore[misc]
    strengths: dict[str, float] = {}
    if SOLVED[0] not in arguments.solvers:
        strengths = {one["solver"]: one["strength"] for one in found.get(str(SOLVED[0]), {}).get("solvers", ())}
    for rows in arguments.solvers:
        make_files(source, rows)
        keep(rows, "solvers", lambda rows=rows: solvers(rows, held, truth, strengths))  # type: ignore[misc]
    entries = sorted(found.values(), key=lambda entry: int(entry["rows"]))
    (DOCS / "training.md").write_text(page(entries, len(held)), encoding="utf-8")
    if measured := [entry for entry in entries if "trained" in entry]:
        draw(DOCS / "training.png", measured)
    return 0


if __name__ == "__main__":
    sys.exit(main())
