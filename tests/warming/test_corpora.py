"""A corpus is read row by row, whatever its format; what cannot be used is named by its row."""

from __future__ import annotations

import datetime
import json
import tracemalloc
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from warmed import FORMATS, texts_of, write

from embedcache.errors import CorpusError, InvalidInputError
from embedcache.warming.corpora import BadRow, Corpus, Row


def read(path: Path, **options: Any) -> list[Row | BadRow]:
    with Corpus(path, **options).reading() as reading:
        rows = list(reading)
        assert reading.fraction == 1
    return rows


def bad(rows: list[Row | BadRow]) -> dict[int, str]:
    return {row.number: row.reason for row in rows if isinstance(row, BadRow)}


def texts(rows: list[Row | BadRow]) -> list[str]:
    return [row.text for row in rows if isinstance(row, Row)]


# ------------------------------------------------------------------------------------------------ each format


@pytest.mark.parametrize("ending", FORMATS)
def test_each_format_gives_its_texts_in_order(tmp_path: Path, ending: str) -> None:
    wanted = texts_of(2_500)
    rows = read(write(tmp_path / f"c.{ending}", wanted))
    assert [(row.number, row.text, row.metadata) for row in rows] == [
        (number, text, None) for number, text in enumerate(wanted, 1)
    ]


@pytest.mark.parametrize("ending", FORMATS)
def test_a_limit_takes_the_first_rows_and_then_all_is_read(tmp_path: Path, ending: str) -> None:
    assert texts(read(write(tmp_path / f"c.{ending}", texts_of(50)), limit=7)) == texts_of(7)


@pytest.mark.parametrize("ending", FORMATS)
def test_how_much_was_read_grows_with_the_rows(tmp_path: Path, ending: str) -> None:
    with Corpus(write(tmp_path / f"c.{ending}", texts_of(1_000))).reading() as reading:
        seen = [reading.fraction for _ in reading]
    assert seen == sorted(seen)
    assert 0.45 < seen[499] < 0.55


@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
def test_columns_become_metadata(tmp_path: Path, ending: str) -> None:
    path = write(tmp_path / f"c.{ending}", ["a", "b"], id=["1", "2"], page=["x", "y"], more=["-", "-"])
    assert [row.metadata for row in read(path, metadata=("id", "page"))] == [
        {"id": "1", "page": "x"},
        {"id": "2", "page": "y"},
    ]


def test_jsons_and_parquets_metadata_keep_their_types(tmp_path: Path) -> None:
    columns: dict[str, Any] = {"n": [1, None], "tags": [["a"], []], "of": [{"p": 1.5}, {"p": None}]}
    wanted = [{"n": 1, "tags": ["a"], "of": {"p": 1.5}}, {"n": None, "tags": [], "of": {"p": None}}]
    for ending in ("jsonl", "parquet"):
        path = write(tmp_path / f"c.{ending}", ["a", "b"], **columns)
        assert [row.metadata for row in read(path, metadata=("n", "tags", "of"))] == wanted


@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
def test_another_column_may_hold_the_texts(tmp_path: Path, ending: str) -> None:
    path = write(tmp_path / f"c.{ending}", ["a", "b"], body=["one", "two"])
    assert texts(read(path, column="body")) == ["one", "two"]


@pytest.mark.parametrize("ending", FORMATS)
def test_a_format_can_be_named(tmp_path: Path, ending: str) -> None:
    path = write(tmp_path / f"c.{ending}", ["a"]).rename(tmp_path / "c.data")
    if ending != "tsv":
        assert texts(read(path, file_format=ending)) == ["a"]


def test_lines_may_end_as_on_windows_and_begin_with_a_mark(tmp_path: Path) -> None:
    (tmp_path / "c.txt").write_bytes(b"\xef\xbb\xbfone\r\n\r\ntwo")
    assert [(row.number, row.text) for row in read(tmp_path / "c.txt")] == [(1, "one"), (3, "two")]
    (tmp_path / "c.csv").write_bytes(b'\xef\xbb\xbftext,n\r\n"one\r\nmore",1\r\n\r\ntwo,2')
    assert texts(read(tmp_path / "c.csv")) == ["one\r\nmore", "two"]


