"""Metadata: JSON objects in, the same objects out."""

from __future__ import annotations

import json
from collections import OrderedDict
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any

import msgpack
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedcache.errors import InvalidMetadataError
from embedcache.metadata import MAX_DEPTH, MAX_METADATA_BYTES, pack_metadata

keys = st.text(st.characters(exclude_categories=["Cs"]), max_size=10)
json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | keys,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(keys, inner, max_size=4),
)


def stored(metadata: Any) -> Any:
    return msgpack.unpackb(pack_metadata(metadata))


def nested(levels: int) -> dict[str, Any]:
    """An object of that many levels."""
    inner: dict[str, Any] = {}
    for _ in range(levels - 1):
        inner = {"a": inner}
    return inner


def cyclic() -> dict[str, Any]:
    metadata: dict[str, Any] = {}
    metadata["self"] = [metadata]
    return metadata


@given(st.dictionaries(keys, json_values, max_size=6))
def test_a_json_object_is_kept_as_it_is(metadata: dict[str, Any]) -> None:
    assert stored(metadata) == metadata
    assert json.dumps(stored(metadata)) == json.dumps(metadata)  # which tells 1 from 1.0 and True, and keeps the order


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        (None, None),
        ({}, {}),
        ({"a": (1, 2)}, {"a": [1, 2]}),
        ({"a": np.float32(0.5), "b": np.int64(-3), "c": np.bool_(True), "d": np.str_("x")}, None),
        (OrderedDict(a=1), {"a": 1}),
        (MappingProxyType({"a": MappingProxyType({"b": 1})}), {"a": {"b": 1}}),
        ({"a": -(2**63), "b": 2**64 - 1}, {"a": -(2**63), "b": 2**64 - 1}),
    ],
)
def test_what_becomes_plain(given: Any, kept: Any) -> None:
    if kept is None and given is not None:
        kept = {"a": 0.5, "b": -3, "c": True, "d": "x"}
    assert json.dumps(stored(given)) == json.dumps(kept)


@pytest.mark.parametrize(
    ("metadata", "words"),
    [
        ([1], "metadata is a dict or None, not list"),
        ("text", "metadata is a dict or None, not str"),
        (5, "not int"),
        ({"a": {1, 2}}, r"metadata\['a'\] is a set, which is not JSON"),
        ({"a": [0, b"x"]}, r"metadata\['a'\]\[1\] is a bytes"),
        ({"a": datetime(2024, 1, 1, tzinfo=UTC)}, "is a datetime"),
        ({"a": object()}, "is a object"),
        ({"a": 1j}, "is a complex"),
        ({"a": np.array([1])}, "is a ndarray"),
        ({"a": np.datetime64("2024-01-01")}, "is a date"),
        ({"a": float("nan")}, r"metadata\['a'\] is nan, which JSON has no word for"),
        ({"a": [float("-inf")]}, r"metadata\['a'\]\[0\] is -inf"),
        ({"a": np.float32("inf")}, "is inf"),
        ({"a": 2**64}, "integer of more than 64 bits"),
        ({"a": -(2**63) - 1}, "integer of more than 64 bits"),
        ({1: "a"}, r"metadata has the key 1; keys are str"),
        ({"a": {None: 1}}, r"metadata\['a'\] has the key None"),
        ({"a": {b"k": 1}}, "keys are str"),
        ({"a": "x\ud800"}, "lone surrogates"),
        ({"x\ud800": 1}, "lone surrogates"),
        (nested(MAX_DEPTH + 1), "deeper than 32 levels"),
        (nested(5_000), "deeper than 32 levels"),
        (cyclic(), "deeper than 32 levels"),
        ({"a": "x" * MAX_METADATA_BYTES}, r"metadata takes 1,048,58\d bytes; the most is 1,048,576"),
    ],
)
def test_what_is_not_json_is_refused_and_named(metadata: Any, words: str) -> None:
    with pytest.raises(InvalidMetadataError, match=words) as caught:
        pack_metadata(metadata, index=4)
    assert caught.value.index == 4
    assert str(caught.value).startswith("item 4: ")


def test_the_deepest_and_the_largest_are_kept() -> None:
    assert stored(nested(MAX_DEPTH)) == nested(MAX_DEPTH)
    large = {"a": "x" * (MAX_METADATA_BYTES - 10)}
    assert stored(large) == large


def test_what_was_passed_in_is_not_changed() -> None:
    inner = (np.float32(1), [2])
    metadata = {"a": inner}
    pack_metadata(metadata)
    assert metadata == {"a": inner}
    assert metadata["a"] is inner
    assert type(inner[0]) is np.float32
