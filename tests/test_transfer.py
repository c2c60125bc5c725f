"""Exports and restores on real servers: what comes back is what was there, and looking changed nothing."""

from __future__ import annotations

import json
import os
import re
import resource
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from servers import Server

from embedcache import EmbeddingsCache, transfer
from embedcache.connection import RedisConnection
from embedcache.errors import CacheUnavailableError, ForeignKeyError, InvalidInputError, ReadOnlyError, TransferError
from embedcache.transfer.convert import convert_entries

FORMATS = ("parquet", "jsonl")
HOSTILE = [
    "<script>alert(1)</script>",
    "=1+1",
    "a\x00b\x1b[31m",
    "\u202etxet",
    "line\nline\r\n",
    '"},{"',
    "🧮" * 200,
    "é",
]
DAY = 86_400


class CancelledError(Exception):
    """What a caller's `tell` raises."""


@pytest.fixture(params=["scripts", "no scripts"])
def connection(request: pytest.FixtureRequest, server: Server) -> Iterator[RedisConnection]:
    """A connection by which scripts may be run, or may not."""
    user: dict[str, Any] = {}
    if request.param == "no scripts":
        server.raw.execute_command("ACL", "SETUSER", "plain", "reset", "on", ">word", "~*", "+@all", "-@scripting")
        user = {"username": "plain", "password": "word"}
    client = redis.Redis(unix_socket_path=str(server.socket), **user)
    yield RedisConnection(client=client)
    client.close()
    server.raw.execute_command("ACL", "DELUSER", "plain")


@pytest.fixture
def plain(valkey: Server) -> Iterator[RedisConnection]:
    """A connection to the kind of server that the package embeds."""
    opened = RedisConnection(valkey.url)
    yield opened
    opened.close()


@pytest.fixture(params=FORMATS)
def target(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A file to export to, its suffix the format."""
    return tmp_path / f"entries.{request.param}"


def export(connection: RedisConnection, target: Path, name: str = "c", **options: Any) -> transfer.ExportReport:
    return transfer.export_entries(connection, name, target, file_format=target.suffix[1:], **options)  # type: ignore[arg-type]


def cache(server: Server, name: str = "c", **options: Any) -> EmbeddingsCache:
    return EmbeddingsCache(name, redis_url=server.url, stats=False, **options)


def fill(server: Server, count: int = 30, *, dimensions: int = 4, dtype: str = "float32", model: str = "m") -> None:
    vectors = np.random.default_rng(1).standard_normal((count, dimensions))
    with cache(server, dtype=dtype) as opened:
        opened.mset(
            [
                {
                    "text": f"{dtype} text {n}",
                    "model_name": model,
                    "embedding": vectors[n],
                    "metadata": {"page": n, "ü": [1.0, None, {"deep": True}]} if n % 2 else None,
                    "ttl": DAY + n if n % 3 else None,
                }
                for n in range(count)
            ]
        )


def values(server: Server) -> dict[bytes, bytes]:
    return {key: server.raw.get(key) for key in server.raw.scan_iter()}  # type: ignore[misc]


def expiries(server: Server) -> dict[bytes, float]:
    """When each key expires, in Unix milliseconds by this machine's clock, or -1."""
    left = {key: server.raw.pttl(key) for key in server.raw.scan_iter()}
    return {key: time.time() * 1000 + ms if ms >= 0 else -1 for key, ms in left.items()}


# ------------------------------------------------------------------------------------------------ there and back


def test_what_comes_back_is_bit_by_bit_what_was_there(
    server: Server, connection: RedisConnection, target: Path
) -> None:
    for number, dtype in enumerate(["float32", "float16", "int8", "float64"]):
        fill(server, dtype=dtype, model=f"m{number}", dimensions=4 + number)
    with cache(server) as opened:
        opened.set(b"\xff\xd8\x00an image", "m0", [1.0, 2.0, -0.0, 1e-40])
        opened.mset([{"text": text, "model_name": text, "embedding": [1.0]} for text in HOSTILE])
    before, due = values(server), expiries(server)

    report = export(connection, target)
    assert (report.entries, report.skipped_unreadable, report.gone) == (len(before), 0, 0)
    assert values(server) == before
    server.raw.flushall()
    restored = transfer.restore_entries(connection, "c", target)

    assert (restored.restored, restored.skipped_existing, restored.expired) == (len(before), 0, 0)
    assert values(server) == before
    assert expiries(server) == pytest.approx(due, abs=500)


TEXTS = st.text(st.characters(codec="utf-8"), min_size=1, max_size=20).filter(lambda text: not text.isspace())
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=8,
)
FINITE = st.floats(width=32, allow_nan=False, allow_infinity=False, allow_subnormal=True)
ITEMS = st.fixed_dictionaries(
    {
        "text": TEXTS | st.binary(min_size=1, max_size=20).filter(lambda data: not data.isspace()),
        "model_name": TEXTS,
        "embedding": arrays(np.float32, st.integers(1, 5), elements=FINITE),
        "metadata": st.none() | st.dictionaries(TEXTS, JSON, max_size=3),
        "ttl": st.none() | st.integers(100, 2**32 - 1),
    }
)


