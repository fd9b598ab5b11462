"""What clients said of predictions (`vmlops-api labels` of every host), as a table that `make model` takes."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

ABOUT = ("request_id", "version", "model_version", "predicted", "confidence")
LABEL = "label"


def write(lines: Iterable[str], output: Path) -> list[str]:
    """Write the rows with a text (or another input) to `output`, and those without beside it, to be joined by request id.

    A request that both versions answered is one row with an input, of the first of them. Returns lines that say what was
    written. Raises OSError.
    """
    rows = [json.loads(line) for line in lines if line.strip()]
    whole: dict[str, dict[str, Any]] = {}
    for row in rows:
        if row["input"]:
            whole.setdefault(row["request_id"], row)
    bare = [row for row in rows if row["request_id"] not in whole]
    columns = list(dict.fromkeys(name for row in whole.values() for name in row["input"]))
    target = LABEL if LABEL not in columns else f"true_{LABEL}"
    output.parent.mkdir(parents=True, exist_ok=True)
    _write(output, [*columns, target], [{**row["input"], target: row[LABEL]} for row in whole.values()])
    said = [f"{output}: {len(whole)} labels with what they are for"]
    if len(columns) == 1:
        said[0] += f"; make model DATA={output} TEXT={columns[0]} LABEL={target}"
    other = output.with_suffix(".without-input" + output.suffix)
    other.unlink(missing_ok=True)
    if bare:
        _write(other, [*ABOUT, LABEL], bare)
        said.append(f"{other}: {len(bare)} labels of predictions whose input was not kept (api_capture_percent)")
    return said


def _write(path: Path, columns: list[str], rows: Iterable[dict[str, Any]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, columns, extrasaction="ignore")
        table.writeheader()
        table.writerows(rows)
