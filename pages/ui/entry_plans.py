"""Changes to entries that somebody pointed at: as they stood on the page, and in the audit log. Knows no streamlit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from embedcache import EntrySummary, removal
from embedcache.connection import RedisConnection
from embedcache.entry import TTL
from embedcache.removal import RemovalPlan, RemovalReport
from pages.ui import entry_frames, wording
from pages.ui.entry_frames import Row

_FASTEST: Final = 1  # few entries, and somebody waits


def plan(name: str, rows: Sequence[Row], words: str) -> RemovalPlan:
    """These entries as they stand on the page: what was written anew since is left alone.

    Args:
        name: The cache's name.
        rows: The entries.
        words: How they were chosen, for the audit log, as plain text.
    """
    digests = np.frombuffer(bytes.fromhex("".join(row.key[-64:] for row in rows)), np.uint8).reshape(-1, 32)
    seen = [row.summary for row in rows]
    return RemovalPlan.of(
        name,
        digests,
        np.array([np.nan if each is None else each.inserted_at for each in seen], np.float64),
        np.array([row.value_bytes for row in rows], np.int64),
        hashes=np.array([each is not None and entry_frames.is_redisvl(each) for each in seen], np.bool_),
        words=words,
    )


def plan_of_one(name: str, summary: EntrySummary) -> RemovalPlan:
    """As `plan`, of one entry; its text is what the audit log calls it."""
    return plan(name, [Row(summary.key, summary, None, "", summary.value_bytes)], wording.quoted(summary.text))


def drop(connection: RedisConnection, chosen: RemovalPlan, actor: str) -> RemovalReport:
    """Removes the entries of a plan.

    Raises:
        EmbedcacheError: As `removal.carry_out` does.
    """
    return removal.carry_out(connection, chosen, _tell_nobody, actor, pace=_FASTEST)


def set_ttl(connection: RedisConnection, chosen: RemovalPlan, ttl: TTL, actor: str) -> RemovalReport:
    """Gives the entries of a plan a TTL of their own.

    Raises:
        EmbedcacheError: As `removal.set_ttl` does.
    """
    return removal.set_ttl(connection, chosen, ttl, _tell_nobody, actor, pace=_FASTEST)


def _tell_nobody(_done: int, _total: int) -> None: ...
