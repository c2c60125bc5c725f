"""SCAN over all primaries of a Redis Cluster at once, as exact as over one server.

SCAN promises each key that is there from its beginning to its end, some of them twice. On a Cluster, a key that has
been moved meanwhile from a node yet to be looked at to one that was looked at before would be missed. So the slots that
each primary has and is moving are compared at the end with those at the beginning, and where anything was on the move,
all nodes are walked over once more: a key that moved once lay still during one of the two walks. Where another node has
become a primary, the walk begins anew, for a cursor means something to the node alone that gave it.

The cursor of such a walk is one large number that holds those of all nodes, and what is compared. It means nothing to
another connection's client than this.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from embedcache.cluster.slots import Address
from embedcache.cluster.topology import Delivery, Topology, gone, sorted_out
from embedcache.commands import Command
from embedcache.errors import ServerReplyError

_MAX_RESTARTS: Final = 16
_DEFAULT_COUNT: Final = 10  # the server's own
_HEAD: Final = struct.Struct(">BB?II")
_NODE: Final = struct.Struct(">?Q")
_NODES_COMMAND: Final[Command] = ("CLUSTER", "NODES")
_FIRST_SLOT_FIELD: Final = 8  # of a line of CLUSTER NODES


@dataclass(frozen=True, slots=True)
class _Walk:
    """Where a walk over all nodes is.

    Attributes:
        restarts: How often it began anew.
        again: Whether it is the second over the same nodes.
        primaries: Those nodes, as `SlotMap.mark` has it.
        at_beginning: What they had and moved when it began.
        nodes: Of each primary, whether it is done, and its cursor.
    """

    restarts: int
    again: bool
    primaries: int
    at_beginning: int
    nodes: tuple[tuple[bool, int], ...]

    @classmethod
    def read(cls, cursor: int) -> _Walk:
        packed = cursor.to_bytes((cursor.bit_length() + 7) // 8, "big")
        _, restarts, again, primaries, at_beginning = _HEAD.unpack_from(packed)
        return cls(restarts, again, primaries, at_beginning, tuple(_NODE.iter_unpack(packed[_HEAD.size :])))

    @property
    def cursor(self) -> int:
        # The first byte keeps the number from beginning with zeros, and from being 0, which is the end.
        head = _HEAD.pack(1, self.restarts, self.again, self.primaries, self.at_beginning)
        return int.from_bytes(head + b"".join(_NODE.pack(*node) for node in self.nodes), "big")


def scan(topology: Topology, command: Command) -> Delivery[Any]:
    """One step of SCAN: the next cursor, 0 at the end, and the keys found; or the first error of a node.

    Raises:
        ConnectionError: A primary gives no answer, and no other has taken its place yet.
    """
    cursor = int(command[1])
    walk = _Walk.read(cursor) if cursor else (yield from _begin(topology, restarts=0))
    slots = yield from topology.slots()
    if slots.mark != walk.primaries or len(slots.primaries) != len(walk.nodes):
        return [(yield from _begin(topology, walk.restarts + 1)).cursor, []]
    running = {
        address: (place, at)
        for place, (address, (done, at)) in enumerate(zip(slots.primaries, walk.nodes, strict=True))
        if not done
    }
    step = {address: [_at(command, at, len(running))] for address, (_, at) in running.items()}
    replies, failed = sorted_out((yield step))
    if failed:
        newer = yield from topology.learn(slots, failed)
        if newer.primaries == slots.primaries:
            raise gone(failed, next(iter(failed.values())))
        return [(yield from _begin(topology, walk.restarts + 1)).cursor, []]
    nodes, keys = list(walk.nodes), []
    for address, (reply,) in replies.items():
        if isinstance(reply, ServerReplyError):
            return reply
        following, found = reply
        keys += found
        nodes[running[address][0]] = (int(following) == 0, int(following))
    walk = replace(walk, nodes=tuple(nodes))
    return [(yield from _end(topology, walk)) if all(done for done, _ in nodes) else walk.cursor, keys]


def _at(command: Command, cursor: int, share: int) -> Command:
    """The step on one node of several that share its count."""
    options = list(command[2:])
    if "COUNT" in options:
        place = options.index("COUNT") + 1
        options[place] = max(int(options[place]) // share, _DEFAULT_COUNT)
    return ("SCAN", cursor, *options)


def _begin(topology: Topology, restarts: int) -> Delivery[_Walk]:
    if restarts > _MAX_RESTARTS:
        raise ConnectionError("the primaries of the Redis Cluster change faster than their keys can be walked over")
    told = yield from topology.ask_all(_NODES_COMMAND)
    slots = yield from topology.slots()
    return _Walk(restarts, again=False, primaries=slots.mark, at_beginning=_mark(told), nodes=((False, 0),) * len(told))


def _end(topology: Topology, walk: _Walk) -> Delivery[int]:
    """The cursor after all nodes are done."""
    told = yield from topology.ask_all(_NODES_COMMAND)
    slots = yield from topology.slots()
    if slots.mark != walk.primaries:
        return (yield from _begin(topology, walk.restarts + 1)).cursor
    now = _mark(told)
    if walk.again or (now == walk.at_beginning and not any(b" [" in each for each in told.values() if _is_told(each))):
        return 0
    return replace(walk, again=True, at_beginning=now, nodes=((False, 0),) * len(walk.nodes)).cursor


def _mark(told: Mapping[Address, Any]) -> int:
    """32 bits by which it is known again which slots each primary has, and is moving.

    Nodes tell the latter of themselves alone. One whose ACL forbids to ask counts as one that never changes.
    """
    lines = [line for each in told.values() if _is_told(each) for line in each.splitlines() if b"myself" in line]
    owned = [(line.split()[0], line.split()[_FIRST_SLOT_FIELD:]) for line in lines]
    return zlib.crc32(repr(sorted(owned)).encode())


def _is_told(reply: object) -> bool:
    return isinstance(reply, bytes)
