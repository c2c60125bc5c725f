"""The page Cleanup, run without a browser on a real embedded server."""

from __future__ import annotations

import io
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from clicking import HOSTILE, finish, metrics, open_page, own_server, press, words
from removing import MODEL, item, stored
from servers import Server, running
from streamlit.testing.v1 import AppTest

from embedcache import NEVER, EmbeddingsCache, audit
from embedcache.filtering import EntryFilter
from pages.ui import access, cleanup_work, exports

NAME = "embedcache"
PAUSED = 4_000  # milliseconds that a server keeps writers waiting: below the time after which they give up


@pytest.fixture(autouse=True)
def fresh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with own_server(tmp_path, monkeypatch):
        yield


@pytest.fixture
def cache() -> Iterator[EmbeddingsCache]:
    with EmbeddingsCache(stats=False) as opened:
        yield opened


def entries_in(cache: EmbeddingsCache) -> int:
    return sum(1 for _ in cache.connection.client().scan_iter(f"{cache.name}:{'?' * 64}", 1_000))


def button(app: AppTest, start: str) -> Any:
    (found,) = [each for each in app.button if each.label.startswith(start)]
    return found


def labels(app: AppTest) -> list[str]:
    return [each.label for each in app.button]


def choose(app: AppTest, task: str) -> AppTest:
    app.radio(key="cleanup_task").set_value(task).run()
    assert not app.exception
    return app


def plan(app: AppTest) -> AppTest:
    return finish(press(app, "Make a plan"))


def type_name(app: AppTest, name: str = NAME) -> AppTest:
    (field,) = [each for each in app.text_input if each.label.startswith("Type the name")]
    field.set_value(name).run()
    assert not app.exception
    return app


def confirm(app: AppTest, label: str, name: str = NAME) -> AppTest:
    return finish(press(type_name(app, name), label))


def forge(app: AppTest, start: str) -> AppTest:
    """Presses a button that is disabled, as a forged message would."""
    found = button(app, start)
    assert found.disabled
    found.proto.disabled = False
    found.click().run()
    assert not app.exception
    return finish(app)


def sample(app: AppTest) -> Any:
    (table,) = [each for each in app.dataframe if "Text" in each.value.columns]
    return table.value


def be_read_only(app: AppTest) -> AppTest:
    app.session_state[access.READ_ONLY_KEY] = True
    return app.run()


# ------------------------------------------------------------------------------------------------ plans


def test_all_steps_are_there_from_the_beginning() -> None:
    app = open_page("cleanup")
    assert [each.value.rpartition("] ")[2] for each in app.subheader] == ["Choose", "Plan", "Confirm", "Report"]
    assert "It touches nothing" in words(app)
    assert app.radio(key="cleanup_task").options == [
        "Remove entries",
        "Set their TTL",
        "Clear the cache",
        "Restore a copy",
    ]


def test_a_plan_is_read_before_anything_is_touched(cache: EmbeddingsCache) -> None:
    stored(cache, 30)
    cache.mset([{"text": "=HYPERLINK()", "model_name": "other", "embedding": [1.0]}], ttl=90)
    app = open_page("cleanup")
    app.selectbox(key="cleanup_model").set_value("other")
    plan(app)
    assert metrics(app) == {
        "Entries": "1",
        "Values": metrics(app)["Values"],
        "Of the cache": "3.2%",
        "Planned": "just now",
    }
    assert "Chosen: model `other`." in words(app)
    assert sample(app)["Text"].tolist() == ["=HYPERLINK()"]
    assert sample(app)["Expires"][0].startswith("in 1 min")
    assert "whole cache" not in words(app)
    assert button(app, "Remove 1 entry").disabled  # until the name is typed
    assert entries_in(cache) == 31


def test_the_whole_cache_is_said_loudly(cache: EmbeddingsCache) -> None:
    stored(cache, 5)
    app = plan(open_page("cleanup"))
    assert "this is the whole cache" in app.warning[0].value
    assert metrics(app)["Of the cache"] == "100.0%"


