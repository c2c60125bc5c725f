"""Warnings of what a vectorizer does without: one per outage, however many calls are struck by it."""

from __future__ import annotations

import logging
from typing import Final

_log = logging.getLogger(__name__)

_OUTAGE: Final = "outage"


class Loss:
    """Something of the cache's that may be away for a while: looking up, or storing.

    It is back with an answer to what was asked after the last failure. Many calls are on their way at once, and the
    answer to an older one says nothing.

    Args:
        consequence: What is done meanwhile, as the warning says it.
        return_: What is told when it is back.
    """

    __slots__ = ("_consequence", "_outages", "_return", "last_failure")

    def __init__(self, consequence: str, return_: str) -> None:
        self._consequence = consequence
        self._return = return_
        self._outages: dict[str, object] = {}  # the one that is; `setdefault` and `pop` are atomic, and hold no lock
        self.last_failure = object()
        """Another one after each failure; to be read before the server is asked."""

    def failed(self, error: Exception) -> None:
        """The server did not answer, or refused."""
        self.last_failure = outage = object()
        if self._outages.setdefault(_OUTAGE, outage) is outage:
            _log.warning("%s: %s", self._consequence, error)

    def answered(self, last_failure: object) -> None:
        """The server did what was asked.

        Args:
            last_failure: What `last_failure` was before.
        """
        if self._outages and last_failure is self.last_failure and self._outages.pop(_OUTAGE, None) is not None:
            _log.info("%s", self._return)
