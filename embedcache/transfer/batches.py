"""Where an export's entries come from: the server, batch by batch, or first what an earlier attempt read of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sized
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from embedcache.index import keys_of
from embedcache.keyspace import Keyspace
from embedcache.operations import CHUNK_BYTES, CHUNK_ENTRIES, ServerAbilities, checked
from embedcache.transfer.columns import EntryColumns, unpack_values
from embedcache.transfer.operations import FoundValues, read_values
from embedcache.transfer.partial import Digests, PartialExport, partial_export
from embedcache.walking import find_digests

if TYPE_CHECKING:
    from embedcache.connection import RedisConnection

_FIRST_BATCH: Final = 16
_GROWTH: Final = 4
_HEX_DIGITS: Final = 64

Batch = tuple[FoundValues, EntryColumns]
"""What is under some keys, and the entries among it."""


@dataclass(slots=True)
class Source:
    """An export's entries.

    Attributes:
        batches: To be gone through by one thread; while it is, another compresses those before.
        total: How many keys there are, where that is known.
        forget: To be called when all is on the disk, just before the file gets its name.
        resumed: Keys that an earlier attempt had read.
    """

    batches: Iterator[Batch]
    total: int | None
    forget: Callable[[], None] = lambda: None
    resumed: int = 0


@contextmanager
def begun(connection: RedisConnection, space: Keyspace, keys: Iterable[str] | None) -> Iterator[Source]:
    """Entries read from the server alone.

    Raises:
        ForeignKeyError: A key is not of this cache.
    """
    wanted = _scanned_keys(connection, space) if keys is None else iter(keys)
    batches = map(_with_entries, _found(connection, space, wanted))
    yield Source(batches, len(keys) if isinstance(keys, Sized) else None)


@contextmanager
def resumed(connection: RedisConnection, space: Keyspace, keys: Iterable[str] | None, target: Path) -> Iterator[Source]:
    """Entries that are kept beside the target as they are read, those first that are kept there already.

    Raises:
        ForeignKeyError: A key is not of this cache.
        TransferError: What is kept there is of another cache or of other keys, or cannot be written.
    """
    asked = None if keys is None else _digests_of(space, keys)
    with partial_export(target) as kept:
        kept.take_up(space.name, asked)
        if kept.digests is None:
            digests = connection.drive(find_digests(space, lambda _done, _total: None)) if asked is None else asked
            kept.begin(space.name, digests, of_all=asked is None)
        else:
            digests = kept.digests
        source = Source(iter(()), len(digests), kept.remove)
        source.batches = _resumed_batches(connection, space, kept, digests, source)
        yield source


def _resumed_batches(
    connection: RedisConnection, space: Keyspace, kept: PartialExport, digests: Digests, source: Source
) -> Iterator[Batch]:
    for values, milliseconds, now in kept.batches():
        keys = keys_of(space.name, digests[source.resumed : source.resumed + len(values)])
        source.resumed += len(values)
        yield _with_entries(FoundValues(keys, values, milliseconds, now))
    for found in _found(connection, space, _keys(space, digests, source.resumed)):
        kept.add(found)
        yield _with_entries(found)


def _found(connection: RedisConnection, space: Keyspace, keys: Iterator[str]) -> Iterator[FoundValues]:
    """What is under the keys."""
    able = ServerAbilities()
    size = _FIRST_BATCH
    while chunk := space.owned_keys(list(islice(keys, size))):
        found = connection.drive(read_values(able, chunk))
        yield found
        size = _next_size(size, found.values)


def _with_entries(found: FoundValues) -> Batch:
    expires_at = [None if left < 0 else found.now + left / 1000 for left in found.milliseconds]
    return found, unpack_values(found.keys, found.values, expires_at)


def _next_size(size: int, values: list[bytes | None]) -> int:
    """How many entries to read next, so that they take about as many bytes as fit one reply.

    It grows step by step, for the first values may be small and the next of many megabytes.
    """
    mean = sum(len(value) for value in values if value) // len(values) + 1
    return max(1, min(CHUNK_ENTRIES, size * _GROWTH, CHUNK_BYTES // mean))


def _scanned_keys(connection: RedisConnection, space: Keyspace) -> Iterator[str]:
    cursor = 0
    while True:
        reply = connection.drive(checked(("SCAN", cursor, "MATCH", space.pattern, "COUNT", CHUNK_ENTRIES)))
        cursor = int(reply[0])
        # Twice within one reply is once; over all replies, a set would take memory for each key.
        for raw in dict.fromkeys(reply[1]):
            key = raw.decode(errors="surrogateescape")
            if space.owns(key):
                yield key
        if cursor == 0:
            return


def _keys(space: Keyspace, digests: Digests, start: int) -> Iterator[str]:
    """The keys from a position on, written out some at a time: a million of them would take 120 MB."""
    for first in range(start, len(digests), CHUNK_ENTRIES):
        yield from keys_of(space.name, digests[first : first + CHUNK_ENTRIES])


def _digests_of(space: Keyspace, keys: Iterable[str]) -> Digests:
    wanted = iter(keys)
    found = bytearray()
    while chunk := space.owned_keys(list(islice(wanted, CHUNK_ENTRIES))):
        found += bytes.fromhex("".join(key[-_HEX_DIGITS:] for key in chunk))
    return np.frombuffer(bytes(found), np.uint8).reshape(-1, _HEX_DIGITS // 2)
