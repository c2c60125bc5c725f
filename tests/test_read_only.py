"""A cache opened read-only: nothing that it does, or is told to do, leaves a trace on the server."""

from __future__ import annotations

import ast
import inspect
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import redis
import redis.asyncio
from calling import Caller
from servers import Server, running
from working import MODEL, VECTOR, items

from embedcache import EmbedcacheError, EmbeddingsCache, buckets, inspector, operations, scripts
from embedcache.codec import stored_dtype
from embedcache.connection import RedisConnection
from embedcache.counters import Batch, Counts, NoCounters
from embedcache.errors import ReadOnlyError
from embedcache.keyspace import Keyspace
from embedcache.operations import ServerAbilities
from embedcache.read_only import check_reads
from embedcache.vectorizers import CustomVectorizer

SPACE = Keyspace("c", 300)
KEY = SPACE.key(b"text 0:" + MODEL.encode())

# Every public method, and what it is called with. What writes is refused; what reads answers; what does neither works.
WRITES: dict[str, tuple[Any, ...]] = {
    "set": ("a", MODEL, VECTOR),
    "mset": (items(3),),
    "drop": ("text 0", MODEL),
    "drop_by_key": (KEY,),
    "mdrop": (["text 0", "unknown"], MODEL),
    "mdrop_by_keys": ([KEY],),
    "clear": (),
    "expire": (KEY, 50),
    "persist": (KEY,),
    "set_metadata": (KEY, {"a": 1}),
    "set_token_price": (MODEL, 0.5),
}
READS: dict[str, tuple[Any, ...]] = {
    "get": ("text 0", MODEL),
    "get_by_key": (KEY,),
    "mget": (["text 0", "unknown"], MODEL),
    "mget_by_keys": ([KEY],),
    "mget_embeddings": (["text 0", "unknown"], MODEL),
    "look_again": (["text 0", "unknown"], MODEL),
    "exists": ("text 0", MODEL),
    "exists_by_key": (KEY,),
    "mexists": (["text 0"], MODEL),
    "mexists_by_keys": ([KEY],),
    "remaining_ttl": (KEY,),
    "stats": (),
    "stats_by_model": (),
    "stats_series": (),
    "stats_series_by_model": (),
    "slow_lookups": (),
    "token_prices": (),
    "why": ("unknown", MODEL),
    "why_by_key": (KEY,),
}
LOCAL: dict[str, tuple[Any, ...]] = {
    "cached": (MODEL,),
    "flush_stats": (),
    "key_for": ("a", MODEL),
    "owns": (KEY,),
    "set_ttl": (50,),
    "process_stats": (),
    "process_stats_by_model": (),
    "record_computation": (MODEL, 1, 0.1),
    "record_flights_saved": (MODEL, 1),
    "close": (),
}


def public_methods() -> set[str]:
    """By their sync names."""
    names = {name for name, _ in inspect.getmembers(EmbeddingsCache, inspect.isfunction) if not name.startswith("_")}
    return {name for name in names if not (name.startswith("a") and name[1:] in names)}


class Roughly(int):
    """Milliseconds that are left, equal to what they were a while ago."""

    __hash__ = int.__hash__

    def __eq__(self, other: object) -> bool:
        return isinstance(other, int) and abs(int(self) - int(other)) < 60_000


def contents(server: Server) -> dict[bytes, tuple[bytes, Roughly]]:
    """Everything on the server, each with its TTL, which no test changes by less than a minute."""
    return {key: (server.raw.dump(key), Roughly(server.pttl(key))) for key in server.raw.scan_iter()}


@pytest.fixture
def filled(server: Server) -> Server:
    with EmbeddingsCache("c", redis_url=server.url, ttl=300) as cache:
        cache.mset(items(3))
        cache.set_token_price(MODEL, 0.25)
        cache.get("text 1", MODEL)
        cache.flush_stats()
    server.raw.expire(KEY, 200)
    return server


@pytest.fixture
def looking(filled: Server, caller: Callable[[EmbeddingsCache], Caller]) -> Caller:
    return caller(EmbeddingsCache("c", redis_url=filled.url, ttl=300, read_only=True))


# ------------------------------------------------------------------------------------------------ every method


def test_every_public_method_is_told_of_here() -> None:
    assert public_methods() == WRITES.keys() | READS.keys() | LOCAL.keys()


def test_every_write_is_refused_and_changes_nothing(filled: Server, looking: Caller) -> None:
    before = contents(filled)
    for name, arguments in WRITES.items():
        with pytest.raises(ReadOnlyError, match=r"cache 'c' was opened read-only; open it with read_only=False"):
            getattr(looking, name)(*arguments)
    assert contents(filled) == before


