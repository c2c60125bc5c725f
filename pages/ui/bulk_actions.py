"""What can be done with the ticked entries of a table: dropped, given a TTL, exported, compared. Each asks before."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import streamlit as st

from embedcache import NEVER, EmbedcacheError, transfer
from embedcache.connection import RedisConnection
from embedcache.entry import TTL
from embedcache.index import EntryIndex
from embedcache.removal import RemovalPlan, RemovalReport
from embedcache.transfer import FileFormat
from pages.ui import compare_with, entry_frames, entry_plans, failures, indexes, session, widgets, wording
from pages.ui.entry_frames import Row

Act = Literal["drop", "ttl"]

_QUESTIONS: Final[dict[Act, str]] = {"drop": "Drop {count}?", "ttl": "Set the TTL of {count}?"}
_MEANINGS: Final[dict[Act, str]] = {
    "drop": "Their vectors are computed again the next time somebody embeds these texts:",
    "ttl": "They get a time to live of their own, which begins now and starts again with each hit:",
}
_BUTTONS: Final[dict[Act, tuple[str, str]]] = {
    "drop": ("Drop", ":material/delete:"),
    "ttl": ("Set TTL", ":material/timer:"),
}
_AFTER: Final = "After a time"
_NEVER: Final = "Never"
_SAMPLE: Final = 5
_SAMPLE_CHARACTERS: Final = 34  # a line of the dialog on a phone
_DEFAULT_TTL: Final = 86_400
_PAIR: Final = 2


def toolbar(name: str, index: EntryIndex | None, ticked: Sequence[Row]) -> None:
    """Says how many entries are ticked, and draws the buttons for them; all of them always, so that nothing moves.

    To be called within a horizontal container.

    Args:
        name: The cache's name.
        index: The index that the pages keep of it, where there is one: what is dropped leaves it too.
        ticked: The entries.
    """
    st.markdown(f"**{wording.count(len(ticked))} ticked**", width="content")
    why_not = session.why_read_only() or (None if ticked else "Tick rows of the table first.")
    for act, (label, icon) in _BUTTONS.items():
        if st.button(label, icon=icon, key=f"bulk_{act}", disabled=why_not is not None, help=why_not):
            _ask(act, name, index, ticked)
    _export(name, ticked)
    not_two = None if len(ticked) == _PAIR else "Tick two rows of the table."
    if st.button(
        "Compare", icon=":material/compare_arrows:", key="bulk_compare", disabled=not_two is not None, help=not_two
    ):
        one, other = (row.key for row in ticked)
        st.switch_page(compare_with.PAGE, query_params={"key": one, "with": other})


# ------------------------------------------------------------------------------------------------ changing them


def _ask(act: Act, name: str, index: EntryIndex | None, ticked: Sequence[Row]) -> None:
    title = _QUESTIONS[act].format(count=wording.counted(len(ticked), "entry", "entries"))
    st.dialog(title, icon=_BUTTONS[act][1])(_confirm)(act, name, index, ticked, widgets.new_token())


def _confirm(act: Act, name: str, index: EntryIndex | None, ticked: Sequence[Row], token: str) -> None:
    st.write(_MEANINGS[act])
    st.code("\n".join(wording.one_line(row.text, _SAMPLE_CHARACTERS) for row in ticked[:_SAMPLE]), language=None)
    if len(ticked) > _SAMPLE:
        st.caption(f"And {wording.count(len(ticked) - _SAMPLE)} more.")
    ttl = _ask_ttl() if act == "ttl" else NEVER
    keep, do = st.columns(2)
    if keep.button("Cancel", width="stretch", key="bulk_cancel"):
        st.rerun()
    label, icon = _BUTTONS[act]
    if do.button(
        f"{label} ({wording.count(len(ticked))})",
        width="stretch",
        type="primary",
        icon=icon,
        key="bulk_do",
        on_click=_do,
        args=(act, ttl, name, index, ticked, token),
    ):
        st.rerun()  # closes the dialog


def _ask_ttl() -> TTL:
    expires = st.radio("Expires", [_AFTER, _NEVER], horizontal=True, key="bulk_expires")
    return NEVER if expires == _NEVER else widgets.seconds_input("bulk_seconds", _DEFAULT_TTL)


def _do(act: Act, ttl: TTL, name: str, index: EntryIndex | None, ticked: Sequence[Row], token: str) -> None:
    if not widgets.spend_token(token):
        return
    try:
        connection, actor = session.open_cache(name).connection, session.actor()
        plan = entry_plans.plan(name, ticked, "ticked in Browse")
        if act == "drop":
            report = entry_plans.drop(connection, plan, actor)
        else:
            report = entry_plans.set_ttl(connection, plan, ttl, actor)
    except EmbedcacheError as error:
        session.count_again()
        widgets.leave_notice("error", failures.sentence(error))
        return
    _keep_index(act, ttl, name, index, plan, report)
    widgets.leave_notice("success" if report.changed else "info", _said(act, ttl, report))


def _keep_index(
    act: Act, ttl: TTL, name: str, index: EntryIndex | None, plan: RemovalPlan, report: RemovalReport
) -> None:
    """Has the pages' index know what was done, or taken anew where that is not known of each entry."""
    session.count_again()
    if index is None or report.kept_newer or report.skipped or report.untouched:
        return
    positions = index.positions_of(plan.keys(slice(None)))
    if act == "drop":
        indexes.keep(name, index.without(positions))
        return
    expires_at, own = index.expires_at.copy(), index.ttl.copy()
    seconds = ttl if isinstance(ttl, int) else None
    expires_at[positions] = np.inf if seconds is None else plan.made_at + seconds
    own[positions] = seconds or 0
    indexes.keep(name, replace(index, expires_at=expires_at, ttl=own))


