"""`Work`: one batch on its way, from the texts that were asked for to the vectors of all of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from embedcache.entry import Text
from embedcache.errors import EmbeddingFailedError
from embedcache.vectorizers.report import EmbedReport, Matrix


class Work:
    """The distinct texts of a batch, their vectors so far, and which are still to be done.

    Args:
        texts: Distinct.
    """

    def __init__(self, texts: list[Text]) -> None:
        self.texts = texts
        self.done = 0
        self.unstored = self.withheld = self.flights_saved = 0
        self.lookup_seconds = self.compute_seconds = self.store_seconds = self.wait_seconds = 0.0
        self.vectors: Matrix = np.empty((len(texts), 0), np.float32)
        self._hits = np.zeros(len(texts), dtype=np.bool_)
        self._seconds = np.zeros(len(texts))
        self._todo = list(range(len(texts)))
        self._model_spoke = False

    @property
    def dimension(self) -> int | None:
        """Length of the vectors, None where none is known yet."""
        return self.vectors.shape[1] or None

    @property
    def is_to_be_done(self) -> bool:
        """Whether there are texts that nobody has taken."""
        return bool(self._todo)

    def found(self, matrix: npt.NDArray[np.floating[Any]], hits: npt.NDArray[np.bool_]) -> None:
        """What the cache has: all the rest is to be done."""
        self.vectors = matrix.astype(np.float32, copy=False)
        self._hits = hits
        self._todo = np.flatnonzero(~hits).tolist()
        self.done = len(self.texts) - len(self._todo)

    def take(self, most: int) -> list[int]:
        """Up to so many of the texts that are to be done; whoever takes one does it, or gives it back."""
        taken = self._todo[:most]
        del self._todo[:most]
        return taken

    def give_back(self, indexes: Sequence[int]) -> None:
        """These are to be done after all."""
        self._todo[:0] = indexes

    def fill(self, indexes: Sequence[int], matrix: Matrix, seconds: float) -> None:
        """The vectors of these texts, as the model gives them, to us or to another caller.

        Raises:
            EmbeddingFailedError: They are of another dimension than those that the model gave before.
        """
        if matrix.shape[1] != self.vectors.shape[1]:
            self._start_over(matrix.shape[1])
        self._model_spoke = True
        self.vectors[indexes] = matrix
        self._seconds[indexes] = seconds / len(indexes)
        self.done += len(indexes)

    def _start_over(self, dimension: int) -> None:
        """What was found has another dimension than the model gives: another model's vectors, and so all are misses."""
        if self._model_spoke:
            raise EmbeddingFailedError(
                f"the model gave vectors of {self.vectors.shape[1]} components, and then of {dimension}"
            )
        self._todo += np.flatnonzero(self._hits).tolist()
        self.done = 0
        self.vectors = np.empty((len(self.texts), dimension), np.float32)
        self._hits = np.zeros(len(self.texts), dtype=np.bool_)

    def report(self, texts: Sequence[Text], cache_failure: str | None = None) -> EmbedReport:
        """The result for the texts as they were asked for, repeated ones repeated."""
        vectors, hits = self.vectors, self._hits
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
            flights_saved=self.flights_saved,
            wait_seconds=self.wait_seconds,
            cache_failure=cache_failure,
        )


def check_computed(computed: npt.ArrayLike, count: int) -> Matrix:
    """What the model gave, as one finite float32 row per text.

    Raises:
        EmbeddingFailedError: It is not that.
    """
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
