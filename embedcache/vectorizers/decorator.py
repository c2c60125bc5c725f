"""`EmbeddingsCache.cached`: a function from texts to vectors that computes only what its cache lacks."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, cast, overload

import numpy.typing as npt

from embedcache.entry import TTL, Text
from embedcache.errors import InvalidInputError
from embedcache.keyspace import encode_model_name
from embedcache.vectorizers.functions import Functions, FunctionVectorizer, TextsToVectors
from embedcache.vectorizers.planning import wanted
from embedcache.vectorizers.report import Matrix

if TYPE_CHECKING:
    from embedcache.cache import EmbeddingsCache


class CacheDecorator(Protocol):
    """What `EmbeddingsCache.cached` returns. An async function stays async."""

    @overload
    def __call__(
        self, function: Callable[[list[Any]], Awaitable[npt.ArrayLike]], /
    ) -> Callable[[Sequence[Text]], Coroutine[Any, Any, Matrix]]: ...
    @overload
    def __call__(self, function: TextsToVectors, /) -> Callable[[Sequence[Text]], Matrix]: ...


def cached(cache: EmbeddingsCache, model_name: str, metadata: Mapping[str, Any] | None, ttl: TTL) -> CacheDecorator:
    """The decorator; see `EmbeddingsCache.cached`."""
    encode_model_name(model_name)
    wanted(metadata, ttl, None)  # checks them: a function that cannot be used is told where it is written

    def decorate(function: Callable[[list[Any]], Any]) -> Callable[[Sequence[Text]], Any]:
        _check_takes_texts(function)
        if _is_async(function):
            awaiting = FunctionVectorizer(model_name, cache, Functions(None, function))

            @functools.wraps(function)
            async def aembed(texts: Sequence[Text]) -> Matrix:
                return await awaiting.aembed_many(texts, metadata=metadata, ttl=ttl)

            return aembed
        vectorizer = FunctionVectorizer(model_name, cache, Functions(function))

        @functools.wraps(function)
        def embed(texts: Sequence[Text]) -> Matrix:
            return vectorizer.embed_many(texts, metadata=metadata, ttl=ttl)

        return embed

    return cast("CacheDecorator", decorate)


def _is_async(function: Callable[..., Any]) -> bool:
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(getattr(function, "__call__", None))  # noqa: B004 - of an object, it is its class that tells


def _check_takes_texts(function: object) -> None:
    """Whether it can be called with texts and nothing else.

    Other arguments would change vectors and be no part of the name under which they are kept.
    """
    if not callable(function):
        raise InvalidInputError(f"what is cached is a function from texts to vectors, not {type(function).__name__}")
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # some that are written in C do not tell
        return
    try:
        signature.bind([])
    except TypeError as error:
        name = getattr(function, "__name__", type(function).__name__)
        raise InvalidInputError(
            f"{name}() cannot be called with texts alone: {error}; of a method, decorate what an object has, as in"
            " embed = cache.cached(...)(model.embed)"
        ) from error
