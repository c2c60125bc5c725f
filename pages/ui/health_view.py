"""How the vectors of a map are, drawn: those of its sample, or all of the cache's once these were asked for."""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial
from typing import Final

import streamlit as st

from pages.ui import charts, examined, longwork, maps, session, vector_health, widgets, wording
from pages.ui.examined import Examined
from pages.ui.mapped import Mapped, Request

JOB: Final = "vector_map_health"
OPEN: Final = st.column_config.LinkColumn("Lookup", display_text="Open", width=68)
_QUICK_SECONDS: Final = 0.4  # small caches are read by then, and no bar flashes up for them
_TABLE_PIXELS: Final = 320


def show(mapped: Mapped, request: Request) -> None:
    """How the vectors are: those of the sample, or of the whole cache once these were asked for and read."""
    st.subheader("Health of the vectors", anchor=False)
    job = longwork.find(JOB)
    found = job.result if job is not None and job.state == "done" else examined.of_sample(mapped)
    with st.container(horizontal=True, vertical_alignment="center"):
        what = wording.counted(found.health.entries, "vector")
        since = wording.ago(time.time() - found.at)
        st.caption(f"{what}, {'all there are' if found.whole else 'a sample'}, as of {since}.", width="content")
        if job is None or not job.running:
            all_of_them = "them all again" if job is not None and job.state == "done" else "all of the cache"
            if st.button(f"Check {all_of_them}", icon=":material/health_and_safety:", key="map_check_all"):
                _start_check(mapped, request)
                st.rerun()
    if job is not None:
        longwork.shown(job, "Checking vectors")
    _draw_health(found)


def _start_check(mapped: Mapped, request: Request) -> None:
    connection, url = session.open_cache(request.cache_name, refresh_ttl=False).connection, session.server_url()
    vectors = mapped.everything
    work = partial(examined.of_all, request, vectors.model_names[0], vectors.dimension, connection, url)
    longwork.forget(JOB)
    longwork.start(JOB, work).wait(_QUICK_SECONDS)


def _draw_health(found: Examined) -> None:
    health = found.health
    cells = widgets.metric_cells()
    cells.metric(
        "Length 1",
        wording.share(health.unit / health.entries),
        border=True,
        help=f"{health.unit:,} of {health.entries:,} vectors have a norm of 1, give or take 1%.",
    )
    cells.metric(
        "Broken",
        wording.count(health.zero + health.not_finite),
        border=True,
        help="Vectors that no search can use: zero, or with NaN or infinity in them.",
    )
    cells.metric(
        "Shared",
        wording.count(health.duplicated),
        border=True,
        help="Entries that share their vector with another text, which is not the same text spelt differently.",
    )
    cells.metric(
        "Spelt twice",
        wording.count(health.saved_entries),
        border=True,
        help="Entries whose text is there in another case, with other white space or in another Unicode form.",
    )
    left, right = st.columns([2, 3], gap="large")
    with left:
        if len(health.norms):
            st.plotly_chart(
                maps.norms(health.norms, session.theme()),
                key="map_norms",
                config=charts.CONFIG,
                alt=f"Norms of the vectors, from {health.norms.min():.4g} to {health.norms.max():.4g}.",
            )
    with right:
        st.table(vector_health.findings(health, found.unreadable), border="horizontal", hide_index=True)
    _show_groups(found)


def _show_groups(found: Examined) -> None:
    """The texts that share a vector, and those that are there in several spellings."""
    health = found.health
    if health.duplicates:
        st.subheader("Texts that share a vector", anchor=False)
        _show_texts(found, health.duplicates, "map_duplicates")
    st.subheader("Texts spelt twice", anchor=False)
    st.write(vector_health.saving(health, found.whole, found.in_cache))
    if health.spellings:
        _show_texts(found, health.spellings, "map_spellings")


def _show_texts(found: Examined, groups: Sequence[Sequence[int]], key: str) -> None:
    table = vector_health.groups_frame(found.entries, groups)
    st.dataframe(
        table,
        hide_index=True,
        height=min(_TABLE_PIXELS, 38 + 35 * len(table)),
        key=key,
        column_config={
            "entries": st.column_config.NumberColumn("Entries", format="localized", width=68),
            "open": OPEN,
            "texts": st.column_config.TextColumn("Texts", width=840),
        },
    )
    if len(groups) > len(table):
        st.caption(f"The first {wording.count(len(table))} of {wording.count(len(groups))}.")
