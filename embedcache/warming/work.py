"""One process's part of a warming: look up which texts are missing, compute them, store them.

A part is the texts whose hash falls to it. So a text that stands in the corpus twice is one process's alone, whatever
else is between, and processes need not agree on anything; each reads the whole corpus, which costs a thousandth of what
models do. What is done is what the cache holds: a warming that was ended in any way goes on when it is begun again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final, TypeAlias

import numpy as np
import xxhash

from embedcache.arguments import check_switch, check_whole
from embedcache.cache import EmbeddingsCache
from embedcache.commands import CHUNK_BYTES, CHUNK_ENTRIES
from embedcache.entry import NEVER, TTL, CacheItem, Metadata, Text
from embedcache.errors import (
    EmbedcacheError,
    EmbeddingFailedError,
    InvalidInputError,
    InvalidTextError,
    ReadOnlyError,
    WarmingStoppedError,
)
from embedcache.keyspace import check_ttl
from embedcache.vectorizers.base import BaseVectorizer
from embedcache.vectorizers.flights import flights
from embedcache.vectorizers.planning import Call, Wanted
from embedcache.vectorizers.prompts import InputType, check_input_type
from embedcache.vectorizers.report import Matrix
from embedcache.vectorizers.single_flight import SingleFlight
from embedcache.vectorizers.steps import Plan, Store, run
from embedcache.vectorizers.work import Work
from embedcache.warming.corpora import BadRow, Corpus, Row
from embedcache.warming.progress import Counts

TellCounts: TypeAlias = Callable[[Counts], object]

_REFUSALS: Final = (EmbeddingFailedError, InvalidTextError)
_REFUSED_IN_A_ROW: Final = 20
"""After so many texts, one after the other, it is the model that is at fault, and not the texts."""

_NEW_HASHES: Final = 65_536
"""Kept as Python's own numbers, which take four times the bytes, until they are sorted in."""


@dataclass(frozen=True, slots=True)
class Part:
    """Which part of a corpus one process warms.

    Attributes:
        index: Which, from 0 on.
        of: How many there are.
    """

    index: int = 0
    of: int = 1

    def has(self, row: Row | BadRow) -> bool:
        """Whether a row is of this part."""
        if self.of == 1:
            return True
        # Texts by what they are, so that equal ones are in one part; a row without a text is told by one of them.
        number = row.number if isinstance(row, BadRow) else xxhash.xxh3_64_intdigest(row.text.encode())
        return number % self.of == self.index


@dataclass(frozen=True, slots=True)
class Wants:
    """What is wanted of each text that is missing.

    Attributes:
        ttl: Seconds to live, `NEVER`, or None for the cache's default.
        input_type: What the texts are, for models that tell queries from documents.
        batch: How many texts to compute and store at a time; None is the vectorizer's own number.
        dry_run: Whether to count them and do nothing else.

    Raises:
        InvalidInputError: TTL or batch cannot be used.
    """

    ttl: TTL = None
    input_type: InputType | None = None
    batch: int | None = None
    dry_run: bool = False

    def __post_init__(self) -> None:
        if self.batch is not None:
            check_whole("batch", self.batch)
        if self.ttl is not None and self.ttl is not NEVER:
            check_ttl(self.ttl)
        check_input_type(self.input_type)
        check_switch("dry_run", self.dry_run)


def warm_part(corpus: Corpus, part: Part, vectorizer: BaseVectorizer, wants: Wants, tell: TellCounts) -> Counts:
    """Embeds those texts of one part that the vectorizer's cache lacks.

    Args:
        corpus: The texts.
        part: Which of them.
        vectorizer: Who computes, and in whose cache vectors are kept.
        wants: What is wanted of them.
        tell: Told after each look-up and each batch that was stored. What it raises ends the work.

    Raises:
        CorpusError: The corpus cannot be read.
        InvalidInputError: An argument cannot be used.
        ReadOnlyError: The cache was opened read-only.
        CacheUnavailableError: The server cannot be reached. Computing what cannot be stored would be in vain.
        ServerReplyError: It refuses, for lack of memory say.
        VectorizerError: The model cannot be used.
        WarmingStoppedError: The model failed, or refused many texts in a row.
    """
    with corpus.reading() as reading:
        rows = (row for row in reading if part.has(row))
        return warm_rows(rows, vectorizer, wants, tell, lambda: reading.fraction)


