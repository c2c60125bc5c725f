"""The page Benchmark as a user meets it: run, cancelled, compared, on a phone, in the dark."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

sync_api = pytest.importorskip("playwright.sync_api", reason="the extra dev brings playwright")

from browser import dashboard, settle  # noqa: E402 - imports playwright itself
from playwright.sync_api import Browser, Page, expect  # noqa: E402
from servers import Server, running  # noqa: E402
from test_benchmark_runs import make  # noqa: E402

from embedcache import benchmark  # noqa: E402
from embedcache.benchmark import runs as benchmark_runs  # noqa: E402
from embedcache.connection import RedisConnection  # noqa: E402

pytestmark = pytest.mark.browser

MEASURED = 90_000  # milliseconds within which a short benchmark is over, on a busy machine too
RUN = "Run the benchmark"
NEAR = "Without and with the near cache"
LAYOUTS = "Layouts"


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with running("valkey9") as started:
        yield started


@pytest.fixture(scope="module")
def address(browser: Browser, server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with dashboard(server.url, tmp_path_factory.mktemp("log") / "dashboard.log") as started:
        yield started


@pytest.fixture
def connection(server: Server) -> Iterator[RedisConnection]:
    server.raw.flushall()
    opened = RedisConnection(server.url)
    yield opened
    opened.close()


@pytest.fixture
def open_benchmark(browser: Browser, address: str) -> Iterator[Any]:
    contexts = []

    def open_page(width: int = 1440, height: int = 900, scheme: str = "light") -> Page:
        context = browser.new_context(
            viewport={"width": width, "height": height}, color_scheme=scheme, timezone_id="Europe/Berlin"
        )
        contexts.append(context)
        context.set_default_timeout(30_000)
        page = context.new_page()
        page.goto(f"{address}/benchmark")
        expect(page.get_by_role("button", name=RUN)).to_be_visible(timeout=60_000)
        settle(page)
        return page

    yield open_page
    for context in contexts:
        context.close()


def choose(page: Page, *dropped: str, iterations: int) -> None:
    """Leaves out scenarios, and sets how often the others are timed."""
    for scenario in dropped:
        page.get_by_test_id("stCheckbox").get_by_text(scenario, exact=True).click()
        settle(page)
    field = page.get_by_label("Iterations", exact=True)
    field.fill(str(iterations))
    field.press("Enter")
    settle(page)


def fill(connection: RedisConnection) -> None:
    """Two runs of all scenarios that take no model."""
    settings = benchmark.Settings(iterations=5, scenarios=("batch", "sizes", "dtypes"), batch_sizes=(1, 10, 100))
    run = benchmark.run(connection.address, settings)
    benchmark_runs.save(connection, run)
    benchmark_runs.save(connection, replace(run, run_id=make(1).run_id, at=run.at - 86_400))


def test_a_benchmark_is_cancelled_and_another_runs_to_its_end(
    open_benchmark: Any, connection: RedisConnection, server: Server
) -> None:
    page = open_benchmark()
    expect(page.get_by_text("Nothing measured yet")).to_be_visible()
    choose(page, "Without and with the cache", "Batch sizes", LAYOUTS, NEAR, iterations=10_000)
    page.get_by_role("button", name=RUN).click()
    expect(page.get_by_text(" timings, ")).to_be_visible(timeout=MEASURED)
    expect(page.get_by_role("button", name=RUN)).to_be_disabled()
    page.get_by_role("button", name="Cancel").click()
    expect(page.get_by_text("Benchmark was cancelled after")).to_be_visible(timeout=MEASURED)
    assert server.plain_keys() == []
    choose(page, iterations=5)
    page.get_by_role("button", name=RUN).click()
    expect(page.get_by_text("int8 takes the least memory")).to_be_visible(timeout=MEASURED)
    expect(page.get_by_role("heading", name="Saved runs")).to_be_visible()
    expect(page.locator(".js-plotly-plot:has(.trace)")).to_have_count(5, timeout=MEASURED)
    expect(page.get_by_test_id("stException")).to_have_count(0)
    assert len(benchmark_runs.list_runs(connection).runs) == 1
    assert len(server.plain_keys()) == 2  # the run; the caches it used are gone


def test_two_saved_runs_are_compared(open_benchmark: Any, connection: RedisConnection) -> None:
    fill(connection)
    page = open_benchmark()
    table = page.get_by_test_id("stDataFrame").nth(4)  # after three scenarios' and the environment's
    for row in (0, 1):
        table.scroll_into_view_if_needed()
        box = table.bounding_box()
        page.mouse.click(box["x"] + 16, box["y"] + 35 * (row + 1) + 18)
        settle(page)
    expect(page.get_by_role("heading", name="Compared over time")).to_be_visible()
    expect(page.locator(".js-plotly-plot:has(.legend)")).to_have_count(2, timeout=MEASURED)
    expect(page.get_by_text("median per text (ms)").first).to_be_visible()
    files = {}
    for kind in (".json", ".csv"):
        with page.expect_download() as download:
            page.get_by_role("button", name=kind).click()
        files[kind] = Path(download.value.path()).read_text()
    runs = json.loads(files[".json"])
    assert len(runs) == 2
    assert len(runs[0]["results"][0]["measurements"][0]["samples"]) == 5
    assert len(files[".csv"].splitlines()) == 1 + 2 * (4 + 6 + 8)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_scrolls_one_way_only(scheme: str, open_benchmark: Any, connection: RedisConnection) -> None:
    fill(connection)
    page = open_benchmark(390, 844, scheme)
    expect(page.locator(".js-plotly-plot:has(.trace)")).to_have_count(8, timeout=MEASURED)
    settle(page)
    wider = "element => element.scrollWidth > element.clientWidth"
    assert not page.locator("html").evaluate(wider)
    assert not page.get_by_test_id("stMain").evaluate(wider)
    for chart in page.locator(".js-plotly-plot").all():
        box = chart.bounding_box()
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= 390
