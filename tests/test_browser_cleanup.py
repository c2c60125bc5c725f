"""Cleanup in a real browser: entries removed once, others not at all, copies restored, on a desk and a phone."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

sync_api = pytest.importorskip("playwright.sync_api", reason="the extra dev brings playwright")

from accessible import found_wrong  # noqa: E402 - imports playwright itself
from browser import dashboard, launch, settle, stand_still, unfold  # noqa: E402 - likewise
from playwright.sync_api import Browser, Page, expect, sync_playwright  # noqa: E402
from removing import MODEL, item, left, stored  # noqa: E402
from servers import Server, running  # noqa: E402

from embedcache import EmbeddingsCache, audit  # noqa: E402

pytestmark = [pytest.mark.browser, pytest.mark.timeout(400)]

HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(2)><b>bold</b> **strong** [x](javascript:alert(3)) :red[r]"
SLOW = 60_000  # milliseconds; a machine that runs other tests beside these takes its time
PAUSED = 4_000  # milliseconds that the server keeps writers waiting: below the time after which they give up
NAME = "embedcache"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        launched = launch(playwright)
        expect.set_options(timeout=SLOW)
        yield launched
        launched.close()


@pytest.fixture(scope="module")
def started() -> Iterator[Server]:
    with running("valkey9") as server:
        yield server


@pytest.fixture(scope="module")
def address(started: Server, browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_DATA_HOME", str(tmp_path_factory.mktemp("data-home")))
        with dashboard(started.url, tmp_path_factory.mktemp("log") / "dashboard.log") as running_at:
            yield running_at


@pytest.fixture
def server(started: Server) -> Server:
    started.raw.flushall()
    return started


@pytest.fixture
def cache(server: Server) -> Iterator[EmbeddingsCache]:
    with EmbeddingsCache(NAME, redis_url=server.url, stats=False) as opened:
        yield opened


@pytest.fixture
def visit(browser: Browser, address: str) -> Iterator[Callable[..., Page]]:
    """Opens Cleanup as somebody new; no dialog of the browser's own may open on it."""
    contexts = []
    dialogs: list[str] = []

    def open_as_new(width: int = 1440, height: int = 900, scheme: str = "light", query: str = "") -> Page:
        context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme)
        contexts.append(context)
        context.set_default_timeout(SLOW)
        page = context.new_page()
        page.on("dialog", lambda dialog: (dialogs.append(dialog.message), dialog.dismiss()))
        page.goto(f"{address}/cleanup{query}")
        expect(page.get_by_role("heading", name="Report")).to_be_visible()
        settle(page)
        return page

    yield open_as_new
    for context in contexts:
        context.close()
    assert dialogs == []


def go_button(page: Page, words: str = "Remove") -> sync_api.Locator:
    return page.get_by_role("button", name=re.compile(rf"^{words} [\d,]+ "))


def text_field(page: Page) -> sync_api.Locator:
    return page.get_by_role("textbox", name="Text contains")


def choose_text(page: Page, text: str) -> None:
    text_field(page).fill(text)
    text_field(page).press("Enter")
    settle(page)


def plan(page: Page) -> None:
    page.get_by_role("button", name="Make a plan").click()
    expect(page.get_by_label("Type the name of the cache to confirm")).to_be_visible()
    settle(page)


def type_name(page: Page, name: str = NAME) -> None:
    field = page.get_by_label("Type the name of the cache to confirm")
    field.fill(name)
    field.press("Enter")
    settle(page)


def assert_inert(page: Page) -> None:
    settle(page)
    assert page.get_by_test_id("stMain").locator("script, img, b, a[href^=javascript]").count() == 0


def assert_fits(page: Page) -> None:
    """Nothing is wider than the window, and axe-core finds nothing wrong."""
    stand_still(page)
    assert list(found_wrong(page)) == []
    assert page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
    assert page.get_by_test_id("stMain").evaluate("main => main.scrollWidth <= main.clientWidth")


def pause_writers(server: Server) -> None:
    server.raw.execute_command("CLIENT", "PAUSE", PAUSED, "WRITE")


def go_on(server: Server) -> None:
    server.raw.execute_command("CLIENT", "UNPAUSE")


def removals(cache: EmbeddingsCache) -> list[audit.AuditRecord]:
    return [each for each in audit.read(cache.connection, NAME) if each.action == "remove"]


def test_a_double_click_removes_once_and_what_came_later_stays(
    visit: Callable[..., Page], cache: EmbeddingsCache, server: Server
) -> None:
    stored(cache, 700)
    page = visit()
    plan(page)
    later = cache.set("stored after the plan", MODEL, [1.0])
    expect(go_button(page)).to_be_disabled()
    type_name(page, "embedcach")
    expect(page.get_by_text("That is not its name.")).to_be_visible()
    expect(go_button(page)).to_be_disabled()
    type_name(page)
    expect(go_button(page)).to_be_enabled()
    go_button(page).click(click_count=5, delay=20)
    expect(page.get_by_text("Removed 700 entries of")).to_be_visible()
    expect(page.get_by_text("Counted again: none of the plan's keys are there.")).to_be_visible()
    settle(page)
    expect(page.get_by_text("Removed 700 entries of")).to_be_visible()
    assert left(server, NAME) == {later}
    assert [each.count for each in removals(cache)] == [700]


def test_clearing_by_a_double_click_clears_once(visit: Callable[..., Page], cache: EmbeddingsCache) -> None:
    stored(cache, 3)
    page = visit()
    page.get_by_text("Clear the cache", exact=True).click()
    plan(page)
    type_name(page)
    button = page.get_by_role("button", name="Remove all 3 entries")
    expect(button).to_be_enabled()
    button.click(click_count=5, delay=20)
    expect(page.get_by_text("Counted again: none of the plan's keys are there.")).to_be_visible()
    settle(page)
    assert len(audit.read(cache.connection, NAME)) == 1
    expect(page.get_by_label("Type the name of the cache to confirm")).to_have_count(0)


