"""How removals end: done, cancelled or failed, what is told, what is on record, and what statistics make of it."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from removing import MODEL, VECTOR, counts, ignore, item, left, plan_at, plan_of, stored
from servers import Server, running

from embedcache import EmbeddingsCache, audit, removal
from embedcache.connection import RedisConnection
from embedcache.errors import (
    CacheUnavailableError,
    InvalidInputError,
    InvalidMetadataError,
    InvalidNameError,
    ReadOnlyError,
    ServerReplyError,
)
from embedcache.explain import Reason
from embedcache.pacing import UNPACED, Pace
from embedcache.removal import RemovalPlan, RemovalReport, RemovalStoppedError

STEP = 250


class CancelledError(Exception):
    """What a page's progress raises."""


@pytest.fixture
def connection(server: Server) -> Iterator[RedisConnection]:
    opened = RedisConnection(server.url)
    yield opened
    opened.close()


@pytest.fixture
def cache(server: Server) -> Iterator[EmbeddingsCache]:
    with EmbeddingsCache("c", redis_url=server.url, stats=False) as opened:
        yield opened


# ------------------------------------------------------------------------------------------------ progress, cancelling


def test_progress_is_told_from_nothing_to_all(valkey: Server) -> None:
    with EmbeddingsCache("c", redis_url=valkey.url, stats=False) as cache:
        plan = plan_of(cache.connection, stored(cache, 1_100))
        told: list[tuple[int, int]] = []
        removal.carry_out(cache.connection, plan, lambda *each: told.append(each), "ada", pace=UNPACED)
        assert told == [(0, 1_100), (250, 1_100), (500, 1_100), (750, 1_100), (1_000, 1_100), (1_100, 1_100)]


def stop_after(done: int) -> Callable[..., None]:
    def tell(count: int, *_: int) -> None:
        if count >= done:
            raise CancelledError

    return tell


WORKS: dict[str, Callable[[RedisConnection, RemovalPlan, Any], RemovalReport]] = {
    "remove": lambda connection, plan, tell: removal.carry_out(connection, plan, tell, "ada"),
    "set TTL": lambda connection, plan, tell: removal.set_ttl(connection, plan, 900, tell, "ada"),
    "clear": lambda connection, _, tell: removal.clear_cache(connection, "c", tell, "ada"),
}


@pytest.mark.parametrize("action", WORKS)
def test_what_is_cancelled_ends_there_and_says_what_was_done(
    server: Server, cache: EmbeddingsCache, connection: RedisConnection, action: str
) -> None:
    keys = stored(cache, 1_500)
    plan = plan_of(connection, keys)
    with pytest.raises(RemovalStoppedError, match=r"was cancelled: .* entries were .* Make a new plan") as caught:
        WORKS[action](connection, plan, stop_after(500))
    report = caught.value.report
    assert isinstance(caught.value.__cause__, CancelledError)
    assert (report.outcome, report.recorded) == ("cancelled", True)
    touched = sum(server.raw.ttl(key) != -1 for key in keys)  # removed, or with a TTL
    assert 500 <= report.changed == touched < 1_500
    assert report.remaining == len(left(server))
    (record,) = audit.read(connection, "c")
    assert (record.action, record.count, record.bytes) == (action, report.changed, report.bytes)
    assert record.detail["outcome"] == "cancelled"
    if action != "clear":
        assert (report.planned, report.untouched) == (1_500, 1_500 - report.changed)


def test_what_is_cancelled_before_it_begins_does_nothing(server: Server, cache: EmbeddingsCache) -> None:
    keys = stored(cache, 3)
    with pytest.raises(RemovalStoppedError) as caught:
        removal.carry_out(cache.connection, plan_of(cache.connection, keys), stop_after(0), "ada")
    assert counts(caught.value.report) == {"untouched": 3}
    assert left(server) == set(keys)


