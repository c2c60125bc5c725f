"""Filters: the same choice of entries as on the pages Browse and Cleanup, as options."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Annotated, Any, Final

import typer

from embedcache import walking
from embedcache.cache import EmbeddingsCache
from embedcache.cli.output import progress
from embedcache.columns import Layout
from embedcache.errors import InvalidInputError
from embedcache.filtering import EntryFilter
from embedcache.index import EntryIndex, Positions
from embedcache.removal import RemovalPlan

_UNITS: Final = {"s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 604_800}
_BYTES: Final = {"": 1, "b": 1, "kb": 1 << 10, "mb": 1 << 20, "gb": 1 << 30}
_SPAN: Final = re.compile(r"(\d+(?:\.\d+)?)\s*([smhdw]?)", re.ASCII)
_SIZE: Final = re.compile(r"(\d+(?:\.\d+)?)\s*([kmg]?b?)", re.ASCII | re.IGNORECASE)
_PANEL: Final = "Which entries"


def span(text: str) -> float:
    """Seconds that a length of time like ``90``, ``15m``, ``24h`` or ``7d`` has."""
    found = _SPAN.fullmatch(text.strip())
    if found is None:
        raise typer.BadParameter(f"{text!r} is no length of time; write 90 (seconds), 15m, 24h, 7d or 2w")
    return _finite(text, float(found[1]) * _UNITS[found[2] or "s"])


def size(text: str) -> int:
    """Bytes that a size like ``4096``, ``64kb`` or ``1.5mb`` has."""
    found = _SIZE.fullmatch(text.strip())
    unit = "" if found is None else found[2].lower()
    if found is None or (unit not in _BYTES and f"{unit}b" not in _BYTES):
        raise typer.BadParameter(f"{text!r} is no size; write 4096 (bytes), 64kb or 1.5mb")
    return int(_finite(text, float(found[1]) * _BYTES.get(unit, _BYTES.get(f"{unit}b", 1))))


def _finite(text: str, value: float) -> float:
    if math.isinf(value):
        raise typer.BadParameter(f"{text!r} is more than a number can hold")
    return value


def whole_span(text: str) -> int:
    """Whole seconds of a length of time, as a TTL has them."""
    seconds = span(text)
    if seconds < 1 or seconds != int(seconds):
        raise typer.BadParameter(f"a TTL is a whole number of seconds above zero, not {text!r}")
    return int(seconds)


Contains = Annotated[str | None, typer.Option("--contains", help="Its text has this in it.", rich_help_panel=_PANEL)]
OfModel = Annotated[str | None, typer.Option("--model", "-m", help="It is of this model.", rich_help_panel=_PANEL)]
Field = Annotated[
    str | None, typer.Option("--metadata", help="A field of its metadata is this: field=value.", rich_help_panel=_PANEL)
]
Older = Annotated[
    float | None,
    typer.Option(
        "--older", parser=span, metavar="TIME", help="Inserted so long ago, or before.", rich_help_panel=_PANEL
    ),
]
Newer = Annotated[
    float | None,
    typer.Option("--newer", parser=span, metavar="TIME", help="Inserted within this time.", rich_help_panel=_PANEL),
]
Idle = Annotated[
    float | None,
    typer.Option("--idle", parser=span, metavar="TIME", help="Not read for this long.", rich_help_panel=_PANEL),
]
Expires = Annotated[
    float | None,
    typer.Option(
        "--expires-within", parser=span, metavar="TIME", help="It expires in this time.", rich_help_panel=_PANEL
    ),
]
NeverExpires = Annotated[
    bool | None,
    typer.Option("--no-ttl/--has-ttl", help="It never expires, or does.", show_default=False, rich_help_panel=_PANEL),
]
Larger = Annotated[
    int | None,
    typer.Option(
        "--larger", parser=size, metavar="SIZE", help="Its value is so large, or more.", rich_help_panel=_PANEL
    ),
]
Smaller = Annotated[
    int | None,
    typer.Option(
        "--smaller", parser=size, metavar="SIZE", help="Its value is so large, or less.", rich_help_panel=_PANEL
    ),
]
Corrupt = Annotated[
    bool, typer.Option("--corrupt", help="Its value is damaged, or no entry at all.", rich_help_panel=_PANEL)
]


def entry_filter(
    contains: str | None = None,
    model: str | None = None,
    metadata: str | None = None,
    older: float | None = None,
    newer: float | None = None,
    idle: float | None = None,
    expires_within: float | None = None,
    never_expires: bool | None = None,
    larger: int | None = None,
    smaller: int | None = None,
    corrupt: bool = False,
) -> EntryFilter:
    """The filter that the options make up.

    Raises:
        InvalidInputError: One cannot be used, or contradicts another.
    """
    field, equals, value = (metadata or "").partition("=")
    if metadata is not None and not (field and equals):
        raise InvalidInputError(f"--metadata is field=value, not {metadata!r}")
    return EntryFilter(
        text_contains=contains,
        model_name=model,
        metadata_field=field or None,
        metadata_value=value if metadata is not None else None,
        min_age=older,
        max_age=newer,
        min_idle=idle,
        expires_within=expires_within,
        never_expires=never_expires,
        min_bytes=larger,
        max_bytes=smaller,
        unreadable=corrupt or None,
    )


@dataclass(frozen=True, slots=True)
class Chosen:
    """Entries that a filter matches.

    Attributes:
        index: All entries of the cache, as they were a moment ago.
        positions: Which of them match.
    """

    index: EntryIndex
    positions: Positions

    def plan(self, asked: EntryFilter) -> RemovalPlan:
        """Their keys, frozen: what is stored later, or anew, is none of them."""
        index, some = self.index, self.positions
        words = ", ".join(f"{name} {value}" for name, value in asked.to_dict().items()) or "all entries"
        return RemovalPlan.of(
            index.name,
            index.digests[some],
            index.inserted_at[some],
            index.value_bytes[some],
            hashes=index.layouts[some] == Layout.REDISVL,
            words=words,
            chosen_by=asked.to_dict(),
        )


def choose(cache: EmbeddingsCache, asked: EntryFilter) -> Chosen:
    """Looks at all heads of a cache, and at texts and metadata where they are asked for."""
    with progress("Looking at entries") as tell:
        index = walking.index_cache(cache.connection, cache.name, tell)
    if asked.unreadable:
        with progress("Checking values") as tell:
            index = index.with_unreadable(walking.find_unreadable(cache.connection, index, tell).positions)
    with progress("Comparing texts and metadata") as tell:
        return Chosen(index, walking.match(cache.connection, index, asked, tell))


def described(plan: RemovalPlan) -> dict[str, Any]:
    """A plan, for programs."""
    return {"cache": plan.cache_name, "entries": len(plan), "bytes": plan.total_bytes, "filter": dict(plan.chosen_by)}
