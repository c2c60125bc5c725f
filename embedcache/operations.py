"""Every cache operation, once, for sync and async alike.

An operation is a generator that does no I/O. It yields a batch of commands, which is one round trip; it is sent back
one reply per command, in order; and it returns its result. `embedcache.connection` has the only two loops that move
such a generator along, so nothing here knows redis, sockets or event loops, and a test plays the replies by hand.

A reply that is an error of the server arrives as a `ServerReplyError` in its place, so that an operation can tell a
command that the server forbids from one bad key in a batch. Input is checked before the first yield: an operation that
raises for bad input has written nothing.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from time import perf_counter_ns
from typing import Any, Final, NamedTuple, TypeAlias, TypeVar, cast

import numpy as np
import numpy.typing as npt

from embedcache import codec
from embedcache.counters import Counters
from embedcache.counting import count_lookup, count_lookup_by_keys
from embedcache.entry import NEVER, TTL, CacheEntry, CacheItem, FloatArray, Never, Text
from embedcache.errors import ServerReplyError
from embedcache.keyspace import Keyspace, check_dimension, check_keys
from embedcache.packing import Writes, check_fields, pack_items, pack_one, pack_text, pack_texts
from embedcache.scripts import CHANGE_TTL, READ_RESTARTING_TTLS, RESTART_TTLS, WRITE_WITH_TTL, Script

R = TypeVar("R")
T = TypeVar("T")

Command: TypeAlias = tuple[str | bytes | int | float, ...]
Operation: TypeAlias = Generator[list[Command], list[Any], R]

CHUNK_ENTRIES: Final = 1_000
"""Entries moved by one command. Larger ones gained no speed and hold the server up for longer."""
CHUNK_BYTES: Final = 8 * 1024 * 1024
_LARGE_READ: Final = 64
"""From so many entries on, MGET and a script that restarts TTLs, pipelined, beat one script that does both: values that
pass through Lua are copied twice more. For one entry, that script is 15 % faster than a pipeline."""


@dataclass(slots=True)
class ServerAbilities:
    """What this server has not refused so far. Shared by threads: a lost update costs one more refusal.

    Attributes:
        scripts: EVAL and EVALSHA on several keys (an ACL may forbid them).
        msetex: The MSETEX command (Valkey 9.1, Redis 8.4).
    """

    scripts: bool = True
    msetex: bool = True


# ------------------------------------------------------------------------------------------------ reading


def mget(
    space: Keyspace,
    able: ServerAbilities,
    counters: Counters,
    texts: Sequence[Text],
    model_name: str,
    *,
    refresh: bool,
) -> Operation[list[CacheEntry | None]]:
    """The entries of these texts, in order; None for each miss."""
    started = perf_counter_ns()
    keys, values, found = yield from read_entries(space, able, texts, model_name, refresh=refresh)
    count_lookup(counters, model_name, started, keys, texts, values, _missing(found))
    return found


class Read(NamedTuple):
    """What a lookup of texts found, as columns: keys, the values under them, and the entries that they are."""

    keys: list[str]
    values: list[bytes | None]
    entries: list[CacheEntry | None]


def read_entries(
    space: Keyspace, able: ServerAbilities, texts: Sequence[Text], model_name: str, *, refresh: bool
) -> Operation[Read]:
    """The entries of these texts, without counting the lookup."""
    keys, tags = pack_texts(space, texts, model_name)
    values, restarted = yield from _read(space, able, keys, refresh=refresh)
    found = [
        codec.decode(value, key, tag, text, model_name)
        for value, key, tag, text in zip(values, keys, tags, texts, strict=True)
    ]
    if refresh and not restarted and _any_ttl(found):
        yield from restart_ttls(able, _own_ttls(keys, values))
    return Read(keys, values, found)


def _missing(found: Sequence[object]) -> Sequence[int]:
    return [] if all(found) else [index for index, entry in enumerate(found) if entry is None]


def get_one(
    space: Keyspace, able: ServerAbilities, counters: Counters, text: Text, model_name: str, *, refresh: bool
) -> Operation[CacheEntry | None]:
    """The entry of one text, or None: `mget` without its lists."""
    started = perf_counter_ns()
    key, tag = pack_text(space, text, model_name)
    keys = [key]
    values, restarted = yield from _read(space, able, keys, refresh=refresh)
    entry = codec.decode(values[0], key, tag, text, model_name)
    if refresh and not restarted and entry is not None and entry["ttl"]:
        yield from restart_ttls(able, _own_ttls(keys, values))
    if entry is None:
        count_lookup(counters, model_name, started, keys, (text,), values, (0,))
    else:
        counters.looked_up(model_name, started, keys, (text,), 0, len(values[0] or b""))
    return entry


def mget_by_keys(
    space: Keyspace, able: ServerAbilities, counters: Counters, keys: Sequence[str], *, refresh: bool
) -> Operation[list[CacheEntry | None]]:
    """The entries under these keys; None for a miss and for a key outside the namespace."""
    started = perf_counter_ns()
    owned = [key for key in check_keys(keys) if space.owns(key)]
    values, restarted = yield from _read(space, able, owned, refresh=refresh)
    found = {key: codec.decode_by_key(value, key) for key, value in zip(owned, values, strict=True)}
    if refresh and not restarted and _any_ttl(found.values()):
        yield from restart_ttls(able, _own_ttls(owned, values))
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
) -> Operation[tuple[FloatArray, npt.NDArray[np.bool_]]]:
    """The vectors of these texts in one matrix (n, d), and a mask (n,) of hits."""
    started = perf_counter_ns()
    if dimension is not None:
        dimension = check_dimension(dimension)
    keys, tags = pack_texts(space, texts, model_name)
    values, restarted = yield from _read(space, able, keys, refresh=refresh)
    rows = codec.decode_matrix(values, tags, dimension)
    if refresh and not restarted and rows.any_ttl:
        yield from restart_ttls(able, _own_ttls(keys, values))
    missing = [] if rows.mask.all() else np.flatnonzero(~rows.mask).tolist()
    count_lookup(counters, model_name, started, keys, texts, values, missing)
    return rows.matrix, rows.mask


def mexists(space: Keyspace, texts: Sequence[Text], model_name: str) -> Operation[list[bool]]:
    """Whether each text is cached, without moving vectors. Text and model are compared, as in a read."""
    keys, tags = pack_texts(space, texts, model_name)
    found: list[bool] = []
    for chunk in chunks(list(zip(keys, tags, strict=True))):
        replies = yield [("GETRANGE", key, 0, codec.TAG_OFFSET + len(tag) - 1) for key, tag in chunk]
        found += [
            isinstance(reply, bytes) and reply.startswith(codec.MAGIC) and reply.startswith(tag, codec.TAG_OFFSET)
            for reply, (_, tag) in zip(replies, chunk, strict=True)
        ]
    return found


def mexists_by_keys(space: Keyspace, keys: Sequence[str]) -> Operation[list[bool]]:
    """Whether each key holds an entry of this cache; False for a key outside the namespace."""
    owned = [key for key in check_keys(keys) if space.owns(key)]
    held: set[str] = set()
    for chunk in chunks(owned):
        replies = yield [("GETRANGE", key, 0, len(codec.MAGIC) - 1) for key in chunk]
        held.update(key for key, reply in zip(chunk, replies, strict=True) if reply == codec.MAGIC)
    return [key in held for key in keys]


def _read(
    space: Keyspace, able: ServerAbilities, keys: Sequence[str], *, refresh: bool
) -> Operation[tuple[list[bytes | None], bool]]:
    """The values under the keys, and whether each one's own TTL was restarted.

    A cache with a default TTL reads and restarts in one round trip. For one without, the callers restart what turns out
    to have a TTL of its own, in a second.
    """
    values: list[bytes | None] = []
    restarted = refresh and space.ttl is not None
    for chunk in chunks(keys):
        found = None
        if restarted and able.scripts:
            found = yield from _read_restarting_ttls(able, chunk)
        if found is None:
            restarted = False
            (found,) = yield [("MGET", *chunk)]
            _raise_if_error(found)
        values += found
    return values, restarted


def _read_restarting_ttls(able: ServerAbilities, keys: Sequence[str]) -> Operation[list[bytes | None] | None]:
    """The values, and each one's own TTL restarted, in one round trip; None where scripts are refused."""
    if len(keys) < _LARGE_READ:
        return cast("list[bytes | None] | None", (yield from run_script(able, READ_RESTARTING_TTLS, keys)))
    values, restarted = yield [("MGET", *keys), ("EVALSHA", RESTART_TTLS.sha, len(keys), *keys)]
    _raise_if_error(values)
    if isinstance(restarted, ServerReplyError):
        yield from restart_ttls(able, _own_ttls(keys, values))
    return cast("list[bytes | None]", values)


