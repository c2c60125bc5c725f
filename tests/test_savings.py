"""What vectorizers tell a cache's statistics, and what hits save by it."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from servers import Server, running

from embedcache import CustomVectorizer, EmbeddingsCache
from embedcache.vectorizers import BaseVectorizer

MODEL = "slow/model"
SECONDS_PER_TEXT = 0.02
LOAD_SECONDS = 0.5
TEXTS = ["one two three", "four", "four", "five six"]


class SlowModel(BaseVectorizer):
    """A model that takes a known time per text, and another to load."""

    def __init__(self, cache: EmbeddingsCache | None, load_seconds: float = 0.0) -> None:
        super().__init__(MODEL, cache)
        self._one_at_a_time = threading.Lock()
        self._load_seconds = load_seconds

    @property
    def dims(self) -> int:
        return 2

    def _prepare(self) -> None:
        time.sleep(self._load_seconds)

    def _compute(self, texts: Sequence[Any]) -> Any:
        time.sleep(SECONDS_PER_TEXT * len(texts))
        return [[float(len(text)), 1.0] for text in texts]


@pytest.fixture
def cache(valkey: Server) -> Iterator[EmbeddingsCache]:
    with EmbeddingsCache("c", redis_url=valkey.url) as opened:
        yield opened


@pytest.mark.parametrize("awaited", [False, True])
def test_texts_tokens_and_time_of_the_model_are_counted_and_hits_save_them(
    cache: EmbeddingsCache, awaited: bool
) -> None:
    vectorizer = SlowModel(cache, load_seconds=LOAD_SECONDS)
    start = time.perf_counter()
    for _ in range(2):
        if awaited:
            asyncio.run(vectorizer.aembed_many(TEXTS))
            asyncio.run(cache.aclose())
        else:
            vectorizer.embed_many(TEXTS)
    elapsed = time.perf_counter() - start
    found = cache.stats(model_name=MODEL)
    assert (found.texts_computed, found.hits, found.misses, found.sets) == (3, 3, 3, 3)
    assert found.tokens_computed == 4 + 1 + 2  # 13, 4 and 8 characters
    assert 3 * SECONDS_PER_TEXT <= found.compute_seconds <= elapsed - LOAD_SECONDS  # loading is no text's cost
    assert found.time_saved == pytest.approx(found.compute_seconds)
    assert found.tokens_saved == pytest.approx(7)
    assert found.money_saved is None
    cache.set_token_price(MODEL, 0.5)
    assert cache.stats().money_saved == pytest.approx(7 / 1_000 * 0.5)


def test_threads_that_wait_for_each_other_count_their_own_time_alone(cache: EmbeddingsCache) -> None:
    vectorizer = SlowModel(cache)
    threads = [threading.Thread(target=vectorizer.embed, args=(f"text {n}",)) for n in range(8)]
    start = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    elapsed = time.perf_counter() - start
    found = cache.stats()
    assert found.texts_computed == 8
    assert found.compute_seconds <= elapsed  # with the waiting it would be four times that


def test_what_is_embedded_past_the_cache_is_not_counted(cache: EmbeddingsCache) -> None:
    vectorizer = SlowModel(cache)
    vectorizer.embed_many(TEXTS, skip_cache=True)
    SlowModel(None).embed("one")
    assert (cache.stats().texts_computed, cache.stats().texts) == (0, 0)


def test_bytes_have_no_tokens(cache: EmbeddingsCache) -> None:
    CustomVectorizer(lambda image: [float(len(image)), 2.0], MODEL, cache).embed(b"an image, say")
    assert (cache.stats().texts_computed, cache.stats().tokens_computed) == (1, 0)


def test_an_outage_is_counted_as_errors_in_the_minute_when_it_was(tmp_path: object) -> None:
    with running("valkey9") as server, EmbeddingsCache("c", redis_url=server.url) as cache:
        vectorizer = SlowModel(cache)
        server.stop()
        vectorizer.embed_many(TEXTS)
        server.start()
        found = cache.stats("15m")
        assert (found.errors, found.texts_computed, found.hits, found.misses) == (1, 3, 0, 0)