def warm_rows(
    rows: Iterator[Row | BadRow],
    vectorizer: BaseVectorizer,
    wants: Wants,
    tell: TellCounts,
    fraction: Callable[[], float],
) -> Counts:
    """As `warm_part`, of rows from anywhere.

    Args:
        rows: The rows.
        vectorizer: As there.
        wants: As there.
        tell: As there.
        fraction: How much of the rows was taken, from 0 to 1.
    """
    cache = _writable_cache(vectorizer, dry_run=wants.dry_run)
    return _Warming(vectorizer, cache, wants, tell, fraction).run(rows)


def _writable_cache(vectorizer: BaseVectorizer, *, dry_run: bool) -> EmbeddingsCache:
    cache = vectorizer.cache
    if cache is None:
        raise InvalidInputError("the vectorizer has no cache to be warmed; give it one")
    if cache.read_only and not dry_run:
        raise ReadOnlyError(f"cache {cache.name!r} was opened read-only; open it with read_only=False to warm it")
    return cache


class _Warming:
    """The work on one part, while it is under way."""

    def __init__(
        self,
        vectorizer: BaseVectorizer,
        cache: EmbeddingsCache,
        wants: Wants,
        tell: TellCounts,
        fraction: Callable[[], float],
    ) -> None:
        self._vectorizer = vectorizer
        self._cache = cache
        self._wants = wants
        self._tell = tell
        self._fraction_taken = fraction
        self._wanted = vectorizer._wanted(None, wants.ttl, wants.input_type)
        self._model_name = vectorizer.model_name_for(self._wanted.input_type)
        self._batch = vectorizer._chunk_size if wants.batch is None else wants.batch
        self._counts = Counts()
        self._waiting: dict[Text, Row] = {}  # missing, and not yet computed
        self._waiting_bytes = 0
        self._refused_in_a_row = 0
        self._lacking = _Distinct()

    def run(self, rows: Iterator[Row | BadRow]) -> Counts:
        while some := _next_rows(rows):
            self._look_up(some)
            self._say()
            while len(self._waiting) >= self._batch or self._waiting_bytes >= CHUNK_BYTES:
                self._compute()
        while self._waiting:
            self._compute()
        if self._wants.dry_run:
            self._counts.missing = self._lacking.count()
            self._counts.hits = self._counts.rows - self._counts.failed - self._counts.missing
        self._counts.fraction = 1.0
        self._tell(self._counts)
        return self._counts

    def _say(self) -> None:
        counts = self._counts
        # What waits was read and is not done: a small corpus is read at once, and computed for minutes.
        counts.fraction = self._fraction_taken() * counts.rows / max(counts.rows + len(self._waiting), 1)
        self._tell(counts)

    # ---------------------------------------------------------------------------------------- looking up

    def _look_up(self, rows: list[Row | BadRow]) -> None:
        asked: dict[Text, Row] = {}
        for row in rows:
            if isinstance(row, BadRow):
                self._counts.fail(row)
            elif row.text in self._waiting or row.text in asked:
                self._counts.hits += 1
                self._counts.rows += 1
            else:
                asked[row.text] = row
        found = self._cache.mexists(list(asked), self._model_name)
        missing = [row for row, is_there in zip(asked.values(), found, strict=True) if not is_there]
        self._counts.hits += len(asked) - len(missing)
        self._counts.rows += len(asked) - len(missing)
        if self._wants.dry_run:
            self._counts.rows += len(missing)
            self._lacking.add(missing)
            return
        self._counts.missing += len(missing)
        self._waiting_bytes += sum(len(row.text) for row in missing)
        self._waiting |= {row.text: row for row in missing}

    # ---------------------------------------------------------------------------------------- computing

    def _compute(self) -> None:
        """Computes and stores one batch of what waits."""
        rows = list(islice(self._waiting.values(), self._batch))
        self._embed(rows)
        for row in rows:
            del self._waiting[row.text]
        self._waiting_bytes = sum(len(row.text) for row in self._waiting.values())
        self._say()

    def _embed(self, rows: list[Row]) -> None:
        """Computes and stores these; where the model refuses some, by halves, so that the others are stored."""
        try:
            saved = self._store(rows)
        except _REFUSALS as error:
            if len(rows) > 1:
                half = len(rows) // 2
                self._embed(rows[:half])
                self._embed(rows[half:])
                return
            self._counts.fail(BadRow(rows[0].number, f"the model refuses it: {error}"))
            self._refused_in_a_row += 1
            if self._refused_in_a_row >= _REFUSED_IN_A_ROW:
                raise WarmingStoppedError(
                    f"the model refused {self._refused_in_a_row} texts in a row, the last with: {error}"
                ) from error
        else:
            self._refused_in_a_row = 0
            self._counts.rows += len(rows)
            self._counts.computed += len(rows) - saved
            self._counts.hits += saved

    def _store(self, rows: list[Row]) -> int:
        """Computes and stores these; returns for how many of them another process has done it meanwhile."""
        texts: list[Text] = [row.text for row in rows]
        work = Work(texts)
        metadata: dict[Text, Metadata] = {row.text: row.metadata for row in rows if row.metadata is not None}
        call = _StoringCall(self._vectorizer, self._cache, self._wanted, metadata)
        try:
            run(call.compute_all(work))
        except EmbedcacheError:
            raise
        except Exception as error:  # whatever a model raises
            raise WarmingStoppedError(f"the model failed with {type(error).__name__}: {error}") from error
        return work.flights_saved


