"""How alike vectors are: cosine similarities, an order that shows groups, the closest pairs. Knows no streamlit."""

from __future__ import annotations

from typing import Final, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from embedcache.entry import FloatArray

Similarities: TypeAlias = npt.NDArray[np.float64]

MAX_TEXTS: Final = 200
"""Texts compared in one picture: more cells than that are smaller than a pixel on a phone."""


class Pair(NamedTuple):
    """Two vectors, by their positions, the first one's the lower, and their cosine similarity (-1 to 1)."""

    one: int
    other: int
    similarity: float


def cosine_similarities(vectors: FloatArray) -> Similarities:
    """The cosine similarity of each vector with each.

    Args:
        vectors: Shape ``(n, d)``.

    Returns:
        float64, shape ``(n, n)``, symmetric, from -1 to 1. A vector of zeros has no direction: it is 0 to all others.
    """
    rows = np.asarray(vectors, dtype=np.float64)
    # By the largest component first: the square of a large one has no place in a float.
    largest = np.abs(rows).max(axis=1, keepdims=True, initial=0.0)
    rows = rows / np.where(largest > 0, largest, 1.0)
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    rows = rows / np.where(lengths > 0, lengths, 1.0)
    matrix: Similarities = np.clip(rows @ rows.T, -1.0, 1.0)
    np.fill_diagonal(matrix, 1.0)
    return matrix


def order_by_likeness(matrix: Similarities) -> list[int]:
    """Positions in an order that puts what is alike side by side, so that groups show as blocks.

    Average-linkage clustering, and at each merger the two orders are joined at their most similar ends, after
    Gruvaeus and Wainer, "Two additions to hierarchical cluster analysis" (1972). Takes O(n³) time, 3 ms at 200; scipy
    orders the same, and would be one more large package for these few lines.

    Args:
        matrix: Similarities, shape ``(n, n)``.
    """
    count = len(matrix)
    orders = [[position] for position in range(count)]
    sizes = np.ones(count)
    between = matrix.copy()
    np.fill_diagonal(between, -np.inf)
    for _ in range(count - 1):
        one, other = sorted(divmod(int(between.argmax()), count))
        orders[one] = _joined(orders[one], orders[other], matrix)
        merged = (sizes[one] * between[one] + sizes[other] * between[other]) / (sizes[one] + sizes[other])
        merged[one] = -np.inf
        between[one], between[:, one] = merged, merged
        between[other], between[:, other] = -np.inf, -np.inf
        sizes[one] += sizes[other]
    return orders[0] if orders else []


def _joined(one: list[int], other: list[int], matrix: Similarities) -> list[int]:
    """Two orders as one, each turned around where that brings more similar ends together."""
    ways = [(left, right) for left in (one, one[::-1]) for right in (other, other[::-1])]
    left, right = max(ways, key=lambda way: float(matrix[way[0][-1], way[1][0]]))
    return left + right


def most_alike(matrix: Similarities, most: int = 10) -> list[Pair]:
    """The pairs most alike, the closest first, at most so many."""
    ones, others = np.triu_indices(len(matrix), k=1)
    similarities = matrix[ones, others]
    best = np.argsort(-similarities, kind="stable")[:most]
    return [Pair(int(ones[i]), int(others[i]), float(similarities[i])) for i in best]
