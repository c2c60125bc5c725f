"""The folder of exports on the dashboard's machine, and the work that writes and reads them. Knows no streamlit."""

from __future__ import annotations

import logging
import os
import re
import shutil
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO, Final, Literal

import platformdirs

from embedcache import audit, transfer
from embedcache.connection import RedisConnection
from embedcache.errors import EmbedcacheError
from embedcache.keyspace import Keyspace
from embedcache.removal import RemovalPlan
from embedcache.transfer import ExportReport, FileFormat, RestoreReport
from embedcache.transfer.operations import OnConflict
from embedcache.transfer.whole_files import whole_file, writing
from embedcache.walking import find_digests
from pages.ui.jobs import JobCancelledError, Progress

SUFFIXES: Final[dict[FileFormat, str]] = {"parquet": ".parquet", "jsonl": ".jsonl"}
MAX_UPLOAD_MEGABYTES: Final = 200
MAX_DOWNLOAD_BYTES: Final = MAX_UPLOAD_MEGABYTES * 1_000_000
"""Files up to this length can be downloaded from a page; Streamlit holds them in memory."""
KEPT_SECONDS: Final = 86_400
"""How long a copy or an upload is kept after it was written, or read back last."""
MAX_KEPT_BYTES: Final = 10_000_000_000
"""Of all copies together; the newest stays, however large."""
HOW_LONG: Final = (
    "A copy is kept on the dashboard's machine for a day after it was written or restored last, or until newer ones "
    f"take {MAX_KEPT_BYTES // 10**9} GB."
)
_UPLOADS: Final = "uploads"
_OWNER_ONLY: Final = 0o700
_KEYS_AT_ONCE: Final = 1_000
_UNPLAIN: Final = re.compile(r"[^A-Za-z0-9._-]+")
_log = logging.getLogger(__name__)


# ------------------------------------------------------------------------------------------------ the folder


def folder(name: str = "") -> Path:
    """The folder that exports are written to, made if it is not there; only its owner may look into it.

    Args:
        name: Of a folder within it.

    Raises:
        TransferError: It cannot be made.
    """
    top = platformdirs.user_data_path("embedcache", appauthor=False) / "exports"
    path = top / name
    with writing(path):
        path.mkdir(parents=True, exist_ok=True)
        for each in (top, path):
            each.chmod(_OWNER_ONLY)  # afterwards, for `mkdir` leaves one alone that is there
    return path


def listed() -> list[Path]:
    """The exports in the folder, newest first, once those that are not to be kept any longer are gone.

    Raises:
        TransferError: It cannot be looked into.
    """
    tidy()
    return [path for _, path in _newest_first()]


def tidy() -> None:
    """Removes copies and uploads that were kept long enough, and the oldest copies where all take too much.

    Raises:
        TransferError: The folder cannot be looked into, or a file cannot be removed.
    """
    copies = _newest_first()
    total = 0
    for place, (written, path) in enumerate(copies):
        total += _size(path)
        if _is_old(written) or (place and total > MAX_KEPT_BYTES):
            _remove(path)
    for written, path in _dated(folder(_UPLOADS)):
        if _is_old(written):
            _remove(path)


def _newest_first() -> list[tuple[float, Path]]:
    return sorted((each for each in _dated(folder()) if each[1].suffix in SUFFIXES.values()), reverse=True)


def _is_old(written: float) -> bool:
    return time.time() - written > KEPT_SECONDS


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _remove(path: Path) -> None:
    with writing(path):
        path.unlink(missing_ok=True)


def _dated(where: Path) -> list[tuple[float, Path]]:
    """The files in a folder and when each was written; what somebody removes meanwhile is left out."""
    found = []
    with writing(where):
        for path in where.iterdir():
            try:
                found.append((path.stat().st_mtime, path))
            except FileNotFoundError:
                continue
    return [(written, path) for written, path in found if path.is_file()]


def _new_path(where: Path, name: str, suffix: str) -> Path:
    """A path for a new file: a name as far as file systems like it, and the time."""
    plain = _UNPLAIN.sub("_", name).strip("._")[:80] or "cache"
    return where / f"{plain}-{datetime.now(UTC):%Y%m%d-%H%M%S-%f}{suffix}"


def keep_upload(content: BinaryIO) -> Path:
    """Writes an uploaded file beside the folder's own, where `listed` does not show it; it is kept for a day.

    What it was called does not matter: the name is a stranger's, and how it begins says which format it has.

    Raises:
        TransferError: It cannot be written.
    """
    tidy()
    path = _new_path(folder(_UPLOADS), "upload", "")
    with whole_file(path, replace=False) as draft:
        shutil.copyfileobj(content, draft.file)
    return path


