"""A sample of a cache's entries with their vectors, drawn without walking over the whole cache; or all, part by part.

Keys come in the order of SCAN, which goes by a hash of the key: as good as drawn at random, and the walk ends as soon
as there are enough. How many entries there are in all is reckoned from the keys that were seen on the way. Nothing here
changes anything: no TTL is restarted, nothing is counted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from embedcache import codec
from embedcache.arguments import check_function, check_kind, check_whole, gone_through, shown, whole_number
from embedcache.columns import Layout
from embedcache.connection import RedisConnection
from embedcache.entry import CacheEntry, FloatArray, Metadata, Text
from embedcache.errors import InvalidInputError
from embedcache.index import EntryIndex, Positions, bounded_chunks, check_positions
from embedcache.keyspace import Keyspace, encode_model_name
from embedcache.operations import CHUNK_BYTES, Operation, ServerAbilities, checked
from embedcache.scanning import hash_entries, hash_heads, hash_sizes, heads, scan_step

MAX_COUNT: Final = 20_000
MAX_BYTES: Final = 128 * 1024 * 1024
"""Vectors and values of one sample together. While it is put together, it takes twice that."""
_MAX_KEYS_SEEN: Final = 200_000
_SCAN_BATCH: Final = 1_000
_MAX_STEPS: Final = 5_000
"""Five million keys: some seconds. It ends there where a cache is next to nothing on a server that is full."""
_OPEN_STEPS: Final = 20
"""So many steps see all keys, to tell which share is the cache's. A million of them would be 80 MB, so the others see
the cache's alone."""

_READ_BATCH: Final = 500

Tell = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Vectors:
    """Entries of one dimension, one to a row.

    Attributes:
        keys: Their Redis keys.
        texts: Their texts.
        model_names: The models that made the vectors.
        metadata: The JSON object stored beside each, or None.
        inserted_at: When each was stored, in Unix seconds by the writer's clock, shape (n,).
        value_bytes: Length of each stored value in bytes, shape (n,).
        matrix: Their vectors, float32, shape (n, d). What was written by other programs may not be finite.
    """

    keys: tuple[str, ...]
    texts: tuple[Text, ...]
    model_names: tuple[str, ...]
    metadata: tuple[Metadata | None, ...]
    inserted_at: npt.NDArray[np.float64]
    value_bytes: npt.NDArray[np.int64]
    matrix: FloatArray

    def __len__(self) -> int:
        return len(self.keys)

    @property
    def dimension(self) -> int:
        """Length of each vector."""
        return int(self.matrix.shape[1])

    def part(self, rows: Sequence[int] | npt.NDArray[np.int64]) -> Vectors:
        """The entries of these rows, in their order.

        Raises:
            InvalidInputError: There is no such row.
        """
        chosen = check_positions("rows", rows, len(self)).tolist()
        return Vectors(
            keys=tuple(self.keys[row] for row in chosen),
            texts=tuple(self.texts[row] for row in chosen),
            model_names=tuple(self.model_names[row] for row in chosen),
            metadata=tuple(self.metadata[row] for row in chosen),
            inserted_at=self.inserted_at[chosen],
            value_bytes=self.value_bytes[chosen],
            matrix=self.matrix[chosen],
        )


@dataclass(frozen=True, slots=True)
class Sample:
    """What was drawn.

    Attributes:
        groups: The entries by model and dimension, most entries first; those of one group share both.
        unreadable: Values under the cache's keys that are no whole entries: strangers' and damaged ones.
        too_large: Entries left out because each is larger than 8 MiB.
        whole: Whether the sample is everything: no entry (of the model that was asked for) is missing.
        out_of_room: Whether it has fewer entries than asked for because they fill `MAX_BYTES`.
        in_cache: How many there are in all; an estimate where the sample is not whole, 0 where that cannot be told.
    """

    groups: tuple[Vectors, ...]
    unreadable: int
    too_large: int
    whole: bool
    out_of_room: bool
    in_cache: int

    @property
    def entries(self) -> int:
        """How many were drawn."""
        return sum(map(len, self.groups))


Take = Callable[[Positions, Vectors], object]


