"""What one process counts of one cache, in memory: `Counters` is told, `take` hands over what has come together.

Every lookup passes through here, so recording one costs well under a microsecond: a lock and some additions. What takes
longer (percentiles, telling expired misses from others, talking to the server) happens when counts are handed over, at
most once a second, in another thread.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, fields
from itertools import islice
from time import monotonic, perf_counter_ns
from typing import Final
from weakref import WeakSet

from embedcache.entry import Text

MAX_MODELS: Final = 256
"""Models counted apart, between two hand-overs and in a lifetime. What comes on top is counted under no name."""
MAX_TOLD: Final = 1_000
"""Missed and stored keys remembered between two hand-overs, each."""
MAX_SLOW: Final = 100
"""Slow lookups kept."""
MAX_SLOW_TEXT: Final = 200
"""Characters kept of a slow lookup's text, where texts are asked for."""

_OVERFLOW: Final = None


@dataclass(slots=True)
class Counts:
    """Sums about one model; they may be added up over processes and times.

    Attributes:
        hits: Texts found on the server.
        misses: Texts not found.
        near_hits: Texts found in the process's near cache.
        sets: Entries stored.
        drops: Entries removed by `drop` and `clear`.
        expired: Misses of entries that had been stored, and whose TTL had run out.
        evicted: Misses of entries that had been stored and not dropped, whose TTL had not run out.
        corrupt: Misses of entries that are there but damaged.
        errors: Calls that the server did not answer, or answered with an error.
        flights_saved: Texts not computed because another caller was computing them already.
        bytes_read: Length of the values read, in bytes.
        bytes_written: Length of the values written, in bytes.
        texts_computed: Texts that the model computed.
        compute_nanoseconds: What that took.
        tokens_computed: Tokens in those texts, as the vectorizer says or estimates.
        latencies: Lookup calls, whether of one text or of a batch, by slot of `embedcache.histogram`.
    """

    hits: int = 0
    misses: int = 0
    near_hits: int = 0
    sets: int = 0
    drops: int = 0
    expired: int = 0
    evicted: int = 0
    corrupt: int = 0
    errors: int = 0
    flights_saved: int = 0
    bytes_read: int = 0
    bytes_written: int = 0
    texts_computed: int = 0
    compute_nanoseconds: int = 0
    tokens_computed: int = 0
    latencies: dict[int, int] = field(default_factory=dict)

    def add(self, other: Counts) -> None:
        """Adds what another has counted."""
        for name in SUMS:
            setattr(self, name, getattr(self, name) + getattr(other, name))
        for slot, count in other.latencies.items():
            self.latencies[slot] = self.latencies.get(slot, 0) + count


SUMS: Final = tuple(each.name for each in fields(Counts) if each.name != "latencies")

ByModel = dict[str | None, Counts]
"""Counts by model name; None is what no model can be named for, such as a miss of a key."""


def total(counts: Iterable[Counts]) -> Counts:
    """The sum of these."""
    added = Counts()
    for each in counts:
        added.add(each)
    return added


def add_by_model(target: ByModel, counts: ByModel) -> None:
    """Adds to each model's counts in `target`, to a copy where it has none yet."""
    for model_name, each in counts.items():
        target.setdefault(model_name, Counts()).add(each)


@dataclass(frozen=True, slots=True)
class Slow:
    """One slow lookup, as this process saw it.

    Attributes:
        at: When it ended, by `time.monotonic`.
        seconds: How long it took.
        model_name: The model asked for, or None where keys were asked.
        key: The first key asked for.
        texts: How many texts or keys were asked for.
        hits: How many of them were found.
        text: The start of the first text, or None where texts are not to be kept.
    """

    at: float
    seconds: float
    model_name: str | None
    key: str
    texts: int
    hits: int
    text: str | None


