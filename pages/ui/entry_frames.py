"""The rows of a table of entries: read from the server, and made a DataFrame or a CSV. Knows no streamlit."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo
from typing import Final, Literal

import numpy as np
import pandas as pd

from embedcache import CacheEntry, EmbeddingsCache, EntrySummary, inspector, redisvl_format
from embedcache.connection import RedisConnection
from embedcache.entry import FloatArray, Metadata
from embedcache.keyspace import Keyspace
from embedcache.operations import Operation
from embedcache.scanning import scan_step
from pages.ui import frames
from pages.ui.wording import ago, moment, one_line, size, until, visible

State = Literal["", "Damaged", "RedisVL", "Gone"]

OPEN: Final = "Open"
STATES: Final[dict[State, str]] = {"Damaged": "red", "RedisVL": "blue", "Gone": "gray"}
SPARKS: Final = 40
"""Values of a vector that its sparkline shows."""
_MAX_DRAWN_BYTES: Final = 256 * 1024
"""Length of the longest value whose vector is read for its sparkline."""
_METADATA_CHARACTERS: Final = 160
_OWNER: Final = re.compile(r"^[\w.-]+/(?=\w)")
_SCAN_COUNT: Final = 1_000
_MAX_STEPS: Final = 20


@dataclass(frozen=True, slots=True, eq=False)
class Row:
    """One entry of a table.

    Attributes:
        key: Its Redis key.
        summary: All but its vector; None where that cannot be read, or it is gone.
        vector: The vector, shape (d,); None where it was not read.
        state: What is to be said of it.
        value_bytes: Length of the value, 0 for unknown.
    """

    key: str
    summary: EntrySummary | None
    vector: FloatArray | None
    state: State
    value_bytes: int

    @property
    def text(self) -> str:
        """Its text on one line; of one that cannot be read, its key."""
        return one_line(self.key if self.summary is None else self.summary.text)


# ------------------------------------------------------------------------------------------------ reading them


def read_rows(cache: EmbeddingsCache, keys: Sequence[str]) -> list[Row]:
    """The entries under these keys of a cache, in order; no other vectors are moved.

    Raises:
        CacheUnavailableError: The server cannot be reached.
    """
    summaries = inspector.summarise(cache.connection, keys)
    lengths = cache.connection.drive(_lengths([key for key, seen in zip(keys, summaries, strict=True) if seen is None]))
    drawn = [summary for summary in summaries if summary is not None and summary.value_bytes <= _MAX_DRAWN_BYTES]
    found = _read_entries(cache, drawn)
    rows: list[Row] = []
    for key, summary in zip(keys, summaries, strict=True):
        if summary is None:
            length = lengths[key]
            rows.append(Row(key, None, None, "Gone" if length is None else "Damaged", length or 0))
            continue
        entry = found.get(key)
        state: State = "RedisVL" if is_redisvl(summary) else "Damaged" if key in found and entry is None else ""
        vector = None if entry is None else entry["embedding"]
        rows.append(Row(key, summary, vector, state, summary.value_bytes))
    return rows


def read_entry(cache: EmbeddingsCache, key: str) -> tuple[EntrySummary | None, CacheEntry | None]:
    """One entry without and with its vector, of ours or RedisVL's; None for what cannot be read or is not there.

    Raises:
        CacheUnavailableError: The server cannot be reached.
    """
    (summary,) = inspector.summarise(cache.connection, [key])  # first: reading the entry ends its being idle
    return summary, None if summary is None else _read_entries(cache, [summary])[key]


def _read_entries(cache: EmbeddingsCache, summaries: Sequence[EntrySummary]) -> dict[str, CacheEntry | None]:
    """The entries with their vectors, by key."""
    ours, theirs = (
        [each.key for each in summaries if is_redisvl(each) is redisvl_stored] for redisvl_stored in (False, True)
    )
    found = [*cache.mget_by_keys(ours), *inspector.redisvl_entries(cache.connection, theirs)]
    return dict(zip([*ours, *theirs], found, strict=True))


def is_redisvl(summary: EntrySummary) -> bool:
    """Whether an entry is one of RedisVL's hashes."""
    return summary.dtype == redisvl_format.DTYPE_NAME


def _lengths(keys: Sequence[str]) -> Operation[dict[str, int | None]]:
    """The memory of the values under keys that hold no entry that can be read, in bytes; None where there is none."""
    if not keys:
        return {}
    replies = yield [command for key in keys for command in (("EXISTS", key), ("MEMORY", "USAGE", key))]
    there, sizes = replies[::2], replies[1::2]
    return {
        key: (length if isinstance(length, int) else 0) if exists == 1 else None
        for key, exists, length in zip(keys, there, sizes, strict=True)
    }


def first_keys(connection: RedisConnection, name: str, count: int) -> list[str]:
    """Keys of a cache's entries that are quickly found, to show something while all are being listed.

    Raises:
        CacheUnavailableError: The server cannot be reached.
        ServerReplyError: It forbids SCAN.
    """
    return connection.drive(_first_keys(Keyspace(name), count))


