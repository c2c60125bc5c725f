"""All entries of one cache at one moment, as numpy columns: filtered, sorted and added up without asking the server.

An entry takes 74 bytes, so that a million of them fit in a page's memory. Texts and metadata are not among them: what
asks for those goes through `embedcache.walking.match`, which reads the heads of the entries that the columns leave.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Literal, TypeAlias, get_args

import numpy as np
import numpy.typing as npt

from embedcache import redisvl_format
from embedcache.arguments import check_choice, check_kind, check_switch, check_whole, shown
from embedcache.columns import DTYPES, UNREADABLE_CODE, Columns, Layout
from embedcache.errors import InvalidInputError
from embedcache.filtering import EntryFilter
from embedcache.keyspace import check_keys, split_key

Positions: TypeAlias = npt.NDArray[np.int64]
Column: TypeAlias = Literal[
    "model_name", "inserted_at", "expires_at", "ttl", "last_access", "value_bytes", "dimension", "dtype"
]

HOUR: Final = 3_600
DAY: Final = 86_400
WEEK: Final = 7 * DAY

_DIGEST_BYTES: Final = 32
_HEX_DIGITS: Final = 64
_DTYPE_NAMES: Final = {dtype.code: dtype.name for dtype in DTYPES}


@dataclass(frozen=True, slots=True)
class Share:
    """A part of a cache's entries.

    Attributes:
        entries: How many.
        value_bytes: Length of their values together.
    """

    entries: int
    value_bytes: int


@dataclass(frozen=True, slots=True)
class ModelTotals:
    """The entries of one model.

    Attributes:
        model_name: The model's name.
        entries: How many.
        value_bytes: Length of their values together.
        memory_bytes: What they cost the server, key and bookkeeping included: an estimate from a sample. None where
            the server does not tell.
    """

    model_name: str
    entries: int
    value_bytes: int
    memory_bytes: int | None


@dataclass(frozen=True, slots=True)
class ExpiryForecast:
    """Which entries leave when, if no hit puts it off; each entry is in one of these.

    Attributes:
        hour: Within the next hour.
        day: After that, within a day.
        week: After that, within a week.
        later: After that.
        never: Never.
        unknown: Those of which the server does not tell.
    """

    hour: Share
    day: Share
    week: Share
    later: Share
    never: Share
    unknown: Share


@dataclass(frozen=True, slots=True, eq=False)
class EntryIndex:
    """The entries of a cache, one row each, in no order that means anything. Positions count rows from 0.

    Attributes:
        name: The cache's name.
        taken_at: When, in Unix seconds by the server's clock; ages and idle times are counted from it.
        digests: The SHA-256 that ends each key, uint8, shape (n, 32).
        model_codes: Which of `models` each entry is of, -1 where it is unreadable.
        models: Model names; some may have no entry.
        inserted_at: Unix seconds by the writer's clock; NaN where it is unreadable.
        expires_at: Unix seconds by the server's clock; infinity for never, NaN for unknown.
        ttl: The entry's own TTL in seconds; 0 for none.
        last_access: When it was last read or written, in Unix seconds by the server's clock, give or take a second; NaN
            for unknown.
        value_bytes: Length of the value; for a RedisVL hash, of its fields' values together.
        dimension: Length of the vector; 0 for unknown, as it is for RedisVL's.
        dtype_codes: How the vector is stored, by the codec's numbers; 0 for unknown.
        layouts: How the entry lies, a `Layout`.
        overheads: For each of `models`, the bytes that an entry costs the server beyond its value, from a sample; NaN
            for unknown.
    """

    name: str
    taken_at: float
    digests: npt.NDArray[np.uint8]
    model_codes: npt.NDArray[np.int32]
    models: tuple[str, ...]
    inserted_at: npt.NDArray[np.float64]
    expires_at: npt.NDArray[np.float64]
    ttl: npt.NDArray[np.uint32]
    last_access: npt.NDArray[np.float64]
    value_bytes: npt.NDArray[np.uint32]
    dimension: npt.NDArray[np.int32]
    dtype_codes: npt.NDArray[np.uint8]
    layouts: npt.NDArray[np.uint8]
    overheads: npt.NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.digests)

    @property
    def nbytes(self) -> int:
        """Memory of the columns in bytes."""
        rows: int = sum(getattr(self, name).nbytes for name in ROW_COLUMNS)
        return rows + self.overheads.nbytes

    # ---------------------------------------------------------------------------------------- single entries

    def key(self, position: int) -> str:
        """The Redis key of one entry."""
        return f"{self.name}:{self.digests[self._checked(position)].tobytes().hex()}"

    def keys(self, positions: Positions | Sequence[int]) -> list[str]:
        """The Redis keys of some entries, in order."""
        return keys_of(self.name, self.digests[check_positions("positions", positions, len(self))])

    def model_name(self, position: int) -> str | None:
        """The model of one entry, or None where it is unreadable."""
        code = int(self.model_codes[self._checked(position)])
        return None if code == UNREADABLE_CODE else self.models[code]

    def dtype(self, position: int) -> str | None:
        """How one entry's vector is stored, as in `EntrySummary`; None where it is unreadable."""
        position = self._checked(position)
        if self.layouts[position] == Layout.REDISVL:
            return redisvl_format.DTYPE_NAME
        return _DTYPE_NAMES.get(int(self.dtype_codes[position]))

    def positions_of(self, keys: Sequence[str]) -> Positions:
        """Where these keys are, in the index's order; those that are not in it are left out."""
        wanted = {bytes.fromhex(cut[1]) for key in check_keys(keys) if (cut := split_key(key)) and cut[0] == self.name}
        starts = np.frombuffer(b"".join(digest[:8] for digest in wanted), np.uint64)
        near = np.flatnonzero(np.isin(_starts(self.digests), starts))
        return near[[self.digests[position].tobytes() in wanted for position in near.tolist()]]

    def _checked(self, position: int) -> int:
        return check_whole("position", position, 0, len(self) - 1)

    # ---------------------------------------------------------------------------------------- filtering and sorting

    def where(self, entry_filter: EntryFilter) -> Positions:
        """The entries that match a filter, in the index's order.

        Raises:
            InvalidInputError: It asks for text or metadata, which only `embedcache.walking.match` can look at.
        """
        if check_kind("entry_filter", entry_filter, EntryFilter).needs_heads:
            raise InvalidInputError("text and metadata are not in the index: ask embedcache.walking.match")
        return self.candidates(entry_filter)

    def candidates(self, entry_filter: EntryFilter) -> Positions:
        """The entries that match a filter but for text and metadata, in the index's order."""
        asked = check_kind("entry_filter", entry_filter, EntryFilter)
        mask = np.ones(len(self), np.bool_)
        if asked.needs_heads:
            mask &= self.layouts != Layout.UNREADABLE
        if asked.unreadable:
            mask &= self.layouts == Layout.UNREADABLE
        if asked.model_name is not None:
            mask &= self.model_codes == self._model_code(asked.model_name)
        if asked.never_expires is not None:
            # What the server does not tell of matches neither.
            mask &= np.isinf(self.expires_at) if asked.never_expires else np.isfinite(self.expires_at)
        for values, least, most in (
            (self.taken_at - self.inserted_at, asked.min_age, asked.max_age),
            (self.taken_at - self.last_access, asked.min_idle, None),
            (self.expires_at - self.taken_at, None, asked.expires_within),
            (self.value_bytes, asked.min_bytes, asked.max_bytes),
        ):
            mask &= _between(values, least, most)
        return np.flatnonzero(mask)

    def _model_code(self, name: str) -> int:
        return self.models.index(name) if name in self.models else len(self.models)

    def order(self, positions: Positions, column: Column, *, descending: bool = False) -> Positions:
        """The positions sorted by a column; what is unknown comes last either way, equals keep their order."""
        positions = check_positions("positions", positions, len(self))
        check_switch("descending", descending)
        values = self._sortable(column)[positions]
        order = np.argsort(-values if descending else values, kind="stable")
        return positions[order]

    def _sortable(self, column: Column) -> npt.NDArray[np.float64]:
        """A column as numbers to sort by, NaN where it is unknown."""
        check_choice("column", column, get_args(Column))
        if column == "model_name":
            ranks = np.argsort(np.argsort(np.array([*self.models, ""], dtype=object), kind="stable")).astype(np.float64)
            ranks[UNREADABLE_CODE] = np.nan
            return ranks[self.model_codes]
        if column == "dtype":
            return _unknown_at_zero(np.where(self.layouts == Layout.REDISVL, max(_DTYPE_NAMES) + 1, self.dtype_codes))
        if column == "dimension":
            return _unknown_at_zero(self.dimension)
        values: npt.NDArray[Any] = getattr(self, column)
        return values.astype(np.float64)

    def without(self, positions: Positions) -> EntryIndex:
        """The index without some entries, as after their removal."""
        kept = np.ones(len(self), np.bool_)
        kept[check_positions("positions", positions, len(self))] = False
        return replace(self, **{name: getattr(self, name)[kept] for name in ROW_COLUMNS})

    def with_unreadable(self, positions: Positions) -> EntryIndex:
        """The index with some entries known to be unreadable, as `embedcache.walking.find_unreadable` finds them."""
        positions = check_positions("positions", positions, len(self))
        layouts, codes = self.layouts.copy(), self.model_codes.copy()
        inserted_at, dtypes = self.inserted_at.copy(), self.dtype_codes.copy()
        layouts[positions], codes[positions] = Layout.UNREADABLE, UNREADABLE_CODE
        inserted_at[positions], dtypes[positions] = np.nan, 0
        return replace(self, layouts=layouts, model_codes=codes, inserted_at=inserted_at, dtype_codes=dtypes)

    # ---------------------------------------------------------------------------------------- totals

    @property
    def unreadable(self) -> int:
        """How many keys have values that are damaged, or no entries."""
        return int(np.count_nonzero(self.layouts == Layout.UNREADABLE))

    @property
    def redisvl_entries(self) -> int:
        """How many entries are RedisVL's hashes."""
        return int(np.count_nonzero(self.layouts == Layout.REDISVL))

    def share(self, positions: Positions) -> Share:
        """How many some entries are, and how large."""
        positions = check_positions("positions", positions, len(self))
        return Share(len(positions), int(self.value_bytes[positions].sum(dtype=np.int64)))

    def by_model(self) -> tuple[ModelTotals, ...]:
        """The readable entries by model, most first."""
        readable = self.model_codes != UNREADABLE_CODE
        codes = self.model_codes[readable]
        entries = np.bincount(codes, minlength=len(self.models))
        value_bytes = np.bincount(codes, self.value_bytes[readable], minlength=len(self.models))
        memory = value_bytes + entries * self.overheads
        totals = [
            ModelTotals(name, int(count), int(size), None if np.isnan(cost) else round(float(cost)))
            for name, count, size, cost in zip(self.models, entries, value_bytes, memory, strict=True)
            if count
        ]
        return tuple(sorted(totals, key=lambda each: (-each.entries, each.model_name)))

    def entries_by_age(self, edges: Sequence[float]) -> npt.NDArray[np.int64]:
        """How many entries are how old.

        Args:
            edges: Ages in seconds, ascending.

        Returns:
            Shape (len(edges) + 1,): younger than the first edge, from each edge to below the next, from the last on.
            Entries of unknown age are in none of them.

        Raises:
            InvalidInputError: They are no numbers, or not ascending.
        """
        ages = self.taken_at - self.inserted_at[np.isfinite(self.inserted_at)]
        return np.bincount(np.searchsorted(_ascending(edges), ages, side="right"), minlength=len(edges) + 1)

    def expiry_forecast(self) -> ExpiryForecast:
        """Which entries leave when."""
        left = self.expires_at - self.taken_at
        bands = (
            left <= HOUR,
            (left > HOUR) & (left <= DAY),
            (left > DAY) & (left <= WEEK),
            (left > WEEK) & (left < np.inf),
            np.isinf(left),
            np.isnan(left),
        )
        return ExpiryForecast(*(self.share(np.flatnonzero(band)) for band in bands))


