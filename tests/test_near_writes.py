"""Others' writes and the near cache: told by the server, told by nobody, and under way while something is looked up."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import redis
from servers import Server, running

from embedcache import EmbeddingsCache
from embedcache.connection import RedisConnection
from embedcache.errors import CacheUnavailableError

MODEL = "a/model"
LONG = 500
PATIENCE_SECONDS = 20


def wait_until(condition: Callable[[], object]) -> bool:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


@contextmanager
def tracked(server: Server, **options: Any) -> Iterator[EmbeddingsCache]:
    """A cache whose near cache keeps entries for long, once the server tells it of writes."""
    defaults = {"redis_url": server.url, "stats": False, "near_cache": 1_000, "near_ttl": LONG}
    with EmbeddingsCache("c", **defaults | options) as cache:
        cache.get("begins it", MODEL)
        assert wait_until(lambda: cache.near_state.tracked)
        yield cache


def write(server: Server, text: str, vector: list[float], **fields: Any) -> str:
    """As another process writes: this one's near caches, which go by the name, hear nothing of it from us."""
    with EmbeddingsCache("other", redis_url=server.url, stats=False) as other:
        key = other.set(text, MODEL, vector, **fields)
    mine = f"c:{key[-64:]}"
    server.raw.rename(key, mine)
    return mine


def value(cache: EmbeddingsCache, text: str = "a") -> Any:
    entry = cache.get(text, MODEL)
    return None if entry is None else entry["embedding"].tolist()


def followers(server: Server) -> list[dict[str, Any]]:
    """The server's connections that it tells of writes."""
    return [client for client in server.raw.client_list() if "B" in client["flags"] or "t" in client["flags"]]


# ------------------------------------------------------------------------------------------------ told by the server


@pytest.mark.parametrize("how", ["overwritten", "dropped", "flushed", "expiring"])
def test_another_processs_write_is_seen_within_a_moment(server: Server, how: str) -> None:
    with tracked(server) as cache:
        key = write(server, "a", [1.0])
        assert wait_until(lambda: value(cache) == [1.0])
        if how == "overwritten":
            write(server, "a", [2.0])
        elif how == "dropped":
            server.raw.unlink(key)
        elif how == "flushed":
            server.raw.flushdb()
        else:
            server.raw.pexpire(key, 1)
        assert wait_until(lambda: value(cache) == ([2.0] if how == "overwritten" else None))


def test_what_others_write_elsewhere_leaves_it_alone(server: Server) -> None:
    with tracked(server) as cache:
        key = write(server, "a", [1.0])
        time.sleep(0.2)  # what the server tells of this write has come, and does not drop what is looked up after it
        assert wait_until(lambda: value(cache) == [1.0] and cache.near_state.entries == 1)
        write(server, "b", [1.0])
        server.raw.set("c:stats:{x}", 1)
        server.raw.set("cc:x", 1)
        time.sleep(0.2)
        assert cache.near_state.entries == 1
        assert key == cache.key_for("a", MODEL)


def test_looking_up_entries_with_a_ttl_does_not_drop_them(server: Server) -> None:
    with tracked(server, ttl=LONG) as cache:
        write(server, "a", [1.0], ttl=LONG)
        time.sleep(0.2)  # as above
        assert wait_until(lambda: value(cache) == [1.0] and cache.near_state.entries == 1)
        time.sleep(0.2)
        assert cache.near_state.entries == 1


def test_clients_passed_in_and_event_loops_have_it_too(server: Server) -> None:
    async def awaited(cache: EmbeddingsCache) -> Any:
        entry = await cache.aget("a", MODEL)
        return None if entry is None else entry["embedding"].tolist()

    with redis.Redis(unix_socket_path=str(server.socket), decode_responses=True, protocol=2) as client:
        with tracked(server, redis_url=None, redis_client=client) as cache:
            write(server, "a", [1.0])
            assert wait_until(lambda: asyncio.run(awaited(cache)) == [1.0])
            write(server, "a", [2.0])
            assert wait_until(lambda: asyncio.run(awaited(cache)) == [2.0])
        client.ping()


