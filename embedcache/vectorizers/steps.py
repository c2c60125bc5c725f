"""What a vectorizer's work asks of the world, and the two drivers that carry it out.

As in `embedcache.operations`, the work is a generator, a `Plan`, that does none of it: it yields a `Step`, is sent what
came of it, and is thrown the error where there was one. A step says how it is done sync and how async, each in a line;
`run` and `arun` are the only two loops.
"""

from __future__ import annotations

import asyncio
import logging
import time
from abc import ABC, abstractmethod
from collections.abc import Generator, Iterator
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeAlias, TypeVar, cast

from embedcache.entry import CacheItem, Text
from embedcache.operations import Operation
from embedcache.vectorizers.flights import Flight, running_loop
from embedcache.vectorizers.prompts import InputType

if TYPE_CHECKING:
    from embedcache.cache import EmbeddingsCache
    from embedcache.vectorizers.base import BaseVectorizer

R = TypeVar("R")

_log = logging.getLogger(__name__)
_is_computing: Final = ContextVar("_is_computing", default=False)


class Step(ABC):
    """One thing to do, sync or async."""

    __slots__ = ()

    @abstractmethod
    def _run(self) -> Any:
        """Does it."""

    @abstractmethod
    async def _arun(self) -> Any:
        """Async twin of `_run`."""


Plan: TypeAlias = Generator[Step, Any, R]


def run(plan: Plan[R]) -> R:
    """Carries a plan out."""
    try:
        step = next(plan)
        while True:
            try:
                result = step._run()
            except BaseException as error:  # noqa: BLE001 - the plan raises it again, if it does not know it
                step = plan.throw(error)
            else:
                step = plan.send(result)
    except StopIteration as end:
        return cast("R", end.value)


async def arun(plan: Plan[R]) -> R:
    """Async twin of `run`."""
    try:
        step = next(plan)
        while True:
            try:
                result = await step._arun()
            except BaseException as error:  # noqa: BLE001 - as in `run`
                step = plan.throw(error)
            else:
                step = plan.send(result)
    except StopIteration as end:
        return cast("R", end.value)


# ------------------------------------------------------------------------------------------------ of the cache


@dataclass(slots=True)  # not frozen: one is made for each hit, and that would take thrice as long
class LookUpOne(Step):
    """Read one text's entry; answered as `get` does."""

    cache: EmbeddingsCache
    model_name: str
    text: Text

    def _run(self) -> Any:
        return self.cache.get(self.text, self.model_name)

    async def _arun(self) -> Any:
        return await self.cache.aget(self.text, self.model_name)


@dataclass(frozen=True, slots=True)
class LookUp(Step):
    """Read these texts; answered by a matrix and a mask, as `mget_embeddings` does."""

    cache: EmbeddingsCache
    model_name: str
    texts: list[Text]

    def _run(self) -> Any:
        return self.cache.mget_embeddings(self.texts, self.model_name)

    async def _arun(self) -> Any:
        return await self.cache.amget_embeddings(self.texts, self.model_name)


@dataclass(frozen=True, slots=True)
class LookAgain(Step):
    """Read texts that were missing a moment ago; answered as `LookUp` is."""

    cache: EmbeddingsCache
    model_name: str
    texts: list[Text]
    dimension: int | None

    def _run(self) -> Any:
        return self.cache.look_again(self.texts, self.model_name, self.dimension)

    async def _arun(self) -> Any:
        return await self.cache.alook_again(self.texts, self.model_name, self.dimension)


@dataclass(frozen=True, slots=True)
class Store(Step):
    """Write these items."""

    cache: EmbeddingsCache
    items: list[CacheItem]

    def _run(self) -> Any:
        return self.cache.mset(self.items)

    async def _arun(self) -> Any:
        return await self.cache.amset(self.items)


@dataclass(frozen=True, slots=True)
class Exchange(Step):
    """Run an operation on the cache's server; answered by its result."""

    cache: EmbeddingsCache
    operation: Operation[Any]

    def _run(self) -> Any:
        return self.cache.connection.drive(self.operation)

    async def _arun(self) -> Any:
        return await self.cache.connection.adrive(self.operation)


# ------------------------------------------------------------------------------------------------ of the model


@dataclass(frozen=True, slots=True)
class Compute(Step):
    """Embed these texts; answered by what the model gave, and the seconds that it took.

    Attributes:
        around: Entered while it is computed.
    """

    vectorizer: BaseVectorizer
    texts: list[Text]
    input_type: InputType | None
    around: AbstractContextManager[object]

    def _run(self) -> Any:
        with _computing(), self.around:
            return self.vectorizer._timed(self.texts, self.input_type)

    async def _arun(self) -> Any:
        with _computing(), self.around:
            return await self.vectorizer._atimed(self.texts, self.input_type)


@contextmanager
def _computing() -> Iterator[None]:
    token = _is_computing.set(True)
    try:
        yield
    finally:
        _is_computing.reset(token)


# ------------------------------------------------------------------------------------------------ of other callers


@dataclass(frozen=True, slots=True)
class Await(Step):
    """Wait until a flight is over; answered by whether that could be waited for.

    It cannot by a model that calls a vectorizer in turn, for others may wait for that model; nor by a sync call on an
    event loop's own thread, where it would keep the loop from what it waits for.
    """

    flight: Flight

    def _run(self) -> bool:
        if _is_computing.get() or running_loop() is not None:
            return False
        self.flight.wait()
        return True

    async def _arun(self) -> bool:
        if _is_computing.get():
            return False
        await self.flight.await_()
        return True


@dataclass(frozen=True, slots=True)
class Pause(Step):
    """Wait for so many seconds; answered by whether that could be done, as `Await` is."""

    seconds: float

    def _run(self) -> bool:
        if _is_computing.get() or running_loop() is not None:
            return False
        time.sleep(self.seconds)
        return True

    async def _arun(self) -> bool:
        if _is_computing.get():
            return False
        await asyncio.sleep(self.seconds)
        return True


@dataclass(frozen=True, slots=True)
class Apart(Step):
    """Carry a plan out that others rely on: to its end, even if the task that began it is cancelled."""

    plan: Plan[None]

    def _run(self) -> None:
        run(self.plan)

    async def _arun(self) -> None:
        task = asyncio.ensure_future(arun(self.plan))
        _apart.add(task)  # an event loop holds its tasks by weak references alone
        task.add_done_callback(_apart.discard)
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError:
            task.add_done_callback(_tell_failure)
            raise


_apart: Final[set[asyncio.Task[None]]] = set()


def _tell_failure(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        _log.warning("what a cancelled task had begun to embed has failed: %s", error)
