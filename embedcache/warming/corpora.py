"""Texts in a file, read row by row: plain text, CSV, JSON lines or Parquet, in memory that does not grow with it.

A row that cannot be used is told as such, with its number and the reason, and reading goes on. Rows count from 1: of a
text file or JSON lines they are lines; of CSV, records after the header; of Parquet, rows.
"""

from __future__ import annotations

import csv
import json
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, Final, Literal, NamedTuple, TypeAlias, cast, get_args

from embedcache.arguments import check_choice, check_whole, shown
from embedcache.entry import Metadata
from embedcache.errors import CorpusError, InvalidInputError, InvalidMetadataError, InvalidTextError
from embedcache.keyspace import MAX_TEXT_BYTES, encode_text
from embedcache.metadata import pack_metadata

CorpusFormat: TypeAlias = Literal["txt", "csv", "parquet", "jsonl"]

_BY_SUFFIX: Final[Mapping[str, CorpusFormat]] = {
    ".txt": "txt",
    ".csv": "csv",
    ".tsv": "csv",
    ".parquet": "parquet",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
}
_MAX_LINE_BYTES: Final = 64 * 1024 * 1024
"""Over the longest text with each character escaped, and metadata."""
_PARQUET_ROWS: Final = 1_000
_COLUMNS_NAMED: Final = 10
_UTF8_MARK: Final = b"\xef\xbb\xbf"
_UTF16_MARKS: Final = (b"\xff\xfe", b"\xfe\xff")
_NOT_UTF8: Final = "it is not UTF-8"


@dataclass(frozen=True, slots=True)
class BadRow:
    """A row that cannot be used, or whose text the model refuses.

    Attributes:
        number: Which, from 1 on.
        reason: Why, for people; it may quote what stands in the row.
    """

    number: int
    reason: str


class Row(NamedTuple):
    """A text of the corpus; both it and its metadata can be stored.

    Attributes:
        number: Which, from 1 on.
        text: The text.
        metadata: The columns that are kept beside its vector, or None where none are.
    """

    number: int
    text: str
    metadata: Metadata | None


@dataclass(frozen=True, slots=True)
class Corpus:
    """A file of texts, and what of it is meant.

    Args:
        path: The file: UTF-8, or Parquet.
        column: The column of the texts; a text file has none.
        metadata: Columns to keep beside the vectors, as metadata of the same names.
        limit: Only the first so many rows; None is all.
        file_format: None goes by the file's ending: ``.txt``, ``.csv``, ``.tsv``, ``.parquet``, ``.jsonl`` or
            ``.ndjson``.

    Raises:
        InvalidInputError: One of these cannot be used.
    """

    path: Path
    column: str = "text"
    metadata: tuple[str, ...] = ()
    limit: int | None = None
    file_format: CorpusFormat | None = None

    def __post_init__(self) -> None:
        if self.limit is not None:
            check_whole("limit", self.limit)
        check_choice("file_format", self.file_format, get_args(CorpusFormat), may_be_none=True)
        if self.kind == "txt" and self.metadata:
            raise InvalidInputError("a text file has no columns to keep as metadata; CSV, JSON lines and Parquet have")

    @property
    def kind(self) -> CorpusFormat:
        """The file's format.

        Raises:
            InvalidInputError: Its name does not tell.
        """
        if self.file_format is not None:
            return self.file_format
        kind = _BY_SUFFIX.get(self.path.suffix.lower())
        if kind is None:
            raise InvalidInputError(
                f"a corpus ends in {', '.join(_BY_SUFFIX)}, not {self.path.suffix!r}: rename it, or name its format"
            )
        return kind

    @contextmanager
    def reading(self) -> Iterator[Reading]:
        """The corpus from its beginning on.

        Raises:
            CorpusError: The file cannot be read, or is not of its format.
            InvalidInputError: It has no such column.
        """
        if self.path.exists() and not self.path.is_file():
            raise CorpusError(f"{self.path} is not a file")
        try:
            file = self.path.open("rb")
        except OSError as error:
            raise CorpusError(f"cannot read {self.path}: {error.strerror or error}") from error
        with file:
            yield _READINGS[self.kind](file, self)


