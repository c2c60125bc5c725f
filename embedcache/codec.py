r"""Entries to packed bytes and back. `docs/format.md` gives the format byte by byte.

::

    0   3s  magic "EMB"          12  u32 offset of the vector
    3   u8  version, 1           16  u8  dtype (low 4 bits), padding before the vector (high 4)
    4   u32 TTL in seconds, 0    17  u8  the text was 0 str, 1 bytes    \
    8   u32 checksum of [12:]    18  u16 length of the model name        |  the tag
                                 20  u32 length of the text              |
    24  text ":" model name in UTF-8, which are the bytes the entry id is the SHA-256 of  /
    ..  MessagePack [inserted_at, metadata], padding, the vector little-endian at a multiple of 8

From byte 17 on, the value repeats the *tag*: what was asked for. One `startswith` therefore tells a hit from another
text under the same key. The TTL lies before the checksummed part, so that it can be changed in place.

The checksum is the low half of XXH3's 64 bits: 0.1 us for 1.7 kB, where CRC-32 costs 0.5. It makes a flipped bit a miss
instead of a wrong vector; comparing lengths alone let truncated values through.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from functools import lru_cache
from hashlib import sha256
from math import isfinite
from typing import Any, Final, NamedTuple, TypeAlias

import msgpack
import numpy as np
from xxhash import xxh3_64_intdigest

from embedcache.arguments import shown
from embedcache.entry import CacheEntry, FloatArray, Metadata, Text
from embedcache.errors import InvalidInputError
from embedcache.keyspace import hex_identity
from embedcache.metadata import is_metadata

Buffer: TypeAlias = bytes | memoryview

MAGIC: Final = b"EMB\x01"
TTL_OFFSET: Final = 4
TAG_OFFSET: Final = 17
HEADER_BYTES: Final = 24

_HEADER: Final = struct.Struct("<4sIIIBBHI")
_TAG: Final = struct.Struct("<BHI")
CHECKED_FROM: Final = 12
CHECKSUM_BITS: Final = 0xFFFFFFFF
_ALIGNMENT: Final = 8
DTYPE_BITS: Final = 0x0F
_SCALE: Final = np.dtype("<f4")

MAX_DIMENSION: Final = 65_536


class StoredDtype(NamedTuple):
    """How one dtype lies in a value.

    Attributes:
        code: Its number in the header.
        name: Its name in the API.
        item: The little-endian type of one component.
        scaled: Whether a float32 scale precedes the components.
        converted: Whether reading makes float32 of it.
    """

    code: int
    name: str
    item: np.dtype[Any]
    scaled: bool = False
    converted: bool = False


FLOAT32: Final = StoredDtype(1, "float32", np.dtype("<f4"))
_DTYPES: Final = (
    FLOAT32,
    StoredDtype(2, "float64", np.dtype("<f8")),
    StoredDtype(3, "float16", np.dtype("<f2"), converted=True),
    StoredDtype(4, "int8", np.dtype("<i1"), scaled=True, converted=True),
)
_BY_CODE: Final = {dtype.code: dtype for dtype in _DTYPES}
_BY_NAME: Final = {dtype.name: dtype for dtype in _DTYPES}


class Head(NamedTuple):
    """All of a value but its vector."""

    text: Text
    model_name: str
    dtype: StoredDtype
    inserted_at: float
    metadata: Metadata | None
    ttl: int | None
    vector_offset: int


def stored_dtype(name: str) -> StoredDtype:
    """The dtype of that name.

    Raises:
        InvalidInputError: There is none of that name.
    """
    dtype = _BY_NAME.get(name) if isinstance(name, str) else None
    if dtype is None:
        raise InvalidInputError(f"dtype is one of {', '.join(_BY_NAME)}, not {shown(name)}")
    return dtype


@lru_cache(maxsize=4096)
def tag_prefix(text_bytes: int, model_bytes: int, is_bytes: bool) -> bytes:
    """What stands before the identity in a value of these lengths; a tag is this prefix and the identity."""
    return _TAG.pack(is_bytes, model_bytes, text_bytes)


def encode_vectors(matrix: FloatArray, dtype: StoredDtype) -> list[Buffer | None]:
    """Each row of an (n, d) matrix as it is stored; None for a row that is not finite in that dtype."""
    stored = _converted(matrix, dtype)
    if not _all_finite(stored):
        good: list[bool] = [bool(np.isfinite(row).all()) for row in stored]
        rows = iter(encode_vectors(stored[good], dtype))
        return [next(rows) if ok else None for ok in good]
    if dtype.scaled:
        return list(_quantise(stored))
    data = stored.tobytes()
    if len(stored) == 1:
        return [data]
    size = stored.shape[1] * stored.itemsize
    return [memoryview(data)[start : start + size] for start in range(0, len(data), size)]


def all_fit(matrix: FloatArray, dtype: StoredDtype) -> bool:
    """Whether every row of an (n, d) matrix is finite in that dtype."""
    return _all_finite(_converted(matrix, dtype))


def _converted(matrix: FloatArray, dtype: StoredDtype) -> FloatArray:
    wanted = _SCALE if dtype.scaled else dtype.item
    if matrix.dtype == wanted:
        return matrix
    with np.errstate(over="ignore"):  # what overflows becomes infinite, which is looked for next
        return matrix.astype(wanted)


def _all_finite(matrix: FloatArray) -> bool:
    """Whether no component is NaN or infinite."""
    if len(matrix) > 1:
        # One dot product is finite only if every component is, and makes no second matrix as isfinite() does. Large
        # numbers may overflow it; then isfinite() decides.
        flat = matrix.reshape(-1)
        with np.errstate(over="ignore"):
            if isfinite(np.dot(flat, flat)):
                return True
    return bool(np.isfinite(matrix).all())


def _quantise(matrix: FloatArray) -> list[bytes]:
    """Rows as a float32 scale and int8 components: the largest magnitude becomes 127."""
    scales = np.minimum((np.abs(matrix).max(axis=1).astype(np.float64) / 127).astype(_SCALE), _LARGEST_SCALE)
    divisors = np.where(scales == 0, np.float32(1), scales)
    steps = np.rint(matrix / divisors[:, None]).clip(-127, 127).astype("<i1")
    return [scale.tobytes() + row.tobytes() for scale, row in zip(scales, steps, strict=True)]


# A scale rounded up at the very end of float32's range would give infinity back.
_LARGEST_SCALE: Final = np.nextafter(np.float32(np.finfo(np.float32).max / 127), np.float32(0))


def pack_rest(inserted_at: float, metadata: bytes) -> bytes:
    """What stands between an entry's identity and its vector.

    Args:
        inserted_at: Unix seconds.
        metadata: From `pack_metadata`.
    """
    return _INSERTED_AT.pack(_ARRAY_OF_TWO, _FLOAT64, inserted_at) + metadata


def encode(tag: bytes, vector: Buffer, dtype: StoredDtype, ttl: int | None, rest: bytes) -> bytes:
    """One packed value.

    Args:
        tag: The text's `tag_prefix` and its identity.
        vector: One row from `encode_vectors`, made with the same dtype.
        dtype: How the vector is stored.
        ttl: The entry's own TTL in seconds, or None.
        rest: From `pack_rest`.
    """
    end = TAG_OFFSET + len(tag) + len(rest)
    padding = -end % _ALIGNMENT
    head = _OFFSET_AND_DTYPE.pack(end + padding, dtype.code | padding << 4) + tag + rest + _PADDING[padding]
    checked = b"".join((head, vector))
    return _UNCHECKED.pack(MAGIC, ttl or 0, checksum(checked)) + checked


def checksum(checked: Buffer) -> int:
    """The checksum of what follows it in a value."""
    return xxh3_64_intdigest(checked) & CHECKSUM_BITS


# MessagePack by hand for what is the same in every entry: an array of two, of which the first is a float64.
_INSERTED_AT: Final = struct.Struct(">BBd")
_ARRAY_OF_TWO: Final = 0x92
_FLOAT64: Final = 0xCB
_NIL: Final = b"\xc0"
_UNCHECKED: Final = struct.Struct("<4sII")
_OFFSET_AND_DTYPE: Final = struct.Struct("<IB")
_PADDING: Final = tuple(b"\0" * n for n in range(_ALIGNMENT))


def is_sound(value: bytes) -> bool:
    """Whether a value is one of ours, and whole."""
    return (
        value.startswith(MAGIC)
        and len(value) > HEADER_BYTES
        and checksum(memoryview(value)[CHECKED_FROM:]) == int.from_bytes(value[8:12], "little")
    )


def own_ttl(value: bytes) -> int | None:
    """The TTL in a value's header, in seconds; None where it has none, or is not one of ours."""
    if value[TTL_OFFSET : TTL_OFFSET + 4] == _NO_TTL or not value.startswith(MAGIC):
        return None
    return int.from_bytes(value[TTL_OFFSET : TTL_OFFSET + 4], "little") or None


