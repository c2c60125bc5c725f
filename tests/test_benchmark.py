"""Benchmarks on real servers: what is measured, and that nothing is left behind, whatever ends them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from servers import Server

from embedcache import CustomVectorizer, EmbedcacheError, EmbeddingsCache, InvalidInputError, benchmark
from embedcache.benchmark import SCENARIOS, Comparison, Measurement, ScenarioResult, Settings
from embedcache.benchmark.scenarios import MAX_TEXTS, TTL_SECONDS, Variant
from embedcache.errors import CacheUnavailableError, ReadOnlyError

FEW = Settings(texts=("one", "two", "three"), iterations=4, batch_sizes=(1, 20), dimension=8)


class CancelledError(Exception):
    """What somebody's progress raises."""


def vectorizer(cache: EmbeddingsCache | None = None) -> CustomVectorizer:
    return CustomVectorizer(lambda text: [len(text), 1.0, 2.0], model="a/model", cache=cache)


def only(*scenarios: str) -> Settings:
    return replace(FEW, scenarios=scenarios)


def measurement(variant: str, seconds: float, texts: int = 1, operation: Any = "read") -> Measurement:
    return Measurement(variant, operation, texts, 3, seconds, seconds, seconds, seconds)


# ------------------------------------------------------------------------------------------------ what is measured


def test_everything_is_measured_and_nothing_left_behind(server: Server) -> None:
    run = benchmark.run(server.url, FEW, vectorizer())
    assert [result.key for result in run.results] == ["cache", "batch", "sizes", "dtypes", "layouts", "near"]
    for result in run.results:
        for each in result.measurements:
            assert each.count == len(each.samples) == 4
            assert 0 < min(each.samples) <= each.p50 <= each.p95 <= each.p99 == max(each.samples)
            assert each.p50 in each.samples
            assert min(each.samples) <= each.mean <= max(each.samples)
    assert list(server.raw.scan_iter()) == []
    assert (run.texts, run.characters, run.iterations, run.dimension) == (3, 11, 4, 3)
    assert run.seconds > 0


def test_the_variants_of_each_scenario(valkey: Server) -> None:
    run = benchmark.run(valkey.url, FEW, vectorizer())
    found = {
        result.key: [(each.operation, each.variant, each.texts) for each in result.measurements]
        for result in run.results
    }
    assert found["cache"] == [("embed", "Without the cache", 1), ("embed", "With the cache", 1)]
    assert found["batch"] == [
        ("read", "One call per text", 10),
        ("read", "One call for all", 10),
        ("write", "One call per text", 10),
        ("write", "One call for all", 10),
    ]
    assert found["sizes"] == [("read", "1", 1), ("write", "1", 1), ("read", "20", 20), ("write", "20", 20)]
    dtypes = ("float32", "float64", "float16", "int8")
    assert found["dtypes"] == [(deed, dtype, 100) for dtype in dtypes for deed in ("read", "write")]
    assert found["layouts"] == [(deed, layout, 100) for layout in ("RedisVL", "Packed") for deed in ("read", "write")]


def test_ten_texts_in_a_call_each_take_longer_than_in_one(valkey: Server) -> None:
    run = benchmark.run(valkey.url, replace(only("batch"), iterations=30))
    (comparison,) = run.result("batch").comparisons("read")
    assert comparison.speedup > 1.5
    assert comparison.latency_reduction > 0.3


def test_memory_by_dtype(valkey: Server) -> None:
    run = benchmark.run(valkey.url, replace(only("dtypes"), dimension=384))
    memory = {each.variant: each.bytes_per_entry for each in run.result("dtypes").of("read")}
    assert memory["int8"] < memory["float16"] < memory["float32"] < memory["float64"]
    assert memory["float64"] - memory["float32"] == pytest.approx(4 * 384, rel=0.25)


def test_without_the_cache_the_model_computes_and_with_it_not(valkey: Server) -> None:
    computed: list[Any] = []

    def compute(text: Any) -> list[float]:
        computed.append(text)
        return [1.0, 2.0]

    benchmark.run(valkey.url, only("cache"), CustomVectorizer(compute, model="m"))
    warm_up = 2
    # Once to learn the dimension, each text once to fill the cache, and then each round once.
    assert len(computed) == 1 + 3 + warm_up + 4
    assert set(computed[1:]) == {"one", "two", "three"}


def test_repeated_texts_count_once(valkey: Server) -> None:
    run = benchmark.run(valkey.url, replace(only("batch"), texts=("a", "a", "b", "a (2)")))
    assert run.texts == 3
    assert run.result("batch").measurements[0].texts == 10


