"""Texts from right to left, and characters that hide or turn text round: shown as what they are, dropped alone."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from urllib.parse import quote

import pytest

sync_api = pytest.importorskip("playwright.sync_api", reason="the extra dev brings playwright")

from browser import TICK_X, assert_no_sideways_scrolling, click_row, dashboard, settle  # noqa: E402 - imports playwright
from playwright.sync_api import Browser, Locator, Page, expect  # noqa: E402
from servers import Server, running  # noqa: E402

from embedcache import EmbeddingsCache  # noqa: E402

pytestmark = [pytest.mark.browser, pytest.mark.timeout(300)]

SLOW = 60_000  # milliseconds; a machine that runs other tests beside these takes its time
HEBREW, ARABIC = "שלום", "مرحبا"
HIDING = "\u202egnp.exe\u202c a\u200bb\x07\x1b[31m\u2066z\u2069"
SPELT_OUT = "⟨U+202E⟩gnp.exe⟨U+202C⟩ a⟨U+200B⟩b␇␛[31m⟨U+2066⟩z⟨U+2069⟩"
TEXT, MODEL = f"{HEBREW} {ARABIC} {HIDING}", f"{HEBREW}/{HIDING}"
SHOWN, SHOWN_MODEL = f"{HEBREW} {ARABIC} {SPELT_OUT}", f"{HEBREW}/{SPELT_OUT}"
METADATA = {f"{ARABIC} {HIDING}": [TEXT], "kind": HIDING}

FIND_HIDDEN = r"""() => {
    const hidden = /[\u0000-\u0008\u000b\u000c\u000e-\u001f\u007f\u200b\u200e\u200f\u202a-\u202e\u2060-\u2069]/;
    const found = [];
    const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_ELEMENT | NodeFilter.SHOW_TEXT);
    for (let node = walker.nextNode(); node; node = walker.nextNode()) {
        const texts = node.nodeType === Node.TEXT_NODE ? [node.data] : [...node.attributes].map(each => each.value);
        if (texts.concat(node.value ?? "").some(text => hidden.test(text)))
            found.push((node.outerHTML ?? node.parentElement.outerHTML).slice(0, 200));
    }
    return found;
}"""
"""The elements whose text, attributes or typed value hold what cannot be seen."""


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
    """An entry with hidden characters, and younger ones that look like it."""
    server.raw.flushall()
    with EmbeddingsCache(redis_url=server.url, stats=False) as opened:
        opened.set(TEXT, MODEL, [0.5, 1.0, 0.0], METADATA)
        opened.set(SHOWN, MODEL, [1.0, 0.5, 0.0])
        opened.set(TEXT.replace("\u200b", ""), MODEL, [1.0, 0.0, 0.5])
        opened.set(TEXT, SHOWN_MODEL, [0.0, 1.0, 0.5])
        yield opened


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    context = browser.new_context(viewport={"width": 1440, "height": 1200})
    context.set_default_timeout(SLOW)
    yield context.new_page()
    context.close()


def assert_nothing_hidden(page: Page) -> None:
    """Nothing that cannot be seen is on the page, which still reads from left to right."""
    settle(page)
    assert page.evaluate(FIND_HIDDEN) == []
    main = page.get_by_test_id("stMain")
    assert main.evaluate("main => [document.dir, getComputedStyle(main).direction]") == ["", "ltr"]
    assert page.get_by_test_id("stSidebar").bounding_box()["x"] < main.bounding_box()["x"]
    assert_no_sideways_scrolling(page)


def cell(page: Page, words: str) -> Locator:
    """The cells of the first table that hold exactly these words, as a screen reader finds them."""
    return page.get_by_test_id("stDataFrame").first.locator("td").filter(has_text=re.compile(f"^{re.escape(words)}$"))


def assert_dropped_alone(cache: EmbeddingsCache) -> None:
    assert not cache.exists(TEXT, MODEL)
    assert cache.mexists([SHOWN, TEXT.replace("\u200b", "")], MODEL) == [True, True]
    assert cache.exists(TEXT, SHOWN_MODEL)


def open_in_lookup(page: Page, address: str, cache: EmbeddingsCache) -> None:
    page.goto(f"{address}/lookup?key={cache.key_for(TEXT, MODEL)}")
    expect(page.get_by_test_id("stCode").first).to_have_text(SHOWN)


def open_in_browse(page: Page, address: str) -> None:
    page.goto(f"{address}/browse?sort=inserted_at")
    expect(page.get_by_text("as of")).to_be_visible()


def test_lookup_spells_out_what_hides(page: Page, address: str, cache: EmbeddingsCache) -> None:
    open_in_lookup(page, address, cache)
    expect(page.get_by_test_id("stCode").nth(1)).to_have_text(SHOWN_MODEL)
    metadata = page.get_by_test_id("stJson")
    expect(metadata).to_contain_text(f"{ARABIC} {SPELT_OUT}")
    expect(metadata).to_contain_text(SHOWN)
    assert_nothing_hidden(page)
    page.get_by_role("button", name="Edit metadata").click()
    field = page.get_by_role("dialog").get_by_role("textbox")
    expect(field).to_have_value(re.compile(rf"{HEBREW} {ARABIC} \\u202egnp\.exe"))
    assert_nothing_hidden(page)


def test_models_to_choose_from_are_spelt_out(page: Page, address: str, cache: EmbeddingsCache) -> None:
    page.goto(f"{address}/lookup")
    model = page.get_by_role("combobox", name="Model")
    expect(model).to_have_value(SHOWN_MODEL)
    model.press("ArrowDown")
    expect(page.get_by_role("option", name=SHOWN_MODEL)).to_have_count(2)  # one is spelt like it
    assert_nothing_hidden(page)
    page.get_by_role("option", name=SHOWN_MODEL).first.click()
    page.get_by_label("Text", exact=True).fill(HEBREW)
    page.get_by_role("button", name="Look up").click()
    expect(page.get_by_text("Not in the cache")).to_be_visible()
    assert_nothing_hidden(page)


def test_models_to_compare_with_and_to_price_are_spelt_out(page: Page, address: str, cache: EmbeddingsCache) -> None:
    open_in_lookup(page, address, cache)
    page.get_by_role("button", name="Compare with…").click()
    expect(page.get_by_role("dialog").get_by_role("combobox", name="Model")).to_have_value(SHOWN_MODEL)
    assert_nothing_hidden(page)
    with EmbeddingsCache(redis_url=cache.connection.address) as counting:
        counting.get(TEXT, MODEL)
    page.goto(f"{address}/settings")
    page.get_by_role("tab", name="Token prices").click()
    expect(page.get_by_test_id("stForm").get_by_role("combobox", name="Model")).to_have_value(SHOWN_MODEL)
    assert_nothing_hidden(page)


def test_names_of_caches_are_spelt_out(page: Page, address: str, server: Server) -> None:
    with EmbeddingsCache(MODEL, redis_url=server.url, stats=False) as cache:
        cache.set("t", "m", [1.0, 0.5])
    page.goto(f"{address}/browse?cache={quote(MODEL)}")
    expect(page.get_by_text("as of")).to_be_visible()
    expect(page.get_by_test_id("stSidebar").get_by_role("combobox")).to_have_value(SHOWN_MODEL)
    expect(cell(page, "t")).to_have_count(1)
    assert_nothing_hidden(page)


def test_browse_spells_out_what_hides(page: Page, address: str, cache: EmbeddingsCache) -> None:
    open_in_browse(page, address)
    expect(cell(page, SHOWN)).to_have_count(3)  # two entries of the text, and one that is spelt like it
    assert_nothing_hidden(page)


def test_the_vector_map_spells_out_what_hides(page: Page, address: str, cache: EmbeddingsCache) -> None:
    page.goto(f"{address}/vector_map")
    points = page.locator(".js-plotly-plot .scatterlayer .point")
    expect(points).to_have_count(3)  # of the model that most entries have
    settle(page)
    points.first.hover(force=True)
    expect(page.locator(".hoverlayer .hovertext").first).to_contain_text(f"{HEBREW} {ARABIC} ⟨U+202E⟩gnp.exe⟨U+202C⟩")
    assert_nothing_hidden(page)
    points.first.click(force=True)
    expect(page.get_by_text("Nearest in the sample")).to_be_visible()
    expect(
        page.get_by_test_id("stDataFrame").first.locator("td").filter(has_text=f"{HEBREW} {ARABIC} ⟨U+202E⟩")
    ).to_have_count(2)
    assert_nothing_hidden(page)


def test_cleanup_spells_out_what_hides(page: Page, address: str, cache: EmbeddingsCache) -> None:
    page.goto(f"{address}/cleanup")
    page.get_by_role("button", name="Make a plan").click()
    expect(cell(page, SHOWN)).to_have_count(3)
    expect(page.get_by_text("By model:")).to_contain_text("⟨U+202E⟩gnp.exe")
    assert_nothing_hidden(page)


def drop_in_lookup(page: Page, address: str, cache: EmbeddingsCache) -> None:
    open_in_lookup(page, address, cache)
    page.get_by_role("button", name="Drop entry").click()
    dialog = page.get_by_role("dialog")
    expect(dialog.get_by_test_id("stCode")).to_have_text(SHOWN)
    assert_nothing_hidden(page)
    dialog.get_by_role("button", name="Drop it").click()
    expect(page.get_by_text("Not in the cache")).to_be_visible()


def drop_in_browse(page: Page, address: str, cache: EmbeddingsCache) -> None:
    open_in_browse(page, address)
    click_row(page, TICK_X, 0)  # the oldest
    expect(page.get_by_text("1 ticked")).to_be_visible()
    page.get_by_role("button", name="Drop", exact=True).click()
    dialog = page.get_by_role("dialog")
    expect(dialog.get_by_test_id("stCode")).to_contain_text(f"{HEBREW} {ARABIC} ⟨U+202E⟩")
    assert_nothing_hidden(page)
    dialog.get_by_role("button", name="Drop (1)").click()
    expect(page.get_by_text("Dropped 1 entry")).to_be_visible()


@pytest.mark.parametrize("drop", [drop_in_lookup, drop_in_browse])
def test_what_looks_alike_is_dropped_alone(
    drop: Callable[[Page, str, EmbeddingsCache], None], page: Page, address: str, cache: EmbeddingsCache
) -> None:
    drop(page, address, cache)
    assert_dropped_alone(cache)
