"""The cache beside raw redis-py moving the same bytes: shuffled rounds on one private server, medians and ratios.

Ratios compare Python with waiting, so they depend on what waiting costs. On a quiet machine with two cores, a raw GET
over a Unix socket takes about 115 microseconds, most of it waking the other process. With another program busy beside
it, nobody sleeps deeply, a raw GET takes 25, and the same microseconds of ours weigh more. Compare runs of one state.

    python benchmarks/core.py [--quick] [--entries 1000] [--dimension 384] [--rounds 40]
"""

from __future__ import annotations

import argparse
import gc
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import redis
from side_by_side.rounds import sample_rounds, seconds_per_call
from side_by_side.workload import MODEL, Workload

from embedcache import EmbeddingsCache, inspector
from embedcache.server import EmbeddedServer

SINGLES = 100
"""Single calls per round: one alone is too short to time."""
QUICK_ROUNDS = 3


@dataclass(frozen=True)
class Measure:
    """One line of the table: what is timed, against which raw line, and the ratio it should reach."""

    name: str
    run: Callable[[], object]
    raw: str | None = None
    floor: float | None = None
    repeat: int = 1


@dataclass(frozen=True)
class Cost:
    """What statistics cost a call: the same call with them and without, and the ratio they should stay under."""

    name: str
    counting: Callable[[], object]
    plain: Callable[[], object]
    bound: float
    repeat: int = 1


def measures(socket: Path, work: Workload) -> tuple[list[Measure], list[Measure], list[Cost]]:
    """The batch measures, the single ones and what statistics cost, on a filled server."""
    texts, items = work.texts, work.items
    url = f"unix://{socket}"
    cache, ttl_cache = EmbeddingsCache("plain", redis_url=url), EmbeddingsCache("ttl", ttl=3600, redis_url=url)
    raw = redis.Redis(unix_socket_path=str(socket))
    keys = cache.mset(items)
    ttl_cache.mset(items)
    values = dict(zip([key.replace("plain:", "raw:") for key in keys], raw.mget(keys), strict=True))
    raw.mset(values)
    names = list(values)
    name, value = names[0], values[names[0]]
    batch = [
        Measure("raw MGET", lambda: raw.mget(names)),
        Measure("raw MSET", lambda: raw.mset(values)),
        Measure("mget", lambda: cache.mget(texts, MODEL), "raw MGET", 0.45),
        Measure("mget_embeddings", lambda: cache.mget_embeddings(texts, MODEL), "raw MGET", 0.65),
        Measure("mset", lambda: cache.mset(items), "raw MSET", 0.5),
        Measure("mget, TTL", lambda: ttl_cache.mget(texts, MODEL), "raw MGET", 0.35),
        Measure("mget_embeddings, TTL", lambda: ttl_cache.mget_embeddings(texts, MODEL), "raw MGET"),
        Measure("mset, TTL", lambda: ttl_cache.mset(items), "raw MSET", 0.3),
        Measure("mexists", lambda: cache.mexists(texts, MODEL), "raw MGET"),
    ]
    text, vector = texts[0], work.vectors[0]
    single = [
        Measure("raw GET", lambda: raw.get(name), repeat=SINGLES),
        Measure("raw SET", lambda: raw.set(name, value), repeat=SINGLES),
        Measure("get", lambda: cache.get(text, MODEL), "raw GET", 0.8, SINGLES),
        Measure("set", lambda: cache.set(text, MODEL, vector), "raw SET", 0.75, SINGLES),
        Measure("get, TTL", lambda: ttl_cache.get(text, MODEL), "raw GET", repeat=SINGLES),
        Measure("set, TTL", lambda: ttl_cache.set(text, MODEL, vector), "raw SET", repeat=SINGLES),
        Measure("exists", lambda: cache.exists(text, MODEL), "raw GET", repeat=SINGLES),
    ]
    return batch, single, statistics_costs(url, texts)


def statistics_costs(url: str, texts: list[str]) -> list[Cost]:
    """What statistics cost, on the cache that `measures` filled."""
    on, off = EmbeddingsCache("plain", redis_url=url), EmbeddingsCache("plain", redis_url=url, stats=False)
    text = texts[0]
    return [
        Cost("get", lambda: on.get(text, MODEL), lambda: off.get(text, MODEL), 1.03, SINGLES),
        Cost("mget", lambda: on.mget(texts, MODEL), lambda: off.mget(texts, MODEL), 1.01),
        Cost(
            "mget_embeddings",
            lambda: on.mget_embeddings(texts, MODEL),
            lambda: off.mget_embeddings(texts, MODEL),
            1.01,
        ),
    ]


