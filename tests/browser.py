"""A running dashboard and a real Chromium, for tests that click as a user does."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, Playwright, expect
from playwright.sync_api import Error as PlaywrightError
from servers import free_port

ROOT = Path(__file__).parent.parent
START_SECONDS = 60
PATIENCE_MILLISECONDS = 30_000  # until a page shows what is expected; Playwright's own 5 s are short on a busy machine
STOP_SECONDS = 10
HEADER, ROW = 38, 35  # pixels of Browse's table
TICK_X, OPEN_X = 16, 66

# The first because containers run as root, the others so that the browser speaks to nobody but the dashboard.
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]
SYSTEM_BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def find_chromium() -> str | None:
    """`$EMBEDCACHE_CHROMIUM`, else a Chromium or Chrome of the system; None leaves it to Playwright's own."""
    named = os.environ.get("EMBEDCACHE_CHROMIUM")
    return named or next((path for name in SYSTEM_BROWSERS if (path := shutil.which(name))), None)


def launch(playwright: Playwright) -> Browser:
    """A browser; where none can be launched, the test is skipped."""
    expect.set_options(timeout=PATIENCE_MILLISECONDS)
    path = find_chromium()
    try:
        return playwright.chromium.launch(executable_path=path, args=FLAGS)
    except PlaywrightError as error:
        reason = str(error).strip().splitlines()[0]
        pytest.skip(f"no browser here ({path or 'the one of Playwright'}): {reason}")


@contextlib.contextmanager
def dashboard(url: str, log: Path, script: Path = ROOT / "dashboard.py") -> Iterator[str]:
    """Runs the dashboard on a free port; gives its address.

    Args:
        url: What `EMBEDCACHE_URL` is set to.
        log: A file for what it prints.
        script: What to run in its place.
    """
    port = free_port()
    with serving(url, log, port, script):
        yield f"http://127.0.0.1:{port}"


@contextlib.contextmanager
def serving(url: str, log: Path, port: int, script: Path = ROOT / "dashboard.py") -> Iterator[subprocess.Popen[bytes]]:
    """As `dashboard`, on a port that is given; gives the process, for those who end it themselves."""
    options = ["--server.headless=true", "--server.fileWatcherType=none", f"--server.port={port}"]
    command = [sys.executable, "-m", "streamlit", "run", str(script), *options]
    with (
        log.open("ab") as output,
        subprocess.Popen(
            command, cwd=ROOT, env={**os.environ, "EMBEDCACHE_URL": url}, stdout=output, stderr=output
        ) as process,
    ):
        try:
            _wait_until_healthy(process, f"http://127.0.0.1:{port}", log)
            yield process
        finally:
            process.terminate()
            try:
                process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()


def settle(page: Page) -> None:
    """Waits until the page's script has run to its end."""
    page.wait_for_selector('[data-testid="stApp"][data-test-script-state="notRunning"]')


def assert_inert(page: Page) -> None:
    """That nothing in the page's main part is an element that a stranger's text could have made."""
    settle(page)
    main = page.get_by_test_id("stMain")
    assert main.locator("script, img, b, a[href^=javascript]").count() == 0


def assert_no_sideways_scrolling(page: Page) -> None:
    """That the page is no wider than its window."""
    settle(page)
    assert page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")


def stand_still(page: Page) -> None:
    """Waits until the page's script has run to its end and nothing fades or moves: what fades in has other colours."""
    settle(page)
    page.wait_for_function(
        """() => document.getAnimations().every(
            each => each.playState === "finished" || each.effect.getComputedTiming().endTime === Infinity
        )"""
    )


def click_row(page: Page, x: int, row: int) -> None:
    """Clicks into a row of Browse's table, at `TICK_X` or `OPEN_X`."""
    settle(page)
    picture = page.get_by_test_id("stDataFrame").locator("canvas").first  # under a layer that scrolls
    picture.click(position={"x": x, "y": HEADER + ROW * row + ROW // 2}, force=True)


def unfold(page: Page, title: str) -> None:
    """Opens an expander and waits until nothing in it moves: a click half-way presses here and lets go elsewhere."""
    page.get_by_text(title).click()
    page.get_by_test_id("stExpander").filter(has_text=title).evaluate(
        "expander => Promise.all(expander.getAnimations({subtree: true}).map(each => each.finished.catch(() => null)))"
    )


def _wait_until_healthy(process: subprocess.Popen[bytes], address: str, log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(OSError), urllib.request.urlopen(f"{address}/_stcore/health", timeout=1):  # noqa: S310 - ours
            return  # any other answer than 200 raises
        time.sleep(0.1)
    pytest.fail(f"the dashboard did not start:\n{log.read_text(errors='replace')}")
