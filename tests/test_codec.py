"""The packed value: read byte by byte without our decoder, round trips, and what damage does to it."""

from __future__ import annotations

import struct
import warnings
from hashlib import sha256
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from playing import written
from xxhash import xxh3_64_intdigest

from embedcache import codec
from embedcache.errors import InvalidEmbeddingError, InvalidInputError
from embedcache.keyspace import Keyspace
from embedcache.matrices import decode_matrix
from embedcache.packing import pack_texts

SPACE = Keyspace("c")
MODEL = "a/model"
NOW = 1_700_000_000.25

# Every str that UTF-8 can encode, and that is not blank.
strings = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=40).filter(lambda s: s.strip())
texts = strings | st.binary(min_size=1, max_size=40).filter(lambda b: b.strip())
scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
)
json_objects = st.dictionaries(
    st.text(st.characters(exclude_categories=["Cs"]), max_size=10),
    st.recursive(
        scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text("ab"), inner, max_size=4)
    ),
    max_size=5,
)


def vectors(dtype: str, largest: float) -> st.SearchStrategy[np.ndarray]:
    width = np.dtype(dtype).itemsize * 8
    elements = st.floats(-largest, largest, width=width, allow_nan=False, allow_infinity=False)
    return arrays.arrays(dtype, st.integers(1, 40), elements=elements)


def packed(
    text: str | bytes = "What is it?",
    embedding: Any = (0.5, -1.0, 2.0),
    metadata: Any = None,
    ttl: int | None = None,
    *,
    model: str = MODEL,
    dtype: str = "float32",
) -> tuple[str, bytes]:
    """The key and the value that a cache stores."""
    item = {"text": text, "model_name": model, "embedding": embedding, "metadata": metadata, "ttl": ttl}
    return written(item, space=SPACE, dtype=dtype, now=NOW)


def decode(value: bytes | None, text: str | bytes = "What is it?", model: str = MODEL) -> Any:
    """What `get` makes of a value found under the text's key."""
    (key,), (tag,) = pack_texts(SPACE, [text], model)
    return codec.decode(value, key, tag, text, model)


def decode_rows(value: bytes | None, text: str | bytes = "What is it?", model: str = MODEL) -> Any:
    """What `mget_embeddings` makes of it."""
    _, tags = pack_texts(SPACE, [text], model)
    return decode_matrix([value], tags, None)[:2]


def is_a_miss_everywhere(value: bytes, key: str, text: str | bytes = "What is it?", model: str = MODEL) -> bool:
    matrix, mask = decode_rows(value, text, model)
    return (
        decode(value, text, model) is None
        and codec.decode_by_key(value, key) is None
        and mask.tolist() == [False]
        and matrix.shape == (1, 0)
    )


# ------------------------------------------------------------------------------------------------ an own reader


class MessagePackReader:
    """Just enough MessagePack, from its specification, to read an entry's head."""

    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def take(self, form: str) -> Any:
        (value,) = struct.unpack_from(">" + form, self.data, self.at)
        self.at += struct.calcsize(form)
        return value

    def text(self, length: int) -> str:
        return self.take(f"{length}s").decode()

    def array(self, length: int) -> list[Any]:
        return [self.read() for _ in range(length)]

    def map(self, length: int) -> dict[str, Any]:
        return {self.read(): self.read() for _ in range(length)}

    def read(self) -> Any:
        first = self.take("B")
        numbers = dict(zip(range(0xCA, 0xD4), "fdBHIQbhiq", strict=True))
        if first in numbers:
            return self.take(numbers[first])
        if first <= 0x7F or first >= 0xE0:
            return first if first <= 0x7F else first - 256
        short = {0x80: (self.map, 15), 0x90: (self.array, 15), 0xA0: (self.text, 31), 0xB0: (self.text, 31)}
        if first < 0xC0:
            reader, bits = short[first & 0xF0]
            return reader(first & bits)
        if first <= 0xC3:
            return {0xC0: None, 0xC2: False, 0xC3: True}[first]
        reader, form = {
            0xD9: (self.text, "B"),
            0xDA: (self.text, "H"),
            0xDB: (self.text, "I"),
            0xDC: (self.array, "H"),
            0xDD: (self.array, "I"),
            0xDE: (self.map, "H"),
            0xDF: (self.map, "I"),
        }[first]
        return reader(self.take(form))


