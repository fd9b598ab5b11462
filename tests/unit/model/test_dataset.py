"""What is wrong with a data file is said in one line: file, line, remedy."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow.parquet import write_table

from model import dataset
from model.dataset import FEWEST, LABELS, DataError

HEADER = "tweet_id,sentiment,content\n"
ENOUGH = HEADER + "".join(f"{n},{label},text {n} of it\n" for label in LABELS for n in range(FEWEST))


def write(tmp_path: Path, content: str | bytes) -> Path:
    path = tmp_path / "data.csv"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def test_reads_columns_in_any_order_and_line_feeds_in_quotes(tmp_path: Path) -> None:
    extra = "".join(f'"text {n},\nand ""more""",{label},x\n' for label in LABELS for n in range(FEWEST))
    path = write(tmp_path, "\ufeffcontent,sentiment,note\r\n" + extra)
    data = dataset.read(path)
    assert data.texts[1] == 'text 1,\nand "more"'
    assert data.counts() == dict.fromkeys(LABELS, FEWEST)


@pytest.mark.parametrize(
    ("content", "line", "said"),
    [
        ("", 1, "the header is nothing"),
        ("tweet_id,content\n1,hello\n", 1, "name the columns sentiment and content"),
        ("sentiment,content,content\nfun,a,b\n", 1, "once each"),
        (HEADER + "1,fun,good\n2,,hello\n", 3, "the label is empty"),
        (HEADER + "1,fun,good\nfun\n", 3, "the row ends after 1 of 3 fields; complete it or delete it"),
        (HEADER + "1,fun,good\n2,fun,\n", 3, "the text is empty"),
        (HEADER + '1,fun," \t\n"\n', 2, "the text is empty"),
        (HEADER + '1,fun,"a\nb"\n2,fun,one, two\n', 4, "4 fields, the header has 3; quote texts that contain ','"),
        (HEADER + '1,fun,good\n2,fun,"never closed\n3,fun,more\n', 3, "close every quote"),
        (HEADER + '1,fun,"so "nice""\n', 2, "double quotes inside of quoted texts"),
        (HEADER + '1,fun,"' + "x" * 140_000 + "\n", 2, "quoting of the row that begins here is broken"),
        (
            HEADER.encode() + "1,fun,café\n".encode() + b"1,fun,caf\xe9\n",
            3,
            "byte 0xe9 is not UTF-8; save the file as UTF-8",
        ),
        (HEADER.encode() + b"1,fun,\x81\n", 2, "byte 0x81 is not UTF-8"),
    ],
)
def test_says_where_and_what(tmp_path: Path, content: str | bytes, line: int, said: str) -> None:
    path = write(tmp_path, content)
    with pytest.raises(DataError) as error:
        dataset.read(path)
    assert str(error.value).startswith(f"{path}:{line}: ")
    assert said in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "cp1252"])
@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
def test_files_as_spreadsheets_write_them(tmp_path: Path, encoding: str, separator: str) -> None:
    rows = "".join(f"{separator.join(('fun', f'café {n}'))}\r\n\r\nlove{separator}naïve\r\n" for n in range(FEWEST))
    path = write(tmp_path, f"label{separator}text\r\n{rows}\r\n".encode(encoding))
    data = dataset.read(path, "label", "text")
    assert data.counts() == {"fun": FEWEST, "love": FEWEST}
    assert data.texts[:2] == ["café 0", "naïve"]


def test_a_text_of_any_length(tmp_path: Path) -> None:
    long = "x" * 200_000
    path = write(tmp_path, "sentiment,content\n" + f"fun,{long}\nlove,{long}\n" * FEWEST)
    assert dataset.read(path).texts[0] == long


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"PK\x03\x04", "a spreadsheet (.xlsx, .ods); save it as CSV"),
        (b"\x1f\x8b", "compressed with gzip; unpack it first"),
        (b"version https://git-lfs.github.com/spec/v1\noid", "a Git LFS pointer, not the data; run git lfs pull"),
        (b"v1,v2\nham,hello\n", "or say which they are: TEXT=column LABEL=column"),
    ],
)
def test_what_is_no_table_of_ours(tmp_path: Path, content: bytes, said: str) -> None:
    with pytest.raises(DataError) as error:
        dataset.read(write(tmp_path, content))
    assert said in str(error.value)


