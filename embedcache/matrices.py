"""Values to one matrix of vectors, with no object per entry: the fast way to many vectors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from xxhash import xxh3_64_intdigest

from embedcache.codec import (
    CHECKED_FROM,
    CHECKSUM_BITS,
    DTYPE_BITS,
    FLOAT32,
    HEADER_BYTES,
    MAGIC,
    START,
    TAG_OFFSET,
    Buffer,
    decode_vector,
    head_bytes,
    is_sound,
    own_ttl,
)
from embedcache.entry import FloatArray


class Rows(NamedTuple):
    """Many vectors in one matrix.

    Attributes:
        matrix: Shape (n, d), rows of misses NaN: float64 where every hit is stored so, else float32.
        mask: bool, shape (n,): which rows are hits.
        any_ttl: Whether a hit has a TTL of its own.
    """

    matrix: FloatArray
    mask: npt.NDArray[np.bool_]
    any_ttl: bool


class MatrixDecoder:
    """What `EmbeddingsCache.mget_embeddings` returns, made of values that come part by part.

    Entries of another dimension than `dimension`, or than the first hit's where it is None, are misses. Where nothing
    is hit and no dimension given, d is 0.

    Args:
        dimension: d, or None.
    """

    def __init__(self, dimension: int | None) -> None:
        self._dimension = dimension
        self._values: list[bytes | None] = []
        self._tags: list[bytes] = []
        self._rows = _Float32Rows(dimension)
        self._is_plain = True

    def add(self, values: Sequence[bytes | None], tags: Sequence[bytes]) -> None:
        """More values, and the tags that they must carry to be hits."""
        self._values += values
        self._tags += tags
        self._is_plain = self._is_plain and self._rows.add(values, tags)

    def rows(self) -> Rows:
        """The vectors of all of them, in order."""
        rows = self._rows.join() if self._is_plain else None
        return rows or _mixed_rows(self._values, self._tags, self._dimension)


def decode_matrix(values: Sequence[bytes | None], tags: Sequence[bytes], dimension: int | None) -> Rows:
    """As `MatrixDecoder`, of values that are all there."""
    decoder = MatrixDecoder(dimension)
    decoder.add(values, tags)
    return decoder.rows()


class _Float32Rows:
    """The rows while all hits store float32 of one length, copied into place with no object per entry."""

    def __init__(self, dimension: int | None) -> None:
        self._size = 0 if dimension is None else dimension * FLOAT32.item.itemsize
        self._rows: list[Buffer] = []
        self._misses: list[int] = []
        self._ttls = 0

    def add(self, values: Sequence[bytes | None], tags: Sequence[bytes]) -> bool:
        """More rows; whether they can lie in this matrix."""
        size = self._size or _payload_bytes(values, tags)
        if size % FLOAT32.item.itemsize:
            return False
        self._size = size
        rows, misses, ttls = self._rows, self._misses, self._ttls
        float32 = FLOAT32.code
        for value, tag in zip(values, tags, strict=True):
            if value is not None and len(value) > HEADER_BYTES:
                magic, ttl, expected, offset, packing = START.unpack_from(value)
                # As `checksum`, whose call would be a tenth of all this.
                if (
                    magic == MAGIC
                    and value.startswith(tag, TAG_OFFSET)
                    and xxh3_64_intdigest((view := memoryview(value))[CHECKED_FROM:]) & CHECKSUM_BITS == expected
                ):
                    if packing & DTYPE_BITS != float32 or not 0 < len(value) - offset == size:
                        return False
                    rows.append(view[offset:])
                    ttls |= ttl
                    continue
            misses.append(len(rows))
            rows.append(b"")
        self._ttls = ttls
        return True

    def join(self) -> Rows | None:
        """All of them in one matrix; None where there was no hit."""
        if len(self._misses) == len(self._rows):
            return None
        if self._misses:
            absent = np.full(self._size // FLOAT32.item.itemsize, np.nan, FLOAT32.item).tobytes()
            for index in self._misses:
                self._rows[index] = absent
        # One join of all costs half of copying each into its place. Of a bytearray, the matrix can be written to.
        matrix: FloatArray = np.frombuffer(bytearray().join(self._rows), FLOAT32.item).reshape(len(self._rows), -1)
        mask = np.ones(len(self._rows), dtype=np.bool_)
        mask[self._misses] = False
        return Rows(matrix, mask, self._ttls > 0)


def _payload_bytes(values: Sequence[bytes | None], tags: Sequence[bytes]) -> int:
    """Length of the first hit's vector in bytes, 0 where there is no hit.

    A hit and not just a value, for the whole matrix is made by it: a damaged one may claim any length.
    """
    for value, tag in zip(values, tags, strict=True):
        if value is not None and _is_hit(value, tag):
            return len(value) - head_bytes(value)
    return 0


def _is_hit(value: bytes, tag: bytes) -> bool:
    return value.startswith(tag, TAG_OFFSET) and is_sound(value)


def _mixed_rows(values: Sequence[bytes | None], tags: Sequence[bytes], dimension: int | None) -> Rows:
    """The rows of values of any dtype and dimension."""
    vectors: list[FloatArray | None] = []
    any_ttl = False
    for value, tag in zip(values, tags, strict=True):
        vector = None
        if value is not None and _is_hit(value, tag):
            vector = decode_vector(value, int.from_bytes(value[12:16], "little"), value[16] & DTYPE_BITS)
            any_ttl = any_ttl or own_ttl(value) is not None
        vectors.append(vector)
    return Rows(*stack(vectors, dimension), any_ttl)


def stack(vectors: Sequence[FloatArray | None], dimension: int | None) -> tuple[FloatArray, npt.NDArray[np.bool_]]:
    """Vectors in one matrix (n, d) as `MatrixDecoder` makes it, None and those of another dimension being misses."""
    if dimension is None:
        dimension = next((len(vector) for vector in vectors if vector is not None), 0)
    hits = [vector for vector in vectors if vector is not None and len(vector) == dimension]
    dtype = np.float64 if hits and {vector.dtype for vector in hits} == {np.dtype(np.float64)} else np.float32
    if hits and len(hits) == len(vectors):
        # A third of the time of filling the rows one by one.
        joined: FloatArray = np.concatenate(hits, dtype=dtype)
        return joined.reshape(len(hits), dimension), np.ones(len(hits), dtype=np.bool_)
    mask = np.array([vector is not None and len(vector) == dimension for vector in vectors], dtype=np.bool_)
    matrix: FloatArray = np.full((len(vectors), dimension), np.nan, dtype)
    if hits:
        matrix[mask] = np.concatenate(hits).reshape(len(hits), dimension)
    return matrix, mask
