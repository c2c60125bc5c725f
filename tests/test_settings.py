"""The page Settings, run without a browser on real servers; and many users at once, each with settings of their own."""

from __future__ import annotations

import gc
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from clicking import HOSTILE, ROOT, look_up, metrics, open_page, own_server, press, words
from servers import Server, running
from streamlit.testing.v1 import AppTest

from embedcache import EmbeddingsCache, audit
from embedcache.vectorizers import DEFAULT_MODEL
from pages.ui import access, connections, session, wording

PASSWORD = "s3cr3t/@:%"  # noqa: S105 - of a server of the tests' own


@pytest.fixture(autouse=True)
def fresh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with own_server(tmp_path, monkeypatch):
        yield


@pytest.fixture
def other() -> Iterator[Server]:
    with running("valkey9") as server:
        yield server


@pytest.fixture
def locked() -> Iterator[Server]:
    with running("valkey9", password=PASSWORD) as server:
        yield server


def open_tab(tab: str, app: AppTest | None = None) -> AppTest:
    app = app or open_page("settings")
    app.session_state["settings"] = tab
    app.run()
    assert not app.exception
    return app


def add(app: AppTest, name: str, url: str, password: str = "") -> AppTest:
    app.text_input(key="settings_new_name").set_value(name)
    app.text_input(key="settings_new_url").set_value(url)
    app.text_input(key="settings_new_password").set_value(password)
    return press(app, "Add")


def switch(app: AppTest, name: str) -> AppTest:
    app.radio(key="settings_server").set_value(name).run()
    assert not app.exception
    return app


def said(app: AppTest) -> str:
    return "\n".join(each.value for kind in (app.success, app.error, app.info) for each in kind)


# ------------------------------------------------------------------------------------------------ servers


def test_the_server_of_the_environment_is_there() -> None:
    app = open_page("settings")
    assert app.radio(key="settings_server").options == ["Default"]
    assert [tab.label for tab in app.tabs] == ["Servers", "Caches", "Token prices", "Audit log", "You"]


def test_a_server_is_tested() -> None:
    app = press(open_page("settings"), "Test")
    assert "answers: Valkey" in said(app)
    assert "ms" in said(app)


def test_a_server_is_added_switched_to_and_removed(other: Server) -> None:
    with EmbeddingsCache("theirs", redis_url=other.url) as theirs:
        theirs.set("t", DEFAULT_MODEL, [1.0, 2.0])
    app = add(open_page("settings"), "other", other.url)
    assert "answers: Valkey" in said(app)
    assert app.radio(key="settings_server").options == ["Default", "other"]
    assert app.radio(key="settings_server").value == "Default"
    assert app.text_input(key="settings_new_url").value == ""

    switch(app, "other")
    assert "You work with `other` now." in said(app)
    assert app.selectbox(key=session.CACHE_KEY).value == "theirs"  # the default's is not on that server
    assert "other: Valkey" in "\n".join(each.value for each in app.sidebar.markdown)
    app.switch_page("pages/lookup.py").run()
    assert metrics(look_up(app, "t"))["Dimension"] == "2"

    app.switch_page("pages/settings.py").run()
    press(app, "Remove")
    assert app.radio(key="settings_server").options == ["Default"]
    assert app.selectbox(key=session.CACHE_KEY).value == "embedcache"


def test_what_was_found_is_forgotten_and_what_was_typed_stays(other: Server) -> None:
    with EmbeddingsCache() as cache:
        cache.set("t", DEFAULT_MODEL, [1.0])
        app = look_up(open_page("lookup"), "t")
    app.switch_page("pages/settings.py").run()
    switch(add(app, "other", other.url), "other")
    app.query_params.clear()  # a browser's address names a page's parameters on that page alone
    app.switch_page("pages/lookup.py").run()
    assert not app.metric
    assert app.text_area(key="lookup_text").value == "t"


