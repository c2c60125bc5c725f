"""The folder of exports: who may look into it, what is listed, uploads, and copies restored from it."""

from __future__ import annotations

import io
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from removing import MODEL, plan_of, stored
from servers import Server

from embedcache import CacheUnavailableError, EmbeddingsCache, audit
from embedcache.errors import TransferError
from embedcache.transfer import describe_file
from pages.ui import exports
from pages.ui.jobs import JobCancelledError, Progress


@pytest.fixture
def cache(valkey: Server) -> Iterator[EmbeddingsCache]:
    with EmbeddingsCache("c", redis_url=valkey.url, stats=False) as opened:
        yield opened


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the user's data are, for this test."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    return tmp_path / "embedcache" / "exports"


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


def copy_of(cache: EmbeddingsCache, keys: list[str], file_format: str = "parquet") -> Path:
    return exports.export(cache.connection, plan_of(cache.connection, keys), file_format, Progress()).path


def restore(cache: EmbeddingsCache, path: Path, on_conflict: str = "skip") -> exports.Restored:
    return exports.restore(cache.connection, "c", path, on_conflict, "ada", Progress())


# ------------------------------------------------------------------------------------------------ the folder


def test_only_its_owner_may_look_into_the_folder(home: Path) -> None:
    before = os.umask(0)
    try:
        assert exports.folder() == home
        assert mode(home) == 0o700
        home.chmod(0o755)
        assert mode(exports.folder("uploads")) == 0o700
        assert mode(home) == 0o700
    finally:
        os.umask(before)


def test_a_folder_that_cannot_be_made_is_a_sentence(home: Path) -> None:
    home.parent.write_text("a file in its place")
    with pytest.raises(TransferError, match="choose a folder that you may write to"):
        exports.folder()


def test_the_newest_are_listed_first_and_nothing_else(home: Path) -> None:
    for age, name in enumerate(("new.parquet", "older.jsonl", "notes.txt", ".draft.part")):
        path = exports.folder() / name
        path.touch()
        os.utime(path, (time.time() - age, time.time() - age))
    (home / "a folder.parquet").mkdir()
    (home / "gone.parquet").symlink_to(home / "nowhere")
    exports.keep_upload(io.BytesIO(b"PAR1"))
    assert [path.name for path in exports.listed()] == ["new.parquet", "older.jsonl"]


def test_an_upload_is_kept_for_a_day_under_a_name_of_ours(home: Path) -> None:
    first, second = (exports.keep_upload(io.BytesIO(content)) for content in (b"first", b"second"))
    assert first != second
    assert (first.parent, mode(first)) == (home / "uploads", 0o600)
    assert first.read_bytes() == b"first"
    aged(first, exports.KEPT_SECONDS + 60)
    third = exports.keep_upload(io.BytesIO(b"third"))
    assert set(first.parent.iterdir()) == {second, third}


# ------------------------------------------------------------------------------------------------ how long


def aged(path: Path, seconds: float) -> Path:
    path.touch()
    os.utime(path, (0, time.time() - seconds))
    return path


def test_copies_are_kept_for_a_day(home: Path) -> None:
    fresh, old = (exports.folder() / name for name in ("fresh.parquet", "old.jsonl"))
    mine = exports.folder() / "notes.txt"
    for path in (old, mine):
        aged(path, exports.KEPT_SECONDS + 60)
    aged(fresh, exports.KEPT_SECONDS - 60)
    assert exports.listed() == [fresh]
    assert set(home.glob("*.*")) == {fresh, mine}  # what is no copy is somebody else's


def test_the_oldest_make_room(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exports, "MAX_KEPT_BYTES", 25)
    for age in range(4):
        path = exports.folder() / f"{age}.parquet"
        path.write_bytes(b"x" * 10)
        os.utime(path, (0, time.time() - age))
    assert [path.stem for path in exports.listed()] == ["0", "1"]
    (home / "huge.jsonl").write_bytes(b"x" * 100)
    assert [path.stem for path in exports.listed()] == ["huge"]


