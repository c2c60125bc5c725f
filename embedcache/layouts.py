"""The layouts by name."""

from __future__ import annotations

from embedcache import codec
from embedcache.arguments import shown
from embedcache.entry_layout import EntryLayout
from embedcache.errors import InvalidInputError
from embedcache.packed_layout import PACKED
from embedcache.redisvl_layout import RedisVLLayout


def entry_layout(name: str, dtype: codec.StoredDtype) -> EntryLayout:
    """The layout of that name, whose vectors are of that dtype.

    Raises:
        InvalidInputError: There is none of that name, or it has no such dtype.
    """
    known = name if isinstance(name, str) else ""  # an array cannot be compared
    if known == "packed":
        return PACKED
    if known == "redisvl":
        return RedisVLLayout(dtype)
    raise InvalidInputError(f"layout is packed or redisvl, not {shown(name)}")
