"""The entry view: one entry's text, metadata, identity, life and vector, and what can be done with it.

An entry's text, metadata, model and key are a stranger's. They go into `st.code`, `st.json` and table cells, which show
plain text; where only Markdown is to be had, through `wording.code_span`.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any, Final, Literal

import streamlit as st

from embedcache import NEVER, CacheEntry, EmbedcacheError, EntrySummary
from embedcache.entry import TTL, FloatArray, Metadata
from embedcache.removal import RemovalReport
from pages.ui import (
    charts,
    compare_with,
    entry_frames,
    entry_plans,
    failures,
    frames,
    inputs,
    recording,
    session,
    widgets,
    wording,
)

_MAX_METADATA_SHOWN: Final = 20_000
_TALL_PIXELS: Final = 240
_MANY_CHARACTERS: Final = 700
_MANY_LINES: Final = 8
_GONE: Final = "It is gone: it expired, or somebody else dropped it."
_ASTRAY: Final = "This entry does not lie under the key of its text, so no lookup finds it. Drop it."
_NEWER: Final = "Nothing was changed: somebody stored this text anew meanwhile, and here is the new entry."


def show(name: str, entry: CacheEntry, summary: EntrySummary) -> None:
    """One entry: what it is, how long it lives, its vector, and what can be done with it."""
    _entry_metrics(summary)
    left, right = st.columns([5, 6], gap="large")
    with left:
        _entry_words(name, entry, summary)
    with right:
        _entry_vector(entry)
        _entry_actions(name, entry, summary)


def _entry_metrics(summary: EntrySummary) -> None:
    none = "not told" if entry_frames.is_redisvl(summary) else "never"
    own = none if summary.ttl is None else wording.duration(summary.ttl)
    left = summary.expires_in
    cells = widgets.metric_cells()
    cells.metric(
        "Expires",
        wording.until(left),
        border=True,
        help="No TTL: it stays until it is dropped or evicted." if left is None else f"{left:,.1f} s left.",
    )
    cells.metric(
        "Own TTL",
        own,
        border=True,
        help="RedisVL keeps none: when it expires is all that is stored."
        if entry_frames.is_redisvl(summary)
        else "A hit does not change when it expires."
        if summary.ttl is None
        else f"{wording.counted(summary.ttl, 'second')}. Each hit starts it again; this page does not.",
    )
    cells.metric(
        "Dimension",
        wording.count(summary.dimension),
        border=True,
        help=f"Numbers in the vector, stored as {summary.dtype}.",
    )
    cells.metric(
        "Memory",
        wording.size(summary.memory_bytes),
        border=True,
        help=f"{wording.count(summary.memory_bytes)} bytes on the server, key and bookkeeping included; "
        f"the value itself is {wording.count(summary.value_bytes)} bytes.",
    )


def _entry_words(name: str, entry: CacheEntry, summary: EntrySummary) -> None:
    st.subheader("Text", anchor=False)
    text_block(entry["text"], key="entry_text")
    st.subheader("Metadata", anchor=False)
    metadata_block(entry["metadata"])
    astray = session.open_cache(name, refresh_ttl=False).key_for(entry["text"], entry["model_name"]) != entry["key"]
    why_not = _ASTRAY if astray else None
    if _writing_button("Edit metadata", ":material/edit:", "entry_edit_metadata", why_not=why_not):
        edit_metadata(name, entry, summary)
    st.subheader("Identity", anchor=False)
    st.caption("Model")
    st.code(wording.visible(entry["model_name"], 1_024), language=None, wrap_lines=True)
    st.caption("Key")
    st.code(wording.visible(entry["key"]), language=None, wrap_lines=True)
    moment = wording.moment(entry["inserted_at"], session.zone())
    st.caption(f"Stored {wording.ago(time.time() - entry['inserted_at'])}, on {moment} ({session.zone().key}).")
    if summary.idle_seconds is not None:
        st.caption(f"Last read or written {wording.ago(summary.idle_seconds)}.")


def text_block(text: str | bytes, key: str = "whole_text") -> None:
    """An entry's text as text, cut where it is long, with what was cut said below.

    Args:
        text: The text.
        key: Of the button for the whole text; another for each on a page.
    """
    st.code(wording.visible(text), language=None, wrap_lines=True, height=_height(text))
    notes: list[str] = []
    if isinstance(text, bytes):
        notes.append(f"Stored as {wording.counted(len(text), 'byte')}.")
    elif len(text) > wording.MAX_TEXT_SHOWN:
        shown = wording.count(wording.MAX_TEXT_SHOWN)
        notes.append(f"The first {shown} of {wording.counted(len(text), 'character')}.")
    if notes:
        st.caption(" ".join(notes))
        st.download_button(
            "Whole text",
            text,
            "text.bin" if isinstance(text, bytes) else "text.txt",
            icon=":material/download:",
            on_click="ignore",
            type="tertiary",
            key=key,
        )


def _height(text: str | bytes) -> int | Literal["content"]:
    lines = text.count("\n") if isinstance(text, str) else 0
    return _TALL_PIXELS if len(text) > _MANY_CHARACTERS or lines > _MANY_LINES else "content"


def metadata_block(metadata: Metadata | None) -> None:
    """An entry's metadata as a tree, or as cut text where it is too large for one."""
    if not metadata:
        st.caption("None was stored with it.")
        return
    whole = json.dumps(metadata, ensure_ascii=False, indent=2, default=repr)
    if len(whole) <= _MAX_METADATA_SHOWN:
        st.json(wording.visible_json(whole), expanded=2)
        return
    st.code(wording.visible(whole, _MAX_METADATA_SHOWN), language=None, height=_TALL_PIXELS)
    st.caption(f"The first {wording.count(_MAX_METADATA_SHOWN)} of {wording.counted(len(whole), 'character')}.")


