"""docs/faults.md: a row for each fault, made from what clients saw."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

from tests.paths import ROOT

ROWS = ROOT / "build/faults.json"
PAGE = ROOT / "docs/faults.md"
HEAD = """# Faults

What clients notice when one thing breaks, measured by `make test-faults` on a lab machine: twenty clients, each with an
address of its own and within its limits, ask for 160 predictions a second. *Recovered* is the time from the fault (or, where the
fault lasts, from its end) until everything works again, without a person. *Resent* are requests on a kept connection that was
closed before any byte of the answer; clients such as curl and browsers send them again by themselves. *Alerts* are those that
fired meanwhile. A fault that is over within seconds wakes nobody.

| what happened | requests | errors | resent | p99, ms | slowest, ms | recovered, s | alerts |
| --- | --- | --- | --- | --- | --- | --- | --- |
"""
TAIL = """
- While nginx starts anew, systemd holds its listening sockets, so clients wait and nobody is refused. What a killed worker was
  answering at that moment is cut; its clients send it again.
- There is one line for v2 in `vmlops_instances`, so whoever asks for v2 waits or gets 503 while it restarts. A second line takes
  that away. A whole machine is one component of a fleet (`make test-cluster`), and the only one of the lab.
- The lab's full disk is a tmpfs that holds the logs, the samples and nginx' temporary files. The alerts on disks leave out tmpfs;
  `tests/templates/test_monitoring_rules.py` tests them.
- A lab machine may not set its clock. nginx and the verifier see another day through libfaketime. The API decides nothing by the
  time of day; the kernel, systemd and the programs in Go ask the kernel past the C library, and were not tried.
- A lab machine's power cut ends its processes at once. What its kernel still had to write is not lost, as it would be by a real
  one.
"""


@dataclass(frozen=True)
class Row:
    """What happened to clients during a fault.

    Attributes:
        codes: answers by status, and errors by their class.
        reconnected: requests that were sent again on a new connection.
        p99, slowest: milliseconds.
        seconds: until everything worked again.
        alerts: names of those that fired, or "none".
    """

    codes: dict[str, int]
    reconnected: int
    p99: float
    slowest: float
    seconds: float
    alerts: str

    def line(self, fault: str) -> str:
        return (
            f"| {fault} | {sum(self.codes.values())} | {errors(self.codes)} | {self.reconnected} | {self.p99:.0f} "
            f"| {self.slowest:.0f} | {self.seconds:.1f} | {self.alerts} |\n"
        )


def errors(codes: dict[str, int]) -> str:
    """What of the answers was not 200, in words."""
    return ", ".join(f"{count} of {code}" for code, count in sorted(codes.items()) if code != "200") or "none"


def add(fault: str, row: Row) -> None:
    """Put the row into the page, in the place of an older one of this fault: the faults may be tried in several runs."""
    rows: dict[str, Any] = json.loads(ROWS.read_text()) if ROWS.exists() else {}
    rows[fault] = asdict(row)
    ROWS.parent.mkdir(exist_ok=True)
    ROWS.write_text(json.dumps(rows, indent=1))
    print(row.line(fault))
    PAGE.write_text(HEAD + "".join(Row(**values).line(fault) for fault, values in rows.items()) + TAIL)
