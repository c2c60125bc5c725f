"""The names of the caches on a server, found in the background and kept for a while. Knows no streamlit."""

from __future__ import annotations

import threading
import time
from typing import Final

from embedcache import EmbedcacheError, inspector
from embedcache.connection import RedisConnection
from pages.ui.jobs import Jobs

GOOD_SECONDS: Final = 15.0
_TIMES_ITS_WORK: Final = 60  # what took a second is good for a minute
_jobs: Final = Jobs()  # of their own: how many looks there are is no concern of what users started


class KnownNames:
    """The caches on one server. Looking for them walks over its keys: a second for a million of them.

    Args:
        owner: Names the server, for the look that runs.
    """

    def __init__(self, owner: str) -> None:
        self._owner = owner
        self._lock = threading.Lock()
        self._names: tuple[str, ...] = ()
        self._good_until = 0.0

    def names(self, connection: RedisConnection, patience: float) -> tuple[str, ...]:
        """Those found a short while ago, else those found now, if that takes no longer than `patience` seconds.

        Where it takes longer or the server does not answer, those found last; the look goes on for who asks next.
        """
        with self._lock:
            if time.monotonic() < self._good_until:
                return self._names
        job = _jobs.start(self._owner, "names", lambda _: self._look(connection))
        job.wait(patience)
        with self._lock:
            return self._names

    def _look(self, connection: RedisConnection) -> None:
        started = time.monotonic()
        try:
            found = inspector.find_names(connection)
        except EmbedcacheError:
            return  # whoever works with this server is told why by their own commands
        with self._lock:
            self._names = found
            now = time.monotonic()
            self._good_until = now + max(GOOD_SECONDS, _TIMES_ITS_WORK * (now - started))

    def forget(self) -> None:
        """Has them looked for anew when they are asked for next."""
        with self._lock:
            self._good_until = 0.0

    def finish(self) -> None:
        """Waits for the look that runs, if one does: before what it uses is closed."""
        job = _jobs.find(self._owner, "names")
        if job is not None:
            job.wait()
