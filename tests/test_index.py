"""The columns of a cache: filtered, sorted and added up, beside a plain reading of the same rows."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedcache.columns import Columns, Layout
from embedcache.errors import InvalidInputError
from embedcache.filtering import EntryFilter
from embedcache.index import EntryIndex, ExpiryForecast, IndexBuilder, ModelTotals, Share, distinct

NOW = 1_000_000.0
MODELS = ("m", "n", "ü")
NAN, INF = math.nan, math.inf


def row(**given: Any) -> dict[str, Any]:
    """One entry's row, readable and plain where nothing else is given."""
    plain = {"model": "m", "inserted_at": NOW - 10, "expires_at": INF, "ttl": 0, "last_access": NOW, "value_bytes": 9}
    return plain | {"dimension": 2, "dtype": 1, "layout": Layout.PACKED} | given


UNREADABLE = {"model": None, "inserted_at": NAN, "dimension": 0, "dtype": 0, "layout": Layout.UNREADABLE}


def index_of(rows: list[dict[str, Any]], name: str = "c") -> EntryIndex:
    """An index of these rows, whose digests are their numbers."""
    digests = np.zeros((len(rows), 32), np.uint8)
    digests[:, 0], digests[:, 31] = np.arange(len(rows)) % 256, np.arange(len(rows)) // 256
    codes = [-1 if each["model"] is None else MODELS.index(each["model"]) for each in rows]

    def column(field: str, dtype: Any) -> Any:
        return np.array([each[field] for each in rows], dtype)

    columns = Columns(
        gone=np.zeros(len(rows), np.bool_),
        model_codes=np.array(codes, np.int32),
        models=MODELS,
        inserted_at=column("inserted_at", np.float64),
        expires_at=column("expires_at", np.float64),
        ttl=column("ttl", np.uint32),
        last_access=column("last_access", np.float64),
        value_bytes=column("value_bytes", np.uint32),
        dimension=column("dimension", np.int32),
        dtype_codes=column("dtype", np.uint8),
        layouts=column("layout", np.uint8),
    )
    builder = IndexBuilder(name)
    builder.add(digests, columns)
    return builder.build(NOW)


# ------------------------------------------------------------------------------------------------ filtering

MOMENTS = st.integers(-5, 5).map(lambda seconds: NOW + seconds)
ROWS = st.lists(
    st.fixed_dictionaries(
        {
            "model": st.sampled_from(MODELS),
            "inserted_at": MOMENTS,
            "expires_at": MOMENTS | st.sampled_from([INF, NAN]),
            "last_access": MOMENTS | st.just(NAN),
            "value_bytes": st.integers(0, 5),
        }
    ).map(lambda given: row(**given))
    | st.integers(0, 5).map(lambda size: row(**UNREADABLE, value_bytes=size)),
    max_size=12,
)
NUMBERS = st.none() | st.integers(0, 5)


@st.composite
def filters(draw: st.DrawFn) -> EntryFilter:
    ages, sizes = (sorted(draw(st.tuples(st.integers(0, 5), st.integers(0, 5)))) for _ in range(2))
    never = draw(st.sampled_from([None, True, False]))
    unreadable = draw(st.sampled_from([None, None, None, True]))
    return EntryFilter(
        model_name=None if unreadable else draw(st.none() | st.sampled_from([*MODELS, "another"])),
        min_age=draw(st.sampled_from([None, ages[0]])),
        max_age=draw(st.sampled_from([None, ages[1]])),
        min_idle=draw(NUMBERS),
        expires_within=None if never else draw(NUMBERS),
        never_expires=never,
        min_bytes=draw(st.sampled_from([None, sizes[0]])),
        max_bytes=draw(st.sampled_from([None, sizes[1]])),
        unreadable=unreadable,
    )


def matches(asks: EntryFilter, each: dict[str, Any]) -> bool:
    """What a filter means, said once more."""
    age, idle, left = NOW - each["inserted_at"], NOW - each["last_access"], each["expires_at"] - NOW
    never = left == INF
    return not (
        (asks.unreadable and each["layout"] != Layout.UNREADABLE)
        or (asks.model_name is not None and each["model"] != asks.model_name)
        or (asks.min_age is not None and not age >= asks.min_age)
        or (asks.max_age is not None and not age <= asks.max_age)
        or (asks.min_idle is not None and not idle >= asks.min_idle)
        or (asks.expires_within is not None and not left <= asks.expires_within)
        or (asks.never_expires is True and not never)
        or (asks.never_expires is False and (never or math.isnan(left)))
        or (asks.min_bytes is not None and each["value_bytes"] < asks.min_bytes)
        or (asks.max_bytes is not None and each["value_bytes"] > asks.max_bytes)
    )


@given(ROWS, filters())
def test_a_filter_finds_what_a_plain_reading_finds(rows: list[dict[str, Any]], asks: EntryFilter) -> None:
    expected = [position for position, each in enumerate(rows) if matches(asks, each)]
    assert index_of(rows).where(asks).tolist() == expected


def test_what_needs_heads_is_left_to_the_walk_but_for_candidates() -> None:
    index = index_of([row(), row(model="n"), row(**UNREADABLE)])
    asks = EntryFilter(text_contains="a", model_name="m")
    with pytest.raises(InvalidInputError, match="match"):
        index.where(asks)
    assert index.candidates(asks).tolist() == [0]
    assert index.candidates(EntryFilter(text_contains="a")).tolist() == [0, 1]


# ------------------------------------------------------------------------------------------------ sorting


