"""Sentinels: addresses of theirs, clients passed in, and a primary that is another one all of a sudden."""

from __future__ import annotations

import asyncio
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import redis
import redis.asyncio
import redis.asyncio.sentinel
import redis.sentinel
from calling import Caller
from sentinels import SERVICE, Group, Sentinel, wait_until, watched
from servers import BINARIES, Server, free_port
from working import MODEL, VECTOR, awaits, items, works

from embedcache import CacheUnavailableError, EmbedcacheError, EmbeddingsCache
from embedcache.connection import RedisConnection
from embedcache.errors import ClientRefusedError, InvalidInputError, InvalidURLError
from embedcache.urls import mask_password, parse

PASSWORD = "s3cret-word"  # noqa: S105 - of servers that live as long as their test
THEIRS = "0ther-word"
FAILOVER_SECONDS = 80
"""A sentinel that a busy machine kept from working holds its hands for 30 s."""


# ------------------------------------------------------------------------------------------------ addresses


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("redis+sentinel://", "names their service"),
        ("redis+sentinel://localhost:26379", "names their service"),
        ("redis+sentinel://localhost:26379/", "names their service"),
        ("redis+sentinel://localhost:26379/vectors/first", "a database by its number"),
        ("redis+sentinel://localhost:26379/vectors/", "a database by its number"),
        ("redis+sentinel:///vectors", "cannot read the server's URL redis+sentinel:///vectors"),
        ("redis+sentinel://a:1,/vectors", "cannot read the server's URL"),
        ("redis+sentinel://a:1,:2/vectors", "cannot read the server's URL"),
        ("redis+sentinel://a:one/vectors", "is its port a number"),
        ("redis+sentinel://[::1/vectors", "cannot read the server's URL"),
        ("redis+sentinel://a:1/vectors?socket_timeout=soon", "cannot read the server's URL"),
    ],
)
def test_an_address_of_sentinels_that_cannot_be_read(url: str, words: str) -> None:
    with pytest.raises(InvalidURLError) as caught:
        EmbeddingsCache(redis_url=url)
    assert words in str(caught.value)


def test_a_setting_that_there_is_not_is_named() -> None:
    with pytest.raises(InvalidInputError, match="'nonsense'"):
        EmbeddingsCache(redis_url="redis+sentinel://localhost/vectors?nonsense=1")


@pytest.mark.parametrize("name", ["service", "sentinel_username", "sentinel_password"])
def test_settings_of_sentinels_go_with_sentinels_alone(name: str) -> None:
    with pytest.raises(InvalidInputError, match=r"go with redis\+sentinel://") as caught:
        EmbeddingsCache(redis_url="redis://localhost", connection_kwargs={name: PASSWORD})
    assert PASSWORD not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("redis+sentinel://one/vectors", {"sentinel_hosts": [("one", 26379)], "service": "vectors", "db": 0}),
        (
            "redis+sentinel://one:1,[::1]:2,[::2]/some%20vectors/3",
            {"sentinel_hosts": [("one", 1), ("::1", 2), ("::2", 26379)], "service": "some vectors", "db": 3},
        ),
        (
            "redis+sentinel://me:p%40ss@one:1,two:2/v?sentinel_password=word&socket_timeout=2",
            {
                "sentinel_hosts": [("one", 1), ("two", 2)],
                "service": "v",
                "db": 0,
                "username": "me",
                "password": "p@ss",
                "sentinel_password": "word",
                "socket_timeout": 2.0,
            },
        ),
    ],
)
def test_what_an_address_of_sentinels_says(url: str, expected: dict[str, Any]) -> None:
    assert parse(url) == expected


def test_tls_is_for_the_servers_and_the_sentinels_alike(tmp_path: Path) -> None:
    connection = RedisConnection(f"rediss+sentinel://one:1/vectors?ssl_ca_path={tmp_path}")
    assert connection._settings["connection_class"].__name__ == "PrimarySSLConnection"
    assert connection._settings["ssl_ca_path"] == str(tmp_path)
    (asked,) = connection._settings["sentinels"]._each
    assert (asked["connection_class"], asked["ssl_ca_path"]) == (redis.SSLConnection, str(tmp_path))


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        (
            f"redis+sentinel://me:{PASSWORD}@one:1,[::1]:2/vectors/3?sentinel_password={PASSWORD}&socket_timeout=2",
            "redis+sentinel://me:***@one:1,[::1]:2/vectors/3?sentinel_password=***&socket_timeout=2",
        ),
        (f"redis+sentinel://one/v?sentinel_p%61ssword={PASSWORD}", "redis+sentinel://one/v?sentinel_p%61ssword=***"),
    ],
)
def test_an_address_of_sentinels_is_shown_without_passwords(url: str, shown: str) -> None:
    cache = EmbeddingsCache(redis_url=url)
    assert mask_password(url) == shown
    assert cache.connection.address == shown
    assert PASSWORD not in repr(cache) + repr(cache.connection) + repr(cache.connection._settings["sentinels"])


