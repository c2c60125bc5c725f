"""Settings in a real browser: servers, caches, the read-only switch and the audit log, on a desk and on a phone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

sync_api = pytest.importorskip("playwright.sync_api", reason="the extra dev brings playwright")

from browser import assert_inert, assert_no_sideways_scrolling, dashboard, settle  # noqa: E402 - imports playwright
from playwright.sync_api import Browser, Page, expect  # noqa: E402
from servers import Server, running  # noqa: E402

from embedcache import EmbeddingsCache, audit  # noqa: E402
from embedcache.vectorizers import DEFAULT_MODEL  # noqa: E402

pytestmark = [pytest.mark.browser, pytest.mark.timeout(300)]

HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(2)><b>bold</b> **strong** [x](javascript:alert(3)) :red[r]"
PASSWORD = "s3cr3t/@:%"  # noqa: S105 - of a server of the tests' own
SLOW = 60_000  # milliseconds
SECOND_ROW = {"x": 18, "y": 90}


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with running("valkey9") as started:
        yield started


@pytest.fixture(scope="module")
def locked() -> Iterator[Server]:
    with running("valkey9", password=PASSWORD) as started:
        yield started


@pytest.fixture(scope="module")
def address(browser: Browser, server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with dashboard(server.url, tmp_path_factory.mktemp("log") / "dashboard.log") as started:
        yield started


@pytest.fixture
def cache(server: Server) -> Iterator[EmbeddingsCache]:
    """A cache of three entries, beside one with a hostile name, model and change on record."""
    server.raw.flushall()
    with EmbeddingsCache(redis_url=server.url) as opened, EmbeddingsCache(HOSTILE, redis_url=server.url) as hostile:
        opened.mset([{"text": f"t{i}", "model_name": DEFAULT_MODEL, "embedding": [1.0, 2.0]} for i in range(3)])
        hostile.set(HOSTILE, HOSTILE, [1.0])
        audit.record(hostile.connection, HOSTILE, HOSTILE, HOSTILE, count=1, size=10, detail={"words": HOSTILE})
        yield opened


@pytest.fixture(params=["desk, light", "phone, dark"])
def page(request: pytest.FixtureRequest, browser: Browser, address: str, cache: EmbeddingsCache) -> Iterator[Page]:
    """The page Settings, on which no dialog of the browser's own ever opened."""
    small = request.param.startswith("phone")
    size = {"width": 390, "height": 844} if small else {"width": 1440, "height": 900}
    context = browser.new_context(viewport=size, color_scheme="dark" if small else "light")
    context.set_default_timeout(SLOW)
    opened = context.new_page()
    dialogs: list[str] = []
    opened.on("dialog", lambda dialog: (dialogs.append(dialog.message), dialog.dismiss()))
    opened.goto(f"{address}/settings")
    expect(opened.get_by_role("heading", level=1, name="Settings")).to_be_visible()
    settle(opened)
    yield opened
    context.close()
    assert dialogs == []


def open_tab(page: Page, name: str) -> None:
    page.get_by_role("tab", name=name).click()
    settle(page)


def notice(page: Page, words: str) -> None:
    expect(page.get_by_test_id("stAlert").filter(has_text=words)).to_be_visible(timeout=SLOW)


def add_server(page: Page, name: str, url: str, password: str) -> None:
    page.get_by_label("Name", exact=True).fill(name)
    page.get_by_role("textbox", name="URL, without the password").fill(url)
    page.get_by_label("Password, if it has one").fill(password)
    page.get_by_role("button", name="Add", exact=True).click()


def test_a_server_is_added_worked_with_and_removed_and_its_password_is_never_shown(page: Page, locked: Server) -> None:
    add_server(page, "<b>theirs</b>", locked.url.replace("unix://", "unix://default@"), PASSWORD)
    notice(page, "answers: Valkey")
    expect(page.get_by_label("Password, if it has one")).to_have_value("")
    page.get_by_role("radio").nth(1).check(force=True)
    notice(page, "You work with")
    assert_inert(page)
    assert_no_sideways_scrolling(page)
    assert "s3cr3t" not in page.content()
    page.get_by_role("button", name="Test", exact=True).click()
    notice(page, "answers: Valkey")
    assert "s3cr3t" not in page.content()
    page.get_by_role("button", name="Remove", exact=True).click()
    notice(page, "is off your list")
    expect(page.get_by_role("radio")).to_have_count(1)


