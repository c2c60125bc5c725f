"""The records that go into and come out of a cache."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final, TypeAlias, TypedDict

import numpy as np
import numpy.typing as npt


class Never(Enum):
    """The type of `NEVER`."""

    NEVER = "never"

    def __repr__(self) -> str:
        return "NEVER"

    __str__ = __repr__


NEVER: Final = Never.NEVER
"""A TTL that never runs out, whatever the cache's default is."""

TTL: TypeAlias = int | Never | None
Text: TypeAlias = str | bytes
Metadata: TypeAlias = dict[str, Any]
FloatArray: TypeAlias = npt.NDArray[np.floating[Any]]
EmbeddingLike: TypeAlias = Sequence[float] | npt.NDArray[Any]


class _ItemCore(TypedDict):
    text: Text
    model_name: str
    embedding: EmbeddingLike


class CacheItem(_ItemCore, total=False):
    """One entry to store with ``mset``.

    Keys:
        text: What was embedded; a str, or bytes such as an image's.
        model_name: The model that made the vector.
        embedding: The vector, shape ``(d,)``.
        metadata: A JSON object, or None.
        ttl: Seconds to live, `NEVER`, or None for the batch's TTL.
    """

    metadata: Mapping[str, Any] | None
    ttl: int | Never | None


class CacheEntry(TypedDict):
    """One entry as ``get`` returns it: a plain dict.

    Keys:
        entry_id: 64 hex digits, the SHA-256 of ``text:model_name``.
        key: The Redis key, ``name:entry_id``.
        text: The text as it was stored, of the type it was stored with.
        model_name: The model that made the vector.
        embedding: The vector, shape ``(d,)``, float64 where the cache stores float64, else float32.
            It is a read-only view of the reply, made without a copy; call ``.copy()`` to change it.
        inserted_at: When it was stored, in Unix seconds by the writer's clock.
        metadata: The JSON object stored beside it, or None.
        ttl: The entry's own TTL in seconds, with which each hit starts again, or None.
    """

    entry_id: str
    key: str
    text: Text
    model_name: str
    embedding: FloatArray
    inserted_at: float
    metadata: Metadata | None
    ttl: int | None


@dataclass(frozen=True, slots=True)
class EntrySummary:
    """An entry without its vector, as browsing shows it.

    Attributes:
        key: The Redis key.
        text: The text as it was stored.
        model_name: The model that made the vector.
        dimension: Length of the vector.
        dtype: How the vector is stored: ``float32``, ``float64``, ``float16`` or ``int8``; ``json`` in
            RedisVL's layout.
        inserted_at: When it was stored, in Unix seconds.
        metadata: The JSON object stored beside it, or None.
        ttl: The entry's own TTL in seconds, or None.
        expires_in: Seconds until it expires, or None if it never does.
        value_bytes: Length of the stored value in bytes.
        memory_bytes: What the server says the entry costs, key and bookkeeping included.
        idle_seconds: Whole seconds since it was last read or written, or None where the server does not tell.
    """

    key: str
    text: Text
    model_name: str
    dimension: int
    dtype: str
    inserted_at: float
    metadata: Metadata | None
    ttl: int | None
    expires_in: float | None
    value_bytes: int
    memory_bytes: int
    idle_seconds: float | None = None
