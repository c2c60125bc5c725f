"""The audit log of what users change by hand and no plan does: an entry's metadata, a price."""

from __future__ import annotations

import logging
from typing import Any, Final

from embedcache import EmbedcacheError, EmbeddingsCache, audit
from pages.ui import session

NOT_WRITTEN: Final = " The audit log does not have it."
_log = logging.getLogger(__name__)


def record(cache: EmbeddingsCache, action: str, words: str, *, count: int = 0, size: int = 0, **detail: Any) -> str:
    """Writes a change that was just made to the audit log; returns what is to be added to the words that tell of it.

    That is nothing, or that the log could not be written: the change was made all the same, and stays.

    Args:
        cache: The cache that was changed.
        action: What was done, such as ``remove``.
        words: To what, for people, as plain text.
        count: Entries that it changed.
        size: Length of their values, in bytes.
        detail: More about it.
    """
    said = {"words": words, **detail, "outcome": "done"}
    try:
        audit.record(cache.connection, cache.name, session.actor(), action, count=count, size=size, detail=said)
    except EmbedcacheError as error:
        _log.warning("The audit log does not have that somebody did: %s", action, exc_info=error)
        return NOT_WRITTEN
    return ""
