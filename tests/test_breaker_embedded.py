"""The circuit breaker in front of the embedded server, which is ours to bring back."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from calling import Caller
from failing import EAGER, QUICK, fails, wait_until
from servers import Server
from working import MODEL, VECTOR, works

from embedcache import CacheUnavailableError, EmbeddingsCache

Wrap = Callable[[EmbeddingsCache], Caller]


@pytest.fixture
def embedded(tmp_path: Path, caller: Wrap, valkey: Server) -> Caller:
    """One that answers."""
    cache = caller(EmbeddingsCache(redis_url=f"embedded://{tmp_path}/data", connection_kwargs=QUICK, breaker=EAGER))
    assert works(cache)
    return cache


def test_one_that_cannot_be_started_is_refused_at_once_and_started_in_the_background_when_it_can(
    embedded: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    connection = embedded.cache.connection
    monkeypatch.setenv("EMBEDCACHE_SERVER_BINARY", "/nowhere/at/all")
    os.kill(connection.client().info("server")["process_id"], signal.SIGKILL)
    assert "/nowhere/at/all" in fails(embedded, 2)
    assert "since" in fails(embedded)
    monkeypatch.delenv("EMBEDCACHE_SERVER_BINARY")
    assert wait_until(lambda: connection.outage is None)
    assert works(embedded)


def test_one_that_is_silent_is_not_waited_for_longer_than_another_server(embedded: Caller) -> None:
    pid = embedded.cache.connection.client().info("server")["process_id"]
    os.kill(pid, signal.SIGSTOP)
    try:
        started = time.perf_counter()
        fails(embedded, 100)
        assert time.perf_counter() - started < 50  # 100 s, if each waited
        assert embedded.cache.connection.outage is not None
    finally:
        os.kill(pid, signal.SIGCONT)
    assert wait_until(lambda: embedded.cache.connection.outage is None)
    assert works(embedded)


def test_many_threads_bring_it_back_between_them(tmp_path: Path, valkey: Server) -> None:
    with EmbeddingsCache(redis_url=f"embedded://{tmp_path}/data", stats=False) as cache:
        cache.set("a", MODEL, VECTOR)
        server = cache.connection._embedded
        assert server is not None
        failed: list[BaseException] = []

        def look() -> None:
            together.wait()
            try:
                cache.get("a", MODEL)
            except CacheUnavailableError as error:
                failed.append(error)

        for _ in range(3):
            together = threading.Barrier(17)
            threads = [threading.Thread(target=look) for _ in range(16)]
            for thread in threads:
                thread.start()
            os.kill(server.pid, signal.SIGKILL)
            together.wait()
            for thread in threads:
                thread.join()
        assert failed == []
        assert cache.connection.outage is None
