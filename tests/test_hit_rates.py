"""The page Hit rates, run without a browser on a real embedded server."""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import streamlit as st
from clicking import HOSTILE, finish, look_up, metrics, open_page, own_server, press, words
from streamlit.testing.v1 import AppTest

from embedcache import EmbeddingsCache, buckets
from embedcache.counters import Batch, Counts
from embedcache.flushing import flush_all
from embedcache.keyspace import Keyspace
from embedcache.operations import ServerAbilities
from embedcache.server import EmbeddedServer
from embedcache.vectorizers import DEFAULT_MODEL
from pages.ui import session

HOUR = 3_600
FIGURES = ["rates_rate", "rates_texts", "rates_latency", "rates_saved", "rates_models"]


@pytest.fixture(autouse=True)
def fresh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with own_server(tmp_path, monkeypatch):
        yield


@pytest.fixture
def cache() -> Iterator[EmbeddingsCache]:
    with EmbeddingsCache(slow_lookup_seconds=None) as opened:
        yield opened


def open_rates(*caches: EmbeddingsCache) -> AppTest:
    """The page, once all that these caches counted is on the server."""
    for cache in caches:
        cache.flush_stats()
    return open_page("hit_rates")


def figure(app: AppTest, key: str) -> dict[str, Any]:
    (chart,) = [chart for chart in app.get("plotly_chart") if chart.proto.id.endswith(key)]
    return json.loads(chart.proto.spec)


def drawn(app: AppTest) -> list[str]:
    return [key for key in FIGURES if any(chart.proto.id.endswith(key) for chart in app.get("plotly_chart"))]


def facts(app: AppTest) -> dict[str, str]:
    table = app.table[0].value
    return dict(zip(table["fact"], table["value"], strict=True))


def choose(app: AppTest, span: str) -> AppTest:
    app.radio(key="rates_window").set_value(span).run()
    assert not app.exception
    return app


def use(cache: EmbeddingsCache, hits: int, misses: int, model: str = "m") -> None:
    cache.set("kept", model, [1.0, 2.0])
    for _ in range(hits):
        assert cache.get("kept", model)
    for number in range(misses):
        assert cache.get(f"never kept {number}", model) is None


def count_long_ago(cache: EmbeddingsCache, seconds: float, counts: Counts, model: str = "m") -> None:
    batch = Batch(since=0.0, until=time.monotonic() - seconds, counts={model: counts})
    operation = buckets.add_batch(
        Keyspace(cache.name), ServerAbilities(), batch, writer=f"then{seconds}", number=1, process="host:1"
    )
    cache.connection.drive(operation)


# ------------------------------------------------------------------------------------------------ nothing yet


def test_an_empty_page_says_how_to_get_data(cache: EmbeddingsCache) -> None:
    app = open_rates()
    assert app.title[0].value == "Hit rates"
    assert "Nothing to show yet" in words(app)
    assert [link.label for link in app.get("page_link")] == ["Embed a text"]
    assert "EmbeddingsCache('embedcache')" in app.code[0].value
    assert len(app.code[0].value.splitlines()) == 3
    assert not app.metric
    assert not drawn(app)
    assert "`EmbeddingsCache(slow_lookup_seconds=0.1)`" in words(app)


@pytest.mark.model
def test_sample_data_is_looked_up_and_found(cache: EmbeddingsCache) -> None:
    app = open_rates()
    assert "looked up there before and after" in words(app)
    finish(press(app, "Load sample data"))
    deadline = time.monotonic() + 30
    while metrics(app).get("Hit rate") != "50.0%":  # what is under way is gone with the first misses; then come hits
        assert time.monotonic() < deadline, words(app)
        finish(app.run())
    assert "Nothing to show yet" not in words(app)
    assert len(cache.mget(["What is machine learning?"], DEFAULT_MODEL)) == 1


def test_entries_alone_are_no_lookups(cache: EmbeddingsCache) -> None:
    cache.set("t", "m", [1.0])
    assert "Nothing to show yet" in words(open_rates(cache))


def test_older_lookups_are_a_longer_window_away(cache: EmbeddingsCache) -> None:
    count_long_ago(cache, 2 * HOUR, Counts(hits=3, misses=1))
    app = open_rates()
    assert "Nothing in the last 1 h" in words(app)
    press(app, "Show the last 6 h")
    assert app.radio(key="rates_window").value == "6h"
    assert metrics(app)["Hit rate"] == "75.0%"


def test_lookups_older_than_any_window_are_said(cache: EmbeddingsCache) -> None:
    count_long_ago(cache, 40 * 24 * HOUR, Counts(hits=3))
    app = open_rates()
    assert "Before that, it was 3 texts." in words(app)
    assert [button.label for button in app.button if button.label.startswith("Show")] == []


