"""The Lua scripts that the server runs, each the one-round-trip form of something plain commands can also do.

They touch the keys in ``KEYS`` and no others. Of a value, those that change something read its magic and its TTL, those
that look read its head (`docs/format.md`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from hashlib import sha1
from typing import Final


@dataclass(frozen=True, slots=True)
class EachKey:
    """How a script for many keys is run for one key at a time, as a Redis Cluster wants it.

    Attributes:
        args: How many of ARGV belong to each key; they come before those for all keys.
        adds: Whether its replies are numbers to be added up, rather than lists or strings to be put in a row.
    """

    args: int = 0
    adds: bool = False


@dataclass(frozen=True, slots=True)
class Script:
    """One Lua script, and the SHA-1 by which the server knows it.

    Attributes:
        source: In Lua.
        reads_only: Whether it changes nothing, so that read-only caches may run it.
        each_key: How it is run key by key; None where its keys belong together.
        sha: The SHA-1, as 40 hex digits.
    """

    source: str
    reads_only: bool = False
    each_key: EachKey | None = None
    sha: str = field(init=False)

    def __post_init__(self) -> None:
        digest = sha1(self.source.encode(), usedforsecurity=False).hexdigest()
        object.__setattr__(self, "sha", digest)
        _known.update({digest: self, self.source: self})


_known: Final[dict[object, Script]] = {}


def script_of(text: object) -> Script | None:
    """The script of ours of which this is the source or the SHA-1."""
    return _known.get(text)


def only_reads(text: object) -> bool:
    """Whether this is the source or the SHA-1 of a script of ours that changes nothing."""
    script = script_of(text)
    return script is not None and script.reads_only


READ_RESTARTING_TTLS: Final = Script(
    """
local values = redis.call('MGET', unpack(KEYS))
for i = 1, #KEYS do
  local value = values[i]
  if value and #value > 24 then
    local magic, ttl = struct.unpack('<c4I4', value)
    if magic == 'EMB\\1' and ttl > 0 then redis.pcall('EXPIRE', KEYS[i], ttl) end
  end
end
return values
""",
    each_key=EachKey(),
)
"""KEYS: entries. Returns their values as MGET does, and restarts each one's own TTL.

EXPIRE goes by ``pcall``: a server that may not write just now (a replica, a full disk) still answers reads.
"""

RESTART_TTLS: Final = Script(
    """
for i = 1, #KEYS do
  local start = redis.pcall('GETRANGE', KEYS[i], 0, 7)
  if #start == 8 then
    local magic, ttl = struct.unpack('<c4I4', start)
    if magic == 'EMB\\1' and ttl > 0 then redis.pcall('EXPIRE', KEYS[i], ttl) end
  end
end
return 0
""",
    each_key=EachKey(adds=True),
)
"""KEYS: entries. Restarts each one's own TTL without reading their vectors, for values that another command reads.

For a key of another type, GETRANGE returns an error, which is a table without a length of 8.
"""

REMAINING_TTLS: Final = Script(
    """
local left = {}
for i = 1, #KEYS do left[i] = redis.call('PTTL', KEYS[i]) end
return left
""",
    reads_only=True,
    each_key=EachKey(),
)
"""KEYS: entries. Returns the milliseconds until each expires, -1 for never, -2 for no key."""

WRITE_WITH_TTL: Final = Script(
    """
for i = 1, #KEYS do redis.call('SET', KEYS[i], ARGV[i], 'EX', ARGV[#KEYS + 1]) end
return #KEYS
""",
    each_key=EachKey(args=1, adds=True),
)
"""KEYS: entries; ARGV: their values, then one TTL in seconds. What MSETEX does where the server has it."""

CHANGE_TTL: Final = Script("""
if redis.pcall('GETRANGE', KEYS[1], 0, 3) ~= 'EMB\\1' then return 0 end
redis.call('SETRANGE', KEYS[1], 4, ARGV[1])
if ARGV[2] == '0' then redis.call('PERSIST', KEYS[1]) else redis.call('EXPIRE', KEYS[1], ARGV[2]) end
return 1
""")
"""KEYS: one entry; ARGV: its TTL as 4 little-endian bytes and in seconds, 0 for never. Returns 1 if there was one."""

REPLACE_UNCHANGED: Final = Script("""
local value = redis.pcall('GET', KEYS[1])
if type(value) ~= 'string' or redis.sha1hex(value) ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[2], 'KEEPTTL')
return 1
""")
"""KEYS: one entry; ARGV: the SHA-1, in hex, of the value it is to hold, and its new value. Returns 1 if it held that.

When the entry expires stays as it is.
"""

READ_HEADS: Final = Script(
    """
