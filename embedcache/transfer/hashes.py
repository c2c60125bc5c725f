"""RedisVL's hashes in an export and a restore: read as packed values, and written as they were.

Operations, as in `embedcache.operations`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, Literal, TypeAlias

from embedcache.commands import Command, Operation, ServerAbilities, checked_all, is_other_type, run_each
from embedcache.errors import TransferError
from embedcache.redisvl_format import ENTRY_FIELDS, OPTIONAL_FIELDS, from_packed, seconds, to_packed
from embedcache.redisvl_layout import BATCH, UNREADABLE
from embedcache.scripts import Script

OnConflict: TypeAlias = Literal["skip", "overwrite", "newer"]
Timed = tuple[str, bytes, int | None]
"""A key, the packed value of its entry, and when it expires in Unix milliseconds."""

_WRITE: Final = Script("""
local function inserted_at(key)
  local at = redis.pcall('HGET', key, 'inserted_at')
  if type(at) == 'string' then return tonumber(at) or 0 end
  local start = redis.pcall('GETRANGE', key, 0, 23)
  if type(start) ~= 'string' or #start < 24 or string.sub(start, 1, 4) ~= 'EMB\\1' then return 0 end
  local model_bytes, text_bytes = struct.unpack('<I2I4', start, 19)
  local from = 25 + text_bytes + model_bytes
  local rest = redis.call('GETRANGE', key, from, from + 9)
  if #rest < 10 or string.byte(rest, 2) ~= 0xCB then return 0 end
  return (struct.unpack('>d', rest, 3))
end
if ARGV[1] ~= 'overwrite' and redis.call('EXISTS', KEYS[1]) == 1 then
  if ARGV[1] == 'skip' then return 0 end
  if inserted_at(KEYS[1]) >= tonumber(ARGV[2]) then return 0 end
end
local stale = tonumber(ARGV[4])
local done = redis.pcall('HSET', KEYS[1], unpack(ARGV, 5 + stale))
if type(done) == 'table' then
  if not string.find(done.err, 'WRONGTYPE', 1, true) then return done end
  redis.call('UNLINK', KEYS[1])
  redis.call('HSET', KEYS[1], unpack(ARGV, 5 + stale))
end
if stale > 0 then redis.call('HDEL', KEYS[1], unpack(ARGV, 5, 4 + stale)) end
if ARGV[3] == '0' then redis.call('PERSIST', KEYS[1]) else redis.call('PEXPIREAT', KEYS[1], ARGV[3]) end
return 1
""")
"""KEYS: one entry; ARGV: skip, overwrite or newer; its `inserted_at`; when it expires in Unix milliseconds or 0; how
many fields to remove, those, and the fields to set with their values. Returns how many were written.

What is there may be a packed value, written since the round trip before. What cannot be read is older than everything.

HSET comes first: a server that is full then refuses it before anything has changed.
"""


def read_hashes(keys: Sequence[str]) -> Operation[list[bytes | None]]:
    """The entries under these keys as packed values; None where there is nothing, `UNREADABLE` where it is no entry's.

    Vectors are float32 where that holds the very numbers, else float64.
    """
    found: list[bytes | None] = []
    for start in range(0, len(keys), BATCH):
        batch = keys[start : start + BATCH]
        replies = yield [command for key in batch for command in (("HMGET", key, *ENTRY_FIELDS), ("EXISTS", key))]
        found += [
            _packed(key, reply, there) for key, reply, there in zip(batch, replies[::2], replies[1::2], strict=True)
        ]
    return found


def _packed(key: str, reply: Any, there: object) -> bytes | None:
    if not there:
        return None
    return UNREADABLE if is_other_type(reply) else to_packed(reply, key, None) or UNREADABLE


def write_hashes(able: ServerAbilities, entries: Sequence[Timed], on_conflict: OnConflict) -> Operation[int]:
    """Writes entries, each with its expiry in one step; returns how many were written."""
    written = 0
    for start in range(0, len(entries), BATCH):
        batch = [(key, _fields(key, value), expiry) for key, value, expiry in entries[start : start + BATCH]]
        calls = [([key], _arguments(fields, expiry, on_conflict)) for key, fields, expiry in batch]
        found = yield from run_each(able, _WRITE, calls)
        if found is None:
            found = yield from _write_plainly(batch, on_conflict)
        written += sum(found)
    return written


def _fields(key: str, value: bytes) -> dict[str, bytes]:
    fields = from_packed(value, key)
    if fields is None:
        raise TransferError(f"the entry {key!r} cannot be written as JSON, which RedisVL's layout is made of")
    return fields


def _arguments(fields: Mapping[str, bytes], expiry: int | None, on_conflict: OnConflict) -> list[bytes | int]:
    stale = [name.encode() for name in sorted(OPTIONAL_FIELDS - fields.keys())]
    pairs = [part for name, value in fields.items() for part in (name.encode(), value)]
    return [on_conflict.encode(), fields["inserted_at"], expiry or 0, len(stale), *stale, *pairs]


def _write_plainly(
    batch: Sequence[tuple[str, Mapping[str, bytes], int | None]], on_conflict: OnConflict
) -> Operation[list[int]]:
    """What the script does, where scripts are refused: what somebody writes within the round trip before is lost."""
    looks = [(("EXISTS", key), ("HGET", key, "inserted_at")) for key, _, _ in batch]
    replies = yield [command for pair in looks for command in pair]
    due = [
        _is_due(on_conflict, there, at, fields["inserted_at"])
        for there, at, (_, fields, _) in zip(replies[::2], replies[1::2], batch, strict=True)
    ]
    commands = [command for each, wanted in zip(batch, due, strict=True) if wanted for command in _transaction(*each)]
    if commands:
        yield from checked_all(*commands)
    return [int(each) for each in due]


def _is_due(on_conflict: OnConflict, there: object, at: object, inserted_at: bytes) -> bool:
    if on_conflict == "overwrite" or there == 0:
        return True
    known = seconds(at) if isinstance(at, bytes) else None
    return on_conflict == "newer" and (known or 0) < float(inserted_at)


def _transaction(key: str, fields: Mapping[str, bytes], expiry: int | None) -> Iterator[Command]:
    yield ("MULTI",)
    yield ("UNLINK", key)
    yield ("HSET", key, *(part for pair in fields.items() for part in pair))
    if expiry is not None:
        yield ("PEXPIREAT", key, expiry)
    yield ("EXEC",)
