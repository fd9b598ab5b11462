"""docs/benchmarks.md, benchmarks.json and the pictures, from what was found. No figure is typed by hand."""

from __future__ import annotations

import json
import os
import platform
import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt

from tests.load.bench.growth import exponent

OURS, REFERENCE, ASGI = "vmlops", "reference", "asgi"
PEERS = ("litserve", "litserve-batching", "bentoml", "mlserver")
SUMS = ("requests", "non_2xx", "broken")
LEFT_OUT = "Not measured: `make bench` without QUICK does."
Row = Mapping[str, Any]


class Goal(NamedTuple):
    text: str
    bound: float
    at_least: bool

    def line(self, ratio: float | None, note: str = "") -> str:
        sign = "≥" if self.at_least else "≤"
        if ratio is None:
            return f"| {self.text} | {sign} {self.bound:g} | missing | |"
        met = ratio >= self.bound if self.at_least else ratio <= self.bound
        return f"| {self.text}{note} | {sign} {self.bound:g} | {figure(ratio)} | {'met' if met else '**not met**'} |"


def figure(value: float | None) -> str:
    """Three digits that count."""
    if value is None:
        return ""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def median(row: Row, name: str) -> float | None:
    values = [run[name] for run in row["runs"] if run[name] is not None]
    return statistics.median(values) if values else None


def ratio(rows: Mapping[str, Row], name: str, other: str, figure_name: str) -> float | None:
    """The median of what the rounds gave: both runs of a round met the same machine."""
    if name not in rows or other not in rows:
        return None
    pairs = zip(rows[name]["runs"], rows[other]["runs"], strict=False)
    ratios = [ours[figure_name] / theirs[figure_name] for ours, theirs in pairs]
    return statistics.median(ratios) if ratios else None


def goals(rows: Mapping[str, Row]) -> str:
    def of(name: str, read: Callable[[Row], float]) -> float | None:
        if OURS not in rows or REFERENCE not in rows or name not in rows[OURS] or name not in rows[REFERENCE]:
            return None
        return read(rows[OURS]) / read(rows[REFERENCE])

    # The best peer is the one that comes nearest to us.
    peers = {name: found for name in PEERS if (found := ratio(rows, OURS, name, "rate")) is not None}
    best = min(peers, key=peers.__getitem__) if peers else None
    lines = [
        Goal("requests/s, of the reference's", 30, True).line(ratio(rows, OURS, REFERENCE, "rate")),
        Goal("requests/s, of the best peer's", 11, True).line(
            peers[best] if best else None, f" ({rows[best]['title']})" if best else ""
        ),
        Goal("requests/s, of the raw ASGI limit", 0.75, True).line(ratio(rows, OURS, ASGI, "rate")),
        Goal("p99, of the reference's", 0.1, False).line(ratio(rows, OURS, REFERENCE, "p99_ms")),
        Goal("p99 at half load, ms", 4, False).line(rows.get(OURS, {}).get("half", {}).get("p99_ms")),
        Goal("PSS of all replicas, v2 included, of the reference's three", 0.35, False).line(
            of("pss_kb", lambda row: row["pss_kb"])
        ),
        Goal("start to first answer, of the reference's", 0.25, False).line(
            of("starts", lambda row: statistics.median(row["starts"]))
        ),
    ]
    return "\n".join(["| ratio | goal | found | |", "| --- | --- | --- | --- |", *lines])


def comparison(rows: Mapping[str, Row]) -> str:
    wanted = rows.get(OURS, {}).get("labels", [])
    lines = []
    for row in rows.values():
        if not row["runs"]:
            continue
        rates = [run["rate"] for run in row["runs"]]
        same = sum(a == b for a, b in zip(row["labels"], wanted, strict=False))
        memory = f"{figure(row['pss_kb'] / 1024)} ({row['processes']})" if "pss_kb" in row else ""
        lines.append(
            [
                row["title"],
                figure(statistics.median(rates)),
                f"{figure(min(rates))} to {figure(max(rates))}",
                figure(median(row, "p50_ms")),
                figure(median(row, "p99_ms")),
                f"{sum(run['non_2xx'] + run['broken'] for run in row['runs']):,}",
                figure(median(row, "app_us")),
                figure(median(row, "gateway_us")),
                memory,
                figure(statistics.median(row["starts"])) if "starts" in row else "",
                figure(row["idle_us"] / 1e3) if "idle_us" in row else "",
                "" if row["title"].startswith("limit") else f"{same} of {len(wanted)}",
            ]
        )
    header = ["", "requests/s", "least to most", "p50 ms", "p99 ms", "failed", "CPU µs, app", "CPU µs, nginx"]
    return table([*header, "PSS MB (processes)", "start s", "idle ms/s", "labels as ours"], lines)


def half_load(rows: Mapping[str, Row]) -> str:
    if not any("half" in row for row in rows.values()):
        return LEFT_OUT
    lines = [
        [
            row["title"],
            *(figure(row["half"][name]) for name in ("rate", "p50_ms", "p99_ms")),
            str(row["half"]["failed"]),
        ]
        for row in rows.values()
        if "half" in row
    ]
    return table(["", "requests/s", "p50 ms", "p99 ms", "failed"], lines)


