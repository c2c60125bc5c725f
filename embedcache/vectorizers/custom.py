"""A vectorizer around any function from text to vector."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from embedcache.arguments import check_function, check_kind
from embedcache.cache import EmbeddingsCache
from embedcache.entry import Text
from embedcache.errors import EmbeddingFailedError, InvalidModelNameError
from embedcache.vectorizers.base import BaseVectorizer, SingleFlightMode

_UNNAMED = "custom"


class CustomVectorizer(BaseVectorizer):
    """Texts to vectors by a function of yours.

    Args:
        embed_callable: One text to one vector ``(d,)``.
        model: The name under which vectors are kept. Needed with a cache: change it whenever the function's vectors do.
        cache: Where vectors are kept; None computes every time.
        embed_many_callable: Many texts to a matrix ``(n, d)``, where that is faster than one by one.
        single_flight: As in `BaseVectorizer`.

    Raises:
        InvalidModelNameError: There is a cache and no `model`.
        InvalidInputError: Another argument cannot be used.
    """

    def __init__(
        self,
        embed_callable: Callable[[Text], npt.ArrayLike],
        model: str | None = None,
        cache: EmbeddingsCache | None = None,
        *,
        embed_many_callable: Callable[[Sequence[Text]], npt.ArrayLike] | None = None,
        single_flight: SingleFlightMode | None = "process",
    ) -> None:
        check_function("embed_callable", embed_callable)
        check_function("embed_many_callable", embed_many_callable, may_be_none=True)
        super().__init__(_UNNAMED if model is None else model, single_flight=single_flight)
        self._named = model is not None
        self._embed_one = embed_callable
        self._embed_many = embed_many_callable
        self._dims: int | None = None
        self._one_at_a_time = threading.Lock()  # a function that was not written for threads is not called from two
        self.cache = cache

    @property
    def cache(self) -> EmbeddingsCache | None:
        """Where vectors are kept, or None."""
        return self._cache

    @cache.setter
    def cache(self, cache: EmbeddingsCache | None) -> None:
        if cache is not None:
            check_kind("cache", cache, EmbeddingsCache)
        if cache is not None and not self._named:
            raise InvalidModelNameError(
                "with a cache, say model=…: the name that this function's vectors are kept under"
            )
        self._cache = cache

    @property
    def dims(self) -> int:
        """Length of the vectors; found by embedding one word where nothing was embedded yet."""
        if self._dims is None:
            self.embed("dimension", skip_cache=True)
        if self._dims is None:
            raise EmbeddingFailedError("the function gave no vector")
        return self._dims

    def _compute(self, texts: Sequence[Text]) -> npt.ArrayLike:
        if self._embed_many is not None:
            matrix = np.array(self._embed_many(texts))  # a copy: the function may use its array again
        else:
            matrix = np.array([self._embed_one(text) for text in texts])
        self._dims = matrix.shape[-1] if matrix.ndim else None
        return matrix
