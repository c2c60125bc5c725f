"""The cached texts nearest to one that is not cached, in wording and in meaning. Knows no streamlit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from rapidfuzz import fuzz, process, utils

from embedcache import HFTextVectorizer, sampling
from embedcache.connection import RedisConnection
from embedcache.entry import Text
from embedcache.sampling import Sample
from pages.ui import projection
from pages.ui.jobs import Progress

MOST: Final = 5
MAX_COMPARED: Final = 10_000
MAX_READ_ANEW: Final = 1_000
"""Texts of another model whose vectors are computed to judge their meaning: about 1.5 s."""
_LEAST_ALIKE: Final = 55.0  # of 100; two English sentences that have nothing in common get 35 to 50
_MAX_CHARACTERS: Final = 1_000  # of each text that is compared; the wording of longer ones is that of how they begin
_BATCH: Final = 100  # texts to compute between two looks at whether somebody cancelled


@dataclass(frozen=True, slots=True)
class Neighbour:
    """One entry, and how similar it is: in meaning by the cosine (-1 to 1), in wording by what is alike (0 to 1)."""

    key: str
    text: Text
    similarity: float


@dataclass(frozen=True, slots=True)
class Nearest:
    """What was found.

    Attributes:
        neighbours: The nearest first.
        compared: With how many entries the text was compared.
        whole: Whether those were all that the cache has under the model.
    """

    neighbours: tuple[Neighbour, ...]
    compared: int
    whole: bool


def in_wording(connection: RedisConnection, cache_name: str, text: str, model_name: str, progress: Progress) -> Nearest:
    """The entries of a model whose texts are worded most alike; none that is not half alike. Whatever the model.

    How alike two texts are is the normalized Indel similarity of their letters and digits, in lower case: twice the
    length of the longest common subsequence by the lengths of both (Levenshtein without substitutions, as RapidFuzz
    computes it).

    Args:
        connection: The server.
        cache_name: The cache.
        text: What to start from.
        model_name: Of whose entries.
        progress: Told how many entries of how many are read.

    Raises:
        EmbedcacheError: The server does not answer.
        JobCancelledError: Somebody cancelled.
    """
    drawn = sampling.sample(connection, cache_name, MAX_COMPARED, model_name, progress.tell)
    places, texts = _texts_of(drawn)
    found = process.extract(
        text[:_MAX_CHARACTERS],
        texts,
        scorer=fuzz.ratio,
        processor=utils.default_process,
        limit=MOST,
        score_cutoff=_LEAST_ALIKE,
    )
    neighbours = tuple(_neighbour(drawn, places[row], score / 100) for _, score, row in found)
    return Nearest(neighbours, len(texts), drawn.whole)


def in_meaning(
    connection: RedisConnection,
    cache_name: str,
    text: str,
    model_name: str,
    vectorizer: HFTextVectorizer,
    progress: Progress,
) -> Nearest:
    """The entries of a model that are nearest in meaning to a text. Nothing is stored or counted.

    Under the vectorizer's own model, the vectors that are cached are compared. Those of another model share no space
    with any that can be computed here: so the vectorizer reads up to `MAX_READ_ANEW` of their texts itself.

    Args:
        connection: The server.
        cache_name: The cache.
        text: What to start from; its vector is computed, for which the model is loaded where it is not yet.
        model_name: Of whose entries.
        vectorizer: One without a cache.
        progress: Told with how many entries of how many the text is compared.

    Raises:
        EmbedcacheError: The model cannot be loaded, or the server does not answer.
        JobCancelledError: Somebody cancelled.
    """
    progress.tell(0, note="" if vectorizer.loaded else "loading the model")
    vector = np.asarray(vectorizer.embed(text), dtype=np.float32)
    progress.tell(0, note="")
    own = model_name == vectorizer.model_name
    count = MAX_COMPARED if own else MAX_READ_ANEW
    drawn = sampling.sample(connection, cache_name, count, model_name, progress.tell)
    places, matrix = _vectors_of(drawn, len(vector)) if own else _read_anew(drawn, vectorizer, progress)
    if not places:
        return Nearest((), 0, drawn.whole)
    rows, similarities = projection.nearest(matrix, vector, MOST)
    neighbours = tuple(
        _neighbour(drawn, places[row], float(similarity))
        for row, similarity in zip(rows.tolist(), similarities, strict=True)
    )
    return Nearest(neighbours, len(places), drawn.whole)


_Place = tuple[int, int]
"""Where an entry is in a sample: the number of its group, and its row there."""


def _neighbour(drawn: Sample, place: _Place, similarity: float) -> Neighbour:
    group, row = drawn.groups[place[0]], place[1]
    return Neighbour(group.keys[row], group.texts[row], similarity)


def _texts_of(drawn: Sample) -> tuple[list[_Place], list[str]]:
    """Those entries whose texts are words and neither bytes nor blank, and how these begin."""
    places: list[_Place] = []
    texts: list[str] = []
    for number, group in enumerate(drawn.groups):
        for row, text in enumerate(group.texts):
            if isinstance(text, str) and text.strip():
                places.append((number, row))
                texts.append(text[:_MAX_CHARACTERS])
    return places, texts


def _vectors_of(drawn: Sample, dimension: int) -> tuple[list[_Place], npt.NDArray[np.float32]]:
    """The cached vectors of this dimension that are finite, shape (n, d)."""
    for number, group in enumerate(drawn.groups):
        if group.dimension == dimension:
            sound = np.flatnonzero(np.isfinite(group.matrix).all(axis=1))
            return [(number, row) for row in sound.tolist()], group.matrix[sound]
    return [], np.empty((0, dimension), dtype=np.float32)


def _read_anew(
    drawn: Sample, vectorizer: HFTextVectorizer, progress: Progress
) -> tuple[list[_Place], npt.NDArray[np.float32]]:
    """The vectors that the vectorizer's model gives the texts, shape (n, d)."""
    places, texts = _texts_of(drawn)
    parts: list[npt.NDArray[np.float32]] = []
    for start in range(0, len(texts), _BATCH):
        progress.tell(start, len(texts), "reading their texts")
        parts.append(np.asarray(vectorizer.embed_many(texts[start : start + _BATCH]), dtype=np.float32))
    return places, np.concatenate(parts) if parts else np.empty((0, 0), dtype=np.float32)
