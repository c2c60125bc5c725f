"""Processes that lack the same text at the same time: one computes it, and if it dies or stands still, another does."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import flying
import numpy as np
import pytest
from servers import Server, running
from toy_model import PATIENCE_SECONDS, HeldModel, Model, carried_out, many, vector_of

from embedcache import CustomVectorizer, EmbeddingsCache, flight_locks
from embedcache.errors import ServerReplyError
from embedcache.keyspace import Keyspace
from embedcache.vectorizers import shared_flights, single_flight
from embedcache.vectorizers.steps import Compute, Exchange, LookAgain, LookUp, Store

TESTS = Path(__file__).parent

PROCESS = """
import sys, time
from embedcache import CustomVectorizer, EmbeddingsCache
from embedcache.vectorizers import shared_flights
from toy_model import vector_of

url, seconds, lock_seconds, *texts = sys.argv[1:]
shared_flights.LOCK_SECONDS = float(lock_seconds)

def embed_many(texts):
    print(*texts, flush=True)
    time.sleep(float(seconds))
    return [vector_of(text) for text in texts]

cache = EmbeddingsCache("v", redis_url=url)
vectorizer = CustomVectorizer(vector_of, "toy", cache, embed_many_callable=embed_many, single_flight="shared")
found = vectorizer.embed_many(texts)
assert (found == [vector_of(text) for text in texts]).all()
cache.close()
"""


@pytest.fixture
def cache(valkey: Server) -> Iterator[EmbeddingsCache]:
    with EmbeddingsCache("v", redis_url=valkey.url) as cache:
        yield cache


def vectorizer_of(model: Model, cache: EmbeddingsCache) -> CustomVectorizer:
    return flying.vectorizer_of(model, cache, "shared")


def begin(url: str, texts: list[str], *, seconds: float, lock_seconds: float = 10) -> subprocess.Popen[str]:
    """Another process that embeds texts, and prints those that it computes."""
    return subprocess.Popen(
        [sys.executable, "-c", PROCESS, url, str(seconds), str(lock_seconds), *texts],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(TESTS.parent), str(TESTS)])},
        stdout=subprocess.PIPE,
        text=True,
    )


@pytest.fixture
def other(valkey: Server) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Begins a process that is computing when this returns."""
    begun: list[subprocess.Popen[str]] = []

    def start(*texts: str, **options: float) -> subprocess.Popen[str]:
        process = begin(valkey.url, list(texts), **options)
        begun.append(process)
        assert process.stdout is not None
        assert process.stdout.readline().split() == list(texts)
        return process

    yield start
    for process in begun:
        process.kill()
        process.communicate()


def locks(server: Server) -> list[bytes]:
    return [key for key in server.raw.scan_iter() if b":flight:" in key]


# ------------------------------------------------------------------------------------------------ once


def test_processes_that_ask_for_the_same_texts_compute_each_once(valkey: Server) -> None:
    texts = ["a", "b", "c", "d"]
    processes = [begin(valkey.url, texts[number:] + texts[:number], seconds=0.2) for number in range(4)]
    computed = [process.communicate(timeout=PATIENCE_SECONDS)[0].split() for process in processes]
    assert [process.returncode for process in processes] == [0] * 4
    assert sorted(text for each in computed for text in each) == texts
    assert locks(valkey) == []


def test_who_waits_for_another_process_takes_what_it_stored(
    cache: EmbeddingsCache, other: Callable[..., Any], valkey: Server
) -> None:
    model = Model()
    other("a", "b", seconds=0.5)
    report = vectorizer_of(model, cache).embed_report(["a", "b", "c"])
    assert model.asked == ["c"]  # and not after the others, but while they were computed
    np.testing.assert_array_equal(report.vectors, [vector_of(text) for text in "abc"])
    assert (report.flights_saved, report.hits.tolist()) == (2, [False] * 3)
    assert report.wait_seconds > 0
    stats = cache.process_stats("toy")
    assert (stats.misses, stats.hits, stats.flights_saved, stats.texts_computed) == (3, 0, 2, 1)


def test_it_costs_three_round_trips_more(cache: EmbeddingsCache) -> None:
    """Take, look again, release: however many texts there are."""
    plan = many(vectorizer_of(Model(), cache), [f"text {number}" for number in range(200)])
    assert carried_out(plan) == [LookUp, Exchange, LookAgain, Compute, Store, Exchange]


@pytest.mark.parametrize("fails_at", [None, "a"])
def test_locks_are_gone_when_it_is_done_or_has_failed(
    cache: EmbeddingsCache, valkey: Server, fails_at: str | None
) -> None:
    model = HeldModel()
    model.fails_at = fails_at
    with ThreadPoolExecutor(1) as pool:
        embedding = pool.submit(vectorizer_of(model, cache).embed_many, ["a", "b"])
        assert model.reached.wait(PATIENCE_SECONDS)
        assert len(locks(valkey)) == 2
        model.let_go.set()
        assert (embedding.exception(PATIENCE_SECONDS) is None) == (fails_at is None)
    assert locks(valkey) == []


# ------------------------------------------------------------------------------------------------ not for ever


def test_of_a_holder_that_dies_another_takes_over(cache: EmbeddingsCache, other: Callable[..., Any]) -> None:
    model = Model()
    process = other("a", seconds=60, lock_seconds=1.5)
    os.kill(process.pid, signal.SIGKILL)
    began = time.monotonic()
    np.testing.assert_array_equal(vectorizer_of(model, cache).embed("a"), vector_of("a"))
    assert time.monotonic() - began < 30  # half of what nobody waits longer than
    assert model.asked == ["a"]


