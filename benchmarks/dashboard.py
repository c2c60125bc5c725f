"""How fast the dashboard's pages are on a large cache, in a real browser.

    python benchmarks/dashboard.py [--entries 1000000] [--dimension 384] [--rounds 3] [--url redis://...]

Starts an embedded server in a folder of its own and fills it (a minute or two for a million entries), unless `--url`
names one that is filled. Then opens each page of the navigation in Chromium, in new sessions, and prints when its first
content was there, when its script had run to the end, the longest time that its browser did not react, and what memory
the dashboard's process takes.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from playwright.sync_api import Browser, Page, sync_playwright

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "tests"))  # the tests know how to run a dashboard and a browser

from browser import dashboard, launch, settle  # noqa: E402 - found by the line above

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


@contextmanager
def filled(options: argparse.Namespace) -> Iterator[str]:
    """The URL of a server that holds the entries."""
    if options.url:
        yield options.url
        return
    with tempfile.TemporaryDirectory(prefix="embedcache-") as folder:
        url = f"embedded://{folder}/data"
        fill = [sys.executable, str(ROOT / "benchmarks" / "fill.py"), "--url", url, "--name", CACHE]
        subprocess.run([*fill, "--entries", str(options.entries), "--dimension", str(options.dimension)], check=True)
        yield url


def visit(browser: Browser, address: str) -> Visit:
    """Opens a page in a session of its own."""
    context = browser.new_context(viewport={"width": 1440, "height": 900})
    context.set_default_timeout(PATIENCE)
    context.add_init_script(WATCH)
    page = context.new_page()
    start = time.perf_counter()
    page.goto(address, wait_until="commit")
    page.wait_for_selector(FIRST_CONTENT)
    first = time.perf_counter() - start
    settle(page)
    settled = time.perf_counter() - start
    frozen = page.evaluate("window.longest") / 1000
    context.close()
    return Visit(first, settled, frozen)


def links(page: Page, address: str) -> list[tuple[str, str]]:
    """Title and address of each page that the navigation names."""
    page.goto(address)
    page.wait_for_selector(FIRST_CONTENT, timeout=PATIENCE)
    found = page.get_by_test_id("stSidebarNav").get_by_role("link").all()
    return [(link.inner_text().strip().splitlines()[-1], str(link.get_attribute("href"))) for link in found]


def resident_megabytes(address: str) -> float:
    """Memory of the dashboard's process that listens there; Linux only."""
    port = f"--server.port={address.rpartition(':')[2]}".encode()
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # a process that ended in between
            if port in (folder / "cmdline").read_bytes():
                return _resident_kilobytes(folder / "status") / 1024
    return float("nan")


def _resident_kilobytes(status: Path) -> int:
    return next(int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith("VmRSS:"))


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--entries", type=int, default=1_000_000)
    parser.add_argument("--dimension", type=int, default=384)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--url", default="")
    options = parser.parse_args()
    with filled(options) as url, tempfile.TemporaryDirectory() as logs, sync_playwright() as playwright:
        browser = launch(playwright)
        with dashboard(url, Path(logs) / "dashboard.log") as address:
            print(f"{'page':14}{'first content':>15}{'settled':>10}{'frozen':>10}{'process':>12}")
            for title, link in links(browser.new_page(), address):
                visits = [visit(browser, link) for _ in range(options.rounds)]
                first, settled, frozen = (
                    statistics.median(getattr(each, name) for each in visits)
                    for name in ("first_content", "settled", "frozen")
                )
                memory = resident_megabytes(address)
                print(f"{title:14}{first:13.2f} s{settled:8.2f} s{frozen:8.2f} s{memory:8.0f} MiB", flush=True)
        browser.close()


if __name__ == "__main__":
    main()
