"""The page Browse, run without a browser on a real embedded server."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from clicking import HOSTILE, finish, metrics, open_page, own_server, press, press_in_dialog, words
from looking import redisvl_hash
from streamlit.testing.v1 import AppTest

from embedcache import NEVER, EmbeddingsCache
from pages.ui import access, wording

DIMENSION = 6


@pytest.fixture(autouse=True)
def fresh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with own_server(tmp_path, monkeypatch):
        yield


@pytest.fixture
def cache() -> Iterator[EmbeddingsCache]:
    with EmbeddingsCache(stats=False) as opened:
        yield opened


def fill(cache: EmbeddingsCache, count: int) -> list[str]:
    """Entries "text 0" to "text n", each stored a moment after the one before, and with a longer text."""
    return [
        cache.set(f"text {number}", f"model {number % 2}", np.full(DIMENSION, number + 0.5), {"number": number})
        for number in range(count)
    ]


def open_browse(**query: str) -> AppTest:
    app = open_page()
    app.query_params.clear()
    app.query_params.update(query)
    return finish(app.switch_page("pages/browse.py").run())


def table(app: AppTest) -> Any:
    (found,) = app.dataframe
    return found.value


def texts(app: AppTest) -> list[str]:
    return list(table(app)["text"])


def tick(app: AppTest, *rows: int) -> AppTest:
    """Ticks rows of the table, as a browser reports it."""
    (shown,) = app.dataframe
    app.session_state[shown.key] = {"selection": {"rows": list(rows), "columns": [], "cells": []}}
    return finish(app.run())


def labels(app: AppTest) -> dict[str, bool]:
    """The buttons, and which are disabled."""
    return {button.label: button.disabled for button in app.button}


def search(app: AppTest, text: str) -> AppTest:
    app.text_input(key="browse_filter_text").set_value(text)
    return finish(app.run())


# ------------------------------------------------------------------------------------------------ the table


def test_an_empty_page_teaches() -> None:
    app = open_browse()
    assert app.title[0].value == "Browse"
    assert "No entries yet" in words(app)
    assert "Load sample data" in labels(app)
    assert not app.dataframe


def test_the_newest_come_first_with_all_that_is_known(cache: EmbeddingsCache) -> None:
    fill(cache, 2)
    cache.set("brief", "m", [3.0, -4.0], ttl=3_700)
    row = table(open_browse()).iloc[0]
    assert (row["text"], row["model"], row["expires"], row["dimension"]) == ("brief", "m", "in 1 h 1 min", 2)
    assert row["stored"] in {"just now", "1 s ago", "2 s ago", "3 s ago"}
    assert row["size"].endswith(" B")
    assert list(row["vector"]) == [3.0, -4.0]
    assert list(table(open_browse())["metadata"]) == ["", '{"number": 1}', '{"number": 0}']


def test_looking_changes_nothing(cache: EmbeddingsCache) -> None:
    key = cache.set("t", "m", [1.0], ttl=1_000)
    cache.connection.client().expire(key, 400)
    open_browse(key=key)
    ttl = cache.remaining_ttl(key)
    assert isinstance(ttl, int)
    assert 300 < ttl <= 400
    with EmbeddingsCache() as counting:
        assert counting.stats().texts == 0


def test_a_strangers_words_are_cells_and_nothing_else(cache: EmbeddingsCache) -> None:
    key = cache.set(HOSTILE, HOSTILE, [1.0, 2.0], {HOSTILE: HOSTILE})
    app = open_browse()
    assert texts(app) == [wording.one_line(HOSTILE)]
    assert "\x1b" not in str(table(app).to_dict())
    assert HOSTILE not in words(app)
    app = open_browse(key=key)
    assert "<script>" not in words(app).replace(wording.code_span(HOSTILE, 200), "")


def test_what_cannot_be_read_is_said(cache: EmbeddingsCache) -> None:
    client = cache.connection.client()
    whole = cache.set("whole", "m", [1.0])
    bent = cache.set("bent", "m", [1.0])
    client.setrange(bent, 60, b"\xff\x00")
    client.set(f"embedcache:{'ab' * 32}", b"no entry")
    client.hset(f"embedcache:{'cd' * 32}", mapping=redisvl_hash("theirs"))
    shown = table(open_browse()).set_index("text")
    states = {text: list(state) for text, state in shown["state"].items()}
    assert states.pop(wording.one_line(f"embedcache:{'ab' * 32}")) == ["Damaged"]
    assert states == {"whole": [], "bent": ["Damaged"], "theirs": ["RedisVL"]}
    app = open_browse(key=f"embedcache:{'ab' * 32}")
    assert "cannot be read as an entry" in words(app)
    assert metrics(open_browse(key=whole))["Dimension"] == "1"


def test_an_entry_of_redisvls_is_shown_and_changed(cache: EmbeddingsCache) -> None:
    client, key = cache.connection.client(), cache.key_for("theirs", "m")
    client.hset(key, mapping=redisvl_hash("theirs", metadata='{"a": 1}'))
    app = open_browse(key=key)
    assert [list(vector) for vector in table(app)["vector"]] == [[0.25] * 3]
    assert metrics(app)["Dimension"] == "3"
    assert metrics(app)["Own TTL"] == "not told"
    assert app.get("plotly_chart")
    buttons = {button.label: button for button in app.button if button.key.startswith("entry_")}
    buttons["Set TTL"].click().run()
    assert "It expires in 1 h now." in app.success[0].value
    assert client.ttl(key) in range(3_500, 3_601)
    before = client.hgetall(key)
    app.button(key="entry_edit_metadata").click().run()
    (field,) = [area for area in app.text_area if area.label == "Metadata, as one JSON object"]
    assert json.loads(field.value) == {"a": 1}
    field.set_value('{"b": [2]}')
    press_in_dialog(app, "Edit metadata", "Save")
    assert "The metadata is saved." in app.success[0].value
    assert json.loads(client.hget(key, "metadata")) == {"b": [2]}
    assert client.hgetall(key) == before | {b"metadata": client.hget(key, "metadata")}
    assert client.ttl(key) in range(3_500, 3_601)
    app.button(key="entry_drop").click().run()
    press(app, "Drop it")
    assert not client.exists(key)


def test_metadata_under_a_key_that_is_not_its_texts_is_left_alone(cache: EmbeddingsCache) -> None:
    client, key = cache.connection.client(), f"embedcache:{'cd' * 32}"
    client.hset(key, mapping=redisvl_hash("theirs", metadata='{"a": 1}'))
    button = open_browse(key=key).button(key="entry_edit_metadata")
    assert button.disabled
    assert "does not lie under the key of its text" in button.help


def test_a_broken_vector_of_redisvls_is_said(cache: EmbeddingsCache) -> None:
    key = f"embedcache:{'cd' * 32}"
    cache.connection.client().hset(key, mapping=redisvl_hash("theirs", embedding="[1, NaN]"))
    app = open_browse(key=key)
    assert table(app)["vector"].tolist() == [None]
    assert "its vector cannot be read" in words(app)
    assert "theirs" in app.code[0].value


def test_what_left_meanwhile_is_shown_as_gone(cache: EmbeddingsCache) -> None:
    keys = fill(cache, 3)
    app = open_browse()
    cache.connection.client().delete(keys[1])
    app.run()
    assert [list(state) for state in table(app)["state"]] == [[], ["Gone"], []]
    tick(app, 1)
    assert "**0 ticked**" in words(app)


# ------------------------------------------------------------------------------------------------ order and pages


def test_pages_and_order_go_over_the_whole_cache(cache: EmbeddingsCache) -> None:
    fill(cache, 60)
    app = open_browse()
    assert texts(app) == [f"text {number}" for number in range(59, 9, -1)]
    assert "**1\N{EN DASH}50** of 60" in words(app)
    press(app, "Next")
    assert texts(app) == [f"text {number}" for number in range(9, -1, -1)]
    assert labels(app)["Next"]
    app.selectbox(key="browse_sort").set_value("inserted_at").run()
    assert texts(app)[0] == "text 0"
    assert "**1\N{EN DASH}50** of 60" in words(app)
    app.selectbox(key="browse_size").set_value(25).run()
    press(app, "Last")
    assert texts(app) == [f"text {number}" for number in range(50, 60)]
    press(app, "Previous")
    assert texts(app)[0] == "text 25"
    press(app, "First")
    assert texts(app)[0] == "text 0"


def test_the_address_names_what_is_shown(cache: EmbeddingsCache) -> None:
    keys = fill(cache, 60)
    app = open_browse()
    app.selectbox(key="browse_filter_model").set_value("model 1").run()
    app.selectbox(key="browse_sort").set_value("inserted_at").run()
    app.selectbox(key="browse_size").set_value(25).run()
    press(app, "Next")
    asked = {name: app.query_params[name] for name in ("cache", "page", "sort", "size", "filter")}
    assert {name: value if isinstance(value, str) else value[0] for name, value in asked.items()} == {
        "cache": "embedcache",
        "page": "2",
        "sort": "inserted_at",
        "size": "25",
        "filter": '{"model_name":"model 1"}',
    }
    again = open_browse(page="2", sort="inserted_at", size="25", filter='{"model_name":"model 1"}', key=keys[7])
    assert texts(again) == texts(app) == [f"text {number}" for number in range(51, 60, 2)]
    assert metrics(again)["Dimension"] == str(DIMENSION)
    assert "`text 7`" not in words(again)
    assert "text 7" in [block.value for block in again.code]


@pytest.mark.parametrize(
    "query",
    [
        {"page": "-3", "sort": "<script>", "size": "1000000"},
        {"page": "9" * 400, "sort": "-digests"},
        {"page": "99"},
        {"key": "  "},
    ],
)
def test_what_a_link_asks_that_cannot_be_is_left_out(cache: EmbeddingsCache, query: dict[str, str]) -> None:
    fill(cache, 3)
    app = open_browse(**query)
    assert texts(app) == ["text 2", "text 1", "text 0"]
    assert not app.error


@pytest.mark.parametrize(
    "asked", ["{", "[]", "7", '{"no_field": 1}', '{"min_age": -1}', '{"expires_within": -5}', '"' * 9_000, "[" * 7_000]
)
def test_a_filter_in_a_link_that_cannot_be_is_refused(cache: EmbeddingsCache, asked: str) -> None:
    fill(cache, 2)
    app = open_browse(filter=asked)
    assert [error.value for error in app.error]
    assert texts(app) == ["text 1", "text 0"]


# ------------------------------------------------------------------------------------------------ filters


def test_texts_and_metadata_are_looked_through(cache: EmbeddingsCache) -> None:
    fill(cache, 30)
    app = search(open_browse(), "TEXT 1")
    assert texts(app) == [f"text {number}" for number in (*range(19, 9, -1), 1)]
    assert "Texts and metadata were looked through just now" in words(app)
    app.selectbox(key="browse_sort").set_value("inserted_at").run()
    assert texts(app)[0] == "text 1"
    app.text_input(key="browse_filter_field").set_value("number")
    app.text_input(key="browse_filter_value").set_value("12")
    assert texts(finish(app.run())) == ["text 12"]


def test_a_search_is_good_for_the_next_index_and_made_anew_on_demand(cache: EmbeddingsCache) -> None:
    fill(cache, 5)
    app = search(open_browse(), "text")
    cache.set("text later", "m", [1.0])
    cache.drop("text 0", "model 0")
    finish(press(app, "Refresh"))
    assert texts(app) == [f"text {number}" for number in (4, 3, 2, 1)]
    finish(press(app, "Look again"))
    assert texts(app)[0] == "text later"


def test_what_matches_nothing_can_be_cleared(cache: EmbeddingsCache) -> None:
    fill(cache, 2)
    app = search(open_browse(), HOSTILE)
    assert "No entry matches" in words(app)
    assert wording.code_span(HOSTILE, 80) in words(app)
    finish(press(app, "Clear the filter"))
    assert texts(app) == ["text 1", "text 0"]


def test_a_filter_that_contradicts_itself_is_refused_and_kept(cache: EmbeddingsCache) -> None:
    fill(cache, 2)
    app = open_browse()
    app.text_input(key="browse_filter_field").set_value("number").run()
    assert "go together" in app.error[0].value
    assert app.text_input(key="browse_filter_field").value == "number"


def test_all_that_match_go_to_cleanup(cache: EmbeddingsCache) -> None:
    fill(cache, 12)
    app = search(open_browse(), "text 1")
    press(app, "Clean up all 3")
    assert app.title[0].value == "Cleanup"
    assert "text 1" in [field.value for field in app.text_input]


# ------------------------------------------------------------------------------------------------ ticked entries


def test_ticked_entries_are_dropped_once_and_no_others(cache: EmbeddingsCache) -> None:
    keys = fill(cache, 5)
    app = tick(open_browse(), 0, 2)
    press(app, "Drop")
    assert [block.value for block in app.code] == ["text 4\ntext 2"]
    cache.set("text late", "m", [1.0])
    press(app, "Drop (2)")
    assert "Dropped 2 entries" in app.success[0].value
    assert cache.mexists_by_keys(keys) == [True, True, False, True, False]
    assert "**0 ticked**" in words(app)
    assert "text 4" not in texts(app)


def test_a_second_click_does_nothing(cache: EmbeddingsCache, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(cache, 2)
    app = tick(open_browse(), 0)
    press(app, "Drop")
    do = next(button for button in app.button if button.label == "Drop (1)")
    do.click().run()
    cache.set("text 1", "model 1", np.ones(DIMENSION))
    do.click().run()
    assert cache.exists("text 1", "model 1")


def test_what_was_written_anew_since_is_left_alone(cache: EmbeddingsCache) -> None:
    fill(cache, 2)
    app = tick(open_browse(), 0)
    press(app, "Drop")
    time.sleep(0.01)
    key = cache.set("text 1", "model 1", np.ones(DIMENSION))
    press(app, "Drop (1)")
    assert "1 was written anew since, and left as it is." in words(app)
    assert cache.exists_by_key(key)


def test_a_ttl_is_set_and_taken_away(cache: EmbeddingsCache) -> None:
    keys = fill(cache, 3)
    app = tick(open_browse(), 0, 1)
    app.session_state["bulk_seconds"] = 7_200  # as typed into the dialog
    press(app, "Set TTL")
    press(app, "Set TTL (2)")
    assert "2 entries now expire in 2 h." in app.success[0].value
    oldest, *changed = (cache.remaining_ttl(key) for key in keys)
    assert oldest is NEVER
    assert all(isinstance(ttl, int) and 7_100 < ttl <= 7_200 for ttl in changed)
    app.selectbox(key="browse_sort").set_value("-expires_at").run()
    assert texts(app)[0] == "text 0"
    assert table(app)["expires"].iloc[0] == "never"
    tick(app, 1, 2)
    app.session_state["bulk_expires"] = "Never"
    press(app, "Set TTL")
    press(app, "Set TTL (2)")
    assert "2 entries now never expire." in app.success[0].value
    assert [cache.remaining_ttl(key) for key in keys] == [NEVER] * 3


def test_damaged_ones_and_redisvls_are_dropped_too(cache: EmbeddingsCache) -> None:
    client = cache.connection.client()
    bent = cache.set("bent", "m", [1.0])
    client.setrange(bent, 60, b"\xff\x00")
    client.set(f"embedcache:{'ab' * 32}", b"no entry")
    client.hset(f"embedcache:{'cd' * 32}", mapping=redisvl_hash("theirs"))
    app = tick(open_browse(), 0, 1, 2)
    press(app, "Drop")
    press(app, "Drop (3)")
    assert "Dropped 3 entries" in app.success[0].value
    assert "No entries yet" in words(finish(app.run()))


def test_two_are_compared(cache: EmbeddingsCache) -> None:
    fill(cache, 3)
    app = tick(open_browse(), 0)
    assert labels(app)["Compare"]
    tick(app, 0, 1)
    press(app, "Compare")
    assert app.title[0].value == "Lookup"
    assert "Comparison" in words(app)


def test_who_may_not_write_sees_why(cache: EmbeddingsCache) -> None:
    fill(cache, 2)
    app = open_page()
    app.session_state[access.READ_ONLY_KEY] = True
    app.switch_page("pages/browse.py").run()
    tick(finish(app), 0)
    assert (labels(app)["Drop"], labels(app)["Set TTL"]) == (True, True)
    (drop,) = [button for button in app.button if button.label == "Drop"]
    assert "Read-only is switched on" in drop.help
    assert [button.label for button in app.get("download_button")] != []


# ------------------------------------------------------------------------------------------------ one entry


def test_an_entry_that_is_not_on_the_page_opens_by_its_link(cache: EmbeddingsCache) -> None:
    keys = fill(cache, 60)
    app = open_browse(cache="embedcache", key=keys[0])
    assert "text 0" not in texts(app)
    assert "text 0" in [block.value for block in app.code]
    press(app, "Close")
    assert not metrics(app)
    assert "key" not in app.query_params


def test_keys_that_open_nothing_say_why(cache: EmbeddingsCache) -> None:
    fill(cache, 1)
    assert "has not the form of a key" in words(open_browse(key="nonsense<b>"))
    assert "holds nothing under this key" in words(open_browse(key=f"embedcache:{'0' * 64}"))
    with EmbeddingsCache("other", stats=False) as other:
        key = other.set("theirs", "m", [1.0])
    app = open_browse(cache="embedcache", key=key)
    assert "This entry is of another cache, `other`." in words(app)
    finish(press(app, "Show it there"))
    assert "theirs" in [block.value for block in app.code]
    assert texts(app) == ["theirs"]


def test_another_cache_starts_on_its_first_page(cache: EmbeddingsCache) -> None:
    keys = fill(cache, 60)
    with EmbeddingsCache("other", stats=False) as other:
        other.set("theirs", "m", [1.0])
    app = open_browse(page="2", key=keys[0])
    app.selectbox(key="chosen_cache").set_value("other")
    finish(app.run())
    assert texts(app) == ["theirs"]
    assert not metrics(app)
    asked = app.query_params["cache"]
    assert (asked if isinstance(asked, str) else asked[0]) == "other"


def test_the_order_survives_a_look_at_another_page(cache: EmbeddingsCache) -> None:
    fill(cache, 60)
    app = open_browse()
    app.selectbox(key="browse_sort").set_value("inserted_at").run()
    press(app, "Next")
    app.switch_page("pages/lookup.py").run()
    app.query_params.clear()
    finish(app.switch_page("pages/browse.py").run())
    assert texts(app)[0] == "text 50"


def test_a_link_is_json_that_a_filter_reads(cache: EmbeddingsCache) -> None:
    fill(cache, 2)
    app = search(open_browse(), '"quoted" & <b>')
    asked = app.query_params["filter"]
    assert json.loads(asked if isinstance(asked, str) else asked[0]) == {"text_contains": '"quoted" & <b>'}
