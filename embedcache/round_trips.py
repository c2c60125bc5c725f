"""Batches of commands to their replies, one round trip each.

`KeptConnections` serves the clients that we make. redis-py's own way to a reply (a connection out of the pool, asked
whether it is still sound, observed, put back) takes longer than the server's answer to a GET; here a connection in
steady use stays out of the pool. Clients that were passed in are used by `send`, as redis-py would.
"""

from __future__ import annotations

import threading
import weakref
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from time import monotonic
from typing import Any, Final

import redis
import redis.asyncio
from redis.asyncio.connection import AbstractConnection as AsyncConnection
from redis.asyncio.connection import ConnectionPool
from redis.client import NEVER_DECODE
from redis.connection import Connection
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import InvalidResponse, RedisError, ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from embedcache.errors import ServerReplyError
from embedcache.operations import Command

IDLE_SECONDS: Final = 1.0
"""A connection unused for longer goes through the pool, which looks whether the server has closed it."""

NO_ANSWER: Final = (RedisConnectionError, RedisTimeoutError, InvalidResponse, OSError)
"""Raised where there is no answer, or none that is Redis's."""

# As redis-py wants it: replies stay bytes on a client with ``decode_responses=True`` as well.
_UNDECODED: Final = {NEVER_DECODE: True}


class KeptConnections:
    """Connections of a client's pool, kept between round trips by whoever uses them most.

    Threads may share it. A connection on which anything went wrong, a round trip broken off by an exception of the
    program's own among that, is closed before anybody else gets it: no reply ever reaches another caller.

    Args:
        client: A client of our own making, with a pool of its own; or somebody else's, with `keep` False.
        keep: Whether connections stay out of the pool between round trips.
    """

    def __init__(self, client: redis.Redis, *, keep: bool = True) -> None:
        self._client = client  # which closes its pool when it ends
        self._pool = client.connection_pool
        self._callbacks: Mapping[str, Callable[[Any], Any]] = dict(client.response_callbacks)
        self._idle: list[tuple[Connection, float]] = []
        self._keep = keep
        if keep:
            # At exit, too, while sockets can still be closed in order: some cache may live as long as its module.
            weakref.finalize(self, self._pool.disconnect)

    def send(self, commands: Sequence[Command]) -> list[Any]:
        """One reply per command, in order; the server's errors as values."""
        connection = self.take()
        try:
            replies = connection.retry.call_with_retry(
                lambda: self._exchange(connection, commands), lambda _: connection.disconnect()
            )
        except BaseException:
            self.discard(connection)
            raise
        self.give_back(connection)
        return replies

    def discard(self, connection: Connection) -> None:
        """Closes a connection whose replies nobody will read."""
        connection.disconnect()
        self._pool.release(connection)

    def forget(self) -> None:
        """Lets go of the idle connections without a word to the server: in a forked child, they are the parent's."""
        self._idle = []
        # redis-py's pool starts over in a child, and takes for that the lock that it had in the parent.
        if hasattr(self._pool, "_lock"):
            self._pool._lock = threading.RLock()

    def distrust(self) -> None:
        """Has the idle connections looked at before they are used: their server may have gone."""
        idle, self._idle = self._idle, []
        for connection, _ in idle:
            self._pool.release(connection)

    def close(self) -> None:
        """Closes all connections."""
        self._idle = []
        self._pool.disconnect()

    def take(self) -> Connection:
        """A connection that nobody else uses, connected."""
        try:
            connection, since = self._idle.pop()
        except IndexError:  # asking first would let another thread in between
            return self._pool.get_connection()
        if monotonic() - since < IDLE_SECONDS:
            return connection
        self._pool.release(connection)
        return self._pool.get_connection()

    def give_back(self, connection: Connection) -> None:
        """Keeps a connection, all of whose replies were read, for the next."""
        if not self._keep or connection.should_reconnect():
            self._pool.release(connection)
        else:
            self._idle.append((connection, monotonic()))

    def _exchange(self, connection: Connection, commands: Sequence[Command]) -> list[Any]:
        self.write(connection, commands)
        return [self.read(connection, command[0]) for command in commands]

    def write(self, connection: Connection, commands: Sequence[Command]) -> None:
        """Sends commands and reads nothing."""
        if len(commands) == 1:
            connection.send_command(*commands[0])
        else:
            connection.send_packed_command(connection.pack_commands(commands))

    def read(self, connection: Connection, name: object) -> Any:
        """The next reply, to a command of this name."""
        try:
            reply = connection.read_response(disable_decoding=True)
        except ResponseError as error:
            return reply_error(error)
        callback = self._callbacks.get(name)  # type: ignore[call-overload]  # a name that is no str has none
        return reply if callback is None else callback(reply)


