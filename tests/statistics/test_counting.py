"""What each operation of a cache is counted as: sync and async, on each kind of server, to the byte."""

from __future__ import annotations

import time

import pytest
import redis
from counted import (
    MODEL,
    OTHER,
    VECTOR,
    Shelf,
    item,
    items,
    statistics_keys,
    sums,
    texts,
    wait_for_expiry,
    wait_until,
    without_bytes,
)

from embedcache import NEVER, EmbeddingsCache, InvalidInputError
from embedcache.errors import ForeignKeyError


def bytes_of(server, *keys: str) -> int:
    return sum(server.raw.strlen(key) for key in keys)


# ------------------------------------------------------------------------------------------------ lookups


def test_hits_and_misses_of_single_lookups(counting, server):
    key = counting.set("text", MODEL, VECTOR)
    counting.get("text", MODEL)
    counting.get("text", MODEL)
    counting.get("text", OTHER)
    counting.get("none", MODEL)
    size = bytes_of(server, key)
    assert sums(counting.stats("all")) == {
        "hits": 2,
        "misses": 2,
        "sets": 1,
        "bytes_read": 2 * size,
        "bytes_written": size,
    }
    assert sums(counting.stats("all", MODEL)) == sums(counting.stats("all")) | {"misses": 1}
    assert sums(counting.stats("all", OTHER)) == {"misses": 1}
    assert counting.stats("all").lookups == 4


@pytest.mark.parametrize("ttl", [None, 500])
@pytest.mark.parametrize("count", [3, 100, 1_200])
def test_a_batch_is_one_lookup_and_each_text_a_hit_or_a_miss(make_cache, server, ttl, count):
    cache = make_cache(ttl=ttl, stats=True)
    keys = cache.mset(items(count))
    asked = ["none", *texts(count), "neither", "text 1"]
    cache.mget(asked, MODEL)
    cache.mget_embeddings(asked, MODEL)
    size = bytes_of(server, *keys)
    read = 2 * (size + bytes_of(server, keys[1]))
    found = cache.stats("all", MODEL)
    assert sums(found) == {
        "hits": 2 * (count + 1),
        "misses": 4,
        "sets": count,
        "bytes_read": read,
        "bytes_written": size,
    }
    assert (found.lookups, found.texts) == (2, 2 * (count + 3))
    assert found.hit_rate == pytest.approx((count + 1) / (count + 3))


def test_lookups_by_key_count_under_the_models_that_the_entries_name(counting):
    keys = counting.mset([*items(2), *items(3, OTHER)])
    missing = counting.key_for("none", MODEL)
    counting.mget_by_keys([*keys, missing, "d:" + "0" * 64, "nonsense"])
    counting.get_by_key(keys[0])
    counting.get_by_key(missing)
    counting.get_by_key("d:" + "0" * 64)
    by_model = {name: without_bytes(each) for name, each in counting.stats_by_model("all").items()}
    assert by_model == {MODEL: {"hits": 3, "sets": 2}, OTHER: {"hits": 3, "sets": 3}}
    found = counting.stats("all")
    assert without_bytes(found) == {"hits": 6, "misses": 2, "sets": 5}
    assert found.lookups == 3, "a key of another cache is not looked up"


def test_bytes_read_by_key_are_counted_under_each_model(counting, server):
    keys = counting.mset([item("short"), item("a longer text", OTHER), item("the longest of the texts", OTHER)])
    counting.mget_by_keys([*keys, counting.key_for("none", MODEL)])
    by_model = counting.stats_by_model("all")
    assert by_model[MODEL].bytes_read == bytes_of(server, keys[0])
    assert by_model[OTHER].bytes_read == bytes_of(server, *keys[1:])
    assert counting.stats("all").bytes_read == bytes_of(server, *keys)


def test_asking_whether_something_exists_and_nothing_asked_are_no_lookups(counting):
    counting.exists("text", MODEL)
    counting.mexists(texts(3), MODEL)
    counting.exists_by_key(counting.key_for("text", MODEL))
    counting.mget([], MODEL)
    counting.mget_by_keys([])
    counting.remaining_ttl(counting.key_for("text", MODEL))
    counting.why("text", MODEL)
    found = counting.stats("all")
    assert sums(found) == {}
    assert found.lookups == 0
    assert (found.hit_rate, found.p50) == (None, None)


def test_bad_input_is_counted_as_nothing(counting, server):
    for call in (
        lambda: counting.get("", MODEL),
        lambda: counting.mget(["a", ""], MODEL),
        lambda: counting.mset([item("a"), item("")]),
        lambda: counting.drop_by_key("d:x"),
    ):
        with pytest.raises((InvalidInputError, ForeignKeyError)):
            call()
    counting.flush_stats()
    assert server.raw.dbsize() == 0


# ------------------------------------------------------------------------------------------------ writes


