"""Entries kept in this process, so that looking them up again asks no server: which ones, for how long, what ends it.

A `NearCache` is a bounded store, least recently used first out. What it holds may be out of date, for as long as it is
held. That is bounded thrice: by `near_ttl`; by when the entry itself expires; and by its being dropped because somebody
wrote it: this process (`near_caches`), or another one where the server tells of it (`embedcache.tracking`).

A lookup that was under way while a key was dropped must not bring its old value back. So a lookup notes the
*generation* before it asks the server; every drop begins another one, and what is older than its key's last drop is
not kept.

A hit costs 2 to 3 microseconds, of which the SHA-256 that keys are made of would be a third: entries are found by text
and model name.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from time import monotonic
from typing import Any, Final, NamedTuple
from weakref import WeakSet

import numpy as np
from cachetools import LRUCache

from embedcache.arguments import check_seconds, check_whole
from embedcache.entry import CacheEntry, FloatArray, Text

NEAR_TTL_SECONDS: Final = 60.0
NEAR_CACHE_BYTES: Final = 64 * 1024 * 1024
ENTRY_BYTES: Final = 1_000
"""What an entry costs beside its vector, text and metadata, as measured: a dict, an array, its key and id, its places
in three tables."""

_MAX_NOTED: Final = 4_096
"""Dropped keys remembered one by one. Past that, no lookup that is under way keeps what it finds."""
_Identity = tuple[Text, str]


@dataclass(frozen=True, slots=True)
class NearState:
    """What a near cache holds.

    Attributes:
        entries: How many entries.
        bytes: What they take, in bytes, by our reckoning.
        max_entries: How many it may hold.
        max_bytes: How many bytes it may hold.
        ttl: Seconds for which an entry is kept at most.
        tracked: Whether the server tells at once what others write. Where it does not, `ttl` alone bounds how old an
            entry may be.
    """

    entries: int
    bytes: int
    max_entries: int
    max_bytes: int
    ttl: float
    tracked: bool


class _Held(NamedTuple):
    """One entry, until when by `time.monotonic`, and its size in bytes. What is in it is handed out as copies."""

    entry: CacheEntry
    until: float
    size: int


class _Store(LRUCache[_Identity, _Held]):
    """Entries by text and model name, and the same by key."""

    def __init__(self, max_entries: int, max_bytes: int) -> None:
        super().__init__(max_bytes, getsizeof=_size_held)
        self.by_key: dict[str, _Identity] = {}
        self.max_entries = max_entries

    def put(self, identity: _Identity, held: _Held) -> None:
        """Holds an entry, in place of the least recently used where there is no room; not if it is too large."""
        key = held.entry["key"]
        before = self.by_key.get(key)
        if before is not None and (before != identity or held.size > self.maxsize):
            del self[before]  # texts that share a key, "a" and b"a" say, take each other's place on the server too
        if held.size > self.maxsize:
            return
        if len(self) >= self.max_entries and identity not in self:
            self.popitem()
        self[identity] = held
        self.by_key[key] = identity

    def __delitem__(self, identity: _Identity) -> None:
        key = self[identity].entry["key"]
        super().__delitem__(identity)
        del self.by_key[key]

    def clear(self) -> None:
        super().clear()
        self.by_key.clear()


def _size_held(held: _Held) -> int:
    return held.size


class NearCache:
    """The entries of one cache that this process keeps. Threads may share it; a forked child starts with none.

    Args:
        name: The cache's name.
        max_entries: How many entries it may hold.
        ttl: Seconds for which an entry is kept at most.
        max_bytes: How many bytes it may hold.

    Raises:
        InvalidInputError: One of them is out of range.
    """

    def __init__(
        self, name: str, max_entries: int, ttl: float = NEAR_TTL_SECONDS, max_bytes: int = NEAR_CACHE_BYTES
    ) -> None:
        max_entries = check_whole("near_cache", max_entries)
        max_bytes = check_whole("near_cache_bytes", max_bytes)
        check_seconds("near_ttl", ttl)
        self.name = name
        self.ttl = float(ttl)
        self._key_length = len(name) + 1 + 64
        self._limits = max_entries, max_bytes
        self._start_over()
        with _registering:
            _alive.add(self)

    def _start_over(self) -> None:
        self._lock = threading.Lock()
        self._store = _Store(*self._limits)
        self._generation = self._oldest = 0
        self._dropped: dict[str, int] = {}

    # ---------------------------------------------------------------------------------------- looking up

    def get(self, text: Text, model_name: str) -> CacheEntry | None:
        """The entry of this text and model, or None. It is the caller's own, but for the vector, which is read-only."""
        try:
            with self._lock:
                held = self._store[text, model_name]
        except (KeyError, TypeError):  # TypeError: what cannot be hashed is no text
            return None
        return _handed_out(held.entry) if held.until > monotonic() else None

    def get_many(self, texts: Iterable[Text], model_name: str) -> list[CacheEntry | None]:
        """As `get`, of each text in order."""
        return [entry and _handed_out(entry) for entry in self._find((text, model_name) for text in texts)]

    def get_by_keys(self, keys: Sequence[str]) -> list[CacheEntry | None]:
        """As `get`, of each key in order."""
        by_key = self._store.by_key
        return [entry and _handed_out(entry) for entry in self._find(by_key.get(key) for key in keys)]

    def vectors(self, texts: Iterable[Text], model_name: str) -> list[FloatArray | None]:
        """The vector of each text, in order, or None. They are to be copied from, not handed out."""
        return [entry and entry["embedding"] for entry in self._find((text, model_name) for text in texts)]

    def _find(self, identities: Iterable[_Identity | None]) -> list[CacheEntry | None]:
        now = monotonic()
        found: list[CacheEntry | None] = []
        with self._lock:
            store = self._store
            for identity in identities:
                held = None
                try:
                    if identity is not None and identity in store:
                        held = store[identity]
                except TypeError:  # what cannot be hashed is no text: the server's side says so
                    held = None
                found.append(held.entry if held is not None and held.until > now else None)
        return found

    # ---------------------------------------------------------------------------------------- keeping

    @property
    def generation(self) -> int:
        """What a lookup notes before it asks the server."""
        return self._generation

    def keep(self, entries: Iterable[tuple[CacheEntry, float]], generation: int) -> None:
        """Keeps what a lookup found, but what was dropped while it was under way.

        Args:
            entries: Each with the moment of `time.monotonic` when it ends.
            generation: As it was before the server was asked.
        """
        ready = [_held(entry, until) for entry, until in entries]
        with self._lock:
            if generation < self._oldest:
                return
            for held in ready:
                entry = held.entry
                if self._dropped.get(entry["key"], -1) <= generation:
                    self._store.put((entry["text"], entry["model_name"]), held)

    # ---------------------------------------------------------------------------------------- dropping

    def drop(self, keys: Iterable[str]) -> None:
        """Lets go of the entries under these keys, those too that a lookup is just about to keep."""
        with self._lock:
            self._generation += 1
            store = self._store
            for key in keys:
                if len(key) != self._key_length:  # of the statistics, or another cache's whose name starts like ours
                    continue
                self._dropped[key] = self._generation
                if (identity := store.by_key.get(key)) is not None:
                    del store[identity]
            if len(self._dropped) > _MAX_NOTED:
                self._dropped.clear()
                self._oldest = self._generation

    def clear(self) -> None:
        """Lets go of everything, and of what a lookup is just about to keep."""
        with self._lock:
            self._generation += 1
            self._oldest = self._generation
            self._dropped.clear()
            self._store.clear()

    def state(self, *, tracked: bool) -> NearState:
        """What it holds."""
        with self._lock:
            entries, size = len(self._store), int(self._store.currsize)
        max_entries, max_bytes = self._limits
        return NearState(entries, size, max_entries, max_bytes, self.ttl, tracked)


