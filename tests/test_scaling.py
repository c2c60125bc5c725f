"""What is said of larger caches: tables as the script makes them, and hit rates as a server has them that is full."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator

import numpy as np
import pytest
from servers import Server, running

from benchmarks import scaling
from benchmarks.simulate import SampledLRU, predicted, simulated, zipf
from embedcache import EmbeddingsCache

MODEL = "a/model"


def test_the_page_has_the_tables_that_the_script_makes() -> None:
    page = scaling.PAGE.read_text()
    assert scaling.rewritten(page) == page
    assert scaling.rewritten(page.replace("| 384 | int8 |", "| 385 | int8 |")) == page


def test_shards_are_whole_and_enough() -> None:
    full = scaling.NODE_BYTES * scaling.FILL
    assert [scaling.shards(count, 1_000) for count in (1, int(full / 1_000), int(full / 1_000) + 1)] == [1, 1, 2]


def test_measured_bytes_are_what_a_server_says(valkey: Server) -> None:
    for (dimension, dtype), size in scaling.BYTES.items():
        with EmbeddingsCache(dtype, redis_url=valkey.url, dtype=dtype, stats=False) as cache:
            key = cache.set("a text of fifty characters, as texts of them may be", MODEL, np.ones(dimension))
            assert valkey.raw.memory_usage(key) == pytest.approx(size, rel=0.15)


# ------------------------------------------------------------------------------------------------ formula, simulation


def test_the_formula_at_its_ends() -> None:
    weights = zipf(1_000, 0.9)
    assert predicted(weights, 1_000) == 1
    assert predicted(weights, 5_000) == 1
    assert predicted(weights, 1) < 0.05
    rates = [predicted(weights, entries) for entries in (10, 100, 500, 900)]
    assert rates == sorted(rates)
    assert predicted(weights, 100, ttl=1e9) == pytest.approx(predicted(weights, 100))
    # Where the TTL alone counts, an entry is there if its text was asked for within it.
    alone = float((weights * -np.expm1(-weights * 50)).sum())
    assert predicted(weights, 900, ttl=50) == pytest.approx(alone)
    even = zipf(1_000, 0)
    assert predicted(even, 300) == pytest.approx(0.3, abs=0.001)


@pytest.mark.parametrize("ttl", [math.inf, 3_000])
@pytest.mark.parametrize("exponent", [0.7, 1.1])
def test_formula_and_simulation_agree(exponent: float, ttl: float) -> None:
    weights = zipf(5_000, exponent)
    found = simulated(weights, 800, ttl, lookups=40_000, warm_up=20_000)
    assert found == pytest.approx(predicted(weights, 800, ttl), abs=0.02)


def test_a_simulated_server_holds_what_fits_and_evicts_what_is_idle() -> None:
    server = SampledLRU(entries=100)
    for text in range(100):
        assert not server.look_up(text)
    for _ in range(3):
        assert all(server.look_up(text) for text in range(50))
    for text in range(1_000, 1_030):
        server.look_up(text)
    assert sum(server.look_up(text) for text in range(50)) >= 48
    assert not SampledLRU(entries=2, ttl=1).look_up(0)
    late = SampledLRU(entries=9, ttl=1)
    assert [late.look_up(text) for text in (0, 0, 1, 0, 0)] == [False, True, False, False, True]


# ------------------------------------------------------------------------------------------------ a real server

TEXTS, LOOKUPS, ROOM = 4_000, 24_000, 2_000_000


@pytest.fixture
def small_server() -> Iterator[Server]:
    with running("valkey9", "--maxmemory-policy", "allkeys-lru") as started:
        used = started.raw.info("memory")["used_memory"]
        started.raw.config_set("maxmemory", used + ROOM)
        yield started


def test_a_full_server_has_the_hit_rate_that_is_predicted(small_server: Server) -> None:
    """Real lookups and real evictions. What is predicted from: how many entries fit, as the server says in the end."""
    weights = zipf(TEXTS, 0.9)
    asked = np.random.default_rng(7).choice(TEXTS, 2 * LOOKUPS, p=weights).tolist()
    vector = np.ones(384, np.float32)
    hits = 0
    with EmbeddingsCache("c", redis_url=small_server.url, stats=False) as cache:
        started = time.monotonic()
        for number, text in enumerate(asked):
            if cache.get(f"text {text}", MODEL) is None:
                cache.set(f"text {text}", MODEL, vector)
            elif number >= LOOKUPS:
                hits += 1
        seconds = time.monotonic() - started
    entries = small_server.raw.dbsize()
    assert small_server.raw.info("stats")["evicted_keys"] > LOOKUPS / 10
    assert 400 < entries < TEXTS / 2
    found = hits / LOOKUPS
    # Its clock goes by the second, in which it was asked so often.
    tick = max(1, round(len(asked) / seconds))
    simulation, formula = simulated(weights, entries, lookups=LOOKUPS, tick=tick), predicted(weights, entries)
    print(f"found {found:.3f}, simulated {simulation:.3f}, formula {formula:.3f}; {entries} entries, {seconds:.1f} s")
    assert simulation == pytest.approx(found, abs=0.04)
    assert formula == pytest.approx(found, abs=0.08)
