"""Progress of a long batch: told to a function, and shown as a bar."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeAlias

from embedcache.errors import VectorizerError

OnProgress: TypeAlias = Callable[[int, int], None]
"""Told how many distinct texts are done, and of how many."""


@contextmanager
def showing(total: int, on_progress: OnProgress | None, *, bar: bool) -> Iterator[OnProgress | None]:
    """What to tell of progress: `on_progress`, and if `bar`, a bar on the terminal or in the notebook, too.

    Raises:
        VectorizerError: A bar is wanted, and tqdm is not installed.
    """
    if not bar:
        yield on_progress
        return
    with _bar(total) as shown:

        def tell(done: int, total: int) -> None:
            shown.update(done - shown.n)
            if on_progress is not None:
                on_progress(done, total)

        yield tell


def _bar(total: int) -> Any:
    try:
        from tqdm.auto import tqdm  # here and not above: who wants no bar need not have it
    except ImportError as error:
        raise VectorizerError(
            'progress=True needs the extra "progress": pip install "embedcache[progress]"; on_progress needs none'
        ) from error
    return tqdm(total=total, desc="Embedding", unit=" texts")
