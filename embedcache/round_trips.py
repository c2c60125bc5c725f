"""Batches of commands to their replies, one round trip each.

`KeptConnections` serves the clients that we make. redis-py's own way to a reply (a connection out of the pool, asked
whether it is still sound, observed, put back) takes longer than the server's answer to a GET; here a connection in
steady use stays out of the pool. Clients that were passed in are used by `send`, as redis-py would.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping, Sequence
from time import monotonic
from typing import Any, Final

import redis
import redis.asyncio
from redis.asyncio.connection import AbstractConnection as AsyncConnection
from redis.client import NEVER_DECODE
from redis.connection import Connection
from redis.exceptions import RedisError, ResponseError

from embedcache.errors import ServerReplyError
from embedcache.operations import Command

IDLE_SECONDS: Final = 1.0
"""A connection unused for longer goes through the pool, which looks whether the server has closed it."""

# As redis-py wants it: replies stay bytes on a client with ``decode_responses=True`` as well.
_UNDECODED: Final = {NEVER_DECODE: True}


class KeptConnections:
    """Connections of a client's pool, kept between round trips by whoever uses them most.

    Threads may share it. A connection on which anything went wrong, a round trip broken off by an exception of the
    program's own among that, is closed before anybody else gets it: no reply ever reaches another caller.

    Args:
        client: A client of our own making, with a pool of its own.
    """

    def __init__(self, client: redis.Redis) -> None:
        self._pool = client.connection_pool
        self._callbacks: Mapping[str, Callable[[Any], Any]] = dict(client.response_callbacks)
        self._idle: list[tuple[Connection, float]] = []
        # At exit, too, while sockets can still be closed in order: some cache may live as long as its module.
        weakref.finalize(self, self._pool.disconnect)

    def send(self, commands: Sequence[Command]) -> list[Any]:
        """One reply per command, in order; the server's errors as values."""
        connection = self._take()
        try:
            replies = connection.retry.call_with_retry(
                lambda: self._exchange(connection, commands), lambda _: connection.disconnect()
            )
        except BaseException:
            self.discard(connection)
            raise
        self._give_back(connection)
        return replies

    def post(self, commands: Sequence[Command]) -> Post:
        """Sends commands and waits for nothing."""
        connection = self._take()
        try:
            connection.send_packed_command(connection.pack_commands(commands))
        except BaseException:
            self.discard(connection)
            raise
        return Post(commands, self, connection)

    def collect(self, connection: Connection, commands: Sequence[Command]) -> list[Any]:
        """The replies to what was posted on a connection, as `send` returns them."""
        try:
            replies = [self._read(connection, command[0]) for command in commands]
        except BaseException:
            self.discard(connection)
            raise
        self._give_back(connection)
        return replies

    def discard(self, connection: Connection) -> None:
        """Closes a connection whose replies nobody will read."""
        connection.disconnect()
        self._pool.release(connection)

    def forget(self) -> None:
        """Lets go of the idle connections without a word to the server: in a forked child, they are the parent's."""
        self._idle = []

    def _take(self) -> Connection:
        try:
            connection, since = self._idle.pop()
        except IndexError:  # asking first would let another thread in between
            return self._pool.get_connection()
        if monotonic() - since < IDLE_SECONDS:
            return connection
        self._pool.release(connection)
        return self._pool.get_connection()

    def _give_back(self, connection: Connection) -> None:
        if connection.should_reconnect():
            self._pool.release(connection)
        else:
            self._idle.append((connection, monotonic()))

    def _exchange(self, connection: Connection, commands: Sequence[Command]) -> list[Any]:
        if len(commands) == 1:
            connection.send_command(*commands[0])
        else:
            connection.send_packed_command(connection.pack_commands(commands))
        return [self._read(connection, command[0]) for command in commands]

    def _read(self, connection: Connection, name: object) -> Any:
        try:
            reply = connection.read_response(disable_decoding=True)
        except ResponseError as error:
            return _reply_error(error)
        callback = self._callbacks.get(name)  # type: ignore[call-overload]  # a name that is no str has none
        return reply if callback is None else callback(reply)


