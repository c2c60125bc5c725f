"""A batch of commands to the nodes of a Redis Cluster, and its replies back, whatever becomes of the nodes meanwhile.

MOVED and ASK are followed. Where a node gives no answer, the map of slots is read anew, and what that node was to do is
sent once more, to whom the map then names. A second failure is the caller's to know of: until the Cluster has put a
replica in the place of a primary that is gone, each call for that primary's keys fails like that, soon.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from embedcache.cluster.commands import Pieces, of_all, take_apart
from embedcache.cluster.scans import scan
from embedcache.cluster.slots import Address, Remap, SlotMap, redirected
from embedcache.cluster.topology import Delivery, Outcome, Round, Topology, gone
from embedcache.commands import Command
from embedcache.errors import ServerReplyError
from embedcache.scripts import script_of

MAX_ROUNDS: Final = 8
FIRST_WAIT_SECONDS: Final = 0.01
"""Before a command is tried again whose keys are on their way to another node; each further wait is twice as long."""

_DOWN: Final = frozenset({"CLUSTERDOWN", "MASTERDOWN", "READONLY"})
"""Said by a node that cannot serve its slots, or that is no primary any more."""
_AGAIN: Final = _DOWN | {"ASK", "MOVED", "NOSCRIPT", "TRYAGAIN"}


def deliver(topology: Topology, commands: Sequence[Command]) -> Delivery[list[Any]]:
    """One reply per command, in order; the servers' errors as values.

    Raises:
        ConnectionError: A node is gone, and the Cluster names no other for its slots yet.
        InvalidInputError: A command names no node.
    """
    pieces = take_apart(commands)
    replies = pieces.put_together((yield from _deliver(topology, pieces)) if pieces.commands else [])
    for at, command in pieces.of_all_nodes.items():
        if command[0] == "SCAN":
            replies[at] = yield from scan(topology, command)
        else:
            replies[at] = of_all(str(command[0]), list((yield from topology.ask_all(command)).values()))
    return replies


def _deliver(topology: Topology, pieces: Pieces) -> Delivery[list[Any]]:
    slots = yield from topology.slots()
    sending = _Sending(pieces, topology.remap)
    failed_before = False
    wait = FIRST_WAIT_SECONDS
    for _ in range(MAX_ROUNDS):
        going = sending.address(slots)
        sending.take((yield going) if going else {})
        if not sending.due:
            return sending.replies
        if sending.failed:
            if failed_before:
                break
            failed_before = True
            slots = yield from topology.learn(slots, sending.failed)
        if sending.moves:
            # After the map was read: who sends us elsewhere knows better than a node that has yet to hear of it.
            slots = topology.move(sending.moves)
        if sending.on_their_way:
            yield wait
            wait *= 2
    if sending.failed:
        raise gone(sending.failed, next(iter(sending.failed.values())))
    return sending.replies


@dataclass(slots=True)
class _Sending:
    """The pieces of one batch: which are to be sent where, and the replies so far.

    Attributes:
        due: The pieces to be sent, in order.
        replies: By piece.
        failed: Nodes that gave no answer in the last round.
        moves: Where slots are by the last round's replies.
        on_their_way: Whether keys of a piece are just being moved to another node.
    """

    pieces: Pieces
    remap: Remap | None
    due: list[int] = field(init=False)
    replies: list[Any] = field(init=False)
    failed: dict[Address, Exception] = field(default_factory=dict)
    moves: dict[int, Address] = field(default_factory=dict)
    on_their_way: bool = False
    _sent: dict[Address, list[int]] = field(default_factory=dict)
    _unserved: list[int] = field(default_factory=list)
    _asking: dict[int, Address] = field(default_factory=dict)
    _unknown: set[int] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.due = list(range(len(self.pieces.commands)))
        self.replies = [None] * len(self.due)

    def address(self, slots: SlotMap) -> Round:
        """What is due, by the node that it goes to."""
        going: Round = {}
        self._sent, self._unserved = {}, []
        self.failed, self.moves, self.on_their_way = {}, {}, False
        commands, owners, of_slot, asking = self.pieces.commands, slots.owners, self.pieces.slots, self._asking
        plain = not asking and not self._unknown
        for index in self.due:
            address = owners[of_slot[index]] if plain else asking.get(index) or owners[of_slot[index]]
            if address is None:
                self.failed["slot", of_slot[index]] = ConnectionError("no node serves it")
                self._unserved.append(index)
                continue
            queue = going.get(address)
            if queue is None:
                queue = going[address] = []
                self._sent[address] = []
            if plain:
                queue.append(commands[index])
                self._sent[address].append(index)
            else:
                self._add_specially(index, address, queue)
        return going

    def _add_specially(self, index: int, address: Address, queue: list[Command]) -> None:
        """Adds a piece that is redirected once, or whose script the node may not know."""
        sent, command = self._sent[address], self.pieces.commands[index]
        # Within a transaction, what was asked before MULTI holds until EXEC.
        if index in self._asking and self.pieces.bound.get(index, range(index, index + 1)).start == index:
            queue.append(("ASKING",))
            sent.append(-1)
        script = script_of(command[1]) if index in self._unknown else None
        if script is not None and not any(each[:2] == ("EVAL", script.source) for each in queue):
            command = ("EVAL", script.source, *command[2:])  # the others of this node then find it known
        queue.append(command)
        sent.append(index)

    def take(self, outcomes: dict[Address, Outcome]) -> None:
        """What came of it."""
        self._asking, self._unknown = {}, set()
        again = list(self._unserved)
        for address, indexes in self._sent.items():
            outcome = outcomes[address]
            if isinstance(outcome, Exception):
                self.failed[address] = outcome
                again += [index for index in indexes if index >= 0]
                continue
            for index, reply in zip(indexes, outcome, strict=True):
                if index < 0:
                    continue
                self.replies[index] = reply
                if isinstance(reply, ServerReplyError) and reply.code in _AGAIN and self._is_due(index, reply, address):
                    again.append(index)
        self.due = self._whole(again)

    def _is_due(self, index: int, reply: ServerReplyError, answered: Address) -> bool:
        """Whether a piece is to be sent again after this answer, and how."""
        if reply.code == "MOVED":
            self.moves.update([redirected(str(reply), answered, self.remap)])
        elif reply.code == "ASK":
            _, address = redirected(str(reply), answered, self.remap)
            self._asking.update(dict.fromkeys(self.pieces.bound.get(index, [index]), address))
        elif reply.code == "TRYAGAIN":
            self.on_their_way = True
        elif reply.code == "NOSCRIPT":
            self._unknown.add(index)
            return script_of(self.pieces.commands[index][1]) is not None
        else:
            self.failed[answered] = ConnectionError(str(reply))
        return True

    def _whole(self, again: list[int]) -> list[int]:
        """Those pieces, in order, and the rest of transactions that they are part of."""
        if not self.pieces.bound:
            return sorted(again)
        return sorted({each for index in again for each in self.pieces.bound.get(index, [index])})