def test_a_text_may_be_longer_than_pythons_csv_allows(tmp_path: Path) -> None:
    text = "word " * 100_000
    assert texts(read(write(tmp_path / "c.csv", [text]))) == [text]


def test_an_empty_file_has_no_rows(tmp_path: Path) -> None:
    (tmp_path / "c.txt").touch()
    assert read(tmp_path / "c.txt") == []


@pytest.mark.parametrize("ending", ["txt", "csv", "jsonl"])
def test_memory_does_not_grow_with_the_file(tmp_path: Path, ending: str) -> None:
    path = write(tmp_path / f"c.{ending}", ("word " * 2_000 + str(number) for number in range(500)))
    tracemalloc.start()
    try:
        with Corpus(path).reading() as reading:
            assert sum(1 for _ in reading) == 500
        assert tracemalloc.get_traced_memory()[1] < path.stat().st_size / 10
    finally:
        tracemalloc.stop()


# ------------------------------------------------------------------------------------------------ bad rows


def test_lines_that_cannot_be_used_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("embedcache.warming.corpora._MAX_LINE_BYTES", 100)
    (tmp_path / "c.txt").write_bytes(b"one\n\xff\xfe\n" + b"x" * 300 + b"\ntwo\n")
    rows = read(tmp_path / "c.txt")
    assert texts(rows) == ["one", "two"]
    assert bad(rows) == {2: "it is not UTF-8", 3: "the line is longer than 100 bytes"}


def test_records_of_csv_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    (tmp_path / "c.csv").write_bytes(b'text,n\none,1\n ,2\nbad \xff,3\na,b,c\n"two" more,5\nthree,6\n"never closed,7\n')
    rows = read(tmp_path / "c.csv")
    assert texts(rows) == ["one", "three"]
    told = bad(rows)
    assert list(told) == [2, 3, 4, 5, 7]
    assert told[2] == "the text is empty or blank"
    assert told[3] == "it is not UTF-8"
    assert told[4] == "it has 3 cells, and the header 2"
    assert told[5].startswith("line 6 of the file is not CSV")
    assert "unexpected end of data" in told[7]


def test_a_record_of_csv_that_has_a_line_too_long_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("embedcache.warming.corpora._MAX_LINE_BYTES", 50)
    (tmp_path / "c.csv").write_text(f'text\none\n{"x" * 90}\n"first\n{"y" * 90}\nlast"\ntwo\n')
    rows = read(tmp_path / "c.csv")
    assert texts(rows) == ["one", "two"]
    assert bad(rows) == dict.fromkeys((2, 3), "a line of it is longer than 50 bytes")


def test_lines_of_json_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    lines = ['{"text": "one"}', "{", "[1]", '{"other": 1}', '{"text": 5}', '{"text": null}', '{"text": "\\ud800"}']
    lines += ["[" * 100_000, '{"text": "two", "m": 1e999}', '{"text": "three", "m": 1}']
    (tmp_path / "c.jsonl").write_text("\n".join(lines))
    assert texts(read(tmp_path / "c.jsonl")) == ["one", "two", "three"]
    rows = read(tmp_path / "c.jsonl", metadata=("m",))
    assert texts(rows) == ["three"]
    told = bad(rows)
    assert list(told) == list(range(1, 10))
    assert told[1] == "it has no 'm'"
    assert told[2] == told[8] == "it is not a line of JSON"
    assert told[3] == "it is no JSON object"
    assert told[4] == "it has no 'text'"
    assert "infinity" in told[9] or "inf" in told[9]
    told = bad(read(tmp_path / "c.jsonl"))
    assert told[5] == "a text is str, not int"
    assert told[6] == "it has no text"
    assert "surrogates" in told[7]


