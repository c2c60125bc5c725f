"""The dashboard's pages, run without a browser on a real embedded server: what a user reads, and never a traceback."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import streamlit as st
from clicking import HOSTILE, ROOT, embed, finish, look_up, metrics, open_page, own_server, press, words
from remembering import RememberingModel
from streamlit.testing.v1 import AppTest

from embedcache import NEVER, EmbeddingsCache
from embedcache.server import EmbeddedServer
from embedcache.vectorizers import DEFAULT_MODEL
from pages.ui import session


@pytest.fixture(autouse=True)
def fresh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(session, "HFTextVectorizer", RememberingModel)
    with own_server(tmp_path, monkeypatch):
        yield


@pytest.fixture
def cache() -> Iterator[EmbeddingsCache]:
    with EmbeddingsCache() as opened:
        yield opened


# ------------------------------------------------------------------------------------------------ Lookup


def test_look_up_by_text(cache: EmbeddingsCache) -> None:
    key = cache.set("t", DEFAULT_MODEL, [0.5] * 384, {"a": 1}, ttl=5_400)
    app = look_up(open_page("lookup"), "t")
    assert metrics(app)["Own TTL"] == "1 h 30 min"
    assert metrics(app)["Expires"] in {"in 1 h 30 min", "in 1 h 29 min"}
    assert metrics(app)["Dimension"] == "384"
    assert {"t", DEFAULT_MODEL, key} <= {block.value for block in app.code}
    assert json.loads(app.json[0].value) == {"a": 1}
    assert [button.label for button in app.download_button] == [".npy", ".json", ".csv"]
    assert "Stored " in words(app)


def test_looking_does_not_make_it_live_longer(cache: EmbeddingsCache) -> None:
    key = cache.set("t", DEFAULT_MODEL, [0.5], ttl=1_000)
    cache.connection.client().expire(key, 10)
    look_up(open_page("lookup"), "t")
    left = cache.remaining_ttl(key)
    assert isinstance(left, int)
    assert left <= 10


def test_a_link_opens_an_entry_of_any_cache() -> None:
    with EmbeddingsCache("docs") as docs:
        key = docs.set("t", "m", [0.5, 1.0])
        app = AppTest.from_file(str(ROOT / "app.py"), default_timeout=30).run()
        app.switch_page("pages/lookup.py")
        app.query_params["key"] = key
        app.run()
    assert not app.exception
    assert metrics(app)["Dimension"] == "2"
    assert app.text_input(key="lookup_key").value == key


@pytest.mark.parametrize(
    ("key", "said"),
    [
        ("", "There is no key here yet"),
        ("nonsense", "has not the form of a key"),
        ("embedcache:" + "0" * 64, "holds nothing under this key"),
        ("embedcache:" + "A" * 64, "has not the form of a key"),
    ],
)
def test_a_key_that_finds_nothing(key: str, said: str) -> None:
    app = open_page("lookup")
    app.radio(key="lookup_way").set_value("key").run()
    app.text_input(key="lookup_key").set_value(key)
    press(app, "Look up")
    assert said in words(app)


def test_a_key_tells_why_nothing_is_there_any_more() -> None:
    with EmbeddingsCache() as cache:
        key = cache.set("short-lived", "m", [1.0], ttl=1)
        cache.flush_stats()
        deadline = time.monotonic() + 10
        while cache.exists_by_key(key):
            assert time.monotonic() < deadline
            time.sleep(0.05)
    app = open_page("lookup")
    app.radio(key="lookup_way").set_value("key").run()
    app.text_input(key="lookup_key").set_value(key)
    press(app, "Look up")
    assert "It was stored, and **its TTL ran out** " in words(app)


def test_a_miss_says_so() -> None:
    app = look_up(open_page("lookup"), "never seen")
    assert "Not in the cache" in words(app)
    assert [link.label for link in app.get("page_link")] == ["Embed a text"]
    assert "There is no text here yet" in words(look_up(app, "  "))


def test_the_ttl_is_changed(cache: EmbeddingsCache) -> None:
    key = cache.set("t", DEFAULT_MODEL, [0.5])
    app = look_up(open_page("lookup"), "t")
    assert metrics(app)["Expires"] == "never"
    app.number_input[0].set_value(7_200).run()
    press(app, "Set TTL")
    assert "It expires in 2 h now." in words(app)
    assert metrics(app)["Own TTL"] == "2 h"
    assert cache.remaining_ttl(key) == 7_200
    press(app, "Never expire")
    assert metrics(app)["Expires"] == "never"
    assert cache.remaining_ttl(key) is NEVER


def test_the_ttl_of_an_entry_that_is_gone(cache: EmbeddingsCache) -> None:
    key = cache.set("t", DEFAULT_MODEL, [0.5])
    app = look_up(open_page("lookup"), "t")
    cache.drop_by_key(key)
    press(app, "Set TTL")
    assert "It is gone" in words(app)
    assert not cache.exists_by_key(key)


def test_dropping_asks_first_and_acts_once(cache: EmbeddingsCache) -> None:
    cache.set("t", DEFAULT_MODEL, [0.5])
    app = press(look_up(open_page("lookup"), "t"), "Drop entry")
    assert cache.exists("t", DEFAULT_MODEL)
    press(app, "Keep it")
    assert cache.exists("t", DEFAULT_MODEL)
    press(app, "Drop entry")
    press(app, "Drop it")
    assert not cache.exists("t", DEFAULT_MODEL)
    assert "Dropped." in words(app)
    assert "Not in the cache" in words(app)


def test_a_second_click_drops_nothing(cache: EmbeddingsCache) -> None:
    cache.set("t", DEFAULT_MODEL, [0.5])
    app = press(look_up(open_page("lookup"), "t"), "Drop entry")
    (drop,) = [button for button in app.button if button.label == "Drop it"]
    drop.click().run()
    assert not cache.exists("t", DEFAULT_MODEL)
    cache.set("t", DEFAULT_MODEL, [0.5])  # somebody stores it again, between the two clicks
    drop.click().run()
    assert cache.exists("t", DEFAULT_MODEL)


# ------------------------------------------------------------------------------------------------ models


def test_pages_offer_the_models_that_entries_have(cache: EmbeddingsCache) -> None:
    for number in range(3):
        cache.set(f"t{number}", "z/frequent", [0.5])
    cache.set("t", "a/rare", [0.5])
    cache.get("t", "never/stored")
    cache.flush_stats()
    app = open_page("browse")  # which looks at all entries
    for page, key in (("cleanup", "cleanup_model"), ("lookup", "lookup_model"), ("vector_map", "map_model")):
        app.switch_page(f"pages/{page}.py").run()
        offered = [name for name in app.selectbox(key=key).options if "/" in name and name != DEFAULT_MODEL]
        assert offered == ["z/frequent", "a/rare"], page


# ------------------------------------------------------------------------------------------------ strangers' text


def test_hostile_entries_are_text(cache: EmbeddingsCache) -> None:
    key = cache.set(HOSTILE, HOSTILE, [0.5, -0.5], {HOSTILE: HOSTILE})
    app = AppTest.from_file(str(ROOT / "app.py"), default_timeout=30).run().switch_page("pages/lookup.py")
    app.query_params["key"] = key
    app.run()
    assert not app.exception
    assert HOSTILE.replace("\x1b", "␛") in [block.value for block in app.code]
    assert "<script>" not in words(app)


def test_a_long_text_is_cut(cache: EmbeddingsCache) -> None:
    cache.set("x" * 1_000_000, DEFAULT_MODEL, [0.5], {"y": "y" * 100_000})
    app = look_up(open_page("lookup"), "x" * 1_000_000)
    assert max(len(block.value) for block in app.code) <= 20_000
    assert "The first 10,000 of 1,000,000 characters." in words(app)
    assert "The first 20,000 of" in words(app)


def test_bytes_are_shown(cache: EmbeddingsCache) -> None:
    key = cache.set(b"\x89PNG\xff", "m", [0.5])
    app = AppTest.from_file(str(ROOT / "app.py"), default_timeout=30).run().switch_page("pages/lookup.py")
    app.query_params["key"] = key
    app.run()
    assert not app.exception
    assert "89 504e 47ff" in [block.value for block in app.code]
    assert "Stored as 5 bytes." in words(app)


# ------------------------------------------------------------------------------------------------ servers


@pytest.mark.parametrize("page", [None, "hit_rates", "embed", "lookup"])
@pytest.mark.parametrize(
    "url", ["unix:///nowhere/s.sock", "redis://127.0.0.1:1/0", "nonsense://x", "embedded:///proc/x"]
)
def test_no_server_is_a_sentence(page: str | None, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMBEDCACHE_URL", url)
    app = open_page(page)
    assert len(app.error) == 1
    assert app.error[0].value.startswith("**")


def test_a_server_that_goes_and_comes_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server = EmbeddedServer.attach(tmp_path / "own")
    monkeypatch.setenv("EMBEDCACHE_URL", f"unix://{server.socket_path}")
    app = embed(open_page("embed"), "t")
    assert metrics(app)["Misses"] == "1"
    st.cache_resource.clear()  # the server ends with its last client
    server.detach()
    embed(app, "typed meanwhile")
    assert "does not answer" in app.error[0].value
    assert app.text_area(key="embed_text").value == "typed meanwhile"
    server = EmbeddedServer.attach(tmp_path / "own")
    try:
        press(app, "Try again")
        assert not app.error
        assert app.text_area(key="embed_text").value == "typed meanwhile"
        finish(press(app, "Embed"))
        assert metrics(app)["Misses"] == "1"
        st.cache_resource.clear()
    finally:
        server.detach()


def test_a_user_who_may_not_look_around(cache: EmbeddingsCache, monkeypatch: pytest.MonkeyPatch) -> None:
    cache.set("t", DEFAULT_MODEL, [0.5])
    client = cache.connection.client()
    client.acl_setuser("narrow", enabled=True, passwords=["+pw"], keys=["*"], commands=["+@all", "-info", "-scan"])
    path = client.connection_pool.connection_kwargs["path"]
    monkeypatch.setenv("EMBEDCACHE_URL", f"unix://narrow:pw@{path}")
    assert metrics(look_up(open_page("lookup"), "t"))["Dimension"] == "1"
    assert metrics(embed(open_page("embed"), "t"))["Hits"] == "1"


def test_a_wrong_password_is_named(cache: EmbeddingsCache, monkeypatch: pytest.MonkeyPatch) -> None:
    cache.exists("t", "m")
    path = cache.connection.client().connection_pool.connection_kwargs["path"]
    monkeypatch.setenv("EMBEDCACHE_URL", f"unix://who:s3cr3t@{path}")
    said = open_page("embed").error[0].value
    assert "password" in said
    assert "s3cr3t" not in said


def test_pages_without_a_model_do_not_import_torch(tmp_path: Path) -> None:
    code = (
        "import sys\n"
        "from clicking import look_up, open_page, words\n"
        "assert 'Not in the cache' in words(look_up(open_page('lookup'), 't'))\n"
        "print('seen', sorted({'torch', 'sentence_transformers'} & set(sys.modules)))\n"
    )
    paths = f"{ROOT}{os.pathsep}{ROOT / 'tests'}"
    environment = {**os.environ, "EMBEDCACHE_URL": f"embedded://{tmp_path}/apart", "PYTHONPATH": paths}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment, cwd=ROOT
    )
    assert done.stdout.splitlines()[-1] == "seen []"
