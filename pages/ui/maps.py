"""Maps of vectors as Plotly figures, and what their points are coloured by. Knows no streamlit.

Each point carries the row of its entry as ``customdata``, which is how a click finds the entry again.
"""

from __future__ import annotations

import json
import textwrap
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import plotly.graph_objects as go

from embedcache.sampling import Vectors
from pages.ui.charts import BLUE, CONFIG, ORANGE, SEQUENCE, TEMPLATE, inked
from pages.ui.projection import COMPONENTS, Projection
from pages.ui.wording import ago, chart_text, count, one_line, share

MAP_CONFIG: Final[dict[str, Any]] = CONFIG | {"displayModeBar": True, "modeBarButtonsToRemove": ["toImage"]}
"""For `st.plotly_chart`: a map is moved and zoomed, by drag and by the toolbar, and not by the wheel that scrolls."""

MOST_CATEGORIES: Final = 12
HEIGHT: Final = 560
_WEBGL_FROM: Final = 2_001
"""From so many points on, they are drawn by WebGL. Below, SVG is as fluent, and works in every browser."""
_HOVER_CHARACTERS: Final = 180
_HOVER_WIDTH: Final = 60
_NAME_CHARACTERS: Final = 28
_MODEL_CHARACTERS: Final = 60
_MOST_FIELDS: Final = 50
_GREY: Final = "#7f8a95"
_GRID: Final = "rgba(128,138,149,0.3)"
# All as dark as each other, so that each keeps its contrast on white and on our dark background.
_SCALE: Final = ((0.0, BLUE), (0.5, "#b8699a"), (1.0, ORANGE))
_SYMBOLS: Final = ("circle", "diamond")  # a second one where there are more categories than colours
_ORDINALS: Final = ("1st", "2nd", "3rd")
_AGES: Final = ((86_400, "days"), (3_600, "hours"), (60, "minutes"), (1, "seconds"))


@dataclass(frozen=True, slots=True)
class Colours:
    """What points are coloured by: categories, or else numbers. All words are safe for Plotly.

    Attributes:
        title: What it is.
        labels: The categories' names, most points first; none where there are numbers.
        codes: The category of each point as a position in `labels`, shape (n,).
        numbers: A number for each point, NaN where it has none, shape (n,).
        plain: The last so many of the labels stand for no one thing, such as "other".
    """

    title: str
    labels: tuple[str, ...] = ()
    codes: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    numbers: npt.NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))
    plain: int = 0


@dataclass(frozen=True, slots=True)
class Marks:
    """What a text that was looked for adds to a map.

    Attributes:
        text: Where it lies, shape (3,).
        neighbours: The rows of its nearest neighbours.
    """

    text: npt.NDArray[np.float64]
    neighbours: npt.NDArray[np.int64]


# ------------------------------------------------------------------------------------------------ colours


def by_model(vectors: Vectors) -> Colours:
    """The model of each entry."""
    return _categories("model", [one_line(name, _NAME_CHARACTERS) for name in vectors.model_names])


def by_cluster(labels: npt.NDArray[np.int64]) -> Colours:
    """The cluster of each entry, from `projection.clusters`."""
    return _categories("cluster", [f"cluster {label + 1}" for label in labels])


def by_age(vectors: Vectors, now: float) -> Colours:
    """How long ago each entry was stored, in the largest unit that fits; `now` in Unix seconds."""
    ages = np.where(np.isfinite(vectors.inserted_at), np.maximum(now - vectors.inserted_at, 0), np.nan)
    most = float(np.nanmax(ages)) if np.isfinite(ages).any() else 0.0
    seconds, unit = next(((seconds, unit) for seconds, unit in _AGES if most >= 2 * seconds), _AGES[-1])
    return Colours(title=f"age ({unit})", numbers=ages / seconds)


def by_field(vectors: Vectors, name: str) -> Colours:
    """One metadata field of each entry: numbers where all are and there are many, else categories."""
    values = [None if each is None else each.get(name) for each in vectors.metadata]
    given = [value for value in values if value is not None]
    title = chart_text(name, _NAME_CHARACTERS)
    if all(_is_number(value) for value in given) and len(set(given)) > MOST_CATEGORIES:
        numbers = np.array([np.nan if value is None else float(value) for value in values])
        return Colours(title=title, numbers=np.where(np.isfinite(numbers), numbers, np.nan))
    return _categories(title, [None if value is None else _value_name(value) for value in values])


def field_names(vectors: Vectors) -> list[str]:
    """The metadata fields of these entries, most frequent first, up to 50."""
    names = Counter(name for each in vectors.metadata for name in each or {})
    return [name for name, _ in sorted(names.items(), key=lambda item: (-item[1], item[0]))[:_MOST_FIELDS]]


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _value_name(value: object) -> str:
    words = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return one_line(words, _NAME_CHARACTERS) or "(empty)"


