"""Overview: what is kept in the chosen cache, whether its server is well, and what else is there."""

from collections.abc import Sequence
from typing import Literal

import streamlit as st
from plotly.graph_objects import Figure
from streamlit.delta_generator import DeltaGenerator

from embedcache.errors import ServerReplyError
from embedcache.index import EntryIndex
from embedcache.inspector import ServerInfo
from embedcache.statistics import CacheStats
from pages.ui import cache_counts, charts, empty_states, indexes, longwork, session, stocktaking, widgets, wording

CARD_PIXELS = 206  # one with a line; those without are as high, so that nothing moves when the line comes
NEARLY_FULL = 0.9
NAMED_CACHES = 5
EVICTIONS = {
    "noeviction": "Refuses new entries",
    "allkeys-lru": "Evicts what was not read for longest",
    "allkeys-lfu": "Evicts what is read least often",
    "allkeys-random": "Evicts anything",
    "volatile-lru": "Evicts what was not read for longest, of what expires",
    "volatile-lfu": "Evicts what is read least often, of what expires",
    "volatile-random": "Evicts anything that expires",
    "volatile-ttl": "Evicts what expires soonest",
}


# -------------------------------------------------------------------------------------------------- fetch


def _stats_of_day() -> list[CacheStats] | None:
    """The last 24 hours by the hour, or None where the server does not tell."""
    try:
        return session.open_cache(session.cache_name(), refresh_ttl=False).stats_series("24h", "1h")
    except ServerReplyError:  # an ACL may forbid the statistics' keys, and the rest of the page works without
        return None


def _models_pixels() -> int:
    """How high the bars of the models will be, going by the models of a few entries."""
    try:
        return stocktaking.by_model_pixels(len(session.models(session.cache_name())))
    except ServerReplyError:  # who may not look at entries is told so where they would be
        return stocktaking.by_model_pixels(1)


def _refresh(name: str) -> None:
    session.count_again()
    indexes.refresh(name)
    cache_counts.counted(again=True)


# -------------------------------------------------------------------------------------------------- cards


def _card(
    slot: DeltaGenerator,
    label: str,
    value: str,
    said: str,
    line: Sequence[float] = (),
    span: str | None = None,
    kind: Literal["line", "bar", "area"] = "area",
) -> None:
    """A metric with a line below it, of which `span` says what it covers."""
    slot.metric(
        label,
        value,
        delta=span,
        delta_arrow="off",
        delta_color="blue",  # the line's too; without a delta it would be grey
        border=True,
        height=CARD_PIXELS,
        help=said,
        chart_data=line,
        chart_type=kind,
    )


def _show_rates(rate: DeltaGenerator, saved: DeltaGenerator) -> None:
    hours = _stats_of_day()
    if hours is None:
        for slot, label in ((rate, "Hit rate, 24 h"), (saved, "Time saved, 24 h")):
            _card(slot, label, "unknown", "The server does not tell: it keeps us from reading the statistics.")
        return
    texts = sum(hour.texts for hour in hours)
    found = sum(hour.hits + hour.near_hits for hour in hours)
    _card(
        rate,
        "Hit rate, 24 h",
        wording.share(found / texts) if texts else "no lookups",
        f"Of {wording.counted(texts, 'text')} looked up in the chosen cache.",
        # An hour without lookups has no rate: there the line breaks off.
        [float("nan") if hour.hit_rate is None else 100 * hour.hit_rate for hour in hours] if texts else (),
        "by the hour" if texts else None,
        "line",
    )
    spared = [hour.time_saved for hour in hours if hour.time_saved is not None]
    _card(
        saved,
        "Time saved, 24 h",
        _span(sum(spared)) if spared else "unknown" if texts else "none yet",
        "What computing the texts that were found would have taken, by what their model took for others."
        if spared or not texts
        else "No program has said yet how long its model takes. Vectorizers say so by themselves.",
        [hour.time_saved or 0.0 for hour in hours] if spared else (),
        "by the hour" if spared else None,
        "bar",
    )


def _span(seconds: float) -> str:
    return wording.elapsed(seconds) if seconds < 1 else wording.duration(seconds)


def _show_amounts(entries: DeltaGenerator, memory: DeltaGenerator, index: EntryIndex | None) -> None:
    if index is None:
        for slot, label in ((entries, "Entries"), (memory, "Memory")):
            _card(slot, label, "…", "What is in the cache has not been looked at yet.")
        return
    grown = stocktaking.growth(index)
    days = f"last {stocktaking.DAYS} days"
    _card(
        entries,
        "Entries",
        wording.count(len(index)),
        f"{_parts(index)} The line: how many of them were there by the end of each day.",
        grown.entries if len(index) else (),
        days if len(index) else None,
    )
    cost = stocktaking.memory_bytes(index.by_model())
    _card(
        memory,
        "Memory",
        wording.size(cost),
        f"About {wording.count(cost)} bytes on the server, reckoned from a sample. Of that, values are "
        f"{wording.size(grown.value_bytes[-1])}. The line: those of them that were there by the end of each day.",
        grown.value_bytes if len(index) else (),
        days if len(index) else None,
    )