def test_every_read_works_and_changes_nothing(filled: Server, looking: Caller) -> None:
    before = contents(filled)
    for name, arguments in (READS | LOCAL).items():
        getattr(looking, name)(*arguments)
    assert contents(filled) == before


def test_what_is_read_is_what_is_there(looking: Caller) -> None:
    assert looking.get("text 2", MODEL)["embedding"].tolist() == [2, 1]
    assert looking.mexists(["text 0", "unknown"], MODEL) == [True, False]
    assert looking.token_prices() == {MODEL: 0.25}
    assert looking.stats("all").sets == 3
    assert looking.read_only is True


def test_where_there_is_nothing_to_remove_removing_is_refused_all_the_same(looking: Caller) -> None:
    for refused in (lambda: looking.mset([]), lambda: looking.mdrop([], MODEL), lambda: looking.mdrop_by_keys([])):
        with pytest.raises(ReadOnlyError):
            refused()


def test_a_cache_is_opened_to_write_unless_told_otherwise(make_cache: Callable[..., Caller]) -> None:
    cache = make_cache()
    assert cache.read_only is False
    cache.set("a", MODEL, VECTOR)
    assert cache.clear() == 1


def test_an_error_of_this_kind_is_ours() -> None:
    assert issubclass(ReadOnlyError, EmbedcacheError)


# ------------------------------------------------------------------------------------------------ below the cache


def writing_operations() -> dict[str, Callable[[], operations.Operation[Any]]]:
    able, none, dtype = ServerAbilities(), NoCounters(), stored_dtype("float32")
    batch = Batch(0.0, 1.0, {MODEL: Counts(hits=1)}, stored={KEY: (0.5, None)})
    return {
        "set": lambda: operations.set_one(SPACE, able, none, dtype, items(1)[0], now=1.0),
        "MSETEX": lambda: operations.mset(SPACE, able, none, dtype, items(3), 50, now=1.0),
        "MSET": lambda: operations.mset(Keyspace("c"), able, none, dtype, items(3), None, now=1.0),
        "drop": lambda: operations.mdrop_by_keys(SPACE, none, [KEY]),
        "clear": lambda: operations.clear(SPACE, none),
        "expire": lambda: operations.expire(SPACE, able, none, KEY, 50),
        "a read that restarts TTLs": lambda: operations.mget(SPACE, able, none, ["text 0"], MODEL, refresh=True),
        "a large one": lambda: operations.mget(
            SPACE, able, none, [f"text {n}" for n in range(99)], MODEL, refresh=True
        ),
        "prices": lambda: buckets.set_price(SPACE, MODEL, 2.0),
        "statistics": lambda: buckets.add_batch(SPACE, able, batch, writer="w", number=1, process="host:1"),
    }


@pytest.mark.parametrize("name", writing_operations())
async def test_the_connection_refuses_an_operation_that_writes(filled: Server, name: str) -> None:
    before = contents(filled)
    connection = RedisConnection(filled.url, read_only=True)
    with pytest.raises(ReadOnlyError, match="open it with read_only=False"):
        connection.drive(writing_operations()[name]())
    with pytest.raises(ReadOnlyError):
        connection.drive(writing_operations()[name](), background=True)
    with pytest.raises(ReadOnlyError):
        await connection.adrive(writing_operations()[name]())
    await connection.aclose()
    assert contents(filled) == before


def test_what_inspects_a_server_only_reads(filled: Server) -> None:
    connection = RedisConnection(filled.url, read_only=True)
    assert inspector.server_info(connection).total_keys > 3
    assert inspector.find_names(connection) == ("c",)
    assert inspector.find_caches(connection).caches[0].entries == 3
    assert inspector.summarise(connection, [KEY])[0].text == "text 0"
    assert inspector.ping(connection) > 0
    connection.close()


@pytest.mark.parametrize(
    "command",
    [
        ("SET", "a", "b"),
        ("set", "a", "b"),
        (b"DeL", "a"),
        ("GETDEL", "a"),
        ("GETEX", "a", "EX", 5),
        ("SORT", "a", "STORE", "b"),
        ("TOUCH", "a"),
        ("FLUSHALL",),
        ("CONFIG", "SET", "maxmemory", "1"),
        ("CONFIG SET", "maxmemory", "1"),
        ("CONFIG",),
        ("MEMORY", "PURGE"),
        ("OBJECT", "HELP"),
        ("EVAL", "return redis.call('DEL', KEYS[1])", 1, "a"),
        ("EVALSHA", scripts.CHANGE_TTL.sha, 1, "a"),
        ("EVAL", scripts.READ_HEADS.source + " ", 0),
        ("EVAL",),
        ("CLIENT", "KILL", "TYPE", "normal"),
        ("SHUTDOWN",),
        ("A.MODULES.OWN", "a"),
        (7, "a"),
        ("", "a"),
        (),
    ],
)
def test_a_command_that_is_not_known_to_read_is_refused(command: tuple[Any, ...]) -> None:
    with pytest.raises(ReadOnlyError):
        check_reads([("GET", "a"), command])


