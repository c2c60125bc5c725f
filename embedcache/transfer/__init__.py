"""Export to a file, and restore from one: Parquet or JSON lines, in constant memory. `docs/transfer.md` has the format.

An export looks without changing anything: no TTL is restarted, nothing is counted. Its file is there when it is whole,
or not at all. A restore checks each batch before it writes that batch, and writes each entry with what is left of its
TTL in one command; begun again, it goes on where it ended, because what is there is skipped. ::

    report = transfer.export_entries(cache.connection, cache.name, "answers.parquet")
    transfer.restore_entries(cache.connection, "answers", "answers.parquet")
"""

from __future__ import annotations

import json
import os
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TypeAlias, get_args

from embedcache.arguments import check_choice, check_function, check_path, check_switch, gone_through
from embedcache.entry_layout import LayoutName
from embedcache.errors import InvalidInputError, ReadOnlyError, ServerReplyError, TransferError
from embedcache.inspector import server_info
from embedcache.keyspace import Keyspace, check_keys
from embedcache.operations import CHUNK_ENTRIES
from embedcache.transfer import formats
from embedcache.transfer.batches import Counts, begun, resumed, shared_out
from embedcache.transfer.columns import EntryColumns, PackedEntries
from embedcache.transfer.footer import Footer, Tally
from embedcache.transfer.formats import Format, Piece, format_named, opened
from embedcache.transfer.operations import OnConflict
from embedcache.transfer.processes import Message, Workers, check_processes
from embedcache.transfer.reading_ahead import reading_ahead
from embedcache.transfer.restoring import Restoring
from embedcache.transfer.whole_files import whole_file, writing

if TYPE_CHECKING:
    from embedcache.connection import RedisConnection

FileFormat: TypeAlias = formats.FileFormat
VectorForm: TypeAlias = formats.VectorForm
Tell: TypeAlias = Callable[[int, int | None], object]
"""Told how many entries are done, and of how many where that is known. What it raises ends the work."""

_Written: TypeAlias = tuple[int, int, int]
"""Rows of a batch, how many of them had expired, and how many were written."""


@dataclass(frozen=True, slots=True)
class ExportReport:
    """What an export did.

    Attributes:
        path: The file.
        entries: Entries in it.
        bytes: Its length.
        skipped_unreadable: Values left out: damaged, of another key, or of another kind than an entry's.
        gone: Keys under which there was nothing any more.
        seconds: How long it took.
        resumed: Keys that an export which ended half-way had read already.
    """

    path: Path
    entries: int
    bytes: int
    skipped_unreadable: int
    gone: int
    seconds: float
    resumed: int = 0


@dataclass(frozen=True, slots=True)
class RestoreReport:
    """What a restore did.

    Attributes:
        restored: Entries written.
        skipped_existing: Entries left as they are in the cache.
        expired: Entries left out because their time is over.
        seconds: How long it took.
    """

    restored: int
    skipped_existing: int
    expired: int
    seconds: float


@dataclass(frozen=True, slots=True)
class FileSummary:
    """What an export has in it.

    Attributes:
        path: The file.
        file_format: ``parquet`` or ``jsonl``.
        cache_name: The cache that was exported.
        server: What it was on, such as ``Valkey 9.1.2``.
        exported_at: When, in Unix seconds by the server's clock.
        entries: How many entries it has.
        models: Entries by model, most first; of a file with more than 1,000 models, those met first.
        bytes: Its length.
    """

    path: Path
    file_format: FileFormat
    cache_name: str
    server: str
    exported_at: float
    entries: int
    models: dict[str, int]
    bytes: int


def _tell_nobody(_done: int, _total: int | None) -> None: ...


# ------------------------------------------------------------------------------------------------ export


