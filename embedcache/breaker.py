"""The circuit breaker: after repeated failures nobody waits for a server that is away; it is asked in the background.

Closed, it only counts calls in a row that got no answer. `BreakerPolicy.failures` of them open it: from then on `check`
refuses each call at once, and one daemon thread asks the server at growing pauses, until it answers, or nobody has
called for ten minutes; the next call then has it asked at once. Whatever answers closes the breaker, a call that was on
its way since before the outage among that. After the thread's probe, a single failure opens it again until a call has
succeeded: a server may answer a PING, and nothing else.

One thread serves sync and async callers alike, and no caller ever waits for it. Libraries were considered: pybreaker
serves threads alone, aiobreaker event loops alone; purgatory has a class for each, with a state of its own; and all
three have a caller's own call find out whether the server is back, which costs that caller the timeout.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final
from weakref import ReferenceType, WeakMethod, ref

from embedcache.arguments import check_seconds, check_whole
from embedcache.errors import CacheUnavailableError, InvalidInputError

QUIET_SECONDS: Final = 600.0
"""After so long without a call, a server that is away is no longer asked."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class BreakerPolicy:
    """When calls no longer wait for a server that is away, and how soon it is asked again.

    Attributes:
        failures: So many calls in a row without an answer open the breaker.
        first_pause: Seconds until the server is asked for the first time. Each later pause is twice as long, and each
            is shortened at random by up to a quarter, so that not all processes ask at once.
        longest_pause: Seconds that a pause has at most.

    Raises:
        InvalidInputError: One of them cannot be used.
    """

    failures: int = 3
    first_pause: float = 0.5
    longest_pause: float = 5.0

    def __post_init__(self) -> None:
        check_whole("a breaker's failures", self.failures)
        check_seconds("a breaker's first_pause", self.first_pause)
        check_seconds("a breaker's longest_pause", self.longest_pause)
        if self.longest_pause < self.first_pause:
            raise InvalidInputError(
                f"a breaker's longest_pause, {self.longest_pause!r}, is shorter than its first_pause, "
                f"{self.first_pause!r}"
            )


USUAL_POLICY: Final = BreakerPolicy()


@dataclass(frozen=True, slots=True)
class Outage:
    """Why calls are refused without asking the server.

    Attributes:
        since: When the first call in a row got no answer, in Unix seconds.
        reason: What became of the last attempt.
        next_attempt: When the server is asked again, in Unix seconds.
    """

    since: float
    reason: str
    next_attempt: float


class _Opening:
    """The breaker opened: what is known of the outage, and of the thread that asks."""

    __slots__ = ("asked_for", "attempts", "has_thread", "next_attempt", "over", "reason", "since")

    def __init__(self, since: float, reason: str) -> None:
        self.since = since
        self.reason = reason
        self.next_attempt = time.time()
        self.asked_for = time.monotonic()
        self.attempts = 0
        self.has_thread = False
        self.over = threading.Event()


