"""Look up, compute what is missing, store: the way of every vectorizer, once for sync and async.

As in `embedcache.operations`, the work is a generator that does none of it: it yields steps (`Lookup`, `Compute`,
`Store`) and is sent their results. `BaseVectorizer._run` and `._arun` carry the steps out, the async one computing in a
thread so that the event loop goes on.
"""

from __future__ import annotations

import asyncio
import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from time import perf_counter
from typing import TYPE_CHECKING, Any, Final, TypeAlias, TypeVar, cast

import numpy as np
import numpy.typing as npt

from embedcache.entry import NEVER, TTL, CacheItem, Text
from embedcache.errors import CacheUnavailableError, EmbeddingFailedError
from embedcache.keyspace import check_ttl, encode_model_name, encode_texts
from embedcache.metadata import pack_metadata

if TYPE_CHECKING:
    from embedcache.cache import EmbeddingsCache

R = TypeVar("R")

Vector: TypeAlias = npt.NDArray[np.float32]
Matrix: TypeAlias = npt.NDArray[np.float32]

CHUNK_TEXTS: Final = 256
"""Texts computed and stored at a time: what a crash may lose, and how often progress is reported."""

_CHARACTERS_PER_TOKEN: Final = 4

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class EmbedReport:
    """The vectors of a batch, and how each came about.

    Attributes:
        vectors: float32, shape ``(n, d)``, row i that of text i.
        hits: bool, shape ``(n,)``: whether the text was in the cache when it was asked for.
        seconds: float64, shape ``(n,)``: the text's share of the look-up, and where it was missing, of the computation.
        lookup_seconds: What reading the cache took.
        compute_seconds: What the model took.
        store_seconds: What writing to the cache took.
        unstored: Distinct texts whose vectors were computed but not kept, because the cache's server did not answer.
        withheld: Distinct texts whose vectors were computed but not kept, because the cache is read-only.
    """

    vectors: Matrix
    hits: npt.NDArray[np.bool_]
    seconds: npt.NDArray[np.float64]
    lookup_seconds: float
    compute_seconds: float
    store_seconds: float
    unstored: int
    withheld: int = 0


@dataclass(frozen=True, slots=True)
class Lookup:
    """Read these texts from the cache; answered by a matrix and a mask, as `mget_embeddings` does."""

    texts: list[Text]


@dataclass(frozen=True, slots=True)
class Compute:
    """Embed these texts; answered by what `_compute` gave, and the seconds that it took."""

    texts: list[Text]


@dataclass(frozen=True, slots=True)
class Store:
    """Write these items to the cache."""

    items: list[CacheItem]


Plan: TypeAlias = Generator[Lookup | Compute | Store, Any, R]


