"""Files of rows, read and written in pieces that can be worked on anywhere and put together again.

A *piece* is the bytes of some whole records. Whoever reads a file cuts it into pieces without looking into the records; whoever
scores a piece decodes it. So the reader is fast enough for many scorers, and a piece is all that travels.
"""

from __future__ import annotations

import csv
import io
import json
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import pyarrow as pa
import pyarrow.parquet as pq

Row = dict[str, Any]

PIECE_BYTES = 1 << 20
PIECE_ROWS = 8192  # of Parquet
ROW_GROUP = 1 << 16
LONGEST_RECORD = 16 << 20
# A record as RFC 4180 and Python's csv read it: a quote opens a field only as its first character.
_FIELD = rb'(?:"[^"]*+(?:""[^"]*+)*+"[^,\n]*+|[^",\n][^,\n]*+|)'
_RECORD = re.compile(_FIELD + rb"(?:," + _FIELD + rb")*+\n")


class TableError(Exception):
    """A file that cannot be read or written. The message is one line: file, what is wrong, remedy."""


class Bad(NamedTuple):
    """A record that cannot be parsed or scored."""

    row: int  # in its piece, from 0
    reason: str
    record: str  # as it stands, cut where it is long


class Piece(NamedTuple):
    """Whole records of a file, as bytes."""

    data: bytes
    end: int  # where the next piece begins: a byte, or a row of Parquet
    broken: str = ""  # why these bytes cannot be parsed as records


class Source(Protocol):
    """A file to read from."""

    columns: list[str]
    size: int  # in the unit of Piece.end

    def pieces(self, start: int) -> Iterator[Piece]:
        """From `start` on, which is 0 or the end of another piece."""
        ...

    def decoder(self) -> Decoder: ...


class Decoder(Protocol):
    """Turns the bytes of a piece into rows; can be pickled and sent to another process."""

    def rows(self, piece: Piece) -> tuple[list[tuple[int, Row]], list[Bad]]:
        """The rows with their places in the piece, and what is none."""
        ...


class Encoder(Protocol):
    """What makes bytes of rows, which can be laid end to end after those of header(); can be sent to another process."""

    def header(self) -> bytes: ...

    def encode(self, rows: Sequence[Row]) -> bytes:
        """Raises ValueError (UnicodeError, ArrowInvalid, …) or TypeError where a row cannot be written so."""
        ...


def _cut(record: str) -> str:
    return record if len(record) <= 1000 else f"{record[:1000]}… ({len(record)} characters)"


def _lines(path: Path, start: int, boundary: Any) -> Iterator[Piece]:
    """Pieces of a text file. `boundary` gives the end of the last whole record in some bytes, or 0."""
    with path.open("rb") as file:
        file.seek(start)
        rest = b""
        while (more := file.read(PIECE_BYTES)) or rest:
            at_end = not more
            rest += more
            # The last record may lack its line end.
            whole = boundary(rest + b"\n" if at_end and not rest.endswith(b"\n") else rest)
            if not whole and not at_end and len(rest) < LONGEST_RECORD:
                continue
            data = rest[: whole or rest.find(b"\n") + 1 or len(rest)]
            start += len(data)
            yield Piece(data, start, "" if whole else "a quote is opened and never closed")
            rest = rest[len(data) :]


