"""The page Lookup where a text is not in the cache: it says why, and what is stored instead."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from clicking import HOSTILE, look_up, metrics, open_page, own_server, words

from embedcache import EmbeddingsCache
from embedcache.explain import Reason
from embedcache.vectorizers import DEFAULT_MODEL
from pages.ui import wording

VECTOR = [0.5, -0.5]


@pytest.fixture(autouse=True)
def fresh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with own_server(tmp_path, monkeypatch):
        yield


@pytest.fixture
def cache() -> Iterator[EmbeddingsCache]:
    with EmbeddingsCache() as opened:
        yield opened


def miss(text: str) -> Any:
    app = open_page("lookup")
    app.selectbox(key="lookup_model").set_value(DEFAULT_MODEL)
    look_up(app, text)
    assert "Not in the cache" in words(app)
    return app


def test_a_text_never_stored(cache: EmbeddingsCache) -> None:
    cache.set("another", DEFAULT_MODEL, VECTOR)
    assert "has **never stored** exactly this text under this model" in words(miss("t"))


def test_a_text_spelt_otherwise_is_a_click_away(cache: EmbeddingsCache) -> None:
    key = cache.set("What is AI?", DEFAULT_MODEL, VECTOR)
    app = miss("what  is ai?")
    assert "differs only in case, white space or Unicode form" in words(app)
    assert "`What is AI?`" in words(app)
    app.button(key=f"open_{key}").click().run()  # it is among those worded alike, too, with a button there
    assert metrics(app)["Dimension"] == "2"
    assert "Not in the cache" not in words(app)


def test_a_text_under_another_model_and_under_other_options(cache: EmbeddingsCache) -> None:
    cache.set("t", "other/model", VECTOR)
    assert "The text is there **under another model**" in words(miss("t"))
    cache.set("t", f"{DEFAULT_MODEL}?normalize=True", VECTOR)
    cache.flush_stats()  # by which models are known, the other one first
    app = miss("t")
    assert "**under the same model with other options**" in words(app)
    assert f"`{DEFAULT_MODEL}?normalize=True`" in words(app)


def test_an_entry_whose_ttl_ran_out(cache: EmbeddingsCache) -> None:
    key = cache.set("t", DEFAULT_MODEL, VECTOR, ttl=1)
    cache.flush_stats()
    client = cache.connection.client()
    while client.exists(key):
        client.ping()
    assert "**its TTL ran out**" in words(miss("t"))


def test_an_entry_that_somebody_else_removed(cache: EmbeddingsCache) -> None:
    key = cache.set("t", DEFAULT_MODEL, VECTOR, ttl=500)
    cache.flush_stats()
    cache.connection.client().delete(key)
    assert "**evicted, or removed by another program**" in words(miss("t"))


def test_a_damaged_entry(cache: EmbeddingsCache) -> None:
    key = cache.set("t", DEFAULT_MODEL, VECTOR)
    cache.connection.client().setrange(key, 60, b"\xff\x00")
    assert "it is damaged: its checksum does not fit" in words(miss("t"))


def test_what_is_stored_instead_is_shown_as_text(cache: EmbeddingsCache) -> None:
    cache.set(HOSTILE, HOSTILE, VECTOR)
    app = miss(HOSTILE.upper())
    assert wording.code_span(HOSTILE, 160) in words(app)
    assert wording.code_span(HOSTILE, 120) in words(app)


def test_looking_is_not_counted(cache: EmbeddingsCache) -> None:
    miss("t")
    assert cache.stats().texts == 0


def test_there_are_words_for_every_reason() -> None:
    assert set(wording.MISSES) == set(Reason)
