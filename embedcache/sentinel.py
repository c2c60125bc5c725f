"""The primary that sentinels name: who it is now, and connections that ask for it whenever they connect.

A group of sentinels watches one primary and its replicas, and makes a replica the primary when that is gone
(https://valkey.io/topics/sentinel-clients). A connection of ours asks them anew each time it connects, on a connection
that lasts for that one question: after a failover there is nothing of theirs to forget, to close, or to take into
another event loop. That redis-py's own pools for this are not used lets the pools be as everywhere else, the async
one's waiting for a free connection among that.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from typing import Any, Final, TypeAlias, cast

import redis
import redis.asyncio
import redis.asyncio.sentinel
import redis.sentinel
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ReadOnlyError, RedisError, ResponseError
from redis.retry import Retry

from embedcache.errors import InvalidURLError

SENTINEL_PORT: Final = 26379
SENTINEL_SECONDS: Final = 1.0
"""How long one sentinel is waited for before the next one is asked."""

Address: TypeAlias = tuple[str, int]
_Answer: TypeAlias = Address | RedisError | OSError | None

_READONLY: Final = "-READONLY"  # within the error of a script, where an older server puts it


class Sentinels:
    """A group of sentinels, and which service of theirs is meant.

    Args:
        service: The name under which they watch the primary.
        each: How to reach each of them, as settings of redis-py's connections.

    Attributes:
        service: As given.
        address: The primary that they named last; None before they were asked.
    """

    def __init__(self, service: str, each: Sequence[Mapping[str, Any]]) -> None:
        self.service = service
        self.address: Address | None = None
        self._each = [dict(settings) for settings in each]

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.hosts}/{self.service})"

    @property
    def hosts(self) -> str:
        """Where they are, as ``host:port,host:port``."""
        return ",".join(map(_place, self._each))

    def find(self) -> Address:
        """Host and port of the primary.

        Raises:
            redis.exceptions.ConnectionError: No sentinel names one. The message says what each answered.
        """
        asking = self._asking()
        try:
            settings = next(asking)
            while True:
                settings = asking.send(_ask(settings, self.service))
        except StopIteration as end:
            return cast("Address", end.value)

    async def afind(self) -> Address:
        """Async twin of `find`."""
        asking = self._asking()
        try:
            settings = next(asking)
            while True:
                settings = asking.send(await _aask(settings, self.service))
        except StopIteration as end:
            return cast("Address", end.value)

    def _asking(self) -> Generator[dict[str, Any], _Answer, Address]:
        """Yields the sentinels to ask, one after the other, and is sent what each says."""
        said: list[str] = []
        for settings in list(self._each):
            answer = yield settings
            if isinstance(answer, tuple):
                self.address = answer
                # Whoever answers is asked first from now on: one that is away costs its timeout only once.
                self._each.sort(key=lambda each: each is not settings)
                return answer
            said.append(f"{_place(settings)} " + ("does not know it" if answer is None else f"said: {answer}"))
        raise RedisConnectionError(f"no sentinel names the primary of {self.service!r}: {'; '.join(said)}")


def _place(settings: Mapping[str, Any]) -> str:
    host = settings.get("host", "localhost")
    return f"{f'[{host}]' if ':' in host else host}:{settings.get('port', SENTINEL_PORT)}"


def _own_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    alone = {"max_connections": 1, "decode_responses": True, "client_name": None}
    patience = {"socket_connect_timeout": SENTINEL_SECONDS, "socket_timeout": SENTINEL_SECONDS}
    return patience | dict(settings) | alone


def _ask(settings: Mapping[str, Any], service: str) -> _Answer:
    pool = redis.ConnectionPool(**_own_settings(settings), retry=Retry(redis.backoff.NoBackoff(), 0))
    try:
        with redis.Redis.from_pool(pool) as client:
            return cast("Address | None", client.sentinel_get_master_addr_by_name(service))
    except (RedisError, OSError) as error:
        return error


async def _aask(settings: Mapping[str, Any], service: str) -> _Answer:
    own = _own_settings(settings)
    own["connection_class"] = ASYNC_CLASSES.get(sync := own.pop("connection_class", redis.Connection), sync)
    pool = redis.asyncio.ConnectionPool(**own, retry=redis.asyncio.retry.Retry(redis.backoff.NoBackoff(), 0))
    try:
        async with redis.asyncio.Redis.from_pool(pool) as client:
            return cast("Address | None", await client.sentinel_get_master_addr_by_name(service))
    except (RedisError, OSError) as error:
        return error


# ------------------------------------------------------------------------------------------------ connections


class PrimaryConnection(redis.Connection):
    """A connection to the primary that sentinels name at the time.

    Where the server turns out to be a replica by now, it is closed and raises a `ConnectionError`, whereupon the retry
    asks the sentinels again. Where they have named another to another connection, it is closed after its next use.

    redis-py's `SentinelManagedConnection` asks only in `connect`, not where a connection that was lost comes back by
    itself to send a command.
    """

    def __init__(self, *, sentinels: Sentinels, **settings: Any) -> None:
        super().__init__(**settings)  # type: ignore[no-untyped-call]
        self.sentinels = sentinels

    def _connect(self) -> Any:
        self.host, self.port = self.sentinels.find()
        return super()._connect()  # type: ignore[no-untyped-call]

    def should_reconnect(self) -> bool:
        """Whether it is to be closed rather than used again."""
        closing = bool(super().should_reconnect())  # type: ignore[no-untyped-call]
        return closing or _is_outdated(self)

    def read_response(self, *args: Any, **options: Any) -> Any:
        """One reply."""
        try:
            return super().read_response(*args, **options)
        except ResponseError as error:
            if not _tells_replica(error):
                raise
            self.disconnect()  # type: ignore[no-untyped-call]
            raise _demoted() from error


class PrimarySSLConnection(PrimaryConnection, redis.SSLConnection):
    """As `PrimaryConnection`, by TLS."""


class AsyncPrimaryConnection(redis.asyncio.Connection):
    """Async twin of `PrimaryConnection`."""

    def __init__(self, *, sentinels: Sentinels, **settings: Any) -> None:
        super().__init__(**settings)
        self.sentinels = sentinels

    async def _connect(self) -> None:
        self.host, self.port = await self.sentinels.afind()
        await super()._connect()  # type: ignore[no-untyped-call]

    def should_reconnect(self) -> bool:
        """Whether it is to be closed rather than used again."""
        closing = bool(super().should_reconnect())  # type: ignore[no-untyped-call]
        return closing or _is_outdated(self)

    async def read_response(self, *args: Any, **options: Any) -> Any:
        """Async twin of `PrimaryConnection.read_response`."""
        try:
            return await super().read_response(*args, **options)
        except ResponseError as error:
            if not _tells_replica(error):
                raise
            await self.disconnect()
            raise _demoted() from error


class AsyncPrimarySSLConnection(AsyncPrimaryConnection, redis.asyncio.SSLConnection):
    """As `AsyncPrimaryConnection`, by TLS."""


def _is_outdated(connection: PrimaryConnection | AsyncPrimaryConnection) -> bool:
    named = connection.sentinels.address
    return named is not None and named != (connection.host, connection.port)


def _tells_replica(error: ResponseError) -> bool:
    return isinstance(error, ReadOnlyError) or _READONLY in str(error)


def _demoted() -> RedisConnectionError:
    return RedisConnectionError("the primary has become a replica")


ASYNC_CLASSES: Final[dict[type, type]] = {
    redis.Connection: redis.asyncio.Connection,
    redis.SSLConnection: redis.asyncio.SSLConnection,
    redis.UnixDomainSocketConnection: redis.asyncio.UnixDomainSocketConnection,
    PrimaryConnection: AsyncPrimaryConnection,
    PrimarySSLConnection: AsyncPrimarySSLConnection,
}
"""Connections that we make, sync to async."""
SYNC_CLASSES: Final[dict[type, type]] = {asynchronous: sync for sync, asynchronous in ASYNC_CLASSES.items()} | {
    redis.sentinel.SentinelManagedConnection: PrimaryConnection,
    redis.sentinel.SentinelManagedSSLConnection: PrimarySSLConnection,
    redis.asyncio.sentinel.SentinelManagedConnection: PrimaryConnection,
    redis.asyncio.sentinel.SentinelManagedSSLConnection: PrimarySSLConnection,
}
"""Connections of clients that were passed in, to those that we make."""


# ------------------------------------------------------------------------------------------------ settings


def by_sentinels(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings that name sentinels and a service, as those of a connection to the primary; others as they are.

    Args:
        settings: From `embedcache.urls.parse`, with the caller's own. ``sentinel_username`` and ``sentinel_password``
            are the sentinels', the other names are the servers'. TLS and timeouts are for both.

    Raises:
        InvalidURLError: There are such names, but no sentinels.
    """
    rest = dict(settings)
    hosts, service = rest.pop("sentinel_hosts", None), rest.pop("service", None)
    login = {name: rest.pop(f"sentinel_{name}", None) for name in ("username", "password")}
    if hosts is None:
        if any(value is not None for value in (service, *login.values())):
            raise InvalidURLError("service, sentinel_username and sentinel_password go with redis+sentinel:// alone")
        return rest
    of_both = {name: value for name, value in rest.items() if name.startswith(("ssl_", "socket_"))}
    by_tls = rest.pop("connection_class", redis.Connection) is redis.SSLConnection
    of_both["connection_class"] = redis.SSLConnection if by_tls else redis.Connection
    each = [of_both | login | {"host": host, "port": port} for host, port in hosts]
    rest["connection_class"] = PrimarySSLConnection if by_tls else PrimaryConnection
    rest["sentinels"] = Sentinels(service, each)
    return rest