def test_rows_of_parquet_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    raw = pa.array([b"one", b"\xff", None, b" ", b"two"], pa.binary())
    not_checked = pa.StringArray.from_buffers(5, *raw.buffers()[1:], raw.buffers()[0], raw.null_count)
    pq.write_table(pa.table({"text": not_checked}), tmp_path / "c.parquet")
    rows = read(tmp_path / "c.parquet")
    assert texts(rows) == ["one", "two"]
    assert bad(rows) == {2: "it is not UTF-8", 3: "it has no text", 4: "the text is empty or blank"}


# ------------------------------------------------------------------------------------------------ corpora that are none


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_a_column_that_is_not_there_is_told_with_those_that_are(tmp_path: Path, ending: str) -> None:
    path = write(tmp_path / f"c.{ending}", ["a"], id=["1"])
    with pytest.raises(InvalidInputError, match=r"has no column 'body'; it has 'text', 'id'$"):
        read(path, column="body")
    with pytest.raises(InvalidInputError, match=r"has no column 'page'"):
        read(path, metadata=("page",))


def test_two_columns_of_one_name_are_told(tmp_path: Path) -> None:
    (tmp_path / "c.csv").write_text("text,text\na,b\n")
    with pytest.raises(InvalidInputError, match="several columns 'text'"):
        read(tmp_path / "c.csv")


def test_parquets_columns_must_be_text_and_json(tmp_path: Path) -> None:
    day = [datetime.date(2026, 1, 1)]
    path = write(tmp_path / "c.parquet", ["a"], number=[1], day=day, days=[day])
    with pytest.raises(InvalidInputError, match=r"'number' of .* is of type int64, not text"):
        read(path, column="number")
    for name in ("day", "days"):
        with pytest.raises(InvalidInputError, match=f"'{name}' of .* date32.* write it as text"):
            read(path, metadata=(name,))


@pytest.mark.parametrize(
    ("content", "ending", "message"),
    [
        (b"no parquet", "parquet", "is not a whole Parquet file"),
        ("a text\n".encode("utf-16"), "txt", "is UTF-16; write it as UTF-8"),
        (b'"never closed', "csv", "has no header that can be read"),
        (None, "txt", "cannot read .*: No such file"),
    ],
)
def test_a_file_that_is_none_is_told(tmp_path: Path, content: bytes | None, ending: str, message: str) -> None:
    path = tmp_path / f"c.{ending}"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(CorpusError, match=message):
        read(path)


def test_parquet_that_is_damaged_in_the_middle_says_from_where(tmp_path: Path) -> None:
    path = tmp_path / "c.parquet"
    table = pa.table({"text": texts_of(1_000)})
    pq.write_table(table, path, row_group_size=500, compression="zstd", use_dictionary=False)
    start = pq.ParquetFile(path).metadata.row_group(1).column(0).data_page_offset
    content = bytearray(path.read_bytes())
    content[start : start + 200] = bytes(200)
    path.write_bytes(content)
    with Corpus(path).reading() as reading, pytest.raises(CorpusError, match=r"^row 501: .* is damaged") as caught:
        list(reading)
    assert caught.value.row == 501


def test_a_folder_is_no_corpus(tmp_path: Path) -> None:
    (tmp_path / "c.txt").mkdir()
    with pytest.raises(CorpusError, match="is not a file"):
        read(tmp_path / "c.txt")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"path": Path("c.docx")}, r"not '.docx': rename it, or name its format"),
        ({"path": Path("c.txt"), "metadata": ("id",)}, "a text file has no columns"),
        ({"path": Path("c.txt"), "limit": 0}, "limit is a whole number above zero, not 0"),
        ({"path": Path("c.txt"), "file_format": "xml"}, "not 'xml'"),
    ],
)
def test_what_cannot_be_meant_is_told(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        Corpus(**options)


def test_json_lines_are_not_taken_for_another_encoding(tmp_path: Path) -> None:
    (tmp_path / "c.jsonl").write_bytes(json.dumps({"text": "a"}).encode("utf-16-le") + b"\n")
    assert bad(read(tmp_path / "c.jsonl")) == {1: "it is not a line of JSON"}
