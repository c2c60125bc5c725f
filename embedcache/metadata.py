"""Metadata in and out of MessagePack: JSON objects only, so that what is read equals what any JSON reader would see."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final

import msgpack
import numpy as np

from embedcache.arguments import shown
from embedcache.errors import InvalidMetadataError

MAX_METADATA_BYTES: Final = 1024 * 1024
MAX_DEPTH: Final = 32


def pack_metadata(metadata: Mapping[str, Any] | None, *, index: int | None = None) -> bytes:
    """Metadata as MessagePack. numpy scalars become plain numbers, tuples lists.

    Raises:
        InvalidMetadataError: It is not a JSON object, over `MAX_METADATA_BYTES` when packed, or nested deeper than
            `MAX_DEPTH` levels.
    """
    if metadata is None:
        return _PACKED_NONE
    if not isinstance(metadata, Mapping):
        raise InvalidMetadataError(f"metadata is a dict or None, not {type(metadata).__name__}", index=index)
    try:
        packed: bytes = msgpack.packb(_plain(metadata, path="metadata", depth=1))
    except (TypeError, ValueError, OverflowError) as error:
        raise InvalidMetadataError(str(error), index=index) from error
    if len(packed) > MAX_METADATA_BYTES:
        raise InvalidMetadataError(
            f"metadata takes {len(packed):,} bytes; the most is {MAX_METADATA_BYTES:,}", index=index
        )
    return packed


def _plain(value: Any, *, path: str, depth: int) -> Any:
    """The value made of JSON's types alone; a ValueError or TypeError names the path at which it is not."""
    if depth > MAX_DEPTH:
        raise ValueError(f"metadata is nested deeper than {MAX_DEPTH} levels")
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, Mapping):
        return {
            _plain_str(key, path): _plain(item, path=f"{path}[{shown(key)}]", depth=depth + 1)
            for key, item in value.items()
        }
    if isinstance(value, list | tuple):
        return [_plain(item, path=f"{path}[{position}]", depth=depth + 1) for position, item in enumerate(value)]
    return value if value is None or isinstance(value, bool) else _plain_scalar(value, path)


def _plain_scalar(value: Any, path: str) -> int | float | str:
    if isinstance(value, int):
        if not -(2**63) <= value < 2**64:
            raise ValueError(f"{path} is an integer of more than 64 bits")
        return int(value)
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(f"{path} is {shown(value)}, which JSON has no word for")
        return float(value)
    if isinstance(value, str):
        return _plain_str(value, path)
    raise TypeError(f"{path} is a {type(value).__name__}, which is not JSON")


def _plain_str(value: Any, path: str) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{path} has the key {shown(value)}; keys are str")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise ValueError(f"{path} holds lone surrogates, which UTF-8 cannot encode") from None
    return str(value)


def is_metadata(value: object) -> bool:
    """Whether an unpacked value can be an entry's metadata."""
    return value is None or isinstance(value, dict)


_PACKED_NONE: Final[bytes] = msgpack.packb(None)
