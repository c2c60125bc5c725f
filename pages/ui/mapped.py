"""A sample of vectors and what is worked out from it for the page Vector map, in threads. Knows no streamlit."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import numpy.typing as npt

from embedcache import EmbeddingsCache, HFTextVectorizer, sampling
from embedcache.connection import RedisConnection
from embedcache.entry import FloatArray
from embedcache.sampling import Sample, Vectors
from pages.ui import maps, projection, vector_health
from pages.ui.jobs import Progress
from pages.ui.maps import Marks
from pages.ui.projection import Projection
from pages.ui.vector_health import Health

MOST_FREQUENT: Final = ""  # no model's name is blank
ALL_MODELS: Final = " "
NEAR_A_TEXT: Final = 10
_BYTES_BESIDE: Final = 1_500


@dataclass(frozen=True, slots=True)
class Request:
    """What this user asked to see.

    Attributes:
        server: Names the server.
        cache_name: The cache.
        model: A model's name, `MOST_FREQUENT` or `ALL_MODELS`.
        size: How many entries at most.
    """

    server: str
    cache_name: str
    model: str
    size: int


@dataclass(frozen=True, slots=True)
class Mapped:
    """A sample, and what was made of it.

    Attributes:
        sample: All that was drawn.
        everything: Of that, the entries of the model that was asked for, or else of the most frequent dimension.
        vectors: Of these, the ones that are finite: the points of the map. A row is a position among them.
        projection: Where they lie.
        health: How `everything` is.
        hover: What is read at each point.
        at: When it was drawn, in Unix seconds.
        clusters: By how many were asked for, made as needed.
    """

    sample: Sample
    everything: Vectors
    vectors: Vectors
    projection: Projection
    health: Health
    hover: list[str]
    at: float
    clusters: dict[int, npt.NDArray[np.int64]] = field(default_factory=dict)

    @property
    def nbytes(self) -> int:
        """Its memory in bytes, about: matrices as they are, and of what else there is to each entry a guess."""
        parts = {id(each): each for each in (*self.sample.groups, self.everything, self.vectors)}.values()
        return sum(each.matrix.nbytes + _BYTES_BESIDE * len(each) for each in parts)


@dataclass(frozen=True, slots=True)
class Found:
    """The vector of a text that was asked for.

    Attributes:
        text: As it was typed.
        model: The model that made it, or None where nobody here can make it.
        key: The key under which it is, or would be.
        vector: Shape (d,), or None.
        cached: Whether it was read from the cache.
    """

    text: str
    model: str | None = None
    key: str = ""
    vector: FloatArray | None = None
    cached: bool = False


def draw_map(request: Request, connection: RedisConnection, progress: Progress) -> Mapped | Sample:
    """Draws a sample and maps it; the sample alone where none of it can be mapped. Runs in a thread of its own.

    Raises:
        EmbedcacheError: The server does not answer, or forbids SCAN.
    """
    model = None if request.model in {MOST_FREQUENT, ALL_MODELS} else request.model
    drawn = sampling.sample(connection, request.cache_name, request.size, model, progress.tell)
    if not drawn.groups:
        return drawn
    progress.tell(drawn.entries, drawn.entries, "finding the components")
    everything = _of_one_space(drawn, request)
    health = vector_health.examine(everything)
    progress.check()
    vectors = everything if health.finite.all() else everything.part(np.flatnonzero(health.finite))
    if not len(vectors):
        return drawn
    now = time.time()
    placed = projection.project(vectors.matrix)
    return Mapped(drawn, everything, vectors, placed, health, maps.hover_texts(vectors, now), now)


def _of_one_space(drawn: Sample, request: Request) -> Vectors:
    """The entries that one map can hold: of one dimension, and of one model unless all were asked for."""
    if request.model != ALL_MODELS:
        return drawn.groups[0]  # most entries first
    sizes: dict[int, int] = {}
    for group in drawn.groups:
        sizes[group.dimension] = sizes.get(group.dimension, 0) + len(group)
    dimension = max(sizes, key=lambda each: sizes[each])
    return sampling.join([group for group in drawn.groups if group.dimension == dimension])


def find_vector(
    text: str,
    models: Sequence[str],
    dimension: int,
    cache: EmbeddingsCache,
    bundled: HFTextVectorizer,
    progress: Progress,
) -> Found:
    """The text's vector of one of these models and this dimension. Runs in a thread of its own.

    It is read from the cache, else computed by the bundled model where that is one of them, and not stored.

    Raises:
        EmbedcacheError: The server does not answer, or the model cannot be loaded.
        JobCancelledError: Somebody cancelled.
    """
    progress.tell(0, 1)
    for model in models:
        progress.check()
        entry = cache.get(text, model)
        if entry is not None and len(entry["embedding"]) == dimension:
            return Found(text, model, entry["key"], entry["embedding"], cached=True)
    name = bundled.model_name
    if name in models:
        progress.tell(0, note="" if bundled.loaded else "loading the model, which takes about 5 s")
        vector = np.asarray(bundled.embed(text), dtype=np.float32)
        progress.check()
        if len(vector) == dimension:
            return Found(text, name, cache.key_for(text, name), vector)
    return Found(text)


def neighbours(
    mapped: Mapped, vector: FloatArray, model: str, key: str, count: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    """The rows nearest to a vector, of its own model, without the entry under `key`; and their similarities."""
    vectors = mapped.vectors
    left_out = [row for row, name in enumerate(vectors.model_names) if name != model or vectors.keys[row] == key]
    return projection.nearest(vectors.matrix, vector, count, np.array(left_out, dtype=np.int64))


def marks_of(mapped: Mapped, found: Found | None) -> Marks | None:
    """What a text that was found adds to the map, if anything."""
    if found is None or found.vector is None or found.model is None:
        return None
    rows, _ = neighbours(mapped, found.vector, found.model, found.key, NEAR_A_TEXT)
    return Marks(mapped.projection.place(found.vector), rows)