def print_costs(costs: list[Cost], rounds: int) -> None:
    """One line per call: the median of the ratios of pairs run back to back, in either order in turn.

    A pair sees the same state of the machine, which drifts by more than what is measured here.
    """
    print(f"{'with statistics':22}{'without':>10}{'of it':>8}{'bound':>7}")
    ratios: dict[str, list[float]] = {cost.name: [] for cost in costs}
    plain_seconds: dict[str, list[float]] = {cost.name: [] for cost in costs}
    for cost in costs * rounds:
        order = (cost.plain, cost.counting) if len(ratios[cost.name]) % 2 else (cost.counting, cost.plain)
        seconds = {run: seconds_per_call(run, [()] * cost.repeat) for run in order}
        plain_seconds[cost.name].append(seconds[cost.plain])
        ratios[cost.name].append(seconds[cost.counting] / seconds[cost.plain])
    for cost in costs:
        ratio, without = statistics.median(ratios[cost.name]), statistics.median(plain_seconds[cost.name])
        verdict = "reached" if ratio <= cost.bound else "MISSED"
        print(f"{cost.name:22}{without * 1e6:7.1f} µs{ratio:8.3f}{cost.bound:7.2f}  {verdict}")
    print()


def time_rounds(group: list[Measure], rounds: int) -> dict[str, float]:
    """Median seconds per call of each measure; every round runs all of them once, in an order of its own."""
    for measure in group:
        measure.run()
    samplers = {each.name: partial(seconds_per_call, each.run, [()] * each.repeat) for each in group}
    return {name: statistics.median(times) for name, times in sample_rounds(samplers, range(rounds)).items()}


def print_group(group: list[Measure], seconds: dict[str, float], entries: int) -> None:
    """One table: microseconds per entry, entries per second, the ratio to raw and whether it reaches its floor."""
    print(f"{'':22}{'µs/entry':>10}{'entries/s':>12}{'of raw':>8}{'floor':>7}")
    for measure in group:
        per_entry = seconds[measure.name] / entries
        line = f"{measure.name:22}{per_entry * 1e6:10.2f}{1 / per_entry:12,.0f}"
        if measure.raw is not None:
            ratio = seconds[measure.raw] / seconds[measure.name]
            line += f"{ratio:8.2f}"
            if measure.floor is not None:
                line += f"{measure.floor:7.2f}  {'reached' if ratio >= measure.floor else 'MISSED'}"
        print(line)
    print()


def print_memory(socket: Path, dimension: int) -> None:
    """Bytes that the server says an entry costs, by dtype, beside the bound for float32."""
    text = "What does sentence number 0 of the benchmark say?"
    bound = 1.15 * (4 * dimension + len(text) + 200)
    vector = np.random.default_rng(0).standard_normal(dimension)
    for dtype in ("float32", "float64", "float16", "int8"):
        cache = EmbeddingsCache(f"mem-{dtype}", redis_url=f"unix://{socket}", dtype=dtype)
        (summary,) = inspector.summarise(cache.connection, [cache.set(text, MODEL, vector)])
        assert summary is not None  # noqa: S101  # it was just stored
        note = f"  (bound for float32: {bound:,.0f})" if dtype == "float32" else ""
        print(f"memory per entry, {dtype:8}{summary.memory_bytes:8,} bytes{note}")
        cache.close()


def import_seconds(runs: int = 7) -> float:
    """Median seconds that `import embedcache` takes in a fresh interpreter, the interpreter's own start taken off."""
    samples = []
    # An installed package has its bytecode beside it, also where this environment forbids to write it.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    code = "import time; start = time.perf_counter(); import embedcache; print(time.perf_counter() - start)"
    for _ in range(runs):
        done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, env=environment)
        samples.append(float(done.stdout))
    return statistics.median(samples)


def main() -> None:
    """Prints all tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--entries", type=int, default=1_000)
    parser.add_argument("--dimension", type=int, default=384)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--quick", action="store_true", help=f"{QUICK_ROUNDS} rounds; their ratios mean little")
    options = parser.parse_args()
    rounds = QUICK_ROUNDS if options.quick else options.rounds
    with tempfile.TemporaryDirectory(prefix="embedcache-bench-") as folder:
        server = EmbeddedServer.attach(Path(folder))
        try:
            work = Workload(options.entries, options.dimension)
            batch, single, costs = measures(server.socket_path, work)
            print(
                f"Python {platform.python_version()}, redis-py {redis.__version__}, numpy {np.__version__};"
                f" {options.dimension} dimensions, {options.entries:,} entries, medians of {rounds} rounds\n"
            )
            gc.freeze()
            print_group(batch, time_rounds(batch, rounds), options.entries)
            print_group(single, time_rounds(single, rounds), 1)
            print_costs(costs, 4 * rounds)
            print_memory(server.socket_path, options.dimension)
            print(f"import embedcache      {import_seconds():8.3f} s      (bound: 0.150)")
        finally:
            server.detach()


if __name__ == "__main__":
    main()
