"""What redis-py's clients are made from: names of settings, those of a client that was passed in, what comes first."""

from __future__ import annotations

import codecs
import inspect
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final, TypeAlias

import redis
import redis.asyncio
from redis.asyncio.sentinel import SentinelConnectionPool as AsyncSentinelConnectionPool
from redis.cache import CacheConfig, CacheInterface
from redis.connection import AbstractConnection
from redis.credentials import CredentialProvider
from redis.event import EventDispatcherInterface
from redis.exceptions import RedisError, ResponseError
from redis.maint_notifications import MaintNotificationsConfig
from redis.retry import AbstractRetry
from redis.sentinel import SentinelConnectionPool

from embedcache.arguments import (
    LONGEST_SECONDS,
    check_function,
    check_host,
    check_kind,
    check_path,
    check_seconds,
    check_switch,
    check_text,
    check_whole,
    is_number,
    shown,
)
from embedcache.errors import ClientRefusedError, InvalidInputError
from embedcache.sentinel import SYNC_CLASSES, Sentinels
from embedcache.tls import check_files

AnyClient: TypeAlias = redis.Redis | redis.asyncio.Redis | redis.RedisCluster | redis.asyncio.RedisCluster

# What a connection needs to reach the same server as the same user, under the same names sync and async.
_SHARED_SETTINGS: Final = frozenset(
    [
        "host",
        "port",
        "path",
        "db",
        "username",
        "password",
        "credential_provider",
        "client_name",
        "protocol",
        "health_check_interval",
        "socket_timeout",
        "socket_connect_timeout",
        "socket_keepalive",
        "ssl_keyfile",
        "ssl_certfile",
        "ssl_cert_reqs",
        "ssl_ca_certs",
        "ssl_ca_data",
        "ssl_ca_path",
        "ssl_check_hostname",
        "ssl_password",
        "ssl_min_version",
        "ssl_ciphers",
    ]
)
_TIMEOUTS: Final = ("socket_timeout", "socket_connect_timeout")
CACHING_SETTINGS: Final = frozenset({"cache", "cache_config", "cache_factory"})
"""Those that make a client keep replies."""
SYNC_SETTINGS: Final = CACHING_SETTINGS | {"command_packer"}
"""Those that redis-py's async clients do not know; they do without."""
_WHOLE: Final = ("max_connections", "socket_read_size", "db")
_POOL_SETTINGS: Final = (
    frozenset({"connection_class", "max_connections", "maint_notifications_config"}) | CACHING_SETTINGS
)


def _check_encoding(name: str, value: object) -> None:
    check_text(name, value)
    try:
        codecs.lookup(str(value)) if name == "encoding" else codecs.lookup_error(str(value))
    except (LookupError, ValueError):
        raise InvalidInputError(f"{name} is one that Python knows, not {shown(value)}") from None


def _check_wait(name: str, value: object) -> None:
    if not is_number(value) or not 0 <= value <= LONGEST_SECONDS:
        raise InvalidInputError(f"{name} is a number of seconds from 0 on, not {shown(value)}")


def _check_word(name: str, value: object) -> None:
    """What is sent as it is; a password is never shown."""
    if not isinstance(value, bytes):
        check_text(name, value)


def _check_database(name: str, value: object) -> None:
    if not isinstance(value, str):
        check_whole(name, value, 0)
    elif not value.isdecimal():
        raise InvalidInputError(f"{name} is a whole number from 0 on, not {shown(value)}")


def _check_class(name: str, value: object) -> None:
    if not isinstance(value, type) or not issubclass(
        value, AbstractConnection | redis.asyncio.connection.AbstractConnection
    ):
        raise InvalidInputError(f"{name} is a class of redis-py's connections, not {shown(value)}")


def _check_packer(name: str, value: object) -> None:
    if not callable(getattr(value, "pack", None)):
        raise InvalidInputError(f"{name} has a method pack, as redis-py's have; {type(value).__name__} has none")


_LARGEST_READ_BYTES: Final = 64 * 1024 * 1024
"""Each read sets so much memory aside."""
_CHECKS: Final[Mapping[str, Callable[[str, Any], object]]] = {
    **dict.fromkeys(("socket_timeout", "socket_connect_timeout"), check_seconds),
    "health_check_interval": _check_wait,
    **dict.fromkeys(("username", "password", "client_name", "lib_name", "lib_version"), _check_word),
    "db": _check_database,
    "host": check_host,
    "max_connections": check_whole,
    "socket_read_size": lambda name, value: check_whole(name, value, 1, _LARGEST_READ_BYTES),
    **dict.fromkeys(("encoding", "encoding_errors"), _check_encoding),
    "retry": lambda name, value: check_kind(name, value, AbstractRetry),
    "credential_provider": lambda name, value: check_kind(name, value, CredentialProvider),
    "maint_notifications_config": lambda name, value: check_kind(name, value, MaintNotificationsConfig),
    **dict.fromkeys(("decode_responses", "retry_on_timeout", "legacy_responses", "socket_keepalive"), check_switch),
    "connection_class": _check_class,
    "parser_class": lambda name, value: check_kind(name, value, type),
    **dict.fromkeys(("ssl_ca_certs", "ssl_ca_path", "ssl_certfile", "ssl_keyfile"), check_path),
    "ssl_password": _check_word,
    "cache": lambda name, value: check_kind(name, value, CacheInterface),
    "cache_config": lambda name, value: check_kind(name, value, CacheConfig),
    "redis_connect_func": check_function,
    "command_packer": _check_packer,
    "event_dispatcher": lambda name, value: check_kind(name, value, EventDispatcherInterface),
}
"""What redis-py takes as it is, and would find out at the first call; None is redis-py's own."""


