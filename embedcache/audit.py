"""Who did what to a cache, and when: the last 1,000 changes that were made on purpose, kept beside its statistics.

The key begins with the cache's name, so that an ACL for ``name:*`` covers it, and lies outside every cache's namespace,
for none ends in 64 hex digits: emptying a cache leaves its audit log alone. The server's clock says when.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from hashlib import sha256
from typing import Any, Final, cast

import msgpack

from embedcache.arguments import check_kind, check_text, check_whole
from embedcache.buckets import moment, server_time
from embedcache.connection import RedisConnection
from embedcache.entry import Metadata
from embedcache.keyspace import Keyspace
from embedcache.metadata import pack_metadata
from embedcache.operations import Command, Operation, checked, checked_all

MAX_RECORDS: Final = 1_000
"""Kept per cache: the last ones."""
MAX_CHARACTERS: Final = 500
"""Kept of an actor's name, an action, and each text within a detail."""

_MOST: Final = 2**63 - 1
_TAG_DIGITS: Final = 8


@dataclass(frozen=True, slots=True)
class AuditRecord:
    """One change to a cache.

    Attributes:
        at: When it began, in Unix seconds by the server's clock.
        actor: Who made it, as the program that did so calls them.
        action: What was done, such as ``remove``.
        cache_name: To which cache.
        detail: More about it: a JSON object.
        count: Entries that it changed.
        bytes: Length of their values.
    """

    at: float
    actor: str
    action: str
    cache_name: str
    detail: Metadata
    count: int
    bytes: int


_FIELDS: Final = len(fields(AuditRecord))
"""A later version may have more."""


def record(
    connection: RedisConnection,
    cache_name: str,
    actor: str,
    action: str,
    *,
    count: int = 0,
    size: int = 0,
    detail: Mapping[str, Any] | None = None,
) -> AuditRecord:
    """Writes down a change to a cache; returns what was written.

    Args:
        connection: The server.
        cache_name: The cache.
        actor: Who made the change.
        action: What was done.
        count: Entries that it changed.
        size: Length of their values, in bytes.
        detail: More about it: a JSON object. Long texts in it are cut.

    Raises:
        InvalidInputError: The cache's name cannot be used, or the detail is no JSON object.
        ReadOnlyError: The connection is read-only.
        CacheUnavailableError: The server cannot be reached.
        ServerReplyError: It refuses.
    """
    space = Keyspace(cache_name)
    by, what = check_text("actor", actor, encodable=False), check_text("action", action, encodable=False)
    changed, length = _checked_amounts(count, size)
    written = AuditRecord(0.0, _cut(by), _cut(what), cache_name, _checked_detail(detail), changed, length)
    return connection.drive(_record(space, written))


def amend(
    connection: RedisConnection, known: AuditRecord, *, count: int, size: int, detail: Mapping[str, Any]
) -> AuditRecord:
    """Puts what has become of a change in the place of what was written of it before; returns that.

    For a change that takes its time: what is on record then is true however it ends.

    Args:
        connection: The server.
        known: What was written before.
        count: Entries changed by now.
        size: Length of their values, in bytes.
        detail: Takes the place of the detail before.

    Raises:
        EmbedcacheError: As `record`.
    """
    check_kind("known", known, AuditRecord)
    changed, length = _checked_amounts(count, size)
    written = replace(known, count=changed, bytes=length, detail=_checked_detail(detail))
    connection.drive(_amend(Keyspace(known.cache_name), known, written))
    return written


def read(connection: RedisConnection, *cache_names: str, limit: int = MAX_RECORDS) -> list[AuditRecord]:
    """The last changes to these caches, last first.

    Args:
        connection: The server.
        cache_names: The caches.
        limit: The most to return, of all caches together.

    Raises:
        InvalidInputError: A name cannot be used, or the limit is below 1.
        CacheUnavailableError: The server cannot be reached.
        ServerReplyError: It refuses.
    """
    limit = check_whole("limit", limit)
    return connection.drive(_read([Keyspace(name) for name in cache_names], limit))


# ------------------------------------------------------------------------------------------------ operations


def _key(space: Keyspace) -> str:
    tag = sha256(space.name.encode()).hexdigest()[:_TAG_DIGITS]
    return f"{space.name}:audit:{{{tag}}}"


def _record(space: Keyspace, unwritten: AuditRecord) -> Operation[AuditRecord]:
    now = yield from server_time()
    written = replace(unwritten, at=now)
    key = _key(space)
    yield from checked_all(*_push(key, _pack(written)), ("LTRIM", key, 0, MAX_RECORDS - 1))
    return written


def _amend(space: Keyspace, known: AuditRecord, written: AuditRecord) -> Operation[None]:
    key = _key(space)
    # The new one first: cut off between the two, both are on record rather than none.
    yield from checked_all(
        *_push(key, _pack(written)), ("LREM", key, -1, _pack(known)), ("LTRIM", key, 0, MAX_RECORDS - 1)
    )


def _push(key: str, row: bytes) -> list[Command]:
    """Puts a row in front, once: a client whose answer was late sends all of it again."""
    return [("LREM", key, 0, row), ("LPUSH", key, row)]


def _read(spaces: Sequence[Keyspace], limit: int) -> Operation[list[AuditRecord]]:
    found: list[AuditRecord] = []
    for space in spaces:
        rows = yield from checked(("LRANGE", _key(space), 0, MAX_RECORDS - 1))
        found += _unpacked(space, rows)
    # What was amended has moved to the front.
    return sorted(found, key=lambda each: each.at, reverse=True)[:limit]


# ------------------------------------------------------------------------------------------------ rows


def _pack(record: AuditRecord) -> bytes:
    row = (record.at, record.actor, record.action, record.count, record.bytes, record.detail)
    return cast("bytes", msgpack.packb(row, unicode_errors="surrogatepass"))


def _unpacked(space: Keyspace, rows: Iterable[bytes]) -> Iterable[AuditRecord]:
    for row in rows:
        try:
            at, actor, action, count, size, detail = msgpack.unpackb(row, unicode_errors="surrogatepass")[: _FIELDS - 1]
            known = detail if isinstance(detail, dict) else {}
            yield AuditRecord(moment(at), str(actor), str(action), space.name, known, int(count), int(size))
        except (ValueError, TypeError, OverflowError, msgpack.exceptions.UnpackException):
            continue  # no row of ours


def _checked_amounts(count: int, size: int) -> tuple[int, int]:
    return check_whole("count", count, 0, _MOST), check_whole("size", size, 0, _MOST)


def _checked_detail(detail: Mapping[str, Any] | None) -> Metadata:
    """The detail as it is read back: a plain JSON object whose texts are not too long."""
    return cast("Metadata", _cut_within(msgpack.unpackb(pack_metadata({} if detail is None else detail))))


def _cut_within(value: Any) -> Any:
    if isinstance(value, dict):
        return {_cut(name): _cut_within(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_cut_within(each) for each in value]
    return _cut(value) if isinstance(value, str) else value


def _cut(text: str) -> str:
    return text if len(text) <= MAX_CHARACTERS else text[: MAX_CHARACTERS - 1] + "…"