class _StoringCall(Call):
    """A vectorizer's call for vectors that are worth nothing unless they are stored, each with metadata of its own."""

    def __init__(
        self, vectorizer: BaseVectorizer, cache: EmbeddingsCache, wanted: Wanted, metadata: dict[Text, Metadata]
    ) -> None:
        super().__init__(vectorizer, cache, wanted, flights.landings)
        self._storing_in = cache
        self._metadata = metadata

    def compute_all(self, work: Work) -> Plan[None]:
        """Computes and stores all of it at a time, unless others compute some of it."""
        mode, size = self.vectorizer.single_flight, len(work.texts)
        if mode is None:
            chunk = work.take(size)
            yield from self.store(work, chunk, (yield from self.compute(work, chunk)))
            return
        flying = SingleFlight(self, self._storing_in, work, shared=mode == "shared", chunk_size=size)
        yield from flying.compute_missing(None)

    def store(self, work: Work, chunk: Any, matrix: Matrix) -> Plan[None]:
        """As of every call, but that what the server answers is raised."""
        texts = [work.texts[index] for index in chunk]
        items: list[CacheItem] = [
            {
                "text": text,
                "model_name": self.model_name,
                "embedding": row,
                "metadata": self._metadata.get(text),
                "ttl": self.wants.ttl,
            }
            for text, row in zip(texts, matrix, strict=True)
        ]
        yield Store(self._storing_in, items)


def _next_rows(rows: Iterator[Row | BadRow]) -> list[Row | BadRow]:
    """The next rows to look up in one round trip: so many, or so many bytes of text."""
    some: list[Row | BadRow] = []
    size = 0
    for row in rows:
        some.append(row)
        size += 0 if isinstance(row, BadRow) else len(row.text)
        if len(some) >= CHUNK_ENTRIES or size >= CHUNK_BYTES:
            break
    return some


class _Distinct:
    """How many different texts there are, in 8 bytes each: by their hashes, hardly two of which are ever equal."""

    def __init__(self) -> None:
        self._hashes = np.empty(0, np.uint64)
        self._new: list[int] = []

    def add(self, rows: list[Row]) -> None:
        self._new += [xxhash.xxh3_64_intdigest(row.text.encode()) for row in rows]
        if len(self._new) >= max(_NEW_HASHES, len(self._hashes) // 8):
            self.count()

    def count(self) -> int:
        self._hashes = np.unique(np.concatenate([self._hashes, np.array(self._new, np.uint64)]))
        self._new.clear()
        return len(self._hashes)
