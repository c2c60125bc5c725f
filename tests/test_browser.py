"""The dashboard as a user meets it: a real Chromium, a real server, the real model."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

sync_api = pytest.importorskip("playwright.sync_api", reason="the extra dev brings playwright")

from browser import dashboard, settle  # noqa: E402 - imports playwright itself
from playwright.sync_api import Browser, Page, expect  # noqa: E402

from embedcache import EmbeddingsCache  # noqa: E402

pytestmark = [pytest.mark.browser, pytest.mark.model]

HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(2)><b>bold</b> **strong** [x](javascript:alert(3)) :red[r]"


@pytest.fixture(scope="module")
def server_url(tmp_path_factory: pytest.TempPathFactory) -> str:
    return f"embedded://{tmp_path_factory.mktemp('server')}/data"


@pytest.fixture(scope="module")
def address(browser: Browser, server_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with dashboard(server_url, tmp_path_factory.mktemp("log") / "dashboard.log") as running:
        yield running


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A page on which no dialog of the browser's own ever opened, and nothing went wrong in the console."""
    context = browser.new_context(viewport={"width": 1440, "height": 900}, timezone_id="Europe/Berlin")
    context.set_default_timeout(15_000)
    opened = context.new_page()
    dialogs: list[str] = []
    opened.on("dialog", lambda dialog: (dialogs.append(dialog.message), dialog.dismiss()))
    yield opened
    context.close()
    assert dialogs == []


def metric(page: Page, label: str) -> "sync_api.Locator":
    box = page.get_by_test_id("stMetric").filter(has=page.get_by_text(label, exact=True))
    return box.get_by_test_id("stMetricValue")


def embed(page: Page, text: str) -> None:
    page.get_by_label("Text", exact=True).fill(text)
    page.get_by_role("button", name="Embed").click()


def look_up(page: Page, text: str) -> None:
    page.get_by_label("Text", exact=True).fill(text)
    page.get_by_role("button", name="Look up").click()


def go(page: Page, name: str) -> None:
    page.get_by_test_id("stSidebarNav").get_by_role("link", name=name).click()
    expect(page.get_by_role("heading", level=1, name=name)).to_be_visible()
    settle(page)


def test_a_texts_life(page: Page, address: str) -> None:
    text = "What is machine learning?"
    page.goto(address)
    expect(page.get_by_text("Nothing is cached here yet")).to_be_visible()
    page.get_by_role("link", name="Embed a first text").click()

    embed(page, text)
    expect(metric(page, "Misses")).to_have_text("1", timeout=60_000)
    expect(page.locator(".js-plotly-plot")).to_be_visible()
    page.get_by_role("button", name="Embed").click()
    expect(metric(page, "Hits")).to_have_text("1")
    expect(metric(page, "Misses")).to_have_text("0")

    page.get_by_role("link", name="Open in Lookup").click()
    expect(metric(page, "Expires")).to_have_text("never")
    expect(metric(page, "Dimension")).to_have_text("384")
    expect(page.locator(".js-plotly-plot")).to_be_visible()
    with page.expect_download() as download:
        page.get_by_role("button", name=".npy").click()
    assert re.fullmatch(r"vector-[0-9a-f]{12}\.npy", download.value.suggested_filename)

    page.get_by_label("Time to live, in seconds").fill("7200")
    page.get_by_label("Time to live, in seconds").press("Enter")
    expect(page.get_by_text("That is 2 h.")).to_be_visible()
    page.get_by_role("button", name="Set TTL").click()
    expect(metric(page, "Own TTL")).to_have_text("2 h")

    page.get_by_role("button", name="Drop entry").click()
    page.get_by_role("dialog").get_by_role("button", name="Drop it").dblclick()
    expect(page.get_by_text("Not in the cache")).to_be_visible()
    expect(page.get_by_role("dialog")).to_have_count(0)

    page.get_by_text("By text", exact=True).click()
    look_up(page, text)
    expect(page.get_by_text("never stored")).to_be_visible()


def test_a_strangers_text_stays_text(page: Page, address: str, server_url: str) -> None:
    with EmbeddingsCache(redis_url=server_url) as cache:
        key = cache.set(HOSTILE, HOSTILE, [0.5, -0.5], {HOSTILE: [HOSTILE]})
    page.goto(f"{address}/lookup?key={key}")
    expect(page.get_by_test_id("stCode").first).to_have_text(HOSTILE)
    _assert_inert(page)
    page.get_by_role("button", name="Drop entry").click()
    expect(page.get_by_role("dialog").get_by_test_id("stCode")).to_contain_text("<script>")
    _assert_inert(page)
    page.get_by_role("button", name="Keep it").click()
    expect(page.get_by_role("dialog")).to_have_count(0)

    go(page, "Overview")
    page.get_by_role("button", name="Refresh").click()
    expect(page.locator(".js-plotly-plot").filter(has_text="<script>")).to_have_count(2)
    _assert_inert(page)

    go(page, "Embed")
    embed(page, HOSTILE)
    expect(metric(page, "Misses")).to_have_text("1", timeout=60_000)
    _assert_inert(page)


def _assert_inert(page: Page) -> None:
    settle(page)
    main = page.get_by_test_id("stMain")
    assert main.locator("script, img, b, a[href^=javascript]").count() == 0
    assert main.locator("strong", has_text="strong").count() == 0


def test_the_overview_has_a_name_to_type(browser: Browser, tmp_path: Path) -> None:
    with dashboard(f"embedded://{tmp_path}/data", tmp_path / "log") as address:
        page = browser.new_page()
        page.goto(f"{address}/overview?cache=mine")
        expect(page.get_by_role("heading", level=1, name="Overview")).to_be_visible()
        expect(page.get_by_test_id("stSidebar").get_by_role("combobox")).to_have_value("mine")
        settle(page)
        expect(page.get_by_text("Page not found")).to_have_count(0)
        assert page.url == f"{address}/?cache=mine"
        expect(page.get_by_test_id("stSidebarNav").get_by_role("link", name="Overview")).to_have_count(1)
        page.close()


@pytest.mark.parametrize("path", ["embed", "lookup"])
def test_a_link_to_a_page_brings_the_frame(path: str, browser: Browser, tmp_path: Path) -> None:
    """The first request after a start names a page: it must come with its sidebar all the same."""
    with dashboard(f"embedded://{tmp_path}/data", tmp_path / "log") as address:
        page = browser.new_page()
        page.goto(f"{address}/{path}")
        expect(page.get_by_test_id("stSidebarNav").get_by_text("Watch")).to_be_visible()
        expect(page.get_by_role("heading", level=1, name=path.capitalize())).to_be_visible()
        page.close()
