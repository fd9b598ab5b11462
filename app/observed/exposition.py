"""Prometheus' text format, version 0.0.4, and the process metrics that its clients agree on.

prometheus-client would do both; docs/own-code.md says what it costs a replica. A test holds this against its parser.
https://prometheus.io/docs/instrumenting/exposition_formats/, …/writing_clientlibs/#process-metrics
"""

from __future__ import annotations

import gc
import os
import platform
import resource
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

MEDIA_TYPE = b"text/plain; version=0.0.4; charset=utf-8"
Sample = tuple[str, Mapping[str, str], float]  # what follows the family's name (_bucket, …), labels, value

_ESCAPED = str.maketrans({"\\": r"\\", "\n": r"\n", '"': r"\""})


def family(name: str, kind: str, text: str, samples: Iterable[Sample]) -> Iterator[str]:
    """The lines of a family. `text` has neither a backslash nor a line break."""
    yield f"# HELP {name} {text}\n# TYPE {name} {kind}\n"
    for suffix, labels, value in samples:
        pairs = ",".join(f'{label}="{text.translate(_ESCAPED)}"' for label, text in sorted(labels.items()))
        yield f"{name}{suffix}{{{pairs}}} {number(value)}\n" if pairs else f"{name}{suffix} {number(value)}\n"


def number(value: float) -> str:
    return repr(float(value)).replace("inf", "Inf").replace("nan", "NaN")


def process() -> Iterator[str]:
    """CPU, memory and files of this process, from /proc (proc_pid_stat(5)); garbage collections; the Python."""
    fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    ticks = os.sysconf("SC_CLK_TCK")
    booted = next(line for line in Path("/proc/stat").read_text().splitlines() if line.startswith("btime"))
    single: tuple[tuple[str, str, str, float], ...] = (
        ("cpu_seconds_total", "counter", "User and system CPU time", (int(fields[11]) + int(fields[12])) / ticks),
        ("start_time_seconds", "gauge", "Start, since the epoch", int(booted.split()[1]) + int(fields[19]) / ticks),
        ("virtual_memory_bytes", "gauge", "Virtual memory", int(fields[20])),
        ("resident_memory_bytes", "gauge", "Resident memory", int(fields[21]) * resource.getpagesize()),
        ("open_fds", "gauge", "Open file descriptors", sum(1 for _ in Path("/proc/self/fd").iterdir())),
        ("max_fds", "gauge", "Limit of open file descriptors", resource.getrlimit(resource.RLIMIT_NOFILE)[0]),
    )
    for name, kind, text, value in single:
        yield from family(f"process_{name}", kind, text, [("", {}, value)])
    for name, text in (
        ("collections", "Runs of the garbage collector"),
        ("collected", "Objects that it freed"),
        ("uncollectable", "Objects that it could not free"),
    ):
        of = enumerate(gc.get_stats())
        samples = [("", {"generation": str(generation)}, float(stats[name])) for generation, stats in of]
        yield from family(f"python_gc_{name}_total", "counter", text, samples)
    python = {"implementation": platform.python_implementation(), "version": platform.python_version()}
    yield from family("python_info", "gauge", "The Python", [("", python, 1)])
