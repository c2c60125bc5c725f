"""Statistics over time: windows, series, percentiles, and what hits have saved."""

from __future__ import annotations

import math
import time
from datetime import UTC, datetime, timedelta, timezone

import numpy as np
import pytest
from counted import MODEL, OTHER, Shelf, batch, items, server_time, sums, texts
from hypothesis import given
from hypothesis import strategies as st

from embedcache import EmbeddingsCache, InvalidInputError, statistics
from embedcache.buckets import DAYS, HOURS, MINUTES
from embedcache.counters import Counts
from embedcache.histogram import slot_of
from embedcache.statistics import MAX_STEPS

DAY = 86_400
AGES = (0, 150, 3_700, 20 * 3_600, 3 * DAY, 50 * DAY, 200 * DAY)


def powers_of_two_by_age(shelf: Shelf) -> None:
    """One hit now, two some minutes ago, and so on: a sum tells which of them are in it."""
    for number, age in enumerate(AGES):
        counts = {MODEL: Counts(hits=2**number, latencies={40: 1})}
        shelf.add(batch(counts, ago=float(age)), number=number + 1)


def ages_in(hits: int) -> list[int]:
    return [age for number, age in enumerate(AGES) if hits & 2**number]


# ------------------------------------------------------------------------------------------------ windows


@pytest.mark.parametrize(
    ("window", "ages"),
    [
        ("2m", [0]),
        ("15m", [0, 150]),
        ("1h", [0, 150]),
        ("2h", [0, 150, 3_700]),
        ("24h", [0, 150, 3_700, 20 * 3_600]),
        ("3d", [0, 150, 3_700, 20 * 3_600]),
        ("5d", [0, 150, 3_700, 20 * 3_600, 3 * DAY]),
        (" 10 w ", [0, 150, 3_700, 20 * 3_600, 3 * DAY, 50 * DAY]),
        (timedelta(minutes=15), [0, 150]),
        (timedelta(days=365), list(AGES)),
        (timedelta.max, list(AGES)),
        ("all", list(AGES)),
    ],
)
def test_a_window_up_to_now_has_what_happened_in_it(counting, scripted, window, ages):
    powers_of_two_by_age(scripted)
    found = counting.stats(window)
    assert ages_in(found.hits) == ages
    assert found.lookups == len(ages)
    assert found.start < found.end


def test_a_window_up_to_now_ends_now_by_the_servers_clock_and_is_as_long_as_it_says(counting, server):
    for window, seconds, resolution in (("15m", 900, 60), ("24h", DAY, 60), ("7d", 7 * DAY, 3_600)):
        found = counting.stats(window)
        assert found.end == pytest.approx(server_time(server), abs=3)
        assert seconds - resolution <= found.end - found.start <= seconds
        assert found.start % resolution == 0


def ends(server, start: float, end: float) -> list[tuple]:
    now = server_time(server)
    first, last = now + start, now + end
    tokyo = timezone(timedelta(hours=9))
    return [
        (first, last),
        (int(first), math.ceil(last)),
        (np.float64(first), np.int64(math.ceil(last))),
        (datetime.fromtimestamp(first, UTC), datetime.fromtimestamp(last, tokyo)),
        (datetime.fromtimestamp(first), last),  # noqa: DTZ006 - a naive one is local time, as Python has it
    ]


@pytest.mark.parametrize(
    ("start", "end", "ages"),
    [(-300, 0, [0, 150]), (-200, -100, [150]), (-4 * DAY, -2 * DAY, [3 * DAY]), (60, 600, []), (-730 * DAY, 0, AGES)],
)
def test_a_window_of_two_ends_has_what_happened_between_them(counting, server, scripted, start, end, ages):
    powers_of_two_by_age(scripted)
    for window in ends(server, start, end):
        assert ages_in(counting.stats(window).hits) == list(ages)


@pytest.mark.parametrize(
    "window",
    [
        *("", "1", "h", "1y", "-1h", "0m", "1.5h", "1h 30m", "ALL", "yesterday", "1 h o", "1h\n2h"),
        *(timedelta(0), timedelta(seconds=-5), None, 60, 60.0, b"1h", [0, 1], pytest.param(object(), id="object")),
        *((1,), (1, 2, 3), (), (2, 1), (1, 1), ("1", "2"), (None, 1), (True, 5), (1, b"2")),
        *((0, float("inf")), (float("-inf"), 0), (float("nan"), 1), (0, 1e300), (0, 10**400)),
        (1_700_000_000_000, 1_700_000_060_000),
        (datetime(2026, 1, 2, tzinfo=UTC), datetime(2026, 1, 1, tzinfo=UTC)),
        (datetime.min, datetime.max),  # noqa: DTZ901
    ],
    ids=repr,
)
def test_a_window_that_cannot_be_read_is_an_error_even_where_no_server_is(window, tmp_path):
    with EmbeddingsCache(redis_url=f"unix://{tmp_path}/none") as cache:
        for ask in (cache.stats, cache.stats_by_model, cache.stats_series, cache.stats_series_by_model):
            with pytest.raises(InvalidInputError):
                ask(window)