def _entry_vector(entry: CacheEntry) -> None:
    vector = entry["embedding"]
    st.subheader("Vector", anchor=False)
    vector_chart(vector, key="entry_vector")
    stem = f"vector-{entry['entry_id'][:12]}"
    with st.container(horizontal=True):
        for kind, content in (
            ("npy", frames.vector_npy(vector)),
            ("json", frames.vector_json(vector)),
            ("csv", frames.vector_csv(vector)),
        ):
            st.download_button(
                f".{kind}",
                content,
                f"{stem}.{kind}",
                icon=":material/download:",
                on_click="ignore",
                key=f"download_{kind}",
            )


def vector_chart(vector: FloatArray, key: str) -> None:
    """The picture of a vector."""
    st.plotly_chart(
        charts.vector_picture(vector, session.theme()),
        key=key,
        config=charts.CONFIG,
        alt=f"The {len(vector):,} values of the vector by position, from {vector.min():.3f} to {vector.max():.3f}.",
    )


def _entry_actions(name: str, entry: CacheEntry, summary: EntrySummary) -> None:
    st.subheader("Compare", anchor=False)
    compare_with.actions(name, entry)
    st.subheader("Change", anchor=False)
    seconds = widgets.seconds_input(f"ttl_of_{entry['entry_id']}", summary.ttl or 3_600)
    with st.container(horizontal=True):
        _writing_button("Set TTL", ":material/timer:", "entry_set_ttl", _change_ttl, (name, summary, seconds))
        _writing_button(
            "Never expire", ":material/all_inclusive:", "entry_persist", _change_ttl, (name, summary, NEVER)
        )
        if _writing_button("Drop entry", ":material/delete:", "entry_drop"):
            confirm_drop(name, summary, widgets.new_token())


def _writing_button(
    label: str,
    icon: str,
    key: str,
    on_click: Callable[..., None] | None = None,
    args: tuple[Any, ...] = (),
    why_not: str | None = None,
) -> bool:
    """A button for those who may write; for others it says why they may not, as it does where nobody may."""
    why_not = session.why_read_only() or why_not
    return st.button(
        label, icon=icon, key=key, disabled=why_not is not None, help=why_not, on_click=on_click, args=args
    )


