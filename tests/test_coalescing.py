"""Lookups of one text each by many tasks at once: few round trips, and everybody's own answer."""

from __future__ import annotations

import asyncio
import os
import random
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest
from servers import Server
from working import MODEL, items

from embedcache import EmbeddingsCache
from embedcache.coalescing import LONE_THREADS, ThreadCoalescer
from embedcache.errors import CacheUnavailableError, InvalidTextError

COUNT = 1_000


def reads(server: Server) -> int:
    """How many commands that read entries the server has carried out."""
    calls = server.raw.info("commandstats")
    return sum(calls.get(f"cmdstat_{name}", {}).get("calls", 0) for name in ("mget", "evalsha", "eval"))


def first_numbers(found: list[Any]) -> list[float]:
    return [entry["embedding"][0] for entry in found]


# ------------------------------------------------------------------------------------------------ tasks


@pytest.mark.parametrize("ttl", [None, 500])
async def test_a_thousand_lookups_at_once_take_a_handful_of_round_trips(server: Server, ttl: int | None) -> None:
    async with EmbeddingsCache("c", ttl=ttl, redis_url=server.url, stats=False) as cache:
        await cache.amset(items(COUNT))
        await cache.aget("text 0", MODEL)  # scripts are loaded
        before = reads(server)
        found = await asyncio.gather(*(cache.aget(f"text {n}", MODEL) for n in range(COUNT)))
        assert first_numbers(found) == list(range(COUNT))
        assert reads(server) - before <= 12  # the parts of a batch, each two commands with a TTL, travel together


async def test_a_lone_lookup_goes_at_once_and_alone(valkey: Server) -> None:
    async with EmbeddingsCache("c", redis_url=valkey.url, stats=False) as cache:
        await cache.amset(items(5))
        before = reads(valkey)
        for n in range(5):
            assert (await cache.aget(f"text {n}", MODEL))["embedding"][0] == n
        assert reads(valkey) - before == 5


async def test_misses_hits_models_and_duplicates_are_kept_apart(server: Server) -> None:
    async with EmbeddingsCache("c", redis_url=server.url) as cache:
        await cache.aset("same", "one", [1.0])
        await cache.aset("same", "two", [2.0])
        asked = [("same", "one"), ("same", "two"), ("other", "one"), ("same", "three"), ("same", "one")] * 20
        found = await asyncio.gather(*(cache.aget(text, model) for text, model in asked))
        assert [entry and entry["embedding"][0] for entry in found] == [1.0, 2.0, None, None, 1.0] * 20
        assert len({id(entry) for entry in found if entry}) == 60  # nobody shares a dict that another may change
        counted = cache.process_stats()
        assert (counted.hits, counted.misses) == (60, 40)


async def test_a_bad_text_is_an_error_of_its_own_caller_alone(valkey: Server) -> None:
    async with EmbeddingsCache("c", redis_url=valkey.url) as cache:
        await cache.amset(items(20))
        asked = [" " if n % 3 == 1 else f"text {n}" for n in range(20)]
        found = await asyncio.gather(*(cache.aget(text, MODEL) for text in asked), return_exceptions=True)
        for n, result in enumerate(found):
            if n % 3 == 1:
                assert isinstance(result, InvalidTextError)
            else:
                assert result["embedding"][0] == n


async def test_cancelled_callers_leave_the_others_alone(valkey: Server) -> None:
    chance = random.Random(0)  # noqa: S311 - no secret
    async with EmbeddingsCache("c", redis_url=valkey.url) as cache:
        await cache.amset(items(200))
        for turns in range(12):
            tasks = [asyncio.create_task(cache.aget(f"text {n}", MODEL)) for n in range(200)]
            for _ in range(turns):
                await asyncio.sleep(0)
            given_up = set(chance.sample(range(200), 120))
            for n in given_up:
                tasks[n].cancel()
            results = await asyncio.gather(*tasks, return_exceptions=True)
            for n, result in enumerate(results):
                if isinstance(result, asyncio.CancelledError):
                    assert n in given_up
                else:
                    assert result["embedding"][0] == n


async def test_everybody_learns_that_the_server_is_gone(valkey: Server) -> None:
    async with EmbeddingsCache("c", redis_url=valkey.url) as cache:
        await cache.amset(items(50))
        valkey.stop()
        try:
            asked = (cache.aget(f"text {n}", MODEL) for n in range(50))
            found = await asyncio.gather(*asked, return_exceptions=True)
        finally:
            valkey.start()
        assert {type(error) for error in found} == {CacheUnavailableError}
        assert cache.process_stats().errors == 50
        assert await cache.aget("text 0", MODEL) is None  # it came back empty


def test_loops_of_several_threads_gather_their_own(valkey: Server) -> None:
    with EmbeddingsCache("c", redis_url=valkey.url) as cache, ThreadPoolExecutor(4) as threads:
        cache.mset(items(400))
        together = threading.Barrier(4)

        async def read(first: int) -> list[float]:
            found = await asyncio.gather(*(cache.aget(f"text {n}", MODEL) for n in range(first, 400, 4)))
            return first_numbers(found)

        def run(first: int) -> list[float]:
            together.wait()
            return asyncio.run(read(first))

        assert list(threads.map(run, range(4))) == [list(range(first, 400, 4)) for first in range(4)]