class Reading(ABC):
    """A corpus that is being read: an iterator over its rows, those that cannot be used among them.

    Raises:
        CorpusError: From some place on, the file cannot be read.
    """

    def __init__(self, file: BinaryIO, corpus: Corpus) -> None:
        self._file = file
        self._corpus = corpus
        self._given = 0

    def __iter__(self) -> Iterator[Row | BadRow]:
        try:
            for row in islice(self._rows(), self._corpus.limit):
                self._given += 1
                yield row
        except OSError as error:
            raise CorpusError(f"cannot read on in {self._corpus.path}: {error.strerror or error}") from error

    @property
    def fraction(self) -> float:
        """How much of what is to be read was read, from 0 to 1."""
        limit = self._corpus.limit
        return self._fraction_of_file if limit is None else max(self._fraction_of_file, self._given / limit)

    @property
    @abstractmethod
    def _fraction_of_file(self) -> float:
        """How much of the file was read, from 0 to 1."""

    @abstractmethod
    def _rows(self) -> Iterator[Row | BadRow]:
        """All rows."""

    def _picked(self, number: int, record: Mapping[str, Any]) -> Row | BadRow:
        return picked_row(number, record, self._corpus.column, self._corpus.metadata)

    def _check_columns(self, columns: Sequence[str]) -> None:
        for name in (self._corpus.column, *self._corpus.metadata):
            if name not in columns:
                there = ", ".join(map(repr, columns[:_COLUMNS_NAMED]))
                more = f" and {len(columns) - _COLUMNS_NAMED:,} more" if len(columns) > _COLUMNS_NAMED else ""
                raise InvalidInputError(f"{self._corpus.path} has no column {name!r}; it has {there}{more}")
            if columns.count(name) > 1:
                raise InvalidInputError(f"{self._corpus.path} has several columns {name!r}")


def check_names(names: Sequence[str]) -> tuple[str, ...]:
    """The names of columns.

    Raises:
        InvalidInputError: They are something else.
    """
    if not _are_names(names):
        raise InvalidInputError(f"metadata are names of columns, as in ['page'], not {shown(names)}")
    return tuple(names)


def _are_names(names: object) -> bool:
    return isinstance(names, Sequence) and not isinstance(names, str) and all(isinstance(name, str) for name in names)


def picked_row(number: int, record: Mapping[str, Any], column: str, metadata: Sequence[str]) -> Row | BadRow:
    """The row of a record, if it can be used; else what is wrong with it."""
    missing = [name for name in (column, *metadata) if name not in record]
    if missing:
        return BadRow(number, f"it has no {missing[0]!r}")
    return checked_row(number, record[column], {name: record[name] for name in metadata} or None)


def checked_row(number: int, text: object, metadata: Metadata | None) -> Row | BadRow:
    """The row, if its text and metadata can be stored; else what is wrong with it."""
    if not isinstance(text, str):
        return BadRow(number, "it has no text" if text is None else f"a text is str, not {type(text).__name__}")
    try:
        encode_text(text)
        pack_metadata(metadata)
    except (InvalidTextError, InvalidMetadataError) as error:
        return BadRow(number, str(error))
    return Row(number, text, metadata)


# ------------------------------------------------------------------------------------------------ lines