@given(st.lists(st.tuples(ITEMS, st.sampled_from(["float32", "float64", "int8"])), max_size=6))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)
def test_whatever_a_cache_takes_comes_back(
    valkey: Server, plain: RedisConnection, tmp_path: Path, stored: list[tuple[dict[str, Any], str]]
) -> None:
    valkey.raw.flushall()
    for item, dtype in stored:
        EmbeddingsCache("c", redis_client=plain.client(), stats=False, dtype=dtype).set(**item)
    before = values(valkey)
    for suffix in FORMATS:
        target = tmp_path / f"entries.{suffix}"
        export(plain, target, replace=True)
        valkey.raw.flushall()
        transfer.restore_entries(plain, "c", target)
        assert values(valkey) == before


def test_the_one_float32_that_short_text_would_change(valkey: Server, plain: RedisConnection, target: Path) -> None:
    odd = np.array([0x15AE43FD, 0x95AE43FD], dtype=np.uint32).view(np.float32)
    with cache(valkey) as opened:
        opened.set("a", "m", odd)
    before = values(valkey)
    export(plain, target)
    valkey.raw.flushall()
    transfer.restore_entries(plain, "c", target)
    assert values(valkey) == before


def test_entries_go_into_a_cache_of_another_name(valkey: Server, plain: RedisConnection, target: Path) -> None:
    fill(valkey)
    export(plain, target)
    assert transfer.restore_entries(plain, "other", target).restored == 30
    with cache(valkey, "other") as other:
        found = other.get("float32 text 1", "m")
    assert found is not None
    assert found["metadata"] == {"page": 1, "ü": [1.0, None, {"deep": True}]}


def test_an_empty_cache_is_an_export_too(plain: RedisConnection, target: Path) -> None:
    assert export(plain, target).entries == 0
    assert transfer.restore_entries(plain, "c", target).restored == 0
    assert transfer.describe_file(target).models == {}


# ------------------------------------------------------------------------------------------------ looking


def test_exporting_changes_nothing_and_works_read_only(valkey: Server, target: Path) -> None:
    fill(valkey)
    before, due = values(valkey), expiries(valkey)
    time.sleep(0.3)
    reader = RedisConnection(valkey.url, read_only=True)
    assert export(reader, target).entries == 30
    assert values(valkey) == before
    assert expiries(valkey) == pytest.approx(due, abs=150)
    with pytest.raises(ReadOnlyError, match="read_only=False"):
        transfer.restore_entries(reader, "c", target)
    reader.close()


def test_only_the_keys_asked_for_and_those_that_are_gone_are_counted(
    valkey: Server, plain: RedisConnection, target: Path
) -> None:
    fill(valkey)
    keys = sorted(key.decode() for key in values(valkey))
    valkey.raw.delete(keys[0])
    told: list[tuple[int, int | None]] = []
    report = export(plain, target, keys=keys[:10], tell=lambda done, total: told.append((done, total)))
    assert (report.entries, report.gone, report.skipped_unreadable) == (9, 1, 0)
    assert told == [(10, 10)]
    assert export(plain, target, keys=iter(keys[1:3]), replace=True).entries == 2
    with pytest.raises(ForeignKeyError, match="not one of cache 'c'"):
        export(plain, target, keys=["other:" + "0" * 64], replace=True)