class CsvSource:
    """UTF-8, with or without a byte order mark, commas, quotes as in RFC 4180, a header."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.size = path.stat().st_size
        with path.open("rb") as file:
            head = file.read(LONGEST_RECORD)
        found = _RECORD.match(head if head.endswith(b"\n") else head + b"\n")
        if not found or not head.strip():
            raise TableError(f"{path}: has no header; its first line must name the columns")
        self._start = min(found.end(), len(head))
        try:
            (self.columns,) = csv.reader([found.group().decode("utf-8-sig")])
        except (ValueError, csv.Error) as error:
            raise TableError(f"{path}:1: the header is not CSV in UTF-8 ({error}); save the file as UTF-8") from None
        if len(self.columns) == 1 and (other := next((c for c in ";\t|" if c in self.columns[0]), "")):
            raise TableError(f"{path}:1: columns are separated by {other!r}; save the file with commas")
        if len(set(self.columns)) != len(self.columns):
            twice = next(name for name in self.columns if self.columns.count(name) > 1)
            raise TableError(f"{path}:1: the column {twice!r} is there twice; rename one")

    def pieces(self, start: int) -> Iterator[Piece]:
        return _lines(self.path, start or self._start, _end_of_csv)

    def decoder(self) -> Decoder:
        return CsvDecoder(self.columns)


def _end_of_csv(data: bytes) -> int:
    if b'"' not in data:
        return data.rfind(b"\n") + 1
    end = 0
    while found := _RECORD.match(data, end):
        end = found.end()
    return end


class CsvDecoder:
    def __init__(self, columns: list[str]) -> None:
        self._columns = columns

    def rows(self, piece: Piece) -> tuple[list[tuple[int, Row]], list[Bad]]:
        if piece.broken:
            return [], [Bad(0, piece.broken, _cut(piece.data.decode(errors="replace")))]
        try:
            text = piece.data.decode()
        except UnicodeDecodeError:
            return self._one_by_one(piece)
        csv.field_size_limit(LONGEST_RECORD)
        rows: list[tuple[int, Row]] = []
        bad = []
        for number, fields in enumerate(csv.reader(io.StringIO(text, newline=""))):
            if len(fields) == len(self._columns):
                rows.append((number, dict(zip(self._columns, fields, strict=True))))
            else:
                wrong = f"{len(fields)} fields, the header has {len(self._columns)}" if fields else "a blank line"
                bad.append(Bad(number, wrong, _cut(",".join(fields))))
        return rows, bad

    def _one_by_one(self, piece: Piece) -> tuple[list[tuple[int, Row]], list[Bad]]:
        """Decode a piece that is not UTF-8 throughout, one record at a time."""
        rows, bad = [], []
        data = piece.data if piece.data.endswith(b"\n") else piece.data + b"\n"
        for number, found in enumerate(_RECORD.finditer(data)):
            try:
                found.group().decode()
            except UnicodeDecodeError as error:
                record = _cut(found.group().decode(errors="replace").rstrip("\r\n"))
                bad.append(Bad(number, f"byte 0x{error.object[error.start]:02x} is not UTF-8", record))
                continue
            one, wrong = self.rows(Piece(found.group(), 0))
            rows += [(number, row) for _, row in one]
            bad += [entry._replace(row=number) for entry in wrong]
        return rows, bad


class CsvEncoder:
    def __init__(self, columns: Sequence[str]) -> None:
        self._columns = list(columns)

    def encode(self, rows: Sequence[Row]) -> bytes:
        fields = [[_as_text(row.get(column)) for column in self._columns] for row in rows]
        made = _csv(fields, csv.QUOTE_MINIMAL)
        if "\r" in made:
            # A carriage return ends a record for most readers; csv quotes it only where it is part of its own line end.
            quoting = (
                csv.QUOTE_ALL if any("\r" in str(field) for field in row) else csv.QUOTE_MINIMAL for row in fields
            )
            made = "".join(_csv([row], kind) for row, kind in zip(fields, quoting, strict=True))
        return made.encode()

    def header(self) -> bytes:
        return self.encode([dict(zip(self._columns, self._columns, strict=True))])


def _csv(rows: Sequence[Sequence[Any]], quoting: Any) -> str:
    made = io.StringIO()
    csv.writer(made, lineterminator="\n", quoting=quoting).writerows(rows)
    return made.getvalue()


def _as_text(value: Any) -> Any:
    """What a field of CSV says of a value: nothing for null; JSON for what has parts."""
    return _json(value) if isinstance(value, dict | list | bool) else value


class JsonLinesSource:
    """UTF-8, one JSON object a line."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.size = path.stat().st_size
        first = next(iter(self.pieces(0)), None)
        rows = self.decoder().rows(first)[0] if first else []
        if not rows:
            raise TableError(f"{path}: does not begin with JSON objects, one a line; give CSV, JSON lines or Parquet")
        self.columns = list(rows[0][1])
        self.sample = [row for _, row in rows]

    def pieces(self, start: int) -> Iterator[Piece]:
        return _lines(self.path, start, lambda data: data.rfind(b"\n") + 1)

    def decoder(self) -> Decoder:
        return JsonLinesDecoder()


class JsonLinesDecoder:
    def rows(self, piece: Piece) -> tuple[list[tuple[int, Row]], list[Bad]]:
        if piece.broken:
            return [], [Bad(0, f"longer than {LONGEST_RECORD} bytes", _cut(piece.data.decode(errors="replace")))]
        rows: list[tuple[int, Row]] = []
        bad = []
        lines = piece.data.split(b"\n")
        for number, line in enumerate(lines if lines[-1] else lines[:-1]):
            try:
                row = json.loads(line)
            except (ValueError, RecursionError) as error:
                bad.append(Bad(number, f"not JSON: {error}", _cut(line.decode(errors="replace"))))
                continue
            if type(row) is dict:
                rows.append((number, row))
            else:
                bad.append(Bad(number, "not a JSON object", _cut(line.decode(errors="replace"))))
        return rows, bad


class JsonLinesEncoder:
    def header(self) -> bytes:
        return b""

    def encode(self, rows: Sequence[Row]) -> bytes:
        return "".join(f"{_json(row)}\n" for row in rows).encode()


