"""Records to DataFrames, and vectors to files. Knows no streamlit."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import pandas as pd
import pyarrow as pa  # type: ignore[import-untyped] # comes with streamlit

from embedcache.entry import FloatArray
from embedcache.vectorizers import EmbedReport
from pages.ui.similarity import Pair
from pages.ui.wording import one_line

HIT = "Hit"
MISS = "Miss"

_PAIR_CHARACTERS: Final = 48  # three lines of a narrow column


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


def pairs_frame(pairs: Sequence[Pair], numbers: Sequence[int], texts: Sequence[str]) -> pd.DataFrame:
    """One row per pair, in order: ``similarity`` (-1 to 1), and of both texts ``one`` and ``other``, number and start.

    Args:
        pairs: Positions in `texts`.
        numbers: What the page calls each text.
        texts: The texts.
    """
    named = [f"{number}: {one_line(text, _PAIR_CHARACTERS)}" for number, text in zip(numbers, texts, strict=True)]
    rows = [(pair.similarity, named[pair.one], named[pair.other]) for pair in pairs]
    return pd.DataFrame(rows, columns=["similarity", "one", "other"])


# ------------------------------------------------------------------------------------------------ downloads

# What spreadsheets read as the start of a formula (https://owasp.org/www-community/attacks/CSV_Injection), also in the
# full width of East Asian input.
_FORMULA_STARTS: Final = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")


def safe_csv(frame: pd.DataFrame) -> bytes:
    """A table as UTF-8 CSV with a header and without its index, which no spreadsheet takes for formulas.

    Text that starts like a formula, in a cell or in the header, gets an apostrophe before it. Numbers stay as they are,
    negative ones too. All text is quoted, for in some countries a spreadsheet cuts cells at semicolons.
    """
    columns = [frame.iloc[:, position] for position in range(frame.shape[1])]
    cells = {
        position: column if pd.api.types.is_numeric_dtype(column) else column.astype(object).map(_inert)
        for position, column in enumerate(columns)
    }
    table = pd.DataFrame(cells, index=frame.index)
    header = [_inert(str(name)) for name in frame.columns]
    text = table.to_csv(index=False, header=header, quoting=csv.QUOTE_NONNUMERIC, lineterminator="\n")
    return text.encode()


def _inert(cell: Any) -> Any:
    if not isinstance(cell, str):
        return cell
    whole = cell.encode("utf-8", "backslashreplace").decode()  # JSON may hold half a character, which UTF-8 cannot
    return f"'{whole}" if whole.startswith(_FORMULA_STARTS) else whole


def report_csv(texts: Sequence[str], report: EmbedReport) -> bytes:
    """One row per text, in order, as `safe_csv`: the whole ``text``, its ``result`` and its ``ms``."""
    results = np.where(report.hits, HIT, MISS)
    return safe_csv(pd.DataFrame({"text": list(texts), "result": results, "ms": report.seconds * 1000}))


def report_parquet(texts: Sequence[str], model_name: str, report: EmbedReport) -> bytes:
    """One row per text, in order, as a Parquet file: ``text``, ``model``, ``hit``, and ``vector``.

    The vectors are fixed-size lists of float32, which Polars, DuckDB and PyArrow read without a copy per row.
    """
    import pyarrow.parquet as pq  # type: ignore[import-untyped] # here, for it brings clients of file systems along

    count, dimension = report.vectors.shape
    numbers = pa.array(np.ascontiguousarray(report.vectors).reshape(-1))
    table = pa.table(
        {
            "text": pa.array(list(texts), pa.string()),
            "model": pa.repeat(model_name, count),
            "hit": pa.array(report.hits),
            "vector": pa.FixedSizeListArray.from_arrays(numbers, dimension),
        }
    )
    buffer = io.BytesIO()
    pq.write_table(table, buffer)
    return buffer.getvalue()


def vector_npy(vector: FloatArray) -> bytes:
    """A vector (d,) or a matrix (n, d) as numpy saves it, in its own dtype."""
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
