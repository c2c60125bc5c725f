"""What callers pass in, checked and made ready to send: texts become keys and tags, items become keys and values.

All of a batch is checked before any of it is sent. The checks run over whole lists at C speed, and item by item only to
name the one that failed: a Python call per check and item cost as much as the round trip.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any, Final, NamedTuple, cast

import numpy as np
import numpy.typing as npt

from embedcache import codec
from embedcache.entry import TTL, CacheItem, EmbeddingLike, FloatArray, Text
from embedcache.errors import InvalidEmbeddingError, InvalidInputError
from embedcache.keyspace import Keyspace, check_batch, encode_model_name, encode_text, encode_texts, position_in
from embedcache.metadata import pack_metadata


class Writes(NamedTuple):
    """Entries ready to be sent, as columns: keys, packed values, the seconds that each lives or None, and models."""

    keys: list[str]
    values: list[bytes]
    ttls: list[int | None]
    model_names: list[str]

    def part(self, start: int, stop: int) -> Writes:
        """The entries from `start` up to `stop`."""
        part = slice(start, stop)
        return Writes(self.keys[part], self.values[part], self.ttls[part], self.model_names[part])


def pack_text(space: Keyspace, text: Text, model_name: str) -> tuple[str, bytes]:
    """The key of one text, and the tag that its value must carry.

    Raises:
        InvalidTextError: The text cannot be cached.
        InvalidModelNameError: The model name cannot be used.
    """
    model = encode_model_name(model_name)
    encoded = encode_text(text)
    identity = encoded + b":" + model
    is_bytes = isinstance(text, bytes)
    key = space.key_of_bytes(encoded, model) if is_bytes else space.key(identity)
    return key, codec.tag_prefix(len(encoded), len(model), is_bytes) + identity


class Part(NamedTuple):
    """Keys that are looked up together, and where they begin among all.

    Attributes:
        start: The first one's index.
        keys: Some of the keys.
        tags: What the value under each must carry to be a hit; empty for keys that were given as such.
    """

    start: int
    keys: Sequence[str]
    tags: Sequence[bytes]


PART_ENTRIES: Final = 250
"""The vectors of 1,000 texts in one part took 1.4 times as long as a bare MGET; in two parts 1.22, in four 1.18."""


class TextBatch:
    """Texts to be looked up, checked, whose keys and tags are made part by part: that is a third of a lookup's work.

    Attributes:
        keys: Those of the parts that were made so far.

    Raises:
        InvalidTextError: A text cannot be cached.
        InvalidModelNameError: The model name cannot be used.
    """

    def __init__(self, space: Keyspace, texts: Sequence[Text], model_name: str) -> None:
        self.keys: list[str] = []
        self._space = space
        self._suffix = b":" + encode_model_name(model_name)
        self._texts = texts
        self._encoded = encode_texts(texts)

    def parts(self) -> Iterator[Part]:
        """All of them, in order."""
        for start in range(0, len(self._encoded), PART_ENTRIES):
            part = slice(start, start + PART_ENTRIES)
            keys, tags = _pack_encoded(self._space, self._texts[part], self._encoded[part], self._suffix)
            self.keys += keys
            yield Part(start, keys, tags)


def key_parts(keys: Sequence[str]) -> Iterator[Part]:
    """Keys that are known, in parts."""
    for start in range(0, len(keys), PART_ENTRIES):
        yield Part(start, keys[start : start + PART_ENTRIES], ())


def pack_texts(space: Keyspace, texts: Sequence[Text], model_name: str) -> tuple[list[str], list[bytes]]:
    """The keys of the texts, and the tags that their values must carry.

    Raises:
        InvalidTextError: A text cannot be cached.
        InvalidModelNameError: The model name cannot be used.
    """
    suffix = b":" + encode_model_name(model_name)
    return _pack_encoded(space, texts, encode_texts(texts), suffix)


def _pack_encoded(
    space: Keyspace, texts: Sequence[Text], encoded: Sequence[bytes], suffix: bytes
) -> tuple[list[str], list[bytes]]:
    identities = [text + suffix for text in encoded]
    model_bytes = len(suffix) - 1
    # Texts have few different lengths: what stands before an identity is looked up, not packed anew for each.
    prefixes = {size: codec.tag_prefix(size, model_bytes, False) for size in set(map(len, encoded))}
    tags = [prefixes[len(text)] + identity for text, identity in zip(encoded, identities, strict=True)]
    keys = space.keys(identities)
    if set(map(type, texts)) != {str}:
        for index, given in enumerate(texts):
            if isinstance(given, bytes):
                tags[index] = codec.tag_prefix(len(given), model_bytes, True) + identities[index]
                keys[index] = space.key_of_bytes(given, suffix[1:])
    return keys, tags


def pack_one(space: Keyspace, dtype: codec.StoredDtype, item: CacheItem, now: float) -> tuple[str, bytes, int | None]:
    """One item ready to be sent: its key, its packed value, and the seconds it lives or None.

    What `pack_items` does for many, without the lists that are worth their while only there.

    Raises:
        InvalidInputError: It cannot be stored.
    """
    model_name = item["model_name"]
    key, tag = pack_text(space, item["text"], model_name)
    (vector,) = _pack_vectors([item["embedding"]], [model_name], dtype)
    seconds = space.resolve_ttl(item.get("ttl"))
    rest = codec.pack_rest(now, pack_metadata(item.get("metadata")))
    return key, codec.encode(tag, vector, dtype, seconds, rest), seconds


def pack_items(space: Keyspace, dtype: codec.StoredDtype, items: Sequence[CacheItem], ttl: TTL, now: float) -> Writes:
    """Items ready to be sent, in order. Their fields are those that `check_fields` lets pass.

    Raises:
        InvalidInputError: One item cannot be stored; the error names its index where there are several.
    """
    batch_ttl = space.resolve_ttl(ttl)
    texts = [item["text"] for item in items]
    model_names = [item["model_name"] for item in items]
    keys, tags = _pack_identities(space, texts, model_names)
    vectors = _pack_vectors([item["embedding"] for item in items], model_names, dtype)
    ttls, rests = _ttls(space, items, batch_ttl), _rests(items, now)
    return Writes(keys, _values(tags, vectors, dtype, ttls, rests), ttls, model_names)


def _ttls(space: Keyspace, items: Sequence[CacheItem], batch_ttl: int | None) -> list[int | None]:
    return [
        batch_ttl if (own := item.get("ttl")) is None else space.resolve_ttl(own, index=position_in(items, index))
        for index, item in enumerate(items)
    ]


def _rests(items: Sequence[CacheItem], now: float) -> list[bytes]:
    plain = codec.pack_rest(now, pack_metadata(None))
    return [
        plain
        if (given := item.get("metadata")) is None
        else codec.pack_rest(now, pack_metadata(given, index=position_in(items, index)))
        for index, item in enumerate(items)
    ]


def _values(
    tags: Sequence[bytes],
    vectors: Sequence[codec.Buffer],
    dtype: codec.StoredDtype,
    ttls: Sequence[int | None],
    rests: Sequence[bytes],
) -> list[bytes]:
    return [
        codec.encode(tag, vector, dtype, seconds, rest)
        for tag, vector, seconds, rest in zip(tags, vectors, ttls, rests, strict=True)
    ]


class CheckedItems(NamedTuple):
    """Items of a large batch, all of them checked and none packed yet, as columns.

    What takes as much memory as the items themselves, values and texts in UTF-8, is made chunk by chunk in `pack`.
    Vectors are those that were given, or arrays of them; metadata is packed.
    """

    space: Keyspace
    dtype: codec.StoredDtype
    keys: list[str]
    texts: list[Text]
    model_names: list[str]
    vectors: list[npt.NDArray[Any]]
    ttls: list[int | None]
    rests: list[bytes]

    def pack(self, start: int, stop: int) -> Writes:
        """The items from `start` up to `stop`, ready to be sent."""
        part = slice(start, stop)
        model_names, ttls = self.model_names[part], self.ttls[part]
        _, tags = _pack_identities(self.space, self.texts[part], model_names)
        vectors = _pack_vectors(self.vectors[part], model_names, self.dtype)
        return Writes(self.keys[part], _values(tags, vectors, self.dtype, ttls, self.rests[part]), ttls, model_names)


def check_items(
    space: Keyspace, dtype: codec.StoredDtype, items: Sequence[CacheItem], ttl: TTL, now: float, at_once: int
) -> CheckedItems:
    """Items of a batch, checked as `pack_items` does, with the bytes of only so many of them in memory.

    Raises:
        InvalidInputError: One item cannot be stored; the error names its index.
    """
    batch_ttl = space.resolve_ttl(ttl)
    texts = [item["text"] for item in items]
    model_names = [item["model_name"] for item in items]
    keys: list[str] = []
    try:
        for start in range(0, len(texts), at_once):
            part = slice(start, start + at_once)
            keys += _pack_identities(space, texts[part], model_names[part])[0]
    except InvalidInputError:
        _pack_identities(space, texts, model_names)  # names its place among them all
        raise
    vectors = _check_vectors([item["embedding"] for item in items], model_names, dtype, at_once)
    ttls, rests = _ttls(space, items, batch_ttl), _rests(items, now)
    return CheckedItems(space, dtype, keys, texts, model_names, vectors, ttls, rests)


# ------------------------------------------------------------------------------------------------ fields


def check_fields(items: Sequence[CacheItem]) -> None:
    """Checks that items are dicts of the right keys.

    Raises:
        InvalidInputError: One is not; the error names its index where there are several.
    """
    check_batch(items, "items")
    if all(issubclass(kind, Mapping) for kind in set(map(type, items))) and all(
        _wrong_fields(layout) is None for layout in set(map(tuple, items))
    ):
        return
    for index, item in enumerate(items):
        if not isinstance(item, Mapping):
            raise InvalidInputError(f"an item is a dict, not {type(item).__name__}", index=position_in(items, index))
        if wrong := _wrong_fields(tuple(item)):
            raise InvalidInputError(wrong, index=position_in(items, index))


@lru_cache(maxsize=64)  # callers write their items in one or two ways, a million times
def _wrong_fields(fields: tuple[Any, ...]) -> str | None:
    """What is wrong with an item that has these fields, or None."""
    given = set(fields)
    if unknown := given - CacheItem.__annotations__.keys():
        return f"unknown {_names(unknown)}; an item has {_names(CacheItem.__annotations__)}"
    if missing := CacheItem.__required_keys__ - given:
        return f"{_names(missing)} is missing"
    return None


def _names(fields: Iterable[Any]) -> str:
    return ", ".join(repr(field) for field in sorted(fields, key=str))


# ------------------------------------------------------------------------------------------------ texts


def _pack_identities(
    space: Keyspace, texts: Sequence[Text], model_names: Sequence[str]
) -> tuple[list[str], list[bytes]]:
    """As `pack_texts`, where each text has a model name of its own."""
    if len(model_names) == 1 or (model_names and len(set(map(id, model_names))) == 1):
        encode_model_name(
            model_names[0], index=position_in(texts, 0)
        )  # here it is an item's, and the error names which
        return pack_texts(space, texts, model_names[0])
    encoded_texts = encode_texts(texts)
    tags: list[bytes] = []
    keys: list[str] = []
    for index, (given, text, name) in enumerate(zip(texts, encoded_texts, model_names, strict=True)):
        model = encode_model_name(name, index=position_in(texts, index))
        is_bytes, identity = isinstance(given, bytes), text + b":" + model
        keys.append(space.key_of_bytes(text, model) if is_bytes else space.key(identity))
        tags.append(codec.tag_prefix(len(text), len(model), is_bytes) + identity)
    return keys, tags


# ------------------------------------------------------------------------------------------------ vectors


def _pack_vectors(
    embeddings: Sequence[EmbeddingLike], model_names: Sequence[str], dtype: codec.StoredDtype
) -> list[codec.Buffer]:
    """Each embedding as it is stored, converted in one matrix per dimension."""
    matrix = _join(embeddings)
    if matrix is not None:
        return _finite(codec.encode_vectors(matrix, dtype), range(len(embeddings)), dtype, len(embeddings))
    vectors = [_as_vector(embedding, position_in(embeddings, i)) for i, embedding in enumerate(embeddings)]
    _check_dimensions(vectors, model_names)
    by_dimension: dict[int, list[int]] = {}
    for index, vector in enumerate(vectors):
        by_dimension.setdefault(len(vector), []).append(index)
    stored: list[codec.Buffer] = [b""] * len(vectors)
    for indexes in by_dimension.values():
        rows = codec.encode_vectors(np.array([vectors[index] for index in indexes]), dtype)
        for index, row in zip(indexes, _finite(rows, indexes, dtype, len(vectors)), strict=True):
            stored[index] = row
    return stored


def _check_vectors(
    embeddings: Sequence[EmbeddingLike], model_names: Sequence[str], dtype: codec.StoredDtype, at_once: int
) -> list[npt.NDArray[Any]]:
    """The embeddings as arrays, all of which `_pack_vectors` takes."""
    if _are_alike(embeddings):
        vectors = list(cast("Sequence[FloatArray]", embeddings))
    else:
        vectors = [_as_vector(embedding, position_in(embeddings, i)) for i, embedding in enumerate(embeddings)]
        _check_dimensions(vectors, model_names)
    for start in range(0, len(vectors), at_once):
        part = vectors[start : start + at_once]
        matrix = _join(part)
        matrices = [vector.reshape(1, -1) for vector in part] if matrix is None else [matrix]
        if not all(codec.all_fit(each, dtype) for each in matrices):
            _finite(
                [row for each in matrices for row in codec.encode_vectors(each, dtype)],
                range(start, start + len(part)),
                dtype,
                len(vectors),
            )
    return vectors


def _are_alike(embeddings: Sequence[EmbeddingLike]) -> bool:
    """Whether all are arrays of one real dtype and one shape, of one dimension."""
    if set(map(type, embeddings)) != {np.ndarray}:
        return False
    kinds = {(vector.shape, vector.dtype) for vector in embeddings if isinstance(vector, np.ndarray)}
    if len(kinds) != 1:
        return False
    ((shape, given),) = kinds
    return len(shape) == 1 and 1 <= shape[0] <= codec.MAX_DIMENSION and given.kind in "fiu"


def _join(embeddings: Sequence[EmbeddingLike]) -> FloatArray | None:
    """The embeddings as one matrix (n, d); None where they are not all arrays of one real dtype and one shape."""
    if not _are_alike(embeddings):
        return None
    if len(embeddings) == 1:
        return cast("FloatArray", embeddings[0]).reshape(1, -1)
    # A third of the time of np.array(embeddings), which asks each row for its shape once more.
    return np.concatenate(embeddings).reshape(len(embeddings), -1)


def _as_vector(embedding: EmbeddingLike, index: int | None) -> npt.NDArray[Any]:
    """The embedding as a 1-D array of real numbers, whether finite or not."""
    try:
        vector = np.asarray(embedding)
    except (TypeError, ValueError, RuntimeError) as error:  # RuntimeError: a tensor that is not in this memory
        raise InvalidEmbeddingError(f"the embedding is not a vector of numbers: {error}", index=index) from error
    if vector.ndim != 1:
        raise InvalidEmbeddingError(f"the embedding has shape {vector.shape}; a vector has one dimension", index=index)
    if not 1 <= len(vector) <= codec.MAX_DIMENSION:
        raise InvalidEmbeddingError(
            f"the embedding has {len(vector):,} components; it may have 1 to {codec.MAX_DIMENSION:,}", index=index
        )
    if vector.dtype.kind not in "fiu":
        raise InvalidEmbeddingError(f"the embedding holds {vector.dtype}, not real numbers", index=index)
    return vector


def _check_dimensions(vectors: Sequence[npt.NDArray[Any]], model_names: Sequence[str]) -> None:
    """Within a batch, one model has one dimension."""
    expected: dict[str, int] = {}
    for index, (vector, model_name) in enumerate(zip(vectors, model_names, strict=True)):
        dimension = expected.setdefault(model_name, len(vector))
        if len(vector) != dimension:
            raise InvalidEmbeddingError(
                f"the embedding has {len(vector)} components, those before it of the same model {dimension}",
                index=index,
            )


def _finite(
    rows: Sequence[codec.Buffer | None], indexes: Sequence[int], dtype: codec.StoredDtype, count: int
) -> list[codec.Buffer]:
    """The rows of a batch of `count` items, of which these are at `indexes`, each known to be there."""
    found: list[codec.Buffer] = []
    for row, index in zip(rows, indexes, strict=True):
        if row is None:
            raise InvalidEmbeddingError(
                f"the embedding holds NaN, infinity, or a number too large for {dtype.name}",
                index=index if count > 1 else None,
            )
        found.append(row)
    return found