def test_each_command_that_the_server_calls_a_write_is_refused(filled: Server) -> None:
    before = contents(filled)
    known = filled.raw.command()
    writing = [name for name, command in known.items() if {"write", "admin"} & set(command["flags"])]
    assert len(writing) > 80
    connection = RedisConnection(filled.url, read_only=True)
    for name in writing:
        with pytest.raises(ReadOnlyError, match=name.upper()[:40]):
            connection.drive(operations.checked((name, KEY, "1", "b")))
    connection.close()
    assert contents(filled) == before


def test_the_refusal_names_the_command() -> None:
    with pytest.raises(ReadOnlyError, match="UNLINK may change it"):
        check_reads([("unlink", "a")])


@pytest.mark.parametrize(
    "command",
    [
        ("GET", "a"),
        (b"mget", "a", "b"),
        ("MEMORY", "USAGE", "a"),
        ("MEMORY USAGE", "a"),
        ("OBJECT", b"idletime", "a"),
        ("EVALSHA", scripts.READ_HEADS.sha, 1, "a"),
        ("EVAL", scripts.READ_HEADS.source, 1, "a"),
    ],
)
def test_a_command_that_reads_is_sent(command: tuple[Any, ...]) -> None:
    check_reads([command])


def test_the_server_agrees_that_scripts_that_are_said_to_read_do_nothing_else(valkey: Server) -> None:
    known = [script for script in vars(scripts).values() if isinstance(script, scripts.Script)]
    reading = [script for script in known if script.reads_only]
    assert scripts.READ_HEADS in reading
    for script in reading:
        valkey.raw.execute_command("EVAL_RO", script.source, 1, "c:" + "0" * 64)
        assert scripts.only_reads(script.sha)
        assert scripts.only_reads(script.source)
    for script in known:
        assert scripts.only_reads(script.sha) == script.reads_only


# ------------------------------------------------------------------------------------------------ idle times


def idle_seconds(server: Server, key: str) -> int:
    return int(server.raw.object("idletime", key))


@pytest.fixture
def idle(filled: Server) -> Server:
    """The server, once the entry has been left alone for 2 seconds."""
    deadline = time.monotonic() + 20
    while idle_seconds(filled, KEY) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    return filled


def test_looking_leaves_idle_times_alone(idle: Server, caller: Callable[[EmbeddingsCache], Caller]) -> None:
    looking = caller(EmbeddingsCache("c", redis_url=idle.url, read_only=True))
    assert looking.get("text 0", MODEL) is not None
    assert looking.mget_embeddings(["text 0"], MODEL)[1].all()
    assert inspector.summarise(looking.cache.connection, [KEY])[0] is not None
    if idle.kind == "redis62":  # knows nothing of it, and answers all the same
        assert idle_seconds(idle, KEY) < 2
    else:
        assert idle_seconds(idle, KEY) >= 2


def test_using_an_entry_does_not(idle: Server, caller: Callable[[EmbeddingsCache], Caller]) -> None:
    using = caller(EmbeddingsCache("c", redis_url=idle.url, stats=False))
    assert using.get("text 0", MODEL) is not None
    assert idle_seconds(idle, KEY) < 2


# ------------------------------------------------------------------------------------------------ clients, rights


async def test_clients_that_were_passed_in_are_guarded_too(filled: Server) -> None:
    given = redis.Redis(unix_socket_path=str(filled.socket))
    async_given = redis.asyncio.Redis(unix_socket_path=str(filled.socket))
    before = contents(filled)
    cache = EmbeddingsCache("c", redis_client=given, async_redis_client=async_given, read_only=True)
    assert cache.get("text 0", MODEL) is not None
    assert await cache.aget("text 0", MODEL) is not None
    with pytest.raises(ReadOnlyError):
        cache.set("a", MODEL, VECTOR)
    with pytest.raises(ReadOnlyError):
        await cache.aset("a", MODEL, VECTOR)
    assert contents(filled) == before
    await cache.aclose()
    await async_given.aclose()
    given.close()


async def test_what_a_caller_does_with_a_new_connection_is_still_done(valkey: Server) -> None:
    seen: list[str] = []

    def connected(connection: Any) -> Any:
        seen.append(type(connection).__module__)
        return connection.on_connect()

    cache = EmbeddingsCache(
        "c", redis_url=valkey.url, connection_kwargs={"redis_connect_func": connected}, read_only=True
    )
    assert cache.get("a", MODEL) is None
    assert await cache.aget("a", MODEL) is None
    assert seen == ["redis.connection", "redis.asyncio.connection"]
    await cache.aclose()


