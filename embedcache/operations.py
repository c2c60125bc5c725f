"""Every cache operation, once, for sync and async alike.

An operation is a generator that does no I/O. It yields a batch of commands, which is one round trip; it is sent back
one reply per command, in order; and it returns its result. `embedcache.connection` has the only two loops that move
such a generator along, so nothing here knows redis, sockets or event loops, and a test plays the replies by hand.

A reply that is an error of the server arrives as a `ServerReplyError` in its place, so that an operation can tell a
command that the server forbids from one bad key in a batch. Input is checked before the first yield: an operation that
raises for bad input has written nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from time import perf_counter_ns
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from embedcache import codec
from embedcache.commands import (
    CHUNK_BYTES,
    CHUNK_ENTRIES,
    REPLIES,
    Command,
    Operation,
    Posted,
    ServerAbilities,
    checked,
    checked_all,
    chunks,
    is_other_type,
    raise_if_error,
    run_each,
    run_script,
)
from embedcache.counters import Counters
from embedcache.counting import LookupTally, count_lookup, count_lookup_by_keys
from embedcache.entry import NEVER, TTL, CacheEntry, CacheItem, FloatArray, Never, Text
from embedcache.entry_layout import EntryLayout, Values
from embedcache.gathered_rows import GatheredRows
from embedcache.keyspace import Keyspace, check_batch, check_dimension, check_keys, check_texts, encode_model_name
from embedcache.matrices import MatrixDecoder, Rows
from embedcache.packed_layout import PACKED
from embedcache.packing import (
    Part,
    TextBatch,
    Writes,
    check_fields,
    check_items,
    key_parts,
    pack_items,
    pack_one,
    pack_text,
    pack_texts,
)
from embedcache.scripts import REMAINING_TTLS

__all__ = [
    "CHUNK_BYTES",
    "CHUNK_ENTRIES",
    "REPLIES",
    "Command",
    "Operation",
    "Posted",
    "ServerAbilities",
    "checked",
    "checked_all",
    "chunks",
    "is_other_type",
    "raise_if_error",
    "run_each",
    "run_script",
]
"""What operations are written with. Whoever writes one gets it here."""

# ------------------------------------------------------------------------------------------------ reading


def mget(
    space: Keyspace,
    able: ServerAbilities,
    counters: Counters,
    texts: Sequence[Text],
    model_name: str,
    *,
    refresh: bool,
    layout: EntryLayout = PACKED,
) -> Operation[list[CacheEntry | None]]:
    """The entries of these texts, in order; None for each miss."""
    started = perf_counter_ns()
    tally, found = LookupTally(), list[CacheEntry | None]()
    for some in checked_chunks(texts, model_name):
        keys, values, entries = yield from read_entries(space, able, some, model_name, refresh=refresh, layout=layout)
        tally.add(keys, values, _missing(entries))
        found += entries
    tally.count(counters, model_name, started, texts)
    return found


def checked_chunks(texts: Sequence[Text], model_name: str) -> Iterator[Sequence[Text]]:
    """The texts, as many at a time as one command moves; where there are more, all are checked before the first.

    Raises:
        InvalidTextError: A text cannot be cached.
        InvalidModelNameError: The model name cannot be used.
    """
    check_batch(texts, "texts")
    if len(texts) <= CHUNK_ENTRIES:
        return iter([texts])  # whoever packs them checks them
    encode_model_name(model_name)
    listed = texts if isinstance(texts, list | tuple) else list(texts)
    check_texts(listed, CHUNK_ENTRIES)
    return chunks(listed)


class Read(NamedTuple):
    """What a lookup of texts found, as columns: keys, the values under them, and the entries that they are."""

    keys: list[str]
    values: list[bytes | None]
    entries: list[CacheEntry | None]


def read_entries(
    space: Keyspace,
    able: ServerAbilities,
    texts: Sequence[Text],
    model_name: str,
    *,
    refresh: bool,
    layout: EntryLayout = PACKED,
) -> Operation[Read]:
    """The entries of these texts, without counting the lookup."""
    batch = TextBatch(space, texts, model_name)
    read = Read(batch.keys, [], [])

    def take(part: Part, values: Values) -> None:
        read.values.extend(values)
        asked = texts[part.start : part.start + len(values)]
        read.entries.extend(
            codec.decode(value, key, tag, text, model_name)
            for value, key, tag, text in zip(values, part.keys, part.tags, asked, strict=True)
        )

    due = yield from layout.read(space, able, batch.parts(), take, refresh=refresh)
    if due and _any_ttl(read.entries):
        yield from layout.restart(able, codec.own_ttls(read.keys, read.values))
    return read


def _missing(found: Sequence[object]) -> Sequence[int]:
    return [] if all(found) else [index for index, entry in enumerate(found) if entry is None]


def get_one(
    space: Keyspace,
    able: ServerAbilities,
    counters: Counters,
    text: Text,
    model_name: str,
    *,
    refresh: bool,
    layout: EntryLayout = PACKED,
) -> Operation[CacheEntry | None]:
    """The entry of one text, or None: `mget` without its lists."""
    started = perf_counter_ns()
    key, tag = pack_text(space, text, model_name)
    value, due = yield from layout.read_one(space, able, key, refresh=refresh)
    entry = codec.decode(value, key, tag, text, model_name)
    if due and entry is not None and entry["ttl"]:
        yield from layout.restart(able, {key: entry["ttl"]})
    if entry is None:
        count_lookup(counters, model_name, started, [key], (text,), [value], (0,))
    else:
        counters.looked_up(model_name, started, [key], (text,), 0, len(value or b""))
    return entry


def mget_by_keys(
    space: Keyspace,
    able: ServerAbilities,
    counters: Counters,
    keys: Sequence[str],
    *,
    refresh: bool,
    layout: EntryLayout = PACKED,
) -> Operation[list[CacheEntry | None]]:
    """The entries under these keys; None for a miss and for a key outside the namespace."""
    started = perf_counter_ns()
    owned = [key for key in check_keys(keys) if space.owns(key)]
    values: list[bytes | None] = []
    found: dict[str, CacheEntry | None] = {}

    def take(part: Part, read: Values) -> None:
        values.extend(read)
        found.update((key, codec.decode_by_key(value, key)) for key, value in zip(part.keys, read, strict=True))

    due = yield from layout.read(space, able, key_parts(owned), take, refresh=refresh)
    if due and _any_ttl(found.values()):
        yield from layout.restart(able, codec.own_ttls(owned, values))
    count_lookup_by_keys(counters, started, owned, values, [found[key] for key in owned])
    return [found.get(key) for key in keys]


def mget_embeddings(
    space: Keyspace,
    able: ServerAbilities,
    counters: Counters,
    texts: Sequence[Text],
    model_name: str,
    *,
    dimension: int | None,
    refresh: bool,
    layout: EntryLayout = PACKED,
) -> Operation[tuple[FloatArray, npt.NDArray[np.bool_]]]:
    """The vectors of these texts in one matrix (n, d), and a mask (n,) of hits."""
    started = perf_counter_ns()
    if dimension is not None:
        dimension = check_dimension(dimension)
    check_batch(texts, "texts")
    tally, gathered = LookupTally(), GatheredRows(len(texts), dimension)
    for some in checked_chunks(texts, model_name):
        keys, values, rows = yield from _read_rows(
            space, able, some, model_name, gathered.dimension, refresh=refresh, layout=layout
        )
        tally.add(keys, values, [] if rows.mask.all() else np.flatnonzero(~rows.mask).tolist())
        gathered.add(rows)
    tally.count(counters, model_name, started, texts)
    return gathered.result()


def _read_rows(
    space: Keyspace,
    able: ServerAbilities,
    texts: Sequence[Text],
    model_name: str,
    dimension: int | None,
    *,
    refresh: bool,
    layout: EntryLayout,
) -> Operation[tuple[list[str], list[bytes | None], Rows]]:
    """The keys of these texts, the values under them, and their vectors."""
    batch = TextBatch(space, texts, model_name)
    values: list[bytes | None] = []
    decoder = MatrixDecoder(dimension)

    def take(part: Part, read: Values) -> None:
        values.extend(read)
        decoder.add(read, part.tags)

    due = yield from layout.read(space, able, batch.parts(), take, refresh=refresh)
    rows = decoder.rows()
    if due and rows.any_ttl:
        yield from layout.restart(able, codec.own_ttls(batch.keys, values))
    return batch.keys, values, rows


def mexists(
    space: Keyspace, texts: Sequence[Text], model_name: str, *, layout: EntryLayout = PACKED
) -> Operation[list[bool]]:
    """Whether each text is cached, without moving vectors. Text and model are compared, as in a read."""
    found: list[bool] = []
    for some in checked_chunks(texts, model_name):
        found += yield from layout.match(*pack_texts(space, some, model_name))
    return found


def mexists_by_keys(space: Keyspace, keys: Sequence[str], *, layout: EntryLayout = PACKED) -> Operation[list[bool]]:
    """Whether each key holds an entry of this cache; False for a key outside the namespace."""
    owned = [key for key in check_keys(keys) if space.owns(key)]
    held = dict(zip(owned, (yield from layout.hold(owned)), strict=True))
    return [held.get(key, False) for key in keys]


def _any_ttl(entries: Iterable[CacheEntry | None]) -> bool:
    return any(entry is not None and entry["ttl"] for entry in entries)


# ------------------------------------------------------------------------------------------------ writing


def mset(
    space: Keyspace,
    able: ServerAbilities,
    counters: Counters,
    dtype: codec.StoredDtype,
    items: Sequence[CacheItem],
    ttl: TTL,
    *,
    now: float,
    layout: EntryLayout = PACKED,
) -> Operation[list[str]]:
    """Stores the items; returns their keys, in order. Of one text given twice, the last stays."""
    check_fields(items)
    keys: list[str] = []
    for chunk in _packed_chunks(space, dtype, items, ttl, now):
        yield from layout.write(able, chunk)
        counters.wrote(chunk.keys, chunk.ttls, chunk.model_names, list(map(len, chunk.values)))
        keys += chunk.keys
    return keys


def set_one(
    space: Keyspace,
    able: ServerAbilities,
    counters: Counters,
    dtype: codec.StoredDtype,
    item: CacheItem,
    *,
    now: float,
    layout: EntryLayout = PACKED,
) -> Operation[str]:
    """Stores one item of our own making; returns its key."""
    key, value, ttl = pack_one(space, dtype, item, now)
    yield from layout.write_one(able, key, value, ttl)
    counters.wrote([key], [ttl], [item["model_name"]], [len(value)])
    return key


def _packed_chunks(
    space: Keyspace, dtype: codec.StoredDtype, items: Sequence[CacheItem], ttl: TTL, now: float
) -> Iterator[Writes]:
    """The items in chunks. All are checked before the first, and where there are many, packed one chunk at a time."""
    if len(items) <= CHUNK_ENTRIES:
        yield from _write_chunks(pack_items(space, dtype, items, ttl, now))
        return
    checked_items = check_items(space, dtype, items, ttl, now, CHUNK_ENTRIES)
    for start in range(0, len(items), CHUNK_ENTRIES):
        yield from _write_chunks(checked_items.pack(start, start + CHUNK_ENTRIES))


def _write_chunks(writes: Writes) -> Iterator[Writes]:
    """Chunks bounded in entries and, but for a single larger one, in bytes."""
    sizes = list(map(len, writes.values))
    if writes.keys and len(sizes) <= CHUNK_ENTRIES and sum(sizes) <= CHUNK_BYTES:
        yield writes
        return
    start = total = 0
    for position, size in enumerate(sizes):
        if position > start and (position - start == CHUNK_ENTRIES or total + size > CHUNK_BYTES):
            yield writes.part(start, position)
            start, total = position, 0
        total += size
    if start < len(sizes):
        yield writes.part(start, len(sizes))


# ------------------------------------------------------------------------------------------------ removing


def mdrop(space: Keyspace, counters: Counters, texts: Sequence[Text], model_name: str) -> Operation[int]:
    """Removes the entries of these texts; returns how many there were."""
    count = 0
    for some in checked_chunks(texts, model_name):
        keys, _ = pack_texts(space, some, model_name)
        count += yield from _unlink(counters, model_name, keys)
    return count


def mdrop_by_keys(space: Keyspace, counters: Counters, keys: Sequence[str]) -> Operation[int]:
    """Removes the entries under these keys; returns how many there were."""
    return (yield from _unlink(counters, None, space.owned_keys(keys)))


def clear(space: Keyspace, counters: Counters) -> Operation[int]:
    """Removes every key of this cache's namespace; returns how many there were."""
    dropped = 0
    cursor: int | bytes = 0
    while True:
        ((cursor, found),) = yield from checked_all(("SCAN", cursor, "MATCH", space.pattern, "COUNT", CHUNK_ENTRIES))
        names = [name.decode(errors="surrogateescape") for name in found]
        dropped += yield from _unlink(counters, None, [name for name in names if space.owns(name)])
        if int(cursor) == 0:
            counters.cleared()
            return dropped


