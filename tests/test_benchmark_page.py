"""The page Benchmark, run without a browser on a real embedded server."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from clicking import HOSTILE, metrics, open_page, own_server, press, words
from streamlit.testing.v1 import AppTest
from test_benchmark_runs import SUMMARIES, make

from embedcache import EmbeddingsCache, benchmark
from embedcache.benchmark import runs as benchmark_runs
from embedcache.benchmark.records import Run
from pages.ui import access, session

PATIENCE = 120.0
RUN = "Run the benchmark"


@pytest.fixture(autouse=True)
def fresh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with own_server(tmp_path, monkeypatch):
        yield


@pytest.fixture
def cache() -> Iterator[EmbeddingsCache]:
    with EmbeddingsCache(stats=False) as opened:
        yield opened


def set_up(app: AppTest, *scenarios: str, iterations: int = 3) -> AppTest:
    for name in benchmark.SCENARIOS:
        app.checkbox(key=f"benchmark_compare_{name}").set_value(name in scenarios)
    app.number_input(key="benchmark_iterations").set_value(iterations)
    return app.run()


def wait(app: AppTest) -> AppTest:
    """Runs the page until no benchmark is at work."""
    deadline = time.monotonic() + PATIENCE
    while any(button.label in {"Cancel", "Cancelling"} for button in app.button):
        assert time.monotonic() < deadline
        time.sleep(0.05)
        app.run()
    assert not app.exception
    return app


def button(app: AppTest, label: str) -> Any:
    (found,) = [button for button in app.button if button.label == label]
    return found


def saved(cache: EmbeddingsCache) -> tuple[Run, ...]:
    return benchmark_runs.list_runs(cache.connection).runs


def tick(app: AppTest, *rows: int) -> AppTest:
    (table,) = [each for each in app.dataframe if each.key and each.key.startswith("benchmark_runs_")]
    app.session_state[table.key] = {"selection": {"rows": list(rows), "columns": [], "cells": []}}
    return app.run()


def test_an_empty_page_teaches() -> None:
    app = open_page("benchmark")
    assert app.title[0].value == "Benchmark"
    assert "Nothing measured yet" in words(app)
    assert "yours are not touched" in words(app)
    assert "benchmark.run(" in app.code[0].value
    assert len(app.text_area(key="benchmark_texts").value.splitlines()) == 10
    assert not app.dataframe


def test_a_run_is_shown_and_saved(cache: EmbeddingsCache) -> None:
    app = wait(press(set_up(open_page("benchmark"), "batch", "sizes", "dtypes"), RUN))
    (run,) = saved(cache)
    assert [result.key for result in run.results] == ["batch", "sizes", "dtypes"]
    assert run.iterations == 3
    assert run.environment.embedded
    assert metrics(app).keys() >= {"Batch reads", "Batch writes", "Most read", "Most written", "Entry as float32"}
    assert "**Reading 10 texts in one call is " in words(app)
    assert " entries a second" in words(app)
    assert "Reading beside float32: float64 " in words(app)
    in_one_call = next(each.value for each in app.markdown if "in one call is" in each.value)
    assert in_one_call.count("latency.") == 2  # reading, and writing
    assert "**int8 takes the least memory**" in words(app)
    figures = [json.loads(chart.proto.spec) for chart in app.get("plotly_chart")]
    # Of each comparison, a figure of boxes for reading and one for writing: two, four sizes and four dtypes.
    assert [len(figure["data"]) for figure in figures if figure["data"][0]["type"] == "box"] == [2, 2, 4, 4, 4, 4]
    titles = {figure["layout"]["xaxis"]["title"]["text"].partition(",")[0] for figure in figures}
    assert titles == {"time per call (ms)", "entries per call", "memory per entry (bytes)"}
    facts = app.dataframe[-2].value.set_index("fact")["value"]
    assert facts["Server"].startswith("Valkey")
    assert facts["Texts"].startswith("10 texts of")
    assert app.selectbox(key="benchmark_run").value == run.run_id
    assert cache.connection.client().dbsize() == 2  # the two hashes of the run


@pytest.mark.model
def test_with_the_model_the_answer_is_in_words(cache: EmbeddingsCache) -> None:
    app = wait(press(set_up(open_page("benchmark"), "cache"), RUN))
    assert "**The cache answers " in words(app)
    assert " less latency" in words(app)
    assert metrics(app)["Speedup"].endswith(" times")
    (run,) = saved(cache)
    assert run.environment.model == "sentence-transformers/all-MiniLM-L6-v2"
    assert run.dimension == 384


def test_cancelling(cache: EmbeddingsCache) -> None:
    app = press(set_up(open_page("benchmark"), "batch", iterations=10_000), RUN)
    assert button(app, RUN).disabled
    button(app, "Cancel").click()
    wait(app.run())
    assert "Benchmark was cancelled after" in words(app)
    assert not button(app, RUN).disabled
    assert saved(cache) == ()
    assert cache.connection.client().dbsize() == 0


def test_one_at_a_time() -> None:
    mine = press(set_up(open_page("benchmark"), "batch", iterations=10_000), RUN)
    other = open_page("benchmark")
    assert "A benchmark is running already" in words(other)
    assert "both would measure wrong" in words(other)
    assert button(other, RUN).disabled
    assert "A benchmark is running already" not in words(mine.run())
    button(mine, "Cancel").click()
    wait(mine.run())
    other.run()
    assert not button(other, RUN).disabled
    assert "cancelled" not in words(other)


def test_what_cannot_be_measured_is_said_at_once() -> None:
    app = open_page("benchmark")
    app.text_area(key="benchmark_texts").set_value(" \n ").run()
    assert "there is no text to measure with" in words(app)
    assert button(app, RUN).disabled
    app.text_area(key="benchmark_texts").set_value("a")
    set_up(app)
    assert "no scenario is chosen" in words(app)
    set_up(app, "batch")
    assert not app.error
    assert not button(app, RUN).disabled


def test_what_was_typed_stays_over_pages() -> None:
    app = open_page("benchmark")
    app.text_area(key="benchmark_texts").set_value("mine")
    set_up(app, "dtypes", iterations=7)
    app.switch_page("pages/embed.py").run()
    app.switch_page("pages/benchmark.py").run()
    assert app.text_area(key="benchmark_texts").value == "mine"
    assert [name for name in benchmark.SCENARIOS if app.checkbox(key=f"benchmark_compare_{name}").value] == ["dtypes"]
    assert app.number_input(key="benchmark_iterations").value == 7


def test_a_run_that_cannot_be_saved_is_shown_all_the_same(cache: EmbeddingsCache) -> None:
    app = set_up(open_page("benchmark"), "batch")
    rights = ("resetkeys", "~embedcache-benchmark-*", "%R~*")  # all may be read, and benchmarks' own entries written
    cache.connection.client().execute_command("ACL", "SETUSER", "default", *rights)
    wait(press(app, RUN))
    assert "This run could not be saved" in words(app)
    assert "NOPERM" in words(app)
    assert "**Reading 10 texts in one call is " in words(app)


# ------------------------------------------------------------------------------------------------ saved runs


def test_the_newest_run_is_shown_and_others_can_be_chosen(cache: EmbeddingsCache) -> None:
    for number in (1, 2):
        benchmark_runs.save(cache.connection, make(number, iterations=number))
    app = open_page("benchmark")
    assert app.selectbox(key="benchmark_run").value == make(2).run_id
    assert "**The cache answers 2.0 times faster**: 250 ms instead of 500 ms per text" in words(app)
    app.selectbox(key="benchmark_run").set_value(make(1).run_id).run()
    assert not app.exception
    assert app.selectbox(key="benchmark_run").value == make(1).run_id


def test_runs_are_compared(cache: EmbeddingsCache) -> None:
    for number in (1, 2, 3):
        benchmark_runs.save(cache.connection, make(number))
    app = open_page("benchmark")
    assert "two or more to compare" in words(app)
    tick(app, 0, 2)
    assert "Compared over time" in words(app)
    table = app.dataframe[-1].value
    assert table["change"].tolist() == ["the same", "the same"]
    assert len(table.columns) == 5
    assert {download.label for download in app.get("download_button")} >= {".json", ".csv"}
    assert not [button for button in app.button if button.label == "Delete"]


def test_runs_of_one_second_are_told_apart(cache: EmbeddingsCache) -> None:
    for number in (1, 2):
        benchmark_runs.save(cache.connection, make(number, at=1_790_000_000.5))
    app = tick(open_page("benchmark"), 0, 1)
    assert not app.exception
    assert app.dataframe[-1].value.columns[3].endswith(" (2)")


def test_deleting_asks_first(cache: EmbeddingsCache) -> None:
    for number in (1, 2):
        benchmark_runs.save(cache.connection, make(number))
    app = press(tick(open_page("benchmark"), 1), "Delete")
    assert len(saved(cache)) == 2
    press(app, "Delete it")
    assert [run.run_id for run in saved(cache)] == [make(2).run_id]
    assert "Deleted." in words(app)


def test_a_run_that_somebody_else_deleted(cache: EmbeddingsCache) -> None:
    benchmark_runs.save(cache.connection, make(1))
    app = press(tick(open_page("benchmark"), 0), "Delete")
    benchmark_runs.delete_run(cache.connection, make(1).run_id)
    press(app, "Delete it")
    assert "It was gone already" in words(app)


def test_damaged_runs_are_counted(cache: EmbeddingsCache) -> None:
    benchmark_runs.save(cache.connection, make(1))
    cache.connection.client().hset(SUMMARIES, "stranger", b"\xff")
    assert "1 run more cannot be read" in words(open_page("benchmark"))


def test_a_strangers_run_is_shown_as_text(cache: EmbeddingsCache) -> None:
    run = make(1)
    variant = replace(run.results[0].measurements[1], variant=HOSTILE)
    result = replace(run.results[0], key=HOSTILE, measurements=(run.results[0].measurements[0], variant))
    where = replace(run.environment, server=HOSTILE, cpu=HOSTILE, model=HOSTILE)
    cache_result = replace(run.results[0], measurements=result.measurements)
    dtypes = replace(cache_result, key="dtypes", measurements=(variant, variant))
    for number in (1, 2):
        hostile = make(number, environment=where, results=(cache_result, dtypes, result))
        benchmark_runs.save(cache.connection, hostile)
    app = tick(open_page("benchmark"), 0, 1)
    assert not app.exception
    assert "<script" not in words(app)
    assert "](http" not in words(app)
    for chart in app.get("plotly_chart"):
        assert "<script" not in json.loads(json.dumps(chart.proto.spec)).replace("\\u003c", "<")


# ------------------------------------------------------------------------------------------------ who may


def test_who_may_not_write_is_told_why(cache: EmbeddingsCache, monkeypatch: pytest.MonkeyPatch) -> None:
    benchmark_runs.save(cache.connection, make(1))
    monkeypatch.setattr(access, "role", lambda: "viewer")
    app = open_page("benchmark")
    assert button(app, RUN).disabled
    assert "You are a viewer" in button(app, RUN).help
    assert "**The cache answers" in words(app)
    assert button(tick(app, 0), "Delete").disabled


def test_where_the_page_forgets_to_ask_the_data_layer_refuses(
    cache: EmbeddingsCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = set_up(open_page("benchmark"), "batch")
    monkeypatch.setattr(session, "measuring", partial(measuring_read_only, session.measuring))
    wait(press(app, RUN))
    assert "**Nothing was changed.** This page only looks." in words(app)
    assert saved(cache) == ()
    assert cache.connection.client().dbsize() == 0


def measuring_read_only(measuring: Callable[[], Callable[..., Run]]) -> Callable[..., Run]:
    """What `session.measuring` gives a user who may not write."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(session, "may_write", lambda: False)
        return measuring()


def test_the_server_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMBEDCACHE_URL", "unix:///nowhere/socket")
    app = open_page("benchmark")
    assert "does not answer" in words(app)
    assert app.text_area(key="benchmark_texts").value
