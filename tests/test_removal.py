"""Plans carried out on real servers: what was planned goes, and everything else stays."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence

import numpy as np
import pytest
from removing import MODEL, VECTOR, counts, ignore, item, left, plan_at, plan_of, stored
from servers import Server

from embedcache import EmbeddingsCache, audit, removal
from embedcache.connection import RedisConnection
from embedcache.errors import InvalidTTLError
from embedcache.pacing import UNPACED

PLAIN_USER = ("~*", "+@all", "-@scripting")


@pytest.fixture(params=["scripts", "plain commands"])
def connection(request: pytest.FixtureRequest, server: Server) -> Iterator[RedisConnection]:
    """A connection of a user who may run scripts, and of one who may not."""
    settings = None
    if request.param != "scripts":
        server.raw.execute_command("ACL", "SETUSER", "plain", "reset", "on", ">pw", *PLAIN_USER)
        settings = {"username": "plain", "password": "pw"}
    opened = RedisConnection(server.url, settings=settings)
    yield opened
    opened.close()
    server.raw.execute_command("ACL", "DELUSER", "plain")


@pytest.fixture
def cache(server: Server) -> Iterator[EmbeddingsCache]:
    with EmbeddingsCache("c", redis_url=server.url, stats=False) as opened:
        yield opened


# ------------------------------------------------------------------------------------------------ what is removed


def test_what_is_planned_is_removed_and_nothing_else(
    server: Server, cache: EmbeddingsCache, connection: RedisConnection
) -> None:
    keys = stored(cache, 700)
    plan = plan_of(connection, keys[:600], words="older than a day", chosen_by={"min_age": 86_400})
    size = sum(server.raw.strlen(key) for key in keys[:600])
    report = removal.carry_out(connection, plan, ignore, "ada", pace=UNPACED)
    assert left(server) == set(keys[600:])
    assert counts(report) == {"changed": 600}
    assert (report.action, report.cache_name, report.outcome) == ("remove", "c", "done")
    assert (report.planned, report.bytes, report.remaining, report.recorded) == (600, size, 0, True)
    assert size == plan.total_bytes


def test_what_is_stored_later_stays(server: Server, cache: EmbeddingsCache, connection: RedisConnection) -> None:
    keys = stored(cache, 5)
    plan = plan_of(connection, keys)
    later = cache.set("later", MODEL, VECTOR)
    report = removal.carry_out(connection, plan, ignore, "ada")
    assert left(server) == {later}
    assert counts(report) == {"changed": 5}


def test_what_is_written_anew_stays_and_what_is_gone_is_counted(
    server: Server, cache: EmbeddingsCache, connection: RedisConnection
) -> None:
    keys = stored(cache, 6)
    plan = plan_of(connection, keys)
    cache.mset([item("text 0"), item("text 1", embedding=[9.0, 9.0])])
    cache.mdrop_by_keys(keys[2:4])
    report = removal.carry_out(connection, plan, ignore, "ada")
    assert left(server) == set(keys[:2])
    assert counts(report) == {"changed": 2, "gone": 2, "kept_newer": 2}
    assert report.remaining == 2
    assert report.bytes == server.raw.strlen(keys[0]) * 2
    assert cache.get("text 1", MODEL)["embedding"].tolist() == [9, 9]


def test_a_plan_carried_out_twice_finds_all_gone(cache: EmbeddingsCache, connection: RedisConnection) -> None:
    plan = plan_of(connection, stored(cache, 5))
    removal.carry_out(connection, plan, ignore, "ada")
    report = removal.carry_out(connection, plan, ignore, "ada")
    assert counts(report) == {"gone": 5}
    assert (report.outcome, report.bytes, report.remaining) == ("done", 0, 0)


def test_an_entrys_ttl_restarted_since_is_no_new_entry(
    server: Server, cache: EmbeddingsCache, connection: RedisConnection
) -> None:
    (key,) = stored(cache, 1, ttl=500)
    plan = plan_of(connection, [key])
    cache.expire(key, 900)
    assert counts(removal.carry_out(connection, plan, ignore, "ada")) == {"changed": 1}
    assert left(server) == set()


@pytest.mark.parametrize("length", [1, 200, 221, 222, 223, 224, 225, 226, 227, 228, 229, 230, 240, 5_000, 100_000])
def test_an_entry_is_known_again_however_long_its_text(
    server: Server, cache: EmbeddingsCache, connection: RedisConnection, length: int
) -> None:
    removed = cache.set("x" * length, MODEL, VECTOR)
    kept = cache.set("y" * length, MODEL, VECTOR)
    plan = plan_of(connection, [removed, kept])
    cache.set("y" * length, MODEL, VECTOR)
    assert counts(removal.carry_out(connection, plan, ignore, "ada")) == {"changed": 1, "kept_newer": 1}
    assert left(server) == {kept}


def test_a_plan_of_nothing_removes_nothing(server: Server, connection: RedisConnection) -> None:
    report = removal.carry_out(connection, plan_of(connection, []), ignore, "ada")
    assert (counts(report), report.planned, report.remaining, report.outcome) == ({}, 0, 0, "done")


def test_what_is_written_while_the_plan_is_carried_out_is_never_lost(valkey: Server) -> None:
    with EmbeddingsCache("c", redis_url=valkey.url, stats=False) as cache:
        keys = stored(cache, 3_000)
        plan = plan_of(cache.connection, keys)
        writing = threading.Thread(target=lambda: [cache.set(f"text {n}", MODEL, VECTOR) for n in range(3_000)])
        writing.start()
        report = removal.carry_out(cache.connection, plan, ignore, "ada")
        writing.join()
        assert left(valkey) == set(keys)
        assert report.changed + report.kept_newer + report.gone == 3_000


# ------------------------------------------------------------------------------------------------ unreadable values


def spoil(server: Server, keys: Sequence[str]) -> None:
    """Makes each of four values unreadable in another way."""
    damaged, foreign, list_, hash_ = keys
    server.raw.setrange(damaged, 30, b"\xff\xfe")
    server.raw.set(foreign, "")
    server.raw.delete(list_, hash_)
    server.raw.rpush(list_, "a")
    server.raw.hset(hash_, "text", "no vector")


def test_unreadable_values_are_removed_where_the_plan_says_so(
    server: Server, cache: EmbeddingsCache, connection: RedisConnection
) -> None:
    keys = stored(cache, 6)
    spoil(server, keys[:4])
    plan = plan_of(connection, keys[4:5], unreadable=keys[:4])
    assert plan.unreadable == 4
    report = removal.carry_out(connection, plan, ignore, "ada")
    assert left(server) == {keys[5]}
    assert (counts(report), report.remaining) == ({"changed": 5}, 0)


def test_unreadable_values_stay_where_they_can_be_read_again(
    server: Server, cache: EmbeddingsCache, connection: RedisConnection
) -> None:
    keys = stored(cache, 5)
    redisvl = keys[4]
    write_hash(server, redisvl, "5.5")
    plan = plan_of(connection, [], unreadable=[*keys, cache.key_for("unknown", MODEL)])
    report = removal.carry_out(connection, plan, ignore, "ada")
    assert left(server) == set(keys)
    assert counts(report) == {"kept_newer": 5, "gone": 1}


def test_what_was_readable_and_is_not_any_more_stays(
    server: Server, cache: EmbeddingsCache, connection: RedisConnection
) -> None:
    keys = stored(cache, 4)
    plan = plan_of(connection, keys)
    for key, value in zip(keys, (b"", b"EMB\x01", b"EMB\x01" + b"\xff" * 60, b"other"), strict=True):
        server.raw.set(key, value)
    assert counts(removal.carry_out(connection, plan, ignore, "ada")) == {"kept_newer": 4}
    assert left(server) == set(keys)


# ------------------------------------------------------------------------------------------------ RedisVL's hashes


def write_hash(server: Server, key: str, inserted_at: str) -> None:
    fields = {"entry_id": key[-64:], "content": "a", "model_name": MODEL, "embedding": "[0.5, 1.0]"}
    server.raw.delete(key)
    server.raw.hset(key, mapping=fields | {"inserted_at": inserted_at})


def hash_keys(server: Server, times: Sequence[float]) -> list[str]:
    keys = [f"c:{number:064x}" for number in range(len(times))]
    for key, at in zip(keys, times, strict=True):
        write_hash(server, key, repr(at))
    return keys


def test_hashes_of_redisvl_are_removed_unless_written_anew(server: Server, connection: RedisConnection) -> None:
    times = [1_735_689_600.123_456_7, 1_735_689_600.0, 1_735_689_601.5, 7.0, 8.0]
    keys = hash_keys(server, times)
    plan = plan_at(keys, times, hashes=np.ones(5, np.bool_))
    write_hash(server, keys[2], "1735689999.5")
    server.raw.delete(keys[3])
    server.raw.delete(keys[4])
    server.raw.set(keys[4], "a string now")
    report = removal.carry_out(connection, plan, ignore, "ada")
    assert left(server) == {keys[2], keys[4]}
    assert counts(report) == {"changed": 2, "kept_newer": 2, "gone": 1}


def test_hashes_of_redisvl_are_given_a_ttl(server: Server, connection: RedisConnection) -> None:
    keys = hash_keys(server, [5.0, 6.0])
    plan = plan_at(keys, [5.0, 7.0], hashes=np.ones(2, np.bool_))
    assert counts(removal.set_ttl(connection, plan, 900, ignore, "ada")) == {"changed": 1, "kept_newer": 1}
    assert [server.raw.ttl(key) > 800 for key in keys] == [True, False]
    assert counts(removal.set_ttl(connection, plan, None, ignore, "ada")) == {"changed": 1, "kept_newer": 1}
    assert server.raw.ttl(keys[0]) == -1
    assert counts(removal.set_ttl(connection, plan, None, ignore, "ada")) == {"changed": 1, "kept_newer": 1}


# ------------------------------------------------------------------------------------------------ TTLs


@pytest.mark.parametrize("ttl", [900, 2**32 - 1, None])
def test_entries_are_given_a_ttl_of_their_own(
    server: Server, cache: EmbeddingsCache, connection: RedisConnection, ttl: int | None
) -> None:
    keys = stored(cache, 300, ttl=100)
    plan = plan_of(connection, keys[:298])
    cache.set("text 0", MODEL, VECTOR)
    cache.drop("text 1", MODEL)
    report = removal.set_ttl(connection, plan, ttl, ignore, "ada", pace=UNPACED)
    assert counts(report) == {"changed": 296, "kept_newer": 1, "gone": 1}
    assert (report.action, report.remaining) == ("set TTL", 297)
    assert report.expiring == (297 if ttl is None else 296)  # "text 0" never expires, since it was written anew
    assert {entry["ttl"] for entry in cache.mget_by_keys(keys[2:298])} == {ttl}
    for key in (keys[2], keys[297]):
        seconds = server.raw.ttl(key)
        assert seconds == -1 if ttl is None else ttl - 60 < seconds <= ttl
    assert {entry["ttl"] for entry in cache.mget_by_keys(keys[298:])} == {100}
    assert cache.get("text 0", MODEL)["ttl"] is None


def test_an_unreadable_value_has_no_ttl_to_set(
    server: Server, cache: EmbeddingsCache, connection: RedisConnection
) -> None:
    keys = stored(cache, 1)
    server.raw.set(keys[0], "x")
    report = removal.set_ttl(connection, plan_of(connection, [], unreadable=keys), 50, ignore, "ada")
    assert counts(report) == {"skipped": 1}
    assert (report.remaining, report.expiring) == (1, 0)
    assert (server.raw.get(keys[0]), server.raw.ttl(keys[0])) == (b"x", -1)


def test_a_ttl_that_is_none_is_refused_before_anything_is_done(valkey: Server) -> None:
    with EmbeddingsCache("c", redis_url=valkey.url, stats=False) as cache:
        plan = plan_of(cache.connection, stored(cache, 1))
        with pytest.raises(InvalidTTLError):
            removal.set_ttl(cache.connection, plan, 0, ignore, "ada")
        assert audit.read(cache.connection, "c") == []


# ------------------------------------------------------------------------------------------------ whole caches


@pytest.mark.parametrize("name", ["a", "a:b", "*", "a*?[b-z]\\", "[ab]", "Grüße"])
def test_clearing_a_cache_leaves_the_others_alone(server: Server, connection: RedisConnection, name: str) -> None:
    others = {"a", "a:b", "aa", "b", "*", "a:b:c"} - {name}
    for each in (name, *others):
        with EmbeddingsCache(each, redis_url=server.url) as cache:
            stored(cache, 3)
    foreign = [f"{name}:short", f"{name}:{'0' * 63}G", f"{name}x:{'0' * 64}", name]
    for key in foreign:
        server.raw.set(key, "x")
    server.raw.rpush(f"{name}:{'0' * 64}", "a list")
    report = removal.clear_cache(connection, name, ignore, "ada", pace=UNPACED)
    assert left(server, name) == set()
    assert (report.action, report.changed, report.planned, report.remaining) == ("clear", 4, 4, 0)
    assert report.bytes > 100
    for each in others:
        assert len(left(server, each)) == 3
    assert server.raw.exists(*foreign) == 4
    with EmbeddingsCache(name, redis_url=server.url) as cache:
        assert cache.stats("all").sets == 3


def test_a_plan_leaves_the_entries_of_other_caches_alone(server: Server, connection: RedisConnection) -> None:
    for name in ("a", "a:b", "*"):
        with EmbeddingsCache(name, redis_url=server.url, stats=False) as cache:
            stored(cache, 3)
    plan = plan_of(connection, sorted(left(server, "*")))
    assert counts(removal.carry_out(connection, plan, ignore, "ada")) == {"changed": 3}
    assert (len(left(server, "*")), len(left(server, "a")), len(left(server, "a:b"))) == (0, 3, 3)


def test_a_large_cache_is_cleared_whole(valkey: Server) -> None:
    with EmbeddingsCache("c", redis_url=valkey.url, stats=False) as cache:
        stored(cache, 4_321)
        told: list[int] = []
        report = removal.clear_cache(cache.connection, "c", told.append, "ada")
        assert (report.changed, report.remaining) == (4_321, 0)
        assert told == sorted(told)
        assert (told[0], told[-1]) == (0, 4_321)
        assert audit.read(cache.connection, "c")[0].count == 4_321
