"""The index of a cache on a page: taken in the background, shown with its age, taken anew by a button."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

import streamlit as st

from embedcache.connection import RedisConnection
from embedcache.index import EntryIndex
from pages.ui import failures, longwork, session, wording
from pages.ui.jobs import Job

_STOPPED_SECONDS: Final = 30.0
_PATIENCE: Final = 0.5
"""Seconds that a page waits for an index before it shows a bar: small caches are there at once."""


def look(name: str) -> EntryIndex | None:
    """As `current`; where that is None, draws how far it is. The page runs again by itself when it is there.

    Raises:
        EmbedcacheError: The server's URL cannot be used, or this user is not logged in.
    """
    index = current(name)
    if index is None:
        show_first(name)
    return index


def awaits(name: str) -> bool:
    """Whether `current` has to wait for the first index of this cache: there is none, and nobody stopped the look."""
    shelf, server = session.index_shelf(), session.server_key()
    return shelf.last(server, name) is None and not _was_stopped(shelf.job(server, name))


def current(name: str) -> EntryIndex | None:
    """The entries of a cache of this user's server, no older than it is worth to take them anew.

    Waits half a second for what is not there yet. An older index is returned while a newer one is taken; None where
    none was ever taken.

    Raises:
        EmbedcacheError: The server's URL cannot be used, or this user is not logged in.
    """
    shelf, server = session.index_shelf(), session.server_key()
    connection = session.open_cache(name, refresh_ttl=False).connection  # raises here, and not in a thread
    if not shelf.is_good(server, name) and not _was_stopped(shelf.job(server, name)):
        job = _take(name, connection)
        job.wait(_PATIENCE)
        if job.error is not None and failures.is_outage(job.error):
            # It was begun while the server was away; pages ask first whether it is back.
            _take(name, connection).wait(_PATIENCE)
    return shelf.last(server, name)


def _take(name: str, connection: RedisConnection) -> Job[None]:
    return session.index_shelf().take(session.server_key(), name, connection, session.server_url())


def _job(name: str) -> Job[None] | None:
    return session.index_shelf().job(session.server_key(), name)


def _was_stopped(job: Job[None] | None) -> bool:
    """Whether somebody cancelled it, or it failed, a moment ago: it is not started again unasked.

    What failed because the server was away is started again.
    """
    if job is None or job.state not in {"cancelled", "failed"}:
        return False
    return job.seconds_since_end < _STOPPED_SECONDS and not (job.error and failures.is_outage(job.error))


def show_first(name: str) -> None:
    """Where `current` is None, draws how far it is, or why it ended, and then offers to look again."""
    job = _job(name)
    if job is not None:
        if longwork.shown(job, "Looking at the entries"):
            st.rerun()  # it came to its end since
        if job.running:
            return
    st.button("Look again", icon=":material/refresh:", key="look_again", on_click=refresh, args=(name,))


def refresh(name: str) -> None:
    """Takes the index of a cache anew, for a callback."""
    _take(name, session.open_cache(name, refresh_ttl=False).connection).wait(_PATIENCE)


def age_line(name: str, index: EntryIndex | None, on_refresh: Callable[[str], None] = refresh) -> None:
    """Says of when an index is, and offers to take it anew; shows how far that is, and if it failed.

    Args:
        name: The cache.
        index: What the page shows of it; None for nothing yet.
        on_refresh: Called with the cache's name where the user asks for it anew.
    """
    if index is None:
        _draw_age("Not looked at yet.", name, None)
        return
    job = _job(name)
    if job is not None and job.running:
        longwork.on_a_line(job, "Looking again:")
        return
    since = wording.ago(time.time() - index.taken_at)
    _draw_age(f"{wording.counted(len(index), 'entry', 'entries')}, as of {since}.", name, on_refresh)
    if job is not None and job.state == "failed":
        longwork.shown(job, "Looking at the entries again")


def _draw_age(words: str, name: str, on_refresh: Callable[[str], None] | None) -> None:
    # As deep as what stands here while it looks again, in a fragment: that replaces this, piece by piece.
    with st.container(), st.container(horizontal=True, vertical_alignment="center"):
        st.caption(words, width="content")
        st.button(
            "Refresh",
            icon=":material/refresh:",
            key="refresh_index",
            type="tertiary",
            on_click=on_refresh,
            args=(name,),
            disabled=on_refresh is None,
        )


def keep(name: str, index: EntryIndex) -> None:
    """Keeps a changed index in place of the one that was taken, such as one without what was just removed."""
    session.index_shelf().put(session.server_key(), name, index)
