"""A server that speaks the protocol, and vectorizers of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from calling import Caller
from openai_server import KEY, MODEL, EmbeddingServer, embedding_server
from servers import Server

from embedcache import EmbeddingsCache, OpenAITextVectorizer


@pytest.fixture(autouse=True)
def no_key_of_the_users(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "OPENAI_ORG_ID", "OPENAI_PROJECT_ID"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def api() -> Iterator[EmbeddingServer]:
    with embedding_server() as server:
        yield server


@pytest.fixture
def cache(valkey: Server) -> Iterator[EmbeddingsCache]:
    with EmbeddingsCache("o", redis_url=valkey.url) as cache:
        yield cache


@pytest.fixture(params=["sync", "async"])
def make(request: pytest.FixtureRequest, api: EmbeddingServer) -> Iterator[Callable[..., Caller]]:
    """Makes vectorizers of the server, called sync or async, and closes them."""
    runner = asyncio.Runner() if request.param == "async" else None
    made: list[Caller] = []

    def make(**options: Any) -> Caller:
        given = {"model": MODEL, "api_key": KEY, "base_url": api.base_url}
        made.append(Caller(OpenAITextVectorizer(**{**given, **options}), runner))
        return made[-1]

    yield make
    for each in made:
        each.close()
    if runner is not None:
        runner.close()
