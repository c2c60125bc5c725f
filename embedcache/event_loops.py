"""What belongs to one event loop, and ends with it."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class LoopClient(Generic[T]):
    """One event loop's client, closed by the loop itself when it shuts down.

    A loop ends its async generators before it closes (`loop.shutdown_asyncgens`, which `asyncio.run` calls); one that
    waits here closes the connections while that still can be done. Left to the garbage collector, they would be closed
    on a dead loop, with a warning each.

    Args:
        client: The client.
        close: Closes it.
    """

    def __init__(self, client: T, close: Callable[[], Awaitable[object]]) -> None:
        self.client = client
        self._close = close
        self._waiting: AsyncGenerator[None, None] | None = None

    async def close_with_loop(self, forget: Callable[[], object]) -> None:
        """Has the loop close the client when it ends, and then `forget` it."""
        if self._waiting is None:
            self._waiting = self._close_at_end(forget)
            await anext(self._waiting)

    async def _close_at_end(self, forget: Callable[[], object]) -> AsyncGenerator[None, None]:
        try:
            yield
        finally:
            await self._close()
            forget()

    async def aclose(self) -> None:
        """Closes the client now."""
        if self._waiting is not None:
            await self._waiting.aclose()
