"""What a working cache does, for tests of how it reaches its server."""

from __future__ import annotations

from typing import Any

from embedcache import EmbeddingsCache

MODEL = "a/model"
VECTOR = [0.5, -1.0]


def items(count: int) -> list[Any]:
    return [{"text": f"text {n}", "model_name": MODEL, "embedding": [float(n), 1.0]} for n in range(count)]


def works(cache: Any) -> bool:
    """Whether what is written can be read, in singles and in batches, with a TTL and without."""
    keys = [*cache.mset(items(5), ttl=500), cache.set("one", MODEL, VECTOR)]
    found = cache.mget_by_keys(keys)
    return (
        [entry["text"] for entry in found] == [*(f"text {n}" for n in range(5)), "one"]
        and cache.get("text 3", MODEL)["embedding"].tolist() == [3, 1]
        and cache.mexists(["one", "two"], MODEL) == [True, False]
        and cache.expire(keys[0], 300)
        and 200 < cache.remaining_ttl(keys[0]) <= 300
        and cache.clear() == 6
    )


async def awaits(cache: EmbeddingsCache) -> bool:
    """As `works`, by the async twins."""
    keys = await cache.amset(items(5), ttl=500)
    found = await cache.amget_by_keys(keys)
    return (
        [entry["text"] for entry in found] == [f"text {n}" for n in range(5)]
        and (await cache.aget("text 3", MODEL))["embedding"].tolist() == [3, 1]
        and await cache.aclear() == 5
    )
