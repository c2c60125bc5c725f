"""Exports and restores that several processes work on: the same files and entries, and nobody is left behind."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import exporting
import pytest
from exporting import CancelledError, cache, expiries, export, fill, stop_after, values
from redis.backoff import NoBackoff
from redis.retry import Retry
from servers import Server

from embedcache import transfer
from embedcache.connection import RedisConnection
from embedcache.errors import CacheUnavailableError, InvalidInputError, ServerReplyError, TransferError

plain, target = exporting.plain, exporting.target


def children() -> set[int]:
    """The processes that this one has started and that have not ended."""
    folder = Path("/proc/self/task")
    if not folder.is_dir():
        pytest.skip("which processes one has started is read from /proc")
    return {int(pid) for task in folder.iterdir() for pid in (task / "children").read_text().split()}


@pytest.fixture
def nobody_left(valkey: Server) -> Iterator[None]:
    before = children()
    yield
    assert children() <= before


pytestmark = pytest.mark.usefixtures("nobody_left")


def test_what_comes_back_is_bit_by_bit_what_was_there(valkey: Server, plain: RedisConnection, target: Path) -> None:
    fill(valkey, 2_500)
    for number, dtype in enumerate(["float16", "int8", "float64"]):
        fill(valkey, 40, dtype=dtype, model=f"m{number}", dimensions=5 + number)
    with cache(valkey) as opened:
        opened.set(b"\xff\xd8\x00an image", "m0", [1.0, 2.0, -0.0, 1e-40])
    valkey.raw.set("c:" + "0" * 64, "no entry")
    before, due = values(valkey), expiries(valkey)

    told: list[int] = []
    report = export(plain, target, tell=lambda done, _total: told.append(done), processes=2)
    assert (report.entries, report.skipped_unreadable, report.gone) == (len(before) - 1, 1, 0)
    assert told == sorted(told)
    assert told[-1] == len(before)
    assert values(valkey) == before
    summary = transfer.describe_file(target)
    assert (summary.entries, summary.models["m"]) == (len(before) - 1, 2_500)

    valkey.raw.flushall()
    restored = transfer.restore_entries(plain, "c", target, processes=3)
    assert (restored.restored, restored.skipped_existing, restored.expired) == (len(before) - 1, 0, 0)
    assert values(valkey).items() == before.items() - {(b"c:" + b"0" * 64, b"no entry")}
    assert all(abs(due[key] - at) < 500 for key, at in expiries(valkey).items())


def test_a_file_is_the_same_by_however_many_it_is_made(valkey: Server, plain: RedisConnection, target: Path) -> None:
    fill(valkey, 1_500)
    export(plain, target)
    other = target.with_stem("other")
    export(plain, other, processes=2)
    found = []
    for file in (target, other):
        valkey.raw.flushall()
        assert transfer.restore_entries(plain, "c", file).restored == 1_500
        found.append(values(valkey))
    assert found[0] == found[1]


def test_an_empty_cache_and_chosen_keys(valkey: Server, plain: RedisConnection, target: Path) -> None:
    assert export(plain, target, processes=2).entries == 0
    assert transfer.restore_entries(plain, "c", target, processes=2).restored == 0
    fill(valkey)
    with cache(valkey) as opened:
        keys = [opened.key_for(f"float32 text {number}", "m") for number in range(4)]
        opened.drop_by_key(keys[0])
    report = export(plain, target, keys=keys, replace=True, processes=2)
    assert (report.entries, report.gone) == (3, 1)


def test_redisvls_layout(valkey: Server, plain: RedisConnection, target: Path) -> None:
    fill(valkey)
    with cache(valkey) as opened:
        opened.set(b"abc", "m", [1.0])
    export(plain, target, processes=2)
    valkey.raw.flushall()
    transfer.restore_entries(plain, "c", target, layout="redisvl", processes=2)
    with cache(valkey, layout="redisvl") as opened:
        assert opened.mexists(["float32 text 0", b"abc"], "m") == [True, True]
    again = target.with_stem("again")
    assert export(plain, again, processes=2).entries == 31


@pytest.mark.parametrize("on_conflict", ["skip", "overwrite"])
def test_what_is_there_already(valkey: Server, plain: RedisConnection, target: Path, on_conflict: str) -> None:
    fill(valkey, 1_200)
    export(plain, target)
    report = transfer.restore_entries(plain, "c", target, on_conflict=on_conflict, processes=2)  # type: ignore[arg-type]
    assert (report.restored, report.skipped_existing) == ((0, 1_200) if on_conflict == "skip" else (1_200, 0))


# ------------------------------------------------------------------------------------------------ how they end


def test_a_cancelled_export_leaves_nothing(valkey: Server, plain: RedisConnection, target: Path) -> None:
    fill(valkey, 4_500)
    with pytest.raises(CancelledError):
        export(plain, target, tell=stop_after(500), processes=2)
    assert list(target.parent.iterdir()) == []


def test_a_cancelled_restore_goes_on_where_it_ended(valkey: Server, plain: RedisConnection, target: Path) -> None:
    fill(valkey, 6_500)
    export(plain, target)
    before = values(valkey)
    valkey.raw.flushall()
    with pytest.raises(CancelledError):
        transfer.restore_entries(plain, "c", target, tell=stop_after(500), processes=2)
    report = transfer.restore_entries(plain, "c", target, processes=2)
    assert report.restored + report.skipped_existing == 6_500
    assert report.skipped_existing >= 500
    assert values(valkey) == before


@pytest.mark.parametrize("work", ["export", "restore"])
def test_a_process_that_is_killed_is_told(valkey: Server, plain: RedisConnection, target: Path, work: str) -> None:
    fill(valkey, 4_500)
    before, ours = values(valkey), children()
    if work == "restore":
        export(plain, target)
        valkey.raw.flushall()
    pids: list[int] = []

    def kill(done: int, _total: int | None) -> None:
        if done and not pids:
            pids.extend(sorted(children() - ours))
            os.kill(pids[0], signal.SIGKILL)

    def begin() -> None:
        if work == "export":
            export(plain, target, tell=kill, processes=2)
        else:
            transfer.restore_entries(plain, "c", target, tell=kill, processes=2)

    with pytest.raises(TransferError, match=r"a process that worked on it was ended.*begin again"):
        begin()
    assert len(pids) == 2
    if work == "export":
        assert list(target.parent.iterdir()) == []
    else:
        transfer.restore_entries(plain, "c", target, processes=2)
        assert values(valkey) == before


def test_a_spoilt_row_is_named(valkey: Server, plain: RedisConnection, tmp_path: Path) -> None:
    target = tmp_path / "entries.jsonl"
    fill(valkey, 5_500)
    export(plain, target)
    before = values(valkey)
    lines = target.read_bytes().splitlines(keepends=True)
    spoilt = json.loads(lines[3_333]) | {"text": "of another entry"}
    target.write_bytes(b"".join([*lines[:3_333], json.dumps(spoilt).encode() + b"\n", *lines[3_334:]]))
    valkey.raw.flushall()
    with pytest.raises(
        TransferError, match=r"entry id is not that of the text.*what was written of other rows stays"
    ) as told:
        transfer.restore_entries(plain, "c", target, processes=2)
    assert told.value.row == 3_334
    written = values(valkey)
    assert 3_000 <= len(written) < 5_500  # nothing of its batch, and the batches before it whole
    assert written.items() <= before.items()
    target.write_bytes(b"".join(lines))
    assert transfer.restore_entries(plain, "c", target, processes=2).restored == 5_500 - len(written)


def test_a_refusal_of_the_servers_is_ours(valkey: Server, plain: RedisConnection, target: Path) -> None:
    fill(valkey, 100)
    export(plain, target)
    valkey.raw.flushall()
    valkey.raw.config_set("maxmemory", 1)
    try:
        with pytest.raises(ServerReplyError, match="OOM"):
            transfer.restore_entries(plain, "c", target, processes=2)
    finally:
        valkey.raw.config_set("maxmemory", 0)


def test_a_server_that_is_away(valkey: Server, plain: RedisConnection, target: Path) -> None:
    fill(valkey, 100)
    export(plain, target)
    away = RedisConnection("unix:///nowhere.sock")
    with pytest.raises(CacheUnavailableError):
        transfer.restore_entries(away, "c", target, processes=2)
    with pytest.raises(CacheUnavailableError):
        export(away, target.with_stem("other"), processes=2)
    assert list(target.parent.iterdir()) == [target]


# ------------------------------------------------------------------------------------------------ what is refused


@pytest.mark.parametrize("processes", [0, -1, 65, 1.5, True, "2", None])
def test_a_number_that_is_none(plain: RedisConnection, target: Path, processes: object) -> None:
    with pytest.raises(InvalidInputError, match="processes"):
        export(plain, target, processes=processes)
    assert not target.exists()
    export(plain, target)
    with pytest.raises(InvalidInputError, match="processes"):
        transfer.restore_entries(plain, "c", target, processes=processes)  # type: ignore[arg-type]


def test_clients_that_were_passed_in_cannot_be_passed_on(valkey: Server, target: Path) -> None:
    connection = RedisConnection(client=valkey.raw)
    with pytest.raises(InvalidInputError, match="cannot use a client that was passed in; pass a URL instead"):
        export(connection, target, processes=2)
    assert list(target.parent.iterdir()) == []
    export(connection, target)
    with pytest.raises(InvalidInputError, match="pass a URL instead"):
        transfer.restore_entries(connection, "c", target, processes=2)


def test_settings_that_are_objects_cannot_be_passed_on(valkey: Server, target: Path) -> None:
    connection = RedisConnection(valkey.url, settings={"retry": Retry(NoBackoff(), 0)})
    with pytest.raises(InvalidInputError, match="connection settings are plain values"):
        export(connection, target, processes=2)


def test_an_export_that_can_be_resumed_is_read_by_one(plain: RedisConnection, target: Path) -> None:
    with pytest.raises(InvalidInputError, match="resume keeps values as this process reads them"):
        export(plain, target, resume=True, processes=2)
    assert list(target.parent.iterdir()) == []


def test_no_password_is_among_the_arguments_of_a_process(valkey: Server, target: Path) -> None:
    valkey.raw.execute_command("ACL", "SETUSER", "reader", "reset", "on", ">s3cret-word", "~*", "+@all")
    try:
        fill(valkey, 3_000)
        seen: list[bytes] = []
        ours = children()

        def look(_done: int, _total: int | None) -> None:
            folders = [Path(f"/proc/{pid}") for pid in children() - ours]
            seen.extend((folder / name).read_bytes() for folder in folders for name in ("cmdline", "environ"))

        connection = RedisConnection(f"unix://reader:s3cret-word@{valkey.socket}", read_only=True)
        assert export(connection, target, tell=look, processes=2).entries == 3_000
        assert len(seen) >= 4
        assert not any(b"s3cret-word" in each for each in seen)
        connection.close()
    finally:
        valkey.raw.execute_command("ACL", "DELUSER", "reader")
