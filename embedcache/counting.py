"""What a lookup's replies add to the counters: hits, misses, which of those were damaged, and how much was read."""

from __future__ import annotations

from collections.abc import Sequence

from embedcache import codec
from embedcache.counters import Counters
from embedcache.entry import CacheEntry, Text


def count_lookup(
    counters: Counters,
    model_name: str | None,
    started: int,
    keys: Sequence[str],
    texts: Sequence[Text],
    values: Sequence[bytes | None],
    missing: Sequence[int],
    named: Sequence[int] = (),
    near_hits: int = 0,
) -> None:
    """Counts one lookup, of which the keys at the indexes `missing` were misses.

    Those hits whose values have the lengths `named` are counted elsewhere; `near_hits` have no keys here.
    """
    if not keys:
        return
    bytes_read = sum(map(len, filter(None, values))) - sum(named)
    counters.looked_up(model_name, started, keys, texts, len(missing), bytes_read, len(named), near_hits)
    if missing:
        there = [value for index in missing if (value := values[index]) is not None]
        absent = (keys[index] for index in missing if values[index] is None)
        counters.missed(model_name, absent, sum(not codec.is_sound(value) for value in there))


class LookupTally:
    """One lookup of texts that is answered chunk by chunk, counted as one when it has ended."""

    def __init__(self) -> None:
        self._keys: list[str] = []
        self._absent: list[str] = []
        self._misses = self._corrupt = self._bytes_read = 0

    def add(self, keys: Sequence[str], values: Sequence[bytes | None], missing: Sequence[int]) -> None:
        """Takes a chunk, of which the keys at the indexes `missing` were misses."""
        self._keys += keys
        self._bytes_read += sum(map(len, filter(None, values)))
        self._misses += len(missing)
        for index in missing:
            if (value := values[index]) is None:
                self._absent.append(keys[index])
            else:
                self._corrupt += not codec.is_sound(value)

    def count(self, counters: Counters, model_name: str, started: int, texts: Sequence[Text]) -> None:
        """Counts the lookup."""
        if self._keys:
            counters.looked_up(model_name, started, self._keys, texts, self._misses, self._bytes_read)
        if self._misses:
            counters.missed(model_name, iter(self._absent), self._corrupt)


def count_lookup_by_keys(
    counters: Counters,
    started: int,
    keys: Sequence[str],
    values: Sequence[bytes | None],
    found: Sequence[CacheEntry | None],
) -> None:
    """Counts one lookup by keys: hits under the models that the entries name, misses under none."""
    missing = [index for index, entry in enumerate(found) if entry is None]
    hits: dict[str, list[int]] = {}
    for entry, value in zip(found, values, strict=True):
        if entry is not None:
            hits.setdefault(entry["model_name"], []).append(len(value or b""))
    if len(hits) == 1 and not missing:
        count_lookup(counters, next(iter(hits)), started, keys, (), values, missing)
        return
    count_lookup(counters, None, started, keys, (), values, missing, [size for each in hits.values() for size in each])
    for model_name, sizes in hits.items():
        counters.count(model_name, hits=len(sizes), bytes_read=sum(sizes))
