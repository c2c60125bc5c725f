"""Short locks on the server, by which the processes that share a cache agree on who computes a missing text.

A lock is a string under a key of its own, ``name:flight:`` and 32 hex digits: beside the cache's entries and never in
any cache's namespace, for none ends in 64 hex digits. It holds its holder's token, and expires by itself if the holder
dies. Each command touches one key, so that a cluster can run them; those of a batch are sent together.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from embedcache.commands import Operation, ServerAbilities, checked_all, run_each
from embedcache.entry import Text
from embedcache.keyspace import Keyspace
from embedcache.packing import pack_texts
from embedcache.scripts import PROLONG_OWN, REMOVE_OWN, Script

_ID_DIGITS: Final = 64
_KEPT_DIGITS: Final = 32


def lock_keys(space: Keyspace, texts: Sequence[Text], model_name: str) -> list[str]:
    """The key of each text's lock."""
    keys, _ = pack_texts(space, texts, model_name)
    return [f"{space.name}:flight:{key[-_ID_DIGITS:][:_KEPT_DIGITS]}" for key in keys]


def take(keys: Sequence[str], token: str, seconds: float) -> Operation[list[bool]]:
    """Takes the locks that nobody holds, for so many seconds; returns which were taken. One round trip.

    Raises:
        ServerReplyError: The server refuses to write.
    """
    life = round(seconds * 1_000)
    replies = yield from checked_all(*(("SET", key, token, "NX", "PX", life) for key in keys))
    return [reply is not None for reply in replies]


def prolong(able: ServerAbilities, keys: Sequence[str], token: str, seconds: float) -> Operation[int]:
    """Has those locks that still hold this token live for so many seconds from now; returns how many they are."""
    return (yield from _run_each(able, PROLONG_OWN, keys, [token.encode(), round(seconds * 1_000)]))


def release(able: ServerAbilities, keys: Sequence[str], token: str) -> Operation[int]:
    """Removes those locks that still hold this token; returns how many they were.

    Where the server runs no scripts for us, they stay until they expire: a plain DEL could remove another's.
    """
    return (yield from _run_each(able, REMOVE_OWN, keys, [token.encode()]))


def _run_each(
    able: ServerAbilities, script: Script, keys: Sequence[str], args: Sequence[bytes | int]
) -> Operation[int]:
    """Runs a script that returns 1 or 0 on each key; the sum."""
    replies = yield from run_each(able, script, [([key], args) for key in keys])
    return sum(replies or ())
