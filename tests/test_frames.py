"""What the dashboard makes of records, vectors and strangers' text, with no Streamlit."""

import io
import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import pytest

from embedcache.inspector import CacheSummary, Survey
from embedcache.vectorizers import EmbedReport
from pages.ui import charts, frames, inputs, wording

HOSTILE = "<script>alert(1)</script> **bold** [x](http://e.vil) `code` $x^2$ :material/home: \x1b[31m\u202etxt"


def survey(*caches: CacheSummary) -> Survey:
    return Survey(caches, scanned_keys=100, complete=True)


# ------------------------------------------------------------------------------------------------ wording


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (0, "0 B"),
        (412, "412 B"),
        (1023, "1,023 B"),
        (1024, "1.0 KiB"),
        (19_293_798, "18.4 MiB"),
        (2**50, "1,024.0 TiB"),
    ],
)
def test_sizes(number: int, words: str) -> None:
    assert wording.size(number) == words


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.00031, "0.31 ms"), (0.0032, "3.2 ms"), (0.4123, "412 ms"), (1.236, "1.24 s"), (125, "2 min 5 s")],
)
def test_elapsed(seconds: float, words: str) -> None:
    assert wording.elapsed(seconds) == words


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "0 s"),
        (0.4, "0 s"),
        (59.6, "1 min"),
        (5_400, "1 h 30 min"),
        (3_605, "1 h"),
        (7_200, "2 h"),
        (90_000, "1 d 1 h"),
    ],
)
def test_durations(seconds: float, words: str) -> None:
    assert wording.duration(seconds) == words


def test_points_in_time() -> None:
    assert wording.until(None) == "never"
    assert wording.until(7_200) == "in 2 h"
    assert wording.ago(0.2) == "just now"
    assert wording.ago(190) == "3 min ago"
    assert wording.ago(float("nan")) == "just now"
    assert wording.ago(float("inf")).endswith(" y ago")
    assert wording.moment(1_795_442_592, ZoneInfo("Europe/Berlin")) == "23 Nov 2026, 15:03:12"
    assert wording.moment(1e300) == "a time out of range"
    assert wording.moment(float("nan")) == "a time out of range"


def test_counts() -> None:
    assert wording.counted(12_480, "entry", "entries") == "12,480 entries"
    assert wording.counted(1, "entry", "entries") == "1 entry"


def test_hidden_characters_are_made_visible() -> None:
    assert wording.visible("a\x1b[31m\u202eb\r\n\tc\x00\ud800\u2028") == "a␛[31m⟨U+202E⟩b␍\n\tc␀⟨U+D800⟩⟨U+2028⟩"
    assert wording.visible("naïve 👩\u200d💻 日本") == "naïve 👩\u200d💻 日本"
    assert wording.visible("héllo".encode()) == "héllo"
    assert wording.visible(b"\x89PNG\xff") == "89 504e 47ff"


def test_long_text_is_cut() -> None:
    assert len(wording.visible("x" * 1_000_000)) == wording.MAX_TEXT_SHOWN
    assert wording.one_line("a\nb  c") == "a b c"
    assert wording.one_line("x" * 1_000_000, 10) == "x" * 10 + "…"


@pytest.mark.parametrize("text", [HOSTILE, "`", "``` x `` y", "a\n\n# b", "", "\\`"])
def test_a_code_span_cannot_be_left(text: str) -> None:
    span = wording.code_span(text)
    assert "\n" not in span
    fence = re.match("`+", span)
    assert fence is not None
    inner = span[len(fence[0]) : -len(fence[0])]
    assert inner
    assert fence[0] not in re.findall("`+", inner)


def test_charts_get_no_markup() -> None:
    text = wording.chart_text(HOSTILE)
    assert "<" not in text
    assert "$" not in text
    assert "&lt;script&gt;" in text


# ------------------------------------------------------------------------------------------------ inputs


def test_lines() -> None:
    assert inputs.lines_of(" a \n\n\tb\r\n   \nc") == (["a", "b", "c"], 2)
    assert inputs.lines_of("") == ([], 0)


def test_files() -> None:
    assert inputs.decode_file("\ufeffnaïve".encode()) == "naïve"
    table = inputs.read_table(b'id,text\n007,"a, b"\n008,\n')
    assert table.iloc[0, 0] == "007"
    assert inputs.wordiest_column(table) == 0
    assert inputs.column_texts(table, 1) == (["a, b"], 1)


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_tables_of_any_separator(separator: str) -> None:
    table = inputs.read_table(f"id{separator}text\n1{separator}a long text\n2\n".encode())
    assert list(table.columns) == ["id", "text"]
    assert inputs.wordiest_column(table) == 1
    assert inputs.column_texts(table, 1) == (["a long text"], 1)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty"),
        (b" \n ", "is empty"),
        (b"text\n\xff\xfe", "not UTF-8"),
        (b"a\0b", "binary"),
        (b"a,b\n1,2\n1,2,3\n", "cannot be read as a table"),
        (b'a\n"open\n', "cannot be read as a table"),
        (b"a,b\n", "no rows"),
    ],
)
def test_unusable_files(content: bytes, words: str) -> None:
    with pytest.raises(inputs.UnusableInputError, match=words):
        inputs.read_table(content)


def test_how_many_texts() -> None:
    with pytest.raises(inputs.UnusableInputError, match="no text here yet"):
        inputs.check_number([])
    with pytest.raises(inputs.UnusableInputError, match="20,001 texts"):
        inputs.check_number(["x"] * 20_001)


def test_metadata() -> None:
    assert inputs.read_metadata(" ") is None
    assert inputs.read_metadata('{"a": [1, null]}') == {"a": [1, None]}


