"""How far a long batch is: told to a function, and shown as a bar."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from servers import Server
from toy_model import Both, Model, vector_of

from embedcache import CustomVectorizer, EmbeddingsCache
from embedcache.vectorizers import base

CHUNK = 4
TEXTS = [f"text {number}" for number in range(10)]


@pytest.fixture(params=["sync", "async"])
def vectorizer(valkey: Server, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Iterator[Both]:
    monkeypatch.setattr(base, "CHUNK_TEXTS", CHUNK)
    with asyncio.Runner() as runner, EmbeddingsCache("v", redis_url=valkey.url) as cache:
        made = CustomVectorizer(vector_of, "toy", cache, embed_many_callable=Model())
        yield Both(made, runner if request.param == "async" else None)


@pytest.mark.parametrize("method", ["embed_many", "embed_report", "embed_documents"])
def test_a_bar_shows_distinct_texts_and_ends_full(
    vectorizer: Both, method: str, capsys: pytest.CaptureFixture[str]
) -> None:
    getattr(vectorizer, method)([*TEXTS, *TEXTS], progress=True)
    shown = capsys.readouterr().err
    assert shown.startswith("\rEmbedding:   0%|")
    assert "10/10" in shown
    assert " texts/s]" in shown


def test_a_bar_begins_with_what_is_cached(vectorizer: Both, capsys: pytest.CaptureFixture[str]) -> None:
    vectorizer.embed_many(TEXTS)
    capsys.readouterr()
    vectorizer.embed_many(TEXTS, progress=True)
    assert "100%" in capsys.readouterr().err


def test_there_is_no_bar_unless_asked_for(vectorizer: Both, capsys: pytest.CaptureFixture[str]) -> None:
    vectorizer.embed_many(TEXTS)
    assert capsys.readouterr() == ("", "")


def test_a_bar_and_a_function_are_told_the_same(vectorizer: Both, capsys: pytest.CaptureFixture[str]) -> None:
    seen: list[tuple[int, int]] = []
    vectorizer.embed_many(TEXTS, progress=True, on_progress=lambda *told: seen.append(told))
    assert seen == [(0, 10), (4, 10), (8, 10), (10, 10)]
    assert "10/10" in capsys.readouterr().err


def test_a_bar_is_closed_where_the_model_fails(vectorizer: Both, capsys: pytest.CaptureFixture[str]) -> None:
    def fails(texts: Any) -> Any:
        raise RuntimeError("the model broke")

    vectorizer.vectorizer._embed_many = fails  # type: ignore[attr-defined]
    with pytest.raises(RuntimeError, match="the model broke"):
        vectorizer.embed_many(TEXTS, progress=True)
    assert capsys.readouterr().err.endswith("\n")


def test_a_function_that_raises_ends_the_batch_after_what_is_stored(vectorizer: Both) -> None:
    class CancelledError(Exception):
        pass

    def cancel(done: int, total: int) -> None:
        if done >= CHUNK:
            raise CancelledError

    with pytest.raises(CancelledError):
        vectorizer.embed_many(TEXTS, on_progress=cancel)
    assert vectorizer.embed_report(TEXTS).hits.sum() == CHUNK


def test_without_tqdm_it_is_said_what_to_do() -> None:
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "import sys; sys.modules['tqdm'] = None\n"
            "from embedcache import CustomVectorizer\n"
            "from embedcache.errors import VectorizerError\n"
            "vectorizer = CustomVectorizer(lambda text: print('computed') or [1.0])\n"
            "try: vectorizer.embed_many(['a'], progress=True)\n"
            "except VectorizerError as error: print(error)",
        ],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout.startswith('progress=True needs the extra "progress": pip install "embedcache[progress]"')
