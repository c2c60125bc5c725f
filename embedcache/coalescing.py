"""Single lookups of one event loop, put together into batches.

A thousand tasks that each look up one text would take a thousand round trips, on as many connections as there may be.
`Coalescer` lets the first go alone, at once, so that a lone call is never delayed. While it is on its way, those that
come are gathered until the loop has run whatever else was ready (one `call_soon`), and go as one batch per model: the
way of a DataLoader (https://github.com/graphql/dataloader).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Generic, TypeAlias, TypeVar
from weakref import WeakKeyDictionary

from embedcache.entry import Text
from embedcache.keyspace import encode_model_name, encode_text

R = TypeVar("R")

LoadMany: TypeAlias = Callable[[list[Text], str], Awaitable[list[R]]]


@dataclass(slots=True)
class _Turn(Generic[R]):
    """What one event loop has under way.

    Attributes:
        lone: Calls that went alone and have not returned.
        waiting: By model, the texts gathered in this turn of the loop, and who waits for them.
        batches: Those on their way; the loop itself keeps tasks only weakly.
    """

    lone: int = 0
    waiting: dict[str, list[tuple[Text, asyncio.Future[R]]]] = field(default_factory=dict)
    batches: set[asyncio.Task[None]] = field(default_factory=set)


class Coalescer(Generic[R]):
    """Lookups of one text each, by any number of tasks of any number of event loops."""

    def __init__(self) -> None:
        self._turns: WeakKeyDictionary[asyncio.AbstractEventLoop, _Turn[R]] = WeakKeyDictionary()

    async def load(
        self, text: Text, model_name: str, load_one: Callable[[Text, str], Awaitable[R]], load_many: LoadMany[R]
    ) -> R:
        """What `load_one` returns for the text, by `load_many` where others ask at the same time.

        A caller that is cancelled leaves the others of its batch alone; an error of the batch reaches them all.

        Raises:
            InvalidInputError: The text or model name cannot be used. Nobody else learns of it.
        """
        encode_text(text)
        encode_model_name(model_name)
        loop = asyncio.get_running_loop()
        turn = self._turns.get(loop)
        if turn is None:
            turn = self._turns.setdefault(loop, _Turn())
        if not turn.lone:
            turn.lone = 1
            try:
                return await load_one(text, model_name)
            finally:
                turn.lone = 0
        if not turn.waiting:
            loop.call_soon(_depart, loop, turn, load_many)
        future: asyncio.Future[R] = loop.create_future()
        turn.waiting.setdefault(model_name, []).append((text, future))
        return await future


def _depart(loop: asyncio.AbstractEventLoop, turn: _Turn[R], load_many: LoadMany[R]) -> None:
    """Sends what was gathered on its way, a batch for each model."""
    waiting, turn.waiting = turn.waiting, {}
    for model_name, asked in waiting.items():
        batch = loop.create_task(_load(model_name, asked, load_many))
        turn.batches.add(batch)
        batch.add_done_callback(turn.batches.discard)


async def _load(model_name: str, asked: list[tuple[Text, asyncio.Future[R]]], load_many: LoadMany[R]) -> None:
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
