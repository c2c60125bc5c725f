"""What the page Hit rates makes of statistics, with no Streamlit: windows, tables and figures."""

import json
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

import pandas as pd
import pytest
from clicking import HOSTILE

from embedcache.buckets import SlowLookup
from embedcache.histogram import slot_of
from embedcache.statistics import CacheStats
from pages.ui import stats_frames, trends, windows, wording

BERLIN = ZoneInfo("Europe/Berlin")
START = datetime(2026, 11, 23, 12, 0, tzinfo=UTC).timestamp()
MILLISECOND = 1_000_000


def step(number: int, **counted: Any) -> CacheStats:
    return CacheStats(start=START + 60 * number, end=START + 60 * (number + 1), **counted)


SERIES = [
    step(0, hits=7, near_hits=2, misses=1, latencies=((slot_of(MILLISECOND), 8),), time_saved=90.0),
    step(1),
    step(2, misses=4, errors=3, latencies=((slot_of(2 * MILLISECOND), 4),), time_saved=0.0),
    step(3, hits=1, latencies=((slot_of(40 * MILLISECOND), 1),), time_saved=30.0),
]


def frame_of(series: list[CacheStats]) -> pd.DataFrame:
    return stats_frames.steps_frame(series, lambda start, end: f"{start:.0f} to {end:.0f}")


@pytest.fixture
def frame() -> pd.DataFrame:
    return frame_of(SERIES)


@pytest.fixture
def axis() -> windows.TimeAxis:
    return windows.time_axis(windows.BY_SPAN["15m"], START, START + 900, BERLIN)


# ------------------------------------------------------------------------------------------------ windows


@pytest.mark.parametrize("window", windows.WINDOWS, ids=lambda window: window.span)
@pytest.mark.parametrize("zone", ["UTC", "Europe/Berlin", "Asia/Kathmandu", "America/St_Johns"])
def test_an_axis_has_a_handful_of_labels(window: windows.Window, zone: str) -> None:
    axis = windows.time_axis(window, START, START + window.seconds, ZoneInfo(zone))
    assert 3 <= len(axis.ticks) == len(axis.texts) <= 8
    assert axis.ticks == sorted(set(axis.ticks))
    assert all(axis.start <= tick < axis.end for tick in axis.ticks)
    assert axis.title == ("day (UTC)" if window.span == "30d" else f"time ({zone})")


def test_labels_are_the_viewers_time() -> None:
    axis = windows.time_axis(windows.BY_SPAN["1h"], START, START + 3_600, BERLIN)
    assert axis.texts == ["13:00", "13:15", "13:30", "13:45"]
    assert axis.ticks[0] == START
    assert windows.time_axis(windows.BY_SPAN["7d"], START, START + 7 * 86_400, BERLIN).texts[0] == "Tue 24"
    assert windows.time_axis(windows.BY_SPAN["30d"], START - 43_200, START, BERLIN).texts == ["23 Nov"]


def test_an_hour_that_comes_twice_has_two_places() -> None:
    night = datetime(2026, 10, 24, 22, 0, tzinfo=UTC).timestamp()  # midnight in Berlin; at 3:00 clocks go back to 2:00
    axis = windows.time_axis(windows.BY_SPAN["6h"], night, night + 6 * 3_600, BERLIN)
    assert axis.texts == ["00:00", "01:00", "02:00", "02:00", "03:00", "04:00"]
    assert axis.ticks == [night + 3_600 * hour for hour in range(6)]


def test_steps_have_names() -> None:
    assert windows.step_label(windows.BY_SPAN["6h"], START, START + 300, BERLIN) == "13:00 to 13:05"
    assert windows.step_label(windows.BY_SPAN["24h"], START, START + 1_800, BERLIN) == "Mon 23 Nov, 13:00 to 13:30"
    assert windows.step_label(windows.BY_SPAN["30d"], START - 43_200, START + 43_200, BERLIN) == "23 Nov (UTC)"


@pytest.mark.parametrize(("part", "said"), [(0, "0.0%"), (1, "100.0%"), (0.99999, "99.9%"), (1e-6, "0.1%")])
def test_almost_all_is_not_all(part: float, said: str) -> None:
    assert wording.share(part) == said