@dataclass(slots=True)
class Batch:
    """What was counted in one stretch of time.

    Attributes:
        since: When it began, by `time.monotonic`.
        until: When it ended.
        counts: By model.
        missed: Keys that were not there, each with its model's name and the time: the first `MAX_TOLD`.
        stored: Keys written, each with the time and its TTL in seconds or None: the first `MAX_TOLD`.
        dropped: Keys removed on purpose: the first `MAX_TOLD`.
        cleared: Whether the whole cache was.
        slow: Lookups over the threshold, the last `MAX_SLOW`.
    """

    since: float
    until: float = 0.0
    counts: ByModel = field(default_factory=dict)
    missed: list[tuple[str, str | None, float]] = field(default_factory=list)
    stored: dict[str, tuple[float, int | None]] = field(default_factory=dict)
    dropped: set[str] = field(default_factory=set)
    cleared: bool = False
    slow: list[Slow] = field(default_factory=list)

    def add(self, later: Batch) -> None:
        """Appends the stretch that followed."""
        self.until = later.until
        add_by_model(self.counts, later.counts)
        self.missed = (self.missed + later.missed)[:MAX_TOLD]
        if later.cleared:
            self.cleared, self.stored = True, {}
        for key in later.dropped:
            self.stored.pop(key, None)
        self.stored = dict(islice((self.stored | later.stored).items(), MAX_TOLD))
        self.dropped = set(islice((self.dropped - later.stored.keys()) | later.dropped, MAX_TOLD))
        self.slow = (self.slow + later.slow)[-MAX_SLOW:]


