"""What every test may ask for: real servers, and a cache that one test calls both sync and async."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from calling import Caller
from clusters import ClusterOfServers
from hypothesis import settings
from servers import BINARIES, Server, ServerNotFoundError

from embedcache import EmbeddingsCache
from embedcache.flushing import flush_all

# No deadline: how long a test takes is not what it asserts. No database: a run leaves nothing behind.
settings.register_profile("embedcache", deadline=None, database=None, max_examples=60)
settings.load_profile("embedcache")


# `make cluster` runs tests of single servers on a Redis Cluster.
ON_CLUSTER = os.environ.get("EMBEDCACHE_TEST_CLUSTER") == "1"
KINDS = ["cluster"] if ON_CLUSTER else list(BINARIES)


@pytest.fixture(autouse=True)
def kept_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No test reaches the server that the user has, or the user's data folder, or another test's server."""
    monkeypatch.delenv("EMBEDCACHE_URL", raising=False)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data-home"))
    yield
    flush_all()  # what one test counted is not written into the next one's server


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A real Chromium. Of one module and not of all: Playwright runs an event loop as long as it is there."""
    from browser import launch  # imports playwright itself, which the extra dev brings
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        launched = launch(playwright)
        yield launched
        launched.close()


@pytest.fixture(scope="session")
def start_server() -> Iterator[Callable[[str], Server | ClusterOfServers]]:
    """Starts a server of a kind, once per session."""
    started: dict[str, Server | ClusterOfServers] = {}

    def start(kind: str) -> Server | ClusterOfServers:
        if kind not in started:
            try:
                started[kind] = ClusterOfServers() if kind == "cluster" else Server(kind)
            except ServerNotFoundError as error:
                pytest.skip(str(error))
        return started[kind]

    yield start
    for server in started.values():
        server.remove()


def _emptied(server: Server | ClusterOfServers) -> Server | ClusterOfServers:
    server.raw.flushall()
    return server


@pytest.fixture(params=KINDS)
def server(
    request: pytest.FixtureRequest, start_server: Callable[[str], Server | ClusterOfServers]
) -> Server | ClusterOfServers:
    """Each kind of server in turn, empty."""
    return _emptied(start_server(request.param))


@pytest.fixture
def valkey(start_server: Callable[[str], Server | ClusterOfServers]) -> Server | ClusterOfServers:
    """The kind of server that the package embeds, empty."""
    return _emptied(start_server("cluster" if ON_CLUSTER else "valkey9"))


@pytest.fixture
def cluster(start_server: Callable[[str], Server | ClusterOfServers]) -> Server | ClusterOfServers:
    """A whole Redis Cluster, empty, that stays whole."""
    return _emptied(start_server("cluster"))


@pytest.fixture(params=["sync", "async"])
def caller(request: pytest.FixtureRequest) -> Iterator[Callable[[EmbeddingsCache], Caller]]:
    """Wraps a cache for a contract test, and closes it in the end."""
    callers: list[Caller] = []
    runner = asyncio.Runner() if request.param == "async" else None

    def wrap(cache: EmbeddingsCache) -> Caller:
        callers.append(Caller(cache, runner))
        return callers[-1]

    yield wrap
    for each in callers:
        each.close()
    if runner is not None:
        runner.close()


@pytest.fixture
def layout() -> str:
    """How the caches of the contract store entries; a module that tests the other way says so."""
    return "packed"


@pytest.fixture
def make_cache(
    server: Server | ClusterOfServers, caller: Callable[[EmbeddingsCache], Caller], layout: str
) -> Callable[..., Caller]:
    """Makes caches of the contract on one server."""

    def make(name: str = "c", **options: Any) -> Caller:
        # Statistics are other keys, written at a time of their own; tests of the statistics say that they want them.
        return caller(EmbeddingsCache(name, redis_url=server.url, **{"stats": False, "layout": layout} | options))

    return make


@pytest.fixture
def cache(make_cache: Callable[..., Caller]) -> Caller:
    """A cache with no default TTL."""
    return make_cache()
