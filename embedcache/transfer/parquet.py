"""Exports as Parquet: one row to an entry, the vector as a list of numbers, the footer in the file's own metadata.

A file's vectors are of one type. It is a list of fixed size where all have one dimension, of float32 where none is
stored as float64. Which it is shows only while entries come in; where one does not fit, what was written so far is
written again with the wider type, row group by row group.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, BinaryIO, Final, NamedTuple, cast

import numpy as np
import pyarrow as pa  # type: ignore[import-untyped] # it ships no types
import pyarrow.compute as pc  # type: ignore[import-untyped]
import pyarrow.parquet as pq  # type: ignore[import-untyped]

from embedcache.entry import FloatArray, Text
from embedcache.errors import TransferError
from embedcache.transfer.columns import EntryColumns, cut
from embedcache.transfer.footer import NOT_AN_EXPORT, Footer, footer_from_json
from embedcache.transfer.formats import Piece
from embedcache.transfer.whole_files import Draft

_FOOTER_KEY: Final = b"embedcache_export"

_GROUP_ROWS: Final = 5_000
_GROUP_BYTES: Final = 32 * 1024 * 1024
"""A row group is held in memory by who writes it and by who reads it."""
_BATCH_BYTES: Final = 8 * 1024 * 1024

# Vectors are hardly ever equal or in order: neither dictionaries nor statistics find anything in them. Their bytes,
# sorted by place, take 16 % less than as they are (float16's half), for 2 us an entry of 384 dimensions.
_VECTOR_LEAF: Final = "vector.list.element"
_OPTIONS: Final[dict[str, Any]] = {
    "compression": "zstd",
    "use_dictionary": ["model_name", "dtype"],
    "write_statistics": ["inserted_at", "expires_at"],
    "column_encoding": {_VECTOR_LEAF: "BYTE_STREAM_SPLIT"},
    "write_page_checksum": True,
}


class _VectorType(NamedTuple):
    """What the vectors of a file are: their dimension, or None where there are several, and whether float64."""

    dimension: int | None
    wide: bool

    def joined(self, other: _VectorType) -> _VectorType:
        """What holds vectors of both."""
        return _VectorType(self.dimension if self.dimension == other.dimension else None, self.wide or other.wide)

    @property
    def arrow(self) -> pa.DataType:
        number = pa.float64() if self.wide else pa.float32()
        # Not nullable, which makes writing and reading four times as fast.
        return pa.list_(pa.field("element", number, nullable=False), self.dimension or -1)


def _schema(vectors: _VectorType) -> pa.Schema:
    return pa.schema(
        [
            pa.field("entry_id", pa.string(), nullable=False),
            pa.field("text", pa.string()),
            pa.field("text_bytes", pa.binary()),
            pa.field("model_name", pa.string(), nullable=False),
            pa.field("vector", vectors.arrow, nullable=False),
            pa.field("dimension", pa.int32(), nullable=False),
            pa.field("dtype", pa.string(), nullable=False),
            pa.field("scale", pa.float32()),
            pa.field("metadata", pa.string()),
            pa.field("inserted_at", pa.float64(), nullable=False),
            pa.field("ttl", pa.int64()),
            pa.field("expires_at", pa.float64()),
        ]
    )


# ------------------------------------------------------------------------------------------------ writing


class ParquetWriter:
    """Writes entries to a draft, a row group at a time."""

    def __init__(self, draft: Draft) -> None:
        self._draft = draft
        self._type: _VectorType | None = None
        self._writer: pq.ParquetWriter | None = None
        self._waiting: list[pa.Table] = []

    def write(self, columns: EntryColumns) -> None:
        """Adds entries."""
        if len(columns):
            self._add(_to_batch(columns))

    def write_piece(self, piece: bytes) -> None:
        """Adds entries that `to_piece` made a piece of."""
        if piece:
            self._add(_from_bytes(piece))

    def _add(self, batch: pa.RecordBatch) -> None:
        given = _type_in(batch.schema)
        wanted = given if self._type is None else self._type.joined(given)
        if wanted != self._type:
            self._widen(wanted)
        table = pa.Table.from_batches([batch])
        self._waiting.append(table if given == wanted else _widened(table, wanted))
        rows, size = sum(map(len, self._waiting)), sum(table.nbytes for table in self._waiting)
        if rows >= _GROUP_ROWS or size >= _GROUP_BYTES:
            self._write_group()

    def finish(self, footer: Footer) -> None:
        """Writes what is left, and the footer; the draft is a whole file then."""
        if self._writer is None:
            self._widen(_VectorType(None, wide=False))
        self._write_group()
        writer = cast("pq.ParquetWriter", self._writer)
        writer.add_key_value_metadata({_FOOTER_KEY: json.dumps(footer.to_json()).encode()})
        writer.close()

    def close(self) -> None:
        """Lets go of the draft, whole or not."""
        if self._writer is not None:
            with suppress(OSError):  # of one that is not whole, pyarrow writes the end once more
                self._writer.close()

    def _widen(self, wanted: _VectorType) -> None:
        self._write_group()
        before, self._type = self._writer, wanted
        if before is not None:
            before.close()
            with self._draft.begin_again() as written:
                self._writer = self._open(wanted)
                groups = pq.ParquetFile(written)
                for number in range(groups.num_row_groups):
                    self._writer.write_table(_widened(groups.read_row_group(number), wanted))
            return
        self._writer = self._open(wanted)

    def _open(self, vectors: _VectorType) -> pq.ParquetWriter:
        return pq.ParquetWriter(self._draft.file, _schema(vectors), **_OPTIONS)

    def _write_group(self) -> None:
        if self._waiting and self._writer is not None:
            table = pa.concat_tables(self._waiting)
            self._waiting.clear()
            self._writer.write_table(table, row_group_size=len(table))


def _type_of(columns: EntryColumns) -> _VectorType:
    dimensions = set(map(len, columns.vectors))
    return _VectorType(dimensions.pop() if len(dimensions) == 1 else None, "float64" in columns.dtypes)


def _type_in(schema: pa.Schema) -> _VectorType:
    lists = schema.field("vector").type
    fixed = pa.types.is_fixed_size_list(lists)
    return _VectorType(lists.list_size if fixed else None, lists.value_type == pa.float64())


def _to_batch(columns: EntryColumns) -> pa.RecordBatch:
    texts, vectors = columns.texts, _type_of(columns)
    arrays = {
        "entry_id": columns.entry_ids,
        "text": [text if isinstance(text, str) else None for text in texts],
        "text_bytes": [text if isinstance(text, bytes) else None for text in texts],
        "model_name": columns.model_names,
        "vector": _to_lists(columns.vectors, vectors),
        "dimension": list(map(len, columns.vectors)),
        "dtype": columns.dtypes,
        "scale": columns.scales,
        "metadata": columns.metadata,
        "inserted_at": columns.inserted_at,
        "ttl": columns.ttls,
        "expires_at": columns.expires_at,
    }
    return pa.RecordBatch.from_pydict(arrays, schema=_schema(vectors))


def _to_lists(vectors: list[FloatArray], vector_type: _VectorType) -> pa.Array:
    numbers = pa.array(np.concatenate(vectors).astype(np.float64 if vector_type.wide else np.float32, copy=False))
    if vector_type.dimension is not None:
        return pa.FixedSizeListArray.from_arrays(numbers, type=vector_type.arrow)
    starts = np.cumsum([0, *map(len, vectors)], dtype=np.int32)
    return pa.ListArray.from_arrays(pa.array(starts), numbers, type=vector_type.arrow)


def _widened(table: pa.Table, wanted: _VectorType) -> pa.Table:
    """The table with its vectors as another type, which holds them all."""
    position = table.schema.get_field_index("vector")
    lists = table.column(position).combine_chunks()
    lengths = pc.list_value_length(lists).to_numpy(zero_copy_only=False)
    vectors = cut(lists.flatten().to_numpy(zero_copy_only=False), lengths)
    field = _schema(wanted).field("vector")
    return table.set_column(position, field, _to_lists(vectors, wanted))


# ------------------------------------------------------------------------------------------------ pieces


def to_piece(columns: EntryColumns) -> bytes:
    """Entries as Arrow's bytes, which `ParquetWriter.write_piece` takes; none of none."""
    return _to_bytes(_to_batch(columns)) if len(columns) else b""


