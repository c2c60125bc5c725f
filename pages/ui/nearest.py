"""The cached texts nearest in meaning to one that is not cached. Knows no streamlit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from embedcache import HFTextVectorizer, sampling
from embedcache.connection import RedisConnection
from embedcache.entry import Text
from pages.ui import projection
from pages.ui.jobs import Progress

MOST: Final = 5
MAX_COMPARED: Final = 10_000


@dataclass(frozen=True, slots=True)
class Neighbour:
    """One entry, and the cosine similarity (-1 to 1) of its vector."""

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


def find(
    connection: RedisConnection, cache_name: str, text: str, vectorizer: HFTextVectorizer, progress: Progress
) -> Nearest:
    """The entries under the vectorizer's model that are nearest to a text. Nothing is stored or counted.

    Args:
        connection: The server.
        cache_name: The cache.
        text: What to start from; its vector is computed, for which the model is loaded where it is not yet.
        vectorizer: One without a cache.
        progress: Told with how many entries of how many the text is compared.

    Raises:
        EmbedcacheError: The model cannot be loaded, or the server does not answer.
        JobCancelledError: Somebody cancelled.
    """
    progress.tell(0, note="" if vectorizer.loaded else "loading the model")
    vector = vectorizer.embed(text)
    progress.tell(0, note="")
    drawn = sampling.sample(connection, cache_name, MAX_COMPARED, vectorizer.model_name, progress.tell)
    for group in drawn.groups:
        if group.dimension == len(vector):
            sound = np.flatnonzero(np.isfinite(group.matrix).all(axis=1))
            rows, similarities = projection.nearest(group.matrix[sound], vector, MOST)
            neighbours = [
                Neighbour(group.keys[row], group.texts[row], float(similarity))
                for row, similarity in zip(sound[rows].tolist(), similarities, strict=True)
            ]
            return Nearest(tuple(neighbours), len(sound), drawn.whole)
    return Nearest((), 0, drawn.whole)
