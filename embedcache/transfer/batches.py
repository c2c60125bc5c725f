"""Where an export's entries come from: the server, batch by batch, or first what an earlier attempt read of them.

Batches are read and unpacked here, or by other processes, which make pieces of the file of them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sized
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np

from embedcache.index import keys_of
from embedcache.keyspace import Keyspace
from embedcache.operations import CHUNK_BYTES, CHUNK_ENTRIES, NO_KEY, ServerAbilities, checked
from embedcache.transfer.columns import EntryColumns, unpack_values
from embedcache.transfer.footer import Shape
from embedcache.transfer.formats import Writer
from embedcache.transfer.operations import FoundValues, read_values
from embedcache.transfer.partial import Digests, PartialExport, partial_export
from embedcache.transfer.processes import Message, Workers
from embedcache.walking import find_digests

if TYPE_CHECKING:
    from embedcache.connection import RedisConnection

_FIRST_BATCH: Final = 16
_GROWTH: Final = 4
_HEX_DIGITS: Final = 64

_DIGEST_BYTES: Final = _HEX_DIGITS // 2
_AHEAD: Final = 16
"""Batches that other processes have made before this one has written those before."""


@dataclass(frozen=True, slots=True)
class Counts:
    """What is counted of a batch.

    Attributes:
        gone: Keys under which there was nothing any more.
        unreadable: Values that are no entries.
        server_time: The server's Unix seconds.
        shapes: Entries by model and dimension.
    """

    gone: int
    unreadable: int
    server_time: float
    shapes: dict[Shape, int]

    def to_json(self) -> dict[str, Any]:
        """As one process tells another."""
        shapes = [(*shape, entries) for shape, entries in self.shapes.items()]
        return {"gone": self.gone, "unreadable": self.unreadable, "server_time": self.server_time, "shapes": shapes}

    @classmethod
    def from_json(cls, told: dict[str, Any]) -> Counts:
        """As another process told."""
        shapes = {(model_name, dimension): entries for model_name, dimension, entries in told["shapes"]}
        return cls(told["gone"], told["unreadable"], told["server_time"], shapes)


class Batch(NamedTuple):
    """Some entries, and what is counted of them: as columns, or as a piece of the file that another process made."""

    counts: Counts
    columns: EntryColumns
    piece: bytes | None = None

    def write_to(self, writer: Writer) -> None:
        """Has them in the file."""
        if self.piece is None:
            writer.write(self.columns)
        else:
            writer.write_piece(self.piece)


@dataclass(slots=True)
class Source:
    """An export's entries.

    Attributes:
        batches: To be gone through by one thread; while it is, another compresses those before.
        total: How many keys there are, where that is known.
        ahead: Batches to be made before they are asked for.
        forget: To be called when all is on the disk, just before the file gets its name.
        resumed: Keys that an earlier attempt had read.
    """

    batches: Iterator[Batch]
    total: int | None
    ahead: int = 1
    forget: Callable[[], None] = lambda: None
    resumed: int = 0


@contextmanager
def begun(connection: RedisConnection, space: Keyspace, keys: Iterable[str] | None) -> Iterator[Source]:
    """Entries read from the server alone.

    Raises:
        ForeignKeyError: A key is not of this cache.
    """
    wanted = _scanned_keys(connection, space) if keys is None else iter(keys)
    yield Source(Reader(connection, space.name).batches(wanted), _known_length(keys))


@contextmanager
def shared_out(
    connection: RedisConnection, space: Keyspace, keys: Iterable[str] | None, form: dict[str, Any], processes: int
) -> Iterator[Source]:
    """Entries that so many other processes read, and make pieces of the file of.

    `form` is what `format_named` is to be called with.

    Raises:
        InvalidInputError: They cannot connect as this one does.
        ForeignKeyError: A key is not of this cache.
        TransferError: One of them was ended by somebody else.
    """
    wanted = _scanned_keys(connection, space) if keys is None else iter(keys)
    job = {"work": "export", "cache": space.name, "form": form}
    with Workers(processes, connection, job) as workers:
        requests = (Message({}, digests) for digests in _digest_chunks(space, wanted))
        batches = (
            Batch(Counts.from_json(answer.header), EntryColumns(), answer.data) for answer in workers.answers(requests)
        )
        yield Source(batches, _known_length(keys), ahead=_AHEAD)


def _known_length(keys: Iterable[str] | None) -> int | None:
    return len(keys) if isinstance(keys, Sized) else None


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
        source = Source(iter(()), len(digests), forget=kept.remove)
        source.batches = _resumed_batches(connection, space, kept, digests, source)
        yield source


def _resumed_batches(
    connection: RedisConnection, space: Keyspace, kept: PartialExport, digests: Digests, source: Source
) -> Iterator[Batch]:
    for values, milliseconds, now in kept.batches():
        keys = keys_of(space.name, digests[source.resumed : source.resumed + len(values)])
        source.resumed += len(values)
        yield _unpacked(FoundValues(keys, values, milliseconds, now))
    for found in Reader(connection, space.name).found(_keys(space, digests, source.resumed)):
        kept.add(found)
        yield _unpacked(found)


class Reader:
    """Reads what is under a cache's keys, as many at once as fit one reply."""

    def __init__(self, connection: RedisConnection, cache_name: str) -> None:
        self._connection = connection
        self._space = Keyspace(cache_name)
        self._able = ServerAbilities()
        self._size = _FIRST_BATCH

    def found(self, keys: Iterator[str]) -> Iterator[FoundValues]:
        """What is under the keys."""
        while chunk := self._space.owned_keys(list(islice(keys, self._size))):
            found = self._connection.drive(read_values(self._able, chunk))
            yield found
            self._size = _next_size(self._size, found.values)

    def batches(self, keys: Iterator[str]) -> Iterator[Batch]:
        """The entries under the keys."""
        return map(_unpacked, self.found(keys))

    def batches_of(self, digests: bytes) -> Iterator[Batch]:
        """The entries under the keys that end in these digests, of 32 bytes each."""
        rows = np.frombuffer(digests, np.uint8).reshape(-1, _DIGEST_BYTES)
        return self.batches(iter(keys_of(self._space.name, rows)))


def _unpacked(found: FoundValues) -> Batch:
    expires_at = [None if left < 0 else found.now + left / 1000 for left in found.milliseconds]
    columns = unpack_values(found.keys, found.values, expires_at)
    gone = found.milliseconds.count(NO_KEY)
    unreadable = len(found.keys) - gone - len(columns)
    return Batch(Counts(gone, unreadable, found.now, Counter(columns.shapes())), columns)


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
    found = b"".join(_digest_chunks(space, iter(keys)))
    return np.frombuffer(found, np.uint8).reshape(-1, _DIGEST_BYTES)


def _digest_chunks(space: Keyspace, keys: Iterator[str]) -> Iterator[bytes]:
    while chunk := space.owned_keys(list(islice(keys, CHUNK_ENTRIES))):
        yield bytes.fromhex("".join(key[-_HEX_DIGITS:] for key in chunk))
