"""The threads in which models compute for event loops.

Threads of their own, and not the event loop's: those may all be taken by calls that wait for just these computations.
"""

from __future__ import annotations

import asyncio
import contextvars
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

R = TypeVar("R")

_pool: ThreadPoolExecutor | None = None


async def in_thread(work: Callable[[], R]) -> R:
    """What `work` returns, run in a thread and in the caller's context."""
    global _pool  # noqa: PLW0603 - made at first use, and anew in a forked child
    if _pool is None:
        _pool = ThreadPoolExecutor(thread_name_prefix="embedcache-model")
    context = contextvars.copy_context()
    return await asyncio.get_running_loop().run_in_executor(_pool, lambda: context.run(work))


def _forget() -> None:
    global _pool  # noqa: PLW0603
    _pool = None


os.register_at_fork(after_in_child=_forget)