def test_a_password_is_used_and_never_shown(locked: Server) -> None:
    url = locked.url.replace("unix://", "unix://default@")
    app = add(open_page("settings"), "locked", url, PASSWORD)
    assert "answers: Valkey" in said(app)
    switch(app, "locked")
    assert not app.error
    for page in ("settings", "overview", "hit_rates", "lookup"):
        app.switch_page(f"pages/{page}.py").run()
        assert not app.exception
        shown = repr(app.main) + repr(app.sidebar)
        assert PASSWORD not in shown
        assert "s3cr3t" not in shown
    assert connections.Connection("x", f"redis://:{PASSWORD}@h", "mine").url not in repr(
        connections.Connection("x", f"redis://:{PASSWORD}@h", "mine")
    )


def test_a_wrong_password_is_a_sentence(locked: Server) -> None:
    app = add(open_page("settings"), "locked", locked.url, "wrong")
    assert "are its address and password right?" in said(app)
    assert "invalid username-password pair" in said(app)
    switch(app, "locked")
    app.switch_page("pages/overview.py").run()
    assert not app.exception
    assert app.error


@pytest.mark.parametrize(
    ("name", "url", "password", "why"),
    [
        ("", "redis://localhost", "", "Give the server a name"),
        ("x", "", "", "There is no URL here yet"),
        ("Default", "redis://localhost", "", "a server of this name already"),
        ("x", "redis://:s3cr3t@localhost", "", "into its own field"),
        ("x", "redis://localhost?password=s3cr3t", "", "into its own field"),
        ("x", "redis+sentinel://:s3cr3t@one,two/vectors", "", "into its own field"),
        ("x", "redis+sentinel://one,two/vectors?sentinel_password=s3cr3t", "", "name the server in its secrets"),
        ("x", "rediss://localhost?ssl_Pa%73sword=s3cr3t", "", "name the server in its secrets"),
        ("x", "redis+sentinel://one,two", "s3cr3t", "This URL cannot be used"),
        ("x", "rediss://localhost?ssl_ca_certs=/nowhere", "s3cr3t", "This URL cannot be used"),
        ("x", "nonsense", "", "This URL cannot be used"),
        ("x", "http://169.254.169.254/", "", "This URL cannot be used"),
        ("x", "redis://localhost:port", "", "This URL cannot be used"),
        ("x", "redis://[::1", "", "cannot be read"),
        ("x", "embedded:///tmp/x", "s3cr3t", "has no password"),
        ("x", HOSTILE, "", "This URL cannot be used"),
    ],
)
def test_what_cannot_be_added_is_a_sentence(name: str, url: str, password: str, why: str) -> None:
    app = add(open_page("settings"), name, url, password)
    assert why in said(app)
    assert "s3cr3t" not in said(app)
    assert app.radio(key="settings_server").options == ["Default"]
    assert app.text_input(key="settings_new_password").value == ""


def test_a_server_that_does_not_answer_is_added_and_said() -> None:
    app = add(open_page("settings"), "gone", "redis://127.0.0.1:1")
    assert "cannot be used" in said(app)
    switch(app, "gone")
    for page in ("overview", "lookup", "hit_rates"):
        app.switch_page(f"pages/{page}.py").run()
        assert not app.exception
        assert "does not answer" in app.error[0].value
    app.switch_page("pages/settings.py").run()
    assert not app.error  # here one chooses another
    switch(app, "Default")
    app.switch_page("pages/overview.py").run()
    assert not app.error


def test_servers_of_the_secrets_are_listed(other: Server) -> None:
    app = AppTest.from_file(str(ROOT / "app.py"), default_timeout=30)
    app.secrets["embedcache"] = {"connections": {"staging": other.url, HOSTILE: "redis://h:1"}}
    app.run().switch_page("pages/settings.py").run()
    assert not app.exception
    assert len(app.radio(key="settings_server").options) == 3
    switch(app, "staging")
    assert not [button for button in app.button if button.label == "Remove"]
    assert "<script>" not in words(app)


def test_how_a_server_stays_is_said_with_lines_that_do_it() -> None:
    app = open_tab("Servers")
    assert any("in this session alone" in caption.value for caption in app.caption)
    assert any("secrets.toml" in caption.value for caption in app.caption)
    (shown,) = app.code
    assert list(tomllib.loads(shown.value)["embedcache"]["connections"]) == ["staging"]