def test_what_is_restored_is_kept_on(cache: EmbeddingsCache, home: Path) -> None:
    path = copy_of(cache, stored(cache, 3))
    aged(path, exports.KEPT_SECONDS - 5)
    restore(cache, path)
    assert time.time() - path.stat().st_mtime < 60


def test_a_copy_that_cannot_be_removed_is_a_sentence(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    aged(exports.folder() / "old.parquet", exports.KEPT_SECONDS + 60)

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError("no")

    monkeypatch.setattr(Path, "unlink", refuse)
    with pytest.raises(TransferError):
        exports.tidy()


# ------------------------------------------------------------------------------------------------ writing


@pytest.mark.parametrize("file_format", ["parquet", "jsonl"])
def test_a_copy_holds_the_plans_entries(cache: EmbeddingsCache, home: Path, file_format: str) -> None:
    keys = stored(cache, 2_500)
    path = copy_of(cache, keys[:2_200], file_format)
    assert (path.parent, path.suffix, mode(path)) == (home, f".{file_format}", 0o600)
    assert describe_file(path).entries == 2_200
    assert exports.listed() == [path]


@pytest.mark.parametrize("name", ["../../etc/passwd", "..", "<script>", "a\x00b", "x" * 300, "Ж", "-rf *"])
def test_a_caches_name_leads_nowhere_else(valkey: Server, home: Path, name: str) -> None:
    with EmbeddingsCache(name, redis_url=valkey.url, stats=False) as cache:
        path = copy_of(cache, [cache.set("t", MODEL, [1.0])])
    assert path.parent == home
    assert describe_file(path).cache_name == name


def test_a_cancelled_copy_leaves_nothing(cache: EmbeddingsCache, home: Path) -> None:
    plan = plan_of(cache.connection, stored(cache, 100))
    progress = Progress()
    progress.cancel()
    with pytest.raises(JobCancelledError):
        exports.export(cache.connection, plan, "parquet", progress)
    assert list(home.glob("*.*")) == []


# ------------------------------------------------------------------------------------------------ restoring


def test_what_was_removed_is_restored(cache: EmbeddingsCache, home: Path) -> None:
    keys = stored(cache, 30, metadata={"page": 3})
    before = [cache.get_by_key(key) for key in keys]
    path = copy_of(cache, keys)
    cache.mdrop_by_keys(keys[:20])
    restored = restore(cache, path)
    assert (restored.outcome, restored.report.restored, restored.report.skipped_existing) == ("done", 20, 10)
    assert restored.entries == 30
    after = [cache.get_by_key(key) for key in keys]
    assert [(entry["text"], entry["metadata"], entry["inserted_at"]) for entry in after] == [
        (entry["text"], entry["metadata"], entry["inserted_at"]) for entry in before
    ]
    (record,) = audit.read(cache.connection, "c")
    assert (record.actor, record.action, record.count) == ("ada", "restore", 20)
    assert record.detail["file"] == path.name
    assert record.detail["outcome"] == "done"


def test_a_cancelled_restore_is_on_record(cache: EmbeddingsCache, home: Path) -> None:
    path = copy_of(cache, stored(cache, 10))
    progress = Progress()
    progress.cancel()
    restored = exports.restore(cache.connection, "c", path, "skip", "ada", progress)
    assert (restored.outcome, restored.rows, restored.report, restored.recorded) == ("cancelled", 0, None, True)
    assert audit.read(cache.connection, "c")[0].detail["outcome"] == "cancelled"


def test_a_file_that_is_no_copy_is_on_record(cache: EmbeddingsCache, home: Path) -> None:
    path = exports.keep_upload(io.BytesIO(b"PAR1 and no more"))
    restored = restore(cache, path)
    assert restored.outcome == "failed"
    assert isinstance(restored.error, TransferError)
    assert audit.read(cache.connection, "c")[0].detail["outcome"] == "failed"


def test_without_a_server_nothing_is_restored(home: Path) -> None:
    path = exports.keep_upload(io.BytesIO(b"{"))
    with (
        EmbeddingsCache("c", redis_url="redis://127.0.0.1:1", stats=False) as cache,
        pytest.raises(CacheUnavailableError),
    ):
        restore(cache, path)
