"""Walks over real servers: every key once, every entry as it was written, strangers told from entries."""

from __future__ import annotations

import struct
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from looking import NO_SCRIPTS, allow, looking_at, redisvl_hash
from playing import play
from servers import Server, running

from embedcache import CacheUnavailableError, EmbeddingsCache, codec, inspector, walking
from embedcache.columns import Layout
from embedcache.connection import RedisConnection
from embedcache.errors import InvalidNameError, ServerReplyError
from embedcache.filtering import EntryFilter
from embedcache.index import EntryIndex, keys_of
from embedcache.keyspace import Keyspace
from embedcache.walking import Flaw

WITHOUT_SCRIPTS = {"scripts": (), "no scripts": NO_SCRIPTS}


@pytest.fixture(params=list(WITHOUT_SCRIPTS))
def connection(request: pytest.FixtureRequest, server: Server) -> Iterator[RedisConnection]:
    with looking_at(server, *WITHOUT_SCRIPTS[request.param]) as connection:
        yield connection


def quiet(done: int, total: int | None) -> None:
    """Nobody is told."""


def cache(server: Server, name: str = "c", **options: Any) -> EmbeddingsCache:
    return EmbeddingsCache(name, redis_url=server.url, stats=False, **options)


def fill(opened: EmbeddingsCache, count: int, **fields: Any) -> list[str]:
    plain = {"model_name": "m", "embedding": [1.0, 2.0]}
    return opened.mset([{"text": f"text {number}", **plain, **fields} for number in range(count)])


def strangers(server: Server, name: str = "c") -> dict[str, str]:
    """What is under keys of a cache's form and is no entry, each stored, by what it is."""
    keys = {what: f"{name}:{number:064x}" for number, what in enumerate(["list", "hash", "short", "later", "cut"])}
    with cache(server, name) as opened:
        key = opened.set("to be damaged", "m", np.ones(8))
    value = server.raw.get(key)
    server.raw.delete(key)
    server.raw.rpush(keys["list"], "x")
    server.raw.hset(keys["hash"], mapping={"model_name": "m", "inserted_at": "1.5"})
    server.raw.set(keys["short"], "x")
    server.raw.set(keys["later"], b"EMB\x02" + value[4:])
    server.raw.set(keys["cut"], value[: codec.head_bytes(value) - 1])
    return keys


# ------------------------------------------------------------------------------------------------ counting keys


def test_keys_are_counted_for_each_cache(server: Server, connection: RedisConnection) -> None:
    for name, count in (("a", 2_500), ("a:b", 3), ("*?[x]\\", 2), ("ü", 1)):
        with cache(server, name) as opened:
            fill(opened, count)
    odd = [b"\xff:" + b"0" * 64, b" :" + b"0" * 64, b":" + b"0" * 64, b"a:" + b"F" * 64, b"a:" + b"0" * 63, b"x"]
    server.raw.mset(dict.fromkeys(odd, "no cache's"))
    told: list[tuple[int, int | None]] = []
    counts = walking.count_keys(connection, lambda done, total: told.append((done, total)))
    assert counts.by_cache == {"a": 2_500, "a:b": 3, "*?[x]\\": 2, "ü": 1}
    assert next(iter(counts.by_cache)) == "a"
    assert counts.others == len(odd)
    assert told[-1] == (2_506 + len(odd), 2_506 + len(odd))
    assert len(told) > 1


def test_a_key_that_scan_returns_twice_is_counted_once() -> None:
    keys = [b"a:" + bytes([digit]) * 64 for digit in b"01"] + [b"b:" + b"0" * 64]
    counts, _ = play(walking._count_keys(quiet), [4], [[b"7", keys]], [[b"0", keys[:2]]])
    assert counts.by_cache == {"a": 2, "b": 1}
    assert counts.others == 0


def test_hashes_of_redisvl_are_counted_for_each_cache(server: Server, connection: RedisConnection) -> None:
    with cache(server, "a") as opened:
        fill(opened, 2_500)
    for name, digits in (("theirs", "abc"), ("a", "d")):
        for digit in digits:
            server.raw.hset(f"{name}:{digit * 64}", mapping=redisvl_hash())
    server.raw.hset("a:stats", mapping={"x": "1"})
    told: list[int] = []
    assert walking.count_redisvl(connection, lambda done, _: told.append(done)) == {"theirs": 3, "a": 1}
    assert told[-1] == 5