def test_a_viewer_adds_no_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(access, "_by_oidc", lambda: access.Access("viewer", "v@example.org", "oidc"))
    monkeypatch.setattr(access, "way", lambda: "oidc")
    app = open_page("settings")
    (button,) = [button for button in app.button if button.label == "Add"]
    assert button.disabled
    button.proto.disabled = False  # as a forged message would
    app.text_input(key="settings_new_name").set_value("x")
    app.text_input(key="settings_new_url").set_value("redis://127.0.0.1:1")
    button.click().run()
    assert app.radio(key="settings_server").options == ["Default"]


# ------------------------------------------------------------------------------------------------ the other tabs


def test_caches_are_counted() -> None:
    with EmbeddingsCache() as cache, EmbeddingsCache(HOSTILE) as hostile:
        cache.mset([{"text": f"t{i}", "model_name": "m", "embedding": [1.0]} for i in range(1_200)])
        hostile.set("t", "m", [1.0])
        app = open_tab("Caches")
        table = app.dataframe[0].value
        assert list(table["entries"]) == [1_200, 1]
        cache.set("one more", "m", [1.0])
        assert list(press(app, "Count again").dataframe[0].value["entries"]) == [1_201, 1]
    assert "<script>" not in words(app)


def facts(app: AppTest) -> dict[str, str]:
    shown = app.table[0].value
    return dict(zip(shown["fact"], shown["value"], strict=True))


def tick(app: AppTest, row: int) -> AppTest:
    """The page with that row of the table ticked, as a browser would tell it."""
    app.session_state[app.dataframe[0].key] = {"selection": {"rows": [row], "columns": [], "cells": []}}
    app.run()
    assert not app.exception
    return app


def test_what_is_in_the_chosen_cache_is_told() -> None:
    with EmbeddingsCache() as cache:
        cache.mset([{"text": f"t{i}", "model_name": "m", "embedding": [1.0, 2.0]} for i in range(12)], ttl=7_200)
        cache.set("another", HOSTILE, [1.0])
        app = open_tab("Caches")
    assert facts(app)["Entries"] == "13"
    assert facts(app)["Models"] == f"`m` (12), {wording.code_span(HOSTILE, 80)} (1)"
    assert facts(app)["Vectors"] == "2 numbers as float32 (12), 1 number as float32 (1)"
    assert facts(app)["Layout"] == "embedcache's own"
    assert facts(app)["Own TTL"] == "2 h (12), none (1)"
    assert facts(app)["Next to leave"].endswith("1 entry stays")
    assert "The pages work on this cache." in words(app)
    assert "Work with it" not in [button.label for button in app.button]


def test_a_ticked_cache_is_told_of_and_worked_with() -> None:
    with EmbeddingsCache() as cache, EmbeddingsCache(HOSTILE) as hostile:
        cache.mset([{"text": f"t{i}", "model_name": "m", "embedding": [1.0]} for i in range(3)])
        hostile.set("t", "other/model", [1.0])
        app = tick(open_tab("Caches"), 1)
        assert facts(app)["Models"] == "`other/model`"
        press(app, "Work with it")
    assert "You work with the cache" in said(app)
    assert app.selectbox(key=session.CACHE_KEY).value == HOSTILE
    outside = words(app).replace(wording.code_span(HOSTILE, 80), "").replace(wording.code_span(HOSTILE, 60), "")
    assert "<script>" not in outside


def test_a_new_cache_is_started_by_its_name() -> None:
    with EmbeddingsCache() as cache:
        cache.set("t", "m", [1.0])
        app = open_tab("Caches")
        app.text_input(key="settings_new_cache").set_value(" products ")
        press(app, "Start it")
        assert app.selectbox(key=session.CACHE_KEY).value == "products"
        assert app.text_input(key="settings_new_cache").value == ""
        assert "It holds nothing." in words(app)
        assert cache.exists("t", "m")


@pytest.mark.parametrize("name", ["", "  "])
def test_a_name_that_cannot_be_is_a_sentence_and_stays(name: str) -> None:
    with EmbeddingsCache() as cache:
        cache.set("t", "m", [1.0])
        app = open_tab("Caches")
        app.text_input(key="settings_new_cache").set_value(name)
        press(app, "Start it")
    assert app.error
    assert app.selectbox(key=session.CACHE_KEY).value == session.DEFAULT_CACHE
    assert app.text_input(key="settings_new_cache").value == name


