"""Browse: the entries of a cache as a table, filtered, sorted and paged; ticked ones are changed, one is opened."""

from dataclasses import replace

import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from embedcache.filtering import EntryFilter
from embedcache.index import EntryIndex
from embedcache.keyspace import split_key
from pages.ui import (
    browse_links,
    bulk_actions,
    empty_states,
    entry_frames,
    entry_table,
    entry_view,
    filter_builder,
    indexes,
    links,
    matches,
    session,
    widgets,
    wording,
)
from pages.ui.browse_links import View
from pages.ui.inputs import UnusableInputError

PAGE_KEY = "browse_page"
SORT_KEY = "browse_sort"
SIZE_KEY = "browse_size"
FILTER_KEY = "browse_filter"
OPEN_KEY = "browse_open"
SHOWN_KEY = "browse_shown"
CLEANUP_FILTER_KEY = "cleanup_filter"
CLEANUP_PAGE = "pages/cleanup.py"
ROWS_SHOWN = 15
ROWS_BESIDE_ENTRY = 7


# -------------------------------------------------------------------------------------------------- controls


def _follow_link() -> None:
    """Takes over what the page's address names, as if it had been chosen."""
    linked = links.opened("browse", (links.CACHE, *browse_links.PARAMETERS))
    if not linked:
        return
    try:
        view = browse_links.read(linked)
        filter_builder.choose(FILTER_KEY, view.entry_filter)
    except UnusableInputError as error:
        widgets.leave_notice("error", str(error))
        view = browse_links.read({name: value for name, value in linked.items() if name != "filter"})
        filter_builder.choose(FILTER_KEY, view.entry_filter)
    st.session_state.update({SORT_KEY: view.sort, SIZE_KEY: view.size, PAGE_KEY: view.page, OPEN_KEY: view.key})
    st.session_state.pop(SHOWN_KEY, None)  # or what differs from it would lead to the first page


def _choose() -> tuple[View, DeltaGenerator]:
    """What to show, and the row of controls over the table, for others to stand beside the order."""
    entry_filter = filter_builder.filter_builder(FILTER_KEY, session.models_to_choose(session.cache_name()))
    bar = st.container(horizontal=True, vertical_alignment="center")
    sort = bar.selectbox(
        "Order of all entries that match",
        list(browse_links.SORTINGS),
        format_func=lambda name: browse_links.SORTINGS[name].label,
        key=SORT_KEY,
        persist_state="session",
        icon=":material/sort:",
        label_visibility="collapsed",
        width=250,
    )
    size = st.session_state.setdefault(SIZE_KEY, browse_links.DEFAULT_SIZE)
    _start_over_where_another(entry_filter, sort, size)
    view = View(
        sort=sort or browse_links.DEFAULT_SORT,
        size=size,
        entry_filter=entry_filter,
        key=st.session_state.get(OPEN_KEY),
        page=st.session_state.get(PAGE_KEY) or 1,
    )
    return view, bar


def _start_over_where_another(*chosen: object) -> None:
    """Goes to the first page where other entries or another order are chosen; closes what is of another cache."""
    name = session.cache_name()
    now = (session.server_key(), name, *chosen)
    before = st.session_state.get(SHOWN_KEY)
    st.session_state[SHOWN_KEY] = now
    if before in (None, now):
        return
    st.session_state[PAGE_KEY] = 1
    opened = split_key(st.session_state.get(OPEN_KEY) or "")
    if before[:2] != now[:2] and opened is not None and opened[0] != name:
        _open(None)


def _clear_filter() -> None:
    filter_builder.choose(FILTER_KEY, EntryFilter())


def _open(key: str | None) -> None:
    st.session_state[OPEN_KEY] = key


def _go(page: int) -> None:
    st.session_state[PAGE_KEY] = page


# -------------------------------------------------------------------------------------------------- the table