def test_rounds_interleave_the_variants_in_either_order() -> None:
    called: list[str] = []

    def variant(name: str) -> Variant:
        return Variant(name, "read", 1, lambda _: called.append(name) or True)

    told: list[tuple[int, int, str]] = []
    samples = benchmark._time_rounds(
        [variant("a"), variant("b")], 4, 10, 100, "t", lambda *progress: told.append(progress)
    )
    assert "".join(called) == "baabbaab"
    assert [len(each) for each in samples] == [2, 2]  # two rounds warm up
    assert told[0] == (11, 100, "t")
    assert told[-1] == (18, 100, "t")


def test_progress_counts_up_to_its_total(valkey: Server) -> None:
    told: list[tuple[int, int, str]] = []
    benchmark.run(valkey.url, FEW, vectorizer(), lambda *progress: told.append(progress))
    counted = [(done, total) for done, total, _ in told if done]
    numbers = [done for done, total in counted if total == counted[-1][1]]
    assert counted[-1][0] == counted[-1][1]
    assert numbers[-40:] == sorted(numbers[-40:])
    notes = [note for _, _, note in told]
    assert notes[0] == "Loading the model"
    assert [scenario.title for scenario in SCENARIOS.values()] == list(dict.fromkeys(notes))[-6:]


def test_our_own_layout_is_compared_with_redisvls(valkey: Server) -> None:
    run = benchmark.run(valkey.url, replace(only("layouts"), iterations=5, dimension=384))
    (comparison,) = run.result("layouts").comparisons("read")
    assert (comparison.baseline.variant, comparison.variant.variant) == ("RedisVL", "Packed")
    assert comparison.speedup > 2
    assert comparison.baseline.bytes_per_entry > 3 * comparison.variant.bytes_per_entry
    assert valkey.plain_keys() == []


def test_the_near_cache_is_timed_once_it_is_warm(server: Server) -> None:
    run = benchmark.run(server.url, replace(only("near"), iterations=5))
    (comparison,) = run.result("near").comparisons()
    assert (comparison.baseline.variant, comparison.variant.variant) == ("From the server", "From the near cache")
    assert comparison.variant.texts == 10
    assert comparison.speedup > 3


# ------------------------------------------------------------------------------------------------ what is left alone


def test_other_caches_and_their_statistics_are_left_alone(valkey: Server) -> None:
    with EmbeddingsCache(redis_url=valkey.url) as mine:
        mine.set("one", "a/model", [1.0, 2.0, 3.0])
        mine.flush_stats()
        before = {key: valkey.raw.dump(key) for key in valkey.raw.scan_iter()}
        own = vectorizer(mine)
        benchmark.run(valkey.url, FEW, own)
        assert own.cache is mine
        mine.flush_stats()
        assert {key: valkey.raw.dump(key) for key in valkey.raw.scan_iter()} == before


def test_entries_would_expire_by_themselves(valkey: Server) -> None:
    seen: dict[bytes, int] = {}

    def look(done: int, total: int, note: str) -> None:
        if done == total:
            seen.update({key: valkey.raw.ttl(key) for key in valkey.raw.scan_iter()})

    benchmark.run(valkey.url, FEW, vectorizer(), look)
    assert len(seen) > 100
    assert all(key.startswith(b"embedcache-benchmark-") for key in seen)
    assert all(0 < ttl <= TTL_SECONDS for ttl in seen.values())


@pytest.mark.parametrize("after", [0, 1, 3, 20, 60])
def test_cancelling_cleans_up(after: int, valkey: Server) -> None:
    calls = []

    def cancel(*progress: Any) -> None:
        calls.append(progress)
        if len(calls) > after:
            raise CancelledError

    with pytest.raises(CancelledError):
        benchmark.run(valkey.url, FEW, vectorizer(), cancel)
    assert list(valkey.raw.scan_iter()) == []


def test_a_failing_model_cleans_up(valkey: Server) -> None:
    calls = iter(range(8))

    def compute(text: Any) -> list[float]:
        if next(calls) == 7:
            raise CancelledError
        return [1.0]

    with pytest.raises(CancelledError):
        benchmark.run(valkey.url, FEW, CustomVectorizer(compute, model="m"))
    assert list(valkey.raw.scan_iter()) == []


@pytest.mark.parametrize("scenario", list(SCENARIOS))
def test_entries_that_vanish_meanwhile_are_an_error(scenario: str, valkey: Server) -> None:
    def empty(done: int, total: int, note: str) -> None:
        if done >= 4:
            valkey.raw.flushall()

    with pytest.raises(EmbedcacheError, match=r"just stored were gone.*Make room"):
        benchmark.run(valkey.url, replace(only(scenario), iterations=9), vectorizer(), empty)
    assert list(valkey.raw.scan_iter()) == []


