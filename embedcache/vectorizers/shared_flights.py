"""The flights of all processes that share a cache: locks taken for a call, prolonged while it computes, released.

A holder that dies leaves locks that expire after `LOCK_SECONDS`; one that only takes long prolongs them. Who waits
looks for the vector and for a free lock alike, at growing pauses, and after `WAIT_SECONDS` computes the text itself: a
lock that is held for ever costs time, never a result. So do locks that the server refuses.
"""

from __future__ import annotations

import logging
import random
import secrets
import threading
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from embedcache import flight_locks
from embedcache.entry import Text
from embedcache.errors import CacheUnavailableError, EmbedcacheError, ServerReplyError
from embedcache.keyspace import Keyspace
from embedcache.operations import Operation, ServerAbilities
from embedcache.vectorizers.steps import Exchange, Plan

if TYPE_CHECKING:
    from embedcache.cache import EmbeddingsCache
    from embedcache.vectorizers.planning import Call

LOCK_SECONDS: Final = 10.0
"""How long a lock outlives its holder."""
WAIT_SECONDS: Final = 60.0
"""How long a call waits for other processes before it computes what they seem to compute."""
_PROLONGED_EACH: Final = 3
_FIRST_PAUSE: Final = 0.005
_LONGEST_PAUSE: Final = 0.25

_log = logging.getLogger(__name__)


def pauses() -> Iterator[float]:
    """Seconds to wait between looks, growing; each its own, so that those who wait do not all look at once."""
    pause = _FIRST_PAUSE
    while True:
        yield pause * random.uniform(0.5, 1)  # noqa: S311 - no secret
        pause = min(2 * pause, _LONGEST_PAUSE)


@dataclass(frozen=True, slots=True)
class Locks:
    """What became of an attempt to take locks.

    Attributes:
        taken: For each text whether it is this call's to compute now.
        keys: Of the locks that were taken.
        renewal: Prolongs them while it is entered.
    """

    taken: Sequence[bool]
    keys: Sequence[str] = ()
    renewal: AbstractContextManager[object] | None = None

    def renewed(self) -> AbstractContextManager[object]:
        """To be entered while the model computes."""
        return self.renewal or nullcontext()


class SharedFlights:
    """One call's locks.

    Args:
        call: The call.
        cache: Whose server has the locks.
    """

    def __init__(self, call: Call, cache: EmbeddingsCache) -> None:
        self._call = call
        self._cache = cache
        self._space = Keyspace(cache.name)
        self._able = ServerAbilities()
        self._token = secrets.token_hex(16)

    def take(self, texts: Sequence[Text]) -> Plan[Locks]:
        """Takes the locks of those texts that nobody holds. Where there are no locks to be had, all texts count."""
        if not texts:
            return Locks(())
        keys = flight_locks.lock_keys(self._space, texts, self._call.model_name)
        locks = self._call.vectorizer._locks
        last_failure = locks.last_failure
        taken = yield from self._exchange(flight_locks.take(keys, self._token, LOCK_SECONDS))
        if taken is None:
            return Locks([True] * len(texts))
        locks.answered(last_failure)  # a full server does release them
        held = [key for key, lock in zip(keys, taken, strict=True) if lock]
        return Locks(taken, held, self._prolonging(held) if held else None)

    def release(self, locks: Locks) -> Plan[None]:
        """Gives the locks back."""
        if locks.keys:
            yield from self._exchange(flight_locks.release(self._able, locks.keys, self._token))

    def _exchange(self, operation: Operation[Any]) -> Plan[Any]:
        """What the operation gives, or None where the server does not answer or refuses it."""
        if self._call.live_cache is None:
            return None
        try:
            return (yield Exchange(self._cache, operation))
        except CacheUnavailableError as error:
            self._call.lose_cache(error)
        except ServerReplyError as error:
            self._call.vectorizer._locks.failed(error)
        return None

    @contextmanager
    def _prolonging(self, keys: Sequence[str]) -> Iterator[None]:
        done = threading.Event()
        threading.Thread(target=self._prolong, args=(keys, done), name="embedcache-flights", daemon=True).start()
        try:
            yield
        finally:
            done.set()

    def _prolong(self, keys: Sequence[str], done: threading.Event) -> None:
        while not done.wait(LOCK_SECONDS / _PROLONGED_EACH):
            operation = flight_locks.prolong(self._able, keys, self._token, LOCK_SECONDS)
            try:
                self._cache.connection.drive(operation, background=True)
            except EmbedcacheError as error:
                _log.info("the locks of a shared flight run out while it goes on: %s", error)
                return