# ------------------------------------------------------------------------------------------------ three sentinels


@pytest.fixture(scope="module")
def group() -> Iterator[Group]:
    """As in earnest: three sentinels, a primary, two replicas, and passwords for both kinds."""
    with watched("valkey9", servers=3, sentinels=3, password=PASSWORD, sentinel_password=THEIRS) as made:
        yield made


def url_of(group: Group, *, hosts: str | None = None, service: str = SERVICE, password: str = THEIRS) -> str:
    return f"redis+sentinel://:{PASSWORD}@{hosts or group.hosts}/{service}?sentinel_password={password}"


def test_a_cache_finds_its_server_by_sentinels(group: Group, caller: Callable[[EmbeddingsCache], Caller]) -> None:
    cache = caller(EmbeddingsCache("c", redis_url=url_of(group)))
    assert works(cache)
    assert (PASSWORD in repr(cache.cache), THEIRS in repr(cache.cache)) == (False, False)


def test_the_passwords_may_come_by_themselves(group: Group, caller: Callable[[EmbeddingsCache], Caller]) -> None:
    settings = {"password": PASSWORD, "sentinel_password": THEIRS, "db": 2}
    url = f"redis+sentinel://{group.hosts}/{SERVICE}"
    cache = caller(EmbeddingsCache("c", redis_url=url, connection_kwargs=settings))
    cache.set("a", MODEL, VECTOR)
    primary = next(server for server in group.servers if {server.port} == group.named())
    assert primary.raw.info("keyspace").keys() >= {"db2"}
    cache.clear()


def test_sentinels_that_are_away_are_passed_over(group: Group, caller: Callable[[EmbeddingsCache], Caller]) -> None:
    hosts = f"127.0.0.1:{free_port()},{group.hosts}"
    cache = caller(EmbeddingsCache("c", redis_url=url_of(group, hosts=hosts)))
    assert works(cache)
    # The one that answered is the first that is asked next.
    assert cache.cache.connection._settings["sentinels"].hosts.startswith(group.hosts.split(",")[0])


def test_a_service_that_they_do_not_know_is_named(group: Group, caller: Callable[[EmbeddingsCache], Caller]) -> None:
    cache = caller(EmbeddingsCache("c", redis_url=url_of(group, service="nobody")))
    with pytest.raises(CacheUnavailableError, match=r"no sentinel names the primary of 'nobody'.*does not know it"):
        cache.get("a", MODEL)


def test_sentinels_that_refuse_us_are_named(group: Group, caller: Callable[[EmbeddingsCache], Caller]) -> None:
    cache = caller(EmbeddingsCache("c", redis_url=url_of(group, password=f"{THEIRS}-not")))
    with pytest.raises(CacheUnavailableError, match=rf":{group.sentinels[0].port} said: .*password") as caught:
        cache.get("a", MODEL)
    told = "".join(traceback.format_exception(caught.value))
    assert (PASSWORD in told, THEIRS in told) == (False, False)


def sentinels_of(group: Group, module: Any, password: str = THEIRS) -> Any:
    places = [("127.0.0.1", sentinel.port) for sentinel in group.sentinels]
    return module.Sentinel(places, sentinel_kwargs={"password": password}, password=PASSWORD)


def test_a_sync_client_of_sentinels_serves_sync_and_async(group: Group) -> None:
    with sentinels_of(group, redis.sentinel) as sentinels, sentinels.master_for(SERVICE, db=1) as client:
        cache = EmbeddingsCache("c", redis_client=client)
        assert works(cache)
        assert asyncio.run(awaits(cache))
        assert cache.connection.address == f"redis+sentinel://{group.hosts}/{SERVICE}/1"
        assert PASSWORD not in repr(cache)
        cache.close()


async def test_an_async_client_of_sentinels_serves_async_and_sync(group: Group) -> None:
    sentinels = sentinels_of(group, redis.asyncio.sentinel)
    client = sentinels.master_for(SERVICE, db=1)
    cache = EmbeddingsCache("c", async_redis_client=client)
    assert await awaits(cache)
    assert works(cache)
    await cache.aclose()
    await client.aclose()
    await sentinels.aclose()


