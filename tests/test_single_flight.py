"""Threads and tasks of one process that lack the same text at the same time: one computes it, come what may."""

from __future__ import annotations

import asyncio
import contextvars
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from servers import Server, running
from toy_model import PATIENCE_SECONDS, HeldModel, Model, carried_out, many, vector_of

from embedcache import CustomVectorizer, EmbeddingsCache, InvalidInputError
from embedcache.errors import EmbeddingFailedError
from embedcache.vectorizers import base
from embedcache.vectorizers.flights import flights
from embedcache.vectorizers.steps import Compute, LookUp, Store

MODES = ["process", "shared"]


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


def vectorizer_of(model: Model, cache: EmbeddingsCache | None, mode: Any = "process") -> CustomVectorizer:
    return CustomVectorizer(vector_of, "toy", cache, embed_many_callable=model, single_flight=mode)


def until(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not is_so():
        assert time.monotonic() < deadline, "it has not come to pass"
        time.sleep(0.005)


def someone_waits() -> bool:
    return any(flight._future is not None for flight in list(flights._in_air.values()))


def in_threads(work: Sequence[Callable[[], Any]]) -> list[Any]:
    """What each gives, all of them begun at once."""
    gate = threading.Barrier(len(work))

    def begin(each: Callable[[], Any]) -> Any:
        gate.wait(PATIENCE_SECONDS)
        return each()

    with ThreadPoolExecutor(len(work)) as pool:
        return [each.result(PATIENCE_SECONDS) for each in [pool.submit(begin, each) for each in work]]


# ------------------------------------------------------------------------------------------------ once


def test_threads_that_ask_for_one_missing_text_compute_it_once(cache: EmbeddingsCache, mode: str) -> None:
    model = Model()
    vectorizer = vectorizer_of(model, cache, mode)
    found = in_threads([lambda: vectorizer.embed("a")] * 16)
    assert model.asked == ["a"]
    for vector in found:
        np.testing.assert_array_equal(vector, vector_of("a"))


def test_vectorizers_and_caches_of_one_name_are_one(valkey: Server) -> None:
    """Each thread has objects of its own, as where each request makes them."""
    model = Model()

    def embed() -> np.ndarray:
        with EmbeddingsCache("v", redis_url=valkey.url) as cache:
            return vectorizer_of(model, cache).embed("a")

    assert len({vector.tobytes() for vector in in_threads([embed] * 8)}) == 1
    assert model.asked == ["a"]


def test_tasks_of_one_loop_compute_it_once(cache: EmbeddingsCache, mode: str) -> None:
    model = Model()
    vectorizer = vectorizer_of(model, cache, mode)

    async def together() -> list[np.ndarray]:
        return await asyncio.gather(*(vectorizer.aembed("a") for _ in range(50)))

    found = asyncio.run(together())
    assert model.asked == ["a"]
    for vector in found:
        np.testing.assert_array_equal(vector, vector_of("a"))


def test_threads_and_loops_together_compute_it_once(cache: EmbeddingsCache) -> None:
    model = HeldModel()
    vectorizer = vectorizer_of(model, cache)

    async def together() -> list[np.ndarray]:
        return await asyncio.gather(*(vectorizer.aembed("a") for _ in range(5)))

    def let_go() -> None:
        until(someone_waits)
        model.let_go.set()

    work = [lambda: vectorizer.embed("a"), lambda: asyncio.run(together())]
    in_threads([*work * 3, let_go])
    assert model.asked == ["a"]


def test_batches_that_overlap_compute_each_text_once(
    cache: EmbeddingsCache, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(base, "CHUNK_TEXTS", 7)
    model = Model()
    vectorizer = vectorizer_of(model, cache, mode)
    texts = [f"text {number}" for number in range(100)]
    batches = [[*texts[start:], *texts[: start + 20], *texts[start : start + 5]] for start in range(0, 80, 10)]
    found = in_threads([lambda batch=batch: vectorizer.embed_report(batch) for batch in batches])
    assert set(model.times.values()) == {1}
    for batch, report in zip(batches, found, strict=True):
        np.testing.assert_array_equal(report.vectors, [vector_of(text) for text in batch])
    computed = cache.process_stats("toy").texts_computed
    saved = sum(report.flights_saved for report in found)
    assert computed == 100
    assert cache.process_stats("toy").flights_saved == saved
    hits = sum(
        len({text for text, hit in zip(batch, report.hits, strict=True) if hit})
        for batch, report in zip(batches, found, strict=True)
    )
    assert hits + saved + computed == sum(len(set(batch)) for batch in batches)


@pytest.mark.parametrize("mode", [None, "process"])
def test_alone_it_costs_no_round_trip(cache: EmbeddingsCache, monkeypatch: pytest.MonkeyPatch, mode: Any) -> None:
    monkeypatch.setattr(base, "CHUNK_TEXTS", 2)
    texts = ["a", "b", "c", "d", "e"]
    assert carried_out(many(vectorizer_of(Model(), cache, mode), texts)) == [LookUp, *[Compute, Store] * 3]


def test_one_that_was_stored_after_the_look_up_is_not_computed_again(cache: EmbeddingsCache, mode: str) -> None:
    """The second one's look-up ends before the first one has stored, and its claim comes after."""
    model = Model()
    first, second = vectorizer_of(model, cache, mode), vectorizer_of(model, cache, mode)
    looked, stored = threading.Event(), threading.Event()

    class Slow(EmbeddingsCache):
        def get(self, text: Any, model_name: str) -> Any:
            entry = super().get(text, model_name)
            looked.set()
            assert stored.wait(PATIENCE_SECONDS)
            return entry

    with Slow("v", redis_url=cache.connection.address) as slow, ThreadPoolExecutor(1) as pool:
        second.cache = slow
        waiting = pool.submit(second.embed, "a")
        assert looked.wait(PATIENCE_SECONDS)
        first.embed("a")
        stored.set()
        np.testing.assert_array_equal(waiting.result(PATIENCE_SECONDS), vector_of("a"))
        assert slow.process_stats("toy").flights_saved == 1
        assert slow.process_stats("toy").misses == 1
    assert model.asked == ["a"]


def test_none_has_each_compute_it(cache: EmbeddingsCache) -> None:
    barrier = threading.Barrier(2)

    class Together(CustomVectorizer):
        def _compute(self, texts: Any) -> Any:
            barrier.wait(PATIENCE_SECONDS)
            return [vector_of(text) for text in texts]

    vectorizers = [Together(vector_of, "toy", cache, single_flight=None) for _ in range(2)]
    in_threads([lambda each=each: each.embed("a") for each in vectorizers])


def test_a_mode_is_one_of_three() -> None:
    with pytest.raises(InvalidInputError, match="'process', 'shared' or None, not 'thread'"):
        CustomVectorizer(vector_of, single_flight="thread")  # type: ignore[arg-type]


def test_texts_of_other_caches_models_and_types_are_others(valkey: Server) -> None:
    barrier = threading.Barrier(4)

    def meet(texts: Any) -> Any:
        barrier.wait(PATIENCE_SECONDS)  # breaks unless all four are computed at the same time
        return [vector_of(text) for text in texts]

    def embed(name: str, model_name: str, text: Any) -> Any:
        with EmbeddingsCache(name, redis_url=valkey.url) as cache:
            return CustomVectorizer(vector_of, model_name, cache, embed_many_callable=meet).embed(text)

    asked = [("v", "toy", "a"), ("w", "toy", "a"), ("v", "other", "a"), ("v", "toy", b"a")]
    in_threads([lambda each=each: embed(*each) for each in asked])


# ------------------------------------------------------------------------------------------------ what is told


def test_who_waited_is_told_so(cache: EmbeddingsCache) -> None:
    model = HeldModel()
    vectorizer = vectorizer_of(model, cache)
    cache.set("hit", "toy", vector_of("hit"))
    with ThreadPoolExecutor(2) as pool:
        leading = pool.submit(vectorizer.embed_report, ["a", "b"])
        assert model.reached.wait(PATIENCE_SECONDS)
        seen: list[tuple[int, int]] = []
        waiting = pool.submit(
            vectorizer.embed_report, ["hit", "a", "a", "b"], on_progress=lambda *told: seen.append(told)
        )
        until(someone_waits)
        model.let_go.set()
        led, waited = leading.result(PATIENCE_SECONDS), waiting.result(PATIENCE_SECONDS)
    assert (led.flights_saved, waited.flights_saved) == (0, 2)
    assert waited.hits.tolist() == [True, False, False, False]
    assert waited.compute_seconds == 0
    assert waited.wait_seconds > 0
    assert waited.seconds[1] > waited.seconds[0]
    assert (seen[0], seen[-1]) == ((1, 3), (3, 3))
    stats = cache.stats("1h", "toy")
    assert (stats.texts_computed, stats.flights_saved, stats.misses, stats.sets) == (2, 2, 4, 3)


def test_each_has_a_vector_of_its_own(cache: EmbeddingsCache) -> None:
    model = HeldModel()
    vectorizer = vectorizer_of(model, cache)
    with ThreadPoolExecutor(3) as pool:
        embedded = [pool.submit(vectorizer.embed, "a") for _ in range(3)]
        until(someone_waits)
        model.let_go.set()
        vectors = [each.result(PATIENCE_SECONDS) for each in embedded]
    for vector in vectors:
        vector[:] = 0
    np.testing.assert_array_equal(vectorizer.embed("a"), vector_of("a"))


def test_a_function_that_uses_its_array_again_spoils_nothing(cache: EmbeddingsCache) -> None:
    array = np.zeros((1, 32), np.float32)

    def embed_many(texts: Any) -> np.ndarray:
        array[0] = vector_of(texts[0])
        return array

    vectorizer = CustomVectorizer(vector_of, "toy", cache, embed_many_callable=embed_many)
    texts = [f"text {number}" for number in range(20)]
    found = in_threads([lambda text=text: vectorizer.embed(text) for text in texts * 2])
    for text, vector in zip(texts * 2, found, strict=True):
        np.testing.assert_array_equal(vector, vector_of(text))
        np.testing.assert_array_equal(vectorizer.embed(text), vector_of(text))


# ------------------------------------------------------------------------------------------------ failure


def test_who_waits_for_one_that_fails_computes_for_itself(cache: EmbeddingsCache) -> None:
    """What broke the first one's batch is a text that the others did not ask for."""
    model = HeldModel()
    model.fails_at = "bad"
    vectorizer = vectorizer_of(model, cache)
    with ThreadPoolExecutor(4) as pool:
        failing = pool.submit(vectorizer.embed_many, ["good", "bad"])
        assert model.reached.wait(PATIENCE_SECONDS)
        others = [pool.submit(vectorizer.embed, "good") for _ in range(3)]
        until(someone_waits)
        model.let_go.set()
        with pytest.raises(RuntimeError, match="the model broke"):
            failing.result(PATIENCE_SECONDS)
        for each in others:
            np.testing.assert_array_equal(each.result(PATIENCE_SECONDS), vector_of("good"))


def test_who_waits_for_one_that_must_fail_gets_its_own_error(cache: EmbeddingsCache, mode: str) -> None:
    model = HeldModel()
    model.fails_at = "bad"
    vectorizer = vectorizer_of(model, cache, mode)
    with ThreadPoolExecutor(4) as pool:
        failing = [pool.submit(vectorizer.embed, "bad") for _ in range(4)]
        until(someone_waits)
        model.let_go.set()
        errors = [each.exception(PATIENCE_SECONDS) for each in failing]
    assert [str(error) for error in errors] == ["the model broke"] * 4
    assert len(set(map(id, errors))) == 4
    model.fails_at = None
    np.testing.assert_array_equal(vectorizer.embed("bad"), vector_of("bad"))


def test_a_model_that_gives_nonsense_is_a_failure_too(cache: EmbeddingsCache) -> None:
    vectorizer = CustomVectorizer(vector_of, "toy", cache, embed_many_callable=lambda _: np.ones((7, 7)))
    for _ in range(2):
        with pytest.raises(EmbeddingFailedError, match=r"\(7, 7\)"):
            vectorizer.embed("a")


def test_an_interrupted_one_is_followed_by_one_of_those_who_wait(cache: EmbeddingsCache) -> None:
    model = HeldModel()
    interrupted = threading.Event()

    def embed_many(texts: Any) -> np.ndarray:
        if not interrupted.is_set():
            interrupted.set()
            model.reached.set()
            assert model.let_go.wait(PATIENCE_SECONDS)
            raise KeyboardInterrupt
        return model(texts)

    vectorizer = CustomVectorizer(vector_of, "toy", cache, embed_many_callable=embed_many)
    with ThreadPoolExecutor(5) as pool:
        leading = pool.submit(vectorizer.embed, "a")
        assert model.reached.wait(PATIENCE_SECONDS)
        others = [pool.submit(vectorizer.embed, "a") for _ in range(4)]
        until(someone_waits)
        model.let_go.set()
        assert isinstance(leading.exception(PATIENCE_SECONDS), KeyboardInterrupt)
        for each in others:
            np.testing.assert_array_equal(each.result(PATIENCE_SECONDS), vector_of("a"))
    assert model.asked == ["a"]


def test_without_the_server_it_is_still_computed_once() -> None:
    model = HeldModel()
    with running("valkey9") as server, EmbeddingsCache("v", redis_url=server.url) as cache:
        server.stop()
        for mode in MODES:
            model.let_go.clear()
            vectorizer = vectorizer_of(model, cache, mode)
            with ThreadPoolExecutor(4) as pool:
                embedded = [pool.submit(vectorizer.embed, mode) for _ in range(4)]
                until(someone_waits)
                time.sleep(0.2)  # so that all have looked it up
                model.let_go.set()
                for each in embedded:
                    np.testing.assert_array_equal(each.result(PATIENCE_SECONDS), vector_of(mode))
    assert model.asked == MODES


def test_in_a_read_only_cache_it_is_still_computed_once(cache: EmbeddingsCache, valkey: Server, mode: str) -> None:
    model = HeldModel()
    with EmbeddingsCache("v", redis_url=valkey.url, read_only=True) as looking, ThreadPoolExecutor(2) as pool:
        vectorizer = vectorizer_of(model, looking, mode)
        leading = pool.submit(vectorizer.embed_report, ["a"])
        assert model.reached.wait(PATIENCE_SECONDS)
        waiting = pool.submit(vectorizer.embed_report, ["a"])
        until(someone_waits)
        model.let_go.set()
        assert (leading.result().withheld, waiting.result().withheld) == (1, 0)
    assert model.asked == ["a"]
    assert valkey.plain_keys() == []


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