def test_the_end_is_counted_and_not_worked_out(server: Server, cache: EmbeddingsCache) -> None:
    keys = stored(cache, 3)

    def tell(done: int, total: int) -> None:
        if done == total:
            cache.set("text 1", MODEL, VECTOR)

    report = removal.carry_out(cache.connection, plan_of(cache.connection, keys), tell, "ada")
    assert (report.changed, report.remaining) == (3, 1)


# ------------------------------------------------------------------------------------------------ the audit log


def test_what_was_done_is_on_record(cache: EmbeddingsCache, connection: RedisConnection) -> None:
    keys = stored(cache, 4)
    plan = plan_of(connection, keys, words="model is a/model", chosen_by={"model_name": MODEL}, made_at=1e9)
    cache.drop_by_key(keys[0])
    cache.set("text 1", MODEL, VECTOR)
    report = removal.carry_out(connection, plan, ignore, "ada <b>")
    (record,) = audit.read(connection, "c")
    assert (record.actor, record.action, record.count, record.bytes) == ("ada <b>", "remove", 2, report.bytes)
    detail = dict(record.detail)
    assert 0 < detail.pop("seconds") < 60
    assert detail == {
        "outcome": "done",
        "planned": 4,
        "made_at": 1e9,
        "words": "model is a/model",
        "chosen_by": {"model_name": MODEL},
        "gone": 1,
        "kept_newer": 1,
        "skipped": 0,
        "remaining": 1,
    }


def test_while_it_runs_the_log_says_so(valkey: Server) -> None:
    with EmbeddingsCache("c", redis_url=valkey.url, stats=False) as cache:
        plan = plan_of(cache.connection, stored(cache, 600))
        seen: list[tuple[str, int]] = []

        def tell(done: int, _: int) -> None:
            (record,) = audit.read(cache.connection, "c")
            seen.append((record.detail["outcome"], record.count))
            if done == STEP:
                time.sleep(1.1)  # past the second after which the record is brought up to date

        removal.carry_out(cache.connection, plan, tell, "ada")
        assert seen[:2] == [("running", 0), ("running", 0)]
        assert seen[2] == ("running", STEP)


def test_a_ttl_is_on_record(cache: EmbeddingsCache, connection: RedisConnection) -> None:
    plan = plan_of(connection, stored(cache, 2))
    removal.set_ttl(connection, plan, 900, ignore, "ada")
    (record,) = audit.read(connection, "c")
    assert (record.action, record.count, record.detail["ttl"]) == ("set TTL", 2, 900)


# ------------------------------------------------------------------------------------------------ servers that fail


def test_a_server_killed_half_way_ends_it_with_what_is_known() -> None:
    with (
        running("valkey9", "--appendonly", "yes", "--appendfsync", "always") as server,
        EmbeddingsCache("c", redis_url=server.url, stats=False) as cache,
    ):
        plan = plan_of(cache.connection, stored(cache, 1_000))
        process_id = server.raw.info("server")["process_id"]

        def tell(done: int, _: int) -> None:
            if done == 2 * STEP:
                os.kill(process_id, signal.SIGKILL)

        with pytest.raises(RemovalStoppedError, match=r"stopped half-way \(no answer from") as caught:
            removal.carry_out(cache.connection, plan, tell, "ada", pace=UNPACED)
        report, words = caught.value.report, str(caught.value)
        assert isinstance(caught.value.__cause__, CacheUnavailableError)
        assert "500 of 1,000 entries were removed, and stay so. Make a new plan for the rest." in words
        assert "The audit log may lack the last second" in words
        assert (report.outcome, report.changed, report.remaining, report.recorded) == ("failed", 500, None, False)
        server.stop()
        server.start()
        assert len(left(server)) == 500
        (record,) = audit.read(cache.connection, "c")
        assert record.detail["outcome"] == "running"
        assert record.count <= 500