def test_a_server_that_is_not_there() -> None:
    with pytest.raises(CacheUnavailableError):
        benchmark.run("unix:///nowhere/socket", only("batch"))


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_read_only_the_data_layer_refuses_what_it_would_write(scenario: str, valkey: Server) -> None:
    with pytest.raises(ReadOnlyError):
        benchmark.run(valkey.url, only(scenario), vectorizer(), read_only=True)
    assert valkey.raw.dbsize() == 0


# ------------------------------------------------------------------------------------------------ settings


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"texts": ()}, "no text to measure with"),
        ({"texts": ("a", " ")}, "item 1: the text is empty or blank"),
        ({"texts": tuple(map(str, range(MAX_TEXTS + 1)))}, "up to 1,000 texts, not 1,001"),
        ({"texts": ("a" * 4_001,)}, "up to 4,000 characters, not 4,001"),
        ({"iterations": 0}, "iterations is a whole number from 1 to 10,000, not 0"),
        ({"iterations": True}, "iterations is a whole number"),
        ({"dimension": 5_000}, "dimension is a whole number from 1 to 4,096, not 5000"),
        ({"scenarios": ()}, "no scenario is chosen"),
        ({"scenarios": ("far",)}, "there is no scenario 'far'; there are cache, batch"),
        ({"batch_sizes": ()}, "no batch size is chosen"),
        ({"batch_sizes": (1, 10_001)}, "a batch size is a whole number from 1 to 10,000"),
    ],
)
def test_settings_that_cannot_be_used(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        Settings(**options)


def test_no_batch_size_is_needed_where_none_is_tried() -> None:
    assert Settings(scenarios=("batch",), batch_sizes=()).batch_sizes == ()


def test_a_model_is_needed_for_some(valkey: Server) -> None:
    with pytest.raises(InvalidInputError, match="'Without and with the cache' needs a vectorizer"):
        benchmark.run(valkey.url, FEW)


# ------------------------------------------------------------------------------------------------ results


def test_a_comparison_is_of_medians_per_text() -> None:
    comparison = Comparison(measurement("singly", 0.010, texts=10), measurement("at once", 0.004, texts=20))
    assert comparison.speedup == pytest.approx(5)
    assert comparison.latency_reduction == pytest.approx(0.8)
    assert comparison.variant.texts_per_second == pytest.approx(5_000)
    slower = Comparison(measurement("a", 0.001), measurement("b", 0.002))
    assert slower.speedup == pytest.approx(0.5)
    assert slower.latency_reduction == pytest.approx(-1)


def test_the_first_of_an_operation_is_what_others_are_compared_with() -> None:
    a, b, c = measurement("a", 1), measurement("b", 2), measurement("c", 3, operation="write")
    result = ScenarioResult("x", (a, b, c))
    assert result.comparisons() == [Comparison(a, b)]
    assert result.comparisons("write") == []
    assert result.comparisons("embed") == []


# ------------------------------------------------------------------------------------------------ the environment


def test_the_environment_is_recorded_without_addresses(server: Server) -> None:
    where = benchmark.run(server.url, only("cache"), vectorizer()).environment
    assert where.server.startswith("Valkey 9" if server.kind == "valkey9" else "Redis ")
    assert not where.embedded
    assert where.model == "a/model"
    assert where.cpus >= 1
    assert "" not in (where.cpu, where.platform, where.python, where.numpy, where.redis_py, where.embedcache)
    assert str(server.folder) not in repr(where)


def test_a_server_that_does_not_say_what_it_is(valkey: Server) -> None:
    valkey.raw.acl_setuser("narrow", enabled=True, passwords=["+pw"], keys=["*"], commands=["+@all", "-info"])
    run = benchmark.run(f"unix://narrow:pw@{valkey.socket}", only("batch"))
    valkey.raw.acl_deluser("narrow")
    assert run.environment.server == "unknown"
    assert run.environment.model == ""


def test_ids_sort_by_time(valkey: Server) -> None:
    first, second = (benchmark.run(valkey.url, replace(only("batch"), iterations=1)) for _ in range(2))
    assert first.run_id < second.run_id
    assert first.at < second.at


@pytest.mark.model
def test_the_bundled_model(start_server: Callable[[str], Server]) -> None:
    from embedcache import HFTextVectorizer

    run = benchmark.run(start_server("valkey9").url, Settings(scenarios=("cache",), iterations=10), HFTextVectorizer())
    (comparison,) = run.result("cache").comparisons()
    assert comparison.speedup > 3
    assert run.dimension == 384
