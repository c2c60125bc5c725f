"""What a layout is: the commands by which entries reach the server and come back, whatever they look like there.

Operations know values as `embedcache.codec` packs them, and nothing else. A layout that stores something else takes
packed values apart when it writes and packs what it reads, so that lookups, batches, statistics and the near cache are
the same in each of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Literal, Protocol, TypeAlias

from embedcache.commands import Operation, ServerAbilities
from embedcache.entry import CacheEntry
from embedcache.keyspace import Keyspace
from embedcache.packing import Part, Writes

LayoutName = Literal["packed", "redisvl"]


Values: TypeAlias = Sequence[bytes | None]
"""Packed values, None under a key that is not there. What cannot be read is a value that `codec.is_sound` refuses."""
Take: TypeAlias = Callable[[Part, Values], object]


class EntryLayout(Protocol):
    """How the entries of a cache lie on the server."""

    @property
    def name(self) -> LayoutName:
        """What users call it."""

    @property
    def hex_bytes(self) -> bool:
        """Whether keys of bytes are made of their hex digits: `Keyspace.hex_bytes`."""

    @property
    def value_type(self) -> bytes:
        """What the server calls the type of the values."""

    def read(
        self, space: Keyspace, able: ServerAbilities, parts: Iterable[Part], take: Take, *, refresh: bool
    ) -> Operation[bool]:
        """Reads the values under keys and hands them to `take`, part by part; returns whether TTLs are to be restarted.

        Parts are made, and values taken, while the server works where it can be. In a cache that has a default TTL,
        TTLs are restarted on the way. In one without, few entries if any have one: then, and where the server refused,
        that is left to the caller, for those entries that turn out to have one.
        """

    def read_one(
        self, space: Keyspace, able: ServerAbilities, key: str, *, refresh: bool
    ) -> Operation[tuple[bytes | None, bool]]:
        """The value under one key, and what `read` returns."""

    def restart(self, able: ServerAbilities, ttls: Mapping[str, int]) -> Operation[None]:
        """Restarts these keys' TTLs, of so many seconds."""

    def ttls_of(self, space: Keyspace, entries: Sequence[CacheEntry]) -> dict[str, int | None]:
        """The keys among these that may expire, with the seconds that a hit restarts each with, or None."""

    def write_one(self, able: ServerAbilities, key: str, value: bytes, ttl: int | None) -> Operation[None]:
        """Stores one packed value with its TTL, so that it is never there without."""

    def write(self, able: ServerAbilities, writes: Writes) -> Operation[None]:
        """As `write_one`, for a chunk of them."""

    def match(self, keys: Sequence[str], tags: Sequence[bytes]) -> Operation[list[bool]]:
        """Whether an entry of this tag lies under each key. No vector is moved."""

    def hold(self, keys: Sequence[str]) -> Operation[list[bool]]:
        """Whether any entry lies under each key. No vector is moved."""

    def expire(self, able: ServerAbilities, key: str, seconds: int | None) -> Operation[bool]:
        """Gives an entry a TTL of its own that begins now, or none; returns whether there was one."""

    def set_metadata(self, able: ServerAbilities, key: str, packed: bytes) -> Operation[bool]:
        """Replaces an entry's metadata, as `pack_metadata` made it; returns whether there was a whole entry.

        Raises:
            EmbedcacheError: Others wrote the entry time and again.
        """

    def examine(self, key: str) -> Operation[bytes | str | None]:
        """The packed value under a key, or what is wrong with what lies there, in words that go after "but"."""
