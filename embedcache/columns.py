"""What the server tells of many keys, taken apart into columns.

numpy does it for a batch at once: decoding whole heads one by one took longer than everything else together. Of a value
no more than its start is needed, which holds the header (`embedcache.codec`), and what follows the model name: a
MessagePack array's first byte, then `inserted_at` as a float64 with its marker.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from embedcache import codec


class Layout(IntEnum):
    """How an entry lies on the server."""

    PACKED = 1
    REDISVL = 2
    UNREADABLE = 3


START_BYTES: Final = 256
"""Read of each value at first: up to what follows the model name, of nearly every one."""
REST_BYTES: Final = 10
DTYPES: Final = tuple(map(codec.stored_dtype, ("float32", "float64", "float16", "int8")))
UNREADABLE_CODE: Final = -1
"""Among model codes, that of a value which is unreadable."""

_NEVER: Final = -1  # the server's own codes
_NO_KEY: Final = -2
_SCALE_BYTES: Final = 4
_MOST_BYTES: Final = 2**32 - 1
_NIBBLE: Final = 0x0F
_ARRAYS: Final = (0x91, 0x9F)
_FLOAT64: Final = 0xCB
_HEADER: Final = np.dtype(
    [
        *(("magic", "<u4"), ("ttl", "<u4"), ("checksum", "<u4"), ("offset", "<u4"), ("packing", "u1")),
        *(("text_kind", "u1"), ("model_bytes", "<u2"), ("text_bytes", "<u4")),
    ]
)
_REST: Final = np.dtype([("array", "u1"), ("marker", "u1"), ("inserted_at", ">f8")])
_MAGIC: Final = int.from_bytes(codec.MAGIC, "little")

_WIDTHS: Final = np.zeros(_NIBBLE + 1, np.int64)
"""Bytes of a component by its dtype's code; 0 where there is no such dtype."""
_SCALES: Final = np.zeros(_NIBBLE + 1, np.int64)
"""Bytes before the components by their dtype's code."""
for _dtype in DTYPES:
    _WIDTHS[_dtype.code] = _dtype.item.itemsize
    _SCALES[_dtype.code] = _SCALE_BYTES if _dtype.scaled else 0


class HashSight(NamedTuple):
    """What is to be seen of one of RedisVL's hashes: its model, when it was inserted, its fields' lengths together."""

    model_name: str
    inserted_at: float
    size: int


@dataclass(frozen=True, slots=True)
class Batch:
    """What the server tells of n keys, one after the other.

    Attributes:
        idle: Seconds since the last access; anything but an int is unknown.
        left: Milliseconds until it expires, -1 for never, -2 for no key; anything but an int is unknown.
        sizes: Length of the value in bytes.
        starts: The value's first 256 bytes; or, where what follows the model name is further on, the header and that
            from the model name on; or b"" for another type.
        hashes: RedisVL's among those of another type, by their places in the batch.
    """

    idle: Sequence[object]
    left: Sequence[object]
    sizes: Sequence[int]
    starts: Sequence[bytes]
    hashes: dict[int, HashSight] = field(default_factory=dict)


class Columns(NamedTuple):
    """What is known of n keys, one array each; `embedcache.index.EntryIndex` says what they hold.

    `model_codes` number the `models` of the batch. Those `gone` are no longer there, and the rest of their rows means
    nothing.
    """

    gone: npt.NDArray[np.bool_]
    model_codes: npt.NDArray[np.int32]
    models: tuple[str, ...]
    inserted_at: npt.NDArray[np.float64]
    expires_at: npt.NDArray[np.float64]
    ttl: npt.NDArray[np.uint32]
    last_access: npt.NDArray[np.float64]
    value_bytes: npt.NDArray[np.uint32]
    dimension: npt.NDArray[np.int32]
    dtype_codes: npt.NDArray[np.uint8]
    layouts: npt.NDArray[np.uint8]