def _categories(title: str, names: Sequence[str | None]) -> Colours:
    """The most frequent names, and what remains as "other" and "not set"."""
    counted = Counter(name for name in names if name is not None)
    frequent = sorted(counted, key=lambda name: (-counted[name], name))
    missing = None in names
    room = MOST_CATEGORIES - missing
    kept = frequent if len(frequent) <= room else frequent[: room - 1]
    position = {name: code for code, name in enumerate(kept)}
    other = len(kept)
    not_set = other + (len(kept) < len(frequent))
    codes = np.array([not_set if name is None else position.get(name, other) for name in names], dtype=np.int64)
    plain = [f"other ({count(len(frequent) - len(kept))} values)"] * (not_set > other) + ["not set"] * missing
    labels = [chart_text(name, _NAME_CHARACTERS) for name in kept]
    return Colours(title, (*labels, *plain), codes, plain=len(plain))


# ------------------------------------------------------------------------------------------------ maps


def hover_texts(vectors: Vectors, now: float) -> list[str]:
    """What is read at each point: its text, model and age, safe for Plotly."""
    ages = [ago(now - at) for at in vectors.inserted_at]
    models = {name: chart_text(name, _MODEL_CHARACTERS) for name in set(vectors.model_names)}
    texts = ["<br>".join(_wrapped(one_line(text, _HOVER_CHARACTERS))) for text in vectors.texts]
    return [
        f"{text}<br><br>{models[name]}<br>stored {age}"
        for text, name, age in zip(texts, vectors.model_names, ages, strict=True)
    ]


def _wrapped(text: str) -> list[str]:
    return [chart_text(line, _HOVER_WIDTH) for line in textwrap.wrap(text, _HOVER_WIDTH)] or ["(blank)"]


def flat(
    projection: Projection, hover: Sequence[str], colours: Colours, marks: Marks | None = None, theme: str | None = None
) -> go.Figure:
    """A map of the first two components. A click on a point selects it."""
    points = projection.coordinates
    trace = go.Scattergl if len(points) >= _WEBGL_FROM else go.Scatter
    figure = go.Figure()
    for options in _layers(points, hover, colours):
        rows = options["customdata"]
        figure.add_trace(trace(x=points[rows, 0], y=points[rows, 1], **options))
    if marks is not None:
        for at, options in _marked(marks, points, hover):
            figure.add_trace(trace(x=at[:, 0], y=at[:, 1], **options))
    figure.update_layout(dragmode="pan", hovermode="closest")
    figure.update_xaxes(title=_axis_title(projection, 0), fixedrange=False)
    figure.update_yaxes(title=_axis_title(projection, 1), fixedrange=False, scaleanchor="x")
    return _framed(figure, colours, marks is not None, theme)


