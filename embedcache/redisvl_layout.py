"""The layout of RedisVL: one hash per entry (`embedcache.redisvl_format`), for a cache that its programs use, too.

What is read becomes a packed value, and a packed value becomes what is written. That costs a tenth of what the JSON
does, and lookups know one form of an entry.

A hit restarts the TTL that we stored an entry with. One that RedisVL stored has none of its own: as with RedisVL, a hit
restarts it with the cache's default, but never so that it ends sooner, and one without an expiry gets none.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, Literal, TypeVar

from embedcache import codec
from embedcache.commands import (
    Command,
    Operation,
    ServerAbilities,
    checked_all,
    is_other_type,
    raise_if_error,
    run_each,
    run_script,
)
from embedcache.entry import CacheEntry
from embedcache.entry_layout import Take
from embedcache.errors import EmbedcacheError, InvalidInputError
from embedcache.keyspace import Keyspace
from embedcache.packing import Part, Writes
from embedcache.redisvl_format import (
    ENTRY_FIELDS,
    IDENTITY_FIELDS,
    OPTIONAL_FIELDS,
    from_packed,
    metadata_field,
    tag_of,
    to_packed,
)
from embedcache.scripts import EachKey, Script

T = TypeVar("T")

BATCH: Final = 250
"""Entries in one round trip: of 1,536 dimensions, they are 8 MB of JSON."""
UNREADABLE: Final = b""
"""In place of a value that is there and is no entry."""
_DTYPES: Final = ("float32", "float64")

_PERSIST: Final = b"PERSIST"
_EXPIRE: Final = b"EXPIRE"

_WRITE: Final = Script("""
local stale = tonumber(ARGV[3])
local done = redis.pcall('HSET', KEYS[1], unpack(ARGV, 4 + stale))
if type(done) == 'table' then
  if not string.find(done.err, 'WRONGTYPE', 1, true) then return done end
  redis.call('UNLINK', KEYS[1])
  redis.call('HSET', KEYS[1], unpack(ARGV, 4 + stale))
end
if stale > 0 then redis.call('HDEL', KEYS[1], unpack(ARGV, 4, 3 + stale)) end
if ARGV[1] == 'PERSIST' then redis.call('PERSIST', KEYS[1]) else redis.call(ARGV[1], KEYS[1], ARGV[2]) end
return 1
""")
"""KEYS: one entry; ARGV: PERSIST, or a command that sets an expiry and its number; how many fields to remove, those,
and the fields to set with their values.

HSET comes first: a server that is full then refuses it before anything has changed.
"""

_RESTART: Final = Script(
    """
for i = 1, #KEYS do
  local found = redis.pcall('HMGET', KEYS[i], 'own_ttl', 'inserted_at')
  if not found.err then
    local own, at = string.match(found[1] or '', '^(%d+) (.*)$')
    local left = redis.call('PTTL', KEYS[i])
    if own and at == found[2] then
      redis.pcall('EXPIRE', KEYS[i], own)
    elseif left >= 0 and left < tonumber(ARGV[i]) * 1000 then
      redis.pcall('EXPIRE', KEYS[i], ARGV[i])
    end
  end
end
return 0
""",
    each_key=EachKey(args=1, adds=True),
)
"""KEYS: entries; ARGV: for each, seconds to restart it with where it has no TTL of its own.

EXPIRE goes by ``pcall``: a server that may not write just now still answers reads.
"""

_CHANGE_TTL: Final = Script("""
local at = redis.pcall('HGET', KEYS[1], 'inserted_at')
if type(at) ~= 'string' or redis.call('HEXISTS', KEYS[1], 'embedding') == 0 then return 0 end
if ARGV[1] == '0' then
  redis.call('HDEL', KEYS[1], 'own_ttl')
  redis.call('PERSIST', KEYS[1])
else
  redis.call('HSET', KEYS[1], 'own_ttl', ARGV[1] .. ' ' .. at)
  redis.call('EXPIRE', KEYS[1], ARGV[1])
