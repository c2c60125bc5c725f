"""The formats that exports have: how each is written and read, by one process or by several."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import BinaryIO, Final, Literal, NamedTuple, Protocol

from embedcache.arguments import shown
from embedcache.errors import InvalidInputError, TransferError
from embedcache.transfer.columns import EntryColumns
from embedcache.transfer.footer import NOT_AN_EXPORT, Footer
from embedcache.transfer.whole_files import BUFFER_BYTES, Draft

FileFormat = Literal["parquet", "jsonl"]
VectorForm = Literal["numbers", "base64"]
"""How vectors stand in JSON lines."""

_PARQUET_MAGIC: Final = b"PAR1"


class Writer(Protocol):
    """One format's way to write a file."""

    def write(self, columns: EntryColumns) -> None:
        """Adds entries."""

    def write_piece(self, piece: bytes) -> None:
        """Adds entries that `to_piece` made a piece of."""

    def finish(self, footer: Footer) -> None:
        """Writes what is left, and the footer."""

    def close(self) -> None:
        """Lets go of the draft, whole or not."""


class Piece(NamedTuple):
    """Some of a file's entries as bytes, which another process makes columns of."""

    data: bytes
    rows: int


class Format(NamedTuple):
    """How files of one format are written and read.

    Attributes:
        writer: Writes columns, or pieces of them that another process made with `to_piece`.
        to_piece: Columns as a piece.
        read_footer: A file's footer.
        read_entries: A file's entries, at most so many at once.
        read_pieces: The same, each batch as a piece that nobody has looked into.
        from_piece: The columns of such a piece, some rows at a time; its first row has that number in the file.
    """

    name: FileFormat
    writer: Callable[[Draft], Writer]
    to_piece: Callable[[EntryColumns], bytes]
    read_footer: Callable[[BinaryIO], Footer]
    read_entries: Callable[[BinaryIO, int], Iterator[EntryColumns]]
    read_pieces: Callable[[BinaryIO, int], Iterator[Piece]]
    from_piece: Callable[[bytes, int], Iterator[EntryColumns]]


def format_named(name: str, vectors: VectorForm | None = None) -> Format:
    """The format of that name. Each needs a library that the rest of the package does without.

    Args:
        name: ``parquet`` or ``jsonl``.
        vectors: How JSON lines hold vectors that are written; None is ``numbers``. Either is read.

    Raises:
        TransferError: The library is not installed.
        InvalidInputError: There is none of that name, or `vectors` is no choice of it.
    """
    try:
        if name == "parquet":
            if vectors is not None:
                raise InvalidInputError("vectors is a choice for jsonl alone; leave it out for parquet")
            from embedcache.transfer import parquet

            return Format(
                "parquet",
                parquet.ParquetWriter,
                parquet.to_piece,
                parquet.read_footer,
                parquet.read_entries,
                parquet.read_pieces,
                parquet.from_piece,
            )
        if name == "jsonl":
            from embedcache.transfer import jsonl

            form = vectors or "numbers"
            return Format(
                "jsonl",
                partial(jsonl.JSONLWriter, vectors=form),
                partial(jsonl.to_piece, vectors=form),
                jsonl.read_footer,
                jsonl.read_entries,
                jsonl.read_pieces,
                jsonl.from_piece,
            )
    except ModuleNotFoundError as error:
        raise TransferError(f"{name} files need {error.name}: pip install 'embedcache[{name}]'") from error
    raise InvalidInputError(f"the format is parquet or jsonl, not {shown(name)}")


@contextmanager
def opened(path: Path) -> Iterator[tuple[Format, BinaryIO]]:
    """A file to read, and how to read its format, which is found by how the file begins, whatever its name is.

    Raises:
        TransferError: It cannot be read, or is of no such format.
    """
    try:
        file = path.open("rb", BUFFER_BYTES)
    except OSError as error:
        raise TransferError(f"cannot read {path}: {error.strerror or error}; give the path of an export") from error
    with file:
        yield format_named(_name_of(file)), file


def _name_of(file: BinaryIO) -> FileFormat:
    start = file.read(len(_PARQUET_MAGIC))
    file.seek(0)
    if start == _PARQUET_MAGIC:
        return "parquet"
    if start.startswith(b"{"):
        return "jsonl"
    raise TransferError(NOT_AN_EXPORT)
