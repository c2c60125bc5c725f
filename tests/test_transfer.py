"""Exports and restores on real servers: what comes back is what was there, and looking changed nothing."""

from __future__ import annotations

import os
import resource
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import exporting
import numpy as np
import pytest
from exporting import FORMATS, KILLED, CancelledError, cache, expiries, export, fill, stop_after, values
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from servers import Server

from embedcache import EmbeddingsCache, transfer
from embedcache.connection import RedisConnection
from embedcache.errors import CacheUnavailableError, ForeignKeyError, InvalidInputError, ReadOnlyError, TransferError

# Fixtures. Imported by name, they would be hidden by the arguments that ask for them.
connection, plain, target = exporting.connection, exporting.plain, exporting.target

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


def test_a_cancelled_export_leaves_nothing(valkey: Server, plain: RedisConnection, target: Path) -> None:
    fill(valkey, 2_500)
    with pytest.raises(CancelledError):
        export(plain, target, tell=stop_after(500))
    assert list(target.parent.iterdir()) == []


def test_a_cancelled_restore_goes_on_where_it_ended(valkey: Server, plain: RedisConnection, target: Path) -> None:
    fill(valkey, 2_500)
    export(plain, target)
    before = values(valkey)
    valkey.raw.flushall()
    with pytest.raises(CancelledError):
        transfer.restore_entries(plain, "c", target, tell=stop_after(500))
    first = len(values(valkey))
    assert 500 <= first < 2_500
    report = transfer.restore_entries(plain, "c", target)
    assert (report.restored, report.skipped_existing) == (2_500 - first, first)
    assert values(valkey) == before


@pytest.mark.skipif(not hasattr(os, "O_TMPFILE"), reason="files without a name are Linux's")
def test_an_export_that_is_killed_leaves_nothing(valkey: Server, target: Path) -> None:
    fill(valkey, 2_500)
    command = [sys.executable, "-c", KILLED, valkey.url, str(target), target.suffix[1:]]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"half-way\n"
        process.send_signal(signal.SIGKILL)
    assert list(target.parent.iterdir()) == []


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
        export(plain, target, replace=True, tell=stop_after(500))
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
        export(plain, target, tell=stop_after(500))
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
