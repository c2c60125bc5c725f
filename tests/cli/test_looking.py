"""Commands that look: they find what is there, show it inertly, and leave no trace."""

from __future__ import annotations

import pytest

from embedcache.cli.output import moment
from embedcache.vectorizers import DEFAULT_MODEL

HOSTILE = "\x1b[2J[red]<script>\n\u202e\x07 text"


def test_caches_names_each_cache_and_its_models(run, filled):
    (found,) = run("caches", "--json").json["caches"]
    assert (found["name"], found["entries"], found["models"]) == ("docs", 10, {DEFAULT_MODEL: 5, "other": 5})
    table = run("caches")
    assert table.code == 0
    assert "docs" in table.out
    assert "10" in table.out


def test_an_empty_server_is_told_in_a_sentence(run, url):
    assert run("caches").out == "There is no cache on this server yet.\n"
    assert "No entry of docs matches." in run("ls").out


@pytest.mark.parametrize(
    ("words", "texts"),
    [
        (["--contains", "TEXT 3"], {3}),
        (["--model", "other"], {0, 2, 4, 6, 8}),
        (["--metadata", "page=7"], {7}),
        (["--has-ttl"], {8, 9}),
        (["--no-ttl", "--model", "other"], {0, 2, 4, 6}),
        (["--expires-within", "1h"], {8, 9}),
        (["--older", "1h"], set()),
        (["--newer", "1h", "--contains", "5"], {5}),
        (["--larger", "1mb"], set()),
        (["--smaller", "1mb", "--metadata", "page=1"], {1}),
    ],
)
def test_ls_lists_what_matches_every_filter(run, filled, words, texts):
    found = run("ls", *words, "--json").json
    assert found["matching"] == len(texts)
    assert {each["text"] for each in found["entries"]} == {f"text {number}" for number in texts}


def test_ls_sorts_and_ends_where_it_is_told_to(run, filled):
    filled.set("a long text " * 20, "other", [1.0])
    ended = run("ls", "--sort", "size", "--limit", "1")
    assert "a long text" in ended.out
    assert "text 3" not in ended.out
    assert "1 of 11 entries are shown" in ended.err


def test_ls_finds_values_that_are_no_entries(run, filled, server):
    server.raw.set(filled.key_for("text 3", DEFAULT_MODEL), b"EMB\x01 not quite")
    (found,) = run("ls", "--corrupt", "--json").json["entries"]
    assert found["key"] == filled.key_for("text 3", DEFAULT_MODEL)
    assert "(unreadable)" in run("ls", "--corrupt").out


def test_what_a_text_holds_reaches_no_terminal(run, cache):
    cache.set(HOSTILE, "[bold]m\x1b", [1.0, 2.0], metadata={"\x9b": HOSTILE})
    for words in (["ls"], ["get", "--key", cache.key_for(HOSTILE, "[bold]m\x1b")], ["caches"], ["stats"]):
        shown = run(*words)
        assert shown.code == 0
        assert not {"\x1b", "\x07", "\x9b", "\u202e"} & set(shown.out + shown.err)
    assert "\\x1b[2J[red]<script>\\n\\u202e" in run("get", "--key", cache.key_for(HOSTILE, "[bold]m\x1b")).out
    assert run("ls", "--json").json["entries"][0]["text"] == HOSTILE


def test_get_shows_an_entry_by_text_or_key(run, filled):
    by_text = run("get", "text 9", "--json").json
    assert by_text == run("get", "--key", by_text["key"], "--json").json
    assert (by_text["metadata"], by_text["ttl"], by_text["dimension"]) == ({"page": 9}, 600, 2)
    assert 590 <= by_text["expires_in"] <= 600
    assert run("get", "text 9", "--vector", "--json").json["embedding"] == [9.0, 1.0]
    shown = run("get", "text 2", "-m", "other")
    assert "text 2" in shown.out
    assert "never" in shown.out


