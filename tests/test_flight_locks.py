"""The locks of shared flights as operations: their round trips by hand, what they do on real servers, their keys."""

from __future__ import annotations

import re
from typing import Any

import pytest
from playing import play
from servers import Server, running

from embedcache import EmbeddingsCache, flight_locks
from embedcache.connection import RedisConnection
from embedcache.errors import ServerReplyError
from embedcache.keyspace import Keyspace
from embedcache.operations import ServerAbilities

SPACE = Keyspace("c")
KEYS = ["c:flight:1", "c:flight:2", "c:flight:3"]
NOSCRIPT = ServerReplyError("NOSCRIPT No matching script")
NOPERM = ServerReplyError("NOPERM this user has no permissions to run the 'evalsha' command")


@pytest.fixture
def connection(server: Server) -> Any:
    opened = RedisConnection(server.url)
    yield opened
    opened.close()


# ------------------------------------------------------------------------------------------------ keys


def test_keys_are_the_caches_own_and_in_no_caches_namespace() -> None:
    (key,) = flight_locks.lock_keys(SPACE, ["What is machine learning?"], "redis/langcache-embed-v1")
    assert re.fullmatch(r"c:flight:909f463a[0-9a-f]{24}", key)
    assert not any(Keyspace(name).owns(key) for name in ("c", "c:flight"))


def test_each_text_and_model_has_a_key_of_its_own() -> None:
    keys = {
        *flight_locks.lock_keys(SPACE, ["a", "b"], "m"),
        *flight_locks.lock_keys(SPACE, ["a"], "n"),
        *flight_locks.lock_keys(Keyspace("d"), ["a"], "m"),
    }
    assert len(keys) == 4


def test_locks_are_no_entries_of_the_cache(valkey: Server) -> None:
    with EmbeddingsCache("c", redis_url=valkey.url) as cache:
        keys = flight_locks.lock_keys(SPACE, ["a"], "m")
        cache.connection.drive(flight_locks.take(keys, "me", 10))
        assert cache.clear() == 0
        assert valkey.raw.get(keys[0]) == b"me"


# ------------------------------------------------------------------------------------------------ round trips


def test_many_are_taken_in_one_round_trip_of_commands_on_single_keys() -> None:
    taken, trips = play(flight_locks.take(KEYS, "me", 1.5), [True, None, b"OK"])
    assert taken == [True, False, True]
    assert trips == [[("SET", key, "me", "NX", "PX", 1500) for key in KEYS]]


def test_many_are_released_in_one_round_trip_of_commands_on_single_keys() -> None:
    released, trips = play(flight_locks.release(ServerAbilities(), KEYS, "me"), [1, 0, 1])
    assert released == 2
    assert [command[2:4] for command in trips[0]] == [(1, key) for key in KEYS]


def test_a_server_that_does_not_know_the_script_is_told() -> None:
    released, trips = play(flight_locks.release(ServerAbilities(), KEYS, "me"), [NOSCRIPT] * 3, [1, 0, 1])
    assert released == 2
    assert [[command[0] for command in trip] for trip in trips] == [["EVALSHA"] * 3, ["EVAL"] * 3]


def test_where_scripts_are_forbidden_locks_are_left_to_expire() -> None:
    able = ServerAbilities()
    assert play(flight_locks.release(able, KEYS, "me"), [NOPERM] * 3)[0] == 0
    assert play(flight_locks.release(able, KEYS, "me"))[0] == 0
    assert play(flight_locks.prolong(able, KEYS, "me", 1))[0] == 0


def test_what_else_is_the_matter_is_an_error() -> None:
    with pytest.raises(ServerReplyError, match="READONLY"):
        play(flight_locks.take(KEYS, "me", 1), [ServerReplyError("READONLY You can't write")] * 3)
    with pytest.raises(ServerReplyError, match="READONLY"):
        play(
            flight_locks.release(ServerAbilities(), KEYS, "me"),
            [ServerReplyError("READONLY You can't write")] * 3,
        )


# ------------------------------------------------------------------------------------------------ on real servers


def test_a_lock_is_taken_by_one_until_it_is_released(connection: RedisConnection) -> None:
    able = ServerAbilities()
    assert connection.drive(flight_locks.take(KEYS[:2], "me", 10)) == [True, True]
    assert connection.drive(flight_locks.take(KEYS, "you", 10)) == [False, False, True]
    assert connection.drive(flight_locks.release(able, KEYS, "me")) == 2
    assert connection.drive(flight_locks.take(KEYS, "you", 10)) == [True, True, False]


def test_a_lock_expires_unless_it_is_prolonged(server: Server, connection: RedisConnection) -> None:
    connection.drive(flight_locks.take(KEYS[:2], "me", 10))
    assert connection.drive(flight_locks.prolong(ServerAbilities(), KEYS[:1], "me", 1_000)) == 1
    assert 10_000 < server.pttl(KEYS[0]) <= 1_000_000
    assert 0 < server.pttl(KEYS[1]) <= 10_000


def test_a_lock_that_is_anothers_by_now_is_left_alone(server: Server, connection: RedisConnection) -> None:
    connection.drive(flight_locks.take(KEYS[:1], "you", 10))
    server.raw.lpush(KEYS[1], "what is no lock at all")
    assert connection.drive(flight_locks.prolong(ServerAbilities(), KEYS, "me", 1_000)) == 0
    assert connection.drive(flight_locks.release(ServerAbilities(), KEYS, "me")) == 0
    assert server.raw.get(KEYS[0]) == b"you"
    assert 0 < server.pttl(KEYS[0]) <= 10_000


def test_a_user_who_may_use_the_caches_keys_alone_may_use_its_locks() -> None:
    with running("valkey9") as server:
        server.raw.execute_command("ACL", "SETUSER", "u", "on", ">p", "~c:*", "+@all")
        connection = RedisConnection(server.url.replace("unix://", "unix://u:p@"))
        keys = flight_locks.lock_keys(SPACE, ["a"], "m")
        assert connection.drive(flight_locks.take(keys, "me", 10)) == [True]
        assert connection.drive(flight_locks.release(ServerAbilities(), keys, "me")) == 1
        connection.close()