def _said(act: Act, ttl: TTL, report: RemovalReport) -> str:
    changed = wording.counted(report.changed, "entry", "entries")
    if act == "drop":
        said = [f"Dropped {changed}, {wording.size(report.bytes)} of values."]
    elif isinstance(ttl, int):
        said = [f"{changed} now {_verb(report.changed, 'expires', 'expire')} in {wording.duration(ttl)}."]
    else:
        said = [f"{changed} now never {_verb(report.changed, 'expires', 'expire')}."]
    for number, words in (
        (report.gone, "gone already"),
        (report.kept_newer, "written anew since, and left as it is"),
        (report.skipped, "damaged, and has no TTL to set"),
    ):
        if number:
            said.append(f"{wording.count(number)} {_verb(number, 'was', 'were')} {words}.")
    if not report.recorded:
        said.append("The audit log may lack this.")
    return " ".join(said)


def _verb(number: int, one: str, many: str) -> str:
    return one if number == 1 else many


# ------------------------------------------------------------------------------------------------ exporting them


def _export(name: str, ticked: Sequence[Row]) -> None:
    if not ticked:
        st.button("Export", icon=":material/download:", key="bulk_export_off", disabled=True, help="Tick rows first.")
        return
    connection = session.open_cache(name, refresh_ttl=False).connection
    keys = [row.key for row in ticked]
    with st.popover("Export", icon=":material/download:", key="bulk_export"):
        st.caption("Parquet and JSON lines hold the vectors, and can be restored. CSV is for spreadsheets.")
        kinds: dict[str, Any] = {
            "parquet": partial(_exported, connection, name, keys, "parquet"),
            "jsonl": partial(_exported, connection, name, keys, "jsonl"),
            "csv": partial(entry_frames.table_csv, list(ticked)),
        }
        for kind, content in kinds.items():
            st.download_button(
                f".{kind}",
                content,
                f"entries.{kind}",
                icon=":material/download:",
                on_click="ignore",
                key=f"bulk_export_{kind}",
                width="stretch",
            )


def _exported(connection: RedisConnection, name: str, keys: Sequence[str], file_format: FileFormat) -> bytes:
    """The entries as an export's file. Runs when the button is pressed, and not before."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "entries"
        transfer.export_entries(connection, name, path, keys, file_format=file_format)
        return path.read_bytes()
