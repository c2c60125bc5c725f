"""The dashboard's pages, run without a browser on a real embedded server: what a user reads, and never a traceback."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import streamlit as st
from clicking import HOSTILE, ROOT, look_up, metrics, open_page, own_server, press, words
from streamlit.testing.v1 import AppTest

from embedcache import NEVER, EmbeddingsCache, HFTextVectorizer
from embedcache.errors import ModelUnavailableError
from embedcache.server import EmbeddedServer
from embedcache.vectorizers import DEFAULT_MODEL
from pages.ui import session


class RememberingModel(HFTextVectorizer):
    """The bundled model, read from disk once for all tests, which remembers what it was asked to compute."""

    transformer: Any = None

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.computed: list[Any] = []

    def _load(self) -> Any:
        if RememberingModel.transformer is None:
            RememberingModel.transformer = super()._load()
        return RememberingModel.transformer

    def _compute(self, texts: Sequence[Any]) -> Any:
        self.computed += texts
        return super()._compute(texts)


@pytest.fixture(autouse=True)
def fresh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(session, "HFTextVectorizer", RememberingModel)
    with own_server(tmp_path, monkeypatch):
        yield


@pytest.fixture
def cache() -> Iterator[EmbeddingsCache]:
    with EmbeddingsCache() as opened:
        yield opened


def embed(app: AppTest, text: str) -> AppTest:
    app.text_area(key="embed_text").set_value(text)
    return press(app, "Embed")


# ------------------------------------------------------------------------------------------------ Overview


def test_an_empty_overview_teaches() -> None:
    app = open_page()
    assert app.title[0].value == "Overview"
    assert metrics(app)["Entries"] == "0"
    assert "Nothing is cached here yet" in words(app)
    assert [link.label for link in app.get("page_link")] == ["Embed a first text", "Hit rates over time"]


def test_overview_counts(cache: EmbeddingsCache) -> None:
    cache.mset([{"text": f"t{i}", "model_name": "m", "embedding": [1.0] * 4} for i in range(1_200)])
    with EmbeddingsCache("other:b") as other:
        other.set("t", "n", [1.0, 2.0])
        app = open_page()
    assert metrics(app)["Entries"] == "1,201"
    table = app.dataframe[0].value
    assert list(table["cache"]) == ["embedcache", "other:b"]
    assert list(table["entries"]) == [1_200, 1]
    figure = json.loads(app.get("plotly_chart")[0].proto.spec)
    assert figure["layout"]["xaxis"]["title"]["text"] == "entries"
    assert "with 1,200 entries" in words(app)
    facts = app.table[0].value.astype(str).to_string()
    assert "Valkey" in facts
    assert "embedded://" in facts


def test_refresh_counts_again(cache: EmbeddingsCache) -> None:
    app = open_page()
    cache.set("t", "m", [1.0])
    press(app, "Refresh")
    assert metrics(app)["Entries"] == "1"


def test_a_password_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMBEDCACHE_URL", "redis://user:s3cr3t@127.0.0.1:1/0?password=s3cr3t")
    app = open_page()
    assert "does not answer" in words(app)
    assert "s3cr3t" not in repr(app)


# ------------------------------------------------------------------------------------------------ Embed


def test_a_miss_then_a_hit(cache: EmbeddingsCache) -> None:
    app = embed(open_page("embed"), "What is machine learning?")
    assert metrics(app)["Misses"] == "1"
    assert metrics(app)["Hits"] == "0"
    press(app, "Embed")
    assert metrics(app)["Misses"] == "0"
    assert metrics(app)["Hits"] == "1"
    row = app.dataframe[0].value.iloc[0]
    assert list(row["result"]) == ["Hit"]
    assert row["dimension"] == 384
    assert row["ms"] > 0
    assert app.get("plotly_chart")
    assert cache.exists("What is machine learning?", DEFAULT_MODEL)


def test_what_could_not_be_stored_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    app = open_page("embed")

    def compute(self: RememberingModel, texts: Sequence[Any]) -> Any:
        monkeypatch.setenv("EMBEDCACHE_SERVER_BINARY", "/nowhere")  # the server cannot be brought back
        os.kill(EmbeddedServer.attach(tmp_path / "server").pid or 0, signal.SIGKILL)
        return HFTextVectorizer._compute(self, texts)

    monkeypatch.setattr(RememberingModel, "_compute", compute)
    embed(app, "What is machine learning?")
    assert app.warning[0].value.startswith("The server stopped answering: 1 vector computed here could not be stored")


def test_metadata_and_ttl_are_stored(cache: EmbeddingsCache) -> None:
    app = open_page("embed")
    app.text_area(key="embed_metadata").set_value('{"source": "handbook"}')
    app.radio(key="embed_ttl_kind").set_value("seconds").run()
    app.number_input(key="embed_ttl_seconds").set_value(600)
    embed(app, "t")
    entry = cache.get("t", DEFAULT_MODEL)
    assert entry is not None
    assert entry["metadata"] == {"source": "handbook"}
    assert entry["ttl"] == 600


def test_many_lines() -> None:
    app = open_page("embed")
    app.radio(key="embed_source").set_value("lines").run()
    app.text_area(key="embed_lines").set_value("a\n\nb\na\n")
    press(app, "Embed")
    assert metrics(app)["Misses"] == "3"
    assert "3 texts; 1 blank one left out" in words(app)
    assert session.shared_model(DEFAULT_MODEL).computed == ["a", "b"]


@pytest.mark.parametrize(
    ("name", "content", "texts"),
    [("t.txt", "eins\nzwei\n", ["eins", "zwei"]), ("t.csv", "id,text\n1,eins\n2,zwei\n", ["eins", "zwei"])],
)
def test_files(name: str, content: str, texts: list[str], cache: EmbeddingsCache) -> None:
    app = open_page("embed")
    app.radio(key="embed_source").set_value("file").run()
    app.file_uploader(key="embed_file").upload(name, content.encode()).run()
    press(app, "Embed")
    assert cache.mexists(texts, DEFAULT_MODEL) == [True, True]


@pytest.mark.parametrize("content", [b"", b"\xff\xfe\x00", b"a,b\n1,2,3\n1\n"])
def test_an_unusable_file_is_a_sentence(content: bytes) -> None:
    app = open_page("embed")
    app.radio(key="embed_source").set_value("file").run()
    app.file_uploader(key="embed_file").upload("t.csv", content).run()
    assert not app.exception
    assert "This file" in app.error[0].value


@pytest.mark.parametrize(
    ("text", "metadata", "said"),
    [
        ("", "", "There is no text here yet"),
        (" \n ", "", "There is no text here yet"),
        ("t", "{not json", "The metadata is not JSON"),
        ("t", "[1]", "one JSON object"),
        ("x" * 8_400_000, "", "the longest is 8,388,608"),
        ("t", json.dumps({"n": 2**70}), "more than 64 bits"),
    ],
)
def test_bad_input_is_a_sentence(text: str, metadata: str, said: str, cache: EmbeddingsCache) -> None:
    app = open_page("embed")
    app.text_area(key="embed_metadata").set_value(metadata)
    embed(app, text)
    assert said in app.error[0].value
    assert not app.metric
    assert not cache.exists("t", DEFAULT_MODEL)


def test_a_model_that_cannot_be_loaded_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: RememberingModel) -> None:
        raise ModelUnavailableError("no such model: **x**")

    monkeypatch.setattr(RememberingModel, "load", fail)
    app = embed(open_page("embed"), "t")
    assert "**The model cannot be loaded.** `no such model: **x**`" in app.error[0].value


def test_two_users_do_not_share_a_cache(cache: EmbeddingsCache) -> None:
    with EmbeddingsCache("mine") as mine:
        mine.set("other", "m", [1.0])
        one, two = open_page("embed"), open_page("embed")
    two.selectbox(key=session.CACHE_KEY).set_value("mine").run()
    embed(one, "t")
    embed(two, "t")
    assert metrics(two)["Misses"] == "1"
    with EmbeddingsCache("mine") as mine:
        assert mine.exists("t", DEFAULT_MODEL)
    assert session.shared_model(DEFAULT_MODEL).cache is None


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


# ------------------------------------------------------------------------------------------------ strangers' text


def test_hostile_entries_are_text(cache: EmbeddingsCache) -> None:
    key = cache.set(HOSTILE, HOSTILE, [0.5, -0.5], {HOSTILE: HOSTILE})
    with EmbeddingsCache(HOSTILE) as other:
        other.set("t", "m", [1.0])
        overview = open_page()
    app = AppTest.from_file(str(ROOT / "app.py"), default_timeout=30).run().switch_page("pages/lookup.py")
    app.query_params["key"] = key
    app.run()
    assert not app.exception
    assert HOSTILE.replace("\x1b", "␛") in [block.value for block in app.code]
    for page in (overview, app):
        assert "<script>" not in words(page)
    figure = overview.get("plotly_chart")[0].proto.spec
    assert "<script>" not in figure
    assert "\\u003cscript" not in figure


def test_a_hostile_text_is_text_on_embed() -> None:
    app = embed(open_page("embed"), HOSTILE)
    (caption,) = [caption.value for caption in app.caption if caption.value.startswith("Text 1")]
    assert caption.startswith("Text 1: ``` <script>")


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
        press(app, "Embed")
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
    assert "**The server refused.**" in open_page().error[0].value
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
        "from streamlit.testing.v1 import AppTest\n"
        f"app = AppTest.from_file({str(ROOT / 'app.py')!r}, default_timeout=60).run()\n"
        "app.switch_page('pages/lookup.py').run()\n"
        "app.text_area(key='lookup_text').set_value('t')\n"
        "next(button for button in app.button if button.label == 'Look up').click().run()\n"
        "assert not app.exception\n"
        "print('seen', sorted({'torch', 'sentence_transformers'} & set(sys.modules)))\n"
    )
    environment = {**os.environ, "EMBEDCACHE_URL": f"embedded://{tmp_path}/apart"}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment, cwd=ROOT
    )
    assert done.stdout.splitlines()[-1] == "seen []"
