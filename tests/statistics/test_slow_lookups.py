"""The last lookups that took longer than a threshold, of all processes."""

from __future__ import annotations

import os
import socket

import msgpack
import pytest
from counted import MODEL, OTHER, VECTOR, items, server_time, statistics_keys, texts

from embedcache import EmbeddingsCache, InvalidInputError


def test_a_threshold_of_zero_keeps_every_lookup_last_first(make_cache, server):
    cache = make_cache(stats=True, slow_lookup_seconds=0)
    keys = cache.mset([*items(3), *items(1, OTHER)])
    cache.get("text 0", MODEL)
    cache.mget(["none", *texts(3)], MODEL)
    cache.mget_embeddings(texts(2), OTHER)
    cache.mget_by_keys(keys[2:])
    found = cache.slow_lookups()
    assert [(each.model_name, each.texts, each.hits) for each in found] == [
        (None, 2, 2),
        (OTHER, 2, 1),
        (MODEL, 4, 3),
        (MODEL, 1, 1),
    ]
    assert [each.key for each in found] == [keys[2], keys[3], cache.key_for("none", MODEL), keys[0]]
    now = server_time(server)
    assert all(now - 20 < each.at <= now and 0 < each.seconds < 20 for each in found)
    assert [each.at for each in found] == sorted((each.at for each in found), reverse=True)
    assert {each.process for each in found} == {f"{socket.gethostname()}:{os.getpid()}"}


def test_texts_are_not_kept_unless_asked_for(make_cache, server):
    quiet = make_cache(stats=True, slow_lookup_seconds=0)
    quiet.get("a secret", MODEL)
    quiet.mget(["another secret"], MODEL)
    assert [each.text for each in quiet.slow_lookups()] == [None, None]
    (key,) = (name for name in statistics_keys(server) if name.endswith(":slow"))
    assert not any(b"secret" in each for each in server.raw.lrange(key, 0, -1))


def test_texts_that_are_asked_for_are_cut(make_cache):
    cache = make_cache(stats=True, slow_lookup_seconds=0, slow_lookup_texts=True)
    cache.get("é" * 1_000, MODEL)
    cache.mget(["first", "second"], MODEL)
    cache.get(b"\xff\x00 an image", MODEL)
    cache.get_by_key(cache.key_for("text", MODEL))
    assert [each.text for each in cache.slow_lookups()] == [None, "\ufffd\x00 an image", "first", "é" * 200]


@pytest.mark.parametrize(
    ("place", "bad"), [(0, "x"), (0, 1e300), (1, None), (1, -1.0), (2, [1]), (4, float("inf")), (5, "x"), (6, {})]
)
def test_a_row_of_somebody_elses_is_passed_over(make_cache, server, place, bad):
    cache = make_cache(stats=True, slow_lookup_seconds=0)
    cache.get("a", MODEL)
    cache.flush_stats()
    (key,) = (key for key in statistics_keys(server) if key.endswith(":slow"))
    row = msgpack.unpackb(server.raw.lindex(key, 0))
    server.raw.rpush(key, msgpack.packb([*row, "of a later version"]))
    row[place] = bad
    server.raw.rpush(key, msgpack.packb(row))
    assert [each.model_name for each in cache.slow_lookups()] == [MODEL, MODEL]


@pytest.mark.parametrize("threshold", [None, 60])
def test_without_a_threshold_or_below_it_nothing_is_kept(make_cache, server, threshold):
    cache = make_cache(stats=True, slow_lookup_seconds=threshold)
    cache.mget(texts(50), MODEL)
    assert cache.slow_lookups() == []
    assert cache.stats("all").lookups == 1
    assert not any(name.endswith(":slow") for name in statistics_keys(server))


def test_the_last_hundred_of_all_caches_objects_stay(make_cache, server):
    one = make_cache(stats=True, slow_lookup_seconds=0, slow_lookup_texts=True)
    two = make_cache(stats=True, slow_lookup_seconds=0, slow_lookup_texts=True)
    for first in range(0, 160, 40):
        for number in range(first, first + 40):
            (one if first % 80 == 0 else two).get(f"text {number}", MODEL)
        one.flush_stats()
        two.flush_stats()
    found = two.slow_lookups()
    assert [each.text for each in found] == [f"text {number}" for number in range(159, 59, -1)]
    assert found == one.slow_lookups()
    (key,) = (name for name in statistics_keys(server) if name.endswith(":slow"))
    assert server.raw.llen(key) == 100


def test_storing_and_dropping_are_no_lookups(make_cache):
    cache = make_cache(stats=True, slow_lookup_seconds=0)
    cache.mset(items(3))
    cache.drop("text 0", MODEL)
    cache.exists("text 1", MODEL)
    assert cache.slow_lookups() == []


@pytest.mark.parametrize("threshold", [-1, -0.001, float("nan")])
def test_a_threshold_below_zero_is_refused(threshold, valkey):
    with pytest.raises(InvalidInputError, match="slow_lookup_seconds"):
        EmbeddingsCache("c", redis_url=valkey.url, slow_lookup_seconds=threshold)


def test_a_lookup_that_the_server_held_up_is_kept_by_the_usual_threshold(valkey):
    with EmbeddingsCache("c", redis_url=valkey.url, slow_lookup_seconds=0.05) as cache:
        cache.set("text", MODEL, VECTOR)
        cache.get("text", MODEL)
        cache.flush_stats()
        valkey.raw.client_pause(200)
        cache.get("text", MODEL)
        slow = [each for each in cache.slow_lookups() if each.seconds > 0.15]
        assert len(slow) == 1
        assert cache.stats("1h").p99 == pytest.approx(slow[0].seconds, rel=0.033)