@pytest.mark.parametrize("task", ["remove", "clear"])
def test_an_empty_cache_teaches_and_can_be_filled(task: str) -> None:
    app = open_page("cleanup")
    app.radio(key="cleanup_task").set_value(task).run()
    app = plan(app)
    assert "This cache is empty" in words(app)
    assert [each.label for each in app.button if each.key == "load_sample_data"] == ["Load sample data"]


def test_nothing_matches(cache: EmbeddingsCache) -> None:
    stored(cache, 1)
    app = open_page("cleanup")
    app.session_state["cleanup_filter"] = EntryFilter(min_age=86_400).to_dict()
    app = plan(app.run())
    assert "No entry matches" in words(app)
    assert not [each for each in app.text_input if each.label.startswith("Type the name")]


def test_a_filter_that_cannot_be_used(cache: EmbeddingsCache) -> None:
    stored(cache, 2)
    app = plan(open_page("cleanup"))
    app.text_input(key="cleanup_value").set_value("3").run()
    assert "Metadata field and Metadata value go together" in app.error[0].value
    assert button(app, "Make a plan").disabled
    assert "out of date" in words(app)
    forge(app, "Make a plan")
    assert "out of date" in words(app)


def test_another_choice_makes_the_plan_out_of_date(cache: EmbeddingsCache) -> None:
    stored(cache, 5)
    app = type_name(plan(open_page("cleanup")))
    assert not button(app, "Remove 5 entries").disabled
    app.text_input(key="cleanup_text").set_value("text 1").run()
    assert "This plan is out of date" in app.warning[0].value
    forge(app, "Remove 5 entries")
    assert entries_in(cache) == 5
    app.text_input(key="cleanup_text").set_value("").run()
    assert "out of date" not in words(app)
    plan(app)
    assert button(app, "Remove 5 entries").disabled  # the name was typed for another plan


def test_another_cache_makes_the_plan_out_of_date(cache: EmbeddingsCache) -> None:
    stored(cache, 5)
    with EmbeddingsCache("docs", stats=False) as docs:
        docs.set("t", MODEL, [1.0])
        app = plan(open_page("cleanup"))
        app.selectbox(key="chosen_cache").set_value("docs").run()
        assert "This plan is for the cache `embedcache`" in app.warning[0].value
        forge(app, "Remove 5 entries")
        assert (entries_in(cache), entries_in(docs)) == (5, 1)


def test_a_plan_is_one_users_and_survives_other_pages(cache: EmbeddingsCache) -> None:
    stored(cache, 5)
    app = plan(open_page("cleanup"))
    other = open_page("cleanup")
    assert not other.metric
    app.switch_page("pages/overview.py").run()
    app.switch_page("pages/cleanup.py").run()
    assert metrics(app)["Entries"] == "5"


# ------------------------------------------------------------------------------------------------ removing


def test_what_was_planned_is_removed_and_counted_again(cache: EmbeddingsCache) -> None:
    stored(cache, 20)
    app = open_page("cleanup")
    app.text_input(key="cleanup_text").set_value("text 1")
    plan(app)
    later = cache.set("text 1 came later", MODEL, [1.0])
    cache.mset([item("text 1")])
    confirm(app, "Remove 11 entries")
    assert "Removed 10 entries of `embedcache`" in app.success[0].value
    assert "Counted again: 1 of the plan's keys are there." in words(app)
    assert "1 entry left alone, because they were written anew since the plan." in words(app)
    assert "What was chosen: `text contains “text 1”`." in words(app)
    assert "It is in the audit log." in words(app)
    assert cache.exists_by_key(later)
    assert entries_in(cache) == 11
    assert not app.metric  # the plan is spent
    (record,) = audit.read(cache.connection, NAME)
    assert (record.action, record.count, record.detail["outcome"]) == ("remove", 10, "done")
    log = app.dataframe[-1].value
    assert log[["action", "count", "chosen", "ended"]].values.tolist() == [
        ["remove", 10, "text contains “text 1”", "done"]
    ]


def test_the_name_must_be_right(cache: EmbeddingsCache) -> None:
    stored(cache, 5)
    app = type_name(plan(open_page("cleanup")), "embedcach")
    assert "That is not its name. It is `embedcache`." in words(app)
    forge(app, "Remove 5 entries")
    assert entries_in(cache) == 5


