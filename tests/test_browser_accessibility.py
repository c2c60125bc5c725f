"""Every page, dialog and result checked by axe-core for WCAG 2 A and AA: names, contrast in both themes, order.

So that each page is opened once only, the same tests look at whether it fits the screen.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

sync_api = pytest.importorskip("playwright.sync_api", reason="the extra dev brings playwright")

from accessible import found_wrong, misshapen, visit  # noqa: E402 - imports playwright itself
from browser import ROOT, TICK_X, click_row, dashboard, settle, stand_still  # noqa: E402
from playwright.sync_api import Browser, Page, expect  # noqa: E402
from servers import Server, running  # noqa: E402

from embedcache import EmbeddingsCache  # noqa: E402

pytestmark = [pytest.mark.browser, pytest.mark.model, pytest.mark.timeout(600)]

PAGES = list((ROOT / "pages").glob("*.py"))
LOOKS = ["desk, light", "desk, dark", "phone, dark"]
SLOW = 60_000  # milliseconds; a machine that runs other tests beside these takes its time


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with running("valkey9") as started:
        yield started


@pytest.fixture(scope="module")
def address(browser: Browser, server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with dashboard(server.url, tmp_path_factory.mktemp("log") / "dashboard.log") as started:
        yield started


@pytest.fixture
def filled(server: Server) -> str:
    """A cache with entries, hits and misses; returns the key of one entry."""
    server.raw.flushall()
    with EmbeddingsCache(redis_url=server.url) as cache:
        models = ("a/model", "another/model")
        keys = [
            cache.set(
                f"text {number}",
                models[number // 100 % 2],
                [1.0, float(number), 0.5],
                {"number": number},
                ttl=number or None,
            )
            for number in range(0, 5_000, 100)
        ]
        cache.mget([f"text {number}" for number in range(0, 1_000, 50)], "a/model")
        cache.flush_stats()
    return keys[0]


@pytest.fixture(params=LOOKS)
def page(browser: Browser, request: pytest.FixtureRequest) -> Iterator[Page]:
    size, scheme = request.param.split(", ")
    viewport = {"width": 1440, "height": 900} if size == "desk" else {"width": 390, "height": 844}
    context = browser.new_context(viewport=viewport, color_scheme=scheme)
    context.set_default_timeout(SLOW)
    yield context.new_page()
    context.close()


def addresses(page: Page, address: str) -> list[str]:
    """Where the navigation leads."""
    visit(page, address)
    links = page.get_by_test_id("stSidebarNav").get_by_role("link", include_hidden=True)  # a phone folds it away
    found = [str(link.get_attribute("href")) for link in links.all()]
    assert len(found) >= len(PAGES)
    return found


def check(page: Page, links: list[str]) -> None:
    wrong: list[str] = []
    for link in links:
        visit(page, link)
        wrong += [*found_wrong(page), *misshapen(page)]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("page", [*LOOKS, "phone, light"], indirect=True)
def test_pages_with_data(page: Page, address: str, filled: str) -> None:
    check(page, [*addresses(page, address), f"{address}/lookup?key={filled}"])


def test_empty_pages(page: Page, address: str, server: Server) -> None:
    server.raw.flushall()
    check(page, addresses(page, address))


# ------------------------------------------------------------------------------------------------ dialogs and results


def check_now(page: Page) -> None:
    """The page as it stands."""
    stand_still(page)
    wrong = list(found_wrong(page))
    assert not wrong, "\n".join(wrong)


def press(page: Page, name: str) -> None:
    page.get_by_test_id("stMain").get_by_role("button", name=name, exact=True).first.click()


def test_dialogs_of_an_entry(page: Page, address: str, filled: str) -> None:
    visit(page, f"{address}/lookup?key={filled}")
    for opener, closer in (("Edit metadata", "Cancel"), ("Drop entry", "Keep it")):
        press(page, opener)
        expect(page.get_by_role("dialog")).to_be_visible()
        check_now(page)
        page.get_by_role("dialog").get_by_role("button", name=closer).click()
        expect(page.get_by_role("dialog")).to_have_count(0)


def test_dialogs_of_ticked_entries(page: Page, address: str, filled: str) -> None:
    visit(page, f"{address}/browse")
    expect(page.get_by_text("as of")).to_be_visible()
    click_row(page, TICK_X, 0)
    expect(page.get_by_text("1 ticked")).to_be_visible()
    for opener in ("Set TTL", "Drop"):
        press(page, opener)
        expect(page.get_by_role("dialog")).to_be_visible()
        check_now(page)
        page.get_by_role("dialog").get_by_role("button", name="Close").click()
        expect(page.get_by_role("dialog")).to_have_count(0)


def test_a_plan_and_its_confirmation(page: Page, address: str, filled: str) -> None:
    visit(page, f"{address}/cleanup")
    press(page, "Make a plan")
    field = page.get_by_label("Type the name of the cache to confirm")
    expect(field).to_be_visible()
    check_now(page)
    field.fill("embedcache")
    field.press("Enter")
    expect(page.get_by_role("button", name="Remove 50 entries")).to_be_enabled()
    check_now(page)


def test_a_miss_and_what_is_nearest(page: Page, address: str, filled: str) -> None:
    visit(page, f"{address}/lookup")
    page.get_by_label("Text", exact=True).fill("text 1")
    model = page.get_by_role("combobox", name="Model")
    model.fill("a/model")
    model.press("Enter")
    press(page, "Look up")
    expect(page.get_by_text("How much of both texts is alike")).to_be_visible()
    check_now(page)


def test_what_was_embedded(page: Page, address: str, filled: str) -> None:
    visit(page, f"{address}/embed")
    page.get_by_text("Many lines", exact=True).click()
    page.get_by_label("Texts, one per line").fill("one text\nanother text\na third")
    press(page, "Embed")
    expect(page.locator(".js-plotly-plot")).to_have_count(2)
    check_now(page)


def test_what_was_measured(page: Page, address: str, filled: str) -> None:
    visit(page, f"{address}/benchmark")
    page.get_by_test_id("stCheckbox").get_by_text("Without and with the cache", exact=True).click()
    settle(page)
    iterations = page.get_by_label("Iterations", exact=True)
    iterations.fill("5")
    iterations.press("Enter")
    settle(page)
    press(page, "Run the benchmark")
    expect(page.get_by_role("heading", name="Saved runs")).to_be_visible()
    check_now(page)


def test_tabs_of_settings(page: Page, address: str, filled: str) -> None:
    visit(page, f"{address}/settings")
    for tab in ("Caches", "Token prices", "Audit log", "You"):
        page.get_by_role("tab", name=tab).click()
        check_now(page)
