"""The saved benchmarks on a page: chosen, downloaded, deleted, and compared over time."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Final

import streamlit as st

from embedcache import EmbedcacheError
from embedcache.benchmark import runs as benchmark_runs
from embedcache.benchmark.records import Run
from embedcache.benchmark.runs import SavedRuns
from embedcache.connection import RedisConnection
from pages.ui import charts, failures, session, timing_frames, timing_words, timings, widgets, wording

_MOST_COMPARED: Final = 12  # the labels of more do not fit beside each other


def connection() -> RedisConnection:
    """To the server that this user works with, for looking."""
    return session.open_cache(session.cache_name(), refresh_ttl=False).connection


def show(saved: SavedRuns) -> None:
    """Draws the runs as a table; of those ticked, files, the question whether to delete, and how they compare."""
    st.subheader("Saved runs", anchor=False)
    if saved.unreadable:
        st.caption(
            f"{wording.counted(saved.unreadable, 'run')} more cannot be read: damaged, or written by a later version."
        )
    chosen = _tick(saved.runs)
    if not chosen:
        st.caption(
            f"Tick a run to download or delete it, two or more to compare them. The server keeps the last "
            f"{benchmark_runs.MAX_RUNS}."
        )
        return
    _offer_files(chosen)
    if len(chosen) > 1:
        _compare(chosen)


def _tick(runs: Sequence[Run]) -> list[Run]:
    """Draws the runs as a table; returns those ticked, first to last."""
    state = st.dataframe(
        timing_frames.runs_frame(runs),
        hide_index=True,
        height=min(320, 38 + 35 * len(runs)),
        column_config={
            "at": st.column_config.DatetimeColumn(
                "When", format="D MMM YYYY, HH:mm:ss", timezone=session.zone().key, width=164
            ),
            "speedup": st.column_config.NumberColumn("Speedup", format="%.1f times", width=88),
            "scenarios": st.column_config.TextColumn("Compared", width=220),
            "iterations": st.column_config.NumberColumn("Iterations", format="localized", width=76),
            "texts": st.column_config.NumberColumn("Texts", format="localized", width=60),
            "dimension": st.column_config.NumberColumn("Dim.", format="localized", width=60),
            "server": st.column_config.TextColumn("Server", width=176),
            "machine": st.column_config.TextColumn("Machine", width=150),
            "version": st.column_config.TextColumn("embedcache", width=92),
            "model": st.column_config.TextColumn("Model", width=280),
        },
        on_select="rerun",
        selection_mode="multi-row",
        key=f"benchmark_runs_{runs[0].run_id}_{len(runs)}",  # a new run moves the rows, and with them the ticks
    )
    ticked = [runs[row] for row in state["selection"]["rows"] if row < len(runs)]
    return sorted(ticked, key=lambda run: run.run_id)


def _offer_files(chosen: Sequence[Run]) -> None:
    with st.container(horizontal=True):
        for kind in ("json", "csv"):
            st.download_button(
                f".{kind}",
                partial(_file, kind, chosen, connection()),
                f"benchmarks.{kind}",
                icon=":material/download:",
                on_click="ignore",
                key=f"benchmark_{kind}",
            )
        if len(chosen) == 1:
            reason = session.why_read_only()
            if st.button(
                "Delete", icon=":material/delete:", key="benchmark_delete", disabled=reason is not None, help=reason
            ):
                _confirm_delete(chosen[0], widgets.new_token())


def _file(kind: str, chosen: Sequence[Run], opened: RedisConnection) -> bytes:
    """A file's content, made when it is asked for: outside any run of the page, so it is given the connection."""
    if kind == "csv":
        return timing_frames.runs_csv(chosen)
    return timing_frames.runs_json([benchmark_runs.read_run(opened, run.run_id) or run for run in chosen])


@st.dialog("Delete this run?", icon=":material/delete:")
def _confirm_delete(run: Run, token: str) -> None:
    st.write(f"The run of {wording.moment(run.at, session.zone())} is deleted for everybody. No cache is touched.")
    keep, delete = st.columns(2)
    if keep.button("Keep it", width="stretch", key="keep_run"):
        st.rerun()
    if delete.button(
        "Delete it",
        width="stretch",
        type="primary",
        icon=":material/delete:",
        key="delete_run",
        on_click=_delete,
        args=(run.run_id, token),
    ):
        st.rerun()  # closes the dialog


def _delete(run_id: str, token: str) -> None:
    if not widgets.spend_token(token):
        return
    if (reason := session.why_read_only()) is not None:
        widgets.leave_notice("error", reason)
        return
    try:
        deleted = benchmark_runs.delete_run(session.open_cache(session.cache_name()).connection, run_id)
    except EmbedcacheError as error:
        widgets.leave_notice("error", failures.sentence(error))
        return
    widgets.leave_notice("success", "Deleted." if deleted else "It was gone already: somebody else deleted it.")


def _compare(chosen: Sequence[Run]) -> None:
    runs = chosen[-_MOST_COMPARED:]
    st.subheader("Compared over time", anchor=False)
    if len(runs) < len(chosen):
        st.caption(f"The last {_MOST_COMPARED} of the runs that you ticked.")
    medians = timing_frames.medians_frame(runs)
    scenario = st.radio(
        "Scenario",
        list(dict.fromkeys(medians["scenario"])),
        horizontal=True,
        format_func=timing_words.title,
        label_visibility="collapsed",
        key="benchmark_compared",
    )
    medians = medians[medians["scenario"] == scenario]
    labels = _distinct([wording.moment(run.at, session.zone()) for run in runs])
    cells = st.grid(medians["operation"].nunique(), min_column_width=280, gap=("small", "large"))
    for operation, rows in medians.groupby("operation", sort=False):
        with cells.container():
            st.caption(timing_words.OPERATIONS[str(operation)])
            st.plotly_chart(
                timings.medians(rows, labels, session.theme()),
                key=f"benchmark_medians_{operation}",
                config=charts.CONFIG,
                alt="Lines of the medians, run by run; the table below has the numbers.",
            )
    st.dataframe(
        timing_frames.comparison_frame(medians, labels),
        hide_index=True,
        column_config={
            "operation": st.column_config.TextColumn("What", width=64),
            "variant": st.column_config.TextColumn("How", width=130),
            "change": st.column_config.TextColumn("Last against first", width=132),
            **{label: st.column_config.NumberColumn(label, format="%.4f ms", width=164) for label in labels},
        },
        key="benchmark_comparison",
    )
    st.caption("Medians per text. Runs on other machines, servers or texts differ for that alone.")


def _distinct(labels: Sequence[str]) -> list[str]:
    """The labels, numbered where two are the same."""
    return [
        f"{label} ({labels[:at].count(label) + 1})" if label in labels[:at] else label
        for at, label in enumerate(labels)
    ]
