"""Of callers that lack the same text at the same time, one computes it: in this process, or in all that share a cache.

How a call computes what it lacks, where it minds the others. It leads flights of what nobody computes, a chunk at a
time, and only when nothing of that is left waits for the flights of others. Where one of those fails, it computes the
text itself, without waiting once more: so nobody waits for a row of failures, and nobody gets an error that belongs to
another's text.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from time import perf_counter
from typing import TYPE_CHECKING

from embedcache.vectorizers.flights import Flight, flights
from embedcache.vectorizers.progress import OnProgress
from embedcache.vectorizers.report import Matrix
from embedcache.vectorizers.shared_flights import WAIT_SECONDS, SharedFlights, pauses
from embedcache.vectorizers.steps import Apart, Await, Pause, Plan
from embedcache.vectorizers.work import Work

if TYPE_CHECKING:
    from embedcache.cache import EmbeddingsCache
    from embedcache.vectorizers.planning import Call


class SingleFlight:
    """A call's way through the flights of its process, and of others where `shared`.

    Args:
        call: The call.
        cache: Its cache.
        work: What it is to do.
        shared: Whether other processes' flights are minded, too.
        chunk_size: How many texts the model is given at a time.
    """

    def __init__(self, call: Call, cache: EmbeddingsCache, work: Work, *, shared: bool, chunk_size: int) -> None:
        self._call = call
        self._cache = cache
        self._work = work
        self._chunk_size = chunk_size
        self._scope = (cache.connection.address, cache.name, call.model_name)
        self._shared = SharedFlights(call, cache) if shared and not cache.read_only else None
        self._landings = call.landings
        self._awaited: dict[int, Flight] = {}
        self._alone: list[int] = []

    def compute_missing(self, tell: OnProgress | None) -> Plan[None]:
        """Does the work."""
        work = self._work
        while True:
            if self._alone:
                chunk = self._alone[: self._chunk_size]
                del self._alone[: self._chunk_size]
                yield from self._call.store(work, chunk, (yield from self._call.compute(work, chunk)))
            elif work.is_to_be_done:
                yield Apart(self._lead())
            elif self._awaited:
                yield from self._await()
            else:
                return
            if tell is not None:
                tell(work.done, len(work.texts))

    # ---------------------------------------------------------------------------------------- leading

    def _lead(self) -> Plan[None]:
        """Leads the flights of one chunk, if there is anything to be done that nobody else computes."""
        led: dict[int, Flight] = {}
        failed = False
        try:
            if self._claim(led) != self._landings:
                yield from self._find_landed(led)
            if self._shared is None:
                yield from self._compute(_open(led), led)
            else:
                yield from self._lead_shared(self._shared, led)
        except Exception:
            failed = True
            raise
        finally:
            self._landings += flights.leave(led.values(), failed=failed)

    def _claim(self, led: dict[int, Flight]) -> int:
        """Claims a chunk; returns the number of landings when it was begun."""
        work, landings = self._work, flights.landings
        while len(led) < self._chunk_size and (batch := work.take(self._chunk_size - len(led))):
            landings = flights.claim(self._scope, {index: work.texts[index] for index in batch}, led, self._awaited)
        return landings

    def _compute(
        self, chunk: Sequence[int], led: Mapping[int, Flight], around: AbstractContextManager[object] | None = None
    ) -> Plan[None]:
        if chunk:
            matrix = yield from self._call.compute(self._work, chunk, around)
            flights.deliver([led[index] for index in chunk], matrix)
            yield from self._call.store(self._work, chunk, matrix)

    def _find_landed(self, led: Mapping[int, Flight]) -> Plan[None]:
        """Takes what others have stored since it was looked up."""
        found, matrix = yield from self._call.look_again(self._work, _open(led))
        if found:
            flights.deliver([led[index] for index in found], matrix)
            self._save(found, matrix, 0.0)

    def _lead_shared(self, shared: SharedFlights, led: Mapping[int, Flight]) -> Plan[None]:
        """Computes what no other process computes, and waits for the rest, without holding a lock meanwhile."""
        waited = 0.0
        for pause in pauses():
            yield from self._compute_locked(shared, led)
            left = _open(led)
            if not left:
                return
            if waited >= WAIT_SECONDS or not (yield Pause(pause)):
                yield from self._compute(left, led)
                return
            waited += pause
            self._work.wait_seconds += pause

    def _compute_locked(self, shared: SharedFlights, led: Mapping[int, Flight]) -> Plan[None]:
        """Computes those texts whose locks are free."""
        asked = _open(led)
        locks = yield from shared.take([self._work.texts[index] for index in asked])
        try:
            yield from self._find_landed(led)  # until the locks were taken, another may have stored them
            mine = [index for index, lock in zip(asked, locks.taken, strict=True) if lock and not led[index].is_over]
            yield from self._compute(mine, led, locks.renewed())
        except Exception:
            yield from shared.release(locks)
            raise
        yield from shared.release(locks)

    # ---------------------------------------------------------------------------------------- waiting

    def _await(self) -> Plan[None]:
        """Waits for one flight of another caller, and takes what has come of all those that are over."""
        work, start = self._work, perf_counter()
        if not (yield Await(next(iter(self._awaited.values())))):
            self._alone += self._awaited
            self._awaited.clear()
            return
        seconds = perf_counter() - start
        work.wait_seconds += seconds
        over = {index: flight for index, flight in self._awaited.items() if flight.is_over}
        for index, flight in over.items():
            del self._awaited[index]
            if flight.vector is not None:
                self._save([index], flight.vector[None], seconds / len(over))
            elif flight.failed:
                self._alone.append(index)
            else:
                work.give_back([index])

    def _save(self, indexes: Sequence[int], matrix: Matrix, seconds: float) -> None:
        """Takes vectors that another caller has computed."""
        self._work.fill(indexes, matrix, seconds)
        self._work.flights_saved += len(indexes)
        self._cache.record_flights_saved(self._call.model_name, len(indexes))


def _open(led: Mapping[int, Flight]) -> list[int]:
    """Those that nobody has delivered yet."""
    return [index for index, flight in led.items() if not flight.is_over]
