"""What one process counts: exact under threads, handed over once, bounded, and its own."""

from __future__ import annotations

import inspect
import os
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from counted import MODEL, OTHER, counted_by, item, sums
from hypothesis import given
from hypothesis import strategies as st

from embedcache import EmbeddingsCache
from embedcache.counters import (
    MAX_MODELS,
    MAX_SLOW,
    MAX_SLOW_TEXT,
    MAX_TOLD,
    Batch,
    Counters,
    Counts,
    NoCounters,
    add_by_model,
    total,
)

THREADS = 8
ROUNDS = 500


@pytest.fixture
def wakes() -> list[int]:
    return []


@pytest.fixture
def counters(wakes: list[int]) -> Counters:
    return Counters(lambda: wakes.append(1))


def look_up(counters: Counters, model_name: str | None = MODEL, *, hits: int = 1, misses: int = 0) -> None:
    keys = [f"c:{number:064x}" for number in range(hits + misses)]
    counters.looked_up(model_name, time.perf_counter_ns(), keys, keys, misses, 10 * hits)


def in_threads(work: Callable[[int], None]) -> None:
    start = threading.Barrier(THREADS)

    def run(number: int) -> None:
        start.wait()
        work(number)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


# ------------------------------------------------------------------------------------------------ counting


def test_each_kind_of_event_is_counted_under_its_model(counters):
    look_up(counters, hits=3, misses=2)
    counters.missed(MODEL, ["c:" + "0" * 64], 1)
    counters.wrote(["a", "b", "c"], [None, 5, 5], [MODEL, OTHER, MODEL], [10, 20, 30])
    counters.dropped(OTHER, ["b"], 1)
    counters.count(OTHER, errors=2, near_hits=7)
    assert counted_by(counters) == {
        MODEL: {"hits": 3, "misses": 2, "corrupt": 1, "sets": 2, "bytes_read": 30, "bytes_written": 40},
        OTHER: {"near_hits": 7, "sets": 1, "drops": 1, "errors": 2, "bytes_written": 20},
    }
    assert sum(counters.lifetime()[MODEL].latencies.values()) == 1


def test_eight_threads_lose_no_count(counters):
    def work(number: int) -> None:
        for turn in range(ROUNDS):
            look_up(counters, f"m{turn % 3}", hits=2, misses=1)
            counters.wrote(["a", "b"], [None, 9], ["m0", "m1"], [3, 4])
            counters.dropped("m2", ["a"], 1)
            counters.count(None, errors=1)

    in_threads(work)
    everything = THREADS * ROUNDS
    assert sums(total(counters.lifetime().values())) == {
        "hits": 2 * everything,
        "misses": everything,
        "sets": 2 * everything,
        "drops": everything,
        "errors": everything,
        "bytes_read": 20 * everything,
        "bytes_written": 7 * everything,
    }
    assert sum(total(counters.lifetime().values()).latencies.values()) == everything


def test_counts_taken_while_threads_count_add_up_and_none_is_handed_over_twice(counters):
    taken: list[Batch] = []
    done = threading.Event()

    def take() -> None:
        while not done.is_set():
            if found := counters.take():
                taken.append(found)

    taker = threading.Thread(target=take)
    taker.start()
    in_threads(lambda _: [look_up(counters, hits=1) for _ in range(ROUNDS)])
    done.set()
    taker.join()
    taken += filter(None, [counters.take()])
    added = total(each.counts[MODEL] for each in taken)
    assert added.hits == sum(added.latencies.values()) == THREADS * ROUNDS
    assert counters.take() is None
    assert counters.lifetime()[MODEL].hits == THREADS * ROUNDS


def test_what_was_taken_is_not_changed_by_what_follows(counters):
    look_up(counters)
    taken = counters.take()
    look_up(counters)
    counters.lifetime()[MODEL].hits = 99
    assert taken.counts[MODEL].hits == 1
    assert counters.take().counts[MODEL].hits == 1
    assert counters.lifetime()[MODEL].hits == 2


def test_a_batch_covers_the_time_since_the_one_before(counters):
    look_up(counters)
    first = counters.take()
    look_up(counters)
    second = counters.take()
    assert first.since <= first.until
    assert abs(second.since - first.until) < 1
    assert first.until <= second.until


