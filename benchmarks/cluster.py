"""Batches on a Redis Cluster of three primaries beside a single server, all on this machine: `make bench-cluster`."""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from clusters import running_cluster
from servers import free_port, running

from embedcache import EmbeddingsCache

DIMENSION = 384
MODEL = "m"


def timed(work: Callable[[], object], rounds: int) -> float:
    """Seconds of the fastest call: all nodes and this process share the machine's cores with whatever else runs."""
    took = []
    for _ in range(rounds):
        started = time.perf_counter()
        work()
        took.append(time.perf_counter() - started)
    return min(took)


def measure(url: str, count: int, rounds: int, ttl: int | None) -> dict[str, float]:
    """Entries per second of batches, and microseconds of one `get`."""
    rng = np.random.default_rng(7)
    texts = [f"text {number}" for number in range(count)]
    vectors = rng.standard_normal((count, DIMENSION), dtype=np.float32)
    items = [{"text": t, "model_name": MODEL, "embedding": v} for t, v in zip(texts, vectors, strict=True)]
    with EmbeddingsCache("bench", redis_url=url, stats=False, ttl=ttl) as cache, asyncio.Runner() as runner:
        cache.mset(items)
        found = {
            "mset": count / timed(lambda: cache.mset(items), rounds),
            "mget": count / timed(lambda: cache.mget(texts, MODEL), rounds),
            "mget_embeddings": count / timed(lambda: cache.mget_embeddings(texts, MODEL), rounds),
            "amget": count / timed(lambda: runner.run(cache.amget(texts, MODEL)), rounds),
            "get us": 1e6 * timed(lambda: cache.get("text 1", MODEL), 20 * rounds),
        }
        runner.run(cache.aclose())
    return found


def main() -> None:
    """Prints a line for each server and TTL."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=1_000)
    parser.add_argument("--rounds", type=int, default=30)
    asked = parser.parse_args()
    with running("valkey9", port=free_port()) as single, running_cluster() as cluster:
        for ttl in (None, 900):
            for name, url in {"single": f"redis://127.0.0.1:{single.port}", "cluster": cluster.url}.items():
                found = measure(url, asked.count, asked.rounds, ttl)
                print(f"ttl={ttl} {name:8}", "  ".join(f"{what} {value:,.0f}" for what, value in found.items()))


if __name__ == "__main__":
    main()
