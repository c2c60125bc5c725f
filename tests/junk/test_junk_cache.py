"""Junk for a cache: each argument of each method, with a near cache and without, and each option.

Arguments are checked however they are mixed: junk in one meets good values in the others.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from drawing import junk
from hypothesis import given
from hypothesis import strategies as st
from public import public
from world import KEPT, KEY, MODEL, TTL, World, patient, refusal

from embedcache import NEVER, EmbeddingsCache, InvalidInputError

CACHE = public("embedcache.EmbeddingsCache")
METHODS = [name for name, tested in CACHE.items() if tested.of is not None]
CLOSE = {"close", "aclose"}
READERS = ("get", "mget", "exists", "mexists", "remaining", "stats", "look_again", "why", "slow", "token")
"""What a method that changes nothing is called, or begins with; the async ones have an ``a`` before that."""
PLAUSIBLE: dict[str, Any] = {
    "text": [KEPT, "a", b"a"],
    "texts": [[KEPT, "a"], ["a"], []],
    "record_computation.texts": [0, 3],
    "record_flights_saved.texts": [0, 3],
    "model_name": [MODEL],
    **{f"{name}.model_name": [None, MODEL] for name in ("stats", "astats", "stats_series", "process_stats")},
    "embedding": [[0.5, -1.0], np.ones(2)],
    "metadata": [None, {"a": 1}],
    "ttl": [None, 5, NEVER],
    "set_ttl.ttl": [None, 5],
    "items": [[{"text": "a", "model_name": MODEL, "embedding": [0.5, 1.0]}], []],
    "key": [KEY, "c:x"],
    "keys": [[KEY], []],
    "dimension": [None, 2],
    "window": ["all", "1h", "24h"],
    "step": ["1m", "1h"],
    "price": [None, 0.5],
    "seconds": [0.5],
    "tokens": [3],
    "max_scan": [0, 100],
}


@pytest.fixture(params=[0, 10], ids=["", "near"])
def cache(world: World, request: pytest.FixtureRequest) -> Iterator[EmbeddingsCache]:
    """The cache, whose near cache is of the size that is wanted."""
    made = EmbeddingsCache("c", TTL, redis_url=world.server.url, stats=False, near_cache=request.param)
    yield made
    world.run(made.aclose())


@pytest.mark.parametrize("name", [name for name in METHODS if CACHE[name].short_name not in CLOSE])
@patient
@given(data=st.data())
def test_a_method_of_the_cache(world: World, cache: EmbeddingsCache, name: str, data: st.DataObject) -> None:
    cache.set_ttl(TTL)
    world.check(CACHE[name], data, PLAUSIBLE | {"EmbeddingsCache": lambda _: cache})
    if CACHE[name].short_name.removeprefix("a").startswith(READERS):
        assert world.has_its_values()


OPTIONS = [name for name in CACHE["embedcache.EmbeddingsCache"].parameters if name != "redis_url"]


@pytest.mark.parametrize("option", OPTIONS)
@patient
@given(value=junk)
def test_an_option_of_the_cache(world: World, option: str, value: Any) -> None:
    """Taken or refused when the cache is made; what is taken does. That of the server's address is with connections."""
    world.put_right()
    options: dict[str, Any] = {"redis_url": world.server.url, "stats": False, option: value}

    def use() -> None:
        with EmbeddingsCache(**options) as cache:
            if not cache.read_only:
                cache.set("a", MODEL, [0.5, 1.0])
            cache.mget(["a", "missing"], MODEL)
            cache.stats("all")

    error = refusal(use)
    assert error is None or (str(error) and world.has_its_values())


@patient
@given(value=junk, field=st.sampled_from(["text", "model_name", "embedding", "metadata", "ttl"]))
def test_one_junk_field_in_a_batch_writes_none_of_it(world: World, value: Any, field: str) -> None:
    world.put_right()
    batch = [{"text": text, "model_name": MODEL, "embedding": [0.5, 1.0]} for text in ("a", "b", "c")]
    batch[1][field] = value
    error = refusal(lambda: world.run(world.cache.amset(batch)))
    assert error is None or (isinstance(error, InvalidInputError) and error.index == 1)
    assert world.has_its_values() is (error is not None)
