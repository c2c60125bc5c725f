"""Long work: a thread does it, pages look at how far it is as often as they like, and a rerun finds it again.

A page starts a job under its owner's name and its own; a fragment (`pages.ui.longwork`) shows it until it is over; the
run after that takes the result. The work itself knows nothing of Streamlit: it calls `Progress.tell` from time to time,
which is also where it ends when it was cancelled. ::

    def work(progress: Progress) -> int:
        for done, batch in enumerate(batches):
            progress.tell(done, len(batches))
            ...

    job = jobs.start(owner, "count", work)
"""

from __future__ import annotations

import logging
import secrets
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Final, Generic, Literal, TypeVar, cast

R = TypeVar("R")

State = Literal["running", "done", "failed", "cancelled"]

MAX_JOBS: Final = 200
MAX_RESULT_BYTES: Final = 128 * 1024 * 1024
KEPT_SECONDS: Final = 3_600.0

_log = logging.getLogger(__name__)


class JobCancelledError(Exception):
    """Raised within the work of a job that was cancelled."""


class Progress:
    """How far a job is, told by its work and read by pages.

    Attributes:
        done: How many of `total` are done.
        total: How many there are, or None while that is not known.
        note: What it is at, in a few words.
        since: When it began on this total, by `time.monotonic`: what was loaded or looked for before is no measure.
    """

    def __init__(self) -> None:
        self.done = 0
        self.total: int | None = None
        self.note = ""
        self.since = time.monotonic()
        self._cancelled = threading.Event()

    def tell(self, done: int, total: int | None = None, note: str | None = None) -> None:
        """Says how far the work is; a total and a note stay until others are given.

        Raises:
            JobCancelledError: Somebody cancelled the job; the work is to clean up and let this pass.
        """
        if total is not None and total != self.total:
            self.total, self.since = total, time.monotonic()
        self.done = done
        self.note = self.note if note is None else note
        self.check()

    def check(self) -> None:
        """Raises `JobCancelledError` where somebody cancelled the job."""
        if self._cancelled.is_set():
            raise JobCancelledError

    def pause(self, seconds: float) -> None:
        """Waits, and raises `JobCancelledError` as soon as somebody cancels the job."""
        self._cancelled.wait(seconds)
        self.check()

    def cancel(self) -> None:
        """Asks the work to end."""
        self._cancelled.set()

    @property
    def cancelling(self) -> bool:
        """Whether somebody asked the work to end."""
        return self._cancelled.is_set()


class Job(Generic[R]):
    """One piece of long work, running or over.

    Attributes:
        progress: How far it is.
        state: ``running`` until it is over.
        error: What it failed with, or None.
        reference: Names this failure in the log.
    """

    def __init__(self, name: str, work: Callable[[Progress], R]) -> None:
        self.progress = Progress()
        self.state: State = "running"
        self.error: Exception | None = None
        self.reference = ""
        self._result: R | None = None
        self._started = time.monotonic()
        self._ended: float | None = None
        # The work is the thread's alone, which lets go of it in the end: it may hold the index of a million entries.
        self._thread = threading.Thread(target=self._run, args=(work,), name=f"embedcache-job-{name}", daemon=True)
        self._thread.start()

    def _run(self, work: Callable[[Progress], R]) -> None:
        state: State = "done"
        try:
            self._result = work(self.progress)
        except JobCancelledError:
            state = "cancelled"
        except Exception as error:  # noqa: BLE001 - whoever looks at the job is told
            state, self.error, self.reference = "failed", error, secrets.token_hex(4)
            _log.warning("A job failed (%s)", self.reference, exc_info=error)
        self._ended = time.monotonic()
        self.state = state  # last: from here on the rest is read

    @property
    def running(self) -> bool:
        """Whether it is not over."""
        return self.state == "running"

    @property
    def result(self) -> R:
        """What the work returned.

        Raises:
            RuntimeError: It is not done.
        """
        if self.state != "done":
            raise RuntimeError(f"the job is {self.state}, it has no result")
        return cast("R", self._result)

    @property
    def result_bytes(self) -> int:
        """Memory of its result, where that tells its own as ``nbytes``; else 0, which small ones are taken for."""
        return int(getattr(self._result, "nbytes", 0))

    @property
    def seconds(self) -> float:
        """How long it has run, or ran."""
        return (self._ended or time.monotonic()) - self._started

    @property
    def seconds_since_end(self) -> float:
        """How long it has been over; 0 while it runs."""
        return 0.0 if self._ended is None else time.monotonic() - self._ended

    @property
    def rate(self) -> float:
        """What is done per second, on average since the total is known."""
        seconds = (self._ended or time.monotonic()) - self.progress.since
        return self.progress.done / seconds if seconds > 0 else 0.0

    @property
    def remaining_seconds(self) -> float | None:
        """How long it takes from here at this rate, or None where that cannot be told."""
        if not self.running or not self.progress.total or not self.progress.done:
            return None
        return max(self.progress.total - self.progress.done, 0) / self.rate

    def cancel(self) -> None:
        """Asks it to end; it does so at its next step."""
        self.progress.cancel()

    def wait(self, timeout: float | None = None) -> bool:
        """Waits until it is over, at most so many seconds; whether it is."""
        self._thread.join(timeout)
        return not self.running