def test_closing_ends_the_connection_and_the_next_call_begins_it_again(server: Server) -> None:
    with tracked(server) as cache:
        write(server, "a", [1.0])
        value(cache)
        assert len(followers(server)) == 1
        cache.close()
        assert cache.near_state.entries == 0
        assert wait_until(lambda: not followers(server))
        assert value(cache) == [1.0]
        assert wait_until(lambda: cache.near_state.tracked)
    assert wait_until(lambda: not followers(server))


def test_a_cache_that_is_let_go_of_ends_it_too(server: Server) -> None:
    cache = EmbeddingsCache("c", redis_url=server.url, stats=False, near_cache=10)
    cache.get("a", MODEL)
    assert wait_until(lambda: len(followers(server)) == 1)
    cache.connection.client().close()
    del cache
    assert wait_until(lambda: not followers(server))


# ------------------------------------------------------------------------------------------------ told by nobody


def test_where_an_acl_forbids_it_near_ttl_alone_counts(server: Server) -> None:
    server.raw.acl_setuser("quiet", enabled=True, passwords=["+pw"], keys=["*"], commands=["+@all", "-client"])
    url = f"unix://quiet:pw@{server.socket}"
    with EmbeddingsCache("c", redis_url=url, stats=False, near_cache=10, near_ttl=0.6) as cache:
        write(server, "a", [1.0])
        assert value(cache) == [1.0]
        write(server, "a", [2.0])
        started = time.monotonic()
        assert wait_until(lambda: value(cache) == [2.0])
        assert time.monotonic() - started < 5
        assert not cache.near_state.tracked
        names = [thread.name for thread in threading.enumerate()]
        assert wait_until(lambda: "embedcache-near" not in [thread.name for thread in threading.enumerate()]), names
        assert not followers(server)
    server.raw.acl_deluser("quiet")


def test_a_lost_connection_empties_it_and_comes_back(server: Server) -> None:
    with tracked(server) as cache:
        write(server, "a", [1.0])
        assert wait_until(lambda: value(cache) == [1.0] and cache.near_state.entries == 1)
        (follower,) = followers(server)
        server.raw.client_kill_filter(_id=follower["id"])
        assert wait_until(lambda: cache.near_state.entries == 0)
        assert value(cache) == [1.0]  # kept again, and while nobody tells
        write(server, "a", [2.0])
        assert wait_until(lambda: cache.near_state.tracked)
        assert value(cache) == [2.0]
        write(server, "a", [3.0])
        assert wait_until(lambda: value(cache) == [3.0])


def test_a_server_that_is_killed_and_comes_back_empty() -> None:
    with running("valkey9") as server, tracked(server) as cache:
        write(server, "a", [1.0])
        assert wait_until(lambda: value(cache) == [1.0] and cache.near_state.entries == 1)
        server.stop()
        assert wait_until(lambda: cache.near_state.entries == 0)
        with pytest.raises(CacheUnavailableError):
            cache.get("a", MODEL)
        server.start()
        assert value(cache) is None
        assert wait_until(lambda: cache.near_state.tracked)


def test_an_embedded_server_is_not_started_for_it(tmp_path: Path) -> None:
    connection = RedisConnection(f"embedded://{tmp_path}/data")
    assert connection.push_connection() is None
    assert not (tmp_path / "data").exists()


def test_an_embedded_server_that_was_stopped_is_not_started_for_it(tmp_path: Path) -> None:
    with tracked_embedded(tmp_path) as cache:
        with redis.Redis(unix_socket_path=str(cache.connection._attached().socket_path)) as client:
            client.shutdown(nosave=True)
        assert wait_until(lambda: not cache.near_state.tracked)
        time.sleep(2)
        assert cache.connection._attached().pid is None
        assert cache.get("a", MODEL) is None  # this may
        assert wait_until(lambda: cache.near_state.tracked)


@contextmanager
def tracked_embedded(folder: Path) -> Iterator[EmbeddingsCache]:
    with EmbeddingsCache("c", redis_url=f"embedded://{folder}/data", stats=False, near_cache=10) as cache:
        cache.get("begins it", MODEL)
        assert wait_until(lambda: cache.near_state.tracked)
        yield cache


# ------------------------------------------------------------------------------------------------ at the same time


