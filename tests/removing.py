"""What the tests of removals share: entries, the plans that choose them, and what is left of them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from servers import Server

from embedcache import EmbeddingsCache
from embedcache.connection import RedisConnection
from embedcache.operations import ServerAbilities
from embedcache.removal import RemovalPlan, RemovalReport
from embedcache.scanning import heads

MODEL = "a/model"
VECTOR = [0.5, -1.0]


def item(text: Any, **fields: Any) -> Any:
    return {"text": text, "model_name": MODEL, "embedding": VECTOR, **fields}


def stored(cache: EmbeddingsCache, count: int, **fields: Any) -> list[str]:
    return cache.mset([item(f"text {number}", **fields) for number in range(count)])


def ignore(*_: int) -> None:
    """Tells nobody."""


def plan_of(
    connection: RedisConnection, keys: Sequence[str], *, unreadable: Sequence[str] = (), **options: Any
) -> RemovalPlan:
    """A plan as an index of the cache makes it."""
    found = connection.drive(heads(ServerAbilities(), keys))
    times = [head.inserted_at if head else 0.0 for head, _ in found]
    return plan_at(keys, times, [size for _, size in found], unreadable=unreadable, **options)


def plan_at(
    keys: Sequence[str],
    times: Sequence[float],
    sizes: Sequence[int] | None = None,
    *,
    unreadable: Sequence[str] = (),
    **options: Any,
) -> RemovalPlan:
    everything = [*keys, *unreadable]
    digests = np.frombuffer(bytes.fromhex("".join(key[-64:] for key in everything)), np.uint8).reshape(-1, 32)
    lengths = np.zeros(len(everything), np.int64)
    lengths[: len(keys)] = sizes if sizes is not None else 0
    inserted_at = np.array([*times, *[np.nan] * len(unreadable)], np.float64)
    name = everything[0][:-65] if everything else "c"
    return RemovalPlan.of(name, digests, inserted_at, lengths, **options)


def counts(report: RemovalReport) -> dict[str, int]:
    """What is not zero of the sums."""
    sums = {name: getattr(report, name) for name in ("changed", "gone", "kept_newer", "skipped", "untouched")}
    return {name: count for name, count in sums.items() if count}


def left(server: Server, name: str = "c") -> set[str]:
    """The keys of the cache's entries."""
    keys = (key.decode() for key in server.raw.scan_iter(count=1_000))
    return {key for key in keys if re.fullmatch(re.escape(name) + ":[0-9a-f]{64}", key)}
