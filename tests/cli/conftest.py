"""The command as a shell calls it: in this process, where nothing depends on a process of its own."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import pytest
from servers import Server, running

from embedcache import EmbeddingsCache
from embedcache.cli import main
from embedcache.vectorizers import DEFAULT_MODEL


class Ended(NamedTuple):
    """What a command printed, and its exit code."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with running("valkey9") as started:
        yield started


@pytest.fixture
def url(server: Server, monkeypatch: pytest.MonkeyPatch) -> str:
    server.raw.flushall()
    monkeypatch.setenv("EMBEDCACHE_URL", server.url)
    return server.url


@pytest.fixture
def cache(url: str) -> Iterator[EmbeddingsCache]:
    with EmbeddingsCache("docs", redis_url=url) as opened:
        yield opened


@pytest.fixture
def filled(cache: EmbeddingsCache) -> EmbeddingsCache:
    """Ten entries: two models, metadata, and a TTL on the last two."""
    cache.mset(
        [
            {
                "text": f"text {number}",
                "model_name": DEFAULT_MODEL if number % 2 else "other",
                "embedding": [float(number), 1.0],
                "metadata": {"page": number},
                "ttl": 600 if number >= 8 else None,
            }
            for number in range(10)
        ]
    )
    return cache


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Ended]:
    """Runs the command with these words; each run is told of the cache `docs`, if no other is named."""
    monkeypatch.setenv("EMBEDCACHE_NAME", "docs")

    def call(*words: str) -> Ended:
        monkeypatch.setattr(sys, "argv", ["embedcache", *words])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = capsys.readouterr()
        code = ended.value.code
        assert "Traceback" not in err
        return Ended(code if isinstance(code, int) else 0, out, err)

    return call
