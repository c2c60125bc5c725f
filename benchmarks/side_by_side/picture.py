"""The main figures of a comparison as one picture: how fast, and how large."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import Any, NamedTuple

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from pages.ui.charts import SEQUENCE, TEMPLATE

from .contenders import LANGCHAIN, OURS, RAW, REDISVL
from .goals import times
from .results import ASYNC, SYNC, TOGETHER, Case, Results

WIDTH, HEIGHT = 1_200, 620
UNITS = {
    "wall": "entries per second, logarithmic",
    "cpu": "entries per second of the client's processor time, logarithmic",
}
TESTS = Path(__file__).parents[2] / "tests"
INK, FAINT = "#30363d", "#c9d1d9"


AT_THE_RIGHT: dict[str, Any] = {"xref": "x domain", "xanchor": "right", "showarrow": False}


class Look(NamedTuple):
    """How a contender is drawn: told apart by shape as well as by colour."""

    colour: str
    symbol: str
    size: int
    line: int = 0


LOOKS = {
    OURS: Look(SEQUENCE[0], "circle", 18),
    REDISVL: Look(SEQUENCE[1], "diamond", 14),
    LANGCHAIN: Look(SEQUENCE[2], "square", 12),
    RAW: Look(INK, "line-ns-open", 18, 3),
}


class Row(NamedTuple):
    """One line of the speeds."""

    words: str
    style: str
    operation: str
    ttl: bool = False

    def case(self, results: Results) -> Case:
        """What it shows, at the smallest dimension that was measured."""
        return Case(results.dimensions[0], self.style, self.operation, self.ttl)


ROWS = (
    Row("Read a batch", SYNC, "mget"),
    Row("Read a batch, TTLs restarted", SYNC, "mget", ttl=True),
    Row("Read a batch, vectors alone", SYNC, "mget_embeddings"),
    Row("Write a batch", SYNC, "mset"),
    Row("Write a batch with TTLs", SYNC, "mset", ttl=True),
    Row("Read one entry", SYNC, "get"),
    Row("Write one entry", SYNC, "set"),
    Row("Async reads, awaited together", ASYNC, TOGETHER),
)


def figure(results: Results) -> go.Figure:
    """Speeds on the left, on a logarithmic axis; bytes per entry on the right."""
    drawn = make_subplots(rows=1, cols=2, column_widths=[0.68, 0.32], horizontal_spacing=0.16)
    _draw_speeds(drawn, results)
    _draw_memory(drawn, results)
    entries = results.environment["entries"]
    drawn.update_xaxes(title_standoff=14)  # else the margin that is left over comes between
    drawn.update_layout(
        template=TEMPLATE,
        width=WIDTH,
        height=HEIGHT,
        paper_bgcolor="white",
        font={"family": "Source Sans, Segoe UI, Helvetica, Arial, sans-serif", "size": 16, "color": INK},
        margin={"l": 16, "r": 40, "t": 112, "b": 24},
        showlegend=True,
        legend={"orientation": "h", "xref": "container", "yref": "container", "x": 0.01, "y": 0.9, "yanchor": "top"},
        title={
            "text": f"<b>{results.dimensions[0]:,} dimensions, batches of {entries:,} entries, one server</b>",
            "x": 0.01,
            "y": 0.97,
            "font": {"size": 20},
        },
    )
    return drawn


def _draw_speeds(drawn: go.Figure, results: Results) -> None:
    head = f"times as fast<br>as {REDISVL}"
    drawn.add_annotation(x=1, y=1, yref="y domain", yanchor="bottom", text=head, align="right", **AT_THE_RIGHT)
    for row in ROWS:
        _join(drawn, results, row)
    for name, look in LOOKS.items():
        points = [(row.words, speed) for row in ROWS if (speed := _speed(results, row, name)) is not None]
        drawn.add_scatter(
            x=[speed for _, speed in points],
            y=[words for words, _ in points],
            mode="markers",
            name=name,
            marker={"color": look.colour, "symbol": look.symbol, "size": look.size, "line": {"width": look.line}},
            hovertemplate="%{y}<br>%{x:,.0f} entries per second<extra>" + name + "</extra>",
            row=1,
            col=1,
        )
    speeds = [speed for row in ROWS for name in LOOKS if (speed := _speed(results, row, name)) is not None]
    limits = [math.log10(min(speeds)) - 0.2, math.log10(max(speeds)) + 1.0]  # room for the figures at the right
    powers = range(2, 8)
    drawn.update_xaxes(
        type="log",
        title=UNITS[results.environment["clock"]],
        tickvals=[10**power for power in powers],
        ticktext=["100", "1,000", "10,000", "100,000", "1 million", "10 million"],
        range=limits,
        gridcolor=FAINT,
        row=1,
        col=1,
    )
    drawn.update_yaxes(categoryorder="array", categoryarray=[row.words for row in reversed(ROWS)], row=1, col=1)


def _join(drawn: go.Figure, results: Results, row: Row) -> None:
    """A line from RedisVL's point to ours, and how many times as fast ours is."""
    ratio = results.times_as_fast(row.case(results), OURS, REDISVL)
    ours, theirs = _speed(results, row, OURS), _speed(results, row, REDISVL)
    if ratio is None or ours is None:
        return
    if theirs is not None:
        drawn.add_scatter(
            x=[theirs, ours],
            y=[row.words] * 2,
            mode="lines",
            line={"color": FAINT, "width": 4},
            hoverinfo="skip",
            showlegend=False,
            row=1,
            col=1,
        )
    drawn.add_annotation(x=1, y=row.words, yref="y", text=f"<b>{times(ratio)}</b>", **AT_THE_RIGHT)


