"""Export to a file, and restore from one: Parquet or JSON lines, in constant memory. `docs/transfer.md` has the format.

An export looks without changing anything: no TTL is restarted, nothing is counted. Its file is there when it is whole,
or not at all. A restore checks each batch before it writes that batch, and writes each entry with what is left of its
TTL in one command; begun again, it goes on where it ended, because what is there is skipped. ::

    report = transfer.export_entries(cache.connection, cache.name, "answers.parquet")
    transfer.restore_entries(cache.connection, "answers", "answers.parquet")
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final, Literal, NamedTuple, Protocol, TypeAlias, get_args

from embedcache.arguments import check_choice, check_function, check_path, check_switch, gone_through, shown
from embedcache.entry_layout import LayoutName
from embedcache.errors import InvalidInputError, ReadOnlyError, ServerReplyError, TransferError
from embedcache.inspector import server_info
from embedcache.keyspace import Keyspace, check_keys
from embedcache.near_operations import dropping
from embedcache.operations import CHUNK_ENTRIES, NO_KEY, ServerAbilities
from embedcache.transfer.batches import begun, resumed
from embedcache.transfer.columns import EntryColumns, PackedEntries, pack_columns
from embedcache.transfer.footer import NOT_AN_EXPORT, Footer, Tally
from embedcache.transfer.operations import FoundValues, OnConflict, write_entries
from embedcache.transfer.reading_ahead import reading_ahead
from embedcache.transfer.whole_files import BUFFER_BYTES, Draft, whole_file, writing

if TYPE_CHECKING:
    from embedcache.connection import RedisConnection

FileFormat = Literal["parquet", "jsonl"]
Tell: TypeAlias = Callable[[int, int | None], object]
"""Told how many entries are done, and of how many where that is known. What it raises ends the work."""

_PARQUET_MAGIC: Final = b"PAR1"


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


class _Writer(Protocol):
    """One format's way to write a file."""

    def write(self, columns: EntryColumns) -> None: ...
    def finish(self, footer: Footer) -> None: ...
    def close(self) -> None: ...


class _Format(NamedTuple):
    """How files of one format are written and read."""

    writer: Callable[[Draft], _Writer]
    read_footer: Callable[[BinaryIO], Footer]
    read_entries: Callable[[BinaryIO, int], Iterator[EntryColumns]]


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
    replace: bool = False,
    resume: bool = False,
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
        replace: Whether a file of that name may go; it does when the new one is whole.
        resume: Whether to keep what was read in ``PATH.partial`` until the file is whole, and to go on with what an
            export that ended half-way has left there. Which entries are exported is then settled when the first one
            begins, and those read by it are as they were then.

    Raises:
        TransferError: The file cannot be written, or is there already; or what is to be resumed was of another cache
            or of other entries.
        InvalidInputError: The name or the format is none.
        ForeignKeyError: A key is not of this cache.
        CacheUnavailableError: The server cannot be reached.
        ServerReplyError: It answered with an error.
    """
    started = time.monotonic()
    space, target = Keyspace(cache_name), check_path("path", path)
    check_choice("file_format", file_format, get_args(FileFormat))
    check_function("tell", tell)
    check_switch("replace", replace)
    check_switch("resume", resume)
    keys = None if keys is None else _keys_of(keys)
    chosen = _format(file_format)
    count = _Exported()
    with whole_file(target, replace=replace) as draft, ExitStack() as stack:
        writer = chosen.writer(draft)
        stack.callback(writer.close)
        source = stack.enter_context(
            resumed(connection, space, keys, target) if resume else begun(connection, space, keys)
        )
        with reading_ahead(source.batches) as batches:
            for found, columns in batches:
                with writing(target):
                    writer.write(columns)
                count.add(found, columns)
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

    def add(self, found: FoundValues, columns: EntryColumns) -> None:
        """Counts what was found, and the entries among it."""
        gone = found.milliseconds.count(NO_KEY)
        self.tally.add(columns.shapes())
        self.gone += gone
        self.unreadable += len(found.keys) - gone - len(columns)
        self.server_time = found.now


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

    Raises:
        TransferError: The file is not a whole export, or one row cannot be restored: the error names it.
        ReadOnlyError: The connection is read-only.
        InvalidInputError: The name, `on_conflict` or the layout is none.
        CacheUnavailableError: The server cannot be reached.
        ServerReplyError: It refused a write, for lack of memory say.
    """
    started = time.monotonic()
    check_choice("layout", layout, get_args(LayoutName))
    target = check_path("path", path)
    check_function("tell", tell)
    check_switch("check_first", check_first)
    space = Keyspace(cache_name, hex_bytes=layout == "redisvl")
    check_choice("on_conflict", on_conflict, get_args(OnConflict))
    if connection.read_only:
        raise ReadOnlyError("the cache was opened read-only; open it with read_only=False to restore entries")
    able = ServerAbilities()
    restored = expired = row = 0
    with _opened(target) as (chosen, file):
        footer = chosen.read_footer(file)
        tell(0, footer.entries)
        try:
            if check_first:
                for _ in _packed_batches(space, footer, chosen.read_entries(file, CHUNK_ENTRIES)):
                    tell(0, footer.entries)
            with (
                reading_ahead(chosen.read_entries(file, CHUNK_ENTRIES)) as read,
                reading_ahead(_packed_batches(space, footer, read)) as batches,
            ):
                for packed in batches:
                    with closing(dropping(cache_name, write_entries(able, packed, on_conflict, layout))) as operation:
                        late, written = connection.drive(operation)
                    row += len(packed.keys)
                    expired += late
                    restored += written
                    tell(row, footer.entries)
        except TransferError as error:
            raise _told_how_far(error, row) from error
    return RestoreReport(restored, row - restored - expired, expired, time.monotonic() - started)