@pytest.mark.parametrize(
    "record",
    [
        look_up,
        lambda counters: counters.wrote(["a"], [None], [MODEL], [1]),
        lambda counters: counters.dropped(MODEL, ["a"], 1),
        lambda counters: counters.count(MODEL, errors=1),
        lambda counters: counters.missed(MODEL, ["a" * 64], 0),
        lambda counters: counters.expires("a" * 64, 5),
        lambda counters: counters.cleared(),
    ],
    ids=["looked_up", "wrote", "dropped", "count", "missed", "expires", "cleared"],
)
def test_whatever_is_told_first_calls_for_a_hand_over_and_the_rest_does_not(counters, wakes, record):
    record(counters)
    record(counters)
    assert wakes == [1]
    assert not counters.is_idle
    assert counters.take() is not None
    assert counters.is_idle
    record(counters)
    assert wakes == [1, 1]


def test_waking_may_call_back_into_the_counters():
    taken: list[Batch | None] = []
    counters = Counters(lambda: taken.append(counters.take()))
    look_up(counters)
    assert [each.counts[MODEL].hits for each in taken] == [1]
    assert counters.take() is None


# ------------------------------------------------------------------------------------------------ bounds


def test_models_beyond_the_bound_are_counted_under_no_name(counters):
    for number in range(MAX_MODELS + 20):
        look_up(counters, f"m{number}")
    for _ in range(2):
        look_up(counters, "m0")
    counts = counters.take().counts
    assert len(counts) == MAX_MODELS + 1
    assert counts[None].hits == 20
    assert counts["m0"].hits == 3
    look_up(counters, "m999")
    assert counters.take().counts.keys() == {"m999"}


def test_only_so_many_keys_are_remembered(counters):
    keys = [f"c:{number:064x}" for number in range(MAX_TOLD + 50)]
    for _ in range(2):
        counters.missed(MODEL, keys, 0)
        counters.wrote(keys, [60] * len(keys), [MODEL] * len(keys), [1] * len(keys))
    taken = counters.take()
    assert len(taken.missed) == len(taken.stored) == MAX_TOLD
    counters.dropped(MODEL, keys, 0)
    assert len(counters.take().dropped) == MAX_TOLD


def test_merged_batches_keep_the_bounds():
    merged = Batch(0.0)
    for first in range(0, 3 * MAX_TOLD, MAX_TOLD):
        keys = [str(number) for number in range(first, first + MAX_TOLD)]
        missed = [(key, None, 0.5) for key in keys]
        merged.add(Batch(0.0, 1.0, {}, missed, dict.fromkeys(keys, (0.5, 60)), set(keys)))
    assert len(merged.missed) == len(merged.stored) == len(merged.dropped) == MAX_TOLD


def test_the_last_slow_lookups_stay(wakes):
    counters = Counters(lambda: None, 0.0, slow_texts=True)
    for number in range(MAX_SLOW + 5):
        counters.looked_up(MODEL, time.perf_counter_ns(), [f"key {number}"], [f"text {number}"], 1, 0)
    slow = counters.take().slow
    assert [each.text for each in slow] == [f"text {number}" for number in range(5, MAX_SLOW + 5)]


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("ä" * 300, "ä" * MAX_SLOW_TEXT),
        ("ä".encode() * 300, "ä" * MAX_SLOW_TEXT),
        (b"\xff\xfe", "\ufffd\ufffd"),
        ("short", "short"),
    ],
)
def test_a_slow_lookups_text_is_cut(text, kept):
    counters = Counters(lambda: None, 0.0, slow_texts=True)
    counters.looked_up(MODEL, time.perf_counter_ns(), ["key"], [text], 1, 0)
    (slow,) = counters.take().slow
    assert slow.text == kept


# ------------------------------------------------------------------------------------------------ what was stored


def test_what_is_dropped_or_cleared_is_no_longer_stored(counters):
    def told() -> tuple[dict[str, int | None], set[str]]:
        taken = counters.take()
        return {key: ttl for key, (_, ttl) in taken.stored.items()}, taken.dropped

    counters.wrote(["a", "b", "c"], [5, 5, None], [MODEL] * 3, [1] * 3)
    counters.dropped(MODEL, ["a"], 1)
    assert told() == ({"b": 5, "c": None}, {"a"})
    counters.dropped(MODEL, ["a"], 1)
    counters.wrote(["a"], [5], [MODEL], [1])
    assert told() == ({"a": 5}, set())
    counters.expires("a", 7)
    counters.expires("b", 7)
    counters.expires("b", None)
    assert told() == ({"a": 7, "b": None}, set())
    counters.wrote(["a"], [5], [MODEL], [1])
    counters.cleared()
    assert told() == ({}, set())


events = st.lists(st.tuples(st.sampled_from(["set", "drop", "clear", "take"]), st.sampled_from("abc")), max_size=12)


