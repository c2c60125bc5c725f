"""How fast the dashboard's pages are on a large cache, in a real browser, and what memory its process takes.

    python benchmarks/dashboard.py [--entries 1000000] [--dimension 384] [--rounds 3] [--url redis://...] [--soak 30]

Starts an embedded server in a folder of its own and fills it (a minute or two for a million entries), unless `--url`
names one that is filled. Then opens each page of the navigation in Chromium, in new sessions, and prints when its first
content was there, when its script had run to the end, the longest time that its browser did not react, what the
dashboard's process computed until the first content, and its memory. "bare" is the first content of a page of
Streamlit's that holds nothing but a title, opened in turn with the others: what a browser and Streamlit take by
themselves, as busy as this machine was just then. The first lines are of dashboards that have just been started.

With `--soak`, so many sessions one after the other have the entries looked at anew, a map drawn, texts looked through
and a cleanup planned, and the memory after each is printed.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from playwright.sync_api import Browser, Page, expect, sync_playwright

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "tests"))  # the tests know how to run a dashboard and a browser

from browser import dashboard, launch, settle  # noqa: E402 - found by the line above
from fill import filled  # noqa: E402 - of this folder

CACHE = "embedcache"
PATIENCE = 120_000
FIRST_CONTENT = "[data-testid=stMain] h1"

# The longest gap between two frames from the start of the page on: as long as that, the page was frozen.
WATCH = """
window.longest = 0;
let before = performance.now();
const look = now => {
    window.longest = Math.max(window.longest, now - before);
    before = now;
    requestAnimationFrame(look);
};
requestAnimationFrame(look);
"""


@dataclass(frozen=True, slots=True)
class Visit:
    """One look at a page, in seconds."""

    first_content: float
    settled: float
    frozen: float
    computed: float


@contextmanager
def session(browser: Browser) -> Iterator[Page]:
    """A page of a session of its own."""
    context = browser.new_context(viewport={"width": 1440, "height": 900})
    context.set_default_timeout(PATIENCE)
    context.add_init_script(WATCH)
    try:
        yield context.new_page()
    finally:
        context.close()


def visit(browser: Browser, address: str, process: int) -> Visit:
    """Opens a page in a session of its own."""
    with session(browser) as page:
        before, start = computed_seconds(process), time.perf_counter()
        page.goto(address, wait_until="commit")
        page.wait_for_selector(FIRST_CONTENT)
        first = time.perf_counter() - start
        computed = computed_seconds(process) - before
        settle(page)
        settled = time.perf_counter() - start
        return Visit(first, settled, page.evaluate("window.longest") / 1000, computed)


def links(page: Page, address: str) -> list[tuple[str, str]]:
    """Title and address of each page that the navigation names."""
    page.goto(address)
    page.wait_for_selector(FIRST_CONTENT, timeout=PATIENCE)
    found = page.get_by_test_id("stSidebarNav").get_by_role("link").all()
    return [(link.inner_text().strip().splitlines()[-1], str(link.get_attribute("href"))) for link in found]


# ------------------------------------------------------------------------------------------------ its process


def process_of(address: str) -> int:
    """The dashboard's process that listens there; Linux only, as what follows."""
    port = f"--server.port={address.rpartition(':')[2]}".encode()
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # a process that ended in between
            if port in (folder / "cmdline").read_bytes().split(b"\0"):
                return int(folder.name)
    raise SystemExit(f"no process listens at {address}")


def resident_megabytes(process: int) -> float:
    """Its memory in MiB."""
    status = Path(f"/proc/{process}/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS:")) / 1024


def computed_seconds(process: int) -> float:
    """Processor time that it has taken, its own and the system's for it."""
    numbers = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(numbers[11]) + int(numbers[12])) / os.sysconf("SC_CLK_TCK")


# ------------------------------------------------------------------------------------------------ pages


def measure(url: str, logs: Path, browser: Browser, rounds: int) -> None:
    """Prints the table of pages."""
    print(f"{'page':16}{'first content':>15}{'bare':>10}{'settled':>10}{'frozen':>10}{'computed':>11}{'process':>12}")
    script = logs / "bare.py"
    script.write_text('import streamlit as st\n\nst.title("Nothing else")\n')
    with dashboard(url, logs / "bare.log", script) as bare:
        visit(browser, bare, process_of(bare))  # the first one of a process takes longer
        for number in range(rounds):
            with dashboard(url, logs / f"first{number}.log") as address:
                print_row(f"first session {number + 1}", browser, address, bare, 1, process_of(address))
        with dashboard(url, logs / "dashboard.log") as address:
            for title, link in links(browser.new_page(), address):
                print_row(title, browser, link, bare, rounds, process_of(address))


def print_row(name: str, browser: Browser, address: str, bare: str, rounds: int, process: int) -> None:
    """Opens a page and the bare one in turn, and prints the medians."""
    visits, bare_visits = [], []
    for _ in range(rounds):
        bare_visits.append(visit(browser, bare, process))
        visits.append(visit(browser, address, process))
    first, settled, frozen, computed = (
        statistics.median(getattr(each, column) for each in visits) for column in Visit.__slots__
    )
    alone = statistics.median(each.first_content for each in bare_visits)
    print(
        f"{name:16}{first:13.2f} s{alone:8.2f} s{settled:8.2f} s{frozen:8.2f} s{computed:9.2f} s"
        f"{resident_megabytes(process):8.0f} MiB",
        flush=True,
    )


# ------------------------------------------------------------------------------------------------ memory


def soak(url: str, log: Path, browser: Browser, sessions: int) -> None:
    """Prints the memory after each of many sessions that do what takes much of it."""
    with dashboard(url, log) as address:
        process = process_of(address)
        for number in range(sessions):
            for look in (_look_anew, _draw_map, _search, _plan):
                with session(browser) as page:
                    look(page, address)
                    settle(page)
            print(f"session {number + 1:3}: {resident_megabytes(process):6.0f} MiB", flush=True)


def _look_anew(page: Page, address: str) -> None:
    page.goto(address)
    refresh = page.get_by_role("button", name="Refresh")
    expect(refresh).to_be_enabled(timeout=PATIENCE)
    refresh.click()
    page.get_by_text("Looking again:").first.wait_for()
    expect(refresh).to_be_enabled(timeout=PATIENCE)


def _draw_map(page: Page, address: str) -> None:
    page.goto(f"{address}/vector_map")
    page.locator(".js-plotly-plot").first.wait_for()


def _search(page: Page, address: str) -> None:
    page.goto(f"{address}/browse?filter={quote(json.dumps({'text_contains': 'library card'}))}")
    page.get_by_text("Texts and metadata were looked through").wait_for()


def _plan(page: Page, address: str) -> None:
    page.goto(f"{address}/cleanup")
    page.get_by_role("button", name="Make a plan").click()
    page.get_by_label("Type the name of the cache to confirm").wait_for()


def main() -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--entries", type=int, default=1_000_000)
    parser.add_argument("--dimension", type=int, default=384)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--url", default="")
    parser.add_argument("--soak", type=int, default=0, help="sessions that are opened one after the other for memory")
    options = parser.parse_args()
    with (
        filled(options.url, CACHE, options.entries, options.dimension) as url,
        tempfile.TemporaryDirectory() as logs,
        sync_playwright() as playwright,
    ):
        browser = launch(playwright)
        if options.soak:
            soak(url, Path(logs) / "soak.log", browser, options.soak)
        else:
            measure(url, Path(logs), browser, options.rounds)
        browser.close()


if __name__ == "__main__":
    main()
