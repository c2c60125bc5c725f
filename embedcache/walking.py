"""Long walks over a server's keys: counting, indexing, matching, checking. They change nothing and move few vectors.

Each calls ``tell(done, total)`` about every round trip, which is also where it ends if that raises: what it raises is
passed through. The total is None as long as it is not known.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from hashlib import sha256
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt

from embedcache import codec, redisvl_format
from embedcache.arguments import check_function, check_kind
from embedcache.buckets import server_time
from embedcache.columns import Layout, columns_of
from embedcache.connection import RedisConnection
from embedcache.errors import InvalidNameError, ServerReplyError
from embedcache.filtering import EntryFilter
from embedcache.index import EntryIndex, IndexBuilder, Positions, bounded_chunks, distinct, keys_of
from embedcache.keyspace import Keyspace
from embedcache.operations import CHUNK_BYTES, Operation, ServerAbilities, checked, is_other_type
from embedcache.redisvl_format import HashHead
from embedcache.scanning import Looks, Scan, entry_keys, hash_heads, packed_heads
from embedcache.sieve import Sieve

Tell: TypeAlias = Callable[[int, int | None], object]

_SCAN_COUNT: Final = 2_000
_BATCH: Final = 500
"""Entries per script: it holds the server up for 3 ms. Twice as many would be a tenth faster."""
_START_BYTES: Final = 1_024
"""Read of a value whose head is known to be unreadable."""
_SAMPLED_MODELS: Final = 50
_SAMPLED_ENTRIES: Final = 20


@dataclass(frozen=True, slots=True)
class KeyCounts:
    """The keys of a server, in the database that the connection uses.

    Attributes:
        by_cache: How many keys have the form of an entry's, by cache name, most first.
        others: How many have not: statistics, and what is no cache's.
    """

    by_cache: dict[str, int]
    others: int


class Flaw(Enum):
    """What is wrong with a value, for people."""

    NO_ENTRY = "something that is no entry was stored under its key"
    OTHER_VERSION = "it is in a format that this version does not know"
    DAMAGED = "it is damaged: its checksum does not fit"
    OTHER_KEY = "it is the entry of another text or model"
    UNDECODABLE = "it is an entry's, but cannot be decoded"


@dataclass(frozen=True, slots=True, eq=False)
class Unreadable:
    """Keys of a cache whose values are no entries that can be read.

    Attributes:
        positions: Where they are in the index, ascending.
        flaws: What is wrong with each, in the same order.
    """

    positions: Positions
    flaws: tuple[Flaw, ...]

    def __len__(self) -> int:
        return len(self.flaws)


def count_keys(connection: RedisConnection, tell: Tell) -> KeyCounts:
    """How many keys each cache of a server has; nothing but keys is read, and each is counted once.

    Raises:
        CacheUnavailableError: The server cannot be reached.
        ServerReplyError: It forbids SCAN.
    """
    check_function("tell", tell)
    return connection.drive(_count_keys(tell))


def count_redisvl(connection: RedisConnection, tell: Tell) -> dict[str, int]:
    """How many keys of each cache hold hashes, as RedisVL's entries do; only caches that have any, most first.

    `tell` is told of hashes alone. Nothing but keys is read.

    Raises:
        CacheUnavailableError: The server cannot be reached.
        ServerReplyError: It forbids SCAN.
    """
    check_function("tell", tell)
    return connection.drive(_count_keys(tell, "hash")).by_cache


def index_cache(connection: RedisConnection, name: str, tell: Tell) -> EntryIndex:
    """Everything about a cache's entries that is small, RedisVL's hashes and unreadable values among them.

    An entry is unreadable here if its head is; `find_unreadable` looks at whole values. The keys are found first, while
    the total is not known; what is stored later is not in the index.

    Raises:
        InvalidNameError: The name cannot be a cache's.
        CacheUnavailableError: The server cannot be reached.
        ServerReplyError: It forbids SCAN, or to read the values. Where it forbids the rest (OBJECT, PTTL, MEMORY),
            that is unknown in the index.
    """
    check_function("tell", tell)
    return connection.drive(_index_cache(Keyspace(name), tell))


def match(connection: RedisConnection, index: EntryIndex, entry_filter: EntryFilter, tell: Tell) -> Positions:
    """The entries of an index that match a filter, in its order.

    Only for text and metadata is the server asked, and only about entries that match the rest; what has left since the
    index was taken does not match those.

    Raises:
        CacheUnavailableError: The server cannot be reached.
    """
    check_function("tell", tell)
    candidates = check_kind("index", index, EntryIndex).candidates(entry_filter)
    if not entry_filter.needs_heads:
        return candidates
    return connection.drive(_match(index, candidates, entry_filter, tell))


def find_unreadable(connection: RedisConnection, index: EntryIndex, tell: Tell) -> Unreadable:
    """The keys of an index whose values are damaged, or no entries of this cache at all.

    Whole values are read, a few MiB at a time. What has left since the index was taken is not among them.

    Raises:
        CacheUnavailableError: The server cannot be reached.
        ServerReplyError: It forbids to read the values.
    """
    check_function("tell", tell)
    return connection.drive(_find_unreadable(check_kind("index", index, EntryIndex), tell))


# ------------------------------------------------------------------------------------------------ counting keys


def _count_keys(tell: Tell, kind: str | None = None) -> Operation[KeyCounts]:
    (total,) = yield [("DBSIZE",)]
    total = None if isinstance(total, ServerReplyError) else int(total)
    names: dict[bytes, int] = {}
    marks: list[npt.NDArray[np.uint64]] = []
    codes: list[npt.NDArray[np.uint32]] = []
    seen = others = 0
    scan = Scan(_SCAN_COUNT, kind=kind)
    while not scan.ended:
        found = yield from scan.step()
        keys = entry_keys(found)
        codes.append(np.array([names.setdefault(name, len(names)) for name in keys.names], np.uint32))
        marks.append(keys.digests[:, :8].copy().view(np.uint64).ravel())
        seen += len(found)
        others += len(found) - len(keys.names)
        tell(seen, total)
    counts = _count_distinct(np.concatenate(codes), np.concatenate(marks), len(names))
    by_cache, foreign = _named(names, counts)
    return KeyCounts(by_cache, others + foreign)


def _count_distinct(codes: npt.NDArray[np.uint32], marks: npt.NDArray[np.uint64], names: int) -> npt.NDArray[np.int64]:
    """How many different keys each name has. SCAN may return a key twice."""
    # A name and 64 bits of a SHA-256 tell a trillion keys apart. The odd factor spreads the names over those bits.
    _, first = np.unique(marks ^ (codes.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)), return_index=True)
    return np.bincount(codes[first], minlength=names)


def _named(names: dict[bytes, int], counts: npt.NDArray[np.int64]) -> tuple[dict[str, int], int]:
    """Keys by the name of a cache, most first, and how many keys have a name that no cache can have."""
    by_cache: dict[str, int] = {}
    foreign = 0
    for name, code in names.items():
        try:
            by_cache[Keyspace(name.decode()).name] = int(counts[code])
        except (UnicodeDecodeError, InvalidNameError):
            foreign += int(counts[code])
    return dict(sorted(by_cache.items(), key=lambda each: (-each[1], each[0]))), foreign


# ------------------------------------------------------------------------------------------------ indexing


def _index_cache(space: Keyspace, tell: Tell) -> Operation[EntryIndex]:
    able = ServerAbilities()
    digests = yield from find_digests(space, tell)
    taken_at = yield from server_time()
    started = time.monotonic()
    builder = IndexBuilder(space.name)
    chunks = (digests[start : start + _BATCH] for start in range(0, len(digests), _BATCH))
    looks = Looks(able, (keys_of(space.name, chunk) for chunk in chunks))
    done = 0
    while (batch := (yield from looks.look())) is not None:
        chunk = digests[done : done + _BATCH]
        builder.add(chunk, columns_of(batch, taken_at + time.monotonic() - started))
        done += len(chunk)
        tell(done, len(digests))
    del digests
    index = builder.build(taken_at)
    return replace(index, overheads=(yield from _overheads(index)))


def find_digests(space: Keyspace, tell: Tell) -> Operation[npt.NDArray[np.uint8]]:
    """The SHA-256s that end the cache's keys, each once, uint8 of shape ``(n, 32)``."""
    check_function("tell", tell)
    name = space.name.encode()
    batches: list[npt.NDArray[np.uint8]] = []
    scan = Scan(_SCAN_COUNT, space.pattern)
    while not scan.ended:
        keys = entry_keys((yield from scan.step()))
        ours = [each == name for each in keys.names]
        batches.append(keys.digests if all(ours) else keys.digests[ours])
        tell(0, None)
    return distinct(np.concatenate(batches))


