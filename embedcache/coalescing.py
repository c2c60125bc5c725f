"""Single lookups that are made at the same time, put together into batches.

A thousand tasks that each look up one text would take a thousand round trips, on as many connections as there may be.
`TaskCoalescer` lets the first go alone, at once, so that a lone call is never delayed. While it is on its way, those
that come are gathered until the loop has run whatever else was ready (one `call_soon`), and go as one batch per model:
the way of a DataLoader (https://github.com/graphql/dataloader).

`ThreadCoalescer` does the same for threads: while two calls are on their way, those that come wait, and the one that
has waited longest fetches for all of them. Measured on two cores, a call takes 0.5 of the time with 16 threads, 0.4
with 64, and no more with one, two or four.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Final, Generic, TypeAlias, TypeVar, cast
from weakref import WeakKeyDictionary, WeakSet, ref

from embedcache.entry import Text
from embedcache.keyspace import encode_model_name, encode_text

R = TypeVar("R")

ALoadMany: TypeAlias = Callable[[list[Text], str], Awaitable[list[R]]]
LoadMany: TypeAlias = Callable[[list[Text], str], list[R]]

LONE_THREADS: Final = 2
"""Threads whose calls go alone at the same time. With one, four threads gained nothing; with four, sixteen less."""
_LONGEST_WAIT_SECONDS: Final = 1.0
"""Then a thread goes alone, should the one that was to fetch for it have been struck down by a signal."""


# ------------------------------------------------------------------------------------------------ tasks


class _Turn(Generic[R]):
    """What one event loop has under way.

    Attributes:
        loop: The loop, as long as it is there.
        lone: Whether a call that went alone has not returned.
        waiting: By model, the texts gathered in this turn of the loop, and who waits for them.
        batches: Those on their way; the loop itself keeps tasks only weakly.
    """

    __slots__ = ("__weakref__", "batches", "lone", "loop", "waiting")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = ref(loop)
        self.lone = False
        self.waiting: dict[str, list[tuple[Text, asyncio.Future[R]]]] = {}
        self.batches: set[asyncio.Task[None]] = set()


class TaskCoalescer(Generic[R]):
    """Lookups of one text each, by any number of tasks of any number of event loops."""

    def __init__(self) -> None:
        self._turns: WeakKeyDictionary[asyncio.AbstractEventLoop, _Turn[R]] = WeakKeyDictionary()
        self._latest: _Turn[R] | None = None  # of the loop that asked last, which mostly is the one that asks next

    def load(
        self, text: Text, model_name: str, load_one: Callable[[Text, str], Awaitable[R]], load_many: ALoadMany[R]
    ) -> Awaitable[R]:
        """To be awaited for what `load_one` returns, by `load_many` where others ask at the same time.

        A caller that is cancelled leaves the others of its batch alone; an error of the batch reaches them all.

        Raises:
            InvalidInputError: The text or model name cannot be used. Nobody else learns of it.
        """
        loop = asyncio.get_running_loop()
        turn = self._latest
        if turn is None or turn.loop() is not loop:
            turn = self._latest = self._turns.get(loop) or self._turns.setdefault(loop, _Turn(loop))
        if not turn.lone:
            turn.lone = True
            return _alone(turn, load_one(text, model_name))
        encode_text(text)
        asked = turn.waiting.get(model_name) if isinstance(model_name, str) else None
        if asked is None:
            encode_model_name(model_name)
            if not turn.waiting:
                loop.call_soon(_depart, loop, turn, load_many)
            asked = turn.waiting[model_name] = []
        future: asyncio.Future[R] = loop.create_future()
        asked.append((text, future))
        return future


async def _alone(turn: _Turn[R], call: Awaitable[R]) -> R:
    try:
        return await call
    finally:
        turn.lone = False


def _depart(loop: asyncio.AbstractEventLoop, turn: _Turn[R], load_many: ALoadMany[R]) -> None:
    """Sends what was gathered on its way, a batch for each model."""
    waiting, turn.waiting = turn.waiting, {}
    for model_name, asked in waiting.items():
        batch = loop.create_task(_load(model_name, asked, load_many))
        turn.batches.add(batch)
        batch.add_done_callback(turn.batches.discard)


async def _load(model_name: str, asked: list[tuple[Text, asyncio.Future[R]]], load_many: ALoadMany[R]) -> None:
    wanted = [(text, future) for text, future in asked if not future.done()]  # without those cancelled meanwhile
    try:
        found = await load_many([text for text, _ in wanted], model_name)
    except asyncio.CancelledError:  # the loop is about to end
        for _, future in wanted:
            future.cancel()
        raise
    except Exception as error:  # noqa: BLE001 - it is raised where the result is waited for
        for _, future in wanted:
            if not future.done():
                future.set_exception(error)
        return
    for (_, future), result in zip(wanted, found, strict=True):
        if not future.done():
            future.set_result(result)


# ------------------------------------------------------------------------------------------------ threads


@dataclass(slots=True)
class _Waiting(Generic[R]):
    """One thread's call that waits for another thread to fetch what it asks for.

    Attributes:
        text: What it asks for.
        model_name: Under which model.
        told: Held until the wait is over.
        left: It is no longer waited for.
        batch: Everybody's calls, its own among them, where this thread is to fetch for all.
        outcome: What was fetched for it, or the error; None where it has to go alone.
    """

    text: Text
    model_name: str
    told: threading.Lock = field(default_factory=threading.Lock)
    left: bool = False
    batch: list[_Waiting[R]] = field(default_factory=list)
    outcome: tuple[R | None, Exception | None] | None = None


class ThreadCoalescer(Generic[R]):
    """Lookups of one text each, by any number of threads."""

    def __init__(self) -> None:
        self._start_over()
        _alive.add(self)

    def _start_over(self) -> None:
        self._lock = threading.Lock()
        self._under_way = 0
        self._waiting: list[_Waiting[R]] = []

    def load(self, text: Text, model_name: str, load_one: Callable[[Text, str], R], load_many: LoadMany[R]) -> R:
        """What `load_one` returns for the text, by `load_many` where enough other threads ask at the same time.

        Raises:
            InvalidInputError: The text or model name cannot be used. Nobody else learns of it.
        """
        if not self._may_go(None):
            encode_text(text)
            encode_model_name(model_name)
            call: _Waiting[R] = _Waiting(text, model_name)
            call.told.acquire()
            if not self._may_go(call):
                return self._wait(call, load_one, load_many)
        try:
            return load_one(text, model_name)
        finally:
            self._arrived()

    def _may_go(self, call: _Waiting[R] | None) -> bool:
        """Whether a call may go alone now; if not, it is among those who wait."""
        with self._lock:
            if self._under_way < LONE_THREADS:
                self._under_way += 1
                return True
            if call is not None:
                self._waiting.append(call)
            return False

    def _arrived(self) -> None:
        """Lets the longest waiting one set out for all who wait."""
        with self._lock:
            batch = [call for call in self._waiting if not call.left]
            self._waiting = []
            if not batch:
                self._under_way -= 1
                return
            batch[0].batch = batch
            batch[0].told.release()

    def _wait(self, call: _Waiting[R], load_one: Callable[[Text, str], R], load_many: LoadMany[R]) -> R:
        try:
            call.told.acquire(timeout=_LONGEST_WAIT_SECONDS)
        except BaseException:
            self._leave(call)
            raise
        with self._lock:
            call.left = True
        if call.batch:
            try:
                _fetch(call.batch, load_many)
            finally:
                self._arrived()
        if call.outcome is None:
            return load_one(call.text, call.model_name)
        result, error = call.outcome
        if error is not None:
            raise error
        return cast("R", result)

    def _leave(self, call: _Waiting[R]) -> None:
        """Ends a wait that was broken off; if the thread had just been told to fetch, another one is."""
        with self._lock:
            call.left = True
            self._waiting[:0] = call.batch[1:]
        if call.batch:
            self._arrived()


def _fetch(batch: list[_Waiting[R]], load_many: LoadMany[R]) -> None:
    """Fetches for all of them, model by model, and ends everybody's wait."""
    by_model: dict[str, list[_Waiting[R]]] = {}
    for call in batch:
        by_model.setdefault(call.model_name, []).append(call)
    try:
        for model_name, calls in by_model.items():
            try:
                found = load_many([call.text for call in calls], model_name)
            except Exception as error:  # noqa: BLE001 - it is raised where the result is waited for
                for call in calls:
                    call.outcome = (None, error)
            else:
                for call, result in zip(calls, found, strict=True):
                    call.outcome = (result, None)
    finally:
        for call in batch[1:]:
            call.told.release()


_alive: WeakSet[ThreadCoalescer[Any]] = WeakSet()


def _start_over_in_child() -> None:
    """Those who were on their way, or waited, are threads of the parent."""
    for coalescer in _alive:
        coalescer._start_over()


os.register_at_fork(after_in_child=_start_over_in_child)
