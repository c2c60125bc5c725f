"""Lookups that ask the near cache first and the server for the rest, and writes that drop from it what they touch.

An entry with a TTL of its own takes a second round trip when it is kept: its remaining TTL bounds how long. TTLs are
restarted more rarely than without a near cache, only once half of one has passed: a hit in this process tells the
server nothing, and a restart tells every process that tracks the key to drop it, as if it had been written.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from time import monotonic, perf_counter_ns
from types import GeneratorType
from typing import TypeVar, cast

import numpy as np
import numpy.typing as npt

from embedcache import operations
from embedcache.counters import Counters
from embedcache.counting import count_lookup
from embedcache.entry import CacheEntry, FloatArray, Text
from embedcache.entry_layout import EntryLayout
from embedcache.errors import InvalidInputError
from embedcache.keyspace import Keyspace, check_batch, check_dimension, check_keys, encode_texts
from embedcache.matrices import stack
from embedcache.near import NearCache, near_caches
from embedcache.operations import NO_TTL, Command, Operation, Read, ServerAbilities, chunks, remaining_milliseconds
from embedcache.packed_layout import PACKED

R = TypeVar("R")


# ------------------------------------------------------------------------------------------------ reading


def get_one(
    near: NearCache,
    space: Keyspace,
    able: ServerAbilities,
    counters: Counters,
    text: Text,
    model_name: str,
    *,
    refresh: bool,
    layout: EntryLayout = PACKED,
) -> Operation[CacheEntry | None]:
    """The entry of one text that the near cache has not, or None; it is kept there."""
    generation, asked_at = near.generation, monotonic()
    entry = yield from operations.get_one(space, able, counters, text, model_name, refresh=False, layout=layout)
    if entry is not None:
        yield from _keep(near, space, able, [entry], generation, asked_at, refresh=refresh, layout=layout)
    return entry


def mget(
    near: NearCache,
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
    check_batch(texts, "texts")
    texts = list(texts)
    found = near.get_many(texts, model_name)
    asked = [index for index, entry in enumerate(found) if entry is None]
    if not asked and texts:
        counters.looked_up(model_name, started, (), (), 0, 0, 0, len(texts))
        return found
    read = yield from _ask(near, space, able, texts, asked, model_name, refresh=refresh, layout=layout)
    for index, entry in zip(asked, read.entries, strict=True):
        found[index] = entry
    missing = [index for index, entry in enumerate(read.entries) if entry is None]
    _count(counters, model_name, started, [texts[index] for index in asked], read, missing, len(texts) - len(asked))
    return found


def mget_embeddings(
    near: NearCache,
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
    texts = list(texts)
    vectors = near.vectors(texts, model_name)
    asked = [index for index, vector in enumerate(vectors) if vector is None]
    read = Read([], [], [])
    if asked or not texts:
        read = yield from _ask(near, space, able, texts, asked, model_name, refresh=refresh, layout=layout)
        for index, entry in zip(asked, read.entries, strict=True):
            vectors[index] = None if entry is None else entry["embedding"]
    matrix, mask = stack(vectors, dimension)
    missing = [] if mask.all() else np.flatnonzero(~mask[asked]).tolist()
    near_hits = int(mask.sum()) - (len(asked) - len(missing))
    _count(counters, model_name, started, [texts[index] for index in asked], read, missing, near_hits)
    if other_dimension := len(texts) - len(asked) - near_hits:
        counters.count(model_name, misses=other_dimension)
    return matrix, mask


def mget_by_keys(
    near: NearCache,
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
    keys = list(check_keys(keys))
    found = near.get_by_keys(keys)
    hits = Counter(entry["model_name"] for entry in found if entry is not None)
    asked = [index for index, entry in enumerate(found) if entry is None]
    if asked:
        generation, asked_at = near.generation, monotonic()
        rest = yield from operations.mget_by_keys(
            space, able, counters, [keys[i] for i in asked], refresh=False, layout=layout
        )
        yield from _keep(near, space, able, rest, generation, asked_at, refresh=refresh, layout=layout)
        for index, entry in zip(asked, rest, strict=True):
            found[index] = entry
    elif hits:
        first, number = hits.popitem()  # the call is one, and is counted with one of its models
        counters.looked_up(first, started, (), (), 0, 0, 0, number)
    for model_name, number in hits.items():
        counters.count(model_name, near_hits=number)
    return found


def _ask(
    near: NearCache,
    space: Keyspace,
    able: ServerAbilities,
    texts: Sequence[Text],
    asked: Sequence[int],
    model_name: str,
    *,
    refresh: bool,
    layout: EntryLayout = PACKED,
) -> Operation[Read]:
    """What the server has of the texts at the indexes `asked`, kept from now on."""
    generation, asked_at = near.generation, monotonic()
    try:
        read = yield from operations.read_entries(
            space, able, [texts[index] for index in asked], model_name, refresh=False, layout=layout
        )
    except InvalidInputError:
        encode_texts(texts)  # which names the text by its index among all of them
        raise
    yield from _keep(near, space, able, read.entries, generation, asked_at, refresh=refresh, layout=layout)
    return read


def _count(
    counters: Counters,
    model_name: str,
    started: int,
    texts: Sequence[Text],
    read: Read,
    missing: Sequence[int],
    near_hits: int,
) -> None:
    """Counts one lookup, of which the server was asked for these texts."""
    if texts:
        count_lookup(counters, model_name, started, read.keys, texts, read.values, missing, near_hits=near_hits)
    elif near_hits:
        counters.looked_up(model_name, started, (), (), 0, 0, 0, near_hits)


# ------------------------------------------------------------------------------------------------ keeping


def _keep(
    near: NearCache,
    space: Keyspace,
    able: ServerAbilities,
    entries: Iterable[CacheEntry | None],
    generation: int,
    asked_at: float,
    *,
    refresh: bool,
    layout: EntryLayout,
) -> Operation[None]:
    """Keeps what was found, each as long as it may be, and restarts the TTLs of which half has passed."""
    found = [entry for entry in entries if entry is not None]
    ttls = layout.ttls_of(space, found)
    left = (yield from _seconds_left(able, list(ttls))) if ttls else {}
    due: dict[str, int] = {}
    until: dict[str, float] = {}
    for key, ttl in ttls.items():
        until[key] = asked_at + left[key]
        if refresh and ttl and left[key] > 0:
            if not ttl / 2 < left[key] <= ttl:
                due[key], left[key] = ttl, ttl
            until[key] = asked_at + left[key] - ttl / 2
    if due:
        yield from layout.restart(able, due)
    latest = asked_at + near.ttl
    kept = [(entry, min(latest, until.get(entry["key"], latest))) for entry in found]
    near.keep([(entry, end) for entry, end in kept if end > asked_at], generation)


def _seconds_left(able: ServerAbilities, keys: Sequence[str]) -> Operation[dict[str, float]]:
    """Seconds until each key expires: infinite where it never does, none where it is gone."""
    left: dict[str, float] = {}
    for chunk in chunks(keys):
        for key, milliseconds in zip(chunk, (yield from remaining_milliseconds(able, chunk)), strict=True):
            left[key] = float("inf") if milliseconds == NO_TTL else max(milliseconds, 0) / 1_000
    return left


# ------------------------------------------------------------------------------------------------ writing


def dropping(name: str, operation: Operation[R]) -> Operation[R]:
    """The operation, which drops the keys that it names from this process's near caches of that cache.

    Before they are sent, and after they were answered; or were not, for the server may have carried them out. For that,
    whoever drives it closes it in the end.
    """
    nears = near_caches(name)
    return _named(_dropping(nears, name + ":", operation), operation) if nears else operation


def _dropping(nears: Sequence[NearCache], prefix: str, operation: Operation[R]) -> Operation[R]:
    try:
        commands = next(operation)
        while True:
            keys = _keys(commands, prefix)
            _drop(nears, keys)
            try:
                replies = yield commands
            finally:
                _drop(nears, keys)
            commands = operation.send(replies)
    except StopIteration as end:
        return cast("R", end.value)
    finally:
        operation.close()


def emptying(name: str, operation: Operation[R]) -> Operation[R]:
    """The operation, which drops everything from this process's near caches of that cache."""
    return _named(_emptying(name, operation), operation)


def _emptying(name: str, operation: Operation[R]) -> Operation[R]:
    _clear(name)
    try:
        return (yield from operation)
    finally:
        _clear(name)


def _keys(commands: Iterable[Command], prefix: str) -> list[str]:
    """What may be keys in these commands: values are bytes, and the names of commands have no such start."""
    return [part for command in commands for part in command if isinstance(part, str) and part.startswith(prefix)]


def _drop(nears: Iterable[NearCache], keys: Sequence[str]) -> None:
    if keys:
        for near in nears:
            near.drop(keys)


def _clear(name: str) -> None:
    for near in near_caches(name):
        near.clear()


def _named(wrapper: Operation[R], operation: Operation[R]) -> Operation[R]:
    """The wrapper under the operation's name, which observers are told."""
    name = cast("GeneratorType[object, object, object]", operation).__name__
    cast("GeneratorType[object, object, object]", wrapper).__name__ = name
    return wrapper
