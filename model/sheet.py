"""A CSV file as people have them: whatever separates its fields, in the encodings that spreadsheets write."""

from __future__ import annotations

import csv
import hashlib
import re
from collections.abc import Sequence
from io import StringIO
from pathlib import Path
from typing import NamedTuple

SEPARATORS = (",", ";", "\t", "|")
LFS_POINTER = b"version https://git-lfs.github.com/spec/"
# What other files begin with that are taken for CSV.
_OTHERS = {
    b"PK\x03\x04": "a ZIP file, or a spreadsheet (.xlsx, .ods); save it as CSV",
    b"\x1f\x8b": "compressed with gzip; unpack it first",
    b"PAR1": "a Parquet file; save it as CSV",
    b"SQLite format 3": "an SQLite database; export the table as CSV",
    LFS_POINTER: "a Git LFS pointer, not the data; run git lfs pull",
}
# Of UTF-8: a character of several bytes.
_MULTIBYTE = re.compile(rb"[\xc2-\xdf][\x80-\xbf]|[\xe0-\xef][\x80-\xbf]{2}|[\xf0-\xf4][\x80-\xbf]{3}")


class DataError(Exception):
    """Data that cannot be used. The message is one line: file, line, what is wrong, remedy."""


class Sheet(NamedTuple):
    """Rows as texts, each with the line that it begins on. All have as many fields as the header."""

    path: Path
    sha256: str
    header: list[str]
    rows: list[tuple[int, list[str]]]

    def error(self, line: int, wrong: str, remedy: str) -> DataError:
        return DataError(f"{self.path}:{line}: {wrong}; {remedy}")


def read(path: Path, wanted: Sequence[str] = ()) -> Sheet:
    """The sheet in `path`; `wanted` are columns that it must have. Raises DataError for the first thing that is wrong."""

    def error(line: int, wrong: str, remedy: str) -> DataError:
        return DataError(f"{path}:{line}: {wrong}; {remedy}")

    try:
        raw = path.read_bytes()
    except OSError as reason:
        raise DataError(f"{path}: cannot be read ({reason.strerror}); give an existing CSV file: DATA=path") from None
    for magic, what in _OTHERS.items():
        if raw.startswith(magic):
            raise DataError(f"{path}: is {what}")
    content = _decode(raw, path)
    separator, header = _separator(content, wanted)
    for column in wanted:
        if header.count(column) != 1:
            found = ", ".join(header) or "nothing"
            raise error(1, f"the header is {found}", f"name the columns {' and '.join(wanted)}, once each")
    # newline="": a line feed inside of quotes is the text's own. A field may be as long as the file.
    csv.field_size_limit(max(len(content), 128 * 1024))
    reader = csv.reader(StringIO(content, newline=""), delimiter=separator, strict=True)
    line, rows = 1, []
    try:
        next(reader, None)
        line = reader.line_num + 1
        for row in reader:
            if row and not (len(row) == 1 and not row[0].strip()):  # a blank line is no row
                if len(row) < len(header):
                    raise error(
                        line, f"the row ends after {len(row)} of {len(header)} fields", "complete it or delete it"
                    )
                if any(field.strip() for field in row[len(header) :]):
                    wrong = f"{len(row)} fields, the header has {len(header)}"
                    raise error(line, wrong, f"quote texts that contain {separator!r}")
                rows.append((line, row[: len(header)]))
            line = reader.line_num + 1
    except csv.Error as reason:
        remedy = 'close every quote that is opened, and double quotes inside of quoted texts: "so ""nice"""'
        raise error(line, f"the quoting of the row that begins here is broken ({reason})", remedy) from None
    return Sheet(path, hashlib.sha256(raw).hexdigest(), header, rows)


def _decode(raw: bytes, path: Path) -> str:
    """UTF-8; UTF-16 where a byte order mark or its zero bytes say so; Windows-1252 where no byte is part of UTF-8."""
    if raw.startswith((b"\xff\xfe", b"\xfe\xff")):
        encoding = "utf-16"
    elif raw[:64].count(0) > len(raw[:64]) // 4:
        encoding = "utf-16-le" if raw[1:2] == b"\0" else "utf-16-be"
    else:
        encoding = "utf-8-sig"
    try:
        return raw.decode(encoding)
    except UnicodeDecodeError as reason:
        at = reason.start
    if encoding == "utf-8-sig" and not _MULTIBYTE.search(raw):
        try:
            return raw.decode("cp1252")
        except UnicodeDecodeError as reason:
            at = reason.start
    line = raw.count(b"\n", 0, at) + 1
    raise DataError(
        f"{path}:{line}: byte 0x{raw[at]:02x} is not {encoding.removesuffix('-sig').upper()}; save the file as UTF-8"
    )


def _separator(content: str, wanted: Sequence[str]) -> tuple[str, list[str]]:
    """The separator by which the header has the wanted columns, or the most columns; and that header."""
    headers = {}
    for separator in SEPARATORS:
        try:
            header = next(csv.reader(StringIO(content, newline=""), delimiter=separator), [])
        except csv.Error:
            header = []
        headers[separator] = [name.strip() for name in header]

    def fits(separator: str) -> tuple[int, int]:
        return sum(column in headers[separator] for column in wanted), len(headers[separator])

    best = max(SEPARATORS, key=fits)
    return best, headers[best]