def _overheads(index: EntryIndex) -> Operation[npt.NDArray[np.float64]]:
    """The bytes that an entry of each model costs beyond its value, by what the server says of a few."""
    sampled = _sample(index)
    if not len(sampled):
        return index.overheads
    replies = yield [("MEMORY", "USAGE", key, "SAMPLES", 0) for key in index.keys(sampled)]
    known = np.array([isinstance(reply, int) for reply in replies])
    positions = sampled[known]
    if not len(positions):
        return index.overheads
    beyond = np.array([reply for reply in replies if isinstance(reply, int)]) - index.value_bytes[positions]
    codes = index.model_codes[positions]
    counts = np.bincount(codes, minlength=len(index.models))
    sums = np.bincount(codes, beyond, minlength=len(index.models))
    return np.where(counts > 0, sums / np.maximum(counts, 1), beyond.mean())


def _sample(index: EntryIndex) -> Positions:
    """Some entries of each of the models that have most. Rows lie in the order of their digests: any are as good."""
    codes = index.model_codes
    order = np.argsort(codes, kind="stable")
    counts = np.bincount(codes[codes >= 0], minlength=len(index.models))
    starts = len(codes) - counts.sum() + np.concatenate([[0], np.cumsum(counts)[:-1]])
    most = np.argsort(-counts, kind="stable")[:_SAMPLED_MODELS]
    chosen = [order[starts[code] : starts[code] + min(counts[code], _SAMPLED_ENTRIES)] for code in most]
    return np.concatenate(chosen) if chosen else np.empty(0, np.int64)


