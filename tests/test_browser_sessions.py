"""Many users at once in real browsers, each with a login, a server and a cache of their own; and the unexpected."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

sync_api = pytest.importorskip("playwright.sync_api", reason="the extra dev brings playwright")

from browser import dashboard, launch, settle  # noqa: E402 - imports playwright itself
from playwright.sync_api import Browser, Page, expect, sync_playwright  # noqa: E402
from servers import Server, running  # noqa: E402

from embedcache import EmbeddingsCache  # noqa: E402
from embedcache.vectorizers import DEFAULT_MODEL  # noqa: E402
from pages.ui.passwords import hashed  # noqa: E402

pytestmark = pytest.mark.browser

EDITOR, VIEWER = "the editors' words", "the viewers' words"
PATIENCE = 120_000  # milliseconds: twenty pages at once share a machine of two cores

APP = """
import streamlit as st

def fail():
    {}["a secret key"]

st.title("Works")
st.button("Fail in a callback", on_click=fail)
if st.button("Fail in a fragment"):
    st.fragment(fail)()
"""
SERVER = """
import streamlit as st
from pages.ui.serving import say_unexpected

app = st.App("page.py", on_script_error=say_unexpected)
"""


@dataclass(frozen=True, slots=True)
class User:
    number: int
    password: str
    elsewhere: bool

    @property
    def cache_name(self) -> str:
        return f"cache-{self.number}"

    @property
    def may_write(self) -> bool:
        return self.password == EDITOR

    @property
    def entries(self) -> int:
        """In their cache."""
        return 1 + self.number

    @property
    def looks_up(self) -> bool:
        """Whether they are on Lookup at the end; the others are on Cleanup, which draws no chart."""
        return self.number % 10 == 0


# Editors and viewers, and of the editors every other one on a server that they added themselves.
USERS = [User(number, (EDITOR, VIEWER)[number % 2], elsewhere=number % 4 == 2) for number in range(20)]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    expect.set_options(timeout=PATIENCE)
    with sync_playwright() as playwright:
        launched = launch(playwright)
        yield launched
        launched.close()
    expect.set_options(timeout=None)


@pytest.fixture
def server() -> Iterator[Server]:
    with running("valkey9") as started:
        yield started


@pytest.fixture
def visit(browser: Browser) -> Iterator[Callable[..., Page]]:
    """Opens an address as somebody new."""
    contexts = []

    def open_as_new(address: str, width: int = 1440, height: int = 900) -> Page:
        context = browser.new_context(viewport={"width": width, "height": height})
        contexts.append(context)
        context.set_default_timeout(PATIENCE)
        page = context.new_page()
        page.goto(address)
        return page

    yield open_as_new
    for context in contexts:
        context.close()


def log_in(page: Page, password: str) -> None:
    page.get_by_label("Password", exact=True).fill(password)
    page.get_by_role("button", name="Log in").click()


def heading(page: Page, words: str) -> None:
    expect(page.get_by_role("heading", level=1, name=words)).to_be_visible()


def go(page: Page, name: str) -> None:
    page.get_by_test_id("stSidebarNav").get_by_role("link", name=name).click()
    heading(page, name)
    settle(page)


def choose_cache(page: Page, name: str) -> None:
    field = page.get_by_test_id("stSidebar").get_by_role("combobox")
    field.fill(name)
    field.press("Enter")
    settle(page)


def dimension(page: Page) -> sync_api.Locator:
    box = page.get_by_test_id("stMetric").filter(has=page.get_by_text("Dimension", exact=True))
    return box.get_by_test_id("stMetricValue")


# ------------------------------------------------------------------------------------------------ many at once


@pytest.fixture
def locked(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setenv("EMBEDCACHE_PASSWORD_HASH", hashed(EDITOR))
    monkeypatch.setenv("EMBEDCACHE_VIEWER_PASSWORD_HASH", hashed(VIEWER))
    with dashboard(server.url, tmp_path / "log") as address:
        yield address


def settle_in(page: Page, user: User, elsewhere: Server) -> None:
    """Adds this user's server, and switches to it."""
    page.get_by_label("Name", exact=True).fill(f"server of {user.number}")
    page.get_by_label("URL, without the password", exact=True).fill(elsewhere.url)
    page.get_by_role("button", name="Add", exact=True).click()
    page.get_by_test_id("stRadio").get_by_text(f"server of {user.number}").click()
    expect(page.get_by_text("You work with").first).to_be_visible()


def do_something(page: Page, user: User) -> None:
    page.bring_to_front()
    if user.looks_up:
        go(page, "Lookup")
        page.get_by_label("Text", exact=True).fill("t")
        page.get_by_role("button", name="Look up").click()
        return
    go(page, "Cleanup")
    page.get_by_text("Clear the cache", exact=True).click()
    page.get_by_role("button", name="Make a plan").click()
    if user.may_write:
        field = page.get_by_label("Type the name of the cache to confirm")
        field.fill(user.cache_name)
        field.press("Enter")


