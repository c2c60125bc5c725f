"""Many entries as columns, which is how files hold them: packed values to columns, and back to the same bytes.

A column's vectors are what a lookup gives: float32, or float64 where the entry stores that. The dtype, and for int8 the
scale, stand beside them, so that what is packed again is the value it came from, bit by bit.
"""

from __future__ import annotations

import json
import math
import operator
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields
from functools import lru_cache
from hashlib import sha256
from typing import Any, Final, NamedTuple

import msgpack
import numpy as np
import numpy.typing as npt

from embedcache import codec
from embedcache.entry import FloatArray, Metadata, Text
from embedcache.errors import InvalidInputError, TransferError
from embedcache.keyspace import Keyspace, check_ttl, encode_model_name, encode_text, encode_texts, hex_identity
from embedcache.metadata import MAX_DEPTH, MAX_METADATA_BYTES, pack_metadata

_SCALE: Final = struct.Struct("<f")
_LARGEST_CODE: Final = 128
_ID_DIGITS: Final = 64
_NOT_JSON: Final = ""
_NO_METADATA: Final = pack_metadata(None)
_NOT_FINITE: Final = (b"\x7f\xf0", b"\xff\xf0", b"\x7f\xf8", b"\xff\xf8")
"""How floats begin that are infinite or NaN. Others, and texts, may hold the same bytes."""
_LONG_METADATA: Final = MAX_METADATA_BYTES // 4  # characters; one takes four bytes at most
_LAST_MILLISECOND: Final = 2**53
"""Later times are none that a float64 holds to the millisecond, and none that a server takes."""


@dataclass(slots=True)
class EntryColumns:
    """Entries, one to a position in each list.

    Attributes:
        entry_ids: 64 hex digits each.
        texts: A str, or the bytes of one that was stored as bytes.
        model_names: The models.
        vectors: Shape ``(d,)`` each, float32, or float64 where the entry stores that.
        dtypes: How each is stored.
        scales: What int8's components are multiples of; None for other dtypes.
        metadata: JSON objects in JSON's text, or None.
        inserted_at: Unix seconds.
        ttls: Each one's own TTL in seconds, or None.
        expires_at: When the server drops it, in Unix seconds, or None.
    """

    entry_ids: list[str] = field(default_factory=list)
    texts: list[Text] = field(default_factory=list)
    model_names: list[str] = field(default_factory=list)
    vectors: list[FloatArray] = field(default_factory=list)
    dtypes: list[str] = field(default_factory=list)
    scales: list[float | None] = field(default_factory=list)
    metadata: list[str | None] = field(default_factory=list)
    inserted_at: list[float] = field(default_factory=list)
    ttls: list[int | None] = field(default_factory=list)
    expires_at: list[float | None] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.entry_ids)

    def shapes(self) -> Iterator[tuple[str, int]]:
        """Each entry's model and dimension."""
        return zip(self.model_names, map(len, self.vectors), strict=True)

    def one(self, index: int) -> EntryColumns:
        """The entry at that position alone."""
        return EntryColumns(*([getattr(self, each.name)[index]] for each in fields(self)))

    def extend(self, others: EntryColumns) -> None:
        """Adds entries behind these."""
        for each in fields(self):
            getattr(self, each.name).extend(getattr(others, each.name))

    def rows(self) -> Iterator[tuple[Any, ...]]:
        """The entries one after the other, each with its values in the order of the columns."""
        return zip(*(getattr(self, each.name) for each in fields(self)), strict=True)


def cut(numbers: FloatArray, lengths: npt.NDArray[np.integer[Any]]) -> list[FloatArray]:
    """Numbers as vectors of these lengths. np.split takes ten times as long."""
    ends = np.cumsum(lengths).tolist()
    return [numbers[start:end] for start, end in zip([0, *ends], ends, strict=False)]


# ------------------------------------------------------------------------------------------------ out of values


