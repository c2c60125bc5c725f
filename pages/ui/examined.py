"""The health of a map's vectors, or of all the cache's that one map could hold, ready to draw. Knows no streamlit."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from embedcache import apart, inspector, sampling
from embedcache.columns import Layout
from embedcache.connection import RedisConnection
from embedcache.entry import Text
from embedcache.filtering import EntryFilter
from embedcache.index import EntryIndex, Positions
from embedcache.sampling import Vectors
from pages.ui import vector_health
from pages.ui.jobs import Progress
from pages.ui.mapped import ALL_MODELS, Mapped, Request
from pages.ui.vector_health import Examination, Health


@dataclass(frozen=True, slots=True)
class Examined:
    """What was found in vectors.

    Attributes:
        health: Of all that were examined.
        entries: Key and text of the rows that are named, by their numbers.
        unreadable: Values beside them that could not be read, or whose vectors are of another dimension.
        whole: Whether these are all that the cache has of this kind.
        in_cache: How many it has, or about.
        at: When, in Unix seconds.
    """

    health: Health
    entries: Mapping[int, tuple[str, Text]]
    unreadable: int
    whole: bool
    in_cache: int
    at: float

    @property
    def nbytes(self) -> int:
        """Its memory in bytes, about."""
        return self.health.norms.nbytes + self.health.finite.nbytes


def of_sample(mapped: Mapped) -> Examined:
    """Of the vectors that were drawn for a map."""
    vectors, sample = mapped.everything, mapped.sample
    return Examined(
        health=mapped.health,
        entries={row: (vectors.keys[row], vectors.texts[row]) for row in vector_health.named_rows(mapped.health)},
        unreadable=sample.unreadable,
        whole=sample.whole,
        in_cache=round(sample.in_cache * mapped.health.entries / sample.entries),
        at=mapped.at,
    )


def of_all(
    request: Request, model: str, dimension: int, connection: RedisConnection, url: str, progress: Progress
) -> Examined:
    """Of all entries of a map's model and dimension, read a few MiB at a time. Runs in a thread of its own.

    Args:
        request: What the map shows.
        model: The model of the map; of no account where it shows all.
        dimension: Of its vectors.
        connection: The server.
        url: The connection's, password and all.
        progress: Told how many are read.

    Raises:
        EmbedcacheError: The server does not answer, or forbids what is needed.
        JobCancelledError: Somebody cancelled.
    """

    def indexing(done: int, total: int | None) -> None:
        progress.tell(done, total, "finding the entries")

    index = apart.index_cache(connection, url, request.cache_name, indexing)
    positions = _wanted(index, None if request.model == ALL_MODELS else model)
    examination, rows = Examination(), [np.empty(0, np.int64)]

    def take(at: Positions, vectors: Vectors) -> None:
        rows.append(at)
        examination.add(vectors)

    progress.tell(0, len(positions), "reading vectors")
    left_out = sampling.read_all(connection, index, positions, dimension, take, progress.tell)
    progress.tell(len(positions), note="comparing")
    health = examination.result()
    named = vector_health.named_rows(health)
    keys = index.keys(np.concatenate(rows)[named])
    summaries = inspector.summarise(connection, keys)
    return Examined(
        health=health,
        entries={
            row: (key, "(gone)" if seen is None else seen.text)
            for row, key, seen in zip(named, keys, summaries, strict=True)
        },
        unreadable=left_out + index.unreadable,
        whole=True,
        in_cache=health.entries,
        at=time.time(),
    )


def _wanted(index: EntryIndex, model: str | None) -> Positions:
    """Where the readable entries are, of this model or of all."""
    positions = index.candidates(EntryFilter(model_name=model))
    readable: Positions = positions[index.layouts[positions] != Layout.UNREADABLE]
    return readable