def _show_page(name: str, index: EntryIndex, view: View, bar: DeltaGenerator) -> None:
    """The page of the table, what can be done with it, and the ways to other pages."""
    positions = matches.find(name, index, view.entry_filter, view.sort)
    if positions is None:
        return
    if not len(positions):
        _show_no_match(view.entry_filter)
        return
    pages = -(-len(positions) // view.size)
    page = st.session_state[PAGE_KEY] = min(view.page, pages)
    start = (page - 1) * view.size
    shown = positions[start : start + view.size]
    rows = entry_frames.read_rows(session.open_cache(name, refresh_ttl=False), index.keys(shown))
    _show_rows(name, index, rows, view, bar)
    _show_pager(start, len(shown), len(positions), pages, view.entry_filter)


def _show_rows(
    name: str, index: EntryIndex | None, rows: list[entry_frames.Row], view: View, bar: DeltaGenerator
) -> None:
    most_rows = ROWS_BESIDE_ENTRY if view.key or index is None else ROWS_SHOWN
    ticked = entry_table.show(rows, _open, most_rows=most_rows)
    with bar:
        bulk_actions.toolbar(name, index, ticked)


def _show_pager(start: int, count: int, total: int, pages: int, entry_filter: EntryFilter) -> None:
    page = st.session_state[PAGE_KEY]
    with st.container(horizontal=True, vertical_alignment="center"):
        for label, target, possible in (
            ("First", 1, page > 1),
            ("Previous", page - 1, page > 1),
            ("Next", page + 1, page < pages),
            ("Last", pages, page < pages),
        ):
            st.button(label, key=f"browse_{label}", disabled=not possible, on_click=_go, args=(target,))
        extent = f"{wording.count(start + 1)}\N{EN DASH}{wording.count(start + count)}"
        st.markdown(f"**{extent}** of {wording.count(total)}", width="content")
        if pages > 1:
            st.number_input(
                f"Page, of {wording.count(pages)}",
                min_value=1,
                max_value=pages,
                key=PAGE_KEY,
                persist_state="session",
                label_visibility="collapsed",
                width=104,
                help=f"Page, of {wording.count(pages)}.",
            )
        st.selectbox(
            "Entries on a page",
            browse_links.SIZES,
            format_func=lambda size: f"{size} per page",
            key=SIZE_KEY,
            persist_state="session",
            label_visibility="collapsed",
            width=136,
        )
        _show_cleanup_button(entry_filter, total)


def _show_cleanup_button(entry_filter: EntryFilter, count: int) -> None:
    pressed = st.button(
        f"Clean up all {wording.count(count)}",
        icon=":material/cleaning_services:",
        key="browse_cleanup",
        type="tertiary",
        help="Opens Cleanup with this filter: there, all that match can be exported, removed or given a TTL.",
    )
    if pressed:
        st.session_state[CLEANUP_FILTER_KEY] = entry_filter.to_dict()
        st.switch_page(CLEANUP_PAGE)


def _show_ages(name: str, index: EntryIndex, entry_filter: EntryFilter) -> None:
    matches.age_line(entry_filter)
    indexes.age_line(name, index)


def _show_first(name: str, view: View, bar: DeltaGenerator) -> None:
    """What is quickly found, while all entries are still being listed."""
    if not view.entry_filter.is_empty:
        return
    cache = session.open_cache(name, refresh_ttl=False)
    keys = entry_frames.first_keys(cache.connection, name, view.size)
    if keys:
        _show_rows(name, None, entry_frames.read_rows(cache, keys), view, bar)
        st.caption("The first that were found. Their order, filters and further pages come when all are listed.")


# -------------------------------------------------------------------------------------------------- nothing to show


def _show_no_match(entry_filter: EntryFilter) -> None:
    with st.container(border=True):
        st.subheader("No entry matches", anchor=False)
        st.write(f"None of the cache's entries is as asked: {', '.join(filter_builder.in_words(entry_filter))}.")
        st.button("Clear the filter", icon=":material/filter_alt_off:", key="clear_filter", on_click=_clear_filter)


def _show_empty(name: str) -> None:
    with st.container(border=True):
        st.subheader("No entries yet", anchor=False)
        st.write(
            f"The cache {wording.code_span(name, 80)} holds nothing here. When it does, this page lists its entries "
            "with their texts, models, ages and vectors, finds the ones you look for, and lets you drop them, set "
            "their TTL, export or compare them."
        )
        empty_states.sample_data_button()
        st.page_link("pages/embed.py", label="Embed some texts", icon=":material/bolt:")


# -------------------------------------------------------------------------------------------------- one entry


def _show_entry(name: str, key: str) -> None:
    st.divider()
    with st.container(horizontal=True, vertical_alignment="center"):
        st.subheader("Entry", anchor=False, width="content")
        st.button("Close", icon=":material/close:", key="close_entry", type="tertiary", on_click=_open, args=(None,))
    parts = split_key(key)
    if parts is None:
        st.warning(
            "The key in this address has not the form of a key: a cache's name, a colon and 64 hex digits, all lower "
            "case. Check the link.",
            icon=":material/warning:",
        )
        return
    if parts[0] != name:
        _show_foreign(parts[0])
        return
    summary, entry = entry_frames.read_entry(session.open_cache(name, refresh_ttl=False), key)
    if summary is not None and entry is not None:
        entry_view.show(name, entry, summary)
    else:
        _show_unreadable(name, key)


def _show_foreign(owner: str) -> None:
    st.warning(
        f"This entry is of another cache, {wording.code_span(owner, 80)}.",
        icon=":material/warning:",
    )
    st.button("Show it there", icon=":material/swap_horiz:", key="change_cache", on_click=_change_cache, args=(owner,))


def _change_cache(name: str) -> None:
    st.session_state[session.CACHE_KEY] = name


def _show_unreadable(name: str, key: str) -> None:
    """An entry without a vector that can be shown: damaged, or gone."""
    (row,) = entry_frames.read_rows(session.open_cache(name, refresh_ttl=False), [key])
    if row.state == "Gone":
        st.info("The cache holds nothing under this key: it expired, or somebody dropped it.", icon=":material/info:")
    elif row.state == "RedisVL":
        st.warning(
            "RedisVL wrote this entry, and its vector cannot be read: it is no JSON list of numbers. To remove the "
            "entry, tick it in the table and press Drop.",
            icon=":material/warning:",
        )
    else:
        st.warning(
            f"The value under this key, {wording.size(row.value_bytes)}, cannot be read as an entry: it is damaged, or "
            "another program wrote it. To remove it, tick it in the table and press Drop.",
            icon=":material/warning:",
        )
    if row.summary is not None:
        entry_view.text_block(row.summary.text)
        st.caption(f"Model {wording.code_span(row.summary.model_name, 200)}")
        if row.summary.metadata:
            entry_view.metadata_block(row.summary.metadata)
    st.code(wording.visible(key), language=None, wrap_lines=True)


# -------------------------------------------------------------------------------------------------- the page


def _show(name: str, view: View, bar: DeltaGenerator) -> None:
    """The entries, and the one that is open."""
    # In a function, for what a page's own names hold lives as long as the session: an index of a million entries each.
    table = st.container()
    index = indexes.look(name)  # how far that is stands below the table, which thus stays where it is
    with table:
        if index is None:
            _show_first(name, view, bar)
        elif not len(index):
            _show_empty(name)
        else:
            _show_page(name, index, view, bar)
    if index is not None:
        _show_ages(name, index, view.entry_filter)
    if view.key:
        _show_entry(name, view.key)


widgets.header("Browse", "The entries of the cache: find them, look into them, change or compare those you tick.")
_follow_link()
with widgets.errors_as_sentences():
    view, bar = _choose()
    widgets.require_server()
widgets.show_notice()

name = session.cache_name()
with widgets.errors_as_sentences():
    _show(name, view, bar)
shown = replace(view, page=st.session_state.get(PAGE_KEY) or 1)
links.write("browse", {links.CACHE: name, **browse_links.write(shown)}, name_cache=True)
