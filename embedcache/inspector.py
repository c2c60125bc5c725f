"""What is on a server: its health, its caches, their entries. Nothing here changes anything, or moves a vector.

Each look is an operation, as in `embedcache.operations`; the functions at the end drive them on a connection.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, cast

from embedcache import buckets, codec
from embedcache.connection import RedisConnection
from embedcache.entry import EntrySummary
from embedcache.errors import ServerReplyError
from embedcache.keyspace import split_key
from embedcache.operations import Operation, ServerAbilities
from embedcache.scanning import heads

_BATCH: Final = 1_000
_SAMPLED_KEYS: Final = 20_000


@dataclass(frozen=True, slots=True)
class ServerInfo:
    """A server's identity and health, from its INFO.

    Attributes:
        kind: ``Valkey`` or ``Redis``.
        version: Its own version, such as ``9.1.2``.
        mode: ``standalone``, ``cluster`` or ``sentinel``.
        address: Where it was reached, without a password.
        used_memory_bytes: What it has allocated.
        maxmemory_bytes: The most it may allocate; 0 sets no limit.
        maxmemory_policy: What it does at that limit, such as ``allkeys-lru``.
        uptime_seconds: Since it started.
        connected_clients: Open connections.
        evicted_keys: Keys dropped for lack of memory since it started.
        aof_enabled: Whether writes are logged to disk.
        total_keys: Keys in the database that the connection uses, whoever's they are.
        round_trip_seconds: What asking for all this took.
    """

    kind: str
    version: str
    mode: str
    address: str
    used_memory_bytes: int
    maxmemory_bytes: int
    maxmemory_policy: str
    uptime_seconds: int
    connected_clients: int
    evicted_keys: int
    aof_enabled: bool
    total_keys: int
    round_trip_seconds: float


@dataclass(frozen=True, slots=True)
class CacheSummary:
    """One cache found on a server.

    Attributes:
        name: The cache's name.
        entries: How many entries were found.
        models: Entries by model name, most first.
        bytes: Length of their values together; the server's bookkeeping comes on top.
    """

    name: str
    entries: int
    models: dict[str, int]
    bytes: int


@dataclass(frozen=True, slots=True)
class Survey:
    """The caches of a server.

    Attributes:
        caches: By name.
        scanned_keys: Keys looked at, entries or not.
        complete: Whether those were all; else the counts are lower bounds.
    """

    caches: tuple[CacheSummary, ...]
    scanned_keys: int
    complete: bool


@dataclass(slots=True)
class _Tally:
    entries: int = 0
    bytes: int = 0
    models: Counter[str] = field(default_factory=Counter)


def server_info(connection: RedisConnection) -> ServerInfo:
    """Identity and health of the server behind a connection.

    Raises:
        CacheUnavailableError: It cannot be reached.
    """
    start = time.perf_counter()
    info, keys = connection.drive(_read_info())
    seconds = time.perf_counter() - start
    kind = "Valkey" if info.get("server_name") == "valkey" or "valkey_version" in info else "Redis"
    return ServerInfo(
        kind=kind,
        version=str(info.get("valkey_version") or info.get("redis_version", "unknown")),
        mode=str(info.get("server_mode") or info.get("redis_mode", "unknown")),
        address=connection.address,
        used_memory_bytes=int(info.get("used_memory", 0)),
        maxmemory_bytes=int(info.get("maxmemory", 0)),
        maxmemory_policy=str(info.get("maxmemory_policy", "unknown")),
        uptime_seconds=int(info.get("uptime_in_seconds", 0)),
        connected_clients=int(info.get("connected_clients", 0)),
        evicted_keys=int(info.get("evicted_keys", 0)),
        aof_enabled=bool(info.get("aof_enabled", 0)),
        total_keys=keys,
        round_trip_seconds=seconds,
    )


def find_caches(connection: RedisConnection, max_keys: int = 200_000) -> Survey:
    """The caches on a server, their entries counted by model.

    Args:
        connection: The server.
        max_keys: Stop after about so many keys.

    Raises:
        CacheUnavailableError: It cannot be reached.
    """
    return connection.drive(_survey(max_keys))


def find_names(connection: RedisConnection, max_keys: int = 2_000_000, max_names: int = 1_000) -> tuple[str, ...]:
    """The names of the caches on a server that have statistics or entries, sorted; no entry is read.

    Statistics are looked for among all keys, entries among the first 20,000 that SCAN returns, which are as good as
    drawn at random: a cache without statistics that has few of the server's keys may be missed.

    Args:
        connection: The server.
        max_keys: Stop after about so many keys.
        max_names: Stop after about so many names.

    Raises:
        CacheUnavailableError: It cannot be reached.
        ServerReplyError: It forbids SCAN.
    """
    return connection.drive(_names(max_keys, max_names), background=True)


def ping(connection: RedisConnection) -> float:
    """Seconds that the server takes to answer. One that is embedded and gone is not started for it.

    Raises:
        CacheUnavailableError: It cannot be reached.
        ServerReplyError: It answers that it will not serve us.
    """
    start = time.perf_counter()
    connection.drive(_ping(), background=True)
    return time.perf_counter() - start


def summarise(connection: RedisConnection, keys: Sequence[str]) -> list[EntrySummary | None]:
    """The entries under these keys without their vectors, in order; None where there is none.

    Raises:
        CacheUnavailableError: The server cannot be reached.
    """
    return connection.drive(_summaries(keys))


# ------------------------------------------------------------------------------------------------ operations


def _read_info() -> Operation[tuple[dict[str, Any], int]]:
    info, keys = yield [("INFO",), ("DBSIZE",)]
    for reply in (info, keys):
        if isinstance(reply, ServerReplyError):
            raise reply
    return cast("dict[str, Any]", info), int(keys)


def _survey(max_keys: int) -> Operation[Survey]:
    able = ServerAbilities()
    tallies: dict[str, _Tally] = {}
    seen: set[str] = set()  # SCAN may return a key twice
    scanned, cursor = 0, 0
    while scanned < max_keys:
        (reply,) = yield [("SCAN", cursor, "COUNT", _BATCH)]
        if isinstance(reply, ServerReplyError):
            raise reply
        cursor, found = int(reply[0]), reply[1]
        scanned += len(found)
        keys = [key for key in _entry_keys(found) if key not in seen]
        seen.update(keys)
        for key, (head, size) in zip(keys, (yield from heads(able, keys)), strict=True):
            if head is not None:
                tally = tallies.setdefault(key[:-65], _Tally())
                tally.entries += 1
                tally.bytes += size
                tally.models[head.model_name] += 1
        if cursor == 0:
            break
    caches = tuple(
        CacheSummary(name, tally.entries, dict(tally.models.most_common()), tally.bytes)
        for name, tally in sorted(tallies.items())
    )
    return Survey(caches, scanned, complete=cursor == 0)


def _ping() -> Operation[None]:
    (reply,) = yield [("PING",)]
    # An ACL for the cache's keys alone may well forbid PING: that is an answer too.
    if isinstance(reply, ServerReplyError) and reply.code != "NOPERM":
        raise reply


def _names(max_keys: int, max_names: int) -> Operation[tuple[str, ...]]:
    names: set[str] = set()
    scanned, cursor = 0, 0
    while scanned < max_keys and len(names) < max_names:
        # Past the sample, the server sends statistics' keys alone: a million keys are 80 MB.
        all_keys = scanned < _SAMPLED_KEYS
        step = _BATCH if all_keys else 10 * _BATCH
        (reply,) = yield [("SCAN", cursor, *(() if all_keys else ("MATCH", buckets.TOTAL_PATTERN)), "COUNT", step)]
        if isinstance(reply, ServerReplyError):
            raise reply
        cursor, found = int(reply[0]), reply[1]
        scanned += step
        names.update(filter(None, map(_cache_of, _texts(found))))
        if cursor == 0:
            break
    return tuple(sorted(names))


def _cache_of(key: str) -> str | None:
    entry = split_key(key)
    return entry[0] if entry else buckets.cache_of_total(key)


def _texts(found: Sequence[bytes]) -> Iterator[str]:
    for raw in found:
        try:
            yield raw.decode()
        except UnicodeDecodeError:
            continue  # our keys are UTF-8


def _entry_keys(found: Sequence[bytes]) -> Iterator[str]:
    return (key for key in _texts(found) if split_key(key) is not None)


def _summaries(keys: Sequence[str]) -> Operation[list[EntrySummary | None]]:
    able = ServerAbilities()
    found: list[EntrySummary | None] = []
    for start in range(0, len(keys), _BATCH):
        chunk = keys[start : start + _BATCH]
        found_heads = yield from heads(able, chunk)
        replies = yield [command for key in chunk for command in (("PTTL", key), ("MEMORY", "USAGE", key))]
        for index, (key, (head, size)) in enumerate(zip(chunk, found_heads, strict=True)):
            milliseconds, memory = replies[2 * index : 2 * index + 2]
            found.append(None if head is None else _summary(key, head, size, milliseconds, memory))
    return found


def _summary(key: str, head: codec.Head, size: int, milliseconds: object, memory: object) -> EntrySummary:
    expires = isinstance(milliseconds, int) and milliseconds >= 0
    return EntrySummary(
        key=key,
        text=head.text,
        model_name=head.model_name,
        dimension=codec.dimension(head, size),
        dtype=head.dtype.name,
        inserted_at=head.inserted_at,
        metadata=head.metadata,
        ttl=head.ttl,
        expires_in=cast("int", milliseconds) / 1000 if expires else None,
        value_bytes=size,
        memory_bytes=memory if isinstance(memory, int) else size,
    )
