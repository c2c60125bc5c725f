"""10,000 calls cancelled at random points: no reply reaches another caller, and no connection is lost."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import redis.asyncio
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from servers import Server
from toy_model import vector_of

from embedcache import CacheItem, EmbeddingsCache

MODEL = "toy"
TEXTS = [f"text {number}" for number in range(300)]
ABSENT = [f"absent {number}" for number in range(30)]
CANCELLED = 5_000  # by each kind of client
AT_ONCE = 48
TURNS = 30
NAME = "storm"
PATIENT = {"socket_timeout": 60, "socket_connect_timeout": 60}
"""A busy machine may keep a loop from working for longer than the usual second; here nobody is to run out of time."""


@dataclass
class Storm:
    """Calls of one cache, and what became of them."""

    cache: EmbeddingsCache
    chance: random.Random
    outcomes: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)

    def sample(self, most: int) -> list[str]:
        return self.chance.sample(TEXTS + ABSENT, self.chance.randint(1, most))

    def call(self) -> Coroutine[Any, Any, None]:
        """A call of some kind, checked where it comes to an end."""
        kinds = [self.one, self.few, self.matrix, self.by_keys, self.many]
        return self.chance.choices(kinds, [10, 6, 2, 2, 1])[0]()

    def compare(self, text: str, vector: Any) -> None:
        if vector is None:
            if text not in ABSENT:
                self.wrong.append(f"{text} is missing")
        elif text in ABSENT or not np.array_equal(vector, vector_of(text)):
            self.wrong.append(f"{text} got another's vector")

    async def one(self) -> None:
        (text,) = self.sample(1)
        entry = await self.cache.aget(text, MODEL)
        self.compare(text, entry and entry["embedding"])

    async def few(self) -> None:
        await self._batch(self.sample(8))

    async def many(self) -> None:
        """A batch of those whose TTLs are restarted apart."""
        await self._batch(self.chance.sample(TEXTS, 70))

    async def _batch(self, texts: list[str]) -> None:
        for text, entry in zip(texts, await self.cache.amget(texts, MODEL), strict=True):
            self.compare(text, entry and entry["embedding"])

    async def matrix(self) -> None:
        texts = self.sample(8)
        vectors, hits = await self.cache.amget_embeddings(texts, MODEL)
        for text, vector, hit in zip(texts, vectors, hits, strict=True):
            self.compare(text, vector if hit else None)

    async def by_keys(self) -> None:
        texts = self.sample(8)
        keys = [self.cache.key_for(text, MODEL) for text in texts]
        for text, entry in zip(texts, await self.cache.amget_by_keys(keys), strict=True):
            self.compare(text, entry and entry["embedding"])

    async def wave(self) -> None:
        """Begins calls all at once, and cancels most of them: before they begin, while they wait, while they end."""
        tasks = [asyncio.create_task(self.call()) for _ in range(AT_ONCE)]
        doomed: list[list[asyncio.Task[None]]] = [[] for _ in range(TURNS)]
        for task in tasks:
            if self.chance.random() < 0.8:
                at = int(TURNS * self.chance.random() ** 2)  # most calls are over soon
                doomed[at].append(task)
                if self.chance.random() < 0.3:  # and once more, while it clears up after itself
                    doomed[min(at + self.chance.randint(1, 3), TURNS - 1)].append(task)
        for due in doomed:
            for task in due:
                task.cancel()
            await asyncio.sleep(0 if self.chance.random() < 0.9 else self.chance.uniform(0, 0.0005))
        for outcome in await asyncio.gather(*tasks, return_exceptions=True):
            self.outcomes[type(outcome).__name__] += 1
            if isinstance(outcome, Exception):
                self.wrong.append(repr(outcome))

    async def rage(self) -> None:
        while self.outcomes["CancelledError"] < CANCELLED:
            await self.wave()


async def comes_about(is_so: Callable[[], bool]) -> bool:
    for _ in range(400):
        if is_so():
            return True
        await asyncio.sleep(0.05)
    return False


async def fill(cache: EmbeddingsCache) -> None:
    items: list[CacheItem] = [{"text": text, "model_name": MODEL, "embedding": vector_of(text)} for text in TEXTS]
    await cache.amset(items)


Make = Callable[[], EmbeddingsCache]


@pytest.fixture(params=["ours", "theirs"])
async def make(request: pytest.FixtureRequest, valkey: Server) -> AsyncIterator[Make]:
    """Caches with a client of our own, whose few connections calls wait for, and with one that was passed in."""
    given = redis.asyncio.Redis(unix_socket_path=str(valkey.socket), retry=Retry(NoBackoff(), 0), client_name=NAME)

    def make() -> EmbeddingsCache:
        if request.param == "ours":
            settings = {"client_name": NAME, "max_connections": 6} | PATIENT
            return EmbeddingsCache("c", ttl=500, redis_url=valkey.url, connection_kwargs=settings, stats=False)
        return EmbeddingsCache("c", ttl=500, async_redis_client=given, stats=False)

    yield make
    await given.aclose()


async def test_no_reply_reaches_another_caller_and_no_connection_is_lost(make: Make, valkey: Server) -> None:
    async with make() as cache:
        await fill(cache)
        storm = Storm(cache, random.Random(2026))  # noqa: S311 - no secret
        await storm.rage()
        assert storm.wrong == []
        assert set(storm.outcomes) == {"CancelledError", "NoneType"}
        assert storm.outcomes["NoneType"] > CANCELLED / 10

        pool = (await cache.connection.async_client()).connection_pool
        assert await comes_about(lambda: not pool._in_use_connections)  # what cancelled calls have left to do
        for connection in pool._available_connections:
            assert not connection.is_connected or not await connection.can_read()
        known = sum(connection.is_connected for connection in pool._available_connections)
        # The server may take a moment to notice which ones were closed.
        assert await comes_about(lambda: sum(each["name"] == NAME for each in valkey.raw.client_list()) == known)

        for _ in range(10):
            await asyncio.gather(*(storm.call() for _ in range(AT_ONCE)))
        assert storm.wrong == []
