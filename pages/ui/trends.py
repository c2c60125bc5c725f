"""Statistics over time and by model, as Plotly figures. Knows no streamlit.

All figures over time of one page share a `TimeAxis`, so that what happened at one time stands in one line. A step in
which nothing was measured is a gap.
"""

from __future__ import annotations

from math import ceil, floor, log10
from typing import Any, Final

import pandas as pd
import plotly.graph_objects as go

from pages.ui.charts import BLUE, ORANGE, SEQUENCE, TEMPLATE, count_ticks, inked, under_names
from pages.ui.windows import TimeAxis
from pages.ui.wording import chart_text, count, duration, elapsed, share

GREEN: Final = SEQUENCE[2]
VIOLET: Final = SEQUENCE[4]

_TALLIES: Final = (("hits", "hits", BLUE), ("near_hits", "near hits", GREEN), ("misses", "misses", ORANGE))
_PERCENTILES: Final = (
    ("p50", "50%", BLUE, "solid"),
    ("p95", "95%", GREEN, "dash"),
    ("p99", "99%", ORANGE, "dot"),
)
_UNITS: Final = ((86_400, "d"), (3_600, "h"), (60, "min"), (1, "s"), (0.001, "ms"))

_HEIGHT: Final = 270
_LEGEND_PIXELS: Final = 28
_LEFT_PIXELS: Final = 72
_RIGHT_PIXELS: Final = 16
_NAME_CHARACTERS: Final = 40
_ERROR_PER_CENT: Final = 112  # above the rates, on a line of its own
_MAX_TICKS: Final = 6
_FEW_BARS: Final = 30  # gaps between more of them are less than a pixel, here and there


def hit_rate(frame: pd.DataFrame, axis: TimeAxis, theme: str | None = None) -> go.Figure:
    """The hit rate of each step (of `steps_frame`), and marks where calls failed."""
    figure = go.Figure()
    figure.add_scatter(
        x=frame["middle"].tolist(),
        y=_with_gaps(frame["hit_rate"]),
        name="hit rate",
        mode="lines+markers",
        connectgaps=False,
        line={"color": BLUE, "width": 2},
        marker={"size": 5},
        hovertemplate="%{text}<extra></extra>",
        text=[
            f"{label}<br>{share(rate / 100)} of {count(texts)} texts found" if texts else label
            for label, rate, texts in zip(frame["label"], frame["hit_rate"], frame["texts"], strict=True)
        ],
        hoverinfo="text",
    )
    failed = frame[frame["errors"] > 0]
    figure.add_scatter(
        x=failed["middle"].tolist(),
        y=[_ERROR_PER_CENT] * len(failed),
        name="errors",
        mode="markers+text",
        marker={"color": ORANGE, "symbol": "x", "size": 8},
        text=_spaced_counts(failed, axis),
        textposition="top center",
        textfont={"size": 11},
        customdata=[
            f"{label}<br>{count(errors)} {'call' if errors == 1 else 'calls'} failed"
            for label, errors in zip(failed["label"], failed["errors"], strict=True)
        ],
        hovertemplate="%{customdata}<extra></extra>",
        cliponaxis=False,
        showlegend=bool(len(failed)),
    )
    top = 130 if len(failed) else 104
    figure.update_yaxes(title="texts found (%)", range=[-4, top], tickvals=[0, 25, 50, 75, 100])
    return _over_time(figure, axis, theme)


def _spaced_counts(failed: pd.DataFrame, axis: TimeAxis) -> list[str]:
    """The number of errors at each mark, left out where it would run into the one before."""
    room = (axis.end - axis.start) / 15
    texts: list[str] = []
    free_from = axis.start
    for middle, errors in zip(failed["middle"], failed["errors"], strict=True):
        shown = middle >= free_from
        texts.append(count(errors) if shown else "")
        free_from = middle + room if shown else free_from
    return texts


def texts_looked_up(frame: pd.DataFrame, axis: TimeAxis, theme: str | None = None) -> go.Figure:
    """Hits, near hits and misses of each step (of `steps_frame`), stacked."""
    figure = go.Figure()
    said = [
        f"{label}<br>{count(hits)} hits<br>{count(near)} near hits<br>{count(misses)} misses"
        for label, hits, near, misses in zip(
            frame["label"], frame["hits"], frame["near_hits"], frame["misses"], strict=True
        )
    ]
    for column, name, colour in _TALLIES:
        figure.add_bar(
            x=frame["middle"].tolist(),
            y=frame[column].tolist(),
            name=name,
            marker={"color": colour, "line": {"width": 0}},
            customdata=said,
            hovertemplate="%{customdata}<extra></extra>",
        )
    figure.update_layout(barmode="stack", bargap=0.2 if len(frame) <= _FEW_BARS else 0)
    figure.update_yaxes(title="texts looked up", rangemode="tozero", nticks=_MAX_TICKS)
    count_ticks(figure.update_yaxes, int(frame["texts"].max()))
    return _over_time(figure, axis, theme)


