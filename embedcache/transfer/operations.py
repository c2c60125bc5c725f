"""The round trips of an export and of a restore: values read as they are, and written as they were.

Operations, as in `embedcache.operations`.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias, cast

from embedcache.entry_layout import LayoutName
from embedcache.errors import ServerReplyError
from embedcache.operations import NO_KEY, Command, Operation, ServerAbilities, checked_all, remaining_milliseconds
from embedcache.redisvl_format import seconds
from embedcache.scanning import heads
from embedcache.transfer import hashes
from embedcache.transfer.columns import PackedEntries

OnConflict: TypeAlias = hashes.OnConflict


@dataclass(frozen=True, slots=True)
class FoundValues:
    """What the server holds under some keys.

    Attributes:
        keys: Those.
        values: The value under each, or None.
        milliseconds: Left of each; below 0 it does not expire, or is `NO_KEY`.
        now: The server's Unix seconds.
    """

    keys: Sequence[str]
    values: list[bytes | None]
    milliseconds: list[int]
    now: float


def read_values(able: ServerAbilities, keys: Sequence[str]) -> Operation[FoundValues]:
    """What is under these keys, RedisVL's hashes as packed values. No TTL is restarted."""
    values, now = yield [("MGET", *keys), ("TIME",)]
    if isinstance(values, ServerReplyError):
        raise values
    milliseconds = yield from remaining_milliseconds(able, keys)
    # What is no string, MGET calls none. And a value may expire between the two.
    unknown = [at for at, value in enumerate(values) if value is None and milliseconds[at] != NO_KEY]
    if unknown:
        values, milliseconds = list(values), list(milliseconds)
        found = yield from hashes.read_hashes([keys[at] for at in unknown])
        for at, value in zip(unknown, found, strict=True):
            values[at] = value
            if value is None:
                milliseconds[at] = NO_KEY
    return FoundValues(keys, values, milliseconds, _unix_seconds(now))


def _unix_seconds(reply: object) -> float:
    """The server's clock, or this machine's where an ACL forbids TIME."""
    if isinstance(reply, ServerReplyError):
        return time.time()
    seconds, microseconds = cast("tuple[int, int]", reply)
    return int(seconds) + int(microseconds) / 1e6


def write_entries(
    able: ServerAbilities, packed: PackedEntries, on_conflict: OnConflict, layout: LayoutName = "packed"
) -> Operation[tuple[int, int]]:
    """Writes entries that have not expired; returns how many had, and how many were written.

    Args:
        able: What the server has not refused so far.
        packed: The entries.
        on_conflict: ``skip`` writes only where there is none, ``overwrite`` everywhere, ``newer`` also where the one
            that is there was inserted before.
        layout: How they are to lie there.
    """
    (reply,) = yield [("TIME",)]
    now = _unix_seconds(reply) * 1000
    due = [index for index, expiry in enumerate(packed.expires_at) if expiry is None or expiry > now]
    late = len(packed.keys) - len(due)
    older: set[int] = set()
    if on_conflict == "newer":
        there = yield from _insertion_times(able, [packed.keys[index] for index in due])
        times = dict(zip(due, there, strict=True))
        older = {index for index, at in times.items() if at is not None and at < packed.inserted_at[index]}
        due = [index for index, at in times.items() if at is None or index in older]
    if layout == "redisvl":
        entries = [(packed.keys[at], packed.values[at], packed.expires_at[at]) for at in due]
        return late, (yield from hashes.write_hashes(able, entries, on_conflict))
    # What is there and not older is left alone, as is what comes there meanwhile.
    keep = [on_conflict != "overwrite" and index not in older for index in due]
    return late, (yield from _write_due(packed, due, keep))


def _insertion_times(able: ServerAbilities, keys: Sequence[str]) -> Operation[list[float | None]]:
    """When what lies under each key, in whichever layout, was inserted; None where there is nothing.

    What cannot be read was inserted before everything.
    """
    found: list[float | None] = []
    unknown: list[int] = []
    for index, (head, size) in enumerate((yield from heads(able, keys))):
        found.append(head.inserted_at if head else -math.inf if size else None)
        if not size:  # nothing, or a value of another type, such as RedisVL's hash
            unknown.append(index)
    if unknown:
        for index, reply in zip(unknown, (yield [("HGET", keys[at], "inserted_at") for at in unknown]), strict=True):
            if isinstance(reply, bytes):
                at = seconds(reply)
                found[index] = -math.inf if at is None else at
    return found


def _write_due(packed: PackedEntries, due: list[int], keep: list[bool]) -> Operation[int]:
    """Writes those entries, each with its expiry in one command; returns how many were written.

    Those to be kept are written only where there is none. One script for all of them costs this process no less, and
    the server three times as much: Lua copies every value.
    """
    sets = [_set(packed, index, keep=kept) for index, kept in zip(due, keep, strict=True)]
    return sum(reply is not None for reply in (yield from checked_all(*sets))) if sets else 0


def _set(packed: PackedEntries, index: int, *, keep: bool) -> Command:
    command: Command = ("SET", packed.keys[index], packed.values[index])
    expiry = packed.expires_at[index]
    return (*command, *(("NX",) if keep else ()), *(() if expiry is None else ("PXAT", expiry)))
