"""What is in a cache, as tables and figures: by model, by age, by when it leaves. Knows no streamlit."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from embedcache.index import DAY, HOUR, WEEK, EntryIndex, ExpiryForecast, ModelTotals, Share
from pages.ui import charts
from pages.ui.wording import chart_text, count, counted, one_line, share, size, size_unit

DAYS: Final = 30
"""How far back the sparklines of entries and memory go."""
_AGE_EDGES: Final = (HOUR, DAY, WEEK, 30 * DAY, 90 * DAY)
_AGE_LABELS: Final = ("under 1 h", "1 h to 1 d", "1 to 7 d", "7 to 30 d", "30 to 90 d", "over 90 d")
_LEAVING: Final = {
    "hour": "within 1 h",
    "day": "1 h to 1 d",
    "week": "1 to 7 d",
    "later": "later",
    "never": "never",
    "unknown": "not told",
}
_MOST_MODELS: Final = 8
_MODEL_CHARACTERS: Final = 36
"""Of a model's name over its bar: what fits beside the number in half a column."""
SPANS_PIXELS: Final = 240
"""Height of the figures of `spans`."""


@dataclass(frozen=True, slots=True)
class Growth:
    """What is in a cache now, by the day on which it was stored: for each of the last `DAYS` days, what was there then.

    Attributes:
        entries: How many of today's entries had been stored by the end of each day, oldest first.
        value_bytes: Length of their values.
    """

    entries: list[int]
    value_bytes: list[int]


