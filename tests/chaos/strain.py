"""One process of the chaos test: threads and tasks that embed through one vectorizer, and check all that they get.

    python strain.py '{"url": ..., "number": 0, "ledger": PATH, ...}'

Says ``ready`` once it works. A line on its standard input ends the work; it then tells its figures in one line, and is
gone when its standard input is closed.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import random
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from figures import Figures
from toy_model import vector_of

from embedcache import CustomVectorizer, EmbeddingsCache

POOL = 5_000
THREADS = 3
TASKS = 8
CANCELLED = 0.25
PATIENCE_SECONDS = 30
END_SECONDS = 20
COMMON = [f"text {number}" for number in range(POOL)]


@dataclass(frozen=True)
class Order:
    """One call: a method of the vectorizer, and its texts."""

    method: str
    texts: list[str]
    options: dict[str, Any]

    @property
    def argument(self) -> str | list[str]:
        return self.texts[0] if self.method == "embed" else self.texts


class Caller:
    """One thread or task.

    Args:
        vectorizer: What it calls.
        name: Unlike any other's: its own texts begin with it.
        ledger: Where it notes what is stored, as ``monotonic seconds``, tab, text.
        pause: Seconds between calls, on average.
    """

    def __init__(self, vectorizer: CustomVectorizer, name: str, ledger: int, pause: float) -> None:
        self.figures = Figures()
        self._vectorizer = vectorizer
        self._name = name
        self._ledger = ledger
        self._pause = pause
        self._chance = random.Random(name)  # noqa: S311 - no secret
        self._made = 0

    def _order(self) -> Order:
        kind = self._chance.random()
        if kind < 0.25:
            return Order("embed_report", self._new_texts(self._chance.randint(1, 5)), {})
        if kind < 0.65:
            return Order("embed", self._chance.choices(COMMON), {})
        count = 120 if kind > 0.98 else self._chance.randint(2, 30)
        options = {"ttl": self._chance.randint(1, 20)} if kind > 0.9 else {}
        return Order("embed_many", self._chance.choices(COMMON, k=count), options)

    def _new_texts(self, count: int) -> list[str]:
        self._made += count
        return [f"{self._name} {number}" for number in range(self._made - count, self._made)]

    def _done(self, order: Order, result: Any, started: float) -> None:
        figures = self.figures
        figures.calls += 1
        figures.texts += len(order.texts)
        figures.slowest = max(figures.slowest, time.perf_counter() - started)
        if order.method == "embed_report" and not result.unstored:
            figures.acknowledged += len(order.texts)
            stored = time.monotonic()
            os.write(self._ledger, "".join(f"{stored}\t{text}\n" for text in order.texts).encode())
        vectors = result.vectors if order.method == "embed_report" else result
        rows = [vectors] if order.method == "embed" else vectors
        for text, row in zip(order.texts, rows, strict=True):
            if not np.array_equal(row, vector_of(text)):
                figures.wrong.append(f"{text!r}: {row[:4]} ...")

    def call(self) -> None:
        order = self._order()
        started = time.perf_counter()
        try:
            result = getattr(self._vectorizer, order.method)(order.argument, **order.options)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is told
            self.figures.escaped.append(f"{order.method}: {error!r}")
        else:
            self._done(order, result, started)

    async def acall(self) -> None:
        order = self._order()
        started = time.perf_counter()
        task = asyncio.ensure_future(getattr(self._vectorizer, f"a{order.method}")(order.argument, **order.options))
        if self._chance.random() < CANCELLED:
            await asyncio.sleep(0.3 * self._chance.random() ** 5)
            task.cancel()
        try:
            result = await task
        except asyncio.CancelledError:
            self.figures.cancelled += 1
        except Exception as error:  # noqa: BLE001 - whatever it is, it is told
            self.figures.escaped.append(f"a{order.method}: {error!r}")
        else:
            self._done(order, result, started)

    def run(self, over: threading.Event) -> None:
        while not over.wait(self._chance.uniform(0, 2 * self._pause)):
            self.call()

    async def arun(self, over: threading.Event) -> None:
        while not over.is_set():
            await asyncio.sleep(self._chance.uniform(0, 2 * self._pause))
            await self.acall()


class Warnings(logging.Handler):
    """Counts them."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.count = 0

    def emit(self, record: logging.LogRecord) -> None:  # noqa: ARG002 - logging's own
        self.count += 1


