"""Takes the pictures in README and docs anew: a dashboard with sample data, in a browser, into `docs/images/`.

    python tests/take_screenshots.py [page ...]

Each page is taken as it is in the light theme on a desktop; those in `ALSO` in the dark and on a phone too. The hit
rates of the last hours are written by hand, since nobody waits for hours for a picture; all else is real.
"""

from __future__ import annotations

import os
import random
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from browser import ROOT, dashboard, launch, settle
from playwright.sync_api import Browser, Page, expect, sync_playwright

from embedcache import EmbeddingsCache, HFTextVectorizer
from embedcache.buckets import add_batch
from embedcache.counters import Batch, Counts
from embedcache.histogram import slot_of
from embedcache.keyspace import Keyspace
from embedcache.operations import ServerAbilities
from pages.ui import sample_data
from pages.ui.jobs import Progress

IMAGES = ROOT / "docs" / "images"
DESKTOP, PHONE = (1440, 900), (390, 844)
ALSO = ("overview", "browse")
PATIENCE = 90_000


def fill(cache: EmbeddingsCache) -> str:
    """Sample data, some lookups, and an entry's key."""
    vectorizer = HFTextVectorizer()
    sample_data.load(cache, vectorizer, Progress())
    texts = [sample.text for sample in sample_data.samples()]
    cache.mget([*texts[:200], *(f"{text} (again)" for text in texts[:20])], vectorizer.model_name)
    cache.flush_stats()
    count_the_past(cache, vectorizer.model_name)
    return cache.key_for(texts[0], vectorizer.model_name)


def count_the_past(cache: EmbeddingsCache, model_name: str) -> None:
    """Lookups of the last day, ever more of them hits, as if the cache had been used since yesterday."""
    chance = random.Random(7)  # noqa: S311 - the same picture every time
    able = ServerAbilities()
    for number, minutes in enumerate(range(24 * 60, 0, -5), start=1):
        lookups, rate = chance.randint(80, 160), 0.55 + 0.35 * number / 288 + chance.uniform(-0.05, 0.05)
        hits = round(lookups * rate)
        latencies = {slot_of(int(chance.lognormvariate(12.2, 0.35))): 1 for _ in range(lookups)}
        counts = Counts(hits=hits, misses=lookups - hits, sets=lookups - hits, latencies=latencies)
        counts.texts_computed, counts.compute_nanoseconds = lookups - hits, (lookups - hits) * 6_500_000
        batch = Batch(since=0.0, until=time.monotonic() - 60 * minutes, counts={model_name: counts})
        cache.connection.drive(
            add_batch(Keyspace(cache.name), able, batch, writer="picture", number=number, process="picture:1")
        )


def nothing(page: Page) -> None:
    """Leaves a page as it is when it opens."""


def embed(page: Page) -> None:
    """Embeds some lines, of which some are there."""
    page.get_by_text("Many lines", exact=True).click()
    known = [sample.text for sample in sample_data.samples()[:8]]
    page.get_by_label("Texts, one per line").fill("\n".join([*known, "A sentence that nobody embedded before."]))
    page.get_by_role("button", name="Embed").click()
    expect(page.get_by_test_id("stMetric").first).to_be_visible(timeout=PATIENCE)


def wait_for_map(page: Page) -> None:
    """Waits for the points."""
    expect(page.locator(".js-plotly-plot .point").first).to_be_visible(timeout=PATIENCE)


def plan(page: Page) -> None:
    """Plans to remove what talks of water."""
    page.get_by_label("Text contains", exact=True).fill("water")
    page.get_by_label("Text contains", exact=True).press("Enter")
    settle(page)
    page.get_by_role("button", name="Make a plan").click()
    expect(page.get_by_test_id("stMetric").first).to_be_visible(timeout=PATIENCE)


ACTIONS: dict[str, Callable[[Page], None]] = {"embed": embed, "vector_map": wait_for_map, "cleanup": plan}


def take(browser: Browser, address: str, name: str, size: tuple[int, int], scheme: str, suffix: str) -> None:
    """Opens a page, does what its picture needs, and takes it."""
    context = browser.new_context(
        viewport={"width": size[0], "height": size[1]}, color_scheme=scheme, device_scale_factor=1
    )
    page = context.new_page()
    page.set_default_timeout(PATIENCE)
    page.goto(address)
    expect(page.get_by_role("heading", level=1)).to_be_visible()
    settle(page)
    ACTIONS.get(name, nothing)(page)
    settle(page)
    expect(page.get_by_test_id("stSkeleton")).to_have_count(0, timeout=PATIENCE)
    page.wait_for_timeout(1_500)  # charts are drawn after the script has run
    page.screenshot(path=IMAGES / f"{name}{suffix}.png")
    context.close()


def main(wanted: list[str]) -> None:
    """Takes the pictures of the pages that are wanted, or all."""
    IMAGES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="embedcache-") as folder, sync_playwright() as playwright:
        os.environ["XDG_DATA_HOME"] = folder  # of this run's own, and no path of this machine in the pictures
        url = "embedded://"
        browser = launch(playwright)
        with EmbeddingsCache(redis_url=url) as cache, dashboard(url, Path(folder) / "dashboard.log") as address:
            key = fill(cache)
            for name, path in pages(browser, address, key).items():
                if wanted and name not in wanted:
                    continue
                take(browser, path, name, DESKTOP, "light", "")
                if name in ALSO:
                    take(browser, path, name, DESKTOP, "dark", "-dark")
                    take(browser, path, name, PHONE, "light", "-phone")
                print(name, flush=True)
        browser.close()


def pages(browser: Browser, address: str, key: str) -> dict[str, str]:
    """Each page of the navigation by the last part of its address, Lookup with an entry."""
    page = browser.new_page()
    page.goto(address)
    links = page.get_by_test_id("stSidebarNav").get_by_role("link")
    expect(links.first).to_be_visible(timeout=PATIENCE)
    settle(page)  # until then, the first page has another address
    found = [str(link.get_attribute("href")) for link in links.all()]
    page.close()
    named = {link.rstrip("/").rpartition("/")[2] if link.rstrip("/") != address else "overview": link for link in found}
    return named | {"lookup": f"{address}/lookup?key={key}"}


if __name__ == "__main__":
    main(sys.argv[1:])