def from_piece(piece: bytes, first_row: int) -> Iterator[EntryColumns]:
    """The entries of a piece of `read_pieces`.

    Raises:
        TransferError: A row holds what no export wrote.
    """
    yield _from_batch(_from_bytes(piece), first_row)


def _to_bytes(batch: pa.RecordBatch) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as stream:
        stream.write_batch(batch)
    return cast("bytes", sink.getvalue().to_pybytes())


def _from_bytes(piece: bytes) -> pa.RecordBatch:
    return pa.ipc.open_stream(piece).read_next_batch()


# ------------------------------------------------------------------------------------------------ reading


def read_footer(file: BinaryIO) -> Footer:
    """The footer of a Parquet file.

    Raises:
        TransferError: The file is damaged, or not an export.
    """
    return _footer_of(_opened(file))


def read_entries(file: BinaryIO, rows_at_once: int) -> Iterator[EntryColumns]:
    """A file's entries, in order, at most so many at once.

    Raises:
        TransferError: It is damaged, not an export, or a row holds what no export wrote.
    """
    row = 1
    for batch in _batches(file, rows_at_once):
        yield _from_batch(batch, row)
        row += len(batch)


def read_pieces(file: BinaryIO, rows_at_once: int) -> Iterator[Piece]:
    """A file's entries as pieces, in order, at most so many at once.

    Raises:
        TransferError: It is damaged, or not an export.
    """
    for batch in _batches(file, rows_at_once):
        yield Piece(_to_bytes(batch), len(batch))


