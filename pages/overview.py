"""Overview: which server this is, how it is, and what is kept on it."""

import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from embedcache.errors import ServerReplyError
from embedcache.inspector import ServerInfo
from pages.ui import charts, frames, session, widgets, wording

# -------------------------------------------------------------------------------------------------- parts


def _show_empty() -> None:
    with st.container(border=True):
        st.subheader("Nothing is cached here yet", anchor=False)
        st.write(
            "When vectors are stored, this page counts them: how many entries each cache and each model has, and what "
            "they cost in memory. Embed a text and it is the first."
        )
        st.page_link("pages/embed.py", label="Embed a first text", icon=":material/bolt:")


def _show_metrics(found: session.Server, info: ServerInfo) -> None:
    caches = found.survey.caches if found.survey else ()
    values = sum(cache.bytes for cache in caches)
    least = "" if found.survey is None or found.survey.complete else "≥ "
    cells = widgets.metric_cells()
    cells.metric(
        "Entries",
        least + wording.count(sum(cache.entries for cache in caches)),
        border=True,
        help=f"In {wording.counted(len(caches), 'cache')}, among {wording.counted(info.total_keys, 'key')} in all.",
    )
    cells.metric(
        "Values",
        least + wording.size(values),
        border=True,
        help=f"{wording.count(values)} bytes of vectors, texts and metadata; the server's bookkeeping is extra.",
    )
    cells.metric(
        "Server memory",
        wording.size(info.used_memory_bytes),
        border=True,
        help=f"{wording.count(info.used_memory_bytes)} bytes in use, {_memory_limit(info)}.",
    )
    _show_hit_rate(cells)


def _show_hit_rate(cells: DeltaGenerator) -> None:
    name = wording.code_span(session.cache_name(), 80)
    try:
        day = session.open_cache(session.cache_name()).stats("24h")
    except ServerReplyError:  # an ACL may forbid the statistics' keys, and the rest of the page works without
        cells.metric("Hit rate, 24 h", "unknown", border=True, help="The server does not tell.")
        return
    cells.metric(
        "Hit rate, 24 h",
        "no lookups" if day.hit_rate is None else wording.share(day.hit_rate),
        border=True,
        help=f"Of {wording.counted(day.texts, 'text')} looked up in the cache {name}, which is chosen in the sidebar.",
    )


def _memory_limit(info: ServerInfo) -> str:
    return f"of {wording.size(info.maxmemory_bytes)}" if info.maxmemory_bytes else "no limit set"


def _show_models(found: session.Server) -> None:
    st.subheader("Entries per model", anchor=False)
    frame = frames.models_frame(found.survey.caches if found.survey else ())
    shown = f"{row.model}: {row.entries}" if (row := next(frame.itertuples(), None)) else ""
    st.plotly_chart(
        charts.entries_per_model(frame, session.theme()),
        key="models",
        config=charts.CONFIG,
        alt=f"Bars of entries per model, most first. {wording.one_line(shown)}",
    )


def _show_caches(found: session.Server) -> None:
    st.subheader("Caches", anchor=False)
    survey = found.survey
    if survey is None:
        return
    st.dataframe(
        frames.caches_frame(survey),
        hide_index=True,
        column_config={
            "cache": st.column_config.TextColumn("Cache", width=128),
            "entries": st.column_config.NumberColumn("Entries", format="localized", width=70),
            "models": st.column_config.NumberColumn("Models", format="localized", width=62),
            "mebibytes": st.column_config.NumberColumn("Values", format="%.2f MiB", width=94),
        },
    )
    if not survey.complete:
        st.caption(f"Lower bounds: only the first {wording.count(survey.scanned_keys)} keys were looked at.")


def _show_server(info: ServerInfo) -> None:
    st.subheader("Server", anchor=False)
    facts = {
        "Kind": wording.plain_label(f"{info.kind} {info.version} {info.mode}"),
        "Address": wording.code_span(info.address, 200),  # a table's cells read Markdown
        "Round trip": wording.elapsed(info.round_trip_seconds),
        "Memory": f"{wording.size(info.used_memory_bytes)}, {_memory_limit(info)}",
        "When full": _eviction(info),
        "On disk": "Each write is logged" if info.aof_enabled else "No log of writes",
        "Running for": wording.duration(info.uptime_seconds),
        "Connections": wording.count(info.connected_clients),
    }
    st.table(
        [{"fact": fact, "value": value} for fact, value in facts.items()],
        border="horizontal",
        hide_index=True,
        hide_header=True,
    )


def _eviction(info: ServerInfo) -> str:
    if not info.maxmemory_bytes:
        return "Never: there is no limit"
    refuses = info.maxmemory_policy == "noeviction"
    return (
        "Refuses writes"
        if refuses
        else f"Evicts ({wording.plain_label(info.maxmemory_policy)}), {info.evicted_keys:,} so far"
    )


def _show_chosen(found: session.Server) -> None:
    name = session.cache_name()
    summary, cache = found.summary(name), session.open_cache(name)
    lives = "never expire" if cache.ttl is None else f"expire in {wording.duration(cache.ttl)}"
    entries = wording.counted(summary.entries, "entry", "entries")
    st.caption(
        f"Chosen in the sidebar: {wording.code_span(name)}, with {entries}. "
        f"What this dashboard stores there will {lives} by default, as {cache.dtype}."
    )
    st.page_link("pages/hit_rates.py", label="Hit rates over time", icon=":material/percent:")


# -------------------------------------------------------------------------------------------------- the page

title, action = st.columns([6, 1], vertical_alignment="bottom")
with title:
    widgets.header("Overview", "Which server this is, how it is, and what is kept on it.")
action.button("Refresh", icon=":material/refresh:", on_click=session.count_again, width="stretch")

with widgets.errors_as_sentences():
    found = widgets.require_server()
    if found.refusal is not None:
        raise found.refusal
if (info := found.info) is None:
    st.stop()

with widgets.errors_as_sentences():
    _show_metrics(found, info)
main, side = st.columns([3, 2], gap="large")
with main:
    if found.survey is not None and found.survey.caches:
        _show_models(found)
        _show_caches(found)
    else:
        _show_empty()
    _show_chosen(found)
with side:
    _show_server(info)
