"""Clients passed in, and clients of our own for event loops, threads and forked processes."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import redis
import redis.asyncio
from calling import Caller
from redis.cache import CacheConfig
from servers import Server, is_statistics
from working import MODEL, VECTOR, awaits, items, works

from embedcache import EmbeddingsCache
from embedcache.errors import ClientRefusedError, InvalidInputError

PASSWORD = "s3cret-word"  # noqa: S105 - of a server that lives as long as its test


@pytest.mark.parametrize(
    "settings",
    [
        {"command_packer": redis.connection.PythonRespSerializer(6000, lambda value: str(value).encode())},
        {"cache_config": None, "max_connections": np.int64(3)},
    ],
    ids=["packer", "none"],
)
def test_settings_that_only_sync_clients_know_serve_async_too(valkey: Server, settings: dict[str, Any]) -> None:
    with EmbeddingsCache("c", redis_url=valkey.url, connection_kwargs=settings) as cache:
        assert asyncio.run(awaits(cache))


def test_replies_that_redis_py_would_keep_are_refused_at_a_unix_socket(valkey: Server) -> None:
    """It would fail at the first call with an AttributeError."""
    with pytest.raises(InvalidInputError, match="near_cache"):
        EmbeddingsCache("c", redis_url=valkey.url, connection_kwargs={"protocol": 3, "cache_config": CacheConfig()})


# ------------------------------------------------------------------------------------------------ clients passed in


def sync_client(server: Server, **options: Any) -> redis.Redis:
    return redis.Redis(unix_socket_path=str(server.socket), **options)


@pytest.mark.parametrize("options", [{}, {"protocol": 2}, {"protocol": 3}, {"decode_responses": True}, {"db": 1}])
def test_a_sync_client_serves_sync_and_async(server: Server, options: dict[str, Any]) -> None:
    with sync_client(server, **options) as client, EmbeddingsCache("c", redis_client=client) as cache:
        assert works(cache)
        assert asyncio.run(awaits(cache))
        cache.set("a", MODEL, VECTOR)
        assert len([key for key in client.scan_iter() if not is_statistics(key)]) == 1
        assert str(server.socket) in repr(cache)


@pytest.mark.parametrize("options", [{}, {"protocol": 2}, {"protocol": 3}, {"decode_responses": True}, {"db": 1}])
async def test_an_async_client_serves_async_and_sync(server: Server, options: dict[str, Any]) -> None:
    client = redis.asyncio.Redis(unix_socket_path=str(server.socket), **options)
    async with client, EmbeddingsCache("c", async_redis_client=client) as cache:
        assert await awaits(cache)
        assert works(cache)
        cache.set("a", MODEL, VECTOR)
        assert len([key async for key in client.scan_iter() if not is_statistics(key)]) == 1


async def test_both_clients_are_used_as_given(valkey: Server) -> None:
    one = sync_client(valkey, client_name="sync-one")
    async with redis.asyncio.Redis(unix_socket_path=str(valkey.socket), client_name="async-one") as other:
        cache = EmbeddingsCache(redis_client=one, async_redis_client=other)
        assert works(cache)
        assert await awaits(cache)
        assert {"sync-one", "async-one"} <= {client["name"] for client in valkey.raw.client_list()}
        assert one.connection_pool is cache.connection.client().connection_pool
        assert await cache.connection.async_client() is other
        one.close()


def clients(server: Server) -> set[str]:
    return {client["id"] for client in server.raw.client_list()}


async def test_clients_that_were_passed_in_stay_open(valkey: Server) -> None:
    earlier = clients(valkey)  # of other tests; they may leave meanwhile
    with sync_client(valkey) as one:
        async with redis.asyncio.Redis(unix_socket_path=str(valkey.socket)) as other:
            cache = EmbeddingsCache(redis_client=one, async_redis_client=other)
            assert works(cache)
            assert await awaits(cache)
            before = clients(valkey) - earlier
            await cache.aclose()
            cache.close()
            assert clients(valkey) - earlier == before
            assert len(before) >= 2
            assert works(cache)


def test_replies_are_bytes_whatever_the_settings_say(
    valkey: Server, caller: Callable[[EmbeddingsCache], Caller]
) -> None:
    for settings in ({"decode_responses": True}, {"protocol": 2}, {"protocol": 3}):
        assert works(caller(EmbeddingsCache(redis_url=valkey.url, connection_kwargs=settings)))


@pytest.mark.parametrize("kind", ["sync for async", "async for sync", "class", "url", "pool"])
def test_a_client_of_the_wrong_kind_is_refused(valkey: Server, kind: str) -> None:
    wrong: dict[str, dict[str, Any]] = {
        "sync for async": {"async_redis_client": sync_client(valkey)},
        "async for sync": {"redis_client": redis.asyncio.Redis()},
        "class": {"redis_client": redis.RedisCluster},
        "url": {"redis_client": "redis://localhost"},
        "pool": {"redis_client": redis.ConnectionPool()},
    }
    with pytest.raises(ClientRefusedError, match=r"redis_client is a redis(\.asyncio)?\.Redis or .*, not ") as caught:
        EmbeddingsCache(**wrong[kind])
    assert isinstance(caught.value, TypeError)


def test_a_client_with_a_password_does_not_show_it() -> None:
    cache = EmbeddingsCache(redis_client=redis.Redis(password=PASSWORD, port=7000))
    assert "redis://localhost:7000/0" in repr(cache)
    assert PASSWORD not in repr(cache)


# ------------------------------------------------------------------------------------------------ loops, threads, forks


def test_the_number_of_connections_can_be_set(valkey: Server) -> None:
    settings = {"max_connections": 2, "client_name": "mine"}

    async def use(cache: EmbeddingsCache) -> int:
        found = await asyncio.gather(*(cache.aget("a", MODEL) for _ in range(20)))
        assert all(entry["text"] == "a" for entry in found)
        return sum(client["name"] == "mine" for client in valkey.raw.client_list())

    with EmbeddingsCache(redis_url=valkey.url, connection_kwargs=settings) as cache:
        cache.set("a", MODEL, VECTOR)
        assert asyncio.run(use(cache)) == 3  # one of them is the sync client's


def test_one_event_loop_after_another(server: Server, recwarn: pytest.WarningsRecorder) -> None:
    cache = EmbeddingsCache("c", redis_url=server.url)
    for _ in range(3):
        assert asyncio.run(awaits(cache))
    assert works(cache)
    cache.close()
    gc.collect()
    assert [str(warning.message) for warning in recwarn] == []


def test_an_event_loop_that_ended_is_let_go(valkey: Server) -> None:
    """A program that calls asyncio.run for each request must not keep every loop it ever had."""
    loops: list[weakref.ref[asyncio.AbstractEventLoop]] = []

    async def read(cache: EmbeddingsCache) -> None:
        loops.append(weakref.ref(asyncio.get_running_loop()))
        await asyncio.gather(*(cache.aget(f"text {n}", MODEL) for n in range(100)))

    with EmbeddingsCache("c", redis_url=valkey.url, stats=False) as cache:
        for _ in range(3):
            asyncio.run(read(cache))
        gc.collect()
        assert [loop() for loop in loops] == [None, None, None]
        assert valkey.raw.info("clients")["connected_clients"] == 1  # the test's own


async def test_hundreds_of_lookups_at_once_on_one_loop(server: Server) -> None:
    count = 300
    async with EmbeddingsCache("c", redis_url=server.url) as cache:
        await cache.amset(items(count))
        found = await asyncio.gather(*(cache.aget(f"text {n}", MODEL) for n in range(count)))
        assert [entry["embedding"][0] for entry in found] == list(range(count))


async def test_a_cancelled_lookup_does_not_leave_its_answer_to_the_next(valkey: Server) -> None:
    async with EmbeddingsCache("c", redis_url=valkey.url, connection_kwargs={"max_connections": 1}) as cache:
        await cache.amset(items(40))
        for turns in range(20):
            task = asyncio.create_task(cache.aget("text 39", MODEL))
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            assert (await cache.aget(f"text {turns}", MODEL))["embedding"].tolist() == [turns, 1]


def test_threads_share_a_cache(server: Server) -> None:
    with EmbeddingsCache("c", ttl=500, redis_url=server.url) as cache, ThreadPoolExecutor(8) as threads:
        cache.mset(items(400))
        together = threading.Barrier(8)

        def read(first: int) -> list[float]:
            together.wait()
            return [cache.get(f"text {n}", MODEL)["embedding"][0] for n in range(first, 400, 8)]

        assert list(threads.map(read, range(8))) == [list(range(first, 400, 8)) for first in range(8)]


def test_loops_of_several_threads_share_a_cache(valkey: Server) -> None:
    with EmbeddingsCache("c", redis_url=valkey.url) as cache, ThreadPoolExecutor(4) as threads:
        cache.mset(items(40))

        async def read(first: int) -> list[float]:
            found = await asyncio.gather(*(cache.aget(f"text {n}", MODEL) for n in range(first, 40, 4)))
            return [entry["embedding"][0] for entry in found]

        results = list(threads.map(lambda first: asyncio.run(read(first)), range(4)))
        assert results == [list(range(first, 40, 4)) for first in range(4)]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_forked_processes_share_a_cache(server: Server) -> None:
    with EmbeddingsCache("c", ttl=500, redis_url=server.url) as cache:
        cache.mset(items(100))
        children = []
        for child in range(3):
            pid = os.fork()
            if pid == 0:
                right = False
                try:
                    right = all(cache.get(f"text {n}", MODEL)["embedding"][0] == n for n in range(100))
                    cache.set(f"of child {child}", MODEL, VECTOR)
                finally:
                    os._exit(0 if right else 1)
            children.append(pid)
        assert all(cache.get(f"text {n}", MODEL)["embedding"][0] == n for n in range(100))
        assert [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children] == [0, 0, 0]
        assert cache.mexists([f"of child {child}" for child in range(3)], MODEL) == [True] * 3


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_child_forked_while_another_thread_takes_a_connection_does_not_hang(valkey: Server) -> None:
    with EmbeddingsCache("c", redis_url=valkey.url) as cache:
        cache.mset(items(1))
        pool = cache.connection.client().connection_pool
        held, done = threading.Event(), threading.Event()

        def hold() -> None:
            with pool._lock:
                held.set()
                done.wait()

        thread = threading.Thread(target=hold)
        thread.start()
        held.wait()
        pid = os.fork()
        if pid == 0:
            signal.alarm(20)  # ends a child that hangs
            os._exit(0 if cache.get("text 0", MODEL) is not None else 1)
        done.set()
        thread.join()
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def test_a_closed_cache_opens_again(valkey: Server, caller: Callable[[EmbeddingsCache], Caller]) -> None:
    connections = len(valkey.raw.client_list())
    cache = caller(EmbeddingsCache(redis_url=valkey.url))
    assert works(cache)
    assert len(valkey.raw.client_list()) > connections
    cache.close()
    cache.close()
    assert works(cache)


def test_context_managers_close(valkey: Server) -> None:
    def connected() -> int:
        return sum(client["name"] == "mine" for client in valkey.raw.client_list())

    async def use() -> None:
        async with EmbeddingsCache(redis_url=valkey.url, connection_kwargs={"client_name": "mine"}) as cache:
            assert await awaits(cache)
            assert connected() >= 1

    with EmbeddingsCache(redis_url=valkey.url, connection_kwargs={"client_name": "mine"}) as cache:
        assert works(cache)
        assert connected() == 1
    asyncio.run(use())
    assert connected() == 0