def test_a_server_that_does_not_tell_its_size_is_counted_all_the_same(valkey: Server) -> None:
    with cache(valkey) as opened:
        fill(opened, 3)
    totals = set()
    with looking_at(valkey, "+@all", "-dbsize") as connection:
        counts = walking.count_keys(connection, lambda _, total: totals.add(total))
    assert counts.by_cache == {"c": 3}
    assert totals == {None}


# ------------------------------------------------------------------------------------------------ the index


def position(index: EntryIndex, key: str) -> int:
    (found,) = index.positions_of([key]).tolist()
    return int(found)


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "int8"])
def test_an_entry_is_indexed_as_it_was_written(server: Server, connection: RedisConnection, dtype: str) -> None:
    texts: list[str | bytes] = ["short", "long " * 5_000, "ü" * 90, b"\x89PNG" * 70]
    with cache(server, "a*[b]", dtype=dtype) as opened:
        keys = [opened.set(text, "mödel/" * 40, np.ones(300), {"page": 1}, ttl=500) for text in texts]
        forever = opened.set("forever", "n", [1.0])
        written = [opened.get_by_key(key) for key in [*keys, forever]]
    with cache(server, "a*[b]:c") as another:
        fill(another, 2)
    index = walking.index_cache(connection, "a*[b]", quiet)
    assert sorted(index.keys(range(len(index)))) == sorted([*keys, forever])
    assert abs(index.taken_at - time.time()) < 60
    for key, entry in zip([*keys, forever], written, strict=True):
        at = position(index, key)
        assert entry is not None
        assert index.inserted_at[at] == entry["inserted_at"]
        assert index.model_name(at) == entry["model_name"]
        assert index.dimension[at] == len(entry["embedding"])
        assert (index.dtype(at), index.layouts[at]) == (dtype, Layout.PACKED)
        assert index.value_bytes[at] == server.raw.strlen(key)
        assert index.last_access[at] == pytest.approx(index.taken_at, abs=30)
    assert {int(index.ttl[position(index, key)]) for key in keys} == {500}
    assert all(400 < index.expires_at[position(index, key)] - index.taken_at < 501 for key in keys)
    assert np.isinf(index.expires_at[position(index, forever)])
    assert index.ttl[position(index, forever)] == 0


def test_ages_are_those_of_the_values(valkey: Server) -> None:
    with cache(valkey) as opened:
        key = opened.set("a", "m", [1.0])
    value = bytearray(valkey.raw.get(key))
    at = value.index(b"\x92\xcb") + 2
    value[at : at + 8] = struct.pack(">d", time.time() - 3 * 86_400)
    valkey.raw.set(key, bytes(value))
    with looking_at(valkey) as connection:
        index = walking.index_cache(connection, "c", quiet)
    assert index.entries_by_age([2 * 86_400, 4 * 86_400]).tolist() == [0, 1, 0]


def test_what_is_told_goes_from_the_keys_to_the_entries(server: Server, connection: RedisConnection) -> None:
    with cache(server) as opened:
        fill(opened, 1_200)
    told: list[tuple[int, int | None]] = []
    index = walking.index_cache(connection, "c", lambda done, total: told.append((done, total)))
    assert len(index) == 1_200
    assert told[0] == (0, None)
    assert [each for each in told if each[1]] == [(500, 1_200), (1_000, 1_200), (1_200, 1_200)]


class EnoughError(Exception):
    """What a teller raises that wants no more."""


@pytest.mark.parametrize("walk", ["count", "index", "match", "unreadable"])
def test_a_walk_ends_where_its_teller_raises(valkey: Server, walk: str) -> None:
    with cache(valkey) as opened:
        fill(opened, 1_200)
    told = []

    def tell(done: int, total: int | None) -> None:
        told.append(done)
        raise EnoughError

    with looking_at(valkey) as connection:
        index = walking.index_cache(connection, "c", quiet)
        walks = {
            "count": lambda: walking.count_keys(connection, tell),
            "index": lambda: walking.index_cache(connection, "c", tell),
            "match": lambda: walking.match(connection, index, EntryFilter(text_contains="1"), tell),
            "unreadable": lambda: walking.find_unreadable(connection, index, tell),
        }
        with pytest.raises(EnoughError):
            walks[walk]()
        assert len(told) == 1
        assert inspector.ping(connection) > 0