def _batches(file: BinaryIO, rows_at_once: int) -> Iterator[pa.RecordBatch]:
    opened = _opened(file)
    footer = _footer_of(opened)
    _check_schema(opened.schema_arrow)
    if opened.metadata.num_rows != footer.entries:
        raise TransferError(f"the file has {opened.metadata.num_rows:,} rows and says it has {footer.entries:,}")
    uncompressed = sum(opened.metadata.row_group(each).total_byte_size for each in range(opened.num_row_groups))
    row_bytes = uncompressed // max(footer.entries, 1) + 1
    size = max(1, min(rows_at_once, _BATCH_BYTES // row_bytes))
    row = 1
    for number in range(opened.num_row_groups):
        # A group at a time: asked for all of them, pyarrow reads ahead without bound.
        batches = opened.iter_batches(batch_size=size, row_groups=[number])
        while (batch := _next(batches, row)) is not None:
            yield batch
            row += len(batch)


def _opened(file: BinaryIO) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(file, page_checksum_verification=True)
    except (pa.ArrowException, OSError) as error:
        raise TransferError(NOT_AN_EXPORT) from error


def _footer_of(opened: pq.ParquetFile) -> Footer:
    text = (opened.metadata.metadata or {}).get(_FOOTER_KEY)
    if text is None:
        raise TransferError("the file is Parquet, but not an export of embedcache; give one that an export wrote")
    return footer_from_json(text)


def _check_schema(found: pa.Schema) -> None:
    wanted = _schema(_VectorType(None, wide=False))
    if found.names != wanted.names:
        raise TransferError(
            f"the file's columns are {', '.join(found.names)}; an export's are {', '.join(wanted.names)}"
        )
    for name in wanted.names:
        given = found.field(name).type
        fits = _is_vector(given) if name == "vector" else given == wanted.field(name).type
        if not fits:
            raise TransferError(f"the file's column {name} is of type {given}, which is not what an export writes")


def _is_vector(given: pa.DataType) -> bool:
    is_list = pa.types.is_list(given) or pa.types.is_fixed_size_list(given)
    return is_list and given.value_type in (pa.float32(), pa.float64())


def _next(batches: Iterator[pa.RecordBatch], row: int) -> pa.RecordBatch | None:
    try:
        return next(batches, None)
    except (pa.ArrowException, OSError) as error:
        raise TransferError("from here on the file is damaged", row=row) from error


def _from_batch(batch: pa.RecordBatch, first_row: int) -> EntryColumns:
    for field in _schema(_VectorType(None, wide=False)):
        if not field.nullable:
            _check_present(batch.column(field.name), field.name, first_row)
    lists: dict[str, list[Any]] = {
        name: _to_list(batch.column(name), name, first_row) for name in batch.schema.names if name != "vector"
    }
    return EntryColumns(
        entry_ids=lists["entry_id"],
        texts=[
            _text(text, data, row)
            for row, (text, data) in enumerate(zip(lists["text"], lists["text_bytes"], strict=True), first_row)
        ],
        model_names=lists["model_name"],
        vectors=_vectors(batch.column("vector"), lists["dimension"], first_row),
        dtypes=lists["dtype"],
        scales=lists["scale"],
        metadata=lists["metadata"],
        inserted_at=lists["inserted_at"],
        ttls=lists["ttl"],
        expires_at=lists["expires_at"],
    )


def _check_present(column: pa.Array, name: str, first_row: int) -> None:
    if column.null_count:
        raise TransferError(f"{name} is missing", row=first_row + pc.index(column.is_null(), True).as_py())


def _to_list(column: pa.Array, name: str, first_row: int) -> list[Any]:
    try:
        return cast("list[Any]", column.to_pylist())
    except UnicodeDecodeError as error:
        row = first_row + next(index for index in range(len(column)) if not _decodes(column[index]))
        raise TransferError(f"{name} is not UTF-8", row=row) from error


def _decodes(scalar: pa.Scalar) -> bool:
    try:
        scalar.as_py()
    except UnicodeDecodeError:
        return False
    return True


def _text(text: str | None, data: bytes | None, row: int) -> Text:
    if (text is None) == (data is None):
        raise TransferError("an entry has a text or text_bytes, and not both", row=row)
    return text if text is not None else cast("bytes", data)


def _vectors(lists: pa.Array, dimensions: list[int], first_row: int) -> list[FloatArray]:
    lengths = pc.list_value_length(lists).to_numpy(zero_copy_only=False)
    wrong = np.flatnonzero(lengths != np.array(dimensions))
    if len(wrong):
        raise TransferError(
            f"the vector has {lengths[wrong[0]]:,} components, and its dimension is {dimensions[wrong[0]]:,}",
            row=first_row + int(wrong[0]),
        )
    # A missing number becomes NaN, which is refused where vectors are packed.
    return cut(lists.flatten().to_numpy(zero_copy_only=False), lengths)