def parts(found: Mapping[str, Sequence[Row]]) -> str:
    if not found:
        return LEFT_OUT
    lines = []
    for name in ("rate", "counting", "protocol"):
        first, *others = found[name]
        for row in (first, *others):
            share = statistics.median(a["rate"] / b["rate"] for a, b in zip(row["runs"], first["runs"], strict=True))
            app = median(row, "app_us") if "app_us" in row["runs"][0] else None
            rate, gateway = median(row, "rate"), median(row, "gateway_us")
            lines.append(
                [row["title"], figure(rate), "" if row is first else figure(share), figure(gateway), figure(app)]
            )
    header = ["", "requests/s", "of the row that it is compared with", "CPU µs, nginx", "CPU µs, app"]
    connections = [
        [row["title"], figure(median(row, "ms")), figure(median(row, "gateway_us"))] for row in found["handshake"]
    ]
    return (
        f"{table(header, lines)}\n\n"
        f"{table(['a new connection for each request', 'ms for the client', 'CPU µs, nginx'], connections)}"
    )


GROWTH = {
    "length": (
        "characters a sentence",
        (("app_us", "CPU µs a request, app"), ("rate", "requests/s"), ("p99_ms", "p99 ms")),
    ),
    "batch": (
        "sentences a request",
        (("app_us", "CPU µs a request, app"), ("rate", "requests/s"), ("p99_ms", "p99 ms")),
    ),
    "connections": ("connections", (("p50_ms", "p50 ms"), ("p99_ms", "p99 ms"), ("rate", "requests/s"))),
    "replicas": ("replicas of v1", (("pss_mb", "PSS MB"), ("rate", "requests/s"), ("p99_ms", "p99 ms"))),
    "vocabulary": ("features", (("score_us", "µs a sentence"), ("model_mb", "model MB"), ("load_ms", "load ms"))),
}


def growth(found: Mapping[str, Any]) -> str:
    if not found["growth"]:
        return LEFT_OUT
    parts = []
    for name, (axis, costs) in GROWTH.items():
        if not (points := found["growth"].get(name)):
            continue
        header = [axis, *(title for _, title in costs)]
        failed = any(point.get("non_2xx", 0) + point.get("broken", 0) for point in points)
        lines = [[f"{point['x']:,}", *(figure(point[cost]) for cost, _ in costs)] for point in points]
        if failed:
            header.append("failed")
            for line, point in zip(lines, points, strict=True):
                line.append(str(point["non_2xx"] + point["broken"]))
        steepest = f"Steepest step of {costs[0][1]}: exponent {exponent(points, costs[0][0]):.2f} (1 is linear)."
        parts.append(f"{table(header, lines)}\n\n{steepest}")
    return "\n\n".join(parts)


def provisioning(found: Mapping[str, Any]) -> str:
    lines = [
        [name, figure(run["seconds"]), str(run["tasks"]), str(run["changed"])]
        for name, run in found["provisioning"].items()
    ]
    parts = [table(["", "seconds", "tasks", "changed"], lines)]
    if site := found["provisioning"].get("`site.yml` on it"):
        slowest = ", ".join(f"{task} {took:.0f} s" for task, took in site["slowest"])
        parts.append(f"The slowest tasks of the first: {slowest}.")
    return "\n\n".join(parts)


def draw_rates(rows: Mapping[str, Row], path: Path) -> None:
    shown = [row for row in rows.values() if row["runs"]][::-1]
    names = [row["title"].replace("*", "").replace("`", "") for row in shown]
    medians = [statistics.median(run["rate"] for run in row["runs"]) for row in shown]
    spread = [
        [m - min(run["rate"] for run in row["runs"]) for m, row in zip(medians, shown, strict=True)],
        [max(run["rate"] for run in row["runs"]) - m for m, row in zip(medians, shown, strict=True)],
    ]
    figure_, axes = plt.subplots(figsize=(9, 0.45 * len(shown) + 1), layout="constrained")
    colours = ["#1f5fa8" if row["title"].startswith("**") else "#9db4cc" for row in shown]
    axes.barh(names, medians, xerr=spread, color=colours, ecolor="#444444", capsize=2)
    for i, value in enumerate(medians):
        axes.annotate(
            f"{value:,.0f}", (value + spread[1][i], i), xytext=(6, 0), textcoords="offset points", va="center", size=8
        )
    axes.set_xlim(0, max(m + most for m, most in zip(medians, spread[1], strict=True)) * 1.12)
    axes.set_xlabel("requests/s through TLS and the password check (median; least and most)")
    axes.spines[["top", "right"]].set_visible(False)
    figure_.savefig(path, dpi=110, metadata={"Software": None})
    plt.close(figure_)