def _told_how_far(error: TransferError, rows: int) -> TransferError:
    """The error, saying what was restored before it."""
    stays = f"; the {rows:,} rows before its batch are done and stay" if rows else "; nothing was written"
    return TransferError(f"{error.reason}{stays}. Export the cache again, or restore another file", row=error.row)


def describe_file(path: str | os.PathLike[str]) -> FileSummary:
    """What an export says it has in it. Only its end is read.

    Raises:
        TransferError: It cannot be read, or is not a whole export.
    """
    target = check_path("path", path)
    with _opened(target) as (chosen, file):
        footer = chosen.read_footer(file)
        models: Counter[str] = Counter()
        for (model_name, _), entries in footer.shapes.items():
            models[model_name] += entries
        return FileSummary(
            path=target,
            file_format=_format_of(file),
            cache_name=footer.cache_name,
            server=footer.server,
            exported_at=footer.exported_at,
            entries=footer.entries,
            models=dict(models.most_common()),
            bytes=os.fstat(file.fileno()).st_size,
        )


def _packed_batches(space: Keyspace, footer: Footer, batches: Iterator[EntryColumns]) -> Iterator[PackedEntries]:
    row = 1
    for columns in batches:
        _check_shapes(columns, footer, row)
        yield pack_columns(space, columns, row)
        row += len(columns)


def _check_shapes(columns: EntryColumns, footer: Footer, first_row: int) -> None:
    """Checks that each vector has one of the dimensions that the file says its model has."""
    if not footer.lists_all:
        return
    for row, shape in enumerate(columns.shapes(), first_row):
        if shape not in footer.shapes:
            model_name, dimension = shape
            known = sorted(each for name, each in footer.shapes if name == model_name)
            said = (
                f"{', '.join(map(str, known))} by what the file says at its end" if known else "not in the file's list"
            )
            raise TransferError(f"the vector has {dimension:,} components; those of its model are {said}", row=row)


# ------------------------------------------------------------------------------------------------ files


@contextmanager
def _opened(path: Path) -> Iterator[tuple[_Format, BinaryIO]]:
    """A file to read, and how to read its format."""
    try:
        file = path.open("rb", BUFFER_BYTES)
    except OSError as error:
        raise TransferError(f"cannot read {path}: {error.strerror or error}; give the path of an export") from error
    with file:
        yield _format(_format_of(file)), file


def _format_of(file: BinaryIO) -> FileFormat:
    """The format, by how the file begins, whatever its name is."""
    file.seek(0)
    start = file.read(len(_PARQUET_MAGIC))
    file.seek(0)
    if start == _PARQUET_MAGIC:
        return "parquet"
    if start.startswith(b"{"):
        return "jsonl"
    raise TransferError(NOT_AN_EXPORT)


def _format(name: str) -> _Format:
    """How to write and read a format. Each needs a library that the rest of the package does without."""
    try:
        if name == "parquet":
            from embedcache.transfer import parquet

            return _Format(parquet.ParquetWriter, parquet.read_footer, parquet.read_entries)
        if name == "jsonl":
            from embedcache.transfer import jsonl

            return _Format(jsonl.JSONLWriter, jsonl.read_footer, jsonl.read_entries)
    except ModuleNotFoundError as error:
        raise TransferError(f"{name} files need {error.name}: pip install 'embedcache[{name}]'") from error
    raise InvalidInputError(f"the format is parquet or jsonl, not {shown(name)}")
