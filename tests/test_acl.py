"""Rights on the server: the ACL lines of docs/security.md are enough, and nothing in them is for nothing."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
from acl_users import PASSWORD, User, lines
from calling import Caller
from sentinels import SERVICE, wait_until, watched
from servers import BINARIES, Server
from test_read_only import READS
from working import MODEL, VECTOR, items, works

from embedcache import EmbeddingsCache, flight_locks
from embedcache.connection import RedisConnection
from embedcache.entry_layout import LayoutName
from embedcache.errors import EmbedcacheError, ServerReplyError
from embedcache.keyspace import Keyspace
from embedcache.operations import ServerAbilities

TEXTS = [f"text {n}" for n in range(100)]
KEY = EmbeddingsCache("c").key_for("text 1", MODEL)

Step = Callable[[Any], object]


READER = lines("Reading")["reader"]
WRITER = lines("Reading and writing")["writer"]
FASTER = lines("Faster")
REDISVL = lines("A cache shared with RedisVL")
NEAR = lines("A near cache")


@pytest.fixture
def user(server: Server) -> Iterator[Callable[[str], User]]:
    yield lambda name: User(server, name)
    for name in ("reader", "writer"):
        server.raw.execute_command("ACL", "DELUSER", name)


def fill(server: Server, layout: LayoutName = "packed") -> None:
    server.raw.flushall()
    with EmbeddingsCache("c", redis_url=server.url, slow_lookup_seconds=0, layout=layout) as cache:
        cache.mset(items(100), ttl=300)
        cache.set_token_price(MODEL, 0.25)
        cache.get("text 1", MODEL)
        cache.flush_stats()


# ------------------------------------------------------------------------------------------------ what is done

READING: dict[str, Step] = {
    **{name: lambda cache, name=name, given=given: getattr(cache, name)(*given) for name, given in READS.items()},
    "mget of many": lambda cache: cache.mget(TEXTS, MODEL),
    "mget_embeddings of many": lambda cache: cache.mget_embeddings(TEXTS, MODEL),
    "why a known text is there": lambda cache: cache.why("text 1", MODEL),
}
WRITING: dict[str, Step] = {
    "set": lambda cache: cache.set("a", MODEL, VECTOR),
    "set with a TTL": lambda cache: cache.set("a", MODEL, VECTOR, ttl=50),
    "mset": lambda cache: cache.mset(items(5)),
    "mset with a TTL": lambda cache: cache.mset(items(5), ttl=50),
    "mset of many with a TTL": lambda cache: cache.mset(items(100), ttl=50),
    "hits that restart TTLs": lambda cache: cache.mget(TEXTS, MODEL),
    "set_metadata": lambda cache: cache.set_metadata(KEY, {"a": 1}),
    "persist": lambda cache: cache.persist(KEY),
    "expire": lambda cache: cache.expire(KEY, 20),
    "remaining_ttl": lambda cache: cache.remaining_ttl(KEY),
    "drop": lambda cache: cache.drop("text 1", MODEL),
    "mdrop": lambda cache: cache.mdrop(["text 2", "text 3"], MODEL),
    "flush_stats": lambda cache: cache.flush_stats(),
    "why": lambda cache: cache.why("text 2", MODEL),
    "a price": lambda cache: cache.set_token_price(MODEL, 0.5),
    "no price": lambda cache: cache.set_token_price(MODEL, None),
    "clear": lambda cache: cache.clear(),
    "flush_stats after clear": lambda cache: cache.flush_stats(),
}


def lock(url: str) -> None:
    """Takes, prolongs and releases a lock, as `single_flight="shared"` does."""
    connection, able = RedisConnection(url), ServerAbilities()
    keys = flight_locks.lock_keys(Keyspace("c"), ["a new text"], MODEL)
    with contextlib.suppress(ServerReplyError):
        connection.drive(flight_locks.take(keys, "token", 10))
        connection.drive(flight_locks.prolong(able, keys, "token", 10))
        connection.drive(flight_locks.release(able, keys, "token"))
    connection.close()


def outcomes(cache: Any, steps: dict[str, Step]) -> dict[str, str]:
    """What each step comes to, in words that are the same each time; of an error, its code."""
    found: dict[str, str] = {}
    for name, step in steps.items():
        try:
            result = step(cache)
        except ServerReplyError as error:
            found[name] = error.code
        else:
            found[name] = kind_of(result)
    return found


def kind_of(result: object) -> str:
    if isinstance(result, tuple) and len(result) == 2:
        return f"{result[1]}"
    if isinstance(result, list):
        return f"{[item is not None and item is not False for item in result]}"
    return f"{type(result).__name__} {result if isinstance(result, bool | int | None) else ''}"


def read(cache: Any) -> dict[str, str]:
    return outcomes(cache, READING)


def write(cache: Any) -> dict[str, str]:
    return read(cache) | outcomes(cache, WRITING)


DO: dict[str, Callable[[Any], dict[str, str]]] = {"reader": read, "writer": write}
OPTIONS: dict[str, dict[str, Any]] = {"reader": {"read_only": True}, "writer": {"slow_lookup_seconds": 0}}
LINES = {"reader": READER, "writer": WRITER}
ROLES = ["reader", "writer"]


@pytest.fixture
def done(server: Server, caller: Callable[[EmbeddingsCache], Caller]) -> Callable[[str, str, int | None], Any]:
    """What all calls of a role come to, by a URL, in a cache with this default TTL."""

    def do(role: str, url: str, ttl: int | None, layout: LayoutName = "packed") -> dict[str, str]:
        fill(server, layout)
        return DO[role](caller(EmbeddingsCache("c", ttl, redis_url=url, layout=layout, **OPTIONS[role])))

    return do


# ------------------------------------------------------------------------------------------------ enough


@pytest.mark.parametrize("faster", [False, True], ids=["smallest", "faster"])
@pytest.mark.parametrize("ttl", [None, 300])
@pytest.mark.parametrize("role", ROLES)
def test_the_line_is_enough(
    server: Server, user: Callable[[str], User], done: Callable[..., Any], role: str, ttl: int | None, faster: bool
) -> None:
    expected = done(role, server.url, ttl)
    assert not {"NOPERM", "ERR"} & set(expected.values())
    they = user(role)
    they.may([*LINES[role], *(FASTER[role] if faster else ())])
    assert done(role, they.url, ttl) == expected
    assert they.denied() <= (set() if faster else {"evalsha", "msetex"})


@pytest.mark.parametrize("faster", [False, True], ids=["smallest", "faster"])
@pytest.mark.parametrize("ttl", [None, 300])
@pytest.mark.parametrize("role", ROLES)
def test_the_line_for_redisvls_layout_is_enough(
    server: Server, user: Callable[[str], User], done: Callable[..., Any], role: str, ttl: int | None, faster: bool
) -> None:
    expected = done(role, server.url, ttl, "redisvl")
    they = user(role)
    they.may([*LINES[role], *REDISVL[role], *(FASTER[role] if faster else ())])
    assert done(role, they.url, ttl, "redisvl") == expected
    assert they.denied() <= (set() if faster else {"evalsha"})


@pytest.mark.parametrize("role", ROLES)
def test_the_line_for_a_near_cache_is_enough(server: Server, user: Callable[[str], User], role: str) -> None:
    they = user(role)
    they.may([*LINES[role], *NEAR[role]])
    with EmbeddingsCache("c", redis_url=they.url, near_cache=10, stats=False, **OPTIONS[role]) as cache:
        cache.get("a", MODEL)
        wait_until(lambda: cache.near_state.tracked, "word of others' writes")


def test_another_database_takes_another_right(
    server: Server, user: Callable[[str], User], caller: Callable[[EmbeddingsCache], Caller]
) -> None:
    they = user("reader")
    they.may(READER)
    cache = caller(EmbeddingsCache("c", redis_url=f"{they.url}?db=1", stats=False))
    for call in (lambda: cache.get("a", MODEL), lambda: cache.mexists(["a", "b"], MODEL)):
        with pytest.raises(EmbedcacheError, match="permissions to run the 'select'"):
            call()
    they.may(["+select"])
    assert caller(EmbeddingsCache("c", redis_url=f"{they.url}?db=1", stats=False)).get("a", MODEL) is None


def test_nothing_is_in_the_servers_log_with_all_that_is_used(server: Server, user: Callable[[str], User]) -> None:
    they = user("reader")
    newer = [] if server.kind == "redis62" else ["+client|no-touch"]
    they.may([*READER, *FASTER["reader"], "+client|setinfo", *newer])
    with EmbeddingsCache("c", redis_url=they.url, **OPTIONS["reader"]) as cache:
        read(cache)
    assert {entry["object"] for entry in server.raw.acl_log()} <= ({"client"} if server.kind == "redis62" else set())


@pytest.mark.parametrize("kind", BINARIES)
def test_sentinels_may_be_asked(kind: str, caller: Callable[[EmbeddingsCache], Caller]) -> None:
    with watched(kind, servers=1) as group:
        they = User(group.sentinels[0], "asker")
        they.may(lines("Around them")["asker"])
        url = f"redis+sentinel://{group.hosts}/{SERVICE}?sentinel_username=asker&sentinel_password={PASSWORD}"
        assert works(caller(EmbeddingsCache("c", redis_url=url, stats=False)))
        assert they.denied() == set()


def test_a_user_of_one_cache_reaches_no_other(server: Server, user: Callable[[str], User]) -> None:
    fill(server)
    they = user("writer")
    they.may(WRITER)
    with EmbeddingsCache("d", redis_url=server.url, stats=False) as other:
        key = other.set("a", MODEL, VECTOR)
    with EmbeddingsCache("d", redis_url=they.url, stats=False) as cache:
        for step in (lambda: cache.get("a", MODEL), lambda: cache.exists("a", MODEL), lambda: cache.drop_by_key(key)):
            with pytest.raises(ServerReplyError, match="NOPERM"):
                step()


# ------------------------------------------------------------------------------------------------ no more than that


Needed = tuple[str, Sequence[list[str]], list[str], LayoutName]
"""A role, what it may do besides (each in turn), the rights that are to be needed, and its cache's layout."""