_NO_TTL: Final = bytes(4)


def own_ttls(keys: Sequence[str], values: Sequence[bytes | None]) -> dict[str, int]:
    """The TTLs of the values that have one of their own, by key."""
    return {key: ttl for key, value in zip(keys, values, strict=True) if value and (ttl := own_ttl(value))}


def with_ttl(value: bytes, ttl: int | None) -> bytes:
    """The value with another TTL in its header."""
    return value[:TTL_OFFSET] + (ttl or 0).to_bytes(4, "little") + value[TTL_OFFSET + 4 :]


def decode_head(value: bytes) -> Head | None:
    """Reads a value's head, for which the first ``vector_offset`` bytes are enough; None where they are not an entry's.

    A head alone cannot be checked against its checksum: what is shown from it may be damaged, what is computed with
    comes from `decode`.
    """
    if len(value) < HEADER_BYTES or not value.startswith(MAGIC):
        return None
    _, ttl, _, offset, packing, kind, model_bytes, text_bytes = _HEADER.unpack_from(value)
    dtype = _BY_CODE.get(packing & DTYPE_BITS)
    text_end = HEADER_BYTES + text_bytes
    model_end = text_end + 1 + model_bytes
    end = offset - (packing >> 4)
    if dtype is None or kind > 1 or not model_end < end <= offset <= len(value):
        return None
    text, model_name = value[HEADER_BYTES:text_end], value[text_end + 1 : model_end]
    rest = _unpack_rest(value[model_end:end])
    try:
        shown = text if kind else text.decode()
        name = model_name.decode()
    except UnicodeDecodeError:
        return None
    return None if rest is None else Head(shown, name, dtype, *rest, ttl or None, offset)