def join(groups: Sequence[Vectors]) -> Vectors:
    """Groups of one dimension as one, in order.

    Raises:
        InvalidInputError: There is no group, or their dimensions differ.
    """
    groups = [check_kind("a group", group, Vectors) for group in gone_through("groups", groups)]
    dimensions = sorted({group.dimension for group in groups})
    if len(dimensions) != 1:
        raise InvalidInputError(f"groups of one dimension can be joined, these have {dimensions or 'none'}")
    if len(groups) == 1:
        return groups[0]
    return Vectors(
        keys=tuple(key for group in groups for key in group.keys),
        texts=tuple(text for group in groups for text in group.texts),
        model_names=tuple(name for group in groups for name in group.model_names),
        metadata=tuple(each for group in groups for each in group.metadata),
        inserted_at=np.concatenate([group.inserted_at for group in groups]),
        value_bytes=np.concatenate([group.value_bytes for group in groups]),
        matrix=np.concatenate([group.matrix for group in groups]),
    )


def sample(
    connection: RedisConnection,
    name: str,
    count: int,
    model_name: str | None = None,
    tell: Tell | None = None,
    max_bytes: int = MAX_BYTES,
) -> Sample:
    """Entries of a cache with their vectors, as good as drawn at random.

    Args:
        connection: The server.
        name: The cache's name.
        count: How many at most, from 1 to 20,000.
        model_name: Of this model alone; None is of all.
        tell: Called from time to time with how many are drawn and `count`; what it raises ends the sampling.
        max_bytes: The most that vectors and values may take together.

    Raises:
        InvalidInputError: The count or the name cannot be used.
        CacheUnavailableError: The server cannot be reached.
        ServerReplyError: It forbids SCAN.
    """
    return connection.drive(drawing(name, count, model_name, tell, max_bytes))


def read_all(
    connection: RedisConnection, index: EntryIndex, positions: Positions, dimension: int, take: Take, tell: Tell
) -> int:
    """Reads the entries at some positions of an index with their vectors, a few MiB at a time.

    Args:
        connection: The server.
        index: The cache's entries.
        positions: Which of them to read.
        dimension: Entries of another are left out, as are those that left since and those that cannot be read.
        take: Called with the positions that were read and their entries, again and again.
        tell: Called after each with how many are gone through, and of how many. What it raises ends the reading.

    Returns:
        How many were left out.

    Raises:
        InvalidInputError: There is no such position.
        CacheUnavailableError: The server cannot be reached.
        ServerReplyError: It forbids to read the values.
    """
    positions = check_positions("positions", positions, len(check_kind("index", index, EntryIndex)))
    check_function("take", take)
    check_function("tell", tell)
    check_whole("dimension", dimension, 1)
    return connection.drive(_read_all(index, positions, dimension, take, tell))


def drawing(
    name: str,
    count: int,
    model_name: str | None = None,
    tell: Tell | None = None,
    max_bytes: int = MAX_BYTES,
) -> Operation[Sample]:
    """What `sample` does, for those who drive it themselves."""
    check_count(count)
    check_whole("max_bytes", max_bytes, 0)
    check_function("tell", tell, may_be_none=True)
    if model_name is not None:
        encode_model_name(model_name)
    return _draw(_Drawing(Keyspace(name), count, model_name, max_bytes), tell or _tell_nobody)


def check_count(count: int) -> None:
    """Checks how many entries are asked for.

    Raises:
        InvalidInputError: It is not from 1 to 20,000.
    """
    number = whole_number(count)
    if number is None or not 1 <= number <= MAX_COUNT:
        raise InvalidInputError(f"a sample has from 1 to {MAX_COUNT:,} entries, not {shown(count)}")


def _tell_nobody(done: int, total: int) -> None:
    """Where nobody waits."""


# ------------------------------------------------------------------------------------------------ what is drawn