def draw_growth(found: Mapping[str, Any], path: Path) -> None:
    names = [name for name in GROWTH if found["growth"].get(name)]
    figure_, grid = plt.subplots(1, len(names), figsize=(3.1 * len(names), 3), layout="constrained", squeeze=False)
    for axes, name in zip(grid[0], names, strict=True):
        axis, costs = GROWTH[name]
        points = found["growth"][name]
        xs = [point["x"] for point in points]
        for (cost, title), style in zip(costs[:2], ("o-", "s--"), strict=True):
            axes.plot(xs, [point[cost] for point in points], style, markersize=4, label=title)
        first = points[0][costs[0][0]]
        axes.plot(xs, [first * x / xs[0] for x in xs], ":", color="#999999", label="linear")
        axes.set(xscale="log", yscale="log", xlabel=axis)
        if xs[-1] < 10:
            axes.set_xticks(xs, [str(x) for x in xs], minor=False)
            axes.set_xticks([], minor=True)
        axes.legend(fontsize=7, frameon=False)
        axes.spines[["top", "right"]].set_visible(False)
    figure_.savefig(path, dpi=110, metadata={"Software": None})
    plt.close(figure_)


def text(found: Mapping[str, Any]) -> str:
    rows, versions, effort = found["rows"], found["versions"], found["effort"]
    missing = "\n".join(f"- {what}: {' '.join(why.split())[:300]}" for what, why in found["missing"].items())
    others = ", ".join(f"{name} {versions[name]}" for name in versions if name not in ("distribution", "nginx"))
    pictures = "\n\n![How cost grows](benchmarks-growth.png)" if found["growth"] else ""
    command = "make bench QUICK=1" if found["quick"] else "make bench"
    return f"""\
# Benchmarks

Written by `{command}` (tests/load/bench), not by hand; all numbers are in [benchmarks.json](benchmarks.json).
Host: {os.cpu_count()} cores, {platform.machine()}, shared by everything named here, the load's generator included.
Machine: {versions["distribution"]}, nginx {versions["nginx"]}, {others}.

## What is measured

A machine made as `make start-project` makes one, with monitoring, metrics, JSON access log, request ids, full
validation and the password check as deployed. Only the rate limit is lifted, for the address that the load comes from.
`wrk` runs on the host and sends {found["sentences"]} sentences of the data in turn to the machine's own address, over
{found["connections"]} connections with TLS: {effort["rounds"]} rounds, in each every row for
{effort["seconds"]} s, one after the other.
A ratio is the median of the rounds' ratios, so that a busy host meets both sides alike.

All rows run in that one machine and serve one model: the compiled one in ours, the pipeline it was compiled from in
the others.
- The reference is what public solutions of the task do: three uvicorn processes, scikit-learn in the request, a plain
  nginx that keeps no connections to the application, apr1 passwords.
- Peers get as many workers as we have replicas (3), and a copy of our gateway: the same TLS, password check, log and
  kept connections.
- The limits have that gateway too. Raw ASGI runs under our server and settings, three replicas; uvicorn answers it, since
  only our application has the shorter way for requests in one piece.

CPU is that of the units' cgroups, user and kernel. PSS is read after the first second of load; ours is of all four
replicas, v2 included. A start counts from `systemctl start` to the first 200 of a prediction, with the byte
code on disk. *Idle* is the CPU that a row takes while nobody asks; a row that takes more than 20 ms a second is frozen
while others are measured.

## Goals

{goals(rows)}

## Through the gateway

{comparison(rows)}

![Requests a second](benchmarks.png)

## Latency at half load

Requests come at random times (Poisson) at half of the rate above, whether or not earlier ones are answered; waiting for
a free connection counts. The generator is Python and shares the cores, of which it takes a third of one at 5,000 requests/s: the
figures are its own as well as the row's.

{half_load(rows)}

## What each part costs

Each part is switched off in turn, in a copy of the gateway in front of the same replicas, or in replicas that are started for
this; rows of a table are measured in turns. HTTP/1.1 and HTTP/2 are asked by h2load over {found["connections"]} connections,
one request at a time on each. Sessions of TLS are resumed from nginx's cache.

{parts(found.get("parts", {}))}

## How cost grows

{growth(found)}{pictures}

The vocabulary is measured in one process, without a network; everything else goes through the gateway.

## Provisioning

{provisioning(found)}

What keeps it short: one SSH connection, and no file copied for each task (pipelining); the machine's base tree, made
once and kept; application, model and wheels travelling as one archive, made once for one content; lists handed to one
task in place of a task each; byte code compiled when a release is installed, not when a replica starts.

## Missing

{missing or "Nothing."}

## Again

```sh
make bench            # everything, about 25 minutes; the first time also the peers' environments
make bench QUICK=1    # rough figures of the rows alone, to build/bench/, about 4 minutes
make profile          # where a request's time goes: profile.md
```
"""


def write(found: Mapping[str, Any], directory: Path) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    draw_rates(found["rows"], directory / "benchmarks.png")
    if found["growth"]:
        draw_growth(found, directory / "benchmarks-growth.png")
    (directory / "benchmarks.md").write_text(text(found))
    slim = {**found, "rows": {name: {**row, "labels": len(row["labels"])} for name, row in found["rows"].items()}}
    (directory / "benchmarks.json").write_text(json.dumps(slim, indent=1) + "\n")
