"""Exports as JSON lines: one object to an entry, and the footer as the last line."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from operator import itemgetter
from typing import Any, BinaryIO, Final

import numpy as np
import orjson

from embedcache.entry import FloatArray, Text
from embedcache.errors import TransferError
from embedcache.transfer import base64_vectors
from embedcache.transfer.columns import EntryColumns, cut
from embedcache.transfer.footer import NOT_AN_EXPORT, Footer, footer_from_json
from embedcache.transfer.formats import Piece, VectorForm
from embedcache.transfer.whole_files import Draft

try:
    # Reads numbers while other threads run, which orjson does not.
    import pyarrow as pa  # type: ignore[import-untyped] # it ships no types
    from pyarrow import csv
except ModuleNotFoundError:  # the extra `parquet` brings it
    csv = None

_FOOTER_KEY: Final = "embedcache_export"
_FOOTER_START: Final = f'{{"{_FOOTER_KEY}":'.encode()
_ENTRY_START: Final = b'{"entry_id":'
_MAX_LINE_BYTES: Final = 128 * 1024 * 1024
"""Over the longest that an entry can take: text and metadata with each character escaped, and 65,536 numbers."""
_MAX_FOOTER_BYTES: Final = 16 * 1024 * 1024
_BATCH_BYTES: Final = 8 * 1024 * 1024
_TAIL_BYTES: Final = 4096
_TOGETHER: Final = 128
"""Lines of base64 that are read together: all that becomes of them stays in the processor's cache. Of a thousand, each
takes half as long again. Numbers are read in as few calls as possible, for Arrow wakes another thread in each."""

_FIELDS: Final = (
    ("entry_id", (str,)),
    ("model_name", (str,)),
    ("dimension", (int,)),
    ("dtype", (str,)),
    ("scale", (float, int, type(None))),
    ("metadata", (dict, type(None))),
    ("inserted_at", (float, int)),
    ("ttl", (int, type(None))),
    ("expires_at", (float, int, type(None))),
    ("vector", (list, dict)),
)
_VECTOR_START: Final = b',"vector":['
_VECTOR_END: Final = b"]}\n"
_ENCODED_END: Final = b'"}}\n'
_TEXT_FIELDS: Final = ("text", "text_base64")
_NUMBERS: Final = {float, int}

_ODD_FLOAT32: Final = 0x15AE43FD
"""The one float32 (7.038531e-26) whose shortest text, read as a float64 and then made float32, gives another. All two
billion were tried."""


_BETWEEN: Final = b"\nnan\n"
_CSV_OPTIONS: Final[dict[str, Any]] = {}
if csv is not None:
    # Nothing else is taken for a number, and no line is left out.
    _CSV_OPTIONS["parse_options"] = csv.ParseOptions(quote_char=False, ignore_empty_lines=False)
    _CSV_OPTIONS["convert_options"] = csv.ConvertOptions(column_types={"number": pa.float64()}, null_values=[])


# ------------------------------------------------------------------------------------------------ writing


class JSONLWriter:
    """Writes entries to a draft, a line each, with their vectors as numbers or in base64."""

    def __init__(self, draft: Draft, vectors: VectorForm) -> None:
        self._draft = draft
        self._vectors = vectors

    def write(self, columns: EntryColumns) -> None:
        """Adds entries."""
        self._draft.file.writelines(_lines(columns, self._vectors))

    def write_piece(self, piece: bytes) -> None:
        """Adds entries that `to_piece` made a piece of."""
        self._draft.file.write(piece)

    def finish(self, footer: Footer) -> None:
        """Writes the footer; the draft is a whole file then."""
        self._draft.file.write(_FOOTER_START + orjson.dumps(footer.to_json()) + b"}\n")

    def close(self) -> None:
        """Nothing: the draft is all there is."""


def to_piece(columns: EntryColumns, vectors: VectorForm) -> bytes:
    """Entries as their lines."""
    return b"".join(_lines(columns, vectors))


def _lines(columns: EntryColumns, vectors: VectorForm) -> Iterator[bytes]:
    writable = _WRITABLE[vectors]
    for entry_id, text, model_name, vector, dtype, scale, metadata, inserted_at, ttl, expires_at in columns.rows():
        readable = {"text": text} if isinstance(text, str) else {"text_base64": base64_vectors.encoded_bytes(text)}
        entry = {
            "entry_id": entry_id,
            **readable,
            "model_name": model_name,
            "dimension": len(vector),
            "dtype": dtype,
            "scale": scale,
            "metadata": None if metadata is None else orjson.Fragment(metadata),
            "inserted_at": inserted_at,
            "ttl": ttl,
            "expires_at": expires_at,
            "vector": writable(vector),  # last, so that a person sees the rest
        }
        yield orjson.dumps(entry, option=orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_APPEND_NEWLINE)


def _numbers(vector: FloatArray) -> FloatArray:
    """The vector as numbers whose shortest text gives them back."""
    if vector.dtype == np.float32 and ((vector.view(np.uint32) & 0x7FFFFFFF) == _ODD_FLOAT32).any():
        return vector.astype(np.float64)
    return vector


_WRITABLE: Final[dict[VectorForm, Callable[[FloatArray], object]]] = {
    "numbers": _numbers,
    "base64": base64_vectors.encoded,
}


# ------------------------------------------------------------------------------------------------ reading


def read_footer(file: BinaryIO) -> Footer:
    """The footer of a JSON lines file, from its end.

    Raises:
        TransferError: It has none. Where the file was cut off, the error names the row.
    """
    return footer_from_json(_footer_line(file)[len(_FOOTER_START) : -2])


def read_entries(file: BinaryIO, rows_at_once: int) -> Iterator[EntryColumns]:
    """A file's entries, in order, at most so many at once.

    Raises:
        TransferError: It is cut off, not an export, or a row holds what no export wrote.
    """
    row = 1
    for lines in _batches(file, rows_at_once):
        columns = EntryColumns()
        for some in _from_lines(lines, row):
            columns.extend(some)
        yield columns
        row += len(lines)


def read_pieces(file: BinaryIO, rows_at_once: int) -> Iterator[Piece]:
    """A file's lines, in order, at most so many at once.

    Raises:
        TransferError: It is cut off, or not an export.
    """
    for lines in _batches(file, rows_at_once):
        yield Piece(b"".join(lines), len(lines))


def from_piece(piece: bytes, first_row: int) -> Iterator[EntryColumns]:
    """The entries of a piece of `read_pieces`, in order, some at a time.

    Raises:
        TransferError: A row holds what no export wrote.
    """
    yield from _from_lines(io.BytesIO(piece).readlines(), first_row)


def _batches(file: BinaryIO, rows_at_once: int) -> Iterator[list[bytes]]:
    entries = read_footer(file).entries
    file.seek(0)
    row = 1
    while row <= entries:
        lines = _read_lines(file, min(rows_at_once, entries + 1 - row), row)
        yield lines
        row += len(lines)
    if not file.readline(len(_FOOTER_START)).startswith(_FOOTER_START):
        raise TransferError(f"the file says that it has {entries:,} rows, and there is another", row=row)


def _footer_line(file: BinaryIO) -> bytes:
    end = file.seek(0, io.SEEK_END)
    size = _TAIL_BYTES
    while True:
        start = max(end - size, 0)
        file.seek(start)
        tail = file.read(end - start)
        found = tail.rfind(b"\n", 0, len(tail) - 1)
        if found >= 0 or start == 0 or size > _MAX_FOOTER_BYTES:
            break
        size *= 4
    line = tail[found + 1 :]
    if not line.startswith(_FOOTER_START) or not line.endswith(b"}\n"):
        raise _without_end(file)
    return line


def _without_end(file: BinaryIO) -> TransferError:
    """What is wrong with a file whose last line is no footer."""
    file.seek(0)
    if file.read(len(_ENTRY_START)) != _ENTRY_START:
        return TransferError(NOT_AN_EXPORT)
    file.seek(0)
    rows = sum(chunk.count(b"\n") for chunk in iter(lambda: file.read(_BATCH_BYTES), b""))
    return TransferError("the file was cut off here; give it as the export wrote it", row=rows + 1)


def _read_lines(file: BinaryIO, count: int, first_row: int) -> list[bytes]:
    lines: list[bytes] = []
    size = 0
    while len(lines) < count and size < _BATCH_BYTES:
        line = file.readline(_MAX_LINE_BYTES)
        if not line.endswith(b"\n") or line.startswith(_FOOTER_START):
            raise TransferError(
                "the file ends before this row, or the row is too long",
                row=first_row + len(lines),
            )
        lines.append(line)
        size += len(line)
    return lines


def _from_lines(lines: list[bytes], first_row: int) -> Iterator[EntryColumns]:
    step = _TOGETHER if lines[0].endswith(_ENCODED_END) else len(lines)
    for start in range(0, len(lines), step):
        yield _from_some(lines[start : start + step], first_row + start)


def _from_some(lines: list[bytes], first_row: int) -> EntryColumns:
    entries, vectors = _read_at_once(lines) or _read_one_by_one(lines, first_row)
    metadata = [entry["metadata"] for entry in entries]
    return EntryColumns(
        entry_ids=[entry["entry_id"] for entry in entries],
        texts=[_text(entry, row) for row, entry in enumerate(entries, first_row)],
        model_names=[entry["model_name"] for entry in entries],
        vectors=vectors,
        dtypes=[entry["dtype"] for entry in entries],
        scales=[entry["scale"] for entry in entries],
        metadata=[None if each is None else orjson.dumps(each).decode() for each in metadata],
        inserted_at=[float(entry["inserted_at"]) for entry in entries],
        ttls=[entry["ttl"] for entry in entries],
        expires_at=[entry["expires_at"] for entry in entries],
    )


def _read_one_by_one(lines: list[bytes], first_row: int) -> tuple[list[dict[str, Any]], list[FloatArray]]:
    """The lines' objects and vectors. The first that is not what it should be is named."""
    entries = [_parsed(line, row) for row, line in enumerate(lines, first_row)]
    return entries, [_vector(entry, row) for row, entry in enumerate(entries, first_row)]