def test_cancelled_half_way(visit: Callable[..., Page], cache: EmbeddingsCache, server: Server) -> None:
    stored(cache, 700)
    page = visit()
    plan(page)
    type_name(page)
    pause_writers(server)
    go_button(page).click()
    cancel = page.get_by_role("button", name="Cancel", exact=True)
    cancel.click()
    expect(cancel).to_have_count(0)
    go_on(server)
    expect(page.get_by_text("It was cancelled half-way.")).to_be_visible()
    rest = len(left(server, NAME))
    assert rest >= 450
    expect(page.get_by_text(f"Counted again: {rest} of the plan's keys are there.")).to_be_visible()
    expect(page.get_by_text("It is in the audit log.")).to_be_visible()


def test_two_at_once_see_their_own(visit: Callable[..., Page], cache: EmbeddingsCache, server: Server) -> None:
    stored(cache, 300)
    cache.mset([item(f"others {n}") for n in range(300)])
    mine, theirs = visit(), visit()
    for page, text in ((mine, "text"), (theirs, "others")):
        choose_text(page, text)
        plan(page)
        type_name(page)
    pause_writers(server)
    go_button(mine).click()
    expect(mine.get_by_role("button", name="Cancel", exact=True)).to_be_visible()
    mine.get_by_test_id("stSidebarNav").get_by_role("link", name="Settings").click()
    expect(mine.get_by_role("heading", level=1, name="Settings")).to_be_visible()
    expect(theirs.get_by_role("button", name="Cancel", exact=True)).to_have_count(0)
    expect(go_button(theirs)).to_be_enabled()
    go_button(theirs).click()
    go_on(server)
    mine.get_by_test_id("stSidebarNav").get_by_role("link", name="Cleanup").click()
    for page, text in ((mine, "text"), (theirs, "others")):
        expect(page.get_by_text("Removed 300 entries of")).to_be_visible()
        expect(page.get_by_text(f"What was chosen: text contains “{text}”.")).to_be_visible()
    assert left(server, NAME) == set()
    assert sorted(each.count for each in removals(cache)) == [300, 300]


@pytest.mark.parametrize(("width", "height", "scheme"), [(1440, 900, "light"), (390, 844, "dark")])
def test_hostile_texts_are_removed_and_restored_from_a_copy(
    width: int, height: int, scheme: str, visit: Callable[..., Page], cache: EmbeddingsCache, tmp_path: Path
) -> None:
    key = cache.set(HOSTILE, HOSTILE, [0.5, 1.0], {HOSTILE: HOSTILE})
    page = visit(width, height, scheme)
    choose_text(page, "<SCRIPT>")
    plan(page)
    expect(page.get_by_role("button", name="Remove 1 entry")).to_be_disabled()
    assert_inert(page)
    assert_fits(page)
    unfold(page, "Keep a copy first")
    page.get_by_role("button", name="Write the copy").click()
    with page.expect_download() as download:
        page.get_by_role("button", name="Download it").click()
    copy = tmp_path / download.value.suggested_filename
    download.value.save_as(copy)
    type_name(page)
    go_button(page).click()
    expect(page.get_by_text("Removed 1 entry of")).to_be_visible()
    assert not cache.exists_by_key(key)
    assert_inert(page)
    assert_fits(page)

    page.get_by_text("Restore a copy", exact=True).click()
    page.get_by_test_id("stFileUploaderDropzoneInput").set_input_files(
        {"name": f"{HOSTILE.replace('/', '')}.parquet", "mimeType": "text/html", "buffer": copy.read_bytes()}
    )
    expect(page.get_by_text("Entries keep their ages")).to_be_visible()
    assert_inert(page)
    assert_fits(page)
    go_button(page, "Restore").click(click_count=3, delay=20)
    expect(page.get_by_text("Restored 1 entry into")).to_be_visible()
    entry = cache.get_by_key(key)
    assert (entry["text"], entry["metadata"]) == (HOSTILE, {HOSTILE: HOSTILE})
    settle(page)
    assert [each.action for each in audit.read(cache.connection, NAME)] == ["restore", "remove"]


def test_another_choice_switches_the_button_off(visit: Callable[..., Page], cache: EmbeddingsCache) -> None:
    stored(cache, 5)
    page = visit()
    plan(page)
    type_name(page)
    expect(go_button(page)).to_be_enabled()
    choose_text(page, "text 1")
    expect(page.get_by_text("This plan is out of date:")).to_be_visible()
    expect(go_button(page)).to_be_disabled()


def test_a_server_that_goes_while_it_is_cleaned_up(
    browser: Browser, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    with (
        running("valkey9") as server,
        dashboard(server.url, tmp_path / "log") as at,
        EmbeddingsCache(NAME, redis_url=server.url, stats=False) as cache,
        browser.new_context() as context,
    ):
        stored(cache, 700)
        page = context.new_page()
        page.set_default_timeout(SLOW)
        page.goto(f"{at}/cleanup")
        choose_text(page, "text")
        plan(page)
        type_name(page)
        pause_writers(server)
        go_button(page).click()
        expect(page.get_by_role("button", name="Cancel", exact=True)).to_be_visible()
        server.stop()
        expect(page.get_by_text("does not answer").first).to_be_visible()
        expect(page.get_by_test_id("stException")).to_have_count(0)
        server.start()
        expect(page.get_by_role("button", name="Make a plan")).to_be_enabled()
        expect(text_field(page)).to_have_value("text")