@pytest.mark.parametrize("module", [redis.sentinel, redis.asyncio.sentinel], ids=["sync", "async"])
def test_a_client_of_replicas_is_refused(group: Group, module: Any) -> None:
    name = "redis_client" if module is redis.sentinel else "async_redis_client"
    with pytest.raises(ClientRefusedError, match=r"pass what Sentinel\.master_for returns"):
        EmbeddingsCache("c", **{name: sentinels_of(group, module).slave_for(SERVICE)})


# ------------------------------------------------------------------------------------------------ failover


class Load:
    """What threads and tasks do to a cache all the time: write and read texts whose vectors say which they are.

    Attributes:
        wrong: What was read and is not what was written.
        foreign: Errors that are none of ours.
        refused: How many calls ended with an error of ours.
        done: How many calls each worker has done without one, in all.
    """

    def __init__(self, workers: int) -> None:
        self.wrong: list[str] = []
        self.foreign: list[str] = []
        self.refused = 0
        self.done = [0] * workers
        self.over = threading.Event()

    def judge(self, numbers: list[int], found: list[Any]) -> None:
        for number, entry in zip(numbers, found, strict=True):
            if entry is not None and (entry["text"], entry["embedding"].tolist()) != (f"text {number}", [number, 1]):
                self.wrong.append(f"{number}: {entry}")

    def note(self, error: Exception) -> None:
        if isinstance(error, EmbedcacheError):
            self.refused += 1
        else:
            self.foreign.append("".join(traceback.format_exception(error)))

    def work(self, cache: EmbeddingsCache, worker: int) -> None:
        for numbers in self._turns(worker):
            try:
                cache.mset([items(150)[number] for number in numbers], ttl=500)
                self.judge(numbers, cache.mget([f"text {number}" for number in numbers], MODEL))
                self.judge(numbers[:1], [cache.get(f"text {numbers[0]}", MODEL)])
                self.done[worker] += 1
            except Exception as error:  # noqa: BLE001 - the test is about which there are
                self.note(error)
            time.sleep(0.005)

    async def awork(self, cache: EmbeddingsCache, worker: int) -> None:
        for numbers in self._turns(worker):
            try:
                await cache.amset([items(150)[number] for number in numbers], ttl=500)
                self.judge(numbers, await cache.amget([f"text {number}" for number in numbers], MODEL))
                self.judge(numbers[:1], [await cache.aget(f"text {numbers[0]}", MODEL)])
                self.done[worker] += 1
            except Exception as error:  # noqa: BLE001
                self.note(error)
            await asyncio.sleep(0.005)

    def _turns(self, worker: int) -> Iterator[list[int]]:
        turn = worker
        while not self.over.is_set():
            yield [(turn * 7 + step) % 150 for step in range(5)]
            turn += 1


def test_work_goes_on_after_a_failover(group: Group) -> None:
    threads, tasks = 4, 4
    load = Load(threads + tasks)

    async def run_tasks(cache: EmbeddingsCache) -> None:
        await asyncio.gather(*(load.awork(cache, threads + n) for n in range(tasks)))

    (old,) = group.named()
    primary = next(server for server in group.servers if server.port == old)
    options = {"near_cache": 10, "near_ttl": 500}
    with (
        EmbeddingsCache("c", redis_url=url_of(group)) as cache,
        EmbeddingsCache("c", redis_url=url_of(group), stats=False, **options) as near,
        ThreadPoolExecutor(threads + 1) as pool,
    ):
        near.get("begins it", MODEL)
        running = [pool.submit(load.work, cache, n) for n in range(threads)]
        running.append(pool.submit(asyncio.run, run_tasks(cache)))
        try:
            wait_until(lambda: min(load.done) > 5 and near.near_state.tracked, "work before the failover")
            primary.kill()
            wait_until(lambda: old not in group.named(), "a failover", FAILOVER_SECONDS)
            before = list(load.done)
            enough = lambda: all(now > then + 10 for now, then in zip(load.done, before, strict=True))  # noqa: E731
            wait_until(enough, "work after the failover", FAILOVER_SECONDS)
            wait_until(lambda: near.near_state.tracked, "word of others' writes after the failover", FAILOVER_SECONDS)
        finally:
            load.over.set()
        for each in running:
            each.result()
        cache.clear()
        assert works(cache)
        assert works(near)
    assert load.foreign == []
    assert load.wrong == []
    assert load.refused > 0  # else nothing happened
    primary.stop()
    primary.start()  # which the sentinels make a replica of the new one


