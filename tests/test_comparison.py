"""Two entries compared: measures against what numpy says, the fields that differ, figures that can be read."""

from __future__ import annotations

import json
from datetime import UTC
from typing import Any

import numpy as np
import pytest
from clicking import HOSTILE
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from embedcache import EntrySummary
from pages.ui import comparison

vectors = arrays(np.float32, 5, elements=st.floats(-1e3, 1e3, width=32))


def summary(**fields: Any) -> EntrySummary:
    given: dict[str, Any] = {
        "key": "c:" + "0" * 64,
        "text": "t",
        "model_name": "m",
        "dimension": 384,
        "dtype": "float32",
        "inserted_at": 1_795_000_000.0,
        "metadata": None,
        "ttl": None,
        "expires_in": None,
        "value_bytes": 1_600,
        "memory_bytes": 1_800,
    }
    return EntrySummary(**given | fields)


# ------------------------------------------------------------------------------------------------ measures


@given(vectors, vectors)
def test_measures_are_numpys(one: Any, other: Any) -> None:
    measures = comparison.measure(one, other)
    first, second = one.astype(np.float64), other.astype(np.float64)
    assert measures.norms == pytest.approx((np.linalg.norm(first), np.linalg.norm(second)))
    assert measures.distance == pytest.approx(np.linalg.norm(first - second))
    if first.any() and second.any():
        expected = first @ second / np.linalg.norm(first) / np.linalg.norm(second)
        assert measures.cosine == pytest.approx(expected, abs=1e-9)
        assert measures.why_not == ""
    else:
        assert measures.cosine is None
        assert "no direction" in measures.why_not


def test_large_numbers_do_not_overflow() -> None:
    vector = np.array([3e200, 4e200])
    measures = comparison.measure(vector, -vector)
    assert measures.cosine == pytest.approx(-1)
    assert measures.distance == pytest.approx(1e201)
    assert measures.norms == pytest.approx((5e200, 5e200))


def test_vectors_of_different_length_have_no_similarity() -> None:
    measures = comparison.measure(np.ones(384, np.float32), np.ones(1536, np.float32))
    assert (measures.cosine, measures.distance, measures.comparable) == (None, None, False)
    assert measures.why_not.startswith("The first vector has 384 dimensions, the second 1,536")


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_not_finite_has_no_similarity(value: float) -> None:
    measures = comparison.measure(np.array([1.0, value]), np.array([1.0, 2.0]))
    assert (measures.cosine, measures.distance) == (None, None)
    assert "NaN or infinity" in measures.why_not


# ------------------------------------------------------------------------------------------------ tables


def test_facts_stand_side_by_side() -> None:
    one = summary(ttl=7_200, expires_in=3_600.0)
    other = summary(key="d:" + "f" * 64, dimension=1_536, dtype="int8", memory_bytes=4_096)
    table = comparison.facts_frame(one, other, UTC).set_index("what")
    assert list(table.loc["dimensions"]) == ["384", "1,536"]
    assert list(table.loc["stored as"]) == ["float32", "int8"]
    assert list(table.loc["expires"]) == ["in 1 h", "never"]
    assert list(table.loc["own TTL"]) == ["2 h", "never"]
    assert list(table.loc["memory"]) == ["1.8 KiB", "4.0 KiB"]
    assert list(table.loc["cache"]) == ["c", "d"]
    assert list(table.loc["entry id"]) == ["000000000000…", "ffffffffffff…"]


def test_only_fields_that_differ_are_listed() -> None:
    one = {"a": 1, "b": {"c": "x", "d": [1, 2]}, "same": True, "gone": None}
    other = {"a": "1", "b": {"c": "x", "d": [1, 3, {}]}, "same": True, "new": []}
    table, same = comparison.metadata_frame(one, other)
    assert same == 3
    assert [tuple(row) for row in table.itertuples(index=False)] == [
        ("a", "1", '"1"'),
        ("b.d[1]", "2", "3"),
        ("gone", "null", "not there"),
        ("b.d[2]", "not there", "{}"),
        ("new", "not there", "[]"),
    ]


def test_metadata_of_one_alone() -> None:
    assert comparison.metadata_frame(None, None)[0].empty
    table, same = comparison.metadata_frame({"a": 1}, None)
    assert (table.values.tolist(), same) == ([["a", "1", "not there"]], 0)


def test_what_is_nested_deeply_is_compared() -> None:
    deep: Any = "bottom"
    for _ in range(5_000):
        deep = [deep]
    table, _ = comparison.metadata_frame({"a": deep}, {"a": 1})
    assert table["first"].tolist()[0] == '"bottom"'


def test_a_strangers_fields_are_one_line_without_control_characters() -> None:
    table, _ = comparison.metadata_frame({HOSTILE: HOSTILE + "\n" * 9}, None)
    for cell in table.to_numpy().ravel():
        assert "\x1b" not in cell
        assert "\n" not in cell


# ------------------------------------------------------------------------------------------------ figures


@pytest.mark.parametrize("dimension", [1, 384, 1_536])
def test_the_difference_is_drawn_by_position(dimension: int) -> None:
    rng = np.random.default_rng(0)
    one, other = rng.normal(size=dimension).astype(np.float32), rng.normal(size=dimension).astype(np.float32)
    figure = comparison.difference_picture(one, other, "dark")
    first, second, difference = figure.data
    assert list(first.y) == one.astype(np.float64).tolist()
    assert list(second.y) == other.astype(np.float64).tolist()
    assert np.allclose(difference.y, one.astype(np.float64) - other)
    layout = json.loads(figure.to_json())["layout"]
    assert layout["xaxis2"]["title"]["text"] == f"position in the vector (0 to {dimension - 1:,})"
    assert layout["yaxis"]["title"]["text"] == "value (no unit)"
    assert layout["yaxis2"]["title"]["text"] == "difference (no unit)"


def test_values_are_drawn_against_each_other_on_one_scale() -> None:
    figure = comparison.agreement_picture(np.array([1.0, -2.0]), np.array([0.5, 0.0]))
    _, points = figure.data
    assert (list(points.x), list(points.y)) == ([1.0, -2.0], [0.5, 0.0])
    assert figure.layout.xaxis.range == figure.layout.yaxis.range == (-2.16, 2.16)
    assert figure.layout.xaxis.title.text == "value in the first (no unit)"


def test_vectors_of_zeros_can_be_drawn() -> None:
    figure = comparison.agreement_picture(np.zeros(3), np.zeros(3))
    assert figure.layout.xaxis.range == (-1.08, 1.08)
