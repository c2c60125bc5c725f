"""Entries removed, or given another TTL, only where they are still those that somebody looked at.

An entry is known again by its key and by when it was inserted, which every write changes. Where the server runs
scripts, it looks and acts in one step; elsewhere an entry that is written in the moment between is taken for the old
one. A value that cannot be read has no such time: it is removed only while it still cannot be read.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Final

from embedcache import codec, redisvl_format
from embedcache.counters import NoCounters
from embedcache.entry import NEVER
from embedcache.keyspace import Keyspace
from embedcache.operations import Command, Operation, ServerAbilities, checked, checked_all, expire, run_script
from embedcache.scanning import heads
from embedcache.scripts import EachKey, Script


class Kind(IntEnum):
    """How an entry lay when it was looked at."""

    PACKED = 0
    HASH = 1
    UNREADABLE = 2


class Fate(IntEnum):
    """What became of it; the scripts answer with these digits."""

    GONE = ord("0")
    CHANGED = ord("1")
    KEPT = ord("2")
    SKIPPED = ord("3")


@dataclass(frozen=True, slots=True)
class Remove:
    """Entries are removed."""


@dataclass(frozen=True, slots=True)
class SetTTL:
    """Entries start a TTL of this many seconds, which is their own from now on; None never expires."""

    seconds: int | None


Action = Remove | SetTTL


def act(
    space: Keyspace,
    able: ServerAbilities,
    action: Action,
    kind: Kind,
    keys: Sequence[str],
    inserted_at: Sequence[float],
) -> Operation[bytes]:
    """Does it to those of the keys whose entries are unchanged; returns one `Fate` for each, as bytes.

    Args:
        space: The keys' namespace.
        able: What the server has not refused.
        action: What is to be done.
        kind: How all of them lay.
        keys: Keys of the namespace.
        inserted_at: When each entry was inserted, in Unix seconds; for unreadable ones it is not looked at.

    Raises:
        ForeignKeyError: A key lies outside the namespace; nothing was done.
        ServerReplyError: The server refuses.
    """
    space.owned_keys(keys)
    if not keys:
        return b""
    if kind is Kind.UNREADABLE:
        return (
            (yield from _remove_unreadable(keys)) if isinstance(action, Remove) else bytes([Fate.SKIPPED]) * len(keys)
        )
    found = yield from run_script(able, _SCRIPTS[type(action), kind], keys, _arguments(action, kind, inserted_at))
    if isinstance(found, bytes):
        return found
    same = yield from (_same_heads if kind is Kind.PACKED else _same_hashes)(keys, inserted_at)
    return (yield from _act_by_commands(space, able, action, kind, keys, same))


def remove_all(able: ServerAbilities, keys: Sequence[str]) -> Operation[tuple[int, int]]:
    """Removes whatever lies under the keys; returns how many there were, and the length of the strings among them."""
    if not keys:
        return 0, 0
    found = yield from run_script(able, _REMOVE_ALL, keys)
    if found is not None:
        return int(found[0]), int(found[1])
    sizes = yield [("STRLEN", key) for key in keys]
    removed = yield from checked_all(*(("UNLINK", key) for key in keys))
    return sum(removed), sum(size for size in sizes if isinstance(size, int))


# ------------------------------------------------------------------------------------------------ scripts

_FATE_OF_PACKED: Final = """
local function fate(key, inserted_at)
  local head = redis.pcall('GETRANGE', key, 0, 255)
  if head == '' and redis.call('EXISTS', key) == 0 then return '0' end
  if #head < 24 or string.sub(head, 1, 4) ~= 'EMB\\1' then return '2' end
  local model_bytes, text_bytes = struct.unpack('<I2I4', head, 19)
  local start = 24 + text_bytes + 1 + model_bytes + 1
  local found = string.sub(head, start + 1, start + 9)
  if #found < 9 then found = redis.call('GETRANGE', key, start, start + 8) end
  return found == '\\203' .. inserted_at and '1' or '2'
