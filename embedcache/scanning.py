"""Entries seen without their vectors: the heads of their values, read by the thousand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from embedcache import codec
from embedcache.operations import Command, Operation, ServerAbilities, run_script
from embedcache.scripts import READ_HEADS

_HEAD_BYTES: Final = 1_024
"""Without scripts, read of each value at first: the head of nearly every entry. A longer one takes a second trip."""


def heads(able: ServerAbilities, keys: Sequence[str]) -> Operation[list[tuple[codec.Head | None, int]]]:
    """The heads of the values under these keys, each with its value's length in bytes."""
    if not keys:
        return []
    found = yield from run_script(able, READ_HEADS, keys)
    if found is None:
        found = yield from _heads_by_commands(keys)
    return [
        (codec.decode_head(head), size) if isinstance(head, bytes) else (None, 0)
        for head, size in zip(found[::2], found[1::2], strict=True)
    ]


def _heads_by_commands(keys: Sequence[str]) -> Operation[list[Any]]:
    """What the script `READ_HEADS` returns, where scripts are refused."""
    commands: list[Command] = [("GETRANGE", key, 0, _HEAD_BYTES - 1) for key in keys]
    replies = yield [*commands, *[("STRLEN", key) for key in keys]]
    values, sizes = replies[: len(keys)], replies[len(keys) :]
    long = [
        (index, end)
        for index, value in enumerate(values)
        if isinstance(value, bytes) and (end := codec.head_bytes(value)) > len(value)
    ]
    if long:
        longer = yield [("GETRANGE", keys[index], 0, end - 1) for index, end in long]
        for (index, _), value in zip(long, longer, strict=True):
            values[index] = value
    return [reply for pair in zip(values, sizes, strict=True) for reply in pair]
