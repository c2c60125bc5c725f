"""The circuit breaker: when it opens, what that costs, and how calls go through again."""

from __future__ import annotations

import asyncio
import gc
import itertools
import logging
import os
import signal
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
import redis
from calling import Caller
from failing import EAGER, NEVER_ASKS, QUICK, fails, resume, stop, wait_until
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff
from redis.retry import Retry
from servers import free_port, running
from working import MODEL, VECTOR, awaits, works

from embedcache import NEVER, BreakerPolicy, CacheUnavailableError, EmbeddingsCache, breaker
from embedcache.breaker import Breaker
from embedcache.connection import RedisConnection
from embedcache.errors import InvalidInputError, ServerReplyError

Wrap = Callable[[EmbeddingsCache], Caller]


# ------------------------------------------------------------------------------------------------ what it is told


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"failures": 0}, "failures"),
        ({"failures": True}, "failures"),
        ({"failures": 2.0}, "failures"),
        ({"failures": None}, "failures"),
        ({"first_pause": 0}, "first_pause"),
        ({"first_pause": float("nan")}, "first_pause"),
        ({"first_pause": "1"}, "first_pause"),
        ({"longest_pause": float("inf")}, "longest_pause"),
        ({"longest_pause": False}, "longest_pause"),
        ({"first_pause": 2, "longest_pause": 1}, "shorter than its first_pause"),
    ],
)
def test_a_policy_that_cannot_be_used(options: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidInputError, match=words):
        BreakerPolicy(**options)


@pytest.mark.parametrize("wrong", [3, True, {"failures": 3}, BreakerPolicy], ids=["int", "bool", "dict", "class"])
def test_what_is_no_policy(wrong: Any) -> None:
    with pytest.raises(InvalidInputError, match="breaker is a BreakerPolicy or None"):
        EmbeddingsCache(redis_url="unix:///nowhere.sock", breaker=wrong)


# ------------------------------------------------------------------------------------------------ a server that is gone


def test_it_opens_after_repeated_failures_and_says_since_when_why_and_when_it_asks(caller: Wrap) -> None:
    cache = caller(EmbeddingsCache(redis_url="unix:///nowhere.sock", breaker=NEVER_ASKS))
    assert "again" not in fails(cache)
    assert cache.cache.connection.outage is None
    before = time.time()
    fails(cache)
    said = fails(cache)
    outage = cache.cache.connection.outage
    assert outage is not None
    assert before - 5 < outage.since <= time.time()
    assert 400 < outage.next_attempt - time.time() <= 600
    assert "/nowhere.sock" in outage.reason
    since = time.strftime("%H:%M:%S", time.localtime(outage.since))
    assert said.startswith(f"no answer from unix:///nowhere.sock since {since}, for ")
    assert outage.reason in said
    assert "it is asked again in " in said


def test_a_call_to_a_server_that_is_gone_costs_less_than_a_millisecond(caller: Wrap) -> None:
    """Of a hundred the median, for the machine has other work beside."""
    cache = caller(EmbeddingsCache(redis_url=f"redis://127.0.0.1:{free_port()}", breaker=NEVER_ASKS))
    fails(cache, 3)
    for call in (
        lambda: cache.get("a", MODEL),
        lambda: cache.mget(["a", "b"], MODEL),
        lambda: cache.set("a", MODEL, [1.0]),
    ):
        seconds = []
        for _ in range(100):
            started = time.perf_counter()
            with pytest.raises(CacheUnavailableError):
                call()
            seconds.append(time.perf_counter() - started)
        assert sorted(seconds)[50] < 0.001


def test_nobody_waits_for_a_server_that_is_stopped_once_the_first_have(caller: Wrap) -> None:
    with running("valkey9") as server:
        cache = caller(EmbeddingsCache(redis_url=server.url, connection_kwargs=QUICK, breaker=NEVER_ASKS))
        assert works(cache)
        stop(server)
        assert "Timeout" in fails(cache, 2)
        started = time.perf_counter()
        fails(cache, 100)
        assert time.perf_counter() - started < 50  # 100 s, if each waited
        resume(server)


