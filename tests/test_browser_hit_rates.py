"""The page Hit rates as a user meets it: drawn, refreshed by itself, on a phone, in the dark, without its server."""

from collections.abc import Iterator
from typing import Any

import pytest

sync_api = pytest.importorskip("playwright.sync_api", reason="the extra dev brings playwright")

from browser import dashboard, settle  # noqa: E402 - imports playwright itself
from playwright.sync_api import Browser, Page, expect  # noqa: E402
from servers import Server, running  # noqa: E402

from embedcache import EmbeddingsCache  # noqa: E402
from pages.ui import charts  # noqa: E402

pytestmark = pytest.mark.browser

FIGURES = 5
REFRESHED = 30_000  # milliseconds within which a page that refreshes every 5 s has done so, on a slow machine too

# Each height that the page has in a frame from now on: where there is but one, nothing jumped.
WATCH = """() => {
    const heights = window.heights = [];
    const look = () => {
        const height = document.querySelector('[data-testid="stMain"]').scrollHeight;
        if (!heights.includes(height)) heights.push(height);
        requestAnimationFrame(look);
    };
    look();
}"""


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
    """A cache in which 3 of 4 texts were found, each worth 2 s; one of the lookups counts as slow."""
    server.raw.flushall()
    with EmbeddingsCache(redis_url=server.url, slow_lookup_seconds=0) as slow:
        look_up(slow, "never kept")
    with EmbeddingsCache(redis_url=server.url, slow_lookup_seconds=None) as opened:
        opened.set("kept", "a/model", [1.0, 2.0])
        look_up(opened, "kept", "kept", "kept")
        opened.record_computation("a/model", texts=1, seconds=2, tokens=10)
        opened.flush_stats()
        yield opened


@pytest.fixture
def open_rates(browser: Browser, address: str) -> Iterator[Any]:
    contexts = []

    def open_page(width: int = 1440, height: int = 900, scheme: str = "light") -> Page:
        context = browser.new_context(
            viewport={"width": width, "height": height}, color_scheme=scheme, timezone_id="Europe/Berlin"
        )
        contexts.append(context)
        context.set_default_timeout(15_000)
        page = context.new_page()
        page.goto(f"{address}/hit_rates")
        expect(page.get_by_role("heading", level=1, name="Hit rates")).to_be_visible(timeout=30_000)
        return page

    yield open_page
    for context in contexts:
        context.close()


def look_up(cache: EmbeddingsCache, *texts: str) -> None:
    for text in texts:
        cache.get(text, "a/model")
    cache.flush_stats()


def metric(page: Page, label: str) -> "sync_api.Locator":
    box = page.get_by_test_id("stMetric").filter(has=page.get_by_text(label, exact=True))
    return box.get_by_test_id("stMetricValue")


def test_the_page_draws(open_rates: Any, cache: EmbeddingsCache) -> None:
    page = open_rates()
    expect(metric(page, "Hit rate")).to_have_text("75.0%")
    expect(metric(page, "Texts looked up")).to_have_text("4")
    expect(metric(page, "Time saved")).to_have_text("6 s")
    expect(page.locator(".js-plotly-plot .main-svg").first).to_be_visible()
    expect(page.locator(".js-plotly-plot")).to_have_count(FIGURES)
    expect(page.get_by_text("time (Europe/Berlin)")).to_have_count(FIGURES - 1)
    expect(page.get_by_test_id("stDataFrame").first).to_be_visible()
    page.get_by_test_id("stRadio").get_by_text("30 d", exact=True).click()
    expect(page.get_by_text("day (UTC)")).to_have_count(FIGURES - 1)
    expect(metric(page, "Texts looked up")).to_have_text("4")
    expect(page.get_by_test_id("stException")).to_have_count(0)


def test_new_counts_come_by_themselves(open_rates: Any, cache: EmbeddingsCache) -> None:
    page = open_rates()
    expect(metric(page, "Texts looked up")).to_have_text("4")
    expect(page.locator(".js-plotly-plot:has(.trace)")).to_have_count(FIGURES)
    settle(page)
    page.evaluate(WATCH)
    look_up(cache, "kept", "kept")
    expect(metric(page, "Texts looked up")).to_have_text("6", timeout=REFRESHED)
    expect(metric(page, "Hit rate")).to_have_text("83.3%")
    settle(page)
    expect(page.locator(".js-plotly-plot:has(.trace)")).to_have_count(FIGURES)
    heights = page.evaluate("() => window.heights")  # it is there, so the page was not loaded anew
    assert len(heights) == 1


def test_nothing_changes_where_live_is_off(open_rates: Any, cache: EmbeddingsCache) -> None:
    page = open_rates()
    expect(metric(page, "Texts looked up")).to_have_text("4")
    page.get_by_test_id("stCheckbox").get_by_text("Live").click()
    expect(page.get_by_role("switch", name="Live").or_(page.get_by_role("checkbox", name="Live"))).not_to_be_checked()
    settle(page)
    look_up(cache, "kept")
    watching = open_rates()
    expect(metric(watching, "Texts looked up")).to_have_text("5")
    look_up(cache, "kept")
    expect(metric(watching, "Texts looked up")).to_have_text("6", timeout=REFRESHED)  # so long did the other one wait
    expect(metric(page, "Texts looked up")).to_have_text("4")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_scrolls_one_way_only(scheme: str, open_rates: Any, cache: EmbeddingsCache) -> None:
    page = open_rates(390, 844, scheme)
    expect(page.locator(".js-plotly-plot")).to_have_count(FIGURES)
    settle(page)
    wider = "element => element.scrollWidth > element.clientWidth"
    assert not page.locator("html").evaluate(wider)
    assert not page.get_by_test_id("stMain").evaluate(wider)
    for chart in page.locator(".js-plotly-plot").all():
        box = chart.bounding_box()
        assert box is not None
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= 390


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_words_in_charts_have_the_ink_of_the_theme(scheme: str, open_rates: Any, cache: EmbeddingsCache) -> None:
    page = open_rates(scheme=scheme)
    ink = tuple(int(charts._INK[scheme][start : start + 2], 16) for start in (1, 3, 5))
    tick = page.locator(".js-plotly-plot .ytick text").first
    expect(tick).to_have_css("fill", f"rgb{ink}")
    expect(page.locator(".js-plotly-plot .xtitle").first).to_have_css("fill", f"rgb{ink}")


def test_the_server_goes_and_comes_back(open_rates: Any, cache: EmbeddingsCache, server: Server) -> None:
    page = open_rates()
    expect(metric(page, "Texts looked up")).to_have_text("4")
    server.stop()
    try:
        expect(page.get_by_text("does not answer")).to_be_visible(timeout=REFRESHED)
        expect(page.get_by_text("No answer since").first).to_be_visible()
        expect(page.get_by_test_id("stMetric")).to_have_count(0)
        expect(page.get_by_test_id("stException")).to_have_count(0)
    finally:
        server.start()  # anew, and empty
    expect(page.get_by_text("Nothing to show yet")).to_be_visible(timeout=REFRESHED)
    expect(page.get_by_text("does not answer")).to_have_count(0)
    expect(page.get_by_text("No answer since")).to_have_count(0)
    look_up(cache, "never kept")
    expect(metric(page, "Texts looked up")).to_have_text("1", timeout=REFRESHED)