def _json(value: Any) -> str:
    # What JSON has no type for (dates, decimals, bytes of Parquet) is written as text.
    return json.dumps(value, ensure_ascii=False, default=str)


class ParquetSource:
    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            with pq.ParquetFile(path) as file:
                self.schema = file.schema_arrow
                self.size = file.metadata.num_rows
        except pa.ArrowException as error:
            raise TableError(f"{path}: is not Parquet ({error}); give CSV, JSON lines or Parquet") from None
        self.columns = list(self.schema.names)

    def pieces(self, start: int) -> Iterator[Piece]:
        with pq.ParquetFile(self.path) as file:
            row, groups = 0, 0
            while groups < file.num_row_groups and row + file.metadata.row_group(groups).num_rows <= start:
                row += file.metadata.row_group(groups).num_rows
                groups += 1
            for batch in file.iter_batches(PIECE_ROWS, row_groups=range(groups, file.num_row_groups)):
                skipped = max(0, min(start - row, batch.num_rows))
                row += batch.num_rows
                if skipped < batch.num_rows:
                    yield Piece(_message(batch.slice(skipped)), row)

    def decoder(self) -> Decoder:
        return ParquetDecoder(self.schema)


def _message(batch: pa.RecordBatch) -> bytes:
    return bytes(batch.serialize())


class ParquetDecoder:
    def __init__(self, schema: pa.Schema) -> None:
        self._schema = schema

    def rows(self, piece: Piece) -> tuple[list[tuple[int, Row]], list[Bad]]:
        batch = pa.ipc.read_record_batch(pa.py_buffer(piece.data), self._schema)
        return list(enumerate(batch.to_pylist())), []


class ArrowEncoder:
    """Messages of an Arrow stream, which can be laid end to end; finish() makes Parquet of them."""

    def __init__(self, schema: pa.Schema) -> None:
        self.schema = schema

    def encode(self, rows: Sequence[Row]) -> bytes:
        return _message(pa.RecordBatch.from_pylist(list(rows), schema=self.schema)) if rows else b""

    def header(self) -> bytes:
        return bytes(self.schema.serialize())


SOURCES: dict[str, Callable[[Path], Source]] = {
    ".csv": CsvSource,
    ".jsonl": JsonLinesSource,
    ".ndjson": JsonLinesSource,
    ".parquet": ParquetSource,
}


def open_source(path: Path) -> Source:
    """Raises TableError."""
    kind = SOURCES.get(path.suffix.lower())
    if not kind:
        raise TableError(f"{path}: its name must end in one of {', '.join(SOURCES)}, which says what it is")
    try:
        return kind(path)
    except OSError as error:
        raise TableError(f"{path}: cannot be read ({error.strerror}); give an existing file") from None


def encoder(path: Path, source: Source, added: Mapping[str, pa.DataType]) -> Encoder:
    """What writes rows of `source` with columns `added` into a file of this name. Raises TableError."""
    if path.suffix.lower() not in SOURCES:
        raise TableError(f"{path}: its name must end in one of {', '.join(SOURCES)}, which says what it shall be")
    if taken := [name for name in added if name in source.columns]:
        raise TableError(f"the input has a column {taken[0]!r} of its own, which the output needs; rename it there")
    if path.suffix.lower() == ".csv":
        return CsvEncoder([*source.columns, *added])
    if path.suffix.lower() != ".parquet":
        return JsonLinesEncoder()
    schema = source.schema if isinstance(source, ParquetSource) else _schema(source)
    return ArrowEncoder(pa.schema([*schema, *(pa.field(name, kind) for name, kind in added.items())]))


def _schema(source: Source) -> pa.Schema:
    """Text for every column of CSV; for JSON what its first rows are."""
    if isinstance(source, JsonLinesSource):
        return pa.Table.from_pylist(source.sample).schema
    return pa.schema([(name, pa.string()) for name in source.columns])


def make_parquet(stream: Path, target: Path) -> None:
    """Parquet of an Arrow stream in constant memory. Its bytes depend on the rows, not on how they are cut into messages."""
    with (
        stream.open("rb") as file,
        pa.ipc.open_stream(file) as reader,
        pq.ParquetWriter(target, reader.schema) as writer,
    ):
        waiting = reader.schema.empty_table()
        for batch in reader:
            waiting = pa.concat_tables([waiting, pa.Table.from_batches([batch])])
            while waiting.num_rows >= ROW_GROUP:
                writer.write_table(waiting.slice(0, ROW_GROUP).combine_chunks())
                waiting = waiting.slice(ROW_GROUP)
        if waiting.num_rows:
            writer.write_table(waiting.combine_chunks())


def sync(path: Path) -> None:
    """Wait until a file, or a directory's names, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
