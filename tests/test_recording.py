"""What users change one at a time is in the audit log: who, what, and of which entry or model."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from clicking import HOSTILE, look_up, open_page, own_server, press, press_in_dialog, words

from embedcache import EmbeddingsCache, audit
from embedcache.errors import ServerReplyError
from embedcache.vectorizers import DEFAULT_MODEL
from pages.ui import wording

LOCAL = "somebody on this machine"


@pytest.fixture(autouse=True)
def fresh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with own_server(tmp_path, monkeypatch):
        yield


@pytest.fixture
def cache() -> Iterator[EmbeddingsCache]:
    with EmbeddingsCache() as opened:
        yield opened


def log(cache: EmbeddingsCache) -> list[audit.AuditRecord]:
    return audit.read(cache.connection, cache.name)


def test_each_change_to_an_entry_is_on_record(cache: EmbeddingsCache) -> None:
    key = cache.set("t", DEFAULT_MODEL, [0.5])
    app = look_up(open_page("lookup"), "t")
    assert log(cache) == []  # looking is no change
    press(app, "Set TTL")
    press(app, "Never expire")
    press(app, "Edit metadata")
    app.text_area[-1].set_value('{"a": 1}')
    press_in_dialog(app, "Edit metadata", "Save")
    press(app, "Drop entry")
    press(app, "Drop it")
    assert "Dropped." in words(app)
    assert "audit log" not in words(app)
    found = log(cache)[::-1]
    assert [each.action for each in found] == ["set TTL", "set TTL", "edit metadata", "remove"]
    assert [each.detail.get("ttl") for each in found] == [3_600, None, None, None]
    assert {(each.actor, each.count, each.detail["words"], each.detail["outcome"]) for each in found} == {
        (LOCAL, 1, "“t”", "done")
    }
    assert found[2].detail["key"] == key
    assert found[-1].bytes > 4


def test_what_was_gone_is_said(cache: EmbeddingsCache) -> None:
    key = cache.set("t", DEFAULT_MODEL, [0.5])
    app = look_up(open_page("lookup"), "t")
    press(app, "Drop entry")
    cache.drop_by_key(key)
    press(app, "Drop it")
    assert "It is gone: it expired, or somebody else dropped it." in words(app)
    assert [each.count for each in log(cache)] == [0]


def test_what_was_stored_anew_meanwhile_is_not_dropped(cache: EmbeddingsCache) -> None:
    cache.set("t", DEFAULT_MODEL, [0.5])
    app = look_up(open_page("lookup"), "t")
    press(app, "Drop entry")
    cache.set("t", DEFAULT_MODEL, [0.75])
    press(app, "Drop it")
    assert "Nothing was changed: somebody stored this text anew" in words(app)
    assert cache.exists("t", DEFAULT_MODEL)


def test_prices_are_on_record_once(cache: EmbeddingsCache) -> None:
    cache.set("t", HOSTILE, [0.5])
    app = open_page("settings")
    app.session_state["settings"] = "Token prices"
    app.run()
    app.selectbox(key="price_model").set_value(HOSTILE)
    app.number_input(key="price_of_tokens").set_value(0.5)
    press(press(app, "Set price"), "Set price")  # a double click
    press(press(app, "Remove price"), "Remove price")
    removed, put = log(cache)
    assert (put.action, put.detail["price"], put.detail["words"]) == ("set price", 0.5, f"model “{HOSTILE_LINE}”")
    assert (removed.action, removed.detail["price"]) == ("remove price", None)


HOSTILE_LINE = wording.one_line(HOSTILE, 80)


def test_a_log_that_cannot_be_written_is_said(cache: EmbeddingsCache, monkeypatch: pytest.MonkeyPatch) -> None:
    cache.set("t", DEFAULT_MODEL, [0.5])
    app = look_up(open_page("lookup"), "t")

    def refuse(*_: object, **__: object) -> None:
        raise ServerReplyError("NOPERM")

    monkeypatch.setattr(audit, "record", refuse)
    press(app, "Edit metadata")
    press_in_dialog(app, "Edit metadata", "Save")
    assert "The metadata is saved. The audit log does not have it." in words(app)


def test_cleanup_lists_cleanups_alone(cache: EmbeddingsCache) -> None:
    cache.set("t", DEFAULT_MODEL, [0.5])
    for action in ("set price", "edit metadata", "remove"):
        audit.record(cache.connection, cache.name, "ada", action, count=1, detail={"words": "“t”", "outcome": "done"})
    app = open_page("cleanup")
    assert app.dataframe[-1].value[["action", "chosen", "actor"]].values.tolist() == [["remove", "“t”", "ada"]]


def test_what_was_filtered_for_stands_there_without_marks(cache: EmbeddingsCache) -> None:
    cache.set("x **b** `c`", DEFAULT_MODEL, [0.5])
    app = open_page("cleanup")
    app.text_input(key="cleanup_text").set_value("**b** `c`")
    press(app, "Make a plan")
    for _ in range(100):
        if app.metric:
            break
        app.run()
    app.text_input[-1].set_value("embedcache").run()
    press(app, "Remove 1 entry")
    for _ in range(100):
        if app.success:
            break
        app.run()
    assert log(cache)[0].detail["words"] == "text contains “**b** `c`”"
    assert "What was chosen: `` text contains “**b** `c`” ``." in words(app)
