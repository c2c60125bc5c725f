"""Statistics to DataFrames. Knows no streamlit."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final
from urllib.parse import quote

import pandas as pd

from embedcache.buckets import SlowLookup
from embedcache.statistics import CacheStats
from pages.ui.wording import one_line, visible

_TALLIED: Final = ("hits", "near_hits", "misses")


def steps_frame(series: Sequence[CacheStats], label: Callable[[float, float], str]) -> pd.DataFrame:
    """One row per step of a series, first to last.

    Columns: ``middle`` of the step in Unix seconds, its ``label``, ``hits``, ``near_hits``, ``misses``, ``texts`` and
    ``errors``, ``hit_rate`` in per cent, ``p50``, ``p95`` and ``p99`` in milliseconds, ``saved`` in seconds, and
    ``saved_so_far``. What was not measured is NaN, and never zero.

    Args:
        series: Steps of one length.
        label: What a step is called, by the Unix seconds of its start and end.
    """
    length = series[1].start - series[0].start if len(series) > 1 else series[0].end - series[0].start
    rows = [
        {
            "middle": step.start + length / 2,
            "label": label(step.start, step.start + length),
            **{name: getattr(step, name) for name in _TALLIED},
            "texts": step.texts,
            "errors": step.errors,
            "hit_rate": _scaled(step.hit_rate, 100),
            "p50": _scaled(step.p50, 1000),
            "p95": _scaled(step.p95, 1000),
            "p99": _scaled(step.p99, 1000),
            "saved": _scaled(step.time_saved, 1),
        }
        for step in series
    ]
    frame = pd.DataFrame(rows)
    # A step in which nothing was looked up saved nothing; where no step is known, the sum is not known either.
    known = frame["saved"].notna().any()
    frame["saved_so_far"] = frame["saved"].fillna(0).cumsum() if known else float("nan")
    return frame


def _scaled(value: float | None, factor: float) -> float:
    return float("nan") if value is None else value * factor


def hits_by_model_frame(stats: Mapping[str, CacheStats], most: int = 12) -> pd.DataFrame:
    """One row per model that was looked up, most texts first.

    Columns: ``model``, ``hits``, ``near_hits``, ``misses``, ``texts``, and ``hit_rate`` in per cent. Models past
    the first `most` are summed up in a last row, "n other models".
    """
    rows = [
        (name, *(getattr(each, tally) for tally in _TALLIED), each.texts) for name, each in stats.items() if each.texts
    ]
    rows.sort(key=lambda row: (-row[-1], row[0]))
    if len(rows) > most:
        others = rows[most - 1 :]
        sums = (sum(column) for column in zip(*(row[1:] for row in others), strict=True))
        rows = [*rows[: most - 1], (f"{len(others)} other models", *sums)]
    frame = pd.DataFrame(rows, columns=["model", *_TALLIED, "texts"])
    frame["hit_rate"] = (frame["hits"] + frame["near_hits"]) / frame["texts"] * 100
    return frame


def slow_frame(slow: Sequence[SlowLookup]) -> pd.DataFrame:
    """One row per slow lookup.

    Columns: ``at`` (in UTC), ``ms``, ``texts``, ``hits``, ``model``, ``text`` (only where some cache was told to keep
    texts), ``entry`` (where the page Lookup shows what lies under the key), ``key`` and ``process``.
    """
    rows = [
        {
            "at": pd.Timestamp(each.at, unit="s", tz="UTC"),
            "ms": each.seconds * 1000,
            "texts": each.texts,
            "hits": each.hits,
            "model": "(by key)" if each.model_name is None else one_line(each.model_name, 200),
            "text": "" if each.text is None else one_line(each.text, 200),
            "entry": f"lookup?key={quote(each.key, safe='', errors='replace')}",
            "key": visible(each.key, 400),
            "process": one_line(each.process),
        }
        for each in slow
    ]
    frame = pd.DataFrame(rows)
    return frame if any(each.text is not None for each in slow) else frame.drop(columns="text", errors="ignore")


def prices_frame(prices: Mapping[str, float]) -> pd.DataFrame:
    """One row per model with a price, by name: ``model`` and ``price`` of 1,000 tokens."""
    rows = [(one_line(name, 200), price) for name, price in sorted(prices.items())]
    return pd.DataFrame(rows, columns=["model", "price"])
