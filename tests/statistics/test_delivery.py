"""Counts delivered to real servers: once, into the right minute, for as long as they are to be kept."""

from __future__ import annotations

import time

import pytest
from counted import (
    MODEL,
    OTHER,
    VECTOR,
    batch,
    items,
    server_time,
    statistics_keys,
    stats_of,
    sums,
    texts,
    unattended,
)

from embedcache import EmbeddingsCache, counters, flushing
from embedcache.buckets import DAYS, HOURS, MINUTES
from embedcache.counters import Batch, Counts
from embedcache.errors import CacheUnavailableError, ServerReplyError

DAY = 86_400


# ------------------------------------------------------------------------------------------------ once


def test_counts_of_all_writers_add_up(shelf):
    for number in range(1, 4):
        for writer in "vw":
            counts = {MODEL: Counts(hits=number, latencies={7: 1}), None: Counts(misses=1)}
            shelf.add(batch(counts), writer, number)
    assert shelf.total() == {MODEL: Counts(hits=12, latencies={7: 6}), None: Counts(misses=6)}


def test_a_batch_sent_twice_is_added_once(scripted):
    scripted.add(batch(), "w", 1)
    scripted.add(batch(), "w", 1)
    scripted.add(batch(), "w", 2)
    scripted.add(batch(), "w", 1)
    scripted.add(batch(), "w", 2)
    scripted.add(batch(), "v", 1)
    assert scripted.total()[MODEL].hits == 3


def test_negative_amounts_are_added_too(shelf):
    shelf.add(batch({None: Counts(hits=5)}), number=1)
    shelf.add(batch({None: Counts(hits=-3), MODEL: Counts(hits=3)}), number=2)
    assert shelf.total() == {None: Counts(hits=2), MODEL: Counts(hits=3)}


def test_a_batch_whose_answer_is_lost_is_sent_again_and_added_once(scripted):
    """The server has it, the process does not know: what is counted meanwhile waits behind it."""
    answers = [CacheUnavailableError("lost"), CacheUnavailableError("lost"), None, None]
    sent: list[tuple[int, int]] = []

    def send(counted: Batch, writer: str, number: int, process: str) -> None:
        scripted.add(counted, writer, number)
        sent.append((number, counted.counts[MODEL].hits))
        if error := answers[len(sent) - 1]:
            raise error

    outbox = unattended(send)
    for hits in (1, 10, 100):
        outbox.counters.count(MODEL, hits=hits)
        outbox.try_to_flush()
    assert sent == [(1, 1), (1, 1), (1, 1), (2, 110)]
    assert scripted.total()[MODEL].hits == 111


def test_a_key_of_another_type_costs_one_batch_and_no_more(scripted, server):
    scripted.add(batch(), "w", 1)
    (key,) = (key for key in statistics_keys(server) if key.endswith(":total"))
    server.raw.delete(key)
    server.raw.set(key, "another program's")
    outbox = unattended(lambda counted, writer, number, _: scripted.add(counted, writer, number))
    outbox.counters.count(MODEL, hits=1)
    outbox.try_to_flush()
    server.raw.delete(key)
    outbox.counters.count(MODEL, hits=10)
    assert outbox.try_to_flush() or outbox.try_to_flush()
    assert scripted.total()[MODEL].hits in {10, 11}


# ------------------------------------------------------------------------------------------------ when


def test_counts_land_in_the_minute_in_which_they_happened_however_late_they_arrive(shelf, server):
    now = server_time(server)
    shelf.add(batch(ago=600.0), number=1)
    assert shelf.bucket(MINUTES, now - 600)[MODEL].hits == 1
    assert shelf.bucket(MINUTES, now) == {}
    assert shelf.total()[MODEL].hits == 1


def test_counts_of_a_minute_that_is_no_longer_kept_are_in_the_day_alone(shelf, server):
    now = server_time(server)
    shelf.add(batch(ago=3 * DAY), number=1)
    assert shelf.bucket(MINUTES, now - 3 * DAY) == {}
    assert shelf.bucket(HOURS, now - 3 * DAY)[MODEL].hits == 1
    assert shelf.bucket(DAYS, now - 3 * DAY)[MODEL].hits == 1


@pytest.mark.parametrize("skew", [-86_400.0, 86_400.0 * 365])
def test_a_writer_whose_clock_is_wrong_counts_into_the_right_minute(server, scripted, monkeypatch, skew):
    right = time.time
    monkeypatch.setattr(time, "time", lambda: right() + skew)
    with EmbeddingsCache("c", redis_url=server.url) as cache:
        cache.set("text", MODEL, VECTOR, ttl=500)
        cache.mget(["text", "none"], MODEL)
        assert sums(cache.stats("2m"))["hits"] == 1
        assert cache.stats("2m").end == pytest.approx(server_time(server), abs=60)
        assert [each.hits for each in cache.stats_series("3m", "1m")].count(1) == 1
    monkeypatch.undo()
    now = server_time(server)
    assert sum(scripted.bucket(MINUTES, now - ago).get(MODEL, Counts()).hits for ago in (0, 60)) == 1


