"""The sieve lets through exactly what decoding each head would: it is quicker, and nothing else."""

from __future__ import annotations

import struct
from typing import Any

import msgpack
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from embedcache import codec
from embedcache.filtering import EntryFilter
from embedcache.sieve import Sieve

NAMES = st.sampled_from(["topic", "source", "page", "a.b", "b", "", "ü", "source.page", "o"])
LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**64 - 1),
    st.integers(-40, 300),
    st.floats(allow_nan=False),
    st.sampled_from(["true", "3", "3.0", "null", "", "x y", "ü", "topic", " 3 "]),
    st.text(max_size=4),
)
OBJECTS = st.recursive(
    st.dictionaries(NAMES, LEAVES, max_size=3),
    lambda inner: st.dictionaries(
        NAMES, st.one_of(LEAVES, inner, st.lists(st.one_of(LEAVES, inner), max_size=3)), max_size=3
    ),
    max_leaves=8,
)
TYPED = st.one_of(
    st.sampled_from(
        ["true", "False", " null ", "3", "3.0", "+3", "1e3", "-0", "0", "", "1e999", "-1e999", "0.1", "10" * 200]
    ),
    LEAVES.map(lambda leaf: leaf if isinstance(leaf, str) else str(leaf).lower()),
    st.integers(-40, 300).map(str),
)
PATHS = st.one_of(NAMES.filter(bool), st.tuples(NAMES, NAMES).map(".".join), st.just("..."))


def value_of(metadata: bytes, text: bytes = b"a text", model: bytes = b"a/model") -> bytes:
    """A packed value that holds these bytes as its metadata."""
    dtype = codec.stored_dtype("float32")
    (vector,) = codec.encode_vectors(np.ones((1, 2), np.float32), dtype)
    tag = codec.tag_prefix(len(text), len(model), False) + text + b":" + model
    return codec.encode(tag, vector or b"", dtype, None, codec.pack_rest(1_700_000_000.25, metadata))


def by_decoding(asked: EntryFilter, packed: bytes) -> bool:
    head = codec.decode_head(packed)
    return head is not None and asked.matches_head(head.text, head.metadata)


def leaves_of(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return [leaf for item in value.values() for leaf in leaves_of(item)]
    return [leaf for item in value for leaf in leaves_of(item)] if isinstance(value, list) else [value]


@given(metadata=OBJECTS | st.none(), path=PATHS, typed=TYPED, single=st.booleans())
@example(metadata={"page": 3}, path="page", typed="3.0", single=False)
@example(metadata={"page": 3.0}, path="page", typed="3", single=True)
@example(metadata={"page": -0.0}, path="page", typed="0", single=True)
@example(metadata={"page": [True, "x"]}, path="page", typed="TRUE", single=False)
@example(metadata={"source": {"page": 2**64 - 1}}, path="source.page", typed=str(2**64 - 1), single=False)
@example(metadata={"page": float("inf")}, path="page", typed="1e999", single=True)
def test_it_agrees_with_decoding(metadata: Any, path: str, typed: str, single: bool) -> None:
    try:
        packed = value_of(msgpack.packb(metadata, use_single_float=single))
    except OverflowError:  # a number too large for a single float
        packed = value_of(msgpack.packb(metadata))
    asked = EntryFilter(metadata_field=path, metadata_value=typed)
    assert Sieve(asked).matches(packed) == by_decoding(asked, packed)


@given(metadata=OBJECTS)
def test_what_is_there_is_found(metadata: Any) -> None:
    packed = value_of(msgpack.packb(metadata))
    for field, value in metadata.items():
        for leaf in leaves_of(value) if field and not isinstance(value, dict) else ():
            asked = EntryFilter(metadata_field=field, metadata_value=leaf if isinstance(leaf, str) else str(leaf))
            assert Sieve(asked).matches(packed) == by_decoding(asked, packed)


@pytest.mark.parametrize("typed", ["3", "3.0", "-3", "200", "0", "true", "1.5"])
def test_numbers_are_found_however_they_were_packed(typed: str) -> None:
    number = float(typed) if typed != "true" else 1.0
    forms = [bytes([0xCA]) + struct.pack(">f", number), bytes([0xCB]) + struct.pack(">d", number)]
    for first, form in zip(range(0xCC, 0xD4), (">B", ">H", ">I", ">Q", ">b", ">h", ">i", ">q"), strict=True):
        try:
            forms.append(bytes([first]) + struct.pack(form, int(number)))
        except struct.error:
            continue
    for packed_number in forms:
        packed = value_of(b"\x81\xa1n" + packed_number)
        asked = EntryFilter(metadata_field="n", metadata_value=typed)
        assert Sieve(asked).matches(packed) == by_decoding(asked, packed)
        if typed in {"3", "3.0", "-3", "200", "0"}:
            assert Sieve(asked).matches(packed)


@given(damage=st.binary(max_size=80), at=st.integers(0, 120), keep=st.integers(0, 120))
def test_damaged_heads_are_as_if_decoded(damage: bytes, at: int, keep: int) -> None:
    whole = value_of(msgpack.packb({"page": 3, "topic": "x"}))
    asked = EntryFilter(metadata_field="page", metadata_value="3")
    for packed in (whole[:keep], whole[:at] + damage + whole[at + len(damage) :], damage):
        assert Sieve(asked).matches(packed) == by_decoding(asked, packed)
    assert not Sieve(asked).matches(None)


@pytest.mark.parametrize(("contains", "found"), [("A TEXT", True), ("another", False)])
def test_text_and_metadata_must_both_be_there(contains: str, found: bool) -> None:
    packed = value_of(msgpack.packb({"page": 3}))
    assert Sieve(EntryFilter(text_contains=contains)).matches(packed) == found
    both = EntryFilter(text_contains=contains, metadata_field="page", metadata_value="3")
    assert Sieve(both).matches(packed) == found
    assert not Sieve(EntryFilter(text_contains=contains, metadata_field="page", metadata_value="4")).matches(packed)