def test_looking_restarts_no_ttl_and_counts_nothing(run, filled, server):
    key = filled.key_for("text 9", DEFAULT_MODEL)
    filled.flush_stats()
    server.raw.expire(key, 100)
    for words in (["get", "text 9"], ["ls"], ["why", "text 9"], ["stats"], ["get", "gone"]):
        run(*words)
    assert server.raw.ttl(key) <= 100
    assert (filled.stats().hits, filled.stats().misses) == (0, 0)


def test_what_is_not_there_ends_with_1(run, filled):
    assert run("get", "nothing").code == 1
    missing = run("get", "nothing", "--json")
    assert (missing.code, missing.json["found"]) == (1, False)
    why = run("why", "TEXT 9", "--json")
    assert (why.code, why.json["reason"]) == (1, "other spelling")
    assert why.json["similar"] == [{"text": "text 9", "model_name": DEFAULT_MODEL}]
    assert run("why", "text 9").out == "Hit: the entry is there.\n"


def test_stats_are_those_of_all_processes(run, filled):
    filled.get("text 1", DEFAULT_MODEL)
    filled.get("nothing", DEFAULT_MODEL)
    filled.flush_stats()
    found = run("stats", "--json").json
    assert (found["total"]["hits"], found["total"]["misses"], found["total"]["hit_rate"]) == (1, 1, 0.5)
    assert {each["model_name"]: each["hits"] for each in found["models"]}[DEFAULT_MODEL] == 1
    assert "50.0%" in run("stats", "--window", "all").out


def test_metrics_are_in_the_format_of_prometheus(run, filled):
    filled.get("text 1", DEFAULT_MODEL)
    filled.flush_stats()
    assert 'embedcache_hits_total{cache="docs"' in run("metrics").out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["get"], "name the entry by its text, or by --key"),
        (["get", "a", "--key", "b"], "name the entry by its text, or by --key"),
        (["get", "--key", "other:1"], "no key of an entry of cache 'docs'"),
        (["ls", "--metadata", "page"], "field=value"),
        (["ls", "--older", "soon"], "no length of time"),
        (["ls", "--larger", "huge"], "no size"),
        (["ls", "--older", "2h", "--newer", "1h"], "nothing could match"),
        (["stats", "--window", "soon"], "a span of time"),
        (["ls", "--name", ""], "name"),
        (["no-such-command"], "No such command"),
    ],
)
def test_wrong_words_end_with_2_and_a_sentence(run, url, words, said):
    ended = run(*words)
    assert ended.code == 2
    assert said in ended.err


def test_a_server_that_is_away_ends_with_3_and_tells_no_password(run, url):
    ended = run("ls", "--url", "redis://user:s3cret@127.0.0.1:1/0")
    assert ended.code == 3
    assert "no answer from" in ended.err
    assert "s3cret" not in ended.out + ended.err


def test_times_beyond_the_calendar_are_shown_as_unknown():
    assert [moment(each) for each in (1e300, float("nan"), float("-inf"), -1e13)] == [None] * 4
    assert moment(0.0) == "1970-01-01 00:00:00"


def test_options_of_the_cache_may_stand_before_the_command(run, filled, server):
    assert run("--json", "ls").json["matching"] == 10
    assert run("--name", "empty", "--json", "ls").json["matching"] == 0
    assert run("--name", "empty", "ls", "--name", "docs", "--json").json["matching"] == 10
    assert run("--url", "redis://127.0.0.1:1", "ls").code == 3
    assert run("--url", "redis://127.0.0.1:1", "ls", "--url", server.url).code == 0
    assert run("--layout", "redisvl", "--json", "get", "text 9").code == 1
    assert run("--layout", "nonsense", "get", "text 9").code == 2
    assert 'cache="empty"' in run("--name", "empty", "metrics").out
    assert run("--url", server.url, "server", "status").code == 2
