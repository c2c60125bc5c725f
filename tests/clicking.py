"""The dashboard's pages, driven without a browser: opened, pressed and read."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import streamlit as st
from streamlit.runtime.pages_manager import PagesManager
from streamlit.testing.v1 import AppTest, app_test

from pages.ui import starting

ROOT = Path(__file__).parent.parent
PATIENCE_SECONDS = 120.0  # for a model that is loaded on a busy machine
HOSTILE = "<script>alert(1)</script> **bold** [x](http://e.vil) ` `` :red[r] $x^2$ :material/home: \x1b[31m"


class NavigatedPagesManager(PagesManager):
    """Pages as a server knows them that has run `app.py` once.

    AppTest begins each run as a new process would, which runs a page's file alone before it learns of `app.py`.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        PagesManager.uses_pages_directory = False
        super().__init__(*arguments, **options)


app_test.PagesManager = NavigatedPagesManager


@contextlib.contextmanager
def own_server(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An embedded server of this test's own, and none of it left behind."""
    monkeypatch.setenv("EMBEDCACHE_URL", f"embedded://{folder}/server")
    monkeypatch.setattr(starting, "PATIENCE_SECONDS", 60.0)  # no fragment runs here, which would see the server come
    yield
    st.cache_data.clear()
    st.cache_resource.clear()  # closes the caches, which ends the server


def open_page(page: str | None = None, **query: str) -> AppTest:
    app = AppTest.from_file(str(ROOT / "app.py"), default_timeout=30)
    app.query_params.update(query)
    app.run()
    if page:
        app.switch_page(f"pages/{page}.py").run()
    assert not app.exception
    return app


def press(app: AppTest, label: str) -> AppTest:
    (button,) = [button for button in app.button if button.label == label]
    button.click().run()
    assert not app.exception
    return app


def press_in_dialog(app: AppTest, opener: str, label: str) -> AppTest:
    """Presses a button of a dialog. AppTest runs the whole page, and not the dialog alone: so it is opened anew."""
    (button,) = [button for button in app.button if button.label == opener]
    button.click()
    return press(app, label)


def metrics(app: AppTest) -> dict[str, str]:
    return {metric.label: metric.value for metric in app.metric}


def words(app: AppTest) -> str:
    """Everything on the page that is read as Markdown."""
    kinds = (app.markdown, app.caption, app.error, app.info, app.success, app.warning, app.title, app.subheader)
    return "\n".join(element.value for kind in kinds for element in kind)


def look_up(app: AppTest, text: str) -> AppTest:
    app.text_area(key="lookup_text").set_value(text)
    return press(app, "Look up")


def finish(app: AppTest) -> AppTest:
    """Runs the page until no long work is under way on it."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while any(button.label in {"Cancel", "Cancelling"} for button in app.button):
        assert time.monotonic() < deadline, words(app)
        time.sleep(0.05)
        app.run()
    assert not app.exception
    return app


def embed(app: AppTest, text: str) -> AppTest:
    app.text_area(key="embed_text").set_value(text)
    return finish(press(app, "Embed"))
