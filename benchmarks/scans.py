"""How fast a large cache is walked over, as the dashboard's pages do in the background: keys, heads, filters, pages.

    python benchmarks/scans.py [--entries 1000000] [--dimension 384] [--rounds 3] [--url redis://... --name big]

Starts an embedded server in a folder of its own and fills it (a minute or two for a million entries), unless `--url`
names one that `fill.py` has filled. No walk reads a vector.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass

from fill import filled

from embedcache import inspector
from embedcache.connection import RedisConnection
from embedcache.filtering import EntryFilter
from embedcache.walking import count_keys, index_cache, match

PAGE = 100
"""Entries that a page of Browse shows at most."""
PAGES = 50


@dataclass(frozen=True, slots=True)
class Walk:
    """One line of the table: what returns how many it went over, and how many a second it should be."""

    name: str
    run: Callable[[], int]
    goal: int | None = None


def walks(connection: RedisConnection, name: str) -> list[Walk]:
    """What the pages do, each with the number of entries that it went over."""
    index = index_cache(connection, name, ignore)
    words, field = EntryFilter(text_contains="library card"), EntryFilter(metadata_field="page", metadata_value="7")
    shown = index.keys(range(0, len(index), max(1, len(index) // (PAGE * PAGES))))[: PAGE * PAGES]

    def by_heads(asked: EntryFilter) -> int:
        match(connection, index, asked, ignore)
        return len(index)

    def pages() -> int:
        for start in range(0, len(shown), PAGE):
            inspector.summarise(connection, shown[start : start + PAGE])
        return len(shown)

    def all_keys() -> int:
        counts = count_keys(connection, ignore)
        return sum(counts.by_cache.values()) + counts.others

    return [
        Walk("keys: count those of all caches", all_keys, 400_000),
        Walk("heads: index a cache", lambda: len(index_cache(connection, name, ignore)), 80_000),
        Walk("heads: texts that contain words", lambda: by_heads(words), 80_000),
        Walk("heads: a metadata field's value", lambda: by_heads(field), 80_000),
        Walk(f"pages of {PAGE} entries", pages),
    ]


def ignore(done: int, total: int | None) -> None:
    """Nobody looks at the progress."""


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", help="a server that is filled already")
    parser.add_argument("--name", default="big")
    parser.add_argument("--entries", type=int, default=1_000_000)
    parser.add_argument("--dimension", type=int, default=384)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with (
        filled(options.url, options.name, options.entries, options.dimension) as url,
        closing(RedisConnection(url)) as connection,
    ):
        print(f"\nPython {platform.python_version()}, medians of {options.rounds}; load {os.getloadavg()[0]:.1f}")
        print(f"{'':34}{'entries':>10}{'seconds':>9}{'a second':>11}{'goal':>10}")
        for walk in walks(connection, options.name):
            show(walk, options.rounds)


def show(walk: Walk, rounds: int) -> None:
    """Times a walk and prints its line."""
    seconds: list[float] = []
    for _ in range(rounds):
        started = time.perf_counter()
        count = walk.run()
        seconds.append(time.perf_counter() - started)
    rate = count / statistics.median(seconds)
    goal = "" if walk.goal is None else f"{walk.goal:,}"
    verdict = "" if walk.goal is None else "reached" if rate >= walk.goal else "MISSED"
    print(
        f"{walk.name:34}{count:10,}{statistics.median(seconds):9.2f}{rate:11,.0f}{goal:>10}  {verdict}",
        flush=True,
    )


if __name__ == "__main__":
    main()
