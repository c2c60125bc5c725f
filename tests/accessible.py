"""What axe-core finds wrong with a page, by the rules of WCAG 2 A and AA."""

from __future__ import annotations

from collections.abc import Iterator

from axe_playwright_python.sync_playwright import Axe
from browser import settle
from playwright.sync_api import Page, expect

RULES = {"runOnly": {"type": "tag", "values": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"]}}

# Streamlit puts a <div> between the list of its navigation and the items of each section, and names no mark of the
# lines in its metrics.
STREAMLITS_OWN = {
    ("list", '<ul data-testid="stSidebarNavItems"'),
    ("listitem", '<li class="st-emotion-cache-'),
    ("svg-img-alt", '<g class="mark-symbol role-mark metric_chart_'),
}


# Labels of what is disabled, which WCAG 1.4.3 lets be pale; axe-core cannot tell whose labels Streamlit's are.
INACTIVE = """selector => {
    const widget = document.querySelector(selector)?.closest('[data-testid=stSelectbox]');
    return Boolean(widget?.querySelector('[data-testid=stWidgetLabel]') && widget.querySelector(':disabled'));
}"""


def found_wrong(page: Page) -> Iterator[str]:
    """What axe-core finds wrong, a line for each rule and place."""
    response = Axe().run(page, options=RULES).response
    for violation in response["violations"]:
        for node in violation["nodes"]:
            if any(violation["id"] == rule and node["html"].startswith(start) for rule, start in STREAMLITS_OWN):
                continue
            if violation["id"] == "color-contrast" and page.evaluate(INACTIVE, node["target"][0]):
                continue
            why = " ".join(node["failureSummary"].split())
            yield f"{page.url} {violation['id']}: {node['html'][:200]} {why}"


def visit(page: Page, address: str) -> None:
    page.goto(address)
    expect(page.get_by_role("heading", level=1)).to_be_visible(timeout=30_000)
    settle(page)
    page.wait_for_timeout(500)  # what fades in has other colours before
