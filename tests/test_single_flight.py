"""Threads and tasks of one process that lack the same text at the same time: one computes it, come what may."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from flying import MODES, in_threads, someone_waits, until, vectorizer_of
from servers import Server, running
from toy_model import PATIENCE_SECONDS, HeldModel, Model, carried_out, many, vector_of

from embedcache import CustomVectorizer, EmbeddingsCache, InvalidInputError
from embedcache.errors import EmbeddingFailedError
from embedcache.vectorizers import base
from embedcache.vectorizers.flights import flights
from embedcache.vectorizers.steps import Compute, LookUp, Store


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
    with pytest.raises(InvalidInputError, match="process, shared or None, not 'thread'"):
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
