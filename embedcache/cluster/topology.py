"""What is known of a Redis Cluster's nodes, and how more is learnt.

A delivery is a generator that does no I/O, as an operation is one. It yields what goes to which node, all at the same
time, or seconds to wait; it is sent what came of that, for each node its replies or why there are none.
`embedcache.cluster.connections` moves it along, sync and async.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Mapping
from typing import Any, Final, TypeAlias, TypeVar

from embedcache.cluster.slots import Address, Remap, SlotMap
from embedcache.commands import Command
from embedcache.errors import ServerReplyError

R = TypeVar("R")

Round: TypeAlias = dict[Address, list[Command]]
"""What goes to each node."""
Outcome: TypeAlias = list[Any] | Exception
"""A node's replies, or why there are none."""
Delivery: TypeAlias = Generator[Round | float, dict[Address, Outcome], R]

_MAX_TRIES: Final = 8
_SLOTS_COMMAND: Final[Command] = ("CLUSTER", "SLOTS")


class Topology:
    """A Cluster's nodes and who serves which slot, as far as they are known. Threads and event loops share it.

    Args:
        startup: Addresses of some of its nodes.
        remap: Says where a node is reached, if not at the address that the nodes name.
    """

    def __init__(self, startup: Iterable[Address], remap: Remap | None = None) -> None:
        self._startup = tuple(startup)
        self._slots: SlotMap | None = None
        self.remap = remap

    def slots(self) -> Delivery[SlotMap]:
        """The map of slots as it is known."""
        return self._slots or (yield from self.learn(None))

    def move(self, moves: Mapping[int, Address]) -> SlotMap:
        """The map, after a node has told where these slots are."""
        known = self._slots or SlotMap.empty()
        self._slots = moved = known.with_moves(moves)
        return moved

    def learn(self, known: SlotMap | None, failed: Iterable[Address] = ()) -> Delivery[SlotMap]:
        """The map of slots read anew, unless another call has read it meanwhile.

        Args:
            known: The map that proved to be wrong.
            failed: Nodes that gave no answer; they are asked last.

        Raises:
            ConnectionError: No node answers.
            ServerReplyError: A node refuses to tell, or is none of a Cluster.
        """
        current = self._slots
        if current is not None and current is not known:
            return current
        last: Exception | None = None
        known_nodes = () if current is None else (*current.primaries, *current.nodes)
        candidates = dict.fromkeys((*known_nodes, *self._startup))
        for address in sorted(candidates, key=set(failed).__contains__):
            outcome = (yield {address: [_SLOTS_COMMAND]})[address]
            if isinstance(outcome, Exception):
                last = outcome
            elif outcome[0]:
                return self._note(outcome[0], address)
        raise gone(candidates, last)

    def ask_all(self, command: Command) -> Delivery[dict[Address, Any]]:
        """What all primaries reply, going by a map of slots that is as new as the replies.

        Raises:
            ConnectionError: One of them gives no answer, or there are slots without a primary: what the others say is
                not all.
        """
        slots = yield from self.slots()
        for _ in range(_MAX_TRIES):
            first, *others = slots.primaries
            outcomes = yield {first: [command, _SLOTS_COMMAND], **{address: [command] for address in others}}
            replies, failed = sorted_out(outcomes)
            if failed:
                newer = yield from self.learn(slots, failed)
                if newer.primaries == slots.primaries:
                    raise gone(failed, next(iter(failed.values())))
            else:
                newer = self._note(replies[first][1], first)
            if newer.primaries == slots.primaries:
                if not newer.covers_all:
                    raise ConnectionError("some slots of the Redis Cluster have no primary")
                return {address: found[0] for address, found in replies.items()}
            slots = newer
        raise ConnectionError("the primaries of the Redis Cluster change faster than they can be asked")

    def _note(self, reply: Any, asked: Address) -> SlotMap:
        if isinstance(reply, ServerReplyError):
            raise reply
        self._slots = found = SlotMap.parse(reply, asked, self.remap)
        return found


def sorted_out(outcomes: Mapping[Address, Outcome]) -> tuple[dict[Address, list[Any]], dict[Address, Exception]]:
    """The replies of the nodes that answered, and why the others did not."""
    replies = {address: each for address, each in outcomes.items() if not isinstance(each, Exception)}
    failed = {address: each for address, each in outcomes.items() if isinstance(each, Exception)}
    return replies, failed


def gone(addresses: Iterable[Address], why: Exception | None) -> ConnectionError:
    """The error of a round trip to nodes that gave no answer."""
    named = ", ".join(f"{host}:{port}" for host, port in addresses)
    error = ConnectionError(f"{named}: {why}" if why else f"{named}: no node knows of any slots")
    error.__cause__ = why
    return error