def _unlink(counters: Counters, model_name: str | None, keys: Sequence[str]) -> Operation[int]:
    count = 0
    for chunk in chunks(keys):
        removed = yield from checked(("UNLINK", *chunk))
        counters.dropped(model_name, chunk, removed)
        count += removed
    return count


# ------------------------------------------------------------------------------------------------ TTL


def remaining_ttl(space: Keyspace, key: str) -> Operation[int | Never | None]:
    """Seconds left, rounded up; NEVER if it does not expire; None if there is no such key in the namespace."""
    (key,) = check_keys([key])
    if not space.owns(key):
        return None
    milliseconds: int = yield from checked(("PTTL", key))
    if milliseconds == NO_KEY:
        return None
    return NEVER if milliseconds == NO_TTL else -(-milliseconds // 1000)


NO_TTL: Final = -1  # the server's own codes
NO_KEY: Final = -2


def remaining_milliseconds(able: ServerAbilities, keys: Sequence[str]) -> Operation[list[int]]:
    """Milliseconds until each of so many keys as fit one reply expires, or `NO_TTL`, or `NO_KEY`.

    A thousand commands for it cost four times what reading their values does.
    """
    replies: list[int] | None = yield from run_script(able, REMAINING_TTLS, keys)
    return replies if replies is not None else (yield from checked_all(*(("PTTL", key) for key in keys)))


def expire(
    space: Keyspace,
    able: ServerAbilities,
    counters: Counters,
    key: str,
    ttl: TTL,
    *,
    layout: EntryLayout = PACKED,
) -> Operation[bool]:
    """Gives an entry another TTL of its own and restarts it; returns whether there was such an entry."""
    seconds = space.resolve_ttl(ttl)
    (owned,) = space.owned_keys([key])
    changed = yield from layout.expire(able, owned, seconds)
    if changed:
        counters.expires(owned, seconds)
    return changed
