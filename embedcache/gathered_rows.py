"""The vectors of a large batch in one matrix, filled as they come: the batch's values are never all in memory."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from embedcache.entry import FloatArray
from embedcache.matrices import Rows


class GatheredRows:
    """A matrix (n, d) and its mask, from rows that come chunk by chunk, in order.

    Args:
        count: How many rows there will be.
        dimension: The dimension d; None takes the first hit's.
    """

    def __init__(self, count: int, dimension: int | None) -> None:
        self._count, self._filled = count, 0
        self._matrix: FloatArray | None = None
        self._mask = np.zeros(count, np.bool_)
        self.dimension = dimension

    def add(self, rows: Rows) -> None:
        """Takes the next rows, decoded with the `dimension` that was known before."""
        start, self._filled = self._filled, self._filled + len(rows.mask)
        if self._filled == self._count and start == 0:  # all at once: as they are
            self._matrix, self._mask = rows.matrix, rows.mask
            return
        self._mask[start : self._filled] = rows.mask
        if rows.mask.any():
            self._room_for(rows, start)
        if self._matrix is not None:
            self._matrix[start : self._filled] = rows.matrix if rows.matrix.shape[1] else np.nan

    def _room_for(self, rows: Rows, start: int) -> None:
        if self._matrix is None:
            self.dimension = rows.matrix.shape[1]
            self._matrix = np.empty((self._count, self.dimension), rows.matrix.dtype)
            self._matrix[:start] = np.nan
        elif rows.matrix.dtype == np.float32 != self._matrix.dtype:  # float64 only where every hit is stored so
            filled, self._matrix = self._matrix[:start], np.empty(self._matrix.shape, np.float32)
            self._matrix[:start] = filled

    def result(self) -> tuple[FloatArray, npt.NDArray[np.bool_]]:
        """The matrix, as `embedcache.matrices.decode_matrix` makes it of all values, and the mask."""
        if self._matrix is None:
            self._matrix = np.full((self._count, self.dimension or 0), np.nan, np.float32)
        return self._matrix, self._mask
