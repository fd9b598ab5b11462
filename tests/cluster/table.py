"""docs/faults-cluster.md: a row for each fault of a fleet, made from what its clients saw."""

from __future__ import annotations

import json
from typing import Any

from tests.paths import ROOT

ROWS = ROOT / "build/faults-cluster.json"
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


def line(fault: str, row: dict[str, Any]) -> str:
    codes = row["codes"]
    errors = ", ".join(f"{count} of {code}" for code, count in sorted(codes.items()) if code != "200") or "none"
    return (
        f"| {fault} | {sum(codes.values())} | {errors} | {row['resent']} | {row['slowest']:.1f} | {row['remark']} |\n"
    )


def add(fault: str, codes: dict[str, int], resent: int, slowest: float, remark: str = "") -> None:
    """Put a row into the page, in the place of an older one of this fault: the faults may be tried in several runs."""
    rows: dict[str, Any] = json.loads(ROWS.read_text()) if ROWS.exists() else {}
    rows[fault] = {"codes": codes, "resent": resent, "slowest": slowest, "remark": remark}
    ROWS.parent.mkdir(exist_ok=True)
    ROWS.write_text(json.dumps(rows, indent=1))
    print(line(fault, rows[fault]))
    PAGE.write_text(HEAD + "".join(line(fault, row) for fault, row in rows.items()))