ROW_COLUMNS: Final = (
    *("digests", "model_codes", "inserted_at", "expires_at", "ttl", "last_access", "value_bytes", "dimension"),
    *("dtype_codes", "layouts"),
)
"""The attributes of an index that have a row per entry."""

COLUMNS: Final = (*ROW_COLUMNS, "overheads")
"""The attributes of an index that are arrays."""


class IndexBuilder:
    """Puts an index together from columns that come batch by batch."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._codes: dict[str, int] = {}
        self._rows: dict[str, list[npt.NDArray[Any]]] = {name: [] for name in ROW_COLUMNS}

    def add(self, digests: npt.NDArray[np.uint8], columns: Columns) -> None:
        """Adds the entries of a batch, those left out that are gone."""
        there = ~columns.gone
        codes = [self._codes.setdefault(name, len(self._codes)) for name in columns.models]
        coded = np.array([*codes, UNREADABLE_CODE], np.int32)[columns.model_codes]  # -1 is the last
        for name, rows in self._rows.items():
            batch = digests if name == "digests" else coded if name == "model_codes" else getattr(columns, name)
            rows.append(batch[there])

    def build(self, taken_at: float) -> EntryIndex:
        """The index of all that was added; its `overheads` are unknown. The builder is empty afterwards."""
        columns = {name: _joined(self._rows.pop(name), name) for name in ROW_COLUMNS}
        return EntryIndex(
            name=self._name,
            taken_at=taken_at,
            models=tuple(self._codes),
            overheads=np.full(len(self._codes), np.nan),
            **columns,
        )


_EMPTY: Final[dict[str, npt.NDArray[Any]]] = {
    "digests": np.empty((0, _DIGEST_BYTES), np.uint8),
    "model_codes": np.empty(0, np.int32),
    "ttl": np.empty(0, np.uint32),
    "value_bytes": np.empty(0, np.uint32),
    "dimension": np.empty(0, np.int32),
    "dtype_codes": np.empty(0, np.uint8),
    "layouts": np.empty(0, np.uint8),
}


def _joined(rows: list[npt.NDArray[Any]], name: str) -> npt.NDArray[Any]:
    # Column by column, so that only one at a time is in memory twice.
    return np.concatenate(rows) if rows else _EMPTY.get(name, np.empty(0, np.float64))


def bounded_chunks(sizes: npt.NDArray[np.int64], most_entries: int, most_bytes: int) -> Iterator[npt.NDArray[np.int64]]:
    """All rows in order, in chunks bounded in entries and, but for a single larger value, in bytes.

    Args:
        sizes: Of each row's value in bytes, shape (n,).
        most_entries: In one chunk.
        most_bytes: Of one chunk's values together.
    """
    ends = np.cumsum(sizes)
    start = 0
    while start < len(sizes):
        read = ends[start - 1] if start else 0
        full = int(np.searchsorted(ends, read + most_bytes, side="right"))
        stop = min(max(full, start + 1), start + most_entries, len(sizes))
        yield np.arange(start, stop)
        start = stop


def check_positions(name: str, positions: object, rows: int) -> Positions:
    """Positions of rows as an array, shape (n,).

    Raises:
        InvalidInputError: They are no whole numbers, or there is no such row.
    """
    try:
        found = np.asarray(positions)
    except Exception as error:  # whatever others' objects raise
        raise InvalidInputError(f"{name} are numbers of rows, not {type(positions).__name__}") from error
    if not found.size and found.ndim == 1:
        return np.empty(0, np.int64)
    if found.ndim != 1 or not np.issubdtype(found.dtype, np.integer):
        raise InvalidInputError(f"{name} are numbers of rows, of shape (n,), not {found.dtype} of shape {found.shape}")
    if int(found.min()) < 0 or int(found.max()) >= rows:
        raise InvalidInputError(f"{name} are from 0 to {rows - 1:,}, not from {found.min():,} to {found.max():,}")
    return found.astype(np.int64, copy=False)


def _ascending(edges: Sequence[float]) -> npt.NDArray[np.float64]:
    try:
        found = np.asarray(edges)
    except Exception as error:  # as above
        raise InvalidInputError(f"edges are numbers of seconds, not {type(edges).__name__}") from error
    if found.ndim != 1 or found.dtype.kind not in "iuf" or bool((np.diff(found) < 0).any()) or np.isnan(found).any():
        raise InvalidInputError(f"edges are numbers of seconds, ascending, not {shown(edges)}")
    return found.astype(np.float64, copy=False)


def keys_of(name: str, digests: npt.NDArray[np.uint8]) -> list[str]:
    """The Redis keys of a cache's entries, from the SHA-256s that end them, shape (n, 32)."""
    digits = digests.tobytes().hex()
    return [f"{name}:{digits[start : start + _HEX_DIGITS]}" for start in range(0, len(digits), _HEX_DIGITS)]


def distinct(digests: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """The different rows, shape (m, 32), in no order that means anything."""
    # By their first 8 bytes, which are as good as drawn at random: sorting whole rows takes twenty times as long.
    _, first = np.unique(_starts(digests), return_index=True)
    return digests[first] if len(first) == len(digests) else np.unique(digests, axis=0)


def _starts(digests: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint64]:
    return np.ascontiguousarray(digests[:, :8]).view(np.uint64).ravel()


def _between(
    values: npt.NDArray[Any], least: float | None, most: float | None
) -> npt.NDArray[np.bool_] | Literal[True]:
    """Which values lie between, bounds included; an unknown one (NaN) lies between none that are given."""
    if least is None and most is None:
        return True
    return (values >= (-np.inf if least is None else least)) & (values <= (np.inf if most is None else most))


def _unknown_at_zero(values: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    return np.where(values == 0, np.nan, values.astype(np.float64))