def unpack_values(
    keys: Sequence[str], values: Sequence[bytes | None], expires_at: Sequence[float | None]
) -> EntryColumns:
    """The entries that these values hold. Left out is what could not be stored again.

    That is a value that is damaged, of another key, or holds what the cache's own methods would have refused.
    """
    with np.errstate(over="ignore"):  # of the sum that tells whether a vector is finite
        rows = [
            row
            for key, value, expiry in zip(keys, values, expires_at, strict=True)
            if value is not None and (row := _row(key, value, expiry)) is not None
        ]
    return EntryColumns(*map(list, zip(*rows, strict=True))) if rows else EntryColumns()


def _row(key: str, value: bytes, expires_at: float | None) -> tuple[Any, ...] | None:
    """An entry's values in the order of the columns, or None where it could not be stored again."""
    if (head := _sound_head(value)) is None or (entry_id := _entry_id(head, key)) is None:
        return None
    vector = _vector(value, head)
    metadata = None if head.metadata is None else _metadata_to_json(head.metadata)
    if vector is None or metadata == _NOT_JSON:
        return None
    return (
        entry_id,
        head.text,
        head.model_name,
        vector,
        head.dtype.name,
        _SCALE.unpack_from(value, head.vector_offset)[0] if head.dtype.scaled else None,
        metadata,
        head.inserted_at,
        head.ttl,
        expires_at,
    )


def _sound_head(value: bytes) -> codec.Head | None:
    """The head of a whole value that could be stored again."""
    if not codec.is_sound(value) or (head := codec.decode_head(value)) is None or not _is_time(head.inserted_at):
        return None
    return head


def _entry_id(head: codec.Head, key: str) -> str | None:
    """The entry id of a text and model that belong under this key, or None where they do not."""
    try:
        identity = encode_text(head.text) + _model_suffix(head.model_name)
    except InvalidInputError:
        return None
    entry_id = sha256(identity).hexdigest()
    if key.endswith(entry_id):
        return entry_id
    # In RedisVL's layout, the key of bytes is made of their hex digits; in files, all ids are alike.
    is_hex = isinstance(head.text, bytes) and key.endswith(
        sha256(hex_identity(head.text, head.model_name.encode())).hexdigest()
    )
    return entry_id if is_hex else None


@lru_cache(maxsize=256)  # a cache has few models
def _model_suffix(model_name: str) -> bytes:
    return b":" + encode_model_name(model_name)


_to_json: Final = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode
"""As `json.dumps`, which makes an encoder anew for each entry."""


def _metadata_to_json(metadata: Metadata) -> str:
    """Metadata as JSON, or `_NOT_JSON` where it could not be stored again."""
    try:
        text = _to_json(metadata)
        # Only what looks deep or long is checked in full, which takes longer than all the rest.
        if _looks_large(text):
            pack_metadata(metadata)
    except (TypeError, ValueError, RecursionError):
        return _NOT_JSON
    return text


def _looks_large(text: str) -> bool:
    """Whether metadata in JSON's text may be too deep or too long to be stored."""
    return len(text) > _LONG_METADATA or text.count("{") + text.count("[") > MAX_DEPTH


def _vector(value: bytes, head: codec.Head) -> FloatArray | None:
    """The vector as a lookup gives it, or None where it is none that could be stored."""
    dtype = head.dtype
    start = head.vector_offset + (_SCALE.size if dtype.scaled else 0)
    count, remainder = divmod(len(value) - start, dtype.item.itemsize)
    if remainder or not 1 <= count <= codec.MAX_DIMENSION:
        return None
    vector: FloatArray = np.frombuffer(value, dtype.item, count, start)
    if dtype.converted:
        vector = vector.astype(np.float32)
        if dtype.scaled:
            vector *= np.float32(_SCALE.unpack_from(value, head.vector_offset)[0])
    return vector if _is_finite(vector) else None