@pytest.mark.parametrize("step", ["", "30s", "0m", "1", None, 60, timedelta(seconds=90), timedelta(0), "all", "1.5m"])
def test_a_step_that_cannot_be_read_is_an_error_even_where_no_server_is(step, tmp_path):
    with EmbeddingsCache(redis_url=f"unix://{tmp_path}/none") as cache:
        with pytest.raises(InvalidInputError):
            cache.stats_series("1h", step)
        with pytest.raises(InvalidInputError):
            cache.stats_series("all", "1m")


def test_steps_that_are_too_many_or_no_longer_kept_are_an_error(counting):
    for window, step, said in (
        (timedelta(minutes=MAX_STEPS + 1), "1m", "3,001 steps are more than 3,000"),
        ("7d", "5m", "are kept for 2 days"),
        ("90d", "1h", "are kept for 60 days"),
        ((time.time(), time.time() + 2_000 * 86_460), "1441m", "are read minute by minute"),
    ):
        with pytest.raises(InvalidInputError, match=said):
            counting.stats_series(window, step)


# ------------------------------------------------------------------------------------------------ series


@pytest.mark.parametrize(
    ("window", "step", "count"),
    [
        ("1h", "1m", 60),
        ("1h", "15m", 4),
        ("24h", "1m", 1_440),
        ("24h", "1h", 24),
        ("2h", "90m", 2),
        ("7d", "1d", 7),
        ("30d", "6h", 120),
        ("1m", "1h", 1),
        (timedelta(days=700), timedelta(days=7), 100),
    ],
)
def test_a_series_has_a_step_for_each_part_of_its_window_and_sums_up_to_it(counting, scripted, window, step, count):
    powers_of_two_by_age(scripted)
    steps = counting.stats_series(window, step)
    assert len(steps) == count
    whole = counting.stats((steps[0].start, steps[-1].end))
    assert sum(each.hits for each in steps) == whole.hits
    assert sum(each.lookups for each in steps) == whole.lookups
    assert [each.end for each in steps[:-1]] == [each.start for each in steps[1:]]
    assert 0 in {each.hits for each in steps} or count < 10
    assert ages_in(whole.hits)[0] == 0


def test_a_gap_is_all_zeros(counting, scripted):
    scripted.add(batch({MODEL: Counts(hits=3)}, ago=300.0))
    steps = counting.stats_series("10m", "1m", MODEL)
    assert sorted(each.hits for each in steps) == [0] * 9 + [3]
    for each in steps:
        if not each.hits:
            assert (sums(each), each.hit_rate, each.p50, each.time_saved, each.model_name) == (
                {},
                None,
                None,
                None,
                MODEL,
            )


def test_a_series_of_two_ends_has_every_step_that_they_touch(counting, server):
    minute = server_time(server) // 60 * 60
    steps = counting.stats_series((minute - 150, minute - 10), "1m")
    assert [each.start - minute for each in steps] == [-180, -120, -60]
    steps = counting.stats_series((minute + 600, minute + 700), "1m")
    assert [(each.start - minute, each.end - minute) for each in steps] == [(600, 600), (660, 660)]


def test_a_series_by_model_has_the_same_steps_for_each(counting):
    counting.mset([*items(2), *items(3, OTHER)])
    counting.get_by_key(counting.key_for("none", MODEL))
    by_model = counting.stats_series_by_model("5m", "1m")
    assert {name: sum(each.sets for each in steps) for name, steps in by_model.items()} == {MODEL: 2, OTHER: 3}
    assert all(len(steps) == 5 for steps in by_model.values())
    assert sum(each.misses for each in counting.stats_series("5m", "1m")) == 1


@given(
    now=st.floats(1.5e9, 4e9),
    seconds=st.integers(1, 800 * DAY),
    resolution=st.sampled_from([MINUTES, HOURS, DAYS]),
)
def test_a_span_up_to_now_is_cut_into_as_many_buckets_as_its_length_says(now, seconds, resolution):
    starts = statistics._starts(now - seconds, now, resolution.seconds, whole_span=True)
    assert len(starts) == math.ceil(seconds / resolution.seconds)
    assert starts[-1] <= now <= starts[-1] + resolution.seconds
    assert all(start % resolution.seconds == 0 for start in starts[:3])


# ------------------------------------------------------------------------------------------------ what they tell


def test_percentiles_of_all_processes_are_those_of_all_lookups(counting, scripted):
    drawn = np.random.default_rng(3).lognormal(np.log(4e5), 1, 3_000).astype(int)
    for number, part in enumerate(np.split(drawn, 3), start=1):
        slots: dict[int, int] = {}
        for duration in part.tolist():
            slots[slot_of(duration)] = slots.get(slot_of(duration), 0) + 1
        scripted.add(batch({MODEL: Counts(hits=1_000, latencies=slots)}, ago=60.0 * number), f"writer {number}")
    found = counting.stats("15m")
    assert found.lookups == 3_000
    for name, share in (("p50", 0.5), ("p95", 0.95), ("p99", 0.99)):
        truth = np.quantile(drawn, share, method="inverted_cdf") / 1e9
        assert getattr(found, name) == pytest.approx(truth, rel=0.032)
    assert found.p50 < found.p95 < found.p99
    assert found.percentile(0) <= found.p50


