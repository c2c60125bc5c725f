"""Who gets in, and what they may do: run without a browser on a real embedded server."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from clicking import ROOT, look_up, open_page, own_server, press, words
from streamlit import config
from streamlit.testing.v1 import AppTest

from embedcache import EmbeddingsCache
from embedcache.vectorizers import DEFAULT_MODEL
from pages.ui import access, configuration, passwords
from pages.ui.passwords import Throttle, hashed

EDITOR, VIEWER = "the editors' words", "the viewers' words"
PAGES = [None, "hit_rates", "lookup", "embed", "settings"]
OIDC = {
    "auth": {
        "redirect_uri": "http://localhost:8501/oauth2callback",
        "cookie_secret": "x" * 32,
        "client_id": "c",
        "client_secret": "s",
        "server_metadata_url": "https://idp.example.org/.well-known/openid-configuration",
    },
    "embedcache": {"editors": ["Ada@example.org"]},
}


@pytest.fixture(autouse=True)
def fresh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(access, "_throttle", Throttle())
    with own_server(tmp_path, monkeypatch):
        yield


@pytest.fixture(scope="module")
def hashes() -> Iterator[dict[str, str]]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(passwords, "_N", 2**10)  # what a hash costs is tested elsewhere
        yield {"editor": hashed(EDITOR), "viewer": hashed(VIEWER)}


@pytest.fixture
def locked(hashes: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(configuration.EDITOR_HASH_VARIABLE, hashes["editor"])
    monkeypatch.setenv(configuration.VIEWER_HASH_VARIABLE, hashes["viewer"])


@pytest.fixture
def cache() -> Iterator[EmbeddingsCache]:
    with EmbeddingsCache() as opened:
        yield opened


@pytest.fixture
def reachable_from_elsewhere() -> Iterator[None]:
    before = config.get_option("server.address")
    config.set_option("server.address", "0.0.0.0")  # noqa: S104 - nothing listens
    yield
    config.set_option("server.address", before)


def log_in(app: AppTest, password: str) -> AppTest:
    app.text_input(key="typed_password").set_value(password)
    return press(app, "Log in")


def titles(app: AppTest) -> list[str]:
    return [title.value for title in app.title]


def visit(user: dict[str, object], secrets: dict[str, object], page: str | None = None) -> AppTest:
    """Opens a page as somebody whom an OIDC login knows as this user."""
    app = AppTest.from_file(str(ROOT / "app.py"), default_timeout=30)
    app.secrets.update(secrets)
    app.user = user
    app.run()
    if page:
        app.switch_page(f"pages/{page}.py").run()
    assert not app.exception
    return app


def badges(app: AppTest) -> list[str]:
    return [each.value for each in app.sidebar.markdown]


# ------------------------------------------------------------------------------------------------ nobody is asked


def test_on_this_machine_nobody_is_asked() -> None:
    app = open_page()
    assert titles(app) == ["Overview"]
    assert any("Editor" in badge for badge in badges(app))


@pytest.mark.parametrize("page", PAGES)
def test_from_elsewhere_nothing_is_shown_before_a_login_is_set_up(
    page: str | None, reachable_from_elsewhere: None, cache: EmbeddingsCache
) -> None:
    cache.set("a secret text", "a secret model", [1.0])
    app = open_page(page)
    assert titles(app) == ["Set up a login first"]
    assert "secret" not in repr(app.main)
    assert not app.sidebar.selectbox
    assert "embedcache dashboard --hash-password" in app.code[0].value


@pytest.mark.parametrize(
    ("address", "open_to_all"),
    [
        *((address, False) for address in ("127.0.0.1", "localhost", "::1", "127.1.2.3")),
        *((address, True) for address in ("0.0.0.0", "::", "192.168.1.4", "dashboard.example.org", None)),  # noqa: S104 - nothing listens
        ("unix:///run/s", True),
    ],
)
def test_which_addresses_are_this_machine_alone(
    address: str | None, open_to_all: bool, reachable_from_elsewhere: None
) -> None:
    config.set_option("server.address", address)
    assert configuration.listens_to_this_machine_alone() is not open_to_all


# ------------------------------------------------------------------------------------------------ a password


@pytest.mark.parametrize("page", PAGES)
def test_nothing_is_shown_before_the_password(page: str | None, locked: None, cache: EmbeddingsCache) -> None:
    cache.set("a secret text", "a secret model", [1.0])
    app = open_page(page)
    assert titles(app) == ["Log in"]
    assert "secret" not in repr(app.main)
    assert not app.sidebar.selectbox


@pytest.mark.parametrize(("password", "badge"), [(EDITOR, "Editor"), (VIEWER, "Viewer")])
def test_each_password_gives_its_role(password: str, badge: str, locked: None) -> None:
    app = log_in(open_page(), password)
    assert titles(app) == ["Overview"]
    assert any(badge in each for each in badges(app))


def test_a_wrong_password_gives_nothing_and_is_forgotten(locked: None) -> None:
    app = log_in(open_page(), "something else")
    assert titles(app) == ["Log in"]
    assert "This is not the password" in words(app)
    assert app.text_input(key="typed_password").value == ""
    assert "something else" not in repr(app.session_state)
    assert "There is no password here yet" in words(log_in(app, ""))


def test_guessing_is_slowed_down_and_new_sessions_do_not_help(locked: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(access, "_throttle", Throttle(clock=lambda: 0.0))  # on a busy machine a page outlasts a pause
    app = open_page()
    for _ in range(passwords.FREE_PER_SESSION):
        log_in(app, "wrong")
    assert "Too many wrong passwords" in words(log_in(app, EDITOR))
    assert titles(app) == ["Log in"]
    for _ in range(passwords.FREE_IN_ALL - passwords.FREE_PER_SESSION):
        log_in(open_page(), "wrong")
    assert "Too many wrong passwords" in words(log_in(open_page(), EDITOR))


@pytest.mark.parametrize("text", ["", "correct horse", "scrypt:1:2:3"])
def test_a_malformed_hash_is_no_open_door(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(configuration.EDITOR_HASH_VARIABLE, text)
    app = open_page()
    assert titles(app) == ["Nobody can log in yet"]
    assert configuration.EDITOR_HASH_VARIABLE in app.error[0].value
    assert not app.text_input
    assert not app.sidebar.selectbox


def test_a_password_is_asked_for_from_elsewhere_too(locked: None, reachable_from_elsewhere: None) -> None:
    app = open_page()
    assert titles(app) == ["Log in"]
    assert titles(log_in(app, EDITOR)) == ["Overview"]


def test_logging_out_forgets_the_user(locked: None, cache: EmbeddingsCache) -> None:
    cache.set("t", DEFAULT_MODEL, [1.0])
    app = log_in(open_page("lookup"), EDITOR)
    look_up(app, "t")
    app.switch_page("pages/settings.py").run()
    app.session_state["settings"] = "You"
    app.run()
    press(app, "Log out")
    assert titles(app) == ["Log in"]
    assert "lookup_text" not in app.session_state
    assert "looked_up" not in app.session_state


# ------------------------------------------------------------------------------------------------ OIDC


def test_oidc_asks_first(monkeypatch: pytest.MonkeyPatch) -> None:
    app = visit({"is_logged_in": False}, OIDC)
    assert titles(app) == ["Log in"]
    assert [button.label for button in app.button] == ["Log in"]
    assert titles(visit({}, OIDC)) == ["Log in"]


@pytest.mark.parametrize(
    ("user", "badge"),
    [
        ({"is_logged_in": True, "email": "ada@example.org"}, "Editor"),
        ({"is_logged_in": True, "email": "ADA@EXAMPLE.ORG", "email_verified": True}, "Editor"),
        ({"is_logged_in": True, "email": "ada@example.org", "email_verified": False}, "Viewer"),
        ({"is_logged_in": True, "email": "bob@example.org"}, "Viewer"),
        ({"is_logged_in": True, "email": ""}, "Viewer"),
        ({"is_logged_in": True, "name": "ada@example.org"}, "Viewer"),
    ],
)
def test_oidc_editors_are_those_on_the_list(user: dict[str, object], badge: str) -> None:
    assert any(badge in each for each in badges(visit(user, OIDC)))


def test_oidc_comes_before_a_password(locked: None) -> None:
    assert not visit({"is_logged_in": False}, OIDC).text_input


@pytest.mark.parametrize("editors", ["ada@example.org", [1], {"ada": True}])
def test_an_unreadable_list_of_editors_lets_nobody_in(editors: object) -> None:
    app = visit({"is_logged_in": True, "email": "ada@example.org"}, {**OIDC, "embedcache": {"editors": editors}})
    assert titles(app) == ["Nobody can log in yet"]
    assert "`editors`" in app.error[0].value


def test_a_hostile_name_is_text() -> None:
    app = visit({"is_logged_in": True, "email": "**x** <script>"}, OIDC, "settings")
    app.session_state["settings"] = "You"
    app.run()
    assert "`**x** <script>`" in words(app)


# ------------------------------------------------------------------------------------------------ read-only


def _writes_are_off(app: AppTest, why: str) -> None:
    for label in ("Set TTL", "Never expire", "Drop entry"):
        (button,) = [button for button in app.button if button.label == label]
        assert button.disabled
        assert why in button.help


def test_a_viewer_changes_nothing(locked: None, cache: EmbeddingsCache) -> None:
    key = cache.set("t", DEFAULT_MODEL, [1.0], ttl=1_000)
    app = look_up(log_in(open_page("lookup"), VIEWER), "t")
    _writes_are_off(app, "You are a viewer")
    (button,) = [button for button in app.button if button.label == "Never expire"]
    button.proto.disabled = False  # as a forged message would
    button.click().run()
    assert not app.exception
    assert isinstance(cache.remaining_ttl(key), int)


def test_read_only_for_all(monkeypatch: pytest.MonkeyPatch, cache: EmbeddingsCache) -> None:
    monkeypatch.setenv(configuration.READ_ONLY_VARIABLE, "1")
    cache.set("t", DEFAULT_MODEL, [1.0])
    app = look_up(open_page("lookup"), "t")
    assert any("Read-only" in badge for badge in badges(app))
    _writes_are_off(app, "whoever runs it")


@pytest.mark.parametrize(("value", "read_only"), [("", False), ("0", False), ("No", False), ("1", True), ("x", True)])
def test_what_switches_read_only_on(value: str, read_only: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(configuration.READ_ONLY_VARIABLE, value)
    assert configuration.read_only() is read_only


def test_the_switch_is_this_users_alone(cache: EmbeddingsCache) -> None:
    cache.set("t", DEFAULT_MODEL, [1.0])
    mine, yours = open_page("settings"), open_page("settings")
    mine.session_state["settings"] = "You"
    mine.run()
    mine.toggle(key="read_only").set_value(True).run()
    for app, off in ((mine, True), (yours, False)):
        app.switch_page("pages/lookup.py").run()
        look_up(app, "t")
        (button,) = [button for button in app.button if button.label == "Drop entry"]
        assert button.disabled is off


def test_what_gets_past_the_buttons_is_refused_below_the_pages(tmp_path: Path, cache: EmbeddingsCache) -> None:
    key = cache.set("t", "m", [1.0])
    script = tmp_path / "script.py"
    script.write_text(
        "import streamlit as st\n"
        "from pages.ui import session, widgets\n"
        "st.session_state['read_only'] = True\n"
        "with widgets.errors_as_sentences():\n"
        f"    session.open_cache('embedcache').drop_by_key({key!r})\n"
        "st.write('dropped')\n"
    )
    app = AppTest.from_file(str(script), default_timeout=30).run()
    assert not app.exception
    assert "Nothing was changed." in words(app)
    assert "switched on" in words(app)
    assert "dropped" not in words(app)
    assert cache.exists("t", "m")


def test_a_page_without_the_frame_opens_nothing(tmp_path: Path, locked: None) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "import streamlit as st\n"
        "from pages.ui import failures, session\n"
        "with failures.guard():\n"
        "    session.open_cache('embedcache')\n"
        "    st.write('opened')\n"
    )
    app = AppTest.from_file(str(script), default_timeout=30).run()
    assert "not logged in" in words(app)
    assert "opened" not in words(app)
