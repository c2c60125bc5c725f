"""Changes to an entry that is stored: its metadata, with everything else left as it is.

The value is read, its head written anew around the same vector, and put back only if nobody else wrote it meanwhile.
The checksum covers head and vector, so a script cannot make the new value by itself; WATCH would need a connection of
its own, and operations share a pool. So the value is made here, and a script compares and writes.
"""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import sha1
from typing import Any, Final

import msgpack

from embedcache import codec
from embedcache.errors import EmbedcacheError
from embedcache.keyspace import Keyspace
from embedcache.metadata import pack_metadata
from embedcache.operations import Operation, ServerAbilities, checked, run_script
from embedcache.scripts import REPLACE_UNCHANGED

MAX_TRIES: Final = 50
"""Each try fails only because another writer came first, between two round trips of ours."""


def set_metadata(
    space: Keyspace, able: ServerAbilities, key: str, metadata: Mapping[str, Any] | None
) -> Operation[bool]:
    """Replaces an entry's metadata; returns whether there was such an entry.

    Where scripts are refused, a write that comes between our look and our write, which is one round trip, is lost.

    Raises:
        InvalidMetadataError: It is not a JSON object, or too large or too deep.
        ForeignKeyError: The key lies outside the namespace.
        EmbedcacheError: Others wrote the entry at each of `MAX_TRIES` tries.
    """
    packed = pack_metadata(metadata)
    (owned,) = space.owned_keys([key])
    for _ in range(MAX_TRIES):
        (value,) = yield from checked(("MGET", owned))  # nil, not an error, for a key of another type
        changed = None if value is None else with_metadata(value, owned, packed)
        if changed is None:
            return False
        if (yield from _replace(able, owned, value, changed)):
            return True
    raise EmbedcacheError(f"the entry {owned!r} was written by others at each of {MAX_TRIES} tries; try again")


def _replace(able: ServerAbilities, key: str, old: bytes, new: bytes) -> Operation[bool]:
    """Writes a value in place of another, its expiry kept; False where the key holds another one by now."""
    digest = sha1(old, usedforsecurity=False).hexdigest()  # 40 bytes instead of the value, which may be megabytes
    replaced = yield from run_script(able, REPLACE_UNCHANGED, [key], [digest.encode(), new])
    if replaced is not None:
        return bool(replaced)
    return (yield from checked(("SET", key, new, "XX", "KEEPTTL"))) is not None


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
