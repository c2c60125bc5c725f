"""Cosine similarities, the order in which groups show, and the pairs most alike."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pages.ui import similarity


def test_cosines() -> None:
    matrix = similarity.cosine_similarities(np.array([[1, 0], [0, 2], [3, 3], [-5, 0]], np.float32))
    half = np.sqrt(0.5)
    assert matrix == pytest.approx(
        np.array([[1, 0, half, -1], [0, 1, half, 0], [half, half, 1, -half], [-1, 0, -half, 1]])
    )


def test_a_vector_of_zeros_is_like_nothing() -> None:
    matrix = similarity.cosine_similarities(np.array([[0, 0], [1, 1]], np.float32))
    assert matrix.tolist() == [[1, 0], [0, 1]]


def test_lengths_do_not_matter_however_large_or_small() -> None:
    vectors = np.array([[1e300, 1e300], [1e-300, 1e-300], [1, 1]])
    assert similarity.cosine_similarities(vectors) == pytest.approx(np.ones((3, 3)))


def test_groups_stand_together() -> None:
    random = np.random.default_rng(7)
    centres = random.normal(size=(12, 64))
    groups = random.integers(0, 12, size=200)
    vectors = centres[groups] + 0.5 * random.normal(size=(200, 64))
    order = similarity.order_by_likeness(similarity.cosine_similarities(vectors))
    assert sorted(order) == list(range(200))
    assert np.count_nonzero(np.diff(groups[order])) == len(set(groups)) - 1


def test_a_chain_is_laid_out_along_itself() -> None:
    angles = np.array([0.6, 0.0, 0.9, 0.3, 1.2])
    vectors = np.column_stack([np.cos(angles), np.sin(angles)])
    order = similarity.order_by_likeness(similarity.cosine_similarities(vectors))
    assert order in ([1, 3, 0, 2, 4], [4, 2, 0, 3, 1])


@given(st.integers(0, 12), st.integers(0, 2**32 - 1))
def test_an_order_holds_each_position_once(count: int, seed: int) -> None:
    vectors = np.random.default_rng(seed).integers(-1, 2, size=(count, 3)).astype(np.float32)
    assert sorted(similarity.order_by_likeness(similarity.cosine_similarities(vectors))) == list(range(count))


def test_pairs_most_alike() -> None:
    matrix = np.array([[1, 0.2, 0.9], [0.2, 1, -0.4], [0.9, -0.4, 1]])
    pairs = similarity.most_alike(matrix)
    assert [(pair.one, pair.other, pair.similarity) for pair in pairs] == [(0, 2, 0.9), (0, 1, 0.2), (1, 2, -0.4)]
    assert similarity.most_alike(matrix, most=1) == [(0, 2, 0.9)]
    assert similarity.most_alike(np.ones((1, 1))) == []
