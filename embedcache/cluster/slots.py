"""Which node of a Redis Cluster a key lies on: its slot, and the map of slots to primaries.

Source: https://valkey.io/topics/cluster-spec
"""

from __future__ import annotations

import zlib
from binascii import crc_hqx
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

SLOTS: Final = 16_384

Address: TypeAlias = tuple[str, int]
"""Host and port of one node."""
Remap: TypeAlias = Callable[[Address], Address]
"""From the address that a node has of itself to the one at which it is reached."""


def slot_of(key: str | bytes) -> int:
    """The slot of a key: of what stands between its first braces, where that is something."""
    hashed = key.encode() if isinstance(key, str) else key
    opening = hashed.find(b"{")
    if opening >= 0:
        closing = hashed.find(b"}", opening + 1)
        if closing > opening + 1:
            hashed = hashed[opening + 1 : closing]
    return crc_hqx(hashed, 0) % SLOTS


@dataclass(frozen=True, slots=True)
class SlotMap:
    """Who serves what, as one node told it. It never changes: who learns more makes another.

    Attributes:
        owners: The primary of each slot, None where there is none.
        primaries: Those that serve slots, sorted.
        nodes: All nodes, replicas too.
    """

    owners: tuple[Address | None, ...]
    primaries: tuple[Address, ...]
    nodes: tuple[Address, ...]

    @classmethod
    def parse(cls, reply: list[Any], asked: Address, remap: Remap | None = None) -> SlotMap:
        """The map in a reply to CLUSTER SLOTS.

        Args:
            reply: For each range: first slot, last slot, the primary, its replicas; each as host, port, more.
            asked: Who gave it. A node that does not know its own host leaves it out.
            remap: Says where a node is reached.
        """
        owners: list[Address | None] = [None] * SLOTS
        nodes: dict[Address, None] = {}
        for first, last, *served_by in reply:
            found = [_address(node[0], node[1], asked, remap) for node in served_by]
            owners[first : last + 1] = [found[0]] * (last + 1 - first)
            nodes.update(dict.fromkeys(found))
        return cls._of(owners, tuple(nodes))

    @classmethod
    def empty(cls) -> SlotMap:
        """What is known before a node has told anything."""
        return cls._of([None] * SLOTS, ())

    @classmethod
    def _of(cls, owners: list[Address | None], nodes: tuple[Address, ...]) -> SlotMap:
        return cls(tuple(owners), tuple(sorted({owner for owner in owners if owner is not None})), nodes)

    @property
    def covers_all(self) -> bool:
        """Whether each slot has a primary."""
        return None not in self.owners

    @property
    def mark(self) -> int:
        """32 bits by which this set of primaries is known again."""
        return zlib.crc32(repr(self.primaries).encode())

    def with_moves(self, moves: Mapping[int, Address]) -> SlotMap:
        """The map after these slots have gone to these primaries."""
        owners = list(self.owners)
        for slot, address in moves.items():
            owners[slot] = address
        return self._of(owners, tuple(dict.fromkeys((*self.nodes, *moves.values()))))


def redirected(message: str, answered: Address, remap: Remap | None = None) -> tuple[int, Address]:
    """The slot, and where it is served, of a node's MOVED or ASK, such as ``MOVED 3999 127.0.0.1:6381``."""
    _, slot, where = message.split()[:3]
    host, _, port = where.rpartition(":")
    return int(slot), _address(host, port, answered, remap)


def _address(host: str | bytes | None, port: int | str, asked: Address, remap: Remap | None) -> Address:
    named = host.decode() if isinstance(host, bytes) else host
    address = (named if named and named != "?" else asked[0], int(port))
    return address if remap is None else remap(address)
