"""LangChain: `CachedEmbeddings`, an `Embeddings` whose vectors come from a cache, or are computed and kept there.

::

    from embedcache import EmbeddingsCache, HFTextVectorizer
    from embedcache.integrations.langchain import CachedEmbeddings

    embeddings = CachedEmbeddings(HFTextVectorizer(cache=EmbeddingsCache("docs")))
    store = InMemoryVectorStore(embeddings)  # or any other that LangChain has
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Self, cast

from embedcache.arguments import check_switch
from embedcache.entry import TTL
from embedcache.errors import InvalidInputError
from embedcache.vectorizers.base import BaseVectorizer, OneTextOptions
from embedcache.vectorizers.functions import Functions, FunctionVectorizer
from embedcache.vectorizers.planning import wanted

try:
    from langchain_core.embeddings import Embeddings
except ImportError as error:
    raise ImportError(
        "embedcache.integrations.langchain needs langchain-core: pip install 'embedcache[langchain]'"
    ) from error

if TYPE_CHECKING:
    from embedcache.cache import EmbeddingsCache


class CachedEmbeddings(Embeddings):
    """A vectorizer as LangChain's `Embeddings`. Queries and documents are those of the vectorizer.

    Args:
        vectorizer: What makes vectors, and the cache that keeps them.
        metadata: Stored beside each vector that is computed.
        ttl: Seconds that such an entry lives; None is the cache's default, `NEVER` never expires.

    Raises:
        InvalidInputError: An argument cannot be used.
    """

    def __init__(
        self, vectorizer: BaseVectorizer, *, metadata: Mapping[str, Any] | None = None, ttl: TTL = None
    ) -> None:
        if not isinstance(vectorizer, BaseVectorizer):
            raise InvalidInputError(
                f"a vectorizer is wanted, not {type(vectorizer).__name__}; Embeddings of LangChain's are wrapped by"
                " CachedEmbeddings.from_embeddings"
            )
        wanted(metadata, ttl, None)
        self.vectorizer = vectorizer
        self._options: OneTextOptions = {"metadata": metadata, "ttl": ttl}

    @classmethod
    def from_embeddings(
        cls,
        embeddings: Embeddings,
        cache: EmbeddingsCache,
        model_name: str,
        *,
        queries_apart: bool = True,
        metadata: Mapping[str, Any] | None = None,
        ttl: TTL = None,
    ) -> Self:
        """Any `Embeddings` of LangChain's through a cache.

        They are called with 256 documents at most. From an event loop, their async methods are called.

        Args:
            embeddings: What makes vectors.
            cache: Where they are kept.
            model_name: The name under which they are kept. Nothing else tells one model's vectors from another's:
                change it whenever they do.
            queries_apart: Whether a query has an entry of its own beside a document of the same text. False where the
                model makes no difference.
            metadata: As in the constructor.
            ttl: As in the constructor.

        Raises:
            InvalidInputError: An argument cannot be used.
        """
        if not isinstance(embeddings, Embeddings):
            raise InvalidInputError(f"Embeddings of LangChain's are wanted, not {type(embeddings).__name__}")
        documents = Functions(embeddings.embed_documents, embeddings.aembed_documents)
        check_switch("queries_apart", queries_apart)
        queries = _queries(embeddings) if queries_apart else None
        return cls(FunctionVectorizer(model_name, cache, documents, queries=queries), metadata=metadata, ttl=ttl)

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """The vectors of texts that are searched in. All are looked up at once; each distinct miss is computed once.

        Raises:
            InvalidInputError: A text is blank, or not text; nothing was computed.
        """
        return cast("list[list[float]]", self.vectorizer.embed_documents(texts, **self._options).tolist())

    async def aembed_documents(self, texts: list[str]) -> list[list[float]]:
        """Async twin of `embed_documents`."""
        return cast("list[list[float]]", (await self.vectorizer.aembed_documents(texts, **self._options)).tolist())

    def embed_query(self, text: str) -> list[float]:
        """The vector of a text that is searched for.

        Raises:
            InvalidInputError: The text is blank, or not text; nothing was computed.
        """
        return cast("list[float]", self.vectorizer.embed_query(text, **self._options).tolist())

    async def aembed_query(self, text: str) -> list[float]:
        """Async twin of `embed_query`."""
        return cast("list[float]", (await self.vectorizer.aembed_query(text, **self._options)).tolist())


def _queries(embeddings: Embeddings) -> Functions:
    """LangChain embeds queries one by one."""

    def embed(texts: list[str]) -> list[list[float]]:
        return [embeddings.embed_query(text) for text in texts]

    async def aembed(texts: list[str]) -> list[list[float]]:
        return await asyncio.gather(*map(embeddings.aembed_query, texts))

    return Functions(embed, aembed)
