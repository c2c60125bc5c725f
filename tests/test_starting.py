"""An embedded server that takes its time to start: the page says so, and comes by itself."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browser import dashboard
from clicking import open_page, own_server
from playwright.sync_api import Browser, expect
from servers import find_binary

from pages.ui import starting

SECONDS = 4.0


@pytest.fixture
def slow_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The embedded server's program, which sleeps before it begins, as one does that has much to read."""
    program = tmp_path / "slow-server"
    program.write_text(f'#!/bin/sh\nsleep {SECONDS}\nexec "{find_binary("valkey9")}" "$@"\n')
    program.chmod(0o700)
    monkeypatch.setenv("EMBEDCACHE_SERVER_BINARY", str(program))
    with own_server(tmp_path, monkeypatch):
        yield program


def test_a_page_says_that_the_server_is_starting(slow_server: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(starting, "PATIENCE_SECONDS", 0.2)
    began = time.monotonic()
    app = open_page()
    assert time.monotonic() - began < SECONDS
    assert [info.value for info in app.info] == [
        "**The embedded server is starting.** It reads its entries back first, which takes some seconds for each GB of "
        "them. This page comes by itself."
    ]
    assert not app.error
    assert "Starting" in app.sidebar.markdown[0].value
    while any("is starting" in info.value for info in app.info):
        time.sleep(0.2)
        app.run()
    assert not app.exception
    assert "Valkey" in app.sidebar.markdown[0].value


@pytest.mark.browser
def test_a_page_comes_by_itself_when_the_server_has_started(
    slow_server: Path, tmp_path: Path, browser: Browser
) -> None:
    context: Any = browser.new_context()
    with dashboard(os.environ["EMBEDCACHE_URL"], tmp_path / "log") as address:
        page = context.new_page()
        page.goto(address)
        expect(page.get_by_text("The embedded server is starting.")).to_be_visible()
        expect(page.get_by_test_id("stSidebar").get_by_text("Starting").first).to_be_visible()
        expect(page.get_by_test_id("stSidebar").get_by_text("Valkey").first).to_be_visible()
        expect(page.get_by_text("The embedded server is starting.")).to_have_count(0)
    context.close()
