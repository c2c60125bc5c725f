"""Which entries of an index match a filter, and in which order: the columns at once, texts and metadata in a thread.

What was found by text or metadata is kept for this user, by the entries' digests and not by their positions: so it
stays good for the next index, and neither paging nor sorting looks through a million texts again.
"""

from __future__ import annotations

import json
import secrets
import time
from dataclasses import dataclass
from functools import partial
from typing import Final

import numpy as np
import numpy.typing as npt
import streamlit as st

from embedcache import walking
from embedcache.connection import RedisConnection
from embedcache.filtering import EntryFilter
from embedcache.index import EntryIndex
from pages.ui import longwork, session, wording
from pages.ui.browse_links import SORTINGS
from pages.ui.jobs import Job, Progress

_JOB: Final = "matching entries"
_ASKED_KEY: Final = "matched_for"
_PATIENCE: Final = 0.4
_KEPT_ORDERS: Final = 6
"""Of 1,000,000 entries, each takes 4 MB."""


@dataclass(frozen=True, slots=True, eq=False)
class Found:
    """What matched by text or metadata.

    Attributes:
        token: Names this search.
        marks: The first 8 bytes of each match's digest, ascending, uint64, shape (n,).
        at: When it was looked for, in Unix seconds.
    """

    token: str
    marks: npt.NDArray[np.uint64]
    at: float

    @property
    def nbytes(self) -> int:
        """Its memory in bytes."""
        return self.marks.nbytes


def find(name: str, index: EntryIndex, entry_filter: EntryFilter, sort: str) -> npt.NDArray[np.uint32] | None:
    """The positions of the entries that match, sorted; None while they are still looked for, which it draws.

    Args:
        name: The cache's name.
        index: Its entries.
        entry_filter: Which of them.
        sort: One of `SORTINGS`.

    Raises:
        EmbedcacheError: The server's URL cannot be used.
    """
    found: Found | None = None
    if entry_filter.needs_heads:
        job = _search(name, index, entry_filter)
        if not longwork.shown(job, "Looking through texts and metadata"):
            if not job.running:
                st.button(
                    "Look again", icon=":material/refresh:", key="match_again", on_click=longwork.forget, args=(_JOB,)
                )
            return None
        found = job.result
    identity = (session.server_key(), name, index.taken_at, len(index), index.unreadable)
    asked = json.dumps(entry_filter.to_dict(), sort_keys=True)
    return _ordered(identity, asked, sort, found.token if found else "", index, entry_filter, found)


def age_line(entry_filter: EntryFilter) -> None:
    """Says when texts and metadata were looked through, and offers to do it again."""
    job = longwork.find(_JOB)
    if not entry_filter.needs_heads or job is None or job.state != "done":
        return
    with st.container(horizontal=True, vertical_alignment="center"):
        since = wording.ago(time.time() - job.result.at)
        st.caption(f"Texts and metadata were looked through {since}.", width="content")
        st.button(
            "Look again",
            icon=":material/refresh:",
            key="match_again",
            type="tertiary",
            on_click=longwork.forget,
            args=(_JOB,),
        )


def _search(name: str, index: EntryIndex, entry_filter: EntryFilter) -> Job[Found]:
    """This user's search for that, begun where it is not the last one."""
    asked = (session.server_key(), name, entry_filter)
    job = longwork.find(_JOB) if st.session_state.get(_ASKED_KEY) == asked else None
    if job is None:
        longwork.forget(_JOB)
        st.session_state[_ASKED_KEY] = asked
        connection = session.open_cache(name, refresh_ttl=False).connection
        job = longwork.start(_JOB, partial(_look_through, connection, index, entry_filter))
        job.wait(_PATIENCE)
    return job


def _look_through(
    connection: RedisConnection, index: EntryIndex, entry_filter: EntryFilter, progress: Progress
) -> Found:
    at = time.time()
    positions = walking.match(connection, index, entry_filter, progress.tell)
    return Found(secrets.token_hex(8), np.sort(_marks(index)[positions]), at)


def _marks(index: EntryIndex) -> npt.NDArray[np.uint64]:
    """The first 8 bytes of the digests, which tell a million keys apart."""
    return np.ascontiguousarray(index.digests[:, :8]).view(np.uint64).ravel()


@st.cache_resource(max_entries=_KEPT_ORDERS, show_spinner=False)
def _ordered(
    identity: tuple[str, str, float, int, int],  # noqa: ARG001 - with the next three, what the order is kept by
    asked: str,  # noqa: ARG001
    sort: str,
    token: str,  # noqa: ARG001
    _index: EntryIndex,
    _filter: EntryFilter,
    _found: Found | None,
) -> npt.NDArray[np.uint32]:
    if _found is None:
        positions = _index.where(_filter)
    elif len(_found.marks):
        marks = _marks(_index)
        places = np.searchsorted(_found.marks, marks).clip(max=len(_found.marks) - 1)
        positions = np.flatnonzero(_found.marks[places] == marks)
    else:
        positions = np.empty(0, np.int64)
    sorting = SORTINGS[sort]
    ordered = _index.order(positions, sorting.column, descending=sorting.descending)
    return ordered.astype(np.uint32)  # half as large; positions are below 4 billion
