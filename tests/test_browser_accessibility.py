"""Every page checked by axe-core for WCAG 2 A and AA: names of controls, contrast in both themes, order, languages.

So that each page is opened once only, the same tests look at whether it fits the screen.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

sync_api = pytest.importorskip("playwright.sync_api", reason="the extra dev brings playwright")

from accessible import found_wrong, misshapen  # noqa: E402 - imports playwright itself
from browser import ROOT, dashboard, stand_still  # noqa: E402 - likewise
from playwright.sync_api import Browser, Page, expect  # noqa: E402
from servers import Server, running  # noqa: E402

from embedcache import EmbeddingsCache  # noqa: E402

pytestmark = [pytest.mark.browser, pytest.mark.model, pytest.mark.timeout(600)]

PAGES = list((ROOT / "pages").glob("*.py"))
DESK, PHONE = {"width": 1440, "height": 900}, {"width": 390, "height": 844}
LOOKS = [(scheme, size) for size in (DESK, PHONE) for scheme in ("light", "dark")]
LIGHT_DESK, DARK_PHONE = LOOKS[0], LOOKS[-1]


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


@pytest.fixture(params=LOOKS, ids=lambda look: f"{look[0]}-{look[1]['width']}")
def page(browser: Browser, address: str, request: pytest.FixtureRequest) -> Iterator[Page]:
    scheme, size = request.param
    context = browser.new_context(viewport=size, color_scheme=scheme)
    context.set_default_timeout(30_000)
    yield context.new_page()
    context.close()


def visit(page: Page, address: str) -> None:
    page.goto(address)
    expect(page.get_by_role("heading", level=1)).to_be_visible()
    stand_still(page)


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


def test_pages_with_data(page: Page, address: str, filled: str) -> None:
    check(page, [*addresses(page, address), f"{address}/lookup?key={filled}"])


@pytest.mark.parametrize("page", [LIGHT_DESK, DARK_PHONE], indirect=True, ids=["light-1440", "dark-390"])
def test_empty_pages(page: Page, address: str, server: Server) -> None:
    server.raw.flushall()
    check(page, addresses(page, address))