def _parts(index: EntryIndex) -> str:
    parts = ["In the cache that is chosen in the sidebar."]
    if index.redisvl_entries:
        parts.append(f"RedisVL stored {wording.count(index.redisvl_entries)} of them.")
    return " ".join(parts)


# -------------------------------------------------------------------------------------------------- the cache


def _show_cache(index: EntryIndex) -> None:
    ages, leaving = st.columns(2)
    with ages:
        st.subheader("By age", anchor=False)
        frame = stocktaking.ages_frame(index)
        _draw(stocktaking.by_age(frame, session.theme()), "ages", f"Entries by age. {stocktaking.in_words(frame)}")
    with leaving:
        st.subheader("When they leave", anchor=False)
        frame = stocktaking.leaving_frame(index.expiry_forecast())
        said = f"Entries by when they expire. {stocktaking.in_words(frame)}"
        _draw(stocktaking.by_leaving(frame, session.theme()), "leaving", said)
    models = stocktaking.models_frame(index.by_model())
    counted, weighed = st.columns(2)
    with counted:
        st.subheader("Entries by model", anchor=False)
        if len(models):
            _draw(stocktaking.entries_by_model(models, session.theme()), "models", "Entries of each model")
    with weighed:
        st.subheader("Memory by model", anchor=False)
        if len(models):
            said = "About how much memory the entries of each model take"
            _draw(stocktaking.memory_by_model(models, session.theme()), "models_memory", said)
    _show_links()
    if index.unreadable:
        values = wording.counted(index.unreadable, "value")
        st.caption(f":material/warning: {values} of this cache cannot be read. Cleanup finds and removes such values.")


def _show_links() -> None:
    with st.container(horizontal=True):
        st.page_link(
            "pages/browse.py",
            label="Browse what leaves first",
            icon=":material/table_rows:",
            query_params={"sort": "expires_at"},
        )
        st.page_link("pages/cleanup.py", label="Clean up", icon=":material/cleaning_services:")
        st.page_link("pages/hit_rates.py", label="Hit rates over time", icon=":material/percent:")


def _draw(figure: Figure, key: str, alt: str) -> None:
    st.plotly_chart(figure, key=key, config=charts.CONFIG, alt=f"{alt}.")


def _show_outline() -> DeltaGenerator:
    """Draws how much room `_show_cache` will take; returns the place of the first figure, for how far it is."""
    ages, leaving = st.columns(2)
    with ages:
        st.subheader("By age", anchor=False)
        progress = st.container(height=stocktaking.SPANS_PIXELS, border=False, vertical_alignment="center")
    with leaving:
        st.subheader("When they leave", anchor=False)
        st.skeleton(height=stocktaking.SPANS_PIXELS)
    counted, weighed = st.columns(2)
    for place, title in ((counted, "Entries by model"), (weighed, "Memory by model")):
        with place:
            st.subheader(title, anchor=False)
            st.skeleton(height=_models_pixels())
    _show_links()
    return progress


def _show_empty() -> None:
    chosen, counting = session.cache_name(), cache_counts.counted()
    others = [name for name in counting.result.keys.by_cache if name != chosen] if counting.state == "done" else []
    with st.container(border=True):
        if others:
            named = ", ".join(wording.code_span(name, 60) for name in others[:NAMED_CACHES])
            more = len(others) - NAMED_CACHES
            st.subheader("This cache is empty", anchor=False)
            st.write(
                f"There are entries on this server, but in {named}{f' and {more} more' if more > 0 else ''}, and none "
                f"in {wording.code_span(chosen, 60)}. Choose another cache in the sidebar."
            )
        else:
            st.subheader("Nothing is cached here yet", anchor=False)
        st.write(
            "When vectors are stored, this page shows how many there are of each model and age, what they cost in "
            "memory, and when they leave. Embed a text and it is the first, or load some to look around."
        )
        st.page_link("pages/embed.py", label="Embed a first text", icon=":material/bolt:")
        empty_states.sample_data_button()


# -------------------------------------------------------------------------------------------------- the server


