"""The page Vector map in a real Chromium: points that are clicked, hovered over and turned."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

sync_api = pytest.importorskip("playwright.sync_api", reason="the extra dev brings playwright")

from browser import dashboard, settle  # noqa: E402 - imports playwright itself
from playwright.sync_api import Browser, Page, expect  # noqa: E402

from embedcache import EmbeddingsCache  # noqa: E402

pytestmark = pytest.mark.browser

HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(2)> <b>bold</b>"
PATIENCE = 60_000


@pytest.fixture(scope="module")
def address(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    url = f"embedded://{tmp_path_factory.mktemp('server')}/data"
    vectors = np.random.default_rng(0).normal(size=(40, 8))
    with EmbeddingsCache(redis_url=url) as cache:
        cache.mset(
            [
                {
                    "text": f"{HOSTILE} {number}",
                    "model_name": HOSTILE,
                    "embedding": vector,
                    "metadata": {"kind": number % 3},
                }
                for number, vector in enumerate(vectors)
            ]
        )
        with dashboard(url, tmp_path_factory.mktemp("log") / "dashboard.log") as running:
            yield running


@pytest.fixture
def page(browser: Browser, address: str) -> Iterator[Page]:
    """The page with its map drawn; no dialog of the browser's own ever opens on it."""
    context = browser.new_context(viewport={"width": 1440, "height": 1400})
    context.set_default_timeout(PATIENCE)
    opened = context.new_page()
    dialogs: list[str] = []
    opened.on("dialog", lambda dialog: (dialogs.append(dialog.message), dialog.dismiss()))
    opened.goto(f"{address}/vector_map")
    expect(opened.locator(".js-plotly-plot .scatterlayer .point").first).to_be_visible(timeout=PATIENCE)
    settle(opened)
    yield opened
    context.close()
    assert dialogs == []


def test_a_click_on_a_point_opens_its_entry(page: Page) -> None:
    points = page.locator(".js-plotly-plot .scatterlayer .point")
    assert points.count() == 40
    points.nth(7).hover(force=True)
    expect(page.locator(".hoverlayer .hovertext").first).to_contain_text("<script>alert(1)</script>")
    points.nth(7).click(force=True)
    expect(page.get_by_text("Nearest in the sample")).to_be_visible(timeout=PATIENCE)
    text = page.get_by_test_id("stCode").first.inner_text()
    assert text.startswith(HOSTILE)
    settle(page)
    assert page.get_by_test_id("stMain").locator("script, img, b").count() == 0
    page.get_by_role("link", name="Open in Lookup").click()
    expect(page.get_by_role("heading", level=1, name="Lookup")).to_be_visible(timeout=PATIENCE)
    expect(page.get_by_test_id("stCode").first).to_have_text(text, timeout=PATIENCE)


def test_the_entry_stays_when_the_map_is_turned_solid(page: Page) -> None:
    page.locator(".js-plotly-plot .scatterlayer .point").nth(3).click(force=True)
    expect(page.get_by_text("Nearest in the sample")).to_be_visible(timeout=PATIENCE)
    page.get_by_text("3-D", exact=True).click()
    expect(page.locator(".js-plotly-plot .gl-container canvas").first).to_be_visible(timeout=PATIENCE)
    settle(page)
    expect(page.get_by_text("Nearest in the sample")).to_be_visible()


NEAR_THE_MOUSE = """graph => {
    const {object, screen} = graph._fullLayout.scene._scene.glplot.selection;
    return object && screen;
}"""
"""Where on the canvas the point is that Plotly finds near the mouse, counted from below; null where there is none."""


def test_a_click_in_three_dimensions_opens_the_entry(page: Page) -> None:
    page.get_by_text("3-D", exact=True).click()
    graph = page.locator(".js-plotly-plot").first
    expect(graph.locator(".gl-container canvas").first).to_be_visible(timeout=PATIENCE)
    settle(page)
    canvas = graph.locator(".gl-container canvas").first.bounding_box()
    assert canvas is not None
    across, down = 24, 24
    for step in range(across * down):  # where WebGL draws the points, nobody says: the mouse looks for one
        column, row = step % across, step // across
        page.mouse.move(
            canvas["x"] + canvas["width"] * (0.2 + 0.6 * column / across),
            canvas["y"] + canvas["height"] * (0.2 + 0.6 * row / down),
        )
        if near := graph.evaluate(NEAR_THE_MOUSE):
            break
    else:
        pytest.fail("no point is near the mouse, wherever it is")
    page.mouse.move(canvas["x"] + near[0], canvas["y"] + canvas["height"] - 1 - near[1])
    page.mouse.down()
    page.mouse.up()
    expect(page.get_by_text("Nearest in the sample")).to_be_visible(timeout=PATIENCE)


def test_a_phone_is_wide_enough(page: Page) -> None:
    page.set_viewport_size({"width": 390, "height": 844})
    settle(page)
    width = page.get_by_test_id("stMain").evaluate("main => main.scrollWidth - main.clientWidth")
    assert width <= 0
    map_box = page.locator(".js-plotly-plot").first.bounding_box()
    assert map_box is not None
    assert map_box["x"] >= 0
    assert map_box["x"] + map_box["width"] <= 390