def test_what_cannot_be_read_is_left_out_and_counted(valkey: Server, plain: RedisConnection, target: Path) -> None:
    fill(valkey)
    one, two, three, four, *_ = sorted(key.decode() for key in values(valkey))
    valkey.raw.setrange(one, 100, b"\xff\xff")
    valkey.raw.set(two, valkey.raw.get(three))
    valkey.raw.delete(four)
    valkey.raw.lpush(four, "a list")
    valkey.raw.set("c:" + "0" * 64, b"EMB\x01 and no more")
    report = export(plain, target)
    assert (report.entries, report.skipped_unreadable, report.gone) == (27, 4, 0)
    valkey.raw.flushall()
    assert transfer.restore_entries(plain, "c", target).restored == 27


def test_other_caches_are_not_exported(valkey: Server, plain: RedisConnection, target: Path) -> None:
    fill(valkey)
    with cache(valkey, "c:c") as near, cache(valkey, "?") as glob:
        near.set("a", "m", [1.0])
        glob.set("a", "m", [1.0])
    assert export(plain, target).entries == 30
    assert export(plain, target, name="?", replace=True).entries == 1


def test_a_server_that_is_away_leaves_no_file(target: Path) -> None:
    with pytest.raises(CacheUnavailableError):
        export(RedisConnection("unix:///nowhere/at/all.sock"), target)
    assert list(target.parent.iterdir()) == []


# ------------------------------------------------------------------------------------------------ steps


def test_work_goes_in_steps_that_are_told(valkey: Server, plain: RedisConnection, target: Path) -> None:
    fill(valkey, 2_500)
    told: list[tuple[int, int | None]] = []
    export(plain, target, tell=lambda done, total: told.append((done, total)))
    assert told[-1] == (2_500, None)
    assert max(np.diff([0, *(done for done, _ in told)])) <= 1_000
    told.clear()
    transfer.restore_entries(plain, "d", target, tell=lambda done, total: told.append((done, total)))
    assert (told[0], told[-1]) == ((0, 2_500), (2_500, 2_500))
    assert max(np.diff([done for done, _ in told])) <= 1_000


def test_steps_are_bounded_in_bytes_too(valkey: Server, plain: RedisConnection, target: Path) -> None:
    with cache(valkey) as opened:
        for number in range(40):
            opened.set(f"{number}" + "x" * 1024 * 1024, "m", [1.0])
    told: list[int] = []
    export(plain, target, tell=lambda done, _total: told.append(done))
    assert told[-1] == 40
    assert max(np.diff(told)) <= 8  # MiB; the first step is of 16 entries, of whatever size
    told.clear()
    transfer.restore_entries(plain, "d", target, tell=lambda done, _total: told.append(done))
    assert max(np.diff(told)) <= 16 if target.suffix == ".parquet" else 9


def _stop_after(count: int) -> Callable[[int, int | None], None]:
    def tell(done: int, _total: int | None) -> None:
        if done >= count:
            raise CancelledError

    return tell


def test_a_cancelled_export_leaves_nothing(valkey: Server, plain: RedisConnection, target: Path) -> None:
    fill(valkey, 2_500)
    with pytest.raises(CancelledError):
        export(plain, target, tell=_stop_after(500))
    assert list(target.parent.iterdir()) == []


def test_a_cancelled_restore_goes_on_where_it_ended(valkey: Server, plain: RedisConnection, target: Path) -> None:
    fill(valkey, 2_500)
    export(plain, target)
    before = values(valkey)
    valkey.raw.flushall()
    with pytest.raises(CancelledError):
        transfer.restore_entries(plain, "c", target, tell=_stop_after(500))
    first = len(values(valkey))
    assert 500 <= first < 2_500
    report = transfer.restore_entries(plain, "c", target)
    assert (report.restored, report.skipped_existing) == (2_500 - first, first)
    assert values(valkey) == before


KILLED = """
import sys, time
from embedcache import transfer
from embedcache.connection import RedisConnection

def tell(done, total):
    if done > 300:
        print("half-way", flush=True)
        time.sleep(60)

transfer.export_entries(RedisConnection(sys.argv[1]), "c", sys.argv[2], tell=tell, file_format=sys.argv[3])
"""


@pytest.mark.skipif(not hasattr(os, "O_TMPFILE"), reason="files without a name are Linux's")
def test_an_export_that_is_killed_leaves_nothing(valkey: Server, target: Path) -> None:
    fill(valkey, 2_500)
    command = [sys.executable, "-c", KILLED, valkey.url, str(target), target.suffix[1:]]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"half-way\n"
        process.send_signal(signal.SIGKILL)
    assert list(target.parent.iterdir()) == []