def test_a_loop_that_ends_amid_lookups_ends_in_order(valkey: Server, recwarn: pytest.WarningsRecorder) -> None:
    async def leave(cache: EmbeddingsCache) -> None:
        tasks = [asyncio.create_task(cache.aget(f"text {n}", MODEL)) for n in range(100)]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert not any(task.done() for task in tasks)

    with EmbeddingsCache("c", redis_url=valkey.url) as cache:
        cache.mset(items(100))
        asyncio.run(leave(cache))
        assert [str(warning.message) for warning in recwarn] == []
        assert asyncio.run(cache.aget("text 7", MODEL))["embedding"][0] == 7


async def test_each_lookup_is_observed(valkey: Server) -> None:
    seen: list[tuple[str, str | None]] = []

    @contextmanager
    def observer(operation: str, model_name: str | None) -> Any:
        seen.append((operation, model_name))
        yield lambda _result: None

    async with EmbeddingsCache("c", redis_url=valkey.url) as cache:
        await cache.amset(items(10))
        cache.observer = observer
        await asyncio.gather(*(cache.aget(f"text {n}", MODEL) for n in range(10)))
    assert seen.count(("get", MODEL)) == 10


# ------------------------------------------------------------------------------------------------ threads

THREADS = 16


@contextmanager
def held_up(coalescer: ThreadCoalescer[Any]) -> Iterator[None]:
    """As many calls as go alone are on their way, until this ends."""
    started, end = threading.Barrier(LONE_THREADS + 1), threading.Event()

    def load_one(text: Any, model_name: str) -> str:
        started.wait()
        end.wait()
        return "of the lone"

    def call() -> None:
        assert coalescer.load("lone", MODEL, load_one, never) == "of the lone"

    threads = [threading.Thread(target=call) for _ in range(LONE_THREADS)]
    for thread in threads:
        thread.start()
    started.wait()
    yield
    end.set()
    for thread in threads:
        thread.join()


def never(*_: Any) -> Any:
    raise AssertionError("this was not to be called")


def waiting(coalescer: ThreadCoalescer[Any], count: int) -> None:
    while len(coalescer._waiting) < count:
        time.sleep(0.001)


def test_threads_share_round_trips(server: Server) -> None:
    with EmbeddingsCache("c", redis_url=server.url) as cache, ThreadPoolExecutor(THREADS) as threads:
        cache.mset(items(COUNT))
        together = threading.Barrier(THREADS)
        before = reads(server)

        def read(first: int) -> list[float]:
            together.wait()
            return [cache.get(f"text {n}", MODEL)["embedding"][0] for n in range(first, COUNT, THREADS)]

        found = list(threads.map(read, range(THREADS)))
        assert found == [list(range(first, COUNT, THREADS)) for first in range(THREADS)]
        assert reads(server) - before < COUNT
        counted = cache.process_stats()
        assert (counted.hits, counted.misses) == (COUNT, 0)


def test_those_who_wait_are_fetched_in_one_batch_for_each_model() -> None:
    coalescer: ThreadCoalescer[str] = ThreadCoalescer()
    batches: list[tuple[list[Any], str]] = []

    def load_many(texts: list[Any], model_name: str) -> list[str]:
        batches.append((texts, model_name))
        return [f"{model_name} {text}" for text in texts]

    with ThreadPoolExecutor(6) as threads:
        with held_up(coalescer):
            asked = [(str(n), "one" if n % 2 else "two") for n in range(6)]
            found = [threads.submit(coalescer.load, *each, never, load_many) for each in asked]
            waiting(coalescer, 6)
        assert [each.result() for each in found] == [f"{model} {text}" for text, model in asked]
    assert sorted((sorted(texts), model) for texts, model in batches) == [
        (["0", "2", "4"], "two"),
        (["1", "3", "5"], "one"),
    ]


def test_an_error_reaches_those_of_its_batch_and_no_others() -> None:
    coalescer: ThreadCoalescer[str] = ThreadCoalescer()

    def load_many(texts: list[Any], model_name: str) -> list[str]:
        if model_name == "bad":
            raise CacheUnavailableError("gone")
        return list(texts)

    with ThreadPoolExecutor(6) as threads:
        with held_up(coalescer):
            asked = [(str(n), "good" if n % 2 else "bad") for n in range(6)]
            found = [threads.submit(coalescer.load, *each, never, load_many) for each in asked]
            waiting(coalescer, 6)
        for (text, model_name), each in zip(asked, found, strict=True):
            if model_name == "good":
                assert each.result() == text
            else:
                with pytest.raises(CacheUnavailableError, match="gone"):
                    each.result()
    assert coalescer.load("after", MODEL, lambda text, _: text, never) == "after"


def test_a_thread_that_nobody_fetches_for_goes_alone() -> None:
    coalescer: ThreadCoalescer[str] = ThreadCoalescer()
    with held_up(coalescer):
        assert coalescer.load("patient", MODEL, lambda text, _: text, never) == "patient"
    assert coalescer.load("after", MODEL, lambda text, _: text, never) == "after"


def test_a_bad_text_among_threads_is_its_own_caller_s_error() -> None:
    coalescer: ThreadCoalescer[str] = ThreadCoalescer()
    with held_up(coalescer), pytest.raises(InvalidTextError):
        coalescer.load(" ", MODEL, never, never)
    assert coalescer._waiting == []


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_child_waits_for_no_thread_of_its_parent(valkey: Server) -> None:
    with EmbeddingsCache("c", redis_url=valkey.url) as cache:
        cache.mset(items(1))
        with held_up(cache._threads):
            pid = os.fork()
            if pid == 0:
                code = 1
                try:
                    started = time.monotonic()
                    found = [cache.get("text 0", MODEL) for _ in range(20)]
                    code = 0 if all(found) and time.monotonic() - started < 10 else 2  # 20 s, if each waited
                finally:
                    os._exit(code)
            assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
