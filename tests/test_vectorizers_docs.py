"""`docs/vectorizers.md` says what is."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from openai_server import EmbeddingServer, embedding_server
from servers import Server

from embedcache import errors
from embedcache.vectorizers import DriftReport

PAGE = (Path(__file__).parent.parent / "docs" / "vectorizers.md").read_text(encoding="utf-8")
OPENAI, OWN_SERVER, VERIFY = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


@pytest.fixture
def api(valkey: Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[EmbeddingServer]:
    with embedding_server() as server:
        monkeypatch.setenv("EMBEDCACHE_URL", valkey.url)
        monkeypatch.setenv("OPENAI_API_KEY", "the-key-of-the-docs")
        monkeypatch.setenv("OPENAI_BASE_URL", server.base_url)
        yield server


def run(code: str) -> dict[str, Any]:
    names: dict[str, Any] = {}
    exec(code, names)  # noqa: S102 - it is ours
    return names


def said(code: str) -> str:
    """What the last print of a block says that it prints."""
    return re.findall(r"print\(.*\)  # (.*)", code)[-1]


def test_openai(api: EmbeddingServer, capsys: pytest.CaptureFixture[str]) -> None:
    names = run(OPENAI)
    assert [request.body["input"] for request in api.requests] == [["What is AI?", "What is a cache?"]]
    assert names["vectors"].shape == (2, 512)
    model, _, options = capsys.readouterr().out.strip().partition("?")
    assert set(options.split("&")) > {"dimensions=512"}  # beside the address, which OpenAI's own would not be
    assert said(OPENAI) == f"{model}?dimensions=512"
    names["vectorizer"].close()
    names["cache"].close()


def test_a_server_of_yours(api: EmbeddingServer) -> None:
    names = run(OWN_SERVER.replace("http://localhost:8000/v1", api.base_url))
    assert names["vector"].shape == (8,)
    names["cache"].close()


@pytest.mark.model
def test_verify(valkey: Server, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("EMBEDCACHE_URL", valkey.url)
    names = run(VERIFY)
    assert capsys.readouterr().out.strip() == said(VERIFY)
    names["vectorizer"].cache.close()


def test_it_names_what_there_is() -> None:
    described = set(re.findall(r"`(\w+)`", PAGE))
    assert described >= {each.name for each in fields(DriftReport)} - {
        "allowed",
        "dimension",
        "model_names",
        "tolerance",
        "unreadable",
        "whole",
    }
    for name in re.findall(r"`(\w+Error)`", PAGE):
        assert issubclass(getattr(errors, name), errors.VectorizerError)