def test_where_time_ran_out_it_is_not_tried_a_second_time(caller: Wrap) -> None:
    with running("valkey9") as server:
        cache = caller(EmbeddingsCache(redis_url=server.url, connection_kwargs=QUICK, breaker=None, stats=False))
        key = cache.set("a", MODEL, VECTOR)
        assert cache.remaining_ttl(key) is NEVER
        before = server.raw.info("commandstats")["cmdstat_pttl"]["calls"]
        stop(server)
        with pytest.raises(CacheUnavailableError):
            cache.remaining_ttl(key)
        resume(server)
        server.raw.ping()  # what was sent before is answered before
        assert server.raw.info("commandstats")["cmdstat_pttl"]["calls"] == before + 1


@pytest.mark.parametrize("kind", [Retry, AsyncRetry], ids=["sync", "async"])
def test_how_often_it_is_tried_is_a_setting_for_both_kinds_of_client(caller: Wrap, kind: type[Any]) -> None:
    with running("valkey9") as server:
        settings = QUICK | {"retry": kind(NoBackoff(), 2), "retry_on_timeout": True}
        cache = caller(EmbeddingsCache(redis_url=server.url, connection_kwargs=settings, breaker=None, stats=False))
        cache.set("a", MODEL, VECTOR)
        before = server.raw.info("stats")["total_connections_received"]
        stop(server)
        fails(cache)
        resume(server)
        assert server.raw.info("stats")["total_connections_received"] >= before + 2


def test_those_who_wait_for_a_connection_leave_when_it_opens() -> None:
    settings = {"socket_timeout": 2, "max_connections": 2}

    async def ask(cache: EmbeddingsCache) -> list[Any]:
        return await asyncio.gather(*(cache.amget(["a"], MODEL) for _ in range(40)), return_exceptions=True)

    with running("valkey9") as server:
        cache = EmbeddingsCache(redis_url=server.url, connection_kwargs=settings, breaker=NEVER_ASKS, stats=False)
        stop(server)
        started = time.perf_counter()
        assert {type(found) for found in asyncio.run(ask(cache))} == {CacheUnavailableError}
        assert time.perf_counter() - started < 20  # one after another they would take 40 s
        resume(server)
        cache.connection.forget_outage()
        assert asyncio.run(ask(cache)) == [[None]] * 40
        cache.close()


def test_without_one_each_call_finds_out(caller: Wrap) -> None:
    with running("valkey9") as server:
        cache = caller(EmbeddingsCache(redis_url=server.url, breaker=None))
        server.stop()
        fails(cache, 10)
        assert cache.cache.connection.outage is None
        server.start()
        assert works(cache)


def test_clients_that_were_passed_in_have_one_too(caller: Wrap) -> None:
    with running("valkey9") as server:
        given = redis.Redis(unix_socket_path=str(server.socket), retry=Retry(NoBackoff(), 0))
        cache = caller(EmbeddingsCache(redis_client=given, breaker=EAGER, stats=False))
        assert works(cache)
        server.stop()
        fails(cache, 2)
        assert "since" in fails(cache)
        server.start()
        assert wait_until(lambda: cache.cache.connection.outage is None)
        assert works(cache)
        given.close()


async def test_async_clients_that_were_passed_in_have_one_too() -> None:
    with running("valkey9") as server:
        async with redis.asyncio.Redis(unix_socket_path=str(server.socket), retry=AsyncRetry(NoBackoff(), 0)) as given:
            cache = EmbeddingsCache(async_redis_client=given, breaker=EAGER, stats=False)
            assert await awaits(cache)
            server.stop()
            for _ in range(3):
                with pytest.raises(CacheUnavailableError) as caught:
                    await cache.aget("a", MODEL)
            assert "since" in str(caught.value)
            server.start()
            assert await asyncio.to_thread(wait_until, lambda: cache.connection.outage is None)
            assert await awaits(cache)
            cache.close()


# ------------------------------------------------------------------------------------------------ and its return