def test_statistics_outlast_a_failover(group: Group) -> None:
    with EmbeddingsCache("counted", redis_url=url_of(group)) as cache:
        cache.set("a", MODEL, VECTOR)
        cache.get("a", MODEL)
        cache.flush_stats()
        wait_until(lambda: len(group.named()) == 1, "agreement")
        (old,) = group.named()
        wait_until(group.is_acquainted, "that all servers are back")
        wait_until(lambda: fails_over(group.sentinels[0], old), "a failover", FAILOVER_SECONDS)
        wait_until(lambda: old not in group.named(), "that all sentinels name the new one", FAILOVER_SECONDS)
        cache.get("a", MODEL)
        wait_until(lambda: flushed(cache), "statistics on the new primary")
        assert cache.stats("all").hits == 2


def fails_over(sentinel: Sentinel, old: int) -> bool:
    """Whether it names another primary; asks for that until it does, for one failover may come to nothing."""
    if sentinel.named() != old:
        return True
    sentinel.raw.execute_command("SENTINEL FAILOVER", SERVICE)  # an error where one is under way
    return False


def flushed(cache: EmbeddingsCache) -> bool:
    try:
        cache.flush_stats()
    except EmbedcacheError:
        return False
    return True


# ------------------------------------------------------------------------------------------------ demotion


@pytest.fixture(scope="module", params=list(BINARIES))
def two(request: pytest.FixtureRequest) -> Iterator[Group]:
    """Two servers that know nothing of each other, and one sentinel that believes what it is told."""
    with watched(request.param, servers=1) as made:
        made.servers.append(Server(request.param, port=free_port()))
        yield made


@pytest.fixture
def pair(two: Group) -> Group:
    """The first is the primary; both are empty."""
    for server in two.servers:
        server.raw.replicaof("NO", "ONE")
        server.raw.flushall()
    two.sentinels[0].watch(two.servers[0])
    return two


def demote(pair: Group) -> None:
    """The second is the primary from now on, and the first its replica. Its clients hear nothing of it."""
    first, second = pair.servers
    pair.sentinels[0].watch(second)
    first.raw.replicaof("127.0.0.1", second.port)


WRITES: dict[str, Callable[[Caller], object]] = {
    "one": lambda cache: cache.set("new", MODEL, VECTOR),
    "one with a TTL": lambda cache: cache.set("new", MODEL, VECTOR, ttl=50),
    "a batch": lambda cache: cache.mset([*items(3), {"text": "new", "model_name": MODEL, "embedding": VECTOR}]),
    "a batch with a TTL": lambda cache: cache.mset(
        [*items(3), {"text": "new", "model_name": MODEL, "embedding": VECTOR}], ttl=50
    ),
}


@pytest.mark.parametrize("write", WRITES)
def test_a_connection_to_a_former_primary_is_given_up(
    pair: Group, caller: Callable[[EmbeddingsCache], Caller], write: str
) -> None:
    cache = caller(EmbeddingsCache("c", redis_url=f"redis+sentinel://{pair.hosts}/{SERVICE}", stats=False))
    cache.set("old", MODEL, VECTOR)
    demote(pair)
    WRITES[write](cache)  # without an error: the first try meets a replica, the second one the new primary
    assert cache.get("new", MODEL)["embedding"].tolist() == VECTOR
    assert b"c:" in b"".join(pair.servers[1].raw.scan_iter())


def test_clients_that_were_passed_in_follow_as_well(pair: Group) -> None:
    with redis.sentinel.Sentinel([("127.0.0.1", pair.sentinels[0].port)]) as sentinels:
        cache = EmbeddingsCache("c", redis_client=sentinels.master_for(SERVICE), stats=False)
        assert asyncio.run(awaits(cache))
        cache.set("old", MODEL, VECTOR)
        demote(pair)
        with pytest.raises(CacheUnavailableError, match="is now a slave"):  # redis-py asks the sentinels next time
            cache.set("new", MODEL, VECTOR)
        assert works(cache)
        assert asyncio.run(awaits(cache))
        cache.connection.client().close()
        cache.close()


def test_connections_to_a_former_primary_end_once_another_is_named(
    pair: Group, caller: Callable[[EmbeddingsCache], Caller]
) -> None:
    """One that was cut off from the sentinels still takes writes, which would be lost."""
    cache = caller(EmbeddingsCache("c", redis_url=f"redis+sentinel://{pair.hosts}/{SERVICE}", stats=False))
    cache.set("old", MODEL, VECTOR)
    pair.sentinels[0].watch(pair.servers[1])
    cache.cache.connection._settings["sentinels"].find()  # as any new connection does
    cache.get("old", MODEL)  # the last that goes to the former one
    cache.set("new", MODEL, VECTOR)
    assert cache.get("new", MODEL) is not None
    assert (len(pair.servers[0].plain_keys()), len(pair.servers[1].plain_keys())) == (1, 1)