def read_by_the_book(value: bytes) -> dict[str, Any]:
    """A packed value by its documentation alone."""
    magic, version, ttl, checksum, offset, packing, kind, model_length, text_length = struct.unpack_from(
        "<3sBIIIBBHI", value
    )
    text, colon = value[24 : 24 + text_length], value[24 + text_length : 25 + text_length]
    model_end = 25 + text_length + model_length
    reader = MessagePackReader(value[model_end:])
    inserted_at, metadata = reader.read()
    item, start = {
        1: ("f", offset),
        2: ("d", offset),
        3: ("e", offset),
        4: ("b", offset + 4),
    }[packing & 15]
    components = [part for (part,) in struct.iter_unpack("<" + item, value[start:])]
    return {
        "magic": magic,
        "version": version,
        "ttl": ttl,
        "checksum_agrees": checksum == xxh3_64_intdigest(value[12:]) % 2**32,
        "text": text.decode() if kind == 0 else text,
        "colon": colon,
        "model_name": value[25 + text_length : model_end].decode(),
        "inserted_at": inserted_at,
        "metadata": metadata,
        "padding": value[model_end + reader.at : offset],
        "padding_length": packing >> 4,
        "offset": offset,
        "scale": struct.unpack_from("<f", value, offset)[0] if packing & 15 == 4 else None,
        "vector": components,
    }


@given(text=texts, model=strings, metadata=st.none() | json_objects, ttl=st.none() | st.integers(1, 2**32 - 1))
def test_a_value_reads_as_its_documentation_says(
    text: str | bytes, model: str, metadata: dict[str, Any] | None, ttl: int | None
) -> None:
    _, value = packed(text, [0.5, -1.0, 2.0], metadata, ttl, model=model)
    read = read_by_the_book(value)
    assert (read["magic"], read["version"], read["checksum_agrees"]) == (b"EMB", 1, True)
    assert read["text"] == text
    assert type(read["text"]) is type(text)
    assert (read["colon"], read["model_name"]) == (b":", model)
    assert read["ttl"] == (ttl or 0)
    assert (read["inserted_at"], read["metadata"]) == (NOW, metadata)
    assert read["vector"] == [0.5, -1.0, 2.0]
    assert read["offset"] % 8 == 0
    assert read["padding"] == bytes(read["padding_length"])


@pytest.mark.parametrize(
    ("dtype", "stored"),
    [
        ("float32", [0.5, -1.0, 2.0]),
        ("float64", [0.5, -1.0, 2.0]),
        ("float16", [0.5, -1.0, 2.0]),
        ("int8", [32, -64, 127]),
    ],
)
def test_each_dtype_reads_as_its_documentation_says(dtype: str, stored: list[float]) -> None:
    _, value = packed(dtype=dtype)
    read = read_by_the_book(value)
    assert read["vector"] == stored
    assert read["scale"] == (pytest.approx(2.0 / 127) if dtype == "int8" else None)


def test_the_identity_in_the_value_is_what_the_key_is_the_hash_of() -> None:
    key, value = packed("What is machine learning?", model="redis/langcache-embed-v1")
    length = len("What is machine learning?:redis/langcache-embed-v1")
    assert key == "c:" + sha256(value[24 : 24 + length]).hexdigest()
    assert key.startswith("c:909f463a")


@given(text=texts, dimension=st.integers(1, 2000))
def test_a_value_is_little_larger_than_its_vector_and_its_text(text: str | bytes, dimension: int) -> None:
    _, value = packed(text, np.ones(dimension, np.float32), {"category": "ai", "source": "user_query"})
    length = len(text if isinstance(text, bytes) else text.encode())
    assert len(value) <= 1.15 * (4 * dimension + length + 200)


# ------------------------------------------------------------------------------------------------ round trips