# ------------------------------------------------------------------------------------------------ what is counted


def test_what_was_counted_is_shown(cache: EmbeddingsCache) -> None:
    use(cache, hits=3, misses=1)
    app = open_rates(cache)
    shown = metrics(app)
    assert shown["Hit rate"] == "75.0%"
    assert shown["Texts looked up"] == "4"
    assert shown["Lookup p95"].endswith("ms")
    assert shown["Errors"] == "0"
    assert facts(app)["Misses"] == "1"
    assert facts(app)["Stored"].startswith("1 entry, ")
    bars = {bar["name"]: bar["y"] for bar in figure(app, "rates_texts")["data"]}
    assert {name: sum(counts) for name, counts in bars.items()} == {"hits": 3, "near hits": 0, "misses": 1}
    rates = figure(app, "rates_rate")["data"][0]["y"]
    assert len(rates) == 60
    assert rates[:50] == [None] * 50
    assert figure(app, "rates_rate")["layout"]["xaxis"]["title"]["text"] == "time (UTC)"
    assert drawn(app) == [key for key in FIGURES if key != "rates_saved"]


def test_near_hits_and_expired_misses_are_told_apart(cache: EmbeddingsCache) -> None:
    count_long_ago(cache, 0, Counts(hits=2, near_hits=4, misses=4, expired=1, evicted=1, corrupt=1, flights_saved=4))
    app = open_rates()
    assert metrics(app)["Hit rate"] == "60.0%"
    assert facts(app)["… had expired"] == facts(app)["… were evicted"] == "1 (25.0%)"
    assert facts(app)["… were damaged"] == "1 (25.0%)"
    assert facts(app)["… were not there"] == "1 (25.0%)"
    assert facts(app)["Not computed twice"] == "4 texts"


def test_the_rate_is_compared_with_the_window_before(cache: EmbeddingsCache) -> None:
    count_long_ago(cache, 1.5 * HOUR, Counts(hits=1, misses=1))
    use(cache, hits=3, misses=1)
    app = open_rates(cache)
    assert app.metric[0].delta == "+25.0 points"
    assert app.metric[0].help is not None
    assert "In the 1 h before, it was 50.0%." in app.metric[0].help
    choose(app, "15m")
    assert app.metric[0].delta == ""
    assert "In the 15 min before, no text was looked up." in app.metric[0].help


def test_errors_are_marked_even_where_nothing_was_found_out(cache: EmbeddingsCache) -> None:
    count_long_ago(cache, 5 * 60, Counts(errors=7))
    app = open_rates()
    assert metrics(app)["Errors"] == "7"
    assert metrics(app)["Hit rate"] == "unknown"
    marks = figure(app, "rates_rate")["data"][1]
    assert marks["text"] == ["7"]
    assert marks["name"] == "errors"


def test_windows_hold_what_they_say(cache: EmbeddingsCache) -> None:
    ages = {"15m": 0, "1h": 0.5, "6h": 3, "24h": 12, "7d": 3 * 24, "30d": 15 * 24}
    for age in ages.values():
        count_long_ago(cache, age * HOUR, Counts(misses=1))
    app = open_rates()
    seen = {span: metrics(choose(app, span))["Texts looked up"] for span in ages}
    assert seen == {"15m": "1", "1h": "2", "6h": "3", "24h": "4", "7d": "5", "30d": "6"}
    steps = {span: len(figure(choose(app, span), "rates_texts")["data"][0]["y"]) for span in ages}
    assert steps == {"15m": 15, "1h": 60, "6h": 72, "24h": 48, "7d": 56, "30d": 30}


def test_the_cards_are_the_sum_of_the_charts(cache: EmbeddingsCache) -> None:
    for minutes in range(0, 26 * 60, 10):  # also where the first step of a window begins later than the window
        count_long_ago(cache, 60 * minutes, Counts(hits=2, misses=1))
    app = open_rates()
    for span in ("6h", "24h", "7d"):
        bars = figure(choose(app, span), "rates_texts")["data"]
        assert metrics(app)["Texts looked up"] == str(sum(sum(bar["y"]) for bar in bars))


def test_one_model_or_all_of_them(cache: EmbeddingsCache) -> None:
    use(cache, hits=3, misses=1, model="m")
    use(cache, hits=0, misses=5, model="n")
    app = open_rates(cache)
    assert app.selectbox(key="rates_model").options == ["All models", "m", "n"]
    assert metrics(app)["Texts looked up"] == "9"
    app.selectbox(key="rates_model").set_value("n").run()
    assert metrics(app)["Texts looked up"] == "5"
    assert metrics(app)["Hit rate"] == "0.0%"
    by_model = figure(app, "rates_models")["data"]
    assert by_model[0]["x"] == [0, 3]  # most texts first: n, m
    assert by_model[2]["x"] == [5, 1]


