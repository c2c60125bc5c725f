"""The page Lookup on a real server: many texts, metadata, links, comparing, nearest texts, and who may not write."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from clicking import HOSTILE, look_up, metrics, open_page, own_server, press, press_in_dialog, words
from streamlit.testing.v1 import AppTest

from embedcache import EmbeddingsCache
from embedcache.explain import Reason
from embedcache.vectorizers import DEFAULT_MODEL
from pages.ui import longwork, many_texts, nearest, session, wording
from pages.ui.configuration import READ_ONLY_VARIABLE
from pages.ui.inputs import UnusableInputError
from pages.ui.jobs import Progress
from pages.ui.nearest_view import MEANING_JOB, WORDING_JOB

VECTOR = [0.5, -0.5]


@pytest.fixture(autouse=True)
def fresh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with own_server(tmp_path, monkeypatch):
        yield


@pytest.fixture
def cache() -> Iterator[EmbeddingsCache]:
    with EmbeddingsCache() as opened:
        yield opened


def open_link(**query: str) -> AppTest:
    app = open_page()
    app.switch_page("pages/lookup.py")
    app.query_params.update(query)
    app.run()
    assert not app.exception
    return app


def address(app: AppTest) -> dict[str, str]:
    return {name: value[0] if isinstance(value, list) else value for name, value in app.query_params.items()}


def look_up_many(lines: str, model: str = DEFAULT_MODEL) -> AppTest:
    app = open_page("lookup")
    app.radio(key="lookup_way").set_value("many").run()
    app.selectbox(key="lookup_model").set_value(model)
    app.text_area(key="lookup_lines").set_value(lines)
    return press(app, "Look up")


def button(app: AppTest, label: str) -> Any:
    (found,) = [each for each in app.button if each.label == label]
    return found


def metadata_field(app: AppTest) -> Any:
    (field,) = [area for area in app.text_area if area.label == "Metadata, as one JSON object"]
    return field


# ------------------------------------------------------------------------------------------------ many texts


def test_many_texts_are_found_or_not(cache: EmbeddingsCache) -> None:
    cache.set("here", DEFAULT_MODEL, VECTOR, ttl=7_000)
    cache.set("Elsewhere", "other/model", VECTOR)
    cache.set("CASE", DEFAULT_MODEL, VECTOR)
    cache.flush_stats()
    app = look_up_many("here\n\nElsewhere\ncase\nnever <b>seen</b>\nhere\n")
    table = app.dataframe[0].value
    assert list(table["text"]) == ["here", "Elsewhere", "case", "never <b>seen</b>"]
    assert [cell[0] for cell in table["result"]] == ["Found", "Missed", "Missed", "Missed"]
    assert list(table["why"]) == ["", "under another model", "spelt otherwise", "never stored"]
    assert list(table["expires"]) == ["in 1 h 56 min", "", "", ""]
    assert list(table["model"]) == [DEFAULT_MODEL, "other/model", DEFAULT_MODEL, ""]
    assert table["memory"].iloc[0].endswith(" B")
    assert "**1 of 4 texts found**" in words(app)
    assert cache.stats().texts == 0


def test_the_missing_texts_are_typed_in_on_embed(cache: EmbeddingsCache) -> None:
    cache.set("here", DEFAULT_MODEL, VECTOR)
    app = press(look_up_many("here\none\ntwo"), "Embed 2 missing texts")
    assert app.title[0].value == "Embed"
    assert app.text_area(key="embed_lines").value == "one\ntwo"


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ("\n \n", "There is no text here yet"),
        ("\n".join(map(str, range(1_001))), "1,000 can be looked up at once"),
    ],
)
def test_unusable_lines_are_a_sentence(lines: str, said: str) -> None:
    app = look_up_many(lines)
    assert said in app.error[0].value
    assert app.text_area(key="lookup_lines").value == lines


def test_only_the_first_misses_are_explained(cache: EmbeddingsCache) -> None:
    looked = many_texts.look_up(cache, [f"text {n}" for n in range(60)], DEFAULT_MODEL)
    whys = many_texts.explain(cache, looked, DEFAULT_MODEL)
    assert len(whys) == 50
    table = many_texts.frame(looked, whys)
    assert list(table["why"]) == ["never stored"] * 50 + ["tick it to see"] * 10
    assert set(many_texts.SHORT_REASONS) == set(Reason)
    with pytest.raises(UnusableInputError):
        many_texts.texts_of(" ")


def test_hostile_lines_are_text(cache: EmbeddingsCache) -> None:
    cache.set(HOSTILE, HOSTILE, VECTOR)
    app = look_up_many(HOSTILE, HOSTILE)
    assert "**1 of 1 text found**" in words(app)
    assert wording.code_span(HOSTILE, 120) in words(app)


# ------------------------------------------------------------------------------------------------ metadata


def edit(app: AppTest, typed: str) -> AppTest:
    press(app, "Edit metadata")
    metadata_field(app).set_value(typed)
    return press_in_dialog(app, "Edit metadata", "Save")


def test_metadata_is_edited(cache: EmbeddingsCache) -> None:
    key = cache.set("t", DEFAULT_MODEL, VECTOR, {"a": 1}, ttl=1_000)
    cache.connection.client().expire(key, 500)
    app = look_up(open_page("lookup"), "t")
    press(app, "Edit metadata")
    assert json.loads(metadata_field(app).value) == {"a": 1}
    edit(app, '{"a": 2, "ü": [null]}')
    assert "The metadata is saved." in words(app)
    assert json.loads(app.json[0].value) == {"a": 2, "ü": [None]}
    left = cache.remaining_ttl(key)
    assert isinstance(left, int)
    assert left <= 500
    entry = cache.get_by_key(key)
    assert entry is not None
    assert entry["metadata"] == {"a": 2, "ü": [None]}
    assert entry["embedding"].tolist() == VECTOR


def test_emptied_metadata_is_none(cache: EmbeddingsCache) -> None:
    key = cache.set("t", DEFAULT_MODEL, VECTOR, {"a": 1})
    app = edit(look_up(open_page("lookup"), "t"), " ")
    assert "None was stored with it." in words(app)
    entry = cache.get_by_key(key)
    assert entry is not None
    assert entry["metadata"] is None


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ('{"a": }', "The metadata is not JSON: line 1, column 7"),
        ("[1]", "one JSON object"),
        ('{"n": 1e999}', "which JSON has no word for"),
        (json.dumps({"n": 2**70}), "more than 64 bits"),
    ],
)
def test_metadata_that_cannot_be_used_stays_in_the_field(cache: EmbeddingsCache, typed: str, said: str) -> None:
    key = cache.set("t", DEFAULT_MODEL, VECTOR, {"a": 1})
    app = edit(look_up(open_page("lookup"), "t"), typed)
    assert said in app.error[0].value
    assert typed in [area.value for area in app.text_area]
    entry = cache.get_by_key(key)
    assert entry is not None
    assert entry["metadata"] == {"a": 1}


def test_what_cannot_be_seen_is_escaped_in_the_field(cache: EmbeddingsCache) -> None:
    metadata = {"a\u202eb": "\U000e0041 \x1b ü 👩‍🔬"}
    key = cache.set("t", DEFAULT_MODEL, VECTOR, metadata)
    app = look_up(open_page("lookup"), "t")
    press(app, "Edit metadata")
    field = metadata_field(app)
    assert "\\u202e" in field.value
    assert "\\udb40\\udc41" in field.value
    assert "ü 👩‍🔬" in field.value
    press_in_dialog(app, "Edit metadata", "Save")
    entry = cache.get_by_key(key)
    assert entry is not None
    assert entry["metadata"] == metadata


def test_who_may_not_write_sees_why(cache: EmbeddingsCache, monkeypatch: pytest.MonkeyPatch) -> None:
    cache.set("t", DEFAULT_MODEL, VECTOR, {"a": 1})
    monkeypatch.setenv(READ_ONLY_VARIABLE, "1")
    app = look_up(open_page("lookup"), "t")
    buttons = {button.label: button for button in app.button}
    for label in ("Edit metadata", "Set TTL", "Never expire", "Drop entry"):
        assert buttons[label].disabled
        assert "read-only" in buttons[label].help
    assert not buttons["Compare with…"].disabled


def test_when_it_was_last_read_is_told(cache: EmbeddingsCache) -> None:
    cache.set("t", DEFAULT_MODEL, VECTOR)
    app = look_up(open_page("lookup"), "t")
    assert re.search(r"Last read or written (just now|\d+ s ago)\.", words(app))


# ------------------------------------------------------------------------------------------------ links


def test_the_address_names_what_is_shown(cache: EmbeddingsCache) -> None:
    key = cache.set("t", DEFAULT_MODEL, VECTOR)
    app = look_up(open_page("lookup"), "t")
    assert address(app) == {"key": key}
    app.radio(key="lookup_way").set_value("many").run()
    app.text_area(key="lookup_lines").set_value("t")
    press(app, "Look up")
    assert address(app) == {}


def test_a_link_chooses_the_cache() -> None:
    with EmbeddingsCache("docs") as docs:
        key = docs.set("t", DEFAULT_MODEL, VECTOR, {"in": "docs"})
        app = open_link(cache="docs", key=key)
        assert app.selectbox(key=session.CACHE_KEY).value == "docs"
        assert metrics(app)["Dimension"] == "2"
        app.radio(key="lookup_way").set_value("text").run()
        look_up(app, "t")
        assert json.loads(app.json[0].value) == {"in": "docs"}
        app.selectbox(key=session.CACHE_KEY).set_value("embedcache").run()
        assert app.selectbox(key=session.CACHE_KEY).value == "embedcache"
        assert address(app)["cache"] == "embedcache"


@pytest.mark.parametrize("query", [{"key": ""}, {"key": " "}, {"cache": ""}, {"with": "x"}])
def test_a_link_that_names_nothing_is_an_empty_page(query: dict[str, str]) -> None:
    assert "Ask for a text that was embedded" in words(open_link(**query))


@pytest.mark.parametrize("value", ["nonsense", HOSTILE, "x" * 5_000, "c:" + "0" * 64])
def test_a_link_to_nothing_is_a_sentence(value: str, cache: EmbeddingsCache) -> None:
    key = cache.set("t", DEFAULT_MODEL, VECTOR)
    assert "Not in the cache" in words(open_link(key=value))
    assert "The second entry is not there" in words(open_link(key=key, **{"with": value}))
    assert "The first entry is not there" in words(open_link(key=value, **{"with": key}))


# ------------------------------------------------------------------------------------------------ comparing


@pytest.fixture
def pair(cache: EmbeddingsCache) -> tuple[str, str]:
    one = cache.set("first text", DEFAULT_MODEL, [1.0, 0.0], {"n": 1, "same": True}, ttl=7_200)
    return one, cache.set(HOSTILE, DEFAULT_MODEL, [0.0, 2.0], {"n": 2, "same": True})


def test_a_link_compares_two_entries(pair: tuple[str, str]) -> None:
    app = open_link(key=pair[0], **{"with": pair[1]})
    assert metrics(app) == {
        "Cosine similarity": "0.0000",
        "Euclidean distance": "2.236",
        "First norm": "1",
        "Second norm": "2",
    }
    facts, metadata = (each.value for each in app.dataframe)
    assert list(facts.set_index("what").loc["own TTL"]) == ["2 h", "never"]
    assert metadata.to_numpy().tolist() == [["n", "1", "2"]]
    assert "1 field more is the same." in words(app)
    assert {"first text", wording.visible(HOSTILE)} <= {block.value for block in app.code}
    assert len(app.get("plotly_chart")) == 2
    assert "<script>" not in words(app)
    assert address(app) == {"key": pair[0], "with": pair[1]}


def test_swapping_and_leaving_a_comparison(pair: tuple[str, str]) -> None:
    app = press(open_link(key=pair[0], **{"with": pair[1]}), "Swap")
    assert metrics(app)["First norm"] == "2"
    assert address(app) == {"key": pair[1], "with": pair[0]}
    press(app, "Back to the entry")
    assert metrics(app)["Own TTL"] == "never"
    assert address(app) == {"key": pair[1]}


def test_vectors_of_different_length_are_said_to_be(cache: EmbeddingsCache, pair: tuple[str, str]) -> None:
    app = open_link(key=pair[0], **{"with": cache.set("other", "m", [1.0] * 5)})
    assert metrics(app)["Cosine similarity"] == metrics(app)["Euclidean distance"] == "none"
    assert "vectors of different length" in app.warning[0].value
    assert not app.get("plotly_chart")


def test_an_entry_and_itself(pair: tuple[str, str]) -> None:
    app = open_link(key=pair[0], **{"with": pair[0]})
    assert "Both are the same entry." in words(app)
    assert metrics(app)["Cosine similarity"] == "1.0000"


def ask_to_compare(app: AppTest, way: str, **typed: str) -> AppTest:
    press(app, "Compare with…")
    button(app, "Compare with…").click()
    app.radio(key="compare_way").set_value(way).run()
    if "key" in typed:
        app.text_input(key="compare_key").set_value(typed["key"])
    if "text" in typed:
        app.text_area(key="compare_text").set_value(typed["text"])
    return press_in_dialog(app, "Compare with…", "Compare")


@pytest.mark.parametrize("way", ["A text", "A key"])
def test_comparing_from_an_entry(pair: tuple[str, str], way: str) -> None:
    app = look_up(open_page("lookup"), "first text")
    ask_to_compare(app, way, **({"text": HOSTILE} if way == "A text" else {"key": f" {pair[1]} "}))
    assert metrics(app)["Second norm"] == "2"
    assert address(app) == {"key": pair[0], "with": pair[1]}


def test_comparing_with_the_one_kept(pair: tuple[str, str]) -> None:
    app = press(look_up(open_page("lookup"), HOSTILE), "Keep for comparison")
    assert "Kept for comparison" in [button.label for button in app.button]
    press(look_up(app, "first text"), "Compare with…")
    assert app.radio(key="compare_way").value == "The one kept"
    assert wording.one_line(HOSTILE, 160) in [block.value for block in app.code]
    press_in_dialog(app, "Compare with…", "Compare")
    assert metrics(app)["Second norm"] == "2"


@pytest.mark.parametrize(
    ("way", "typed", "said"),
    [
        ("A text", {"text": " "}, "There is no text here yet"),
        ("A text", {"text": "never stored"}, "There is no such entry"),
        ("A key", {"key": ""}, "There is no key here yet"),
        ("A key", {"key": HOSTILE}, "has not the form of a key"),
        ("A key", {"key": "embedcache:" + "0" * 64}, "There is no such entry"),
    ],
)
def test_nothing_to_compare_with_is_said_where_it_was_typed(
    pair: tuple[str, str], way: str, typed: dict[str, str], said: str
) -> None:
    app = ask_to_compare(look_up(open_page("lookup"), "first text"), way, **typed)
    assert said in app.error[0].value
    assert address(app) == {"key": pair[0]}


# ------------------------------------------------------------------------------------------------ nearest texts


def when_over(app: AppTest, job_name: str) -> AppTest:
    """The page once a job of this user's is over."""
    job = longwork.jobs().find(app.session_state["owner"], job_name)
    assert job is not None
    assert job.wait(60)
    return app.run()