NEEDED: dict[str, Needed] = {
    **{f"to be a {role}": (role, [[]], LINES[role], "packed") for role in ROLES},
    **{f"to be a faster {role}": (role, [LINES[role]], FASTER[role], "packed") for role in ROLES},
    **{
        f"to be a {role} of RedisVL's": (role, [LINES[role], [*LINES[role], *FASTER[role]]], REDISVL[role], "redisvl")
        for role in ROLES
    },
}


@pytest.mark.parametrize("which", NEEDED)
def test_each_command_is_needed(server: Server, user: Callable[[str], User], which: str) -> None:
    """Without it, a call fails or falls back: either way the server tells of a command that it refused."""
    role, bases, rules, layout = NEEDED[which]
    they = user(role)

    def refused(rule: str, base: list[str]) -> set[str]:
        they.may([*base, *(other for other in rules if other != rule)])
        for ttl in (None, 300):
            fill(server, layout)
            server.raw.script_flush()
            with EmbeddingsCache("c", ttl, redis_url=they.url, layout=layout, **OPTIONS[role]) as cache:
                DO[role](cache)
        if role == "writer":
            lock(they.url)
        return they.denied()

    tried = [rule for rule in rules if rule.startswith("+") and they.knows(rule)]
    assert [rule for rule in tried if not any(rule[1:] in refused(rule, base) for base in bases)] == []