@pytest.mark.parametrize("way", ["stopped", "killed", "frozen"])
def test_a_server_that_comes_back_is_found_with_no_call_waiting_for_it(caller: Wrap, way: str) -> None:
    with running("valkey9") as server:
        cache = caller(EmbeddingsCache(redis_url=server.url, connection_kwargs=QUICK, breaker=EAGER, stats=False))
        assert works(cache)
        stop(server) if way == "frozen" else server.kill() if way == "killed" else server.stop()
        fails(cache, 3)
        time.sleep(0.3)  # some attempts in between
        assert cache.cache.connection.outage is not None
        if way == "frozen":
            resume(server)
        else:
            server.stop()
            server.start()
        assert wait_until(lambda: cache.cache.connection.outage is None)
        assert works(cache)


def test_it_is_asked_by_one_thread_at_growing_pauses_whoever_calls() -> None:
    with running("valkey9") as server:
        policy = BreakerPolicy(failures=1, first_pause=0.2, longest_pause=0.4)
        with EmbeddingsCache(redis_url=server.url, breaker=policy, stats=False) as cache:
            server.stop()
            callers = [threading.Thread(target=lambda: fails(cache, 50)) for _ in range(16)]
            for thread in callers:
                thread.start()
            for thread in callers:
                thread.join()
            asking = [thread for thread in threading.enumerate() if thread.name == "embedcache-breaker"]
            assert len(asking) == 1
            pauses = []
            for _ in range(3):
                seen = cache.connection.outage
                assert seen is not None
                pauses.append(seen.next_attempt)
                assert wait_until(lambda seen=seen: cache.connection.outage.next_attempt != seen.next_attempt)
            assert all(0.1 < later - earlier < 3 for earlier, later in itertools.pairwise(pauses))
        assert wait_until(lambda: not asking[0].is_alive())  # closed with its cache


def test_a_server_that_nobody_asks_for_is_left_alone_until_somebody_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(breaker, "QUIET_SECONDS", 0.2)
    with running("valkey9") as server, EmbeddingsCache(redis_url=server.url, breaker=EAGER, stats=False) as cache:
        server.stop()
        fails(cache, 3)
        (asking,) = [thread for thread in threading.enumerate() if thread.name == "embedcache-breaker"]
        assert wait_until(lambda: not asking.is_alive())
        server.start()
        assert cache.connection.outage is not None
        fails(cache)
        assert wait_until(lambda: cache.connection.outage is None)
        assert works(cache)


def test_a_dropped_cache_is_not_kept_alive_by_the_thread_that_asks() -> None:
    cache = EmbeddingsCache(redis_url="unix:///nowhere.sock", breaker=EAGER, stats=False)
    fails(cache, 2)
    (asking,) = [thread for thread in threading.enumerate() if thread.name == "embedcache-breaker"]
    del cache
    gc.collect()  # the errors' frames
    assert wait_until(lambda: not asking.is_alive())


def test_a_late_answer_closes_it(caller: Wrap) -> None:
    """A call that was on its way since before."""
    with running("valkey9") as server:
        cache = EmbeddingsCache(redis_url=server.url, breaker=NEVER_ASKS, stats=False)
        connection = cache.connection
        slow = threading.Thread(target=lambda: connection.drive(_asking(("BLPOP", "list", 0))))
        slow.start()
        assert wait_until(lambda: server.raw.info("clients")["blocked_clients"])
        for _ in range(2):
            connection._breaker.failed("it seems to be away")
        fails(cache)
        server.raw.lpush("list", "x")
        slow.join()
        assert connection.outage is None
        cache.close()


def _asking(*commands: Any) -> Any:
    return (yield list(commands))


