"""`CachedEmbedding` in the real llama-index-core: over a vectorizer, over LlamaIndex's own models, in an index."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from llama_index.core import MockEmbedding, VectorStoreIndex
from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.ingestion import IngestionPipeline
from llama_index.core.schema import TextNode
from pydantic import PrivateAttr
from servers import Server
from toy_model import Model, vector_of

from embedcache import CustomVectorizer, EmbeddingsCache, HFTextVectorizer, InvalidInputError
from embedcache.errors import InvalidTTLError
from embedcache.integrations.llamaindex import CachedEmbedding


class Asked(BaseEmbedding):
    """A model of LlamaIndex's that tells queries from texts, and remembers what it was asked and how."""

    _asked: list[tuple[str, list[str]]] = PrivateAttr(default_factory=list)

    def _get_query_embedding(self, query: str) -> list[float]:
        self._asked.append(("query", [query]))
        return (-vector_of(query)).tolist()

    async def _aget_query_embedding(self, query: str) -> list[float]:
        self._asked.append(("aquery", [query]))
        return (-vector_of(query)).tolist()

    def _get_text_embedding(self, text: str) -> list[float]:
        return self._get_text_embeddings([text])[0]

    def _get_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        self._asked.append(("texts", list(texts)))
        return [vector_of(text).tolist() for text in texts]

    async def _aget_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        self._asked.append(("atexts", list(texts)))
        return [vector_of(text).tolist() for text in texts]


class Called:
    """A model called by its sync names, and run sync or by their twins."""

    def __init__(self, model: BaseEmbedding, runner: asyncio.Runner | None) -> None:
        self._model, self._runner = model, runner

    def __getattr__(self, name: str) -> Any:
        runner = self._runner
        if runner is None:
            return getattr(self._model, name)
        twin = getattr(self._model, f"a{name}")
        return lambda *args: runner.run(twin(*args))


@pytest.fixture
def cache(valkey: Server) -> Iterator[EmbeddingsCache]:
    with EmbeddingsCache("llamaindex", redis_url=valkey.url) as cache:
        yield cache


@pytest.fixture(params=["sync", "async"])
def runner(request: pytest.FixtureRequest) -> Iterator[asyncio.Runner | None]:
    if request.param == "sync":
        yield None
        return
    with asyncio.Runner() as runner:
        yield runner


def test_over_a_vectorizer(cache: EmbeddingsCache, runner: asyncio.Runner | None) -> None:
    model = Model()
    vectorizer = CustomVectorizer(vector_of, "toy", cache, embed_many_callable=model)
    embedding = Called(CachedEmbedding(vectorizer, metadata={"by": "llamaindex"}, ttl=60), runner)
    vectors = embedding.get_text_embedding_batch(["b", "a", "b"])
    assert vectors == [vector_of(text).tolist() for text in ("b", "a", "b")]
    assert embedding.get_text_embedding("a") == vectors[1]
    assert embedding.get_query_embedding("a") == vectors[1]
    assert embedding.get_agg_embedding_from_queries(["a", "a"]) == vectors[1]
    assert model.asked == ["b", "a"]
    entry = cache.get("a", "toy")
    assert entry is not None
    assert (entry["metadata"], entry["ttl"]) == ({"by": "llamaindex"}, 60)


def test_over_a_model_of_llamaindex(cache: EmbeddingsCache, runner: asyncio.Runner | None) -> None:
    plain, prefix = Asked(embed_batch_size=2), "" if runner is None else "a"
    embedding = Called(CachedEmbedding.from_embedding(plain, cache, "m"), runner)
    for _ in range(2):
        texts = embedding.get_text_embedding_batch(["b", "a", "b", "c"])
        query = embedding.get_query_embedding("a")
    # in batches of its own size; the query has an entry of its own, and nothing is computed twice
    assert plain._asked == [(f"{prefix}texts", ["b", "a"]), (f"{prefix}texts", ["c"]), (f"{prefix}query", ["a"])]
    assert np.array_equal(texts, [vector_of(text) for text in ("b", "a", "b", "c")])
    assert np.array_equal(query, -vector_of("a"))


def test_queries_and_texts_may_share(cache: EmbeddingsCache, runner: asyncio.Runner | None) -> None:
    plain = Asked()
    embedding = Called(CachedEmbedding.from_embedding(plain, cache, "m", queries_apart=False), runner)
    assert embedding.get_query_embedding("a") == embedding.get_text_embedding("a")
    assert len(plain._asked) == 1


def test_many_texts_are_one_look_up(cache: EmbeddingsCache) -> None:
    embedding = CachedEmbedding.from_embedding(MockEmbedding(embed_dim=4), cache, "mock")
    vectors = embedding.get_text_embedding_batch([f"text {n}" for n in range(200)])
    assert np.array_equal(vectors, np.full((200, 4), 0.5))
    stats = cache.stats()
    assert (stats.misses, sum(count for _, count in stats.latencies)) == (200, 1)


def test_in_an_index(cache: EmbeddingsCache) -> None:
    model = Model()
    embedding = CachedEmbedding(CustomVectorizer(vector_of, "toy", cache, embed_many_callable=model))
    texts = ["A cache keeps what was computed.", "Bread is baked in an oven."]
    for _ in range(2):  # the second index computes nothing
        index = VectorStoreIndex([TextNode(text=text) for text in texts], embed_model=embedding)
        (found,) = index.as_retriever(similarity_top_k=1).retrieve(texts[1])
        assert found.node.get_content() == texts[1]
    assert model.asked == texts


def test_in_an_ingestion_pipeline(cache: EmbeddingsCache) -> None:
    pipeline = IngestionPipeline(
        transformations=[CachedEmbedding(CustomVectorizer(vector_of, "toy", cache))], disable_cache=True
    )
    (node,) = pipeline.run(nodes=[TextNode(text="a")])
    assert np.array_equal(node.embedding, vector_of("a"))
    (node,) = asyncio.run(pipeline.arun(nodes=[TextNode(text="a")]))
    assert np.array_equal(node.embedding, vector_of("a"))
    assert cache.stats().hits == 1


def test_it_tells_of_itself_without_its_secrets(cache: EmbeddingsCache) -> None:
    vectorizer = HFTextVectorizer(cache=cache, normalize=True, token="s3cret")  # noqa: S106 - one that is looked for
    embedding = CachedEmbedding(vectorizer)
    assert embedding.model_name == vectorizer.model_name
    assert embedding.to_dict()["class_name"] == "CachedEmbedding"
    assert "s3cret" not in f"{embedding.to_dict()} {embedding!r} {embedding.to_payload()}"
    assert CachedEmbedding(vectorizer, embed_batch_size=7).embed_batch_size == 7


def test_what_cannot_be_wrapped_is_told(cache: EmbeddingsCache) -> None:
    wrong: Any = Asked()
    with pytest.raises(InvalidInputError, match=r"not Asked; .*from_embedding"):
        CachedEmbedding(wrong)
    wrong = vector_of
    with pytest.raises(InvalidInputError, match="a BaseEmbedding of LlamaIndex's is wanted, not function"):
        CachedEmbedding.from_embedding(wrong, cache, "m")
    with pytest.raises(InvalidTTLError):
        CachedEmbedding.from_embedding(Asked(), cache, "m", ttl=-1)
