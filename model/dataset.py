"""The training data: a CSV file with the columns `sentiment` and `content`, checked before anything is made of it."""

from __future__ import annotations

import csv
import hashlib
from collections import Counter
from dataclasses import dataclass
from io import StringIO
from pathlib import Path

# The emotions of the data set that this system is meant for. Only the checks below know them: what is served are the
# labels of the manifest.
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
COLUMNS = ("sentiment", "content")
FEWEST = 20  # rows of a label: two in each fold of what is left beside the held-out fifth, with some to spare


class DataError(Exception):
    """Data that cannot be trained on. The message is one line: file, line, what is wrong, remedy."""


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


def read(path: Path) -> Dataset:
    """The data set in `path`. Raises DataError for the first thing that is wrong with it."""

    def error(line: int | None, wrong: str, remedy: str) -> DataError:
        return DataError(f"{path}:{line}: {wrong}; {remedy}" if line else f"{path}: {wrong}; {remedy}")

    try:
        raw = path.read_bytes()
    except OSError as reason:
        raise error(
            None, f"cannot be read ({reason.strerror})", "give an existing CSV file: make model DATA=path"
        ) from None
    try:
        content = raw.decode("utf-8-sig")
    except UnicodeDecodeError as reason:
        line = raw.count(b"\n", 0, reason.start) + 1
        raise error(line, f"byte 0x{raw[reason.start]:02x} is not UTF-8", "save the file as UTF-8") from None

    # newline="": a line feed inside of quotes is the text's own.
    reader = csv.reader(StringIO(content, newline=""), strict=True)
    line = 1
    texts, labels = [], []
    try:
        header = next(reader, [])
        for column in COLUMNS:
            if header.count(column) != 1:
                found = ", ".join(header) or "nothing"
                raise error(1, f"the header is {found}", f"name the columns {' and '.join(COLUMNS)}, once each")
        sentiment, text = map(header.index, COLUMNS)
        line = reader.line_num + 1
        for row in reader:
            if len(row) != len(header):
                raise error(line, f"{len(row)} fields, the header has {len(header)}", "quote texts that contain commas")
            if row[sentiment] not in LABELS:
                raise error(line, f"unknown label {row[sentiment]!r}", f"use one of {', '.join(LABELS)}")
            if not row[text].strip():
                raise error(line, "the text is empty", "write one or delete the row")
            texts.append(row[text])
            labels.append(row[sentiment])
            line = reader.line_num + 1
    except csv.Error as reason:
        remedy = 'close every quote that is opened, and double quotes inside of quoted texts: "so ""nice"""'
        raise error(line, f"the quoting of the row that begins here is broken ({reason})", remedy) from None
    dataset = Dataset(path, hashlib.sha256(raw).hexdigest(), texts, labels)
    counts = dataset.counts()
    for label in LABELS:
        if counts.get(label, 0) < FEWEST:
            raise error(None, f"{counts.get(label, 0)} rows of {label!r}", f"give at least {FEWEST} of each label")
    return dataset