class _Drawing:
    """What has been drawn so far."""

    def __init__(self, space: Keyspace, count: int, model_name: str | None, max_bytes: int) -> None:
        self.space = space
        self.count = count
        self.model_name = model_name
        self.room = max_bytes
        self.seen: set[str] = set()  # SCAN may return a key twice
        self.hashes: set[str] = set()  # of these, the keys of RedisVL's entries
        self.unreadable = 0
        self.too_large = 0
        self.drawn = 0
        self.left_over = False
        self.out_of_room = False
        self.keys_on_server = 0
        self.keys_passed = 0
        self.wanted = 0
        self._rows: dict[tuple[str, int], list[tuple[CacheEntry, int]]] = {}

    @property
    def full(self) -> bool:
        return self.drawn >= self.count or self.out_of_room or len(self.seen) >= _MAX_KEYS_SEEN

    def unseen(self, found: Sequence[bytes]) -> list[str]:
        """The keys of this cache among those that SCAN found, each once."""
        names = dict.fromkeys(name.decode(errors="surrogateescape") for name in found)
        keys = [name for name in names if self.space.owns(name) and name not in self.seen]
        self.seen.update(keys)
        return keys

    def chunks(self, sized: Sequence[tuple[str, int]]) -> Iterator[list[tuple[str, int]]]:
        """The keys with their values' lengths, in chunks bounded in bytes, until there are enough."""
        chunk: list[tuple[str, int]] = []
        total = 0
        for key, size in sized:
            if total + size > CHUNK_BYTES or self.drawn + len(chunk) >= self.count:
                yield chunk
                chunk, total = [], 0
            if self.full:
                self.left_over = True
                return
            chunk.append((key, size))
            total += size
        if chunk:
            yield chunk

    def take_value(self, key: str, value: object, size: int) -> None:
        """Keeps the entry that a value is, or counts why not."""
        if value is not None:  # or it is gone since SCAN saw it
            self.take(_decoded(value, key), size)

    def take(self, entry: CacheEntry | None, size: int) -> None:
        """Keeps an entry, or counts why not."""
        if self.out_of_room:
            return
        if entry is None:
            self.unreadable += 1
            return
        self.room -= entry["embedding"].nbytes + size
        if self.room < 0:
            self.out_of_room = self.left_over = True
            return
        self.drawn += 1
        self._rows.setdefault((entry["model_name"], len(entry["embedding"])), []).append((entry, size))

    def result(self, *, walked: bool) -> Sample:
        rows = sorted(self._rows.items(), key=lambda item: (-len(item[1]), item[0]))
        whole = walked and not self.left_over and not self.too_large
        estimate = round(self.keys_on_server * self.wanted / max(self.keys_passed, 1))
        return Sample(
            groups=tuple(_vectors(entries) for _, entries in rows),
            unreadable=self.unreadable,
            too_large=self.too_large,
            whole=whole,
            out_of_room=self.out_of_room,
            in_cache=self.drawn if whole else max(estimate, self.drawn) if estimate else 0,
        )


def _decoded(value: object, key: str) -> CacheEntry | None:
    """The entry that a value is, its vector as float32; None where it is none."""
    entry = codec.decode_by_key(value, key) if isinstance(value, bytes) else None
    if entry is not None:
        with np.errstate(over="ignore"):  # a float64 may be infinite as float32, which is told as not finite
            # A copy, so that the reply is not kept for the sake of its vector.
            entry["embedding"] = entry["embedding"].astype(np.float32)
    return entry


def _vectors(rows: Sequence[tuple[CacheEntry, int]]) -> Vectors:
    entries = [entry for entry, _ in rows]
    return Vectors(
        keys=tuple(entry["key"] for entry in entries),
        texts=tuple(entry["text"] for entry in entries),
        model_names=tuple(entry["model_name"] for entry in entries),
        metadata=tuple(entry["metadata"] for entry in entries),
        inserted_at=np.array([entry["inserted_at"] for entry in entries], dtype=np.float64),
        value_bytes=np.array([size for _, size in rows], dtype=np.int64),
        matrix=np.stack([entry["embedding"] for entry in entries]),
    )


# ------------------------------------------------------------------------------------------------ drawing


def _draw(drawing: _Drawing, tell: Tell) -> Operation[Sample]:
    able = ServerAbilities()
    (keys,) = yield [("DBSIZE",)]
    drawing.keys_on_server = keys if isinstance(keys, int) else 0  # an ACL may forbid it
    cursor = 0
    for step in range(_MAX_STEPS):
        tell(drawing.drawn, drawing.count)
        pattern = None if step < _OPEN_STEPS else drawing.space.pattern
        cursor, found = yield from scan_step(cursor, _SCAN_BATCH, pattern)
        sized = yield from _sized(drawing, able, drawing.unseen(found))
        if pattern is None:
            drawing.keys_passed += len(found)
            drawing.wanted += len(sized)
        for chunk in drawing.chunks(sized):
            yield from _read(drawing, chunk)
        if cursor == 0 or drawing.full:
            break
    tell(drawing.drawn, drawing.count)
    return drawing.result(walked=cursor == 0)


