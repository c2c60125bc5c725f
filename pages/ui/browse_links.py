"""What a link to Browse names: sort order, page, filter and the open entry. Knows no streamlit.

A link comes from anybody. What cannot be used in it is left out; a filter that cannot be used is refused, for without
it the page would show other entries than the link meant.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from embedcache import InvalidInputError
from embedcache.filtering import EntryFilter
from embedcache.index import Column
from pages.ui.inputs import UnusableInputError

PARAMETERS: Final = ("page", "sort", "size", "filter", "key")
SIZES: Final = (25, 50, 100, 200)
DEFAULT_SIZE: Final = 50
_MAX_CHARACTERS: Final = 8_000
_MAX_DIGITS: Final = 9


@dataclass(frozen=True, slots=True)
class Sorting:
    """An order of entries.

    Attributes:
        column: What they are sorted by.
        descending: Whether the greatest comes first.
        label: The order in words.
    """

    column: Column
    descending: bool
    label: str


SORTINGS: Final[Mapping[str, Sorting]] = {
    "-inserted_at": Sorting("inserted_at", True, "Newest first"),
    "inserted_at": Sorting("inserted_at", False, "Oldest first"),
    "-last_access": Sorting("last_access", True, "Read most recently"),
    "last_access": Sorting("last_access", False, "Not read for longest"),
    "expires_at": Sorting("expires_at", False, "Expires soonest"),
    "-expires_at": Sorting("expires_at", True, "Expires latest or never"),
    "-value_bytes": Sorting("value_bytes", True, "Largest first"),
    "value_bytes": Sorting("value_bytes", False, "Smallest first"),
    "model_name": Sorting("model_name", False, "Model, A to Z"),
    "-model_name": Sorting("model_name", True, "Model, Z to A"),
    "-dimension": Sorting("dimension", True, "Most dimensions"),
    "dimension": Sorting("dimension", False, "Fewest dimensions"),
}
"""By what a link calls them; the first is the default."""
DEFAULT_SORT: Final = next(iter(SORTINGS))


@dataclass(frozen=True, slots=True)
class View:
    """What Browse shows.

    Attributes:
        sort: One of `SORTINGS`.
        page: From 1.
        size: Entries on a page, one of `SIZES`.
        entry_filter: Which entries.
        key: The open entry's, or None.
    """

    sort: str = DEFAULT_SORT
    page: int = 1
    size: int = DEFAULT_SIZE
    entry_filter: EntryFilter = field(default_factory=EntryFilter)
    key: str | None = None


def read(parameters: Mapping[str, str]) -> View:
    """What an address names.

    Raises:
        UnusableInputError: Its filter cannot be used.
    """
    sort, size = parameters.get("sort", ""), _whole(parameters.get("size", ""))
    key = parameters.get("key", "").strip()
    return View(
        sort=sort if sort in SORTINGS else DEFAULT_SORT,
        page=max(1, _whole(parameters.get("page", "")) or 1),
        size=size if size in SIZES else DEFAULT_SIZE,
        entry_filter=_read_filter(parameters.get("filter", "")),
        key=key[:_MAX_CHARACTERS] or None,
    )


def write(view: View) -> dict[str, str | None]:
    """The parameters of an address that names this; None for what is as it is by default."""
    asked = view.entry_filter.to_dict()
    return {
        "page": str(view.page) if view.page > 1 else None,
        "sort": view.sort if view.sort != DEFAULT_SORT else None,
        "size": str(view.size) if view.size != DEFAULT_SIZE else None,
        "filter": json.dumps(asked, separators=(",", ":")) if asked else None,
        "key": view.key,
    }


def _whole(digits: str) -> int | None:
    return int(digits) if digits.isascii() and digits.isdigit() and len(digits) <= _MAX_DIGITS else None


def _read_filter(written: str) -> EntryFilter:
    if not written:
        return EntryFilter()
    unusable = UnusableInputError("The filter in this address cannot be used: all entries are shown. Choose it anew.")
    if len(written) > _MAX_CHARACTERS:
        raise unusable
    try:
        given = json.loads(written)
        if not isinstance(given, dict):
            raise unusable
        return EntryFilter.from_dict(given)
    except (ValueError, RecursionError, InvalidInputError) as error:
        raise unusable from error