def test_a_user_who_may_only_read_can_look(server: Server, caller: Callable[[EmbeddingsCache], Caller]) -> None:
    with EmbeddingsCache("c", redis_url=server.url, stats=False) as cache:
        cache.mset(items(2))
    server.raw.execute_command("ACL", "SETUSER", "reader", "reset", "on", ">pw", "~c:*", "+@read")
    looking = caller(
        EmbeddingsCache(
            "c", redis_url=server.url, connection_kwargs={"username": "reader", "password": "pw"}, read_only=True
        )
    )
    assert looking.get("text 1", MODEL)["embedding"].tolist() == [1, 1]
    assert [entry is not None for entry in looking.mget(["text 0", "unknown"], MODEL)] == [True, False]
    assert looking.stats().hits == 0
    server.raw.execute_command("ACL", "DELUSER", "reader")


def test_a_replica_can_be_looked_at(valkey: Server, caller: Callable[[EmbeddingsCache], Caller]) -> None:
    with running("valkey9") as replica:
        with EmbeddingsCache("c", redis_url=replica.url, stats=False, ttl=300) as cache:
            cache.mset(items(2))
        replica.raw.config_set("replica-serve-stale-data", "yes")
        replica.raw.replicaof("127.0.0.1", 1)  # nobody there: it keeps what it has, and takes no writes
        looking = caller(EmbeddingsCache("c", redis_url=replica.url, ttl=300, read_only=True))
        assert looking.get("text 1", MODEL)["embedding"].tolist() == [1, 1]
        with pytest.raises(ReadOnlyError):
            looking.set("a", MODEL, VECTOR)


# ------------------------------------------------------------------------------------------------ vectorizers


class Counted:
    """A model that tells what it was asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def __call__(self, text: Any) -> list[float]:
        self.asked.append(text)
        return [7.0, 8.0]


@pytest.mark.parametrize("twin", ["embed_report", "aembed_report"])
async def test_a_vectorizer_computes_what_is_missing_and_keeps_nothing(filled: Server, twin: str) -> None:
    model = Counted()
    before = contents(filled)
    cache = EmbeddingsCache("c", redis_url=filled.url, read_only=True)
    vectorizer = CustomVectorizer(model, MODEL, cache)
    report = getattr(vectorizer, twin)(["text 1", "new", "newer", "new"])
    report = await report if inspect.isawaitable(report) else report
    assert report.vectors.tolist() == [[1, 1], [7, 8], [7, 8], [7, 8]]
    assert report.hits.tolist() == [True, False, False, False]
    assert (report.withheld, report.unstored) == (2, 0)
    assert model.asked == ["new", "newer"]
    await cache.aclose()
    assert contents(filled) == before


def test_a_vectorizer_whose_cache_takes_writes_withholds_nothing(valkey: Server) -> None:
    with EmbeddingsCache("c", redis_url=valkey.url) as cache:
        vectorizer = CustomVectorizer(Counted(), MODEL, cache)
        assert vectorizer.embed_report(["new"]).withheld == 0
        assert vectorizer.embed_report(["newer"], skip_cache=True).withheld == 0
        assert cache.mexists(["new", "newer"], MODEL) == [True, False]


def test_a_vectorizer_whose_server_is_away_says_so_rather_than_that_it_may_not() -> None:
    cache = EmbeddingsCache("c", redis_url="unix:///nowhere.sock", read_only=True)
    report = CustomVectorizer(Counted(), MODEL, cache).embed_report(["new"])
    assert (report.withheld, report.unstored) == (0, 1)


def test_what_a_page_works_with_is_opened_in_one_room() -> None:
    # Only there is decided what a user may write: a page that opened a cache itself could forget to ask.
    opening = {"EmbeddingsCache", "RedisConnection", "from_connection"}
    found = {
        (path.name, call)
        for path in (Path(__file__).parents[1] / "pages").rglob("*.py")
        for call in called(ast.parse(path.read_text("utf-8"))) & opening
    }
    assert found == {
        ("session.py", "EmbeddingsCache"),
        ("connections.py", "RedisConnection"),  # asks a server how it is
        ("serving.py", "RedisConnection"),  # the metrics, which only read
    }


def called(tree: ast.AST) -> set[str]:
    """The last part of each name that is called."""
    functions = [node.func for node in ast.walk(tree) if isinstance(node, ast.Call)]
    return {each.attr if isinstance(each, ast.Attribute) else getattr(each, "id", "") for each in functions}
