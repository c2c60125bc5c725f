"""The Lua scripts that the server runs, each the one-round-trip form of something plain commands can also do.

They touch the keys in ``KEYS`` and no others, and read of a value only its magic and its TTL (`docs/format.md`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from hashlib import sha1
from typing import Final


@dataclass(frozen=True, slots=True)
class Script:
    """One Lua script, and the SHA-1 by which the server knows it."""

    source: str
    sha: str = field(init=False)

    def __post_init__(self) -> None:
        digest = sha1(self.source.encode(), usedforsecurity=False).hexdigest()
        object.__setattr__(self, "sha", digest)


READ_RESTARTING_TTLS: Final = Script("""
local values = redis.call('MGET', unpack(KEYS))
for i = 1, #KEYS do
  local value = values[i]
  if value and #value > 24 then
    local magic, ttl = struct.unpack('<c4I4', value)
    if magic == 'EMB\\1' and ttl > 0 then redis.pcall('EXPIRE', KEYS[i], ttl) end
  end
end
return values
""")
"""KEYS: entries. Returns their values as MGET does, and restarts each one's own TTL.

EXPIRE goes by ``pcall``: a server that may not write just now (a replica, a full disk) still answers reads.
"""

RESTART_TTLS: Final = Script("""
for i = 1, #KEYS do
  local start = redis.pcall('GETRANGE', KEYS[i], 0, 7)
  if #start == 8 then
    local magic, ttl = struct.unpack('<c4I4', start)
    if magic == 'EMB\\1' and ttl > 0 then redis.pcall('EXPIRE', KEYS[i], ttl) end
  end
end
return 0
""")
"""KEYS: entries. Restarts each one's own TTL without reading their vectors, for values that another command reads.

For a key of another type, GETRANGE returns an error, which is a table without a length of 8.
"""

WRITE_WITH_TTL: Final = Script("""
for i = 1, #KEYS do redis.call('SET', KEYS[i], ARGV[i], 'EX', ARGV[#KEYS + 1]) end
return #KEYS
""")
"""KEYS: entries; ARGV: their values, then one TTL in seconds. What MSETEX does where the server has it."""

CHANGE_TTL: Final = Script("""
if redis.pcall('GETRANGE', KEYS[1], 0, 3) ~= 'EMB\\1' then return 0 end
redis.call('SETRANGE', KEYS[1], 4, ARGV[1])
if ARGV[2] == '0' then redis.call('PERSIST', KEYS[1]) else redis.call('EXPIRE', KEYS[1], ARGV[2]) end
return 1
""")
"""KEYS: one entry; ARGV: its TTL as 4 little-endian bytes and in seconds, 0 for never. Returns 1 if there was one."""

READ_HEADS: Final = Script("""
local found = {}
for i = 1, #KEYS do
  local start = redis.pcall('GETRANGE', KEYS[i], 0, 15)
  found[2 * i - 1], found[2 * i] = false, 0
  if #start == 16 and string.sub(start, 1, 4) == 'EMB\\1' then
    found[2 * i - 1] = redis.call('GETRANGE', KEYS[i], 0, struct.unpack('<I4', start, 13) - 1)
    found[2 * i] = redis.call('STRLEN', KEYS[i])
  end
end
return found
""")
"""KEYS: entries. Returns, for each in turn, its value up to the vector and the value's length; nil and 0 for others."""

ADD_COUNTS: Final = Script("""
local number = tonumber(ARGV[1])
if tonumber(redis.call('GET', KEYS[1]) or '0') >= number then return 0 end
redis.call('SET', KEYS[1], number, 'EX', ARGV[2])
local first_name = #KEYS + 3
local first_number = first_name + 2 * tonumber(ARGV[#KEYS + 2])
for k = 2, #KEYS do
  for i = first_name, first_number - 1, 2 do redis.call('HSET', KEYS[k], ARGV[i], ARGV[i + 1]) end
  for i = first_number, #ARGV, 2 do redis.call('HINCRBY', KEYS[k], ARGV[i], ARGV[i + 1]) end
  redis.call('EXPIREAT', KEYS[k], ARGV[k + 1])
end
return 1
""")
"""KEYS: a writer's own key, then hashes of counts; ARGV: the number of this writer's batch, seconds to keep the
writer's key, a time to expire for each hash, how many fields to set, those as pairs, and fields to add to as pairs.

Returns 0 and adds nothing if a batch of this number or a later one was added before: a writer that got no answer may
send a batch again.
"""