class Counters:
    """What this process counts of one cache. Threads may share it; a forked child starts from zero.

    Args:
        wake: Called, outside of any lock, when something is counted for the first time since the last `take`.
        slow_seconds: Lookups that take longer are kept one by one; None keeps none.
        slow_texts: Whether the start of their text is kept as well.
    """

    def __init__(
        self, wake: Callable[[], None], slow_seconds: float | None = None, *, slow_texts: bool = False
    ) -> None:
        self._wake = wake
        self._slow_nanoseconds = float("inf") if slow_seconds is None else slow_seconds * 1e9
        self._slow_texts = slow_texts
        self._start_over()
        _alive.add(self)

    def _start_over(self) -> None:
        self._lock = threading.Lock()
        self._lifetime: ByModel = {}
        self._batch = Batch(monotonic())
        self._counts = self._batch.counts
        self._idle = True

    # ---------------------------------------------------------------------------------------- recording

    def looked_up(
        self,
        model_name: str | None,
        started: int,
        keys: Sequence[str],
        texts: Sequence[Text],
        misses: int,
        bytes_read: int,
        named_hits: int = 0,
        near_hits: int = 0,
    ) -> None:
        """One lookup call.

        Args:
            model_name: The model asked for, or None.
            started: When the call began, by `time.perf_counter_ns`.
            keys: What the server was asked for.
            texts: The same as texts; empty where keys were asked.
            misses: How many were not found.
            bytes_read: Length of the values that came, without those of `named_hits`.
            named_hits: How many were found that are counted under other models, each by `count`.
            near_hits: How many more were found in the near cache, without asking for their keys.
        """
        nanoseconds = perf_counter_ns() - started
        # As `histogram.slot_of`, whose call would cost a fifth of all this.
        spare_bits = nanoseconds.bit_length() - 5
        slot = (spare_bits << 4) + (nanoseconds >> spare_bits) if spare_bits > 0 else nanoseconds
        with self._lock:
            counts = self._counts.get(model_name) or self._new_model(model_name)
            counts.hits += len(keys) - misses - named_hits
            counts.misses += misses
            counts.near_hits += near_hits
            counts.bytes_read += bytes_read
            latencies = counts.latencies
            latencies[slot] = latencies.get(slot, 0) + 1
            if nanoseconds > self._slow_nanoseconds and keys:  # else no server was waited for
                self._note_slow(model_name, nanoseconds, keys, texts, misses)
            idle, self._idle = self._idle, False
        if idle:
            self._wake()

    def missed(self, model_name: str | None, absent: Iterable[str], corrupt: int) -> None:
        """More about misses that `looked_up` has counted: the keys of those not there, and how many were damaged."""
        with self._lock:
            room = MAX_TOLD - len(self._batch.missed)
            now = monotonic()
            self._batch.missed += [(key, model_name, now) for key in islice(absent, room)]
            idle, self._idle = self._idle, False
        if idle:
            self._wake()  # what `looked_up` counted was taken in between
        if corrupt:
            self.count(model_name, corrupt=corrupt)

    def wrote(
        self, keys: Sequence[str], ttls: Sequence[int | None], model_names: Sequence[str], sizes: Sequence[int]
    ) -> None:
        """Entries were stored, as columns: their keys, TTLs in seconds, models, and lengths of their values."""
        with self._lock:
            for model_name in set(model_names):
                counts = self._counts.get(model_name) or self._new_model(model_name)
                own = (
                    sizes
                    if len(sizes) == 1
                    else [s for s, m in zip(sizes, model_names, strict=True) if m == model_name]
                )
                counts.sets += len(own)
                counts.bytes_written += sum(own)
            self._note_stored(keys, ttls)
            idle, self._idle = self._idle, False
        if idle:
            self._wake()

    def dropped(self, model_name: str | None, keys: Sequence[str], count: int) -> None:
        """These keys were removed, and `count` of them had been there."""
        with self._lock:
            for key in keys:
                self._batch.stored.pop(key, None)
            self._batch.dropped.update(islice(keys, MAX_TOLD - len(self._batch.dropped)))
        self.count(model_name, drops=count)

    def cleared(self) -> None:
        """The whole cache was removed."""
        with self._lock:
            self._batch.cleared = True
            self._batch.stored.clear()
            idle, self._idle = self._idle, False
        if idle:
            self._wake()

    def expires(self, key: str, ttl: int | None) -> None:
        """An entry was given another TTL in seconds, or None."""
        with self._lock:
            self._note_stored([key], [ttl])
            idle, self._idle = self._idle, False
        if idle:
            self._wake()

    def count(self, model_name: str | None, **amounts: int) -> None:
        """Adds to a model's `Counts`, each by its attribute's name."""
        with self._lock:
            counts = self._counts.get(model_name) or self._new_model(model_name)
            for name, amount in amounts.items():
                setattr(counts, name, getattr(counts, name) + amount)
            idle, self._idle = self._idle, False
        if idle:
            self._wake()

    def _new_model(self, model_name: str | None) -> Counts:
        if len(self._counts) >= MAX_MODELS:
            model_name = _OVERFLOW
        return self._counts.setdefault(model_name, Counts())

    def _note_stored(self, keys: Sequence[str], ttls: Sequence[int | None]) -> None:
        now = monotonic()
        stored, dropped = self._batch.stored, self._batch.dropped
        for key, ttl in islice(zip(keys, ttls, strict=True), MAX_TOLD - len(stored)):
            dropped.discard(key)
            stored[key] = now, ttl

    def _note_slow(
        self, model_name: str | None, nanoseconds: int, keys: Sequence[str], texts: Sequence[Text], misses: int
    ) -> None:
        text = next(iter(texts), None) if self._slow_texts else None
        shown = text[: 4 * MAX_SLOW_TEXT].decode(errors="replace") if isinstance(text, bytes) else text
        slow = self._batch.slow
        if len(slow) == MAX_SLOW:
            del slow[0]
        slow.append(
            Slow(
                at=monotonic(),
                seconds=nanoseconds / 1e9,
                model_name=model_name,
                key=keys[0],
                texts=len(keys),
                hits=len(keys) - misses,
                text=None if shown is None else shown[:MAX_SLOW_TEXT],
            )
        )

    # ---------------------------------------------------------------------------------------- handing over

    @property
    def is_idle(self) -> bool:
        """Whether nothing was counted since the last `take`."""
        return self._idle

    def take(self) -> Batch | None:
        """What was counted since the last `take`; None where that is nothing."""
        with self._lock:
            if self._idle:
                return None
            taken, self._batch = self._batch, Batch(monotonic())
            self._counts = self._batch.counts
            self._idle = True
            _add_bounded(self._lifetime, taken.counts)
        taken.until = monotonic()
        return taken

    def lifetime(self) -> ByModel:
        """All that this object has counted, handed over or not."""
        copied: ByModel = {}
        with self._lock:
            add_by_model(copied, self._lifetime)
            _add_bounded(copied, self._counts)
        return copied


def _add_bounded(lifetime: ByModel, counts: ByModel) -> None:
    for model_name, each in counts.items():
        known = model_name in lifetime or len(lifetime) < MAX_MODELS
        add_by_model(lifetime, {model_name if known else _OVERFLOW: each})


class NoCounters(Counters):
    """Counts nothing: what a cache with ``stats=False`` is told to use."""

    def __init__(self) -> None:
        super().__init__(wake=lambda: None)

    def looked_up(self, *_: object) -> None:
        """Does nothing."""

    def missed(self, *_: object) -> None:
        """Does nothing."""

    def wrote(self, *_: object) -> None:
        """Does nothing."""

    def dropped(self, *_: object) -> None:
        """Does nothing."""

    def cleared(self) -> None:
        """Does nothing."""

    def expires(self, *_: object) -> None:
        """Does nothing."""

    def count(self, model_name: str | None, **amounts: int) -> None:
        """Does nothing."""


_alive: WeakSet[Counters] = WeakSet()


def _start_over_in_child() -> None:
    """What the parent has counted is the parent's to hand over, and its locks may be held by threads that are gone."""
    for counters in _alive:
        counters._start_over()


os.register_at_fork(after_in_child=_start_over_in_child)
