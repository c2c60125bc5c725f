"""What the tests of exports share: connections, files to export to, entries, and what a server holds of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import redis
from servers import Server

from embedcache import EmbeddingsCache, transfer
from embedcache.connection import RedisConnection

FORMATS = ("parquet", "jsonl")
DAY = 86_400

# Exports until somebody kills it.
KILLED = """
import sys, time
from embedcache import transfer
from embedcache.connection import RedisConnection

def tell(done, total):
    if done > 300:
        print("half-way", flush=True)
        time.sleep(60)

transfer.export_entries(RedisConnection(sys.argv[1]), "c", sys.argv[2], tell=tell, file_format=sys.argv[3])
"""


class CancelledError(Exception):
    """What a caller's `tell` raises."""


@pytest.fixture(params=["scripts", "no scripts"])
def connection(request: pytest.FixtureRequest, server: Server) -> Iterator[RedisConnection]:
    """A connection by which scripts may be run, or may not."""
    user: dict[str, Any] = {}
    if request.param == "no scripts":
        server.raw.execute_command("ACL", "SETUSER", "plain", "reset", "on", ">word", "~*", "+@all", "-@scripting")
        user = {"username": "plain", "password": "word"}
    client = redis.Redis(unix_socket_path=str(server.socket), **user)
    yield RedisConnection(client=client)
    client.close()
    server.raw.execute_command("ACL", "DELUSER", "plain")


@pytest.fixture
def plain(valkey: Server) -> Iterator[RedisConnection]:
    """A connection to the kind of server that the package embeds."""
    opened = RedisConnection(valkey.url)
    yield opened
    opened.close()


@pytest.fixture(params=FORMATS)
def target(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A file to export to, its suffix the format."""
    return tmp_path / f"entries.{request.param}"


def export(connection: RedisConnection, target: Path, name: str = "c", **options: Any) -> transfer.ExportReport:
    return transfer.export_entries(connection, name, target, file_format=target.suffix[1:], **options)  # type: ignore[arg-type]


def cache(server: Server, name: str = "c", **options: Any) -> EmbeddingsCache:
    return EmbeddingsCache(name, redis_url=server.url, stats=False, **options)


def fill(server: Server, count: int = 30, *, dimensions: int = 4, dtype: str = "float32", model: str = "m") -> None:
    vectors = np.random.default_rng(1).standard_normal((count, dimensions))
    with cache(server, dtype=dtype) as opened:
        opened.mset(
            [
                {
                    "text": f"{dtype} text {n}",
                    "model_name": model,
                    "embedding": vectors[n],
                    "metadata": {"page": n, "ü": [1.0, None, {"deep": True}]} if n % 2 else None,
                    "ttl": DAY + n if n % 3 else None,
                }
                for n in range(count)
            ]
        )


def values(server: Server) -> dict[bytes, bytes]:
    return {key: server.raw.get(key) for key in server.raw.scan_iter()}  # type: ignore[misc]


def expiries(server: Server) -> dict[bytes, float]:
    """When each key expires, in Unix milliseconds by this machine's clock, or -1."""
    left = {key: server.raw.pttl(key) for key in server.raw.scan_iter()}
    return {key: time.time() * 1000 + ms if ms >= 0 else -1 for key, ms in left.items()}


def stop_after(count: int) -> Callable[[int, int | None], None]:
    def tell(done: int, _total: int | None) -> None:
        if done >= count:
            raise CancelledError

    return tell