def export_entries(
    connection: RedisConnection,
    cache_name: str,
    path: str | os.PathLike[str],
    keys: Iterable[str] | None = None,
    tell: Tell = _tell_nobody,
    *,
    file_format: FileFormat = "parquet",
    vectors: VectorForm | None = None,
    replace: bool = False,
    resume: bool = False,
    processes: int = 1,
) -> ExportReport:
    """Writes a cache's entries to a file that only its owner may read.

    Of entries that change meanwhile, each is as it was at some moment. One that the server lists twice, which it may do
    while it makes its table smaller, stands in the file twice.

    Args:
        connection: The server. On a read-only connection, reading does not count as use either.
        cache_name: The cache.
        path: The file. Its folder must be there.
        keys: Which entries; None is all of the cache. An iterator is gone through in another thread.
        tell: Told after each batch, with the total where `keys` has a length, and with `resume`. An error that it
            raises ends the export and leaves nothing behind but what `resume` keeps.
        file_format: ``parquet`` needs the extra ``parquet``, ``jsonl`` the extra ``jsonl``.
        vectors: How JSON lines hold vectors: ``numbers``, which every program can read, or ``base64`` of their
            little-endian bytes, which is written and read faster and takes half the room. None is ``numbers``; Parquet
            takes nothing else.
        replace: Whether a file of that name may go; it does when the new one is whole.
        resume: Whether to keep what was read in ``PATH.partial`` until the file is whole, and to go on with what an
            export that ended half-way has left there. Which entries are exported is then settled when the first one
            begins, and those read by it are as they were then.
        processes: How many read and unpack the entries, each with a connection like this one. With 1 this process does
            it itself, as `resume` needs it to.

    Raises:
        TransferError: The file cannot be written, or is there already; or what is to be resumed was of another cache
            or of other entries.
        InvalidInputError: The name, the format or `vectors` is none, or `vectors` was given for Parquet; or other
            processes cannot do it, because of `resume` or of a client that was passed in.
        ForeignKeyError: A key is not of this cache.
        CacheUnavailableError: The server cannot be reached.
        ServerReplyError: It answered with an error.
    """
    started = time.monotonic()
    space, target = Keyspace(cache_name), check_path("path", path)
    check_choice("file_format", file_format, get_args(FileFormat))
    check_choice("vectors", vectors, get_args(VectorForm), may_be_none=True)
    check_function("tell", tell)
    check_switch("replace", replace)
    check_switch("resume", resume)
    keys = None if keys is None else _keys_of(keys)
    if check_processes(processes) > 1 and resume:
        raise InvalidInputError("resume keeps values as this process reads them: leave processes at 1")
    form: dict[str, Any] = {"name": file_format, "vectors": vectors}
    chosen = format_named(**form)
    count = _Exported()
    with whole_file(target, replace=replace) as draft, ExitStack() as stack:
        writer = chosen.writer(draft)
        stack.callback(writer.close)
        if resume:
            source = stack.enter_context(resumed(connection, space, keys, target))
        elif processes > 1:
            source = stack.enter_context(shared_out(connection, space, keys, form, processes))
        else:
            source = stack.enter_context(begun(connection, space, keys))
        with reading_ahead(source.batches, source.ahead) as batches:
            for batch in batches:
                with writing(target):
                    batch.write_to(writer)
                count.add(batch.counts)
                tell(count.done, source.total)
        footer = Footer(
            cache_name, _server_name(connection), count.server_time, count.tally.entries, count.tally.shapes
        )
        with writing(target):
            writer.finish(footer)
        size = draft.file.tell()
        draft.before_naming = source.forget
    return ExportReport(
        target,
        footer.entries,
        size,
        count.unreadable,
        count.gone,
        seconds=time.monotonic() - started,
        resumed=source.resumed,
    )


@dataclass(slots=True)
class _Exported:
    """How far an export is."""

    tally: Tally = field(default_factory=Tally)
    unreadable: int = 0
    gone: int = 0
    server_time: float = field(default_factory=time.time)

    @property
    def done(self) -> int:
        return self.tally.entries + self.unreadable + self.gone

    def add(self, counts: Counts) -> None:
        """Adds those of a batch."""
        self.tally.add(counts.shapes)
        self.gone += counts.gone
        self.unreadable += counts.unreadable
        self.server_time = counts.server_time


def _keys_of(keys: Iterable[str]) -> Iterable[str]:
    """The keys, which may come one after the other; those in a list are checked before anything is begun."""
    return check_keys(keys) if isinstance(keys, Sequence | str | bytes) else gone_through("keys", keys)


def _server_name(connection: RedisConnection) -> str:
    try:
        info = server_info(connection)
    except ServerReplyError:
        return "unknown"  # an ACL may forbid INFO
    return f"{info.kind} {info.version}"


# ------------------------------------------------------------------------------------------------ restore


