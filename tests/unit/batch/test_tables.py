"""Files in pieces are the files: every record once, in order, from any piece on."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batch import tables
from batch.tables import Row, TableError, open_source

FIELD = st.text(st.sampled_from(list("ab,\"\n ';\té😀")), max_size=8)


def read(path: Path, start: int = 0) -> tuple[list[Row], list[tables.Bad]]:
    """All rows and bad records, the latter numbered from the beginning of the file."""
    source = open_source(path)
    decoder = source.decoder()
    rows: list[Row] = []
    bad: list[tables.Bad] = []
    seen = 0
    for piece in source.pieces(start):
        good, wrong = decoder.rows(piece)
        rows += [row for _, row in good]
        bad += [entry._replace(row=seen + entry.row) for entry in wrong]
        seen += len(good) + len(wrong)
    return rows, bad


@settings(max_examples=300, deadline=None)
@given(
    rows=st.lists(st.tuples(FIELD, FIELD), max_size=12),
    size=st.integers(1, 40),
    end=st.sampled_from(["\n", "\r\n"]),
    ended=st.booleans(),
)
def test_csv_is_cut_between_records(
    rows: list[tuple[str, str]], size: int, end: str, ended: bool, tmp_path_factory: pytest.TempPathFactory
) -> None:
    made = io.StringIO()
    csv.writer(made, lineterminator=end).writerows([("one", "two"), *rows])
    text = made.getvalue() if ended else made.getvalue().removesuffix(end)
    path = tmp_path_factory.mktemp("csv") / "in.csv"
    path.write_bytes(text.encode())
    expected = [dict(zip(("one", "two"), row, strict=True)) for row in csv.reader(io.StringIO(text, newline=""))][1:]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tables, "PIECE_BYTES", size)
        ends = [piece.end for piece in open_source(path).pieces(0)]
        assert read(path) == (expected, [])
        for place in ends:
            rest, bad = read(path, place)
            assert rest == expected[len(expected) - len(rest) :]
            assert not bad
        assert ends[-1:] == ([path.stat().st_size] if expected else [])


def test_quotes_inside_of_a_field_are_letters(tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text('size,text\n5",a "quoted" word\n"6""",six\n')
    assert read(tmp_path / "in.csv")[0] == [{"size": '5"', "text": 'a "quoted" word'}, {"size": '6"', "text": "six"}]


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.text(max_size=5), st.text(st.sampled_from(list('a,"\n\r')), max_size=5)), max_size=5))
def test_what_is_written_as_csv_is_read_again(rows: list[tuple[str, str]]) -> None:
    try:
        made = tables.CsvEncoder(["one", "two"]).encode([dict(zip(("one", "two"), row, strict=True)) for row in rows])
    except UnicodeEncodeError:  # half of a surrogate pair, which no file can have
        return
    assert [tuple(row) for row in csv.reader(io.StringIO(made.decode(), newline=""))] == rows


def test_bad_records_of_csv_are_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "LONGEST_RECORD", 500)
    good = b"1,fine\n"
    (tmp_path / "in.csv").write_bytes(
        b"n,text\n"
        + good
        + b"short\n"
        + good
        + b"\n"
        + good
        + b"a,b,c\n"
        + good
        + b"2,caf\xe9\n"
        + good
        + b'3,"never closed\n'
        + good
    )
    rows, bad = read(tmp_path / "in.csv")
    print(bad)
    assert rows == [{"n": "1", "text": "fine"}] * 6
    assert [entry.row for entry in bad] == [1, 3, 5, 7, 9]
    for entry, reason in zip(
        bad, ("1 fields", "blank line", "3 fields", "0xe9 is not UTF-8", "never closed"), strict=True
    ):
        assert reason in entry.reason


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "has no header"),
        (b"a;text\n", "separated by ';'"),
        (b"a\ttext\n", r"separated by '\\t'"),
        (b"a,a\n", "'a' is there twice"),
        ("a,text\n".encode("utf-16"), "not CSV in UTF-8"),
    ],
)
def test_what_is_no_csv_is_refused_with_a_remedy(content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_bytes(content)
    with pytest.raises(TableError, match=message) as refused:
        open_source(tmp_path / "in.csv")
    assert "\n" not in str(refused.value)


def test_json_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "PIECE_BYTES", 10)
    rows: list[dict[str, Any]] = [{"text": "ä\n", "n": [1, {"x": None}]}, {"text": "b", "other": 2}]
    lines = [json.dumps(rows[0]), "{", "[1]", "", json.dumps(rows[1])]
    (tmp_path / "in.jsonl").write_text("\n".join(lines))
    found, bad = read(tmp_path / "in.jsonl")
    assert found == rows
    reasons = [(entry.row, entry.reason.partition(":")[0]) for entry in bad]
    assert reasons == [(1, "not JSON"), (2, "not a JSON object"), (3, "not JSON")]


def test_parquet_from_any_row_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "PIECE_ROWS", 7)
    table = pa.table({"n": range(50), "text": [f"text {n}" for n in range(50)], "list": [[n] for n in range(50)]})
    pq.write_table(table, tmp_path / "in.parquet", row_group_size=20)
    assert read(tmp_path / "in.parquet")[0] == table.to_pylist()
    for end in [piece.end for piece in open_source(tmp_path / "in.parquet").pieces(0)]:
        assert read(tmp_path / "in.parquet", end)[0] == table.to_pylist()[end:]


def test_other_files_are_refused(tmp_path: Path) -> None:
    for name, content in (
        ("in.xlsx", b""),
        ("in.parquet", b"PAR1 not"),
        ("in.jsonl", b"no json\n"),
        ("gone.csv", None),
    ):
        if content is not None:
            (tmp_path / name).write_bytes(content)
        with pytest.raises(TableError, match=name):
            open_source(tmp_path / name)
