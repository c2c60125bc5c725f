"""Exports that go on where they ended: what is kept of them, what is read again, and what is not gone on with."""

from __future__ import annotations

import signal
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import exporting
import pytest
from exporting import KILLED, CancelledError, expiries, export, fill, stop_after, values
from servers import Server

from embedcache import transfer
from embedcache.connection import RedisConnection
from embedcache.errors import CacheUnavailableError, ForeignKeyError, TransferError

# Fixtures. Imported by name, they would be hidden by the arguments that ask for them.
plain, target = exporting.plain, exporting.target


def kept_beside(target: Path) -> Path:
    return target.with_name(f"{target.name}.partial")


def break_off(connection: RedisConnection, target: Path, after: int = 500, **options: Any) -> None:
    with pytest.raises(CancelledError):
        export(connection, target, resume=True, tell=stop_after(after), **options)
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


def test_an_export_that_ends_once_its_file_has_a_name_is_not_gone_on_with(
    valkey: Server, plain: RedisConnection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its file may have been moved since, so that nothing tells that what was kept is of an export long done."""
    target = tmp_path / "a.parquet"
    fill(valkey, 30)
    rename = Path.replace

    def rename_and_end(draft: Path, name: Path) -> None:
        rename(draft, name)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", rename_and_end)
        with pytest.raises(KeyboardInterrupt):
            export(plain, target, resume=True)
    assert list(tmp_path.iterdir()) == [target]
    target.rename(tmp_path / "moved.parquet")
    fill(valkey, 40)
    report = export(plain, target, resume=True)
    assert (report.entries, report.resumed) == (40, 0)


def test_what_was_read_stays_where_another_has_taken_the_name(
    valkey: Server, plain: RedisConnection, target: Path
) -> None:
    fill(valkey, 2_500)

    def take_the_name(done: int, _total: int | None) -> None:
        if done == 2_500:
            target.write_bytes(b"")

    with pytest.raises(TransferError, match="there is a file"):
        export(plain, target, resume=True, tell=take_the_name)
    report = export(plain, target, resume=True, replace=True)
    assert (report.entries, report.resumed) == (2_500, 2_500)


def test_without_a_server_nothing_is_kept(tmp_path: Path) -> None:
    opened = RedisConnection(f"unix://{tmp_path}/nowhere.sock")
    with pytest.raises(CacheUnavailableError):
        export(opened, tmp_path / "a.parquet", resume=True)
    assert list(tmp_path.iterdir()) == []