def test_texts_worded_alike_are_shown_without_a_click_whatever_the_model(cache: EmbeddingsCache) -> None:
    texts = ["How do I reset my password?", HOSTILE, "Where is the nearest station?"]
    for text in texts:
        cache.set(text, "other/model", VECTOR)
    cache.set("How can I reset my password", "m", VECTOR)
    cache.set(b"How do I reset", "other/model", VECTOR)
    app = open_page("lookup")
    app.selectbox(key="lookup_model").set_value("other/model")
    app = when_over(look_up(app, "how do i reset the password"), WORDING_JOB)
    shown = words(app)
    assert f"**91%** {wording.code_span(texts[0], 160)}" in shown
    assert "among all 3 entries of this model" in shown
    assert texts[2] not in shown
    assert "How can I" not in shown
    assert cache.stats().texts == 0
    app.button(key=f"worded_{cache.key_for(texts[0], 'other/model')}").click().run()
    assert texts[0] in [block.value for block in app.code]


def test_what_is_worded_like_nothing_is_told_so(cache: EmbeddingsCache) -> None:
    cache.set("Where is the nearest station?", "other/model", VECTOR)
    app = open_page("lookup")
    app.selectbox(key="lookup_model").set_value("other/model")
    app = when_over(look_up(app, "0123456789"), WORDING_JOB)
    assert "No text is worded alike. Yours was compared with the only entry of this model." in words(app)


