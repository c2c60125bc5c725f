"""Commands that change entries: nothing without a yes, nothing more than was planned, and a report that was counted."""

from __future__ import annotations

import io
import signal
import sys

import pytest

from embedcache import EmbeddingsCache, audit, removal
from embedcache.vectorizers import DEFAULT_MODEL


@pytest.fixture
def typing_in(monkeypatch):
    """Somebody at a terminal who types these lines."""

    def types(*lines: str) -> None:
        terminal = io.StringIO("".join(f"{line}\n" for line in lines))
        terminal.isatty = lambda: True  # type: ignore[method-assign]
        monkeypatch.setattr(sys, "stdin", terminal)

    return types


def count(cache: EmbeddingsCache) -> int:
    return sum(cache.mexists([f"text {number}" for number in range(10)], DEFAULT_MODEL)) + sum(
        cache.mexists([f"text {number}" for number in range(10)], "other")
    )


def test_drop_removes_one_entry(run, filled):
    assert run("drop", "text 1", "--dry-run").out == "It would be dropped.\n"
    assert count(filled) == 10
    assert run("drop", "text 1").code == 4
    assert count(filled) == 10
    assert run("drop", "text 1", "--yes", "--json").json["dropped"] is True
    assert count(filled) == 9
    assert run("drop", "text 1").code == 1
    assert run("drop", "--yes", "--key", filled.key_for("text 2", "other")).code == 0
    assert count(filled) == 8


def test_drop_by_filter_asks_for_the_caches_name(run, filled, typing_in):
    typing_in("doc")
    ended = run("drop", "--model", "other")
    assert ended.code == 4
    assert "is not the cache's name. Nothing was done" in ended.err
    assert count(filled) == 10
    typing_in("docs")
    ended = run("drop", "--model", "other")
    assert ended.code == 0
    assert "5 entries of docs match" in ended.out
    assert "5 entries were removed" in ended.out
    assert "Counted again: 0 of them are there." in ended.out
    assert count(filled) == 5
    assert [record.action for record in audit.read(filled.connection, "docs")] == ["remove"]


@pytest.mark.parametrize("words", [["drop", "--model", "other"], ["clear"], ["ttl", "--all", "--set", "1h"]])
def test_nothing_is_changed_by_a_dry_run_or_where_nobody_can_say_yes(run, filled, words, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.StringIO("docs\n"))
    assert run(*words, "--dry-run").code == 0
    ended = run(*words)
    assert ended.code == 4
    assert "add --yes. Nothing was done" in ended.err
    assert count(filled) == 10
    assert filled.remaining_ttl(filled.key_for("text 1", DEFAULT_MODEL)) is not None
    assert list(audit.read(filled.connection, "docs")) == []


def test_drop_needs_to_know_which(run, filled):
    assert run("drop", "--yes").code == 2
    assert run("drop", "text 1", "--contains", "text", "--yes").code == 2
    assert count(filled) == 10


def test_clear_removes_one_cache_alone(run, filled, url):
    with EmbeddingsCache("docs:other", redis_url=url) as neighbour:
        neighbour.set("t", "m", [1.0])
        report = run("clear", "--yes", "--json").json
        assert (report["changed"], report["remaining"]) == (10, 0)
        assert neighbour.exists("t", "m")


def test_ttl_is_shown_set_and_taken_away(run, filled):
    assert run("ttl", "text 1").out == "It never expires.\n"
    assert run("ttl", "text 1", "--set", "15m").out == "It expires in 15 min (900 s).\n"
    assert run("ttl", "text 1", "--persist", "--json").json["expires_in"] is None
    assert run("ttl", "nothing", "--set", "5").code == 1
    report = run("ttl", "--set", "2h", "--contains", "text", "--yes", "--json").json
    assert (report["action"], report["changed"]) == ("set TTL", 10)
    assert filled.remaining_ttl(filled.key_for("text 2", "other")) in range(7_190, 7_201)


