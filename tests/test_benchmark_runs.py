"""Saved benchmarks: kept, listed, read, bounded, deleted; and what strangers write in their place."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import msgpack
import numpy as np
import pytest
from servers import Server

from embedcache import EmbeddingsCache, inspector
from embedcache.benchmark import runs as benchmark_runs
from embedcache.benchmark.records import Environment, Measurement, Run, ScenarioResult
from embedcache.benchmark.runs import MAX_RUNS, MAX_SAMPLES, SavedRuns
from embedcache.connection import RedisConnection
from embedcache.errors import ServerReplyError
from embedcache.keyspace import split_key

SUMMARIES, SAMPLES = b"embedcache:{benchmarks}:summaries", b"embedcache:{benchmarks}:samples"


@pytest.fixture
def connection(server: Server) -> Any:
    opened = RedisConnection(server.url)
    yield opened
    opened.close()


@pytest.fixture
def plain(valkey: Server) -> Any:
    opened = RedisConnection(valkey.url)
    yield opened
    opened.close()


def make(number: int = 0, samples: tuple[float, ...] = (0.25, 0.5), **changed: Any) -> Run:
    where = Environment("0.1", "8", "2", "3.11", "Valkey 9.1.2", True, "A CPU", 2, "Linux x86_64", "a/model")
    measured = (
        Measurement("Without", "embed", 1, 2, 0.5, 0.5, 0.5, 0.75, samples),
        Measurement("With", "embed", 1, 2, 0.25, 0.25, 0.25, 0.5, samples, bytes_per_entry=1_800.5),
    )
    run = Run(
        run_id=f"{number:015d}-0123abcd",
        at=1_790_000_000.0 + number,
        seconds=12.5,
        texts=10,
        characters=700,
        iterations=50,
        dimension=384,
        environment=where,
        results=(ScenarioResult("cache", measured),),
    )
    return replace(run, **changed)


def without_samples(run: Run) -> Run:
    results = tuple(
        replace(result, measurements=tuple(replace(each, samples=()) for each in result.measurements))
        for result in run.results
    )
    return replace(run, results=results)


def test_saved_listed_read_and_deleted(connection: RedisConnection) -> None:
    assert benchmark_runs.list_runs(connection) == SavedRuns((), 0)
    runs = [make(number) for number in range(3)]
    for run in (runs[1], runs[2], runs[0]):
        benchmark_runs.save(connection, run)
    listed = benchmark_runs.list_runs(connection)
    assert listed == SavedRuns(tuple(without_samples(run) for run in reversed(runs)), 0)
    assert benchmark_runs.read_run(connection, runs[1].run_id) == runs[1]
    assert benchmark_runs.delete_run(connection, runs[1].run_id)
    assert not benchmark_runs.delete_run(connection, runs[1].run_id)
    assert benchmark_runs.read_run(connection, runs[1].run_id) is None
    assert [run.run_id for run in benchmark_runs.list_runs(connection).runs] == [runs[2].run_id, runs[0].run_id]


def test_the_last_ones_are_kept(plain: RedisConnection, valkey: Server) -> None:
    for number in range(MAX_RUNS + 3):
        benchmark_runs.save(plain, make(number))
    kept = [run.run_id for run in benchmark_runs.list_runs(plain).runs]
    assert kept == [make(number).run_id for number in range(MAX_RUNS + 2, 2, -1)]
    assert valkey.raw.hlen(SAMPLES) == MAX_RUNS


def test_samples_are_thinned_and_their_box_stays(plain: RedisConnection, valkey: Server) -> None:
    samples = tuple(np.random.default_rng(0).lognormal(-7, 0.5, 10_000).tolist())
    benchmark_runs.save(plain, make(samples=samples))
    kept = benchmark_runs.read_run(plain, make().run_id).results[0].measurements[0].samples
    assert len(kept) == MAX_SAMPLES
    assert list(kept) == sorted(kept)
    assert (kept[0], kept[-1]) == pytest.approx((min(samples), max(samples)), rel=1e-6)
    for share in (0.25, 0.5, 0.75):
        assert np.quantile(kept, share) == pytest.approx(np.quantile(samples, share), rel=0.03)
    assert len(valkey.raw.hget(SAMPLES, make().run_id)) < 2 * (4 * MAX_SAMPLES + 20)


def test_they_lie_outside_every_cache(plain: RedisConnection, valkey: Server) -> None:
    benchmark_runs.save(plain, make())
    assert set(valkey.raw.scan_iter()) == {SUMMARIES, SAMPLES}
    assert split_key(SUMMARIES.decode()) is None
    assert inspector.find_names(plain) == ()
    with EmbeddingsCache(redis_url=valkey.url, stats=False) as cache:
        assert not cache.owns(SUMMARIES.decode())
        cache.clear()
    assert len(benchmark_runs.list_runs(plain).runs) == 1


# ------------------------------------------------------------------------------------------------ what strangers write


def packed(**changed: Any) -> bytes:
    """A sound run but for what is changed; a path such as ``results.0.key`` leads inside."""
    import dataclasses

    whole: dict[str, Any] = {"version": 1, **dataclasses.asdict(without_samples(make()))}
    for path, value in changed.items():
        place: Any = whole
        *steps, last = path.split(".")
        for step in steps:
            place = place[int(step) if step.isdigit() else step]
        place[last] = value
    return msgpack.packb(whole)


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"\xff\xff",
        b"not a run",
        msgpack.packb([1, 2]),
        msgpack.packb({"version": 1}),
        packed(version=2),
        packed(run_id="<script>"),
        packed(at=float("nan")),
        packed(at="now"),
        packed(results=[]),
        packed(results=5),
        packed(texts=1.5),
        packed(seconds=-1),
        packed(environment=None),
        packed(**{"environment.cpu": "x" * 3_000}),
        packed(**{"environment.cpus": float("inf")}),
        packed(**{"results.0.measurements": []}),
        packed(**{"results.0.measurements.0.p50": 0}),
        packed(**{"results.0.measurements.0.operation": "delete"}),
        packed(**{"results.0.measurements.0.operation": ["read"]}),
        packed(**{"results.0.measurements.0.bytes_per_entry": "many"}),
        packed(**{"results.0.measurements.0.variant": 7}),
    ],
)
def test_what_cannot_be_read_is_counted(value: bytes, plain: RedisConnection, valkey: Server) -> None:
    benchmark_runs.save(plain, make(1))
    valkey.raw.hset(SUMMARIES, "stranger", value)
    assert benchmark_runs.list_runs(plain) == SavedRuns((without_samples(make(1)),), 1)
    assert benchmark_runs.read_run(plain, "stranger") is None


def test_the_sound_one_is_sound(plain: RedisConnection, valkey: Server) -> None:
    valkey.raw.hset(SUMMARIES, make().run_id, packed(**{"environment.later": 1, "note": "of a later version"}))
    assert benchmark_runs.list_runs(plain).runs == (without_samples(make()),)


@pytest.mark.parametrize(
    "value",
    [
        b"\xff",
        msgpack.packb(7),
        msgpack.packb([]),
        msgpack.packb([b"123", b"123"]),
        msgpack.packb([np.float32([-1]).tobytes()] * 2),
        msgpack.packb([np.float32([np.nan]).tobytes()] * 2),
        msgpack.packb([7, 7]),
    ],
)
def test_without_its_samples_a_run_is_still_shown(value: bytes, plain: RedisConnection, valkey: Server) -> None:
    benchmark_runs.save(plain, make())
    valkey.raw.hset(SAMPLES, make().run_id, value)
    assert benchmark_runs.read_run(plain, make().run_id) == without_samples(make())
    valkey.raw.hdel(SAMPLES, make().run_id)
    assert benchmark_runs.read_run(plain, make().run_id) == without_samples(make())


def test_a_key_of_another_kind_is_the_servers_error(plain: RedisConnection, valkey: Server) -> None:
    valkey.raw.set(SUMMARIES, "a string")
    with pytest.raises(ServerReplyError, match="WRONGTYPE"):
        benchmark_runs.list_runs(plain)
    with pytest.raises(ServerReplyError, match="WRONGTYPE"):
        benchmark_runs.save(plain, make())
