"""Connections kept between round trips: whose reply is whose, and what happens to a connection that failed."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest
from redis.backoff import NoBackoff
from redis.retry import Retry
from servers import Server
from working import MODEL, items

from embedcache import EmbeddingsCache
from embedcache.connection import RedisConnection
from embedcache.errors import CacheUnavailableError, ServerReplyError
from embedcache.operations import Command, Operation
from embedcache.round_trips import IDLE_SECONDS

NAME = "mine"


@pytest.fixture
def open_connection(server: Server) -> Iterator[Callable[..., RedisConnection]]:
    opened: list[RedisConnection] = []

    def connect(**settings: Any) -> RedisConnection:
        opened.append(RedisConnection(server.url, settings={"client_name": NAME, **settings}))
        return opened[-1]

    yield connect
    for connection in opened:
        connection.close()


def asking(*commands: Command) -> Operation[list[Any]]:
    return (yield list(commands))


def ids(server: Server) -> list[str]:
    """The server's numbers of the connections under test."""
    return [client["id"] for client in server.raw.client_list() if client["name"] == NAME]


class OutOfTimeError(BaseException):
    """What breaks a round trip off, as Ctrl+C does."""


@contextmanager
def interrupted(seconds: float) -> Iterator[None]:
    def interrupt(*_: object) -> None:
        raise OutOfTimeError

    before = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def test_one_connection_serves_call_after_call(server: Server, open_connection: Callable[..., RedisConnection]) -> None:
    connection = open_connection()
    before = connection.drive(asking(("PING",))), ids(server)
    replies = connection.drive(asking(("SET", "a", b"1"), ("GET", "a"), ("MGET", "a", "b")))
    assert replies == [True, b"1", [b"1", None]]
    assert ids(server) == before[1]
    assert len(before[1]) == 1


def test_an_error_reply_stands_in_its_place(open_connection: Callable[..., RedisConnection]) -> None:
    connection = open_connection()
    wrong, right = connection.drive(asking(("HGET", "a"), ("ECHO", "b")))
    assert isinstance(wrong, ServerReplyError)
    assert right == b"b"
    (alone,) = connection.drive(asking(("EVALSHA", "0" * 40, 0)))
    assert isinstance(alone, ServerReplyError)
    assert alone.code == "NOSCRIPT"
    assert connection.drive(asking(("ECHO", "c"))) == [b"c"]


def test_a_broken_off_call_leaves_its_reply_to_nobody(
    server: Server, open_connection: Callable[..., RedisConnection]
) -> None:
    connection = open_connection()
    connection.drive(asking(("PING",)))
    first = ids(server)
    with pytest.raises(OutOfTimeError), interrupted(0.2):
        connection.drive(asking(("BLPOP", "nothing", 0)))
    server.raw.lpush("nothing", "a late reply")
    assert connection.drive(asking(("ECHO", "mine"))) == [b"mine"]
    assert ids(server) != first


def test_a_connection_that_the_server_closed_is_replaced(
    server: Server, open_connection: Callable[..., RedisConnection]
) -> None:
    connection = open_connection()
    for _ in range(3):
        assert connection.drive(asking(("ECHO", "a"), ("ECHO", "b"))) == [b"a", b"b"]
        for number in ids(server):
            server.raw.client_kill_filter(_id=number)
    assert connection.drive(asking(("ECHO", "c"))) == [b"c"]


def test_without_retries_an_idle_connection_is_looked_at_first(
    server: Server, open_connection: Callable[..., RedisConnection]
) -> None:
    connection = open_connection(retry=Retry(NoBackoff(), 0))
    connection.drive(asking(("PING",)))
    for number in ids(server):
        server.raw.client_kill_filter(_id=number)
    time.sleep(IDLE_SECONDS + 0.1)
    assert connection.drive(asking(("ECHO", "a"))) == [b"a"]


def test_a_server_that_is_gone_is_an_error_and_its_return_is_found(
    server: Server, open_connection: Callable[..., RedisConnection]
) -> None:
    connection = open_connection()
    connection.drive(asking(("PING",)))
    server.stop()
    try:
        for _ in range(2):
            with pytest.raises(CacheUnavailableError):
                connection.drive(asking(("PING",)))
    finally:
        server.start()
    assert connection.drive(asking(("ECHO", "a"))) == [b"a"]
    assert len(ids(server)) == 1


def test_threads_get_their_own_replies(server: Server, open_connection: Callable[..., RedisConnection]) -> None:
    connection = open_connection()
    together = threading.Barrier(8)

    def ask(thread: int) -> list[bytes]:
        together.wait()
        return [connection.drive(asking(("ECHO", f"{thread} {n}")))[0] for n in range(300)]

    with ThreadPoolExecutor(8) as threads:
        told = list(threads.map(ask, range(8)))
    assert told == [[f"{thread} {n}".encode() for n in range(300)] for thread in range(8)]
    assert 1 <= len(ids(server)) <= 8


def test_closing_leaves_no_connection(server: Server) -> None:
    settings = {"client_name": NAME}
    with EmbeddingsCache(redis_url=server.url, connection_kwargs=settings, stats=False) as cache:
        cache.mset(items(3))
        assert cache.get("text 1", MODEL) is not None
        assert len(ids(server)) == 1
    assert all_gone(server)
    assert cache.get("text 1", MODEL) is not None  # opens it again
    cache.close()
    assert all_gone(server)


def all_gone(server: Server) -> bool:
    """Whether the server has noticed, within its time, that the connections under test are closed."""
    deadline = time.monotonic() + 10
    while ids(server) and time.monotonic() < deadline:
        time.sleep(0.01)
    return not ids(server)