class _LineReading(Reading):
    """A file of lines."""

    def __init__(self, file: BinaryIO, corpus: Corpus) -> None:
        super().__init__(file, corpus)
        self._size = corpus.path.stat().st_size
        self._read = 0
        start = file.read(len(_UTF8_MARK))
        if start.startswith(_UTF16_MARKS):
            raise CorpusError(f"{corpus.path} is UTF-16; write it as UTF-8")
        if start == _UTF8_MARK:
            self._read = len(start)
        else:
            file.seek(0)

    @property
    def _fraction_of_file(self) -> float:
        return min(self._read / self._size, 1.0) if self._size else 1.0

    def _lines(self) -> Iterator[bytes | None]:
        """Each line with its end; None in place of one that is too long to be held."""
        while line := self._file.readline(_MAX_LINE_BYTES):
            self._read += len(line)
            is_whole = line.endswith(b"\n") or len(line) < _MAX_LINE_BYTES
            if not is_whole:
                self._pass_over()
            yield line if is_whole else None

    def _pass_over(self) -> None:
        while rest := self._file.readline(_MAX_LINE_BYTES):
            self._read += len(rest)
            if rest.endswith(b"\n"):
                return

    def _decoded_lines(self) -> Iterator[tuple[int, str | BadRow]]:
        """Number and text of each line that is not blank, or what is wrong with it."""
        for number, line in enumerate(self._lines(), 1):
            if line is None:
                yield number, BadRow(number, f"the line is longer than {_MAX_LINE_BYTES:,} bytes")
                continue
            try:
                text = line.decode().rstrip("\r\n")
            except UnicodeDecodeError:
                yield number, BadRow(number, _NOT_UTF8)
                continue
            if text and not text.isspace():
                yield number, text


class _TextReading(_LineReading):
    """Plain text: a line is a text, and a blank one is none."""

    def _rows(self) -> Iterator[Row | BadRow]:
        for number, line in self._decoded_lines():
            yield line if isinstance(line, BadRow) else checked_row(number, line, None)


class _JSONReading(_LineReading):
    """JSON lines: an object to a line."""

    def _rows(self) -> Iterator[Row | BadRow]:
        for number, line in self._decoded_lines():
            if isinstance(line, BadRow):
                yield line
                continue
            try:
                record = json.loads(line)
            except (ValueError, RecursionError):
                yield BadRow(number, "it is not a line of JSON")
                continue
            yield self._picked(number, record) if isinstance(record, dict) else BadRow(number, "it is no JSON object")


class _CSVReading(_LineReading):
    """CSV with a header, its quotes as RFC 4180 has them; a file that ends in ``.tsv`` has tabs for commas."""

    def __init__(self, file: BinaryIO, corpus: Corpus) -> None:
        super().__init__(file, corpus)
        # The csv module's bound, which holds for the whole process, is below that of texts.
        csv.field_size_limit(max(csv.field_size_limit(), MAX_TEXT_BYTES))
        delimiter = "\t" if corpus.path.suffix.lower() == ".tsv" else ","
        # Strict: a quote that is never closed would make one text of all that follows it.
        self._too_long = False
        self._records = csv.reader(self._decoded(), delimiter=delimiter, strict=True)
        try:
            self._header = next(self._records, [])
        except csv.Error as error:
            raise CorpusError(f"{corpus.path} has no header that can be read: {error}") from error
        self._check_columns(self._header)

    def _decoded(self) -> Iterator[str]:
        # Not strictly UTF-8: what is not is told of the record in which it is, as is a line that is too long.
        for line in self._lines():
            self._too_long |= line is None
            yield "\n" if line is None else line.decode(errors="surrogateescape")

    def _rows(self) -> Iterator[Row | BadRow]:
        number = 0
        while True:
            try:
                cells = next(self._records)
            except StopIteration:
                return
            except csv.Error as error:
                number += 1
                yield BadRow(number, f"line {self._records.line_num:,} of the file is not CSV: {error}")
                continue
            if self._too_long:
                self._too_long = False
                number += 1
                yield BadRow(number, f"a line of it is longer than {_MAX_LINE_BYTES:,} bytes")
            elif cells:
                number += 1
                yield self._row(number, cells)

    def _row(self, number: int, cells: list[str]) -> Row | BadRow:
        if len(cells) != len(self._header):
            return BadRow(number, f"it has {len(cells):,} cells, and the header {len(self._header):,}")
        record = dict(zip(self._header, cells, strict=True))
        picked = self._picked(number, record)
        if isinstance(picked, BadRow) and not _is_utf8(cells):
            return BadRow(number, _NOT_UTF8)
        return picked