@given(text=texts, model=strings, metadata=st.none() | json_objects, ttl=st.none() | st.integers(1, 2**32 - 1))
def test_what_goes_in_comes_out(text: str | bytes, model: str, metadata: Any, ttl: int | None) -> None:
    key, value = packed(text, [0.5, -1.0], metadata, ttl, model=model)
    for entry in (decode(value, text, model), codec.decode_by_key(value, key)):
        assert entry["text"] == text
        assert type(entry["text"]) is type(text)
        assert (entry["key"], entry["entry_id"]) == (key, key[2:])
        assert (entry["model_name"], entry["metadata"], entry["ttl"]) == (model, metadata, ttl)
        assert entry["inserted_at"] == NOW
        assert entry["embedding"].tolist() == [0.5, -1.0]


def test_an_entry_has_its_keys_in_the_documented_order() -> None:
    key, value = packed()
    expected = ["entry_id", "key", "text", "model_name", "embedding", "inserted_at", "metadata", "ttl"]
    assert list(decode(value)) == expected
    assert list(codec.decode_by_key(value, key)) == expected


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@given(data=st.data())
def test_float32_and_float64_are_exact(dtype: str, data: st.DataObject) -> None:
    vector = data.draw(vectors(dtype, float(np.finfo(dtype).max)))
    _, value = packed(embedding=vector, dtype=dtype)
    for read in (decode(value)["embedding"], decode_rows(value)[0][0]):
        assert read.dtype == np.dtype(dtype)
        assert read.tobytes() == vector.tobytes()


@given(vector=vectors("float32", 65504.0))
def test_float16_is_as_close_as_a_half_is(vector: np.ndarray) -> None:
    _, value = packed(embedding=vector, dtype="float16")
    for read in (decode(value)["embedding"], decode_rows(value)[0][0]):
        assert read.dtype == np.float32
        np.testing.assert_allclose(read, vector, rtol=2**-11, atol=2**-25)


@given(vector=vectors("float32", float(np.finfo("float32").max)))
@example(vector=np.array([np.finfo("float32").max * 0.9999996], np.float32))
@example(vector=np.zeros(3, np.float32))
def test_int8_is_within_half_a_step_of_the_largest_component(vector: np.ndarray) -> None:
    largest = float(np.abs(vector).max())
    assume(largest == 0 or largest > 1e-30)  # below, float32 itself runs out of digits
    _, value = packed(embedding=vector, dtype="int8")
    for read in (decode(value)["embedding"], decode_rows(value)[0][0]):
        assert read.dtype == np.float32
        assert np.isfinite(read).all()
        assert np.abs(read.astype(np.float64) - vector).max() <= largest / 127 * 0.5001


def test_int8_of_a_tiny_vector_is_near_zero_and_not_infinite() -> None:
    _, value = packed(embedding=np.array([1e-45, -1e-44], np.float32), dtype="int8")
    assert np.abs(decode(value)["embedding"]).max() <= 2e-44


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "int8"])
def test_the_largest_numbers_pass_without_a_warning(dtype: str) -> None:
    largest = np.finfo("float32" if dtype == "int8" else dtype).max
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        _, value = packed(embedding=np.full(8, largest), dtype=dtype)
        assert np.isfinite(decode(value)["embedding"]).all()
        for bad in (np.full(8, np.inf), np.array([largest, np.nan]), np.array([-np.inf, np.inf])):
            with pytest.raises(InvalidEmbeddingError, match="NaN, infinity, or a number too large"):
                packed(embedding=bad, dtype=dtype)


def test_an_embedding_cannot_be_written_to() -> None:
    for dtype in ("float32", "float64", "float16", "int8"):
        _, value = packed(dtype=dtype)
        with pytest.raises(ValueError, match="read-only"):
            decode(value)["embedding"][0] = 1.0


def test_an_unknown_dtype_is_refused_by_name() -> None:
    for name in ("float128", "", None, 3, ["float32"]):
        with pytest.raises(InvalidInputError, match="float32, float64, float16, int8"):
            codec.stored_dtype(name)