@pytest.mark.parametrize("words", ["--set 0", "--set 1.5", "--set 1h --persist", "--all", "--set 1h"])
def test_a_ttl_that_cannot_be_is_refused(run, filled, words):
    assert run("ttl", *words.split(), "--yes").code == 2
    assert filled.remaining_ttl(filled.key_for("text 9", DEFAULT_MODEL)) in range(1, 601)


def test_a_read_only_users_refusal_ends_with_4(run, filled, server):
    server.raw.execute_command(
        "ACL", "SETUSER", "reader", "on", ">pw", "~*", "+@read", "+@connection", "+info", "+scan"
    )
    url = server.url.replace("unix://", "unix://reader:pw@")
    ended = run("drop", "text 1", "--yes", "--url", url)
    assert ended.code == 4
    assert "pw@" not in ended.err
    assert count(filled) == 10


def test_doctor_tells_and_mends_after_a_yes(run, filled, server, typing_in):
    key = filled.key_for("text 3", DEFAULT_MODEL)
    server.raw.set(key, b"EMB\x01 broken, and too short by far")
    ended = run("doctor", "--json")
    assert ended.code == 1
    assert ("corrupt values", 1) in [(each["kind"], each["count"]) for each in ended.json["findings"]]
    assert key in run("doctor").out
    typing_in("n", "n", "n")
    assert run("doctor", "--fix").code == 1
    assert server.raw.exists(key)
    typing_in("y", "y", "y")
    run("doctor", "--fix")
    assert not server.raw.exists(key)
    assert count(filled) == 9


def test_questions_leave_standard_output_to_the_document(run, filled, typing_in):
    typing_in("docs")
    ended = run("drop", "--model", "other", "--json")
    assert ended.json["changed"] == 5
    assert "Type the cache's name" in ended.err


def test_doctor_takes_the_end_of_input_for_a_no(run, filled, server, typing_in):
    key = filled.key_for("text 3", DEFAULT_MODEL)
    server.raw.set(key, b"EMB\x01 broken, and too short by far")
    typing_in()
    assert run("doctor", "--fix").code == 1
    assert server.raw.exists(key)


def test_one_entry_and_filters_are_not_mixed(run, filled):
    for more in (["--contains", "x"], ["--all"], ["--idle", "1h"]):
        assert run("ttl", "text 9", "--set", "1h", *more, "--yes").code == 2
    assert filled.remaining_ttl(filled.key_for("text 9", DEFAULT_MODEL)) in range(1, 601)


@pytest.mark.parametrize("option", ["--older", "--larger", "--smaller", "--idle"])
def test_numbers_that_no_computer_holds_are_refused(run, filled, option):
    for words in (["drop", option, "9" * 400, "--yes"], ["ttl", "text 9", "--set", "9" * 400]):
        assert run(*words).code == 2
    assert count(filled) == 10


@pytest.mark.parametrize(("words", "done"), [(["drop", "--model", "m"], 250), (["ttl", "--all", "--set", "1h"], 250)])
def test_ctrl_c_ends_between_two_steps_and_is_on_record(run, cache, monkeypatch, words, done):
    cache.mset([{"text": str(number), "model_name": "m", "embedding": [1.0]} for number in range(1_000)])
    before = signal.getsignal(signal.SIGINT)

    def pressing(work):
        def carry(connection, plan, *middle_and_tell_and_actor):
            *middle, tell, actor = middle_and_tell_and_actor

            def told(looked_at, total):
                if looked_at == done:
                    signal.raise_signal(signal.SIGINT)
                tell(looked_at, total)

            return work(connection, plan, *middle, told, actor)

        return carry

    for name in ("carry_out", "set_ttl"):
        monkeypatch.setattr(removal, name, pressing(getattr(removal, name)))
    ended = run(*words, "--yes")
    assert ended.code == 130
    assert f"was cancelled: {done} of 1,000 entries" in ended.err
    (record,) = audit.read(cache.connection, "docs")
    assert (record.detail["outcome"], record.count) == ("cancelled", done)
    assert signal.getsignal(signal.SIGINT) == before