def _any_ttl(entries: Iterable[CacheEntry | None]) -> bool:
    return any(entry is not None and entry["ttl"] for entry in entries)


def _own_ttls(keys: Sequence[str], values: Sequence[bytes | None]) -> dict[str, int]:
    """The TTLs of the values that have one of their own, by key."""
    return {key: ttl for key, value in zip(keys, values, strict=True) if value and (ttl := codec.own_ttl(value))}


def restart_ttls(able: ServerAbilities, own: Mapping[str, int]) -> Operation[None]:
    """Restarts these keys' own TTLs, of so many seconds."""
    for chunk in chunks(list(own)):
        if (yield from run_script(able, RESTART_TTLS, chunk)) is None:
            # A server that may not write now still answers the read: these replies are not looked at.
            yield [("EXPIRE", key, own[key]) for key in chunk]


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
) -> Operation[list[str]]:
    """Stores the items; returns their keys, in order. Of one text given twice, the last stays."""
    check_fields(items)
    writes = pack_items(space, dtype, items, ttl, now)
    for chunk in _write_chunks(writes):
        yield from _send_writes(able, chunk)
        counters.wrote(chunk.keys, chunk.ttls, chunk.model_names, list(map(len, chunk.values)))
    return writes.keys


def set_one(
    space: Keyspace, counters: Counters, dtype: codec.StoredDtype, item: CacheItem, *, now: float
) -> Operation[str]:
    """Stores one item of our own making; returns its key."""
    key, value, ttl = pack_one(space, dtype, item, now)
    (reply,) = yield [_set(key, value, ttl)]
    _raise_if_error(reply)
    counters.wrote([key], [ttl], [item["model_name"]], [len(value)])
    return key


