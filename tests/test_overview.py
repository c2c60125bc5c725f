"""The page Overview, run without a browser on a real embedded server: what a user reads."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from clicking import HOSTILE, finish, metrics, open_page, own_server, press, words
from looking import redisvl_hash
from servers import running
from streamlit.testing.v1 import AppTest

from embedcache import EmbeddingsCache, inspector

DAY = 86_400


@pytest.fixture(autouse=True)
def fresh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with own_server(tmp_path, monkeypatch):
        yield


@pytest.fixture
def cache() -> Iterator[EmbeddingsCache]:
    with EmbeddingsCache() as opened:
        yield opened


def fill(cache: EmbeddingsCache, count: int, model: str = "m", **fields: Any) -> None:
    cache.mset([{"text": f"t{i}", "model_name": model, "embedding": [1.0] * 4, **fields} for i in range(count)])


def overview() -> AppTest:
    """The page, once all that is counted in the background is there."""
    return finish(open_page())


def figure(app: AppTest, key: str) -> dict[str, Any]:
    (chart,) = [chart for chart in app.get("plotly_chart") if chart.proto.id.endswith(key)]
    return json.loads(chart.proto.spec)


def facts(app: AppTest) -> dict[str, str]:
    table = app.table[0].value
    return dict(zip(table["fact"], table["value"], strict=True))


def said_of(monkeypatch: pytest.MonkeyPatch, **changes: Any) -> AppTest:
    """The page, where the server says these things of itself."""
    ask = inspector.server_info
    monkeypatch.setattr(inspector, "server_info", lambda connection: replace(ask(connection), **changes))
    return overview()


# ------------------------------------------------------------------------------------------------ nothing yet


def test_an_empty_server_teaches() -> None:
    app = overview()
    assert app.title[0].value == "Overview"
    assert metrics(app) == {
        "Entries": "0",
        "Memory": "0 B",
        "Hit rate, 24 h": "no lookups",
        "Time saved, 24 h": "none yet",
    }
    assert "Nothing is cached here yet" in words(app)
    assert [link.label for link in app.get("page_link")] == ["Embed a first text"]
    assert "Load sample data" in [button.label for button in app.button]
    assert not app.get("plotly_chart")
    assert "None yet." in words(app)


def test_an_empty_cache_names_those_that_are_not() -> None:
    with EmbeddingsCache("docs") as docs, EmbeddingsCache("a`b*c*") as odd:
        docs.set("t", "m", [1.0])
        odd.set("t", "m", [1.0])
        app = overview()
    assert "This cache is empty" in words(app)
    assert "but in `` a`b*c* ``, `docs`, and none in `embedcache`" in words(app)


def test_only_some_of_many_caches_are_named() -> None:
    for number in range(8):
        with EmbeddingsCache(f"c{number}", stats=False) as other:
            other.set("t", "m", [1.0])
    assert "`c4` and 3 more" in words(overview())


# ------------------------------------------------------------------------------------------------ the cache


def test_what_is_in_the_cache(cache: EmbeddingsCache) -> None:
    fill(cache, 1_200)
    fill(cache, 30, "n", ttl=DAY)
    app = overview()
    assert metrics(app)["Entries"] == "1,230"
    assert metrics(app)["Memory"].endswith("KiB")
    assert figure(app, "models")["data"][0]["customdata"][0][0] == "m"
    (ages,) = figure(app, "ages")["data"]
    assert ages["customdata"][0] == "1,230 entries"
    (leaving,) = figure(app, "leaving")["data"]
    assert dict(zip(leaving["x"], leaving["text"], strict=True)) == {
        "within 1 h": "",
        "1 h to 1 d": "30",
        "1 to 7 d": "",
        "later": "",
        "never": "1,200",
    }
    assert "1,230 entries, as of" in words(app)
    assert [link.label for link in app.get("page_link")] == [
        "Browse what leaves first",
        "Clean up",
        "Hit rates over time",
    ]


def test_a_line_of_the_last_30_days_ends_at_what_is_there_now(cache: EmbeddingsCache) -> None:
    fill(cache, 12)
    entries, memory, rate, saved = overview().metric
    assert list(entries.proto.chart_data)[-2:] == [0, 12]
    assert memory.proto.chart_data[-1] > 12 * 16
    assert entries.delta == memory.delta == "last 30 days"
    assert not rate.proto.chart_data
    assert not saved.proto.chart_data


def test_the_other_caches_are_counted_and_those_of_redisvl_marked(cache: EmbeddingsCache) -> None:
    fill(cache, 3)
    client = cache.connection.client()
    for digit in "abcde":
        client.hset(f"theirs:{digit * 64}", mapping=redisvl_hash())
    client.hset("embedcache:" + "f" * 64, mapping=redisvl_hash())
    app = overview()
    table = app.dataframe[0].value
    assert table.to_dict("list") == {"cache": ["theirs", "embedcache"], "entries": [5, 4], "redisvl": [5, 1]}
    assert "RedisVL stored 1 of them." in app.metric[0].help
    assert metrics(app)["Entries"] == "4"


def test_values_that_cannot_be_read_are_told(cache: EmbeddingsCache) -> None:
    fill(cache, 2)
    cache.connection.client().set("embedcache:" + "0" * 64, "x")
    app = overview()
    assert metrics(app)["Entries"] == "3"
    assert "1 value of this cache cannot be read." in words(app)


def test_a_cache_of_nothing_that_can_be_read(cache: EmbeddingsCache) -> None:
    cache.connection.client().set("embedcache:" + "0" * 64, "x")
    app = overview()
    assert metrics(app)["Entries"] == "1"
    assert not [chart for chart in app.get("plotly_chart") if chart.proto.id.endswith("models")]


def test_refresh_looks_and_counts_anew(cache: EmbeddingsCache) -> None:
    app = overview()
    cache.set("t", "m", [1.0])
    with EmbeddingsCache("other") as other:
        other.set("t", "m", [1.0])
        finish(press(app, "Refresh"))
    assert metrics(app)["Entries"] == "1"
    assert list(app.dataframe[0].value["cache"]) == ["embedcache", "other"]


def test_looking_counts_as_no_use(cache: EmbeddingsCache) -> None:
    key = cache.set("t", "m", [1.0], ttl=1_000)
    cache.connection.client().expire(key, 100)
    overview()
    left = cache.remaining_ttl(key)
    assert isinstance(left, int)
    assert left <= 100
    cache.flush_stats()
    assert cache.stats("24h").texts == 0


def test_strangers_words_are_words(cache: EmbeddingsCache) -> None:
    cache.set(HOSTILE, HOSTILE, [0.5], {HOSTILE: HOSTILE})
    with EmbeddingsCache(HOSTILE) as other:
        other.set("t", "m", [1.0])
        app = overview()
    assert "<script>" not in words(app)
    for chart in app.get("plotly_chart"):
        assert "<script" not in chart.proto.spec
        assert "\\u003cscript" not in chart.proto.spec


# ------------------------------------------------------------------------------------------------ use


def test_hit_rate_and_time_saved_of_the_day(cache: EmbeddingsCache) -> None:
    cache.set("kept", "m", [1.0])
    for text in ("kept", "kept", "kept", "never kept"):
        cache.get(text, "m")
    cache.record_computation("m", texts=1, seconds=2, tokens=10)
    cache.flush_stats()
    app = overview()
    assert metrics(app)["Hit rate, 24 h"] == "75.0%"
    assert metrics(app)["Time saved, 24 h"] == "6 s"
    rate, saved = app.metric[2:]
    assert list(rate.proto.chart_data)[-1] == 75
    assert rate.proto.chart_data[0] != rate.proto.chart_data[0], "an hour without lookups has no rate"
    assert sum(saved.proto.chart_data) == pytest.approx(6)
    assert rate.delta == "by the hour"


def test_time_saved_is_unknown_where_no_model_was_measured(cache: EmbeddingsCache) -> None:
    cache.set("kept", "m", [1.0])
    cache.get("kept", "m")
    cache.flush_stats()
    app = overview()
    assert metrics(app)["Time saved, 24 h"] == "unknown"
    assert "No program has said yet" in app.metric[3].help


# ------------------------------------------------------------------------------------------------ the server


def test_facts_of_the_server() -> None:
    told = facts(overview())
    assert told["Kind"].startswith("Valkey 9")
    assert told["Address"].startswith("`embedded://")
    assert told["When full"] == "No limit is set"
    assert told["On disk"] == "Each write is logged (AOF)"
    assert told["Evicted"] == "0 keys since it started"


def test_how_a_server_without_a_log_keeps_what_it_has(monkeypatch: pytest.MonkeyPatch) -> None:
    with running("valkey9") as server, EmbeddingsCache(redis_url=server.url, stats=False) as cache:
        monkeypatch.setenv("EMBEDCACHE_URL", server.url)
        app = overview()
        assert facts(app)["On disk"] == "Nothing: no log (AOF), and no snapshot since it started"
        server.raw.config_set("maxmemory", "100mb")
        server.raw.config_set("maxmemory-policy", "volatile-ttl")
        cache.set("t", "m", [1.0])
        monkeypatch.setattr("embedcache.inspector._saved_ago", lambda _: 200.0)  # it takes seconds to tell
        told = facts(finish(press(app, "Refresh")))
    assert told["On disk"] == "No log (AOF); last snapshot 3 min ago, 1 change since"
    assert told["When full"] == "Evicts what expires soonest (volatile-ttl)"
    assert told["Memory"].endswith("of 100.0 MiB")


@pytest.mark.parametrize(
    ("policy", "said", "never"),
    [
        ("noeviction", "it refuses new entries", "never expire"),
        ("volatile-lru", "it evicts entries", "never expire"),
        ("allkeys-lru", "it evicts entries, also those that never expire", "When its memory is full"),
    ],
)
def test_memory_that_is_nearly_full_is_a_warning(
    policy: str, said: str, never: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = said_of(monkeypatch, maxmemory_bytes=1_000, used_memory_bytes=950, maxmemory_policy=policy)
    (warning,) = app.warning
    assert "95.0% full" in warning.value
    assert said in warning.value
    assert never not in words(app)


def test_that_a_server_may_evict_what_never_expires_is_said_before_it_does(monkeypatch: pytest.MonkeyPatch) -> None:
    app = said_of(monkeypatch, maxmemory_bytes=1_000, used_memory_bytes=100, maxmemory_policy="allkeys-lfu")
    assert not app.warning
    assert "(10.0% now), this server evicts entries, also those that never expire" in app.info[0].value


def test_a_server_that_could_not_write_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    app = said_of(monkeypatch, disk_trouble="the last snapshot failed")
    (warning,) = app.warning
    assert "could not write to its disk" in warning.value
    assert "the last snapshot failed" in warning.value


def test_a_policy_that_is_new_to_us_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    app = said_of(monkeypatch, maxmemory_bytes=10**9, maxmemory_policy="newest-first")
    assert facts(app)["When full"] == "It does not say what it does (newest-first)"


def test_a_server_that_does_not_say_how_it_is(cache: EmbeddingsCache, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(cache, 3)
    client = cache.connection.client()
    client.acl_setuser("narrow", enabled=True, passwords=["+pw"], keys=["*"], commands=["+@all", "-info"])
    path = client.connection_pool.connection_kwargs["path"]
    monkeypatch.setenv("EMBEDCACHE_URL", f"unix://narrow:pw@{path}")
    app = overview()
    assert metrics(app)["Entries"] == "3"
    assert "It does not say how it is" in words(app)
    assert not app.error


def test_a_user_who_may_not_look_at_keys(cache: EmbeddingsCache, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(cache, 3)
    client = cache.connection.client()
    client.acl_setuser("narrow", enabled=True, passwords=["+pw"], keys=["*"], commands=["+@all", "-scan"])
    path = client.connection_pool.connection_kwargs["path"]
    monkeypatch.setenv("EMBEDCACHE_URL", f"unix://narrow:pw@{path}")
    app = overview()
    assert "lacks a right" in app.error[0].value
    assert facts(app)["Kind"].startswith("Valkey 9")
    assert "Look again" in [button.label for button in app.button]
    assert metrics(app)["Entries"] == "…"


def test_a_password_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMBEDCACHE_URL", "redis://user:s3cr3t@127.0.0.1:1/0?password=s3cr3t")
    app = open_page()
    assert "does not answer" in words(app)
    assert "s3cr3t" not in repr(app)
