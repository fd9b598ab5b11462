"""A CSV file as people have them: whatever separates its fields, in the encodings that spreadsheets write.

It is read piece by piece, so that its size costs no memory.
"""

from __future__ import annotations

import csv
import re
from codecs import getincrementaldecoder
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from app.engines.artifact import sha256

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
    """Rows as texts, each with the line that it begins on. All have as many fields as the header.

    Rows are read while they are iterated over, once, which raises DataError for the first that is wrong.
    """

    path: Path
    sha256: str
    header: list[str]
    rows: Iterator[tuple[int, list[str]]]
    place: str = "{path}:{line}"  # how a message names a row

    def error(self, line: int, wrong: str, remedy: str) -> DataError:
        return DataError(f"{self.place.format(path=self.path, line=line)}: {wrong}; {remedy}")


def beginning(path: Path) -> bytes:
    """The first bytes of a file, that say what it is. Raises DataError."""
    try:
        with path.open("rb") as file:
            return file.read(64)
    except OSError as reason:
        raise DataError(f"{path}: cannot be read ({reason.strerror}); give an existing CSV file: DATA=path") from None


def read(path: Path, wanted: Sequence[str] = ()) -> Sheet:
    """The sheet in `path`; `wanted` are columns that it must have. Raises DataError for the first thing that is wrong."""
    start = beginning(path)
    for magic, what in _OTHERS.items():
        if start.startswith(magic):
            raise DataError(f"{path}: is {what}")
    encoding = _encoding(path, start)
    separator, header = _separator(path, encoding, wanted)
    named(path, header, wanted)
    return Sheet(path, sha256(path), header, _rows(path, encoding, separator, header))


def named(path: Path, header: Sequence[str], wanted: Sequence[str]) -> None:
    """Raise DataError unless each wanted column is there once."""
    for column in wanted:
        if header.count(column) != 1:
            found = ", ".join(header) or "nothing"
            raise DataError(f"{path}:1: the header is {found}; name the columns {' and '.join(wanted)}, once each")


def _rows(path: Path, encoding: str, separator: str, header: list[str]) -> Iterator[tuple[int, list[str]]]:
    def error(wrong: str, remedy: str) -> DataError:
        return DataError(f"{path}:{line}: {wrong}; {remedy}")

    # A field may be as long as the file.
    csv.field_size_limit(max(path.stat().st_size, 128 * 1024))
    # newline="": a line feed inside of quotes is the text's own.
    with path.open(encoding=encoding, newline="") as file:
        reader = csv.reader(file, delimiter=separator, strict=True)
        line = 1
        try:
            next(reader, None)
            line = reader.line_num + 1
            for row in reader:
                if row and not (len(row) == 1 and not row[0].strip()):  # a blank line is no row
                    if len(row) < len(header):
                        wrong = f"the row ends after {len(row)} of {len(header)} fields"
                        raise error(wrong, "complete it or delete it")
                    if any(field.strip() for field in row[len(header) :]):
                        wrong = f"{len(row)} fields, the header has {len(header)}"
                        raise error(wrong, f"quote texts that contain {separator!r}")
                    yield line, row[: len(header)]
                line = reader.line_num + 1
        except csv.Error as reason:
            remedy = 'close every quote that is opened, and double quotes inside of quoted texts: "so ""nice"""'
            raise error(f"the quoting of the row that begins here is broken ({reason})", remedy) from None


def _encoding(path: Path, start: bytes) -> str:
    """UTF-8; UTF-16 where a byte order mark or its zero bytes say so; Windows-1252 where no byte is part of UTF-8."""
    if start.startswith((b"\xff\xfe", b"\xfe\xff")):
        encoding = "utf-16"
    elif start.count(0) > len(start) // 4:
        encoding = "utf-16-le" if start[1:2] == b"\0" else "utf-16-be"
    else:
        encoding = "utf-8"
    at = _undecodable(path, encoding)
    if at is not None and encoding == "utf-8":
        with path.open("rb") as file:
            if not any(map(_MULTIBYTE.search, file)):
                encoding = "cp1252"
                at = _undecodable(path, encoding)
    if at is None:
        return "utf-8-sig" if encoding == "utf-8" else encoding
    with path.open("rb") as file:
        line = file.read(at).count(b"\n") + 1
        byte = file.read(1)[0]
    expected = "UTF-8" if encoding == "cp1252" else encoding.upper()
    raise DataError(f"{path}:{line}: byte 0x{byte:02x} is not {expected}; save the file as UTF-8")


def _undecodable(path: Path, encoding: str) -> int | None:
    """The place of the first byte that is not of this encoding, or None."""
    decoder = getincrementaldecoder(encoding)()
    with path.open("rb") as file:
        for piece in iter(lambda: file.read(1 << 20), b""):
            try:
                waiting = len(decoder.getstate()[0])
                decoder.decode(piece)
            except UnicodeDecodeError as reason:
                return file.tell() - len(piece) - waiting + reason.start
        try:
            decoder.decode(b"", final=True)
        except UnicodeDecodeError as reason:
            return file.tell() - len(reason.object) + reason.start
    return None


def _separator(path: Path, encoding: str, wanted: Sequence[str]) -> tuple[str, list[str]]:
    """The separator by which the header has the wanted columns, or the most columns; and that header."""
    headers = {}
    for separator in SEPARATORS:
        with path.open(encoding=encoding, newline="") as file:
            try:
                header = next(csv.reader(file, delimiter=separator), [])
            except csv.Error:
                header = []
        headers[separator] = [name.strip() for name in header]

    def fits(separator: str) -> tuple[int, int]:
        return sum(column in headers[separator] for column in wanted), len(headers[separator])

    best = max(SEPARATORS, key=fits)
    return best, headers[best]