@pytest.mark.model
def test_texts_that_mean_alike_are_found_under_a_model_that_is_not_here(cache: EmbeddingsCache) -> None:
    texts = ["Cats purr when they are content.", HOSTILE, "The stock market fell on Monday.", b"bytes"]
    for text in texts:
        cache.set(text, "other/model", VECTOR)
    app = open_page("lookup")
    app.selectbox(key="lookup_model").set_value("other/model")
    app = when_over(press(look_up(app, "Why does my kitten make that noise?"), "Find nearest texts"), MEANING_JOB)
    shown = words(app)
    assert shown.index("Cats purr") < shown.index("The stock market")
    assert f"of the vectors that {wording.code_span(DEFAULT_MODEL)} gives their texts" in shown
    assert "among all 3 entries of this model" in shown
    assert cache.stats().texts == 0
    assert not cache.exists(texts[0], DEFAULT_MODEL)


@pytest.mark.model
def test_nearest_texts_are_found_and_opened(cache: EmbeddingsCache) -> None:
    texts = ["Cats purr when they are content.", HOSTILE, "The stock market fell on Monday.", "Dogs bark at strangers."]
    vectors = session.shared_model(DEFAULT_MODEL).embed_many(texts)
    for text, vector in zip(texts, vectors, strict=True):
        cache.set(text, DEFAULT_MODEL, vector)
    cache.set("of another dimension", DEFAULT_MODEL, [1.0, 2.0])
    cache.set("of another model", "m", vectors[0])
    session.shared_model(DEFAULT_MODEL).load()
    # Without a click, for what it takes is loaded.
    app = when_over(look_up(open_page("lookup"), "Why do cats purr?"), MEANING_JOB)
    shown = words(app)
    assert shown.index(texts[0]) < shown.index("Dogs bark") < shown.index("among all 4 entries of this model")
    assert wording.code_span(HOSTILE, 160) in shown
    assert "of another" not in shown
    assert "Find nearest texts" not in [button.label for button in app.button]
    assert not cache.exists("Why do cats purr?", DEFAULT_MODEL)
    assert cache.stats().texts == 0
    key = cache.key_for(texts[0], DEFAULT_MODEL)
    app.button(key=f"meant_{key}").click().run()
    assert texts[0] in [block.value for block in app.code]


@pytest.mark.model
def test_a_cache_without_vectors_of_the_model_has_nothing_near(cache: EmbeddingsCache) -> None:
    cache.set("of another model", "m", VECTOR)
    model = session.shared_model(DEFAULT_MODEL)
    for found in (
        nearest.in_meaning(cache.connection, cache.name, "text", DEFAULT_MODEL, model, Progress()),
        nearest.in_wording(cache.connection, cache.name, "text", DEFAULT_MODEL, Progress()),
    ):
        assert (found.neighbours, found.compared, found.whole) == ((), 0, True)