def test_a_server_that_refuses_half_way_ends_it(valkey: Server) -> None:
    def tell(done: int, _: int) -> None:
        if done == STEP:
            valkey.raw.replicaof("127.0.0.1", 1)  # takes no writes any more

    with EmbeddingsCache("c", redis_url=valkey.url, stats=False) as cache:
        plan = plan_of(cache.connection, stored(cache, 1_000))
        try:
            with pytest.raises(RemovalStoppedError, match="READONLY") as caught:
                removal.carry_out(cache.connection, plan, tell, "ada")
        finally:
            valkey.raw.replicaof("NO", "ONE")
        assert isinstance(caught.value.__cause__, ServerReplyError)
        report = caught.value.report
        assert (report.outcome, report.changed, report.remaining, report.recorded) == ("failed", STEP, 750, False)
        (record,) = audit.read(cache.connection, "c")
        assert record.detail["outcome"] == "running"


@pytest.mark.usefixtures("valkey")
def test_an_embedded_server_that_is_killed_is_brought_back_and_the_work_goes_on(tmp_path: Path) -> None:
    with EmbeddingsCache("c", redis_url=f"embedded://{tmp_path}/data", stats=False) as cache:
        keys = stored(cache, 1_000)
        plan = plan_of(cache.connection, keys)
        time.sleep(1.5)  # its log is written once a second

        def tell(done: int, _: int) -> None:
            if done == 2 * STEP:
                os.kill(cache.connection.client().info("server")["process_id"], signal.SIGKILL)

        report = removal.carry_out(cache.connection, plan, tell, "ada", pace=UNPACED)
        # What the server had not yet on disk has come back: the count in the end tells.
        assert (report.outcome, report.changed) == ("done", 1_000)
        assert report.remaining == sum(cache.mexists_by_keys(keys))
        assert audit.read(cache.connection, "c")[0].detail["remaining"] == report.remaining


def test_a_server_that_is_away_from_the_beginning_is_just_that() -> None:
    connection = RedisConnection("unix:///nowhere.sock")
    with pytest.raises(CacheUnavailableError):
        removal.carry_out(connection, plan_at(["c:" + "0" * 64], [1.0]), ignore, "ada")


def test_a_read_only_connection_removes_nothing(valkey: Server) -> None:
    with EmbeddingsCache("c", redis_url=valkey.url, stats=False) as cache:
        keys = stored(cache, 3)
        plan = plan_of(cache.connection, keys)
    looking = RedisConnection(valkey.url, read_only=True)
    for work in WORKS.values():
        with pytest.raises(ReadOnlyError):
            work(looking, plan, ignore)
    looking.close()
    assert left(valkey) == set(keys)


# ------------------------------------------------------------------------------------------------ statistics


def test_statistics_are_told_of_what_was_dropped(server: Server, connection: RedisConnection) -> None:
    with EmbeddingsCache("c", redis_url=server.url) as cache:
        keys = stored(cache, 900)
        cache.flush_stats()
        report = removal.carry_out(connection, plan_of(connection, keys), ignore, "ada", pace=UNPACED)
        assert report.changed == 900
        assert cache.stats("all").drops == 900
        for text in ("text 0", "text 899"):
            assert cache.why(text, MODEL, max_scan=0).reason is Reason.NEVER_STORED


def test_statistics_are_told_of_thousands(valkey: Server) -> None:
    with EmbeddingsCache("c", redis_url=valkey.url) as cache:
        keys: list[str] = []
        for start in range(0, 3_500, 500):
            keys += cache.mset([item(f"text {number}") for number in range(start, start + 500)])
            cache.flush_stats()
        (record,) = valkey.raw.keys("c:stats:*:stored")
        assert valkey.raw.zcard(record) == 3_500
        removal.carry_out(cache.connection, plan_of(cache.connection, keys[:3_000]), ignore, "ada", pace=UNPACED)
        assert valkey.raw.zcard(record) == 500
        removal.clear_cache(cache.connection, "c", ignore, "ada")
        assert valkey.raw.zcard(record) == 0
        assert cache.stats("all").drops == 3_500


