"""How long entries live: on each server, sync and async, by the server's own clock."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest
from calling import Caller
from servers import Server

from embedcache import NEVER

MODEL = "a/model"
VECTOR = [0.5, -1.0]
NEVER_EXPIRES = -1

LOOKUPS: dict[str, Callable[[Caller, str], Any]] = {
    "get": lambda cache, _: cache.get("a", MODEL),
    "get_by_key": lambda cache, key: cache.get_by_key(key),
    "mget": lambda cache, _: cache.mget(["missing", "a", "a"], MODEL),
    "mget_by_keys": lambda cache, key: cache.mget_by_keys([key]),
    "mget_embeddings": lambda cache, _: cache.mget_embeddings(["a", "missing"], MODEL),
}
lookups = pytest.mark.parametrize("lookup", LOOKUPS.values(), ids=list(LOOKUPS))


def item(text: str, **fields: Any) -> dict[str, Any]:
    return {"text": text, "model_name": MODEL, "embedding": VECTOR, **fields}


def seconds_left(server: Server, key: str) -> int:
    """Whole seconds, rounded up, or `NEVER_EXPIRES`; a test that is held up for 100 s would see the difference."""
    milliseconds = server.pttl(key)
    return milliseconds if milliseconds < 0 else -(-milliseconds // 100_000) * 100


# TTLs here are multiples of 100 s, so that the seconds a test itself takes do not show.


@pytest.mark.parametrize(
    ("default", "own", "expected"),
    [
        (None, None, NEVER_EXPIRES),
        (None, 500, 500),
        (None, NEVER, NEVER_EXPIRES),
        (900, None, 900),
        (900, 500, 500),
        (900, NEVER, NEVER_EXPIRES),
    ],
)
def test_an_entry_is_stored_with_its_ttl(
    make_cache: Callable[..., Caller], server: Server, default: int | None, own: Any, expected: int
) -> None:
    cache = make_cache(ttl=default)
    kept = None if expected == NEVER_EXPIRES else expected
    for keys in (
        [cache.set("a", MODEL, VECTOR, ttl=own)],
        cache.mset([item("b"), item("c")], ttl=own),
        cache.mset([item("d", ttl=own)]),
        cache.mset([item("e", ttl=own), item("f", ttl=own)]),
        cache.mset([item("g", ttl=own), item("h", ttl=own)], ttl=700 if own is not None else None),
    ):
        for key in keys:
            assert seconds_left(server, key) == expected
            assert cache.get_by_key(key)["ttl"] == kept


def test_items_of_a_batch_have_ttls_of_their_own(make_cache: Callable[..., Caller], server: Server) -> None:
    ttls = [100, None, 300, NEVER, 500, 600, 100]
    keys = make_cache(ttl=900).mset([item(f"text {n}", ttl=ttl) for n, ttl in enumerate(ttls)], ttl=200)
    assert [seconds_left(server, key) for key in keys] == [100, 200, 300, NEVER_EXPIRES, 500, 600, 100]


def test_a_large_batch_has_its_ttl(make_cache: Callable[..., Caller], server: Server) -> None:
    keys = make_cache(ttl=900).mset([item(f"text {n}") for n in range(1500)])
    with server.raw.pipeline(transaction=False) as pipe:
        for key in keys:
            pipe.pttl(key)
        left = pipe.execute()
    assert all(800_000 < milliseconds <= 900_000 for milliseconds in left)


def test_set_ttl_changes_what_is_stored_from_then_on(make_cache: Callable[..., Caller], server: Server) -> None:
    cache = make_cache(ttl=900)
    before = cache.set("before", MODEL, VECTOR)
    cache.set_ttl(500)
    after = cache.set("after", MODEL, VECTOR)
    cache.set_ttl(None)
    last = cache.set("last", MODEL, VECTOR)
    assert [seconds_left(server, key) for key in (before, after, last)] == [900, 500, NEVER_EXPIRES]
    assert cache.get("before", MODEL)["ttl"] == 900


# ------------------------------------------------------------------------------------------------ hits


@lookups
@pytest.mark.parametrize("default", [None, 300])
def test_a_hit_restarts_the_entrys_own_ttl(
    make_cache: Callable[..., Caller], server: Server, lookup: Callable[..., Any], default: int | None
) -> None:
    cache = make_cache(ttl=default)
    key = cache.set("a", MODEL, VECTOR, ttl=900)
    server.raw.expire(key, 100)
    lookup(cache, key)
    assert seconds_left(server, key) == 900


@lookups
@pytest.mark.parametrize("default", [None, 300])
def test_a_hit_restarts_even_the_longest_ttl(
    make_cache: Callable[..., Caller], server: Server, lookup: Callable[..., Any], default: int | None
) -> None:
    cache = make_cache(ttl=default)
    for ttl in (2**8, 2**16 + 2**9, 2**24 + 2**17, 2**32 - 1):
        key = cache.set("a", MODEL, VECTOR, ttl=ttl)
        server.raw.expire(key, 100)
        lookup(cache, key)
        assert (ttl - 100) * 1000 < server.pttl(key) <= ttl * 1000


@lookups
def test_a_hit_restarts_the_default_ttl_that_the_entry_got(
    make_cache: Callable[..., Caller], server: Server, lookup: Callable[..., Any]
) -> None:
    key = make_cache(ttl=900).set("a", MODEL, VECTOR)
    server.raw.expire(key, 100)
    lookup(make_cache(ttl=300), key)
    assert seconds_left(server, key) == 900


@lookups
@pytest.mark.parametrize("default", [None, 300])
def test_a_hit_gives_no_ttl_to_an_entry_without_one(
    make_cache: Callable[..., Caller], server: Server, lookup: Callable[..., Any], default: int | None
) -> None:
    cache = make_cache(ttl=default)
    key = cache.set("a", MODEL, VECTOR, ttl=NEVER)
    lookup(cache, key)
    assert server.pttl(key) == NEVER_EXPIRES


@lookups
@pytest.mark.parametrize("default", [None, 300])
def test_a_hit_leaves_the_ttl_alone_where_that_is_wanted(
    make_cache: Callable[..., Caller], server: Server, lookup: Callable[..., Any], default: int | None
) -> None:
    cache = make_cache(ttl=default, refresh_ttl=False)
    key = cache.set("a", MODEL, VECTOR, ttl=900)
    server.raw.expire(key, 100)
    lookup(cache, key)
    assert seconds_left(server, key) == 100


@pytest.mark.parametrize("default", [None, 300])
@pytest.mark.parametrize("times", [1, 40])
def test_each_hit_of_a_batch_restarts_its_own_ttl(
    make_cache: Callable[..., Caller], server: Server, default: int | None, times: int
) -> None:
    cache = make_cache(ttl=default)
    ttls = [500, NEVER, 700, 900] * times
    names = [f"text {n}" for n in range(4 * times)]
    server.raw.rpush(cache.key_for("list", MODEL), "x")
    server.raw.set(cache.key_for("no entry", MODEL), "x")
    keys = cache.mset([item(name, ttl=ttl) for name, ttl in zip(names, ttls, strict=True)])
    for lookup in (
        lambda: cache.mget(["missing", "list", *names, "no entry"], MODEL),
        lambda: cache.mget_by_keys([*keys, cache.key_for("list", MODEL)]),
        lambda: cache.mget_embeddings(["no entry", *names], MODEL),
    ):
        for key, ttl in zip(keys, ttls, strict=True):
            if ttl is not NEVER:
                server.raw.expire(key, 100)
        lookup()
        assert [seconds_left(server, key) for key in keys] == [500, NEVER_EXPIRES, 700, 900] * times


@pytest.mark.parametrize("default", [None, 300])
def test_asking_whether_it_exists_restarts_nothing(
    make_cache: Callable[..., Caller], server: Server, default: int | None
) -> None:
    cache = make_cache(ttl=default)
    key = cache.set("a", MODEL, VECTOR, ttl=900)
    server.raw.expire(key, 100)
    assert cache.exists("a", MODEL)
    assert cache.exists_by_key(key)
    assert 0 < cache.remaining_ttl(key) <= 100
    assert seconds_left(server, key) == 100


# ------------------------------------------------------------------------------------------------ changing it


def test_what_remains_is_told_in_seconds(make_cache: Callable[..., Caller], server: Server) -> None:
    cache = make_cache(ttl=900)
    assert 800 < cache.remaining_ttl(cache.set("a", MODEL, VECTOR)) <= 900
    assert cache.remaining_ttl(cache.set("b", MODEL, VECTOR, ttl=NEVER)) is NEVER
    assert cache.remaining_ttl(cache.key_for("missing", MODEL)) is None


def test_expire_changes_what_later_hits_restart_with(make_cache: Callable[..., Caller], server: Server) -> None:
    cache = make_cache(ttl=300)
    key = cache.set("a", MODEL, VECTOR, {"kept": True})
    assert cache.expire(key, 900) is True
    assert seconds_left(server, key) == 900
    server.raw.expire(key, 100)
    entry = cache.get("a", MODEL)
    assert (entry["ttl"], entry["metadata"], entry["embedding"].tolist()) == (900, {"kept": True}, VECTOR)
    assert seconds_left(server, key) == 900
    assert cache.expire(key, None) is True
    assert (cache.get_by_key(key)["ttl"], seconds_left(server, key)) == (300, 300)
    assert cache.expire(key, NEVER) is True
    assert (cache.get_by_key(key)["ttl"], seconds_left(server, key)) == (None, NEVER_EXPIRES)


def test_an_entry_without_a_ttl_can_be_given_one(cache: Caller, server: Server) -> None:
    key = cache.set("a", MODEL, VECTOR)
    assert cache.expire(key, 500) is True
    assert (cache.get("a", MODEL)["ttl"], seconds_left(server, key)) == (500, 500)
    assert cache.expire(key, None) is True  # the cache's default, which is none
    assert (cache.get("a", MODEL)["ttl"], server.pttl(key)) == (None, NEVER_EXPIRES)


def test_a_persisted_entry_stays_for_ever(make_cache: Callable[..., Caller], server: Server) -> None:
    cache = make_cache(ttl=300)
    key = cache.set("a", MODEL, VECTOR)
    assert cache.persist(key) is True
    assert server.pttl(key) == NEVER_EXPIRES
    assert cache.get("a", MODEL)["ttl"] is None
    assert server.pttl(key) == NEVER_EXPIRES
    assert cache.remaining_ttl(key) is NEVER


def test_the_ttl_of_nothing_cannot_be_changed(cache: Caller, server: Server) -> None:
    key = cache.key_for("missing", MODEL)
    assert cache.expire(key, 500) is False
    assert cache.persist(key) is False
    assert server.raw.dbsize() == 0


@pytest.mark.parametrize("kind", ["list", "text"])
def test_the_ttl_of_what_is_no_entry_is_left_alone(cache: Caller, server: Server, kind: str) -> None:
    key = cache.key_for("a", MODEL)
    if kind == "list":
        server.raw.rpush(key, "x")
    else:
        server.raw.set(key, "no entry")
    assert cache.expire(key, 500) is False
    assert cache.persist(key) is False
    assert server.pttl(key) == NEVER_EXPIRES
    assert server.raw.type(key) == (b"list" if kind == "list" else b"string")


def test_the_longest_ttl_is_kept(cache: Caller, server: Server) -> None:
    key = cache.set("a", MODEL, VECTOR, ttl=2**32 - 1)
    assert cache.get("a", MODEL)["ttl"] == 2**32 - 1
    assert server.pttl(key) > (2**32 - 200) * 1000


def test_an_expired_entry_is_gone(cache: Caller, server: Server) -> None:
    key = cache.set("a", MODEL, VECTOR, ttl=1)
    server.raw.pexpire(key, 1)
    while server.raw.exists(key):
        time.sleep(0.001)
    assert cache.get("a", MODEL) is None
    assert cache.exists_by_key(key) is False
    assert cache.remaining_ttl(key) is None