def sockets() -> int:
    """How many this process has open; 0 where the system does not tell."""
    found = 0
    for each in Path("/proc/self/fd").glob("*"):
        try:
            found += str(each.readlink()).startswith("socket:")
        except OSError:  # the one that lists the others
            continue
    return found


async def strain(url: str, number: int, ledger: str, settings: dict[str, Any], pause: float) -> Figures:
    """Works until a line comes in; returns what came of it."""
    before = sockets()
    warnings = Warnings()
    logging.getLogger("embedcache.vectorizers").addHandler(warnings)
    cache = EmbeddingsCache(
        "chaos",
        ttl=3600,
        redis_url=url,
        connection_kwargs={**settings, "client_name": f"chaos-{number}"},
        near_cache=500 if number == 1 else 0,
    )
    mode: Any = "shared" if number % 2 else "process"
    vectorizer = CustomVectorizer(vector_of, "toy", cache, single_flight=mode)
    notes = os.open(ledger, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    callers = [Caller(vectorizer, f"{number}-{index}", notes, pause) for index in range(THREADS + TASKS)]
    over = threading.Event()
    threads = [threading.Thread(target=each.run, args=(over,)) for each in callers[:THREADS]]
    for thread in threads:
        thread.start()
    tasks = [asyncio.create_task(each.arun(over)) for each in callers[THREADS:]]
    print("ready", flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    over.set()
    await asyncio.gather(*tasks)
    for thread in threads:
        await asyncio.to_thread(thread.join)
    total = Figures(recovered=await recovered(vectorizer, cache))
    for each in callers:
        total.add(each.figures)
    await asyncio.sleep(1)  # what cancelled calls had begun comes to its end
    pool = (await cache.connection.async_client()).connection_pool
    await until(lambda: not pool._in_use_connections, END_SECONDS)
    counted = cache.process_stats()
    total.hits, total.errors, total.warnings = counted.hits + counted.near_hits, counted.errors, warnings.count
    total.leaked += await in_nobodys_hands(cache)
    await cache.aclose()
    await until(lambda: sockets() <= before, END_SECONDS)  # the near cache's own is closed within half a second
    total.leaked += max(0, sockets() - before)
    os.close(notes)
    return total


async def until(is_so: Callable[[], bool], seconds: float) -> None:
    """Waits for it, so long at most."""
    deadline = time.monotonic() + seconds
    while not is_so() and time.monotonic() < deadline:  # noqa: ASYNC110 - nobody would set an event
        await asyncio.sleep(0.05)


async def recovered(vectorizer: CustomVectorizer, cache: EmbeddingsCache) -> bool:
    """Whether the server is found again, sync and async."""
    await until(lambda: cache.connection.outage is None, PATIENCE_SECONDS)
    some = [f"found again {number}" for number in range(20)]
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline:  # a busy machine may keep the server from answering once more
        await asyncio.to_thread(vectorizer.embed_many, some)
        report = await asyncio.to_thread(vectorizer.embed_report, some)
        areport = await vectorizer.aembed_report(some)
        if report.hits.all() and areport.hits.all():
            return True
    return False


async def in_nobodys_hands(cache: EmbeddingsCache) -> int:
    """Connections that count as in use while nothing is."""
    connection = cache.connection
    kept = connection._kept
    unused = 0 if kept is None else len(kept._pool._in_use_connections) - len(kept._idle)
    pool = (await connection.async_client()).connection_pool
    return unused + len(pool._in_use_connections)


if __name__ == "__main__":
    print(asyncio.run(strain(**json.loads(sys.argv[1]))).dump(), flush=True)
    sys.stdin.read()
