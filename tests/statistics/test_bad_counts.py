"""What others put in the place of counts: lookups go on, what is not spoilt is counted, and what is, is named."""

from __future__ import annotations

import pytest
from counted import MODEL, batch, items, statistics_keys, sums, texts

from embedcache.counters import Counts
from embedcache.errors import ServerReplyError

GARBAGE = ["no number", "", "1.5", "9223372036854775807", "-4", "\xff", "9" * 400]


def spoil(server, ending: str) -> str:
    """Puts a list in the place of the one key of statistics that ends so."""
    (key,) = (key for key in statistics_keys(server) if ending in key)
    server.raw.delete(key)
    server.raw.rpush(key, "x")
    return key


@pytest.mark.parametrize("garbage", GARBAGE)
def test_a_count_that_is_no_number_begins_anew_and_spoils_no_other(counting, server, garbage):
    counting.mset(items(3))
    counting.flush_stats()
    for key in statistics_keys(server):
        if server.raw.type(key) == b"hash":
            for name in server.raw.hkeys(key):
                if name.endswith(b"s"):
                    server.raw.hset(key, name, garbage)
    counting.stats("all")  # does not raise
    counting.mset(items(2))
    counting.mget(texts(5), MODEL)
    for window in ("all", "1h"):
        found = counting.stats(window, MODEL)
        assert (found.hits, found.misses) == (3, 2)
        assert found.sets in ((2, 0) if garbage == "-4" else (2,))  # -4 + 2 is below zero still


@pytest.mark.parametrize("ending", [":total", ":m:", ":h:", ":d:", ":stored", ":slow", ":writer:"])
def test_a_key_of_another_type_stops_no_lookup_and_spoils_no_other_key(make_cache, server, ending):
    cache = make_cache(stats=True, slow_lookup_seconds=0)
    cache.mset(items(3))
    cache.mget(texts(4), MODEL)
    cache.flush_stats()
    key = spoil(server, ending)
    found = cache.mget(texts(4), MODEL)
    assert [entry is not None for entry in found] == [True] * 3 + [False]
    windows = {":total": ["all", "1h", "24h", "60d"], ":m:": ["1h"], ":h:": ["60d"], ":d:": ["700d"]}.get(ending, [])
    for window in windows:
        with pytest.raises(ServerReplyError, match=r"WRONGTYPE .* is no hash of counts") as caught:
            cache.stats(window)
        assert key in str(caught.value)
    if ending in {":m:", ":h:", ":d:", ":stored", ":slow"}:
        # The batch was counted wherever it could be.
        assert sums(cache.stats("all", MODEL)).items() >= {"hits": 6, "misses": 2}.items()
    server.raw.delete(key)
    cache.mget(texts(4), MODEL)
    assert cache.stats("all").hits >= 3


@pytest.mark.parametrize("shelf", [False], indirect=True, ids=["plain commands"])
def test_without_scripts_too_one_count_that_is_no_number_spoils_no_other(shelf, server):
    shelf.add(batch({MODEL: Counts(hits=1, misses=1)}))
    (key,) = (key for key in statistics_keys(server) if key.endswith(":total"))
    (name,) = (name for name in server.raw.hkeys(key) if name.endswith(b"h") and len(name) == 9)
    server.raw.hset(key, name, "no number")
    shelf.add(batch({MODEL: Counts(hits=1, misses=1)}), number=2)
    assert sums(shelf.total()[MODEL]) == {"misses": 2}