@pytest.mark.parametrize(
    ("number", "said"), [(0, "0.00"), (1_240.5, "1,240.50"), (0.0314, "0.031"), (1e-7, "under 0.0001")]
)
def test_amounts(number: float, said: str) -> None:
    assert wording.amount(number) == said


# ------------------------------------------------------------------------------------------------ frames


def test_what_was_not_measured_is_not_zero(frame: pd.DataFrame) -> None:
    assert list(frame["texts"]) == [10, 0, 4, 1]
    assert frame["hit_rate"].tolist()[::2] == [90.0, 0.0]
    for column in ("hit_rate", "p50", "p95", "p99", "saved"):
        assert frame[column].isna().tolist() == [False, True, False, False]
    assert frame["p50"].iloc[0] == pytest.approx(1, rel=0.04)
    assert frame["saved_so_far"].tolist() == [90, 90, 90, 120]
    assert frame["middle"].iloc[0] == START + 30
    assert frame["label"].iloc[-1] == f"{START + 180:.0f} to {START + 240:.0f}"


def test_nothing_is_known_of_time_saved_before_a_model_was_timed() -> None:
    assert frame_of([step(0, hits=3), step(1, hits=2)])["saved_so_far"].isna().all()


def test_models_and_their_rates() -> None:
    stats = {
        "a": step(0, hits=1, misses=3),
        "b": step(0, hits=8, near_hits=1, misses=1),
        "writes alone": step(0, sets=9),
    }
    frame = stats_frames.hits_by_model_frame(stats)
    assert list(frame["model"]) == ["b", "a"]
    assert list(frame["hit_rate"]) == [90.0, 25.0]
    assert stats_frames.hits_by_model_frame({}).empty


def test_many_models_are_summed_up() -> None:
    frame = stats_frames.hits_by_model_frame({f"m{n:02}": step(0, hits=100 - n, misses=n) for n in range(30)}, most=12)
    assert len(frame) == 12
    assert frame["model"].iloc[-1] == "19 other models"
    assert frame["texts"].sum() == 3_000
    assert frame["hit_rate"].iloc[-1] == pytest.approx(80.0)


def slow(text: str | None, model: str | None = "m") -> SlowLookup:
    return SlowLookup(START, 0.25, model, f"c:{'0' * 64}", 64, 3, text, "worker:7")


def test_texts_of_slow_lookups_are_there_only_where_they_were_kept() -> None:
    without = stats_frames.slow_frame([slow(None), slow(None, None)])
    assert "text" not in without
    assert list(without["model"]) == ["m", "(by key)"]
    assert list(without["ms"]) == [250.0, 250.0]
    assert without["entry"].iloc[0] == f"lookup?key=c%3A{'0' * 64}"
    assert list(stats_frames.slow_frame([slow("kept\nwhole"), slow(None)])["text"]) == ["kept whole", ""]
    assert stats_frames.slow_frame([]).empty


def test_strangers_words_in_a_table_hide_nothing() -> None:
    record = SlowLookup(START, 0.25, "\u202em\ud800", "javascript:alert(1)//\ud800", 1, 0, "t\x1b", "p\u2028")
    (row,) = stats_frames.slow_frame([record]).to_dict("records")
    assert row["entry"].startswith("lookup?key=javascript%3Aalert")
    assert (row["model"], row["text"], row["process"]) == ("⟨U+202E⟩m⟨U+D800⟩", "t␛", "p⟨U+2028⟩")
    row["key"].encode()  # a lone surrogate would end the run of the page


# ------------------------------------------------------------------------------------------------ figures


def drawn(figure: Any) -> dict[str, Any]:
    """The figure as the browser gets it."""
    return json.loads(figure.to_json())


def test_a_step_without_lookups_is_a_gap(frame: pd.DataFrame, axis: windows.TimeAxis) -> None:
    rate = drawn(trends.hit_rate(frame, axis, "dark"))["data"][0]
    assert rate["y"] == [90.0, None, 0.0, 100.0]
    assert rate["connectgaps"] is False
    assert rate["text"][0].endswith("90.0% of 10 texts found")
    for line in drawn(trends.latency(frame, axis, "dark"))["data"]:
        assert line["y"][1] is None
        assert line["y"][0] == pytest.approx(1, rel=0.04)


