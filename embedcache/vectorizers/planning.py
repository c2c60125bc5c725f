"""Look up, compute what is missing, store: the way of every vectorizer, once for sync and async."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from time import perf_counter
from typing import TYPE_CHECKING, Any, Final, TypeAlias, cast

import numpy as np

from embedcache.arguments import check_function
from embedcache.entry import NEVER, TTL, Text
from embedcache.errors import CacheUnavailableError, ServerReplyError
from embedcache.keyspace import check_ttl, encode_text, encode_texts
from embedcache.metadata import pack_metadata
from embedcache.vectorizers.flights import flights
from embedcache.vectorizers.progress import OnProgress, showing
from embedcache.vectorizers.prompts import InputType
from embedcache.vectorizers.report import EmbedReport, Matrix, Vector
from embedcache.vectorizers.single_flight import SingleFlight
from embedcache.vectorizers.steps import Compute, LookAgain, LookUp, LookUpOne, Plan, Store
from embedcache.vectorizers.work import Work, check_computed

if TYPE_CHECKING:
    from embedcache.cache import EmbeddingsCache
    from embedcache.vectorizers.base import BaseVectorizer

Preprocess = Callable[[Text], Text]

CacheError: TypeAlias = CacheUnavailableError | ServerReplyError
"""What a call survives: no answer, or one that refuses."""
_CACHE_ERRORS: Final = (CacheUnavailableError, ServerReplyError)


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a call wants, beside its texts.

    Attributes:
        metadata: Stored with each vector that is computed.
        ttl: Of these.
        input_type: What the texts are; None where the model makes no difference.
    """

    metadata: Mapping[str, Any] | None
    ttl: TTL
    input_type: InputType | None

    def check(self) -> None:
        """Checks it before anything is computed.

        Raises:
            InvalidInputError: It cannot be used.
        """
        if self.metadata is not None:
            pack_metadata(self.metadata)
        if self.ttl is not None and self.ttl is not NEVER:
            check_ttl(self.ttl)


_NOTHING_MORE: Final = Wanted(None, None, None)


def wanted(metadata: Mapping[str, Any] | None, ttl: TTL, input_type: InputType | None) -> Wanted:
    """A checked `Wanted`.

    Raises:
        InvalidInputError: It cannot be used.
    """
    if metadata is None and ttl is None and input_type is None:
        return _NOTHING_MORE  # which most calls want: one record less to make
    made = Wanted(metadata, ttl, input_type)
    made.check()
    return made


def embed_one(
    vectorizer: BaseVectorizer, text: Text, preprocess: Preprocess | None, wants: Wanted, *, skip_cache: bool
) -> Plan[Vector]:
    """The vector of one text.

    A hit goes straight through: the lists, the matrix and the record of a call that others need cost as much again.
    """
    if preprocess is not None:
        check_function("preprocess", preprocess, may_be_none=True)
        encode_text(text)
        text = preprocess(text)
    landings = flights.landings
    cache = None if skip_cache else vectorizer.cache
    failure: CacheError | None = None
    if cache is not None:
        name = vectorizer.model_name if wants.input_type is None else vectorizer.model_name_for(wants.input_type)
        last_failure = vectorizer._lookups.last_failure
        try:
            entry = yield LookUpOne(cache, name, text)
        except _CACHE_ERRORS as error:
            failure = error
        else:
            vectorizer._lookups.answered(last_failure)
            if entry is not None:
                return np.array(entry["embedding"], np.float32)
    encode_text(text)
    call = Call(vectorizer, cache, wants, landings)
    if failure is not None:
        call.lose_cache(failure)
    work = Work([text])
    yield from call.compute_missing(work, None)
    return cast("Vector", work.vectors[0])


def embed_many(
    vectorizer: BaseVectorizer,
    texts: Sequence[Text],
    preprocess: Preprocess | None,
    wants: Wanted,
    on_progress: OnProgress | None,
    *,
    skip_cache: bool,
    progress: bool,
) -> Plan[EmbedReport]:
    """The vectors of many texts, and how each came about."""
    check_function("preprocess", preprocess, may_be_none=True)
    check_function("on_progress", on_progress, may_be_none=True)
    encode_texts(texts)
    if preprocess is not None:
        texts = [preprocess(text) for text in texts]
        encode_texts(texts)
    work = Work(list(dict.fromkeys(texts)))
    with showing(len(work.texts), on_progress, bar=progress) as tell:
        call = Call(vectorizer, None if skip_cache else vectorizer.cache, wants, flights.landings)
        yield from call.look_up(work)
        if tell is not None:
            tell(work.done, len(work.texts))
        yield from call.compute_missing(work, tell)
    return work.report(texts, call.failure)