def test_after_it_was_found_one_failure_opens_it_again() -> None:
    told: list[str | None] = ["no", None]

    class Connection:
        def ask(self) -> str | None:
            return told.pop(0)

    connection = Connection()
    guard = Breaker(BreakerPolicy(failures=3, first_pause=0.01, longest_pause=0.01), "x", connection.ask)
    for _ in range(3):
        assert guard.outage is None
        guard.failed("why")
    assert wait_until(lambda: guard.outage is None)
    assert told == []
    told.append(None)
    guard.failed("again")
    assert guard.outage is not None
    assert wait_until(lambda: guard.outage is None)
    guard.answered()
    for _ in range(2):
        guard.failed("a blip")
        guard.failed("a blip")
        guard.answered()
        assert guard.outage is None


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_child_finds_out_for_itself() -> None:
    with EmbeddingsCache(redis_url="unix:///nowhere.sock", breaker=NEVER_ASKS, stats=False) as cache:
        fails(cache, 3)
        pid = os.fork()
        if pid == 0:
            signal.alarm(20)  # ends a child that hangs
            fresh = cache.connection.outage is None
            fails(cache, 3)
            os._exit(0 if fresh and cache.connection.outage is not None else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        assert cache.connection.outage is not None


def test_it_is_told_once_per_outage(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "embedcache.breaker")
    with running("valkey9") as server, EmbeddingsCache(redis_url=server.url, breaker=EAGER, stats=False) as cache:
        for _ in range(2):
            caplog.clear()
            server.stop()
            fails(cache, 30)
            server.start()
            assert wait_until(lambda: cache.connection.outage is None)
            assert works(cache)
            first, second = [record.getMessage() for record in caplog.records]
            assert f"{server.url} does not answer, and is no longer waited for" in first
            assert f"{server.url} answers again, after " in second


# ------------------------------------------------------------------------------------------------ what is no failure


def test_what_the_server_refuses_is_an_answer(caller: Wrap) -> None:
    with running("valkey9", "--maxmemory-policy", "noeviction") as server:
        cache = caller(EmbeddingsCache(redis_url=server.url, breaker=NEVER_ASKS, stats=False))
        server.raw.config_set("maxmemory", 1)
        for _ in range(5):
            with pytest.raises(ServerReplyError, match="OOM"):
                cache.set("a", MODEL, VECTOR)
        assert cache.get("a", MODEL) is None
        assert cache.cache.connection.outage is None


def test_a_server_that_still_reads_its_entries_back_is_away(caller: Wrap) -> None:
    slowly = ["--key-load-delay", "20000", "--loading-process-events-interval-bytes", "1024"]
    with running("valkey9", "--appendonly", "yes", *slowly) as server:
        cache = caller(EmbeddingsCache(redis_url=server.url, breaker=EAGER, stats=False))
        for number in range(50):
            cache.set(f"{number} " + 2000 * "x", MODEL, VECTOR)
        server.raw.bgrewriteaof()  # as a snapshot: while it reads that, the server answers
        assert wait_until(lambda: not server.raw.info("persistence")["aof_rewrite_in_progress"])
        server.stop()
        starting = threading.Thread(target=server.start)
        starting.start()
        told = set()
        while starting.is_alive():
            try:
                cache.get("a", MODEL)
            except CacheUnavailableError as error:
                told.add("loading" in str(error) and "since" in str(error))
            time.sleep(0.005)
        starting.join()
        assert True in told
        assert wait_until(lambda: cache.cache.connection.outage is None)
        assert cache.exists("7 " + 2000 * "x", MODEL)


def test_a_pool_of_the_programs_own_that_is_too_small_is_no_outage() -> None:
    with running("valkey9") as server:
        client = redis.Redis(unix_socket_path=str(server.socket), max_connections=1)
        held = client.connection_pool.get_connection()
        cache = EmbeddingsCache(redis_client=client, breaker=NEVER_ASKS, stats=False)
        fails(cache, 5)
        assert cache.connection.outage is None
        client.connection_pool.release(held)
        assert works(cache)
        client.close()


def test_counts_that_cannot_be_delivered_do_not_open_it() -> None:
    with running("valkey9") as server, EmbeddingsCache(redis_url=server.url, breaker=NEVER_ASKS) as cache:
        server.stop()
        cache.record_computation(MODEL, 1, 1.0)
        for _ in range(5):
            with pytest.raises(CacheUnavailableError):
                cache.flush_stats()
        assert cache.connection.outage is None
        server.start()
        assert works(cache)


def test_a_connection_of_ones_own_is_not_closed_over_it() -> None:
    """Nor is a closed connection refused: it opens again as if it were new."""
    with running("valkey9") as server:
        connection = RedisConnection(server.url, breaker=NEVER_ASKS)
        server.stop()
        for _ in range(2):
            with pytest.raises(CacheUnavailableError):
                connection.drive(_asking(("PING",)))
        server.start()
        connection.close()
        assert connection.drive(_asking(("PING",))) == [True]
        connection.close()
