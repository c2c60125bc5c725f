"""What is on a server: its health, its caches, and entries without their vectors."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import redis
from looking import NO_SCRIPTS, looking_at, redisvl_hash
from servers import Server, running

from embedcache import NEVER, CacheUnavailableError, EmbeddingsCache, inspector
from embedcache.connection import RedisConnection
from embedcache.errors import ServerReplyError

KINDS = {"valkey9": ("Valkey", "9."), "redis62": ("Redis", "6.2."), "redis8": ("Redis", "8.")}


@pytest.fixture(params=["scripts", "no scripts"])
def connection(request: pytest.FixtureRequest, server: Server) -> Iterator[RedisConnection]:
    """A connection by which scripts may be run, or may not."""
    with looking_at(server, *(NO_SCRIPTS if request.param == "no scripts" else ())) as connection:
        yield connection


def cache(server: Server, name: str, **options: Any) -> EmbeddingsCache:
    return EmbeddingsCache(name, redis_url=server.url, stats=False, **options)


def test_a_server_says_who_it_is_and_how(server: Server, request: pytest.FixtureRequest) -> None:
    kind, version = KINDS[request.node.callspec.params["server"]]
    with cache(server, "c") as opened:
        opened.set("a", "m", [1.0])
        server.raw.set("stranger", "x")
        info = inspector.server_info(opened.connection)
    assert (info.kind, info.mode, info.total_keys) == (kind, "standalone", 2)
    assert info.version.startswith(version)
    assert info.address == server.url
    assert info.used_memory_bytes == pytest.approx(server.raw.info("memory")["used_memory"], rel=0.5)
    assert info.maxmemory_bytes == 0
    assert info.maxmemory_policy == "noeviction"
    assert not info.aof_enabled
    assert info.disk_trouble == ""
    assert info.unsaved_changes >= 2
    assert info.saved_ago is None
    assert info.connected_clients >= 1
    assert info.round_trip_seconds > 0


def test_a_server_says_when_it_saved_and_what_went_wrong() -> None:
    with running("valkey9") as server, cache(server, "c") as opened:
        while inspector.server_info(opened.connection).uptime_seconds < 3:  # a save of the first second is no news
            time.sleep(0.2)
        server.raw.save()
        opened.set("a", "m", [1.0])
        info = inspector.server_info(opened.connection)
        assert info.unsaved_changes == 1
        assert info.saved_ago is not None
        assert 0 <= info.saved_ago < 60
        (server.folder / "dump.rdb").unlink()
        (server.folder / "dump.rdb").mkdir()  # no file can take its place
        server.raw.bgsave()
        while inspector.server_info(opened.connection).disk_trouble == "":
            time.sleep(0.05)
        assert inspector.server_info(opened.connection).disk_trouble == "the last snapshot failed"


def test_a_server_that_is_away_is_an_error() -> None:
    with pytest.raises(CacheUnavailableError):
        inspector.server_info(RedisConnection("unix:///nowhere/at/all.sock"))


def test_caches_are_found_and_their_entries_counted_by_model(server: Server, connection: RedisConnection) -> None:
    for name, model, count in (("a", "m", 1_500), ("a", "n", 2), ("a:b", "m", 3), ("*?[x]", "ü", 1)):
        with cache(server, name) as opened:
            opened.mset([{"text": f"text {i}", "model_name": model, "embedding": [1.0, 2.0]} for i in range(count)])
    sizes = {name: sum(map(server.raw.strlen, server.raw.keys(f"{name}:[0-9a-f]*"))) for name in ("a:b",)}
    server.raw.set("a:" + "0" * 64, "not an entry")
    server.raw.rpush("a:" + "1" * 64, "a list")
    server.raw.set("stranger", "x")
    server.raw.set(b"\xff:" + b"2" * 64, "no UTF-8")
    survey = inspector.find_caches(connection)
    assert [(found.name, found.entries, found.models) for found in survey.caches] == [
        ("*?[x]", 1, {"ü": 1}),
        ("a", 1_502, {"m": 1_500, "n": 2}),
        ("a:b", 3, {"m": 3}),
    ]
    assert survey.caches[2].bytes == sizes["a:b"]
    assert survey.complete
    assert survey.scanned_keys >= 1_510


def test_entries_of_redisvl_are_counted_and_told_apart(server: Server, connection: RedisConnection) -> None:
    with cache(server, "both") as opened:
        opened.set("ours", "m", [1.0])
    for name, digit in (("both", "a"), ("theirs", "a"), ("theirs", "b")):
        server.raw.hset(f"{name}:{digit * 64}", mapping=redisvl_hash(model_name="theirs"))
    server.raw.hset("theirs:" + "c" * 64, mapping={"a": "b"})
    both, theirs = inspector.find_caches(connection).caches
    assert (both.entries, both.models, both.redisvl_entries) == (2, {"m": 1, "theirs": 1}, 1)
    assert (theirs.entries, theirs.models, theirs.redisvl_entries) == (2, {"theirs": 2}, 2)
    assert theirs.bytes == 2 * sum(map(len, server.raw.hgetall("theirs:" + "a" * 64).values()))


def test_an_entry_of_redisvl_is_summarised(server: Server, connection: RedisConnection) -> None:
    keys = [f"c:{digit * 64}" for digit in "abcd"]
    metadata = '{"page": 3}'
    server.raw.hset(keys[0], mapping=redisvl_hash("What is it?", size=5, metadata=metadata))
    server.raw.expire(keys[0], 500)
    server.raw.hset(keys[1], mapping=redisvl_hash(b"\x89PNG", field="text"))
    server.raw.hset(keys[2], mapping=redisvl_hash(metadata="no JSON"))
    server.raw.hset(keys[3], mapping=redisvl_hash(inserted_at="yesterday"))
    first, second, *others = inspector.summarise(connection, keys)
    assert first is not None
    assert second is not None
    assert (first.text, first.model_name, first.dimension, first.dtype) == ("What is it?", "m", 5, "json")
    assert (first.inserted_at, first.metadata, first.ttl) == (1736455112.5, {"page": 3}, None)
    assert first.expires_in is not None
    assert 400 < first.expires_in <= 500
    assert first.value_bytes == sum(map(len, server.raw.hgetall(keys[0]).values()))
    assert first.memory_bytes == server.raw.memory_usage(keys[0])
    assert (second.text, second.metadata, second.expires_in) == (b"\x89PNG", None, None)
    assert others == [None, None]


def test_a_summary_says_how_long_an_entry_was_idle(server: Server, connection: RedisConnection) -> None:
    with cache(server, "c") as opened:
        key = opened.set("a", "m", [1.0])
        time.sleep(2.1)
        (idle,) = inspector.summarise(connection, [key])
        opened.get_by_key(key)
        (used,) = inspector.summarise(connection, [key])
    assert idle is not None
    assert used is not None
    assert idle.idle_seconds in (1, 2, 3)
    assert used.idle_seconds == 0


def test_a_survey_stops_where_it_is_told_to_and_says_so(valkey: Server) -> None:
    with cache(valkey, "c") as opened:
        opened.mset([{"text": f"text {i}", "model_name": "m", "embedding": [1.0]} for i in range(5_000)])
        survey = inspector.find_caches(opened.connection, max_keys=1_000)
    assert not survey.complete
    assert 1_000 <= survey.caches[0].entries < 5_000


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "int8"])
def test_an_entry_is_summarised_without_its_vector(server: Server, connection: RedisConnection, dtype: str) -> None:
    with cache(server, "c", dtype=dtype) as opened:
        key = opened.set("What is it?", "m", np.ones(300), {"page": 3}, ttl=500)
        written = opened.get_by_key(key)
    (found,) = inspector.summarise(connection, [key])
    assert found is not None
    assert written is not None
    assert (found.key, found.text, found.model_name, found.dimension) == (key, "What is it?", "m", 300)
    assert (found.dtype, found.metadata, found.ttl) == (dtype, {"page": 3}, 500)
    assert found.inserted_at == written["inserted_at"]
    assert found.expires_in is not None
    assert 400 < found.expires_in <= 500
    assert found.value_bytes == server.raw.strlen(key)
    assert found.memory_bytes == server.raw.memory_usage(key)


def test_long_texts_bytes_and_what_is_not_there(server: Server, connection: RedisConnection) -> None:
    long, image = "long text " * 5_000, b"\x89PNG" * 300
    with cache(server, "c") as opened:
        keys = [opened.set(long, "m", [1.0, 2.0], ttl=NEVER), opened.set(image, "m", [1.0])]
    server.raw.set("c:" + "0" * 64, "x")
    first, second, *others = inspector.summarise(connection, [*keys, "c:" + "0" * 64, "c:" + "1" * 64, "x"])
    assert first is not None
    assert second is not None
    assert (first.text, first.dimension, first.ttl, first.expires_in) == (long, 2, None, None)
    assert (second.text, second.dimension) == (image, 1)
    assert others == [None, None, None]


def test_looking_changes_nothing(server: Server, connection: RedisConnection) -> None:
    with cache(server, "c") as opened:
        key = opened.set("a", "m", [1.0], ttl=500)
    server.raw.expire(key, 100)
    inspector.find_caches(connection)
    inspector.summarise(connection, [key])
    assert server.raw.ttl(key) <= 100
    assert server.plain_keys() == [key.encode()]


def test_names_are_those_with_statistics_or_entries(
    server: Server, connection: RedisConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert inspector.find_names(connection) == ()
    with EmbeddingsCache("a:b[*]", redis_url=server.url) as counted, cache(server, "uncounted") as uncounted:
        counted.get("never stored", "m")
        counted.flush_stats()
        uncounted.set("a", "m", [1.0])
        (total,) = server.raw.keys("a:b*:stats:*:total")
        server.raw.mset({b"\xff": "", "x": "", "x:stats:{00000000}:total": "", ":stats:{e3b0c442}:total": ""})
        server.raw.copy(total, total.replace(b"a:b[*]", b"another"))  # the part in braces is not that name's
        assert inspector.find_names(connection) == ("a:b[*]", "uncounted")
        monkeypatch.setattr(inspector, "_SAMPLED_KEYS", 0)  # a server of so many keys that entries are not looked for
        assert inspector.find_names(connection) == ("a:b[*]",)


def test_looking_for_names_ends(server: Server, connection: RedisConnection) -> None:
    for name in "abc":
        with EmbeddingsCache(name, redis_url=server.url) as opened:
            opened.get("never stored", "m")
    server.raw.mset({f"filler {number}": "" for number in range(5_000)})
    assert inspector.find_names(connection) == ("a", "b", "c")
    assert inspector.find_names(connection, max_names=0) == ()
    server.raw.config_resetstat()
    inspector.find_names(connection, max_keys=1_500)
    assert server.raw.info("commandstats")["cmdstat_scan"]["calls"] == 2


def test_a_ping_is_answered_or_raises(server: Server, connection: RedisConnection) -> None:
    assert inspector.ping(connection) > 0
    server.raw.execute_command("ACL", "SETUSER", "quiet", "reset", "on", ">word", "~*", "+@all", "-ping")
    with redis.Redis(unix_socket_path=str(server.socket), username="quiet", password="word") as client:  # noqa: S106 - a test's
        assert inspector.ping(RedisConnection(client=client)) > 0
    server.raw.execute_command("ACL", "DELUSER", "quiet")
    with pytest.raises(CacheUnavailableError):
        inspector.ping(RedisConnection("unix:///nowhere"))


def test_a_ping_that_is_refused_raises() -> None:
    with (
        running("valkey9", password="word") as server,  # noqa: S106 - a test's
        redis.Redis(unix_socket_path=str(server.socket)) as client,
        pytest.raises((ServerReplyError, CacheUnavailableError)),
    ):
        inspector.ping(RedisConnection(client=client))
