"""Benchmarks as Plotly figures: boxes of what calls took, throughput by batch size, medians over time.

Knows no streamlit. Names of variants may be strangers', and go through `chart_text`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import log10
from typing import Any, Final

import pandas as pd
import plotly.graph_objects as go

from embedcache.benchmark.records import Measurement
from pages.ui.charts import BLUE, ORANGE, SEQUENCE, TEMPLATE, inked, under_names
from pages.ui.timing_words import rate
from pages.ui.wording import chart_text, count, elapsed, size

_WIDE: Final = 12
"""From so many times between the least and the most on, an axis is logarithmic: less, and all but one would be flat."""
_WIDE_IN_DECADES: Final = 1.7
_HEIGHT: Final = 300
_NAME_CHARACTERS: Final = 40
_BOX_PIXELS: Final = 12
"""That a box is higher than a bar."""
_COLOURS: Final = (ORANGE, BLUE, *SEQUENCE[2:])
"""The first, to beat, is orange everywhere."""
_MARKS: Final = ("circle", "square", "diamond", "triangle-up", "x", "star")
_LINES: Final = (("read", BLUE, "solid", "top center"), ("write", ORANGE, "dash", "bottom center"))


def boxes(measurements: Sequence[Measurement], theme: str | None = None) -> go.Figure:
    """A box of the samples of each measurement, below its name and median; the first one, to beat, in orange."""
    figure = go.Figure()
    for position, each in enumerate(measurements):
        samples = [sample * 1_000 for sample in each.samples] or [each.p50 * 1_000]
        colour = BLUE if position else ORANGE
        figure.add_box(
            x=samples,
            y=[position] * len(samples),
            orientation="h",
            width=0.3,
            boxpoints="outliers",
            marker={"color": colour, "size": 4, "opacity": 0.6},
            line={"color": colour, "width": 2},
            name="",
            xhoverformat=".3~f",
        )
    names = [chart_text(each.variant, _NAME_CHARACTERS) for each in measurements]
    notes = [elapsed(each.p50) for each in measurements]
    low, high = _limits(measurements)
    under_names(figure, names, notes, "time per call (ms)", max(1, round(high)), theme)
    _fit(figure.update_xaxes, low, high, "time per call (ms)")
    return _roomy(figure, len(names), theme)


def _roomy(figure: go.Figure, rows: int, theme: str | None) -> go.Figure:
    """Gives each row the height that a box below its name takes; bars have it too, for they stand beside boxes."""
    figure.update_layout(height=figure.layout.height + _BOX_PIXELS * rows)
    figure.update_yaxes(range=[rows - 0.6, -0.6])
    return inked(figure, theme)


def _limits(measurements: Sequence[Measurement]) -> tuple[float, float]:
    """The least and the most milliseconds that are drawn."""
    every = [sample for each in measurements for sample in (*each.samples, each.p50)]
    return min(every) * 1_000, max(every) * 1_000


def _fit(update_axes: Callable[..., Any], low: float, high: float, title: str, tick_format: str = "~g") -> None:
    """An axis from zero, or a logarithmic one where the numbers range wide."""
    if high <= _WIDE * low:
        update_axes(title=title, range=[0, high * 1.04], nticks=6, dtick=None, tickformat=tick_format)
        return
    margin = 0.04 * log10(high / low)
    update_axes(
        title=f"{title}, log scale",
        type="log",
        range=[log10(low) - margin, log10(high) + margin],
        dtick=1 if log10(high / low) > _WIDE_IN_DECADES else "D2",
        tickformat=tick_format,
    )


def throughput(measurements: Sequence[Measurement], theme: str | None = None) -> go.Figure:
    """Entries read and written per second, by how many go into one call."""
    figure = go.Figure()
    for operation, colour, dash, place in _LINES:
        points = [each for each in measurements if each.operation == operation]
        figure.add_scatter(
            x=[each.texts for each in points],
            y=[each.texts_per_second for each in points],
            mode="lines+markers+text",
            line={"color": colour, "width": 2, "dash": dash},
            marker={"size": 8},
            text=[*[""] * (len(points) - 1), f"<b>{operation}</b>"] if points else [],
            textposition=place,
            textfont={"color": colour, "size": 13},
            cliponaxis=False,
            customdata=[
                f"{operation}, {count(each.texts)} per call<br>{rate(each.texts_per_second)} entries/s"
                f"<br>{elapsed(each.p50)} per call"
                for each in points
            ],
            hovertemplate="%{customdata}<extra></extra>",
        )
    rates = [each.texts_per_second for each in measurements]
    sizes = sorted({each.texts for each in measurements})
    figure.update_layout(template=TEMPLATE, height=_HEIGHT, margin={"r": 28, "t": 20})
    figure.update_xaxes(
        title="entries per call, log scale",
        type="log",
        range=[log10(sizes[0]) - 0.15, log10(sizes[-1]) + 0.15],
        tickvals=sizes,
        ticktext=[count(each) for each in sizes],
        tickangle=0,
    )
    _fit(figure.update_yaxes, min(rates), max(rates) * 1.1, "entries per second", "~s")
    return inked(figure, theme)


def memory(measurements: Sequence[Measurement], theme: str | None = None) -> go.Figure:
    """What an entry costs on the server, by variant."""
    weighed = {each.variant: each.bytes_per_entry for each in measurements if each.bytes_per_entry is not None}
    figure = go.Figure(
        go.Bar(
            x=list(weighed.values()),
            y=list(range(len(weighed))),
            orientation="h",
            width=0.36,
            marker={"color": [BLUE if position else ORANGE for position in range(len(weighed))], "cornerradius": 4},
            hovertemplate="%{x:,.0f} bytes per entry<extra></extra>",
        )
    )
    names = [chart_text(variant, _NAME_CHARACTERS) for variant in weighed]
    notes = [size(round(each)) for each in weighed.values()]
    most = max(1, round(max(weighed.values(), default=1)))
    under_names(figure, names, notes, "memory per entry (bytes)", most, theme)
    return _roomy(figure, len(names), theme)


def medians(frame: pd.DataFrame, labels: Sequence[str], theme: str | None = None) -> go.Figure:
    """The medians of one operation (of `medians_frame`) run by run, first to last; runs are evenly spaced.

    Args:
        frame: Of one scenario and operation.
        labels: When each run was, for the axis.
        theme: ``light`` or ``dark``, or None where that is not known.
    """
    figure = go.Figure()
    for number, (variant, rows) in enumerate(frame.groupby("variant", sort=False)):
        figure.add_scatter(
            x=rows["run"].tolist(),
            y=rows["ms"].tolist(),
            name=chart_text(str(variant), _NAME_CHARACTERS),
            mode="lines+markers",
            line={"color": _COLOURS[number % len(_COLOURS)], "width": 2},
            marker={"size": 9, "symbol": _MARKS[number % len(_MARKS)]},
            customdata=[
                f"{chart_text(str(variant), _NAME_CHARACTERS)}<br>{labels[run]}<br>{elapsed(ms / 1_000)} per text"
                for run, ms in zip(rows["run"], rows["ms"], strict=True)
            ],
            hovertemplate="%{customdata}<extra></extra>",
        )
    figure.update_layout(
        template=TEMPLATE,
        height=_HEIGHT,
        showlegend=True,
        legend={
            "orientation": "h",
            "x": 0,
            "y": 1.02,
            "yanchor": "bottom",
            "itemclick": False,
            "itemdoubleclick": False,
        },
    )
    figure.update_xaxes(
        title="run, first to last",
        range=[-0.3, len(labels) - 0.7],
        tickvals=list(range(len(labels))),
        ticktext=[label.replace(", ", "<br>", 1) for label in labels],
        tickangle=0,
    )
    _fit(figure.update_yaxes, float(frame["ms"].min()), float(frame["ms"].max()), "median per text (ms)")
    return inked(figure, theme)
