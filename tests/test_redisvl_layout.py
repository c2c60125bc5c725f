"""RedisVL's layout on real servers: what is damaged, refused, looked at and changed there."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import redis
from calling import Caller
from looking import NO_SCRIPTS, looking_at
from playing import play
from removing import ignore, plan_at
from servers import Server, running

from embedcache import NEVER, EmbeddingsCache, inspector, operations, walking
from embedcache.codec import stored_dtype
from embedcache.counters import NoCounters
from embedcache.errors import InvalidInputError, ReadOnlyError, ServerReplyError
from embedcache.explain import Reason
from embedcache.filtering import EntryFilter
from embedcache.keyspace import Keyspace
from embedcache.operations import ServerAbilities
from embedcache.redisvl_layout import BATCH, RedisVLLayout
from embedcache.removal import set_ttl

MODEL = "a/model"
VECTOR = [0.5, -1.0]
METADATA = {"category": "ai", "n": 1}
FLOAT32 = stored_dtype("float32")
SPACE = Keyspace("c", hex_bytes=True)


@pytest.fixture
def layout() -> str:
    return "redisvl"


def item(text: Any, **fields: Any) -> dict[str, Any]:
    return {"text": text, "model_name": MODEL, "embedding": VECTOR, **fields}


def texts_of(entries: list[Any]) -> list[Any]:
    return [entry and entry["text"] for entry in entries]


def mset(texts: list[str], able: ServerAbilities, ttl: int | None = None) -> Any:
    return operations.mset(
        SPACE, able, NoCounters(), FLOAT32, [item(text) for text in texts], ttl, now=1.0, layout=RedisVLLayout(FLOAT32)
    )


def mget(texts: list[str], *, space: Keyspace = SPACE, able: ServerAbilities | None = None) -> Any:
    return operations.mget(
        space, able or ServerAbilities(), NoCounters(), texts, MODEL, refresh=True, layout=RedisVLLayout(FLOAT32)
    )


# ------------------------------------------------------------------------------------------------ settings


def test_the_cache_says_its_layout() -> None:
    assert EmbeddingsCache().layout == "packed"
    assert EmbeddingsCache(layout="redisvl").layout == "redisvl"
    assert EmbeddingsCache(layout="redisvl", dtype="float64").dtype == "float64"


@pytest.mark.parametrize("dtype", ["float16", "int8"])
def test_dtypes_that_decimal_numbers_do_not_have_are_refused(dtype: str) -> None:
    with pytest.raises(InvalidInputError, match=f"dtype is float32 or float64, not {dtype}"):
        EmbeddingsCache(layout="redisvl", dtype=dtype)


def test_a_layout_that_is_none_is_refused() -> None:
    wrong: Any = "json"
    with pytest.raises(InvalidInputError, match="layout is packed or redisvl, not 'json'"):
        EmbeddingsCache(layout=wrong)


def test_a_new_default_ttl_leaves_keys_as_they_are() -> None:
    cache = EmbeddingsCache(layout="redisvl")
    before = cache.key_for(b"abc", MODEL)
    cache.set_ttl(60)
    assert cache.key_for(b"abc", MODEL) == before


# ------------------------------------------------------------------------------------------------ damage


@pytest.mark.parametrize("ttl", [None, 500])
@pytest.mark.parametrize("kind", ["list", "string", "no vector", "NaN", "truncated", "other text"])
def test_what_is_no_entry_is_one_miss_and_counted(valkey: Server, kind: str, ttl: int | None) -> None:
    with EmbeddingsCache("c", ttl=ttl, redis_url=valkey.url, layout="redisvl") as cache:
        keys = cache.mset([item("before"), item("strange"), item("after")])
        key, names = keys[1], ["before", "strange", "after"]
        match kind:
            case "list" | "string":
                valkey.raw.delete(key)
                valkey.raw.rpush(key, "x") if kind == "list" else valkey.raw.set(key, "x")
            case "no vector":
                valkey.raw.hdel(key, "embedding")
            case "NaN":
                valkey.raw.hset(key, "embedding", "[0.5, NaN]")
            case "truncated":
                valkey.raw.hset(key, "embedding", "[0.5, -1")
            case "other text":
                valkey.raw.hset(key, mapping={"content": "x", "text": "x"})
        assert texts_of(cache.mget(names, MODEL)) == ["before", None, "after"]
        assert texts_of(cache.mget_by_keys(keys)) == ["before", None, "after"]
        assert cache.mget_embeddings(names, MODEL)[1].tolist() == [True, False, True]
        assert cache.get("strange", MODEL) is None
        counted = cache.process_stats()
        assert (counted.misses, counted.corrupt) == (4, 4)
        why = cache.why("strange", MODEL)
        assert why.reason is Reason.CORRUPT
        assert ("no hash" if kind in {"list", "string"} else "fields are not those") in str(why)
        if kind not in {"NaN", "truncated"}:  # which only reading the vector tells
            assert cache.exists("strange", MODEL) is False
        assert cache.set_metadata(key, METADATA) is False
        assert cache.set("strange", MODEL, VECTOR) == key
        assert cache.get("strange", MODEL)["embedding"].tolist() == VECTOR


def test_packed_entries_are_misses_here_and_hashes_there(valkey: Server) -> None:
    with (
        EmbeddingsCache("c", redis_url=valkey.url, stats=False) as packed,
        EmbeddingsCache("c", redis_url=valkey.url, layout="redisvl", stats=False) as hashes,
    ):
        packed.set("a", MODEL, VECTOR)
        hashes.set("b", MODEL, VECTOR)
        assert packed.mget(["a", "b"], MODEL)[1] is None
        assert hashes.mget(["a", "b"], MODEL)[0] is None
        hashes.set("a", MODEL, VECTOR, ttl=500)
        assert texts_of(hashes.mget(["a", "b"], MODEL)) == ["a", "b"]
        packed.set("a", MODEL, VECTOR)
        assert packed.get("a", MODEL)["embedding"].tolist() == VECTOR


def test_a_refused_command_is_an_error_and_no_miss(server: Server) -> None:
    with looking_at(server, "+@all", "-hmget") as connection, pytest.raises(ServerReplyError, match="NOPERM"):
        connection.drive(mget(["a"]))


# ------------------------------------------------------------------------------------------------ round trips


def test_a_batch_is_one_round_trip_each_way() -> None:
    texts = [f"text {number}" for number in range(BATCH)]
    _, trips = play(mset(texts, ServerAbilities(), 60), [1] * BATCH)
    assert [len(trip) for trip in trips] == [BATCH]
    assert all(command[:1] + command[2:3] == ("EVALSHA", 1) for command in trips[0])
    _, trips = play(mget(texts, space=Keyspace("c", 60, hex_bytes=True)), [[None] * 7] * BATCH + [0])
    assert [command[0] for command in trips[0]] == ["HMGET"] * BATCH + ["EVALSHA"]


def test_without_scripts_an_entry_is_a_transaction() -> None:
    noperm = ServerReplyError("NOPERM User u has no permissions to run the 'evalsha' command")
    able = ServerAbilities()
    _, trips = play(mset(["a", "b"], able, 60), [noperm, noperm], [b"OK"] * 10)
    assert [command[0] for command in trips[1]] == ["MULTI", "UNLINK", "HSET", "EXPIRE", "EXEC"] * 2
    assert able.scripts is False
    _, trips = play(mset(["a"], able), [b"OK"] * 4)
    assert [command[0] for command in trips[0]] == ["MULTI", "UNLINK", "HSET", "EXEC"]


def test_scripts_that_the_server_has_forgotten_are_sent_again(server: Server) -> None:
    with EmbeddingsCache("c", ttl=900, redis_url=server.url, layout="redisvl", stats=False) as cache:
        for _ in range(2):
            server.raw.script_flush()
            keys = cache.mset([item(f"text {number}") for number in range(300)])
            assert {server.pttl(key) > 800_000 for key in keys} == {True}
            for key in keys:
                server.raw.expire(key, 100)
            server.raw.script_flush()
            assert all(cache.mget([f"text {number}" for number in range(300)], MODEL))
            assert {server.pttl(key) > 800_000 for key in keys} == {True}


@pytest.mark.parametrize("default", [None, 900])
def test_without_scripts_it_works_as_well(
    server: Server, caller: Callable[[EmbeddingsCache], Caller], default: int | None
) -> None:
    server.raw.execute_command("ACL", "SETUSER", "few", "reset", "on", ">pw", "~c:*", *NO_SCRIPTS)
    try:
        cache = caller(
            EmbeddingsCache("c", ttl=default, redis_url=f"unix://few:pw@{server.socket}", layout="redisvl", stats=False)
        )
        keys = cache.mset([item("a"), item("b", ttl=500), item("c", ttl=NEVER)])
        server.raw.expire(keys[1], 100)
        assert texts_of(cache.mget(["a", "b", "c"], MODEL)) == ["a", "b", "c"]
        assert 400_000 < server.pttl(keys[1]) <= 500_000
        assert server.pttl(keys[2]) == -1
        cache.set("a", MODEL, [9.0], METADATA)
        assert cache.get("a", MODEL)["metadata"] == METADATA
        assert (server.pttl(keys[0]) > 800_000) is (default is not None)
        assert cache.set_metadata(keys[0], None) is True
        assert cache.get("a", MODEL)["metadata"] is None
        assert cache.expire(keys[0], 300) is True
        assert cache.get_by_key(keys[0])["embedding"].tolist() == [9]
        assert cache.expire(cache.key_for("missing", MODEL), 300) is False
        assert cache.set_metadata(cache.key_for("missing", MODEL), METADATA) is False
        server.raw.rpush(cache.key_for("list", MODEL), "x")
        assert cache.expire(cache.key_for("list", MODEL), 300) is False
        assert server.pttl(cache.key_for("list", MODEL)) == -1
        assert cache.clear() == 4
    finally:
        server.raw.execute_command("ACL", "DELUSER", "few")


# ------------------------------------------------------------------------------------------------ a full server


@pytest.mark.parametrize("kind", ["valkey9", "redis62"])
def test_a_full_server_refuses_and_keeps_what_is_there(kind: str) -> None:
    with running(kind) as server, EmbeddingsCache("c", redis_url=server.url, layout="redisvl", stats=False) as cache:
        cache.set("a", MODEL, VECTOR, METADATA)
        server.raw.config_set("maxmemory", 1)
        for scripts in (True, False):
            cache._able.scripts = scripts
            with pytest.raises(ServerReplyError, match=r"OOM|EXECABORT"):
                cache.set("a", MODEL, [9.0])
            entry = cache.get("a", MODEL)
            assert (entry["embedding"].tolist(), entry["metadata"]) == (VECTOR, METADATA)


# ------------------------------------------------------------------------------------------------ changing


def test_metadata_changes_and_nothing_else(cache: Caller, server: Server) -> None:
    key = cache.set("a", MODEL, VECTOR, {"version": 1}, ttl=900)
    before = cache.get_by_key(key)
    server.raw.expire(key, 500)
    assert cache.set_metadata(key, METADATA) is True
    assert 400_000 < server.pttl(key) <= 500_000
    after = cache.get_by_key(key)
    assert after.pop("embedding").tolist() == before.pop("embedding").tolist()
    assert after == before | {"metadata": METADATA}
    assert cache.set_metadata(key, None) is True
    assert cache.get_by_key(key)["metadata"] is None
    assert server.raw.hget(key, "metadata") is None


def test_a_plan_gives_entries_a_ttl_of_their_own(valkey: Server) -> None:
    with EmbeddingsCache("c", redis_url=valkey.url, layout="redisvl", stats=False) as cache:
        keys = cache.mset([item("a", ttl=900), item("b")])
        times = [cache.get_by_key(key)["inserted_at"] for key in keys]
        hashes = np.array([True, True])
        for seconds in (300, None):
            plan = plan_at(keys, times, hashes=hashes)
            assert set_ttl(cache.connection, plan, seconds, ignore, "me").changed == 2
            assert [entry["ttl"] for entry in cache.mget_by_keys(keys)] == [seconds] * 2
            assert [cache.remaining_ttl(key) is NEVER for key in keys] == [seconds is None] * 2


# ------------------------------------------------------------------------------------------------ looking


def test_a_read_only_cache_looks_and_leaves_no_trace(server: Server) -> None:
    with EmbeddingsCache("c", ttl=900, redis_url=server.url, layout="redisvl", stats=False) as cache:
        key = cache.set("a", MODEL, VECTOR)
    server.raw.expire(key, 500)
    with EmbeddingsCache("c", ttl=900, redis_url=server.url, layout="redisvl", read_only=True) as looking:
        assert looking.get("a", MODEL)["embedding"].tolist() == VECTOR
        assert looking.mexists(["a"], MODEL) == looking.mexists_by_keys([key]) == [True]
        assert looking.why("a", MODEL).is_hit
        assert looking.why("A", MODEL).reason is Reason.OTHER_SPELLING
        for refused in (
            lambda: looking.set("a", MODEL, VECTOR),
            lambda: looking.mset([item("a")]),
            lambda: looking.expire(key, 5),
            lambda: looking.set_metadata(key, None),
            lambda: looking.drop("a", MODEL),
        ):
            with pytest.raises(ReadOnlyError):
                refused()
    assert server.pttl(key) <= 500_000


def test_why_a_text_misses_is_told(valkey: Server) -> None:
    with EmbeddingsCache("c", redis_url=valkey.url, layout="redisvl") as cache:
        cache.set("What is it?", MODEL, VECTOR)
        cache.set("a:b", "c", VECTOR)
        assert cache.why("what is  IT?", MODEL).similar == (("What is it?", MODEL),)
        assert cache.why("What is it?", "another").reason is Reason.OTHER_MODEL
        assert cache.why("a", "b:c").reason is Reason.OTHER_ENTRY
        assert cache.why("nothing", MODEL).reason is Reason.NEVER_STORED


def test_browsing_shows_the_entries(valkey: Server) -> None:
    with EmbeddingsCache("c", redis_url=valkey.url, layout="redisvl", stats=False) as cache:
        keys = cache.mset([item("a text", metadata=METADATA, ttl=500), item(b"abc")])
        first, second = inspector.summarise(cache.connection, keys)
        assert (first.text, first.metadata, first.ttl, first.dimension, first.dtype) == (
            "a text",
            METADATA,
            500,
            2,
            "json",
        )
        assert second.text == b"abc"
        assert walking.count_redisvl(cache.connection, ignore) == {"c": 2}
        index = walking.index_cache(cache.connection, "c", ignore)
        assert sorted(index.keys(np.arange(2))) == sorted(keys)
        found = walking.match(cache.connection, index, EntryFilter(text_contains="A TEXT"), ignore)
        assert index.keys(found) == [keys[0]]
        assert len(walking.find_unreadable(cache.connection, index, ignore)) == 0


# ------------------------------------------------------------------------------------------------ the near cache


def test_the_near_cache_keeps_entries_and_drops_what_is_written(valkey: Server) -> None:
    with EmbeddingsCache("c", redis_url=valkey.url, layout="redisvl", near_cache=100) as cache:
        key = cache.set(b"abc", MODEL, VECTOR, METADATA)
        for _ in range(3):
            assert cache.get(b"abc", MODEL)["metadata"] == METADATA
            assert cache.get_by_key(key)["embedding"].tolist() == VECTOR
        assert cache.process_stats().near_hits == 5
        cache.set(b"abc", MODEL, [9.0])
        assert cache.get(b"abc", MODEL)["embedding"].tolist() == [9]
        assert cache.set_metadata(key, {"n": 2}) is True
        assert cache.get(b"abc", MODEL)["metadata"] == {"n": 2}
        assert cache.drop_by_key(key) is True
        assert cache.get(b"abc", MODEL) is None


@pytest.mark.parametrize("default", [None, 900])
def test_the_near_cache_keeps_no_entry_longer_than_redisvl_gave_it(valkey: Server, default: int | None) -> None:
    with EmbeddingsCache("c", redis_url=valkey.url, layout="redisvl", stats=False) as writer:
        key = writer.set("a", MODEL, VECTOR)
        valkey.raw.hdel(key, "own_ttl")
    with EmbeddingsCache(
        "c", ttl=default, redis_url=valkey.url, layout="redisvl", near_cache=100, refresh_ttl=False
    ) as cache:
        valkey.raw.pexpire(key, 300)
        assert cache.get("a", MODEL) is not None
        deadline = time.monotonic() + 10
        while valkey.raw.exists(key):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert cache.get("a", MODEL) is None


def test_a_hit_of_the_near_cache_prolongs_redisvls_entries_to_the_default(valkey: Server) -> None:
    with EmbeddingsCache("c", ttl=900, redis_url=valkey.url, layout="redisvl", near_cache=100) as cache:
        keys = cache.mset([item("short"), item("long"), item("never")])
        for key, seconds in zip(keys, (100, 5_000, None), strict=True):
            valkey.raw.hdel(key, "own_ttl")
            valkey.raw.persist(key) if seconds is None else valkey.raw.expire(key, seconds)
        cache.mget(["short", "long", "never"], MODEL)
        assert 800_000 < valkey.pttl(keys[0]) <= 900_000
        assert 4_900_000 < valkey.pttl(keys[1]) <= 5_000_000
        assert valkey.pttl(keys[2]) == -1


def test_another_processs_write_is_seen(valkey: Server) -> None:
    with EmbeddingsCache("c", redis_url=valkey.url, layout="redisvl", near_cache=100) as cache:
        key = cache.set("a", MODEL, VECTOR)
        cache.get("a", MODEL)
        deadline = time.monotonic() + 10
        while not cache.near_state.tracked:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        cache.get("a", MODEL)
        other = redis.Redis(unix_socket_path=str(valkey.socket))
        other.hset(key, "embedding", "[9.0]")
        other.close()
        while cache.get("a", MODEL)["embedding"].tolist() != [9]:
            assert time.monotonic() < deadline
            time.sleep(0.01)