def test_a_model_that_is_new_can_be_chosen(cache: EmbeddingsCache) -> None:
    app = open_rates()
    use(cache, hits=1, misses=0, model="new")
    cache.flush_stats()
    app.run()
    assert "new" in app.selectbox(key="rates_model").options


def test_choices_outlive_a_walk(cache: EmbeddingsCache) -> None:
    use(cache, hits=1, misses=0)
    app = choose(open_rates(cache), "7d")
    app.selectbox(key="rates_model").set_value("m").run()
    app.toggle(key="rates_live").set_value(False).run()
    app.switch_page("pages/overview.py").run()
    app.switch_page("pages/hit_rates.py").run()
    assert app.radio(key="rates_window").value == "7d"
    assert app.selectbox(key="rates_model").value == "m"
    assert app.toggle(key="rates_live").value is False


def test_another_cache_has_other_models(cache: EmbeddingsCache) -> None:
    with EmbeddingsCache("other") as other:
        use(cache, hits=1, misses=0, model="m")
        use(other, hits=2, misses=0, model="n")
        app = open_rates(cache, other)
        app.selectbox(key="rates_model").set_value("m").run()
        app.session_state[session.CACHE_KEY] = "other"
        app.run()
    assert not app.exception
    assert app.selectbox(key="rates_model").options == ["All models", "n"]
    assert metrics(app)["Texts looked up"] == "2"


def test_looking_at_an_entry_is_no_hit(cache: EmbeddingsCache) -> None:
    use(cache, hits=2, misses=0, model=DEFAULT_MODEL)
    assert metrics(look_up(open_page("lookup"), "kept"))["Dimension"] == "2"
    flush_all()  # what the page's own cache would have counted, too
    assert metrics(open_rates(cache))["Texts looked up"] == "2"


# ------------------------------------------------------------------------------------------------ what is saved


def test_time_and_tokens_saved(cache: EmbeddingsCache) -> None:
    use(cache, hits=3, misses=0)
    app = open_rates(cache)
    assert metrics(app)["Time saved"] == "unknown"
    assert metrics(app)["Money saved"] == "unknown"
    assert "`cache.record_computation`" in words(app)

    cache.record_computation("m", texts=2, seconds=180, tokens=800)
    cache.flush_stats()
    app.run()
    assert metrics(app)["Time saved"] == "4 min 30 s"
    assert metrics(app)["Tokens saved"] == "1,200"
    assert "Money saved" not in metrics(app)
    saved = figure(app, "rates_saved")
    assert saved["data"][0]["y"][-1] == pytest.approx(4.5)
    assert saved["layout"]["yaxis"]["title"]["text"] == "saved so far (min)"
    assert facts(app)["Computed"] == "2 texts, 800 tokens, in 3 min"


def set_price(app: AppTest, model: str | None, price: float | None, label: str = "Set price") -> AppTest:
    app.selectbox(key="price_model").set_value(model)
    app.number_input(key="price_of_tokens").set_value(price)
    return press(app, label)


def test_a_price_is_set_and_removed(cache: EmbeddingsCache) -> None:
    use(cache, hits=3, misses=0)
    cache.record_computation("m", texts=2, seconds=1, tokens=800)
    app = set_price(open_rates(cache), "m", 0.5)
    assert app.success[0].value == "1,000 tokens of `m` cost 0.5 now."
    assert metrics(app)["Money saved"] == "0.60"
    assert cache.token_prices() == {"m": 0.5}
    press(app, "Set price")  # a double click
    assert cache.token_prices() == {"m": 0.5}
    press(app, "Remove price")
    assert app.success[0].value == "`m` has no price now."
    assert cache.token_prices() == {}
    assert metrics(app)["Tokens saved"] == "1,200"


def test_a_price_of_a_hostile_model(cache: EmbeddingsCache) -> None:
    use(cache, hits=1, misses=0, model=HOSTILE)
    app = set_price(open_rates(cache), HOSTILE, 2.0)
    assert cache.token_prices() == {HOSTILE: 2.0}
    assert app.success[0].value.startswith("1,000 tokens of ``` <script>")
    assert list(app.dataframe[0].value["price"]) == [2.0]


@pytest.mark.parametrize(
    ("model", "price", "said"),
    [("m", None, "There is no price here yet."), ("  ", 1.0, "There is no model here yet."), (None, 1.0, "no model")],
)
def test_an_unusable_price_is_a_sentence(model: str, price: float | None, said: str, cache: EmbeddingsCache) -> None:
    app = set_price(open_rates(), model, price)
    assert said in app.error[0].value
    assert cache.token_prices() == {}


