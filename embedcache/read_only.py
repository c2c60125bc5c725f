"""What a read-only connection lets through: commands and scripts that cannot change anything on the server.

A list of what is allowed, not of what is forbidden: a command that nobody has thought of is refused.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from embedcache.errors import ReadOnlyError
from embedcache.scripts import only_reads

_OF_THE_SERVER: Final = frozenset({"DBSIZE", "INFO", "PING", "ROLE", "TIME"})
_OF_KEYS: Final = frozenset({"EXISTS", "EXPIRETIME", "PEXPIRETIME", "PTTL", "SCAN", "TTL", "TYPE"})
_OF_STRINGS: Final = frozenset({"GET", "GETRANGE", "MGET", "STRLEN"})
_OF_HASHES: Final = frozenset({"HEXISTS", "HGET", "HGETALL", "HKEYS", "HLEN", "HMGET", "HSCAN", "HSTRLEN", "HVALS"})
_OF_LISTS: Final = frozenset({"LINDEX", "LLEN", "LRANGE"})
_OF_SETS: Final = frozenset({"SCARD", "SISMEMBER", "SMEMBERS", "SMISMEMBER", "SSCAN"})
_OF_SORTED_SETS: Final = frozenset({"ZCARD", "ZCOUNT", "ZMSCORE", "ZRANGE", "ZRANK", "ZREVRANGE", "ZSCAN", "ZSCORE"})
_READS: Final = _OF_THE_SERVER | _OF_KEYS | _OF_STRINGS | _OF_HASHES | _OF_LISTS | _OF_SETS | _OF_SORTED_SETS
_READS_OF: Final = {
    "CONFIG": frozenset({"GET"}),
    "MEMORY": frozenset({"STATS", "USAGE"}),
    "OBJECT": frozenset({"ENCODING", "FREQ", "IDLETIME", "REFCOUNT"}),
    "SLOWLOG": frozenset({"GET", "LEN"}),
}
_SCRIPTS: Final = frozenset({"EVAL", "EVALSHA"})


def check_reads(commands: Iterable[Sequence[object]]) -> None:
    """Checks that a batch of commands changes nothing.

    Raises:
        ReadOnlyError: One of them may. None of the batch is to be sent.
    """
    for command in commands:
        if not _only_reads(command):
            raise ReadOnlyError(
                f"the cache was opened read-only, and {_name(command)} may change it; open it with read_only=False to"
                " write"
            )


def _only_reads(command: Sequence[object]) -> bool:
    # redis-py takes "MEMORY USAGE" for two words, and so do we.
    words = [*_word(command[0]).upper().split(), *command[1:2]] if command else []
    if not words:
        return False
    name = words[0]
    if name in _SCRIPTS:
        return len(words) > 1 and only_reads(words[1])
    if name in _READS_OF:
        return len(words) > 1 and _word(words[1]).upper() in _READS_OF[name]
    return name in _READS


def _word(part: object) -> str:
    return part.decode(errors="replace") if isinstance(part, bytes) else str(part)


def _name(command: Sequence[object]) -> str:
    return _word(command[0]).upper()[:40] if command else "an empty command"
