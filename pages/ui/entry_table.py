"""A table of entries in which rows are ticked, and opened by their button."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

import streamlit as st

from pages.ui import entry_frames, session
from pages.ui.entry_frames import Row

_ROW_PIXELS: Final = 35
_HEADER_PIXELS: Final = 38
_CLICK_KEY: Final = "entry_table_click"


def show(rows: Sequence[Row], open_entry: Callable[[str], None], *, most_rows: int) -> list[Row]:
    """Draws the table; which rows are ticked. Those that are gone cannot be.

    Args:
        rows: The entries.
        open_entry: Called with a key when its button is pressed.
        most_rows: Shown at once; the table scrolls for the others.
    """
    table = entry_frames.frame(rows, time.time(), session.zone())
    if not any(row.state for row in rows):
        table = table.drop(columns="state")
    state = st.dataframe(
        table,
        hide_index=True,
        height=_HEADER_PIXELS + _ROW_PIXELS * min(most_rows, max(1, len(rows))),
        column_config=_columns(rows, open_entry),
        on_select="rerun",
        selection_mode="multi-row",
        placeholder="",
        key=_key(rows),
        alt=f"The {len(rows)} entries of this page.",
    )
    ticked = [row for row in state["selection"]["rows"] if row < len(rows)]
    return [rows[row] for row in ticked if rows[row].state != "Gone"]


def _key(rows: Sequence[Row]) -> str:
    """Another for other entries or another order, so that no tick ever falls upon an entry that was not ticked."""
    digest = hashlib.sha256("\n".join(row.key for row in rows).encode(errors="surrogateescape"))
    return f"entry_rows_{digest.hexdigest()[:16]}"


def _columns(rows: Sequence[Row], open_entry: Callable[[str], None]) -> dict[str, Any]:
    config = st.column_config
    keys = [row.key for row in rows]
    return {
        "open": config.ButtonColumn(
            "", width=64, pinned=True, type="tertiary", key=_CLICK_KEY, on_click=_take_click, args=(keys, open_entry)
        ),
        "text": config.TextColumn("Text", width=266),
        "state": config.MultiselectColumn(
            "State",
            options=list(entry_frames.STATES),
            color=list(entry_frames.STATES.values()),
            width=88,
            help="Damaged: the value cannot be read. RedisVL: an entry that RedisVL wrote. Gone: it left a moment ago.",
        ),
        "model": config.TextColumn(
            "Model",
            width=140,
            help="Without its owner where that tells the models apart; an entry's own page has both.",
        ),
        "stored": config.TextColumn("Stored", width=88),
        "expires": config.TextColumn("Expires", width=92),
        "read": config.TextColumn("Last read", width=88, help="When it was last read or written, by the server."),
        "size": config.TextColumn("Size", width=72, help="What it costs the server, key and bookkeeping included."),
        "vector": config.LineChartColumn(
            "Vector",
            width=110,
            help=f"Up to {entry_frames.SPARKS} of its values, by position: of each stretch the one farthest from zero.",
        ),
        "dimension": config.NumberColumn("Numbers", format="localized", width=76, help="The vector's dimension."),
        "metadata": config.TextColumn("Metadata", width=300),
        "moment": config.TextColumn("Stored on", width=164, help="In the time zone of your browser."),
    }


def _take_click(keys: Sequence[str], open_entry: Callable[[str], None]) -> None:
    click = st.session_state[_CLICK_KEY]
    row = click["row"] if click else None
    if isinstance(row, int) and 0 <= row < len(keys):  # it comes from the browser
        open_entry(keys[row])