end
return 1
""")
"""KEYS: one entry; ARGV: seconds, 0 for never. Returns 1 if there was one."""

_CHANGE_METADATA: Final = Script("""
if redis.pcall('HEXISTS', KEYS[1], 'embedding') ~= 1 then return 0 end
if #ARGV > 0 then redis.call('HSET', KEYS[1], 'metadata', ARGV[1]) else redis.call('HDEL', KEYS[1], 'metadata') end
return 1
""")
"""KEYS: one entry; ARGV: its metadata, or nothing for none. Returns 1 if there was one."""


class RedisVLLayout:
    """RedisVL's hashes.

    Args:
        dtype: How vectors are read and written; the server holds them as decimal numbers.

    Raises:
        InvalidInputError: The dtype is not float32 or float64.
    """

    name: Literal["redisvl"] = "redisvl"
    hex_bytes = True
    value_type = b"hash"

    def __init__(self, dtype: codec.StoredDtype) -> None:
        if dtype.name not in _DTYPES:
            raise InvalidInputError(
                f"layout='redisvl' keeps vectors as decimal numbers: dtype is {' or '.join(_DTYPES)}, not {dtype.name}"
            )
        self._dtype = dtype

    # ---------------------------------------------------------------------------------------- reading

    def read(
        self, space: Keyspace, able: ServerAbilities, parts: Iterable[Part], take: Take, *, refresh: bool
    ) -> Operation[bool]:
        """See `EntryLayout.read`."""
        default = space.ttl if refresh else None
        for part in parts:
            take(part, (yield from self._read(able, part.keys, default)))
        return refresh and default is None

    def read_one(
        self, space: Keyspace, able: ServerAbilities, key: str, *, refresh: bool
    ) -> Operation[tuple[bytes | None, bool]]:
        """See `EntryLayout.read_one`."""
        default = space.ttl if refresh else None
        (value,) = yield from self._read(able, [key], default)
        return value, refresh and default is None

    def _read(self, able: ServerAbilities, keys: Sequence[str], default: int | None) -> Operation[list[bytes | None]]:
        """The values under keys; with a default TTL, those that may expire are restarted."""
        values: list[bytes | None] = []
        for batch in _batches(keys):
            commands: list[Command] = [("HMGET", key, *ENTRY_FIELDS) for key in batch]
            pipelined = default is not None and able.scripts
            if default is not None and pipelined:
                commands.append(("EVALSHA", _RESTART.sha, len(batch), *batch, *[default] * len(batch)))
            replies = yield commands
            found = [self._packed(key, reply) for key, reply in zip(batch, replies[: len(batch)], strict=True)]
            if default is not None and not (pipelined and replies[-1] == 0):
                yield from self.restart(able, _restarting(batch, found, default))
            values += found
        return values

    def _packed(self, key: str, reply: Any) -> bytes | None:
        if is_other_type(reply):
            return UNREADABLE
        if all(field is None for field in reply):
            return None
        return to_packed(reply, key, self._dtype) or UNREADABLE

    def restart(self, able: ServerAbilities, ttls: Mapping[str, int]) -> Operation[None]:
        """See `EntryLayout.restart`."""
        for batch in _batches(list(ttls)):
            if (yield from run_script(able, _RESTART, batch, [ttls[key] for key in batch])) is None:
                left = yield [("PTTL", key) for key in batch]
                due = [
                    key
                    for key, each in zip(batch, left, strict=True)
                    if isinstance(each, int) and 0 <= each < ttls[key] * 1_000
                ]
                if due:
                    # A server that may not write now still answers the read: these replies are not looked at.
                    yield [("EXPIRE", key, ttls[key]) for key in due]

    def ttls_of(self, space: Keyspace, entries: Sequence[CacheEntry]) -> dict[str, int | None]:
        """See `EntryLayout.ttls_of`."""
        return {entry["key"]: entry["ttl"] or space.ttl for entry in entries}

    # ---------------------------------------------------------------------------------------- writing

    def write_one(self, able: ServerAbilities, key: str, value: bytes, ttl: int | None) -> Operation[None]:
        """See `EntryLayout.write_one`."""
        yield from _write(able, [(key, value, ttl)])

    def write(self, able: ServerAbilities, writes: Writes) -> Operation[None]:
        """See `EntryLayout.write`."""
        for batch in _batches(list(zip(writes.keys, writes.values, writes.ttls, strict=True))):
            yield from _write(able, batch)

    # ---------------------------------------------------------------------------------------- looking

    def match(self, keys: Sequence[str], tags: Sequence[bytes]) -> Operation[list[bool]]:
        """See `EntryLayout.match`."""
        found: list[bool] = []
        for batch in _batches(list(zip(keys, tags, strict=True))):
            commands = [(("HMGET", key, *IDENTITY_FIELDS), ("HEXISTS", key, "embedding")) for key, _ in batch]
            replies = yield [command for pair in commands for command in pair]
            found += [
                not is_other_type(named) and bool(held) and tag_of(key, *named) == tag
                for named, held, (key, tag) in zip(replies[::2], replies[1::2], batch, strict=True)
            ]
        return found

    def hold(self, keys: Sequence[str]) -> Operation[list[bool]]:
        """See `EntryLayout.hold`."""
        found: list[bool] = []
        for batch in _batches(keys):
            replies = yield [("HEXISTS", key, "embedding") for key in batch]
            found += [not is_other_type(reply) and bool(reply) for reply in replies]
        return found

    def examine(self, key: str) -> Operation[bytes | str | None]:
        """See `EntryLayout.examine`."""
        (reply,) = yield [("HMGET", key, *ENTRY_FIELDS)]
        if is_other_type(reply):
            return "it is no hash, as RedisVL's entries are"
        value = self._packed(key, reply)
        return "its fields are not those of an entry of RedisVL's under this key" if value == UNREADABLE else value

    # ---------------------------------------------------------------------------------------- changing

    def expire(self, able: ServerAbilities, key: str, seconds: int | None) -> Operation[bool]:
        """See `EntryLayout.expire`."""
        changed = yield from run_script(able, _CHANGE_TTL, [key], [seconds or 0])
        if changed is not None:
            return bool(changed)
        # Without scripts: HSET would bring an entry back that is dropped meanwhile, so later hits restart the default.
        (there,) = yield from self.hold([key])
        if there:
            change: Command = ("PERSIST", key) if seconds is None else ("EXPIRE", key, seconds)
            yield from checked_all(("HDEL", key, "own_ttl"), change)
        return there

    def set_metadata(self, able: ServerAbilities, key: str, packed: bytes) -> Operation[bool]:
        """See `EntryLayout.set_metadata`."""
        if not isinstance((yield from self.examine(key)), bytes):
            return False
        field = metadata_field(packed)
        changed = yield from run_script(able, _CHANGE_METADATA, [key], [] if field is None else [field])
        if changed is not None:
            return bool(changed)
        change: Command = ("HDEL", key, "metadata") if field is None else ("HSET", key, "metadata", field)
        *_, there = yield from checked_all(change, ("HEXISTS", key, "embedding"))
        if not there:  # it was dropped in between, and the field would stay behind alone
            yield from checked_all(("HDEL", key, "metadata"))
        return bool(there)


def _batches(items: Sequence[T]) -> Iterator[Sequence[T]]:
    return (items[start : start + BATCH] for start in range(0, len(items), BATCH))


def _restarting(keys: Sequence[str], values: Sequence[bytes | None], default: int) -> dict[str, int]:
    """The keys of entries, with the seconds that a hit restarts each with."""
    return {key: codec.own_ttl(value) or default for key, value in zip(keys, values, strict=True) if value}


# ------------------------------------------------------------------------------------------------ commands


def _write(able: ServerAbilities, entries: Sequence[tuple[str, bytes, int | None]]) -> Operation[None]:
    """Stores packed values with their TTLs, each by a script or a transaction of its own, all in one round trip."""
    hashes = [(key, _fields(value, key), ttl) for key, value, ttl in entries]
    calls = [([key], _arguments(fields, ttl)) for key, fields, ttl in hashes]
    if (yield from run_each(able, _WRITE, calls)) is None:
        replies = yield [command for each in hashes for command in _transaction(*each)]
        for reply in replies:
            raise_if_error(reply)


def _fields(value: bytes, key: str) -> dict[str, bytes]:
    fields = from_packed(value, key)
    if fields is None:
        raise EmbedcacheError(f"the entry {key!r} cannot be written as JSON; nothing was stored")
    return fields


def _arguments(fields: Mapping[str, bytes], ttl: int | None) -> list[bytes | int]:
    stale = [name.encode() for name in sorted(OPTIONAL_FIELDS - fields.keys())]
    pairs = [part for name, value in fields.items() for part in (name.encode(), value)]
    return [_PERSIST if ttl is None else _EXPIRE, ttl or 0, len(stale), *stale, *pairs]


def _transaction(key: str, fields: Mapping[str, bytes], ttl: int | None) -> Iterator[Command]:
    """What the script `_WRITE` does, where scripts are refused. By MULTI, no entry is left without its TTL."""
    yield ("MULTI",)
    yield ("UNLINK", key)
    yield ("HSET", key, *(part for pair in fields.items() for part in pair))
    if ttl is not None:
        yield ("EXPIRE", key, ttl)
    yield ("EXEC",)