# ------------------------------------------------------------------------------------------------ slow lookups


def test_slow_lookups_are_listed_without_their_texts() -> None:
    with EmbeddingsCache(slow_lookup_seconds=0) as cache:
        cache.set("secret", "m", [1.0])
        cache.mget(["secret", "other"], "m")
        keys = [cache.key_for("gone", "m"), cache.key_for("secret", "m")]
        cache.get_by_key(keys[0])
        app = open_rates(cache)
    table = app.dataframe[0].value
    assert list(table["model"]) == ["(by key)", "m"]
    assert list(table["texts"]) == [1, 2]
    assert list(table["hits"]) == [0, 1]
    assert list(table["key"]) == keys
    assert table["entry"].iloc[0] == "lookup?key=" + keys[0].replace(":", "%3A")
    assert (table["ms"] > 0).all()
    assert "secret" not in table.to_string()


def test_texts_of_slow_lookups_are_shown_where_they_were_asked_for() -> None:
    with EmbeddingsCache(slow_lookup_seconds=0, slow_lookup_texts=True) as cache:
        cache.get(f"{HOSTILE}\nsecond line", "m")
        app = open_rates(cache)
    (text,) = app.dataframe[0].value["text"]
    assert text == HOSTILE.replace("\x1b", "␛") + " second line"


# ------------------------------------------------------------------------------------------------ strangers' names


def test_hostile_names_are_text() -> None:
    with EmbeddingsCache(slow_lookup_seconds=0) as cache:
        use(cache, hits=1, misses=1, model=HOSTILE)
        cache.set_token_price(HOSTILE, 1.0)
        app = open_rates(cache)
        app.selectbox(key="rates_model").set_value(HOSTILE).run()
    assert not app.exception
    assert metrics(app)["Texts looked up"] == "2"
    assert "<script>" not in words(app)
    for chart in app.get("plotly_chart"):
        assert "<script" not in chart.proto.spec.replace("\\u003c", "<")


def test_a_hostile_model_without_lookups_is_text(cache: EmbeddingsCache) -> None:
    count_long_ago(cache, 40 * 24 * HOUR, Counts(hits=3), HOSTILE)
    app = open_rates()
    app.selectbox(key="rates_model").set_value(HOSTILE).run()
    (said,) = [markdown.value for markdown in app.markdown if "was not asked for" in markdown.value]
    assert said.startswith("``` <script>")


# ------------------------------------------------------------------------------------------------ servers


def test_a_server_that_goes_and_comes_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server = EmbeddedServer.attach(tmp_path / "own")
    monkeypatch.setenv("EMBEDCACHE_URL", f"unix://{server.socket_path}")
    with EmbeddingsCache() as cache:
        use(cache, hits=3, misses=1)
        app = choose(open_rates(cache), "6h")
    st.cache_resource.clear()  # the server ends with its last client
    server.detach()
    app.run()
    assert not app.exception
    assert [error.value.startswith("**The server at ") for error in app.error] == [True]
    assert not app.metric
    assert app.radio(key="rates_window").value == "6h"
    server = EmbeddedServer.attach(tmp_path / "own")
    try:
        press(app, "Try again")
        assert not app.error
        assert metrics(app)["Hit rate"] == "75.0%"
        st.cache_resource.clear()
    finally:
        server.detach()


def test_a_user_who_may_not_read_statistics(cache: EmbeddingsCache, monkeypatch: pytest.MonkeyPatch) -> None:
    cache.set("t", DEFAULT_MODEL, [0.5])
    client = cache.connection.client()
    client.acl_setuser("narrow", enabled=True, passwords=["+pw"], keys=["embedcache:[0-9a-f]*"], commands=["+@all"])
    path = client.connection_pool.connection_kwargs["path"]
    monkeypatch.setenv("EMBEDCACHE_URL", f"unix://narrow:pw@{path}")
    overview = open_page()
    assert metrics(overview)["Entries"] == "1"
    assert metrics(overview)["Hit rate, 24 h"] == "unknown"
    assert "**The user of this server lacks a right.**" in open_rates().error[0].value


# ------------------------------------------------------------------------------------------------ Overview


def test_overview_has_the_days_hit_rate(cache: EmbeddingsCache) -> None:
    assert metrics(open_page())["Hit rate, 24 h"] == "no lookups"
    use(cache, hits=3, misses=1)
    cache.flush_stats()
    app = open_page()
    assert metrics(app)["Hit rate, 24 h"] == "75.0%"
    assert "Hit rates over time" in [link.label for link in app.get("page_link")]
