"""What the tests of the statistics share: what was counted, the keys it lies under, and processes that count."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

from servers import Server

from embedcache import EmbeddingsCache, buckets, flushing
from embedcache.connection import RedisConnection
from embedcache.counters import SUMS, Batch, ByModel, Counters, Counts
from embedcache.keyspace import Keyspace
from embedcache.operations import ServerAbilities
from embedcache.statistics import CacheStats

MODEL = "a/model"
OTHER = "another/model"
VECTOR = [0.5, -1.0, 2.0]
PATIENCE_SECONDS = 20


def item(text: str, model_name: str = MODEL, **fields: Any) -> Any:
    return {"text": text, "model_name": model_name, "embedding": VECTOR, **fields}


def items(count: int, model_name: str = MODEL, **fields: Any) -> list[Any]:
    return [item(f"text {number}", model_name, **fields) for number in range(count)]


def texts(count: int) -> list[str]:
    return [f"text {number}" for number in range(count)]


def sums(counted: Counts | CacheStats) -> dict[str, int]:
    """What is not zero among the sums."""
    names = [name for name in SUMS if hasattr(counted, name)]
    return {name: amount for name in names if (amount := getattr(counted, name))}


def without_bytes(counted: CacheStats) -> dict[str, int]:
    return {name: amount for name, amount in sums(counted).items() if not name.startswith("bytes_")}


def counted_by(counters: Counters) -> dict[str | None, dict[str, int]]:
    return {model: sums(each) for model, each in counters.lifetime().items()}


def batch(counts: ByModel | None = None, *, ago: float = 0.0, **fields: Any) -> Batch:
    """One that ended some seconds ago."""
    now = time.monotonic()
    return Batch(now - ago - 1, now - ago, counts if counts is not None else {MODEL: Counts(hits=1)}, **fields)


class Shelf:
    """The statistics of one cache on a server, without the cache."""

    def __init__(self, server: Server, name: str = "c") -> None:
        self.space = Keyspace(name)
        self.able = ServerAbilities()
        self.connection = RedisConnection(server.url)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.connection.close()

    def add(self, counted: Batch, writer: str = "w", number: int = 1) -> None:
        operation = buckets.add_batch(self.space, self.able, counted, writer=writer, number=number, process="host:1")
        self.connection.drive(operation)

    def total(self) -> ByModel:
        return self.connection.drive(buckets.read_standing(self.space)).total

    def bucket(self, resolution: buckets.Resolution, at: float) -> ByModel:
        (counts,) = self.connection.drive(buckets.read_buckets(self.space, resolution, [resolution.start(at)]))
        return counts


def unattended(send: flushing.Send) -> flushing.Outbox:
    """An outbox that no thread delivers: the test does."""
    outbox = flushing.Outbox(send)
    outbox.counters = Counters(lambda: None)
    return outbox


def server_time(server: Server) -> float:
    seconds, microseconds = server.raw.time()
    return seconds + microseconds / 1e6


def statistics_keys(server: Server, name: str = "c") -> list[str]:
    return sorted(key.decode() for key in server.raw.scan_iter() if key.decode().startswith(f"{name}:stats:"))


def stats_of(url: str, name: str = "c", model_name: str | None = None) -> CacheStats:
    """What all processes counted, asked by one that counts nothing."""
    with EmbeddingsCache(name, redis_url=url, stats=False) as asking:
        return asking.stats("all", model_name)


def wait_until(condition: Callable[[], object]) -> bool:
    """Whether it comes true, within a time that says nothing of how long it should take."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def wait_for_expiry(server: Server, key: str) -> None:
    assert wait_until(lambda: not server.raw.exists(key))
    time.sleep(0.01)  # on record, an entry ends a round trip later than the server ends it


# ------------------------------------------------------------------------------------------------ other processes

_PRELUDE = """
import asyncio, json, os, signal, sys, threading, time
import embedcache
from embedcache import EmbeddingsCache
url = sys.argv[1]
"""


def started(script: str, url: str, *arguments: object, file: Path | None = None) -> subprocess.Popen[str]:
    """A process that runs a script, which finds the server's URL in `url` and the arguments in `sys.argv[2:]`.

    It is run from a file where its own child processes are to import it.
    """
    source = ["-c", _PRELUDE + script]
    if file is not None:
        file.write_text(_PRELUDE + script)
        source = [str(file)]
    return subprocess.Popen(
        [sys.executable, "-W", "always::ResourceWarning", *source, url, *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
    )


def finished(process: subprocess.Popen[str]) -> str:
    """What it printed, once it has ended well."""
    try:
        out, err = process.communicate(timeout=60)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        raise
    assert process.returncode == 0, err
    assert "Traceback" not in err
    assert "ResourceWarning" not in err, err
    return out


def run(script: str, url: str, *arguments: object, file: Path | None = None) -> str:
    return finished(started(script, url, *arguments, file=file))