def test_strangers_are_unreadable_and_redisvl_is_not(server: Server, connection: RedisConnection) -> None:
    keys = strangers(server)
    newer, older = f"c:{'a' * 64}", f"c:{'b' * 64}"
    server.raw.hset(newer, mapping=redisvl_hash("new", size=4, metadata='{"page": 3}'))
    server.raw.hset(older, mapping=redisvl_hash("old", field="text", model_name="n"))
    server.raw.expire(older, 500)
    with cache(server) as opened:
        ours = opened.set("ours", "m", [1.0])
    index = walking.index_cache(connection, "c", quiet)
    assert len(index) == 8
    assert sorted(index.keys(index.where(EntryFilter(unreadable=True)))) == sorted(keys.values())
    assert (index.unreadable, index.redisvl_entries) == (5, 2)
    at = position(index, newer)
    assert (index.model_name(at), index.inserted_at[at], index.dtype(at)) == ("m", 1736455112.5, "json")
    assert index.value_bytes[at] == sum(map(len, server.raw.hgetall(newer).values()))
    assert 400 < index.expires_at[position(index, older)] - index.taken_at < 501
    assert [(each.model_name, each.entries) for each in index.by_model()] == [("m", 2), ("n", 1)]
    assert index.value_bytes[position(index, keys["short"])] == 1
    assert index.value_bytes[position(index, keys["list"])] == server.raw.memory_usage(keys["list"])
    assert index.layouts[position(index, ours)] == Layout.PACKED


def test_a_key_that_scan_returns_twice_is_indexed_once(valkey: Server) -> None:
    with cache(valkey) as opened:
        keys = [key.encode() for key in fill(opened, 3)]
    found, _ = play(walking.find_digests(Keyspace("c"), quiet), [[b"7", keys]], [[b"0", [*keys[:2], b"c:x"]]])
    assert sorted(keys_of("c", found)) == sorted(key.decode() for key in keys)


def test_memory_is_estimated_from_what_the_server_says(server: Server, connection: RedisConnection) -> None:
    with cache(server) as opened:
        keys = [*fill(opened, 300), *fill(opened, 30, model_name="n", embedding=np.ones(700))]
    index = walking.index_cache(connection, "c", quiet)
    truth = sum(map(server.raw.memory_usage, keys))
    assert sum(each.memory_bytes or 0 for each in index.by_model()) == pytest.approx(truth, rel=0.05)


def test_looking_changes_neither_entries_nor_what_is_idle(valkey: Server) -> None:
    with cache(valkey) as opened:
        key = opened.set("a", "m", [1.0], ttl=500)
    valkey.raw.hset(f"c:{'a' * 64}", mapping=redisvl_hash())
    valkey.raw.expire(key, 100)
    time.sleep(2.1)
    with EmbeddingsCache("c", redis_url=valkey.url, read_only=True) as reading:
        for _ in range(2):  # the second look sees what the first one left
            index = walking.index_cache(reading.connection, "c", quiet)
            assert (index.taken_at - index.last_access >= 1).all()
            walking.match(reading.connection, index, EntryFilter(text_contains="a"), quiet)
            walking.find_unreadable(reading.connection, index, quiet)
            walking.count_keys(reading.connection, quiet)
            summaries = inspector.summarise(reading.connection, index.keys(range(2)))
            assert all(each is not None and (each.idle_seconds or 0) >= 1 for each in summaries)
    assert valkey.raw.ttl(key) <= 100
    assert len(valkey.plain_keys()) == 2


def test_idle_times_are_read_before_they_end(server: Server, connection: RedisConnection) -> None:
    with cache(server) as opened:
        fill(opened, 3)
    time.sleep(2.1)
    index = walking.index_cache(connection, "c", quiet)
    assert index.where(EntryFilter(min_idle=1)).tolist() == [0, 1, 2]