end
"""
"""`docs/format.md`: after the model name come the first byte of an array, and a float64 with its marker."""

_FATE_OF_HASH: Final = """
local function fate(key, inserted_at)
  local found = redis.pcall('HGET', key, 'inserted_at')
  if type(found) == 'string' then return tonumber(found) == tonumber(inserted_at) and '1' or '2' end
  return redis.call('EXISTS', key) == 0 and '0' or '2'
end
"""

_FIND_CHANGED: Final = """
local fates, changed = {}, {}
for i = 1, #KEYS do
  fates[i] = fate(KEYS[i], ARGV[i])
  if fates[i] == '1' then changed[#changed + 1] = KEYS[i] end
end
"""
"""KEYS: entries of one kind; ARGV: when each was inserted, packed in 8 bytes as it lies in the value, or in digits for
a hash; then, for a TTL, its seconds, 0 for never, and those as 4 little-endian bytes. Returns a digit for each.
"""

_UNLINK: Final = "if #changed > 0 then redis.call('UNLINK', unpack(changed)) end"
"""In one command: on their own, they took the server twice as long, most of it for its append-only file."""
_SET_OWN_TTL: Final = (
    f"for _, key in ipairs(changed) do redis.call('SETRANGE', key, {codec.TTL_OFFSET}, ARGV[#KEYS + 2]) end"
)
_SET_OWN_TTL_OF_HASH: Final = """
for _, key in ipairs(changed) do
  if ARGV[#KEYS + 1] == '0' then
    redis.call('HDEL', key, 'own_ttl')
  else
    redis.call('HSET', key, 'own_ttl', ARGV[#KEYS + 1] .. ' ' .. redis.call('HGET', key, 'inserted_at'))
  end
end
"""
_EXPIRE: Final = """
for _, key in ipairs(changed) do
  if ARGV[#KEYS + 1] == '0' then redis.call('PERSIST', key) else redis.call('EXPIRE', key, ARGV[#KEYS + 1]) end
end
"""
_ANSWER: Final = "\nreturn table.concat(fates)\n"

_SCRIPTS: Final[dict[tuple[type, Kind], Script]] = {
    (Remove, Kind.PACKED): Script(_FATE_OF_PACKED + _FIND_CHANGED + _UNLINK + _ANSWER, each_key=EachKey(args=1)),
    (Remove, Kind.HASH): Script(_FATE_OF_HASH + _FIND_CHANGED + _UNLINK + _ANSWER, each_key=EachKey(args=1)),
    (SetTTL, Kind.PACKED): Script(
        _FATE_OF_PACKED + _FIND_CHANGED + _SET_OWN_TTL + _EXPIRE + _ANSWER, each_key=EachKey(args=1)
    ),
    (SetTTL, Kind.HASH): Script(
        _FATE_OF_HASH + _FIND_CHANGED + _SET_OWN_TTL_OF_HASH + _EXPIRE + _ANSWER, each_key=EachKey(args=1)
    ),
}

_REMOVE_ALL: Final = Script(
    """
local bytes = 0
for i = 1, #KEYS do
  local size = redis.pcall('STRLEN', KEYS[i])
  if type(size) == 'number' then bytes = bytes + size end
end
return {redis.call('UNLINK', unpack(KEYS)), bytes}
""",
    each_key=EachKey(adds=True),
)
"""KEYS: anything. Removes it; returns how many there were, and the length of the strings among them."""

_INSERTED_AT: Final = struct.Struct(">d")


def _arguments(action: Action, kind: Kind, inserted_at: Sequence[float]) -> list[bytes | int]:
    write: Callable[[float], bytes] = _INSERTED_AT.pack if kind is Kind.PACKED else lambda at: repr(at).encode()
    times: list[bytes | int] = [write(float(at)) for at in inserted_at]
    if isinstance(action, Remove):
        return times
    seconds = action.seconds or 0
    return [*times, seconds, seconds.to_bytes(4, "little")]


# ------------------------------------------------------------------------------------------------ plain commands


def _same_heads(keys: Sequence[str], inserted_at: Sequence[float]) -> Operation[list[bool]]:
    """Which packed values were inserted then."""
    found = yield from heads(ServerAbilities(scripts=False), keys)
    wanted = map(_INSERTED_AT.pack, inserted_at)
    return [
        head is not None and _INSERTED_AT.pack(head.inserted_at) == at
        for (head, _), at in zip(found, wanted, strict=True)
    ]


def _same_hashes(keys: Sequence[str], inserted_at: Sequence[float]) -> Operation[list[bool]]:
    replies = yield [("HGET", key, "inserted_at") for key in keys]
    return [
        isinstance(reply, bytes) and redisvl_format.seconds(reply) == at
        for reply, at in zip(replies, inserted_at, strict=True)
    ]


def _act_by_commands(
    space: Keyspace, able: ServerAbilities, action: Action, kind: Kind, keys: Sequence[str], same: Sequence[bool]
) -> Operation[bytes]:
    there = yield from checked_all(*(("EXISTS", key) for key in keys))
    fates = [Fate.KEPT if exists else Fate.GONE for exists in there]
    chosen = [index for index, unchanged in enumerate(same) if unchanged]
    done = yield from _done(space, able, action, kind, [keys[index] for index in chosen])
    for index, was_there in zip(chosen, done, strict=True):
        fates[index] = Fate.CHANGED if was_there else Fate.GONE
    return bytes(fates)


def _done(
    space: Keyspace, able: ServerAbilities, action: Action, kind: Kind, keys: Sequence[str]
) -> Operation[list[bool]]:
    """Does it to all of these keys; returns which of them were there."""
    if isinstance(action, SetTTL) and kind is Kind.PACKED:
        ttl = NEVER if action.seconds is None else action.seconds
        changed = []
        for key in keys:
            changed.append((yield from expire(space, able, NoCounters(), key, ttl)))  # noqa: PERF401 - it cannot yield
        return changed
    replies = (yield from checked_all(*map(_command(action), keys))) if keys else []
    persisted = isinstance(action, SetTTL) and action.seconds is None  # PERSIST says 0 where there was no expiry, too
    return [bool(reply) or persisted for reply in replies]


def _command(action: Action) -> Callable[[str], Command]:
    if isinstance(action, Remove):
        return lambda key: ("UNLINK", key)
    seconds = action.seconds
    return lambda key: ("PERSIST", key) if seconds is None else ("EXPIRE", key, seconds)


# ------------------------------------------------------------------------------------------------ unreadable values


def _remove_unreadable(keys: Sequence[str]) -> Operation[bytes]:
    """Removes what still cannot be read. For that, values are read whole, as a lookup would."""
    values = yield from checked(("MGET", *keys))
    others = [key for key, value in zip(keys, values, strict=True) if value is None]
    hashes = yield from _readable_hashes(others)
    readable = {
        key
        for key, value in zip(keys, values, strict=True)
        if value is not None and codec.decode_by_key(value, key) is not None
    } | hashes
    removable = [key for key in keys if key not in readable]
    removed = (yield from checked_all(*(("UNLINK", key) for key in removable))) if removable else []
    fates = dict.fromkeys(readable, Fate.KEPT)
    fates |= {key: Fate.CHANGED if reply else Fate.GONE for key, reply in zip(removable, removed, strict=True)}
    return bytes(fates[key] for key in keys)


def _readable_hashes(keys: Sequence[str]) -> Operation[set[str]]:
    """Those under which an entry of RedisVL lies."""
    if not keys:
        return set()
    replies = yield [("HMGET", key, *redisvl_format.HEAD_FIELDS, "embedding") for key in keys]
    return {key for key, reply in zip(keys, replies, strict=True) if _is_hash_entry(key, reply)}


def _is_hash_entry(key: str, reply: Any) -> bool:
    if not isinstance(reply, list):  # the error of a key of another type
        return False
    *head, embedding = reply
    return (
        embedding is not None
        and redisvl_format.is_vector(embedding)
        and redisvl_format.decode_head(head, key) is not None
    )