def test_what_was_typed_wrongly_is_told_and_the_rest_stays(page: Page) -> None:
    add_server(page, "staging", "redis://:oh-no@localhost", "")
    notice(page, "Type the password into its own field")
    expect(page.get_by_label("Name", exact=True)).to_have_value("staging")
    expect(page.get_by_role("radio")).to_have_count(1)


def test_a_cache_is_ticked_told_of_and_worked_with(page: Page) -> None:
    open_tab(page, "Caches")
    expect(page.get_by_text("The pages work on this cache.")).to_be_visible(timeout=SLOW)
    expect(page.get_by_test_id("stTable").get_by_text("2 numbers as float32")).to_be_visible(timeout=SLOW)
    page.get_by_test_id("stDataFrame").click(position=SECOND_ROW)
    expect(page.get_by_test_id("stTable").get_by_text("1 number as float32")).to_be_visible(timeout=SLOW)
    assert_inert(page)
    assert_no_sideways_scrolling(page)
    page.get_by_role("button", name="Work with it").click()
    notice(page, "You work with the cache")
    expect(page.get_by_test_id("stDataFrame")).to_have_count(1)
    assert_inert(page)


def test_a_new_cache_is_started(page: Page, cache: EmbeddingsCache) -> None:
    open_tab(page, "Caches")
    page.get_by_label("A new cache's name").fill("products")
    page.get_by_role("button", name="Start it").click()
    notice(page, "You work with the cache products")
    expect(page.get_by_text("It holds nothing.")).to_be_visible(timeout=SLOW)
    assert cache.exists("t0", DEFAULT_MODEL)


def test_read_only_holds_on_every_page_until_it_is_switched_off(
    page: Page, address: str, cache: EmbeddingsCache
) -> None:
    open_tab(page, "You")
    page.get_by_text("Read-only", exact=True).first.click()
    settle(page)
    to_page(page, "Lookup")
    page.get_by_label("Text", exact=True).fill("t0")
    page.get_by_role("button", name="Look up").click()
    expect(page.get_by_role("button", name="Drop entry")).to_be_disabled(timeout=SLOW)
    to_page(page, "Settings")
    open_tab(page, "You")
    page.get_by_text("Read-only", exact=True).first.click()
    settle(page)
    to_page(page, "Lookup")
    expect(page.get_by_role("button", name="Drop entry")).to_be_enabled(timeout=SLOW)
    assert cache.exists("t0", DEFAULT_MODEL)


def to_page(page: Page, name: str) -> None:
    """Opens a page of the same session, by the sidebar, which a phone unfolds first."""
    if folded := (unfold := page.get_by_test_id("stExpandSidebarButton")).is_visible():
        unfold.click()
    page.get_by_test_id("stSidebarNavLink").filter(has_text=name).click()
    expect(page.get_by_role("heading", level=1, name=name)).to_be_visible(timeout=SLOW)
    if folded:  # it lies over the page
        page.get_by_test_id("stSidebarCollapseButton").get_by_role("button").click()
    settle(page)


def test_a_hostile_change_on_record_is_text(page: Page) -> None:
    open_tab(page, "Audit log")
    expect(page.get_by_test_id("stDataFrame")).to_be_visible(timeout=SLOW)
    assert_inert(page)
    assert_no_sideways_scrolling(page)


def test_a_server_that_never_answers_does_not_hold_the_page_up(page: Page, tmp_path: Path) -> None:
    add_server(page, "gone", f"unix://{tmp_path}/none.sock", "")
    notice(page, "cannot be used")
    open_tab(page, "You")
    expect(page.get_by_text("Nobody is asked to log in here")).to_be_visible(timeout=SLOW)
