"""Two entries side by side: how alike their vectors are, and what else differs, as tables and figures.

Knows no streamlit.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import tzinfo
from typing import Any, Final

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from embedcache.entry import EntrySummary, FloatArray, Metadata
from pages.ui.charts import BLUE, ORANGE, SEQUENCE, TEMPLATE, inked
from pages.ui.similarity import cosine_similarities
from pages.ui.wording import count, duration, moment, one_line, size, until

FIRST: Final = "First"
SECOND: Final = "Second"
NOTHING: Final = "not there"
_VALUE_CHARACTERS: Final = 200
_FACT_CHARACTERS: Final = 60
_ID_DIGITS: Final = 12
_GREEN: Final = SEQUENCE[2]
_MARGIN: Final = 1.08


# ------------------------------------------------------------------------------------------------ measures


@dataclass(frozen=True, slots=True)
class Measures:
    """How alike two vectors are.

    Attributes:
        cosine: Their cosine similarity, from -1 to 1, or None where there is none.
        distance: Their Euclidean distance, or None where there is none.
        norms: The length of each.
        why_not: Why there is no cosine, in a sentence; empty where there is one.
    """

    cosine: float | None
    distance: float | None
    norms: tuple[float, float]
    why_not: str = ""

    @property
    def comparable(self) -> bool:
        """Whether the vectors lie in one space, position by position."""
        return self.distance is not None


def measure(one: FloatArray, other: FloatArray) -> Measures:
    """How alike two vectors are, each of shape (d,)."""
    norms = (_norm(one), _norm(other))
    if one.shape != other.shape:
        why = (
            f"The first vector has {count(one.size)} dimensions, the second {count(other.size)}: vectors of different "
            "length lie in different spaces, and no similarity or distance can be told."
        )
        return Measures(None, None, norms, why)
    if not (np.isfinite(one).all() and np.isfinite(other).all()):
        why = "A vector holds NaN or infinity, so no similarity or distance can be told. Embed its text again."
        return Measures(None, None, norms, why)
    distance = _norm(np.asarray(one, dtype=np.float64) - np.asarray(other, dtype=np.float64))
    if 0.0 in norms:
        why = "A vector of zeros has no direction, so there is no cosine similarity."
        return Measures(None, distance, norms, why)
    pair = np.stack([np.asarray(one, dtype=np.float64), np.asarray(other, dtype=np.float64)])
    return Measures(float(cosine_similarities(pair)[0, 1]), distance, norms)


def _norm(vector: FloatArray) -> float:
    values = np.asarray(vector, dtype=np.float64)
    largest = float(np.abs(values).max(initial=0.0))
    if not 0 < largest < np.inf:
        return largest
    return float(np.linalg.norm(values / largest) * largest)  # the square of a large number has no place in a float


# ------------------------------------------------------------------------------------------------ tables


def facts_frame(one: EntrySummary, other: EntrySummary, zone: tzinfo) -> pd.DataFrame:
    """One row per fact but the model, which is long: ``what``, ``first`` and ``second``, all text and short."""
    facts = [
        ("dimensions", count(one.dimension), count(other.dimension)),
        ("stored as", one.dtype, other.dtype),
        ("expires", until(one.expires_in), until(other.expires_in)),
        ("own TTL", _ttl(one.ttl), _ttl(other.ttl)),
        ("stored", moment(one.inserted_at, zone), moment(other.inserted_at, zone)),
        ("memory", size(one.memory_bytes), size(other.memory_bytes)),
        ("cache", one.key[:-65], other.key[:-65]),
        ("entry id", one.key[-64:][:_ID_DIGITS] + "…", other.key[-64:][:_ID_DIGITS] + "…"),
    ]
    rows = [
        (what, one_line(first, _FACT_CHARACTERS), one_line(second, _FACT_CHARACTERS)) for what, first, second in facts
    ]
    return pd.DataFrame(rows, columns=["what", "first", "second"])


def _ttl(seconds: int | None) -> str:
    return "never" if seconds is None else duration(seconds)


def metadata_frame(one: Metadata | None, other: Metadata | None) -> tuple[pd.DataFrame, int]:
    """The fields of two entries' metadata that differ, and how many are the same.

    Returns:
        One row per field that differs, by its path (``author.name``, ``tags[0]``): ``field``, ``first`` and ``second``,
        as JSON, or `NOTHING`.
    """
    first, second = _fields(one), _fields(other)
    paths = list(dict.fromkeys([*first, *second]))
    different = [path for path in paths if first.get(path) != second.get(path)]
    rows = [
        tuple(one_line(cell or NOTHING, _VALUE_CHARACTERS) for cell in _cells(path, first, second))
        for path in different
    ]
    return pd.DataFrame(rows, columns=["field", "first", "second"]), len(paths) - len(different)


def _cells(path: str, first: dict[str, str], second: dict[str, str]) -> tuple[str, str | None, str | None]:
    return path, first.get(path), second.get(path)


def _fields(metadata: Metadata | None) -> dict[str, str]:
    """Each value that holds no others, as JSON, by its path. Without recursion: a stranger's may be nested deeply."""
    found: dict[str, str] = {}
    waiting: list[tuple[str, Any]] = [("", metadata)] if metadata else []
    while waiting:
        path, value = waiting.pop()
        inner: list[tuple[str, Any]] = []
        if isinstance(value, dict):
            inner = [(f"{path}.{name}" if path else str(name), each) for name, each in value.items()]
        elif isinstance(value, list):
            inner = [(f"{path}[{position}]", each) for position, each in enumerate(value)]
        if inner:
            waiting += reversed(inner)
        else:
            found[path] = json.dumps(value, ensure_ascii=False, default=repr)
    return found


