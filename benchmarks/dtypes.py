"""Memory and speed of the dtypes that vectors are stored in: the figures that docs/scaling.md reckons with.

Shuffled rounds on one private server, medians; batches of 1,000 entries of 384 and of 1,536 dimensions.

    python benchmarks/dtypes.py [--entries 1000] [--rounds 60]
"""

from __future__ import annotations

import argparse
import platform
import statistics
import tempfile
from functools import partial
from pathlib import Path

import numpy as np
from side_by_side.rounds import sample_rounds, seconds_per_call, without_gc
from side_by_side.workload import MODEL, Workload

from embedcache import EmbeddingsCache
from embedcache.server import EmbeddedServer

DIMENSIONS = (384, 1_536)
SHORT = {"float32": "f4", "float64": "f8", "float16": "f2", "int8": "i1"}


def measured(url: str, entries: int, rounds: int) -> list[tuple[int, str, int, float, float]]:
    """Dimension, dtype, bytes of an entry, and entries per second that one process writes, and reads as a matrix."""
    caches = {}
    samplers = {}
    for dimension in DIMENSIONS:
        work = Workload(entries, dimension)
        for dtype, code in SHORT.items():
            # As long as the default name: a key's bytes are part of an entry's.
            name = f"{dimension:07}-{code}"
            cache = EmbeddingsCache(name, redis_url=url, dtype=dtype, stats=False)
            cache.mset(work.items)
            caches[dimension, dtype] = cache, cache.key_for(work.texts[0], MODEL)
            write = partial(cache.mset, work.items)
            read = partial(cache.mget_embeddings, work.texts, MODEL)
            samplers[dimension, dtype, "write"] = partial(seconds_per_call, write, [()])
            samplers[dimension, dtype, "read"] = partial(seconds_per_call, read, [()])
    with without_gc():
        seconds = {name: statistics.median(each) for name, each in sample_rounds(samplers, range(rounds)).items()}
    found = []
    for (dimension, dtype), (cache, key) in caches.items():
        size = int(cache.connection.client().memory_usage(key))
        rates = (entries / seconds[dimension, dtype, deed] for deed in ("write", "read"))
        found.append((dimension, dtype, size, *rates))
        cache.close()
    return found


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--entries", type=int, default=1_000)
    parser.add_argument("--rounds", type=int, default=60)
    options = parser.parse_args()
    print(
        f"Python {platform.python_version()}, numpy {np.__version__}; batches of {options.entries:,} entries, "
        f"medians of {options.rounds} rounds\n"
    )
    print(f"{'dimensions':>10}  {'dtype':8}{'bytes/entry':>12}{'written/s':>12}{'read/s':>12}{'of float32':>12}")
    with tempfile.TemporaryDirectory(prefix="embedcache-bench-") as folder:
        server = EmbeddedServer.attach(Path(folder))
        try:
            rows = measured(f"unix://{server.socket_path}", options.entries, options.rounds)
        finally:
            server.detach()
    usual = {dimension: read for dimension, dtype, _, _, read in rows if dtype == "float32"}
    for dimension, dtype, size, written, read in rows:
        print(
            f"{dimension:10,}  {dtype:8}{size:12,}{written:12,.0f}{read:12,.0f}{read / usual[dimension]:12.2f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
