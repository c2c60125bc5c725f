"""Entries to the hashes that RedisVL keeps its embeddings in, and back. `docs/redisvl.md` describes them.

A hash lies under a key of the same form as ours. Its fields are ``entry_id``, ``content`` (before RedisVL 0.13,
``text``), ``model_name``, ``embedding`` (a JSON array), ``inserted_at`` (Unix seconds in digits) and, where there is
any, ``metadata`` (a JSON object). Its TTL is the key's expiry and stands nowhere else.

We write both ``content`` and ``text``, so that every version finds its own, and a field that RedisVL does not read:
``own_ttl``, the entry's own TTL in seconds and, after a space, the ``inserted_at`` that it belongs to. RedisVL writes
entries over others without removing fields, so a field may be left over from the entry before.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from hashlib import sha256
from typing import Any, Final, NamedTuple

import msgpack
import numpy as np
import numpy.typing as npt

from embedcache import codec
from embedcache.entry import FloatArray, Metadata, Text
from embedcache.keyspace import MAX_MODEL_NAME_BYTES, MAX_TEXT_BYTES, MAX_TTL_SECONDS, hex_identity
from embedcache.metadata import is_metadata, pack_metadata

try:
    # A tenth of the time of json, which takes nearly all of what reading and writing such an entry costs.
    import orjson
except ModuleNotFoundError:  # the extra `redisvl` brings it
    orjson = None  # type: ignore[assignment, unused-ignore]

HEAD_FIELDS: Final = ("content", "text", "model_name", "inserted_at", "metadata", "own_ttl")
"""All that `decode_head` reads, in the order in which it takes them."""
IDENTITY_FIELDS: Final = ("content", "text", "model_name")
"""All that `tag_of` reads, in that order."""
ENTRY_FIELDS: Final = ("embedding", *HEAD_FIELDS)
"""All that `to_packed` reads, in that order."""
SIZE_FIELDS: Final = ("embedding", "content", "text", "entry_id", "model_name", "inserted_at", "metadata", "own_ttl")
"""All fields that make up an entry: `is_entry` and the value's length go by theirs."""
OPTIONAL_FIELDS: Final = frozenset({"text", "metadata", "own_ttl"})
"""Those that an entry may do without, and that must not be left over from the one before."""
DTYPE_NAME: Final = "json"
_ID_DIGITS: Final = 64


class HashHead(NamedTuple):
    """All of an entry but its vector."""

    text: Text
    model_name: str
    inserted_at: float
    metadata: Metadata | None
    ttl: int | None


# ------------------------------------------------------------------------------------------------ heads


def decode_head(values: Sequence[bytes | None], key: str) -> HashHead | None:
    """Reads the values of `HEAD_FIELDS` that lie under this key; None where they are not an entry's.

    What is shown from a head may be another key's, as after a copy by hand; what is computed with is from `to_packed`.
    """
    content, older, model_name, inserted_at, metadata, own_ttl = values
    text = older if content is None else content
    if not text or model_name is None or (at := seconds(inserted_at)) is None:
        return None
    known = _text_under(key, content, older, model_name)
    try:
        unpacked = None if metadata is None else json.loads(metadata)
        name = model_name.decode()
    except (ValueError, RecursionError):  # a UnicodeDecodeError is a ValueError
        return None
    if not is_metadata(unpacked):
        return None
    shown = known.text if known and known.is_bytes else _shown(known.text if known else text)
    return HashHead(shown, name, at, unpacked, _own_ttl(own_ttl, inserted_at))


def _shown(stored: bytes) -> Text:
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


def own_ttl(ttl: int, inserted_at: bytes) -> bytes:
    """The field ``own_ttl`` of an entry of that time and TTL, in seconds."""
    return b"%d %b" % (ttl, inserted_at)


def _own_ttl(field: bytes | None, inserted_at: bytes | None) -> int | None:
    """The TTL in that field, if it belongs to the entry of that time."""
    if field is None:
        return None
    digits, _, at = field.partition(b" ")
    if at != inserted_at or not digits.isdigit() or len(digits) > len(str(MAX_TTL_SECONDS)):
        return None
    return ttl if 1 <= (ttl := int(digits)) <= MAX_TTL_SECONDS else None


def is_entry(sizes: Sequence[int]) -> bool:
    """Whether a hash whose `SIZE_FIELDS` have these lengths in bytes has a vector and a text."""
    embedding, content, text, *_ = sizes
    return embedding > 0 and content + text > 0


# ------------------------------------------------------------------------------------------------ identities


class _StoredText(NamedTuple):
    text: bytes
    is_bytes: bool


def _text_under(key: str, content: bytes | None, older: bytes | None, model_name: bytes) -> _StoredText | None:
    """The text of the entry under this key; None where that cannot be told.

    The key says whether a text is a str or bytes, and which of two fields is left over from another entry: the text is
    the one that the key is made of. Where both fit, and differ, whose the vector is cannot be known.
    """
    found: set[_StoredText] = set()
    for text in {content, older} - {None}:
        if text and len(text) <= MAX_TEXT_BYTES:
            if _is_under(key, text + b":" + model_name):
                found.add(_StoredText(text, is_bytes=False))
            elif text == content and _is_under(key, hex_identity(text, model_name)):
                found.add(_StoredText(text, is_bytes=True))
    return found.pop() if len(found) == 1 else None


