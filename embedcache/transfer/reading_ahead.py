"""The next item is made while the one before it is used."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from itertools import islice
from typing import TypeVar

T = TypeVar("T")


@contextmanager
def reading_ahead(items: Iterator[T]) -> Iterator[Iterator[T]]:
    """The same items, each made by a thread of its own while the one before it is used; there are never more than two.

    An error in making one is raised where that one is asked for. The block ends when the thread has.
    """
    with ThreadPoolExecutor(1, thread_name_prefix="embedcache-ahead") as pool, closing(_ahead(items, pool)) as found:
        yield found


def _ahead(items: Iterator[T], pool: ThreadPoolExecutor) -> Generator[T, None, None]:
    pending = pool.submit(_next, items)
    while item := pending.result():
        pending = pool.submit(_next, items)
        yield from item


def _next(items: Iterator[T]) -> list[T]:
    """The next item alone, or nothing at the end."""
    return list(islice(items, 1))