def _sized(drawing: _Drawing, able: ServerAbilities, keys: Sequence[str]) -> Operation[list[tuple[str, int]]]:
    """Those keys whose values are wanted, each with its value's length in bytes.

    Lengths come first, so that no reply is larger than planned. Where one model is asked for, so do heads: the vectors
    of the others are not moved.
    """
    if not keys:
        return []
    sizes = yield from (_value_sizes(keys) if drawing.model_name is None else _sizes_of_model(drawing, able, keys))
    others = [key for key, size in zip(keys, sizes, strict=True) if size is None]
    hashes = yield from _hash_sizes(drawing, others)
    sized = [(key, hashes.get(key, 0) if size is None else size) for key, size in zip(keys, sizes, strict=True)]
    drawing.too_large += sum(size > CHUNK_BYTES for _, size in sized)
    return [(key, size) for key, size in sized if 0 < size <= CHUNK_BYTES]


def _value_sizes(keys: Sequence[str]) -> Operation[list[int | None]]:
    """The lengths of the values under these keys in bytes; None of those that are of another type than ours."""
    replies = yield [("STRLEN", key) for key in keys]
    return [reply if isinstance(reply, int) else None for reply in replies]  # a list or hash has none


def _sizes_of_model(drawing: _Drawing, able: ServerAbilities, keys: Sequence[str]) -> Operation[list[int | None]]:
    """As `_value_sizes`, and 0 for the values of other models; None where there is no head of ours to tell."""
    seen = yield from heads(able, keys)
    return [None if head is None else size if head.model_name == drawing.model_name else 0 for head, size in seen]


def _hash_sizes(drawing: _Drawing, keys: Sequence[str]) -> Operation[dict[str, int]]:
    """The lengths of RedisVL's entries among these keys in bytes, 0 for other models'; what is no entry is counted."""
    if not keys:
        return {}
    sizes = yield from hash_sizes(keys)
    found = {key: size for key, size in zip(keys, sizes, strict=True) if size}
    drawing.unreadable += len(keys) - len(found)
    drawing.hashes.update(found)
    if drawing.model_name is not None and found:
        seen = yield from hash_heads(list(found))
        for key, head in zip(list(found), seen, strict=True):
            drawing.unreadable += head is None
            if head is None or head.model_name != drawing.model_name:
                found[key] = 0
    return found


def _read(drawing: _Drawing, chunk: Sequence[tuple[str, int]]) -> Operation[None]:
    if not chunk:
        return
    ours = [(key, size) for key, size in chunk if key not in drawing.hashes]
    if ours:
        values = yield from checked(("MGET", *[key for key, _ in ours]))
        for (key, size), value in zip(ours, values, strict=True):
            drawing.take_value(key, value, size)
    theirs = [(key, size) for key, size in chunk if key in drawing.hashes]
    for (_, size), entry in zip(theirs, (yield from hash_entries([key for key, _ in theirs])), strict=True):
        drawing.take(entry, size)


# ------------------------------------------------------------------------------------------------ reading all


def _read_all(index: EntryIndex, positions: Positions, dimension: int, take: Take, tell: Tell) -> Operation[int]:
    left_out = done = 0
    for rows in bounded_chunks(index.value_bytes[positions].astype(np.int64), _READ_BATCH, CHUNK_BYTES):
        chunk = positions[rows]
        hashes = index.layouts[chunk] == Layout.REDISVL
        packed, theirs = chunk[~hashes], chunk[hashes]
        keys = index.keys(packed)
        values = (yield from checked(("MGET", *keys))) if keys else []
        found = [_decoded(value, key) for key, value in zip(keys, values, strict=True)]
        found += yield from hash_entries(index.keys(theirs))
        read = [
            (position, entry)
            for position, entry in zip([*packed.tolist(), *theirs.tolist()], found, strict=True)
            if entry is not None and len(entry["embedding"]) == dimension
        ]
        if read:
            at = np.array([position for position, _ in read], np.int64)
            take(at, _vectors([(entry, int(index.value_bytes[position])) for position, entry in read]))
        left_out += len(chunk) - len(read)
        done += len(chunk)
        tell(done, len(positions))
    return left_out
