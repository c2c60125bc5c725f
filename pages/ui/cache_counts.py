"""How many entries each cache of a server has: counted in the background, once for all who work with that server."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Final

import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from embedcache import apart, walking
from embedcache.connection import RedisConnection
from embedcache.walking import KeyCounts
from pages.ui import failures, longwork, session, stocktaking
from pages.ui.jobs import Job, Progress

GOOD_SECONDS: Final = 60.0
_HEAD_PIXELS: Final = 38
_ROW_PIXELS: Final = 35
_MOST_ROWS: Final = 10
_PATIENCE: Final = 0.3  # seconds; a bar that is gone at once says nothing


@dataclass(frozen=True, slots=True)
class CacheCounts:
    """The entries of a server's caches.

    Attributes:
        keys: How many each cache has, RedisVL's among them.
        redisvl: How many of those are RedisVL's; only caches that have any.
    """

    keys: KeyCounts
    redisvl: Mapping[str, int]


def counted(*, again: bool = False) -> Job[CacheCounts]:
    """The count of all caches of this user's server, running or done; one that is over is good for a minute.

    Args:
        again: Count anew, however good the last one is.

    Raises:
        EmbedcacheError: The server's URL cannot be used.
    """
    job = longwork.find(_name(), shared=True)
    if job is None or again or job.seconds_since_end > GOOD_SECONDS:
        job = _start()
    job.wait(_PATIENCE)
    if job.error is not None and failures.is_outage(job.error):
        job = _start()  # it was begun while the server was away; pages ask first whether it is back
        job.wait(_PATIENCE)
    return job


def _name() -> str:
    return f"keys of {session.server_key()}"


def _start() -> Job[CacheCounts]:
    connection = session.open_cache(session.DEFAULT_CACHE, refresh_ttl=False).connection
    return longwork.start(_name(), partial(_count, connection, session.server_url()), shared=True)


def draw_table(counts: CacheCounts, *, key: str, selectable: bool = False) -> str | None:
    """Draws a row for each cache, most entries first, and how many are RedisVL's where any are.

    Args:
        counts: What was counted.
        key: Names the table on its page.
        selectable: Whether a row can be ticked.

    Returns:
        The cache that is ticked, if any.
    """
    names = stocktaking.by_size(counts.keys.by_cache)
    state = st.dataframe(
        stocktaking.caches_frame(counts.keys.by_cache, counts.redisvl),
        hide_index=True,
        height=_HEAD_PIXELS + _ROW_PIXELS * min(len(counts.keys.by_cache), _MOST_ROWS),
        column_config={
            "cache": st.column_config.TextColumn("Cache"),
            "entries": st.column_config.NumberColumn("Entries", format="localized", width=90),
            "redisvl": st.column_config.NumberColumn(
                "RedisVL's", format="localized", width=90, help="How many of its entries RedisVL stored."
            ),
        },
        # Another for other rows, so that no tick ever falls upon a cache that was not ticked.
        key=f"{key}_{hash(tuple(names))}" if selectable else key,
        on_select="rerun" if selectable else "ignore",
        selection_mode="single-row",
    )
    rows = [] if isinstance(state, DeltaGenerator) else state["selection"]["rows"]
    return names[rows[0]] if rows and rows[0] < len(names) else None


def _count(connection: RedisConnection, url: str, progress: Progress) -> CacheCounts:
    keys = apart.count_keys(connection, url, progress.tell)
    return CacheCounts(keys, walking.count_redisvl(connection, lambda *_: progress.check()))
