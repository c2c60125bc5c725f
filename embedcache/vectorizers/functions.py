"""A vectorizer around functions from many texts to their vectors: sync, async or both, with queries apart if wanted."""

from __future__ import annotations

import threading
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass
from inspect import isawaitable
from time import perf_counter
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt

from embedcache.entry import Text
from embedcache.errors import EmbeddingFailedError
from embedcache.vectorizers.base import BaseVectorizer
from embedcache.vectorizers.identity import identity
from embedcache.vectorizers.prompts import InputType

if TYPE_CHECKING:
    from embedcache.cache import EmbeddingsCache

TextsToVectors: TypeAlias = Callable[[list[Any]], npt.ArrayLike]
"""From n texts, `str` or `bytes` as the function likes, to what numpy can make a matrix ``(n, d)`` of."""
TextsToVectorsAsync: TypeAlias = Callable[[list[Any]], Awaitable[npt.ArrayLike]]


@dataclass(frozen=True, slots=True)
class Functions:
    """How many texts become their vectors.

    Attributes:
        plain: None where it can only be awaited.
        awaited: None where `plain` is run in a thread instead.
    """

    plain: TextsToVectors | None
    awaited: TextsToVectorsAsync | None = None


class FunctionVectorizer(BaseVectorizer):
    """Texts to vectors by functions of others.

    Args:
        model: The name under which vectors are kept.
        cache: Where they are kept.
        functions: What makes vectors, of documents and of texts that are neither; at most 256 at a time. The plain one
            is never called from two threads at once, the awaited one by as many tasks as there are.
        queries: What makes vectors of queries, kept under a name of their own; None where it makes no difference.

    Raises:
        InvalidModelNameError: The name cannot be used.
    """

    def __init__(
        self, model: str, cache: EmbeddingsCache | None, functions: Functions, *, queries: Functions | None = None
    ) -> None:
        super().__init__(model, cache)
        self._functions = functions
        self._queries = queries
        self._dims: int | None = None
        self._one_at_a_time = threading.Lock()

    def model_name_for(self, input_type: InputType | None) -> str:
        """The name under which entries are kept; queries may have one of their own."""
        if input_type == "query" and self._queries is not None:
            return identity(self.model, input_type=input_type)
        return self.model_name

    @property
    def dims(self) -> int:
        """Length of the vectors; found by embedding one word where none was computed yet."""
        if self._dims is None:
            self._dims = len(self.embed("dimension", skip_cache=True))
        return self._dims

    # ---------------------------------------------------------------------------------------- computing

    def _compute(self, texts: Sequence[Text]) -> npt.ArrayLike:
        return self._called(self._functions, texts)

    def _compute_as(self, texts: Sequence[Text], input_type: InputType) -> npt.ArrayLike:
        return self._called(self._for(input_type), texts)

    async def _atimed(self, texts: Sequence[Text], input_type: InputType | None) -> tuple[npt.ArrayLike, float]:
        awaited = self._for(input_type).awaited
        if awaited is None:
            return await super()._atimed(texts, input_type)
        start = perf_counter()
        return self._kept(await awaited(list(texts))), perf_counter() - start

    def _for(self, input_type: InputType | None) -> Functions:
        return self._queries if input_type == "query" and self._queries is not None else self._functions

    def _called(self, functions: Functions, texts: Sequence[Text]) -> npt.ArrayLike:
        if functions.plain is None:
            raise EmbeddingFailedError(f"the function of {self.model!r} is async: it can only be awaited")
        return self._kept(functions.plain(list(texts)))

    def _kept(self, given: object) -> npt.ArrayLike:
        """What was given, as an array of our own: the function may use its array again."""
        if isawaitable(given):
            if isinstance(given, Coroutine):
                given.close()  # or Python warns that nobody ever awaited it
            raise EmbeddingFailedError(
                f"the function of {self.model!r} gave something to await; declare it with async def"
            )
        try:
            matrix = np.array(given, np.float32)
        except (TypeError, ValueError, RuntimeError) as error:
            raise EmbeddingFailedError(
                f"the function of {self.model!r} gave something that is not a matrix of numbers: {error}"
            ) from error
        self._dims = matrix.shape[-1] if matrix.ndim else None
        return matrix