def latency(frame: pd.DataFrame, axis: TimeAxis, theme: str | None = None) -> go.Figure:
    """What half, 95% and 99% of the lookups of each step (of `steps_frame`) did not exceed, on a log scale."""
    figure = go.Figure()
    said = [
        f"{label}<br>half within {_ms(p50)}<br>95% within {_ms(p95)}<br>99% within {_ms(p99)}" if pd.notna(p50) else ""
        for label, p50, p95, p99 in zip(frame["label"], frame["p50"], frame["p95"], frame["p99"], strict=True)
    ]
    for column, name, colour, dash in _PERCENTILES:
        figure.add_scatter(
            x=frame["middle"].tolist(),
            y=_with_gaps(frame[column]),
            name=name,
            mode="lines+markers",
            connectgaps=False,
            line={"color": colour, "width": 2, "dash": dash},
            marker={"size": 4},
            customdata=said,
            hovertemplate="%{customdata}<extra></extra>",
        )
    known = frame["p50"].dropna()
    if len(known):
        low, high = log10(float(known.min())) - 0.15, log10(float(frame["p99"].max())) + 0.15
        ticks = _log_ticks(low, high)
        figure.update_yaxes(range=[low, high], tickvals=ticks, ticktext=[_tick(tick) for tick in ticks])
    figure.update_yaxes(title="time per lookup (log scale)", type="log")
    figure.update_layout(legend_title={"text": "done within: ", "side": "left", "font_size": 12})
    return _over_time(figure, axis, theme)


def _ms(milliseconds: float) -> str:
    return elapsed(milliseconds / 1000)


def _log_ticks(low: float, high: float) -> list[float]:
    """Milliseconds to label between two powers of ten: 1, 2, 5, 10, or where these are too many, 1 and 10."""
    decades = range(floor(low), ceil(high) + 1)
    for parts in ((1, 2, 5), (1, 3), (1,)):
        ticks = [part * 10.0**decade for decade in decades for part in parts]
        ticks = [tick for tick in ticks if low <= log10(tick) <= high]
        if len(ticks) <= _MAX_TICKS:
            return ticks
    return ticks[:: ceil(len(ticks) / _MAX_TICKS)]


def _tick(milliseconds: float) -> str:
    return f"{milliseconds / 1000:g} s" if milliseconds >= 1000 else f"{milliseconds:g} ms"  # noqa: PLR2004


def time_saved(frame: pd.DataFrame, axis: TimeAxis, theme: str | None = None) -> go.Figure:
    """The computing time that hits have saved since the window began, step by step (of `steps_frame`)."""
    most = float(frame["saved_so_far"].max())
    factor, unit = next(((factor, unit) for factor, unit in _UNITS if most >= 2 * factor), _UNITS[-1])
    figure = go.Figure(
        go.Scatter(
            x=frame["middle"].tolist(),
            y=_with_gaps(frame["saved_so_far"] / factor),
            mode="lines",
            line={"color": VIOLET, "width": 2, "shape": "hv" if len(frame) == 1 else "linear"},
            fill="tozeroy",
            fillcolor="rgba(122,127,209,0.18)",
            customdata=[
                f"{label}<br>{_span(step)} saved, {_span(so_far)} so far"
                for label, step, so_far in zip(
                    frame["label"], frame["saved"].fillna(0), frame["saved_so_far"], strict=True
                )
            ],
            hovertemplate="%{customdata}<extra></extra>",
        )
    )
    figure.update_yaxes(title=f"saved so far ({unit})", rangemode="tozero", nticks=_MAX_TICKS)
    return _over_time(figure, axis, theme)


def _span(seconds: float) -> str:
    return elapsed(seconds) if seconds < 60 else duration(seconds)  # noqa: PLR2004


def hits_by_model(frame: pd.DataFrame, theme: str | None = None) -> go.Figure:
    """Hits, near hits and misses of each model (of `hits_by_model_frame`), below its name and hit rate."""
    figure = go.Figure()
    said = [
        f"{chart_text(model, 200)}<br>{count(hits)} hits<br>{count(near)} near hits<br>{count(misses)} misses"
        for model, hits, near, misses in zip(
            frame["model"], frame["hits"], frame["near_hits"], frame["misses"], strict=True
        )
    ]
    for column, name, colour in _TALLIES:
        figure.add_bar(
            x=frame[column].tolist(),
            y=list(range(len(frame))),
            orientation="h",
            width=0.36,
            name=name,
            marker={"color": colour, "line": {"width": 0}},
            customdata=said,
            hovertemplate="%{customdata}<extra></extra>",
        )
    names = [chart_text(model, _NAME_CHARACTERS) for model in frame["model"]]
    notes = [f"{share(rate / 100)} found" for rate in frame["hit_rate"]]
    under_names(figure, names, notes, "texts looked up", max(1, int(frame["texts"].max())), theme)
    figure.update_layout(barmode="stack", height=figure.layout.height + _LEGEND_PIXELS)
    return _with_legend(figure)


def _over_time(figure: go.Figure, axis: TimeAxis, theme: str | None) -> go.Figure:
    figure.update_layout(template=TEMPLATE, height=_HEIGHT, uirevision="kept", hovermode="closest")
    figure.update_layout(margin_l=_LEFT_PIXELS, margin_r=_RIGHT_PIXELS)
    figure.update_yaxes(automargin=False, title_standoff=8)  # figures below each other share their edges
    figure.update_xaxes(
        title=axis.title,
        range=[axis.start, axis.end],
        tickvals=axis.ticks,
        ticktext=axis.texts,
        tickangle=0,
        showgrid=False,
    )
    return inked(_with_legend(figure), theme)


def _with_legend(figure: go.Figure) -> go.Figure:
    """A legend in one line above the plot, where it fits on a phone; room for it stays where there is none."""
    figure.update_layout(
        margin={"t": _LEGEND_PIXELS},
        showlegend=len(figure.data) > 1,
        legend={
            "orientation": "h",
            "x": 0,
            "xanchor": "left",
            "y": 1,
            "yanchor": "bottom",
            "traceorder": "normal",
            "itemclick": False,
            "itemdoubleclick": False,
        },
    )
    return figure


def _with_gaps(values: pd.Series[Any]) -> list[float | None]:
    return [None if pd.isna(value) else float(value) for value in values]
