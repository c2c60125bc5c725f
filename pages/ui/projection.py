"""Vectors made visible: their principal components, clusters, and which lie nearest to one. Knows no streamlit.

All of it is the same each time for the same vectors. Vectors are float32, shape (n, d), and finite.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from embedcache.entry import FloatArray

Matrix = npt.NDArray[np.float32]

COMPONENTS: Final = 3
FEWEST_CLUSTERS: Final = 2
MOST_CLUSTERS: Final = 12
_SEED: Final = 0
_SPARE_DIRECTIONS: Final = 10
_POWER_ITERATIONS: Final = 8
_MUCH: Final = 0.7
_LITTLE: Final = 0.3


@dataclass(frozen=True, slots=True)
class Projection:
    """Vectors on their first three principal components.

    Attributes:
        coordinates: Where each vector lies, float64, shape (n, 3). Components that there are not are 0.
        variance: The share of the vectors' variance that each component shows, from 0 to 1, shape (3,).
        mean: The vectors' mean, which lies at 0, float64, shape (d,).
        axes: The components, of length 1 each, float64, shape (3, d).
    """

    coordinates: npt.NDArray[np.float64]
    variance: npt.NDArray[np.float64]
    mean: npt.NDArray[np.float64]
    axes: npt.NDArray[np.float64]

    def place(self, vector: FloatArray) -> npt.NDArray[np.float64]:
        """Where another vector (d,) lies on these components, shape (3,)."""
        placed: npt.NDArray[np.float64] = self.axes @ (np.asarray(vector, dtype=np.float64) - self.mean)
        return placed


def project(matrix: FloatArray) -> Projection:
    """The principal components of vectors (n, d), n ≥ 1."""
    n, d = matrix.shape
    mean = matrix.mean(axis=0, dtype=np.float64)
    centred = (matrix - mean).astype(np.float32)
    # In units of the largest number, so that no square overflows; shares of the variance stay the same.
    unit = float(np.abs(centred).max())
    coordinates, variance, axes = np.zeros((n, COMPONENTS)), np.zeros(COMPONENTS), np.zeros((COMPONENTS, d))
    if unit > 0:
        centred /= np.float32(unit)
        found = min(COMPONENTS, n, d)
        with _one_thread():
            directions = _strongest(centred, found)
            coordinates[:, :found] = centred @ directions.T.astype(np.float32)
        axes[:found] = directions
        variance[:found] = np.square(coordinates[:, :found]).sum(axis=0) / np.square(centred, dtype=np.float64).sum()
        coordinates *= unit
    return Projection(coordinates, variance, mean, axes)


def _strongest(centred: Matrix, count: int) -> npt.NDArray[np.float64]:
    """The directions in which the rows (n, d) vary most, strongest first, of length 1, shape (count, d).

    By the randomized range finder with power iterations of Halko, Martinsson and Tropp (SIAM Review, 2011), which for
    so few directions takes a tenth of a second where all of them would take seconds. scikit-learn has it, too, but
    takes a second and 75 MB to import.
    """
    n, d = centred.shape
    guess = np.random.default_rng(_SEED).standard_normal((d, min(count + _SPARE_DIRECTIONS, n, d)), dtype=np.float32)
    for _ in range(_POWER_ITERATIONS):
        basis, _ = np.linalg.qr(centred @ guess)
        guess, _ = np.linalg.qr(centred.T @ basis)
    within = (centred @ guess).astype(np.float64)
    _, _, turned = np.linalg.svd(within, full_matrices=False)
    found: npt.NDArray[np.float64] = turned[:count] @ guess.T
    strongest = np.abs(found).argmax(axis=1)
    signs = np.sign(found[np.arange(len(found)), strongest])  # either way is right; always the same one is shown
    found *= signs[:, np.newaxis]
    return found


def _one_thread() -> AbstractContextManager[object]:
    """Has numpy and scikit-learn work in this thread alone.

    Its threads wait for each other at each small step. Where the processors are busy with other work, 8 clusters of
    2,000 vectors took 8 s that way, and 0.5 s so; where they are idle, both take 0.2 s.
    """
    from threadpoolctl import threadpool_limits  # comes with scikit-learn

    limits: AbstractContextManager[object] = threadpool_limits(1)
    return limits


def trust(shown: float) -> str:
    """How far a map can be trusted that shows this share (0 to 1) of the variance, in a sentence."""
    if shown >= _MUCH:
        return "That is most of it: what is close on the map is close, as a rule."
    if shown >= _LITTLE:
        return "That is a part of it: groups that are apart are apart, but not all that is close on the map is alike."
    return (
        "That is little, as is usual for embeddings: points can lie on top of each other and still have nothing in "
        "common. For what is alike, go by the nearest neighbours, which use the whole vectors."
    )


def unit_rows(matrix: FloatArray) -> Matrix:
    """The vectors at length 1; zero vectors stay zero."""
    lengths = np.sqrt(np.einsum("ij,ij->i", matrix, matrix, dtype=np.float64))
    lengths[lengths == 0] = 1
    rows: Matrix = (matrix / lengths[:, np.newaxis]).astype(np.float32)
    return rows


def clusters(matrix: FloatArray, count: int) -> npt.NDArray[np.int64]:
    """The cluster of each vector (n, d) by k-means of their directions, from 0 on, the largest first, shape (n,).

    There are fewer than `count` where there are fewer distinct vectors.
    """
    # Here and not above: scikit-learn takes a second to import, and most visits are to other pages.
    from sklearn.cluster import MiniBatchKMeans

    means = MiniBatchKMeans(min(count, len(matrix)), random_state=_SEED, n_init=3, batch_size=2_048)
    with _one_thread():
        labels = means.fit_predict(unit_rows(matrix))
    names, sizes = np.unique(labels, return_counts=True)
    ranks = np.zeros(int(names.max()) + 1, dtype=np.int64)
    ranks[names[np.argsort(-sizes, kind="stable")]] = np.arange(len(names))
    ranked: npt.NDArray[np.int64] = ranks[labels]
    return ranked


def nearest(
    matrix: FloatArray, vector: FloatArray, count: int, but: npt.NDArray[np.int64] | None = None
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    """The rows of the matrix (n, d) nearest to a vector (d,) by cosine, and how similar they are.

    Args:
        matrix: The vectors to search.
        vector: The one to start from.
        count: How many at most.
        but: Rows to leave out.

    Returns:
        Rows, nearest first, and their cosine similarities, from -1 to 1. That of a zero vector to any is 0.
    """
    (unit,) = unit_rows(np.asarray(vector, dtype=np.float32)[np.newaxis, :])
    similarities = np.clip(unit_rows(matrix) @ unit, -1, 1)
    order = np.argsort(-similarities, kind="stable")
    if but is not None and len(but):
        order = order[~np.isin(order, but)]
    chosen = order[:count]
    return chosen, similarities[chosen]
