"""Two entries side by side: how alike they are, and in what they differ."""

from __future__ import annotations

from typing import TypeAlias

import pandas as pd
import streamlit as st

from embedcache import CacheEntry, EntrySummary
from pages.ui import charts, compare_with, comparison, entry_view, session, widgets, wording

Found: TypeAlias = tuple[CacheEntry, EntrySummary]


def show(one: Found, other: Found) -> None:
    """Two entries side by side."""
    (first, first_summary), (second, second_summary) = one, other
    if first["key"] == second["key"]:
        st.info("Both are the same entry. Go back and choose another.", icon=":material/info:")
    measures = comparison.measure(first["embedding"], second["embedding"])
    _show_measures(measures)
    _show_texts(first, second)
    facts, metadata = st.columns(2, gap="large")
    with facts:
        st.subheader("Facts", anchor=False)
        _show_table(comparison.facts_frame(first_summary, second_summary, session.zone()), "compared_facts")
    with metadata:
        st.subheader("Metadata", anchor=False)
        _show_metadata(first, second)
    if measures.comparable:
        _show_vectors(first, second)


def _show_measures(measures: comparison.Measures) -> None:
    cells = widgets.metric_cells()
    cells.metric(
        "Cosine similarity",
        "none" if measures.cosine is None else f"{measures.cosine:.4f}",
        border=True,
        help="1: the same direction; 0: nothing in common; -1: opposite directions.",
    )
    cells.metric(
        "Euclidean distance",
        "none" if measures.distance is None else f"{measures.distance:.4g}",
        border=True,
        help="0: the same vector. It depends on the length of the vectors, the cosine does not.",
    )
    for title, norm in zip((comparison.FIRST, comparison.SECOND), measures.norms, strict=True):
        cells.metric(f"{title} norm", f"{norm:.4g}", border=True, help="The vector's length; many models make it 1.")
    if measures.why_not:
        st.warning(measures.why_not, icon=":material/warning:")


def _show_texts(first: CacheEntry, second: CacheEntry) -> None:
    for place, title, entry in zip(
        st.columns(2, gap="large"), (comparison.FIRST, comparison.SECOND), (first, second), strict=True
    ):
        with place:
            st.subheader(title, anchor=False)
            entry_view.text_block(entry["text"], key=f"compared_{title.lower()}")
            st.caption(f"Under {wording.code_span(entry['model_name'], 120)}")
            st.page_link(compare_with.PAGE, label="Open", icon=":material/search:", query_params={"key": entry["key"]})


def _show_metadata(first: CacheEntry, second: CacheEntry) -> None:
    if not first["metadata"] and not second["metadata"]:
        st.caption("Neither has any.")
        return
    table, same = comparison.metadata_frame(first["metadata"], second["metadata"])
    if table.empty:
        st.caption(f"The same: {wording.counted(same, 'field')}.")
        return
    _show_table(table, "compared_metadata")
    more = f" {wording.counted(same, 'field')} more {'is' if same == 1 else 'are'} the same." if same else ""
    st.caption(f"The fields that differ.{more}")


def _show_table(table: pd.DataFrame, key: str) -> None:
    st.dataframe(
        table,
        hide_index=True,
        key=key,
        column_config={
            "what": st.column_config.TextColumn("", width=92),
            "field": st.column_config.TextColumn("Field", width=110),
            "first": st.column_config.TextColumn(comparison.FIRST),
            "second": st.column_config.TextColumn(comparison.SECOND),
        },
    )


def _show_vectors(first: CacheEntry, second: CacheEntry) -> None:
    by_position, by_value = st.columns([3, 2], gap="large")
    with by_position:
        st.subheader("By position", anchor=False)
        st.plotly_chart(
            comparison.difference_picture(first["embedding"], second["embedding"], session.theme()),
            key="compared_difference",
            config=charts.CONFIG,
            alt="Both vectors' values by position, and below them the first minus the second.",
        )
    with by_value:
        st.subheader("Value against value", anchor=False)
        st.plotly_chart(
            comparison.agreement_picture(first["embedding"], second["embedding"], session.theme()),
            key="compared_agreement",
            config=charts.CONFIG,
            alt="A point for each position: its value in the first vector against that in the second.",
        )
        st.caption("A point for each position. On the dashed line, both vectors agree.")
