"""The next item is made while the one before it is used."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from itertools import islice
from typing import TypeVar

T = TypeVar("T")


@contextmanager
def reading_ahead(items: Iterator[T], most: int = 1) -> Iterator[Iterator[T]]:
    """The same items, made by a thread of its own while those before are used; `most` are made before they are needed.

    An error in making one is raised where that one is asked for. The block ends when the thread has.
    """
    with (
        ThreadPoolExecutor(1, thread_name_prefix="embedcache-ahead") as pool,
        closing(_ahead(items, pool, most)) as found,
    ):
        yield found


def _ahead(items: Iterator[T], pool: ThreadPoolExecutor, most: int) -> Generator[T, None, None]:
    pending = deque(pool.submit(_next, items) for _ in range(most))
    try:
        while item := pending.popleft().result():
            pending.append(pool.submit(_next, items))
            yield from item
    finally:
        for each in pending:
            each.cancel()


def _next(items: Iterator[T]) -> list[T]:
    """The next item alone, or nothing at the end."""
    return list(islice(items, 1))
