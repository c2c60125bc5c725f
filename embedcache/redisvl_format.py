"""The hashes that RedisVL keeps its embeddings in, as far as looking at them needs: read, never written.

A hash lies under a key of the same form as ours. Its fields are ``entry_id``, ``content`` (before RedisVL 0.13,
``text``), ``model_name``, ``embedding`` (a JSON array), ``inserted_at`` (Unix seconds in digits) and, where there is
any, ``metadata`` (a JSON object). Its TTL is the key's expiry and stands nowhere else.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np

from embedcache.entry import FloatArray, Metadata, Text
from embedcache.metadata import is_metadata

HEAD_FIELDS: Final = ("content", "text", "model_name", "inserted_at", "metadata")
"""All that `decode_head` reads, in the order in which it takes them."""
SIZE_FIELDS: Final = ("embedding", "content", "text", "entry_id", "model_name", "inserted_at", "metadata")
"""All fields that make up an entry: `is_entry` and the value's length go by theirs."""
DTYPE_NAME: Final = "json"


class HashHead(NamedTuple):
    """All of an entry but its vector."""

    text: Text
    model_name: str
    inserted_at: float
    metadata: Metadata | None


def decode_head(values: Sequence[bytes | None]) -> HashHead | None:
    """Reads the values of `HEAD_FIELDS`; None where they are not an entry's."""
    content, older, model_name, inserted_at, metadata = values
    text = older if content is None else content
    if not text or model_name is None or (at := seconds(inserted_at)) is None:
        return None
    try:
        unpacked = None if metadata is None else json.loads(metadata)
        name = model_name.decode()
    except (ValueError, RecursionError):  # a UnicodeDecodeError is a ValueError
        return None
    return HashHead(_text(text), name, at, unpacked) if is_metadata(unpacked) else None


def _text(stored: bytes) -> Text:
    try:
        return stored.decode()
    except UnicodeDecodeError:
        return stored


def seconds(inserted_at: bytes | None) -> float | None:
    """When an entry was inserted, in Unix seconds; None where that is no finite number."""
    try:
        at = float(inserted_at or b"")
    except ValueError:
        return None
    return at if math.isfinite(at) else None


def is_entry(sizes: Sequence[int]) -> bool:
    """Whether a hash whose `SIZE_FIELDS` have these lengths in bytes has a vector and a text."""
    embedding, content, text, *_ = sizes
    return embedding > 0 and content + text > 0


def dimension(embedding: bytes) -> int:
    """Length of the vector in the field ``embedding``, by its commas."""
    return embedding.count(b",") + 1


def is_vector(embedding: bytes) -> bool:
    """Whether the field ``embedding`` is a vector: numbers, all of them finite."""
    return _numbers(embedding) is not None


def decode_vector(embedding: bytes) -> FloatArray | None:
    """The field ``embedding`` as float32, shape (d,); None where it is no vector.

    A number that float32 cannot hold becomes infinite.
    """
    numbers = _numbers(embedding)
    if numbers is None:
        return None
    with np.errstate(over="ignore"):
        return np.array(numbers, np.float64).astype(np.float32)


def _numbers(embedding: bytes) -> list[float] | None:
    try:
        vector = json.loads(embedding)
    except (ValueError, RecursionError):
        return None
    return vector if isinstance(vector, list) and vector and all(map(_is_number, vector)) else None


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