local call, unpack = redis.pcall, struct.unpack
local found, at = {}, 0
for i = 1, #KEYS do
  local start, size = call('GETRANGE', KEYS[i], 0, 255), 0
  local ours = false
  if #start >= 16 then
    local magic, _, _, bytes = unpack('<I4I4I4I4', start)
    ours = magic == 0x01424D45
    if ours then
      if bytes > #start then start = call('GETRANGE', KEYS[i], 0, bytes - 1) end
      size = redis.call('STRLEN', KEYS[i])
    end
  end
  found[at + 1], found[at + 2] = ours and start, size
  at = at + 2
end
return found
""",
    reads_only=True,
    each_key=EachKey(),
)
"""KEYS: entries. Returns, for each in turn, its value up to the vector or a little further, and the value's length; nil
and 0 for others.

Nearly every head is in the first 256 bytes. Cutting off what is past it would cost more than sending it.
"""

READ_STARTS: Final = Script(
    """
local call, unpack, sub = redis.pcall, struct.unpack, string.sub
local found, at = {}, 0
local tells_idle = type(call('OBJECT', 'IDLETIME', KEYS[1])) ~= 'table'
for i = 1, #KEYS do
  local key, size = KEYS[i], 0
  found[at + 1] = tells_idle and call('OBJECT', 'IDLETIME', key)
  found[at + 2] = call('PTTL', key)
  local start = call('GETRANGE', key, 0, 255)
  if type(start) == 'table' then
    if not string.find(start.err, 'WRONGTYPE', 1, true) then return start end
    start = 0
  else
    size = redis.call('STRLEN', key)
    if #start >= 24 then
      local model_bytes, text_bytes = unpack('<I2I4', start, 19)
      if text_bytes + model_bytes + 35 > #start then
        local from = text_bytes + 25
        start = sub(start, 1, 24) .. call('GETRANGE', key, from, from + model_bytes + 9)
      end
    end
  end
  found[at + 3], found[at + 4] = size, start
  at = at + 4
end
return found
""",
    reads_only=True,
    each_key=EachKey(),
)
"""KEYS: whatever is under keys of entries' form. Returns for each in turn what `embedcache.columns.Batch` describes:
the seconds it is idle, the milliseconds until it expires, the value's length and its start; 0 for another type's.

What is idle is asked first, for reading the value ends it; under an LFU policy the server tells nobody. Another type is
told from a refusal, which is returned.
"""

READ_HASHES: Final = Script(
    """
local found = {}
for i = 1, #KEYS do
  local named = redis.pcall('HMGET', KEYS[i], 'model_name', 'inserted_at')
  found[i] = false
  if not named.err then
    local row = {named[1], named[2]}
    for j = 1, #ARGV do row[2 + j] = redis.call('HSTRLEN', KEYS[i], ARGV[j]) end
    found[i] = row
  end
end
return found
""",
    reads_only=True,
    each_key=EachKey(),
)
"""KEYS: what is no string; ARGV: fields. Returns for each hash its ``model_name``, its ``inserted_at`` and the fields'
lengths, for other types nil."""

ADD_COUNTS: Final = Script("""
local number = tonumber(ARGV[1])
local last = redis.pcall('GET', KEYS[1])
if type(last) == 'string' and (tonumber(last) or 0) >= number then return 0 end
redis.call('SET', KEYS[1], number, 'EX', ARGV[2])
local first_name = #KEYS + 3
local first_number = first_name + 2 * tonumber(ARGV[#KEYS + 2])
local refused
for k = 2, #KEYS do
  local held = redis.pcall('HLEN', KEYS[k])
  if type(held) == 'table' and string.find(held.err, 'WRONGTYPE', 1, true) then
    refused = KEYS[k]
  else
    for i = first_name, first_number - 1, 2 do redis.call('HSET', KEYS[k], ARGV[i], ARGV[i + 1]) end
    for i = first_number, #ARGV, 2 do
      local added = redis.pcall('HINCRBY', KEYS[k], ARGV[i], ARGV[i + 1])
      if type(added) == 'table' then redis.call('HSET', KEYS[k], ARGV[i], ARGV[i + 1]) end
    end
    redis.call('EXPIREAT', KEYS[k], ARGV[k + 1])
  end
end
return refused and redis.error_reply('WRONGTYPE ' .. refused .. ' is no hash of counts') or 1
""")
"""KEYS: a writer's own key, then hashes of counts; ARGV: the number of this writer's batch, seconds to keep the
writer's key, a time to expire for each hash, how many fields to set, those as pairs, and fields to add to as pairs.

Returns 0 and adds nothing if a batch of this number or a later one was added before: a writer that got no answer may
send a batch again. What others have put in the place of one count, or of one hash, spoils nothing else: a field that is
no number counts anew, and a key of another type is passed over and named.
"""

PROLONG_OWN: Final = Script("""
if redis.pcall('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('PEXPIRE', KEYS[1], ARGV[2])
""")
"""KEYS: a lock; ARGV: its holder's token, and milliseconds. Has it live for so long, if it still holds that token."""

REMOVE_OWN: Final = Script("""
if redis.pcall('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('DEL', KEYS[1])
""")
"""KEYS: a lock; ARGV: its holder's token. Removes it, if it still holds that token."""
