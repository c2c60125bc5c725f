"""Which texts this process is computing just now, so that others who lack them wait rather than compute them again.

Whoever lacks a text *claims* it. The first one to do so leads its *flight*: computes it, *delivers* the vector to those
who wait, stores it, and only then *leaves*, so that at any time the text is either in flight or in the cache. Those who
looked it up before it was stored, and claim it after it was left, learn from the number of `landings` that they have to
look again.

A leader never waits for another flight, so no two wait for each other. Threads and event loops share the flights of a
process; `embedcache.flight_locks` has those of several processes.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Collection, Hashable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from typing import Final

from embedcache.entry import Text
from embedcache.vectorizers.report import Matrix, Vector

STRANDED_SECONDS: Final = 1.0
"""How often those who wait ask whether the event loop of a flight's leader still runs."""

_Key = tuple[Hashable, Text]


class Flight:
    """One text's computation, for those who wait for it.

    Attributes:
        key: What is computed: a scope, and a text.
        is_over: Whether there is nothing more to wait for.
        vector: What came of it, not to be changed; None where nothing did.
        failed: Whether the model could not compute it. Otherwise one that is over without a vector was given up, as
            when its thread was interrupted: somebody else is to lead.
    """

    __slots__ = ("_future", "_loop", "failed", "is_over", "key", "vector")

    def __init__(self, key: _Key, loop: asyncio.AbstractEventLoop | None) -> None:
        self.key = key
        self.is_over = self.failed = False
        self.vector: Vector | None = None
        self._loop = loop
        self._future: Future[None] | None = None  # made for the first who waits: most flights have none

    def wait(self) -> None:
        """Returns when it is over."""
        future = self._awaited()
        while not (self.is_over or self._end_if_stranded()):
            try:
                future.result(STRANDED_SECONDS)
            except TimeoutError:
                continue

    async def await_(self) -> None:
        """Async twin of `wait`, on any event loop. Cancelling it leaves the flight alone."""
        future = asyncio.wrap_future(self._awaited())
        try:
            while not (self.is_over or self._end_if_stranded()):
                await asyncio.wait([future], timeout=STRANDED_SECONDS)
        finally:
            future.cancel()

    def _awaited(self) -> Future[None]:
        with flights.lock:
            future = self._future
            if future is None:
                future = self._future = Future()
                future.set_running_or_notify_cancel()  # from now on, who waits and is cancelled cannot cancel it
                if self.is_over:
                    future.set_result(None)
            return future

    def _end_if_stranded(self) -> bool:
        """Ends the flight where its leader is on an event loop that has stopped, and may never go on."""
        if self._loop is None or self._loop.is_running():
            return False
        flights.leave([self], failed=False)
        return True

    def _end(self) -> Future[None] | None:
        self.is_over = True
        return self._future


class Flights:
    """All flights of this process. One text under one scope has one at a time.

    Attributes:
        lock: Held while flights change.
        landings: How many times a chunk of flights ended with something stored.
    """

    def __init__(self) -> None:
        self.start_over()

    def start_over(self) -> None:
        """Forgets all: a forked child has none of its parent's threads."""
        self.lock = threading.Lock()
        self.landings = 0
        self._in_air: dict[_Key, Flight] = {}

    def claim(
        self, scope: Hashable, texts: Mapping[int, Text], led: dict[int, Flight], awaited: dict[int, Flight]
    ) -> int:
        """Claims texts.

        Args:
            scope: Whose texts they are: a model's, in a cache.
            texts: By the claimer's numbers.
            led: Those that are the claimer's to compute from now on, and to leave, are added here.
            awaited: Those that others compute are added here.

        Returns:
            How many landings there had been by then.
        """
        loop = running_loop()
        with self.lock:
            for number, text in texts.items():
                key = scope, text
                flight = self._in_air.get(key)
                if flight is None:
                    # First where the claimer will find it: an interrupt in between leaves nothing in the air.
                    led[number] = flight = Flight(key, loop)
                    self._in_air[key] = flight
                else:
                    awaited[number] = flight
            return self.landings

    def deliver(self, delivered: Sequence[Flight], matrix: Matrix) -> None:
        """Gives vectors, one row each, to those who wait for them."""
        with self.lock:
            ended = []
            for flight, vector in zip(delivered, matrix, strict=True):
                if not flight.is_over:
                    flight.vector = vector
                    ended.append(flight._end())
        _wake(ended)

    def leave(self, left: Collection[Flight], *, failed: bool) -> bool:
        """Ends flights and forgets them. Returns whether that is a landing: whether one of them was delivered.

        Args:
            left: Flights, with what they were delivered already stored.
            failed: Whether it was the model that kept the rest of them from being delivered.
        """
        with self.lock:
            landed = any(flight.vector is not None for flight in left)
            self.landings += landed
            ended = []
            for flight in left:
                if self._in_air.get(flight.key) is flight:
                    del self._in_air[flight.key]
                if not flight.is_over:
                    flight.failed = failed
                    ended.append(flight._end())
        _wake(ended)
        return landed


def _wake(futures: Iterable[Future[None] | None]) -> None:
    """Wakes those who wait: without the lock, for which they may ask."""
    for future in futures:
        if future is not None:
            future.set_result(None)


def running_loop() -> asyncio.AbstractEventLoop | None:
    """The event loop that runs on this thread, or None."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


flights: Final = Flights()

os.register_at_fork(after_in_child=flights.start_over)
