"""What is wrong with a data file is said in one line: file, line, remedy."""

from __future__ import annotations

from pathlib import Path

import pytest

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
        (HEADER + "1,fun,good\n2,joy,hello\n", 3, "unknown label 'joy'; use one of anger, boredom"),
        (HEADER + "1,fun,good\n2,fun,\n", 3, "the text is empty"),
        (HEADER + '1,fun," \t\n"\n', 2, "the text is empty"),
        (HEADER + '1,fun,"a\nb"\n2,fun,one, two\n', 4, "4 fields, the header has 3; quote texts that contain commas"),
        (HEADER + "1,fun\n", 2, "2 fields"),
        (HEADER + '1,fun,good\n2,fun,"never closed\n3,fun,more\n', 3, "close every quote"),
        (HEADER + '1,fun,"so "nice""\n', 2, "double quotes inside of quoted texts"),
        (HEADER + '1,fun,"' + "x" * 140_000 + "\n", 2, "quoting of the row that begins here is broken"),
        (HEADER.encode() + b"1,fun,caf\xe9\n", 2, "byte 0xe9 is not UTF-8; save the file as UTF-8"),
        (ENOUGH.encode("utf-16"), 1, "is not UTF-8"),
    ],
)
def test_says_where_and_what(tmp_path: Path, content: str | bytes, line: int, said: str) -> None:
    path = write(tmp_path, content)
    with pytest.raises(DataError) as error:
        dataset.read(path)
    assert str(error.value).startswith(f"{path}:{line}: ")
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_too_few_of_a_label(tmp_path: Path) -> None:
    path = write(tmp_path, ENOUGH.replace("0,worry,text 0 of it\n", "", 1))
    with pytest.raises(DataError, match=f"{FEWEST - 1} rows of 'worry'; give at least {FEWEST}"):
        dataset.read(path)


def test_a_label_that_is_not_there(tmp_path: Path) -> None:
    path = write(tmp_path, "".join(line for line in ENOUGH.splitlines(True) if ",love," not in line))
    with pytest.raises(DataError, match="0 rows of 'love'"):
        dataset.read(path)


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"No such file.*make model DATA=path"):
        dataset.read(tmp_path / "none.csv")
