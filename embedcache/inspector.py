"""What is on a server: its health, its caches, their entries. Nothing here changes anything, or moves a vector.

Each look is an operation, as in `embedcache.operations`; the functions at the end drive them on a connection.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple, cast

from embedcache import buckets, codec, redisvl_format
from embedcache.arguments import check_whole
from embedcache.columns import Columns, Layout, columns_of
from embedcache.connection import RedisConnection
from embedcache.entry import CacheEntry, EntrySummary
from embedcache.errors import ServerReplyError
from embedcache.keyspace import check_keys, split_key
from embedcache.operations import Operation, ServerAbilities
from embedcache.scanning import hash_entries, heads, look, scan_step

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
        disk_trouble: What went wrong when it last wrote to disk, in a few words; empty where nothing did.
        unsaved_changes: Changes since the last snapshot.
        saved_ago: Seconds since then; None where it saved none since it started.
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
    disk_trouble: str
    unsaved_changes: int
    saved_ago: float | None
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
        redisvl_entries: How many of the entries are RedisVL's hashes.
    """

    name: str
    entries: int
    models: dict[str, int]
    bytes: int
    redisvl_entries: int = 0


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
    redisvl_entries: int = 0
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
        disk_trouble=_disk_trouble(info),
        unsaved_changes=int(info.get("rdb_changes_since_last_save", 0)),
        saved_ago=_saved_ago(info),
        total_keys=keys,
        round_trip_seconds=seconds,
    )


def _disk_trouble(info: dict[str, Any]) -> str:
    states = {
        "rdb_last_bgsave_status": "the last snapshot failed",
        "aof_last_write_status": "the last write to the log failed",
        "aof_last_bgrewrite_status": "the log could not be rewritten",
    }
    return ", ".join(words for state, words in states.items() if info.get(state, "ok") != "ok")


def _saved_ago(info: dict[str, Any]) -> float | None:
    # Until it saves one, the server gives the time of its own start.
    now = int(info.get("server_time_usec", time.time() * 1e6)) / 1e6
    ago = now - int(info.get("rdb_last_save_time", 0))
    return max(ago, 0.0) if ago < int(info.get("uptime_in_seconds", 0)) - 1 else None


def find_caches(connection: RedisConnection, max_keys: int = 200_000) -> Survey:
    """The caches on a server, their entries counted by model.

    Args:
        connection: The server.
        max_keys: Stop after about so many keys.

    Raises:
        CacheUnavailableError: It cannot be reached.
    """
    return connection.drive(_survey(check_whole("max_keys", max_keys, 0)))


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
    most_keys, most_names = check_whole("max_keys", max_keys, 0), check_whole("max_names", max_names, 0)
    return connection.drive(_names(most_keys, most_names), background=True)


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
    return connection.drive(_summaries(check_keys(keys)))


def redisvl_entries(connection: RedisConnection, keys: Sequence[str]) -> list[CacheEntry | None]:
    """The entries that RedisVL stored under these keys, with their vectors, in order; None where there is none.

    Raises:
        CacheUnavailableError: The server cannot be reached.
    """
    return connection.drive(hash_entries(check_keys(keys)))


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
        cursor, found = yield from scan_step(cursor, _BATCH)
        scanned += len(found)
        keys = [key for key in _entry_keys(found) if key not in seen]
        seen.update(keys)
        if keys:
            _add_up(tallies, keys, columns_of((yield from look(able, keys)), now=0))
        if cursor == 0:
            break
    caches = tuple(
        CacheSummary(name, tally.entries, dict(tally.models.most_common()), tally.bytes, tally.redisvl_entries)
        for name, tally in sorted(tallies.items())
    )
    return Survey(caches, scanned, complete=cursor == 0)


def _add_up(tallies: dict[str, _Tally], keys: Sequence[str], found: Columns) -> None:
    rows = zip(
        keys, found.layouts.tolist(), found.model_codes.tolist(), found.value_bytes.tolist(), found.gone, strict=True
    )
    for key, layout, model_code, size, gone in rows:
        if not gone and layout != Layout.UNREADABLE:
            tally = tallies.setdefault(key[:-65], _Tally())
            tally.entries += 1
            tally.bytes += size
            tally.redisvl_entries += layout == Layout.REDISVL
            tally.models[found.models[model_code]] += 1


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
        cursor, found = yield from scan_step(cursor, step, None if all_keys else buckets.TOTAL_PATTERN)
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
        # Before the heads, for reading them ends their being idle.
        replies = yield [
            command
            for key in chunk
            for command in (("OBJECT", "IDLETIME", key), ("PTTL", key), ("MEMORY", "USAGE", key, "SAMPLES", 0))
        ]
        costs = [_Cost(*replies[at : at + 3]) for at in range(0, len(replies), 3)]
        summaries = [
            None if head is None else _summary(key, head, codec.dimension(head, size), size, cost)
            for key, (head, size), cost in zip(chunk, (yield from heads(able, chunk)), costs, strict=True)
        ]
        others = [position for position, summary in enumerate(summaries) if summary is None]
        hashes = yield from _hashes([chunk[position] for position in others])
        for position, values in zip(others, hashes, strict=True):
            summaries[position] = _summary_of_hash(chunk[position], values, costs[position])
        found += summaries
    return found


class _Cost(NamedTuple):
    """What the server said of a key, or that it would not."""

    idle: object
    left: object
    memory: object

    @property
    def expires_in(self) -> float | None:
        return self.left / 1000 if isinstance(self.left, int) and self.left >= 0 else None


def _summary(
    key: str, head: codec.Head | redisvl_format.HashHead, dimension: int, size: int, cost: _Cost
) -> EntrySummary:
    return EntrySummary(
        key=key,
        text=head.text,
        model_name=head.model_name,
        dimension=dimension,
        dtype=head.dtype.name if isinstance(head, codec.Head) else redisvl_format.DTYPE_NAME,
        inserted_at=head.inserted_at,
        metadata=head.metadata,
        ttl=head.ttl,
        expires_in=cost.expires_in,
        value_bytes=size,
        memory_bytes=cost.memory if isinstance(cost.memory, int) else size,
        idle_seconds=cost.idle if isinstance(cost.idle, int) else None,
    )


def _hashes(keys: Sequence[str]) -> Operation[list[Any]]:
    """The fields of RedisVL's hashes under these keys; of other types, errors."""
    if not keys:
        return []
    fields = ("embedding", "entry_id", *redisvl_format.HEAD_FIELDS)
    return (yield [("HMGET", key, *fields) for key in keys])


def _summary_of_hash(key: str, values: object, cost: _Cost) -> EntrySummary | None:
    if not isinstance(values, list):
        return None
    embedding, _, *fields = values
    head = redisvl_format.decode_head(fields, key)
    if head is None or not embedding:
        return None
    size = sum(len(value) for value in values if value is not None)
    return _summary(key, head, redisvl_format.dimension(embedding), size, cost)
