"""What is wrong with a page: by axe-core and the rules of WCAG 2 A and AA, and by whether it fits and has names."""

from __future__ import annotations

from collections.abc import Iterator

from axe_playwright_python.sync_playwright import Axe
from browser import stand_still
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


CONTROLS = {"button", "checkbox", "combobox", "link", "listbox", "menuitem", "option", "radio", "searchbox", "slider"}
CONTROLS |= {"spinbutton", "switch", "tab", "textbox"}


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


def misshapen(page: Page) -> Iterator[str]:
    """A page that scrolls sideways, has not one heading of its own or a traceback, and controls without names."""
    if page.evaluate("document.scrollingElement.scrollWidth > innerWidth"):
        yield f"{page.url} scrolls sideways"
    if page.get_by_test_id("stMain").evaluate("main => main.scrollWidth > main.clientWidth"):
        yield f"{page.url}: what is beside the sidebar scrolls sideways"
    if (headings := page.locator("h1").count()) != 1:
        yield f"{page.url} has {headings} headings of level 1"
    if page.get_by_text("Traceback").count():
        yield f"{page.url} shows a traceback"
    yield from _unnamed_controls(page)


def _unnamed_controls(page: Page) -> Iterator[str]:
    """By the browser's own reckoning, which is what a screen reader says."""
    devtools = page.context.new_cdp_session(page)
    for node in devtools.send("Accessibility.getFullAXTree")["nodes"]:
        role = node.get("role", {}).get("value")
        if not node["ignored"] and role in CONTROLS and not node.get("name", {}).get("value", "").strip():
            found = devtools.send("DOM.getOuterHTML", {"backendNodeId": node["backendDOMNodeId"]})
            yield f"{page.url} has a {role} without a name: {found['outerHTML'][:200]}"
    devtools.detach()


def visit(page: Page, address: str) -> None:
    page.goto(address)
    expect(page.get_by_role("heading", level=1)).to_be_visible(timeout=30_000)
    stand_still(page)