def _speed(results: Results, row: Row, contender: str) -> float | None:
    timing = results.rival(row.case(results), contender)
    return None if timing is None else 1 / timing.median


def _draw_memory(drawn: go.Figure, results: Results) -> None:
    entries = [each for each in results.memory if each.dimension == results.dimensions[0]]
    names = [f"{each.contender}<br>{each.dtype}" for each in entries]
    drawn.add_bar(
        x=[each.bytes_per_entry for each in entries],
        y=names,
        orientation="h",
        marker={"color": [LOOKS[each.contender].colour for each in entries]},
        text=[f"<b>{each.bytes_per_entry:,.0f}</b>" for each in entries],
        textposition="outside",
        cliponaxis=False,
        showlegend=False,
        hovertemplate="%{y}<br>%{x:,.0f} bytes per entry<extra></extra>",
        row=1,
        col=2,
    )
    most = max((each.bytes_per_entry for each in entries), default=1)
    drawn.update_xaxes(title="bytes per entry, key included", tickformat=",d", nticks=4, gridcolor=FAINT, row=1, col=2)
    drawn.update_xaxes(range=[0, 1.25 * most], row=1, col=2)
    drawn.update_yaxes(categoryorder="array", categoryarray=names[::-1], ticklabelstandoff=8, row=1, col=2)


def save(drawn: go.Figure, path: Path) -> None:
    """Writes a PNG by way of a browser where the path ends so, else a page of HTML that needs no network."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".png":
        _photograph(drawn, path)
    else:
        drawn.write_html(path, config={"displayModeBar": False})


def _photograph(drawn: go.Figure, path: Path) -> None:
    sys.path.insert(0, str(TESTS))  # the tests know where a browser is, and how to start it
    from browser import launch  # of the extra `dev`; a page of HTML goes without
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = launch(playwright)
        page = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT}, device_scale_factor=2)
        page.set_content(drawn.to_html(config={"staticPlot": True}))
        page.locator(".js-plotly-plot .main-svg").first.wait_for()
        page.locator(".js-plotly-plot").screenshot(path=path)
        browser.close()
