"""What is in a cache, as tables and figures."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from clicking import HOSTILE
from servers import Server

from embedcache import EmbeddingsCache, walking
from embedcache.index import EntryIndex, ExpiryForecast, ModelTotals, Share
from pages.ui import stocktaking

DAY = 86_400


@pytest.fixture
def cache(valkey: Server) -> Iterator[EmbeddingsCache]:
    with EmbeddingsCache("c", redis_url=valkey.url, stats=False) as opened:
        yield opened


def index_of(cache: EmbeddingsCache) -> EntryIndex:
    return walking.index_cache(cache.connection, cache.name, lambda *_: None)


def store(cache: EmbeddingsCache, monkeypatch: pytest.MonkeyPatch, *ages: float) -> None:
    """Stores an entry of each of these ages in seconds."""
    now = time.time()
    for number, age in enumerate(ages):
        with monkeypatch.context() as earlier:
            earlier.setattr(time, "time", lambda then=now - age: then)
            cache.set(f"text {number} of {age}", "m", [1.0, 2.0])


def totals(*entries: int) -> list[ModelTotals]:
    return [ModelTotals(f"m{number}", count, 10 * count, 20 * count) for number, count in enumerate(entries)]


# ------------------------------------------------------------------------------------------------ growth and ages


def test_growth_says_what_was_there_at_the_end_of_each_day(
    cache: EmbeddingsCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    store(cache, monkeypatch, 5, 5, 3.5 * DAY, 200 * DAY, -DAY)  # one from a writer whose clock runs ahead
    cache.connection.client().set("c:" + "0" * 64, "cannot be read, so nobody knows since when it is there")
    grown = stocktaking.growth(index_of(cache))
    assert len(grown.entries) == len(grown.value_bytes) == stocktaking.DAYS + 1
    assert grown.entries[0] == 2
    assert grown.entries[-5:] == [2, 3, 3, 3, 6]
    assert grown.value_bytes[-1] == index_of(cache).value_bytes.sum()


def test_an_empty_cache_has_not_grown(cache: EmbeddingsCache) -> None:
    grown = stocktaking.growth(index_of(cache))
    assert set(grown.entries) == set(grown.value_bytes) == {0}


def test_entries_by_age(cache: EmbeddingsCache, monkeypatch: pytest.MonkeyPatch) -> None:
    store(cache, monkeypatch, 10, 7_200, 7_300, 10 * DAY, 400 * DAY)
    frame = stocktaking.ages_frame(index_of(cache))
    assert dict(zip(frame["label"], frame["entries"], strict=True)) == {
        "under 1 h": 1,
        "1 h to 1 d": 2,
        "1 to 7 d": 0,
        "7 to 30 d": 1,
        "30 to 90 d": 0,
        "over 90 d": 1,
    }
    assert stocktaking.in_words(frame).startswith("under 1 h: 1, 1 h to 1 d: 2")


def test_entries_by_when_they_leave(cache: EmbeddingsCache) -> None:
    for number, ttl in enumerate((60, 7_200, 3 * DAY, 30 * DAY, 31 * DAY, None)):
        cache.set(f"text {number}", "m", [1.0, 2.0], ttl=ttl)
    index = index_of(cache)
    frame = stocktaking.leaving_frame(index.expiry_forecast())
    assert list(frame["label"]) == ["within 1 h", "1 h to 1 d", "1 to 7 d", "later", "never"]
    assert list(frame["entries"]) == [1, 1, 1, 2, 1]
    assert list(frame["stays"]) == [False] * 4 + [True]
    assert frame["bytes"].sum() == index.value_bytes.sum()


def test_what_the_server_does_not_tell_is_a_row_of_its_own() -> None:
    none, some = Share(0, 0), Share(3, 300)
    frame = stocktaking.leaving_frame(ExpiryForecast(none, none, none, none, none, some))
    assert list(frame["label"])[-1] == "not told"
    assert frame["entries"].iloc[-1] == 3


# ------------------------------------------------------------------------------------------------ models


def test_models_and_their_parts() -> None:
    frame = stocktaking.models_frame(totals(60, 40))
    assert list(frame["model"]) == ["m0", "m1"]
    assert list(frame["entries"]) == [60, 40]
    assert list(frame["memory"]) == [1_200, 800]
    assert list(frame["memory_share"]) == [0.6, 0.4]


def test_many_models_are_summed_up_but_for_the_first() -> None:
    frame = stocktaking.models_frame(totals(*range(30, 0, -1)))
    assert len(frame) == 8
    assert frame["model"].iloc[-1] == "23 other models"
    assert frame["entries"].sum() == sum(range(31))
    assert frame["entries_share"].sum() == pytest.approx(1)


def test_memory_that_the_server_does_not_tell_counts_as_the_values_alone() -> None:
    assert stocktaking.memory_bytes([*totals(10), ModelTotals("m", 5, 70, None)]) == 200 + 70


def test_no_models() -> None:
    assert stocktaking.models_frame(()).empty
    assert stocktaking.memory_bytes(()) == 0


def test_the_bars_of_models_have_units_and_inert_names() -> None:
    frame = stocktaking.models_frame([ModelTotals(HOSTILE, 9, 90, 2**20), ModelTotals("b", 3, 30, None)])
    counted, weighed = stocktaking.entries_by_model(frame, "light"), stocktaking.memory_by_model(frame, "light")
    assert list(counted.data[0].x) == [9, 3]
    assert list(weighed.data[0].x) == [1, 30 / 2**20]
    assert [figure.layout.xaxis.title.text for figure in (counted, weighed)] == ["entries", "memory (MiB)"]
    for figure in (counted, weighed):
        assert "<script" not in figure.to_json().replace("\\u003c", "<")
        assert figure.data[0].customdata[0][1:].tolist() == ["9", "75.0%", "1.0 MiB", "1,048,576", "99.9%"]
        assert figure.layout.height == stocktaking.by_model_pixels(2)
    assert [note.text for note in counted.layout.annotations][1::2] == ["<b>9</b>", "<b>3</b>"]
    assert [note.text for note in weighed.layout.annotations][1::2] == ["<b>1.0 MiB</b>", "<b>30 B</b>"]
    assert stocktaking.by_model_pixels(0) == stocktaking.by_model_pixels(1)
    assert stocktaking.by_model_pixels(500) == stocktaking.by_model_pixels(8)


# ------------------------------------------------------------------------------------------------ figures of spans


def test_bars_of_ages(cache: EmbeddingsCache, monkeypatch: pytest.MonkeyPatch) -> None:
    store(cache, monkeypatch, 10, 7_200)
    figure = stocktaking.by_age(stocktaking.ages_frame(index_of(cache)), "dark")
    (bars,) = figure.data
    assert list(bars.y) == [1, 1, 0, 0, 0, 0]
    assert list(bars.text) == ["1", "1", "", "", "", ""]
    assert list(bars.customdata)[:3] == ["1 entry", "1 entry", "0 entries"]
    assert figure.layout.yaxis.title.text == "entries"
    assert figure.layout.xaxis.ticktext[0] == "under<br>1 h"
    assert figure.layout.height == stocktaking.SPANS_PIXELS


def test_what_stays_has_another_colour_than_what_leaves() -> None:
    shares = [Share(number, 1_024 * number) for number in (950, 12_480, 1_250_000, 4, 5, 0)]
    figure = stocktaking.by_leaving(stocktaking.leaving_frame(ExpiryForecast(*shares)), None)
    (bars,) = figure.data
    assert list(bars.text) == ["950", "12.5k", "1.25M", "4", "5"]
    assert len(set(bars.marker.color[:4])) == 1
    assert bars.marker.color[4] != bars.marker.color[0]
    assert bars.customdata[1] == "12,480 entries, 12.2 MiB of values"


# ------------------------------------------------------------------------------------------------ caches


def test_caches_most_entries_first() -> None:
    frame = stocktaking.caches_frame({"a": 1, "two\nlines": 5}, {})
    assert frame.to_dict("records") == [{"cache": "two lines", "entries": 5}, {"cache": "a", "entries": 1}]
    assert stocktaking.caches_frame({}, {}).empty


def test_entries_of_redisvl_are_told_where_any_cache_has_some() -> None:
    frame = stocktaking.caches_frame({"a": 9, "b": 4}, {"b": 4})
    assert list(frame["redisvl"]) == [0, 4]
