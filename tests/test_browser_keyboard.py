"""The dashboard by the keyboard alone: Tab, Enter, Space, arrows and letters, and where the focus is can be seen."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

sync_api = pytest.importorskip("playwright.sync_api", reason="the extra dev brings playwright")

from browser import dashboard, settle, stand_still  # noqa: E402 - imports playwright itself
from playwright.sync_api import Browser, Locator, Page, expect  # noqa: E402
from servers import Server, running  # noqa: E402

from embedcache import EmbeddingsCache  # noqa: E402

pytestmark = [pytest.mark.browser, pytest.mark.timeout(300)]

SLOW = 60_000  # milliseconds; a machine that runs other tests beside these takes its time
MOST_STOPS = 80  # on any page
TEXT, MODEL = "What is machine learning?", "m"

LOOK = """element => {
    const seen = element.type === "radio" ? element.closest("label") : element;
    return [seen, seen.parentElement].map(box => {
        const style = getComputedStyle(box);
        return [style.outline, style.boxShadow, style.borderColor, style.backgroundColor].join();
    }).join();
}"""
"""How a control and the box around it are drawn, as far as a focus changes it. Of a radio button one sees the label."""
HAS_FOCUS = "element => element === document.activeElement"


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with running("valkey9") as started:
        yield started


@pytest.fixture(scope="module")
def address(browser: Browser, server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with dashboard(server.url, tmp_path_factory.mktemp("log") / "dashboard.log") as started:
        yield started


@pytest.fixture
def cache(server: Server) -> Iterator[EmbeddingsCache]:
    """Two entries of one model."""
    server.raw.flushall()
    with EmbeddingsCache(redis_url=server.url, stats=False) as opened:
        opened.set(TEXT, MODEL, [0.5, 1.0])
        opened.set("another", MODEL, [1.0, 0.5])
        yield opened


@pytest.fixture(params=["light", "dark"])
def page(request: pytest.FixtureRequest, browser: Browser, address: str, cache: EmbeddingsCache) -> Iterator[Page]:
    """The page Lookup, freshly opened."""
    context = browser.new_context(viewport={"width": 1440, "height": 900}, color_scheme=request.param)
    context.set_default_timeout(SLOW)
    opened = context.new_page()
    opened.goto(f"{address}/lookup")
    expect(opened.get_by_role("button", name="Look up")).to_be_visible()
    stand_still(opened)
    yield opened
    context.close()


def tab_to(page: Page, control: Locator) -> None:
    """Presses Tab until a control has the focus, and waits until it is drawn otherwise than without."""
    expect(control).to_be_visible()
    stand_still(page)
    if control.evaluate(HAS_FOCUS):
        page.keyboard.press("Shift+Tab")
    before = control.evaluate(LOOK)
    for _ in range(MOST_STOPS):
        page.keyboard.press("Tab")
        if control.evaluate(HAS_FOCUS):
            break
    else:
        pytest.fail(f"{control} has no focus after {MOST_STOPS} times Tab")
    page.wait_for_function(
        f"([element, before]) => ({LOOK})(element) !== before", arg=[control.element_handle(), before]
    )


def button(page: Page, name: str) -> Locator:
    return page.get_by_role("button", name=name)


def look_up(page: Page) -> None:
    tab_to(page, page.get_by_label("Text", exact=True))
    page.keyboard.type(TEXT)
    tab_to(page, button(page, "Look up"))
    page.keyboard.press("Enter")
    expect(page.get_by_test_id("stCode").first).to_have_text(TEXT)


def test_an_entry_is_looked_up_kept_and_dropped(page: Page, cache: EmbeddingsCache) -> None:
    look_up(page)
    dialog = page.get_by_role("dialog")
    for key in ("Enter", "Space"):
        tab_to(page, button(page, "Drop entry"))
        page.keyboard.press(key)
        tab_to(page, button(page, "Keep it"))
        page.keyboard.press(key)
        expect(dialog).to_have_count(0)
        settle(page)
        assert cache.exists(TEXT, MODEL)
    tab_to(page, button(page, "Drop entry"))
    page.keyboard.press("Enter")
    expect(dialog).to_be_visible()
    page.keyboard.press("Escape")
    expect(dialog).to_have_count(0)
    settle(page)
    assert cache.exists(TEXT, MODEL)

    tab_to(page, button(page, "Drop entry"))
    page.keyboard.press("Enter")
    tab_to(page, button(page, "Drop it"))
    page.keyboard.press("Enter")
    expect(page.get_by_text("Not in the cache")).to_be_visible()
    assert cache.mexists([TEXT, "another"], MODEL) == [False, True]


def test_the_focus_stays_in_a_dialog(page: Page) -> None:
    look_up(page)
    tab_to(page, button(page, "Drop entry"))
    page.keyboard.press("Enter")
    dialog = page.get_by_role("dialog")
    expect(dialog).to_be_visible()
    for _ in range(8):  # it has four stops
        page.keyboard.press("Tab")
        assert dialog.evaluate("dialog => dialog.contains(document.activeElement)")


def test_arrows_choose_to_look_up_by_key(page: Page, cache: EmbeddingsCache) -> None:
    ways = page.get_by_test_id("stRadio").get_by_role("radio")
    tab_to(page, ways.first)
    for way in (1, 2):
        page.keyboard.press("ArrowRight")
        expect(ways.nth(way)).to_be_checked()
        settle(page)
    tab_to(page, page.get_by_label("Key", exact=True))
    page.keyboard.type(cache.key_for(TEXT, MODEL))
    page.keyboard.press("Enter")
    expect(page.get_by_test_id("stCode").first).to_have_text(TEXT)


def test_enter_on_a_link_opens_its_page(page: Page) -> None:
    for name in ("Browse", "Cleanup", "Lookup"):
        tab_to(page, page.get_by_test_id("stSidebarNav").get_by_role("link", name=name))
        page.keyboard.press("Enter")
        expect(page.get_by_role("heading", level=1, name=name)).to_be_visible()
