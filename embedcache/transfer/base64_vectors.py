"""Vectors as base64 in JSON: one of them, and many read at once.

Python decodes a letter at a time, 4.4 us for the 2,048 of a vector of 384 float32. Here numpy looks up all pairs of
letters of many vectors in tables, which takes 1.8 us each.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from embedcache.arguments import shown
from embedcache.entry import FloatArray
from embedcache.errors import TransferError

FIELDS: Final = {"dtype", "base64"}
_ITEMS: Final[dict[str, np.dtype[Any]]] = {"float32": np.dtype("<f4"), "float64": np.dtype("<f8")}
"""What a lookup gives, as in Parquet; the entry's own `dtype` says how the cache stores it."""

_ALPHABET: Final = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
_BLOCK: Final = 16
"""Letters that are 12 bytes, which are three numbers of 32 bits."""
_QUANTUM: Final = 4
"""Letters that are 3 bytes. Only the last one of a text may be filled up with ``=``."""
_AT_ONCE: Final = 128 * 1024
"""Letters looked up together, so that what they become stays in the processor's cache."""
_NO_LETTER: Final = 1 << 31


def encoded(vector: FloatArray) -> dict[str, str]:
    """A float32 or float64 vector as it stands in a line."""
    # Asking numpy for the name takes longer than all the rest.
    name = "float32" if vector.dtype == _ITEMS["float32"] else "float64"
    return {"dtype": name, "base64": encoded_bytes(vector.astype(_ITEMS[name], copy=False).tobytes())}


def encoded_bytes(data: bytes) -> str:
    """Bytes in base64."""
    return binascii.b2a_base64(data, newline=False).decode()


def decoded_bytes(text: Any, name: str, row: int) -> bytes:
    """The bytes of a text in base64.

    Args:
        text: Whatever stands there.
        name: What an error calls it.
        row: What an error names.

    Raises:
        TransferError: It is no text, or not in base64.
    """
    try:
        return base64.b64decode(text, validate=True)
    except (TypeError, ValueError) as error:
        raise TransferError(f"{name} is not base64", row=row) from error


def decoded(given: dict[str, Any], row: int) -> FloatArray:
    """The vector that stands in a line; whether it is finite is not looked at.

    Raises:
        TransferError: It is not what `encoded` gives; the error names this row.
    """
    if given.keys() != FIELDS:
        raise TransferError("the vector is an object of dtype and base64, or a list of numbers", row=row)
    name = given["dtype"]
    item = _ITEMS.get(name) if isinstance(name, str) else None
    if item is None:
        raise TransferError(f"the vector's dtype is {' or '.join(_ITEMS)}, not {shown(name)}", row=row)
    data = decoded_bytes(given["base64"], "the vector", row)
    if len(data) % item.itemsize:
        raise TransferError(f"the vector has {len(data):,} bytes, which are no whole numbers of {name}", row=row)
    vector: FloatArray = np.frombuffer(data, item)
    return vector


def all_decoded(given: Sequence[dict[str, Any]], dtype: str, dimension: int) -> FloatArray | None:
    """As `decoded`, for vectors of one dtype and dimension; None where one is something else.

    Returns:
        Shape ``(n, dimension)``.
    """
    size = _ITEMS[dtype].itemsize * dimension
    letters = -(-size // 3) * _QUANTUM
    try:
        texts = [each["base64"].encode("ascii") for each in given if each.keys() == FIELDS and each["dtype"] == dtype]
        if len(texts) < len(given) or set(map(len, texts)) != {letters}:
            return None
        whole = max(letters - _QUANTUM, 0) // _BLOCK * _BLOCK
        ends = b"".join([binascii.a2b_base64(text[whole:], strict_mode=True) for text in texts])
    except (AttributeError, ValueError):  # no text, or one that is not in base64
        return None
    start = whole // _QUANTUM * 3
    if len(ends) != len(texts) * (size - start):
        return None
    found = np.empty((len(texts), size), np.uint8)
    found[:, start:] = np.frombuffer(ends, np.uint8).reshape(len(texts), -1)
    step = max(_AT_ONCE // letters, 1)
    for first in range(0, len(texts) if whole else 0, step):
        some = texts[first : first + step]
        looked_up = _looked_up(b"".join([text[:whole] for text in some]))
        if looked_up is None:
            return None
        found[first : first + step, :start] = looked_up.view(np.uint8).reshape(len(some), -1)
    matrix: FloatArray = found.view(_ITEMS[dtype])
    return matrix


def _looked_up(letters: bytes) -> npt.NDArray[np.uint32] | None:
    """The bytes of whole blocks of letters, as little-endian numbers; None where one is no letter of base64's."""
    first, second = _tables()
    pairs = np.frombuffer(letters, "<u2").reshape(-1, _BLOCK // 2)
    threes = first.take(pairs[:, 0::2]) | second.take(pairs[:, 1::2])
    if threes.max() >= _NO_LETTER:
        return None
    one, two, three, four = threes.T
    found = np.empty((len(threes), 3), "<u4")
    found[:, 0] = one | two << 24
    found[:, 1] = two >> 8 | three << 16
    found[:, 2] = three >> 16 | four << 8
    return found


@lru_cache(maxsize=1)
def _tables() -> tuple[npt.NDArray[np.uint32], npt.NDArray[np.uint32]]:
    """What the first and the second pair of a quantum's letters give of its three bytes, the first byte lowest."""
    values = np.full(256, _NO_LETTER, np.uint32)
    values[np.frombuffer(_ALPHABET, np.uint8)] = np.arange(len(_ALPHABET))
    left, right = values[np.newaxis, :], values[:, np.newaxis]  # of a pair, the left letter is the lower byte
    bits = ((left << 6 | right) & 0xFFF).ravel()
    bad = ((left | right) & _NO_LETTER).ravel()
    first = bits >> 4 | (bits & 0xF) << 12 | bad
    second = bits >> 8 << 8 | (bits & 0xFF) << 16 | bad
    return first.astype(np.uint32), second.astype(np.uint32)