def check_settings(settings: object) -> dict[str, Any]:
    """The settings that were passed in, as a dict of their own.

    Raises:
        InvalidInputError: They are no mapping, or one of them is not what redis-py takes.
    """
    if settings is None:
        return {}
    if not isinstance(settings, Mapping):
        raise InvalidInputError(f"connection_kwargs is a dict of redis-py's settings, not {type(settings).__name__}")
    for name in settings:
        check_text("a setting's name", name)
    _check_values(settings)
    # numpy's whole numbers are none to redis-py.
    return {name: int(value) if name in _WHOLE and value is not None else value for name, value in settings.items()}


def _check_values(settings: Mapping[str, Any]) -> None:
    for name, check in _CHECKS.items():
        if name in settings and (settings[name] is not None or name == "retry"):
            check(name, settings[name])


def check_names(settings: Mapping[str, Any], *, unix: bool) -> None:
    """Finds a setting that redis-py does not know, or cannot use, now rather than at the first call.

    Raises:
        InvalidInputError: There is one.
    """
    _check_values(settings)  # those that a URL has brought along, too
    if unix and any(settings.get(name) is not None for name in CACHING_SETTINGS):
        raise InvalidInputError("redis-py keeps no replies of a server at a Unix socket; near_cache keeps entries")
    names = {name: value for name, value in settings.items() if name not in _POOL_SETTINGS}
    try:
        settings.get("connection_class", redis.Connection)(**names)
    except TypeError as error:
        unknown = re.search(r"argument '(\w+)'", str(error))
        named = repr(unknown[1]) if unknown else "one of them"
        tls = "; those of TLS go with rediss://" if unknown and unknown[1].startswith("ssl_") else ""
        raise InvalidInputError(f"redis-py does not take {named} among the connection's settings{tls}") from None
    except RedisError as error:  # a value of TLS that there is not
        raise InvalidInputError(f"redis-py does not take the connection's settings: {error}") from None
    check_files(settings)


def check_client(client: object, kind: type, cluster: type, name: str) -> None:
    """Checks a client that was passed in as the argument `name`; None is none.

    Raises:
        ClientRefusedError: It is of neither kind.
    """
    if client is not None and not isinstance(client, kind | cluster):
        package = kind.__module__.partition(".client")[0]
        raise ClientRefusedError(
            f"{name} is a {package}.Redis or {package}.RedisCluster, not {type(client).__module__}"
            f".{type(client).__name__}"
        )


def settings_of(client: AnyClient) -> dict[str, Any]:
    """What the other kind of client needs in order to reach the same server; of a Cluster, each of its nodes.

    Raises:
        ClientRefusedError: It is one that sentinels lead to replicas.
    """
    if isinstance(client, redis.RedisCluster | redis.asyncio.RedisCluster):
        found: dict[str, Any] = client.nodes_manager.connection_kwargs
        secure = found.get("ssl") or "SSL" in getattr(found.get("connection_class"), "__name__", "")
        kept = {name: value for name, value in found.items() if name in _SHARED_SETTINGS - {"host", "port", "db"}}
        if not secure:
            kept = {name: value for name, value in kept.items() if not name.startswith("ssl_")}
        return kept | {"connection_class": redis.SSLConnection if secure else redis.Connection}
    pool = client.connection_pool
    given = {name: value for name, value in pool.connection_kwargs.items() if name in _SHARED_SETTINGS}
    # A client that waits for ever is its owner's choice; one that we make does not.
    kept = {name: value for name, value in given.items() if value is not None or name not in _TIMEOUTS}
    kept["connection_class"] = SYNC_CLASSES.get(pool.connection_class, pool.connection_class)
    if isinstance(pool, SentinelConnectionPool | AsyncSentinelConnectionPool):
        if not pool.is_master:
            raise ClientRefusedError(
                f"sentinels lead this client to replicas of {pool.service_name!r}, which take no writes;"
                " pass what Sentinel.master_for returns"
            )
        kept["sentinels"] = Sentinels(
            pool.service_name, [settings_of(each) for each in pool.sentinel_manager.sentinels]
        )
    return kept


def describe_cluster(nodes: Sequence[tuple[str, int]]) -> str:
    """The address of a Redis Cluster, as a URL with no user and no password."""
    return "redis+cluster://" + ",".join(f"{host}:{port}" for host, port in nodes)


def describe(settings: Mapping[str, Any]) -> str:
    """The address of the server that these settings reach, as a URL with no user and no password."""
    if path := settings.get("path"):
        return f"unix://{path}"
    if sentinels := settings.get("sentinels"):
        return f"redis+sentinel://{sentinels.hosts}/{sentinels.service}/{settings.get('db') or 0}"
    return f"redis://{settings.get('host', 'localhost')}:{settings.get('port', 6379)}/{settings.get('db') or 0}"


# ------------------------------------------------------------------------------------------------ what comes first

_NO_TOUCH: Final = ("CLIENT", "NO-TOUCH", "ON")


def without_touching(connect: Callable[[Any], object] | None) -> Callable[[Any], None]:
    """What a new connection is to do first: as it would, and then ask that its reads leave idle times alone."""

    def connected(connection: Any) -> None:
        connection.on_connect() if connect is None else connect(connection)
        connection.send_command(*_NO_TOUCH)
        try:
            connection.read_response()
        except ResponseError:
            return  # an older server, or an ACL that forbids it: reading is allowed all the same

    return connected


def awithout_touching(connect: Callable[[Any], object] | None) -> Callable[[Any], Awaitable[None]]:
    """Async twin of `without_touching`."""

    async def connected(connection: Any) -> None:
        done = connection.on_connect() if connect is None else connect(connection)
        if inspect.isawaitable(done):
            await done
        await connection.send_command(*_NO_TOUCH)
        try:
            await connection.read_response()
        except ResponseError:
            return

    return connected