class Call:
    """One call of a vectorizer, on its way.

    Args:
        vectorizer: Whose.
        cache: Its cache, or None where that is neither read nor written.
        wants: What the caller wants.
        landings: How many landings there had been before the texts were looked up: what lands from then on, the look-up
            may not have seen.

    Attributes:
        failure: What the cache's server refused this call with, or that it did not answer; None while it does all.
    """

    def __init__(self, vectorizer: BaseVectorizer, cache: EmbeddingsCache | None, wants: Wanted, landings: int) -> None:
        self.vectorizer = vectorizer
        self.cache = cache
        self.wants = wants
        self.landings = landings
        self.model_name = vectorizer.model_name_for(wants.input_type)
        self.failure: str | None = None
        self._has_lost_cache = False

    @property
    def live_cache(self) -> EmbeddingsCache | None:
        """The cache, unless its server failed to answer this call before."""
        return None if self._has_lost_cache else self.cache

    # ---------------------------------------------------------------------------------------- looking up

    def look_up(self, work: Work) -> Plan[None]:
        """Fills in what the cache has."""
        if self.cache is None or not work.texts:
            return
        lookups = self.vectorizer._lookups
        last_failure, start = lookups.last_failure, perf_counter()
        try:
            matrix, hits = yield LookUp(self.cache, self.model_name, work.texts)
        except _CACHE_ERRORS as error:
            self.lose_cache(error)
        else:
            lookups.answered(last_failure)
            work.found(matrix, hits)
        work.lookup_seconds = perf_counter() - start

    def look_again(self, work: Work, indexes: Sequence[int]) -> Plan[tuple[list[int], Matrix]]:
        """Which of these texts have come to be stored since they were looked up, and their vectors."""
        cache = self.live_cache
        if cache is not None:
            texts = [work.texts[index] for index in indexes]
            try:
                matrix, hits = yield LookAgain(cache, self.model_name, texts, work.dimension)
            except _CACHE_ERRORS as error:
                self.lose_cache(error)
            else:
                rows = np.flatnonzero(hits).tolist()
                return [indexes[row] for row in rows], matrix[rows].astype(np.float32, copy=False)
        return [], np.empty((0, 0), np.float32)

    def lose_cache(self, error: CacheError) -> None:
        """Goes on without the cache."""
        self._has_lost_cache = True
        self.failure = str(error)
        self.vectorizer._lookups.failed(error)

    # ---------------------------------------------------------------------------------------- computing, storing

    def compute_missing(self, work: Work, tell: OnProgress | None) -> Plan[None]:
        """Computes and stores what is to be done, chunk by chunk, so that an interruption keeps what was done."""
        size, mode = self.vectorizer._chunk_size, self.vectorizer.single_flight
        if self.cache is not None and mode is not None:
            flying = SingleFlight(self, self.cache, work, shared=mode == "shared", chunk_size=size)
            yield from flying.compute_missing(tell)
            return
        while chunk := work.take(size):
            yield from self.store(work, chunk, (yield from self.compute(work, chunk)))
            if tell is not None:
                tell(work.done, len(work.texts))

    def compute(
        self, work: Work, chunk: Sequence[int], around: AbstractContextManager[object] | None = None
    ) -> Plan[Matrix]:
        """Has the model compute these texts.

        Args:
            work: What they are part of.
            chunk: Their indexes.
            around: Entered while it is computed.
        """
        texts = [work.texts[index] for index in chunk]
        start = perf_counter()
        given, seconds = yield Compute(self.vectorizer, texts, self.wants.input_type, around or nullcontext())
        matrix = check_computed(given, len(texts))
        spent = perf_counter() - start
        work.compute_seconds += spent
        work.fill(chunk, matrix, spent)
        if self.cache is not None:
            self.cache.record_computation(self.model_name, len(texts), seconds, self.vectorizer._count_tokens(texts))
        return matrix

    def store(self, work: Work, chunk: Sequence[int], matrix: Matrix) -> Plan[None]:
        """Stores what was computed, where that can be done."""
        cache = self.live_cache
        if cache is None:
            work.unstored += len(chunk) if self._has_lost_cache else 0
            return
        if cache.read_only:
            work.withheld += len(chunk)
            return
        name, metadata, ttl = self.model_name, self.wants.metadata, self.wants.ttl
        stores = self.vectorizer._stores
        last_failure, start = stores.last_failure, perf_counter()
        try:
            yield Store(
                cache,
                [
                    {"text": work.texts[index], "model_name": name, "embedding": row, "metadata": metadata, "ttl": ttl}
                    for index, row in zip(chunk, matrix, strict=True)
                ],
            )
        except CacheUnavailableError as error:
            self.lose_cache(error)
            work.unstored += len(chunk)
        except ServerReplyError as error:  # it may be full, and lookups go on
            stores.failed(error)
            self.failure = str(error)
            work.unstored += len(chunk)
        else:
            stores.answered(last_failure)
        work.store_seconds += perf_counter() - start
