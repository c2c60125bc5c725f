"""What a restore does with each batch of a file, whichever process does it."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import closing
from typing import TYPE_CHECKING

from embedcache.entry_layout import LayoutName
from embedcache.keyspace import Keyspace
from embedcache.near_operations import dropping
from embedcache.operations import ServerAbilities
from embedcache.transfer.columns import EntryColumns, PackedEntries, pack_columns
from embedcache.transfer.footer import Footer
from embedcache.transfer.operations import OnConflict, write_entries

if TYPE_CHECKING:
    from embedcache.connection import RedisConnection


class Restoring:
    """How a file's entries get into a cache.

    Args:
        cache_name: The cache.
        layout: How they are to lie there.
        on_conflict: What happens to an entry that is there.
        footer: What the file says of itself.
    """

    def __init__(self, cache_name: str, layout: LayoutName, on_conflict: OnConflict, footer: Footer) -> None:
        self._space = Keyspace(cache_name, hex_bytes=layout == "redisvl")
        self._layout = layout
        self._on_conflict = on_conflict
        self._footer = footer
        self._able = ServerAbilities()

    def pack(self, parts: Iterable[EntryColumns], first_row: int) -> PackedEntries:
        """The entries of these parts, one behind the other, ready to be written.

        Raises:
            TransferError: One of them cannot be restored; it names the row.
        """
        packed = PackedEntries([], [], [], [])
        for columns in parts:
            row = first_row + len(packed.keys)
            self._footer.check(columns.shapes(), row)
            packed.extend(pack_columns(self._space, columns, row))
        return packed

    def write(self, connection: RedisConnection, packed: PackedEntries) -> tuple[int, int]:
        """Writes them; returns how many had expired, and how many were written.

        Raises:
            CacheUnavailableError: The server cannot be reached.
            ServerReplyError: It refused a write.
        """
        writing = write_entries(self._able, packed, self._on_conflict, self._layout)
        with closing(dropping(self._space.name, writing)) as operation:
            return connection.drive(operation)
