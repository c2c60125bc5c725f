"""The layout of our own: one string per entry, as `embedcache.codec` packs it.

Values and TTLs travel in one command, or one script. To change metadata, the value is read, its head written anew
around the same vector, and put back only if nobody else wrote it meanwhile. The checksum covers head and vector, so a
script cannot make the new value by itself; WATCH would need a connection of its own, and operations share a pool. So
the value is made here, and a script compares and writes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from hashlib import sha1
from itertools import chain
from typing import Any, Final, Literal

import msgpack

from embedcache import codec
from embedcache.commands import (
    Command,
    Operation,
    ServerAbilities,
    checked,
    chunks,
    is_other_type,
    is_refusal,
    raise_if_error,
    run_ahead,
    run_script,
)
from embedcache.entry import CacheEntry
from embedcache.entry_layout import Take
from embedcache.errors import EmbedcacheError, ServerReplyError
from embedcache.keyspace import Keyspace
from embedcache.packing import PART_ENTRIES, Part, Writes
from embedcache.scripts import CHANGE_TTL, READ_RESTARTING_TTLS, REPLACE_UNCHANGED, RESTART_TTLS, WRITE_WITH_TTL

MAX_TRIES: Final = 50
"""Each try fails only because another writer came first, between two round trips of ours."""
_LARGE_READ: Final = 64
"""From so many entries on, MGET and then a script that restarts TTLs beat one script that does both: values that pass
through Lua are copied twice more, and the second script runs while the values are decoded here."""


class PackedLayout:
    """Packed strings, as they are."""

    name: Literal["packed"] = "packed"
    hex_bytes = False
    value_type = b"string"

    # ---------------------------------------------------------------------------------------- reading

    def read(
        self, space: Keyspace, able: ServerAbilities, parts: Iterable[Part], take: Take, *, refresh: bool
    ) -> Operation[bool]:
        """See `EntryLayout.read`."""
        following = iter(parts)
        first = next(following, None)
        if first is None:
            return False
        restarting = refresh and space.ttl is not None and able.scripts
        if restarting and len(first.keys) < _LARGE_READ:
            values = yield from run_script(able, READ_RESTARTING_TTLS, first.keys)
            if values is not None:
                take(first, values)
                return False
            restarting = False
        refused: list[ServerReplyError] = []

        def answered(part: Part, replies: Sequence[Any]) -> None:
            values, *restarts = replies
            raise_if_error(values)
            refused.extend(reply for reply in restarts if isinstance(reply, ServerReplyError))
            take(part, values)

        if len(first.keys) < PART_ENTRIES:  # it is the only one
            answered(first, (yield _reading(first.keys, restarting)))
        else:
            batches = ((part, _reading(part.keys, restarting)) for part in chain([first], following))
            yield from run_ahead(batches, answered)
        return refresh and (not restarting or bool(refused))

    def read_one(
        self, space: Keyspace, able: ServerAbilities, key: str, *, refresh: bool
    ) -> Operation[tuple[bytes | None, bool]]:
        """See `EntryLayout.read_one`."""
        if refresh and space.ttl is not None and able.scripts:
            values = yield from run_script(able, READ_RESTARTING_TTLS, [key])
            if values is not None:
                return values[0], False
        (values,) = yield [("MGET", key)]  # nil, not an error, for a key of another type
        raise_if_error(values)
        return values[0], refresh

    def restart(self, able: ServerAbilities, ttls: Mapping[str, int]) -> Operation[None]:
        """See `EntryLayout.restart`."""
        for chunk in chunks(list(ttls)):
            if (yield from run_script(able, RESTART_TTLS, chunk)) is None:
                # A server that may not write now still answers the read: these replies are not looked at.
                yield [("EXPIRE", key, ttls[key]) for key in chunk]

    def ttls_of(self, space: Keyspace, entries: Sequence[CacheEntry]) -> dict[str, int | None]:
        """See `EntryLayout.ttls_of`."""
        del space  # an entry's own TTL says all: one that has none was given no expiry
        return {entry["key"]: ttl for entry in entries if (ttl := entry["ttl"])}

    # ---------------------------------------------------------------------------------------- writing

    def write_one(self, able: ServerAbilities, key: str, value: bytes, ttl: int | None) -> Operation[None]:
        """See `EntryLayout.write_one`."""
        del able  # SET can do it on every server
        (reply,) = yield [_set(key, value, ttl)]
        raise_if_error(reply)

    def write(self, able: ServerAbilities, writes: Writes) -> Operation[None]:
        """See `EntryLayout.write`."""
        first, *others = set(writes.ttls)
        if others or len(writes.keys) == 1:
            yield from checked(*_single_sets(writes))
        elif first is None:
            yield from checked(("MSET", *_pairs(writes)))
        else:
            yield from _write_with_ttl(able, writes, first)

    # ---------------------------------------------------------------------------------------- looking

    def match(self, keys: Sequence[str], tags: Sequence[bytes]) -> Operation[list[bool]]:
        """See `EntryLayout.match`."""
        found: list[bool] = []
        for chunk in chunks(list(zip(keys, tags, strict=True))):
            replies = yield [("GETRANGE", key, 0, codec.TAG_OFFSET + len(tag) - 1) for key, tag in chunk]
            found += [
                not is_other_type(reply) and reply.startswith(codec.MAGIC) and reply.startswith(tag, codec.TAG_OFFSET)
                for reply, (_, tag) in zip(replies, chunk, strict=True)
            ]
        return found

    def hold(self, keys: Sequence[str]) -> Operation[list[bool]]:
        """See `EntryLayout.hold`."""
        found: list[bool] = []
        for chunk in chunks(keys):
            replies = yield [("GETRANGE", key, 0, len(codec.MAGIC) - 1) for key in chunk]
            found += [not is_other_type(reply) and reply == codec.MAGIC for reply in replies]
        return found

    def examine(self, key: str) -> Operation[bytes | str | None]:
        """See `EntryLayout.examine`."""
        (value,) = yield [("GET", key)]
        if is_other_type(value):
            return "it is a list, hash or the like, and no packed entry"
        return None if value is None else _flaw(value) or value

    # ---------------------------------------------------------------------------------------- changing

    def expire(self, able: ServerAbilities, key: str, seconds: int | None) -> Operation[bool]:
        """See `EntryLayout.expire`."""
        header = (seconds or 0).to_bytes(4, "little")
        changed = yield from run_script(able, CHANGE_TTL, [key], [header, seconds or 0])
        if changed is not None:
            return bool(changed)
        # Without scripts: read, change, write back only if the key is still there. SETRANGE would create it.
        (value,) = yield from checked(("MGET", key))
        if value is None or not codec.is_sound(value):
            return False
        write: Command = ("SET", key, codec.with_ttl(value, seconds), "XX")
        return (yield from checked(write if seconds is None else (*write, "EX", seconds))) is not None

    def set_metadata(self, able: ServerAbilities, key: str, packed: bytes) -> Operation[bool]:
        """See `EntryLayout.set_metadata`."""
        for _ in range(MAX_TRIES):
            (value,) = yield from checked(("MGET", key))  # nil, not an error, for a key of another type
            changed = None if value is None else with_metadata(value, key, packed)
            if changed is None:
                return False
            if (yield from _replace(able, key, value, changed)):
                return True
        raise EmbedcacheError(f"the entry {key!r} was written by others at each of {MAX_TRIES} tries; try again")


PACKED: Final = PackedLayout()


def _flaw(value: bytes) -> str | None:
    """What is wrong with a value, in words that go after "but"."""
    if not value.startswith(codec.MAGIC[:3]):
        return "it is no packed entry"
    if not value.startswith(codec.MAGIC):
        return "it was written by another version of embedcache"
    if not codec.is_sound(value) or codec.decode_head(value) is None:
        return "it is damaged: its checksum does not fit"
    return None


# ------------------------------------------------------------------------------------------------ commands


def _reading(keys: Sequence[str], restarting: bool) -> list[Command]:
    read: Command = ("MGET", *keys)
    return [read, ("EVALSHA", RESTART_TTLS.sha, len(keys), *keys)] if restarting else [read]


def _write_with_ttl(able: ServerAbilities, writes: Writes, ttl: int) -> Operation[None]:
    if able.msetex:
        (reply,) = yield [("MSETEX", len(writes.keys), *_pairs(writes), "EX", ttl)]
        if not is_refusal(reply):
            raise_if_error(reply)
            return
        able.msetex = False
    if (yield from run_script(able, WRITE_WITH_TTL, writes.keys, [*writes.values, ttl])) is None:
        yield from checked(*_single_sets(writes))


def _pairs(writes: Writes) -> Iterator[str | bytes]:
    return chain.from_iterable(zip(writes.keys, writes.values, strict=True))


def _single_sets(writes: Writes) -> list[Command]:
    return [_set(*write) for write in zip(writes.keys, writes.values, writes.ttls, strict=True)]


def _set(key: str, value: bytes, ttl: int | None) -> Command:
    return ("SET", key, value) if ttl is None else ("SET", key, value, "EX", ttl)


def _replace(able: ServerAbilities, key: str, old: bytes, new: bytes) -> Operation[bool]:
    """Writes a value in place of another, its expiry kept; False where the key holds another one by now."""
    digest = sha1(old, usedforsecurity=False).hexdigest()  # 40 bytes instead of the value, which may be megabytes
    replaced = yield from run_script(able, REPLACE_UNCHANGED, [key], [digest.encode(), new])
    if replaced is not None:
        return bool(replaced)
    return (yield from checked(("SET", key, new, "XX", "KEEPTTL"))) is not None


# ------------------------------------------------------------------------------------------------ metadata


def with_metadata(value: bytes, key: str, packed: bytes) -> bytes | None:
    """A value with other metadata, the vector's bytes as they were; None where it is no whole entry of this key.

    Args:
        value: What is stored.
        key: Under which it was found.
        packed: From `pack_metadata`.
    """
    entry, head = codec.decode_by_key(value, key), codec.decode_head(value)
    if entry is None or head is None:
        return None
    text = head.text if isinstance(head.text, bytes) else head.text.encode()
    model = head.model_name.encode()
    identity = text + b":" + model
    tag = codec.tag_prefix(len(text), len(model), isinstance(head.text, bytes)) + identity
    rest = _with_second(value[codec.HEADER_BYTES + len(identity) : head.vector_offset - (value[16] >> 4)], packed)
    return codec.encode(tag, value[head.vector_offset :], head.dtype, head.ttl, rest)


def _with_second(rest: bytes, packed: bytes) -> bytes:
    """The array between identity and vector with another second element: a later version may have appended more."""
    first, _, *more = msgpack.unpackb(rest)
    return codec.pack_rest(first, packed) if not more else msgpack.packb([first, msgpack.unpackb(packed), *more])