# ------------------------------------------------------------------------------------------------ copies


def _held(entry: CacheEntry, until: float) -> _Held:
    """An entry of our own: what the caller does to his changes nothing here."""
    given = entry["embedding"]
    # Out of bytes, which nobody can make writable again. A view of the reply would keep its text and head alive, too.
    vector = np.frombuffer(given.tobytes(), given.dtype)
    size = ENTRY_BYTES + vector.nbytes + sys.getsizeof(entry["text"])
    own = entry.copy()
    own["embedding"] = vector
    if (metadata := entry["metadata"]) is not None:
        own["metadata"] = _copied(metadata)
        size += _size(metadata)
    return _Held(own, until, size)


def _handed_out(held: CacheEntry) -> CacheEntry:
    entry = held.copy()
    entry["embedding"] = held["embedding"][:]  # an array's shape can be set, even that of a read-only one
    if held["metadata"] is not None:
        entry["metadata"] = _copied(held["metadata"])
    return entry


def _copied(value: Any) -> Any:
    """A copy of JSON values. `copy.deepcopy` would take ten times as long."""
    if isinstance(value, dict):
        return {name: _copied(each) if isinstance(each, dict | list) else each for name, each in value.items()}
    if isinstance(value, list):
        return [_copied(each) if isinstance(each, dict | list) else each for each in value]
    return value


def _size(value: Any) -> int:
    """Bytes that JSON values take."""
    if isinstance(value, dict):
        return sys.getsizeof(value) + sum(sys.getsizeof(name) + _size(each) for name, each in value.items())
    if isinstance(value, list):
        return sys.getsizeof(value) + sum(map(_size, value))
    return 0 if value is None else sys.getsizeof(value)


# ------------------------------------------------------------------------------------------------ all of the process


def near_caches(name: str) -> list[NearCache]:
    """The near caches that this process has of a cache, whichever object they belong to.

    They go by the name alone: of two servers, one is then asked once more than it need be.
    """
    if not _alive:
        return []
    with _registering:
        return [near for near in _alive if near.name == name]


_alive: WeakSet[NearCache] = WeakSet()
_registering = threading.Lock()


def _start_over_in_child() -> None:
    """The parent's locks may be held by threads that are gone, and nothing tells the child of what others write."""
    global _registering  # noqa: PLW0603 - the parent's may be locked for ever
    _registering = threading.Lock()
    for near in _alive:
        near._start_over()


os.register_at_fork(after_in_child=_start_over_in_child)
