"""The Embed page, run without a browser on a real embedded server and the real model."""

import json
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from clicking import HOSTILE, PATIENCE_SECONDS, embed, finish, metrics, open_page, own_server, press, words
from remembering import RememberingModel
from streamlit.testing.v1 import AppTest

from embedcache import EmbeddingsCache, HFTextVectorizer
from embedcache.errors import ModelUnavailableError
from embedcache.server import EmbeddedServer
from embedcache.vectorizers import DEFAULT_MODEL, base
from pages.ui import frames, longwork, sample_data, session

pytestmark = pytest.mark.model

TEXTS = ["How do I reset my password?", "how do i reset my password", "Ice floats on water."]


@pytest.fixture(autouse=True)
def fresh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(session, "HFTextVectorizer", RememberingModel)
    with own_server(tmp_path, monkeypatch):
        yield


@pytest.fixture
def cache() -> Iterator[EmbeddingsCache]:
    with EmbeddingsCache() as opened:
        yield opened


CHUNK = 4


class Gate:
    """Holds the model up, until it is opened, after so many chunks of `CHUNK` texts."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, chunks: int) -> None:
        self.reached = threading.Event()
        self.opened = threading.Event()
        compute = RememberingModel._compute
        monkeypatch.setattr(base, "CHUNK_TEXTS", CHUNK)

        def held(model: RememberingModel, texts: Sequence[Any]) -> Any:
            if len(model.computed) >= chunks * CHUNK:
                self.reached.set()
                assert self.opened.wait(PATIENCE_SECONDS)
            return compute(model, texts)

        monkeypatch.setattr(RememberingModel, "_compute", held)


def embed_lines(app: AppTest, texts: Sequence[str]) -> AppTest:
    app.radio(key="embed_source").set_value("lines").run()
    app.text_area(key="embed_lines").set_value("\n".join(texts))
    return press(app, "Embed")


def tick(app: AppTest, rows: list[int], only: str = "All") -> AppTest:
    """Ticks rows of the table of texts, as a browser reports it."""
    app.session_state[f"embed_rows_1_{only}"] = {"selection": {"rows": rows, "columns": [], "cells": []}}
    return app.run()


def spec(app: AppTest, position: int) -> Any:
    return json.loads(app.get("plotly_chart")[position].proto.spec)


# ------------------------------------------------------------------------------------------------ texts in, vectors out


def test_a_miss_then_a_hit(cache: EmbeddingsCache) -> None:
    app = embed(open_page("embed"), "What is machine learning?")
    assert metrics(app)["Misses"] == "1"
    assert metrics(app)["Hits"] == "0"
    finish(press(app, "Embed"))
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
    (said,) = [warning.value for warning in app.warning]
    assert said.startswith("1 vector computed here could not be stored: the server does not answer")
    assert "The reason: `no answer from embedded://" in said


def test_that_the_server_is_full_is_said(cache: EmbeddingsCache) -> None:
    raw = cache.connection.client()
    raw.config_set("maxmemory-policy", "noeviction")
    raw.config_set("maxmemory", 1)
    app = open_page("embed")
    embed(app, "What is machine learning?")
    assert not app.error
    assert "The reason: `OOM" in app.warning[0].value
    assert app.get("plotly_chart")


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
    finish(press(app, "Embed"))
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
    finish(press(app, "Embed"))
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


def test_a_hostile_text_is_text_on_embed() -> None:
    app = embed(open_page("embed"), HOSTILE)
    (caption,) = [caption.value for caption in app.caption if caption.value.startswith("Text 1")]
    assert caption.startswith("Text 1: ``` <script>")


# ------------------------------------------------------------------------------------------------ long work


def test_progress_is_shown_and_the_work_is_found_again(monkeypatch: pytest.MonkeyPatch) -> None:
    gate = Gate(monkeypatch, chunks=1)
    app = embed_lines(open_page("embed"), [f"text {n}" for n in range(10)])
    assert gate.reached.wait(PATIENCE_SECONDS)
    app.run()
    (bar,) = app.get("progress")
    assert bar.proto.text.startswith("Embedding: 4 of 10 texts")
    (button,) = [button for button in app.button if button.label == "Embed"]
    assert button.disabled
    app.switch_page("pages/lookup.py").run()
    gate.opened.set()
    job = longwork.jobs().find(app.session_state["owner"], "embed")
    assert job is not None
    assert job.wait(PATIENCE_SECONDS)
    app.switch_page("pages/embed.py").run()
    assert metrics(app)["Misses"] == "10"
    app.run()
    assert metrics(app)["Misses"] == "10"
    assert longwork.jobs().find(app.session_state["owner"], "embed") is None


def test_what_was_done_before_it_was_cancelled_is_kept(cache: EmbeddingsCache, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = Gate(monkeypatch, chunks=1)
    texts = [f"text {n}" for n in range(10)]
    app = embed_lines(open_page("embed"), texts)
    assert gate.reached.wait(PATIENCE_SECONDS)
    press(app, "Cancel")
    gate.opened.set()
    finish(app)
    assert "**Cancelled after 8 of 10 texts.** Their vectors are stored: press Embed again" in words(app)
    assert not app.metric
    assert sum(cache.mexists(texts, DEFAULT_MODEL)) == 8
    finish(press(app, "Embed"))
    assert (metrics(app)["Hits"], metrics(app)["Misses"]) == ("8", "2")
    assert "Cancelled" not in words(app)


def test_what_goes_wrong_in_the_thread_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: RememberingModel, texts: Sequence[Any]) -> Any:
        raise ZeroDivisionError("secret")

    monkeypatch.setattr(RememberingModel, "_compute", fail)
    app = embed(open_page("embed"), "t")
    (error,) = app.error
    assert "The log says more under" in error.value
    assert "secret" not in error.value


def test_who_may_not_write_is_told_so(cache: EmbeddingsCache, monkeypatch: pytest.MonkeyPatch) -> None:
    cache.set("there", DEFAULT_MODEL, [0.5] * 384)
    monkeypatch.setenv("EMBEDCACHE_READ_ONLY", "1")
    app = embed_lines(open_page("embed"), ["there", "missing"])
    finish(app)
    assert "and not stored" in words(app)
    assert (metrics(app)["Hits"], metrics(app)["Misses"]) == ("1", "1")
    assert "1 vector computed here and not stored" in app.info[0].value
    assert not cache.exists("missing", DEFAULT_MODEL)


# ------------------------------------------------------------------------------------------------ similarity


def test_texts_are_compared() -> None:
    app = finish(embed_lines(open_page("embed"), [*TEXTS, TEXTS[0]]))
    assert "3 distinct texts." in words(app)
    heat = spec(app, 1)["data"][0]
    assert heat["colorbar"]["title"]["text"] == "cosine similarity"
    assert sorted(heat["x"]) == [f"{n}: {text}" for n, text in enumerate(TEXTS, 1)]
    pairs = app.dataframe[1].value
    assert pairs.iloc[0]["one"] == f"1: {TEXTS[0]}"
    assert pairs.iloc[0]["other"] == f"2: {TEXTS[1]}"
    assert pairs.iloc[0]["similarity"] > 0.95
    app.toggle(key="embed_by_likeness").set_value(False).run()
    assert spec(app, 1)["data"][0]["x"][0] == f"1: {TEXTS[0]}"


def test_rows_that_are_ticked_are_shown_and_compared(cache: EmbeddingsCache) -> None:
    cache.set(TEXTS[1], DEFAULT_MODEL, [0.5] * 384)
    app = finish(embed_lines(open_page("embed"), TEXTS))
    assert f"Text 1: `{TEXTS[0]}`" in words(app)
    tick(app, [2])
    assert f"Text 3: `{TEXTS[2]}`" in words(app)
    assert "3 distinct texts." in words(app)
    tick(app, [0, 2])
    assert "2 ticked texts." in words(app)
    assert sorted(spec(app, 1)["data"][0]["x"]) == [f"1: {TEXTS[0]}", f"3: {TEXTS[2]}"]
    app.radio(key="embed_only").set_value(frames.HIT).run()
    assert list(app.dataframe[0].value["text"]) == [TEXTS[1]]
    tick(app, [0], only=frames.HIT)
    assert f"Text 2: `{TEXTS[1]}`" in words(app)


def test_one_text_is_compared_with_nothing() -> None:
    app = finish(embed_lines(open_page("embed"), [TEXTS[0], TEXTS[0]]))
    assert len(app.get("plotly_chart")) == 1
    assert "Similarity" not in words(app)


def test_many_texts_are_cut_and_said_to_be(cache: EmbeddingsCache) -> None:
    texts = [f"text {n}" for n in range(10_500)]
    vectors = np.random.default_rng(1).normal(size=(len(texts), 384))
    cache.mset([{"text": t, "model_name": DEFAULT_MODEL, "embedding": v} for t, v in zip(texts, vectors, strict=True)])
    app = finish(embed_lines(open_page("embed"), texts))
    assert metrics(app)["Hits"] == "10,500"
    assert len(app.dataframe[0].value) == 10_000
    assert "The first 10,000 rows; the files above hold all." in words(app)
    assert "The first 200 of 10,500 distinct texts" in words(app)
    assert len(spec(app, 1)["data"][0]["x"]) == 200
    assert len(app.get("plotly_chart")[1].proto.spec) < 600_000


# ------------------------------------------------------------------------------------------------ downloads


def test_all_texts_can_be_downloaded() -> None:
    app = finish(embed_lines(open_page("embed"), TEXTS))
    assert [button.label for button in app.download_button] == [".npy", ".parquet", ".csv"]


# ------------------------------------------------------------------------------------------------ nothing yet


@pytest.mark.parametrize("page", [None, "embed", "lookup"])
def test_sample_data_fills_the_chosen_cache(page: str | None, cache: EmbeddingsCache) -> None:
    app = open_page(page)
    assert "302 sentences" in words(app)
    assert "in the cache `embedcache`" in words(app)
    finish(press(app, "Load sample data"))
    entry = cache.get("Was ist maschinelles Lernen?", DEFAULT_MODEL)
    assert entry is not None
    assert entry["metadata"] == {
        "topic": "machine learning",
        "language": "de",
        "source": "lecture notes",
        "sample": True,
    }
    assert all(cache.mexists([sample.text for sample in sample_data.samples()], DEFAULT_MODEL))
    if page is None:
        assert metrics(app)["Entries"] == "302"
    if page != "embed":
        assert "Load sample data" not in [button.label for button in app.button]


def test_sample_data_is_not_offered_to_who_may_not_write(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMBEDCACHE_READ_ONLY", "1")
    app = open_page("embed")
    (button,) = [button for button in app.button if button.label == "Load sample data"]
    assert button.disabled
    assert "read-only" in button.help
