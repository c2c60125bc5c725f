"""The audit log of a cache: what is written is read, it stays when the cache is emptied, and it keeps to its size."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import msgpack
import pytest
from servers import Server

from embedcache import EmbeddingsCache, audit
from embedcache.audit import AuditRecord
from embedcache.connection import RedisConnection
from embedcache.errors import InvalidInputError, InvalidMetadataError, InvalidNameError, ReadOnlyError, ServerReplyError

MODEL = "a/model"
HOSTILE = "<script>alert(1)</script> [x](javascript:1) \x1b[31m \u202e \x00"


@contextmanager
def connected(server: Server, **options: Any) -> Iterator[RedisConnection]:
    opened = RedisConnection(server.url, **options)
    yield opened
    opened.close()


@pytest.fixture
def connection(server: Server) -> Iterator[RedisConnection]:
    with connected(server) as opened:
        yield opened


def only_key(server: Server) -> bytes:
    (key,) = server.raw.keys()
    return key


def test_what_is_recorded_is_read(server: Server, connection: RedisConnection) -> None:
    seconds, microseconds = server.raw.time()
    written = audit.record(
        connection, "c", "ada", "remove", count=12, size=3_400, detail={"filter": {"model_name": MODEL}, "gone": 1}
    )
    (found,) = audit.read(connection, "c")
    assert found == written
    assert found == AuditRecord(
        found.at, "ada", "remove", "c", {"filter": {"model_name": MODEL}, "gone": 1}, count=12, bytes=3_400
    )
    assert 0 <= found.at - (seconds + microseconds / 1e6) < 20


def test_the_last_comes_first_and_a_limit_is_kept(connection: RedisConnection) -> None:
    for number in range(5):
        audit.record(connection, "c", "ada", f"action {number}")
    assert [each.action for each in audit.read(connection, "c", limit=2)] == ["action 4", "action 3"]
    assert len(audit.read(connection, "c")) == 5


def test_the_logs_of_several_caches_are_read_as_one(connection: RedisConnection) -> None:
    for name in ("a", "b", "a", "c"):
        audit.record(connection, name, "ada", "clear")
    assert [each.cache_name for each in audit.read(connection, "a", "b")] == ["a", "b", "a"]
    assert audit.read(connection) == []
    assert audit.read(connection, "unknown") == []


def test_the_last_thousand_are_kept(valkey: Server) -> None:
    with connected(valkey) as connection:
        audit.record(connection, "c", "ada", "the first")
        key = only_key(valkey)
        valkey.raw.lpush(key, *[valkey.raw.lindex(key, 0)] * 1_200)
        audit.record(connection, "c", "ada", "the last")
        assert valkey.raw.llen(key) == 1_000
        assert audit.read(connection, "c")[0].action == "the last"


def test_clearing_a_cache_leaves_its_log_alone(server: Server, connection: RedisConnection) -> None:
    with EmbeddingsCache("c", redis_url=server.url) as cache:
        cache.set("a", MODEL, [1.0])
        audit.record(connection, "c", "ada", "clear", count=1)
        assert cache.owns(only_key_of_log(server)) is False
        assert cache.clear() == 1
    assert audit.read(connection, "c")[0].count == 1


def only_key_of_log(server: Server) -> str:
    (key,) = server.raw.keys("c:audit:*")
    return key.decode()


@pytest.mark.parametrize("name", ["a:b", "a*?[b-z]\\", "Grüße", "c:audit:{00000000}"])
def test_any_cache_has_a_log_of_its_own(connection: RedisConnection, name: str) -> None:
    audit.record(connection, "a", "ada", "clear")
    audit.record(connection, name, "bob", "remove")
    assert [each.actor for each in audit.read(connection, name)] == ["bob"]
    assert [each.actor for each in audit.read(connection, "a")] == ["ada"]


def test_what_is_amended_takes_the_place_of_what_was_there(connection: RedisConnection) -> None:
    begun = audit.record(connection, "c", "ada", "remove", detail={"outcome": "running"})
    audit.record(connection, "c", "bob", "clear")
    audit.amend(connection, begun, count=3, size=30, detail={"outcome": "done"})
    later, found = audit.read(connection, "c")
    assert (later.actor, found.actor) == ("bob", "ada")
    assert (found.at, found.count, found.bytes, found.detail) == (begun.at, 3, 30, {"outcome": "done"})


def test_what_a_client_sends_twice_is_on_record_once(connection: RedisConnection) -> None:
    """As where the answer to the first time came too late."""
    begun = audit.record(connection, "c", "ada", "remove", detail={"outcome": "running"})
    for _ in range(2):
        audit.amend(connection, begun, count=3, size=30, detail={"outcome": "done"})
    (found,) = audit.read(connection, "c")
    assert (found.count, found.detail) == (3, {"outcome": "done"})


def test_hostile_texts_come_back_as_they_are(connection: RedisConnection) -> None:
    audit.record(connection, "c", HOSTILE + "\ud800", HOSTILE, detail={HOSTILE: [HOSTILE]})
    (found,) = audit.read(connection, "c")
    assert (found.actor, found.action, found.detail) == (HOSTILE + "\ud800", HOSTILE, {HOSTILE: [HOSTILE]})


def test_long_texts_are_cut(connection: RedisConnection) -> None:
    audit.record(connection, "c", "x" * 10_000, "y" * 501, detail={"text": "z" * 100_000, "list": ["z" * 500]})
    (found,) = audit.read(connection, "c")
    assert (len(found.actor), len(found.action)) == (500, 500)
    assert found.actor.endswith("x…")
    assert (len(found.detail["text"]), found.detail["list"]) == (500, ["z" * 500])


def test_rows_of_later_versions_are_read_and_others_passed_over(valkey: Server) -> None:
    with connected(valkey) as connection:
        audit.record(connection, "c", "ada", "remove", count=1)
        key = only_key(valkey)
        later = [1e9, "bob", "rename", 2, 20, {"a": 1}, "something new"]
        endless = msgpack.packb([1e9, "eve", "rename", float("inf"), 20, {}])
        never = msgpack.packb([float("nan"), "eve", "rename", 1, 20, {}])
        junk = [never, b"\xc1", b"", msgpack.packb([1]), msgpack.packb({"a": 1}), "text", endless]
        valkey.raw.rpush(key, msgpack.packb(later), *junk)
        assert [each.actor for each in audit.read(connection, "c")] == ["ada", "bob"]


def test_what_cannot_be_used_is_refused_before_anything_is_written(valkey: Server) -> None:
    with connected(valkey) as connection:
        with pytest.raises(InvalidNameError):
            audit.record(connection, " ", "ada", "clear")
        with pytest.raises(InvalidMetadataError):
            audit.record(connection, "c", "ada", "clear", detail={"when": object()})
        with pytest.raises(InvalidInputError, match="limit"):
            audit.read(connection, "c", limit=0)
        assert valkey.raw.keys() == []


def test_a_read_only_connection_reads_the_log_and_writes_none(valkey: Server) -> None:
    with connected(valkey) as writing, connected(valkey, read_only=True) as looking:
        audit.record(writing, "c", "ada", "clear")
        with pytest.raises(ReadOnlyError):
            audit.record(looking, "c", "bob", "clear")
        assert [each.actor for each in audit.read(looking, "c")] == ["ada"]


def test_a_key_of_another_type_is_told_of(valkey: Server) -> None:
    with connected(valkey) as connection:
        audit.record(connection, "c", "ada", "clear")
        key = only_key(valkey)
        valkey.raw.delete(key)
        valkey.raw.set(key, "x")
        with pytest.raises(ServerReplyError, match="WRONGTYPE"):
            audit.read(connection, "c")


def test_a_user_of_the_caches_keys_alone_can_record(server: Server) -> None:
    server.raw.execute_command("ACL", "SETUSER", "own", "reset", "on", ">pw", "~c:*", "+@all", "-@scripting", "-time")
    connection = RedisConnection(server.url, settings={"username": "own", "password": "pw"})
    audit.record(connection, "c", "ada", "clear")
    assert audit.read(connection, "c")[0].at > 1e9
    connection.close()
    server.raw.execute_command("ACL", "DELUSER", "own")
