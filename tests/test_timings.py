"""What a benchmark found, as people read it: sentences, cards, tables, files and figures."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace
from typing import Any

import pytest
from clicking import HOSTILE
from test_benchmark_runs import make

from embedcache.benchmark.records import Measurement, Run, ScenarioResult
from pages.ui import timing_frames, timing_words, timings


def measured(variant: str, operation: Any, p50: float, texts: int = 1, memory: float | None = None) -> Measurement:
    samples = (p50 * 0.9, p50, p50 * 1.5)
    return Measurement(variant, operation, texts, 3, p50 * 1.1, p50, p50 * 1.4, p50 * 1.5, samples, memory)


CACHE = ScenarioResult(
    "cache", (measured("Without the cache", "embed", 0.0072), measured("With the cache", "embed", 0.00031))
)
BATCH = ScenarioResult(
    "batch",
    (
        measured("One call per text", "read", 0.0014, 10),
        measured("One call for all", "read", 0.00026, 10),
        measured("One call per text", "write", 0.002, 10),
        measured("One call for all", "write", 0.00035, 10),
    ),
)
SIZES = ScenarioResult(
    "sizes",
    tuple(
        measured(f"{size:,}", operation, seconds, size)
        for size, seconds in ((1, 0.0001), (100, 0.001), (1_000, 0.004))
        for operation in ("read", "write")
    ),
)
DTYPES = ScenarioResult(
    "dtypes",
    tuple(
        measured(dtype, operation, 0.001, 100, memory)
        for dtype, memory in (("float32", 1_827.0), ("float16", 1_075.0), ("int8", 694.6))
        for operation in ("read", "write")
    ),
)

LAYOUTS = ScenarioResult(
    "layouts",
    tuple(
        measured(name, operation, seconds, 100, memory)
        for name, seconds, memory in (("RedisVL", 0.012, 8_530.0), ("Packed", 0.002, 1_827.0))
        for operation in ("read", "write")
    ),
)

NEAR = ScenarioResult(
    "near", (measured("From the server", "read", 0.0005, 10), measured("From the near cache", "read", 0.00002, 10))
)


def run_of(*results: ScenarioResult, **changed: Any) -> Run:
    return replace(make(), results=results, **changed)


# ------------------------------------------------------------------------------------------------ words


def test_the_answer_in_words() -> None:
    assert timing_words.answer(CACHE) == (
        "**The cache answers 23 times faster**: 0.31 ms instead of 7.2 ms per text, 95.7% less latency."
    )
    assert timing_words.answer(BATCH) == (
        "**Reading 10 texts in one call is 5.4 times faster** than in a call each: 0.26 ms instead of 1.4 ms, "
        "81.4% less latency. "
        "**Writing 10 texts in one call is 5.7 times faster** than in a call each: 0.35 ms instead of 2.0 ms, "
        "82.5% less latency."
    )
    assert timing_words.answer(SIZES) == (
        "**Reading is fastest with 1,000 entries per call**: 250,000 entries a second, 25 times as many as with 1 per "
        "call, and 96.0% less latency per entry."
    )
    assert timing_words.answer(DTYPES) == (
        "**int8 takes the least memory**: 695 B per entry, 62.0% less than float32. Reading beside float32: float16 "
        "about as fast, 0.0% less latency; int8 about as fast, 0.0% less latency."
    )
    assert timing_words.answer(LAYOUTS) == (
        "**100 entries are read 6.0 times faster in our own layout**: in 2.0 ms instead of 12.0 ms in RedisVL's, "
        "83.3% less latency. "
        "**100 entries are written 6.0 times faster in our own layout**: in 2.0 ms instead of 12.0 ms in RedisVL's, "
        "83.3% less latency."
    )
    assert timing_words.answer(NEAR) == (
        "**The near cache answers 25 times faster**: 2.0 µs instead of 50.0 µs per text, 96.0% less latency."
    )


def test_a_cache_that_is_slower_or_alike_is_called_so() -> None:
    without = measured("a", "embed", 0.001)
    slower = ScenarioResult("cache", (without, measured("b", "embed", 0.003)))
    assert "answers 3.0 times slower**: 3.0 ms instead of 1.0 ms per text, 200.0% more latency" in timing_words.answer(
        slower
    )
    alike = ScenarioResult("cache", (without, measured("b", "embed", 0.00102)))
    assert "answers about as fast**" in timing_words.answer(alike)


def test_one_batch_size_and_one_dtype_have_nothing_to_be_compared_with() -> None:
    one = ScenarioResult("sizes", SIZES.measurements[2:4])
    assert timing_words.answer(one) == "**Reading is fastest with 100 entries per call**: 100,000 entries a second."
    assert timing_words.answer(ScenarioResult("dtypes", DTYPES.measurements[:2])).endswith("1.8 KiB per entry.")
    assert timing_words.answer(ScenarioResult("dtypes", (measured("float32", "read", 0.1),))) == ""


def test_a_scenario_of_a_later_version_is_named_and_not_explained() -> None:
    later = ScenarioResult("later_<b>", (measured("x", "read", 1),))
    assert timing_words.title(later.key) == "laterb"
    assert timing_words.answer(later) == ""
    assert timing_words.cards(run_of(later)) == []


def test_cards() -> None:
    found = {card.label: card.value for card in timing_words.cards(run_of(CACHE, BATCH, SIZES, DTYPES, LAYOUTS, NEAR))}
    assert found == {
        "Speedup": "23 times",
        "Latency saved": "95.7%",
        "Batch reads": "5.4 times",
        "Batch writes": "5.7 times",
        "Most read": "250,000/s",
        "Most written": "250,000/s",
        "Entry as float32": "1.8 KiB",
        "Entry as int8": "695 B",
        "Own layout": "6.0 times",
        "Entry for RedisVL": "8.3 KiB",
        "Near hit": "2.0 µs",
        "Near cache": "25 times",
    }


@pytest.mark.parametrize(("number", "read"), [(172_987.3, "173,000"), (88.4, "88"), (12.34, "12"), (3.21, "3.2")])
def test_rates_have_three_digits(number: float, read: str) -> None:
    assert timing_words.rate(number) == read


# ------------------------------------------------------------------------------------------------ tables


def test_measurements_as_a_table() -> None:
    row = timing_frames.measurements_frame(DTYPES.measurements).iloc[1]
    assert (row["operation"], row["variant"], row["texts"], row["calls"]) == ("Write", "float32", 100, 3)
    assert (row["p50"], row["p99"], row["rate"], row["bytes"]) == pytest.approx((1.0, 1.5, 100_000, 1_827))


def test_runs_as_a_table() -> None:
    table = timing_frames.runs_frame([run_of(CACHE, BATCH), run_of(DTYPES)])
    assert list(table["speedup"].isna()) == [False, True]
    assert table["speedup"].iloc[0] == pytest.approx(0.0072 / 0.00031)
    assert table["scenarios"].iloc[0] == "Without and with the cache, Singly and in a batch"
    assert table["server"].iloc[0] == "Valkey 9.1.2 (embedded)"
    assert table["at"].iloc[0].isoformat() == "2026-09-21T14:13:20+00:00"


def test_a_run_at_no_moment_is_listed() -> None:
    assert timing_frames.runs_frame([run_of(CACHE, at=9e14)])["at"].iloc[0].year == 1970


def test_runs_side_by_side() -> None:
    faster = ScenarioResult("cache", (CACHE.measurements[0], measured("With the cache", "embed", 0.000155)))
    medians = timing_frames.medians_frame([run_of(CACHE), run_of(faster)])
    table = timing_frames.comparison_frame(medians, ["Monday", "Tuesday"])
    assert table.columns.tolist() == ["operation", "variant", "Monday", "Tuesday", "change"]
    assert table["change"].tolist() == ["the same", "2.0 times faster"]
    assert table["Tuesday"].tolist() == pytest.approx([7.2, 0.155])


def test_what_was_measured_once_has_no_change() -> None:
    medians = timing_frames.medians_frame([run_of(CACHE), run_of(ScenarioResult("cache", CACHE.measurements[:1]))])
    table = timing_frames.comparison_frame(medians, ["a", "b"])
    assert table["change"].tolist() == ["the same", "not in both"]
    only_last = timing_frames.medians_frame([run_of(BATCH), run_of(CACHE)]).query("scenario == 'cache'")
    assert timing_frames.comparison_frame(only_last, ["a", "b"])["change"].tolist() == ["not in both"] * 2


# ------------------------------------------------------------------------------------------------ files


def test_json_holds_all() -> None:
    (read,) = json.loads(timing_frames.runs_json([run_of(CACHE)]))
    assert read["at"] == "2026-09-21T14:13:20+00:00"
    assert read["environment"]["server"] == "Valkey 9.1.2"
    assert read["results"][0]["measurements"][1]["samples"] == list(CACHE.measurements[1].samples)


def test_csv_has_a_row_per_measurement_and_no_formulas() -> None:
    run = run_of(CACHE, DTYPES)
    run = replace(run, environment=replace(run.environment, model="=HYPERLINK(1)"))
    rows = list(csv.DictReader(io.StringIO(timing_frames.runs_csv([run]).decode())))
    assert [row["variant"] for row in rows][:3] == ["Without the cache", "With the cache", "float32"]
    assert float(rows[1]["p50_seconds"]) == 0.00031
    assert rows[0]["bytes_per_entry"] == ""
    assert {row["environment_model"] for row in rows} == {"'=HYPERLINK(1)"}


# ------------------------------------------------------------------------------------------------ figures


def test_boxes_have_units_and_a_log_axis_where_numbers_range_wide() -> None:
    figure = timings.boxes(CACHE.measurements, "light")
    assert [list(box.x) for box in figure.data] == [
        pytest.approx([1_000 * sample for sample in each.samples]) for each in CACHE.measurements
    ]
    assert figure.layout.xaxis.type == "log"
    assert figure.layout.xaxis.title.text == "time per call (ms), log scale"
    assert [note.text for note in figure.layout.annotations] == [
        "Without the cache",
        "<b>7.2 ms</b>",
        "With the cache",
        "<b>0.31 ms</b>",
    ]
    narrow = timings.boxes(BATCH.of("read"))
    assert narrow.layout.xaxis.type is None
    assert narrow.layout.xaxis.title.text == "time per call (ms)"
    assert narrow.layout.xaxis.range[0] == 0


def test_a_box_of_a_run_without_samples_is_its_median() -> None:
    figure = timings.boxes([replace(CACHE.measurements[0], samples=())])
    assert list(figure.data[0].x) == pytest.approx([7.2])


def test_throughput_by_batch_size() -> None:
    figure = timings.throughput(SIZES.measurements)
    read, write = figure.data
    assert list(read.x) == [1, 100, 1_000]
    assert list(read.y) == pytest.approx([10_000, 100_000, 250_000])
    assert read.line.color != write.line.color
    assert read.line.dash != write.line.dash
    assert list(figure.layout.xaxis.ticktext) == ["1", "100", "1,000"]
    assert figure.layout.yaxis.title.text == "entries per second, log scale"


def test_memory_by_dtype() -> None:
    figure = timings.memory(DTYPES.measurements)
    assert list(figure.data[0].x) == [1_827.0, 1_075.0, 694.6]
    assert figure.layout.xaxis.title.text == "memory per entry (bytes)"


def test_medians_run_by_run() -> None:
    frame = timing_frames.medians_frame([run_of(CACHE), run_of(BATCH), run_of(CACHE)]).query("scenario == 'cache'")
    figure = timings.medians(frame, ["1 May, 10:00", "2 May, 10:00", "3 May, 10:00"])
    assert [list(line.x) for line in figure.data] == [[0, 2], [0, 2]]
    assert list(figure.data[0].y) == pytest.approx([7.2, 7.2])
    assert figure.layout.xaxis.ticktext[0] == "1 May<br>10:00"
    assert figure.layout.yaxis.title.text == "median per text (ms), log scale"
    assert len({line.marker.symbol for line in figure.data}) == 2


def test_strangers_names_are_shown_as_text() -> None:
    strange = [measured(HOSTILE, "read", 0.001, memory=5.0), measured("<b>b</b>", "write", 0.001)]
    frame = timing_frames.medians_frame([run_of(ScenarioResult(HOSTILE, tuple(strange)))])
    figures = (timings.boxes(strange), timings.memory(strange), timings.medians(frame, ["now"]))
    for figure in figures:
        assert "<script" not in figure.to_json().replace("\\u003c", "<")
    assert "<" not in timing_words.title(HOSTILE)