def test_no_thread_sees_an_older_value_once_a_newer_one_was_set(server: Server) -> None:
    rounds, texts = 400, ("a", "b")
    with EmbeddingsCache("c", redis_url=server.url, stats=False, near_cache=10) as cache:
        written = dict.fromkeys(texts, 0)
        older: list[tuple[float, int]] = []
        done = threading.Event()

        def look(text: str) -> None:
            while not done.is_set():
                least = written[text]
                entry = cache.get(text, MODEL)
                if entry is not None and entry["embedding"][0] < least:
                    older.append((float(entry["embedding"][0]), least))

        def store(text: str) -> None:
            for number in range(1, rounds):
                cache.set(text, MODEL, [float(number)])
                written[text] = number

        readers = [threading.Thread(target=look, args=(text,)) for text in texts * 2]
        writers = [threading.Thread(target=store, args=(text,)) for text in texts]
        for thread in (*readers, *writers):
            thread.start()
        for thread in writers:
            thread.join()
        done.set()
        for thread in readers:
            thread.join()
        assert older == []
        assert [value(cache, text) for text in texts] == [[float(rounds - 1)]] * 2


async def test_a_write_that_was_cancelled_drops_what_it_may_have_changed(server: Server) -> None:
    async with EmbeddingsCache("c", redis_url=server.url, stats=False, near_cache=10) as cache:
        await cache.aset("a", MODEL, [1.0])
        for number in range(2, 40):
            await cache.aget("a", MODEL)
            write = asyncio.create_task(cache.aset("a", MODEL, [float(number)]))
            await asyncio.sleep(0.0001 * (number % 7))
            write.cancel()
            try:
                await write
            except asyncio.CancelledError:
                assert cache._near.get("a", MODEL) is None
            else:
                assert value(cache) == [float(number)]


def test_a_write_whose_answer_was_lost_drops_what_it_may_have_changed() -> None:
    with running("valkey9") as server:
        url = f"unix://quiet:pw@{server.socket}"
        server.raw.acl_setuser("quiet", enabled=True, passwords=["+pw"], keys=["*"], commands=["+@all", "-client"])
        with EmbeddingsCache("c", redis_url=url, stats=False, near_cache=10) as cache:
            cache.set("a", MODEL, [1.0])
            assert value(cache) == [1.0]
            server.stop()
            assert value(cache) == [1.0]  # near
            with pytest.raises(CacheUnavailableError):
                cache.set("a", MODEL, [2.0])
            with pytest.raises(CacheUnavailableError):
                cache.get("a", MODEL)


def test_a_lookup_during_a_write_that_failed_leaves_nothing_behind() -> None:
    with running("valkey9") as server:
        url = f"unix://quiet:pw@{server.socket}"
        server.raw.acl_setuser("quiet", enabled=True, passwords=["+pw"], keys=["*"], commands=["+@all", "-client"])
        settings = {"socket_timeout": 0.5}
        with EmbeddingsCache("c", redis_url=url, connection_kwargs=settings, stats=False, near_cache=10) as cache:
            cache.set("a", MODEL, [1.0])
            server.raw.client_pause(10_000, all=False)  # writes wait, reads do not
            seen: list[Any] = []
            reader = threading.Timer(0.1, lambda: seen.append(value(cache)))
            reader.start()
            with pytest.raises(CacheUnavailableError) as raised:
                cache.set("a", MODEL, [2.0])
            reader.join()
            assert seen == [[1.0]]
            assert cache.near_state.entries == 0  # for the server may write it yet
            del raised  # which keeps all that was under way from being collected


def test_a_forked_child_has_its_own(server: Server) -> None:
    with tracked(server) as cache:
        write(server, "a", [1.0])
        assert wait_until(lambda: value(cache) == [1.0] and cache.near_state.entries == 1)
        cache._near._lock.acquire()  # as a thread holds it that the child does not have
        child = os.fork()
        if child == 0:
            try:
                os._exit(_as_child(server, cache))
            finally:
                os._exit(9)
        cache._near._lock.release()
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert cache.near_state.tracked
        assert wait_until(lambda: value(cache) == [2.0])


def _as_child(server: Server, cache: EmbeddingsCache) -> int:
    if cache.near_state.entries or cache.near_state.tracked:
        return 1
    if value(cache) != [1.0] or not wait_until(lambda: cache.near_state.tracked):
        return 2
    value(cache)
    server.raw.connection_pool.reset()
    write(server, "a", [2.0])
    return 0 if wait_until(lambda: value(cache) == [2.0]) else 3
