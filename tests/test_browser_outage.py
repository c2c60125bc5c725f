"""What goes while people work: the server is killed under every page, the dashboard is killed under a plan."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

sync_api = pytest.importorskip("playwright.sync_api", reason="the extra dev brings playwright")

from browser import dashboard, serving, settle  # noqa: E402 - imports playwright itself
from playwright.sync_api import Browser, BrowserContext, Locator, Page, expect  # noqa: E402
from servers import Server, free_port, running  # noqa: E402

from embedcache import EmbeddingsCache, audit  # noqa: E402

pytestmark = [pytest.mark.browser, pytest.mark.timeout(600)]

COMES_BACK = 90_000  # milliseconds: nine pages look again at the same time, on a slow machine too
TYPED = {
    "Overview": None,
    "Hit rates": None,
    "Browse": "Text contains",
    "Lookup": "Text",
    "Vector map": "Words of its text",
    "Embed": "Text",
    "Benchmark": "Texts, one per line",
    "Cleanup": "Text contains",
    "Settings": "A new cache's name",
}
"""By page, the field that a user types into, if any."""
THERE_MEANWHILE = {"Browse", "Lookup", "Embed", "Benchmark", "Cleanup"}
"""Pages whose field is there while the server is away; on the others it stands below what the server knows."""
TEXTS = [f"t{i}" for i in range(20)]
REMOVE = "Remove 20 entries"


@pytest.fixture
def server() -> Iterator[Server]:
    with running("valkey9") as started:
        yield started


@pytest.fixture
def context(browser: Browser) -> Iterator[BrowserContext]:
    opened = browser.new_context(viewport={"width": 1440, "height": 900})
    opened.set_default_timeout(COMES_BACK)
    yield opened
    opened.close()


def fill(server: Server) -> None:
    """The default cache and another, with entries."""
    for name in ("embedcache", "another"):
        with EmbeddingsCache(name, redis_url=server.url) as cache:
            cache.mset(
                [{"text": text, "model_name": "m", "embedding": [1.0, float(i)]} for i, text in enumerate(TEXTS)]
            )


def open_page(context: BrowserContext, address: str, name: str) -> Page:
    """One page in a tab of its own, which is a session of its own."""
    page = context.new_page()
    page.goto(f"{address}/{'' if name == 'Overview' else name.lower().replace(' ', '_')}")
    expect(page.get_by_role("heading", level=1, name=name)).to_be_visible()
    if name == "Settings":
        page.get_by_role("tab", name="Caches").click()
    settle(page)
    return page


def field(page: Page, name: str) -> Locator | None:
    label = TYPED[name]
    return None if label is None else page.get_by_test_id("stMain").get_by_role("textbox", name=label, exact=True)


def type_into(page: Page, name: str, words: str) -> None:
    found = field(page, name)
    if found is not None:
        found.fill(words)
        found.press("Tab")  # leaves the field, so that the page takes what was typed
        settle(page)


def choose_cache(page: Page, name: str) -> None:
    found = page.get_by_test_id("stSidebar").get_by_role("combobox")
    found.fill(name)
    found.press("Enter")


def test_every_page_comes_back_by_itself_with_what_was_typed(
    server: Server, context: BrowserContext, tmp_path: Path
) -> None:
    fill(server)
    with dashboard(server.url, tmp_path / "log") as address:
        pages = {name: open_page(context, address, name) for name in TYPED}
        for name, page in pages.items():
            page.bring_to_front()
            type_into(page, name, "typed before")
        server.kill()
        for name, page in pages.items():
            page.bring_to_front()
            choose_cache(page, "another")  # whatever a user does now
            expect(page.get_by_text("does not answer").first).to_be_visible()
            if name in THERE_MEANWHILE:
                type_into(page, name, "typed meanwhile")
            expect(page.get_by_text("No answer since").first).to_be_visible()
            assert page.get_by_test_id("stException").count() == 0
        server.stop()
        server.start()
        fill(server)
        for name, page in pages.items():
            page.bring_to_front()
            expect(page.get_by_text("does not answer")).to_have_count(0)
            expect(page.get_by_text("No answer since")).to_have_count(0)
            expect(page.get_by_test_id("stSidebar").get_by_text("Valkey").first).to_be_visible()
            found = field(page, name)
            if found is not None:
                expect(found).to_have_value("typed meanwhile" if name in THERE_MEANWHILE else "typed before")


# ------------------------------------------------------------------------------------------------ the dashboard


@pytest.fixture
def port() -> int:
    return free_port()


def confirm_a_plan(page: Page, port: int) -> None:
    """Plans to remove all entries, and types what lets the button be pressed."""
    page.goto(f"http://127.0.0.1:{port}/cleanup")
    page.get_by_role("button", name="Make a plan").click()
    confirm = page.get_by_label("Type the name of the cache to confirm")
    confirm.fill("embedcache")
    confirm.press("Enter")
    expect(page.get_by_role("button", name=REMOVE)).to_be_enabled()


def end(process: subprocess.Popen[bytes]) -> None:
    """Ends a dashboard as a crash does."""
    process.kill()
    process.wait()


def wait_until_connected(page: Page) -> None:
    """Until the page has found the new dashboard by itself; Streamlit shows the old page until something is pressed."""
    page.wait_for_selector('[data-testid="stApp"][data-test-connection-state="CONNECTED"]')


def assert_a_plan_is_to_be_confirmed(page: Page) -> None:
    page.get_by_role("button", name="Make a plan").click()
    expect(page.get_by_label("Type the name of the cache to confirm")).to_have_value("")
    expect(page.get_by_role("button", name=REMOVE)).to_be_disabled()


def test_a_dashboard_that_was_killed_carries_no_old_plan_out(
    server: Server, context: BrowserContext, port: int, tmp_path: Path
) -> None:
    fill(server)
    page = context.new_page()
    with serving(server.url, tmp_path / "log", port) as process:
        confirm_a_plan(page, port)
        end(process)
    with serving(server.url, tmp_path / "log", port), EmbeddingsCache(redis_url=server.url) as cache:
        wait_until_connected(page)
        page.get_by_role("button", name=REMOVE).click()
        expect(page.get_by_role("button", name=REMOVE)).to_have_count(0)
        settle(page)
        assert all(cache.mexists(TEXTS, "m"))
        assert_a_plan_is_to_be_confirmed(page)
        assert all(cache.mexists(TEXTS, "m"))


def test_a_plan_that_was_carried_out_is_not_when_the_dashboard_is_back(
    server: Server, context: BrowserContext, port: int, tmp_path: Path
) -> None:
    fill(server)
    page = context.new_page()
    with serving(server.url, tmp_path / "log", port) as process:
        confirm_a_plan(page, port)
        page.get_by_role("button", name=REMOVE).click()
        expect(page.get_by_text("Removed 20 entries of")).to_be_visible()
        settle(page)
        end(process)
    fill(server)  # the same texts, embedded again
    with serving(server.url, tmp_path / "log", port), EmbeddingsCache(redis_url=server.url) as cache:
        wait_until_connected(page)
        assert_a_plan_is_to_be_confirmed(page)
        assert all(cache.mexists(TEXTS, "m"))
        assert [each.count for each in audit.read(cache.connection, "embedcache") if each.action == "remove"] == [20]