def _read_at_once(lines: list[bytes]) -> tuple[list[dict[str, Any]], list[FloatArray]] | None:
    """As `_read_one_by_one`, but quicker; None where one of the lines is not as an export wrote it.

    Arrow takes about as long for numbers as orjson does, but makes no object of each, and other threads run meanwhile.
    """
    numbers: list[bytes] | None = None
    if not lines[0].endswith(_ENCODED_END):
        if csv is None:
            return None
        starts = [line.find(_VECTOR_START) + len(_VECTOR_START) for line in lines]
        if min(starts) < len(_VECTOR_START) or not all(line.endswith(_VECTOR_END) for line in lines):
            return None
        numbers = [line[start : -len(_VECTOR_END)] for line, start in zip(lines, starts, strict=True)]
        lines = [line[:start] + _VECTOR_END for line, start in zip(lines, starts, strict=True)]
    entries = _all_parsed(lines)
    if entries is None:  # or what was found of numbers is within the metadata
        return None
    vectors = _decoded_at_once(entries) if numbers is None else _vectors_at_once(numbers, entries)
    return None if vectors is None else (entries, vectors)


def _all_parsed(lines: list[bytes]) -> list[dict[str, Any]] | None:
    """What `_parsed` gives of each line; None where it would refuse one."""
    try:
        entries: list[dict[str, Any]] = list(map(orjson.loads, lines))
        sound = all(set(map(type, map(itemgetter(name), entries))) <= set(kinds) for name, kinds in _FIELDS)
    except (orjson.JSONDecodeError, KeyError, TypeError):  # no object, or without that field
        return None
    return entries if sound else None


