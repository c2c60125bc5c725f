"""Lookup in a real browser: metadata edited, two entries compared, many texts, nearest texts, on a desk and a phone."""

from __future__ import annotations

import re
from collections.abc import Iterator

import numpy as np
import pytest

sync_api = pytest.importorskip("playwright.sync_api", reason="the extra dev brings playwright")

from browser import assert_inert, assert_no_sideways_scrolling, dashboard  # noqa: E402 - imports playwright itself
from playwright.sync_api import Browser, Locator, Page, expect  # noqa: E402

from embedcache import EmbeddingsCache, HFTextVectorizer  # noqa: E402
from embedcache.vectorizers import DEFAULT_MODEL  # noqa: E402

pytestmark = [pytest.mark.browser, pytest.mark.timeout(600)]

HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(2)><b>bold</b> **strong** [x](javascript:alert(3)) :red[r]"
PHONE = {"width": 390, "height": 844}
DESK = {"width": 1440, "height": 900}
SLOW = 60_000  # milliseconds; a machine that runs other tests beside these takes its time


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddingsCache]:
    with EmbeddingsCache(redis_url=f"embedded://{tmp_path_factory.mktemp('server')}/data") as opened:
        yield opened


@pytest.fixture(scope="module")
def address(cache: EmbeddingsCache, browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    url = cache.connection.address
    with dashboard(url, tmp_path_factory.mktemp("log") / "dashboard.log") as running:
        yield running


@pytest.fixture(params=["desk, light", "phone, dark"])
def page(request: pytest.FixtureRequest, browser: Browser) -> Iterator[Page]:
    """A page on which no dialog of the browser's own ever opened."""
    small = request.param.startswith("phone")
    context = browser.new_context(viewport=PHONE if small else DESK, color_scheme="dark" if small else "light")
    context.set_default_timeout(SLOW)
    opened = context.new_page()
    dialogs: list[str] = []
    opened.on("dialog", lambda dialog: (dialogs.append(dialog.message), dialog.dismiss()))
    yield opened
    context.close()
    assert dialogs == []


def metric(page: Page, label: str) -> Locator:
    box = page.get_by_test_id("stMetric").filter(has=page.get_by_text(label, exact=True))
    return box.get_by_test_id("stMetricValue")


def test_metadata_is_edited_and_nothing_typed_is_lost(page: Page, address: str, cache: EmbeddingsCache) -> None:
    key = cache.set(HOSTILE, HOSTILE, [0.5, -0.5], {HOSTILE: HOSTILE}, ttl=90_000)
    page.goto(f"{address}/lookup?key={key}")
    page.get_by_role("button", name="Edit metadata").click()
    dialog = page.get_by_role("dialog")
    field = dialog.get_by_role("textbox")
    expect(field).to_have_value(re.compile("<script>"), timeout=SLOW)
    assert_inert(page)
    field.fill('{"a": ')
    dialog.get_by_role("button", name="Save").click()
    expect(dialog.get_by_text("The metadata is not JSON")).to_be_visible(timeout=SLOW)
    expect(field).to_have_value('{"a": ')
    field.fill('{"saved": "<b>yes</b>"}')
    dialog.get_by_role("button", name="Save").click()
    expect(page.get_by_text("The metadata is saved.")).to_be_visible(timeout=SLOW)
    expect(page.get_by_role("dialog")).to_have_count(0, timeout=SLOW)
    expect(page.get_by_test_id("stJson")).to_contain_text("<b>yes</b>", timeout=SLOW)
    assert_inert(page)
    entry = cache.get_by_key(key)
    assert entry is not None
    assert (entry["metadata"], entry["embedding"].tolist()) == ({"saved": "<b>yes</b>"}, [0.5, -0.5])
    page.get_by_role("button", name="Edit metadata").click()
    expect(field).to_have_value(re.compile("saved"), timeout=SLOW)
    cache.drop_by_key(key)
    dialog.get_by_role("button", name="Save").click()
    expect(page.get_by_text("It is gone: it expired, or somebody else dropped it.")).to_be_visible(timeout=SLOW)


def test_two_entries_are_compared_and_the_link_is_kept(page: Page, address: str, cache: EmbeddingsCache) -> None:
    rng = np.random.default_rng(0)
    one = cache.set("The first text", "m", rng.normal(size=1_536), {"page": 1})
    other = cache.set(HOSTILE, "m", rng.normal(size=1_536), {"page": 2, HOSTILE: HOSTILE})
    page.goto(f"{address}/lookup?key={other}")
    page.get_by_role("button", name="Keep for comparison").click()
    expect(page.get_by_role("button", name="Kept for comparison")).to_be_visible(timeout=SLOW)
    page.get_by_label("Key", exact=True).fill(one)
    page.get_by_role("button", name="Look up").click()
    expect(page.get_by_test_id("stCode").first).to_have_text("The first text", timeout=SLOW)
    page.get_by_role("button", name="Compare with…").click()
    dialog = page.get_by_role("dialog")
    expect(dialog.get_by_test_id("stCode")).to_contain_text("<script>", timeout=SLOW)
    dialog.get_by_role("button", name="Compare").click()
    for _ in ("come by the dialog", "come by a reload"):
        expect(metric(page, "Cosine similarity")).to_have_text(re.compile(r"^-?0\.\d{4}$"), timeout=SLOW)
        expect(page.get_by_role("dialog")).to_have_count(0, timeout=SLOW)
        expect(page.locator(".js-plotly-plot")).to_have_count(2, timeout=SLOW)
        assert f"with={other.replace(':', '%3A')}" in page.url
        assert_inert(page)
        assert_no_sideways_scrolling(page)
        page.reload()
    page.get_by_role("button", name="Back to the entry").click()
    expect(metric(page, "Own TTL")).to_have_text("never", timeout=SLOW)
    assert "with=" not in page.url
    page.go_back()
    expect(metric(page, "Cosine similarity")).to_be_visible(timeout=SLOW)


def test_many_texts_at_once(page: Page, address: str, cache: EmbeddingsCache) -> None:
    cache.set("stored here", "many/model", [1.0, 2.0])
    page.goto(f"{address}/lookup")
    page.get_by_text("Many texts", exact=True).click()
    page.get_by_label("Texts, one per line").fill(f"stored here\n{HOSTILE}\nnever seen")
    model = page.get_by_role("combobox", name="Model")
    model.fill("many/model")
    model.press("Enter")
    page.get_by_role("button", name="Look up").click()
    expect(page.get_by_text("1 of 3 texts found")).to_be_visible(timeout=SLOW)
    assert_inert(page)
    assert_no_sideways_scrolling(page)
    page.get_by_test_id("stDataFrame").click(position={"x": 20, "y": 52})
    expect(metric(page, "Dimension")).to_have_text("2", timeout=SLOW)
    page.get_by_role("button", name="Embed 2 missing texts").click()
    expect(page.get_by_role("heading", level=1, name="Embed")).to_be_visible(timeout=SLOW)
    expect(page.get_by_label("Texts, one per line")).to_have_value(f"{HOSTILE}\nnever seen", timeout=SLOW)


@pytest.mark.model
def test_nearest_texts_of_one_that_missed(page: Page, address: str, cache: EmbeddingsCache) -> None:
    HFTextVectorizer(cache=cache).embed_many(["Cats purr when they are content.", HOSTILE])
    page.goto(f"{address}/lookup")
    page.get_by_label("Text", exact=True).fill("Why do cats purr?")
    model = page.get_by_role("combobox", name="Model")
    model.fill(DEFAULT_MODEL)
    model.press("Enter")
    page.get_by_role("button", name="Look up").click()
    ask, found = page.get_by_role("button", name="Find nearest texts"), page.get_by_text("among all 2 entries")
    expect(ask.or_(found).first).to_be_visible(timeout=SLOW)
    if ask.is_visible():  # the first to ask; for those after them the model is loaded
        ask.click()
    expect(found.last).to_be_visible(timeout=4 * SLOW)
    assert_inert(page)
    assert_no_sideways_scrolling(page)
    page.get_by_test_id("stMain").get_by_test_id("stButton").get_by_role("button", name="Open").first.click()
    expect(page.get_by_test_id("stCode").first).to_have_text("Cats purr when they are content.", timeout=SLOW)
