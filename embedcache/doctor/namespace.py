"""The keys under a cache's name that are no entries: its own bookkeeping, and what others have put there.

A cache named ``a:b`` has keys that start with ``a:`` as well: what has the form of another cache's entry, statistics,
audit log or lock is that cache's, and never taken for a stranger's.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Final

from embedcache.keyspace import Keyspace
from embedcache.operations import Operation, ServerAbilities, checked_all, run_script
from embedcache.scanning import entry_keys, scan_step
from embedcache.scripts import Script

HELD: Final = 10_000
"""Keys that one fix holds; of more, only the number is kept."""

_SCAN_COUNT: Final = 2_000
_TAGGED: Final = re.compile(
    rb"(?P<name>.+):(?P<kind>stats|audit):\{(?P<tag>[0-9a-f]{8})\}(?::(?P<part>.*))?", re.DOTALL
)
_LOCK: Final = re.compile(rb"(?P<name>.+):flight:[0-9a-f]{32}", re.DOTALL)
_BENCHMARKS: Final = b"embedcache:{benchmarks}:"
"""Saved runs, of all caches together; they look like a stranger's under the cache that is named so."""
_TYPES: Final = {
    **dict.fromkeys((b"total", b"m", b"h", b"d", b"prices"), b"hash"),
    b"stored": b"zset",
    b"slow": b"list",
    b"writer": b"string",
    b"audit": b"list",
    b"flight": b"string",
}
"""The type of each key of bookkeeping, by the first word of what tells it from the others."""
_KEPT_FOR_EVER: Final = frozenset({b"prices", b"audit"})
_NEVER: Final = -1
"""The server's own code."""

_REMOVE_SAME: Final = Script("""
local removed = 0
for i = 1, #KEYS do
  if redis.call('TYPE', KEYS[i]).ok == ARGV[i + 1] and (ARGV[1] == '0' or redis.call('PTTL', KEYS[i]) == -1) then
    removed = removed + redis.call('UNLINK', KEYS[i])
  end
end
return removed
""")
"""KEYS: anything; ARGV: 1 to remove only what never expires, then the type that each key's value must have."""


@dataclass(slots=True)
class Found:
    """Keys of one kind: how many, and the first of them with their types."""

    count: int = 0
    keys: list[tuple[bytes, bytes]] = field(default_factory=list)

    def add(self, key: bytes, kind: bytes) -> None:
        """Counts a key, and keeps it where there is room."""
        self.count += 1
        if len(self.keys) < HELD:
            self.keys.append((key, kind))


@dataclass(frozen=True, slots=True)
class Others:
    """The keys under a cache's name that should not be there as they are.

    Attributes:
        foreign: Of no cache.
        orphaned: The cache's own, which should expire and never will.
        spoilt: The cache's own by name, with a value of another type than the cache writes there.
    """

    foreign: Found
    orphaned: Found
    spoilt: Found


def find_others(space: Keyspace, tell: Callable[[int, int | None], object]) -> Operation[Others]:
    """Looks at all keys under a cache's name but its entries. SCAN may return a key twice: it then counts twice.

    Raises:
        ServerReplyError: The server forbids SCAN, TYPE or PTTL.
    """
    name = space.name.encode()
    pattern = space.pattern.removesuffix(b"?" * 64) + b"*"
    found = Others(Found(), Found(), Found())
    cursor = seen = 0
    while True:
        cursor, keys = yield from scan_step(cursor, _SCAN_COUNT, pattern)
        seen += len(keys)
        others = [(key, part) for key in keys if (part := _part(key, name)) is not None]
        if others:
            replies = yield from checked_all(
                *(command for key, _ in others for command in (("TYPE", key), ("PTTL", key)))
            )
            for (key, part), kind, left in zip(others, replies[::2], replies[1::2], strict=True):
                _sort(found, key, part, kind, left)
        tell(seen, None)
        if cursor == 0:
            return found


def _part(key: bytes, name: bytes) -> bytes | None:
    """Which of the cache's bookkeeping a key is, b"" where it is of no cache; None for an entry, or another cache's."""
    if key.startswith(_BENCHMARKS) or entry_keys([key]).names:
        return None
    tagged, lock = _TAGGED.fullmatch(key), _LOCK.fullmatch(key)
    if lock is not None:
        return b"flight" if lock["name"] == name else None
    if tagged is None or tagged["tag"].decode() != sha256(tagged["name"]).hexdigest()[:8]:
        return b""
    if tagged["name"] != name:
        return None
    return b"audit" if tagged["kind"] == b"audit" else (tagged["part"] or b"").split(b":")[0]


def _sort(found: Others, key: bytes, part: bytes, kind: bytes, left: int) -> None:
    if kind == b"none":  # it has left
        return
    if part not in _TYPES:
        found.foreign.add(key, kind)
    elif kind != _TYPES[part]:
        found.spoilt.add(key, kind)
    elif left == _NEVER and part not in _KEPT_FOR_EVER:
        found.orphaned.add(key, kind)


def remove_same(able: ServerAbilities, keys: Sequence[tuple[bytes, bytes]], *, only_lasting: bool) -> Operation[int]:
    """Removes keys whose values are of the same type still; returns how many it removed.

    Args:
        able: What the server has not refused.
        keys: Each with its type, as many as one step takes.
        only_lasting: Whether those are left alone that have an expiry by now.

    Raises:
        ServerReplyError: The server refuses.
    """
    names, kinds = [key for key, _ in keys], [kind for _, kind in keys]
    done = yield from run_script(able, _REMOVE_SAME, names, [int(only_lasting), *kinds])
    if done is not None:
        return int(done)
    replies = yield from checked_all(*(command for key in names for command in (("TYPE", key), ("PTTL", key))))
    same = [
        key
        for key, kind, now, left in zip(names, kinds, replies[::2], replies[1::2], strict=True)
        if now == kind and (left == _NEVER or not only_lasting)
    ]
    return sum((yield from checked_all(*(("UNLINK", key) for key in same)))) if same else 0