def test_what_expires_by_a_new_ttl_is_told_as_expired(valkey: Server) -> None:
    with EmbeddingsCache("c", redis_url=valkey.url) as cache:
        keys = stored(cache, 2)
        cache.flush_stats()
        removal.set_ttl(cache.connection, plan_of(cache.connection, keys), 1, ignore, "ada")
        deadline = time.monotonic() + 20
        while valkey.raw.exists(*keys):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert cache.why("text 1", MODEL, max_scan=0).reason is Reason.EXPIRED


def test_statistics_that_are_refused_stop_nothing(valkey: Server) -> None:
    valkey.raw.execute_command("ACL", "SETUSER", "some", "reset", "on", ">pw", "~c:*", "+@all", "-hset", "-hincrby")
    settings = {"username": "some", "password": "pw"}
    with EmbeddingsCache("c", redis_url=valkey.url, connection_kwargs=settings, stats=False) as cache:
        report = removal.carry_out(cache.connection, plan_of(cache.connection, stored(cache, 3)), ignore, "ada")
    assert (report.changed, report.recorded) == (3, True)
    valkey.raw.execute_command("ACL", "DELUSER", "some")


# ------------------------------------------------------------------------------------------------ plans and pace


def columns(rows: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return np.zeros((rows, 32), np.uint8), np.ones(rows), np.ones(rows, np.int64)


def test_a_plan_is_frozen() -> None:
    digests, inserted_at, value_bytes = columns(3)
    plan = RemovalPlan.of("c", digests, inserted_at, value_bytes)
    digests[:] = 7
    inserted_at[:] = 7
    assert plan.keys(slice(None)) == ["c:" + "0" * 64] * 3
    assert (len(plan), plan.total_bytes, plan.inserted_at.tolist()) == (3, 3, [1, 1, 1])
    for column in (plan.digests, plan.inserted_at, plan.value_bytes, plan.kinds):
        with pytest.raises(ValueError, match="read-only"):
            column[0] = 1


def test_a_plan_that_cannot_be_is_refused() -> None:
    digests, inserted_at, value_bytes = columns(3)
    with pytest.raises(InvalidNameError):
        RemovalPlan.of(" ", digests, inserted_at, value_bytes)
    with pytest.raises(InvalidInputError, match=r"digests are uint8 of shape \(n, 32\), not uint8 of \(3, 31\)"):
        RemovalPlan.of("c", digests[:, 1:], inserted_at, value_bytes)
    with pytest.raises(InvalidInputError, match="digests are uint8"):
        RemovalPlan.of("c", digests.astype(np.int64), inserted_at, value_bytes)
    with pytest.raises(InvalidInputError, match=r"value_bytes has shape \(2,\); there are 3 entries"):
        RemovalPlan.of("c", digests, inserted_at, value_bytes[:2])
    with pytest.raises(InvalidInputError, match=r"hashes has shape \(1,\)"):
        RemovalPlan.of("c", digests, inserted_at, value_bytes, hashes=np.ones(1, np.bool_))
    with pytest.raises(InvalidMetadataError):
        RemovalPlan.of("c", digests, inserted_at, value_bytes, chosen_by={"a": object()})


@pytest.mark.parametrize("share", [0, -1, 1.1, float("nan")])
def test_a_pace_that_cannot_be_is_refused(share: float) -> None:
    with pytest.raises(InvalidInputError, match="above 0 and up to 1"):
        Pace(share)


def test_a_pause_is_as_long_as_its_step() -> None:
    def seconds(share: float) -> float:
        started = time.perf_counter()
        with Pace(share).step():
            time.sleep(0.03)
        return time.perf_counter() - started

    assert seconds(0.5) >= 0.06
    assert seconds(0.25) >= 0.12
    assert seconds(UNPACED) >= 0.03
