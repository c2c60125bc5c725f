"""The round trips of a conversion: entries read in one layout, and replaced or copied in the other.

An entry is replaced only while it is still what was read, told by its SHA-1, and in one step of the server's: it lies
in one of the two layouts at any time. Where the server refuses scripts, what somebody writes within the round trip in
between is lost.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from hashlib import sha1
from typing import Final, Protocol

from embedcache import codec
from embedcache.entry_layout import EntryLayout
from embedcache.keyspace import Keyspace
from embedcache.operations import Command, Operation, ServerAbilities, checked_all, is_other_type, run_each
from embedcache.packed_layout import PACKED
from embedcache.redisvl_format import ENTRY_FIELDS, from_packed, to_packed
from embedcache.redisvl_layout import RedisVLLayout
from embedcache.scripts import Script


class Fate(Enum):
    """What became of a key."""

    CONVERTED = auto()
    SKIPPED = auto()
    UNREADABLE = auto()
    CHANGED = auto()
    GONE = auto()


@dataclass(frozen=True, slots=True)
class Entry:
    """An entry to convert.

    Attributes:
        key: Where it lies.
        digest: SHA-1, in hex, of what lies there.
        target: Where it is to lie; of bytes, the layouts have different keys.
        parts: What is to be written there: a packed value, or fields and their values.
        milliseconds: Left until it expires, below 0 where it does not.
    """

    key: str
    digest: bytes
    target: str
    parts: tuple[bytes, ...]
    milliseconds: int

    @property
    def moves(self) -> bool:
        """Whether it is to lie under another key."""
        return self.key != self.target


class Conversion(Protocol):
    """The way from one layout to the other.

    Attributes:
        command: What writes an entry's parts.
        script: What replaces an entry in one step. KEYS: where it lies and, if elsewhere, where it is to lie; ARGV: its
            digest and its parts.
    """

    command: str
    script: Script

    def read(self, keys: Sequence[str]) -> Operation[list[Entry | Fate]]:
        """The entries to convert under these keys, or why there is none."""


# ------------------------------------------------------------------------------------------------ writing

_NO_KEY: Final = -2  # what PTTL says of a key that expired since its value was read
_FATES: Final = (Fate.GONE, Fate.CONVERTED, Fate.CHANGED, Fate.SKIPPED)
"""By the scripts' replies."""

_COPY: Final = Script("""
if redis.call('EXISTS', KEYS[1]) == 1 then return 3 end
redis.call(ARGV[2], KEYS[1], unpack(ARGV, 3))
if tonumber(ARGV[1]) >= 0 then redis.call('PEXPIRE', KEYS[1], ARGV[1]) end
return 1
""")
"""KEYS: where an entry is to lie; ARGV: its milliseconds, below 0 for never, the command that writes it, its parts."""


def replace(way: Conversion, able: ServerAbilities, entries: Sequence[Entry]) -> Operation[list[Fate]]:
    """Replaces entries where they lie, each with its expiry; not those that have changed since they were read."""
    calls = [([each.key, each.target][: 1 + each.moves], (each.digest, *each.parts)) for each in entries]
    found = (yield from run_each(able, way.script, calls)) or [None] * len(entries)
    left = [entry for entry, fate in zip(entries, found, strict=True) if fate is None]
    if not left:
        return [_FATES[fate] for fate in found]
    plainly = yield from _write_plainly(way, left, [each.target for each in left if each.moves], replaces=True)
    fates = iter(plainly)
    return [next(fates) if fate is None else _FATES[fate] for fate in found]


def copy(way: Conversion, able: ServerAbilities, entries: Sequence[Entry]) -> Operation[list[Fate]]:
    """Writes entries to another cache, each with what is left of its time; not those that it has already."""
    calls: list[tuple[list[str], list[bytes | int]]] = [
        ([each.target], [each.milliseconds, way.command.encode(), *each.parts]) for each in entries
    ]
    found = yield from run_each(able, _COPY, calls)
    if found is not None:
        return [_FATES[fate] for fate in found]
    return (yield from _write_plainly(way, entries, [each.target for each in entries], replaces=False))


def _write_plainly(
    way: Conversion, entries: Sequence[Entry], unless_there: Sequence[str], *, replaces: bool
) -> Operation[list[Fate]]:
    """What the scripts do, where they are refused: each entry in a transaction."""
    there = (yield from checked_all(*(("EXISTS", key) for key in unless_there))) if unless_there else []
    taken = {key for key, is_there in zip(unless_there, there, strict=True) if is_there}
    due = [entry for entry in entries if entry.target not in taken]
    if due:
        yield from checked_all(*(command for entry in due for command in _transaction(way, entry, replaces=replaces)))
    return [Fate.SKIPPED if entry.target in taken else Fate.CONVERTED for entry in entries]


def _transaction(way: Conversion, entry: Entry, *, replaces: bool) -> Iterator[Command]:
    yield ("MULTI",)
    if replaces:
        yield ("UNLINK", entry.key)
    yield (way.command, entry.target, *entry.parts)
    if entry.milliseconds >= 0:
        yield ("PEXPIRE", entry.target, entry.milliseconds)
    yield ("EXEC",)


# ------------------------------------------------------------------------------------------------ to RedisVL's hashes