# ------------------------------------------------------------------------------------------------ figures


def difference_picture(one: FloatArray, other: FloatArray, theme: str | None = None) -> go.Figure:
    """Both vectors (d,) by position, one over the other, and below them by how much they differ."""
    first, second = np.asarray(one, dtype=np.float64), np.asarray(other, dtype=np.float64)
    positions = np.arange(first.size)
    difference = first - second
    figure = make_subplots(rows=2, cols=1, shared_xaxes=True, row_heights=[0.55, 0.45], vertical_spacing=0.07)
    for name, values, colour in ((FIRST, first, BLUE), (SECOND, second, ORANGE)):
        figure.add_scatter(
            x=positions,
            y=values,
            name=name,
            mode="lines" if first.size > 1 else "markers",
            line={"color": colour, "width": 1.25},
            opacity=0.85,
            hovertemplate=f"position %{{x}}<br>{name.lower()} %{{y:.6f}}<extra></extra>",
            row=1,
            col=1,
        )
    figure.add_bar(
        x=positions,
        y=difference,
        name="First minus second",
        marker={"color": _GREEN, "line": {"width": 0}},
        customdata=np.column_stack([first, second]),
        hovertemplate="position %{x}<br>first %{customdata[0]:.6f}<br>second %{customdata[1]:.6f}"
        "<br>difference <b>%{y:.6f}</b><extra></extra>",
        row=2,
        col=1,
    )
    figure.update_layout(
        template=TEMPLATE,
        height=430,
        bargap=0,
        margin_t=36,
        showlegend=True,
        legend={"orientation": "h", "y": 1, "yanchor": "bottom", "x": 0, "itemclick": False, "itemdoubleclick": False},
    )
    figure.update_xaxes(range=[-0.5, first.size - 0.5], showgrid=False)
    figure.update_xaxes(title=f"position in the vector (0 to {first.size - 1:,})", nticks=8, row=2, col=1)
    figure.update_yaxes(title="value (no unit)", nticks=5, row=1, col=1)
    figure.update_yaxes(title="difference (no unit)", nticks=5, row=2, col=1)
    return inked(figure, theme)


def agreement_picture(one: FloatArray, other: FloatArray, theme: str | None = None) -> go.Figure:
    """A point for each position of two vectors (d,): the more alike they are, the closer to the diagonal."""
    first, second = np.asarray(one, dtype=np.float64), np.asarray(other, dtype=np.float64)
    reach = _MARGIN * (float(np.abs(np.concatenate([first, second])).max()) or 1.0)
    figure = go.Figure()
    figure.add_scatter(
        x=[-reach, reach],
        y=[-reach, reach],
        mode="lines",
        line={"color": ORANGE, "width": 1.5, "dash": "dash"},
        hoverinfo="skip",
    )
    figure.add_scatter(
        x=first,
        y=second,
        mode="markers",
        marker={"color": BLUE, "size": 5, "opacity": 0.6},
        customdata=np.arange(first.size),
        hovertemplate="position %{customdata}<br>first %{x:.6f}<br>second %{y:.6f}<extra></extra>",
    )
    figure.update_layout(template=TEMPLATE, height=430)
    figure.update_xaxes(title="value in the first (no unit)", range=[-reach, reach], nticks=6)
    figure.update_yaxes(title="value in the second (no unit)", range=[-reach, reach], nticks=6)
    return inked(figure, theme)
