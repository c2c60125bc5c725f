"""The tables of docs/scaling.md, from measured bytes and rates; `python benchmarks/scaling.py` writes them there."""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.simulate import predicted, zipf  # noqa: E402 - found where this file lies, however it is started

PAGE = ROOT / "docs" / "scaling.md"

BYTES = {
    (384, "float64"): 3_312,
    (384, "float32"): 1_776,
    (384, "float16"): 1_008,
    (384, "int8"): 656,
    (1_536, "float64"): 12_544,
    (1_536, "float32"): 6_400,
    (1_536, "float16"): 3_312,
    (1_536, "int8"): 1_792,
}
"""Of an entry with a text of 50 characters, by MEMORY USAGE (docs/benchmarks.md, "By dtype")."""
READ_RATES = {
    (384, "float64"): 143_000,
    (384, "float32"): 231_000,
    (384, "float16"): 144_000,
    (384, "int8"): 147_000,
    (1_536, "float64"): 65_000,
    (1_536, "float32"): 116_000,
    (1_536, "float16"): 84_000,
    (1_536, "int8"): 102_000,
}
"""Entries that one process reads from one server with mget_embeddings, per second (docs/benchmarks.md, "By dtype")."""
ENTRIES = {"1 M": 10**6, "100 M": 10**8, "10 G": 10**10}
GIB = 2**30
NODE_BYTES = 64 * GIB
FILL = 0.75
NODE_PRICE = 400
"""Of a node per month, in dollars: an example, for whoever reads it to replace."""
NEAR_TTL = 60
NEAR_ENTRIES = 25_000
"""Of 384 float32 components, in the near cache's default of 64 MiB (docs/near_cache.md)."""


def shards(entries: int, size: int) -> int:
    """How many nodes hold so many entries of so many bytes, filled as far as they should be."""
    return math.ceil(entries * size / (NODE_BYTES * FILL))


def memory() -> list[str]:
    """Memory, shards, throughput and price by number of entries, dimension and dtype."""
    rows = []
    for (dimension, dtype), size in BYTES.items():
        for words, entries in ENTRIES.items():
            nodes = shards(entries, size)
            rows.append(
                (
                    f"{dimension:,}",
                    dtype,
                    words,
                    f"{entries * size / GIB:,.1f}",
                    f"{nodes:,}",
                    f"{nodes * READ_RATES[dimension, dtype] / 1e6:,.1f} M",
                    f"{nodes * NODE_PRICE:,}",
                )
            )
    head = ("dimensions", "dtype", "entries", "GiB", "shards", "entries read per second", "$ per month")
    return table(head, rows)


def hit_rates() -> list[str]:
    """Hit rates by how much of the texts fits, for 100,000 texts."""
    texts, exponents = 10**5, (0.7, 0.9, 1.1)
    rows = [
        (f"{share:.0%}", *(f"{predicted(zipf(texts, exponent), round(texts * share)):.0%}" for exponent in exponents))
        for share in (0.01, 0.05, 0.1, 0.25, 0.5)
    ]
    return table(("texts that fit", *(f"exponent {exponent}" for exponent in exponents)), rows)


def hot_keys() -> list[str]:
    """How often the server is asked for one text that all processes want all the time."""
    rows = [
        (f"{processes:,}", f"{processes * 1_000:,}", f"{processes / NEAR_TTL:,.1f}") for processes in (10, 200, 5_000)
    ]
    return table(("processes", "lookups of it per second, 1,000 in each", "asked of its shard per second"), rows)


def near() -> list[str]:
    """The share of lookups that a near cache of its default size answers, as far as its size goes."""
    rows = [
        (
            f"{texts:,}",
            *(f"{predicted(zipf(texts, exponent), min(NEAR_ENTRIES, texts)):.0%}" for exponent in (0.7, 0.9, 1.1)),
        )
        for texts in (50_000, 200_000, 10**6)
    ]
    return table(("texts", "exponent 0.7", "exponent 0.9", "exponent 1.1"), rows)


TABLES: dict[str, Callable[[], list[str]]] = {
    "memory": memory,
    "hit rates": hit_rates,
    "hot keys": hot_keys,
    "near": near,
}


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """A table in Markdown, as lines."""
    rule = ["---:"] * len(head)
    return ["| " + " | ".join(row) + " |" for row in (head, rule, *rows)]


def rewritten(page: str) -> str:
    """The page with its tables as they are now."""
    for name, make in TABLES.items():
        lines = "\n".join(make())
        page, found = re.subn(
            rf"(<!-- {name} -->\n)(?:\|[^\n]*\n)*", lambda mark, lines=lines: f"{mark[1]}{lines}\n", page
        )
        if found != 1:
            raise SystemExit(f"{PAGE.name} has {found} marks <!-- {name} -->, not one")
    return page


if __name__ == "__main__":
    PAGE.write_text(rewritten(PAGE.read_text()))