def test_each_bucket_is_kept_as_long_as_promised(shelf, server):
    shelf.add(batch(stored={"c:" + "a" * 64: (time.monotonic(), 100)}), number=1)
    now = server_time(server)
    kept = {key.split(":")[3]: (key, server.pttl(key) / 1_000) for key in statistics_keys(server)}
    for code, resolution in (("m", MINUTES), ("h", HOURS), ("d", DAYS)):
        key, left = kept[code]
        start = int(key.rpartition(":")[2])
        assert start <= now < start + resolution.seconds + 2
        assert left == pytest.approx(start + resolution.seconds + resolution.kept_seconds - now, abs=3)
    assert (MINUTES.kept_seconds, HOURS.kept_seconds, DAYS.kept_seconds) == (2 * DAY, 60 * DAY, 730 * DAY)
    assert kept["total"][1] == pytest.approx(730 * DAY, abs=3)
    assert kept["stored"][1] == pytest.approx(90 * DAY, abs=3)
    assert all(left > 0 for _, left in kept.values()), "nothing is kept for ever"


def test_only_so_many_writes_are_remembered_the_last_ones(scripted, server):
    now, count = time.monotonic(), counters.MAX_TOLD
    for number in range(1, 13):
        stored = {f"c:{number * count + each:016x}{'0' * 48}": (now + number * 100, None) for each in range(count)}
        scripted.add(batch(stored=stored), number=number)
    (key,) = (key for key in statistics_keys(server) if key.endswith(":stored"))
    assert server.raw.zcard(key) == 10_000
    ((first, _),) = server.raw.zrange(key, 0, 0, withscores=True)
    assert first == bytes.fromhex(f"{3 * count:016x}")


# ------------------------------------------------------------------------------------------------ whose


def test_clearing_a_cache_leaves_its_statistics(make_cache, server):
    cache = make_cache(stats=True)
    cache.mset(items(3))
    cache.flush_stats()
    before = statistics_keys(server)
    assert cache.clear() == 3
    assert statistics_keys(server) == before
    assert cache.stats("all").sets == 3
    assert cache.stats("all").drops == 3


@pytest.mark.parametrize("other", ["b", "a:stats", "a:stats:{ca978112}", "a*", "A", "a "])
def test_caches_of_different_names_are_counted_apart(make_cache, other):
    one, two = make_cache("a", stats=True), make_cache(other, stats=True)
    one.mset(items(2))
    two.mset(items(5, OTHER))
    two.clear()
    one.flush_stats()
    two.flush_stats()
    assert one.stats("all").sets == one.stats("all", MODEL).sets == 2
    assert one.stats("all").drops == 0
    assert (two.stats("all").sets, two.stats("all").drops) == (5, 5)
    assert one.mexists(texts(2), MODEL) == [True, True]
    assert set(one.stats_by_model("all")) == {MODEL}
    assert set(two.stats_by_model("all")) == {OTHER}


@pytest.mark.parametrize("name", ["*", "a?[b]\\", "x{y}", "{}", "ключ", "a:b:c", "stats", "c:stats", "c " * 40])
def test_any_name_that_a_cache_may_have_is_counted(make_cache, server, name):
    cache = make_cache(name, stats=True)
    cache.set("text", MODEL, VECTOR)
    assert cache.stats("1h").sets == 1
    assert cache.clear() == 1
    cache.flush_stats()
    assert stats_of(server.url, name).drops == 1


def test_two_caches_of_one_name_on_one_server_share_their_statistics(make_cache):
    one, two = make_cache(stats=True), make_cache(stats=True)
    one.mset(items(2))
    two.mset(items(3))
    one.flush_stats()
    two.flush_stats()
    assert one.stats("all").sets == two.stats("all").sets == 5


def test_the_script_adds_nothing_for_a_number_that_it_has(scripted, server):
    scripted.add(batch(), "w", 5)
    before = {key: server.raw.hgetall(key) for key in statistics_keys(server) if ":writer:" not in key}
    scripted.add(batch(), "w", 4)
    assert {key: server.raw.hgetall(key) for key in statistics_keys(server) if ":writer:" not in key} == before


def test_an_error_of_the_server_is_raised_by_flushing_on_demand():
    def send(*_: object) -> None:
        raise ServerReplyError("OOM command not allowed")

    outbox = unattended(send)
    outbox.counters.count(MODEL, hits=1)
    with pytest.raises(ServerReplyError, match="OOM"):
        outbox.flush()
    assert not outbox.try_to_flush()


def test_an_outage_is_counted_by_the_minute_and_in_bounded_space(monkeypatch):
    sent: list[Batch] = []
    away = True

    def send(counted: Batch, *_: object) -> None:
        if away:
            raise CacheUnavailableError("away")
        sent.append(counted)

    clock = [1_000.0]
    monkeypatch.setattr(counters, "monotonic", lambda: clock[0])
    outbox = unattended(send)
    for _ in range(3 * flushing.MAX_WAITING):
        for _ in range(4):
            clock[0] += 15
            outbox.counters.count(MODEL, errors=1)
        assert not outbox.try_to_flush()
    away = False
    assert outbox.try_to_flush()
    assert len(sent) <= flushing.MAX_WAITING + 1
    assert sum(each.counts[MODEL].errors for each in sent) == 12 * flushing.MAX_WAITING
    assert all(each.until - each.since <= 61 for each in sent[:-1])
