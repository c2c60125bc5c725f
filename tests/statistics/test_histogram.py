"""The log-scale histogram: slots without gaps, percentiles near the truth, sums that stay true."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedcache import counters as counters_module
from embedcache.counters import Counters, Counts, total
from embedcache.histogram import bounds, quantile, slot_of

HOUR = 3_600 * 10**9
LARGEST_ERROR = 0.032
nanoseconds = st.integers(0, 100 * HOUR)


def counted(durations: list[int]) -> dict[int, int]:
    return dict(Counter(map(slot_of, durations)))


@given(nanoseconds)
def test_a_duration_lies_between_the_bounds_of_its_slot(duration):
    low, high = bounds(slot_of(duration))
    assert round(low * 1e9) <= duration < round(high * 1e9)


def test_slots_leave_no_gap_and_do_not_overlap():
    ends = [bounds(slot) for slot in range(slot_of(HOUR) + 1)]
    assert ends[0][0] == 0
    assert [high for _, high in ends[:-1]] == [low for low, _ in ends[1:]]
    assert all(low < high for low, high in ends)


def test_slots_are_numbered_from_zero_without_a_gap():
    edges = [round(bounds(slot)[0] * 1e9) for slot in range(slot_of(HOUR))]
    assert [slot_of(edge) for edge in edges] == list(range(len(edges)))
    assert [slot_of(edge - 1) for edge in edges[1:]] == list(range(len(edges) - 1))


def test_a_cache_uses_few_slots():
    assert slot_of(HOUR) < 700
    assert slot_of(10_000_000) - slot_of(1_000_000) < 60


def test_a_clock_that_went_back_counts_as_no_time():
    assert slot_of(-5) == 0


@given(st.integers(32, 100 * HOUR))
def test_the_middle_of_a_slot_is_near_all_that_it_counts(duration):
    low, high = bounds(slot_of(duration))
    assert abs((low + high) / 2 - duration / 1e9) <= LARGEST_ERROR * duration / 1e9


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.95, 0.99, 1.0])
@pytest.mark.parametrize("spread", ["uniform", "lognormal", "two peaks", "one value"])
def test_percentiles_are_within_3_2_percent_of_the_true_ones(share, spread):
    random = np.random.default_rng(7)
    drawn = {
        "uniform": lambda: random.uniform(1e5, 1e8, 5_001),
        "lognormal": lambda: random.lognormal(np.log(3e5), 1.5, 20_000),
        "two peaks": lambda: np.concatenate([random.normal(2e5, 1e3, 900), random.normal(5e9, 1e6, 101)]),
        "one value": lambda: np.full(3, 123_456.0),
    }[spread]().astype(np.int64)
    truth = np.quantile(drawn, share, method="inverted_cdf") / 1e9
    found = quantile(counted(drawn.tolist()), share)
    assert found == pytest.approx(truth, rel=LARGEST_ERROR)


@given(st.lists(st.integers(32, HOUR), min_size=1, max_size=50), st.floats(0, 1))
def test_any_percentile_of_anything_is_within_3_2_percent(durations, share):
    truth = np.quantile(np.array(durations), share, method="inverted_cdf") / 1e9
    assert quantile(counted(durations), share) == pytest.approx(truth, rel=LARGEST_ERROR)


def test_nothing_counted_has_no_percentile():
    assert quantile({}, 0.5) is None
    assert quantile({7: 0}, 0.5) is None


@given(st.lists(st.lists(nanoseconds, max_size=20), max_size=6))
def test_histograms_added_up_are_the_histogram_of_all(parts):
    added = total(Counts(latencies=counted(part)) for part in parts)
    assert added.latencies == counted([duration for part in parts for duration in part])


@given(nanoseconds)
def test_a_lookup_is_counted_in_the_slot_of_its_duration(duration):
    counters = Counters(lambda: None)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(counters_module, "perf_counter_ns", lambda: 1_000 + duration)
        counters.looked_up("m", 1_000, ["key"], ["text"], 0, 0)
    assert counters.lifetime()["m"].latencies == {slot_of(duration): 1}
