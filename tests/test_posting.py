"""Batches that are sent before their replies are asked for: whose reply is whose, and what is left where one fails."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from servers import Server

from embedcache.connection import RedisConnection
from embedcache.errors import CacheUnavailableError, ReadOnlyError, ServerReplyError
from embedcache.operations import REPLIES, Command, Operation, Posted

NAME = "posting"


class StrayError(Exception):
    """What an operation stumbles over between a batch and its replies."""


def posting(*commands: Command, between: Callable[[], object] = lambda: None) -> Operation[list[Any]]:
    assert (yield Posted(commands)) == []
    between()
    return (yield REPLIES)


def posting_each(*texts: str, between: Callable[[], object] = lambda: None) -> Operation[list[Any]]:
    """Posts an ECHO of each text before the first reply is asked for; what is `between` happens after that one."""
    replies: list[Any] = []
    for text in texts:
        assert (yield Posted([("ECHO", text)])) == []
    replies += yield REPLIES
    between()
    for _ in texts[1:]:
        replies += yield REPLIES
    return replies


def asking(*commands: Command) -> Operation[list[Any]]:
    return (yield list(commands))


@pytest.fixture(params=["sync", "async"])
def drive(request: pytest.FixtureRequest, server: Server) -> Iterator[Callable[[Operation[Any]], Any]]:
    """Drives operations on one connection to the server."""
    connection = RedisConnection(server.url, settings={"client_name": NAME})
    with asyncio.Runner() as runner:
        asynchronous = request.param == "async"
        yield (
            lambda operation: runner.run(connection.adrive(operation)) if asynchronous else connection.drive(operation)
        )
        runner.run(connection.aclose())


def clients(server: Server) -> list[dict[str, Any]]:
    return [client for client in server.raw.client_list() if client["name"] == NAME]


def test_replies_are_those_of_the_batch_that_was_posted(drive: Callable[[Operation[Any]], Any]) -> None:
    drive(asking(("SET", "a", b"1")))
    for text in ("one", "two"):
        right, wrong, value = drive(posting(("ECHO", text), ("HGET", "a"), ("MGET", "a", "b")))
        assert right == text.encode()
        assert isinstance(wrong, ServerReplyError)
        assert value == [b"1", None]
        assert drive(asking(("ECHO", "other"))) == [b"other"]


def test_the_server_works_before_it_is_asked_for_replies(
    drive: Callable[[Operation[Any]], Any], server: Server
) -> None:
    drive(asking(("PING",)))  # connected

    def wait_for_it() -> None:
        deadline = time.monotonic() + 10
        while not server.raw.exists("posted"):
            assert time.monotonic() < deadline, "the batch was not sent"
            time.sleep(0.01)

    drive(posting(("SET", "posted", b"1"), between=wait_for_it))


def test_several_batches_are_answered_in_order(drive: Callable[[Operation[Any]], Any], server: Server) -> None:
    drive(asking(("PING",)))  # connected
    for _ in range(3):
        assert drive(posting_each("a", "b", "c")) == [b"a", b"b", b"c"]
        assert drive(asking(("ECHO", "other"))) == [b"other"]
    assert len(clients(server)) == 1


def test_of_several_batches_those_that_are_lost_are_asked_for_again(
    drive: Callable[[Operation[Any]], Any], server: Server
) -> None:
    def cut() -> None:
        for client in clients(server):
            server.raw.client_kill_filter(_id=client["id"])

    drive(asking(("PING",)))
    for _ in range(3):
        assert drive(posting_each(*(f"{number}" * 9 for number in range(5)), between=cut)) == [
            f"{number}".encode() * 9 for number in range(5)
        ]
        assert drive(asking(("ECHO", "other"))) == [b"other"]
    assert len(clients(server)) == 1


def test_an_error_between_leaves_no_reply_to_the_next(drive: Callable[[Operation[Any]], Any], server: Server) -> None:
    def stumble() -> None:
        raise StrayError

    with pytest.raises(StrayError):
        drive(posting(("ECHO", "nobody's"), between=stumble))
    assert drive(asking(("ECHO", "mine"))) == [b"mine"]
    assert len(clients(server)) == 1


def test_replies_that_are_lost_are_asked_for_again(drive: Callable[[Operation[Any]], Any], server: Server) -> None:
    def cut() -> None:
        for client in clients(server):
            server.raw.client_kill_filter(_id=client["id"])
        server.raw.rpush("list", "a")

    for _ in range(3):
        assert drive(posting(("BLPOP", "list", 0), ("ECHO", "b"), between=cut)) == [(b"list", b"a"), b"b"]
    assert len(clients(server)) == 1


@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_server_that_is_not_there_is_told_of_when_replies_are_asked_for(asynchronous: bool) -> None:
    connection = RedisConnection("redis://127.0.0.1:1")
    reached: list[bool] = []
    operation = posting(("GET", "a"), between=lambda: reached.append(True))
    with pytest.raises(CacheUnavailableError, match=r"127\.0\.0\.1:1"):
        asyncio.run(connection.adrive(operation)) if asynchronous else connection.drive(operation)
    assert reached == [True]


def test_a_read_only_connection_posts_no_write(server: Server) -> None:
    connection = RedisConnection(server.url, read_only=True)
    with pytest.raises(ReadOnlyError, match="SET"):
        connection.drive(posting(("SET", "a", b"1")))
    with pytest.raises(ReadOnlyError, match="SET"):
        asyncio.run(connection.adrive(posting(("SET", "a", b"1"))))
    assert not server.raw.exists("a")
    connection.close()


def test_a_client_that_was_passed_in_gets_its_replies_too(server: Server) -> None:
    connection = RedisConnection(client=server.raw)
    assert connection.drive(posting(("ECHO", "a"), ("ECHO", "b"))) == [b"a", b"b"]
    assert connection.drive(posting_each("a", "b", "c")) == [b"a", b"b", b"c"]
    connection.close()


async def test_a_cancelled_task_leaves_its_replies_to_nobody(server: Server) -> None:
    connection = RedisConnection(server.url, settings={"client_name": NAME})
    for _ in range(5):
        waiting = asyncio.create_task(connection.adrive(posting(("BLPOP", "nothing", 0))))
        await asyncio.sleep(0.1)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        server.raw.lpush("nothing", "late")
        assert await connection.adrive(posting(("ECHO", "mine"))) == [b"mine"]
        server.raw.delete("nothing")
    assert len(clients(server)) == 1
    await connection.aclose()