# ------------------------------------------------------------------------------------------------ matching


def _match(index: EntryIndex, candidates: Positions, asked: EntryFilter, tell: Tell) -> Operation[Positions]:
    able = ServerAbilities()
    sieve = Sieve(asked)
    found: list[Positions] = []
    for start in range(0, len(candidates), _BATCH):
        chunk = candidates[start : start + _BATCH]
        hashes = index.layouts[chunk] == Layout.REDISVL
        packed, others = chunk[~hashes], chunk[hashes]
        seen = yield from packed_heads(able, index.keys(packed))
        found.append(packed[np.array([sieve.matches(start) for start, _ in seen], np.bool_)])
        hash_heads_seen = yield from hash_heads(index.keys(others))
        found.append(others[np.array([_hash_matches(asked, head) for head in hash_heads_seen], np.bool_)])
        tell(start + len(chunk), len(candidates))
    return np.sort(np.concatenate(found)) if found else candidates


def _hash_matches(asked: EntryFilter, head: HashHead | None) -> bool:
    return head is not None and asked.matches_head(head.text, head.metadata)


# ------------------------------------------------------------------------------------------------ checking


def _find_unreadable(index: EntryIndex, tell: Tell) -> Operation[Unreadable]:
    found: dict[int, Flaw] = {}
    done = 0
    for chunk in _chunks(index):
        layouts = index.layouts[chunk]
        for layout, check in _CHECKS.items():
            positions = chunk[layouts == layout]
            if len(positions):
                flaws = yield from check(index.keys(positions))
                found.update(
                    (position, flaw)
                    for position, flaw in zip(positions.tolist(), flaws, strict=True)
                    if flaw is not None
                )
        done += len(chunk)
        tell(done, len(index))
    ordered = sorted(found)
    return Unreadable(np.array(ordered, np.int64), tuple(found[position] for position in ordered))


def _chunks(index: EntryIndex) -> Iterator[Positions]:
    """All positions, in chunks bounded in entries and, but for a single larger value, in bytes."""
    sizes = np.where(index.layouts == Layout.UNREADABLE, _START_BYTES, index.value_bytes).astype(np.int64)
    return bounded_chunks(sizes, _BATCH, CHUNK_BYTES)


def _check_packed(keys: Sequence[str]) -> Operation[list[Flaw | None]]:
    values = yield from checked(("MGET", *keys))
    return [
        None if value is None or codec.decode_by_key(value, key) is not None else _flaw(key, value)
        for key, value in zip(keys, values, strict=True)
    ]


def _check_hashes(keys: Sequence[str]) -> Operation[list[Flaw | None]]:
    replies = yield [("HMGET", key, "embedding", *redisvl_format.HEAD_FIELDS) for key in keys]
    return [_flaw_of_hash(key, reply) for key, reply in zip(keys, replies, strict=True)]


def _check_unreadable(keys: Sequence[str]) -> Operation[list[Flaw | None]]:
    """As nothing is to be decoded, the start of such a value is enough, however long a stranger's is."""
    replies = yield [command for key in keys for command in (("EXISTS", key), ("GETRANGE", key, 0, _START_BYTES - 1))]
    flaws: list[Flaw | None] = []
    for key, there, start in zip(keys, replies[::2], replies[1::2], strict=True):
        if there == 0:
            flaws.append(None)
        else:
            flaws.append(Flaw.NO_ENTRY if is_other_type(start) else _flaw(key, start))
    return flaws


_CHECKS: Final[dict[Layout, Callable[[Sequence[str]], Operation[list[Flaw | None]]]]] = {
    Layout.PACKED: _check_packed,
    Layout.REDISVL: _check_hashes,
    Layout.UNREADABLE: _check_unreadable,
}


def _flaw(key: str, value: bytes) -> Flaw:
    """What is wrong with a value that cannot be read by its key."""
    if not value.startswith(codec.MAGIC):
        return Flaw.OTHER_VERSION if value.startswith(codec.MAGIC[:-1]) else Flaw.NO_ENTRY
    if not codec.is_sound(value):
        return Flaw.DAMAGED
    head = codec.decode_head(value)
    if head is None:
        return Flaw.UNDECODABLE
    text = head.text if isinstance(head.text, bytes) else head.text.encode()
    own_key = sha256(text + b":" + head.model_name.encode()).hexdigest()
    return Flaw.UNDECODABLE if key.endswith(own_key) else Flaw.OTHER_KEY


def _flaw_of_hash(key: str, reply: Any) -> Flaw | None:
    if is_other_type(reply):
        return Flaw.NO_ENTRY
    embedding, *head = reply
    if all(value is None for value in reply):
        return None  # it has left
    sound = embedding is not None and redisvl_format.is_vector(embedding)
    return None if sound and redisvl_format.decode_head(head, key) is not None else Flaw.UNDECODABLE