class Breaker:
    """The breaker of one connection, for all its threads and event loops.

    Args:
        policy: When it opens; None never does.
        address: What the server is called in messages.
        probe: A bound method that asks the server; it returns None where that answers, else why not. Its object is not
            kept alive by this.
    """

    def __init__(self, policy: BreakerPolicy | None, address: str, probe: Callable[[], str | None]) -> None:
        self._policy = policy
        self._address = address
        self._probe = WeakMethod(probe)
        self._lock = threading.Lock()
        self._failures = 0
        self._since = 0.0
        self._opening: _Opening | None = None

    @property
    def outage(self) -> Outage | None:
        """Why calls are refused; None while they are not."""
        opening = self._opening
        return None if opening is None else Outage(opening.since, opening.reason, opening.next_attempt)

    def check(self) -> None:
        """Passes while it is closed.

        Raises:
            CacheUnavailableError: It is open.
        """
        opening = self._opening
        if opening is None:
            return
        opening.asked_for = time.monotonic()
        if not opening.has_thread:
            self._start_asking(opening)
        now = time.time()
        since = time.strftime("%H:%M:%S", time.localtime(opening.since))
        wait = opening.next_attempt - now
        again = f"it is asked again in {wait:.1f} s" if wait > 0 else "it is being asked again"
        raise CacheUnavailableError(
            f"no answer from {self._address} since {since}, for {now - opening.since:.1f} s: {opening.reason}; {again}"
        )

    def failed(self, reason: str) -> None:
        """A call got no answer."""
        policy = self._policy
        if policy is None:
            return
        with self._lock:
            if self._opening is not None:
                return
            self._since = self._since or time.time()
            self._failures += 1
            if self._failures < policy.failures:
                return
            opening = self._opening = _Opening(self._since, reason)
        # No warning: whoever calls is told by an exception, and vectorizers warn of an outage once themselves.
        _log.info("%s does not answer, and is no longer waited for: %s", self._address, reason)
        self._start_asking(opening)

    def answered(self) -> None:
        """A call got an answer."""
        if self._failures:
            self._close(0)

    def forget(self) -> None:
        """Lets calls through again; the first one without an answer opens it anew."""
        if self._opening is not None:
            self._close(self._failures_after_probe())

    def start_over(self) -> None:
        """As new, in a forked child: none of the parent's threads is there to ask, or to let go of a lock."""
        self._lock = threading.Lock()
        self._opening, self._failures, self._since = None, 0, 0.0

    def close(self) -> None:
        """Ends the thread that asks: the connection was closed. Calls go through again, as if it were new."""
        with self._lock:
            opening, self._opening, self._failures, self._since = self._opening, None, 0, 0.0
        if opening is not None:
            opening.over.set()

    def _failures_after_probe(self) -> int:
        return 0 if self._policy is None else self._policy.failures - 1

    def _close(self, failures: int) -> None:
        with self._lock:
            self._failures, self._since = failures, 0.0
            opening, self._opening = self._opening, None
        if opening is not None:
            opening.over.set()
            _log.info("%s answers again, after %.1f s", self._address, time.time() - opening.since)

    # ---------------------------------------------------------------------------------------- asking

    def _start_asking(self, opening: _Opening) -> None:
        with self._lock:
            if opening.has_thread or opening.over.is_set():
                return
            opening.has_thread = True
        thread = threading.Thread(target=_ask, args=(ref(self), opening), name="embedcache-breaker", daemon=True)
        try:
            thread.start()
        except RuntimeError:  # no thread to be had, or the interpreter is shutting down: another call may try again
            opening.has_thread = False

    def _pause(self, attempt: int) -> float:
        policy = self._policy or BreakerPolicy()
        pause = min(policy.first_pause * 2.0 ** min(attempt, 30), policy.longest_pause)
        return pause * random.uniform(0.75, 1)  # noqa: S311 - no secret

    def _answers(self, opening: _Opening) -> bool:
        """Whether the server answers now, or nobody is left to ask."""
        probe = self._probe()
        reason = None if probe is None else probe()
        if reason is not None:
            opening.reason = reason
            return False
        if self._opening is opening:
            self._close(self._failures_after_probe())
        return True


def _ask(breaker: ReferenceType[Breaker], opening: _Opening) -> None:
    """Asks until the server answers, the connection is gone or closed, or nobody has called for long."""
    waits = opening.attempts == 0  # not where it is asked again after a long silence
    try:
        while time.monotonic() - opening.asked_for < QUIET_SECONDS:
            alive = breaker()
            if alive is None:
                return
            pause = alive._pause(opening.attempts) if waits else 0
            del alive  # a cache that is dropped meanwhile must not wait for us
            opening.next_attempt = time.time() + pause
            if opening.over.wait(pause):
                return
            alive = breaker()
            if alive is None or alive._answers(opening):
                return
            del alive
            opening.attempts += 1
            waits = True
    finally:
        opening.has_thread = False
