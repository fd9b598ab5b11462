"""Labelled texts: two columns of a CSV or Parquet file, checked before anything is made of them."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from sys import intern
from typing import Any

from model import parquet, sheet
from model.sheet import DataError

__all__ = ["COLUMNS", "FEWEST", "LABELS", "DataError", "Dataset", "read"]

# The emotions of the shipped data. Only the tests of that file and the model's name use them.
LABELS = (
    "anger",
    "boredom",
    "empty",
    "enthusiasm",
    "fun",
    "happiness",
    "hate",
    "love",
    "neutral",
    "relief",
    "sadness",
    "surprise",
    "worry",
)
COLUMNS = ("sentiment", "content")  # default names of the columns of labels and of texts
FEWEST = 20  # rows of a label: two in each fold of what is left beside the held-out fifth, with some to spare


@dataclass(frozen=True)
class Dataset:
    """Texts and their labels, in the order of the file."""

    path: Path
    sha256: str
    texts: list[str]
    labels: list[str]

    def counts(self) -> dict[str, int]:
        """Rows by label, in alphabetical order."""
        return dict(sorted(Counter(self.labels).items()))

    def about(self) -> dict[str, Any]:
        """The manifest's entry `data`."""
        return {"name": self.path.name, "sha256": self.sha256, "rows": len(self.texts), "labels": self.counts()}


def read(path: Path, label: str = COLUMNS[0], text: str = COLUMNS[1], fewest: int = FEWEST) -> Dataset:
    """The data set in `path`, from the columns named. Raises DataError for the first thing that is wrong with it."""
    try:
        reader = parquet if sheet.beginning(path).startswith(parquet.MAGIC) else sheet
        rows = reader.read(path, (label, text))
    except DataError as error:
        if (label, text) == COLUMNS and "name the columns" in str(error):
            raise DataError(f"{error}, or say which they are: TEXT=column LABEL=column") from None
        raise
    label_at, text_at = map(rows.header.index, (label, text))
    texts: list[str] = []
    labels: list[str] = []
    for line, row in rows.rows:
        if not row[label_at].strip():
            raise rows.error(line, "the label is empty", "write one or delete the row")
        if not row[text_at].strip():
            raise rows.error(line, "the text is empty", "write one or delete the row")
        texts.append(row[text_at])
        labels.append(intern(row[label_at].strip()))
    dataset = Dataset(path, rows.sha256, texts, labels)
    counts = dataset.counts()
    if fewest and len(counts) < 2:
        raise DataError(f"{path}: {len(counts)} labels in the column {label!r}; give at least two")
    rare = [name for name, count in counts.items() if count < fewest]
    if rare:
        few = ", ".join(f"{counts[name]} of {name!r}" for name in rare[:3])
        more = f" and {len(rare) - 3} more labels" if len(rare) > 3 else ""
        raise DataError(f"{path}: only {few}{more}; give at least {fewest} rows of each label")
    return dataset
