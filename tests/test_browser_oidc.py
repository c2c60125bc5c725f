"""Logging in by OIDC, through Streamlit's own login and a provider that signs its tokens, in a real browser."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

sync_api = pytest.importorskip("playwright.sync_api", reason="the extra dev brings playwright")
pytest.importorskip("authlib", reason="the extra auth brings Authlib")

from browser import dashboard, settle  # noqa: E402 - imports playwright itself
from identity_provider import Provider, identity_provider  # noqa: E402
from playwright.sync_api import Browser, Page, expect  # noqa: E402
from servers import Server, running  # noqa: E402

from embedcache import EmbeddingsCache, audit  # noqa: E402
from embedcache.vectorizers import DEFAULT_MODEL  # noqa: E402

pytestmark = pytest.mark.browser

PATIENCE = 30_000  # milliseconds
ADA, BOB = "ada@example.org", "bob@example.org"
PEOPLE = {
    "Ada": {"email": ADA, "email_verified": True, "name": "Ada"},
    "Bob": {"email": BOB, "email_verified": True, "name": "Bob"},
    "Somebody who says to be Ada": {"email": ADA, "email_verified": False},
    "Somebody who forges Ada's token": {"email": ADA, "email_verified": True},
}
FORGED = frozenset({"Somebody who forges Ada's token"})


@pytest.fixture(scope="module")
def provider() -> Iterator[Provider]:
    with identity_provider(PEOPLE, FORGED) as started:
        yield started


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with running("valkey9") as started:
        yield started


@pytest.fixture(scope="module")
def address(provider: Provider, server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("dashboard")
    (folder / "secrets.toml").write_text(provider.secrets_toml(editors=[ADA.upper()]))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STREAMLIT_SECRETS_FILES", str(folder / "secrets.toml"))
        with dashboard(server.url, folder / "log") as started:
            yield started


@pytest.fixture
def visit(browser: Browser, address: str) -> Iterator[Callable[[], Page]]:
    """Opens the dashboard as somebody new."""
    contexts = []

    def open_as_new() -> Page:
        contexts.append(browser.new_context())
        contexts[-1].set_default_timeout(PATIENCE)
        page = contexts[-1].new_page()
        page.goto(address)
        heading(page, "Log in")
        return page

    yield open_as_new
    for context in contexts:
        context.close()


def heading(page: Page, words: str) -> None:
    expect(page.get_by_role("heading", level=1, name=words)).to_be_visible(timeout=PATIENCE)


def log_in(page: Page, person: str) -> None:
    """From the dashboard to the provider, where one says who one is, and back."""
    page.get_by_role("button", name="Log in").click()
    heading(page, "Who are you?")
    page.get_by_role("link", name=person, exact=True).click()


def go(page: Page, name: str) -> None:
    page.get_by_test_id("stSidebarNav").get_by_role("link", name=name).click()
    heading(page, name)
    settle(page)


def look_up(page: Page) -> None:
    go(page, "Lookup")
    page.get_by_label("Text", exact=True).fill("t")
    page.get_by_role("button", name="Look up").click()
    expect(page.get_by_role("button", name="Drop entry")).to_be_visible()
    settle(page)


@pytest.fixture
def cache(server: Server) -> Iterator[EmbeddingsCache]:
    server.raw.flushall()
    with EmbeddingsCache(redis_url=server.url) as opened:
        opened.set("t", DEFAULT_MODEL, [1.0, 0.5])
        yield opened


def test_an_editor_logs_in_changes_something_and_logs_out(
    visit: Callable[[], Page], cache: EmbeddingsCache, provider: Provider
) -> None:
    page = visit()
    expect(page.get_by_test_id("stSidebarNav")).to_have_count(0)
    log_in(page, "Ada")
    heading(page, "Overview")
    expect(page.get_by_test_id("stSidebar")).to_contain_text("Editor")
    look_up(page)
    page.get_by_role("button", name="Drop entry").click()
    page.get_by_role("button", name="Drop it").click()
    expect(page.get_by_text("Dropped.")).to_be_visible()
    (record,) = audit.read(cache.connection, cache.name)
    assert (record.actor, record.action) == (ADA, "remove")
    go(page, "Settings")
    page.get_by_role("tab", name="You").click()
    expect(page.get_by_text(f"You are logged in as {ADA}.")).to_be_visible()
    before = provider.logged_out
    page.get_by_role("button", name="Log out").click()
    heading(page, "Log in")
    expect(page.get_by_test_id("stSidebarNav")).to_have_count(0)
    assert provider.logged_out == before + 1
    page.reload()
    heading(page, "Log in")


@pytest.mark.parametrize("person", ["Bob", "Somebody who says to be Ada"])
def test_who_is_not_on_the_list_looks_and_changes_nothing(
    person: str, visit: Callable[[], Page], cache: EmbeddingsCache
) -> None:
    page = visit()
    log_in(page, person)
    heading(page, "Overview")
    expect(page.get_by_test_id("stSidebar")).to_contain_text("Viewer")
    look_up(page)
    for name in ("Drop entry", "Set TTL", "Edit metadata"):
        expect(page.get_by_role("button", name=name)).to_be_disabled()
    assert cache.exists("t", DEFAULT_MODEL)


def test_a_forged_token_lets_nobody_in(visit: Callable[[], Page], cache: EmbeddingsCache) -> None:
    page = visit()
    log_in(page, "Somebody who forges Ada's token")
    heading(page, "Log in")
    settle(page)
    expect(page.get_by_test_id("stSidebarNav")).to_have_count(0)


def test_after_a_login_comes_the_page_whose_link_was_opened(
    visit: Callable[[], Page], cache: EmbeddingsCache, address: str
) -> None:
    page = visit()
    page.goto(f"{address}/lookup?cache={cache.name}&key={cache.key_for('t', DEFAULT_MODEL)}")
    heading(page, "Log in")
    log_in(page, "Bob")
    heading(page, "Lookup")
    expect(page.get_by_role("button", name="Drop entry")).to_be_visible()
    page.reload()
    expect(page.get_by_role("button", name="Drop entry")).to_be_visible()


def test_a_login_outlives_a_reload_and_is_one_browsers_alone(visit: Callable[[], Page], cache: EmbeddingsCache) -> None:
    ada, bob = visit(), visit()
    log_in(ada, "Ada")
    heading(ada, "Overview")
    heading(bob, "Log in")
    log_in(bob, "Bob")
    heading(bob, "Overview")
    ada.reload()
    heading(ada, "Overview")
    expect(ada.get_by_test_id("stSidebar")).to_contain_text("Editor")
    expect(bob.get_by_test_id("stSidebar")).to_contain_text("Viewer")
