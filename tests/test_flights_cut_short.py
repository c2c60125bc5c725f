"""Flights whose callers are cancelled, whose loops stop, or who would wait for themselves: nobody hangs."""

from __future__ import annotations

import asyncio
import contextvars
import os
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from flying import MODES, someone_waits, until, vectorizer_of
from servers import Server
from toy_model import PATIENCE_SECONDS, HeldModel, Model, vector_of

from embedcache import CustomVectorizer, EmbeddingsCache
from embedcache.vectorizers.flights import flights


@pytest.fixture
def cache(valkey: Server) -> Iterator[EmbeddingsCache]:
    with EmbeddingsCache("v", redis_url=valkey.url) as cache:
        yield cache


@pytest.fixture(params=MODES)
def mode(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(autouse=True)
def nothing_in_the_air() -> Iterator[None]:
    yield
    assert not flights._in_air


# ------------------------------------------------------------------------------------------------ cancelled


def test_a_cancelled_task_leaves_its_flight_to_its_neighbours(cache: EmbeddingsCache, mode: str) -> None:
    model = HeldModel()
    vectorizer = vectorizer_of(model, cache, mode)

    async def cancel_the_first() -> np.ndarray:
        leading = asyncio.create_task(vectorizer.aembed("a"))
        await asyncio.to_thread(model.reached.wait, PATIENCE_SECONDS)
        neighbour = asyncio.create_task(vectorizer.aembed("a"))
        await asyncio.to_thread(until, someone_waits)
        leading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await leading
        model.let_go.set()
        return await asyncio.wait_for(neighbour, PATIENCE_SECONDS)

    np.testing.assert_array_equal(asyncio.run(cancel_the_first()), vector_of("a"))
    assert model.asked == ["a"]


def test_what_a_cancelled_task_had_begun_is_stored(cache: EmbeddingsCache) -> None:
    model = HeldModel()
    vectorizer = vectorizer_of(model, cache)

    async def cancelled() -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(vectorizer.aembed("a"), 0.2)
        model.let_go.set()
        await asyncio.to_thread(until, lambda: cache.exists("a", "toy"))

    asyncio.run(cancelled())


def test_a_failure_after_the_caller_is_gone_is_told_in_the_log(
    cache: EmbeddingsCache, caplog: pytest.LogCaptureFixture
) -> None:
    model = HeldModel()
    model.fails_at = "a"
    vectorizer = vectorizer_of(model, cache)

    async def cancelled() -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(vectorizer.aembed("a"), 0.2)
        model.let_go.set()
        await asyncio.to_thread(until, lambda: "has failed: the model broke" in caplog.text)

    asyncio.run(cancelled())


def test_a_cancelled_waiter_disturbs_nobody(cache: EmbeddingsCache) -> None:
    model = HeldModel()
    vectorizer = vectorizer_of(model, cache)

    async def cancel_a_waiter() -> list[np.ndarray]:
        tasks = [asyncio.create_task(vectorizer.aembed("a")) for _ in range(3)]
        await asyncio.to_thread(model.reached.wait, PATIENCE_SECONDS)
        await asyncio.to_thread(until, someone_waits)
        tasks[1].cancel()
        await asyncio.wait(tasks[1:2])
        assert tasks[1].cancelled()
        model.let_go.set()
        return await asyncio.gather(tasks[0], tasks[2])

    for vector in asyncio.run(cancel_a_waiter()):
        np.testing.assert_array_equal(vector, vector_of("a"))
    assert model.asked == ["a"]


def test_a_loop_that_ends_while_others_wait_leaves_them_a_flight_to_lead(cache: EmbeddingsCache) -> None:
    """`asyncio.run` ends what is still under way, and the thread that waits computes."""
    model = HeldModel()
    vectorizer = vectorizer_of(model, cache)

    async def gone_at_once() -> None:
        task = asyncio.create_task(vectorizer.aembed("a"))
        await asyncio.to_thread(until, someone_waits)
        task.cancel()

    with ThreadPoolExecutor(2) as pool:
        loop = pool.submit(asyncio.run, gone_at_once())
        assert model.reached.wait(PATIENCE_SECONDS)
        waiting = pool.submit(vectorizer.embed, "a")
        loop.result(PATIENCE_SECONDS)
        model.let_go.set()
        np.testing.assert_array_equal(waiting.result(PATIENCE_SECONDS), vector_of("a"))


def test_a_loop_that_stops_for_good_does_not_keep_others_waiting(cache: EmbeddingsCache) -> None:
    model = HeldModel()
    vectorizer = vectorizer_of(model, cache)
    loop = asyncio.new_event_loop()

    async def begin() -> asyncio.Task[np.ndarray]:
        task = asyncio.create_task(vectorizer.aembed("a"))
        await asyncio.to_thread(model.reached.wait, PATIENCE_SECONDS)
        return task

    task = loop.run_until_complete(begin())
    model.let_go.set()
    np.testing.assert_array_equal(vectorizer.embed("a"), vector_of("a"))  # on the very thread that would run the loop
    assert asyncio.run(vectorizer.aembed("a")).tolist() == vector_of("a").tolist()
    np.testing.assert_array_equal(loop.run_until_complete(task), vector_of("a"))
    loop.run_until_complete(cache.connection.aclose())
    loop.close()


# ------------------------------------------------------------------------------------------------ no one hangs


def test_a_sync_call_on_the_loops_own_thread_computes_for_itself(cache: EmbeddingsCache) -> None:
    """It would keep the loop from ending what it waits for."""
    go = threading.Event()

    class Two(CustomVectorizer):
        def _compute(self, texts: Any) -> Any:
            if threading.current_thread() is not threading.main_thread():
                assert go.wait(PATIENCE_SECONDS)
            return [vector_of(text) for text in texts]

    vectorizer = Two(vector_of, "toy", cache)
    vectorizer._one_at_a_time = threading.Semaphore(2)

    async def both() -> np.ndarray:
        task = asyncio.create_task(vectorizer.aembed("a"))
        await asyncio.to_thread(until, lambda: bool(flights._in_air))
        np.testing.assert_array_equal(vectorizer.embed("a"), vector_of("a"))
        go.set()
        return await task

    np.testing.assert_array_equal(asyncio.run(both()), vector_of("a"))


@pytest.mark.parametrize("awaited", [False, True])
def test_a_model_that_asks_a_vectorizer_for_the_same_text_does_not_wait_for_itself(
    cache: EmbeddingsCache, mode: str, awaited: bool
) -> None:
    inner = vectorizer_of(Model(), cache, mode)
    outer = CustomVectorizer(inner.embed, "toy", cache, single_flight=mode)  # type: ignore[arg-type]
    found = asyncio.run(outer.aembed("a")) if awaited else outer.embed("a")
    np.testing.assert_array_equal(found, vector_of("a"))


def test_waiting_threads_do_not_keep_the_loop_from_computing(cache: EmbeddingsCache) -> None:
    """The loop's own threads are all taken by calls that wait for what the loop is to compute."""
    model = HeldModel()
    vectorizer = vectorizer_of(model, cache)

    async def crowded() -> list[np.ndarray]:
        loop = asyncio.get_running_loop()
        loop.set_default_executor(ThreadPoolExecutor(2))
        leading = asyncio.create_task(vectorizer.aembed_many(["a", "b"]))
        await loop.run_in_executor(elsewhere, model.reached.wait, PATIENCE_SECONDS)
        waiting = [asyncio.create_task(asyncio.to_thread(vectorizer.embed, "a")) for _ in range(4)]
        await asyncio.sleep(0.2)
        model.let_go.set()
        return [*await leading, *await asyncio.gather(*waiting)]

    with ThreadPoolExecutor(1) as elsewhere:
        assert len(asyncio.run(asyncio.wait_for(crowded(), PATIENCE_SECONDS))) == 6
    assert sorted(model.asked) == ["a", "b"]


def test_context_variables_reach_the_model(cache: EmbeddingsCache) -> None:
    variable = contextvars.ContextVar("variable", default="unset")
    seen = []

    def embed(text: Any) -> np.ndarray:
        seen.append(variable.get())
        return vector_of(text)

    async def call() -> None:
        variable.set("set")
        await CustomVectorizer(embed, "toy", cache).aembed("a")

    asyncio.run(call())
    assert seen == ["set"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_waits_for_none_of_its_parents_flights(cache: EmbeddingsCache, valkey: Server) -> None:
    model = HeldModel()
    vectorizer = vectorizer_of(model, cache)
    with ThreadPoolExecutor(1) as pool:
        leading = pool.submit(vectorizer.embed, "a")
        assert model.reached.wait(PATIENCE_SECONDS)
        child = os.fork()
        if child == 0:  # pragma: no cover - in the child
            with EmbeddingsCache("v", redis_url=valkey.url) as own:
                found = vectorizer_of(Model(), own).embed("a")
                os._exit(0 if found.tolist() == vector_of("a").tolist() else 1)
        try:
            deadline = time.monotonic() + 10
            while (ended := os.waitpid(child, os.WNOHANG))[0] == 0:
                if time.monotonic() > deadline:
                    os.kill(child, signal.SIGKILL)
                    os.waitpid(child, 0)
                    pytest.fail("the child waits")
                time.sleep(0.01)
            assert ended[1] == 0
        finally:
            model.let_go.set()
            leading.result(PATIENCE_SECONDS)