def test_a_holder_that_takes_long_keeps_its_lock(cache: EmbeddingsCache, other: Callable[..., Any]) -> None:
    model = Model()
    other("a", seconds=5, lock_seconds=2)  # the lock is prolonged in time on a busy machine, too
    assert vectorizer_of(model, cache).embed_report(["a"]).flights_saved == 1
    assert model.asked == []


def test_a_holder_that_fails_is_followed_by_who_waits(cache: EmbeddingsCache) -> None:
    """Two caches of one process under two names for one server stand for two processes."""
    failing, model = HeldModel(), Model()
    failing.fails_at = "a"
    with EmbeddingsCache("v", redis_url=f"{cache.connection.address}?db=0") as own, ThreadPoolExecutor(2) as pool:
        leading = pool.submit(vectorizer_of(failing, own).embed, "a")
        assert failing.reached.wait(PATIENCE_SECONDS)
        waiting = pool.submit(vectorizer_of(model, cache).embed, "a")
        time.sleep(0.1)
        failing.let_go.set()
        assert isinstance(leading.exception(PATIENCE_SECONDS), RuntimeError)
        np.testing.assert_array_equal(waiting.result(PATIENCE_SECONDS), vector_of("a"))
    assert model.asked == ["a"]


def test_nobody_waits_for_ever(cache: EmbeddingsCache, valkey: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(single_flight, "WAIT_SECONDS", 0.3)
    (key,) = flight_locks.lock_keys(Keyspace("v"), ["a"], "toy")
    valkey.raw.set(key, "somebody who never ends")
    model = Model()
    began = time.monotonic()
    np.testing.assert_array_equal(vectorizer_of(model, cache).embed("a"), vector_of("a"))
    assert 0.2 < time.monotonic() - began < 30
    assert model.asked == ["a"]
    assert valkey.raw.get(key) == b"somebody who never ends"


async def test_a_loop_goes_on_while_its_tasks_wait(cache: EmbeddingsCache, other: Callable[..., Any]) -> None:
    other("a", seconds=1.5)
    model = Model()
    waiting = asyncio.create_task(vectorizer_of(model, cache).aembed("a"))
    turns = 0
    while not waiting.done():
        await asyncio.sleep(0.01)
        turns += 1
    assert turns > 5  # one or two, if the loop stood still meanwhile
    np.testing.assert_array_equal(await waiting, vector_of("a"))
    assert model.asked == []
    await cache.aclose()


# ------------------------------------------------------------------------------------------------ where there are none


def test_where_locks_are_refused_it_computes_and_says_so(caplog: pytest.LogCaptureFixture) -> None:
    with running("valkey9") as server:
        server.raw.execute_command("ACL", "SETUSER", "u", "on", ">p", "~v:*", "+@all", "-set", "-evalsha", "-eval")
        url = server.url.replace("unix://", "unix://u:p@")
        with EmbeddingsCache("v", redis_url=url, stats=False) as cache:
            model = Model()
            found = vectorizer_of(model, cache).embed_many(["a", "b"])
    np.testing.assert_array_equal(found, [vector_of("a"), vector_of("b")])
    assert model.asked == ["a", "b"]
    assert "without the locks of shared flights: NOPERM" in caplog.text


def test_a_server_that_goes_away_in_between_costs_nothing_but_the_cache() -> None:
    with running("valkey9") as server, EmbeddingsCache("v", redis_url=server.url) as cache:
        model = HeldModel()
        with ThreadPoolExecutor(1) as pool:
            embedding = pool.submit(vectorizer_of(model, cache).embed_report, ["a"])
            assert model.reached.wait(PATIENCE_SECONDS)
            server.stop()
            model.let_go.set()
            report = embedding.result(PATIENCE_SECONDS)
    np.testing.assert_array_equal(report.vectors, [vector_of("a")])
    assert report.unstored == 1


def test_hits_take_no_locks(valkey: Server) -> None:
    with EmbeddingsCache("v", redis_url=valkey.url, stats=False) as cache:
        cache.set("a", "toy", vector_of("a"))
        valkey.raw.config_resetstat()
        vectorizer_of(Model(), cache).embed("a")
    assert {"cmdstat_set", "cmdstat_evalsha"}.isdisjoint(valkey.raw.info("commandstats"))


def test_pauses_grow_to_a_bound() -> None:
    some = [pause for pause, _ in zip(shared_flights.pauses(), range(30), strict=False)]
    assert some[0] <= 0.005
    assert 0.1 < max(some) <= 0.25


def test_a_full_server_that_gives_locks_back_is_warned_of_once(caplog: pytest.LogCaptureFixture) -> None:
    with (
        running("valkey9", "--maxmemory-policy", "noeviction") as server,
        EmbeddingsCache("v", redis_url=server.url, stats=False) as cache,
    ):

        def fill(texts: Sequence[Any]) -> np.ndarray:
            server.raw.config_set("maxmemory", 1)
            vectorizer._locks.failed(ServerReplyError("OOM"))  # as another caller finds out by now
            return np.array([vector_of(text) for text in texts])

        vectorizer = CustomVectorizer(vector_of, "toy", cache, embed_many_callable=fill, single_flight="shared")
        for text in ("a", "b"):
            vectorizer.embed_many([text])
        assert not [key for key in server.raw.scan_iter() if b":flight:" in key]
    assert caplog.text.count("without the locks of shared flights") == 1
