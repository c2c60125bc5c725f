"""What operations are written with: batches of commands, replies that are checked, scripts."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias, TypeVar

from embedcache.errors import ServerReplyError
from embedcache.scripts import Script

R = TypeVar("R")
T = TypeVar("T")

Command: TypeAlias = tuple[str | bytes | int | float, ...]
Operation: TypeAlias = Generator[list[Command], list[Any], R]


class Posted(list[Command]):
    """A batch that is sent now and whose replies are asked for later, by yielding `REPLIES`; this yield gives none.

    Meanwhile the operation works on what it has, and the server on the batch. In between it posts more at most, but
    yields nothing else. A batch may be sent twice where its replies get lost on the way, so it is one that does no harm
    the second time. It is never empty.
    """


REPLIES: Final = Posted()
"""Yielded for the replies of a batch that was posted: of the first whose replies were not asked for yet."""

_AHEAD: Final = 4

CHUNK_ENTRIES: Final = 1_000
"""Entries moved by one command. Larger ones gained no speed and hold the server up for longer."""
CHUNK_BYTES: Final = 8 * 1024 * 1024


@dataclass(slots=True)
class ServerAbilities:
    """What this server has not refused so far. Shared by threads: a lost update costs one more refusal.

    Attributes:
        scripts: EVAL and EVALSHA on several keys (an ACL may forbid them).
        msetex: The MSETEX command (Valkey 9.1, Redis 8.4).
    """

    scripts: bool = True
    msetex: bool = True


# ------------------------------------------------------------------------------------------------ replies


def chunks(items: Sequence[T]) -> Iterator[Sequence[T]]:
    """The items, as many at a time as one command moves."""
    if len(items) <= CHUNK_ENTRIES:
        return iter([items] if items else [])
    return (items[start : start + CHUNK_ENTRIES] for start in range(0, len(items), CHUNK_ENTRIES))


def checked(*commands: Command) -> Operation[Any]:
    """Sends commands, raises the first error among the replies, and returns the first reply."""
    return (yield from checked_all(*commands))[0]


def checked_all(*commands: Command) -> Operation[list[Any]]:
    """Sends commands, raises the first error among the replies, and returns them all."""
    replies = yield list(commands)
    for reply in replies:
        raise_if_error(reply)
    return replies


def raise_if_error(reply: object) -> None:
    """Raises a reply that is an error of the server."""
    if isinstance(reply, ServerReplyError):
        raise reply


def run_ahead(
    batches: Iterable[tuple[T, Sequence[Command]]], take: Callable[[T, list[Any]], object]
) -> Operation[None]:
    """Sends batches, each with what it is for, and hands the replies over in order, some batches later.

    So the next batch is made, and the replies to an earlier one are worked on, while the server is at it.
    """
    waiting: deque[T] = deque()
    for purpose, commands in batches:
        yield Posted(commands)
        waiting.append(purpose)
        if len(waiting) == _AHEAD:
            take(waiting.popleft(), (yield REPLIES))
    while waiting:
        take(waiting.popleft(), (yield REPLIES))


def run_script(
    able: ServerAbilities, script: Script, keys: Sequence[str | bytes], args: Sequence[bytes | int] = ()
) -> Operation[Any]:
    """The script's reply, or None where this server runs none for us (no script of ours returns nil)."""
    if not able.scripts:
        return None
    tail = (len(keys), *keys, *args)
    (reply,) = yield [("EVALSHA", script.sha, *tail)]
    if _is_unknown_script(reply):
        (reply,) = yield [("EVAL", script.source, *tail)]
    if is_refusal(reply):
        able.scripts = False
        return None
    raise_if_error(reply)
    return reply


def run_each(
    able: ServerAbilities, script: Script, calls: Sequence[tuple[Sequence[str], Sequence[bytes | int]]]
) -> Operation[list[Any] | None]:
    """The script's replies to calls that each have keys and arguments; None where this server runs none for us.

    All in one round trip, and one after the other: the server answers others in between. In place of a reply stands
    None where a Cluster keeps a call's keys apart.
    """
    if not able.scripts:
        return None
    tails = [(len(keys), *keys, *args) for keys, args in calls]
    replies = yield [("EVALSHA", script.sha, *tail) for tail in tails]
    unknown = [at for at, reply in enumerate(replies) if _is_unknown_script(reply)]
    if unknown:
        again = yield [("EVAL", script.source, *tails[at]) for at in unknown]
        for at, reply in zip(unknown, again, strict=True):
            replies[at] = reply
    replies = [None if _is_apart(reply) else reply for reply in replies]
    if any(map(is_refusal, replies)):
        able.scripts = False
        return None
    for reply in replies:
        raise_if_error(reply)
    return replies


def _is_apart(reply: object) -> bool:
    return isinstance(reply, ServerReplyError) and reply.code == "CROSSSLOT"


def _is_unknown_script(reply: object) -> bool:
    return isinstance(reply, ServerReplyError) and reply.code == "NOSCRIPT"


def is_refusal(reply: object) -> bool:
    """Whether the server refused the command as such, rather than what it was asked to do."""
    return isinstance(reply, ServerReplyError) and (
        reply.code in {"NOPERM", "CROSSSLOT"} or "unknown command" in str(reply).lower()
    )


def is_other_type(reply: object) -> bool:
    """Whether a reply says that what is there is of another type than was asked for.

    Raises:
        ServerReplyError: It is another error: a refusal tells nothing of a value, and is not to be taken for damage.
    """
    if not isinstance(reply, ServerReplyError):
        return False
    if reply.code != "WRONGTYPE":
        raise reply
    return True