@given(events)
def test_merged_batches_tell_the_same_as_one(told):
    """Taken in parts and merged, or taken at once: what is to be forgotten and what is to be remembered agree."""

    def after(*, parts: bool) -> tuple[set[str], bool]:
        counters = Counters(lambda: None)
        batches = []
        for event, key in told:
            if event == "set":
                counters.wrote([key], [5], [MODEL], [1])
            elif event == "drop":
                counters.dropped(MODEL, [key], 1)
            elif event == "clear":
                counters.cleared()
            elif parts:
                batches.append(counters.take())
        first, *others = [*filter(None, [*batches, counters.take()]), Batch(0.0)]
        for later in others:
            first.add(later)
        return set(first.stored), first.cleared

    assert after(parts=True) == after(parts=False)


# ------------------------------------------------------------------------------------------------ others


def test_a_forked_child_starts_from_zero_even_if_a_thread_was_counting(counters):
    look_up(counters, hits=5)
    counters._lock.acquire()  # as a thread holds it that the child does not have
    child = os.fork()
    if child == 0:
        try:
            empty = counters.lifetime() == {} and counters.take() is None
            look_up(counters, hits=2)
            os._exit(0 if empty and counters.take().counts[MODEL].hits == 2 else 1)
        finally:
            os._exit(2)
    counters._lock.release()
    assert os.waitpid(child, 0)[1] == 0
    assert counters.take().counts[MODEL].hits == 5


RECORDING = ("looked_up", "missed", "wrote", "dropped", "cleared", "expires", "count")
EXAMPLES: dict[str, tuple[Any, ...]] = {
    "looked_up": (MODEL, 0, ["key"], ["text"], 1, 5),
    "missed": (MODEL, ["key"], 1),
    "wrote": (["key"], [5], [MODEL], [1]),
    "dropped": (MODEL, ["key"], 1),
    "cleared": (),
    "expires": ("key", 5),
    "count": (MODEL,),
}


def test_whatever_counters_record_no_counters_overrides():
    methods = {name for name, _ in inspect.getmembers(Counters, inspect.isfunction) if not name.startswith("_")}
    assert methods - {"take", "lifetime"} == set(RECORDING)
    assert methods - {"take", "lifetime"} == {name for name in vars(NoCounters) if not name.startswith("_")}


@pytest.mark.parametrize("method", RECORDING)
def test_no_counters_takes_what_counters_take_and_counts_nothing(method):
    counters = NoCounters()
    for each in (Counters(lambda: None), counters):
        getattr(each, method)(*EXAMPLES[method])
    assert counters.take() is None
    assert counters.is_idle
    assert counters.lifetime() == {}


def test_counts_of_models_are_added_without_touching_what_was_added():
    first = {MODEL: Counts(hits=1, latencies={3: 1})}
    added = {}
    add_by_model(added, first)
    add_by_model(added, {MODEL: Counts(hits=2, latencies={3: 1, 4: 1}), None: Counts(errors=1)})
    assert (added[MODEL].hits, added[MODEL].latencies, added[None].errors) == (3, {3: 2, 4: 1}, 1)
    assert (first[MODEL].hits, first[MODEL].latencies) == (1, {3: 1})


def test_models_past_the_bound_are_nameless_before_they_are_handed_over_as_after(counters):
    for number in range(MAX_MODELS + 5):
        counters.count(f"model {number}", hits=1)
        if number == MAX_MODELS - 3:
            counters.take()
    before = counted_by(counters)
    counters.take()
    assert counted_by(counters) == before
    assert sum(each["hits"] for each in before.values()) == MAX_MODELS + 5
    assert len(before) <= MAX_MODELS + 1


def test_no_sum_ever_falls_while_keys_of_many_models_are_read(valkey):
    """A sum that falls is read as a restart by who watches it."""
    with EmbeddingsCache("c", redis_url=valkey.url) as cache:
        keys = cache.mset([item("a", MODEL), item("a", OTHER)])
        stop = threading.Event()

        def read() -> None:
            while not stop.is_set():
                cache.mget_by_keys(keys)

        readers = [threading.Thread(target=read) for _ in range(3)]
        for reader in readers:
            reader.start()
        seen: dict[str | None, int] = {}
        fell = []
        while seen.get(MODEL, 0) < 1_000:
            for model_name, each in cache.process_stats_by_model().items():
                fell += [model_name] * (each.hits < seen.get(model_name, 0))
                seen[model_name] = each.hits
        stop.set()
        for reader in readers:
            reader.join()
        assert fell == []
        assert seen.get(None, 0) == 0