class BaseVectorizer(ABC):
    """Texts to vectors through a cache. A subclass says how vectors are made: `_compute` and `dims`.

    Where the cache's server is not there, vectors are computed and returned all the same, with one warning per outage;
    where the cache is read-only, those that it lacks are computed, returned and not kept.

    Args:
        model: The model's name.
        cache: Where vectors are kept; None computes every time. It may be set later, as `.cache`.
    """

    def __init__(self, model: str, cache: EmbeddingsCache | None = None) -> None:
        encode_model_name(model)
        self.model = model
        self.cache = cache
        self._cache_is_away = False
        self._one_at_a_time: AbstractContextManager[Any] = nullcontext()

    @property
    def model_name(self) -> str:
        """The name under which entries are kept: all that changes a vector is in it."""
        return self.model

    @property
    @abstractmethod
    def dims(self) -> int:
        """Length of this vectorizer's vectors. May load the model."""

    @abstractmethod
    def _compute(self, texts: Sequence[Text]) -> npt.ArrayLike:
        """The vectors of these texts, shape (n, d); never called with none.

        Called from several threads at once, unless `_one_at_a_time` is a lock.
        """

    def _prepare(self) -> None:  # noqa: B027 - most have nothing to prepare
        """Called before `_compute`, for what is done once, such as loading a model: no text's cost."""

    def _count_tokens(self, texts: Sequence[Text]) -> int:
        """How many tokens these texts have, for reckoning what hits save.

        An estimate, by OpenAI's rule of thumb for English: 4 characters each
        (https://help.openai.com/en/articles/4936856). A subclass that knows says so.
        """
        return sum(-(-len(text) // _CHARACTERS_PER_TOKEN) for text in texts if isinstance(text, str))

    # ---------------------------------------------------------------------------------------- for users

    def embed(
        self,
        text: Text,
        *,
        preprocess: Callable[[Text], Text] | None = None,
        metadata: Mapping[str, Any] | None = None,
        ttl: TTL = None,
        skip_cache: bool = False,
    ) -> Vector:
        """The vector of one text: from the cache, or computed and stored there.

        Args:
            text: What to embed; not blank.
            preprocess: Applied to the text first; its result is what is embedded and under which it is kept.
            metadata: Stored beside a vector that is computed now.
            ttl: Seconds that such an entry lives; None is the cache's default, `NEVER` never expires.
            skip_cache: Compute, and neither read nor write the cache.

        Returns:
            float32, shape ``(d,)``, the caller's own to change.

        Raises:
            InvalidInputError: The text, metadata or TTL cannot be used.
            VectorizerError: The model cannot be loaded, or gave no vector.
        """
        vectors = self.embed_many([text], preprocess=preprocess, metadata=metadata, ttl=ttl, skip_cache=skip_cache)
        return cast("Vector", vectors[0])

    async def aembed(
        self,
        text: Text,
        *,
        preprocess: Callable[[Text], Text] | None = None,
        metadata: Mapping[str, Any] | None = None,
        ttl: TTL = None,
        skip_cache: bool = False,
    ) -> Vector:
        """Async twin of `embed`."""
        vectors = await self.aembed_many(
            [text], preprocess=preprocess, metadata=metadata, ttl=ttl, skip_cache=skip_cache
        )
        return cast("Vector", vectors[0])

    def embed_many(
        self,
        texts: Sequence[Text],
        *,
        preprocess: Callable[[Text], Text] | None = None,
        metadata: Mapping[str, Any] | None = None,
        ttl: TTL = None,
        skip_cache: bool = False,
        on_progress: Callable[[int, int], None] | None = None,
    ) -> Matrix:
        """The vectors of many texts. All are looked up at once, and each distinct miss is computed once.

        Misses are computed and stored in chunks of `CHUNK_TEXTS`, so that an interruption keeps what was done.

        Args:
            texts: What to embed; may repeat.
            preprocess: As in `embed`.
            metadata: As in `embed`, for each vector that is computed now.
            ttl: As in `embed`.
            skip_cache: As in `embed`.
            on_progress: Called with how many distinct texts are done, and of how many: after the look-up and after
                each chunk.

        Returns:
            float32, shape ``(n, d)``, row i the vector of text i.

        Raises:
            InvalidInputError: An argument cannot be used; nothing was computed or written.
            VectorizerError: The model cannot be loaded, or did not give one vector per text.
        """
        return self.embed_report(
            texts,
            preprocess=preprocess,
            metadata=metadata,
            ttl=ttl,
            skip_cache=skip_cache,
            on_progress=on_progress,
        ).vectors

    async def aembed_many(
        self,
        texts: Sequence[Text],
        *,
        preprocess: Callable[[Text], Text] | None = None,
        metadata: Mapping[str, Any] | None = None,
        ttl: TTL = None,
        skip_cache: bool = False,
        on_progress: Callable[[int, int], None] | None = None,
    ) -> Matrix:
        """Async twin of `embed_many`."""
        report = await self.aembed_report(
            texts,
            preprocess=preprocess,
            metadata=metadata,
            ttl=ttl,
            skip_cache=skip_cache,
            on_progress=on_progress,
        )
        return report.vectors

    def embed_report(
        self,
        texts: Sequence[Text],
        *,
        preprocess: Callable[[Text], Text] | None = None,
        metadata: Mapping[str, Any] | None = None,
        ttl: TTL = None,
        skip_cache: bool = False,
        on_progress: Callable[[int, int], None] | None = None,
    ) -> EmbedReport:
        """As `embed_many`, telling of each text whether it was a hit and how long it took."""
        return self._run(self._plan(texts, preprocess, metadata, ttl, skip_cache, on_progress))

    async def aembed_report(
        self,
        texts: Sequence[Text],
        *,
        preprocess: Callable[[Text], Text] | None = None,
        metadata: Mapping[str, Any] | None = None,
        ttl: TTL = None,
        skip_cache: bool = False,
        on_progress: Callable[[int, int], None] | None = None,
    ) -> EmbedReport:
        """Async twin of `embed_report`."""
        return await self._arun(self._plan(texts, preprocess, metadata, ttl, skip_cache, on_progress))

    # ---------------------------------------------------------------------------------------- the plan

    def _plan(
        self,
        texts: Sequence[Text],
        preprocess: Callable[[Text], Text] | None,
        metadata: Mapping[str, Any] | None,
        ttl: TTL,
        skip_cache: bool,  # the public methods take it by name
        on_progress: Callable[[int, int], None] | None,
    ) -> Plan[EmbedReport]:
        encode_texts(texts)
        if preprocess is not None:
            texts = [preprocess(text) for text in texts]
            encode_texts(texts)
        pack_metadata(metadata)
        if ttl is not None and ttl is not NEVER:
            check_ttl(ttl)
        distinct = list(dict.fromkeys(texts))
        work = _Work(distinct, use_cache=self.cache is not None and not skip_cache)
        yield from self._look_up(work)
        _report(on_progress, work)
        while chunk := work.take_missing():
            yield from self._compute_chunk(work, chunk, metadata, ttl)
            _report(on_progress, work)
        return work.report(texts)

    def _look_up(self, work: _Work) -> Plan[None]:
        if not work.use_cache or not work.texts:
            return
        start = perf_counter()
        try:
            matrix, hits = yield Lookup(work.texts)
            self._cache_answered()
            work.found(matrix, hits)
        except CacheUnavailableError as error:
            self._cache_failed(work, error)
        work.lookup_seconds = perf_counter() - start

    def _compute_chunk(self, work: _Work, chunk: list[int], metadata: Mapping[str, Any] | None, ttl: TTL) -> Plan[None]:
        texts = [work.texts[index] for index in chunk]
        start = perf_counter()
        given, seconds = yield Compute(texts)
        matrix = _check_computed(given, len(texts))
        computed = perf_counter()
        work.computed(chunk, matrix, computed - start)
        if work.counted and self.cache is not None:
            self.cache.record_computation(self.model_name, len(texts), seconds, self._count_tokens(texts))
        if not work.use_cache:
            work.unstored += len(chunk) if work.lost_cache else 0
            return
        if self.cache is not None and self.cache.read_only:
            work.withheld += len(chunk)
            return
        try:
            yield Store(
                [
                    {"text": text, "model_name": self.model_name, "embedding": row, "metadata": metadata, "ttl": ttl}
                    for text, row in zip(texts, matrix, strict=True)
                ]
            )
        except CacheUnavailableError as error:
            self._cache_failed(work, error)
            work.unstored += len(chunk)
        work.store_seconds += perf_counter() - computed

    def _cache_failed(self, work: _Work, error: CacheUnavailableError) -> None:
        work.use_cache, work.lost_cache = False, True
        if not self._cache_is_away:
            _log.warning("embedding without the cache: %s", error)
        self._cache_is_away = True

    def _cache_answered(self) -> None:
        if self._cache_is_away:
            _log.info("the cache is back")
        self._cache_is_away = False

    # ---------------------------------------------------------------------------------------- the two drivers

    def _run(self, plan: Plan[R]) -> R:
        try:
            step = next(plan)
            while True:
                try:
                    result = self._perform(step)
                except CacheUnavailableError as error:
                    step = plan.throw(error)
                else:
                    step = plan.send(result)
        except StopIteration as end:
            return cast("R", end.value)

    async def _arun(self, plan: Plan[R]) -> R:
        try:
            step = next(plan)
            while True:
                try:
                    result = await self._aperform(step)
                except CacheUnavailableError as error:
                    step = plan.throw(error)
                else:
                    step = plan.send(result)
        except StopIteration as end:
            return cast("R", end.value)

    def _perform(self, step: Lookup | Compute | Store) -> Any:
        match step:
            case Compute(texts):
                return self._timed(texts)
            case Lookup(texts):
                return _given(self.cache).mget_embeddings(texts, self.model_name)
            case Store(items):
                return _given(self.cache).mset(items)

    def _timed(self, texts: Sequence[Text]) -> tuple[npt.ArrayLike, float]:
        """What the model gives, and the seconds it took, without those in which it was loaded or busy with others."""
        self._prepare()
        with self._one_at_a_time:
            start = perf_counter()
            computed = self._compute(texts)
            return computed, perf_counter() - start

    async def _aperform(self, step: Lookup | Compute | Store) -> Any:
        match step:
            case Compute(texts):
                return await asyncio.to_thread(self._timed, texts)
            case Lookup(texts):
                return await _given(self.cache).amget_embeddings(texts, self.model_name)
            case Store(items):
                return await _given(self.cache).amset(items)


class _Work:
    """One batch on its way: the distinct texts, their vectors so far, and which are still missing."""

    def __init__(self, texts: list[Text], *, use_cache: bool) -> None:
        self.texts = texts
        self.use_cache = self.counted = use_cache
        self.lost_cache = False
        self.unstored = self.withheld = 0
        self.lookup_seconds = self.compute_seconds = self.store_seconds = 0.0
        self._hits = np.zeros(len(texts), dtype=np.bool_)
        self._seconds = np.zeros(len(texts))
        self._missing = list(range(len(texts)))
        self._vectors: Matrix = np.empty((len(texts), 0), np.float32)

    @property
    def done(self) -> int:
        return len(self.texts) - len(self._missing)

    def found(self, matrix: npt.NDArray[np.floating[Any]], hits: npt.NDArray[np.bool_]) -> None:
        self._vectors = matrix.astype(np.float32, copy=False)
        self._hits = hits
        self._missing = np.flatnonzero(~hits).tolist()

    def take_missing(self) -> list[int]:
        return self._missing[:CHUNK_TEXTS]

    def computed(self, chunk: list[int], matrix: Matrix, seconds: float) -> None:
        if matrix.shape[1] != self._vectors.shape[1]:
            self._start_over(matrix.shape[1], chunk)
        self._vectors[chunk] = matrix
        self._seconds[chunk] = seconds / len(chunk)
        self.compute_seconds += seconds
        del self._missing[: len(chunk)]  # `take_missing` takes from the front

    def _start_over(self, dimension: int, chunk: list[int]) -> None:
        """What was found has another dimension than the model gives: another model's vectors, and so all are misses."""
        if self.compute_seconds:
            raise EmbeddingFailedError(
                f"the model gave vectors of {self._vectors.shape[1]} components, and then of {dimension}"
            )
        self._vectors = np.empty((len(self.texts), dimension), np.float32)
        self._hits = np.zeros(len(self.texts), dtype=np.bool_)
        self._missing = chunk + sorted(set(range(len(self.texts))) - set(chunk))

    def report(self, texts: Sequence[Text]) -> EmbedReport:
        """The result for the texts as they were asked for, repeated ones repeated."""
        vectors, hits = self._vectors, self._hits
        seconds = self._seconds + self.lookup_seconds / max(len(self.texts), 1)
        if len(texts) != len(self.texts):
            position = {text: index for index, text in enumerate(self.texts)}
            rows = [position[text] for text in texts]
            vectors, hits, seconds = vectors[rows], hits[rows], seconds[rows]
        return EmbedReport(
            vectors=vectors,
            hits=hits,
            seconds=seconds,
            lookup_seconds=self.lookup_seconds,
            compute_seconds=self.compute_seconds,
            store_seconds=self.store_seconds,
            unstored=self.unstored,
            withheld=self.withheld,
        )


def _report(on_progress: Callable[[int, int], None] | None, work: _Work) -> None:
    if on_progress is not None:
        on_progress(work.done, len(work.texts))


def _given(cache: EmbeddingsCache | None) -> EmbeddingsCache:
    if cache is None:
        raise EmbeddingFailedError("the vectorizer's cache was taken away while it was embedding")
    return cache


def _check_computed(computed: npt.ArrayLike, count: int) -> Matrix:
    """What the model gave, as one finite float32 row per text."""
    try:
        matrix = np.ascontiguousarray(computed, dtype=np.float32)
    except (TypeError, ValueError, RuntimeError) as error:
        raise EmbeddingFailedError(f"the model gave something that is not a matrix of numbers: {error}") from error
    if matrix.ndim != 2 or len(matrix) != count or matrix.shape[1] == 0:  # noqa: PLR2004 - a matrix has two dimensions
        raise EmbeddingFailedError(f"the model gave shape {matrix.shape} for {count} texts; ({count}, d) was expected")
    if not np.isfinite(matrix).all():
        row = int(np.flatnonzero(~np.isfinite(matrix).all(axis=1))[0])
        raise EmbeddingFailedError(f"the model gave NaN or infinity for text {row} of its batch")
    return matrix