def _unpack_rest(packed: bytes) -> tuple[float, Metadata | None] | None:
    """When the entry was inserted and its metadata, or None where that is not what the bytes hold."""
    try:
        inserted_at, metadata, *_ = msgpack.unpackb(packed)
    except (ValueError, TypeError, msgpack.exceptions.UnpackException):
        return None
    return (inserted_at, metadata) if isinstance(inserted_at, float) and is_metadata(metadata) else None


def head_bytes(value: bytes) -> int:
    """How many of a value's bytes are its head, by its header; 0 where it has none."""
    return _HEADER.unpack_from(value)[3] if len(value) >= HEADER_BYTES and value.startswith(MAGIC) else 0


def stored_text(value: bytes) -> bytes:
    """The bytes of the text in a value that has a head, without decoding the rest."""
    return value[HEADER_BYTES : HEADER_BYTES + int.from_bytes(value[20:HEADER_BYTES], "little")]


def rest_offset(value: bytes) -> int:
    """Where in a value what follows its model name begins, by a header that was not checked; 0 where it has none."""
    if len(value) < HEADER_BYTES:
        return 0
    _, _, _, _, _, _, model_bytes, text_bytes = _HEADER.unpack_from(value)
    return HEADER_BYTES + int(text_bytes) + 1 + int(model_bytes)


def dimension(head: Head, value_bytes: int) -> int:
    """Length of the vector of an entry whose value is that many bytes long."""
    payload = value_bytes - head.vector_offset - (_SCALE.itemsize if head.dtype.scaled else 0)
    return max(payload, 0) // head.dtype.item.itemsize