def _decoded_at_once(entries: list[dict[str, Any]]) -> list[FloatArray] | None:
    """The vectors that are in base64; None where one of them is not as an export wrote it."""
    alike: dict[tuple[str, int], list[int]] = {}
    for index, entry in enumerate(entries):
        dtype = "float64" if entry["dtype"] == "float64" else "float32"
        alike.setdefault((dtype, entry["dimension"]), []).append(index)
    found: dict[int, FloatArray] = {}
    for (dtype, dimension), indexes in alike.items():
        given = [entries[index]["vector"] for index in indexes]
        if dimension < 1 or set(map(type, given)) != {dict}:
            return None
        matrix = base64_vectors.all_decoded(given, dtype, dimension)
        if matrix is None:
            return None
        found |= zip(indexes, matrix, strict=True)
    return [found[index] for index in range(len(entries))]


def _vectors_at_once(numbers: list[bytes], entries: list[dict[str, Any]]) -> list[FloatArray] | None:
    """The vectors whose numbers these are; None where one of them is not what it should be."""
    # A number to a line and "nan", which no export has, after each vector: so it shows where vectors end.
    lines = _BETWEEN.join([*numbers, b""]).replace(b",", b"\n")
    if b"\r" in lines:  # which would end a line, too
        return None
    try:
        options = csv.ReadOptions(use_threads=False, column_names=["number"], block_size=len(lines) + 1)
        table = csv.read_csv(pa.BufferReader(lines), read_options=options, **_CSV_OPTIONS)
    except pa.ArrowException:
        return None
    found: FloatArray = table.column(0).to_numpy()
    lengths = np.array([entry["dimension"] + 1 for entry in entries])
    if not np.array_equal(np.flatnonzero(~np.isfinite(found)), np.cumsum(lengths) - 1):
        return None
    narrow = None
    if any(entry["dtype"] != "float64" for entry in entries):
        with np.errstate(over="ignore"):  # what overflows becomes infinite, and is refused where vectors are packed
            narrow = cut(found.astype(np.float32), lengths)
    return [
        (wide if narrow is None or entry["dtype"] == "float64" else narrow[index])[:-1]
        for index, (wide, entry) in enumerate(zip(cut(found, lengths), entries, strict=True))
    ]


