"""The journey of the user guide, step by step, with the facts that it prints."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from servers import Server

from embedcache import EmbeddingsCache, HFTextVectorizer

MODEL = "sentence-transformers/all-MiniLM-L6-v2"
GUIDE_MODEL = "redis/langcache-embed-v1"
QUESTION = "What is machine learning?"
METADATA = {"category": "ai", "source": "user_query"}

pytestmark = pytest.mark.model


@pytest.fixture(scope="module")
def vectorizer() -> HFTextVectorizer:
    return HFTextVectorizer(model=MODEL, cache=None, cache_folder=None)


@pytest.fixture(scope="module")
def embedding(vectorizer: HFTextVectorizer) -> Any:
    """The question's vector, of the bundled model; the guide's own model is stored by name alone."""
    return vectorizer.embed(QUESTION)


@pytest.fixture
def cache(valkey: Server) -> Iterator[EmbeddingsCache]:
    with EmbeddingsCache(name="embedcache", redis_url=valkey.url, ttl=None) as cache:
        yield cache
        cache.clear()
    assert len(valkey.plain_keys()) == 0


def wait_until_gone(server: Server, key: str) -> None:
    while server.raw.exists(key):
        time.sleep(0.01)


def test_store_retrieve_and_drop(cache: EmbeddingsCache, embedding: Any) -> None:
    key = cache.set(text=QUESTION, model_name=GUIDE_MODEL, embedding=embedding, metadata=METADATA)
    assert f"Stored with key: {key[:15]}..." == "Stored with key: embedcache:909f..."

    result = cache.get(text=QUESTION, model_name=GUIDE_MODEL)
    assert f"Found in cache: {result['text']}" == "Found in cache: What is machine learning?"
    assert f"Model: {result['model_name']}" == "Model: redis/langcache-embed-v1"
    assert f"Metadata: {result['metadata']}" == "Metadata: {'category': 'ai', 'source': 'user_query'}"
    assert f"Embedding shape: {np.array(result['embedding']).shape}" == "Embedding shape: (384,)"
    np.testing.assert_array_equal(result["embedding"], np.asarray(embedding, np.float32))

    assert f"{cache.exists(text=QUESTION, model_name=GUIDE_MODEL)}" == "True"
    assert f"{cache.exists(text='What is deep learning?', model_name=GUIDE_MODEL)}" == "False"

    assert cache.drop(text=QUESTION, model_name=GUIDE_MODEL) is True
    assert f"After dropping: {cache.exists(text=QUESTION, model_name=GUIDE_MODEL)}" == "After dropping: False"
    assert cache.get(text=QUESTION, model_name=GUIDE_MODEL) is None


def test_the_vector_of_the_guides_own_model_has_its_shape(cache: EmbeddingsCache) -> None:
    cache.set(text=QUESTION, model_name=GUIDE_MODEL, embedding=[0.25] * 768)
    assert np.array(cache.get(text=QUESTION, model_name=GUIDE_MODEL)["embedding"]).shape == (768,)


def test_by_key(cache: EmbeddingsCache, embedding: Any) -> None:
    key = cache.set(text=QUESTION, model_name=GUIDE_MODEL, embedding=embedding, metadata=METADATA)
    assert f"Stored with key: {key[:15]}..." == "Stored with key: embedcache:909f..."
    assert f"Exists by key: {cache.exists_by_key(key)}" == "Exists by key: True"
    assert f"Retrieved by key: {cache.get_by_key(key)['text']}" == "Retrieved by key: What is machine learning?"
    assert cache.drop_by_key(key) is True
    assert cache.exists_by_key(key) is False


def test_a_batch_of_three(cache: EmbeddingsCache, vectorizer: HFTextVectorizer) -> None:
    texts = [QUESTION, "How do neural networks work?", "What is deep learning?"]
    metadata = {"category": "ai", "type": "question"}
    keys = cache.mset(
        [
            {"text": text, "model_name": GUIDE_MODEL, "embedding": vectorizer.embed(text), "metadata": metadata}
            for text in texts
        ]
    )
    assert f"Stored {len(keys)} embeddings" == "Stored 3 embeddings"
    assert f"All embeddings exist: {all(cache.mexists(texts, GUIDE_MODEL))}" == "All embeddings exist: True"
    results = cache.mget(texts, GUIDE_MODEL)
    assert f"Retrieved {len(results)} embeddings" == "Retrieved 3 embeddings"
    assert [result["text"] for result in results] == texts
    assert [result["metadata"] for result in results] == [metadata] * 3
    assert cache.mdrop(texts, GUIDE_MODEL) == 3
    assert cache.mexists_by_keys(keys) == [False, False, False]


def test_entries_expire(valkey: Server, embedding: Any) -> None:
    with EmbeddingsCache(name="ttl_cache", redis_url=valkey.url, ttl=1) as ttl_cache:
        key = ttl_cache.set(text=QUESTION, model_name=GUIDE_MODEL, embedding=embedding)
        assert f"Immediately after setting: {ttl_cache.exists_by_key(key)}" == "Immediately after setting: True"
        wait_until_gone(valkey, key)
        assert f"After waiting: {ttl_cache.exists_by_key(key)}" == "After waiting: False"


def test_a_custom_ttl_comes_before_the_default(valkey: Server, embedding: Any) -> None:
    with EmbeddingsCache(name="ttl_cache", redis_url=valkey.url, ttl=500) as ttl_cache:
        short = ttl_cache.set(text="Short-lived entry", model_name=GUIDE_MODEL, embedding=embedding, ttl=1)
        default = ttl_cache.set(text="Default TTL entry", model_name=GUIDE_MODEL, embedding=embedding)
        wait_until_gone(valkey, short)
        assert f"Entry with custom TTL: {ttl_cache.exists_by_key(short)}" == "Entry with custom TTL: False"
        assert f"Entry with default TTL: {ttl_cache.exists_by_key(default)}" == "Entry with default TTL: True"
        assert ttl_cache.drop_by_key(default) is True


def test_async(cache: EmbeddingsCache, embedding: Any) -> None:
    async def demo() -> list[str]:
        key = await cache.aset(
            text="Async embedding", model_name=GUIDE_MODEL, embedding=embedding, metadata={"async": True}
        )
        printed = [f"Async set successful? {await cache.aexists_by_key(key)}"]
        result = await cache.aget_by_key(key)
        printed.append(f"Async get successful? {result is not None and result['text'] == 'Async embedding'}")
        assert result["metadata"] == {"async": True}
        assert await cache.adrop_by_key(key) is True
        assert await cache.aexists_by_key(key) is False
        return printed

    assert asyncio.run(demo()) == ["Async set successful? True", "Async get successful? True"]


def test_the_statistics_of_a_stream_of_queries(valkey: Server, vectorizer: HFTextVectorizer) -> None:
    queries = [
        "What is artificial intelligence?",
        "How does machine learning work?",
        "What is artificial intelligence?",
        "What are neural networks?",
        "How does machine learning work?",
    ]
    with EmbeddingsCache(name="example_cache", redis_url=valkey.url, ttl=3600) as example_cache:
        caching = HFTextVectorizer(model=MODEL, cache=example_cache)
        hits = 0
        for query in queries:
            hits += example_cache.exists(text=query, model_name=MODEL)
            computed = vectorizer.embed(query)
            np.testing.assert_allclose(caching.embed(query), computed, rtol=1e-5, atol=1e-6)
        misses = len(queries) - hits
        assert [f"Total queries: {len(queries)}", f"Cache hits: {hits}", f"Cache misses: {misses}"] == [
            "Total queries: 5",
            "Cache hits: 2",
            "Cache misses: 3",
        ]
        assert f"Cache hit rate: {hits / len(queries) * 100:.1f}%" == "Cache hit rate: 40.0%"
        assert len(valkey.plain_keys()) == 3
        assert all(3_000_000 < valkey.pttl(key) <= 3_600_000 for key in valkey.plain_keys())
        for query in set(queries):
            assert example_cache.drop(text=query, model_name=MODEL) is True
        assert len(valkey.plain_keys()) == 0


def test_a_vectorizer_takes_another_cache_and_can_go_without(valkey: Server) -> None:
    with EmbeddingsCache(name="benchmark_cache", redis_url=valkey.url, ttl=3600) as benchmark_cache:
        vectorizer = HFTextVectorizer(model=MODEL)
        vectorizer.cache = benchmark_cache
        without = vectorizer.embed(QUESTION, skip_cache=True)
        assert len(valkey.plain_keys()) == 0
        first, second = vectorizer.embed(QUESTION), vectorizer.embed(QUESTION)
        assert benchmark_cache.exists(text=QUESTION, model_name=MODEL)
        np.testing.assert_array_equal(first, second)
        np.testing.assert_allclose(first, without, rtol=1e-5, atol=1e-6)
        planted = np.arange(384, dtype=np.float32)
        benchmark_cache.set(text=QUESTION, model_name=MODEL, embedding=planted)
        np.testing.assert_array_equal(vectorizer.embed(QUESTION), planted)
        np.testing.assert_allclose(vectorizer.embed(QUESTION, skip_cache=True), without, rtol=1e-5, atol=1e-6)


def test_cleaning_up_all_caches(valkey: Server, embedding: Any) -> None:
    names = ["embedcache", "ttl_cache", "example_cache", "benchmark_cache"]
    caches = [EmbeddingsCache(name=name, redis_url=valkey.url) for name in names]
    for cache in caches:
        cache.set(text=QUESTION, model_name=GUIDE_MODEL, embedding=embedding)
    valkey.raw.set("of another program", "x")
    assert [cache.clear() for cache in caches] == [1, 1, 1, 1]
    assert valkey.plain_keys() == [b"of another program"]
    for cache in caches:
        cache.close()