def test_what_is_stored_is_counted_under_each_items_model_whatever_its_ttl(counting, server):
    keys = counting.mset(
        [item("a"), item("b", OTHER, ttl=50), item("c", ttl=NEVER), item("a", ttl=60)],
        ttl=500,
    )
    keys.append(counting.set("d", OTHER, VECTOR, {"n": 1}, ttl=9))
    by_model = counting.stats_by_model("all")
    assert {name: each.sets for name, each in by_model.items()} == {MODEL: 3, OTHER: 2}
    assert by_model[OTHER].bytes_written == bytes_of(server, keys[1], keys[4])
    assert by_model[MODEL].bytes_written == bytes_of(server, keys[0], keys[2], keys[3])


def test_what_is_dropped_is_counted_as_far_as_it_was_there(counting):
    keys = counting.mset([*items(6), *items(2, OTHER)])
    counting.drop("text 0", MODEL)
    counting.drop("text 0", MODEL)
    counting.mdrop(["text 1", "none"], MODEL)
    counting.drop_by_key(keys[2])
    counting.mdrop_by_keys([keys[3], keys[2]])
    assert counting.stats("all").drops == 4
    assert counting.stats("all", MODEL).drops == 2, "a key does not say its model"
    assert counting.clear() == 4
    assert counting.stats("all").drops == 8
    assert counting.clear() == 0
    assert counting.stats("all").drops == 8


# ------------------------------------------------------------------------------------------------ misses told apart


def damaged(value: bytes) -> dict[str, bytes]:
    return {
        "truncated": value[:-1],
        "cut to its header": value[:24],
        "a flipped bit": value[:-5] + bytes([value[-5] ^ 4]) + value[-4:],
        "of a later version": b"EMB\x02" + value[4:],
        "another program's": b"hello",
        "empty": b"",
    }


@pytest.mark.parametrize("kind", list(damaged(bytes(60))))
@pytest.mark.parametrize("ttl", [None, 500])
def test_a_damaged_entry_is_a_corrupt_miss(make_cache, server, kind, ttl):
    cache = make_cache(ttl=ttl, stats=True)
    keys = cache.mset(items(3))
    bad = damaged(server.raw.get(keys[1]))[kind]
    server.raw.set(keys[1], bad)
    cache.mget(texts(3), MODEL)
    cache.mget_embeddings(texts(3), MODEL)
    cache.get("text 1", MODEL)
    found = cache.stats("all", MODEL)
    assert (found.hits, found.misses, found.corrupt, found.expired) == (4, 3, 3, 0)
    assert found.bytes_read == 3 * len(bad) + 2 * bytes_of(server, keys[0], keys[2])
    cache.get_by_key(keys[1])
    found = cache.stats("all")
    assert (found.hits, found.misses, found.corrupt) == (4, 4, 4)


@pytest.mark.parametrize("ttl", [None, 500])
def test_a_value_of_another_type_is_a_corrupt_miss(make_cache, server, ttl):
    cache = make_cache(ttl=ttl, stats=True)
    server.raw.rpush(cache.key_for("list", MODEL), "x")
    server.raw.hset(cache.key_for("hash", MODEL), "text", "x")
    cache.mget(["list", "none", "hash"], MODEL)
    cache.get("list", MODEL)
    assert sums(cache.stats("all", MODEL)) == {"misses": 4, "corrupt": 3}


def test_a_value_of_another_type_that_is_replaced_at_once_is_a_plain_miss(counting, server):
    """It is looked at when counts are handed over, where that costs no lookup anything."""
    server.raw.rpush(counting.key_for("text", MODEL), "x")
    counting.get("text", MODEL)
    counting.set("text", MODEL, VECTOR)
    assert without_bytes(counting.stats("all")) == {"misses": 1, "sets": 1}


def test_another_text_under_the_same_key_is_a_miss_and_not_corrupt(counting):
    counting.set("a", "b:c", VECTOR)
    assert counting.get("a:b", "c") is None
    assert without_bytes(counting.stats("all", "c")) == {"misses": 1}


def test_a_miss_of_what_has_expired_is_told_from_others(server):
    with EmbeddingsCache("c", redis_url=server.url) as cache:
        keys = cache.mset([item("short", ttl=1), item("long", ttl=600), item("dropped", ttl=1), item("kept", ttl=1)])
        cache.drop("dropped", MODEL)
        cache.persist(keys[3])
        cache.flush_stats()
        wait_for_expiry(server, keys[0])
        server.raw.delete(keys[1], keys[3])
        cache.mget(["short", "long", "dropped", "kept", "never"], MODEL)
        cache.get("short", MODEL)
        found = cache.stats("all", MODEL)
    assert (found.misses, found.expired, found.corrupt) == (6, 2, 0)


def test_a_text_stored_again_in_the_second_of_its_expired_miss_is_counted_as_expired(valkey):
    """What programs do: look up, miss, compute, store."""
    with EmbeddingsCache("c", redis_url=valkey.url) as cache:
        key = cache.set("text", MODEL, VECTOR, ttl=1)
        cache.flush_stats()
        wait_for_expiry(valkey, key)
        cache.get("text", MODEL)
        cache.set("text", MODEL, VECTOR, ttl=600)
        cache.get("text", MODEL)
        found = cache.stats("all", MODEL)
    assert (found.hits, found.misses, found.expired) == (1, 1, 1)


