"""The index of a cache on a page: there at once, waited for, cancelled, failed, taken anew."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from clicking import finish, own_server, press, words
from streamlit.testing.v1 import AppTest

from embedcache import EmbeddingsCache, walking
from embedcache.errors import ServerReplyError
from pages.ui import indexes

PAGE = """
import streamlit as st
from pages.ui import indexes, session

index = indexes.look(session.cache_name())
st.caption("none yet" if index is None else f"{len(index)} there")
indexes.age_line(session.cache_name(), index)
"""


@pytest.fixture(autouse=True)
def fresh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(indexes, "_PATIENCE", 20.0)  # a slow machine must not show a bar where a test expects none
    with own_server(tmp_path, monkeypatch):
        yield


@pytest.fixture
def cache() -> Iterator[EmbeddingsCache]:
    with EmbeddingsCache(stats=False) as opened:
        opened.set("one", "m", [1.0, 2.0])
        yield opened


class Looks:
    """Looks at entries that wait to be let go on, and then are as they always are, or fail."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.go_on = threading.Event()
        self.error: Exception | None = None
        self._look = walking.index_cache
        monkeypatch.setattr(walking, "index_cache", self)
        monkeypatch.setattr(indexes, "_PATIENCE", 0.05)

    def __call__(self, connection: Any, name: str, tell: Callable[[int, int | None], object]) -> Any:
        while not self.go_on.wait(0.02):
            tell(2, 5)
        if self.error:
            raise self.error
        return self._look(connection, name, tell)


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> Iterator[Looks]:
    held = Looks(monkeypatch)
    yield held
    held.go_on.set()


def open_page() -> AppTest:
    app = AppTest.from_string(PAGE, default_timeout=30).run()
    assert not app.exception
    return app


def test_a_small_cache_is_there_at_once(cache: EmbeddingsCache) -> None:
    said = words(open_page())
    assert "1 there" in said
    assert "1 entry, as of just now." in said


def test_an_index_is_kept_until_it_is_asked_for_anew(cache: EmbeddingsCache) -> None:
    app = open_page()
    cache.set("two", "m", [1.0, 2.0])
    assert "1 there" in words(app.run())
    assert "2 there" in words(press(app, "Refresh"))


def test_what_takes_long_is_shown_and_found_again(cache: EmbeddingsCache, looks: Looks) -> None:
    app = open_page()
    assert "none yet" in words(app)
    assert "Not looked at yet." in words(app)
    assert [(button.label, button.disabled) for button in app.button] == [("Cancel", False), ("Refresh", True)]
    assert "none yet" in words(open_page()), "another user waits for the same look"
    looks.go_on.set()
    assert "1 there" in words(finish(app))


def test_one_that_was_cancelled_is_not_begun_again_unasked(cache: EmbeddingsCache, looks: Looks) -> None:
    app = open_page()
    finish(press(app, "Cancel"))
    assert "Looking at the entries was cancelled after 2 of 5 entries." in words(app)
    assert "none yet" in words(app.run())
    looks.go_on.set()
    press(app, "Look again")
    assert "1 there" in words(finish(app))


def test_an_older_one_stays_while_a_newer_one_is_taken(cache: EmbeddingsCache, monkeypatch: pytest.MonkeyPatch) -> None:
    app = open_page()
    looks = Looks(monkeypatch)
    cache.set("two", "m", [1.0, 2.0])
    try:
        press(app, "Refresh")
        assert "1 there" in words(app)
        assert [button.label for button in app.button] == ["Cancel"]
    finally:
        looks.go_on.set()
    assert "2 there" in words(finish(app))


def test_one_that_failed_says_why(cache: EmbeddingsCache, looks: Looks) -> None:
    looks.error = ServerReplyError("NOPERM no SCAN for you")
    looks.go_on.set()
    app = finish(open_page())
    assert "**The user of this server lacks a right.**" in app.error[0].value
    assert "no SCAN for you" in app.error[0].value
    looks.error = None
    assert "1 there" in words(finish(press(app, "Look again")))


def test_one_that_fails_later_leaves_the_older_one_and_says_why(
    cache: EmbeddingsCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = open_page()
    looks = Looks(monkeypatch)
    looks.error = ServerReplyError("NOPERM no SCAN for you")
    looks.go_on.set()
    finish(press(app, "Refresh"))
    assert "1 there" in words(app)
    assert "no SCAN for you" in app.error[0].value
