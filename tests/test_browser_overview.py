"""The page Overview as a user meets it: drawn in place, on a phone, in the dark, without its server."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeAlias

import pytest

sync_api = pytest.importorskip("playwright.sync_api", reason="the extra dev brings playwright")

from browser import ROOT, dashboard, settle  # noqa: E402 - imports playwright itself
from looking import redisvl_hash  # noqa: E402
from playwright.sync_api import Browser, Page, expect  # noqa: E402
from servers import Server, running  # noqa: E402

from embedcache import EmbeddingsCache  # noqa: E402
from pages.ui import charts  # noqa: E402

pytestmark = pytest.mark.browser

Open: TypeAlias = Callable[..., Page]

FIGURES = 4
PATIENCE = 30_000  # milliseconds, for a slow machine

CACHES = "Caches on this server"
MODELS = ("Entries by model", "Memory by model")
CARDS = ("Entries", "Memory", "Hit rate, 24 h", "Time saved, 24 h")

# A dashboard that goes on looking at entries until a file is gone.
HELD = """
import time
from pathlib import Path
import streamlit as st
from embedcache import walking

look = walking.index_cache

def hold(connection, name, tell):
    while Path({lock!r}).exists():
        tell(20, 61)
        time.sleep(0.05)
    return look(connection, name, tell)

walking.index_cache = hold
app = st.App({app!r})
"""

# Where each heading and card is.
PLACES = """() => Object.fromEntries(
    [...document.querySelectorAll('[data-testid=stMain] :is(h1, h3, [data-testid=stMetric])')].map(
        element => [element.innerText.split('\\n')[0], element.getBoundingClientRect().top]
    )
)"""


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with running("valkey9") as started:
        yield started


@pytest.fixture(scope="module")
def address(browser: Browser, server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with dashboard(server.url, tmp_path_factory.mktemp("log") / "dashboard.log") as started:
        yield started


@pytest.fixture
def filled(server: Server) -> None:
    """A cache with entries of three models, one of them RedisVL's, and 3 of 4 texts found."""
    server.raw.flushall()
    with EmbeddingsCache(redis_url=server.url) as cache:
        for number in range(60):
            cache.set(f"t{number}", f"a/model-{number % 2}", [1.0, 2.0], ttl=(None, 600, 7_200)[number % 3])
        for text in ("t0", "t0", "t0", "never kept"):
            cache.get(text, "a/model-0")
        cache.record_computation("a/model-0", texts=1, seconds=2, tokens=10)
        cache.flush_stats()
    server.raw.hset("embedcache:" + "a" * 64, mapping=redisvl_hash(model_name="a/third"))


@pytest.fixture
def open_overview(browser: Browser, address: str) -> Iterator[Open]:
    contexts = []

    def open_page(width: int = 1440, height: int = 900, scheme: str = "light", cache: str = "") -> Page:
        context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme)
        contexts.append(context)
        context.set_default_timeout(PATIENCE)
        page = context.new_page()
        page.goto(f"{address}/?cache={cache}" if cache else address)
        expect(page.get_by_role("heading", level=1, name="Overview")).to_be_visible()
        return page

    yield open_page
    for context in contexts:
        context.close()


def metric(page: Page, label: str) -> sync_api.Locator:
    box = page.get_by_test_id("stMetric").filter(has=page.get_by_text(label, exact=True))
    return box.get_by_test_id("stMetricValue")


def places(page: Page) -> dict[str, float]:
    return dict(page.evaluate(PLACES))


def refresh(page: Page) -> None:
    """Has what an earlier test left on the shelf taken anew."""
    page.get_by_role("button", name="Refresh").click()
    settle(page)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_draws(scheme: str, open_overview: Open, filled: None) -> None:
    page = open_overview(scheme=scheme)
    refresh(page)
    expect(metric(page, "Entries")).to_have_text("61", timeout=PATIENCE)
    expect(metric(page, "Hit rate, 24 h")).to_have_text("75.0%")
    expect(metric(page, "Time saved, 24 h")).to_have_text("6 s")
    expect(page.locator(".js-plotly-plot")).to_have_count(FIGURES)
    expect(page.locator(".js-plotly-plot").filter(has_text="a/third")).to_have_count(2)
    expect(page.get_by_test_id("stMetricChart")).to_have_count(4)
    expect(page.get_by_test_id("stDataFrame")).to_have_count(1)
    expect(page.get_by_test_id("stTable").get_by_text("Valkey")).to_be_visible()
    ink = tuple(int(charts._INK[scheme][start : start + 2], 16) for start in (1, 3, 5))
    expect(page.locator(".js-plotly-plot .xtitle").first).to_have_css("fill", f"rgb{ink}")
    expect(page.get_by_test_id("stException")).to_have_count(0)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_scrolls_one_way_only(scheme: str, open_overview: Open, filled: None) -> None:
    page = open_overview(390, 844, scheme)
    refresh(page)
    expect(metric(page, "Entries")).to_have_text("61", timeout=PATIENCE)
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


