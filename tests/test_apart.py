"""Walks in a process of their own: the same results as in a thread, the same errors, and nothing left behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from looking import looking_at
from servers import Server

from embedcache import CacheUnavailableError, EmbeddingsCache, apart, walking
from embedcache.apart import WalkEndedError
from embedcache.connection import RedisConnection
from embedcache.errors import InvalidNameError, ServerReplyError
from embedcache.index import COLUMNS

ENTRIES = 3_000
RESTING_LINES = 10
"""A walk that rests says as often, at least, how far it is: as far as before."""


class StopError(Exception):
    """Raised by who is told, as a cancelled job does."""


@pytest.fixture(autouse=True)
def always_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    _of_others.clear()
    _of_others.update(children())
    monkeypatch.setattr(apart, "MANY_TO_INDEX", 0)
    monkeypatch.setattr(apart, "MANY_TO_COUNT", 0)
    monkeypatch.setattr(apart, "_HEAD_START_SECONDS", 0.0)


@pytest.fixture
def connection(valkey: Server) -> Iterator[RedisConnection]:
    with looking_at(valkey) as connection:
        yield connection


@pytest.fixture
def cache(valkey: Server) -> Iterator[EmbeddingsCache]:
    items = [
        {"text": f"text {number}", "model_name": f"m{number % 3} ü", "embedding": [1.0] * (2 + number % 3)}
        for number in range(ENTRIES)
    ]
    with EmbeddingsCache("c", redis_url=valkey.url, stats=False) as opened:
        opened.mset(items, ttl=600)
        opened.set("stays", "m", [1.0])
        yield opened


def quiet(done: int, total: int | None) -> None:
    """Nobody is told."""


def children() -> list[int]:
    """The processes of ours that walk; and those that ended, whatever they were, whose end nobody has taken note of."""
    pids = [int(pid) for task in Path("/proc/self/task").iterdir() for pid in (task / "children").read_text().split()]
    lines = {pid: Path(f"/proc/{pid}/cmdline").read_bytes() for pid in pids}
    return [pid for pid, line in lines.items() if pid not in _of_others and (not line or b"embedcache.apart" in line)]


_of_others: set[int] = set()
"""Children that were there before a test, and are other tests'."""


def test_an_index_is_the_same_as_in_a_thread(
    valkey: Server, connection: RedisConnection, cache: EmbeddingsCache
) -> None:
    valkey.raw.set(f"c:{'0' * 64}", "no entry")
    told: list[tuple[int, int | None]] = []
    there = apart.index_cache(connection, valkey.url, "c", lambda done, total: told.append((done, total)))
    here = walking.index_cache(connection, "c", quiet)
    assert (there.name, there.models) == (here.name, here.models)
    for column in COLUMNS:
        one, other = getattr(there, column), getattr(here, column)
        assert one.dtype == other.dtype
        if column in {"expires_at", "last_access"}:  # reckoned from when they were asked for
            assert one == pytest.approx(other, abs=5, nan_ok=True)
        else:
            assert np.array_equal(one, other, equal_nan=one.dtype.kind == "f"), column
    assert there.unreadable == 1
    assert told[-1] == (ENTRIES + 2, ENTRIES + 2)
    assert there.without(np.arange(2)).nbytes < there.nbytes, "it can be worked with"


def test_an_empty_cache_has_an_empty_index(valkey: Server, connection: RedisConnection) -> None:
    found = apart.index_cache(connection, valkey.url, "none", quiet)
    assert len(found) == 0
    assert found.by_model() == ()


def test_counts_are_the_same_as_in_a_thread(
    valkey: Server, connection: RedisConnection, cache: EmbeddingsCache
) -> None:
    valkey.raw.set("a stranger's", "x")
    counts = apart.count_keys(connection, valkey.url, quiet)
    assert counts == walking.count_keys(connection, quiet)
    assert (counts.by_cache, counts.others) == ({"c": ENTRIES + 1}, 1)


