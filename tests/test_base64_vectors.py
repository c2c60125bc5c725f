"""Vectors in base64 give what Python's own decoder gives, one by one and many at once, or are refused."""

from __future__ import annotations

import base64
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from embedcache.transfer.base64_vectors import all_decoded, decoded, encoded

ITEMS = {"float32": "<f4", "float64": "<f8"}


def vectors_of(dtype: str, count: int, dimension: int) -> np.ndarray[Any, Any]:
    data = np.random.default_rng(dimension).integers(0, 256, count * dimension * 8, np.uint8).tobytes()
    return np.frombuffer(data, ITEMS[dtype], count * dimension).reshape(count, dimension)


@pytest.mark.parametrize("dtype", ITEMS)
@pytest.mark.parametrize("dimension", [*range(1, 30), 384, 1_024, 1_536, 40_000])
def test_any_bytes_of_any_length_come_back(dtype: str, dimension: int) -> None:
    matrix = vectors_of(dtype, 7, dimension)
    given = [encoded(vector) for vector in matrix]
    assert base64.b64decode(given[3]["base64"], validate=True) == matrix[3].tobytes()
    found = all_decoded(given, dtype, dimension)
    assert found is not None
    assert (found.dtype, found.tobytes()) == (ITEMS[dtype], matrix.tobytes())
    assert decoded(given[3], 1).tobytes() == matrix[3].tobytes()


@given(st.integers(0, 63), st.characters() | st.sampled_from("=\n-_ é"), st.integers(1, 12))
@example(63, "=", 12)
@example(0, "=", 12)
def test_a_letter_that_was_changed_is_read_as_python_reads_it_or_refused(at: int, letter: str, dimension: int) -> None:
    sound = encoded(vectors_of("float32", 1, dimension)[0])
    text = sound["base64"]
    at %= len(text)
    changed = sound | {"base64": text[:at] + letter + text[at + 1 :]}
    try:
        expected = base64.b64decode(changed["base64"], validate=True)
    except ValueError:
        expected = b""
    found = all_decoded([sound, changed, sound], "float32", dimension)
    if len(expected) != 4 * dimension:
        assert found is None
    else:
        assert found is not None
        assert found[1].tobytes() == expected == decoded(changed, 1).tobytes()


@pytest.mark.parametrize(
    "spoilt",
    [
        {},
        {"base64": None},
        {"base64": 5},
        {"base64": "AAAA"},
        {"base64": "AAAAAAAAAAA"},
        {"base64": "AAAAAAAAAAAAAAAA"},
        {"dtype": "float64"},
        {"dtype": ["float32"]},
        {"shape": [2]},
    ],
)
def test_what_is_something_else_is_left_to_be_read_alone(spoilt: dict[str, Any]) -> None:
    sound = encoded(np.array([1.0, 2.0], np.float32))
    assert all_decoded([sound, sound], "float32", 2) is not None
    given = [sound, sound | spoilt if spoilt else {"dtype": "float32"}]
    assert all_decoded(given, "float32", 2) is None
