"""Rows that come chunk by chunk make the same matrix as all of them at once."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from embedcache import codec, matrices
from embedcache.gathered_rows import GatheredRows

TAG = codec.tag_prefix(1, 1, False) + b"t:m"


def value(dtype: str, size: int) -> bytes:
    stored = codec.stored_dtype(dtype)
    vector = np.linspace(0.1, 0.7, size).reshape(1, -1)
    (packed,) = codec.encode_vectors(vector, stored)
    assert packed is not None
    return codec.encode(TAG, packed, stored, None, codec.pack_rest(1.0, b"\xc0"))


VALUES = {
    "nothing": None,
    "damaged": value("float32", 2)[:-1],
    "float32, 2": value("float32", 2),
    "float64, 2": value("float64", 2),
    "int8, 2": value("int8", 2),
    "float32, 3": value("float32", 3),
    "float64, 3": value("float64", 3),
}


@given(
    kinds=st.lists(st.sampled_from(sorted(VALUES)), max_size=9),
    size=st.integers(1, 4),
    dimension=st.sampled_from([None, 2, 3, 5]),
)
def test_chunks_make_what_all_at_once_make(kinds: list[str], size: int, dimension: Any) -> None:
    values = [VALUES[kind] for kind in kinds]
    gathered = GatheredRows(len(values), dimension)
    for start in range(0, len(values), size):
        part = values[start : start + size]
        gathered.add(matrices.decode_matrix(part, [TAG] * len(part), gathered.dimension))
    expected = matrices.decode_matrix(values, [TAG] * len(values), dimension)
    matrix, mask = gathered.result()
    assert matrix.dtype == expected.matrix.dtype
    assert matrix.shape == expected.matrix.shape
    assert mask.tolist() == expected.mask.tolist()
    assert np.array_equal(matrix, expected.matrix, equal_nan=True)
