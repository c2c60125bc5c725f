"""Records to DataFrames, and vectors to files. Knows no streamlit."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence

import numpy as np
import pandas as pd

from embedcache.entry import FloatArray
from embedcache.inspector import CacheSummary, Survey
from embedcache.vectorizers import EmbedReport
from pages.ui.wording import one_line

HIT = "Hit"
MISS = "Miss"


def caches_frame(survey: Survey) -> pd.DataFrame:
    """One row per cache, most entries first: ``cache``, ``entries``, ``models`` (how many), ``mebibytes`` of values."""
    rows = [(one_line(c.name), c.entries, len(c.models), c.bytes / 2**20) for c in survey.caches]
    frame = pd.DataFrame(rows, columns=["cache", "entries", "models", "mebibytes"])
    return frame.sort_values("entries", ascending=False, ignore_index=True, kind="stable")


def models_frame(caches: Sequence[CacheSummary], most: int = 12) -> pd.DataFrame:
    """One row per model over these caches, most entries first: ``model``, ``entries`` and ``share`` of all (0 to 1).

    Models past the first `most` are summed up in a last row, "n other models".
    """
    totals: dict[str, int] = {}
    for cache in caches:
        for model, entries in cache.models.items():
            totals[model] = totals.get(model, 0) + entries
    rows = sorted(totals.items(), key=lambda row: (-row[1], row[0]))
    if len(rows) > most:
        others = rows[most - 1 :]
        rows = [*rows[: most - 1], (f"{len(others)} other models", sum(entries for _, entries in others))]
    frame = pd.DataFrame(rows, columns=["model", "entries"])
    frame["share"] = frame["entries"] / max(1, frame["entries"].sum())
    return frame


def report_frame(texts: Sequence[str], report: EmbedReport) -> pd.DataFrame:
    """One row per text, in order: ``result`` (a list, as chips are), ``ms``, ``dimension`` and ``text`` (its start)."""
    return pd.DataFrame(
        {
            "result": [[HIT if hit else MISS] for hit in report.hits],
            "ms": report.seconds * 1000,
            "dimension": report.vectors.shape[1],
            "text": [one_line(text) for text in texts],  # last: where the table is cut off, it is in the text
        },
        index=pd.RangeIndex(1, len(texts) + 1, name="#"),
    )


# ------------------------------------------------------------------------------------------------ downloads


def vector_npy(vector: FloatArray) -> bytes:
    """A vector as numpy saves it, in its own dtype."""
    buffer = io.BytesIO()
    np.save(buffer, vector, allow_pickle=False)
    return buffer.getvalue()


def vector_json(vector: FloatArray) -> bytes:
    """A vector as a JSON array, each number in the fewest digits that read back the same."""
    return json.dumps(_numbers(vector)).encode()


def vector_csv(vector: FloatArray) -> bytes:
    """A vector as a table of ``position`` and ``value``."""
    rows = "".join(f"{position},{value!r}\n" for position, value in enumerate(_numbers(vector)))
    return f"position,value\n{rows}".encode()


def _numbers(vector: FloatArray) -> list[float]:
    # By way of str: tolist() alone turns the float32 0.1 into 0.10000000149011612.
    return [float(str(value)) for value in vector]