def restore_entries(
    connection: RedisConnection,
    cache_name: str,
    path: str | os.PathLike[str],
    tell: Tell = _tell_nobody,
    *,
    on_conflict: OnConflict = "skip",
    layout: LayoutName = "packed",
    check_first: bool = False,
    processes: int = 1,
) -> RestoreReport:
    """Writes a file's entries into a cache, each as it was: text, model, vector, metadata, TTL and times.

    The cache may have another name than the one exported. Statistics do not count it: nobody stored anything new.

    A row that is not as an export writes it ends the restore. Nothing of its batch, 1,000 rows at most, was written;
    what was written before stays, and restoring the mended file goes on from there. With `check_first`, nothing is
    written of a file that has such a row.

    Args:
        connection: The server.
        cache_name: The cache to write to.
        path: A file that `export_entries` wrote.
        tell: Told after each batch. An error that it raises ends the restore; what was written stays.
        on_conflict: What happens to an entry that the cache has already: ``skip`` leaves it, ``overwrite`` replaces it,
            ``newer`` replaces it where the file's was inserted later.
        layout: How the entries are to lie in the cache: ``packed`` or ``redisvl``, whichever they were exported from.
        check_first: Whether to go through the whole file before anything is written, which takes nearly as long as
            writing it does. `tell` is told of nothing meanwhile but that nothing is done.
        processes: How many pack and write the entries, each with a connection like this one. With 1 this process does
            it itself. With more, some batches behind a row that ends the restore may be written already.

    Raises:
        TransferError: The file is not a whole export, or one row cannot be restored: the error names it.
        ReadOnlyError: The connection is read-only.
        InvalidInputError: The name, `on_conflict` or the layout is none; or other processes cannot do it, because of a
            client that was passed in.
        CacheUnavailableError: The server cannot be reached.
        ServerReplyError: It refused a write, for lack of memory say.
    """
    started = time.monotonic()
    check_choice("layout", layout, get_args(LayoutName))
    target = check_path("path", path)
    check_function("tell", tell)
    check_switch("check_first", check_first)
    Keyspace(cache_name)
    check_choice("on_conflict", on_conflict, get_args(OnConflict))
    check_processes(processes)
    if connection.read_only:
        raise ReadOnlyError("the cache was opened read-only; open it with read_only=False to restore entries")
    restored = expired = row = 0
    with opened(target) as (chosen, file):
        footer = chosen.read_footer(file)
        tell(0, footer.entries)
        restoring = Restoring(cache_name, layout, on_conflict, footer)
        try:
            if check_first:
                for _ in _packed_batches(restoring, chosen.read_entries(file, CHUNK_ENTRIES)):
                    tell(0, footer.entries)
            if processes > 1:
                job = {"cache": cache_name, "layout": layout, "on_conflict": on_conflict}
                written_batches = _written_apart(connection, chosen, file, job, footer, processes)
            else:
                written_batches = _written_here(connection, chosen, file, restoring)
            with closing(written_batches):
                for rows, late, written in written_batches:
                    row += rows
                    expired += late
                    restored += written
                    tell(row, footer.entries)
        except TransferError as error:
            raise _told_how_far(error, row, may_be_more=processes > 1) from error
    return RestoreReport(restored, row - restored - expired, expired, time.monotonic() - started)


def _written_here(
    connection: RedisConnection, chosen: Format, file: BinaryIO, restoring: Restoring
) -> Generator[_Written, None, None]:
    """Writes the entries, reading and packing those that come next in other threads."""
    with (
        reading_ahead(chosen.read_entries(file, CHUNK_ENTRIES)) as read,
        reading_ahead(_packed_batches(restoring, read)) as batches,
    ):
        for packed in batches:
            late, written = restoring.write(connection, packed)
            yield len(packed.keys), late, written


def _packed_batches(restoring: Restoring, batches: Iterator[EntryColumns]) -> Iterator[PackedEntries]:
    row = 1
    for columns in batches:
        yield restoring.pack([columns], row)
        row += len(columns)


def _written_apart(
    connection: RedisConnection, chosen: Format, file: BinaryIO, job: dict[str, Any], footer: Footer, processes: int
) -> Generator[_Written, None, None]:
    """Has other processes pack and write the entries."""
    job |= {"work": "restore", "form": {"name": chosen.name}, "footer": json.dumps(footer.to_json())}
    with Workers(processes, connection, job) as workers:
        for answer in workers.answers(_numbered(chosen.read_pieces(file, CHUNK_ENTRIES))):
            told = answer.header
            yield told["rows"], told["late"], told["written"]


def _numbered(pieces: Iterator[Piece]) -> Iterator[Message]:
    row = 1
    for piece in pieces:
        yield Message({"row": row}, piece.data)
        row += piece.rows


def _told_how_far(error: TransferError, rows: int, *, may_be_more: bool) -> TransferError:
    """The error, saying what was restored before it."""
    stays = f"; the {rows:,} rows before its batch are done and stay" if rows else "; nothing was written"
    if may_be_more:
        stays = "; what was written of other rows stays"
    return TransferError(f"{error.reason}{stays}. Export the cache again, or restore another file", row=error.row)


def describe_file(path: str | os.PathLike[str]) -> FileSummary:
    """What an export says it has in it. Only its end is read.

    Raises:
        TransferError: It cannot be read, or is not a whole export.
    """
    target = check_path("path", path)
    with opened(target) as (chosen, file):
        footer = chosen.read_footer(file)
        models: Counter[str] = Counter()
        for (model_name, _), entries in footer.shapes.items():
            models[model_name] += entries
        return FileSummary(
            path=target,
            file_format=chosen.name,
            cache_name=footer.cache_name,
            server=footer.server,
            exported_at=footer.exported_at,
            entries=footer.entries,
            models=dict(models.most_common()),
            bytes=os.fstat(file.fileno()).st_size,
        )