def growth(index: EntryIndex) -> Growth:
    """How what is there now came together."""
    days_ago = np.clip((index.taken_at - np.nan_to_num(index.inserted_at)) // DAY, 0, DAYS).astype(np.int64)
    entries = np.bincount(days_ago, minlength=DAYS + 1)
    value_bytes = np.bincount(days_ago, index.value_bytes, minlength=DAYS + 1)
    return Growth(np.cumsum(entries[::-1]).tolist(), np.cumsum(value_bytes[::-1]).astype(np.int64).tolist())


def memory_bytes(models: Sequence[ModelTotals]) -> int:
    """About what these cost the server; where it does not tell of some, the length of their values."""
    return sum(each.value_bytes if each.memory_bytes is None else each.memory_bytes for each in models)


def models_frame(models: Sequence[ModelTotals]) -> pd.DataFrame:
    """One row per model, most entries first: ``model``, ``entries``, ``memory`` in bytes and their shares (0 to 1).

    Models past the first few are summed up in a last row, "n other models".
    """
    rows = [(each.model_name, each.entries, memory_bytes([each])) for each in models]
    if len(rows) > _MOST_MODELS:
        others = rows[_MOST_MODELS - 1 :]
        name = f"{len(others):,} other models"
        rows = [*rows[: _MOST_MODELS - 1], (name, sum(row[1] for row in others), sum(row[2] for row in others))]
    frame = pd.DataFrame(rows, columns=["model", "entries", "memory"])
    for column in ("entries", "memory"):
        frame[f"{column}_share"] = frame[column] / max(1, frame[column].sum())
    return frame


def by_model_pixels(models: int) -> int:
    """Height of each figure of models for a cache of so many models."""
    return charts.under_names_pixels(min(max(models, 1), _MOST_MODELS))


def entries_by_model(frame: pd.DataFrame, theme: str | None = None) -> go.Figure:
    """Bars of ``entries`` by model (of `models_frame`), with how many there are beside its name."""
    most = max(1, int(frame["entries"].max()))
    notes = [count(int(entries)) for entries in frame["entries"]]
    return charts.under_names(_model_bars(frame, frame["entries"]), _names(frame), notes, "entries", most, theme)


def memory_by_model(frame: pd.DataFrame, theme: str | None = None) -> go.Figure:
    """Bars of about how much ``memory`` each model takes (of `models_frame`), with how much beside its name."""
    unit, unit_bytes = size_unit(int(frame["memory"].max()))
    amounts = frame["memory"] / unit_bytes
    notes = [size(int(memory)) for memory in frame["memory"]]
    figure = _model_bars(frame, amounts)
    figure = charts.under_names(
        figure, _names(frame), notes, f"memory ({unit})", max(1, math.ceil(amounts.max())), theme
    )
    return figure.update_xaxes(tickformat=",~g", dtick=None)


def _names(frame: pd.DataFrame) -> list[str]:
    return [chart_text(name, _MODEL_CHARACTERS) for name in frame["model"]]


def _model_bars(frame: pd.DataFrame, lengths: pd.Series) -> go.Figure:
    """Bars of these lengths, one for each row; the hover has all of it, and the model's whole name."""
    return go.Figure(
        go.Bar(
            x=lengths,
            y=list(range(len(frame))),
            orientation="h",
            width=0.36,
            marker={"color": charts.BLUE, "cornerradius": 4},
            customdata=np.column_stack(
                [
                    [chart_text(name) for name in frame["model"]],
                    [count(int(entries)) for entries in frame["entries"]],
                    [share(part) for part in frame["entries_share"]],
                    [size(int(memory)) for memory in frame["memory"]],
                    [count(int(memory)) for memory in frame["memory"]],
                    [share(part) for part in frame["memory_share"]],
                ]
            ),
            hovertemplate="%{customdata[0]}<br>%{customdata[1]} entries, %{customdata[2]} of all"
            "<br>about %{customdata[3]} of memory (%{customdata[4]} bytes), %{customdata[5]} of all<extra></extra>",
        )
    )


def ages_frame(index: EntryIndex) -> pd.DataFrame:
    """One row per span of age: ``label`` and ``entries``."""
    entries = index.entries_by_age(_AGE_EDGES)
    return pd.DataFrame({"label": _AGE_LABELS, "entries": entries})


def leaving_frame(forecast: ExpiryForecast) -> pd.DataFrame:
    """One row per span in which entries leave: ``label``, ``entries``, ``bytes`` of their values, and ``stays``.

    ``stays`` is true of those that never expire. "not told" is a row only where there are such.
    """
    shares: Mapping[str, Share] = {name: getattr(forecast, name) for name in _LEAVING}
    rows = [
        (_LEAVING[name], part.entries, part.value_bytes, name == "never")
        for name, part in shares.items()
        if name != "unknown" or part.entries
    ]
    return pd.DataFrame(rows, columns=["label", "entries", "bytes", "stays"])


def by_age(frame: pd.DataFrame, theme: str | None = None) -> go.Figure:
    """Bars of entries by how long ago they were stored (of `ages_frame`)."""
    return _spans(frame, "time since they were stored", charts.BLUE, theme)


def by_leaving(frame: pd.DataFrame, theme: str | None = None) -> go.Figure:
    """Bars of entries by when they leave (of `leaving_frame`); those that stay in another colour."""
    colors = [charts.BLUE if stays else charts.ORANGE for stays in frame["stays"]]
    return _spans(frame, "time left (a hit starts it again)", colors, theme)


def in_words(frame: pd.DataFrame) -> str:
    """The entries of a frame of spans, for who cannot see the bars."""
    return ", ".join(
        f"{label}: {count(int(entries))}" for label, entries in zip(frame["label"], frame["entries"], strict=True)
    )


def _spans(frame: pd.DataFrame, title: str, color: str | Sequence[str], theme: str | None) -> go.Figure:
    """Bars of ``entries`` by ``label``, upright, in the frame's order; ``bytes`` in the hover where there are any."""
    entries = [int(number) for number in frame["entries"]]
    said = [counted(number, "entry", "entries") for number in entries]
    if "bytes" in frame:
        said = [f"{words}, {size(int(length))} of values" for words, length in zip(said, frame["bytes"], strict=True)]
    figure = go.Figure(
        go.Bar(
            x=frame["label"],
            y=entries,
            text=[_short(number) if number else "" for number in entries],
            textposition="outside",
            textfont_size=11,
            textangle=0,
            constraintext="none",
            cliponaxis=False,
            customdata=said,
            marker={"color": color, "cornerradius": 4},
            hovertemplate="%{x}<br>%{customdata}<extra></extra>",
        )
    )
    figure.update_layout(template=charts.TEMPLATE, height=SPANS_PIXELS, bargap=0.35)
    figure.update_xaxes(title=title, tickvals=frame["label"], ticktext=[_folded(label) for label in frame["label"]])
    figure.update_xaxes(tickangle=0, tickfont_size=11)
    most = max([1, *entries])
    figure.update_yaxes(title="entries", range=[0, most * 1.15], nticks=4)
    charts.count_ticks(figure.update_yaxes, most)
    return charts.inked(figure, theme)


def _folded(label: str) -> str:
    """A label on two lines where it is long: six bars share half a column."""
    words = label.split()
    return f"{' '.join(words[:-2])}<br>{' '.join(words[-2:])}" if len(words) > 2 else label  # noqa: PLR2004


def _short(number: int) -> str:
    """A number over a narrow bar: 950, 12.5k, 1.2M."""
    for limit, unit in ((1_000_000, "M"), (10_000, "k")):
        if number >= limit:
            scale = 1_000_000 if unit == "M" else 1_000
            return f"{number / scale:.3g}{unit}"
    return count(number)


def caches_frame(by_cache: Mapping[str, int], redisvl: Mapping[str, int]) -> pd.DataFrame:
    """One row per cache, most entries first: ``cache`` and ``entries``; ``redisvl`` only where any cache has some.

    Args:
        by_cache: Entries by cache.
        redisvl: How many of them are RedisVL's, by cache.
    """
    rows = [(one_line(name), by_cache[name], redisvl.get(name, 0)) for name in by_size(by_cache)]
    frame = pd.DataFrame(rows, columns=["cache", "entries", "redisvl"])
    return frame if frame["redisvl"].any() else frame.drop(columns="redisvl")


def by_size(by_cache: Mapping[str, int]) -> list[str]:
    """Caches, most entries first."""
    return sorted(by_cache, key=lambda name: -by_cache[name])