def _is_finite(vector: FloatArray) -> bool:
    # A dot product is finite only if every component is, and takes a third of the time; large numbers overflow it.
    return math.isfinite(np.dot(vector, vector)) or bool(np.isfinite(vector).all())


# ------------------------------------------------------------------------------------------------ into values


class PackedEntries(NamedTuple):
    """Entries ready to be written, as columns: keys, values, and when each expires in Unix milliseconds or None."""

    keys: list[str]
    values: list[bytes]
    expires_at: list[int | None]
    inserted_at: list[float]

    def extend(self, others: PackedEntries) -> None:
        """Adds entries behind these."""
        self.keys.extend(others.keys)
        self.values.extend(others.values)
        self.expires_at.extend(others.expires_at)
        self.inserted_at.extend(others.inserted_at)


def pack_columns(space: Keyspace, columns: EntryColumns, first_row: int) -> PackedEntries:
    """The entries as they are stored in a cache, under its own keys.

    Args:
        space: The cache.
        columns: The entries, as a file gave them: nothing is taken for granted but the types.
        first_row: Number of the first of them in the file.

    Raises:
        TransferError: One of them cannot be stored, or is not what the file says; it names the row.
    """
    vectors = _stored_vectors(columns, first_row)
    try:
        return _packed(space, columns, vectors)
    except InvalidInputError:
        # One after the other takes longer, and is only to find the first.
        for index, vector in enumerate(vectors):
            try:
                _packed(space, columns.one(index), [vector])
            except InvalidInputError as error:
                raise TransferError(str(error), row=first_row + index) from error
        raise


def _packed(space: Keyspace, columns: EntryColumns, vectors: Sequence[codec.Buffer]) -> PackedEntries:
    """The entries, whose vectors are as they are stored.

    Raises:
        InvalidInputError: One cannot be stored. Which one, it only says where it is alone.
    """
    encoded = encode_texts(columns.texts)
    suffixes = list(map(_model_suffix, columns.model_names))
    identities = list(map(operator.add, encoded, suffixes))
    if [sha256(identity).hexdigest() for identity in identities] != columns.entry_ids:
        raise InvalidInputError("the entry id is not that of the text and the model")
    _check_times(columns.inserted_at, "inserted_at")
    _check_times([at for at in columns.expires_at if at is not None], "expires_at")
    dtypes = {name: codec.stored_dtype(name) for name in set(columns.dtypes)}
    ttls = {ttl: None if ttl is None else check_ttl(ttl) for ttl in set(columns.ttls)}
    are_bytes = [isinstance(text, bytes) for text in columns.texts]
    return PackedEntries(
        [
            space.key_of_bytes(text, suffix[1:]) if is_bytes and space.hex_bytes else f"{space.name}:{entry_id}"
            for text, suffix, is_bytes, entry_id in zip(encoded, suffixes, are_bytes, columns.entry_ids, strict=True)
        ],
        [
            codec.encode(
                codec.tag_prefix(len(text), len(suffix) - 1, is_bytes) + identity,
                vector,
                dtypes[dtype],
                ttls[ttl],
                codec.pack_rest(inserted_at, _NO_METADATA if metadata is None else _packed_metadata(metadata)),
            )
            for text, suffix, is_bytes, identity, vector, dtype, ttl, inserted_at, metadata in zip(
                encoded,
                suffixes,
                are_bytes,
                identities,
                vectors,
                columns.dtypes,
                columns.ttls,
                columns.inserted_at,
                columns.metadata,
                strict=True,
            )
        ],
        [None if at is None else round(at * 1000) for at in columns.expires_at],
        columns.inserted_at,
    )


def _packed_metadata(text: str) -> bytes:
    try:
        # What JSON has no word for is looked for one by one only where there may be some.
        return _packed_at_once(text) or pack_metadata(json.loads(text))
    except (ValueError, RecursionError) as error:
        if isinstance(error, InvalidInputError):
            raise
        raise InvalidInputError("the metadata is not JSON") from error