def _change_ttl(name: str, summary: EntrySummary, ttl: TTL) -> None:
    # A callback, so that the page fetches the entry after the change and not before it.
    try:
        chosen = entry_plans.plan_of_one(name, summary)
        report = entry_plans.set_ttl(session.open_cache(name).connection, chosen, ttl, session.actor())
    except EmbedcacheError as error:
        widgets.leave_notice("error", failures.sentence(error))
        return
    _say(report, f"It expires in {wording.duration(ttl)} now." if isinstance(ttl, int) else "It never expires now.")


def _say(report: RemovalReport, done: str) -> None:
    """Leaves a notice of what became of a change to one entry."""
    if report.changed:
        widgets.leave_notice("success", done if report.recorded else done + recording.NOT_WRITTEN)
    else:
        widgets.leave_notice("info", _GONE if report.gone else _NEWER)


# ------------------------------------------------------------------------------------------------ its metadata


@st.dialog("Edit metadata", icon=":material/edit:", dismissible=False)
def edit_metadata(name: str, entry: CacheEntry, summary: EntrySummary) -> None:
    """Lets the user change an entry's metadata. No click beside it closes it: what was typed would be lost."""
    typed = st.text_area(
        "Metadata, as one JSON object",
        _typeable(entry["metadata"]),
        height=_TALL_PIXELS,
        placeholder='{"source": "handbook"}',
        key=f"metadata_of_{entry['entry_id']}",
        help="Replaces all of it. Leave it empty to keep none. The vector and the TTL stay as they are.",
    )
    cancel, save = st.columns(2)
    if cancel.button("Cancel", width="stretch", key="cancel_metadata"):
        st.rerun()
    if save.button("Save", width="stretch", type="primary", icon=":material/check:", key="save_metadata"):
        try:
            _save_metadata(name, summary, typed or "")
        except (EmbedcacheError, inputs.UnusableInputError) as error:
            widgets.show_error(error)  # here, where what was typed stays
            return
        st.rerun()  # closes the dialog


def _typeable(metadata: Metadata | None) -> str:
    """Metadata as JSON for a field, with what cannot be seen there as escapes."""
    if not metadata:
        return ""
    whole = json.dumps(metadata, ensure_ascii=False, indent=2, default=repr)
    if wording.visible(whole, len(whole)) == whole:
        return whole
    return "".join(each if wording.visible(each) == each else json.dumps(each)[1:-1] for each in whole)


def _save_metadata(name: str, summary: EntrySummary, typed: str) -> None:
    cache = session.open_cache(name, layout="redisvl" if entry_frames.is_redisvl(summary) else "packed")
    if not cache.set_metadata(summary.key, inputs.read_metadata(typed)):
        widgets.leave_notice("info", _GONE)
        return
    noted = recording.record(
        cache, "edit metadata", wording.quoted(summary.text), count=1, size=summary.value_bytes, key=summary.key
    )
    widgets.leave_notice("success", "The metadata is saved." + noted)


# ------------------------------------------------------------------------------------------------ dropping it


@st.dialog("Drop this entry?", icon=":material/delete:")
def confirm_drop(name: str, summary: EntrySummary, token: str) -> None:
    """Asks before an entry is dropped, and drops it."""
    st.write("Its vector is computed again the next time somebody embeds this text:")
    st.code(wording.one_line(summary.text, 200), language=None, wrap_lines=True)
    keep, drop = st.columns(2)
    if keep.button("Keep it", width="stretch", key="keep_entry"):
        st.rerun()
    if drop.button(
        "Drop it",
        width="stretch",
        type="primary",
        icon=":material/delete:",
        key="drop_entry",
        on_click=_drop,
        args=(name, summary, token),
    ):
        st.rerun()  # closes the dialog


def _drop(name: str, summary: EntrySummary, token: str) -> None:
    if not widgets.spend_token(token):
        return
    try:
        chosen = entry_plans.plan_of_one(name, summary)
        report = entry_plans.drop(session.open_cache(name).connection, chosen, session.actor())
    except EmbedcacheError as error:
        widgets.leave_notice("error", failures.sentence(error))
        return
    session.count_again()
    _say(report, "Dropped.")