@pytest.mark.parametrize("rights", [(), NO_SCRIPTS])
def test_under_an_lfu_policy_nobody_knows_what_is_idle(rights: tuple[str, ...]) -> None:
    with running("valkey9", "--maxmemory-policy", "allkeys-lfu") as server, cache(server) as opened:
        keys = fill(opened, 3)
        with looking_at(server, *rights) as connection:
            index = walking.index_cache(connection, "c", quiet)
            assert [each and each.idle_seconds for each in inspector.summarise(connection, keys)] == [None] * 3
        assert np.isnan(index.last_access).all()
        assert index.where(EntryFilter(min_idle=0)).tolist() == []


@pytest.mark.parametrize("scripts", ["+@scripting", "-@scripting"])
def test_what_is_forbidden_beside_the_values_is_unknown(server: Server, scripts: str) -> None:
    with cache(server) as opened:
        keys = fill(opened, 3, ttl=500)
    rights = ("+@all", scripts, "-object", "-pttl", "-memory", "-time", "-dbsize")
    with looking_at(server, *rights) as connection:
        index = walking.index_cache(connection, "c", quiet)
        assert len(walking.match(connection, index, EntryFilter(text_contains="text"), quiet)) == 3
        (summary, *_) = inspector.summarise(connection, keys)
    assert (np.isnan(index.last_access) & np.isnan(index.expires_at)).all()
    assert index.expiry_forecast().unknown.entries == 3
    assert [(each.entries, each.memory_bytes) for each in index.by_model()] == [(3, None)]
    assert summary is not None
    assert (summary.expires_in, summary.idle_seconds) == (None, None)


@pytest.mark.parametrize("scripts", ["+@scripting", "-@scripting"])
@pytest.mark.parametrize("command", ["getrange", "strlen", "scan"])
def test_values_that_may_not_be_read_are_not_taken_for_damage(server: Server, scripts: str, command: str) -> None:
    with cache(server) as opened:
        fill(opened, 3)
    with looking_at(server, "+@all", scripts, f"-{command}") as connection, pytest.raises(ServerReplyError):
        walking.index_cache(connection, "c", quiet)


def test_keys_that_leave_meanwhile_are_not_in_the_index(server: Server, connection: RedisConnection) -> None:
    with cache(server) as opened:
        keys = fill(opened, 600)

    def tell(done: int, total: int | None) -> None:
        if total is None:
            server.raw.delete(*keys[:300])

    index = walking.index_cache(connection, "c", tell)
    assert sorted(index.keys(range(len(index)))) == sorted(keys[300:])
    assert index.unreadable == 0


def test_there_may_be_no_cache_or_no_server(server: Server, connection: RedisConnection) -> None:
    assert len(walking.index_cache(connection, "nothing", quiet)) == 0
    with pytest.raises(InvalidNameError):
        walking.index_cache(connection, " ", quiet)
    with pytest.raises(CacheUnavailableError):
        walking.index_cache(RedisConnection("unix:///nowhere"), "c", quiet)


# ------------------------------------------------------------------------------------------------ matching


def test_text_and_metadata_are_matched_where_the_columns_leave_entries(
    server: Server, connection: RedisConnection
) -> None:
    with cache(server) as opened:
        lisbon = opened.set("A train to LISBON?", "m", [1.0], {"source": {"page": 3}})
        other_model = opened.set("Lisbon again", "n", [1.0], {"source": {"page": 4}})
        opened.set("Porto", "m", [1.0], {"source": {"page": 3}})
        opened.set(b"\x89lisbon", "m", [1.0])
        fill(opened, 700)
    hashed = f"c:{'a' * 64}"
    server.raw.hset(hashed, mapping=redisvl_hash("lisbon", metadata='{"source": {"page": 3}}'))
    strangers(server)
    index = walking.index_cache(connection, "c", quiet)

    def keys(**fields: Any) -> set[str]:
        return set(index.keys(walking.match(connection, index, EntryFilter(**fields), quiet)))

    assert keys(text_contains="lisbon") == {lisbon, other_model, hashed}
    assert keys(text_contains="lisbon", model_name="m") == {lisbon, hashed}
    page = {"metadata_field": "source.page", "metadata_value": "3"}
    assert keys(text_contains="lisbon", **page) == {lisbon, hashed}
    assert len(keys(**page)) == 3
    assert keys(text_contains="nowhere") == set()
    assert len(keys(model_name="m")) == 704
    assert len(keys()) == len(index)