# ------------------------------------------------------------------------------------------------ RedisVL's layout


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


# ------------------------------------------------------------------------------------------------ going on


def kept_beside(target: Path) -> Path:
    return target.with_name(f"{target.name}.partial")


def break_off(connection: RedisConnection, target: Path, after: int = 500, **options: Any) -> None:
    with pytest.raises(CancelledError):
        export(connection, target, resume=True, tell=_stop_after(after), **options)
    assert list(target.parent.iterdir()) == [kept_beside(target)]
    assert stat.S_IMODE(kept_beside(target).stat().st_mode) == 0o600


def test_an_export_goes_on_where_it_ended(valkey: Server, plain: RedisConnection, target: Path) -> None:
    fill(valkey, 2_500)
    before, times = values(valkey), expiries(valkey)
    break_off(plain, target)
    told: list[tuple[int, int | None]] = []
    report = export(plain, target, resume=True, tell=lambda *args: told.append(args))
    assert 500 <= report.resumed < 2_500
    assert (report.entries, report.gone, report.skipped_unreadable) == (2_500, 0, 0)
    assert told[-1] == (2_500, 2_500)
    assert list(target.parent.iterdir()) == [target]
    valkey.raw.flushall()
    transfer.restore_entries(plain, "c", target)
    assert values(valkey) == before
    assert expiries(valkey) == pytest.approx(times, abs=5_000)


def test_what_an_export_is_of_is_settled_when_it_begins(valkey: Server, plain: RedisConnection, target: Path) -> None:
    fill(valkey, 2_500)
    break_off(plain, target)
    removed = set(valkey.raw.scan_iter())
    valkey.raw.flushall()  # what was read is kept, and the rest is gone
    fill(valkey, 10, model="another")
    report = export(plain, target, resume=True)
    assert report.entries == report.resumed
    assert report.gone == 2_500 - report.resumed
    valkey.raw.flushall()
    transfer.restore_entries(plain, "c", target)
    assert set(valkey.raw.scan_iter()) < removed


def test_an_export_that_is_killed_goes_on(valkey: Server, plain: RedisConnection, target: Path) -> None:
    fill(valkey, 2_500)
    program = KILLED.replace("file_format=", "resume=True, file_format=")
    command = [sys.executable, "-c", program, valkey.url, str(target), target.suffix[1:]]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"half-way\n"
        with pytest.raises(TransferError, match=r"another export to .* is going on; wait for it"):
            export(plain, target, resume=True)
        process.send_signal(signal.SIGKILL)
    assert list(target.parent.iterdir()) == [kept_beside(target)]
    report = export(plain, target, resume=True)
    assert (report.entries, report.resumed > 300) == (2_500, True)
    assert list(target.parent.iterdir()) == [target]


@pytest.mark.parametrize("kept", [0.0, 0.0001, 0.01, 0.3, 0.7, 0.99])
def test_what_was_cut_off_or_damaged_is_read_again(
    valkey: Server, plain: RedisConnection, tmp_path: Path, kept: float
) -> None:
    target = tmp_path / "a.jsonl"
    fill(valkey, 2_500)
    before = values(valkey)
    break_off(plain, target, 2_000)
    data = kept_beside(target).read_bytes()
    at = int(len(data) * kept)
    for spoilt in (data[:at], data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]):
        kept_beside(target).write_bytes(spoilt)
        if at < 10 and len(spoilt) == len(data):
            with pytest.raises(TransferError, match="is not the beginning of an export; remove it"):
                export(plain, target, resume=True)
            kept_beside(target).unlink()
        report = export(plain, target, resume=True)
        assert (report.entries, report.resumed < 2_500) == (2_500, True)
        valkey.raw.flushall()
        transfer.restore_entries(plain, "c", target)
        assert values(valkey) == before
        target.unlink()


def test_another_export_does_not_go_on_with_it(valkey: Server, plain: RedisConnection, tmp_path: Path) -> None:
    target = tmp_path / "a.parquet"
    fill(valkey, 2_500)
    keys = sorted(key.decode() for key in valkey.raw.scan_iter())
    break_off(plain, target, keys=keys[:2_000])
    for cache_name, asked, words in (
        ("d", None, "another cache"),
        ("c", None, "other entries"),
        ("c", keys[1:], "other"),
    ):
        with pytest.raises(TransferError, match=f"is the beginning of an export of {words}.*; remove it"):
            transfer.export_entries(plain, cache_name, target, asked, resume=True)
    with pytest.raises(ForeignKeyError):
        export(plain, target, keys=["d:1"], resume=True)
    report = export(plain, target, keys=iter(keys[:2_000]), resume=True)
    assert (report.entries, report.resumed >= 500) == (2_000, True)