def test_no_cache_yet() -> None:
    assert "There is no cache on this server yet" in words(open_tab("Caches"))


def test_prices_are_those_of_hit_rates() -> None:
    with EmbeddingsCache() as cache:
        cache.set("t", "m", [1.0])
        app = open_tab("Token prices")
        app.selectbox(key="price_model").set_value("m")
        app.number_input(key="price_of_tokens").set_value(0.5)
        press(app, "Set price")
        assert cache.token_prices() == {"m": 0.5}
    assert "`m` cost 0.5 now" in said(app)


def test_prices_are_not_changed_by_who_only_looks() -> None:
    app = open_tab("You")
    app.toggle(key="read_only").set_value(True).run()
    open_tab("Token prices", app)
    assert [button.disabled for button in app.button if "price" in button.label] == [True, True]


def test_the_audit_log_of_all_caches() -> None:
    with EmbeddingsCache() as cache, EmbeddingsCache("docs") as docs:
        docs.set("t", "m", [1.0])
        audit.record(docs.connection, "docs", HOSTILE, "remove", count=3, size=2**20, detail={"filter": HOSTILE})
        audit.record(cache.connection, "embedcache", "ada@example.org", "set TTL", count=1)
        app = open_tab("Audit log")
    table = app.dataframe[0].value
    assert list(table["cache"]) == ["embedcache", "docs"]
    assert list(table["count"]) == [1, 3]
    assert table["actor"][0] == "ada@example.org"
    assert list(table["mebibytes"]) == [0.0, 1.0]
    assert "<script>" not in words(app)


def test_an_empty_audit_log_teaches() -> None:
    assert "Nobody has changed a cache" in words(open_tab("Audit log"))


def test_who_you_are() -> None:
    app = open_tab("You")
    assert "You are an **editor**" in words(app)
    assert not [button for button in app.button if button.label == "Log out"]
    app.toggle(key="read_only").set_value(True).run()
    assert any("Read-only" in each.value for each in app.sidebar.markdown)
    app.switch_page("pages/overview.py").run()
    assert any("Read-only" in each.value for each in app.sidebar.markdown)


# ------------------------------------------------------------------------------------------------ many at once


def test_twenty_users_never_see_each_others_state(other: Server) -> None:
    """Ten read-only and ten not, half on another server, each with a cache of their own, all interleaved."""
    users = list(range(20))
    for number in users:
        url = other.url if number % 2 else None
        with EmbeddingsCache(f"cache-{number}", redis_url=url) as cache:
            cache.set("t", DEFAULT_MODEL, [1.0] * (number + 1))
    apps = [open_page("settings") for _ in users]

    def choose(number: int) -> None:
        app = apps[number]
        if number % 2:
            switch(add(app, f"server of {number}", other.url), f"server of {number}")
        app.selectbox(key=session.CACHE_KEY).set_value(f"cache-{number}").run()
        if number % 4 < 2:
            open_tab("You", app).toggle(key="read_only").set_value(True).run()

    def look(number: int) -> tuple[str, bool, str]:
        app = apps[number]
        app.switch_page("pages/lookup.py").run()
        look_up(app, "t")
        (drop,) = [button for button in app.button if button.label == "Drop entry"]
        return metrics(app)["Dimension"], drop.disabled, app.selectbox(key=session.CACHE_KEY).value

    for number in users:
        choose(number)
    for number in reversed(users):
        assert look(number) == (str(number + 1), number % 4 < 2, f"cache-{number}")
    apps[0].switch_page("pages/settings.py").run()
    assert apps[0].radio(key="settings_server").options == ["Default"]
    apps[3].switch_page("pages/settings.py").run()
    assert apps[3].radio(key="settings_server").options == ["Default", "server of 3"]


def test_a_cache_is_opened_once_for_all_who_may_do_the_same_with_it() -> None:
    open_page("lookup")
    gc.collect()  # or those of other tests leave meanwhile
    before = len(session.opened_caches())
    for _ in range(5):
        open_page("lookup")
    assert len(session.opened_caches()) == before
