"""Benchmarks to DataFrames and files. Knows no streamlit."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict

import pandas as pd

from embedcache.benchmark.records import Measurement, Run
from pages.ui.frames import safe_csv
from pages.ui.timing_words import OPERATIONS, times, title
from pages.ui.wording import one_line

_MILLISECONDS = 1_000


def measurements_frame(measurements: Sequence[Measurement]) -> pd.DataFrame:
    """One row per measurement, in order.

    Columns: ``operation``, ``variant``, ``p50``, ``p95``, ``p99`` and ``mean`` (milliseconds per call), ``texts`` per
    call, ``rate`` (texts per second), ``calls`` and ``bytes`` per entry.
    """
    return pd.DataFrame(
        {
            "operation": [OPERATIONS[each.operation] for each in measurements],
            "variant": [one_line(each.variant, 60) for each in measurements],
            "p50": [each.p50 * _MILLISECONDS for each in measurements],
            "p95": [each.p95 * _MILLISECONDS for each in measurements],
            "p99": [each.p99 * _MILLISECONDS for each in measurements],
            "mean": [each.mean * _MILLISECONDS for each in measurements],
            "texts": [each.texts for each in measurements],
            "rate": [each.texts_per_second for each in measurements],
            "calls": [each.count for each in measurements],
            "bytes": pd.array([each.bytes_per_entry for each in measurements], dtype="Float64"),
        }
    )


def runs_frame(runs: Sequence[Run]) -> pd.DataFrame:
    """One row per run, in order: ``at`` (UTC), ``speedup`` of the cache, what was measured, and where."""
    rows = [
        {
            "at": _moment(run),
            "speedup": cache_speedup(run),
            "scenarios": ", ".join(title(result.key) for result in run.results),
            "iterations": run.iterations,
            "texts": run.texts,
            "dimension": run.dimension,
            "server": one_line(run.environment.server, 60) + (" (embedded)" if run.environment.embedded else ""),
            "machine": f"{one_line(run.environment.cpu, 60)}, {run.environment.cpus} CPUs",
            "version": one_line(run.environment.embedcache, 60),
            "model": one_line(run.environment.model, 120),
        }
        for run in runs
    ]
    return pd.DataFrame(rows).astype({"speedup": "Float64"})


def _moment(run: Run) -> pd.Timestamp:
    try:
        return pd.Timestamp(run.at, unit="s", tz="UTC").floor("s")
    except (OverflowError, ValueError, pd.errors.OutOfBoundsDatetime):
        return pd.Timestamp(0, unit="s", tz="UTC")  # what a stranger wrote may be no moment at all


def cache_speedup(run: Run) -> float | None:
    """How many times faster the cache answered than the model, or None where that was not measured."""
    result = run.result("cache")
    comparisons = result.comparisons() if result else []
    return comparisons[0].speedup if comparisons else None


# --------------------------------------------------------------------------------------------- runs side by side


def medians_frame(runs: Sequence[Run]) -> pd.DataFrame:
    """The medians of several runs, first to last: one row per run and measurement.

    Columns: ``run`` (its position in `runs`), ``scenario`` (key), ``operation``, ``variant`` and ``ms`` per text.
    """
    rows = [
        (position, result.key, each.operation, each.variant, each.per_text * _MILLISECONDS)
        for position, run in enumerate(runs)
        for result in run.results
        for each in result.measurements
    ]
    return pd.DataFrame(rows, columns=["run", "scenario", "operation", "variant", "ms"])


def comparison_frame(medians: pd.DataFrame, labels: Sequence[str]) -> pd.DataFrame:
    """The medians of `medians_frame` side by side: a row per variant, a column per run, and a last one in words.

    Args:
        medians: Of one scenario.
        labels: What to call each run; no two are the same.
    """
    wide = medians.pivot_table(index=["operation", "variant"], columns="run", values="ms", sort=False)
    wide = wide.reindex(columns=range(len(labels)))
    table = pd.DataFrame(
        {
            "operation": [OPERATIONS[operation] for operation, _ in wide.index],
            "variant": [one_line(variant, 60) for _, variant in wide.index],
        }
    )
    for position, label in enumerate(labels):
        table[label] = wide[position].to_numpy()
    table["change"] = [_change(first, last) for first, last in zip(wide[0], wide[len(labels) - 1], strict=True)]
    return table


def _change(first: float, last: float) -> str:
    if pd.isna(first) or pd.isna(last):
        return "not in both"
    ratio = times(max(first, last) / min(first, last))
    if ratio == times(1):
        return "the same"
    return f"{ratio} times {'faster' if last < first else 'slower'}"


# ------------------------------------------------------------------------------------------------ downloads


def runs_json(runs: Sequence[Run]) -> bytes:
    """The runs as a JSON array, each with all that is known of it; times in seconds."""
    return json.dumps([{**asdict(run), "at": _moment(run).isoformat()} for run in runs], indent=1).encode()


def runs_csv(runs: Sequence[Run]) -> bytes:
    """One row per measurement, as `safe_csv`; times in seconds."""
    rows = [
        {
            "run": run.run_id,
            "at": _moment(run).isoformat(),
            "scenario": result.key,
            "operation": each.operation,
            "variant": each.variant,
            "texts_per_call": each.texts,
            "calls": each.count,
            "mean_seconds": each.mean,
            "p50_seconds": each.p50,
            "p95_seconds": each.p95,
            "p99_seconds": each.p99,
            "texts_per_second": each.texts_per_second,
            "bytes_per_entry": each.bytes_per_entry,
            "dimension": run.dimension,
            **{f"environment_{name}": value for name, value in asdict(run.environment).items()},
        }
        for run in runs
        for result in run.results
        for each in result.measurements
    ]
    return safe_csv(pd.DataFrame(rows))
