"""How vectors stand in JSON lines: as numbers or as base64. Both come back bit by bit, and others can read them."""

from __future__ import annotations

import base64
import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import exporting
import numpy as np
import pytest
from exporting import CancelledError, cache, export, fill, stop_after, values
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from servers import Server

from embedcache import EmbeddingsCache, transfer
from embedcache.connection import RedisConnection
from embedcache.errors import InvalidInputError, TransferError

# Fixtures. Imported by name, they would be hidden by the arguments that ask for them.
connection, plain = exporting.connection, exporting.plain

DTYPES = ("float32", "float64", "float16", "int8")
LETTERS = {"float32": "f", "float64": "d"}


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "entries.jsonl"


def fill_all_dtypes(server: Server, count: int = 30) -> None:
    for number, dtype in enumerate(DTYPES):
        fill(server, count, dtype=dtype, model=f"m{number}", dimensions=4 + number)


def entries_of(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()[:-1]]


def unpacked(vector: dict[str, str]) -> list[float]:
    """As somebody decodes it who has nothing but the documentation."""
    data = base64.b64decode(vector["base64"], validate=True)
    letter = LETTERS[vector["dtype"]]
    return list(struct.unpack(f"<{len(data) // struct.calcsize(letter)}{letter}", data))


# ------------------------------------------------------------------------------------------------ written


def test_base64_holds_what_a_lookup_gives(valkey: Server, plain: RedisConnection, target: Path) -> None:
    fill_all_dtypes(valkey)
    export(plain, target, vectors="base64")
    found = entries_of(target)
    assert len(found) == 120
    for entry in found:
        assert list(entry)[-1] == "vector"
        assert list(entry["vector"]) == ["dtype", "base64"]
        assert entry["vector"]["dtype"] == ("float64" if entry["dtype"] == "float64" else "float32")
        with cache(valkey) as opened:
            stored = opened.get(entry["text"], entry["model_name"])
        assert stored is not None
        assert unpacked(entry["vector"]) == stored["embedding"].tolist()
        assert len(stored["embedding"]) == entry["dimension"]


def test_numbers_are_written_unless_base64_is_asked_for(valkey: Server, plain: RedisConnection, target: Path) -> None:
    fill(valkey)
    vectors = []
    for options in ({}, {"vectors": "numbers"}, {"vectors": None}):
        export(plain, target, replace=True, **options)
        vectors.append({entry["text"]: entry["vector"] for entry in entries_of(target)})
    assert vectors[0] == vectors[1] == vectors[2]
    assert all(type(number) is float for vector in vectors[0].values() for number in vector)


@pytest.mark.parametrize("vectors", ["numbers", "base64"])
def test_parquet_has_one_way_to_hold_vectors(plain: RedisConnection, tmp_path: Path, vectors: str) -> None:
    with pytest.raises(InvalidInputError, match="vectors is a choice for jsonl alone; leave it out for parquet"):
        export(plain, tmp_path / "a.parquet", vectors=vectors)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("vectors", ["hex", "", 1, True, b"base64", ["base64"]])
def test_there_are_two_ways_for_lines(plain: RedisConnection, target: Path, vectors: object) -> None:
    with pytest.raises(InvalidInputError, match=r"vectors is .*numbers.*base64"):
        export(plain, target, vectors=vectors)
    assert list(target.parent.iterdir()) == []


# ------------------------------------------------------------------------------------------------ there and back


def test_what_comes_back_is_bit_by_bit_what_was_there(
    server: Server, connection: RedisConnection, target: Path
) -> None:
    fill_all_dtypes(server)
    with cache(server) as opened:
        opened.set(b"\xff\xd8\x00an image", "m0", [1.0, 2.0, -0.0, 1e-40])
    before = values(server)
    assert export(connection, target, vectors="base64").entries == len(before)
    server.raw.flushall()
    assert transfer.restore_entries(connection, "c", target).restored == len(before)
    assert values(server) == before


def test_several_processes_write_and_read_the_same(valkey: Server, plain: RedisConnection, target: Path) -> None:
    fill_all_dtypes(valkey, 400)
    before = values(valkey)
    export(plain, target, vectors="base64")
    other = target.with_stem("other")
    export(plain, other, vectors="base64", processes=2)

    def without_times(file: Path) -> list[dict[str, Any]]:  # of when they expire, which is asked for anew
        return sorted(({**entry, "expires_at": None} for entry in entries_of(file)), key=lambda entry: entry["text"])

    assert without_times(other) == without_times(target)
    valkey.raw.flushall()
    assert transfer.restore_entries(plain, "c", other, processes=2).restored == 1_600
    assert values(valkey) == before


VECTORS = st.integers(1, 5).flatmap(
    lambda dimension: arrays(np.float64, dimension, elements=st.floats(width=32, allow_nan=False, allow_infinity=False))
)


@given(st.lists(st.tuples(VECTORS, st.sampled_from(["float32", "float64", "int8"])), max_size=6))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30)
def test_whatever_vector_a_cache_takes_comes_back(
    valkey: Server, plain: RedisConnection, target: Path, stored: list[tuple[Any, str]]
) -> None:
    valkey.raw.flushall()
    for number, (vector, dtype) in enumerate(stored):
        opened = EmbeddingsCache("c", redis_client=plain.client(), stats=False, dtype=dtype)
        opened.set(f"text {number}", f"m{len(vector)}", vector)
    before = values(valkey)
    export(plain, target, replace=True, vectors="base64")
    valkey.raw.flushall()
    transfer.restore_entries(plain, "c", target)
    assert values(valkey) == before


