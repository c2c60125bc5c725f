"""Commands as a Redis Cluster takes them, and its replies as operations expect them.

A Cluster refuses a command whose keys lie in several slots, even where one node has them all. So a command of many keys
is taken apart into one for each key; those of a node go to it in one pipeline. (The ids that end our keys are hashes:
of 1,000 keys, 970 have a slot of their own, and MGET for each slot would save nothing.) A command whose keys belong
together is sent whole.

A command of which nobody has said here where its keys are, and who is to answer it, is refused: one node's answer would
pass for that of all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, takewhile
from typing import Any, Final, TypeAlias

from embedcache.cluster.slots import slot_of
from embedcache.commands import Command
from embedcache.errors import InvalidInputError, ServerReplyError
from embedcache.scripts import script_of

Join: TypeAlias = Callable[[list[Any]], Any]
"""Makes one reply of many."""

# ------------------------------------------------------------------------------------------------ which command is what

_WITH_ONE_KEY: Final = frozenset(
    """
    APPEND DECR DECRBY DUMP EXPIRE EXPIREAT EXPIRETIME GET GETDEL GETEX GETRANGE GETSET HDEL HEXISTS HGET HGETALL
    HINCRBY HKEYS HLEN HMGET HSCAN HSET HSETNX HSTRLEN HVALS INCR INCRBY LINDEX LLEN LPOP LPUSH LRANGE LREM LSET LTRIM
    PERSIST PEXPIRE PEXPIREAT PEXPIRETIME PTTL RESTORE RPOP RPUSH SADD SCARD SET SETEX SETNX SETRANGE SISMEMBER SMEMBERS
    SMISMEMBER SREM SSCAN STRLEN TTL TYPE ZADD ZCARD ZCOUNT ZINCRBY ZMSCORE ZRANGE ZRANK ZREM ZREMRANGEBYRANK
    ZREMRANGEBYSCORE ZREVRANGE ZSCAN ZSCORE
    """.split()  # noqa: SIM905 - to be read as a list of words
)
_WITH_KEY_SECOND: Final = frozenset(
    {("MEMORY", "USAGE"), ("OBJECT", "ENCODING"), ("OBJECT", "FREQ"), ("OBJECT", "IDLETIME")}
)
_COUNTED: Final = frozenset({"DEL", "EXISTS", "TOUCH", "UNLINK"})
_OF_ANY_NODE: Final = frozenset({"TIME"})
OF_ALL_NODES: Final = frozenset({"DBSIZE", "INFO", "PING", "SCAN"})
"""Commands without a key that every primary answers."""


@dataclass(slots=True)
class Pieces:
    """A batch of commands, taken apart.

    Attributes:
        commands: Those to be sent. Those of one slot go to one node in this order.
        slots: The slot of each.
        bound: Of a piece that is part of a transaction, from where to where that goes.
        of_all_nodes: Commands that all primaries answer, by their place in the batch.
    """

    commands: list[Command] = field(default_factory=list)
    slots: list[int] = field(default_factory=list)
    bound: dict[int, range] = field(default_factory=dict)
    of_all_nodes: dict[int, Command] = field(default_factory=dict)
    _asked: int = 0
    _joins: list[tuple[int, Join | None]] = field(default_factory=list)

    def add(self, command: Command, slot: int) -> None:
        """A command that is sent as it is."""
        self.commands.append(command)
        self.slots.append(slot)
        self._joins.append((1, None))
        self._asked += 1

    def add_parts(self, parts: Iterable[tuple[Command, str | bytes]], join: Join) -> None:
        """A command in parts, each with a key, and what makes its reply of theirs."""
        before = len(self.commands)
        for command, key in parts:
            self.commands.append(command)
            self.slots.append(slot_of(key))
        self._joins.append((len(self.commands) - before, lambda replies: [join(replies)]))
        self._asked += 1

    def add_for_all(self, command: Command) -> None:
        """A command that is no piece, for all primaries answer it."""
        self.of_all_nodes[self._asked] = command
        self.add_answered(None)

    def add_answered(self, reply: object) -> None:
        """A command whose reply is known."""
        self._joins.append((0, lambda _: [reply]))
        self._asked += 1

    def add_transactions(self, by_slot: Mapping[int, Sequence[Command]], join: Join, asked: int) -> None:
        """Transactions in place of one; `join` makes the replies to so many commands of theirs."""
        before = len(self.commands)
        for slot, commands in by_slot.items():
            whole = range(len(self.commands), len(self.commands) + len(commands))
            self.bound.update(dict.fromkeys(whole, whole))
            self.commands += commands
            self.slots += [slot] * len(commands)
        self._joins.append((len(self.commands) - before, join))
        self._asked += asked

    def put_together(self, replies: Sequence[Any]) -> list[Any]:
        """The replies to the batch, from those to its pieces; None for a command of all nodes."""
        together: list[Any] = []
        start = 0
        for count, join in self._joins:
            if join is None:
                together.append(replies[start])
            else:
                together += join(list(replies[start : start + count]))
            start += count
        return together


def take_apart(commands: Sequence[Command]) -> Pieces:
    """A batch as a Cluster takes it.

    Raises:
        InvalidInputError: A command has no key, and nobody has said who is to answer it.
    """
    pieces = Pieces()
    waiting = iter(commands)
    for command in waiting:
        if command[0] == "MULTI":
            _add_transaction(pieces, list(takewhile(lambda each: each[0] != "EXEC", waiting)))
        else:
            _add(pieces, command)
    return pieces


def _add(pieces: Pieces, command: Command) -> None:
    name = str(command[0])
    if name in _WITH_ONE_KEY:
        pieces.add(command, slot_of(_key(command[1])))
    elif name in _SPLIT:
        _SPLIT[name](pieces, command)
    elif name in _COUNTED:
        pieces.add_parts(_each(name, command[1:]), _sums)
    elif name in OF_ALL_NODES:
        pieces.add_for_all(command)
    elif name in _OF_ANY_NODE:
        pieces.add(command, 0)
    elif len(command) > 2 and (name, command[1]) in _WITH_KEY_SECOND:  # noqa: PLR2004 - name, subcommand, key
        pieces.add(command, slot_of(_key(command[2])))
    else:
        raise _has_no_node(command)


def _has_no_node(command: Command) -> InvalidInputError:
    named = " ".join(str(part) for part in command[:2])[:40]
    return InvalidInputError(
        f"{named} names no key that tells which node of the Redis Cluster is to answer it, and one node's answer is not"
        " that of all"
    )


# ------------------------------------------------------------------------------------------------ transactions


def _add_transaction(pieces: Pieces, commands: Sequence[Command]) -> None:
    """A transaction, or where its keys lie in several slots, one for each: a Cluster has none across slots."""
    slots = [_slot_of_one(command) for command in commands]
    places: dict[int, list[int]] = {}
    for place, slot in enumerate(slots):
        places.setdefault(slot, []).append(place)
    by_slot = {slot: [("MULTI",), *(commands[at] for at in found), ("EXEC",)] for slot, found in places.items()}

    def join(replies: list[Any]) -> list[Any]:
        queued: list[Any] = [None] * len(commands)
        done: list[Any] = [None] * len(commands)
        begun: list[Any] = []
        ended: list[Any] = []
        start = 0
        for found in places.values():
            first, *between, last = replies[start : start + len(found) + 2]
            start += len(found) + 2
            begun.append(first)
            ended.append(last)
            for at, reply in zip(found, between, strict=True):
                queued[at] = reply
            if isinstance(last, list):
                for at, reply in zip(found, last, strict=True):
                    done[at] = reply
        return [_error_among(begun) or begun[0], *queued, _error_among(ended) or done]

    pieces.add_transactions(by_slot, join, len(commands) + 2)


def _slot_of_one(command: Command) -> int:
    name, alone = str(command[0]), Pieces()
    _add(alone, command)
    if len(alone.slots) != 1:
        raise InvalidInputError(f"{name} cannot be part of a transaction on a Redis Cluster")
    return alone.slots[0]


# ------------------------------------------------------------------------------------------------ commands of many keys


def _each(name: str, keys: Iterable[Any]) -> Iterator[tuple[Command, str | bytes]]:
    return (((name, key), key) for key in keys)


def _add_mget(pieces: Pieces, command: Command) -> None:
    pieces.add_parts(_each("GET", command[1:]), _values)


def _values(replies: list[Any]) -> Any:
    # GET says of another type what MGET passes over.
    values = [None if isinstance(each, ServerReplyError) and each.code == "WRONGTYPE" else each for each in replies]
    return _error_among(values) or values


def _add_mset(pieces: Pieces, command: Command) -> None:
    pairs = zip(command[1::2], command[2::2], strict=True)
    pieces.add_parts(((("SET", key, value), _key(key)) for key, value in pairs), _all_done)


def _add_msetex(pieces: Pieces, command: Command) -> None:
    end = 2 + 2 * int(command[1])
    pairs = zip(command[2:end:2], command[3:end:2], strict=True)
    # As SET, which servers without MSETEX have, too.
    pieces.add_parts(((("SET", key, value, *command[end:]), _key(key)) for key, value in pairs), _all_done)


def _all_done(replies: list[Any]) -> Any:
    return _error_among(replies) or 1


def _add_script(pieces: Pieces, command: Command) -> None:
    name, text, count = command[0], command[1], int(command[2])
    keys, args = [_key(key) for key in command[3 : 3 + count]], command[3 + count :]
    script = script_of(text)
    each = None if script is None else script.each_key
    if count > 1 and each is not None:
        shared = args[each.args * count :]
        parts = (
            ((name, text, 1, key, *args[each.args * at : each.args * (at + 1)], *shared), key)
            for at, key in enumerate(keys)
        )
        pieces.add_parts(parts, _sums if each.adds else _in_a_row)
    elif not keys:
        raise _has_no_node(command)
    elif len(slots := set(map(slot_of, keys))) > 1:
        # In the server's own words: an operation then does by commands what it would have done by the script.
        pieces.add_answered(ServerReplyError("CROSSSLOT Keys in request don't hash to the same slot"))
    else:
        pieces.add(command, *slots)


def _in_a_row(replies: list[Any]) -> Any:
    """Lists or strings, one after the other."""
    if (error := _error_among(replies)) is not None:
        return error
    return b"".join(replies) if isinstance(replies[0], bytes) else list(chain.from_iterable(replies))


def _sums(replies: list[Any]) -> Any:
    """The sum of numbers, or of each place in lists of them."""
    if (error := _error_among(replies)) is not None:
        return error
    return list(map(sum, zip(*replies, strict=True))) if isinstance(replies[0], list) else sum(replies)


def _error_among(replies: Iterable[Any]) -> ServerReplyError | None:
    return next((reply for reply in replies if isinstance(reply, ServerReplyError)), None)


_SPLIT: Final[dict[str, Callable[[Pieces, Command], None]]] = {
    "MGET": _add_mget,
    "MSET": _add_mset,
    "MSETEX": _add_msetex,
    "EVAL": _add_script,
    "EVALSHA": _add_script,
}


def _key(part: str | bytes | float) -> str | bytes:
    return part if isinstance(part, str | bytes) else str(part)


# ------------------------------------------------------------------------------------------------ replies of all nodes

_SUMMED_INFO: Final = frozenset(
    """
    blocked_clients connected_clients evicted_keys expired_keys instantaneous_ops_per_sec keyspace_hits keyspace_misses
    maxmemory rdb_changes_since_last_save rejected_connections total_commands_processed total_connections_received
    total_system_memory used_memory used_memory_dataset used_memory_rss
    """.split()  # noqa: SIM905 - to be read as a list of words
)
_LEAST_INFO: Final = frozenset({"rdb_last_save_time", "uptime_in_seconds"})


def of_all(name: str, replies: Sequence[Any]) -> Any:
    """One reply of those of all primaries, or the first error among them."""
    if (error := _error_among(replies)) is not None:
        return error
    if name == "DBSIZE":
        return sum(replies)
    return _merged_info(replies) if name == "INFO" else replies[0]


def _merged_info(infos: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What a Cluster says of itself: memory and counts added up, the shortest uptime, and trouble where one has any."""
    merged = dict(infos[0])
    for name in merged:
        found = [info[name] for info in infos if name in info]
        if name in _SUMMED_INFO:
            merged[name] = sum(found)
        elif name in _LEAST_INFO:
            merged[name] = min(found)
        elif name.endswith("_status"):
            merged[name] = next((each for each in found if each != "ok"), "ok")
    if not all(info.get("maxmemory", 0) for info in infos):
        merged["maxmemory"] = 0  # one without a limit leaves the sum without one
    return merged
