"""The steps before a cleanup on the page: what was planned, and a copy of it."""

from __future__ import annotations

import time
from functools import partial
from typing import Final

import pandas as pd
import streamlit as st

from embedcache.entry import TTL
from embedcache.filtering import EntryFilter
from embedcache.transfer import ExportReport
from pages.ui import access, cleanup_plans, cleanup_work, exports, filter_builder, longwork, session, widgets, wording
from pages.ui.cleanup_plans import Planned, Task
from pages.ui.cleanup_work import EXPORT_JOB, PLAN_JOB

_ROW_PIXELS: Final = 35
_TABLE_PIXELS: Final = 283


# ------------------------------------------------------------------------------------------------ the plan


def start_plan(name: str, chosen: EntryFilter) -> None:
    """Starts to make a plan, in place of the one before."""
    connection, url = session.open_cache(name, refresh_ttl=False).connection, session.server_url()
    words = ", ".join(filter_builder.in_words(chosen, wording.quoted))
    for job in (PLAN_JOB, EXPORT_JOB):
        longwork.forget(job)
    cleanup_work.ask_anew()
    longwork.start(PLAN_JOB, lambda progress: cleanup_plans.make(connection, url, name, chosen, words, progress))


def why_outdated(planned: Planned, name: str, chosen: EntryFilter | None) -> str | None:
    """Why a plan is no longer what this user chose, in Markdown; None where it is."""
    if planned.plan.cache_name != name:
        theirs, ours = (wording.code_span(each, 80) for each in (planned.plan.cache_name, name))
        return f"**This plan is for the cache {theirs}**, and you work with {ours} now. Make a new plan."
    if planned.chosen != chosen:
        return "**This plan is out of date:** you chose something else since. Make a new plan."
    return None


def show_plan(planned: Planned) -> None:
    """What is going to be done: how many, how large, of which models, since when, and some of them."""
    plan = planned.plan
    if not planned.whole:
        st.info(
            "**This cache is empty.** Here entries are chosen by age, use, model, text or size, planned, and removed "
            "once you have confirmed it. Embed something first, or load sample data to try it.",
            icon=":material/cleaning_services:",
        )
        return
    if not len(plan):
        st.info("**No entry matches.** Choose otherwise, and make a new plan.", icon=":material/search_off:")
        return
    whole = wording.counted(planned.whole, "entry", "entries")
    cells = widgets.metric_cells()
    cells.metric(
        "Entries", wording.count(len(plan)), border=True, help="Exactly these, whatever is stored from now on."
    )
    cells.metric(
        "Values", wording.size(plan.total_bytes), border=True, help=f"{wording.count(plan.total_bytes)} bytes."
    )
    cells.metric("Of the cache", wording.share(planned.share), border=True, help=f"It has {whole}.")
    cells.metric(
        "Planned",
        wording.ago(time.time() - plan.made_at),
        border=True,
        help=f"{wording.moment(plan.made_at, session.zone())}. What is stored or written anew since stays.",
    )
    if planned.chosen.is_empty:
        st.warning("No filter is set: **this is the whole cache**.", icon=":material/warning:")
    st.caption(" ".join(_said(planned)))
    _show_sample(planned)


def _said(planned: Planned) -> list[str]:
    said = [f"Chosen: {', '.join(filter_builder.in_words(planned.chosen)) or 'every entry'}."]
    if planned.oldest is not None and planned.newest is not None:
        oldest, newest = (wording.moment(each, session.zone()) for each in (planned.oldest, planned.newest))
        said.append(f"Stored on {oldest}." if oldest == newest else f"Stored from {oldest} to {newest}.")
    said.append(cleanup_plans.models_in_words(planned.by_model))
    return said


def _show_sample(planned: Planned) -> None:
    now = time.time()
    rows = [
        (
            "(cannot be read)" if entry is None else wording.one_line(entry.text, 160),
            "" if entry is None else wording.one_line(entry.model_name, 80),
            "" if entry is None else wording.ago(now - entry.inserted_at),
            "" if entry is None else wording.until(entry.expires_in),
            "" if entry is None else wording.size(entry.value_bytes),
            wording.one_line(key, 160),
        )
        for key, entry in zip(planned.sample_keys, planned.sample, strict=True)
    ]
    whole = len(rows) == len(planned.plan)
    title = "All of them" if whole else f"{len(rows)} of them, from all over the plan"
    with st.expander(title, expanded=True, icon=":material/table_rows:"):
        st.dataframe(
            pd.DataFrame(rows, columns=["Text", "Model", "Stored", "Expires", "Size", "Key"]),
            hide_index=True,
            height=min(_ROW_PIXELS * (len(rows) + 1) + 3, _TABLE_PIXELS),
            column_config={"Text": st.column_config.TextColumn(width="large")},
            key="cleanup_sample",
        )


# ------------------------------------------------------------------------------------------------ a copy before


def show_export(planned: Planned) -> None:
    """Offers to write the plan's entries to a file first, from which Cleanup restores them."""
    job = longwork.find(EXPORT_JOB)
    with st.expander("Keep a copy first (optional)", expanded=job is not None, icon=":material/download:"):
        file_format = st.radio(
            "Format",
            list(exports.SUFFIXES),
            format_func=lambda option: {"parquet": "Parquet", "jsonl": "JSON lines"}[option],
            horizontal=True,
            key="cleanup_format",
            persist_state="session",
        )
        st.caption(f"{exports.HOW_LONG} Download it to keep it longer.")
        busy = (job is not None and job.running) or not session.may_write()
        pressed = st.button(
            "Write the copy",
            icon=":material/download:",
            disabled=busy,
            help=session.why_read_only(),
            key="cleanup_export",
        )
        if pressed and not busy:
            connection = session.open_cache(planned.plan.cache_name, refresh_ttl=False).connection
            longwork.start(EXPORT_JOB, partial(exports.export, connection, planned.plan, file_format))
            st.rerun()
        if job is not None and longwork.shown(job, "Writing the copy"):
            _show_copy(job.result)


def _show_copy(report: ExportReport) -> None:
    left_out = report.skipped_unreadable + report.gone
    note = (
        f" {wording.counted(left_out, 'value')} could not be read or were gone, and are not in it." if left_out else ""
    )
    st.success(
        f"**{wording.counted(report.entries, 'entry', 'entries')}, {wording.size(report.bytes)}**, in "
        f"{wording.code_span(str(report.path))} on the dashboard's machine.{note}",
        icon=":material/check_circle:",
    )
    if report.bytes <= exports.MAX_DOWNLOAD_BYTES and report.path.exists():
        st.download_button(
            "Download it",
            report.path.read_bytes,
            report.path.name,
            icon=":material/download:",
            on_click="ignore",
            key="cleanup_download",
        )


# ------------------------------------------------------------------------------------------------ beginning


def begin(planned: Planned, task: Task, ttl: TTL) -> None:
    """Carries a plan out, once."""
    connection, actor = session.open_cache(planned.plan.cache_name).connection, access.actor()
    job = longwork.find(EXPORT_JOB)
    copy = str(job.result.path) if job is not None and job.state == "done" else None
    cleanup_work.begin(lambda progress: cleanup_plans.carry_out(connection, planned, task, ttl, actor, copy, progress))
