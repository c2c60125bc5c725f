"""Operations moved along by hand: the replies of a server that is not there."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from embedcache import codec, operations
from embedcache.counters import NoCounters
from embedcache.keyspace import Keyspace
from embedcache.operations import REPLIES, Operation, Posted, ServerAbilities

Trip = list[tuple[Any, ...]]
Answer = Callable[[Trip], list[Any]]


def play(operation: Operation[Any], *replies: list[Any] | Answer, then: Answer | None = None) -> tuple[Any, list[Trip]]:
    """The operation's result and its round trips, each answered by the replies, or by what is called with it.

    `then` answers those that follow; without it, there are to be as many round trips as replies. A batch that is posted
    is a round trip, too, and is answered when its replies are asked for.
    """
    trips: list[Trip] = []
    posted: deque[Trip] = deque()
    waiting = iter(replies)

    def answered(trip: Trip) -> list[Any]:
        answer = next(waiting, then)
        assert answer is not None, f"a round trip too many: {trip!r:.200}"
        return answer(trip) if callable(answer) else answer

    try:
        commands = next(operation)
        while True:
            if commands is REPLIES:
                commands = operation.send(answered(posted.popleft()))
                continue
            trips.append(commands)
            if isinstance(commands, Posted):
                posted.append(commands)
                commands = operation.send([])
            else:
                assert not posted, f"between a posted batch and its replies: {commands!r:.200}"
                commands = operation.send(answered(commands))
    except StopIteration as end:
        assert next(waiting, None) is None, "not every reply was asked for"
        return end.value, trips


def written(item: dict[str, Any], *, space: Keyspace, dtype: str = "float32", now: float = 1.0) -> tuple[str, bytes]:
    """The key and the value that a cache sends for an item."""
    operation = operations.mset(
        space, ServerAbilities(), NoCounters(), codec.stored_dtype(dtype), [item], None, now=now
    )
    _, (((_, key, value, *_),),) = play(operation, [True])
    return key, bytes(value)