def assert_own_state(page: Page, user: User) -> None:
    page.bring_to_front()
    if user.looks_up:
        expect(dimension(page)).to_have_text(str(10 + user.number))
        act = page.get_by_role("button", name="Drop entry")
    else:
        entries = f"{user.entries} {'entry' if user.entries == 1 else 'entries'}"
        act = page.get_by_role("button", name=f"Remove all {entries}", exact=True)
    # On Cleanup, what this user typed is what makes it so.
    expect(act).to_be_enabled() if user.may_write else expect(act).to_be_disabled()
    sidebar = page.get_by_test_id("stSidebar")
    expect(sidebar).to_contain_text("Editor" if user.may_write else "Viewer")
    if user.elsewhere:
        expect(sidebar).to_contain_text(f"server of {user.number}:")
    else:
        expect(sidebar).not_to_contain_text("server of")


@pytest.mark.timeout(500)
def test_twenty_users_never_see_each_others_state(locked: str, server: Server, visit: Callable[..., Page]) -> None:
    with running("valkey9") as other:
        for user in USERS:
            with EmbeddingsCache(user.cache_name, redis_url=(other if user.elsewhere else server).url) as cache:
                for number in range(user.entries):
                    cache.set(f"t{number or ''}", DEFAULT_MODEL, [1.0] * (10 + user.number))
        pages = {user: visit(f"{locked}/settings", 1000, 600) for user in USERS}
        # In turn, step by step, so that each step of one lies between the steps of all others.
        for user, page in pages.items():
            log_in(page, user.password)
        for user, page in pages.items():
            heading(page, "Settings")
            if user.elsewhere:
                settle_in(page, user, other)
        for user, page in pages.items():
            choose_cache(page, user.cache_name)  # which runs the page again
            options = page.get_by_test_id("stRadio").get_by_role("radio")
            expect(options).to_have_count(2 if user.elsewhere else 1)
        for user, page in reversed(pages.items()):
            do_something(page, user)
        for user, page in pages.items():
            assert_own_state(page, user)


def test_a_link_survives_the_login(locked: str, server: Server, visit: Callable[..., Page]) -> None:
    with EmbeddingsCache(redis_url=server.url) as cache:
        key = cache.set("t", "m", [0.5, 1.0])
    page = visit(f"{locked}/lookup?key={key}")
    heading(page, "Log in")
    expect(page.get_by_test_id("stSidebarNav")).to_have_count(0)
    log_in(page, "wrong")
    expect(page.get_by_text("This is not the password.")).to_be_visible()
    log_in(page, VIEWER)
    expect(dimension(page)).to_have_text("2")
    go(page, "Settings")
    page.get_by_role("tab", name="You").click()
    page.get_by_role("button", name="Log out").click()
    heading(page, "Log in")
    expect(page.get_by_test_id("stSidebarNav")).to_have_count(0)


def test_the_login_fits_a_phone(locked: str, visit: Callable[..., Page]) -> None:
    page = visit(locked, 390, 844)
    heading(page, "Log in")
    log_in(page, EDITOR)
    heading(page, "Overview")
    page.goto(f"{locked}/settings")
    log_in(page, EDITOR)
    heading(page, "Settings")
    for tab in ("Servers", "Caches", "Token prices", "Audit log", "You"):
        page.get_by_role("tab", name=tab).click()
        settle(page)
        beyond = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
        assert page.get_by_test_id("stMain").evaluate("main => main.scrollWidth - main.clientWidth") <= 0
        assert page.evaluate(beyond) <= 0


# ------------------------------------------------------------------------------------------------ the unexpected


@pytest.mark.parametrize("where", ["callback", "fragment"])
def test_no_traceback_reaches_a_page(where: str, tmp_path: Path, visit: Callable[..., Page]) -> None:
    (tmp_path / "page.py").write_text(APP)
    (tmp_path / "server.py").write_text(SERVER)
    log = tmp_path / "log"
    with dashboard("embedded://", log, tmp_path / "server.py") as address:
        page = visit(address)
        heading(page, "Works")
        page.get_by_role("button", name=f"Fail in a {where}").click()
        said = page.get_by_test_id("stAlert")
        expect(said).to_contain_text("that is our mistake")
        reference = re.search(r"[0-9a-f]{8}", said.inner_text())
        assert reference
        shown = page.content()
        assert "Traceback" not in shown
        assert "secret" not in shown
        page.get_by_role("button", name="Show the page again").click()
        expect(said).to_have_count(0)
        heading(page, "Works")
    written = log.read_text()
    assert reference[0] in written
    assert "a secret key" in written