def test_a_change_of_ttl_is_on_record_even_where_nothing_else_is_counted(counting, server):
    key = counting.set("text", MODEL, VECTOR, ttl=600)
    counting.flush_stats()
    counting.expire(key, 1)
    counting.flush_stats()
    (stored,) = (name for name in statistics_keys(server) if name.endswith(":stored"))
    ((_, score),) = server.raw.zrange(stored, 0, -1, withscores=True)
    assert int(score) % 2**22 == 1


def test_clearing_forgets_what_was_stored_even_where_nothing_is_left_to_remove(counting, server):
    key = counting.set("text", MODEL, VECTOR, ttl=1)
    counting.flush_stats()
    assert [name for name in statistics_keys(server) if name.endswith(":stored")]
    server.raw.delete(key)
    assert counting.clear() == 0
    counting.flush_stats()
    assert [name for name in statistics_keys(server) if name.endswith(":stored")] == []


@pytest.mark.parametrize("ttl", [None, 600])
def test_a_miss_of_what_was_evicted_is_told_from_others(server, ttl):
    with EmbeddingsCache("c", redis_url=server.url) as cache:
        keys = cache.mset(items(3), ttl=ttl)
        cache.flush_stats()
        cache.drop_by_key(keys[2])
        server.raw.delete(*keys[:2])
        time.sleep(1)  # what was written within the second of the miss may have been written after it
        cache.mget([*texts(3), "never stored"], MODEL)
        found = cache.stats("all", MODEL)
    assert (found.misses, found.evicted, found.expired) == (4, 2, 0)


@pytest.mark.parametrize(
    "settings",
    [{"decode_responses": True}, {"protocol": 3}, {"protocol": 2}, {"single_connection_client": True}],
    ids=lambda settings: next(iter(settings)),
)
def test_a_client_of_ones_own_counts_whatever_its_settings(server, settings):
    with redis.Redis(unix_socket_path=str(server.socket), **settings) as client:
        cache = EmbeddingsCache("c", redis_client=client, slow_lookup_seconds=0)
        cache.mset(items(3), ttl=500)
        cache.mget([*texts(3), "none"], MODEL)
        cache.set_token_price(MODEL, 0.5)
        assert without_bytes(cache.stats("1h")) == {"hits": 3, "misses": 1, "sets": 3}
        assert sum(each.sets for each in cache.stats_series("3m", "1m", MODEL)) == 3
        assert [each.hits for each in cache.slow_lookups()] == [3]
        assert cache.token_prices() == {MODEL: 0.5}
        assert cache.why("TEXT 1", MODEL).similar == (("text 1", MODEL),)
        cache.close()


# ------------------------------------------------------------------------------------------------ off


def test_without_statistics_nothing_but_entries_is_written(make_cache, server):
    cache = make_cache(stats=False, slow_lookup_seconds=0.0, slow_lookup_texts=True)
    keys = cache.mset(items(3), ttl=500)
    cache.mget([*texts(3), "none"], MODEL)
    cache.mget_by_keys(keys)
    cache.mget_embeddings(texts(3), MODEL)
    cache.expire(keys[0], 7)
    cache.drop("text 2", MODEL)
    cache.record_computation(MODEL, 3, 0.1, 30)
    cache.flush_stats()
    assert sums(cache.stats("all")) == {}
    assert cache.stats_series("3m", "1m")[0].hits == 0
    assert cache.slow_lookups() == []
    assert sums(cache.process_stats()) == {}
    cache.why("none", MODEL)
    cache.cache.close()
    assert {key.decode() for key in server.raw.scan_iter()} == set(keys[:2])


def test_a_cache_that_does_not_count_still_tells_what_others_counted(make_cache):
    counting, asking = make_cache(stats=True), make_cache(stats=False)
    counting.mset(items(3))
    asking.mset(items(5))
    counting.flush_stats()
    assert asking.stats("all").sets == 3


def test_what_this_object_counted_is_told_without_a_server(counting):
    counting.mset([*items(3), *items(2, OTHER)])
    counting.get("text 1", MODEL)
    counting.flush_stats()
    counting.get("text 1", OTHER)
    found = counting.process_stats()
    assert without_bytes(found) == {"hits": 2, "sets": 5}
    assert without_bytes(counting.process_stats(OTHER)) == {"hits": 1, "sets": 2}
    assert {name: each.sets for name, each in counting.process_stats_by_model().items()} == {MODEL: 3, OTHER: 2}
    assert found.start <= time.time() + 1
    assert found.lookups == 2


def test_counts_arrive_within_seconds_without_anybody_asking(valkey):
    with EmbeddingsCache("c", redis_url=valkey.url) as cache, Shelf(valkey) as shelf:
        cache.mset(items(3))
        assert wait_until(lambda: MODEL in shelf.total())
        assert shelf.total()[MODEL].sets == 3
        cache.mset(items(4))
        assert wait_until(lambda: shelf.total()[MODEL].sets == 7)
