"""Entries seen without their vectors, by the thousand: keys, heads, columns. Operations that change nothing."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from typing import Any, Final, NamedTuple, cast

import numpy as np
import numpy.typing as npt

from embedcache import codec, redisvl_format
from embedcache.columns import REST_BYTES, START_BYTES, Batch, HashSight
from embedcache.entry import CacheEntry
from embedcache.errors import ServerReplyError
from embedcache.operations import (
    REPLIES,
    Command,
    Operation,
    Posted,
    ServerAbilities,
    checked,
    is_other_type,
    raise_if_error,
    run_script,
)
from embedcache.redisvl_format import HashHead
from embedcache.scripts import READ_HASHES, READ_HEADS, READ_STARTS, Script

_HEAD_BYTES: Final = 1_024
"""Without scripts, read of each value at first: the head of nearly every entry. A longer one takes a second trip."""

_ID_DIGITS: Final = 64
_HEX_DIGITS: Final = b"0123456789abcdef"
_COLON: Final = ord(":")


# ------------------------------------------------------------------------------------------------ keys


def scan_step(
    cursor: int, count: int, pattern: str | bytes | None = None, kind: str | None = None
) -> Operation[tuple[int, list[bytes]]]:
    """One step over the server's keys: the next cursor, 0 at the end, and the keys found.

    Args:
        cursor: From the last step, 0 at first.
        count: About how many keys to look at.
        pattern: A glob that the keys found match.
        kind: The type of their values, as the server calls it, such as ``hash``.

    Raises:
        ServerReplyError: The server forbids it.
    """
    following, found = yield from checked(_scan(cursor, count, pattern, kind))
    return int(following), found


class Scan:
    """All the server's keys, step by step. The next step is asked for before the caller works on this one.

    Args:
        count: About how many keys to look at in a step.
        pattern: As of `scan_step`.
        kind: As of `scan_step`.

    Attributes:
        ended: Whether there are no more.
    """

    def __init__(self, count: int, pattern: str | bytes | None = None, kind: str | None = None) -> None:
        self.ended = False
        self._count = count
        self._pattern = pattern
        self._kind = kind
        self._cursor = 0

    def step(self) -> Operation[list[bytes]]:
        """The keys of the next step; between two of them, nothing else is to be yielded.

        Raises:
            ServerReplyError: The server forbids it.
        """
        if self._cursor:
            (reply,) = yield REPLIES
            raise_if_error(reply)
        else:
            reply = yield from checked(self._command())
        following, found = reply
        self._cursor = int(following)
        self.ended = self._cursor == 0
        if not self.ended:
            yield Posted([self._command()])
        return cast("list[bytes]", found)

    def _command(self) -> Command:
        return _scan(self._cursor, self._count, self._pattern, self._kind)


def _scan(cursor: int, count: int, pattern: str | bytes | None, kind: str | None) -> Command:
    match = () if pattern is None else ("MATCH", pattern)
    of_type = () if kind is None else ("TYPE", kind)
    return ("SCAN", cursor, *match, "COUNT", count, *of_type)


class EntryKeys(NamedTuple):
    """The keys among others that have the form of an entry's.

    Attributes:
        names: The caches' names, as bytes, one for each.
        digests: The SHA-256s that end them, uint8, shape (n, 32).
    """

    names: list[bytes]
    digests: npt.NDArray[np.uint8]


def entry_keys(keys: Sequence[bytes]) -> EntryKeys:
    """The keys that have the form of an entry's, in order."""
    shaped = [key for key in keys if len(key) > _ID_DIGITS + 1 and key[-_ID_DIGITS - 1] == _COLON]
    digits = b"".join([key[-_ID_DIGITS:] for key in shaped])
    if digits.translate(None, _HEX_DIGITS):
        shaped = [key for key in shaped if not key[-_ID_DIGITS:].translate(None, _HEX_DIGITS)]
        digits = b"".join([key[-_ID_DIGITS:] for key in shaped])
    digests = np.frombuffer(bytes.fromhex(digits.decode()), np.uint8).reshape(-1, _ID_DIGITS // 2)
    return EntryKeys([key[: -_ID_DIGITS - 1] for key in shaped], digests)


# ------------------------------------------------------------------------------------------------ heads


def heads(able: ServerAbilities, keys: Sequence[str]) -> Operation[list[tuple[codec.Head | None, int]]]:
    """The heads of the values under these keys, each with its value's length in bytes."""
    found = yield from packed_heads(able, keys)
    return [(None, 0) if packed is None else (codec.decode_head(packed), size) for packed, size in found]


def packed_heads(able: ServerAbilities, keys: Sequence[str]) -> Operation[list[tuple[bytes | None, int]]]:
    """As `heads`, undecoded: the bytes of each value from its start to its vector or a little further."""
    if not keys:
        return []
    found = yield from run_script(able, READ_HEADS, keys)
    if found is None:
        found = yield from _heads_by_commands(keys)
    return [
        (packed, size) if isinstance(packed, bytes) else (None, 0)
        for packed, size in zip(found[::2], found[1::2], strict=True)
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


def hash_heads(keys: Sequence[str]) -> Operation[list[HashHead | None]]:
    """The heads of RedisVL's hashes under these keys; None where there is none."""
    if not keys:
        return []
    replies = yield [("HMGET", key, *redisvl_format.HEAD_FIELDS) for key in keys]
    return [
        redisvl_format.decode_head(reply, key) if isinstance(reply, list) else None
        for key, reply in zip(keys, replies, strict=True)
    ]


def hash_entries(keys: Sequence[str]) -> Operation[list[CacheEntry | None]]:
    """The entries in RedisVL's layout under these keys, with their vectors as float32; None where there is none.

    RedisVL writes down no TTL of an entry's own: there, it is None.
    """
    if not keys:
        return []
    replies = yield [("HMGET", key, *redisvl_format.HEAD_FIELDS, "embedding") for key in keys]
    return [
        _hash_entry(key, reply) if isinstance(reply, list) else None for key, reply in zip(keys, replies, strict=True)
    ]


def _hash_entry(key: str, values: Sequence[bytes | None]) -> CacheEntry | None:
    head, vector = redisvl_format.decode_head(values[:-1], key), redisvl_format.decode_vector(values[-1] or b"")
    if head is None or vector is None:
        return None
    return {
        "entry_id": key[-_ID_DIGITS:],
        "key": key,
        "text": head.text,
        "model_name": head.model_name,
        "embedding": vector,
        "inserted_at": head.inserted_at,
        "metadata": head.metadata,
        "ttl": head.ttl,
    }


def hash_sizes(keys: Sequence[str]) -> Operation[list[int]]:
    """The lengths of RedisVL's entries under these keys in bytes, as its fields add up to; 0 where there is none."""
    fields = redisvl_format.SIZE_FIELDS
    replies = yield [("HSTRLEN", key, field) for key in keys for field in fields]
    lengths = [0 if is_other_type(reply) else reply for reply in replies]
    rows = [lengths[start : start + len(fields)] for start in range(0, len(lengths), len(fields))]
    return [sum(row) if redisvl_format.is_entry(row) else 0 for row in rows]


# ------------------------------------------------------------------------------------------------ columns


def look(able: ServerAbilities, keys: Sequence[str]) -> Operation[Batch]:
    """What lies under these keys, one or more, as `embedcache.columns` takes it apart; idle times are read first.

    Raises:
        ServerReplyError: The server forbids to read the values. What else it forbids is unknown in the batch.
    """
    found = yield from run_script(able, READ_STARTS, keys)
    return (yield from _batch(able, keys, found))


class Looks:
    """`look` at chunks of keys, one after the other. The next is asked for before the caller works on this one.

    Args:
        able: What the server has not refused.
        chunks: Keys, one or more in each.
    """

    def __init__(self, able: ServerAbilities, chunks: Iterator[Sequence[str]]) -> None:
        self._able = able
        self._chunks = chunks
        self._keys: Sequence[str] | None = next(chunks, None)
        self._posted = False

    def look(self) -> Operation[Batch | None]:
        """The next chunk's, None at the end; between two of them, nothing else is to be yielded."""
        keys = self._keys
        if keys is None:
            return None
        (found,) = (yield REPLIES) if self._posted else (None,)
        if found is None or isinstance(found, ServerReplyError):
            found = yield from run_script(self._able, READ_STARTS, keys)
        batch = yield from _batch(self._able, keys, found)
        self._keys = next(self._chunks, None)
        self._posted = self._keys is not None and self._able.scripts
        if self._keys is not None and self._posted:
            yield Posted([_call(READ_STARTS, self._keys)])
        return batch


def _call(script: Script, keys: Sequence[str]) -> Command:
    return ("EVALSHA", script.sha, len(keys), *keys)


def _batch(able: ServerAbilities, keys: Sequence[str], found: list[Any] | None) -> Operation[Batch]:
    """What the script `READ_STARTS` found under the keys, None where it is refused, and what lies in hashes."""
    if found is None:
        found = yield from _starts_by_commands(keys)
    idle, left, sizes, starts = (found[column::4] for column in range(4))
    others = [place for place, start in enumerate(starts) if start == _OTHER_TYPE]
    if not others:
        return Batch(idle, left, sizes, starts)
    other_keys = [keys[place] for place in others]
    hashes: dict[int, HashSight] = {}
    for place, row in zip(others, (yield from _hashes(able, other_keys)), strict=True):
        starts[place] = b""
        if (seen := _hash_sight(row)) is not None:
            hashes[place] = seen
    memory = yield [("MEMORY", "USAGE", key, "SAMPLES", 0) for key in other_keys]
    for place, size in zip(others, memory, strict=True):
        sizes[place] = size if isinstance(size, int) else 0
    return Batch(idle, left, sizes, starts, hashes)


_OTHER_TYPE: Final = 0
_LENGTHS: Final = struct.Struct("<HI")
_LENGTHS_AT: Final = 18


def _starts_by_commands(keys: Sequence[str]) -> Operation[list[Any]]:
    """What the script `READ_STARTS` returns, where scripts are refused."""
    found = yield [
        command
        for key in keys
        for command in (
            ("OBJECT", "IDLETIME", key),
            ("PTTL", key),
            ("STRLEN", key),
            ("GETRANGE", key, 0, START_BYTES - 1),
        )
    ]
    far: list[tuple[int, Command]] = []
    for at, key in zip(range(3, len(found), 4), keys, strict=True):
        if any(is_other_type(reply) for reply in found[at - 1 : at + 1]):
            found[at - 1] = found[at] = _OTHER_TYPE
        elif (part := _further_part(found[at])) is not None:
            found[at] = found[at][: codec.HEADER_BYTES]
            far.append((at, ("GETRANGE", key, *part)))
    if far:
        parts = yield [command for _, command in far]
        for (at, _), part in zip(far, parts, strict=True):
            found[at] += part if isinstance(part, bytes) else b""
    return found


def _further_part(start: bytes) -> tuple[int, int] | None:
    """From where to where the model name and what follows it lie, where that is past the start of a value."""
    if len(start) < codec.HEADER_BYTES:
        return None
    model_bytes, text_bytes = _LENGTHS.unpack_from(start, _LENGTHS_AT)
    first = codec.HEADER_BYTES + text_bytes + 1
    end = first + model_bytes + REST_BYTES
    return (first, end - 1) if end > len(start) else None


def _hashes(able: ServerAbilities, keys: Sequence[str]) -> Operation[list[Any]]:
    """For each hash its model name, when it was inserted and the lengths of its fields; for other types None."""
    fields = redisvl_format.SIZE_FIELDS
    found = yield from run_script(able, READ_HASHES, keys, [field.encode() for field in fields])
    if found is not None:
        return cast("list[Any]", found)
    replies = yield [
        command
        for key in keys
        for command in (("HMGET", key, "model_name", "inserted_at"), *(("HSTRLEN", key, field) for field in fields))
    ]
    rows = [replies[start : start + 1 + len(fields)] for start in range(0, len(replies), 1 + len(fields))]
    return [None if any(map(is_other_type, row)) else [*row[0], *row[1:]] for row in rows]


def _hash_sight(row: list[Any] | None) -> HashSight | None:
    """What is to be seen of a hash; None where it is none of RedisVL's."""
    if row is None:
        return None
    model_name, inserted_at, *lengths = row
    at = redisvl_format.seconds(inserted_at)
    if model_name is None or at is None or not redisvl_format.is_entry(lengths):
        return None
    try:
        return HashSight(model_name.decode(), at, sum(lengths))
    except UnicodeDecodeError:
        return None