def test_too_few_of_a_label(tmp_path: Path) -> None:
    path = write(tmp_path, ENOUGH.replace("0,worry,text 0 of it\n", "", 1))
    with pytest.raises(DataError, match=f"only {FEWEST - 1} of 'worry'; give at least {FEWEST} rows of each label"):
        dataset.read(path)


def test_one_label(tmp_path: Path) -> None:
    path = write(tmp_path, "sentiment,content\n" + "fun,hello\n" * FEWEST)
    with pytest.raises(DataError, match="1 labels in the column 'sentiment'; give at least two"):
        dataset.read(path)


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"No such file.*DATA=path"):
        dataset.read(tmp_path / "none.csv")


def parquet(tmp_path: Path, **columns: object) -> Path:
    path = tmp_path / "data.parquet"
    write_table(pa.table(columns), path, row_group_size=7)
    return path


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.dictionary(pa.int32(), pa.string())])
def test_parquet_is_read_as_csv_is(tmp_path: Path, kind: pa.DataType) -> None:
    texts = [f"text {n}, of \n{label} \u2764" for label in LABELS for n in range(FEWEST)]
    labels = [label for label in LABELS for _ in range(FEWEST)]
    path = parquet(tmp_path, other=list(range(len(texts))), content=texts, sentiment=pa.array(labels).cast(kind))
    data = dataset.read(path)
    assert (data.texts, data.labels) == (texts, labels)
    assert data.about()["rows"] == len(texts)


def test_labels_of_parquet_may_be_numbers(tmp_path: Path) -> None:
    path = parquet(tmp_path, text=["good"] * FEWEST + ["bad"] * FEWEST, label=[1] * FEWEST + [0] * FEWEST)
    assert dataset.read(path, "label", "text").counts() == {"0": FEWEST, "1": FEWEST}


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        (
            {"content": ["a"]},
            ":1: the header is content; name the columns sentiment and content, once each, or say which",
        ),
        (
            {"content": ["a", None], "sentiment": ["fun", "fun"]},
            ": row 2: the text is empty; write one or delete the row",
        ),
        (
            {"content": ["a", "b"], "sentiment": [None, "fun"]},
            ": row 1: the label is empty; write one or delete the row",
        ),
        ({"content": [["a"]], "sentiment": ["fun"]}, "cannot be read as texts"),
    ],
)
def test_what_is_wrong_with_parquet(tmp_path: Path, columns: dict[str, list[object]], said: str) -> None:
    path = parquet(tmp_path, **columns)
    with pytest.raises(DataError) as error:
        dataset.read(path)
    assert str(error.value).startswith(str(path))
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_parquet_that_was_cut(tmp_path: Path) -> None:
    path = parquet(tmp_path, content=["a"], sentiment=["fun"])
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(DataError, match="cannot be read as Parquet"):
        dataset.read(path)


@pytest.mark.parametrize("end", ["csv", "parquet"])
def test_a_large_file_is_read_in_little_memory_beside_its_texts(tmp_path: Path, end: str) -> None:
    """Half of the file is a column that nobody asked for, a tenth of its characters would cost four bytes each in one text."""
    count, unasked = 40_000, "\U0001f600" + "x" * 1000
    path = tmp_path / f"data.{end}"
    if end == "csv":
        path.write_text("sentiment,content,other\n" + "".join(f"l{n % 2},text {n},{unasked}\n" for n in range(count)))
    else:
        labels, texts = [f"l{n % 2}" for n in range(count)], [f"text {n}" for n in range(count)]
        write_table(pa.table({"sentiment": labels, "content": texts, "other": [unasked] * count}), path)
    dataset.read(path)  # what is loaded once is not counted
    tracemalloc.start()
    try:
        data = dataset.read(path)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(data.texts) == count
    assert most < 10_000_000, most
