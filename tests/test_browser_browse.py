"""The page Browse in a real Chromium: rows opened, ticked and dropped, links reloaded, on a desk and a phone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

sync_api = pytest.importorskip("playwright.sync_api", reason="the extra dev brings playwright")

from browser import (  # noqa: E402 - imports playwright itself
    OPEN_X,
    TICK_X,
    assert_inert,
    assert_no_sideways_scrolling,
    click_row,
    dashboard,
    settle,
)
from playwright.sync_api import Browser, Page, expect  # noqa: E402

from embedcache import EmbeddingsCache, transfer  # noqa: E402

pytestmark = [pytest.mark.browser, pytest.mark.timeout(600)]

HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(2)><b>bold</b> **strong** [x](javascript:alert(3)) :red[r]"
PHONE = {"width": 390, "height": 844}
DESK = {"width": 1440, "height": 900}
PATIENCE = 60_000


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddingsCache]:
    with EmbeddingsCache(redis_url=f"embedded://{tmp_path_factory.mktemp('server')}/data", stats=False) as opened:
        yield opened


@pytest.fixture(scope="module")
def address(server: EmbeddingsCache, browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with dashboard(server.connection.address, tmp_path_factory.mktemp("log") / "dashboard.log") as running:
        yield running


@pytest.fixture
def cache(server: EmbeddingsCache, request: pytest.FixtureRequest) -> Iterator[EmbeddingsCache]:
    """A cache of this test's own, with hostile entries and one to a row: "… 0" is the oldest."""
    name = f"c{abs(hash(request.node.name))}"
    with EmbeddingsCache(name, redis_url=server.connection.address, stats=False) as opened:
        for number in range(60):
            vector = np.random.default_rng(number).normal(size=384)
            opened.set(f"{HOSTILE} {number}", HOSTILE, vector, {HOSTILE: number})
        yield opened


@pytest.fixture(params=["desk, light", "phone, dark"])
def page(request: pytest.FixtureRequest, browser: Browser) -> Iterator[Page]:
    """A page on which no dialog of the browser's own ever opened."""
    small = request.param.startswith("phone")
    context = browser.new_context(viewport=PHONE if small else DESK, color_scheme="dark" if small else "light")
    context.set_default_timeout(PATIENCE)
    opened = context.new_page()
    dialogs: list[str] = []
    opened.on("dialog", lambda dialog: (dialogs.append(dialog.message), dialog.dismiss()))
    yield opened
    context.close()
    assert dialogs == []


def open_browse(page: Page, address: str, cache: EmbeddingsCache, query: str = "") -> None:
    page.goto(f"{address}/browse?cache={cache.name}{query}")
    expect(page.get_by_text("as of")).to_be_visible(timeout=PATIENCE)
    settle(page)


def test_a_row_opens_its_entry_and_the_link_opens_it_again(page: Page, address: str, cache: EmbeddingsCache) -> None:
    open_browse(page, address, cache, "&sort=inserted_at")
    expect(page.get_by_text("1\N{EN DASH}50 of 60")).to_be_visible()
    page.get_by_role("button", name="Next", exact=True).click()
    expect(page.get_by_text("51\N{EN DASH}60 of 60")).to_be_visible(timeout=PATIENCE)
    click_row(page, OPEN_X, 2)
    expect(page.get_by_test_id("stCode").first).to_have_text(f"{HOSTILE} 52", timeout=PATIENCE)
    assert_inert(page)
    assert_no_sideways_scrolling(page)
    key = cache.key_for(f"{HOSTILE} 52", HOSTILE)
    assert all(part in page.url for part in (f"cache={cache.name}", "page=2", "sort=inserted_at", key[-64:]))
    page.reload()
    expect(page.get_by_test_id("stCode").first).to_have_text(f"{HOSTILE} 52", timeout=PATIENCE)
    expect(page.get_by_text("51\N{EN DASH}60 of 60")).to_be_visible(timeout=PATIENCE)
    page.get_by_role("button", name="Close").click()
    expect(page.get_by_test_id("stCode")).to_have_count(0, timeout=PATIENCE)