@pytest.mark.parametrize(
    ("typed", "words"),
    [
        ("{'a': 1}", "line 1, column 2"),
        ("[1]", "one JSON object"),
        ("null", "one JSON object"),
        ('{"a": NaN}', "NaN"),
        ("[" * 100_000, "nested too deeply|not JSON"),
    ],
)
def test_unusable_metadata(typed: str, words: str) -> None:
    with pytest.raises(inputs.UnusableInputError, match=words):
        inputs.read_metadata(typed)


# ------------------------------------------------------------------------------------------------ frames


def test_caches_and_models() -> None:
    found = survey(
        CacheSummary("a", 3, {"m": 2, "n": 1}, 2**20),
        CacheSummary("b", 5, {"m": 5}, 2**19),
    )
    caches = frames.caches_frame(found)
    assert caches.to_dict("records") == [
        {"cache": "b", "entries": 5, "models": 1, "mebibytes": 0.5},
        {"cache": "a", "entries": 3, "models": 2, "mebibytes": 1.0},
    ]
    models = frames.models_frame(found.caches)
    assert list(models["model"]) == ["m", "n"]
    assert list(models["entries"]) == [7, 1]
    assert list(models["share"]) == [0.875, 0.125]


def test_nothing_found() -> None:
    assert frames.caches_frame(survey()).empty
    assert frames.models_frame(()).empty


def test_many_models_are_summed_up() -> None:
    cache = CacheSummary("a", 0, {f"m{n:02}": 100 - n for n in range(30)}, 0)
    models = frames.models_frame([cache], most=12)
    assert len(models) == 12
    assert models["model"].iloc[-1] == "19 other models"
    assert models["entries"].sum() == sum(cache.models.values())


def report(hits: list[bool]) -> EmbedReport:
    count = len(hits)
    vectors = np.ones((count, 4), np.float32)
    return EmbedReport(vectors, np.array(hits), np.full(count, 0.0032), 0.001, 0.002, 0.003, 0)


def test_report() -> None:
    frame = frames.report_frame(["one", "two\nlines"], report([True, False]))
    assert list(frame["result"]) == [["Hit"], ["Miss"]]
    assert list(frame["ms"]) == [3.2, 3.2]
    assert list(frame["dimension"]) == [4, 4]
    assert list(frame["text"]) == ["one", "two lines"]
    assert list(frame.index) == [1, 2]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_downloads_hold_the_vector(dtype: type) -> None:
    vector = np.array([0.1, -2.5e-8, 3], dtype)
    assert np.array_equal(np.load(io.BytesIO(frames.vector_npy(vector)), allow_pickle=False), vector)
    assert frames.vector_json(vector) == b"[0.1, -2.5e-08, 3.0]"
    assert np.array_equal(np.array(json.loads(frames.vector_json(vector)), dtype), vector)
    table = pd.read_csv(io.BytesIO(frames.vector_csv(vector)))
    assert list(table.columns) == ["position", "value"]
    assert np.array_equal(table["value"].to_numpy(dtype), vector)


# ------------------------------------------------------------------------------------------------ charts


def test_the_bars_have_units_and_inert_names() -> None:
    frame = frames.models_frame([CacheSummary("a", 9, {HOSTILE: 9, "b": 3}, 0)])
    figure = charts.entries_per_model(frame, "light")
    assert figure.layout.xaxis.title.text == "entries"
    assert list(figure.data[0].x) == [9, 3]
    assert "<script" not in figure.to_json().replace("\\u003c", "<")
    names = [note.text for note in figure.layout.annotations]
    assert any(name.startswith("&lt;script&gt;") for name in names)


@pytest.mark.parametrize("vector", [np.zeros(3, np.float32), np.array([0.5], np.float32), np.linspace(-1, 1, 3072)])
def test_the_picture_of_a_vector(vector: np.ndarray) -> None:
    figure = charts.vector_picture(vector, "dark")
    strip, bars = figure.data
    assert list(bars.y) == list(vector)
    assert strip.zmin == -strip.zmax < 0
    assert figure.layout.xaxis2.title.text.startswith("position in the vector")
    assert figure.layout.yaxis2.title.text == "value (no unit)"


def test_frames_and_charts_do_without_streamlit() -> None:
    code = (
        "import sys, pages.ui.charts, pages.ui.frames, pages.ui.inputs;"
        "print('streamlit' in sys.modules, 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]


# ------------------------------------------------------------------------------------------------ colours


def luminance(colour: str) -> float:
    """WCAG 2's relative luminance of #rrggbb."""
    parts = [int(colour[start : start + 2], 16) / 255 for start in (1, 3, 5)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    darker, lighter = sorted([luminance(one), luminance(other)])
    return (lighter + 0.05) / (darker + 0.05)


@pytest.mark.parametrize("name", ["light", "dark"])
def test_every_theme_can_be_read(name: str) -> None:
    config = tomllib.loads((Path(__file__).parent.parent / ".streamlit/config.toml").read_text())
    theme = config["theme"][name]
    backgrounds = [theme["backgroundColor"], theme["secondaryBackgroundColor"], theme["sidebar"]["backgroundColor"]]
    for background in backgrounds:
        assert contrast(theme["textColor"], background) >= 7
        assert contrast(theme["linkColor"], background) >= 4.5
    assert contrast("#ffffff", theme["primaryColor"]) >= 4.5  # Streamlit writes white on it
    assert contrast(charts._INK[name], theme["backgroundColor"]) >= 4.5
    assert config["theme"]["chartCategoricalColors"] == list(charts.SEQUENCE)
    for colour in charts.SEQUENCE:
        assert contrast(colour, theme["backgroundColor"]) >= 3
    assert config["server"]["address"] == "127.0.0.1"
    assert config["browser"]["gatherUsageStats"] is False
