"""One large batch: the server answers others meanwhile, and the process needs little beside the batch.

`make test-large` does it with 100,000 entries.

What is measured. *The server*: no command took it 50 ms or more, by its own slow log; between two commands it answers
whoever else asks. *The process*: the most that was allocated during a call (tracemalloc, which numpy reports to), less
what was there before it and what its result keeps, is under a quarter of what was passed in and what is returned.
"""

from __future__ import annotations

import os
import tracemalloc
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from calling import Caller
from servers import Server

from embedcache import EmbeddingsCache
from embedcache.errors import InvalidInputError

MODEL = "a/model"
ENTRIES = int(os.environ.get("EMBEDCACHE_TEST_BATCH", "20000"))
BLOCKED_MICROSECONDS = 50_000
TRIES = 3
"""A machine that is busy otherwise may hold up a server for a moment; one that blocks by itself does so each time."""


@pytest.fixture
def slow_log(valkey: Server) -> Iterator[Server]:
    """The server, keeping record of commands that hold it up."""
    before = valkey.raw.config_get("slowlog-log-slower-than")
    valkey.raw.config_set("slowlog-log-slower-than", BLOCKED_MICROSECONDS)
    yield valkey
    valkey.raw.config_set("slowlog-log-slower-than", before["slowlog-log-slower-than"])


def batch_of(count: int, size: int, text_bytes: int = 0) -> tuple[list[Any], list[str], np.ndarray]:
    matrix = np.random.default_rng(1).standard_normal((count, size), np.float32)
    texts = [f"text {number} ".ljust(text_bytes, "x") for number in range(count)]
    rows = zip(texts, matrix, strict=True)
    return [{"text": text, "model_name": MODEL, "embedding": row} for text, row in rows], texts, matrix


def beyond(call: Callable[[], Any]) -> tuple[Any, int, int]:
    """What a call returns, the bytes that this keeps, and the most that was allocated beyond that meanwhile."""
    tracemalloc.reset_peak()
    before, _ = tracemalloc.get_traced_memory()
    returned = call()
    after, peak = tracemalloc.get_traced_memory()
    return returned, after - before, peak - max(before, after)


def check_batch(cache: EmbeddingsCache, count: int, size: int, text_bytes: int = 0) -> None:
    """Stores, reads and drops a batch; each call returns what it should, in little memory."""
    tracemalloc.start()
    try:
        items, texts, matrix = batch_of(count, size, text_bytes)
        given, _ = tracemalloc.get_traced_memory()
        calls: dict[str, tuple[Callable[[], Any], Callable[[Any], bool]]] = {
            "mset": (lambda: cache.mset(items), lambda keys: len(set(keys)) == count),
            "mget_embeddings": (
                lambda: cache.mget_embeddings(texts, MODEL),
                lambda found: bool(found[1].all()) and np.array_equal(found[0], matrix),
            ),
            "mget": (
                lambda: cache.mget(texts, MODEL),
                lambda found: all(found) and np.array_equal(found[-1]["embedding"], matrix[-1]),
            ),
            "mexists": (lambda: cache.mexists(texts, MODEL), all),
            "mdrop": (lambda: cache.mdrop(texts, MODEL), lambda dropped: dropped == count),
        }
        for name, (call, is_right) in calls.items():
            returned, kept, most = beyond(call)
            assert is_right(returned), name
            assert most < (given + kept) / 4, f"{name}: {most:,} bytes beyond the {given:,} given and {kept:,} returned"
            del returned
    finally:
        tracemalloc.stop()


def test_a_large_batch_blocks_no_server_and_fills_no_memory(slow_log: Server) -> None:
    with EmbeddingsCache("c", ttl=500, redis_url=slow_log.url) as cache:
        check_batch(cache, ENTRIES, 384)
    assert not slow_commands(slow_log)


def test_a_batch_of_long_texts_takes_little_memory(valkey: Server) -> None:
    with EmbeddingsCache("c", redis_url=valkey.url) as cache:
        check_batch(cache, 24_000, 8, 1_000)


def slow_commands(server: Server) -> list[Any]:
    """What held the server up in each of some tries; the first was made by the caller."""
    slow = server.raw.slowlog_get()
    for _ in range(TRIES - 1):
        if not slow:
            break
        server.raw.slowlog_reset()
        with EmbeddingsCache("c", ttl=500, redis_url=server.url) as cache:
            items, texts, _ = batch_of(ENTRIES, 384)
            cache.mset(items)
            cache.mget_embeddings(texts, MODEL)
            cache.mget(texts, MODEL)
            cache.mdrop(texts, MODEL)
        slow = server.raw.slowlog_get()
    return [(each["duration"], each["command"][:40]) for each in slow]


