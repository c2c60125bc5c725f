"""The caches of a server to choose from: ticked, one is told of in facts, worked with, or a new one is begun."""

from __future__ import annotations

from typing import Final

import streamlit as st

from embedcache import EmbedcacheError
from embedcache.keyspace import Keyspace
from pages.ui import cache_counts, cache_facts, failures, indexes, session, widgets, wording
from pages.ui.cache_counts import CacheCounts

_NEW_KEY: Final = "settings_new_cache"


def show(counts: CacheCounts) -> None:
    """The table, and what is known of the cache that is ticked; of the one that the pages work on where none is."""
    table, facts = st.columns([2, 3], gap="large")
    with table:
        ticked = cache_counts.draw_table(counts, key="settings_caches", selectable=True)
        st.caption("Tick a cache to see what is in it.")
        _ask_new()
    with facts:
        chosen = session.cache_name() if ticked is None else ticked
        st.subheader(wording.code_span(chosen, 60), anchor=False)
        _show_cache(chosen)


def _show_cache(name: str) -> None:
    _show_choice(name)
    index = indexes.look(name)
    if index is None:
        return
    if len(index):
        found = cache_facts.facts(index, session.zone())
        st.table(
            [{"fact": fact, "value": value} for fact, value in found.items()],
            border="horizontal",
            hide_index=True,
            hide_header=True,
        )
    else:
        st.caption("It holds nothing. It is there for the server as soon as something is stored in it.")
    indexes.age_line(name, index)


def _show_choice(name: str) -> None:
    """Whether the pages work on this cache; else the button that has them do so."""
    if name == session.cache_name():
        st.caption(":material/check: The pages work on this cache.")
        return
    st.button(
        "Work with it",
        icon=":material/swap_horiz:",
        key="work_with_cache",
        help="All pages show this cache then, for you alone. The sidebar changes it too.",
        on_click=_work_with,
        args=(name,),
    )


def _ask_new() -> None:
    # No form: what is typed into one is lost where the server goes, and the form with it.
    with st.container(horizontal=True, vertical_alignment="bottom"):
        st.text_input("A new cache's name", placeholder="products", key=_NEW_KEY, persist_state="session")
        st.button("Start it", icon=":material/add:", key="start_cache", on_click=_start)


def _start() -> None:
    name = str(st.session_state.get(_NEW_KEY) or "").strip()
    try:
        Keyspace(name)
    except EmbedcacheError as error:
        widgets.leave_notice("error", failures.sentence(error))
        return
    st.session_state[_NEW_KEY] = ""
    _work_with(name)


def _work_with(name: str) -> None:
    st.session_state[session.CACHE_KEY] = name
    widgets.leave_notice("success", f"You work with the cache {wording.code_span(name, 80)} now.")