def _show_caches() -> None:
    st.subheader("Caches on this server", anchor=False)
    counting = cache_counts.counted()
    if not longwork.shown(counting, "Counting keys", unit=("key", "keys")):
        return
    counts = counting.result
    if not counts.keys.by_cache:
        st.caption("None yet.")
        return
    cache_counts.draw_table(counts, key="caches")
    others = f" Beside them, {wording.counted(counts.keys.others, 'key')} of no entry." if counts.keys.others else ""
    st.caption(f"Counted {wording.ago(counting.seconds_since_end)}.{others}")


def _show_server(info: ServerInfo | None) -> None:
    st.subheader("Server", anchor=False)
    if info is None:
        st.caption(
            "It does not say how it is: the user in its URL may not ask it for INFO. Whoever runs it can allow that."
        )
        return
    facts = {
        "Kind": wording.plain_label(f"{info.kind} {info.version} {info.mode}"),
        "Address": wording.code_span(info.address, 200),  # a table's cells read Markdown
        "Round trip": wording.elapsed(info.round_trip_seconds),
        "Memory": f"{wording.size(info.used_memory_bytes)} {_memory_limit(info)}",
        "When full": _eviction(info),
        "Evicted": f"{wording.counted(info.evicted_keys, 'key')} since it started",
        "On disk": _persistence(info),
        "Running for": wording.duration(info.uptime_seconds),
        "Connections": wording.count(info.connected_clients),
        "Keys": wording.count(info.total_keys),
    }
    st.table(
        [{"fact": fact, "value": value} for fact, value in facts.items()],
        border="horizontal",
        hide_index=True,
        hide_header=True,
    )


def _memory_limit(info: ServerInfo) -> str:
    return f"of {wording.size(info.maxmemory_bytes)}" if info.maxmemory_bytes else "used"


def _eviction(info: ServerInfo) -> str:
    if not info.maxmemory_bytes:
        return "No limit is set"
    policy = info.maxmemory_policy
    return f"{EVICTIONS.get(policy, 'It does not say what it does')} ({wording.plain_label(policy)})"


def _persistence(info: ServerInfo) -> str:
    since = f"{wording.counted(info.unsaved_changes, 'change')} since"
    saved = None if info.saved_ago is None else f"last snapshot {wording.ago(info.saved_ago)}, {since}"
    if info.aof_enabled:
        return f"Each write is logged (AOF){f'; {saved}' if saved else ''}"
    return f"No log (AOF); {saved}" if saved else "Nothing: no log (AOF), and no snapshot since it started"


def _warn(info: ServerInfo) -> None:
    """Says what is wrong with the server, or will be."""
    if info.disk_trouble:
        trouble = wording.plain_label(info.disk_trouble, 200)
        st.warning(
            f"**The server could not write to its disk:** {trouble}. What is stored now may be gone after a restart. "
            "Look at the server's log.",
            icon=":material/warning:",
        )
    if not info.maxmemory_bytes:
        return
    full = info.used_memory_bytes / info.maxmemory_bytes
    policy = info.maxmemory_policy
    evicts_all = policy.startswith("allkeys")
    if full > NEARLY_FULL:
        then = "it refuses new entries" if policy == "noeviction" else "it evicts entries"
        st.warning(
            f"**The server's memory is {wording.share(full)} full.** At its limit {then}"
            f"{', also those that never expire' if evicts_all else ''}. Clean up, or give it more.",
            icon=":material/warning:",
        )
    elif evicts_all:
        st.info(
            f"When its memory is full ({wording.share(full)} now), this server evicts entries, also those that never "
            "expire.",
            icon=":material/info:",
        )


# -------------------------------------------------------------------------------------------------- the page


def _show(age: DeltaGenerator) -> None:
    """All below the title; `age` is the place for how old it is."""
    # In a function, for what a page's own names hold lives as long as the session: an index of a million entries each.
    info = widgets.require_server().info
    name = session.cache_name()
    if info is not None:
        _warn(info)
    cells = widgets.metric_cells()
    entries, memory, rate, saved = (cells.container() for _ in range(4))
    main, side = st.columns([3, 2], gap="medium")
    _show_rates(rate, saved)
    with side:
        _show_server(info)
    outlined = indexes.awaits(name)
    index = None if outlined else indexes.current(name)
    with age:
        indexes.age_line(name, index, _refresh)
    _show_amounts(entries, memory, index)
    with main:
        if outlined:
            place = _show_outline()
            indexes.current(name)
            if not indexes.awaits(name):
                st.rerun()  # draws what is there in the place of the outline
            with place:
                indexes.show_first(name)
        elif index is None:
            indexes.show_first(name)
        elif len(index):
            _show_cache(index)
        else:
            _show_empty()
    with side:
        _show_caches()


title, age = st.columns([3, 2], gap="medium", vertical_alignment="bottom")
with title:
    widgets.header("Overview", "What is kept in the cache, whether its server is well, and what else is there.")

with widgets.errors_as_sentences():
    _show(age)
