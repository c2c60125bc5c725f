"""Exports and restores of entries in RedisVL's layout, and from one layout to the other."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import exporting
import numpy as np
import pytest
from exporting import DAY, cache, expiries, export
from servers import Server

from embedcache import transfer
from embedcache.connection import RedisConnection
from embedcache.errors import InvalidInputError
from embedcache.operations import ServerAbilities
from embedcache.transfer.convert import convert_entries
from embedcache.transfer.hashes import write_hashes

# Fixtures. Imported by name, they would be hidden by the arguments that ask for them.
connection, plain, target = exporting.connection, exporting.plain, exporting.target


def fill_hashes(server: Server, dtype: str = "float32") -> list[Any]:
    """Entries in RedisVL's layout, texts of bytes among them, and one that RedisVL could have written; their texts."""
    vectors = np.random.default_rng(1).standard_normal((600, 4))
    texts: list[Any] = [f"text {n}" if n % 3 else f"bytes {n}".encode() for n in range(600)]
    with cache(server, layout="redisvl", dtype=dtype) as opened:
        opened.mset(
            [
                {
                    "text": text,
                    "model_name": "m",
                    "embedding": vectors[n],
                    "metadata": {"page": n} if n % 2 else None,
                    "ttl": DAY + n if n % 5 else None,
                }
                for n, text in enumerate(texts)
            ]
        )
    return texts


def hashes(server: Server) -> dict[bytes, Any]:
    return {key: server.raw.hgetall(key) for key in server.raw.scan_iter()}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_redisvls_hashes_come_back_as_they_were(
    server: Server, connection: RedisConnection, target: Path, dtype: str
) -> None:
    fill_hashes(server, dtype)
    before, times = hashes(server), expiries(server)
    report = export(connection, target)
    assert (report.entries, report.skipped_unreadable, report.gone) == (600, 0, 0)
    server.raw.flushall()
    assert transfer.restore_entries(connection, "c", target, layout="redisvl").restored == 600
    assert hashes(server) == before
    assert expiries(server) == pytest.approx(times, abs=5_000)
    again = transfer.restore_entries(connection, "c", target, layout="redisvl")
    assert (again.restored, again.skipped_existing) == (0, 600)


@pytest.mark.parametrize("layouts", [("redisvl", "packed"), ("packed", "redisvl")], ids="-".join)
def test_entries_go_from_one_layout_to_the_other(
    valkey: Server, plain: RedisConnection, target: Path, layouts: tuple[Any, Any]
) -> None:
    first, second = layouts
    texts = fill_hashes(valkey)
    with cache(valkey, layout="redisvl") as opened:
        expected = [{**entry, "key": None, "entry_id": None} for entry in opened.mget(texts, "m") if entry]
    if first == "packed":
        convert_entries(plain, "c", "packed", actor=None)
    export(plain, target)
    valkey.raw.flushall()
    transfer.restore_entries(plain, "c", target, layout=second)
    with cache(valkey, layout=second) as opened:
        found = [{**entry, "key": None, "entry_id": None} for entry in opened.mget(texts, "m") if entry]
    assert len(found) == 600
    for one, other in zip(found, expected, strict=True):
        assert np.array_equal(one.pop("embedding"), other.pop("embedding"))  # type: ignore[arg-type]
        assert one == other


@pytest.mark.parametrize(("on_conflict", "kept"), [("skip", True), ("overwrite", False), ("newer", False)])
def test_a_conflict_of_hashes_is_settled_as_asked(
    server: Server, connection: RedisConnection, tmp_path: Path, on_conflict: Any, kept: bool
) -> None:
    target = tmp_path / "a.jsonl"
    with cache(server, layout="redisvl") as opened:
        key = opened.set("a", "m", [1.0, 2.0], ttl=900)
        export(connection, target)
        server.raw.hset(key, mapping={"embedding": "[3,4]", "inserted_at": "5.0", "metadata": '{"a": 1}'})
        report = transfer.restore_entries(connection, "c", target, on_conflict=on_conflict, layout="redisvl")
        entry = opened.get("a", "m")
    assert entry is not None
    assert (report.restored, report.skipped_existing) == ((0, 1) if kept else (1, 0))
    assert entry["embedding"].tolist() == ([3.0, 4.0] if kept else [1.0, 2.0])
    assert entry["metadata"] == ({"a": 1} if kept else None)
    if on_conflict == "newer":
        again = transfer.restore_entries(connection, "c", target, on_conflict="newer", layout="redisvl")
        assert again.restored == 0


def test_hashes_that_are_no_entries_are_left_out(valkey: Server, plain: RedisConnection, target: Path) -> None:
    fill_hashes(valkey)
    valkey.raw.hset("c:" + "0" * 64, "a", "b")
    valkey.raw.lpush("c:" + "1" * 64, "a")
    valkey.raw.expire("c:" + "1" * 64, 900)
    report = export(plain, target)
    assert (report.entries, report.skipped_unreadable, report.gone) == (600, 2, 0)


def test_a_layout_is_one_of_two(plain: RedisConnection, tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="layout is packed or redisvl, not 'other'"):
        transfer.restore_entries(plain, "c", tmp_path / "a", layout="other")  # type: ignore[arg-type]


@pytest.mark.parametrize("layouts", [("redisvl", "packed"), ("packed", "redisvl")], ids="-".join)
@pytest.mark.parametrize("is_newer", [True, False])
def test_newer_is_newer_in_whichever_layout(
    server: Server, connection: RedisConnection, tmp_path: Path, layouts: tuple[Any, Any], is_newer: bool
) -> None:
    there, wanted = layouts
    target = tmp_path / "a.jsonl"
    with cache(server, layout=wanted) as ours, cache(server, layout=there) as theirs:
        if is_newer:
            ours.set("a", "m", [1.0, 2.0])
            export(connection, target)
            theirs.set("a", "m", [3.0, 4.0])
        else:
            theirs.set("a", "m", [3.0, 4.0])
            time.sleep(0.01)
            before = {key: server.raw.dump(key) for key in server.raw.keys("c:*")}
            ours.set("a", "m", [1.0, 2.0])
            export(connection, target)
            server.raw.flushall()
            for key, value in before.items():
                server.raw.restore(key, 0, value)
        report = transfer.restore_entries(connection, "c", target, on_conflict="newer", layout=wanted)
        read = (theirs if is_newer else ours).get("a", "m")
    assert (report.restored, report.skipped_existing) == ((0, 1) if is_newer else (1, 0))
    assert read is not None
    assert read["embedding"].tolist() == ([3.0, 4.0] if is_newer else [1.0, 2.0])


@pytest.mark.parametrize("is_newer", [True, False])
def test_a_packed_entry_that_came_since_the_look_is_kept_if_it_is_newer(server: Server, is_newer: bool) -> None:
    long = "a" * 300  # its time of insertion lies past the first 256 bytes
    with cache(server) as opened:
        key = opened.set(long, "m", [1.0, 2.0])
        first = server.raw.get(key)
        time.sleep(0.01)
        opened.set(long, "m", [3.0, 4.0])
        second = server.raw.get(key)
        there, restored = (second, first) if is_newer else (first, second)
        server.raw.set(key, there)
        operation = write_hashes(ServerAbilities(), [(key, restored, None)], "newer")
        assert opened.connection.drive(operation) == (0 if is_newer else 1)
        assert server.raw.type(key) == (b"string" if is_newer else b"hash")
        assert opened.connection.drive(write_hashes(ServerAbilities(), [(key, there, None)], "newer")) == 0