class Jobs:
    """The jobs of a process, each found again by its owner and name.

    Args:
        max_jobs: Kept at most; those that ended first are forgotten first. Running ones are never.
        kept_seconds: How long one that is over is kept.
        max_result_bytes: Of the results of those kept, together; those looked for longest ago are forgotten first. The
            one looked for last is kept, however large.
    """

    def __init__(
        self,
        max_jobs: int = MAX_JOBS,
        kept_seconds: float = KEPT_SECONDS,
        max_result_bytes: int = MAX_RESULT_BYTES,
    ) -> None:
        self._max_jobs = max_jobs
        self._kept_seconds = kept_seconds
        self._max_result_bytes = max_result_bytes
        self._gone: set[str] = set()
        self._leaving: deque[str] = deque()
        self._lock = threading.Lock()
        self._jobs: dict[tuple[str, str], Job[Any]] = {}

    def start(self, owner: str, name: str, work: Callable[[Progress], R]) -> Job[R]:
        """Starts work in a thread; where this owner's job of that name runs already, returns that instead."""
        with self._lock:
            found = self._jobs.get((owner, name))
            if found is not None and found.running:
                return found
            self._forget_old()
            job = self._jobs[owner, name] = Job(name, work)
            return job

    def find(self, owner: str, name: str) -> Job[Any] | None:
        """The job of that owner and name that was started last, running or over; None where there is none."""
        with self._lock:
            job = self._jobs.pop((owner, name), None)
            if job is not None:
                self._jobs[owner, name] = job  # now the one looked for last
                self._forget_largest()
            return job

    def leave(self, owner: str) -> None:
        """Has an owner's jobs forgotten who will not ask for them again, each when it is over.

        May be called from a finalizer, whatever this thread is at: it waits for nothing.
        """
        self._leaving.append(owner)

    def forget(self, owner: str, name: str) -> None:
        """Cancels and forgets a job, if there is one."""
        with self._lock:
            job = self._jobs.pop((owner, name), None)
        if job is not None:
            job.cancel()

    def _forget_old(self) -> None:
        self._forget_those_of_who_left()
        self._forget_largest()
        over = sorted((job.seconds_since_end, key) for key, job in self._jobs.items() if not job.running)
        surplus = len(self._jobs) - self._max_jobs + 1
        for number, (age, key) in enumerate(reversed(over)):
            if number < surplus or age > self._kept_seconds:
                del self._jobs[key]

    def _forget_those_of_who_left(self) -> None:
        while self._leaving:
            self._gone.add(self._leaving.popleft())
        theirs = [key for key in self._jobs if key[0] in self._gone]
        for key in theirs:
            if not self._jobs[key].running:
                del self._jobs[key]
        self._gone.intersection_update(owner for owner, _ in self._jobs)

    def _forget_largest(self) -> None:
        """Forgets what was looked for longest ago until the results of the rest have room."""
        room = self._max_result_bytes
        for number, (key, job) in enumerate(reversed(list(self._jobs.items()))):
            room -= job.result_bytes
            if room < 0 and number and job.result_bytes:
                del self._jobs[key]