def decode(value: bytes | None, key: str, tag: bytes, text: Text, model_name: str) -> CacheEntry | None:
    """The whole entry, or None where the value is missing, damaged, or of another text or model than asked.

    Args:
        value: What the server holds, or None.
        key: Under which it was found.
        tag: The asked text's tag, which a value of this text and model carries.
        text: What was asked; as the tag agrees, it need not be decoded from the value.
        model_name: As `text`.
    """
    if value is None or len(value) <= HEADER_BYTES:
        return None
    magic, ttl, expected, offset, packing = START.unpack_from(value)
    if (  # as `checksum`, whose call would be a twentieth of all this
        magic != MAGIC
        or not value.startswith(tag, TAG_OFFSET)
        or xxh3_64_intdigest(memoryview(value)[CHECKED_FROM:]) & CHECKSUM_BITS != expected
    ):
        return None
    start = TAG_OFFSET + len(tag)
    if value[start + _INSERTED_AT.size : start + _INSERTED_AT.size + 1] == _NIL:
        rest: tuple[float, Metadata | None] | None = (_FLOAT.unpack_from(value, start + 2)[0], None)
    else:
        rest = _unpack_rest(value[start : offset - (packing >> 4)])
    return None if rest is None else _entry(key, text, model_name, rest, ttl, value, offset, packing)


def decode_by_key(value: bytes | None, key: str) -> CacheEntry | None:
    """As `decode`, where the key alone was asked: the stored text and model must hash to it."""
    if value is None or not is_sound(value) or (head := decode_head(value)) is None:
        return None
    model_bytes, text_bytes = _HEADER.unpack_from(value)[6:]
    identity = value[HEADER_BYTES : HEADER_BYTES + text_bytes + 1 + model_bytes]
    if key[-64:] != sha256(identity).hexdigest() and not _is_hex_key(key, head):
        return None
    rest = head.inserted_at, head.metadata
    return _entry(key, head.text, head.model_name, rest, head.ttl or 0, value, head.vector_offset, value[16])


def _is_hex_key(key: str, head: Head) -> bool:
    """Whether it is the key that these bytes and model have in RedisVL's layout."""
    if not isinstance(head.text, bytes):
        return False
    return key[-64:] == sha256(hex_identity(head.text, head.model_name.encode())).hexdigest()


def _entry(  # built in one place, in the order in which the API documents the keys
    key: str,
    text: Text,
    model_name: str,
    rest: tuple[float, Metadata | None],
    ttl: int,
    value: bytes,
    offset: int,
    packing: int,
) -> CacheEntry | None:
    vector = decode_vector(value, offset, packing & DTYPE_BITS)
    if vector is None:
        return None
    return {
        "entry_id": key[-64:],
        "key": key,
        "text": text,
        "model_name": model_name,
        "embedding": vector,
        "inserted_at": rest[0],
        "metadata": rest[1],
        "ttl": ttl or None,
    }


START: Final = struct.Struct("<4sIIIB")
_FLOAT: Final = struct.Struct(">d")


def decode_vector(value: bytes, offset: int, code: int) -> FloatArray | None:
    """The vector as float32 or float64, a read-only view of the value where no conversion is needed."""
    if code == FLOAT32.code:  # nearly always, and then the rest is known
        size = len(value) - offset
        return np.frombuffer(value, FLOAT32.item, size >> 2, offset) if size > 0 and not size & 3 else None
    dtype = _BY_CODE.get(code)
    if dtype is None:
        return None
    start = offset + (_SCALE.itemsize if dtype.scaled else 0)
    count, remainder = divmod(len(value) - start, dtype.item.itemsize)
    if count < 1 or remainder:
        return None
    stored: FloatArray = np.frombuffer(value, dtype.item, count, start)
    if dtype.converted:
        stored = stored.astype(np.float32)
        if dtype.scaled:
            stored *= np.frombuffer(value, _SCALE, 1, offset)[0]
        stored.flags.writeable = False
    return stored


def rounded(matrix: FloatArray, dtype: StoredDtype) -> FloatArray:
    """A matrix (n, d) as it is read back after it was stored so; NaN in rows that are not finite in that dtype."""
    rows = [
        None if packed is None else decode_vector(bytes(packed), 0, dtype.code)
        for packed in encode_vectors(matrix, dtype)
    ]
    return np.stack([np.full(matrix.shape[1], np.nan, np.float32) if row is None else row for row in rows])
