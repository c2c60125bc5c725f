"""What a restore writes, leaves alone and refuses. Files are made by real exports and then spoilt."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from servers import Server

from embedcache import EmbeddingsCache, transfer
from embedcache.connection import RedisConnection
from embedcache.errors import InvalidInputError, TransferError

ENTRIES = 1_200


@pytest.fixture
def connection(valkey: Server) -> Iterator[RedisConnection]:
    opened = RedisConnection(valkey.url)
    yield opened
    opened.close()


def cache(server: Server, **options: Any) -> EmbeddingsCache:
    return EmbeddingsCache("c", redis_url=server.url, stats=False, **options)


def fill(server: Server, count: int = ENTRIES, dtype: str = "float32") -> None:
    vectors = np.random.default_rng(1).standard_normal((count, 4))
    with cache(server, dtype=dtype) as opened:
        opened.mset([{"text": f"text {n}", "model_name": "m", "embedding": vectors[n]} for n in range(count)])


@pytest.fixture
def jsonl(valkey: Server, connection: RedisConnection, tmp_path: Path) -> Path:
    """An export as JSON lines; the server is empty again."""
    fill(valkey)
    transfer.export_entries(connection, "c", tmp_path / "a.jsonl", file_format="jsonl")
    valkey.raw.flushall()
    return tmp_path / "a.jsonl"


@pytest.fixture
def parquet(valkey: Server, connection: RedisConnection, tmp_path: Path) -> Path:
    """An export as Parquet; the server is empty again."""
    fill(valkey)
    transfer.export_entries(connection, "c", tmp_path / "a.parquet")
    valkey.raw.flushall()
    return tmp_path / "a.parquet"


# ------------------------------------------------------------------------------------------------ what is there


@pytest.fixture(params=["parquet", "jsonl"])
def older(request: pytest.FixtureRequest, valkey: Server, connection: RedisConnection, tmp_path: Path) -> Path:
    """An export of three texts, of which the cache then got a newer one, an older one, and lost the third."""
    with cache(valkey) as opened:
        opened.mset([{"text": text, "model_name": "m", "embedding": [1.0, 1.0]} for text in ("a", "b", "gone")])
        target = tmp_path / "a"
        transfer.export_entries(connection, "c", target, file_format=request.param)
        opened.set("a", "m", [2.0, 2.0])
        opened.drop("gone", "m")
        key = opened.key_for("b", "m")
        valkey.raw.delete(key)
    _insert_earlier(valkey)
    return target


def _insert_earlier(server: Server) -> None:
    """Stores "b" as of an hour ago, by a restore of an export whose clock was moved."""
    folder = server.folder
    with cache(server) as opened:
        opened.set("b", "m", [0.0, 0.0])
        file = folder / "earlier.jsonl"
        keys = [opened.key_for("b", "m")]
        transfer.export_entries(opened.connection, "c", file, keys, file_format="jsonl", replace=True)
        change_line(file, 1, lambda entry: entry.update(inserted_at=entry["inserted_at"] - 3_600))
        transfer.restore_entries(opened.connection, "c", file, on_conflict="overwrite")


@pytest.mark.parametrize(
    ("on_conflict", "restored", "first_numbers"),
    [("skip", 1, (2.0, 0.0, 1.0)), ("overwrite", 3, (1.0, 1.0, 1.0)), ("newer", 2, (2.0, 1.0, 1.0))],
)
def test_what_is_there_already_stays_goes_or_stays_where_it_is_newer(
    valkey: Server,
    connection: RedisConnection,
    older: Path,
    on_conflict: transfer.OnConflict,
    restored: int,
    first_numbers: tuple[float, ...],
) -> None:
    report = transfer.restore_entries(connection, "c", older, on_conflict=on_conflict)
    assert (report.restored, report.skipped_existing, report.expired) == (restored, 3 - restored, 0)
    with cache(valkey) as opened:
        found = opened.mget(["a", "b", "gone"], "m")
    assert tuple(entry["embedding"][0] for entry in found if entry) == first_numbers


def test_a_conflict_is_settled_in_one_of_three_ways(connection: RedisConnection, tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="skip, overwrite or newer, not 'merge'"):
        transfer.restore_entries(connection, "c", tmp_path / "a", on_conflict="merge")  # type: ignore[arg-type]


@pytest.mark.parametrize("file_format", ["parquet", "jsonl"])
def test_what_has_expired_since_is_left_out_and_the_rest_ends_when_it_would_have(
    valkey: Server, connection: RedisConnection, tmp_path: Path, file_format: transfer.FileFormat
) -> None:
    with cache(valkey) as opened:
        opened.set("short", "m", [1.0], ttl=1)
        opened.set("long", "m", [1.0], ttl=1_000)
        opened.set("for ever", "m", [1.0])
        opened.set("by another program", "m", [1.0])
        stranger, long = opened.key_for("by another program", "m"), opened.key_for("long", "m")
        valkey.raw.expire(stranger, 500)
        transfer.export_entries(connection, "c", tmp_path / "a", file_format=file_format)
        due = time.time() * 1000 + valkey.pttl(long)
        time.sleep(1.1)
        valkey.raw.flushall()
        report = transfer.restore_entries(connection, "c", tmp_path / "a")
        assert (report.restored, report.expired, report.skipped_existing) == (3, 1, 0)
        assert opened.mexists(["short", "long", "for ever"], "m") == [False, True, True]
        assert time.time() * 1000 + valkey.pttl(long) == pytest.approx(due, abs=200)
        assert 490_000 < valkey.pttl(stranger) < 500_000
        entry = opened.get_by_key(long)
    assert entry is not None
    assert entry["ttl"] == 1_000


# ------------------------------------------------------------------------------------------------ JSON lines


def change_line(file: Path, row: int, change: Callable[[dict[str, Any]], Any]) -> None:
    """Changes one line's object; a change that returns a text puts that in the line's place."""
    lines = file.read_text().splitlines()
    entry = json.loads(lines[row - 1])
    changed = change(entry)
    lines[row - 1] = changed if isinstance(changed, str) else json.dumps(entry, separators=(",", ":"))
    file.write_text("\n".join(lines) + "\n")


def put(**fields: Any) -> Callable[[dict[str, Any]], Any]:
    return lambda entry: entry.update(fields)


SPOILT_LINES: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "NaN": (lambda entry: json.dumps(entry | {"vector": [float("nan")] * 4}), "not a line of JSON .*NaN"),
    "too large": (put(vector=[1e39] * 4), "NaN, infinity, or a number too large for float32"),
    "another dimension": (
        put(vector=[1.0] * 3, dimension=3),
        "the vector has 3 components; those of its model are 4 by what the file says",
    ),
    "another model": (put(model_name="other"), "those of its model are not in the file's list"),
    "a wrong dimension": (put(vector=[1.0] * 3), "the vector has 3 components, and its dimension is 4"),
    "words for numbers": (put(vector=["1", "2", "3", "4"]), "something that is not a number"),
    "another text": (put(text="another"), "the entry id is not that of the text and the model"),
    "a blank text": (put(text=" "), "the text is empty or blank"),
    "no text": (lambda entry: entry.pop("text") and None, "an entry has a text or a text_base64"),
    "bad base64": (
        lambda entry: json.dumps({k: v for k, v in entry.items() if k != "text"} | {"text_base64": "?"}),
        "not base64",
    ),
    "no model": (lambda entry: entry.pop("model_name") and None, "model_name is missing"),
    "a short id": (lambda entry: entry.update(entry_id=entry["entry_id"][-3:]), "the entry id is not that"),
    "a list for metadata": (put(metadata=[1]), "metadata is a list"),
    "a number that is none": (put(ttl=True), "ttl is a bool"),
    "a TTL of nought": (put(ttl=0), "a TTL is from 1 to"),
    "a time of long ago": (put(inserted_at=-1.0), "inserted_at is -1.0, which is not a time"),
    "a time far off": (put(expires_at=1e300), "expires_at is 1e.300, which is not a time"),
    "a dtype of nobody": (put(dtype="bfloat16"), "dtype is one of float32"),
    "int8 without its scale": (put(dtype="int8"), "not made of whole multiples of its scale"),
    "a list": (lambda _: "[1, 2]", "it is not a JSON object"),
    "half a line": (lambda entry: json.dumps(entry)[:50], "it is not a line of JSON"),
    "deep metadata": (put(metadata={"a": json.loads("[" * 40 + "]" * 40)}), "nested deeper than 32 levels"),
}


@pytest.mark.parametrize("spoilt", SPOILT_LINES)
def test_a_spoilt_line_is_named_and_nothing_of_its_batch_is_written(
    valkey: Server, connection: RedisConnection, jsonl: Path, spoilt: str
) -> None:
    change, words = SPOILT_LINES[spoilt]
    change_line(jsonl, 1_100, change)
    with pytest.raises(TransferError, match=f"^row 1,100: .*{words}") as raised:
        transfer.restore_entries(connection, "c", jsonl)
    assert raised.value.row == 1_100
    assert "the 1,000 rows before its batch are done and stay. Export the cache again" in str(raised.value)
    assert len(valkey.raw.keys()) == 1_000


@pytest.mark.parametrize("library", ["pyarrow", "no pyarrow"])
@pytest.mark.parametrize("taken", [1, -1])
def test_a_number_that_moved_to_the_next_line_is_missed(
    connection: RedisConnection, jsonl: Path, taken: int, library: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if library == "no pyarrow":
        monkeypatch.setattr("embedcache.transfer.jsonl.csv", None)
    numbers: list[float] = []
    change_line(jsonl, 7, lambda entry: numbers.extend(entry["vector"]) or entry.update(vector=numbers[:-taken]))
    change_line(jsonl, 8, lambda entry: entry.update(vector=numbers[:taken] + entry["vector"]))
    if taken < 0:
        change_line(jsonl, 7, put(vector=[*numbers, 0.5]))
        change_line(jsonl, 8, lambda entry: entry.update(vector=[1.0, 2.0, 3.0]))
    with pytest.raises(TransferError, match=r"^row 7: the vector has . components, and its dimension is 4"):
        transfer.restore_entries(connection, "c", jsonl)


@pytest.mark.parametrize(
    "vector", ["[1,2,3,]", "[1,2,,3]", "[1,2,3,nan]", "[1,2,3,1e400]", '[1,2,3,"4"]', "[1,2,3\r4]", "[1,2,3,true]"]
)
def test_what_is_no_number_is_not_read_as_one(connection: RedisConnection, jsonl: Path, vector: str) -> None:
    change_line(
        jsonl, 7, lambda entry: json.dumps(entry | {"vector": 0}, separators=(",", ":"))[: -len("0}")] + vector + "}"
    )
    with pytest.raises(TransferError, match=r"^row 7: .*; nothing was written"):
        transfer.restore_entries(connection, "c", jsonl)


@pytest.mark.parametrize("library", ["pyarrow", "no pyarrow"])
def test_lines_are_read_alike_with_pyarrow_and_without(
    valkey: Server, connection: RedisConnection, tmp_path: Path, library: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if library == "no pyarrow":
        monkeypatch.setattr("embedcache.transfer.jsonl.csv", None)
    for dtype in ("float32", "float64", "float16", "int8"):
        with cache(valkey, dtype=dtype) as opened:
            metadata = {"vector": [1], "a": {"b": 1, "vector": [2]}, ',"vector":[': ',"vector":['}
            opened.set(f"{dtype} text", "m", [0.1, -1e-20, 3e20 if dtype == "float32" else 3e2], metadata)
    before = {key: valkey.raw.get(key) for key in valkey.raw.scan_iter()}
    transfer.export_entries(connection, "c", tmp_path / "a.jsonl", file_format="jsonl")
    valkey.raw.flushall()
    transfer.restore_entries(connection, "c", tmp_path / "a.jsonl")
    assert {key: valkey.raw.get(key) for key in valkey.raw.scan_iter()} == before


def test_a_spoilt_first_batch_writes_nothing(valkey: Server, connection: RedisConnection, jsonl: Path) -> None:
    change_line(jsonl, 7, put(text="another"))
    with pytest.raises(TransferError, match=r"^row 7: .*; nothing was written"):
        transfer.restore_entries(connection, "c", jsonl)
    assert valkey.raw.keys() == []


@pytest.mark.parametrize("kept", [0.2, 0.5, 0.999])
@pytest.mark.parametrize("at", ["anywhere", "the end of a line"])
def test_lines_that_were_cut_off_are_refused_before_anything_is_written(
    valkey: Server, connection: RedisConnection, jsonl: Path, kept: float, at: str
) -> None:
    data = jsonl.read_bytes()
    data = data[: int(len(data) * kept)]
    jsonl.write_bytes(data if at == "anywhere" else data[: data.rindex(b"\n") + 1])
    row = data.count(b"\n") + 1
    for look in (lambda: transfer.restore_entries(connection, "c", jsonl), lambda: transfer.describe_file(jsonl)):
        with pytest.raises(
            TransferError, match=f"^row {row:,}: the file was cut off here; give it as the export"
        ) as told:
            look()
        assert told.value.row == row
    assert valkey.raw.keys() == []


@pytest.mark.parametrize("file_format", ["jsonl", "parquet"])
def test_a_file_that_is_checked_first_is_written_whole_or_not_at_all(
    valkey: Server, connection: RedisConnection, request: pytest.FixtureRequest, file_format: str
) -> None:
    file: Path = request.getfixturevalue(file_format)
    sound = file.read_bytes()
    if file_format == "jsonl":
        change_line(file, ENTRIES, put(text="another"))
    else:
        change_column(file, "text", ["another"])
    with pytest.raises(TransferError, match=r"^row 1,200: .*; nothing was written"):
        transfer.restore_entries(connection, "c", file, check_first=True)
    assert valkey.raw.keys() == []
    file.write_bytes(sound)
    assert transfer.restore_entries(connection, "c", file, check_first=True).restored == ENTRIES


def test_lines_that_are_missing_or_too_many_are_found(connection: RedisConnection, jsonl: Path) -> None:
    lines = jsonl.read_text().splitlines()
    jsonl.write_text("\n".join([*lines[:500], *lines[501:]]) + "\n")
    with pytest.raises(TransferError, match=r"^row 1,200: the file ends before this row"):
        transfer.restore_entries(connection, "c", jsonl)
    jsonl.write_text("\n".join([lines[0], *lines]) + "\n")
    with pytest.raises(TransferError, match=r"^row 1,201: the file says that it has 1,200 rows, and there is another"):
        transfer.restore_entries(connection, "c", jsonl)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (put(format_version=2), "format version 2, and this embedcache reads version 1; restore it with a newer one"),
        (put(entries=-1), "not an export"),
        (put(models=None), "not an export"),
        (lambda footer: footer.pop("cache_name") and None, "not an export"),
    ],
)
def test_a_footer_that_cannot_be_is_refused(
    connection: RedisConnection, jsonl: Path, change: Callable[[dict[str, Any]], Any], words: str
) -> None:
    change_line(jsonl, ENTRIES + 1, lambda line: change(line["embedcache_export"]))
    with pytest.raises(TransferError, match=words):
        transfer.restore_entries(connection, "c", jsonl)


def counted(footer: dict[str, Any], entries: int) -> dict[str, Any]:
    """A footer of another number of entries."""
    return footer | {"entries": entries, "models": [{"model_name": "m", "dimension": 4, "entries": entries}]}


@pytest.mark.parametrize("file_format", ["jsonl", "parquet"])
def test_an_entry_that_stands_there_twice_is_restored_once(
    valkey: Server, connection: RedisConnection, tmp_path: Path, file_format: Any
) -> None:
    """As it may where the server lists a key twice."""
    fill(valkey, 20)
    file = tmp_path / "a"
    transfer.export_entries(connection, "c", file, file_format=file_format)
    valkey.raw.flushall()
    if file_format == "jsonl":
        change_line(file, 21, lambda line: line.update(embedcache_export=counted(line["embedcache_export"], 21)))
        lines = file.read_text().splitlines()
        file.write_text("\n".join([lines[0], *lines]) + "\n")
    else:
        table = table_of(file)
        footer = counted(json.loads(table.schema.metadata[b"embedcache_export"]), 21)
        twice = pa.concat_tables([table.slice(0, 1), table])
        pq.write_table(twice.replace_schema_metadata({b"embedcache_export": json.dumps(footer)}), file)
    report = transfer.restore_entries(connection, "c", file)
    assert (report.restored, report.skipped_existing) == (20, 1)


# ------------------------------------------------------------------------------------------------ Parquet


def table_of(file: Path) -> pa.Table:
    """All of the file, its footer included, so that written again it is an export but for what was changed."""
    return pq.read_table(file).replace_schema_metadata(
        {b"embedcache_export": pq.read_metadata(file).metadata[b"embedcache_export"]}
    )


def change_column(file: Path, name: str, values: list[Any], **options: Any) -> None:
    """Writes the file again with other values in the last rows of one column."""
    table = table_of(file)
    position = table.schema.get_field_index(name)
    field = table.schema.field(name).with_nullable(True)
    kept = table.column(name).to_pylist()[: len(table) - len(values)]
    given = options.get("type", field.type)
    if name == "vector" and "type" not in options:
        given = pa.list_(pa.field("element", field.type.value_type), 4)  # with nulls, which no export has
    column = pa.array([*kept, *values], type=given)
    pq.write_table(table.set_column(position, field.with_type(column.type), column), file)


SPOILT_COLUMNS: dict[str, tuple[str, list[Any], str]] = {
    "another text": ("text", ["another"], "the entry id is not that of the text and the model"),
    "no text": ("text", [None], "a text or text_bytes"),
    "no model": ("model_name", [None], "model_name is missing"),
    "NaN": ("vector", [[float("nan"), 1.0, 1.0, 1.0]], "NaN, infinity"),
    "a number missing": ("vector", [[None, 1.0, 1.0, 1.0]], "NaN, infinity"),
    "no vector": ("vector", [None], "vector is missing"),
    "a wrong dimension": ("dimension", [5], "the vector has 4 components, and its dimension is 5"),
    "metadata of words": ("metadata", ["words"], "the metadata is not JSON"),
    "metadata that is a list": ("metadata", ["[1]"], "metadata is a dict or None, not list"),
    "metadata with NaN": ("metadata", ['{"a": NaN}'], "which JSON has no word for"),
    "metadata with infinity": ("metadata", ['{"a": [-Infinity]}'], "which JSON has no word for"),
    "metadata with a number too large": ("metadata", ['{"a": 1e400}'], "which JSON has no word for"),
    "metadata with an integer too long": ("metadata", ['{"a": 99999999999999999999}'], "more than 64 bits"),
    "metadata with half a character": ("metadata", ['{"a": "\\ud800"}'], "lone surrogates"),
    "another entry's id": ("entry_id", ["0" * 64], "the entry id is not that of the text and the model"),
    "a short id": ("entry_id", ["abc"], "the entry id is not that of the text and the model"),
    "another model": ("model_name", ["other"], "those of its model are not in the file's list"),
    "a dtype of nobody": ("dtype", ["bfloat16"], "dtype is one of float32"),
    "int8 without its scale": ("dtype", ["int8"], "not made of whole multiples of its scale"),
    "a time far off": ("expires_at", [1e300], "expires_at is 1e.300, which is not a time"),
    "a blank text": ("text", [" "], "the text is empty or blank"),
    "deep metadata": ("metadata", ["[" * 100_000], "the metadata is not JSON"),
    "a TTL of nought": ("ttl", [0], "a TTL is from 1 to"),
    "a time that is none": ("inserted_at", [float("inf")], "inserted_at is inf, which is not a time"),
}


@pytest.mark.parametrize("spoilt", SPOILT_COLUMNS)
def test_a_spoilt_row_is_named_and_nothing_of_its_batch_is_written(
    valkey: Server, connection: RedisConnection, parquet: Path, spoilt: str
) -> None:
    name, values, words = SPOILT_COLUMNS[spoilt]
    change_column(parquet, name, values)
    with pytest.raises(TransferError, match=f"^row 1,200: .*{words}.*; the 1,000 rows before") as raised:
        transfer.restore_entries(connection, "c", parquet)
    assert raised.value.row == ENTRIES
    assert len(valkey.raw.keys()) == 1_000


def test_metadata_may_be_written_with_any_spaces(valkey: Server, connection: RedisConnection, parquet: Path) -> None:
    change_column(parquet, "metadata", [' {"a": 1}', '{"a":\n1 } ', '{ "a" : 1, "a" : 1 }'])
    assert transfer.restore_entries(connection, "c", parquet).restored == ENTRIES
    last = table_of(parquet).column("text").to_pylist()[-3:]
    with cache(valkey) as opened:
        found = opened.mget(last, "m")
    assert [entry["metadata"] for entry in found if entry] == [{"a": 1}] * 3


def test_one_vector_of_another_dimension_is_named(connection: RedisConnection, parquet: Path) -> None:
    change_column(parquet, "vector", [[1.0, 2.0, 3.0]], type=pa.list_(pa.float32()))
    with pytest.raises(TransferError, match=r"^row 1,200: the vector has 3 components, and its dimension is 4"):
        transfer.restore_entries(connection, "c", parquet)


@pytest.mark.parametrize("kept", [0.0, 0.3, 0.99])
def test_parquet_that_was_cut_off_is_refused_before_anything_is_written(
    valkey: Server, connection: RedisConnection, parquet: Path, kept: float
) -> None:
    data = parquet.read_bytes()
    parquet.write_bytes(data[: int(len(data) * kept)])
    with pytest.raises(TransferError, match="not an export of embedcache, or was cut off"):
        transfer.restore_entries(connection, "c", parquet)
    assert valkey.raw.keys() == []


def test_a_flipped_bit_is_never_a_wrong_vector(valkey: Server, connection: RedisConnection, parquet: Path) -> None:
    transfer.restore_entries(connection, "c", parquet)
    sound = {key: valkey.raw.get(key) for key in valkey.raw.scan_iter()}
    data = parquet.read_bytes()
    refused = 0
    for position in np.random.default_rng(3).integers(4, len(data) - 4, 60):
        valkey.raw.flushall()
        parquet.write_bytes(data[:position] + bytes([data[position] ^ 0x10]) + data[position + 1 :])
        try:
            transfer.restore_entries(connection, "c", parquet)
        except TransferError:
            refused += 1
        restored = {key: valkey.raw.get(key) for key in valkey.raw.scan_iter()}
        assert restored.items() <= sound.items()
    assert refused > 50


def test_foreign_files_are_refused_in_words_of_their_own(connection: RedisConnection, tmp_path: Path) -> None:
    file = tmp_path / "foreign"
    pd.DataFrame({"text": ["a"], "vector": [[1.0]]}).to_parquet(file)
    with pytest.raises(TransferError, match="is Parquet, but not an export of embedcache"):
        transfer.restore_entries(connection, "c", file)
    for content in (b"", b"\x89PNG\r\n", b"{}\n", b'{"text": "a"}\n{"text": "b"}\n', b"PAR1", b"PAR1PAR1", b"{" * 99):
        file.write_bytes(content)
        with pytest.raises(TransferError, match="not an export of embedcache, or was cut off"):
            transfer.restore_entries(connection, "c", file)
    with pytest.raises(TransferError, match=r"cannot read .*No such file.*give the path of an export"):
        transfer.restore_entries(connection, "c", tmp_path / "nothing")
    with pytest.raises(TransferError, match=r"cannot read .*directory"):
        transfer.describe_file(tmp_path)


def test_columns_that_were_taken_away_are_missed(connection: RedisConnection, parquet: Path) -> None:
    table = table_of(parquet)
    pq.write_table(table.drop_columns(["ttl"]), parquet)
    with pytest.raises(TransferError, match=r"the file's columns are entry_id, .*; an export's are .*ttl"):
        transfer.restore_entries(connection, "c", parquet)


@pytest.mark.parametrize("dtype", ["float16", "int8", "float64"])
def test_a_row_changed_by_hand_is_stored_in_its_dtype_or_refused(
    valkey: Server, connection: RedisConnection, tmp_path: Path, dtype: str
) -> None:
    fill(valkey, 3, dtype)
    transfer.export_entries(connection, "c", tmp_path / "a.parquet")
    valkey.raw.flushall()
    change_column(tmp_path / "a.parquet", "vector", [[0.5, 0.25, 1.0, 0.123]])
    if dtype == "int8":
        with pytest.raises(TransferError, match=r"^row 3: the vector is not made of whole multiples of its scale"):
            transfer.restore_entries(connection, "c", tmp_path / "a.parquet")
    else:
        assert transfer.restore_entries(connection, "c", tmp_path / "a.parquet").restored == 3
