"""The indexes of caches, taken in the background and kept for all users. Knows no streamlit."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import Final

from embedcache import apart
from embedcache.connection import RedisConnection
from embedcache.index import EntryIndex
from pages.ui.jobs import Job, Jobs, Progress

MAX_ENTRIES: Final = 3_000_000
"""Entries of all kept indexes together: 240 MB."""
_GOOD_SECONDS: Final = 2.0
_TIMES_ITS_WORK: Final = 20  # an index that took 12 s is good for 4 min


@dataclass(slots=True)
class _Held:
    index: EntryIndex
    good_until: float


class IndexShelf:
    """The last index of each cache, by server and name; those used longest ago make room.

    Args:
        max_entries: Of all indexes together; the one used last stays, however large.
    """

    def __init__(self, max_entries: int = MAX_ENTRIES) -> None:
        self._max_entries = max_entries
        self._lock = threading.Lock()
        self._held: dict[tuple[str, str], _Held] = {}
        self._jobs = Jobs()

    def last(self, server: str, name: str) -> EntryIndex | None:
        """The index that was taken last, however old; None where there is none."""
        with self._lock:
            held = self._held.pop((server, name), None)
            if held is None:
                return None
            self._held[server, name] = held  # now the one used last
            return held.index

    def is_good(self, server: str, name: str) -> bool:
        """Whether the index that was taken last is still as good as new."""
        with self._lock:
            held = self._held.get((server, name))
            # An empty one is taken in no time, and somebody who has just filled the cache waits for it.
            return held is not None and len(held.index) > 0 and time.monotonic() < held.good_until

    def job(self, server: str, name: str) -> Job[None] | None:
        """The look that was started last, running or over."""
        return self._jobs.find(server, name)

    def take(self, server: str, name: str, connection: RedisConnection, url: str) -> Job[None]:
        """Starts to take an index in the background; where that runs already, returns that.

        Args:
            server: Names the server.
            name: The cache's.
            connection: To that server.
            url: The connection's, password and all.
        """

        def work(progress: Progress) -> None:
            started = time.monotonic()
            index = apart.index_cache(connection, url, name, progress.tell)
            self.put(server, name, index, good_seconds=_TIMES_ITS_WORK * (time.monotonic() - started))

        return self._jobs.start(server, name, work)

    def put(self, server: str, name: str, index: EntryIndex, good_seconds: float = 0.0) -> None:
        """Keeps an index in place of the one before, such as one without what was just removed."""
        with self._lock:
            self._held.pop((server, name), None)
            room = self._max_entries - len(index)
            for key, held in reversed(list(self._held.items())):
                room -= len(held.index)
                if room < 0:
                    del self._held[key]
            self._held[server, name] = _Held(index, time.monotonic() + max(good_seconds, _GOOD_SECONDS))

    def outdate(self, server: str) -> None:
        """Has every index of a server taken anew when it is asked for next."""
        with self._lock:
            for (of, _), held in self._held.items():
                if of == server:
                    held.good_until = 0.0
