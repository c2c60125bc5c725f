"""Servers that take no counts just now: lookups go on, counts wait, and arrive exactly."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import time

import pytest
import redis
from counted import (
    MODEL,
    OTHER,
    VECTOR,
    Shelf,
    items,
    statistics_keys,
    stats_of,
    sums,
    texts,
    wait_until,
    without_bytes,
)
from servers import BINARIES, free_port, running

from embedcache import EmbeddingsCache
from embedcache.errors import CacheUnavailableError, ServerReplyError
from embedcache.explain import Reason

KINDS = list(BINARIES)


def no_thread_asks(cache: EmbeddingsCache) -> None:
    """Only the test delivers: what it counts, no thread may have delivered before."""
    cache._counters._wake = lambda: None


def test_calls_that_find_no_server_are_counted_as_errors_when_it_is_back():
    with running("valkey9") as server, EmbeddingsCache("c", redis_url=server.url) as cache:
        cache.set("text", MODEL, VECTOR)
        cache.flush_stats()
        server.stop()
        for call in (
            lambda: cache.get("text", MODEL),
            lambda: cache.mget(["text"], OTHER),
            lambda: cache.set("text", MODEL, VECTOR),
            lambda: cache.mset(items(3)),
            lambda: cache.drop("text", MODEL),
            cache.clear,
        ):
            with pytest.raises(CacheUnavailableError):
                call()
        with pytest.raises(CacheUnavailableError):
            cache.flush_stats()
        assert sums(cache.process_stats())["errors"] == 6
        server.start()
        cache.connection.forget_outage()
        cache.get("text", MODEL)
        cache.flush_stats()
        assert without_bytes(cache.stats("all")) == {"errors": 6, "misses": 1}
        assert {name: each.errors for name, each in cache.stats_by_model("all").items()} == {MODEL: 3, OTHER: 1}


def test_counts_that_waited_arrive_by_themselves_when_the_server_is_back():
    with running("valkey9") as server, EmbeddingsCache("c", redis_url=server.url) as cache:
        server.stop()
        with pytest.raises(CacheUnavailableError):
            cache.get("text", MODEL)
        assert wait_until(lambda: cache._outbox._failing)
        server.start()
        with Shelf(server) as shelf:
            assert wait_until(lambda: shelf.total().get(MODEL))
            assert shelf.total()[MODEL].errors == 1


def test_counts_alone_are_no_reason_to_start_an_embedded_server_that_is_gone(tmp_path):
    with EmbeddingsCache("c", redis_url=f"embedded://{tmp_path}/data") as cache:
        cache.get("text", MODEL)
        cache.flush_stats()
        server = cache.connection._embedded
        os.kill(server.pid, signal.SIGKILL)
        cache.record_computation(MODEL, 5, 1.0)
        assert wait_until(lambda: not cache._outbox.try_to_flush())
        assert server._ask("PING") is None
        cache.get("text", MODEL)
        cache.flush_stats()
        assert cache.stats("all").texts_computed == 5


async def test_async_calls_that_find_no_server_are_counted_as_errors():
    with running("valkey9") as server:
        async with EmbeddingsCache("c", redis_url=server.url) as cache:
            server.stop()
            for call in (
                cache.aget("text", MODEL),
                cache.aset("text", MODEL, VECTOR),
                cache.amget_by_keys(["c:" + "0" * 64]),
            ):
                with pytest.raises(CacheUnavailableError):
                    await call
            server.start()
            cache.connection.forget_outage()
            assert (await cache.astats("all")).errors == 3
            assert (await cache.astats("all", MODEL)).errors == 2


def test_an_error_that_the_server_answers_is_counted(server):
    with EmbeddingsCache("c", redis_url=server.url) as cache:
        server.raw.config_set("maxmemory", 1)
        for call in (lambda: cache.set("text", MODEL, VECTOR), lambda: cache.mset(items(2), ttl=5)):
            with pytest.raises(ServerReplyError, match="OOM"):
                call()
        server.raw.config_set("maxmemory", 0)
        assert without_bytes(cache.stats("all")) == {"errors": 2}
        assert cache.stats("all", MODEL).errors == 1


def test_one_warning_tells_of_an_outage_and_lookups_are_not_held_up(caplog):
    with running("valkey9") as server, EmbeddingsCache("c", redis_url=server.url) as cache:
        cache.set("text", MODEL, VECTOR)
        cache.flush_stats()
        server.raw.config_set("maxmemory", 1)
        no_thread_asks(cache)
        with caplog.at_level(logging.INFO, "embedcache.flushing"):
            for _ in range(3):
                cache.get("text", MODEL)
                assert not cache._outbox.try_to_flush()
        assert [record.levelname for record in caplog.records] == ["WARNING"]
        assert "statistics wait in this process" in caplog.text


# ------------------------------------------------------------------------------------------------ a full server


@pytest.mark.parametrize("scripts", [True, False], ids=["scripts", "plain commands"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_full_server_still_answers_and_counts_arrive_when_there_is_room(kind, scripts):
    with running(kind) as server, EmbeddingsCache("c", redis_url=server.url, slow_lookup_seconds=0) as cache:
        cache._able.scripts = scripts
        cache.mset(items(3))
        cache.flush_stats()
        server.raw.config_set("maxmemory-policy", "noeviction")
        server.raw.config_set("maxmemory", 1)
        for _ in range(5):
            assert [entry is not None for entry in cache.mget([*texts(3), "none"], MODEL)] == [True, True, True, False]
            with pytest.raises(ServerReplyError):
                cache.flush_stats()
        assert cache.get("text 1", MODEL)["text"] == "text 1"
        with pytest.raises(ServerReplyError, match="OOM"):
            cache.set("more", MODEL, VECTOR)
        assert cache.stats("all").hits == 0, "it can still be asked"
        server.raw.config_set("maxmemory", 0)
        cache.flush_stats()
        found = cache.stats("all")
        assert without_bytes(found) == {"hits": 16, "misses": 5, "sets": 3, "errors": 1}
        assert found.lookups == 6
        assert len(cache.slow_lookups()) == 6


# ------------------------------------------------------------------------------------------------ a replica


@pytest.mark.parametrize("kind", KINDS)
def test_a_read_only_replica_answers_and_takes_the_counts_once_it_is_promoted(kind):
    port = free_port()
    at_once = ("--repl-diskless-sync-delay", "0")
    with running(kind, *at_once, port=port) as primary, running(kind, "--replicaof", "127.0.0.1", str(port)) as replica:
        with EmbeddingsCache("c", redis_url=primary.url, ttl=500, stats=False) as writing:
            writing.mset(items(3))
        assert wait_until(lambda: replica.raw.dbsize() == 3)
        with EmbeddingsCache("c", redis_url=replica.url, ttl=500) as cache:
            for _ in range(3):
                assert all(cache.mget(texts(3), MODEL))
                assert not cache._outbox.try_to_flush()
            assert cache.stats("1h").hits == 0
            assert str(cache.why("text 1", MODEL)).startswith("Hit")
            replica.raw.replicaof("NO", "ONE")
            assert wait_until(cache._outbox.try_to_flush)
            found = cache.stats("all")
            assert (found.hits, found.lookups) == (9, 3)


# ------------------------------------------------------------------------------------------------ ACLs


def as_user(server, *rules: str) -> str:
    server.raw.execute_command("ACL", "SETUSER", "u", "reset", "on", ">secret", *rules)
    return server.url.replace("unix://", "unix://u:secret@")


@pytest.fixture
def acl(server):
    yield lambda *rules: as_user(server, *rules)
    server.raw.execute_command("ACL", "DELUSER", "u")


def test_who_may_touch_the_caches_keys_alone_may_count(server, acl):
    with EmbeddingsCache("c", redis_url=acl("~c:*", "+@all"), slow_lookup_seconds=0) as cache:
        cache.mset(items(3), ttl=500)
        cache.mget([*texts(3), "none"], MODEL)
        cache.set_token_price(MODEL, 1.0)
        cache.flush_stats()
        assert cache._able.scripts
        assert without_bytes(cache.stats("1h")) == {"hits": 3, "misses": 1, "sets": 3}
        assert len(cache.slow_lookups()) == 1
        assert cache.token_prices() == {MODEL: 1.0}
    assert {key.decode().partition(":")[0] for key in server.raw.scan_iter()} == {"c"}


@pytest.mark.parametrize("ttl", [None, 500])
def test_without_scripts_all_is_counted_all_the_same(server, acl, ttl):
    with EmbeddingsCache("c", ttl=ttl, redis_url=acl("~c:*", "+@all", "-@scripting"), slow_lookup_seconds=0) as cache:
        for _ in range(3):
            cache.mset(items(3))
            cache.mget([*texts(3), "none"], MODEL)
            cache.flush_stats()
        found = cache.stats("1h")
        assert without_bytes(found) == {"hits": 9, "misses": 3, "sets": 9}
        assert found.lookups == 3
        assert {server.pttl(key) > 0 for key in statistics_keys(server)} == {True}


def test_without_time_all_is_counted_all_the_same(acl):
    with EmbeddingsCache("c", redis_url=acl("~c:*", "+@all", "-time")) as cache:
        cache.mget(texts(3), MODEL)
        assert cache.stats("15m").misses == 3
        assert cache.stats("15m").end == pytest.approx(time.time(), abs=5)


@pytest.mark.parametrize(
    "rules",
    [
        ("~c:*", "+@read", "+@connection", "+time"),
        ("~c:*", "+@read", "+@connection", "+@scripting"),
        ("~c:*", "+get", "+mget", "+@connection"),
    ],
    ids=["reads", "reads and scripts", "single commands"],
)
def test_who_may_only_read_looks_up_undisturbed_and_counts_nothing(server, acl, rules):
    with EmbeddingsCache("c", redis_url=server.url, stats=False) as writing:
        writing.mset(items(2))
    before = server.raw.dbsize()
    with EmbeddingsCache("c", redis_url=acl(*rules), slow_lookup_seconds=0) as cache:
        for _ in range(2):
            assert all(cache.mget(texts(2), MODEL))
            assert cache.get("text 0", MODEL)["text"] == "text 0"
            with contextlib.suppress(ServerReplyError):
                cache.flush_stats()
        assert cache.process_stats().hits == 6
    assert server.raw.dbsize() == before


def test_a_writer_that_may_not_set_expiry_does_not_count_the_same_again_and_again(server, acl):
    url = acl("~c:*", "+@all", "-@scripting", "-expireat")
    with EmbeddingsCache("c", redis_url=url) as cache:
        cache.mget(texts(3), MODEL)
        for _ in range(4):
            cache._outbox.try_to_flush()
    assert stats_of(server.url).misses == 0


def test_keys_of_another_type_in_the_way_break_no_lookup(server):
    with EmbeddingsCache("c", redis_url=server.url, slow_lookup_seconds=0) as cache, Shelf(server) as shelf:
        cache.set("text", MODEL, VECTOR, ttl=500)
        cache.flush_stats()
        for key in statistics_keys(server):
            if ":writer:" not in key:
                server.raw.delete(key)
                server.raw.set(key, "in the way")
        for _ in range(3):
            assert cache.get("text", MODEL)["text"] == "text"
            cache._outbox.try_to_flush()
        for key in statistics_keys(server):
            if ":writer:" not in key:
                server.raw.delete(key)
        cache._outbox.try_to_flush()
        before = shelf.total().get(MODEL)
        cache.get("text", MODEL)
        cache.flush_stats()
        assert shelf.total()[MODEL].hits == (before.hits if before else 0) + 1


def test_a_client_with_few_connections_is_left_to_the_program(valkey):
    with (
        redis.Redis(unix_socket_path=str(valkey.socket), max_connections=1) as client,
        EmbeddingsCache("c", redis_client=client) as cache,
    ):
        cache.set("a", MODEL, VECTOR)
        valkey.raw.client_pause(300, all=False)  # whoever writes waits, as a delivery of counts does now
        deadline = time.monotonic() + 0.3
        found = 0
        while time.monotonic() < deadline:
            found += cache.get("a", MODEL) is not None
        assert cache.stats().hits == found > 0


def test_what_is_stored_anew_without_a_ttl_has_not_expired_but_is_gone(valkey):
    with EmbeddingsCache("c", redis_url=valkey.url) as cache:
        key = cache.set("a", MODEL, VECTOR, ttl=1)
        cache.flush_stats()
        cache.set("a", MODEL, VECTOR)
        cache.flush_stats()
        valkey.raw.delete(key)
        assert cache.why("a", MODEL).reason is Reason.GONE


def test_what_was_dropped_this_moment_is_not_called_gone(valkey):
    with EmbeddingsCache("c", redis_url=valkey.url) as cache:
        cache.set("a", MODEL, VECTOR, ttl=500)
        cache.flush_stats()
        cache.drop("a", MODEL)
        assert cache.why("a", MODEL).reason is Reason.NEVER_STORED