def columns_of(batch: Batch, now: float) -> Columns:
    """The columns of a batch that was told at `now`, in Unix seconds by the server's clock."""
    idle, left, sizes = _numbers(batch.idle), _numbers(batch.left), np.array(batch.sizes, np.int64)
    headers, rests, names = _take_apart(batch.starts)
    dtypes = (headers["packing"] & _NIBBLE).astype(np.uint8)
    dimension, whole = _dimensions(headers, dtypes, sizes)
    dated = (rests["array"] >= _ARRAYS[0]) & (rests["array"] <= _ARRAYS[1]) & (rests["marker"] == _FLOAT64)
    models: dict[str, int] = {}
    codes = np.array([_code(name, models) for name in names], np.int32)
    packed = (codes != UNREADABLE_CODE) & dated & whole & _heads_fit(headers, sizes)
    found = Columns(
        gone=left == _NO_KEY,
        model_codes=np.where(packed, codes, UNREADABLE_CODE).astype(np.int32),
        models=(),
        inserted_at=np.where(packed, rests["inserted_at"], np.nan),
        expires_at=np.where(left >= 0, now + left / 1000, np.where(left == _NEVER, np.inf, np.nan)),
        ttl=np.where(packed, headers["ttl"], 0).astype(np.uint32),
        last_access=np.where(idle >= 0, now - idle, np.nan),
        value_bytes=np.minimum(sizes, _MOST_BYTES).astype(np.uint32),
        dimension=np.where(packed, dimension, 0).astype(np.int32),
        dtype_codes=np.where(packed, dtypes, 0).astype(np.uint8),
        layouts=np.where(packed, Layout.PACKED, Layout.UNREADABLE).astype(np.uint8),
    )
    for place, seen in batch.hashes.items():
        found.layouts[place] = Layout.REDISVL
        found.model_codes[place] = models.setdefault(seen.model_name, len(models))
        found.inserted_at[place] = seen.inserted_at
        found.value_bytes[place] = min(seen.size, _MOST_BYTES)
    return found._replace(models=tuple(models))


def _numbers(told: Sequence[object]) -> npt.NDArray[np.float64]:
    """The ints as floats, NaN for anything else."""
    if set(map(type, told)) == {int}:
        return np.array(told, np.float64)
    return np.array([each if isinstance(each, int) else np.nan for each in told], np.float64)


def _take_apart(starts: Sequence[bytes]) -> tuple[npt.NDArray[Any], npt.NDArray[Any], list[bytes]]:
    """The headers, what follows the model names, and those names, zeros and b"" where there is none."""
    joined = b"".join([*starts, bytes(codec.HEADER_BYTES)])
    data = np.frombuffer(joined, np.uint8)
    lengths = np.array(list(map(len, starts)), np.int64)
    begins = np.cumsum(lengths) - lengths
    headers = _gathered(data, begins, _HEADER)
    model_bytes, text_bytes = headers["model_bytes"].astype(np.int64), headers["text_bytes"].astype(np.int64)
    near = codec.HEADER_BYTES + text_bytes + 1
    is_near = near + model_bytes + REST_BYTES <= lengths
    model_at = np.where(is_near, near, codec.HEADER_BYTES)
    there = (lengths >= codec.HEADER_BYTES) & (model_at + model_bytes + REST_BYTES <= lengths)
    model_at, model_bytes = np.where(there, begins + model_at, 0), np.where(there, model_bytes, 0)
    rests = _gathered(data, np.where(there, model_at + model_bytes, len(data) - REST_BYTES), _REST)
    names = [joined[at:end] for at, end in zip(model_at.tolist(), (model_at + model_bytes).tolist(), strict=True)]
    return headers, rests, names


def _gathered(data: npt.NDArray[np.uint8], begins: npt.NDArray[np.int64], dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    """Records of one dtype that begin here and there."""
    rows = np.ascontiguousarray(data[begins[:, None] + np.arange(dtype.itemsize)])
    return rows.view(dtype)[:, 0]


def _code(name: bytes, codes: dict[str, int]) -> int:
    """The number of a model name."""
    try:
        return codes.setdefault(name.decode(), len(codes))
    except UnicodeDecodeError:
        return UNREADABLE_CODE


def _heads_fit(headers: npt.NDArray[Any], sizes: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    """Whether the lengths in a value's header agree with each other and with the value's own."""
    offset = headers["offset"].astype(np.int64)
    end = offset - (headers["packing"] >> 4)
    model_end = codec.HEADER_BYTES + headers["text_bytes"].astype(np.int64) + 1 + headers["model_bytes"]
    fits: npt.NDArray[np.bool_] = (model_end < end) & (offset <= sizes) & (headers["text_kind"] <= 1)
    ours: npt.NDArray[np.bool_] = headers["magic"] == _MAGIC
    return fits & ours


def _dimensions(
    headers: npt.NDArray[Any], dtypes: npt.NDArray[np.uint8], sizes: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
    """The lengths of the vectors, and whether what stands there is a whole number of components."""
    width = _WIDTHS[dtypes]
    payload = sizes - headers["offset"] - _SCALES[dtypes]
    count = payload // np.maximum(width, 1)
    return count, (width > 0) & (count >= 1) & (count * width == payload)
