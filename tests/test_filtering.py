"""Filters: what they match, beside a plain reading of the same words, and what they refuse."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedcache.errors import InvalidInputError
from embedcache.filtering import EntryFilter

WORDS = st.text("abAB ß.3", max_size=6)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.floats(-2, 2, width=16) | WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["a", "b", "a.b"]), inner, max_size=3),
    max_leaves=8,
)


@given(WORDS, WORDS.filter(bool))
def test_a_text_contains_what_is_typed_in_either_case(text: str, asked: str) -> None:
    asks = EntryFilter(text_contains=asked)
    expected = asked.casefold() in text.casefold()
    assert asks.matches_text(text) == expected
    assert asks.matches_text(text.encode()) == expected


def test_bytes_that_are_no_text_contain_nothing() -> None:
    assert not EntryFilter(text_contains="png").matches_text(b"\x89PNG")
    assert EntryFilter().matches_text(b"\x89PNG")


@pytest.mark.parametrize(
    ("typed", "stored"),
    [
        *(("3", 3), ("3", 3.0), ("3.0", 3), (" 3 ", 3), ("3", "3"), ("-1.5e2", -150), (".5", 0.5)),
        *(("true", True), ("True", True), ("false", False), ("null", None), ("true", "true"), ("", "")),
        *(("9007199254740993", 9007199254740993), ("b", ["a", "b"]), ("2", [1, 2])),
    ],
)
def test_a_value_is_what_people_type(typed: str, stored: Any) -> None:
    assert EntryFilter(metadata_field="f", metadata_value=typed).matches_metadata({"f": stored})


@pytest.mark.parametrize(
    ("typed", "stored"),
    [
        *(("3", 4), ("3", True), ("1", True), ("0", False), ("0", None), ("", None), ("true", 1), ("Ab", "ab")),
        *(("nan", 0.0), ("1_0", 10), ("3", {"3": 3}), ("9007199254740993", 9007199254740992), ("b", [["b"]])),
    ],
)
def test_a_value_is_not_what_is_merely_like_it(typed: str, stored: Any) -> None:
    assert not EntryFilter(metadata_field="f", metadata_value=typed).matches_metadata({"f": stored})


def paths(value: Any, prefix: str = "") -> list[tuple[str, Any]]:
    """Every path into nested objects, written with dots, and what is there."""
    if not isinstance(value, dict):
        return []
    return [pair for key, inner in value.items() for pair in [(prefix + key, inner), *paths(inner, f"{prefix}{key}.")]]


@given(
    st.dictionaries(st.sampled_from(["a", "b", "a.b"]), JSON, max_size=3), st.sampled_from(["a", "b", "a.b", "a.a.b"])
)
def test_a_dotted_path_leads_wherever_it_can_be_cut(metadata: dict[str, Any], path: str) -> None:
    strings = {value for found, value in paths(metadata) if found == path and isinstance(value, str)}
    for value in strings:
        assert EntryFilter(metadata_field=path, metadata_value=value).matches_metadata(metadata)
    if not any(found == path for found, _ in paths(metadata)):
        assert not EntryFilter(metadata_field=path, metadata_value="").matches_metadata(metadata)


def test_no_metadata_has_no_field() -> None:
    asks = EntryFilter(metadata_field="f", metadata_value="null")
    assert not asks.matches_metadata(None)
    assert not asks.matches_metadata({"g": None})
    assert asks.matches_metadata({"f": None})


def test_both_parts_of_a_head_must_match() -> None:
    asks = EntryFilter(text_contains="a", metadata_field="f", metadata_value="1")
    assert asks.matches_head("A", {"f": 1})
    assert not asks.matches_head("b", {"f": 1})
    assert not asks.matches_head("a", {"f": 2})


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"text_contains": ""}, "text_contains"),
        ({"text_contains": b"a"}, "text_contains"),
        ({"text_contains": "a" * 1_001}, "text_contains"),
        ({"model_name": ""}, "model_name"),
        ({"metadata_field": "f"}, "metadata_value"),
        ({"metadata_value": "f"}, "metadata_field"),
        ({"metadata_field": "f", "metadata_value": 3}, "metadata_value"),
        ({"min_age": -1}, "min_age"),
        ({"max_age": float("nan")}, "max_age"),
        ({"min_idle": "1"}, "min_idle"),
        ({"expires_within": True}, "expires_within"),
        ({"min_age": 2, "max_age": 1}, "min_age"),
        ({"min_bytes": 2, "max_bytes": 1}, "min_bytes"),
        ({"min_bytes": 1.5}, "min_bytes"),
        ({"max_bytes": -1}, "max_bytes"),
        ({"never_expires": "yes"}, "never_expires"),
        ({"unreadable": False}, "unreadable"),
        ({"never_expires": True, "expires_within": 1}, "never_expires"),
        ({"unreadable": True, "text_contains": "a"}, "unreadable"),
        ({"unreadable": True, "model_name": "m"}, "unreadable"),
    ],
)
def test_what_cannot_be_asked_is_named(fields: dict[str, Any], named: str) -> None:
    with pytest.raises(InvalidInputError, match=named):
        EntryFilter(**fields)
    with pytest.raises(InvalidInputError, match=named):
        EntryFilter.from_dict(fields)


def test_a_field_that_no_filter_has_is_named() -> None:
    with pytest.raises(InvalidInputError, match="'older_than' is no field of a filter"):
        EntryFilter.from_dict({"older_than": 3})


def test_a_filter_is_a_key_and_survives_json() -> None:
    full = EntryFilter(
        text_contains="ü*?[", model_name="m", metadata_field="a.b", metadata_value="", min_age=0, max_age=2.5,
        min_idle=3, expires_within=4, never_expires=False, min_bytes=1, max_bytes=2,
    )  # fmt: skip
    for asks in (full, EntryFilter(), EntryFilter(unreadable=True)):
        again = EntryFilter.from_dict(json.loads(json.dumps(asks.to_dict())))
        assert again == asks
        assert hash(again) == hash(asks)
    assert full.needs_heads
    assert not full.is_empty
    assert EntryFilter().is_empty
    assert not EntryFilter(min_age=0).is_empty
    assert not EntryFilter(min_age=0).needs_heads
    assert EntryFilter().to_dict() == {}