@pytest.mark.parametrize(("width", "height"), [(1440, 900), (390, 844)])
def test_nothing_moves_when_what_was_counted_comes(
    width: int, height: int, browser: Browser, server: Server, filled: None, tmp_path: Path
) -> None:
    lock = tmp_path / "lock"
    lock.touch()
    (tmp_path / "server.py").write_text(HELD.format(lock=str(lock), app=str(ROOT / "app.py")))
    with dashboard(server.url, tmp_path / "log", tmp_path / "server.py") as address:
        context = browser.new_context(viewport={"width": width, "height": height})
        context.set_default_timeout(PATIENCE)
        page = context.new_page()
        page.goto(address)
        expect(page.get_by_text("Looking at the entries: 20 of 61 entries")).to_be_visible(timeout=PATIENCE)
        expect(page.get_by_role("button", name="Cancel")).to_be_visible()
        expect(metric(page, "Entries")).to_have_text("…")
        expect(metric(page, "Hit rate, 24 h")).to_have_text("75.0%")
        expect(page.get_by_test_id("stTable").get_by_text("Valkey")).to_be_visible()
        expect(page.get_by_test_id("stDataFrame")).to_have_count(1)
        before = places(page)
        assert set(before) == {*CARDS, "Overview", "By age", "When they leave", *MODELS, "Server", CACHES}
        lock.unlink()
        expect(metric(page, "Entries")).to_have_text("61", timeout=PATIENCE)
        expect(page.locator(".js-plotly-plot:has(.trace)")).to_have_count(FIGURES)
        settle(page)
        unmoved = {name: pytest.approx(top, abs=2) for name, top in before.items()}
        assert places(page) == unmoved
        lock.touch()
        page.get_by_role("button", name="Refresh").click()
        expect(page.get_by_text("Looking again: 33%")).to_be_visible(timeout=PATIENCE)
        assert places(page) == unmoved
        lock.unlink()
        expect(page.get_by_text("looking again")).to_have_count(0, timeout=PATIENCE)
        settle(page)
        assert places(page) == unmoved
        context.close()


def test_an_empty_cache_is_not_outlined(open_overview: Open, filled: None) -> None:
    page = open_overview(cache="never-filled")
    expect(page.get_by_text("This cache is empty")).to_be_visible(timeout=PATIENCE)
    settle(page)
    expect(page.get_by_test_id("stSkeleton")).to_have_count(0)
    expect(page.get_by_role("heading", name="By model")).to_have_count(0)
    expect(page.get_by_role("link", name="Browse what leaves first")).to_have_count(0)


def test_links_lead_on(open_overview: Open, filled: None) -> None:
    page = open_overview()
    page.get_by_role("link", name="Browse what leaves first").click()
    expect(page.get_by_role("heading", level=1, name="Browse")).to_be_visible()
    expect(page.get_by_role("combobox", name="Order of all entries")).to_have_value("Expires soonest")


def test_the_server_goes_and_comes_back(open_overview: Open, filled: None, server: Server) -> None:
    page = open_overview()
    expect(page.get_by_test_id("stMetric")).to_have_count(4, timeout=PATIENCE)
    settle(page)
    server.stop()
    try:
        refresh(page)
        expect(page.get_by_text("does not answer")).to_be_visible(timeout=PATIENCE)
        expect(page.get_by_test_id("stMetric")).to_have_count(0)
        expect(page.get_by_test_id("stException")).to_have_count(0)
    finally:
        server.start()  # anew, and empty
    expect(page.get_by_text("Nothing is cached here yet")).to_be_visible(timeout=PATIENCE)
    expect(page.get_by_text("does not answer")).to_have_count(0)
