"""Every page checked by axe-core for WCAG 2 A and AA: names of controls, contrast in both themes, order, languages."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

sync_api = pytest.importorskip("playwright.sync_api", reason="the extra dev brings playwright")

from axe_playwright_python.sync_playwright import Axe  # noqa: E402
from browser import dashboard, settle  # noqa: E402 - imports playwright itself
from playwright.sync_api import Browser, Page, expect  # noqa: E402
from servers import Server, running  # noqa: E402

from embedcache import EmbeddingsCache  # noqa: E402

pytestmark = [pytest.mark.browser, pytest.mark.model]

RULES = {"runOnly": {"type": "tag", "values": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"]}}


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
                f"text {number}", models[number % 2], [1.0, float(number), 0.5], {"number": number}, ttl=number or None
            )
            for number in range(0, 5_000, 100)
        ]
        cache.mget([f"text {number}" for number in range(0, 1_000, 50)], "a/model")
        cache.flush_stats()
    return keys[0]


@pytest.fixture(params=["light", "dark"])
def page(browser: Browser, address: str, request: pytest.FixtureRequest) -> Iterator[Page]:
    context = browser.new_context(viewport={"width": 1440, "height": 900}, color_scheme=request.param)
    context.set_default_timeout(15_000)
    yield context.new_page()
    context.close()


def visit(page: Page, address: str) -> None:
    page.goto(address)
    expect(page.get_by_role("heading", level=1)).to_be_visible(timeout=30_000)
    settle(page)
    page.wait_for_timeout(500)  # what fades in has other colours before


# Streamlit puts a <div> between the list of its navigation and the items of each section, and names no mark of the
# lines in its metrics.
STREAMLITS_OWN = {
    ("list", '<ul data-testid="stSidebarNavItems"'),
    ("listitem", '<li class="st-emotion-cache-'),
    ("svg-img-alt", '<g class="mark-symbol role-mark metric_chart_'),
}


def found_wrong(page: Page) -> Iterator[str]:
    """What axe-core finds wrong, a line for each rule and place."""
    response = Axe().run(page, options=RULES).response
    for violation in response["violations"]:
        for node in violation["nodes"]:
            if any(violation["id"] == rule and node["html"].startswith(start) for rule, start in STREAMLITS_OWN):
                continue
            why = " ".join(node["failureSummary"].split())
            yield f"{page.url} {violation['id']}: {node['html'][:200]} {why}"


def addresses(page: Page, address: str) -> list[str]:
    """Where the navigation leads."""
    visit(page, address)
    links = page.get_by_test_id("stSidebarNav").get_by_role("link")
    return [str(link.get_attribute("href")) for link in links.all()]


def check(page: Page, links: list[str]) -> None:
    wrong: list[str] = []
    for link in links:
        visit(page, link)
        wrong += found_wrong(page)
    assert not wrong, "\n".join(wrong)


def test_pages_with_data(page: Page, address: str, filled: str) -> None:
    check(page, [*addresses(page, address), f"{address}/lookup?key={filled}"])


def test_empty_pages(page: Page, address: str, server: Server) -> None:
    server.raw.flushall()
    check(page, addresses(page, address))