@pytest.mark.parametrize(
    ("column", "values", "ascending", "descending"),
    [
        ("inserted_at", [3.0, 1.0, NAN, 2.0], [1, 3, 0, 2], [0, 3, 1, 2]),
        ("expires_at", [INF, 5.0, 4.0, NAN], [2, 1, 0, 3], [0, 1, 2, 3]),
        ("last_access", [NAN, 1.0, 1.0, 0.0], [3, 1, 2, 0], [1, 2, 3, 0]),
        ("value_bytes", [2, 2**32 - 1, 0, 2], [2, 0, 3, 1], [1, 0, 3, 2]),
        ("ttl", [5, 0, 2**32 - 1, 1], [1, 3, 0, 2], [2, 0, 3, 1]),
        ("dimension", [3, 0, 1, 2], [2, 3, 0, 1], [0, 3, 2, 1]),
        ("model_name", ["ü", "m", None, "n"], [1, 3, 0, 2], [0, 3, 1, 2]),
        ("dtype", [4, 0, 1, 2], [2, 3, 0, 1], [0, 3, 2, 1]),
    ],
)
def test_a_column_sorts_with_what_is_unknown_last(
    column: Any, values: list[Any], ascending: list[int], descending: list[int]
) -> None:
    field = {"model_name": "model"}.get(column, column)
    index = index_of([row(**{field: value}) for value in values])
    everything = np.arange(4)
    assert index.order(everything, column).tolist() == ascending
    assert index.order(everything, column, descending=True).tolist() == descending
    assert index.order(np.array([3, 1]), column).tolist() == [place for place in ascending if place in (1, 3)]


def test_a_column_that_there_is_not_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="'text'"):
        index_of([row()]).order(np.arange(1), "text")  # type: ignore[arg-type]


# ------------------------------------------------------------------------------------------------ keys


def test_keys_lead_to_positions_and_back() -> None:
    index = index_of([row() for _ in range(600)], name="a:*")
    assert index.key(2) == "a:*:02" + "0" * 62
    keys = index.keys([599, 0, 2])
    assert keys == [index.key(599), index.key(0), index.key(2)]
    assert index.positions_of(keys).tolist() == [0, 2, 599]
    assert index.positions_of([]).tolist() == []
    strangers = [f"b:{'0' * 64}", "a:*:" + "f" * 64, "a:*:" + "0" * 63, "nothing"]
    assert index.positions_of(strangers).tolist() == []


def test_what_was_removed_is_gone_from_the_index_alone() -> None:
    index = index_of([row(model="m"), row(model="n"), row(model="m")])
    less = index.without(np.array([0]))
    assert (len(less), len(index)) == (2, 3)
    assert less.keys([0, 1]) == index.keys([1, 2])
    assert [(each.model_name, each.entries) for each in less.by_model()] == [("m", 1), ("n", 1)]


def test_what_is_found_to_be_unreadable_is_filtered_as_such() -> None:
    index = index_of([row(), row(), row(**UNREADABLE)])
    marked = index.with_unreadable(np.array([1]))
    assert marked.where(EntryFilter(unreadable=True)).tolist() == [1, 2]
    assert (index.unreadable, marked.unreadable) == (1, 2)
    assert marked.model_name(1) is None
    assert marked.dtype(1) is None
    assert marked.where(EntryFilter(max_age=100)).tolist() == [0]


def test_digests_that_start_alike_are_told_apart() -> None:
    digests = np.zeros((5, 32), np.uint8)
    digests[1, 31] = digests[3, 31] = 1  # 1 and 3 are the same, the others too
    assert sorted(map(bytes, distinct(digests))) == [bytes(32), bytes(31) + b"\1"]


def test_an_entry_takes_80_bytes_at_most() -> None:
    assert index_of([row() for _ in range(1_000)]).nbytes / 1_000 <= 80


# ------------------------------------------------------------------------------------------------ totals


def test_models_are_added_up_with_an_estimate_of_their_memory() -> None:
    rows = [row(model="m", value_bytes=100), row(model="n", value_bytes=5), row(model="m"), row(**UNREADABLE)]
    index = index_of(rows)
    assert index.by_model() == (ModelTotals("m", 2, 109, None), ModelTotals("n", 1, 5, None))
    index.overheads[:] = [50.5, 10, 0]
    assert [each.memory_bytes for each in index.by_model()] == [210, 15]


def test_ages_are_counted_between_edges() -> None:
    rows = [row(inserted_at=NOW - age) for age in (0, 9, 10, 10, 25, 400, -3)]
    assert index_of([*rows, row(**UNREADABLE)]).entries_by_age([10, 20, 30]).tolist() == [3, 2, 1, 1]
    assert index_of([]).entries_by_age([10]).tolist() == [0, 0]


def test_the_forecast_puts_each_entry_in_one_place() -> None:
    lefts = [-1, 3_600, 3_601, 86_400, 86_401, 604_800, 604_801, INF, INF, NAN]
    index = index_of([row(expires_at=NOW + left, value_bytes=10 + place) for place, left in enumerate(lefts)])
    assert index.expiry_forecast() == ExpiryForecast(
        hour=Share(2, 21), day=Share(2, 25), week=Share(2, 29), later=Share(1, 16), never=Share(2, 35),
        unknown=Share(1, 19),
    )  # fmt: skip


def test_an_empty_index_has_nothing() -> None:
    index = index_of([])
    assert len(index) == 0
    assert index.by_model() == ()
    assert index.where(EntryFilter(min_age=1)).tolist() == []
    assert index.order(index.where(EntryFilter()), "model_name").tolist() == []
    assert index.expiry_forecast().never == Share(0, 0)
    assert len(IndexBuilder("c").build(NOW)) == 0
