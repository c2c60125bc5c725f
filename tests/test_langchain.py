"""`CachedEmbeddings` in the real langchain-core: over a vectorizer, over its own Embeddings, in a store."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from langchain_core.documents import Document
from langchain_core.embeddings import DeterministicFakeEmbedding, Embeddings
from langchain_core.vectorstores import InMemoryVectorStore
from servers import Server
from toy_model import Model, vector_of

from embedcache import CustomVectorizer, EmbeddingsCache, InvalidInputError
from embedcache.errors import InvalidMetadataError, InvalidTextError
from embedcache.integrations.langchain import CachedEmbeddings


class Asked(Embeddings):
    """Embeddings of LangChain's that tell queries from documents, and remember what they were asked and how."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, list[str]]] = []
        self._vectors = DeterministicFakeEmbedding(size=8)

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        self.asked.append(("documents", texts))
        return self._vectors.embed_documents(texts)

    def embed_query(self, text: str) -> list[float]:
        self.asked.append(("query", [text]))
        return [-number for number in self._vectors.embed_query(text)]

    async def aembed_documents(self, texts: list[str]) -> list[list[float]]:
        self.asked.append(("adocuments", texts))
        return self._vectors.embed_documents(texts)

    async def aembed_query(self, text: str) -> list[float]:
        self.asked.append(("aquery", [text]))
        return [-number for number in self._vectors.embed_query(text)]


class Called:
    """Embeddings called by their sync names, and run sync or by their twins."""

    def __init__(self, embeddings: Embeddings, runner: asyncio.Runner | None) -> None:
        self._embeddings, self._runner = embeddings, runner

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        if self._runner is None:
            return self._embeddings.embed_documents(texts)
        return self._runner.run(self._embeddings.aembed_documents(texts))

    def embed_query(self, text: str) -> list[float]:
        if self._runner is None:
            return self._embeddings.embed_query(text)
        return self._runner.run(self._embeddings.aembed_query(text))


@pytest.fixture
def cache(valkey: Server) -> Iterator[EmbeddingsCache]:
    with EmbeddingsCache("langchain", redis_url=valkey.url) as cache:
        yield cache


@pytest.fixture(params=["sync", "async"])
def runner(request: pytest.FixtureRequest) -> Iterator[asyncio.Runner | None]:
    if request.param == "sync":
        yield None
        return
    with asyncio.Runner() as runner:
        yield runner


@pytest.fixture
def prefix(runner: asyncio.Runner | None) -> str:
    return "" if runner is None else "a"


def test_over_a_vectorizer(cache: EmbeddingsCache, runner: asyncio.Runner | None) -> None:
    model = Model()
    vectorizer = CustomVectorizer(vector_of, "toy", cache, embed_many_callable=model)
    embeddings = Called(CachedEmbeddings(vectorizer, metadata={"by": "langchain"}, ttl=60), runner)
    vectors = embeddings.embed_documents(["b", "a", "b"])
    assert vectors == [vector_of(text).tolist() for text in ("b", "a", "b")]
    assert all(type(number) is float for vector in vectors for number in vector)
    assert embeddings.embed_query("a") == vectors[1]
    assert model.asked == ["b", "a"]
    assert embeddings.embed_documents([]) == []
    entry = cache.get("a", "toy")
    assert entry is not None
    assert (entry["metadata"], entry["ttl"]) == ({"by": "langchain"}, 60)


def test_over_embeddings_of_langchain(cache: EmbeddingsCache, runner: asyncio.Runner | None, prefix: str) -> None:
    plain = Asked()
    embeddings = Called(CachedEmbeddings.from_embeddings(plain, cache, "m"), runner)
    for _ in range(2):
        documents = embeddings.embed_documents(["b", "a", "b"])
        query = embeddings.embed_query("a")
    # the query has an entry of its own, and neither is computed twice
    assert plain.asked == [(f"{prefix}documents", ["b", "a"]), (f"{prefix}query", ["a"])]
    assert np.allclose(documents, Asked().embed_documents(["b", "a", "b"]))
    assert np.allclose(query, Asked().embed_query("a"))
    embeddings.embed_documents(["a", "c"])
    assert plain.asked[2:] == [(f"{prefix}documents", ["c"])]
    assert cache.exists("a", "m")


def test_queries_and_documents_may_share(cache: EmbeddingsCache, runner: asyncio.Runner | None, prefix: str) -> None:
    plain = Asked()
    embeddings = Called(CachedEmbeddings.from_embeddings(plain, cache, "m", queries_apart=False), runner)
    assert embeddings.embed_query("a") == embeddings.embed_documents(["a"])[0]
    assert plain.asked == [(f"{prefix}documents", ["a"])]


def test_what_they_raise_is_raised(cache: EmbeddingsCache, runner: asyncio.Runner | None) -> None:
    class Broken(Asked):
        def embed_documents(self, texts: list[str]) -> list[list[float]]:
            raise ConnectionResetError(texts)

        async def aembed_documents(self, texts: list[str]) -> list[list[float]]:
            raise ConnectionResetError(texts)

    embeddings = Called(CachedEmbeddings.from_embeddings(Broken(), cache, "m"), runner)
    with pytest.raises(ConnectionResetError):
        embeddings.embed_documents(["a"])
    assert not cache.exists("a", "m")
    with pytest.raises(InvalidTextError, match="item 1"):
        embeddings.embed_documents(["a", ""])


def test_in_a_vector_store(cache: EmbeddingsCache) -> None:
    model = Model()
    embeddings = CachedEmbeddings(CustomVectorizer(vector_of, "toy", cache, embed_many_callable=model))
    documents = [Document("A cache keeps what was computed."), Document("Bread is baked in an oven.")]
    for _ in range(2):  # the second store computes nothing
        store = InMemoryVectorStore(embeddings)
        store.add_documents(documents)
        (found,) = store.similarity_search(documents[0].page_content, k=1)
        assert found.page_content == documents[0].page_content

    async def asearch() -> list[Document]:
        other = InMemoryVectorStore(embeddings)
        await other.aadd_documents(documents)
        return await other.asimilarity_search(documents[1].page_content, k=1)

    assert asyncio.run(asearch())[0].page_content == documents[1].page_content
    assert model.asked == [document.page_content for document in documents]


def test_what_cannot_be_wrapped_is_told(cache: EmbeddingsCache) -> None:
    wrong: Any = Asked()
    with pytest.raises(InvalidInputError, match=r"not Asked; .*from_embeddings"):
        CachedEmbeddings(wrong)
    wrong = vector_of
    with pytest.raises(InvalidInputError, match="Embeddings of LangChain's are wanted, not function"):
        CachedEmbeddings.from_embeddings(wrong, cache, "m")
    with pytest.raises(InvalidMetadataError):
        CachedEmbeddings.from_embeddings(Asked(), cache, "m", metadata={"when": object()})
    with pytest.raises(InvalidInputError):
        CachedEmbeddings.from_embeddings(Asked(), cache, "")