def test_a_real_lookups_latency_is_less_than_the_time_it_was_waited_for(counting, server):
    before = server_time(server)
    counting.get("text", MODEL)
    waited = server_time(server) - before
    found = counting.stats("1h")
    assert 0 < found.p50 <= waited * 1.04


def test_time_saved_is_hits_times_what_the_model_takes_per_text(counting):
    counting.mset([*items(4), *items(2, OTHER)])
    counting.record_computation(MODEL, 10, 2.5)
    counting.record_computation(MODEL, 10, 0.5)
    counting.mget([*texts(4), "none"], MODEL)
    counting.mget(texts(2), OTHER)
    found = counting.stats("1h", MODEL)
    assert (found.texts_computed, found.compute_seconds) == (20, pytest.approx(3.0))
    assert found.time_saved == pytest.approx(4 * 3.0 / 20)
    assert (found.tokens_saved, found.money_saved) == (None, None)
    assert counting.stats("1h", OTHER).time_saved is None
    assert counting.stats("1h").time_saved == pytest.approx(4 * 3.0 / 20)
    assert counting.stats("1h").compute_seconds == pytest.approx(3.0)


def test_what_was_measured_long_ago_still_tells_what_a_hit_saves(counting, scripted):
    costs = Counts(texts_computed=10, compute_nanoseconds=5 * 10**9, tokens_computed=200)
    scripted.add(batch({MODEL: costs}, ago=100.0 * DAY), number=1)
    scripted.add(batch({MODEL: Counts(hits=4, near_hits=2, flights_saved=1)}), number=2)
    found = counting.stats("15m", MODEL)
    assert found.texts_computed == 0
    assert found.time_saved == pytest.approx(7 * 0.5)
    assert found.tokens_saved == pytest.approx(7 * 20)


def test_money_saved_is_tokens_saved_at_the_models_price(counting):
    for model_name, tokens in ((MODEL, 100), (OTHER, 40)):
        counting.set("text", model_name, [1.0])
        counting.record_computation(model_name, 5, 1.0, tokens)
        for _ in range(3):
            counting.get("text", model_name)
    assert counting.stats("1h").tokens_saved == pytest.approx(3 * 20 + 3 * 8)
    assert counting.stats("1h").money_saved is None
    counting.set_token_price(MODEL, 0.5)
    assert counting.stats("1h").money_saved == pytest.approx(60 / 1_000 * 0.5)
    assert counting.stats("1h", OTHER).money_saved is None
    counting.set_token_price(OTHER, 2)
    assert counting.stats("1h").money_saved == pytest.approx(60 / 1_000 * 0.5 + 24 / 1_000 * 2)
    assert counting.stats("1h", OTHER).money_saved == pytest.approx(24 / 1_000 * 2)
    counting.set_token_price(OTHER, 0)
    assert counting.stats("1h", OTHER).money_saved == 0
    assert counting.token_prices() == {MODEL: 0.5, OTHER: 0.0}
    counting.set_token_price(OTHER, None)
    assert counting.token_prices() == {MODEL: 0.5}


@pytest.mark.parametrize("price", [0.02, 1, np.float64(0.02), np.float64(1e-9), 123456.789])
def test_a_price_is_read_as_it_was_set(counting, price):
    counting.set_token_price(MODEL, price)
    assert counting.token_prices() == {MODEL: float(price)}
    assert counting.stats("1h").hits == 0


@pytest.mark.parametrize(
    "price", [-0.1, float("nan"), float("inf"), 10**400, "0.1", True, b"1", [1], pytest.param(object(), id="object")]
)
def test_a_price_that_is_none_is_refused(counting, server, price):
    with pytest.raises(InvalidInputError):
        counting.set_token_price(MODEL, price)
    with pytest.raises(InvalidInputError):
        counting.set_token_price("", 1.0)
    assert server.raw.dbsize() == 0


@pytest.mark.parametrize(
    "told",
    [
        ("", 1, 1.0),
        (None, 1, 1.0),
        (MODEL, -1, 1.0),
        (MODEL, 1, -0.5),
        (MODEL, 1, float("nan")),
        (MODEL, 1, float("inf")),
        (MODEL, float("nan"), 1.0),
        (MODEL, 1, 1.0, -1),
        (MODEL, 1.5, 1.0),
        (MODEL, 2**70, 1.0),
        (MODEL, 1, 1e12),
        (MODEL, "1", 1.0),
        (MODEL, 1, 1.0, True),
    ],
)
def test_a_computation_that_cannot_be_is_refused(counting, told):
    with pytest.raises(InvalidInputError):
        counting.record_computation(*told)
    assert sums(counting.process_stats()) == {}
