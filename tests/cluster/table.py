"""docs/faults-cluster.md: a row for each fault of a fleet, made from what its clients saw."""

from __future__ import annotations

from tests.faults.table import errors
from tests.paths import ROOT

PAGE = ROOT / "docs/faults-cluster.md"
HEAD = """# Faults of a fleet

What clients notice when a machine of a fleet fails, or somebody works on it: measured by `make test-cluster` on five lab
machines (two gateways that share an address, two API hosts, monitoring). Eight clients from four addresses, each within its
limits, keep their connections and ask for 32 predictions a second together. *Resent* are requests on a kept connection that was
gone before any byte of the answer; clients such as curl and browsers send them again by themselves. *Slowest* is the longest
wait of any client, a second try included.

| what happened | requests | errors | resent | slowest, s | remark |
| --- | --- | --- | --- | --- | --- |
"""


def add(fault: str, codes: dict[str, int], resent: int, slowest: float, remark: str = "") -> None:
    """Put a row into the page, in the place of an older one of this fault: the faults may be tried in several runs."""
    row = f"| {fault} | {sum(codes.values())} | {errors(codes)} | {resent} | {slowest:.1f} | {remark} |\n"
    print(row)
    rows = PAGE.read_text().splitlines(keepends=True)[HEAD.count("\n") :]
    place = next((number for number, old in enumerate(rows) if old.startswith(f"| {fault} |")), len(rows))
    rows[place : place + 1] = [row]
    PAGE.write_text(HEAD + "".join(rows))