def _is_utf8(cells: list[str]) -> bool:
    try:
        "".join(cells).encode()
    except UnicodeEncodeError:
        return False
    return True


# ------------------------------------------------------------------------------------------------ Parquet


class _ParquetReading(Reading):
    """Parquet, of which only the columns that are meant are read."""

    def __init__(self, file: BinaryIO, corpus: Corpus) -> None:
        super().__init__(file, corpus)
        try:
            # Here and not above: nothing else of warming needs it, and it takes a tenth of a second to import.
            import pyarrow as pa  # type: ignore[import-untyped] # it ships no types
            import pyarrow.parquet as pq  # type: ignore[import-untyped]
        except ImportError as error:
            raise CorpusError("Parquet files need pyarrow: pip install 'embedcache[parquet]'") from error
        self._errors = (pa.ArrowException, OSError)
        try:
            self._opened = pq.ParquetFile(file)
        except self._errors as error:
            raise CorpusError(f"{corpus.path} is not a whole Parquet file") from error
        schema = self._opened.schema_arrow
        self._check_columns(schema.names)
        given = schema.field(corpus.column).type
        if not _is_text(pa, given):
            raise InvalidInputError(f"the column {corpus.column!r} of {corpus.path} is of type {given}, not text")
        for name in corpus.metadata:
            if not _is_json(pa, schema.field(name).type):
                raise InvalidInputError(
                    f"the column {name!r} of {corpus.path} is of type {schema.field(name).type}, for which JSON, and so"
                    " metadata, has no word; write it as text"
                )
        self._total = self._opened.metadata.num_rows
        self._done = 0

    @property
    def _fraction_of_file(self) -> float:
        return self._done / self._total if self._total else 1.0

    def _rows(self) -> Iterator[Row | BadRow]:
        columns = list(dict.fromkeys([self._corpus.column, *self._corpus.metadata]))
        for group in range(self._opened.num_row_groups):
            # A group at a time: asked for all of them, pyarrow reads ahead without bound.
            batches = self._opened.iter_batches(batch_size=_PARQUET_ROWS, row_groups=[group], columns=columns)
            while (batch := self._next(batches)) is not None:
                for record in _records(batch):
                    self._done += 1
                    yield BadRow(self._done, _NOT_UTF8) if record is None else self._picked(self._done, record)

    def _next(self, batches: Iterator[Any]) -> Any:
        try:
            return next(batches, None)
        except self._errors as error:
            raise CorpusError(f"{self._corpus.path} is damaged from here on", row=self._done + 1) from error


def _records(batch: Any) -> list[dict[str, Any] | None]:
    """The rows of a batch; None for those whose text is not UTF-8."""
    try:
        return cast("list[dict[str, Any] | None]", batch.to_pylist())
    except UnicodeDecodeError:
        return [_record(batch, index) for index in range(len(batch))]


def _record(batch: Any, index: int) -> dict[str, Any] | None:
    try:
        return {name: batch.column(name)[index].as_py() for name in batch.schema.names}
    except UnicodeDecodeError:
        return None


def _is_text(pa: Any, given: Any) -> bool:
    if pa.types.is_dictionary(given):
        given = given.value_type
    return bool(pa.types.is_string(given) or pa.types.is_large_string(given) or pa.types.is_string_view(given))


def _is_json(pa: Any, given: Any) -> bool:
    types = pa.types
    if types.is_list(given) or types.is_large_list(given) or types.is_fixed_size_list(given):
        return _is_json(pa, given.value_type)
    if types.is_struct(given):
        return all(_is_json(pa, each.type) for each in given)
    plain = (types.is_boolean, types.is_integer, types.is_floating, types.is_null)
    return _is_text(pa, given) or any(is_so(given) for is_so in plain)


_READINGS: Final[Mapping[CorpusFormat, type[Reading]]] = {
    "txt": _TextReading,
    "csv": _CSVReading,
    "parquet": _ParquetReading,
    "jsonl": _JSONReading,
}