def _first_keys(space: Keyspace, count: int) -> Operation[list[str]]:
    keys: dict[str, None] = {}  # SCAN may return a key twice
    cursor = 0
    for _ in range(_MAX_STEPS):
        cursor, found = yield from scan_step(cursor, _SCAN_COUNT, space.pattern)
        names = (raw.decode(errors="surrogateescape") for raw in found)
        keys.update(dict.fromkeys(key for key in names if space.owns(key)))
        if cursor == 0 or len(keys) >= count:
            break
    return list(keys)[:count]


# ------------------------------------------------------------------------------------------------ tables


def frame(rows: Sequence[Row], now: float, zone: tzinfo) -> pd.DataFrame:
    """One row per entry, in order, as people read them.

    Args:
        rows: The entries.
        now: The time to count ages from, in Unix seconds.
        zone: The viewer's time zone.

    Returns:
        ``open`` (the label of a button, empty where there is nothing to open), ``text``, ``state`` (a list, for chips),
        ``model``, ``stored``, ``expires``, ``read``, ``size``, ``vector`` (a list of up to `SPARKS` numbers, or None),
        ``dimension``, ``metadata``, ``moment``.
    """
    cells = [_cells(row, now, zone) for row in rows]
    table = pd.DataFrame(cells, columns=_COLUMNS)
    table["model"] = short_model_names(list(table["model"]))
    return table.astype({"dimension": "Int64"})


def short_model_names(names: Sequence[str]) -> list[str]:
    """Names of models without their owners, as ``all-MiniLM-L6-v2``, where these tell them apart; else as they are.

    In a narrow column, ``sentence-transformers/…`` is all that could be read of most.
    """
    short = {name: _OWNER.sub("", name) for name in names}
    return [short[name] for name in names] if len(set(short.values())) == len(short) else list(names)


_COLUMNS: Final = (
    *(
        "open",
        "text",
        "state",
        "model",
        "stored",
        "expires",
        "read",
        "size",
        "vector",
        "dimension",
        "metadata",
        "moment",
    ),
)


def _cells(row: Row, now: float, zone: tzinfo) -> tuple[object, ...]:
    state = [row.state] if row.state else []
    seen = row.summary
    if seen is None:
        is_gone = row.state == "Gone"
        return (
            *("" if is_gone else OPEN, "" if is_gone else row.text, state, "", "", "", ""),
            *("" if is_gone else size(row.value_bytes), None, None, "", ""),
        )
    return (
        OPEN,
        row.text,
        state,
        one_line(seen.model_name),
        ago(now - seen.inserted_at),
        until(seen.expires_in),
        "not told" if seen.idle_seconds is None else ago(seen.idle_seconds),
        size(seen.memory_bytes),
        None if row.vector is None else sparkline(row.vector),
        seen.dimension,
        metadata_line(seen.metadata),
        moment(seen.inserted_at, zone),
    )


def metadata_line(metadata: Metadata | None) -> str:
    """Metadata as JSON on one line, cut where it is long."""
    if not metadata:
        return ""
    return one_line(_json(metadata), _METADATA_CHARACTERS)


def _json(metadata: Metadata) -> str:
    return json.dumps(metadata, ensure_ascii=False, separators=(", ", ": "), default=repr)


def sparkline(vector: FloatArray, most: int = SPARKS) -> list[float]:
    """Up to so many values of a vector, in order: of each stretch the one that is farthest from zero, with its sign."""
    finite = np.nan_to_num(np.asarray(vector, np.float64), nan=0.0, posinf=0.0, neginf=0.0)
    if len(finite) <= most:
        return [float(value) for value in finite]
    return [float(part[np.abs(part).argmax()]) for part in np.array_split(finite, most)]


def table_csv(rows: Sequence[Row]) -> bytes:
    """The entries without their vectors as CSV that no spreadsheet takes for formulas; times in UTC."""
    table = pd.DataFrame(
        [
            (
                row.key,
                visible(seen.text, len(seen.text)),
                seen.model_name,
                _timestamp(seen.inserted_at),
                seen.expires_in,
                seen.ttl,
                seen.idle_seconds,
                seen.value_bytes,
                seen.dimension,
                seen.dtype,
                _json(seen.metadata) if seen.metadata else "",
            )
            for row in rows
            if (seen := row.summary) is not None
        ],
        columns=(
            *("key", "text", "model", "stored", "expires in seconds", "ttl in seconds", "idle seconds"),
            *("bytes", "dimension", "dtype", "metadata"),
        ),
    )
    return frames.safe_csv(table)


def _timestamp(unix_seconds: float) -> str:
    try:
        return datetime.fromtimestamp(unix_seconds, UTC).isoformat(timespec="seconds")
    except (OverflowError, ValueError, OSError):
        return ""  # what the entry says may be anything