def test_ticked_entries_are_dropped_once(page: Page, address: str, cache: EmbeddingsCache) -> None:
    open_browse(page, address, cache)
    for row in (0, 1):
        click_row(page, TICK_X, row)
    expect(page.get_by_text("2 ticked")).to_be_visible(timeout=PATIENCE)
    page.get_by_role("button", name="Drop", exact=True).click()
    dialog = page.get_by_role("dialog")
    expect(dialog.get_by_test_id("stCode")).to_contain_text(HOSTILE[:30], timeout=PATIENCE)
    assert dialog.locator("script, img, b").count() == 0
    dialog.get_by_role("button", name="Drop (2)").dblclick()
    expect(page.get_by_text("Dropped 2 entries")).to_be_visible(timeout=PATIENCE)
    expect(page.get_by_role("dialog")).to_have_count(0)
    expect(page.get_by_text("0 ticked")).to_be_visible()
    there = cache.mexists([f"{HOSTILE} {number}" for number in range(60)], HOSTILE)
    assert there == [True] * 58 + [False] * 2
    assert_no_sideways_scrolling(page)


def test_a_ttl_typed_in_the_dialog_is_set(page: Page, address: str, cache: EmbeddingsCache) -> None:
    open_browse(page, address, cache)
    click_row(page, TICK_X, 0)
    expect(page.get_by_text("1 ticked")).to_be_visible(timeout=PATIENCE)
    page.get_by_role("button", name="Set TTL", exact=True).click()
    dialog = page.get_by_role("dialog")
    field = dialog.get_by_role("spinbutton")
    field.fill("7200")
    field.press("Enter")
    expect(dialog.get_by_text("That is 2 h.")).to_be_visible(timeout=PATIENCE)
    dialog.get_by_role("button", name="Set TTL (1)").click()
    expect(page.get_by_text("1 entry now expires in 2 h.")).to_be_visible(timeout=PATIENCE)
    ttl = cache.remaining_ttl(cache.key_for(f"{HOSTILE} 59", HOSTILE))
    assert isinstance(ttl, int)
    assert 7_000 < ttl <= 7_200


def test_ticked_entries_are_exported(page: Page, address: str, cache: EmbeddingsCache, tmp_path: Path) -> None:
    open_browse(page, address, cache)
    for row in (0, 2):
        click_row(page, TICK_X, row)
    expect(page.get_by_text("2 ticked")).to_be_visible(timeout=PATIENCE)
    page.get_by_role("button", name="Export").click()
    for kind in ("parquet", "csv"):
        with page.expect_download(timeout=PATIENCE) as download:
            page.get_by_role("button", name=f".{kind}").click()
        download.value.save_as(tmp_path / f"entries.{kind}")
    described = transfer.describe_file(tmp_path / "entries.parquet")
    assert (described.entries, described.cache_name) == (2, cache.name)
    assert (tmp_path / "entries.csv").read_text().count(f"{HOSTILE} 5") == 2


def test_words_are_found_and_the_filter_is_in_the_link(page: Page, address: str, cache: EmbeddingsCache) -> None:
    open_browse(page, address, cache)
    field = page.get_by_role("textbox", name="Text contains")
    field.fill("r] 4")
    field.press("Enter")
    expect(page.get_by_text("1\N{EN DASH}11 of 11")).to_be_visible(timeout=PATIENCE)
    settle(page)  # the address is written last
    page.reload()
    expect(page.get_by_text("1\N{EN DASH}11 of 11")).to_be_visible(timeout=PATIENCE)
    expect(field).to_have_value("r] 4")
    page.go_back()
    expect(page.get_by_text("1\N{EN DASH}50 of 60")).to_be_visible(timeout=PATIENCE)
    assert_inert(page)


def test_no_table_offers_a_csv_whose_formulas_a_spreadsheet_would_run(
    page: Page, address: str, cache: EmbeddingsCache
) -> None:
    open_browse(page, address, cache)
    page.get_by_test_id("stDataFrame").hover()
    toolbar = page.get_by_test_id("stElementToolbar").filter(visible=True)
    expect(toolbar.get_by_role("button").first).to_be_visible()
    labels = [str(button.get_attribute("aria-label")) for button in toolbar.get_by_role("button").all()]
    assert any(label.startswith("Search") for label in labels)
    assert not any(label.startswith("Download") for label in labels)