def test_what_has_left_since_matches_no_text(valkey: Server) -> None:
    with cache(valkey) as opened, looking_at(valkey) as connection:
        keys = fill(opened, 3)
        index = walking.index_cache(connection, "c", quiet)
        opened.drop_by_key(keys[0])
        found = walking.match(connection, index, EntryFilter(text_contains="text"), quiet)
    assert sorted(index.keys(found)) == sorted(keys[1:])


# ------------------------------------------------------------------------------------------------ checking


def test_damage_is_found_in_whole_values(server: Server, connection: RedisConnection) -> None:
    keys = strangers(server)
    with cache(server) as opened:
        flipped, truncated, moved, *sound = fill(opened, 20)
    last = bytearray(server.raw.get(flipped))
    last[-1] ^= 1
    server.raw.set(flipped, bytes(last))
    server.raw.set(truncated, server.raw.get(truncated)[:-4])
    server.raw.copy(sound[0], moved, replace=True)
    whole, broken = f"c:{'a' * 64}", f"c:{'b' * 64}"
    server.raw.hset(whole, mapping=redisvl_hash())
    server.raw.hset(broken, mapping=redisvl_hash(embedding="[0.1, "))
    index = walking.index_cache(connection, "c", quiet)
    told: list[tuple[int, int | None]] = []
    found = walking.find_unreadable(connection, index, lambda done, total: told.append((done, total)))
    assert dict(zip(index.keys(found.positions), found.flaws, strict=True)) == {
        flipped: Flaw.DAMAGED,
        truncated: Flaw.DAMAGED,
        moved: Flaw.OTHER_KEY,
        broken: Flaw.UNDECODABLE,
        keys["list"]: Flaw.NO_ENTRY,
        keys["hash"]: Flaw.NO_ENTRY,
        keys["short"]: Flaw.NO_ENTRY,
        keys["later"]: Flaw.OTHER_VERSION,
        keys["cut"]: Flaw.DAMAGED,
    }
    assert len(found) == 9
    assert told[-1] == (len(index), len(index))
    with cache(server) as opened:
        assert opened.mget_by_keys(index.keys(found.positions)) == [None] * 9
        assert None not in opened.mget_by_keys(sound)


def test_large_values_are_checked_a_few_at_a_time(valkey: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(walking, "CHUNK_BYTES", 20_000)
    with cache(valkey) as opened:
        fill(opened, 10, embedding=np.ones(1_000), ttl=500)
        opened.set("huge", "m", np.ones(20_000))
    with looking_at(valkey) as connection:
        index = walking.index_cache(connection, "c", quiet)
        valkey.raw.config_resetstat()
        steps: list[int] = []
        assert len(walking.find_unreadable(connection, index, lambda done, _: steps.append(done))) == 0
    assert valkey.raw.info("commandstats")["cmdstat_mget"]["calls"] == len(steps) >= 4
    assert steps[-1] == 11


def test_what_has_left_is_not_unreadable(server: Server, connection: RedisConnection) -> None:
    strangers(server)
    server.raw.hset(f"c:{'a' * 64}", mapping=redisvl_hash())
    with cache(server) as opened:
        fill(opened, 3)
    index = walking.index_cache(connection, "c", quiet)
    server.raw.flushall()
    assert len(walking.find_unreadable(connection, index, quiet)) == 0


def test_a_refusal_is_no_damage(valkey: Server) -> None:
    with cache(valkey) as opened:
        fill(opened, 3)
    with looking_at(valkey, "+@all") as connection:
        index = walking.index_cache(connection, "c", quiet)
        valkey.raw.hset(f"c:{'a' * 64}", mapping=redisvl_hash())
        strangers(valkey)
        full = walking.index_cache(connection, "c", quiet)
        for command in ("mget", "hmget", "getrange"):
            allow(valkey, ("+@all", f"-{command}"))
            with pytest.raises(ServerReplyError):
                walking.find_unreadable(connection, full, quiet)
    assert len(full) == len(index) + 6