class Posts:
    """Batches sent on one connection, whose replies are to be read, or nobody will.

    Where a connection is lost, no error is kept: the replies are None, and whoever wanted them has the batch sent anew.

    Args:
        kept: Whose connection they go by; None for a client that sends nothing before its replies are asked for.

    Attributes:
        batches: Those whose replies were not asked for, in order.
    """

    __slots__ = ("_connection", "_kept", "batches")

    def __init__(self, kept: KeptConnections | None) -> None:
        self.batches: deque[Sequence[Command]] = deque()
        self._kept = kept
        self._connection: Connection | None = None

    def send(self, commands: Sequence[Command]) -> None:
        """Sends a batch and waits for nothing; not where one before it was lost, for they are answered in order."""
        self.batches.append(commands)
        if self._kept is None or (self._connection is None and len(self.batches) > 1):
            return
        try:
            if self._connection is None:
                self._connection = self._kept.take()
            self._connection.send_packed_command(self._connection.pack_commands(commands))
        except BaseException:
            self.discard()
            raise

    def replies(self) -> list[Any] | None:
        """One reply per command of the first batch, as `KeptConnections.send` returns them; None where it got lost."""
        commands = self.batches.popleft()
        if self._kept is None or self._connection is None:
            return None
        try:
            replies = [self._kept.read(self._connection, command[0]) for command in commands]
        except BaseException:
            self.discard()
            raise
        if not self.batches:
            connection, self._connection = self._connection, None
            self._kept.give_back(connection)
        return replies

    def discard(self) -> None:
        """Closes the connection, if there are replies that were not read."""
        connection, self._connection = self._connection, None
        if self._kept is not None and connection is not None:
            self._kept.discard(connection)


def send(client: redis.Redis, commands: Sequence[Command]) -> list[Any]:
    """As `KeptConnections.send`, by a client's own means."""
    if len(commands) == 1:
        try:
            return [client.execute_command(*commands[0], **_UNDECODED)]
        except ResponseError as error:
            return [reply_error(error)]
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
            return [reply_error(error)]
    async with client.pipeline(transaction=False) as pipe:
        for command in commands:
            pipe.execute_command(*command, **_UNDECODED)
        return _reply_errors(await pipe.execute(raise_on_error=False))


class AsyncPosts:
    """Async twin of `Posts`, for any client."""

    __slots__ = ("_connection", "_pool", "batches")

    def __init__(self) -> None:
        self.batches: deque[Sequence[Command]] = deque()
        self._pool: ConnectionPool | None = None
        self._connection: AsyncConnection | None = None

    async def send(self, client: Callable[[], Awaitable[redis.asyncio.Redis]], commands: Sequence[Command]) -> None:
        """Async twin of `Posts.send`. The client is asked for where no connection is held."""
        self.batches.append(commands)
        if self._connection is None and len(self.batches) > 1:
            return
        try:
            if self._connection is None:
                self._pool = (await client()).connection_pool
                self._connection = await self._pool.get_connection()
            await self._connection.send_packed_command(self._connection.pack_commands(commands))
        except BaseException:
            await self.discard()
            raise

    async def replies(self) -> list[Any] | None:
        """Async twin of `Posts.replies`."""
        commands = self.batches.popleft()
        if self._pool is None or self._connection is None:
            return None
        try:
            replies = [await self._read(self._connection) for _ in commands]
        except BaseException:
            await self.discard()
            raise
        if not self.batches:
            connection, self._connection = self._connection, None
            await self._pool.release(connection)
        return replies

    async def discard(self) -> None:
        """Async twin of `Posts.discard`."""
        connection, self._connection = self._connection, None
        if self._pool is not None and connection is not None:
            await connection.disconnect(nowait=True)
            await self._pool.release(connection)

    @staticmethod
    async def _read(connection: AsyncConnection) -> Any:
        # Without redis-py's callbacks: no command that is posted has one.
        try:
            return await connection.read_response(disable_decoding=True)
        except ResponseError as error:
            return reply_error(error)


def _reply_errors(replies: list[Any]) -> list[Any]:
    return [reply_error(reply) if isinstance(reply, RedisError) else reply for reply in replies]


def reply_error(error: RedisError) -> ServerReplyError:
    """The server's error under its own code, which redis-py cuts off the messages that it knows."""
    code, message = getattr(error, "status_code", None), str(error)
    translated = ServerReplyError(f"{code} {message}" if code and not message.startswith(code) else message)
    translated.__cause__ = error
    return translated