def solid(
    projection: Projection, hover: Sequence[str], colours: Colours, marks: Marks | None = None, theme: str | None = None
) -> go.Figure:
    """A map of the first three components, turned by dragging. Plotly tells nobody which of its points is clicked."""
    points = projection.coordinates
    figure = go.Figure()
    for options in _layers(points, hover, colours):
        rows = options["customdata"]
        figure.add_scatter3d(x=points[rows, 0], y=points[rows, 1], z=points[rows, 2], **options)
    figure.update_traces(marker_size=max(2, _marker_size(len(points)) // 2))  # these are drawn larger than flat ones
    if marks is not None:
        for at, options in _marked(marks, points, hover):
            figure.add_scatter3d(x=at[:, 0], y=at[:, 1], z=at[:, 2], **options)
            figure.update_traces(marker_size=6, selector=-1)
    _framed(figure, colours, marks is not None, theme)
    ink = figure.layout.font.color
    axis = {"backgroundcolor": "rgba(0,0,0,0)", "gridcolor": _GRID, "zerolinecolor": _GRID, "nticks": 5, "color": ink}
    titles = [f"{_ORDINALS[at]}, {share(float(projection.variance[at]))}" for at in range(COMPONENTS)]
    scene = {f"{name}axis": axis | {"title": title} for name, title in zip("xyz", titles, strict=True)}
    figure.update_layout(scene=scene | {"dragmode": "orbit", "camera": {"eye": {"x": 1.5, "y": 1.5, "z": 0.9}}})
    return figure


def norms(lengths: npt.NDArray[np.float64], theme: str | None = None) -> go.Figure:
    """How many vectors have which norm, shape (m,), m ≥ 1."""
    low, high = float(lengths.min()), float(lengths.max())
    if high - low < 0.02 * max(abs(high), 1e-9):  # rounding alone: not to be blown up into a distribution
        low, high = low - 0.05 * (high or 1), high + 0.05 * (high or 1)
    numbers, edges = np.histogram(lengths, bins=40, range=(max(low, 0), high))
    figure = go.Figure(
        go.Bar(
            x=(edges[:-1] + edges[1:]) / 2,
            y=numbers,
            width=np.diff(edges),
            marker={"color": BLUE, "line": {"width": 0}},
            customdata=[f"{a:.4g} to {b:.4g}" for a, b in pairwise(edges)],
            hovertemplate="norm %{customdata}<br>%{y:,} vectors<extra></extra>",
        )
    )
    figure.update_layout(template=TEMPLATE, height=300, bargap=0)
    figure.update_xaxes(title="norm of the vector (no unit)", nticks=6)
    figure.update_yaxes(title="vectors", tickformat=",d", nticks=5, rangemode="tozero")
    return inked(figure, theme)


def _axis_title(projection: Projection, component: int) -> str:
    return f"{_ORDINALS[component]} component, {share(float(projection.variance[component]))} of the variance"


def _layers(points: npt.NDArray[np.float64], hover: Sequence[str], colours: Colours) -> list[dict[str, Any]]:
    """A trace for each category, or for the points with a number and those without."""
    base: dict[str, Any] = {"size": _marker_size(len(points)), "opacity": 0.8, "line": {"width": 0}}
    if not colours.labels:
        known = np.isfinite(colours.numbers)
        bar = {"title": {"text": colours.title, "side": "right"}, "thickness": 12, "outlinewidth": 0, "nticks": 6}
        scaled = {"color": colours.numbers[known], "colorscale": [list(stop) for stop in _SCALE], "colorbar": bar}
        layers = [("known", np.flatnonzero(known), base | scaled)]
        layers.append(("not set", np.flatnonzero(~known), base | {"color": _GREY}))
    else:
        layers = [
            (f"{label} ({count(len(rows))})", rows, base | _look(code, len(colours.labels) - colours.plain))
            for code, label in enumerate(colours.labels)
            for rows in [np.flatnonzero(colours.codes == code)]
        ]
    return [
        {
            "name": name,
            "mode": "markers",
            "marker": marker,
            "customdata": rows,
            "text": [hover[int(row)] for row in rows],
            "hovertemplate": "%{text}<extra></extra>",
            "showlegend": bool(colours.labels) or name == "not set",
        }
        for name, rows, marker in layers
        if len(rows)
    ]


def _look(code: int, named: int) -> dict[str, Any]:
    """Colour and symbol of a category; what stands for no one thing is grey."""
    if code >= named:
        return {"color": _GREY}
    return {"color": SEQUENCE[code % len(SEQUENCE)], "symbol": _SYMBOLS[code // len(SEQUENCE)]}


def _marker_size(points: int) -> int:
    return next(size for most, size in ((600, 8), (3_000, 6), (10**9, 4)) if points <= most)


def _marked(
    marks: Marks, points: npt.NDArray[np.float64], hover: Sequence[str]
) -> list[tuple[npt.NDArray[np.float64], dict[str, Any]]]:
    """Rings around the neighbours, and a cross at the text itself, each with where it lies."""
    rows = marks.neighbours
    rings = {
        "name": "nearest neighbours",
        "mode": "markers",
        "marker": {"symbol": "circle-open", "size": 14, "color": _GREY, "line": {"width": 2}},
        "customdata": rows,
        "text": [hover[int(row)] for row in rows],
        "hovertemplate": "%{text}<extra></extra>",
    }
    cross = {
        "name": "your text",
        "mode": "markers",
        "marker": {"symbol": "x", "size": 12, "color": ORANGE, "line": {"width": 1, "color": "white"}},
        "hovertemplate": "your text<extra></extra>",
    }
    return [(points[rows], rings), (marks.text[np.newaxis, :], cross)]


def _framed(figure: go.Figure, colours: Colours, marked: bool, theme: str | None) -> go.Figure:
    figure.update_layout(
        template=TEMPLATE,
        height=HEIGHT,
        showlegend=bool(colours.labels) or marked,
        legend={
            "orientation": "h",
            "x": 0,
            "xanchor": "left",
            "y": -0.12,
            "yanchor": "top",
            "title": {"text": f"{colours.title}: " if colours.labels else "", "side": "top left"},
            "itemsizing": "constant",
        },
        margin={"l": 8, "r": 8, "t": 36, "b": 8},
    )
    inked(figure, theme)
    ink = figure.layout.font.color
    figure.update_traces(
        marker_colorbar={"tickfont": {"color": ink}, "title": {"font": {"color": ink}}},
        selector=lambda trace: trace.marker.colorscale is not None,
    )
    return figure