# ------------------------------------------------------------------------------------------------ who is asked for


def test_two_texts_of_one_key_are_told_apart() -> None:
    one_key, one = packed("a", model="b:c")
    other_key, other = packed("a:b", model="c")
    assert one_key == other_key
    assert decode(one, "a", "b:c")["text"] == "a"
    assert decode(one, "a:b", "c") is None
    assert decode_rows(one, "a:b", "c")[1].tolist() == [False]
    assert decode(other, "a", "b:c") is None


def test_a_str_and_its_bytes_are_told_apart() -> None:
    one_key, as_str = packed("ab")
    other_key, as_bytes = packed(b"ab")
    assert one_key == other_key
    assert decode(as_str, b"ab") is None
    assert decode(as_bytes, "ab") is None
    assert codec.decode_by_key(as_bytes, other_key)["text"] == b"ab"


def test_a_value_under_another_key_is_a_miss() -> None:
    key, value = packed("one")
    assert codec.decode_by_key(value, packed("other")[0]) is None
    assert codec.decode_by_key(value, key) is not None


def test_nothing_is_a_miss() -> None:
    assert decode(None) is None
    assert codec.decode_by_key(None, "c:" + "0" * 64) is None
    assert decode_rows(None)[1].tolist() == [False]


# ------------------------------------------------------------------------------------------------ damage

DAMAGED = [
    pytest.param({}, id="plain"),
    pytest.param({"metadata": {"a": [1, "b"]}}, id="metadata"),
    pytest.param({"dtype": "int8"}, id="int8"),
    pytest.param({"dtype": "float16"}, id="float16"),
    pytest.param({"dtype": "float64"}, id="float64"),
]


@pytest.mark.parametrize("fields", DAMAGED)
def test_every_truncated_value_is_a_miss(fields: dict[str, Any]) -> None:
    key, value = packed(**fields)
    assert not is_a_miss_everywhere(value, key)
    for length in range(len(value)):
        assert is_a_miss_everywhere(value[:length], key), length
    assert is_a_miss_everywhere(value + b"\0" * 8, key)


@pytest.mark.parametrize("fields", DAMAGED)
def test_every_flipped_bit_is_a_miss(fields: dict[str, Any]) -> None:
    key, value = packed(**fields)
    for position in set(range(len(value))) - set(range(4, 8)):
        for bit in range(8):
            damaged = bytearray(value)
            damaged[position] ^= 1 << bit
            assert is_a_miss_everywhere(bytes(damaged), key), (position, bit)


def test_another_ttl_is_no_damage() -> None:
    key, value = packed(ttl=60)
    changed = codec.with_ttl(value, 90)
    assert decode(changed)["ttl"] == codec.decode_by_key(changed, key)["ttl"] == codec.own_ttl(changed) == 90
    assert decode(codec.with_ttl(value, None))["ttl"] is None


@pytest.mark.parametrize("version", [0, 2, 255])
def test_another_version_is_a_miss(version: int) -> None:
    key, value = packed()
    other = value[:3] + bytes([version]) + value[4:]
    assert is_a_miss_everywhere(other, key)
    assert codec.decode_head(other) is None
    assert codec.own_ttl(other) is None


@given(st.binary(max_size=200).filter(lambda value: not value.startswith(b"EMB\x01")))
def test_strangers_bytes_are_a_miss(value: bytes) -> None:
    assert is_a_miss_everywhere(value, packed()[0])
    assert codec.own_ttl(value) is None
    assert codec.decode_head(value) is None


@given(
    offset=st.integers(0, 2**32 - 1) | st.integers(0, 200),
    packing=st.integers(0, 255),
    tail=st.binary(max_size=100),
)
def test_a_forged_value_with_a_right_checksum_never_raises(offset: int, packing: int, tail: bytes) -> None:
    (key,), (tag,) = pack_texts(SPACE, ["What is it?"], MODEL)
    checked = struct.pack("<IB", offset, packing) + tag + tail
    value = struct.pack("<4sII", b"EMB\x01", 0, codec.checksum(checked)) + checked
    for entry in (decode(value), codec.decode_by_key(value, key)):
        assert entry is None or entry["embedding"].ndim == 1
    matrix, mask = decode_rows(value)
    assert (matrix.shape[0], mask.shape) == (1, (1,))
    head = codec.decode_head(value)
    assert head is None or head.text == "What is it?"


