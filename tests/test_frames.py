"""What the dashboard makes of records, vectors and strangers' text, with no Streamlit."""

import csv
import io
import json
import re
import subprocess
import sys
import tomllib
from dataclasses import replace
from pathlib import Path
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import pytest
from plotly.colors import sequential
from pyarrow import parquet

from embedcache.vectorizers import EmbedReport
from pages.ui import charts, frames, inputs, wording
from pages.ui.similarity import Pair

HOSTILE = "<script>alert(1)</script> **bold** [x](http://e.vil) `code` $x^2$ :material/home: \x1b[31m\u202etxt"


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
    [
        (0.0000021, "2.1 µs"),
        (0.00031, "0.31 ms"),
        (0.0032, "3.2 ms"),
        (0.4123, "412 ms"),
        (1.236, "1.24 s"),
        (125, "2 min 5 s"),
    ],
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
    written = json.dumps({"\u202e\x07\\u0007": ['"\n\t', "\r\x7f", "שלום"]}, ensure_ascii=False)
    assert json.loads(wording.visible_json(written)) == {"⟨U+202E⟩␇\\u0007": ['"\n\t', "␍⟨U+007F⟩", "שלום"]}
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
    with pytest.raises(inputs.UnusableInputError, match="100,001 texts"):
        inputs.check_number(["x"] * 100_001)


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


def test_the_matrix_is_downloaded_in_the_order_given() -> None:
    vectors = np.arange(12, dtype=np.float32).reshape(3, 4)
    loaded = np.load(io.BytesIO(frames.vector_npy(vectors)), allow_pickle=False)
    assert loaded.dtype == np.float32
    assert np.array_equal(loaded, vectors)


def test_parquet_holds_texts_and_vectors() -> None:
    texts = ["one", "two\nlines", "drei ☃"]
    given = report([True, False, True])
    given = replace(given, vectors=np.arange(12, dtype=np.float32).reshape(3, 4))
    table = parquet.read_table(io.BytesIO(frames.report_parquet(texts, "m", given)))
    assert table.column_names == ["text", "model", "hit", "vector"]
    assert table["text"].to_pylist() == texts
    assert table["model"].to_pylist() == ["m"] * 3
    assert table["hit"].to_pylist() == [True, False, True]
    assert table["vector"].type.list_size == 4
    assert np.array_equal(np.array(table["vector"].to_pylist(), np.float32), given.vectors)


def test_the_table_is_downloaded_whole() -> None:
    long = "x" * 1_000
    table = pd.read_csv(io.BytesIO(frames.report_csv([long, "=1+1"], report([True, False]))))
    assert list(table["text"]) == [long, "'=1+1"]
    assert list(table["result"]) == ["Hit", "Miss"]
    assert list(table["ms"]) == pytest.approx([3.2, 3.2])


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20"])
def test_no_cell_of_a_csv_is_a_formula(start: str) -> None:
    cell = f'{start}HYPERLINK("http://e.vil";"x")'
    frame = pd.DataFrame({cell: [cell, "fine", None], "n": [-1.5, 2, 3]})
    rows = list(csv.reader(io.StringIO(frames.safe_csv(frame).decode(), newline="")))
    assert rows[0] == [f"'{cell}", "n"]
    assert [row[0] for row in rows[1:]] == [f"'{cell}", "fine", ""]
    assert [row[1] for row in rows[1:]] == ["-1.5", "2.0", "3.0"]


def test_a_csv_of_anything() -> None:
    frame = pd.DataFrame(
        {"a": pd.Series(["\ud800", {"-x": 1}, -3, "@x"], dtype=object), "b": pd.Categorical(list("-xyz"))}
    )
    frame.insert(0, "b", [1, 2, 3, 4], allow_duplicates=True)
    rows = list(csv.reader(io.StringIO(frames.safe_csv(frame).decode())))
    assert rows[0] == ["b", "a", "b"]
    assert rows[1] == ["1", "\\ud800", "'-"]
    assert [row[1] for row in rows[2:]] == ["{'-x': 1}", "-3", "'@x"]
    assert frames.safe_csv(pd.DataFrame(columns=["a", "b"])) == b'"a","b"\n'


def test_a_csv_does_not_change_its_table() -> None:
    frame = pd.DataFrame({"a": ["=1"]})
    frames.safe_csv(frame)
    assert frame["a"].iloc[0] == "=1"


def test_pairs() -> None:
    frame = frames.pairs_frame([Pair(0, 2, 0.9)], [5, 6, 8], ["five", "six", "eight\nlines"])
    assert frame.to_dict("records") == [{"similarity": 0.9, "one": "5: five", "other": "8: eight lines"}]


# ------------------------------------------------------------------------------------------------ charts


@pytest.mark.parametrize("vector", [np.zeros(3, np.float32), np.array([0.5], np.float32), np.linspace(-1, 1, 3072)])
def test_the_picture_of_a_vector(vector: np.ndarray) -> None:
    figure = charts.vector_picture(vector, "dark")
    strip, bars = figure.data
    assert list(bars.y) == list(vector)
    assert strip.zmin == -strip.zmax < 0
    assert figure.layout.xaxis2.title.text.startswith("position in the vector")
    assert figure.layout.yaxis2.title.text == "value (no unit)"


@pytest.mark.parametrize(("count", "named"), [(2, True), (60, True), (61, False), (200, False)])
def test_the_map_of_similarities(count: int, named: bool) -> None:
    texts = [HOSTILE, *(f"text {n} that is longer than its label may be" for n in range(1, count))]
    matrix = np.full((count, count), 0.25)
    matrix[0, 1] = matrix[1, 0] = -0.5
    figure = charts.similarity_map(matrix, range(1, count + 1), texts, "dark")
    heat = figure.data[0]
    assert heat.colorbar.title.text == "cosine similarity"
    assert (heat.zmin, heat.zmax) == (-0.5, 1)
    assert len(set(heat.x)) == count
    assert heat.x[1] == "2: text 1 that is longer than its label may be"
    assert "%{x}" in heat.hovertemplate
    assert "%{y}" in heat.hovertemplate
    labels = list(figure.layout.yaxis2.ticktext)
    assert labels[0].startswith("&lt;script" if named else "1")
    assert len(labels) <= (60 if named else 20)
    assert len(figure.layout.xaxis2.ticktext) <= 20
    assert figure.layout.xaxis2.title.text == "number of the text"
    assert "<script" not in figure.to_json().replace("\\u003c", "<")


def test_the_scale_of_similarities_grows_lighter() -> None:
    colours = getattr(sequential, charts.SEQUENTIAL)
    brightness = [luminance(colour) for colour in colours]
    assert brightness == sorted(brightness)
    assert brightness[-1] - brightness[0] > 0.6


def test_frames_and_charts_do_without_streamlit() -> None:
    code = (
        "import sys, pages.ui.charts, pages.ui.embedding, pages.ui.frames, pages.ui.inputs, pages.ui.sample_data;"
        "import pages.ui.similarity;"
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