def test_what_went_to_its_end_is_not_exported_twice(
    valkey: Server, plain: RedisConnection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where the process ends after the file has its name, and before what was kept is removed."""
    target = tmp_path / "a.parquet"
    fill(valkey, 30)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", lambda *_args, **_options: None)
        export(plain, target, resume=True)
    assert kept_beside(target).exists()
    fill(valkey, 40)
    report = export(plain, target, resume=True, replace=True)
    assert (report.entries, report.resumed) == (40, 0)


def test_without_a_server_nothing_is_kept(tmp_path: Path) -> None:
    opened = RedisConnection(f"unix://{tmp_path}/nowhere.sock")
    with pytest.raises(CacheUnavailableError):
        export(opened, tmp_path / "a.parquet", resume=True)
    assert list(tmp_path.iterdir()) == []


# ------------------------------------------------------------------------------------------------ files


def test_only_the_owner_may_read_the_file(valkey: Server, plain: RedisConnection, target: Path) -> None:
    fill(valkey)
    report = export(plain, target)
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    assert list(target.parent.iterdir()) == [target]
    assert (report.path, report.bytes) == (target, target.stat().st_size)


def test_a_file_that_is_there_is_kept_unless_it_may_go(valkey: Server, plain: RedisConnection, target: Path) -> None:
    target.write_text("an earlier export")
    with pytest.raises(TransferError, match="already, and it is kept; choose another name"):
        export(plain, target)
    assert target.read_text() == "an earlier export"
    fill(valkey, 2_500)
    with pytest.raises(CancelledError):
        export(plain, target, replace=True, tell=_stop_after(500))
    assert target.read_text() == "an earlier export"
    assert export(plain, target, replace=True).entries == 2_500
    assert transfer.describe_file(target).entries == 2_500


def test_a_folder_that_is_not_there_is_named(plain: RedisConnection, tmp_path: Path) -> None:
    with pytest.raises(TransferError, match=r"cannot write .*nowhere.*No such file.*choose a folder"):
        export(plain, tmp_path / "nowhere" / "a.parquet")


def test_a_disk_that_fills_up_leaves_nothing(valkey: Server, plain: RedisConnection, target: Path) -> None:
    fill(valkey, 2_500, dimensions=384)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1024 * 1024, hard))
    try:
        with pytest.raises(TransferError, match=r"cannot write .*too large; choose a folder .* has room"):
            export(plain, target)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list(target.parent.iterdir()) == []


def test_files_without_a_name_are_not_needed(
    valkey: Server, plain: RedisConnection, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on macOS, and on file systems that know none."""
    monkeypatch.delattr(os, "O_TMPFILE", raising=False)
    fill(valkey, 2_500)
    with pytest.raises(CancelledError):
        export(plain, target, tell=_stop_after(500))
    assert list(target.parent.iterdir()) == []
    export(plain, target)
    assert list(target.parent.iterdir()) == [target]
    assert stat.S_IMODE(target.stat().st_mode) == 0o600


@pytest.mark.parametrize(("file_format", "library"), [("parquet", "pyarrow"), ("jsonl", "orjson")])
def test_a_library_that_is_missing_is_named(file_format: str, library: str, tmp_path: Path) -> None:
    lines = [
        f"import sys; sys.modules[{library!r}] = None",
        "from embedcache import EmbeddingsCache, transfer",
        "connection = EmbeddingsCache().connection",
        f"transfer.export_entries(connection, 'c', {str(tmp_path / 'a')!r}, file_format={file_format!r})",
    ]
    ended = subprocess.run([sys.executable, "-c", "\n".join(lines)], capture_output=True, text=True, check=False)
    assert f"{file_format} files need {library}: pip install 'embedcache[{file_format}]'" in ended.stderr


def test_a_format_is_one_of_two(plain: RedisConnection, tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="parquet or jsonl, not 'csv'"):
        export(plain, tmp_path / "a.csv")


# ------------------------------------------------------------------------------------------------ who opens it


def test_pandas_reads_parquet_as_anybody_would_want_it(valkey: Server, plain: RedisConnection, tmp_path: Path) -> None:
    fill(valkey, 20, dimensions=8)
    with cache(valkey) as opened:
        opened.set(b"\x00\x01", "m", np.ones(8))
        entry = opened.get("float32 text 1", "m")
    assert entry is not None
    target = tmp_path / "a.parquet"
    export(plain, target)
    frame = pd.read_parquet(target).set_index("text")
    matrix = np.stack(frame["vector"].to_list())
    assert (matrix.shape, matrix.dtype) == ((21, 8), np.float32)
    row = frame.loc["float32 text 1"]
    np.testing.assert_array_equal(row["vector"], entry["embedding"])
    assert (row["model_name"], row["dimension"], row["dtype"], row["ttl"]) == ("m", 8, "float32", DAY + 1)
    assert row["metadata"] == '{"page":1,"ü":[1.0,null,{"deep":true}]}'
    assert row["inserted_at"] == entry["inserted_at"]
    assert row["expires_at"] == pytest.approx(time.time() + DAY + 1, abs=60)
    assert frame["text_bytes"].dropna().to_list() == [b"\x00\x01"]


def test_pandas_reads_vectors_of_several_dimensions_and_dtypes(
    valkey: Server, plain: RedisConnection, tmp_path: Path
) -> None:
    fill(valkey, 1_500, dimensions=3)
    fill(valkey, 5, dimensions=2, dtype="float64", model="wide")
    fill(valkey, 5, dimensions=3, dtype="int8", model="small")
    with cache(valkey) as opened:
        small = opened.get("int8 text 2", "small")
    assert small is not None
    target = tmp_path / "a.parquet"
    export(plain, target)
    frame = pd.read_parquet(target).set_index("text")
    assert frame["vector"].map(len).value_counts().to_dict() == {3: 1_505, 2: 5}
    np.testing.assert_array_equal(frame.loc["int8 text 2", "vector"], small["embedding"])
    assert frame.loc["int8 text 2", "scale"] > 0


def test_a_file_says_what_it_has(valkey: Server, plain: RedisConnection, target: Path) -> None:
    fill(valkey, 20)
    fill(valkey, 5, model="n", dtype="float16")
    started = time.time()
    report = export(plain, target)
    summary = transfer.describe_file(target)
    assert (summary.entries, summary.models) == (25, {"m": 20, "n": 5})
    assert (summary.cache_name, summary.file_format, summary.bytes) == ("c", target.suffix[1:], report.bytes)
    assert summary.server.startswith("Valkey 9.")
    assert summary.exported_at == pytest.approx(started, abs=60)


def test_the_documentation_names_every_column_and_field(valkey: Server, plain: RedisConnection, tmp_path: Path) -> None:
    page = (Path(__file__).parents[1] / "docs" / "transfer.md").read_text()
    fill(valkey)
    export(plain, tmp_path / "a.parquet")
    schema = pq.read_schema(tmp_path / "a.parquet")
    rows = re.findall(r"^\| `(\w+)` \| (\w+)", page, flags=re.MULTILINE)
    assert [name for name, _ in rows][: len(schema.names)] == schema.names
    footer = json.loads(pq.read_metadata(tmp_path / "a.parquet").metadata[b"embedcache_export"])
    assert {name for name, _ in rows[len(schema.names) :]} | {"models"} == footer.keys()
    export(plain, tmp_path / "a.jsonl")
    *lines, last = (tmp_path / "a.jsonl").read_text().splitlines()
    assert set(json.loads(lines[0])) == set(schema.names) - {"text_bytes"}
    assert json.loads(last)["embedcache_export"].keys() == footer.keys()


def test_the_documentations_examples(
    valkey: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    page = (Path(__file__).parents[1] / "docs" / "transfer.md").read_text()
    first, second = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    fill(valkey)
    with EmbeddingsCache("answers", redis_url=valkey.url) as opened:
        opened.set("a", "m", [1.0, 2.0])
    monkeypatch.setenv("EMBEDCACHE_URL", valkey.url)
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    exec(first, names)  # noqa: S102 - it is ours
    exec(second, names)  # noqa: S102
    assert capsys.readouterr().out.splitlines() == ["1 0", "{'m': 1}", "1 0"]
    assert sorted(each.name for each in tmp_path.iterdir()) == ["again.parquet", "answers.parquet"]