# ------------------------------------------------------------------------------------------------ heads


def test_a_head_is_read_without_the_vector() -> None:
    _, value = packed(metadata={"a": 1}, ttl=60, dtype="int8")
    whole = codec.decode_head(value)
    assert (whole.text, whole.model_name, whole.dtype.name) == ("What is it?", MODEL, "int8")
    assert (whole.inserted_at, whole.metadata, whole.ttl) == (NOW, {"a": 1}, 60)
    assert codec.decode_head(value[: whole.vector_offset]) == whole
    assert codec.decode_head(value[: whole.vector_offset - 1]) is None
    assert codec.dimension(whole, len(value)) == 3


# ------------------------------------------------------------------------------------------------ matrices


@given(st.lists(st.sampled_from(["float32", "float64", "float16", "int8", "other width", "missing", "damaged"])))
def test_a_matrix_has_each_hit_in_its_row(kinds: list[str]) -> None:
    values: list[bytes | None] = []
    names = [f"text {position}" for position in range(len(kinds))]
    for position, (kind, name) in enumerate(zip(kinds, names, strict=True)):
        dtype = kind if kind in ("float32", "float64", "float16", "int8") else "float32"
        vector = [0.0, float(position)] if kind != "other width" else [1.0, 2.0, 3.0]
        _, value = packed(name, vector, dtype=dtype)
        values.append({"missing": None, "damaged": value[:-1]}.get(kind, value))
    _, tags = pack_texts(SPACE, names, MODEL)
    matrix, mask, _ = decode_matrix(values, tags, 2)
    stored = [kind in ("float32", "float64", "float16", "int8") for kind in kinds]
    assert mask.tolist() == stored
    assert matrix.shape == (len(kinds), 2)
    for position, hit in enumerate(stored):
        if hit:
            assert matrix[position] == pytest.approx([0.0, position], rel=1e-6)
        else:
            assert np.isnan(matrix[position]).all()
    only_float64 = any(stored) and set(np.array(kinds)[stored]) == {"float64"}
    assert matrix.dtype == (np.float64 if only_float64 else np.float32)


def test_without_a_dimension_the_first_hit_gives_it() -> None:
    values = [packed("a", [1.0, 2.0])[1], packed("b", [1.0, 2.0, 3.0])[1], packed("c", [3.0, 4.0])[1]]
    _, tags = pack_texts(SPACE, ["a", "b", "c"], MODEL)
    matrix, mask, _ = decode_matrix(values, tags, None)
    assert mask.tolist() == [True, False, True]
    np.testing.assert_array_equal(matrix, [[1, 2], [np.nan, np.nan], [3, 4]])
    assert decode_matrix(values, tags, 3)[1].tolist() == [False, True, False]
    assert decode_matrix([None], tags[:1], 5)[0].shape == (1, 5)


@pytest.mark.parametrize("name", ["float32", "float64", "float16", "int8"])
def test_rounded_is_what_storing_and_reading_would_give(name: str) -> None:
    dtype = codec.stored_dtype(name)
    matrix = np.random.default_rng(5).normal(size=(20, 33))
    rounded = codec.rounded(matrix, dtype)
    item = {"text": "t", "model_name": "m", "embedding": matrix[7]}
    key, value = written(item, space=SPACE, dtype=name)
    entry = codec.decode_by_key(value, key)
    assert entry is not None
    np.testing.assert_array_equal(rounded[7], entry["embedding"])
    assert rounded.shape == matrix.shape


def test_rounded_is_nan_where_a_dtype_cannot_hold_a_vector() -> None:
    rounded = codec.rounded(np.array([[1.0, 2.0], [1.0, 1e6]]), codec.stored_dtype("float16"))
    np.testing.assert_array_equal(rounded, [[1.0, 2.0], [np.nan, np.nan]])
