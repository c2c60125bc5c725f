"""How many lookups hit a cache of a given size: a formula, and a simulation of what Redis and Valkey do.

    python benchmarks/simulate.py --texts 1000000 --exponent 0.9 --entries 100000 --ttl 3600 --rate 500

Texts are asked for independently, by Zipf's law: the k-th most frequent one in proportion to 1 / k ** exponent. A miss
stores the text; a hit restarts its TTL, as this package does. Time is counted in lookups: a TTL of 3,600 s at 500
lookups a second is 1,800,000 lookups.
"""

from __future__ import annotations

import argparse
import math
import random
from bisect import insort
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

POOL = 16
"""Candidates that a server keeps from one eviction to the next."""
SAMPLES = 5
"""Keys that it looks at for each eviction: its own default for maxmemory-samples."""

Weights = npt.NDArray[np.float64]


def zipf(texts: int, exponent: float) -> Weights:
    """How likely each text is asked for next, shape (texts,), the most frequent one first."""
    weights = np.arange(1, texts + 1, dtype=np.float64) ** -exponent
    return weights / weights.sum()


def predicted(weights: Weights, entries: int, ttl: float = math.inf) -> float:
    """The share of lookups that hit, by Che's approximation for an exact LRU.

    An entry is there if its text was last asked for within the last T lookups, where T is such that `entries` of them
    are there on average, or the TTL if that is less. Source: H. Che, Y. Tung, Z. Wang, "Hierarchical Web Caching
    Systems: Modeling, Design and Experimental Results", IEEE JSAC 20(7), 2002; why it is so accurate: C. Fricker,
    P. Robert, J. Roberts, "A versatile and accurate approximation for LRU cache performance", 2012 (arXiv 1202.3974).

    Args:
        weights: From `zipf`, or any that sum to 1.
        entries: How many entries the cache holds.
        ttl: The TTL in lookups, which each hit restarts.
    """

    def there(lookups: float) -> float:
        return float(-np.expm1(-weights * lookups).sum())

    low, high = 0.0, min(ttl, 1.0 * len(weights))
    if entries >= len(weights) and math.isinf(ttl):
        return 1.0
    while there(high) < entries and high < ttl:
        low, high = high, min(2 * high, ttl)
    if there(high) > entries:
        for _ in range(40):
            middle = (low + high) / 2
            low, high = (middle, high) if there(middle) < entries else (low, middle)
    return float((weights * -np.expm1(-weights * high)).sum())


@dataclass
class SampledLRU:
    """The entries of a server under ``allkeys-lru``: it evicts the longest idle of a few that it looks at.

    Attributes:
        entries: How many it holds.
        ttl: In lookups; each hit restarts it.
        tick: Lookups per tick of the server's clock, which goes by the second: it tells no difference within one.
        seed: Of what it looks at.
    """

    entries: int
    ttl: float = math.inf
    tick: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)  # noqa: S311 - the same in every run
        self._used: dict[int, int] = {}
        self._order: list[int] = []
        self._place: dict[int, int] = {}
        self._pool: list[tuple[int, float, int]] = []
        self._now = 0

    def look_up(self, text: int) -> bool:
        """Whether this text's entry is there; it is afterwards."""
        self._now += 1
        last = self._used.get(text)
        hit = last is not None and self._now - last <= self.ttl
        if last is None:
            if len(self._order) >= self.entries:
                self._evict()
            self._place[text] = len(self._order)
            self._order.append(text)
        self._used[text] = self._now
        return hit

    def _evict(self) -> None:
        for _ in range(SAMPLES):
            text = self._order[int(self._random.random() * len(self._order))]
            # What was used within one tick is told apart by chance.
            seen = (self._used[text] // self.tick, self._random.random(), text)
            if all(text != each for _, _, each in self._pool):
                insort(self._pool, seen)
                del self._pool[POOL:]
        while self._pool:
            _, _, text = self._pool.pop(0)
            if text in self._used:
                self._remove(text)
                return
        self._evict()

    def _remove(self, text: int) -> None:
        place, last = self._place.pop(text), self._order.pop()
        if last != text:
            self._order[place], self._place[last] = last, place
        del self._used[text]


def simulated(
    weights: Weights,
    entries: int,
    ttl: float = math.inf,
    *,
    lookups: int,
    warm_up: int | None = None,
    tick: int = 1,
    seed: int = 0,
) -> float:
    """The share of lookups that hit a server, after as many that are not counted.

    Args:
        weights: From `zipf`, or any that sum to 1.
        entries: How many entries the server has room for.
        ttl: In lookups; each hit restarts it.
        lookups: How many to count.
        warm_up: How many before that; None is as many.
        tick: As in `SampledLRU`.
        seed: Of the lookups, and of what the server looks at.
    """
    warm_up = lookups if warm_up is None else warm_up
    server = SampledLRU(entries, ttl, tick, seed)
    asked = np.random.default_rng(seed).choice(len(weights), warm_up + lookups, p=weights)
    hits = [server.look_up(text) for text in asked.tolist()]
    return sum(hits[warm_up:]) / lookups


def main() -> None:
    """Prints both for what the command line says."""
    parser = argparse.ArgumentParser(description="Hit rates of a cache, by its size")
    parser.add_argument("--texts", type=int, default=100_000)
    parser.add_argument("--exponent", type=float, default=0.9)
    parser.add_argument("--entries", type=int, default=10_000)
    parser.add_argument("--ttl", type=float, default=math.inf, help="seconds")
    parser.add_argument("--rate", type=float, default=1_000, help="lookups per second")
    parser.add_argument("--lookups", type=int, default=300_000)
    given = parser.parse_args()
    weights, ttl = zipf(given.texts, given.exponent), given.ttl * given.rate
    print(f"formula    {predicted(weights, given.entries, ttl):.1%}")
    tick = max(1, round(given.rate))
    print(f"simulation {simulated(weights, given.entries, ttl, lookups=given.lookups, tick=tick):.1%}")


if __name__ == "__main__":
    main()
