"""DataFrames and arrays to Plotly figures, in one template. Knows no streamlit.

One template for both themes: backgrounds are clear, fonts and grid are left for `st.plotly_chart(theme="streamlit")` to
fill in from the page's theme, and each colour keeps a contrast of 3 to 1 on white and on our dark background alike.
Words are the exception: no grey reaches 4.5 to 1 on both, and Streamlit's own stays below it, so ink goes by the theme.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import ceil
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from embedcache.entry import FloatArray
from pages.ui.wording import chart_text

# After Okabe and Ito's palette, which people with any colour vision tell apart; lightened for the dark theme.
BLUE: Final = "#2a86c8"
ORANGE: Final = "#d9660f"
SEQUENCE: Final = (BLUE, ORANGE, "#0f9d76", "#b8699a", "#7a7fd1", "#8a8a2b")

# Clear in the middle, so that zero is the page's own background in either theme.
DIVERGING: Final = ((0.0, ORANGE), (0.5, "rgba(128,128,128,0.08)"), (1.0, BLUE))

# Told apart by people with any colour vision, lighter with each step, and seen on light and dark backgrounds alike.
SEQUENTIAL: Final = "Viridis"

_INK: Final = {"light": "#56616d", "dark": "#b4bfca"}
_ANY_INK: Final = "#7a8590"  # where the theme is not known: 4 to 1 on either

CONFIG: Final[dict[str, Any]] = {"displayModeBar": False, "scrollZoom": False}
"""For `st.plotly_chart`: no toolbar over the picture; hover, and double click to reset, remain."""

_BAR_PIXELS: Final = 52
_FRAME_PIXELS: Final = 64

_HOVER_CHARACTERS: Final = 90
_LABEL_CHARACTERS: Final = 22
_NAMED_TEXTS: Final = 60  # more names than that do not fit beside the rows
_MAX_NUMBERS: Final = 20
_ROW_PIXELS: Final = 14
_MAP_FRAME_PIXELS: Final = 110
_LEAST_MAP_PIXELS: Final = 460
_MANY_ROWS_PIXELS: Final = 620

TEMPLATE: Final = go.layout.Template(
    layout={
        "colorway": SEQUENCE,
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "margin": {"l": 8, "r": 16, "t": 8, "b": 8},
        "hoverlabel": {"align": "left"},
        "showlegend": False,
        "dragmode": False,  # a finger that scrolls the page must not zoom the chart
        "xaxis": {"automargin": True, "zeroline": False, "fixedrange": True},
        "yaxis": {"automargin": True, "zeroline": False, "fixedrange": True},
    }
)


def under_names(
    figure: go.Figure, names: Sequence[str], notes: Sequence[str], unit: str, most: int, theme: str | None
) -> go.Figure:
    """Lays out horizontal bars at 0, 1, …, each below its name on the left and its note on the right.

    Args:
        figure: The bars.
        names: For each, safe for Plotly (`chart_text`).
        notes: The same, of our own making.
        unit: What the bars count.
        most: The longest one.
        theme: ``light`` or ``dark``, or None where that is not known.
    """
    for position, (name, note) in enumerate(zip(names, notes, strict=True)):
        label = {"y": position, "yshift": 18, "showarrow": False, "yanchor": "middle", "xref": "paper"}
        figure.add_annotation(x=0, xanchor="left", text=name, **label)
        figure.add_annotation(x=1, xanchor="right", text=f"<b>{note}</b>", **label)
    figure.update_layout(template=TEMPLATE, height=under_names_pixels(len(names)))
    figure.update_xaxes(title=unit, range=[0, most], nticks=6, ticklabeloverflow="allow")
    count_ticks(figure.update_xaxes, most)
    figure.update_yaxes(visible=False, range=[len(names) - 0.7, -0.75])
    return inked(figure, theme)


def under_names_pixels(bars: int) -> int:
    """Height of a figure of so many bars that `under_names` laid out."""
    return _FRAME_PIXELS + _BAR_PIXELS * bars


def count_ticks(update_axes: Callable[..., Any], most: int) -> None:
    """Ticks for an axis that counts up to `most`: whole numbers, in thousands where they are many."""
    update_axes(tickformat=",d" if most < 10_000 else "~s")  # noqa: PLR2004 - five digits are wide on a phone
    if most < 5:  # noqa: PLR2004 - ticks between whole ones would mean nothing
        update_axes(dtick=1)


def vector_picture(vector: FloatArray, theme: str | None = None) -> go.Figure:
    """A vector (d,) twice over one axis: a strip of colour for the eye to recognise, bars for it to read."""
    values = np.asarray(vector, dtype=np.float64)
    limit = float(np.abs(values).max()) or 1.0
    positions = np.arange(values.size)
    figure = make_subplots(rows=2, cols=1, shared_xaxes=True, row_heights=[0.2, 0.8], vertical_spacing=0.06)
    hover = "position %{x}<br>value %{customdata:.6f}<extra></extra>"
    figure.add_heatmap(
        z=values[np.newaxis, :],
        x=positions,
        customdata=values[np.newaxis, :],
        zmin=-limit,
        zmax=limit,
        colorscale=[list(stop) for stop in DIVERGING],
        showscale=False,
        hovertemplate=hover,
        row=1,
        col=1,
    )
    figure.add_bar(
        x=positions,
        y=values,
        customdata=values,
        marker={"color": np.where(values < 0, ORANGE, BLUE), "line": {"width": 0}},
        hovertemplate=hover,
        row=2,
        col=1,
    )
    figure.update_layout(template=TEMPLATE, height=280, bargap=0)
    figure.update_xaxes(range=[-0.5, values.size - 0.5], showgrid=False)
    figure.update_xaxes(title=f"position in the vector (0 to {values.size - 1:,})", nticks=8, row=2, col=1)
    figure.update_yaxes(visible=False, row=1, col=1)
    figure.update_yaxes(title="value (no unit)", nticks=5, row=2, col=1)
    return inked(figure, theme)


def similarity_map(
    matrix: npt.NDArray[np.float64], numbers: Sequence[int], texts: Sequence[str], theme: str | None = None
) -> go.Figure:
    """The cosine similarity of each text with each, as a square of colours.

    Args:
        matrix: Shape ``(n, n)``, in the order of the texts.
        numbers: What the page's table calls each text; no two are the same.
        texts: The texts.
        theme: ``light`` or ``dark``, or None where that is not known.
    """
    # Each text once, as a category, and not in each cell: 200 texts make 40,000 cells.
    said = [f"{number}: {chart_text(text, _HOVER_CHARACTERS)}" for number, text in zip(numbers, texts, strict=True)]
    figure = go.Figure(
        go.Heatmap(
            z=matrix.astype(np.float32),
            x=said,
            y=said,
            zmin=min(0.0, float(matrix.min(initial=0.0))),
            zmax=1.0,
            colorscale=SEQUENTIAL,
            colorbar={
                "title": {"text": "cosine similarity", "side": "top"},
                "orientation": "h",
                "thickness": 10,
                "y": 1,
                "yanchor": "bottom",
                "nticks": 6,
            },
            hovertemplate="%{y}<br>%{x}<br>cosine similarity <b>%{z:.3f}</b><extra></extra>",
        )
    )
    figure.add_scatter(x=[None], y=[None], xaxis="x2", yaxis="y2", hoverinfo="skip")  # no trace, no axis
    figure.update_layout(template=TEMPLATE)
    return inked(_beside_rows(figure, numbers, texts), theme)


def _beside_rows(figure: go.Figure, numbers: Sequence[int], texts: Sequence[str]) -> go.Figure:
    """Puts a number below each column, and beside each row its text, cut; where they are many, some numbers alone."""
    named = len(texts) <= _NAMED_TEXTS
    rows = range(0, len(texts), 1 if named else ceil(len(texts) / _MAX_NUMBERS))
    columns = range(0, len(texts), ceil(len(texts) / _MAX_NUMBERS))
    beside = [f"{chart_text(texts[row], _LABEL_CHARACTERS)} {numbers[row]}" if named else numbers[row] for row in rows]
    first, last = -0.5, len(texts) - 0.5
    figure.update_layout(
        height=max(_LEAST_MAP_PIXELS, _MAP_FRAME_PIXELS + _ROW_PIXELS * len(texts)) if named else _MANY_ROWS_PIXELS,
        # Hover reads these axes, where each text is whole; what is drawn is cut, and so has axes of its own.
        xaxis={"visible": False, "range": [first, last]},
        yaxis={"visible": False, "range": [last, first]},
        xaxis2={
            "overlaying": "x",
            "range": [first, last],
            "tickvals": list(columns),
            "ticktext": [str(numbers[column]) for column in columns],
            "title": "number of the text",
        },
        yaxis2={
            "overlaying": "y",
            "range": [last, first],
            "tickvals": list(rows),
            "ticktext": [str(label) for label in beside],
            "title": None if named else "number of the text",
        },
    )
    for update in (figure.update_xaxes, figure.update_yaxes):
        update(showgrid=False, zeroline=False, fixedrange=True, automargin=True, tickfont_size=11, tickangle=0)
    return figure


def inked(figure: go.Figure, theme: str | None) -> go.Figure:
    """Gives a figure's words the ink of the page's theme."""
    ink = _INK.get(theme or "", _ANY_INK)
    figure.update_layout(font_color=ink, legend_title_font_color=ink)
    for update in (figure.update_xaxes, figure.update_yaxes):
        update(tickfont_color=ink, title_font_color=ink)
    return figure