def test_few_keys_are_walked_over_here(
    monkeypatch: pytest.MonkeyPatch, valkey: Server, connection: RedisConnection, cache: EmbeddingsCache
) -> None:
    monkeypatch.setattr(apart, "MANY_TO_INDEX", ENTRIES + 2)
    monkeypatch.setattr(apart, "MANY_TO_COUNT", ENTRIES + 2)
    nowhere = "redis://127.0.0.1:1"
    assert len(apart.index_cache(connection, nowhere, "c", quiet)) == ENTRIES + 1
    assert apart.count_keys(connection, nowhere, quiet).by_cache == {"c": ENTRIES + 1}


def test_what_is_wrong_there_is_raised_here(valkey: Server, connection: RedisConnection) -> None:
    with pytest.raises(CacheUnavailableError, match=r"no answer from redis://127\.0\.0\.1:1"):
        apart.index_cache(connection, "redis://127.0.0.1:1", "c", quiet)
    with pytest.raises(InvalidNameError):
        apart.index_cache(connection, valkey.url, " ", quiet)
    assert children() == []


def test_a_refusal_there_is_one_here(valkey: Server, connection: RedisConnection) -> None:
    valkey.raw.execute_command("ACL", "SETUSER", "walker", "reset", "on", ">secret", "~*", "+@all", "-scan")
    refused = valkey.url.replace("://", "://walker:secret@")
    with pytest.raises(ServerReplyError, match="NOPERM") as raised:
        apart.count_keys(connection, refused, quiet)
    assert raised.value.code == "NOPERM"
    valkey.raw.execute_command("ACL", "DELUSER", "walker")


def test_who_is_told_can_end_it(valkey: Server, connection: RedisConnection, cache: EmbeddingsCache) -> None:
    def stop(done: int, total: int | None) -> None:
        raise StopError

    with pytest.raises(StopError):
        apart.index_cache(connection, valkey.url, "c", stop)
    assert children() == []


def test_it_can_be_ended_before_it_began(monkeypatch: pytest.MonkeyPatch, connection: RedisConnection) -> None:
    monkeypatch.setattr(apart, "_HEAD_START_SECONDS", 60.0)

    def stop(done: int, total: int | None) -> None:
        raise StopError

    with pytest.raises(StopError):
        apart.count_keys(connection, "redis://127.0.0.1:1", stop)


def test_a_process_that_was_killed_is_told_of(
    valkey: Server, connection: RedisConnection, cache: EmbeddingsCache
) -> None:
    def kill(done: int, total: int | None) -> None:
        for pid in children():
            os.kill(pid, signal.SIGKILL)

    with pytest.raises(WalkEndedError, match="look again"):
        apart.index_cache(connection, valkey.url, "c", kill)
    assert children() == []


def test_a_walk_rests_while_a_page_is_drawn(
    valkey: Server, connection: RedisConnection, cache: EmbeddingsCache
) -> None:
    told: list[tuple[int, int | None]] = []

    def give_way(done: int, total: int | None) -> None:
        told.append((done, total))
        apart.give_way()

    found = apart.index_cache(connection, valkey.url, "c", give_way)
    assert len(found) == ENTRIES + 1
    _, longest = Counter(told).most_common(1)[0]
    assert longest >= RESTING_LINES


def test_a_walk_whose_parent_is_gone_ends(valkey: Server, cache: EmbeddingsCache) -> None:
    asked = json.dumps({"url": valkey.url, "walk": "count_keys", "name": ""}) + "\n"
    child = [sys.executable, "-m", "embedcache.apart"]
    ended = subprocess.run(child, input=asked, text=True, capture_output=True, check=False)
    assert ended.returncode == 1
    assert "result" not in ended.stdout
    assert ended.stderr == ""


def test_a_password_is_on_no_command_line(valkey: Server, connection: RedisConnection, cache: EmbeddingsCache) -> None:
    seen: list[bytes] = []

    def look(done: int, total: int | None) -> None:
        seen.extend(Path(f"/proc/{pid}/{name}").read_bytes() for pid in children() for name in ("cmdline", "environ"))

    valkey.raw.execute_command("ACL", "SETUSER", "walker", "reset", "on", ">s3cret", "~*", "+@all")
    apart.index_cache(connection, valkey.url.replace("://", "://walker:s3cret@"), "c", look)
    valkey.raw.execute_command("ACL", "DELUSER", "walker")
    assert seen
    assert not any(b"s3cret" in each for each in seen)