def test_damaged_values_are_found_by_their_content(cache: EmbeddingsCache) -> None:
    keys = stored(cache, 10)
    client = cache.connection.client()
    client.setrange(keys[0], client.strlen(keys[0]) - 1, b"\x7f")
    client.set(f"{NAME}:{1:064x}", b"nonsense")
    app = open_page("cleanup")
    app.selectbox(key="cleanup_values").set_value("damaged")
    plan(app)
    assert sorted(sample(app)["Text"]) == ["(cannot be read)", "text 0"]
    confirm(app, "Remove 2 entries")
    assert "none of the plan's keys are there" in words(app)
    assert entries_in(cache) == 9


def test_a_filter_comes_from_another_page(cache: EmbeddingsCache) -> None:
    stored(cache, 3)
    app = open_page()
    app.session_state["cleanup_task"] = "clear"
    app.session_state["cleanup_filter"] = EntryFilter(model_name="seldom seen", min_age=86_400).to_dict()
    app.switch_page("pages/cleanup.py").run()
    assert app.radio(key="cleanup_task").value == "remove"
    assert app.selectbox(key="cleanup_model").value == "seldom seen"
    assert app.selectbox(key="cleanup_older").value == "1 day"
    assert "No entry matches" in words(plan(app))
    app.session_state["cleanup_filter"] = {"no field": HOSTILE}
    assert "This cannot be used" in app.run().error[0].value
    assert not app.run().error  # once


def test_with_no_filter_handed_over_everything_is_chosen(cache: EmbeddingsCache) -> None:
    app = open_page("cleanup")
    app.text_input(key="cleanup_text").set_value("before").run()
    app.session_state["cleanup_filter"] = {}
    app.run()
    assert app.text_input(key="cleanup_text").value == ""


# ------------------------------------------------------------------------------------------------ TTLs