class Post:
    """A batch that was posted: its replies are to be read, or nobody will.

    Args:
        commands: The batch.
        kept: Whose connection it went by; None where it was not sent yet.
        connection: That connection.
    """

    __slots__ = ("_connection", "_kept", "commands")

    def __init__(
        self, commands: Sequence[Command], kept: KeptConnections | None = None, connection: Connection | None = None
    ) -> None:
        self.commands = commands
        self._kept = kept
        self._connection = connection

    def replies(self) -> list[Any] | None:
        """One reply per command, as `KeptConnections.send` returns them; None where the batch was not sent yet."""
        connection, self._connection = self._connection, None
        if self._kept is None or connection is None:
            return None
        return self._kept.collect(connection, self.commands)

    def discard(self) -> None:
        """Closes its connection, if its replies were not read."""
        connection, self._connection = self._connection, None
        if self._kept is not None and connection is not None:
            self._kept.discard(connection)


def send(client: redis.Redis, commands: Sequence[Command]) -> list[Any]:
    """As `KeptConnections.send`, by a client's own means."""
    if len(commands) == 1:
        try:
            return [client.execute_command(*commands[0], **_UNDECODED)]
        except ResponseError as error:
            return [_reply_error(error)]
    with client.pipeline(transaction=False) as pipe:
        for command in commands:
            pipe.execute_command(*command, **_UNDECODED)
        return _reply_errors(pipe.execute(raise_on_error=False))


async def asend(client: redis.asyncio.Redis, commands: Sequence[Command]) -> list[Any]:
    """Async twin of `send`."""
    if len(commands) == 1:
        try:
            return [await client.execute_command(*commands[0], **_UNDECODED)]
        except ResponseError as error:
            return [_reply_error(error)]
    async with client.pipeline(transaction=False) as pipe:
        for command in commands:
            pipe.execute_command(*command, **_UNDECODED)
        return _reply_errors(await pipe.execute(raise_on_error=False))


async def apost(client: redis.asyncio.Redis, commands: Sequence[Command]) -> AsyncPost:
    """Async twin of `KeptConnections.post`, for any client."""
    connection = await client.connection_pool.get_connection()
    post = AsyncPost(commands, client, connection)
    try:
        await connection.send_packed_command(connection.pack_commands(commands))
    except BaseException:
        await post.discard()
        raise
    return post


class AsyncPost:
    """Async twin of `Post`."""

    __slots__ = ("_client", "_connection", "commands")

    def __init__(
        self,
        commands: Sequence[Command],
        client: redis.asyncio.Redis | None = None,
        connection: AsyncConnection | None = None,
    ) -> None:
        self.commands = commands
        self._client = client
        self._connection = connection

    async def replies(self) -> list[Any] | None:
        """Async twin of `Post.replies`."""
        if self._client is None or self._connection is None:
            return None
        replies = [await self._read(self._connection) for _ in self.commands]
        connection, self._connection = self._connection, None
        await self._client.connection_pool.release(connection)
        return replies

    async def discard(self) -> None:
        """Async twin of `Post.discard`."""
        connection, self._connection = self._connection, None
        if self._client is not None and connection is not None:
            await connection.disconnect(nowait=True)
            await self._client.connection_pool.release(connection)

    @staticmethod
    async def _read(connection: AsyncConnection) -> Any:
        # Without redis-py's callbacks: no command that is posted has one.
        try:
            return await connection.read_response(disable_decoding=True)
        except ResponseError as error:
            return _reply_error(error)


def _reply_errors(replies: list[Any]) -> list[Any]:
    return [_reply_error(reply) if isinstance(reply, RedisError) else reply for reply in replies]


def _reply_error(error: RedisError) -> ServerReplyError:
    """The server's error under its own code, which redis-py cuts off the messages that it knows."""
    code, message = getattr(error, "status_code", None), str(error)
    translated = ServerReplyError(f"{code} {message}" if code and not message.startswith(code) else message)
    translated.__cause__ = error
    return translated
