"""One cache in facts for a table: what its entries are, how they are stored, when they leave. Knows no streamlit.

Values are Markdown, as a table's cells are; a model's name is a stranger's, and stands in a code span.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import tzinfo
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from embedcache.columns import Layout
from embedcache.index import EntryIndex
from pages.ui import stocktaking
from pages.ui.wording import ago, code_span, count, counted, duration, moment, size, until

_MOST_NAMED: Final = 4
_MODEL_CHARACTERS: Final = 80


def facts(index: EntryIndex, zone: tzinfo) -> dict[str, str]:
    """What is known of a cache's entries; nothing is asked of the server.

    Args:
        index: The cache's entries, one or more.
        zone: The viewer's, for times.
    """
    models = index.by_model()
    values = int(index.value_bytes.sum(dtype=np.int64))
    return {
        "Entries": count(len(index)),
        "Memory": f"about {size(stocktaking.memory_bytes(models))}, of which values are {size(values)}",
        "Models": _named((code_span(each.model_name, _MODEL_CHARACTERS), each.entries) for each in models),
        "Vectors": _named(_vectors(index)),
        "Layout": _named(_layouts(index)),
        "Own TTL": _named(_most_first(index.ttl[_readable(index)], _ttl)),
        "Next to leave": _next_to_leave(index),
        "Stored": _first_and_last(index, zone),
        "Last read or written": _last_read(index),
    }


def _named(parts: Iterable[tuple[str, int]]) -> str:
    """Things with how many entries each has, most first: a (1,200), b (3) and 2 more. One alone stands without."""
    found = list(parts)
    if len(found) == 1:
        return found[0][0]
    named = ", ".join(f"{name} ({count(entries)})" for name, entries in found[:_MOST_NAMED])
    more = f" and {count(len(found) - _MOST_NAMED)} more" if len(found) > _MOST_NAMED else ""
    return f"{named}{more}" if named else "not told"


def _most_first(values: npt.NDArray[Any], name: Callable[[int], str]) -> list[tuple[str, int]]:
    distinct, numbers = np.unique(values, return_counts=True)
    order = np.argsort(-numbers, kind="stable")
    return [(name(int(distinct[row])), int(numbers[row])) for row in order]


def _readable(index: EntryIndex) -> npt.NDArray[np.bool_]:
    readable: npt.NDArray[np.bool_] = index.layouts != Layout.UNREADABLE
    return readable


def _vectors(index: EntryIndex) -> list[tuple[str, int]]:
    """Dimension and dtype, as far as heads tell: a RedisVL hash does not say how long its vector is."""
    kinds = np.stack([index.dimension, index.layouts, index.dtype_codes.astype(np.int32)])[:, _readable(index)]
    distinct, first, numbers = np.unique(kinds, axis=1, return_index=True, return_counts=True)
    positions = np.flatnonzero(_readable(index))[first]
    found = [
        (_kind(int(dimension), index.dtype(position)), int(number))
        for dimension, position, number in zip(distinct[0], positions.tolist(), numbers, strict=True)
    ]
    return sorted(found, key=lambda each: -each[1])


def _kind(dimension: int, dtype: str | None) -> str:
    return f"{counted(dimension, 'number') if dimension else 'numbers'} as {dtype or 'something unknown'}"


def _layouts(index: EntryIndex) -> list[tuple[str, int]]:
    names = {Layout.PACKED: "embedcache's own", Layout.REDISVL: "RedisVL's hashes", Layout.UNREADABLE: "unreadable"}
    return _most_first(index.layouts, lambda code: names[Layout(code)])


def _ttl(seconds: int) -> str:
    return duration(seconds) if seconds else "none"


def _next_to_leave(index: EntryIndex) -> str:
    leaving = index.expires_at[np.isfinite(index.expires_at)]
    if not len(leaving):
        return "none, as far as the server tells" if np.isnan(index.expires_at).any() else "none: all stay"
    soonest = until(max(float(leaving.min()) - index.taken_at, 0))
    return f"{soonest}; {counted(len(index) - len(leaving), 'entry stays', 'entries stay')}"


def _first_and_last(index: EntryIndex, zone: tzinfo) -> str:
    known = index.inserted_at[np.isfinite(index.inserted_at)]
    if not len(known):
        return "not told"
    first, last = moment(float(known.min()), zone), moment(float(known.max()), zone)
    return f"on {first}" if first == last else f"from {first} to {last}"


def _last_read(index: EntryIndex) -> str:
    known = index.last_access[np.isfinite(index.last_access)]
    if not len(known):
        return "not told: the server counts uses, or does not say"
    latest, longest = (ago(index.taken_at - float(each)) for each in (known.max(), known.min()))
    return latest if latest == longest else f"{latest}; the one left alone longest, {longest}"
