"""URLs and clients to round trips: the one place that touches redis-py.

`RedisConnection.drive` and `.adrive` are the only two loops that move an operation along. Everything redis-py raises
is translated here, once: a server that is not there becomes `CacheUnavailableError`, an error reply becomes a
`ServerReplyError` in the list of replies, where the operation decides what it means.

Clients that we make connect within 1 s, read within 5 s and retry once where a connection was lost, not where time ran
out (redis-py's defaults would spend 4 s per call on a dead server). Clients passed in are used as they are and never
closed. Either way `embedcache.breaker` spares calls a server that is known to be away; `docs/reliability.md` tells all.
"""

from __future__ import annotations

import asyncio
import os
import secrets  # noqa: F401 - redis-py imports it while a client is made, and a child forked at that moment waits for ever
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, TypeVar, cast
from weakref import WeakKeyDictionary, WeakSet

import redis
import redis.asyncio
from redis.backoff import NoBackoff
from redis.connection import AbstractConnection
from redis.exceptions import MaxConnectionsError, ResponseError
from redis.retry import Retry

from embedcache.arguments import check_plain
from embedcache.breaker import USUAL_POLICY, Breaker, BreakerPolicy, Outage
from embedcache.client_settings import (
    CACHING_SETTINGS,
    SYNC_SETTINGS,
    awithout_touching,
    check_client,
    check_names,
    check_settings,
    describe,
    settings_of,
    without_touching,
)
from embedcache.cluster.clients import Cluster
from embedcache.cluster.slots import Address
from embedcache.errors import CacheUnavailableError, ClientRefusedError, EmbeddedServerError, InvalidInputError
from embedcache.event_loops import LoopClient
from embedcache.operations import Command, Operation, Posted
from embedcache.patience import RETRIED, AsyncRetry, PatientPool, as_kind, ran_out_of_time
from embedcache.read_only import check_reads
from embedcache.round_trips import NO_ANSWER, AsyncPosts, KeptConnections, Posts, asend, reply_error, send
from embedcache.sentinel import ASYNC_CLASSES, by_sentinels
from embedcache.server import EmbeddedServer
from embedcache.tls import words
from embedcache.urls import (
    EMBEDDED_URL,
    URL_VARIABLE,
    is_cluster,
    mask_password,
    parse,
    parse_cluster,
    parse_embedded,
    scheme_of,
)

R = TypeVar("R")

CONNECT_SECONDS: Final = 1.0
READ_SECONDS: Final = 5.0
RETRIES: Final = 1
SOCKET_READ_BYTES: Final = 64 * 1024  # read per system call; a batch arrives a tenth sooner than by redis-py's 32 KiB
MAX_CONNECTIONS: Final = 1024
MAX_ASYNC_CONNECTIONS: Final = 64


