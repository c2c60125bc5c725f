"""Changes to an entry that is stored: its metadata, with everything else left as it is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from embedcache.entry_layout import EntryLayout
from embedcache.keyspace import Keyspace
from embedcache.metadata import pack_metadata
from embedcache.operations import Operation, ServerAbilities
from embedcache.packed_layout import PACKED


def set_metadata(
    space: Keyspace,
    able: ServerAbilities,
    key: str,
    metadata: Mapping[str, Any] | None,
    *,
    layout: EntryLayout = PACKED,
) -> Operation[bool]:
    """Replaces an entry's metadata; returns whether there was such an entry.

    Where scripts are refused, a write that comes between our look and our write, which is one round trip, is lost.

    Raises:
        InvalidMetadataError: It is not a JSON object, or too large or too deep.
        ForeignKeyError: The key lies outside the namespace.
        EmbedcacheError: Others wrote the entry time and again.
    """
    packed = pack_metadata(metadata)
    (owned,) = space.owned_keys([key])
    return (yield from layout.set_metadata(able, owned, packed))
