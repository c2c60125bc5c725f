"""LlamaIndex: `CachedEmbedding`, a `BaseEmbedding` whose vectors come from a cache, or are computed and kept there.

::

    from embedcache import EmbeddingsCache, HFTextVectorizer
    from embedcache.integrations.llamaindex import CachedEmbedding

    embed_model = CachedEmbedding(HFTextVectorizer(cache=EmbeddingsCache("docs")))
    index = VectorStoreIndex.from_documents(documents, embed_model=embed_model)
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Self, cast

from embedcache.arguments import check_switch
from embedcache.entry import TTL
from embedcache.errors import InvalidInputError
from embedcache.vectorizers.base import CHUNK_TEXTS, BaseVectorizer, OneTextOptions
from embedcache.vectorizers.functions import Functions, FunctionVectorizer
from embedcache.vectorizers.planning import wanted

try:
    from llama_index.core.base.embeddings.base import BaseEmbedding, Embedding
    from llama_index.core.bridge.pydantic import PrivateAttr, ValidationError
except ImportError as error:
    raise ImportError(
        "embedcache.integrations.llamaindex needs llama-index-core: pip install 'embedcache[llamaindex]'"
    ) from error

if TYPE_CHECKING:
    from embedcache.cache import EmbeddingsCache


class CachedEmbedding(BaseEmbedding):
    """A vectorizer as LlamaIndex's `BaseEmbedding`. Queries are its queries, texts and nodes its documents.

    Its `model_name` is the vectorizer's, so that LlamaIndex's own ingestion cache tells models apart, too.

    Args:
        vectorizer: What makes vectors, and the cache that keeps them.
        metadata: Stored beside each vector that is computed.
        ttl: Seconds that such an entry lives; None is the cache's default, `NEVER` never expires.
        options: Fields of `BaseEmbedding`. `embed_batch_size` is 256, where LlamaIndex's is 10: a batch is one look-up.

    Raises:
        InvalidInputError: An argument cannot be used.
    """

    _vectorizer: BaseVectorizer = PrivateAttr()
    _options: OneTextOptions = PrivateAttr()

    def __init__(
        self,
        vectorizer: BaseVectorizer,
        *,
        metadata: Mapping[str, Any] | None = None,
        ttl: TTL = None,
        **options: Any,
    ) -> None:
        if not isinstance(vectorizer, BaseVectorizer):
            raise InvalidInputError(
                f"a vectorizer is wanted, not {type(vectorizer).__name__}; models of LlamaIndex's are wrapped by"
                " CachedEmbedding.from_embedding"
            )
        wanted(metadata, ttl, None)
        try:
            super().__init__(**{"model_name": vectorizer.model_name, "embed_batch_size": CHUNK_TEXTS, **options})
        except ValidationError as error:
            raise InvalidInputError(f"an option cannot be used: {error}") from error
        self._vectorizer = vectorizer
        self._options = {"metadata": metadata, "ttl": ttl}

    @classmethod
    def from_embedding(
        cls,
        embedding: BaseEmbedding,
        cache: EmbeddingsCache,
        model_name: str,
        *,
        queries_apart: bool = True,
        metadata: Mapping[str, Any] | None = None,
        ttl: TTL = None,
        **options: Any,
    ) -> Self:
        """Any embedding model of LlamaIndex's through a cache.

        It is called with 256 texts at most, in batches of its own size. From an event loop, its async methods are
        called.

        Args:
            embedding: What makes vectors.
            cache: Where they are kept.
            model_name: The name under which they are kept. The model's own `model_name` says nothing of its
                instructions or dimensions: change this one whenever vectors change.
            queries_apart: Whether a query has an entry of its own beside a document of the same text. False where the
                model makes no difference.
            metadata: As in the constructor.
            ttl: As in the constructor.
            options: As in the constructor.

        Raises:
            InvalidInputError: An argument cannot be used.
        """
        if not isinstance(embedding, BaseEmbedding):
            raise InvalidInputError(f"a BaseEmbedding of LlamaIndex's is wanted, not {type(embedding).__name__}")
        documents = Functions(embedding.get_text_embedding_batch, embedding.aget_text_embedding_batch)
        check_switch("queries_apart", queries_apart)
        queries = _queries(embedding) if queries_apart else None
        vectorizer = FunctionVectorizer(model_name, cache, documents, queries=queries)
        return cls(vectorizer, metadata=metadata, ttl=ttl, **options)

    @classmethod
    def class_name(cls) -> str:
        """The name by which LlamaIndex tells of it."""
        return "CachedEmbedding"

    @property
    def vectorizer(self) -> BaseVectorizer:
        """What makes vectors, and the cache that keeps them."""
        return self._vectorizer

    # ---------------------------------------------------------------------------------------- for LlamaIndex

    def _get_query_embedding(self, query: str) -> Embedding:
        return cast("Embedding", self._vectorizer.embed_query(query, **self._options).tolist())

    async def _aget_query_embedding(self, query: str) -> Embedding:
        return cast("Embedding", (await self._vectorizer.aembed_query(query, **self._options)).tolist())

    def _get_text_embedding(self, text: str) -> Embedding:
        return cast("Embedding", self._vectorizer.embed_document(text, **self._options).tolist())

    async def _aget_text_embedding(self, text: str) -> Embedding:
        return cast("Embedding", (await self._vectorizer.aembed_document(text, **self._options)).tolist())

    def _get_text_embeddings(self, texts: list[str]) -> list[Embedding]:
        return cast("list[Embedding]", self._vectorizer.embed_documents(texts, **self._options).tolist())

    async def _aget_text_embeddings(self, texts: list[str]) -> list[Embedding]:
        return cast("list[Embedding]", (await self._vectorizer.aembed_documents(texts, **self._options)).tolist())


def _queries(embedding: BaseEmbedding) -> Functions:
    """LlamaIndex embeds queries one by one."""

    def embed(texts: list[str]) -> list[Embedding]:
        return [embedding.get_query_embedding(text) for text in texts]

    async def aembed(texts: list[str]) -> list[Embedding]:
        return await asyncio.gather(*map(embedding.aget_query_embedding, texts))

    return Functions(embed, aembed)