# ------------------------------------------------------------------------------------------------ less than that


def test_a_lookup_works_where_nothing_may_be_counted(
    server: Server, user: Callable[[str], User], caller: Callable[[EmbeddingsCache], Caller]
) -> None:
    fill(server)
    they = user("reader")
    they.may(READER)
    cache = caller(EmbeddingsCache("c", redis_url=they.url))
    assert cache.get("text 1", MODEL) is not None
    assert cache.get("unknown", MODEL) is None
    with pytest.raises(ServerReplyError, match="NOPERM"):
        cache.flush_stats()
    # Nothing is lost: it waits, can be seen, and is delivered once that is allowed.
    assert (cache.process_stats().hits, cache.process_stats().misses) == (1, 1)
    before = cache.stats("all")
    they.may(WRITER)
    cache.flush_stats()
    after = cache.stats("all")
    assert (after.hits - before.hits, after.misses - before.misses) == (1, 1)


def test_a_refusal_is_not_taken_for_an_entry_that_is_not_there(
    server: Server, user: Callable[[str], User], caller: Callable[[EmbeddingsCache], Caller]
) -> None:
    fill(server)
    they = user("reader")
    they.may(["reset", "on", ">PASSWORD", "~name:*", "+mget"])
    cache = caller(EmbeddingsCache("c", redis_url=they.url, stats=False))
    assert cache.get("text 1", MODEL) is not None
    asked: list[Callable[[], object]] = [
        lambda: cache.exists("text 1", MODEL),
        lambda: cache.mexists_by_keys([KEY, KEY]),
        lambda: cache.remaining_ttl(KEY),
        lambda: cache.why("text 1", MODEL),
    ]
    for ask in asked:
        with pytest.raises(ServerReplyError, match="NOPERM"):
            ask()