# ------------------------------------------------------------------------------------------------ writing one


def export(connection: RedisConnection, plan: RemovalPlan, file_format: FileFormat, progress: Progress) -> ExportReport:
    """Writes a plan's entries to a new file of the folder.

    Raises:
        EmbedcacheError: The file cannot be written, or the server does not answer.
        JobCancelledError: Somebody cancelled; no file is left.
    """
    tidy()
    path = _new_path(folder(), plan.cache_name, SUFFIXES[file_format])
    return transfer.export_entries(
        connection, plan.cache_name, path, _Keys(plan), progress.tell, file_format=file_format
    )


class _Keys:
    """A plan's keys, written out a thousand at a time: a million of them would take 120 MB."""

    def __init__(self, plan: RemovalPlan) -> None:
        self._plan = plan

    def __len__(self) -> int:
        return len(self._plan)

    def __iter__(self) -> Iterator[str]:
        for start in range(0, len(self._plan), _KEYS_AT_ONCE):
            yield from self._plan.keys(slice(start, start + _KEYS_AT_ONCE))


# ------------------------------------------------------------------------------------------------ reading one back


@dataclass(frozen=True, slots=True)
class Restored:
    """What became of a restore.

    Attributes:
        cache_name: The cache that was written to.
        outcome: How it ended.
        rows: Rows of the file that were gone through.
        report: What was done; None where it ended half-way.
        error: What ended it half-way, or None.
        recorded: Whether the audit log has all this.
        entries: How many the cache has, counted again in the end; None where that could not be counted.
    """

    cache_name: str
    outcome: Literal["done", "cancelled", "failed"]
    rows: int
    report: RestoreReport | None
    error: EmbedcacheError | None
    recorded: bool
    entries: int | None


def restore(
    connection: RedisConnection,
    cache_name: str,
    path: Path,
    on_conflict: OnConflict,
    actor: str,
    progress: Progress,
) -> Restored:
    """Writes a file's entries into a cache. The audit log has it, however it ends.

    Raises:
        EmbedcacheError: The audit log cannot be written; nothing was restored.
    """
    detail: dict[str, object] = {"file": path.name, "on_conflict": on_conflict}
    known = audit.record(connection, cache_name, actor, "restore", detail=detail | {"outcome": "running"})
    _keep_on(path)
    rows = 0

    def tell(done: int, total: int | None) -> None:
        nonlocal rows
        rows = done
        progress.tell(done, total, "restoring")

    report: RestoreReport | None = None
    error: EmbedcacheError | None = None
    try:
        report = transfer.restore_entries(connection, cache_name, path, tell, on_conflict=on_conflict)
    except JobCancelledError:
        outcome: Literal["done", "cancelled", "failed"] = "cancelled"
    except EmbedcacheError as ended:
        outcome, error = "failed", ended
    else:
        outcome = "done"
    restored = rows if report is None else report.restored
    detail |= {"rows": rows, "outcome": outcome}
    if report is not None:
        detail |= {"left": report.skipped_existing, "expired": report.expired}
    entries = _entries_in(connection, cache_name, progress)
    if entries is not None:
        detail["entries"] = entries
    recorded = _amended(connection, known, restored, detail)
    return Restored(cache_name, outcome, rows, report, error, recorded, entries)


def _entries_in(connection: RedisConnection, cache_name: str, progress: Progress) -> int | None:
    """How many keys the cache has now; None where the server does not tell, or somebody does not wait for it."""
    with suppress(EmbedcacheError, JobCancelledError):
        found = find_digests(Keyspace(cache_name), lambda done, total: progress.tell(done, total, "counting again"))
        return len(connection.drive(found))
    return None


def _keep_on(path: Path) -> None:
    """Has a copy that is read kept for as long as a new one, so that it does not go meanwhile."""
    with suppress(OSError):  # gone, or another user's: the restore says so
        os.utime(path)


def _amended(connection: RedisConnection, known: audit.AuditRecord, count: int, detail: dict[str, object]) -> bool:
    """Whether the audit log took what became of it; what ended the work may end this, too."""
    try:
        audit.amend(connection, known, count=count, size=0, detail=detail)
    except EmbedcacheError as error:
        _log.warning("The audit log does not have how a restore ended", exc_info=error)
        return False
    return True