_from_json: Final = json.JSONDecoder().raw_decode
"""As `json.loads`, which looks for white space and more besides, and takes twice as long for it."""


def _packed_at_once(text: str) -> bytes | None:
    """What `pack_metadata` gives for what JSON's text says; None where it may refuse that."""
    if _looks_large(text):
        return None
    try:
        metadata, end = _from_json(text)
        packed: bytes = msgpack.packb(metadata)
    except (ValueError, OverflowError):  # no JSON; lone surrogates, and integers of more than 64 bits
        return None
    if end != len(text) or not isinstance(metadata, dict):
        return None
    infinite, minus_infinite, nan, minus_nan = _NOT_FINITE
    may_be = infinite in packed or minus_infinite in packed or nan in packed or minus_nan in packed
    return None if may_be else packed


def _check_times(times: Sequence[float], name: str) -> None:
    for seconds in times:
        if not _is_time(seconds):
            raise InvalidInputError(f"{name} is {seconds}, which is not a time in Unix seconds")


def _is_time(seconds: float) -> bool:
    return 0 <= seconds * 1000 <= _LAST_MILLISECOND


def _stored_vectors(columns: EntryColumns, first_row: int) -> list[codec.Buffer]:
    """Each vector as it is stored, converted in one matrix per dtype and dimension."""
    alike: dict[tuple[str, int], list[int]] = {}
    for index, (name, vector) in enumerate(zip(columns.dtypes, columns.vectors, strict=True)):
        if not 1 <= len(vector) <= codec.MAX_DIMENSION:
            raise TransferError(
                f"the vector has {len(vector):,} components; it may have 1 to {codec.MAX_DIMENSION:,}",
                row=first_row + index,
            )
        alike.setdefault((name, len(vector)), []).append(index)
    stored: list[codec.Buffer] = [b""] * len(columns)
    for (name, _), indexes in alike.items():
        try:
            dtype = codec.stored_dtype(name)
        except InvalidInputError as error:
            raise TransferError(str(error), row=first_row + indexes[0]) from error
        # np.stack makes a matrix of each row first, which takes twice as long.
        matrix = np.concatenate([columns.vectors[index] for index in indexes]).reshape(len(indexes), -1)
        if dtype.scaled:
            found = _codes(matrix, [columns.scales[index] for index in indexes])
        else:
            found = codec.encode_vectors(matrix, dtype)
        for index, packed in zip(indexes, found, strict=True):
            if packed is None:
                raise TransferError(_unfit(dtype), row=first_row + index)
            stored[index] = packed
    return stored


def _unfit(dtype: codec.StoredDtype) -> str:
    if dtype.scaled:
        return "the vector is not made of whole multiples of its scale, or holds NaN or infinity"
    return f"the vector holds NaN, infinity, or a number too large for {dtype.name}"


def _codes(matrix: FloatArray, scales: Sequence[float | None]) -> list[codec.Buffer | None]:
    """Each row of int8's vectors as a scale and codes, as it was stored; None where that does not give the row."""
    found: list[codec.Buffer | None] = []
    for row, given in zip(matrix, scales, strict=True):
        scale = np.float32(math.nan if given is None else given)
        codes = _multiples(row, scale)
        found.append(None if codes is None else scale.tobytes() + codes.tobytes())
    return found


def _multiples(row: FloatArray, scale: np.float32) -> npt.NDArray[np.int8] | None:
    """The whole numbers which, times the scale, are the row; None where there are none that int8 holds."""
    if not np.isfinite(scale) or not np.isfinite(row).all():
        return None
    counted = np.rint(row / scale) if scale else np.zeros_like(row)
    if np.abs(counted).max() > _LARGEST_CODE or counted.max() == _LARGEST_CODE:
        return None
    codes = counted.astype("<i1")
    return codes if np.array_equal(codes.astype(np.float32) * scale, row) else None