def _parsed(line: bytes, row: int) -> dict[str, Any]:
    try:
        entry = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        raise TransferError("it is not a line of JSON (which knows neither NaN nor infinity)", row=row) from error
    if not isinstance(entry, dict):
        raise TransferError("it is not a JSON object", row=row)
    for name, kinds in _FIELDS:
        if name not in entry:
            raise TransferError(f"{name} is missing", row=row)
        if type(entry[name]) not in kinds:  # a bool is an int to isinstance
            raise TransferError(f"{name} is a {type(entry[name]).__name__}, which no export writes", row=row)
    return entry


def _text(entry: dict[str, Any], row: int) -> Text:
    given = [name for name in _TEXT_FIELDS if name in entry]
    if len(given) != 1 or not isinstance(entry[given[0]], str):
        raise TransferError("an entry has a text or a text_base64, and not both", row=row)
    text: str = entry[given[0]]
    return text if given == ["text"] else base64_vectors.decoded_bytes(text, "its text_base64", row)


def _vector(entry: dict[str, Any], row: int) -> FloatArray:
    given = entry["vector"]
    vector = base64_vectors.decoded(given, row) if isinstance(given, dict) else _vector_of_numbers(given, row)
    if len(vector) != entry["dimension"]:
        raise TransferError(
            f"the vector has {len(vector):,} components, and its dimension is {entry['dimension']:,}", row=row
        )
    with np.errstate(over="ignore"):  # what overflows becomes infinite, and is refused where vectors are packed
        return vector.astype(np.float64 if entry["dtype"] == "float64" else np.float32, copy=False)


def _vector_of_numbers(numbers: list[Any], row: int) -> FloatArray:
    if not set(map(type, numbers)) <= _NUMBERS:  # numpy would make numbers of texts and of true
        raise TransferError("the vector holds something that is not a number", row=row)
    return np.fromiter(numbers, np.float64, len(numbers))
