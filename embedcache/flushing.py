"""When counts go to the server: at most once a second from one daemon thread, at exit, and when somebody asks.

Each cache has an `Outbox`. A batch that could not be delivered stays in it and is sent again, under the same number, so
that the server can tell whether it has it already; what is counted meanwhile waits behind it, minute by minute, and is
booked to the minutes in which it happened.
"""

from __future__ import annotations

import atexit
import logging
import os
import sys
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable
from typing import Final

from embedcache.counters import Batch, Counters
from embedcache.errors import CacheUnavailableError, EmbedcacheError, ServerReplyError

FLUSH_SECONDS: Final = 1.0
MAX_WAITING: Final = 240
"""Batches that wait for a server that is away, one per minute; after that, all the rest is one batch."""
_MERGED_SECONDS: Final = 60.0
_BROKEN_KEY: Final = "WRONGTYPE"

_log = logging.getLogger(__name__)

Send = Callable[[Batch, str, int, str], None]
"""Delivers a batch: with the writer's id, the batch's number, and the process as ``host:pid``."""


class Outbox:
    """One cache's counts on their way to its server.

    Args:
        send: Delivers one batch, or raises an `EmbedcacheError`.
        slow_seconds: As in `Counters`.
        slow_texts: As in `Counters`.
    """

    def __init__(self, send: Send, slow_seconds: float | None = None, *, slow_texts: bool = False) -> None:
        self._send = send
        itself = weakref.ref(self)  # a cycle would keep a dropped cache's connections open
        self.counters = Counters(lambda: _wake(itself()), slow_seconds, slow_texts=slow_texts)
        self._start_over()
        _outboxes.add(self)

    def _start_over(self) -> None:
        self.is_new = True
        self._lock = threading.Lock()
        self._writer = os.urandom(16).hex()
        self._process = f"{os.uname().nodename}:{os.getpid()}"
        self._number = 0
        self._waiting: deque[Batch] = deque()
        self._tried = False
        self._failing = False

    def flush(self) -> None:
        """Delivers what was counted so far.

        Raises:
            EmbedcacheError: It could not be delivered. It is kept for the next time.
        """
        with self._lock:
            self._collect()
            while self._waiting:
                # From here on the server may have it, and nothing may be added to it.
                self._number += not self._tried
                self._tried = True
                self._deliver(self._waiting[0])
                self._waiting.popleft()
                self._tried = False

    def _collect(self) -> None:
        batch = self.counters.take()
        if batch is None:
            return
        last = self._waiting[-1] if len(self._waiting) > self._tried else None
        if last is not None and (batch.until - last.since < _MERGED_SECONDS or len(self._waiting) >= MAX_WAITING):
            last.add(batch)
        else:
            self._waiting.append(batch)

    def _deliver(self, batch: Batch) -> None:
        try:
            self._send(batch, self._writer, self._number, self._process)
        except ServerReplyError as error:
            if error.code != _BROKEN_KEY:
                raise
            _log.warning("one second's statistics are lost: %s", error)  # it would never be taken

    def try_to_flush(self) -> bool:
        """Delivers what was counted; returns whether all of it is. One warning per outage says why not."""
        try:
            self.flush()
        except EmbedcacheError as error:
            if not self._failing:
                level = logging.INFO if isinstance(error, CacheUnavailableError) else logging.WARNING
                _log.log(level, "statistics wait in this process: %s", error)
            self._failing = True
            return False
        self._failing = False
        return True


class _Flusher:
    """The daemon thread of a process, started when something is counted, and the outboxes that wait for it.

    An outbox with something in it is held here, so that what a cache has counted outlives the cache by a second.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._full: set[Outbox] = set()
        self._woken = threading.Event()
        self._thread: threading.Thread | None = None

    def wake(self, outbox: Outbox) -> None:
        with self._lock:
            if outbox.is_new:
                outbox.is_new = False
                # Registered anew, so that it is called before the exit handlers of the servers attached so far.
                atexit.unregister(flush_all)
                atexit.register(flush_all)
            self._full.add(outbox)
            if self._thread is None or not self._thread.is_alive():
                self._thread = self._started_thread()
        self._woken.set()

    def _started_thread(self) -> threading.Thread | None:
        _flush_at_end_of_multiprocessing()
        thread = threading.Thread(target=self._run, name="embedcache-statistics", daemon=True)
        try:
            thread.start()
        except RuntimeError:  # the interpreter is shutting down, and will call `flush_all`
            return None
        return thread

    def _run(self) -> None:
        while True:
            self._woken.wait()
            self._woken.clear()
            started = time.monotonic()
            self.flush()
            time.sleep(max(0.0, started + FLUSH_SECONDS - time.monotonic()))

    def flush(self) -> None:
        """Delivers what all outboxes hold, after what is on its way already. Those that could not are tried again."""
        with self._lock:
            full = list(self._full)
        for outbox in full:
            done = True  # with an error that nobody has foreseen, too: it would come again and stop all others
            try:
                done = outbox.try_to_flush()
            finally:
                with self._lock:
                    # What was counted meanwhile has called `wake`, which found the outbox here still.
                    if done and outbox.counters.is_idle:
                        self._full.discard(outbox)
        if self._full:
            self._woken.set()

    def let_go(self, outbox: Outbox) -> None:
        with self._lock:
            self._full.discard(outbox)


def flush_all() -> None:
    """Delivers what every cache of this process has counted, as far as their servers answer."""
    _flusher.flush()


def let_go(outbox: Outbox) -> None:
    """Gives up what an outbox still holds: its cache was closed."""
    _flusher.let_go(outbox)


def _wake(outbox: Outbox | None) -> None:
    if outbox is not None:
        _flusher.wake(outbox)


def _flush_at_end_of_multiprocessing() -> None:
    """Processes that multiprocessing starts end without ``atexit``, but with finalizers of their own."""
    multiprocessing = sys.modules.get("multiprocessing")
    if multiprocessing is not None and multiprocessing.parent_process() is not None:
        from multiprocessing.util import Finalize

        Finalize(None, flush_all, exitpriority=100)


_flusher = _Flusher()
_outboxes: weakref.WeakSet[Outbox] = weakref.WeakSet()


def _start_over_in_child() -> None:
    """A forked child has none of its parent's threads, and its parent's counts are its parent's to deliver."""
    global _flusher  # noqa: PLW0603 - the parent's may be locked for ever
    _flusher = _Flusher()
    for outbox in _outboxes:
        outbox._start_over()


os.register_at_fork(after_in_child=_start_over_in_child)