def _send_writes(able: ServerAbilities, writes: Writes) -> Operation[None]:
    """Stores values and their TTLs, each pair in one command, all in one round trip."""
    first, *others = set(writes.ttls)
    if others or len(writes.keys) == 1:
        yield from checked(*_single_sets(writes))
    elif first is None:
        yield from checked(("MSET", *_pairs(writes)))
    else:
        yield from _send_with_ttl(able, writes, first)


def _send_with_ttl(able: ServerAbilities, writes: Writes, ttl: int) -> Operation[None]:
    if able.msetex:
        (reply,) = yield [("MSETEX", len(writes.keys), *_pairs(writes), "EX", ttl)]
        if not _is_refusal(reply):
            _raise_if_error(reply)
            return
        able.msetex = False
    if (yield from run_script(able, WRITE_WITH_TTL, writes.keys, [*writes.values, ttl])) is None:
        yield from checked(*_single_sets(writes))


def _pairs(writes: Writes) -> Iterator[str | bytes]:
    return chain.from_iterable(zip(writes.keys, writes.values, strict=True))


def _single_sets(writes: Writes) -> list[Command]:
    return [_set(*write) for write in zip(writes.keys, writes.values, writes.ttls, strict=True)]


def _set(key: str, value: bytes, ttl: int | None) -> Command:
    return ("SET", key, value) if ttl is None else ("SET", key, value, "EX", ttl)


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
    keys, _ = pack_texts(space, texts, model_name)
    return (yield from _unlink(counters, model_name, keys))


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
    if milliseconds == _NO_KEY:
        return None
    return NEVER if milliseconds == _NO_TTL else -(-milliseconds // 1000)


_NO_TTL: Final = -1  # the server's own codes
_NO_KEY: Final = -2


def expire(space: Keyspace, able: ServerAbilities, counters: Counters, key: str, ttl: TTL) -> Operation[bool]:
    """Gives an entry another TTL of its own and restarts it; returns whether there was such an entry."""
    seconds = space.resolve_ttl(ttl)
    (owned,) = space.owned_keys([key])
    changed = yield from _expire(able, owned, seconds)
    if changed:
        counters.expires(owned, seconds)
    return changed


def _expire(able: ServerAbilities, owned: str, seconds: int | None) -> Operation[bool]:
    header = (seconds or 0).to_bytes(4, "little")
    changed = yield from run_script(able, CHANGE_TTL, [owned], [header, seconds or 0])
    if changed is not None:
        return bool(changed)
    # Without scripts: read, change, write back only if the key is still there. SETRANGE would create it.
    (value,) = yield from checked(("MGET", owned))
    if value is None or not codec.is_sound(value):
        return False
    write: Command = ("SET", owned, codec.with_ttl(value, seconds), "XX")
    return (yield from checked(write if seconds is None else (*write, "EX", seconds))) is not None


# ------------------------------------------------------------------------------------------------ replies


def chunks(items: Sequence[T]) -> Iterator[Sequence[T]]:
    """The items, as many at a time as one command moves."""
    if len(items) <= CHUNK_ENTRIES:
        return iter([items] if items else [])
    return (items[start : start + CHUNK_ENTRIES] for start in range(0, len(items), CHUNK_ENTRIES))


def checked(*commands: Command) -> Operation[Any]:
    """Sends commands, raises the first error among the replies, and returns the first reply."""
    return (yield from checked_all(*commands))[0]


def checked_all(*commands: Command) -> Operation[list[Any]]:
    """Sends commands, raises the first error among the replies, and returns them all."""
    replies = yield list(commands)
    for reply in replies:
        _raise_if_error(reply)
    return replies


def _raise_if_error(reply: object) -> None:
    if isinstance(reply, ServerReplyError):
        raise reply


def run_script(
    able: ServerAbilities, script: Script, keys: Sequence[str], args: Sequence[bytes | int] = ()
) -> Operation[Any]:
    """The script's reply, or None where this server runs none for us (no script of ours returns nil)."""
    if not able.scripts:
        return None
    tail = (len(keys), *keys, *args)
    (reply,) = yield [("EVALSHA", script.sha, *tail)]
    if isinstance(reply, ServerReplyError) and reply.code == "NOSCRIPT":
        (reply,) = yield [("EVAL", script.source, *tail)]
    if _is_refusal(reply):
        able.scripts = False
        return None
    _raise_if_error(reply)
    return reply


def _is_refusal(reply: object) -> bool:
    """Whether the server refused the command as such, rather than what it was asked to do."""
    return isinstance(reply, ServerReplyError) and (
        reply.code in {"NOPERM", "CROSSSLOT"} or "unknown command" in str(reply).lower()
    )