def test_a_stopped_export_goes_on_in_the_way_that_is_asked_for_last(
    valkey: Server, plain: RedisConnection, target: Path
) -> None:
    """What is kept of it are the entries as the server had them; the file is written from its start."""
    fill(valkey, 2_500)
    before = values(valkey)
    with pytest.raises(CancelledError):
        export(plain, target, resume=True, tell=stop_after(500))
    assert export(plain, target, resume=True, vectors="base64").resumed >= 500
    assert {type(entry["vector"]) for entry in entries_of(target)} == {dict}
    valkey.raw.flushall()
    transfer.restore_entries(plain, "c", target)
    assert values(valkey) == before


def test_a_file_may_have_both(valkey: Server, plain: RedisConnection, target: Path) -> None:
    fill_all_dtypes(valkey)
    before = values(valkey)
    export(plain, target)
    other = target.with_stem("other")
    export(plain, other, vectors="base64")
    *numbers, footer = target.read_bytes().splitlines(keepends=True)
    encoded = {json.loads(line).get("text"): line for line in other.read_bytes().splitlines(keepends=True)}
    mixed = [encoded[json.loads(line)["text"]] if at % 3 else line for at, line in enumerate(numbers)]
    target.write_bytes(b"".join([*mixed, footer]))
    valkey.raw.flushall()
    assert transfer.restore_entries(plain, "c", target).restored == 120
    assert values(valkey) == before


# ------------------------------------------------------------------------------------------------ refused


def encoded(numbers: list[float], letter: str = "f") -> str:
    return base64.b64encode(struct.pack(f"<{len(numbers)}{letter}", *numbers)).decode()


def put(vector: object, **others: Any) -> Callable[[dict[str, Any]], None]:
    return lambda entry: entry.update(vector=vector, **others)


def changed(**fields: Any) -> Callable[[dict[str, Any]], None]:
    return lambda entry: entry["vector"].update(fields)


SPOILT: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "letters of no base64": (changed(base64="?" * 24), "the vector is not base64"),
    "a letter outside ASCII": (changed(base64="é" * 24), "the vector is not base64"),
    "base64 cut off": (lambda entry: changed(base64=entry["vector"]["base64"][:-3])(entry), "the vector is not base64"),
    "a line break in it": (
        lambda entry: changed(base64=entry["vector"]["base64"] + "\n")(entry),
        "the vector is not base64",
    ),
    "half a number": (
        changed(base64=base64.b64encode(bytes(15)).decode()),
        "the vector has 15 bytes, which are no whole numbers of float32",
    ),
    "nothing in it": (changed(base64=""), "the vector has 0 components, and its dimension is 4"),
    "a wrong dimension": (
        changed(base64=encoded([1.0] * 3)),
        "the vector has 3 components, and its dimension is 4",
    ),
    "twice as wide": (changed(dtype="float64"), "the vector has 2 components, and its dimension is 4"),
    "another dimension": (
        put({"dtype": "float32", "base64": encoded([1.0] * 3)}, dimension=3),
        "the vector has 3 components; those of its model are 4 by what the file says",
    ),
    "NaN": (changed(base64=encoded([1.0, float("nan"), 1.0, 1.0])), "NaN, infinity, or a number too large for float32"),
    "infinity": (changed(base64=encoded([1.0, 1.0, 1.0, float("-inf")])), "NaN, infinity, or a number too large"),
    "a number too large": (changed(dtype="float64", base64=encoded([1e39] * 4, "d")), "a number too large for float32"),
    "a dtype of nobody": (changed(dtype="bfloat16"), "the vector's dtype is float32 or float64, not 'bfloat16'"),
    "the cache's dtype": (changed(dtype="int8"), "the vector's dtype is float32 or float64, not 'int8'"),
    "a dtype that is none": (changed(dtype=[1]), r"the vector's dtype is float32 or float64, not \[1\]"),
    "no dtype": (put({"base64": encoded([1.0] * 4)}), "the vector is an object of dtype and base64"),
    "no base64": (put({"dtype": "float32"}), "the vector is an object of dtype and base64"),
    "a number for base64": (changed(base64=1), "the vector is not base64"),
    "something besides": (changed(shape=[4]), "the vector is an object of dtype and base64"),
    "a text": (put(encoded([1.0] * 4)), "vector is a str, which no export writes"),
}


@pytest.mark.parametrize("spoilt", SPOILT)
def test_a_spoilt_vector_is_named_and_nothing_of_its_batch_is_written(
    valkey: Server, plain: RedisConnection, target: Path, spoilt: str
) -> None:
    change, words = SPOILT[spoilt]
    fill(valkey, 1_200)
    export(plain, target, vectors="base64")
    valkey.raw.flushall()
    lines = target.read_text().splitlines()
    entry = json.loads(lines[1_099])
    change(entry)
    lines[1_099] = json.dumps(entry, separators=(",", ":"))
    target.write_text("\n".join(lines) + "\n")
    with pytest.raises(TransferError, match=f"^row 1,100: .*{words}.*; the 1,000 rows before its batch") as raised:
        transfer.restore_entries(plain, "c", target)
    assert raised.value.row == 1_100
    assert len(valkey.raw.keys()) == 1_000
