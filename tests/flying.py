"""Callers that lack the same text at the same time, and what tests wait for."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from toy_model import PATIENCE_SECONDS, Model, vector_of

from embedcache import CustomVectorizer, EmbeddingsCache
from embedcache.vectorizers.flights import flights

MODES = ["process", "shared"]


def vectorizer_of(model: Model, cache: EmbeddingsCache | None, mode: Any = "process") -> CustomVectorizer:
    return CustomVectorizer(vector_of, "toy", cache, embed_many_callable=model, single_flight=mode)


def until(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not is_so():
        assert time.monotonic() < deadline, "it has not come to pass"
        time.sleep(0.005)


def someone_waits() -> bool:
    return any(flight._future is not None for flight in list(flights._in_air.values()))


def in_threads(work: Sequence[Callable[[], Any]]) -> list[Any]:
    """What each gives, all of them begun at once."""
    gate = threading.Barrier(len(work))

    def begin(each: Callable[[], Any]) -> Any:
        gate.wait(PATIENCE_SECONDS)
        return each()

    with ThreadPoolExecutor(len(work)) as pool:
        return [each.result(PATIENCE_SECONDS) for each in [pool.submit(begin, each) for each in work]]