class RedisConnection:
    """The sync client, the async client of each event loop, and the two drivers.

    Nothing is connected before the first command. One object serves threads, event loops and forked processes.

    Args:
        url: ``embedded://``, ``redis://``, ``rediss://``, ``unix://``, or one of ``redis+sentinel://``,
            ``rediss+sentinel://``, ``redis+cluster://`` and ``rediss+cluster://``; None is ``$EMBEDCACHE_URL``, else
            the embedded server. Ignored where a client is given.
        client: A sync client to use as it is.
        async_client: An async client to use as it is; it belongs to the event loop it is first used on.
        settings: Keyword arguments for the clients that we make, by redis-py's names.
        read_only: Whether `drive` and `adrive` refuse every command that may change something. The connections that we
            make then also ask the server not to count what they read as a use (``OBJECT IDLETIME``), where it can do
            so: Redis from 7.2 on, Valkey.
        breaker: When calls no longer wait for a server that is away; None has each of them find out.

    Raises:
        InvalidURLError: The URL cannot be read.
        InvalidInputError: A setting is not one of redis-py's.
        ClientRefusedError: A client is not one of redis-py's, of the right kind; or one of two is of a Cluster.
    """

    def __init__(
        self,
        url: str | None = None,
        client: redis.Redis | redis.RedisCluster | None = None,
        async_client: redis.asyncio.Redis | redis.asyncio.RedisCluster | None = None,
        settings: Mapping[str, Any] | None = None,
        *,
        read_only: bool = False,
        breaker: BreakerPolicy | None = USUAL_POLICY,
    ) -> None:
        self._read_only = bool(read_only)
        check_client(client, redis.Redis, redis.RedisCluster, "redis_client")
        check_client(async_client, redis.asyncio.Redis, redis.asyncio.RedisCluster, "async_redis_client")
        self._cluster = Cluster.of_clients(client, async_client, self._make_client, self._make_async_client)
        self._given_client = client if isinstance(client, redis.Redis) else None
        self._given_async_client = async_client if isinstance(async_client, redis.asyncio.Redis) else None
        self._lock = threading.RLock()
        self._client: redis.Redis | None = self._given_client
        self._kept: KeptConnections | None = None
        self._second_client: redis.Redis | None = None
        self._async_clients: WeakKeyDictionary[asyncio.AbstractEventLoop, LoopClient[redis.asyncio.Redis]] = (
            WeakKeyDictionary()
        )
        self._embedded: EmbeddedServer | None = None
        self._embedded_options: tuple[Path | None, str | None] | None = None
        extra = check_settings(settings)
        self._extra = dict(extra)
        self._url: str | None = None
        given = client if client is not None else async_client
        if given is not None:
            self._settings = settings_of(given) | extra
            self.address = describe(self._settings) if self._cluster is None else self._cluster.address
            self._guard(breaker)
            return
        self._url = url = url or os.environ.get(URL_VARIABLE) or EMBEDDED_URL
        if scheme_of(url) == "embedded":
            self._embedded_options = parse_embedded(url)
            self._settings = extra
        elif is_cluster(url):
            nodes, found = parse_cluster(url)
            remap = extra.pop("address_remap", None)
            self._settings = found | extra
            self._cluster = Cluster(nodes, self._make_client, self._make_async_client, remap=remap)
        else:
            self._settings = by_sentinels(parse(url) | extra)
        check_names(self._settings, unix=self.is_embedded or "path" in self._settings)
        self.address = mask_password(url)
        self._guard(breaker)

    def _guard(self, policy: BreakerPolicy | None) -> None:
        if policy is not None and not isinstance(policy, BreakerPolicy):
            raise InvalidInputError(f"breaker is a BreakerPolicy or None, not {type(policy).__name__}")
        self._breaker = Breaker(policy, self.address, self._ask)
        _locked.add(self)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.address!r})"

    @property
    def read_only(self) -> bool:
        """Whether everything that may change something is refused."""
        return self._read_only

    @property
    def outage(self) -> Outage | None:
        """Why calls are refused without asking the server, and until when; None while they are not."""
        return self._breaker.outage

    def forget_outage(self) -> None:
        """Has the next call ask the server, though it was away a moment ago."""
        self._breaker.forget()

    def recipe(self) -> dict[str, Any]:
        """The arguments that make the like of this connection in another process, as JSON has them.

        They may hold a password.

        Raises:
            InvalidInputError: A client was passed in, or a setting is not such a value.
        """
        if self._url is None:
            raise InvalidInputError("other processes cannot use a client that was passed in; pass a URL instead")
        check_plain("connection settings", self._extra)
        return {"url": self._url, "settings": self._extra, "read_only": self._read_only}

    # ---------------------------------------------------------------------------------------- drivers

    def drive(self, operation: Operation[R], *, background: bool = False) -> R:
        """Runs an operation to its end on the sync client.

        Args:
            operation: What to run.
            background: Whether it is none of the program's own calls. Then an embedded server that is gone is not
                started again for it, and a client that was passed in, whose connections may be few, is not used.

        Raises:
            CacheUnavailableError: The server cannot be reached or did not answer in time.
            ReadOnlyError: The connection is read-only, and the operation's next commands may change something. None of
                those was sent.
            EmbedcacheError: What the operation itself raises.
        """
        posts: Posts | None = None
        try:
            commands = next(operation)
            while True:
                if type(commands) is not Posted:
                    replies = self._exchange(commands, background=background)
                else:
                    posts = posts or Posts(self._kept)
                    replies = self._post(posts, commands) if commands else self._collect(posts, background=background)
                commands = operation.send(replies)
        except StopIteration as end:
            return cast("R", end.value)
        except ResponseError as error:  # to what redis-py sends first on a new connection
            raise reply_error(error) from error
        finally:
            if posts is not None:
                posts.discard()

    async def adrive(self, operation: Operation[R]) -> R:
        """Async twin of `drive`, on the running loop's client."""
        posts: AsyncPosts | None = None
        try:
            commands = next(operation)
            while True:
                if type(commands) is not Posted:
                    replies = await self._aexchange(commands)
                else:
                    posts = posts or AsyncPosts()
                    replies = await (self._apost(posts, commands) if commands else self._acollect(posts))
                commands = operation.send(replies)
        except StopIteration as end:
            return cast("R", end.value)
        except ResponseError as error:  # to what redis-py sends first on a new connection
            raise reply_error(error) from error
        finally:
            if posts is not None:
                await posts.discard()

    def _exchange(self, commands: Sequence[Command], *, background: bool) -> list[Any]:
        if self._read_only:
            check_reads(commands)
        self._breaker.check()
        try:
            replies = self._round_trip(commands, background=background)
        except NO_ANSWER as error:
            server = self._embedded
            if server is None or background or ran_out_of_time(error):
                raise self._unavailable(error, background=background) from error
            self._bring_back(server)
            try:
                replies = self._round_trip(commands)
            except NO_ANSWER as again:
                raise self._unavailable(again) from again
        self._breaker.answered()
        return replies

    def _round_trip(self, commands: Sequence[Command], *, background: bool = False) -> list[Any]:
        if (kept := self._kept) is None:
            if self._cluster is not None:
                return self._cluster.send(commands, background=background)
            client = self._background_client() if background else self.client()
            if (kept := self._kept) is None or client is not self._client:
                return send(client, commands)
        return kept.send(commands)

    def _post(self, posts: Posts, commands: Sequence[Command]) -> list[Any]:
        if self._read_only:
            check_reads(commands)
        self._breaker.check()
        with self._asked_again_if_lost():
            posts.send(commands)
        return []

    def _collect(self, posts: Posts, *, background: bool) -> list[Any]:
        commands, replies = posts.batches[0], None
        with self._asked_again_if_lost():
            replies = posts.replies()
        return self._exchange(commands, background=background) if replies is None else replies

    async def _apost(self, posts: AsyncPosts, commands: Sequence[Command]) -> list[Any]:
        if self._read_only:
            check_reads(commands)
        self._breaker.check()
        with self._asked_again_if_lost():
            if self._cluster is not None:
                posts.batches.append(commands)  # sent when its replies are asked for
            else:
                await posts.send(self.async_client, commands)
        return []

    async def _acollect(self, posts: AsyncPosts) -> list[Any]:
        commands, replies = posts.batches[0], None
        with self._asked_again_if_lost():
            replies = await posts.replies()
        return await self._aexchange(commands) if replies is None else replies

    async def _aexchange(self, commands: Sequence[Command]) -> list[Any]:
        if self._read_only:
            check_reads(commands)
        self._breaker.check()
        try:
            replies = await self._asend(commands)
        except NO_ANSWER as error:
            server = self._embedded
            if server is None or ran_out_of_time(error):
                raise self._unavailable(error) from error
            await asyncio.to_thread(self._bring_back, server)
            try:
                replies = await self._asend(commands)
            except NO_ANSWER as again:
                raise self._unavailable(again) from again
        self._breaker.answered()
        return replies

    async def _asend(self, commands: Sequence[Command]) -> list[Any]:
        if self._cluster is not None:
            return await self._cluster.asend(commands)
        return await asend(await self.async_client(), commands)

    def _bring_back(self, server: EmbeddedServer) -> None:
        """Restarts the embedded server, which is ours to restart, so that the commands can be sent once more."""
        try:
            server.ensure_running(within=READ_SECONDS)
        except EmbeddedServerError as error:
            raise self._unavailable(error) from error

    @contextmanager
    def _asked_again_if_lost(self) -> Iterator[None]:
        """Passes over a connection that was lost: whoever wants the replies to what was posted has it sent anew."""
        try:
            yield
        except NO_ANSWER as error:
            if ran_out_of_time(error):  # a second attempt would only wait as long again
                raise self._unavailable(error) from error

    def _ask(self) -> str | None:
        """Why the server does not answer, or None where it does: what the breaker asks in the background."""
        try:
            if (server := self._embedded) is not None:
                server.ensure_running(within=READ_SECONDS)
            self._round_trip([("PING",)], background=True)
        except (*NO_ANSWER, EmbeddedServerError) as error:
            return words(error, self._settings)
        except ResponseError:  # to what comes first on a new connection: an answer, too
            return None
        return None

    def _unavailable(self, error: BaseException, *, background: bool = False) -> CacheUnavailableError:
        # What is asked in the background tells nothing of an embedded server that a call would bring back; and a pool
        # of the program's own that is too small tells nothing of any server.
        if not background and not isinstance(error, MaxConnectionsError):
            self._breaker.failed(words(error, self._settings))
        return CacheUnavailableError(f"no answer from {self.address}: {words(error, self._settings)}")

    # ---------------------------------------------------------------------------------------- clients

    def client(self) -> redis.Redis:
        """The sync client, made at first use. It is redis-py's own and knows nothing of `read_only`.

        Raises:
            ClientRefusedError: This is a connection to a Cluster, which has a client for each node.
        """
        self._check_single()
        if self._client is None:
            with self._lock:
                if self._client is None:
                    made = self._make_client()
                    # Credentials that change by themselves are sent again when a connection passes the pool.
                    if made.connection_pool.connection_kwargs.get("credential_provider") is None:
                        self._kept = KeptConnections(made)
                    self._client = made
        return self._client

    def _background_client(self) -> redis.Redis:
        """The sync client, or where that was passed in, one of our own to the same server."""
        if self._given_client is None:
            return self.client()
        with self._lock:
            if self._second_client is None:
                self._second_client = self._make_client()
            return self._second_client

    def push_connection(self) -> AbstractConnection | None:
        """A connection of one's own by which the server can speak unasked (RESP3), not connected yet.

        None where the embedded server is not attached, for this is no reason to start it.
        """
        with self._lock:
            if self.is_embedded and self._embedded is None:
                return None
            settings = self._connection_settings(Retry(NoBackoff(), 0), 1)
        own = {"protocol": 3, "decode_responses": False}
        kept = {name: value for name, value in settings.items() if name not in CACHING_SETTINGS}
        return cast("AbstractConnection", redis.ConnectionPool(**(kept | own)).make_connection())

    async def async_client(self) -> redis.asyncio.Redis:
        """The running loop's client, made at first use and closed when the loop ends; else as `client`."""
        self._check_single()
        if self._given_async_client is not None:
            return self._given_async_client
        loop = asyncio.get_running_loop()
        if (held := self._async_clients.get(loop)) is not None:
            return held.client
        if self.is_embedded:
            await asyncio.to_thread(self._attached)  # starting it takes a moment that the loop need not wait
        made = self._make_async_client()
        held = self._async_clients.setdefault(loop, LoopClient(made, made.aclose))
        await held.close_with_loop(lambda: self._async_clients.pop(loop, None))
        return held.client

    def _check_single(self) -> None:
        if self._cluster is not None:
            raise ClientRefusedError(f"{self.address} is a Redis Cluster, which no single client reaches")

    def _make_client(self, node: Address | None = None) -> redis.Redis:
        """Of a Cluster's node, it makes no second try: that may be due to another node."""
        settings = self._connection_settings(Retry(NoBackoff(), 0 if node else RETRIES, RETRIED), MAX_CONNECTIONS, node)
        if self._read_only:
            settings["redis_connect_func"] = without_touching(settings.get("redis_connect_func"))
        return redis.Redis.from_pool(redis.ConnectionPool(**settings))

    def _make_async_client(self, node: Address | None = None) -> redis.asyncio.Redis:
        retry = AsyncRetry(NoBackoff(), 0 if node else RETRIES, RETRIED)
        given = self._connection_settings(retry, MAX_ASYNC_CONNECTIONS, node)
        settings = {name: value for name, value in given.items() if name not in SYNC_SETTINGS}
        if self._read_only:
            settings["redis_connect_func"] = awithout_touching(settings.get("redis_connect_func"))
        sync_class = settings.pop("connection_class", redis.Connection)
        settings["connection_class"] = ASYNC_CLASSES.get(sync_class, sync_class)
        return redis.asyncio.Redis.from_pool(PatientPool(self._breaker.check, **settings))

    def _connection_settings(
        self, retry: Retry | AsyncRetry, max_connections: int, node: Address | None = None
    ) -> dict[str, Any]:
        settings: dict[str, Any] = {
            "socket_connect_timeout": CONNECT_SECONDS,
            "socket_timeout": READ_SECONDS,
            "socket_read_size": SOCKET_READ_BYTES,
            "max_connections": max_connections,
            "retry": retry,
        }
        if self._embedded_options is not None:
            settings["connection_class"] = redis.UnixDomainSocketConnection
            settings["path"] = str(self._attached().socket_path)
        settings |= self._settings | ({} if node is None else {"host": node[0], "port": node[1]})
        settings["retry"] = as_kind(type(retry), settings["retry"])
        return settings

    # ---------------------------------------------------------------------------------------- the embedded server

    @property
    def is_cluster(self) -> bool:
        """Whether this is a connection to a Redis Cluster."""
        return self._cluster is not None

    @property
    def is_embedded(self) -> bool:
        """Whether this is a connection to the embedded server."""
        return self._embedded_options is not None

    @property
    def is_attached(self) -> bool:
        """Whether the embedded server was started or attached to, so that a call goes to it at once."""
        return self._embedded is not None

    def _attached(self) -> EmbeddedServer:
        """The embedded server, started or attached to at first use."""
        with self._lock:
            if self._embedded is None:
                folder, maxmemory = self._embedded_options or (None, None)
                self._embedded = EmbeddedServer.attach(folder, maxmemory=maxmemory)
            return self._embedded

    # ---------------------------------------------------------------------------------------- the end

    def close(self) -> None:
        """Closes what we opened, and leaves the embedded server. The next call opens it again."""
        with self._lock:
            clients = [self._client, self._second_client]
            self._client, self._second_client, self._kept = self._given_client, None, None
            server, self._embedded = self._embedded, None
        self._breaker.close()
        for client in clients:
            if client is not None and client is not self._given_client:
                client.close()
        if self._cluster is not None:
            self._cluster.close()
        if server is not None:
            server.detach()

    async def aclose(self) -> None:
        """Closes the running loop's client, then all that `close` closes."""
        if self._cluster is not None:
            await self._cluster.aclose()
        held = self._async_clients.pop(asyncio.get_running_loop(), None)
        if held is not None:
            await held.aclose()
        await asyncio.to_thread(self.close)


_locked: WeakSet[RedisConnection] = WeakSet()


def _start_over_in_child() -> None:
    """The thread that held a lock may not exist to let it go, and the parent's sockets are the parent's."""
    for connection in _locked:
        connection._lock = threading.RLock()
        connection._breaker.start_over()
        for client in (connection._client, connection._second_client):
            # redis-py's pool starts over in a child, and takes for that the lock that it had in the parent.
            if client is not None and hasattr(client.connection_pool, "_lock"):
                client.connection_pool._lock = threading.RLock()
        for kept in (connection._kept, connection._cluster):
            if kept is not None:
                kept.forget()


os.register_at_fork(after_in_child=_start_over_in_child)