def test_errors_are_marked_where_they_happened(frame: pd.DataFrame, axis: windows.TimeAxis) -> None:
    marks = trends.hit_rate(frame, axis, "light").data[1]
    assert list(marks.x) == [START + 150]
    assert list(marks.text) == ["3"]
    assert marks.customdata[0].endswith("3 calls failed")
    untroubled = trends.hit_rate(frame.assign(errors=0), axis, "light").data[1]
    assert len(untroubled.x) == 0
    assert untroubled.showlegend is False


def test_counts_of_errors_do_not_run_into_each_other(axis: windows.TimeAxis) -> None:
    series = [step(number, misses=1, errors=100 + number) for number in range(15)]
    marks = trends.hit_rate(frame_of(series), axis, "light").data[1]
    assert len(marks.x) == 15
    assert list(marks.text)[:2] == ["100", "101"]
    dense = trends.hit_rate(frame_of(series), windows.time_axis(windows.BY_SPAN["6h"], START, START + 21_600, BERLIN))
    assert list(dense.data[1].text) == ["100", *[""] * 14]


def test_hits_and_misses_are_stacked(frame: pd.DataFrame, axis: windows.TimeAxis) -> None:
    figure = trends.texts_looked_up(frame, axis, "light")
    assert figure.layout.barmode == "stack"
    assert {bar.name: list(bar.y) for bar in figure.data} == {
        "hits": [7, 0, 0, 1],
        "near hits": [2, 0, 0, 0],
        "misses": [1, 0, 4, 0],
    }


def test_every_axis_has_a_unit(frame: pd.DataFrame, axis: windows.TimeAxis) -> None:
    titles = [
        figure.layout.yaxis.title.text
        for draw in (trends.hit_rate, trends.texts_looked_up, trends.latency, trends.time_saved)
        for figure in [draw(frame, axis, "light")]
        if figure.layout.xaxis.title.text == "time (Europe/Berlin)"
    ]
    assert titles == ["texts found (%)", "texts looked up", "time per lookup (log scale)", "saved so far (min)"]


def test_latencies_read_as_people_say_them(frame: pd.DataFrame, axis: windows.TimeAxis) -> None:
    figure = trends.latency(frame, axis, "light")
    assert figure.layout.yaxis.type == "log"
    assert list(figure.layout.yaxis.ticktext) == ["1 ms", "2 ms", "5 ms", "10 ms", "20 ms", "50 ms"]
    slower = trends.latency(frame.assign(p99=frame["p99"] * 1_000), axis, "light")
    assert list(slower.layout.yaxis.ticktext) == ["1 ms", "10 ms", "100 ms", "1 s", "10 s"]
    assert len(trends.latency(frame_of([step(0, misses=1), step(1)]), axis, "light").data) == 3


@pytest.mark.parametrize(
    ("seconds", "unit", "shown"), [(0.004, "ms", 4), (30, "s", 30), (600, "min", 10), (10_800, "h", 3)]
)
def test_time_saved_is_in_a_fitting_unit(seconds: float, unit: str, shown: float, axis: windows.TimeAxis) -> None:
    frame = frame_of([step(0, time_saved=seconds), step(1)])
    figure = trends.time_saved(frame, axis, "light")
    assert figure.layout.yaxis.title.text == f"saved so far ({unit})"
    assert list(figure.data[0].y) == pytest.approx([shown, shown])


def test_models_have_inert_names() -> None:
    long = "an-organisation/" + "x" * 100
    frame = stats_frames.hits_by_model_frame({HOSTILE: step(0, hits=9, misses=1), long: step(0, misses=3)})
    figure = trends.hits_by_model(frame, "light")
    assert "<script" not in figure.to_json().replace("\\u003c", "<")
    notes = [note.text for note in figure.layout.annotations]
    assert notes[1::2] == ["<b>90.0% found</b>", "<b>0.0% found</b>"]
    assert notes[0].startswith("&lt;script&gt;")
    assert len(notes[2]) <= 41
    assert long in figure.data[0].customdata[1]  # whole on hover
    assert figure.layout.xaxis.title.text == "texts looked up"
