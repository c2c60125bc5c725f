"""Keep embedding vectors in Redis or Valkey, so that nobody computes, or pays for, the same vector twice.

::

    from embedcache import EmbeddingsCache, HFTextVectorizer

    vectorizer = HFTextVectorizer(cache=EmbeddingsCache(ttl=3600))
    vectorizer.embed("What is machine learning?")  # computed, and kept
    vectorizer.embed("What is machine learning?")  # read from the cache
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from embedcache.breaker import BreakerPolicy
from embedcache.cache import EmbeddingsCache
from embedcache.entry import NEVER, CacheEntry, CacheItem, EntrySummary
from embedcache.errors import CacheUnavailableError, EmbedcacheError, InvalidInputError

if TYPE_CHECKING:
    from embedcache.vectorizers import BaseVectorizer, CustomVectorizer, HFTextVectorizer, OpenAITextVectorizer

__version__ = "0.1.0"

__all__ = [
    "NEVER",
    "BaseVectorizer",
    "BreakerPolicy",
    "CacheEntry",
    "CacheItem",
    "CacheUnavailableError",
    "CustomVectorizer",
    "EmbedcacheError",
    "EmbeddingsCache",
    "EntrySummary",
    "HFTextVectorizer",
    "InvalidInputError",
    "OpenAITextVectorizer",
    "__version__",
]


def __getattr__(name: str) -> Any:
    # Vectorizers are imported when they are asked for: a program that only reads a cache does without them.
    if name in {"BaseVectorizer", "CustomVectorizer", "HFTextVectorizer", "OpenAITextVectorizer"}:
        from embedcache import vectorizers

        return getattr(vectorizers, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
