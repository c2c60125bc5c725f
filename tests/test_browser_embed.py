"""The Embed page as a user meets it: long work, tables, pictures and downloads in a real Chromium."""

import csv
import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

sync_api = pytest.importorskip("playwright.sync_api", reason="the extra dev brings playwright")

from browser import dashboard, settle  # noqa: E402 - imports playwright itself
from playwright.sync_api import Browser, Page, expect  # noqa: E402
from pyarrow import parquet  # noqa: E402

from embedcache import EmbeddingsCache  # noqa: E402
from embedcache.vectorizers import DEFAULT_MODEL  # noqa: E402

pytestmark = [pytest.mark.browser, pytest.mark.model]

PATIENCE = 120_000
HOSTILE = "=1+1 <img src=x onerror=alert(2)><b>bold</b> **strong** [x](javascript:alert(3))"
TEXTS = ["How do I reset my password?", HOSTILE, "Ice floats on water."]


@pytest.fixture(scope="module")
def server_url(tmp_path_factory: pytest.TempPathFactory) -> str:
    return f"embedded://{tmp_path_factory.mktemp('server')}/data"


@pytest.fixture(scope="module")
def address(browser: Browser, server_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with dashboard(server_url, tmp_path_factory.mktemp("log") / "dashboard.log") as running:
        yield running


@pytest.fixture(params=[(1440, 900), (390, 844)], ids=["desktop", "phone"])
def page(request: pytest.FixtureRequest, browser: Browser, address: str) -> Iterator[Page]:
    """The Embed page, on which no dialog of the browser's own ever opened."""
    width, height = request.param
    context = browser.new_context(viewport={"width": width, "height": height})
    context.set_default_timeout(30_000)
    opened = context.new_page()
    dialogs: list[str] = []
    opened.on("dialog", lambda dialog: (dialogs.append(dialog.message), dialog.dismiss()))
    opened.goto(f"{address}/embed")
    expect(opened.get_by_role("heading", level=1, name="Embed")).to_be_visible()
    settle(opened)
    yield opened
    context.close()
    assert dialogs == []


def type_lines(page: Page, texts: list[str]) -> None:
    page.get_by_text("Many lines", exact=True).click()
    box = page.get_by_label("Texts, one per line")
    box.fill("\n".join(texts))
    box.press("Control+Enter")
    expect(page.get_by_text(f"{len(texts):,} texts", exact=True)).to_be_visible()
    settle(page)


def metric(page: Page, label: str) -> "sync_api.Locator":
    box = page.get_by_test_id("stMetric").filter(has=page.get_by_text(label, exact=True))
    return box.get_by_test_id("stMetricValue")


def download(page: Page, kind: str) -> bytes:
    with page.expect_download() as given:
        page.get_by_role("button", name=f".{kind}", exact=True).click()
    assert given.value.suggested_filename == f"embeddings-3x384.{kind}"
    return Path(given.value.path()).read_bytes()


def test_embedding_comparing_and_downloading(page: Page, server_url: str) -> None:
    type_lines(page, TEXTS)
    page.get_by_role("button", name="Embed", exact=True).click()
    expect(metric(page, "Hit rate")).to_be_visible(timeout=PATIENCE)
    settle(page)
    expect(page.get_by_text("cosine similarity", exact=True)).to_be_visible()
    expect(page.locator(".js-plotly-plot")).to_have_count(2)
    expect(page.get_by_text("=1+1 &lt;img", exact=False)).to_have_count(0)

    matrix = np.load(io.BytesIO(download(page, "npy")), allow_pickle=False)
    table = parquet.read_table(io.BytesIO(download(page, "parquet")))
    rows = list(csv.reader(io.StringIO(download(page, "csv").decode())))
    with EmbeddingsCache(redis_url=server_url, stats=False) as cache:
        stored, hits = cache.mget_embeddings(TEXTS, DEFAULT_MODEL)
    assert hits.all()
    assert matrix.dtype == np.float32
    assert np.array_equal(matrix, stored)
    assert table["text"].to_pylist() == TEXTS
    assert np.array_equal(np.array(table["vector"].to_pylist(), np.float32), stored)
    assert [row[0] for row in rows] == ["text", TEXTS[0], f"'{HOSTILE}", TEXTS[2]]


def test_a_double_click_embeds_once_and_cancelling_ends_it(page: Page) -> None:
    width = (page.viewport_size or {})["width"]
    lines = [f"A sentence of many for a screen {width} pixels wide, number {n}." for n in range(20_000)]
    page.get_by_text("File", exact=True).click()
    content = "\n".join(lines).encode()
    page.locator("input[type=file]").set_input_files({"name": "t.txt", "mimeType": "text/plain", "buffer": content})
    expect(page.get_by_text("20,000 texts", exact=True)).to_be_visible(timeout=PATIENCE)
    page.get_by_role("button", name="Embed", exact=True).dblclick()
    expect(page.get_by_test_id("stProgress")).to_have_count(1, timeout=PATIENCE)
    expect(page.get_by_role("button", name="Embed", exact=True)).to_be_disabled()
    page.get_by_role("button", name="Cancel", exact=True).click()
    expect(page.get_by_text("Cancelled after")).to_be_visible(timeout=PATIENCE)
    expect(page.get_by_test_id("stProgress")).to_have_count(0)
    expect(page.get_by_role("button", name="Embed", exact=True)).to_be_enabled()