def test_a_ttl_is_set_on_all_that_match(cache: EmbeddingsCache) -> None:
    keys = stored(cache, 4)
    app = choose(open_page("cleanup"), "ttl")
    app.number_input(key="cleanup_ttl_seconds").set_value(7_200)
    confirm(plan(app), "Set a TTL of 2 h on 4 entries")
    assert "Set the TTL of 4 entries" in app.success[0].value
    assert "Counted again: the 4 entries of the plan that are there all have the new TTL." in words(app)
    assert {cache.remaining_ttl(key) // 100 for key in keys} <= {71, 72}


def test_entries_are_let_live_for_ever(cache: EmbeddingsCache) -> None:
    keys = stored(cache, 4, ttl=500)
    app = choose(open_page("cleanup"), "ttl")
    app.radio(key="cleanup_ttl_kind").set_value("never")
    confirm(plan(app), "Let 4 entries never expire")
    assert [cache.remaining_ttl(key) for key in keys] == [NEVER] * 4


# ------------------------------------------------------------------------------------------------ clearing


def test_the_cache_is_cleared_of_what_the_plan_holds(cache: EmbeddingsCache) -> None:
    stored(cache, 7)
    cache.connection.client().set(f"{NAME}:{1:064x}", b"nonsense")
    with EmbeddingsCache("embedcache:docs", stats=False) as docs:
        docs.set("t", MODEL, [1.0])
        app = choose(open_page("cleanup"), "clear")
        assert "**Every entry** of `embedcache`" in words(app)
        assert "Text contains" not in [each.label for each in app.text_input]
        plan(app)
        assert metrics(app)["Entries"] == "8"
        assert "cannot be read: 1" in words(app)
        cache.set("stored later", MODEL, [1.0])
        confirm(app, "Remove all 8 entries")
        assert "Counted again: none of the plan's keys are there." in words(app)
        assert (entries_in(cache), entries_in(docs)) == (1, 1)
        assert cache.exists("stored later", MODEL)


def test_a_name_typed_once_clears_once(cache: EmbeddingsCache) -> None:
    stored(cache, 3)
    app = confirm(plan(choose(open_page("cleanup"), "clear")), "Remove all 3 entries")
    stored(cache, 2)
    plan(app)
    forge(app, "Remove all")
    assert entries_in(cache) == 2


def test_a_plan_with_a_filter_does_not_clear(cache: EmbeddingsCache) -> None:
    stored(cache, 3)
    app = open_page("cleanup")
    app.text_input(key="cleanup_text").set_value("text 1").run()
    choose(plan(app), "clear")
    assert "This plan is out of date" in words(app)
    forge(app, "Remove all")
    assert entries_in(cache) == 3


# ------------------------------------------------------------------------------------------------ copies


def test_a_copy_is_written_and_restored(cache: EmbeddingsCache) -> None:
    stored(cache, 12, metadata={"page": 1})
    app = finish(press(plan(open_page("cleanup")), "Write the copy"))
    (path,) = exports.listed()
    assert f"`{path}`" in words(app)
    assert [each.label for each in app.get("download_button")] == ["Download it"]
    confirm(app, "Remove 12 entries")
    assert f"The copy that was written before is `{path}`" in words(app)
    cache.set("text 3", MODEL, [9.0])
    choose(app, "restore")
    assert "stands here when you have chosen one" in words(app)
    app.selectbox(key="restore_file").set_value(path).run()
    assert metrics(app)["Entries"] == "12"
    assert "Of the cache `embedcache` on Valkey" in words(app)
    finish(press(app, "Restore 12 entries into embedcache"))
    assert "Restored 11 entries into `embedcache`" in app.success[0].value
    assert "1 entry of the file left out: left as it is in the cache." in words(app)
    assert cache.get("text 3", MODEL)["embedding"].tolist() == [9.0]
    assert cache.get("text 4", MODEL)["metadata"] == {"page": 1}
    app.radio(key="restore_conflict").set_value("overwrite").run()
    assert button(app, "Restore 12 entries into embedcache").disabled  # what may replace entries wants the name first
    confirm(app, "Restore 12 entries into embedcache")
    assert cache.get("text 3", MODEL)["embedding"].tolist() != [9.0]


def test_a_double_click_that_meets_the_next_button_restores_once(
    cache: EmbeddingsCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cleanup_work, "_DOUBLE_CLICK_SECONDS", 60.0)
    stored(cache, 3)
    app = finish(press(plan(open_page("cleanup")), "Write the copy"))
    (path,) = exports.listed()
    choose(app, "restore")
    app.selectbox(key="restore_file").set_value(path).run()
    for _ in range(3):
        finish(press(app, "Restore 3 entries into embedcache"))
    assert [each.action for each in audit.read(cache.connection, NAME)].count("restore") == 1


def test_a_file_that_is_no_copy_is_a_sentence() -> None:
    (exports.folder() / "<b>x.parquet").write_bytes(b"<script>")
    app = choose(open_page("cleanup"), "restore")
    app.selectbox(key="restore_file").set_value(exports.folder() / "<b>x.parquet").run()
    assert not app.exception
    assert len(app.error) == 1
    assert not [each for each in labels(app) if each.startswith("Restore")]
    assert app.subheader[3].value.endswith("Report")


# ------------------------------------------------------------------------------------------------ who may not


def test_who_only_looks_plans_and_changes_nothing(cache: EmbeddingsCache) -> None:
    stored(cache, 5)
    path = exports.keep_upload(io.BytesIO(b"PAR1")).rename(exports.folder() / "x.parquet")
    app = plan(be_read_only(open_page("cleanup")))
    assert metrics(app)["Entries"] == "5"
    assert "Read-only is switched on" in words(app)
    for start in ("Write the copy", "Remove 5 entries"):
        assert "Read-only is switched on" in button(app, start).help
        forge(app, start)
    choose(app, "clear")
    forge(app, "Remove all 5 entries")
    choose(app, "restore")
    assert not app.get("file_uploader")
    assert exports.listed() == [path]
    assert entries_in(cache) == 5
    assert audit.read(cache.connection, NAME) == []


def test_read_only_switched_on_after_the_plan(cache: EmbeddingsCache) -> None:
    stored(cache, 5)
    app = type_name(plan(open_page("cleanup")))
    forge(be_read_only(app), "Remove 5 entries")
    assert entries_in(cache) == 5


# ------------------------------------------------------------------------------------------------ while it runs


def test_a_removal_is_found_again_by_its_user_alone(cache: EmbeddingsCache) -> None:
    stored(cache, 600)
    app = type_name(plan(open_page("cleanup")))
    client = cache.connection.client()
    client.execute_command("CLIENT", "PAUSE", PAUSED, "WRITE")
    press(app, "Remove 600 entries")
    app.switch_page("pages/hit_rates.py").run()
    other = open_page("cleanup")
    assert "Cancel" not in labels(other)
    app.switch_page("pages/cleanup.py").run()
    assert "Cancel" in labels(app)
    assert not [each for each in labels(app) if each.startswith("Remove")]
    client.execute_command("CLIENT", "UNPAUSE")
    finish(app)
    assert "Removed 600 entries" in app.success[0].value
    assert not other.run().success


def test_nothing_else_begins_while_it_runs(cache: EmbeddingsCache) -> None:
    stored(cache, 600)
    app = type_name(plan(open_page("cleanup")))
    client = cache.connection.client()
    client.execute_command("CLIENT", "PAUSE", PAUSED, "WRITE")
    press(app, "Remove 600 entries")
    press(choose(app, "clear"), "Make a plan")
    while not any(label.startswith("Remove all") for label in labels(app)):
        app.run()
    assert "A cleanup of yours is running" in button(app, "Remove all").help
    client.execute_command("CLIENT", "UNPAUSE")
    finish(app)
    assert entries_in(cache) == 0


def test_cancelled_half_way_the_report_says_what_was_done(cache: EmbeddingsCache) -> None:
    stored(cache, 600)
    app = type_name(plan(open_page("cleanup")))
    client = cache.connection.client()
    client.execute_command("CLIENT", "PAUSE", PAUSED, "WRITE")
    press(app, "Remove 600 entries")
    press(app, "Cancel")
    client.execute_command("CLIENT", "UNPAUSE")
    finish(app)
    left = entries_in(cache)
    assert left >= 350  # it ended after a step at the latest
    assert "**It was cancelled half-way.**" in app.warning[0].value
    assert f"Counted again: {left} of the plan's keys are there." in words(app)
    assert audit.read(cache.connection, NAME)[0].detail["outcome"] == "cancelled"
    assert metrics(plan(app))["Entries"] == str(left)


# ------------------------------------------------------------------------------------------------ outages


@pytest.fixture
def leaving(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    with running("valkey9") as server:
        monkeypatch.setenv("EMBEDCACHE_URL", server.url)
        yield server


def test_a_server_that_goes(leaving: Server) -> None:
    with EmbeddingsCache(redis_url=leaving.url, stats=False) as cache:
        stored(cache, 600)
    app = open_page("cleanup")
    app.text_input(key="cleanup_text").set_value("text")
    type_name(plan(app))
    leaving.raw.execute_command("CLIENT", "PAUSE", PAUSED, "WRITE")
    press(app, "Remove 600 entries")
    time.sleep(0.2)
    leaving.stop()
    finish(app)
    assert not app.exception
    assert any("does not answer" in each.value for each in app.error)
    assert app.text_input(key="cleanup_text").value == "text"
    leaving.start()
    app.run()
    assert not app.exception
    assert app.text_input(key="cleanup_text").value == "text"


# ------------------------------------------------------------------------------------------------ hostile input


def test_hostile_texts_models_and_names() -> None:
    with EmbeddingsCache(HOSTILE, stats=False) as cache:
        cache.mset([{"text": HOSTILE, "model_name": HOSTILE, "embedding": [1.0], "metadata": {HOSTILE: HOSTILE}}])
        app = open_page("cleanup", cache=HOSTILE)
        app.text_input(key="cleanup_text").set_value(HOSTILE.upper())
        app.text_input(key="cleanup_field").set_value(HOSTILE)
        app.text_input(key="cleanup_value").set_value(HOSTILE)
        plan(app)
        assert "\x1b" not in words(app)
        assert "\x1b" not in sample(app).to_string()
        (field,) = [each for each in app.text_input if each.label.startswith("Type the name")]
        confirm(app, "Remove 1 entry", field.placeholder)  # the name as it can be seen
        assert "Removed 1 entry of ``` <script>" in app.success[0].value
        assert entries_in(cache) == 0