# ------------------------------------------------------------------------------------------------ what is in a batch


@pytest.mark.parametrize("ttl", [None, 500])
def test_a_batch_of_several_chunks_is_read_as_it_was_written(
    server: Server, caller: Callable[[EmbeddingsCache], Caller], ttl: int | None
) -> None:
    cache = caller(EmbeddingsCache("c", ttl=ttl, redis_url=server.url))
    items, texts, matrix = batch_of(2_345, 4)
    items[7]["metadata"], items[2_344]["metadata"], items[1_500]["ttl"] = {"a": 1}, {"b": 2}, 60
    keys = cache.mset(items)
    assert keys == [cache.key_for(text, MODEL) for text in texts]
    asked = [*texts[:1_000], *(f"missing {number}" for number in range(1_500)), *texts[1_000:], texts[0]]
    hits = [True] * 1_000 + [False] * 1_500 + [True] * 1_346
    found = cache.mget(asked, MODEL)
    assert [entry is not None for entry in found] == hits == cache.mexists(asked, MODEL)
    assert [found[place]["metadata"] for place in (7, 8, 3_844)] == [{"a": 1}, None, {"b": 2}]
    assert found[3_000]["ttl"] == 60
    vectors, mask = cache.mget_embeddings(asked, MODEL)
    assert mask.tolist() == hits
    assert np.array_equal(vectors[mask], np.vstack([matrix, matrix[:1]]))
    assert np.isnan(vectors[~mask]).all()
    counted = cache.stats("all")
    assert (counted.hits, counted.misses, counted.corrupt, counted.sets) == (2 * 2_346, 2 * 1_500, 0, 2_345)
    assert sum(count for _, count in counted.latencies) == 2  # one lookup each, however many chunks
    assert cache.mdrop(asked, MODEL) == 2_345


def test_texts_need_no_order_of_their_own(valkey: Server, caller: Callable[[EmbeddingsCache], Caller]) -> None:
    cache = caller(EmbeddingsCache("c", redis_url=valkey.url))
    items, texts, _ = batch_of(1_200, 2)
    cache.mset(items)
    names = dict.fromkeys(texts)
    assert all(cache.mexists(names.keys(), MODEL))
    assert cache.mget_embeddings(names.keys(), MODEL)[1].all()
    assert len(cache.mget(tuple(texts), MODEL)) == 1_200
    assert cache.mdrop(np.array(texts), MODEL) == 1_200


SPOILED = {
    "text": ({"text": " "}, "empty or blank"),
    "model": ({"model_name": ""}, "a model name"),
    "vector": ({"embedding": np.array([1.0, np.nan], np.float32)}, "NaN, infinity"),
    "a list": ({"embedding": [1.0, float("inf")]}, "NaN, infinity"),
    "dimension": ({"embedding": np.ones(3, np.float32)}, "3 components, those before it of the same model 2"),
    "metadata": ({"metadata": {"a": object()}}, "not JSON"),
    "TTL": ({"ttl": 0}, "a TTL"),
    "field": ({"metdata": 1}, "unknown 'metdata'"),
}


@pytest.mark.parametrize("place", [1_500, 2_000], ids=["within", "a chunk of its own"])
@pytest.mark.parametrize("spoiled", list(SPOILED))
def test_one_bad_item_late_in_a_large_batch_is_named_and_nothing_is_written(
    valkey: Server, caller: Callable[[EmbeddingsCache], Caller], spoiled: str, place: int
) -> None:
    cache = caller(EmbeddingsCache("c", redis_url=valkey.url, stats=False))
    items, texts, _ = batch_of(2_001, 2)
    change, words = SPOILED[spoiled]
    items[place] |= change
    with pytest.raises(InvalidInputError, match=f"^item {place}: .*{words}") as caught:
        cache.mset(items)
    assert caught.value.index == place
    if spoiled == "text":
        texts[place] = " "
        for call in (cache.mget, cache.mget_embeddings, cache.mexists, cache.mdrop):
            with pytest.raises(InvalidInputError, match=f"^item {place}: .*{words}"):
                call(texts, MODEL)
    assert valkey.raw.dbsize() == 0
