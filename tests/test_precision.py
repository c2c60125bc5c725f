"""What the precision benchmark measures, on vectors for which the answer is known."""

from __future__ import annotations

import asyncio
from pathlib import Path

import numpy as np
import pytest

from benchmarks import precision

DOCSTRING = """Opens the file that is named here. It is closed
again by whoever asked for it! too short

    >>> Here is no sentence at all, but a piece of code.

and this one does not begin as sentences do.

This one would, but it does not end
"""


def test_sentences_are_whole_and_hold_no_code() -> None:
    assert list(precision.split(DOCSTRING)) == ["Opens the file that is named here."]
    assert list(precision.split("Does this read like a question to you?  It is closed again by all of them!")) == [
        "Does this read like a question to you?",
        "It is closed again by all of them!",
    ]


def test_sentences_differ_and_are_the_same_each_time() -> None:
    folder = Path(asyncio.__file__).parent  # the whole library takes ten seconds
    found = precision.sentences(100, folder)
    assert len(set(found)) == 100
    assert found == precision.sentences(100, folder)
    assert all(30 <= len(sentence) <= 300 for sentence in found)
    with pytest.raises(ValueError, match=r"have \d+ sentences, not 10,000"):
        precision.sentences(10_000, folder)


def test_cosine_distances_of_known_angles() -> None:
    one = np.array([[1, 0], [1, 0], [1, 0], [2, 0]], dtype=np.float32)
    other = np.array([[1, 0], [0, 3], [-1, 0], [1, 1]], dtype=np.float32)
    assert precision.cosine_distances(one, other) == pytest.approx([0, 1, 2, 1 - np.sqrt(0.5)])
    tiny = np.array([[1, 1e-7]])
    assert precision.cosine_distances(np.array([[1.0, 0.0]]), tiny) == pytest.approx([0.5e-14], rel=1e-6)


def test_recall_counts_the_neighbours_that_were_found() -> None:
    expected = np.array([[1, 2, 3, 4], [5, 6, 7, 8]])
    assert precision.recall(expected, np.array([[4, 3, 2, 1], [5, 6, 0, 9]])) == 0.75


def test_each_dtype_keeps_what_its_bytes_allow() -> None:
    vectors = np.random.default_rng(0).standard_normal((400, 64)).astype(np.float32)
    texts = [f"text {i}" for i in range(400)]
    exact, half, small = precision.measure(texts, vectors, 100)
    assert (exact.mean, exact.most, exact.recall, exact.vector_bytes) == (0, 0, 1, 256)
    assert 0 < half.mean <= half.most <= 2**-23  # 11 bits: a component moves by 2 ** -11 of itself at most
    assert half.most < small.mean <= small.most < 5e-4
    assert half.vector_bytes == 128
    assert small.vector_bytes == 68
    assert 0.9 < small.recall <= half.recall <= 1
    assert precision.table([exact, small]).splitlines()[2] == "| `float32` | 256 | 0 | 0 | 100.00% |"