def tag_of(key: str, content: bytes | None, older: bytes | None, model_name: bytes | None) -> bytes | None:
    """The tag (`codec`) of the text and model that a hash under this key is of; None where it is of none."""
    if model_name is None or not 0 < len(model_name) <= MAX_MODEL_NAME_BYTES:
        return None
    known = _text_under(key, content, older, model_name)
    if known is None or not _is_utf8(model_name) or not (known.is_bytes or _is_utf8(known.text)):
        return None
    identity = known.text + b":" + model_name
    return codec.tag_prefix(len(known.text), len(model_name), known.is_bytes) + identity


def _is_utf8(stored: bytes) -> bool:
    try:
        stored.decode()
    except UnicodeDecodeError:
        return False
    return True


def _is_under(key: str, identity: bytes) -> bool:
    return key[-_ID_DIGITS:] == sha256(identity).hexdigest()


# ------------------------------------------------------------------------------------------------ vectors


def dimension(embedding: bytes) -> int:
    """Length of the vector in the field ``embedding``, by its commas."""
    return embedding.count(b",") + 1


def is_vector(embedding: bytes) -> bool:
    """Whether the field ``embedding`` is a vector: numbers, all of them finite."""
    return (vector := _vector(embedding)) is not None and bool(np.isfinite(vector).all())


def decode_vector(embedding: bytes) -> FloatArray | None:
    """The field ``embedding`` as float32, shape (d,); None where it is no vector.

    A number that float32 cannot hold becomes infinite.
    """
    vector = _vector(embedding)
    if vector is None or not np.isfinite(vector).all():
        return None
    with np.errstate(over="ignore"):
        return vector.astype(np.float32)


def _vector(embedding: bytes) -> npt.NDArray[Any] | None:
    """The numbers in a JSON array, shape ``(d,)``; None where it is anything else."""
    if b"t" in embedding or b"f" in embedding:  # true and false, which numpy takes for numbers
        return None
    try:
        numbers = json.loads(embedding) if orjson is None else orjson.loads(embedding)
        vector = np.array(numbers) if isinstance(numbers, list) else None
    except (ValueError, RecursionError, OverflowError):
        return None
    if vector is None or vector.ndim != 1 or vector.dtype.kind not in "fiu":
        return None
    return vector if 1 <= len(vector) <= codec.MAX_DIMENSION else None


def _array(vector: FloatArray) -> bytes:
    """A vector as a JSON array of the very numbers that it holds, float32 not rounded to fewer digits."""
    if orjson is None:
        return json.dumps(vector.tolist()).encode()
    return orjson.dumps(vector.astype(np.float64), option=orjson.OPT_SERIALIZE_NUMPY)


# ------------------------------------------------------------------------------------------------ entries


def to_packed(values: Sequence[bytes | None], key: str, dtype: codec.StoredDtype | None) -> bytes | None:
    """The entry in a hash under this key as a packed value of that dtype; None where there is none.

    Args:
        values: Those of `ENTRY_FIELDS`.
        key: Under which they were found.
        dtype: How to store the vector. Numbers that it cannot hold are no vector's. None is float32 where that holds
            the very numbers, else float64.
    """
    embedding, content, older, model_name, inserted_at, metadata, ttl = values
    at = seconds(inserted_at)
    if embedding is None or at is None or (tag := tag_of(key, content, older, model_name)) is None:
        return None
    packed = _packed_metadata(metadata)
    if packed is None or (vector := _vector(embedding)) is None:
        return None
    dtype = dtype or _narrowest(vector)
    (stored,) = codec.encode_vectors(vector.reshape(1, -1), dtype)
    if stored is None:
        return None
    return codec.encode(tag, stored, dtype, _own_ttl(ttl, inserted_at), codec.pack_rest(at, packed))


def _packed_metadata(field: bytes | None) -> bytes | None:
    """Metadata as `pack_metadata` makes it; None where it is none that `set` would take."""
    try:
        unpacked = None if field is None else json.loads(field)
        return pack_metadata(unpacked)
    except (ValueError, RecursionError):  # of json, and an InvalidInputError
        return None


def _narrowest(vector: npt.NDArray[Any]) -> codec.StoredDtype:
    with np.errstate(over="ignore"):
        fits = np.array_equal(vector.astype(np.float32), vector)
    return codec.stored_dtype("float32" if fits else "float64")


def from_packed(value: bytes, key: str) -> dict[str, bytes] | None:
    """The fields of a hash that holds a packed value's entry under this key; None where JSON has no words for it.

    That is a value that is damaged, or of another key, or that `set` would not have stored.
    """
    entry = codec.decode_by_key(value, key)
    if entry is None or not np.isfinite(entry["embedding"]).all():
        return None
    text = entry["text"]
    encoded = text if isinstance(text, bytes) else text.encode()
    inserted_at = repr(entry["inserted_at"]).encode()
    fields = {
        "entry_id": key[-_ID_DIGITS:].encode(),
        "content": encoded,
        "model_name": entry["model_name"].encode(),
        "embedding": _array(entry["embedding"]),
        "inserted_at": inserted_at,
    }
    if isinstance(text, str):  # before 0.13 RedisVL knew no bytes, and would take them for a str of the same key
        fields["text"] = encoded
    if entry["metadata"] is not None:
        try:
            fields["metadata"] = json.dumps(entry["metadata"], allow_nan=False).encode()
        except (TypeError, ValueError, RecursionError):
            return None
    if entry["ttl"] is not None:
        fields["own_ttl"] = own_ttl(entry["ttl"], inserted_at)
    return fields


def metadata_field(packed: bytes) -> bytes | None:
    """The field ``metadata`` for what `pack_metadata` packed, or None where there is to be none."""
    metadata = msgpack.unpackb(packed)
    return None if metadata is None else json.dumps(metadata).encode()