class ToRedisVL:
    """Packed values become hashes.

    Args:
        name: The cache that is read.
        target_name: The cache that is written.
    """

    command = "HSET"
    script = Script("""
local value = redis.pcall('GET', KEYS[1])
if value == false then return 0 end
if type(value) ~= 'string' or redis.sha1hex(value) ~= ARGV[1] then return 2 end
local target = KEYS[#KEYS]
if target ~= KEYS[1] and redis.call('EXISTS', target) == 1 then return 3 end
redis.call('SETRANGE', KEYS[1], 0, '')
local left = redis.call('PTTL', KEYS[1])
redis.call('UNLINK', KEYS[1])
redis.call('HSET', target, unpack(ARGV, 2))
if left >= 0 then redis.call('PEXPIRE', target, left) end
return 1
""")
    """As `Conversion.script`. SETRANGE changes nothing; a server that is full refuses it as it would HSET, but before
    anything is removed."""

    def __init__(self, name: str, target_name: str) -> None:
        self._source, self._target = Keyspace(name), Keyspace(target_name, hex_bytes=True)
        self._layout = RedisVLLayout(codec.stored_dtype("float64"))

    def read(self, keys: Sequence[str]) -> Operation[list[Entry | Fate]]:
        """See `Conversion.read`."""
        values, *left = yield from checked_all(("MGET", *keys), *(("PTTL", key) for key in keys))
        found = [
            None if value is None else self._entry(key, value, milliseconds)
            for key, value, milliseconds in zip(keys, values, left, strict=True)
        ]
        return (yield from _judged(self._layout, keys, found))

    def _entry(self, key: str, value: bytes, milliseconds: int) -> Entry | Fate:
        if milliseconds == _NO_KEY:
            return Fate.GONE
        fields = None
        if codec.decode_by_key(value, key) is not None:
            target = _key_of(self._target, value, key)
            fields = from_packed(value, target)
        if fields is None:
            return Fate.UNREADABLE
        parts = tuple(part for name, field in fields.items() for part in (name.encode(), field))
        return Entry(key, _sha1(value), target, parts, milliseconds)


# ------------------------------------------------------------------------------------------------ to packed values


class ToPacked:
    """Hashes become packed values.

    Args:
        name: The cache that is read.
        target_name: The cache that is written.
        dtype: How vectors are stored.
    """

    command = "SET"
    script = Script(
        f"""
local values = redis.pcall('HMGET', KEYS[1], {", ".join(f"'{name}'" for name in ENTRY_FIELDS)})
if values.err then return 2 end
local parts = {{}}
for i = 1, {len(ENTRY_FIELDS)} do parts[i] = values[i] and #values[i] .. ':' .. values[i] or '-' end
if redis.sha1hex(table.concat(parts)) ~= ARGV[1] then return redis.call('EXISTS', KEYS[1]) == 0 and 0 or 2 end
local target = KEYS[#KEYS]
if target ~= KEYS[1] and redis.call('EXISTS', target) == 1 then return 3 end
local left = redis.call('PTTL', KEYS[1])
redis.call('SET', target, ARGV[2])
if left >= 0 then redis.call('PEXPIRE', target, left) end
if target ~= KEYS[1] then redis.call('UNLINK', KEYS[1]) end
return 1
"""
    )
    """As `Conversion.script`; `_joined` says what the digest is of."""

    def __init__(self, name: str, target_name: str, dtype: codec.StoredDtype) -> None:
        self._source, self._target = Keyspace(name, hex_bytes=True), Keyspace(target_name)
        self._dtype = dtype

    def read(self, keys: Sequence[str]) -> Operation[list[Entry | Fate]]:
        """See `Conversion.read`."""
        replies = yield [command for key in keys for command in (("HMGET", key, *ENTRY_FIELDS), ("PTTL", key))]
        found = [
            None if is_other_type(fields) or set(fields) == {None} else self._entry(key, fields, milliseconds)
            for key, fields, milliseconds in zip(keys, replies[::2], replies[1::2], strict=True)
        ]
        return (yield from _judged(PACKED, keys, found))

    def _entry(self, key: str, fields: Sequence[bytes | None], milliseconds: int) -> Entry | Fate:
        if milliseconds == _NO_KEY:
            return Fate.GONE
        value = to_packed(fields, key, self._dtype)
        if value is None:
            return Fate.UNREADABLE
        return Entry(key, _sha1(_joined(fields)), _key_of(self._target, value, key), (value,), milliseconds)


def _joined(fields: Sequence[bytes | None]) -> bytes:
    """Fields as one string, from which they could be told apart again."""
    return b"".join(b"-" if field is None else b"%d:%b" % (len(field), field) for field in fields)


# ------------------------------------------------------------------------------------------------ keys


def _judged(
    target: EntryLayout, keys: Sequence[str], found: Sequence[Entry | Fate | None]
) -> Operation[list[Entry | Fate]]:
    """What was found, and for None whether the key is in the target's layout already, something else, or gone."""
    unknown = [key for key, each in zip(keys, found, strict=True) if each is None]
    if not unknown:
        return [each for each in found if each is not None]
    held = yield from target.hold(unknown)
    there = yield from checked_all(*(("EXISTS", key) for key in unknown))
    fates = {
        key: Fate.SKIPPED if is_held else Fate.UNREADABLE if is_there else Fate.GONE
        for key, is_held, is_there in zip(unknown, held, there, strict=True)
    }
    return [fates[key] if each is None else each for key, each in zip(keys, found, strict=True)]


def _key_of(space: Keyspace, value: bytes, key: str) -> str:
    """The key in that cache of the entry that a packed value is, which lies under `key` in another."""
    head = codec.decode_head(value)
    if head is not None and isinstance(head.text, bytes):
        return space.key_of_bytes(head.text, head.model_name.encode())
    return f"{space.name}{key[-65:]}"


def _sha1(stored: bytes) -> bytes:
    return sha1(stored, usedforsecurity=False).hexdigest().encode()
