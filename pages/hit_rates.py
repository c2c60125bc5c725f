"""Hit rates: how often the cache answers, how fast, what that saves, and why it misses."""

import contextlib
import time
from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd
import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from embedcache import CacheUnavailableError, EmbedcacheError, EmbeddingsCache
from embedcache.buckets import SlowLookup
from embedcache.errors import EmbeddedServerError
from embedcache.statistics import CacheStats
from pages.ui import charts, empty_states, prices, session, stats_frames, trends, widgets, windows, wording
from pages.ui.windows import TimeAxis, Window

WINDOW_KEY = "rates_window"
MODEL_KEY = "rates_model"
SEEN_KEY = "rates_models_seen"
AWAY_KEY = "rates_server_away"
ALL_MODELS = ""  # no model has this name
UNKNOWN = "unknown"
CARDS = 6


@dataclass(frozen=True, slots=True)
class Fetched:
    """What one refresh of the page shows.

    Attributes:
        steps: The window, step by step.
        whole: All of it.
        before: The stretch of the same length before it.
        by_model: All of it, for each model, whichever is chosen.
        slow: The last slow lookups, of all models and times.
        at: When it was fetched, in Unix seconds.
    """

    steps: list[CacheStats]
    whole: CacheStats
    before: CacheStats
    by_model: dict[str, CacheStats]
    slow: list[SlowLookup]
    at: float


# -------------------------------------------------------------------------------------------------- controls


def _choose(models: Sequence[str]) -> tuple[Window, str | None, bool]:
    """The window, the model or None for all of them, and whether the page refreshes itself."""
    with st.container(horizontal=True, vertical_alignment="bottom", gap="medium"):
        span = st.radio(
            "Window",
            [window.span for window in windows.WINDOWS],
            index=windows.WINDOWS.index(windows.DEFAULT),
            format_func=lambda option: windows.BY_SPAN[option].label,
            horizontal=True,
            key=WINDOW_KEY,
            persist_state="session",
            help="How far back from now.",
        )
        model = st.selectbox(
            "Model",
            [ALL_MODELS, *models],
            format_func=lambda name: wording.one_line(name, 200) if name else "All models",
            key=MODEL_KEY,
            persist_state="session",
            width=280,
        )
        window = windows.BY_SPAN[span or windows.DEFAULT.span]
        live = st.toggle(
            "Live",
            value=True,
            key="rates_live",
            persist_state="session",
            help=f"Asks the server anew every {window.refresh_seconds} s.",
        )
    return window, model or None, live


def _models() -> list[str]:
    """The models that this cache was ever asked for, as far as is known without the server."""
    name = session.cache_name()
    seen: dict[str, set[str]] = st.session_state.setdefault(SEEN_KEY, {})
    known = seen.setdefault(name, set())
    if session.server().error is None:
        with contextlib.suppress(EmbedcacheError):  # the part below asks again, and says what is wrong
            known.update(session.open_cache(name).stats_by_model("all"))
    return sorted(known)


# -------------------------------------------------------------------------------------------------- fetch


def _fetch(cache: EmbeddingsCache, window: Window, model: str | None) -> Fetched:
    steps = cache.stats_series(window.span, window.step, model)
    # The sums are of just these steps, so that the cards add up to what the charts show.
    start, end = steps[0].start, steps[-1].end
    return Fetched(
        steps=steps,
        whole=cache.stats((start, end), model),
        before=cache.stats((start - window.seconds, start), model),
        by_model=cache.stats_by_model((start, end)),
        slow=cache.slow_lookups(),
        at=time.time(),
    )


def _keep_frame_in_step(*, away: bool) -> None:
    """Runs the whole page once when the server goes or comes back, so that the badge beside it says so too."""
    if st.session_state.get(AWAY_KEY, False) != away:
        st.session_state[AWAY_KEY] = away
        st.rerun()


def _offer_new_models(found: Fetched) -> None:
    """Runs the whole page once when a model is new, so that it can be chosen."""
    known = st.session_state.setdefault(SEEN_KEY, {}).setdefault(session.cache_name(), set())
    if new := found.by_model.keys() - known:
        known.update(new)
        st.rerun()


# -------------------------------------------------------------------------------------------------- cards


def _show_cards(found: Fetched, window: Window) -> None:
    whole = found.whole
    cells = widgets.metric_cells(CARDS)
    _show_rate(cells, found, window)
    cells.metric(
        "Texts looked up",
        wording.count(whole.texts),
        border=True,
        height="stretch",
        help=f"In {wording.counted(whole.lookups, 'lookup')}. A lookup is one call, of one text or of a batch.",
    )
    cells.metric(
        "Lookup p95",
        UNKNOWN if whole.p95 is None else wording.elapsed(whole.p95),
        border=True,
        height="stretch",
        help="No lookup was timed in this window."
        if whole.p95 is None or whole.p50 is None or whole.p99 is None
        else f"95% of lookups took no longer; half of them no longer than {wording.elapsed(whole.p50)}, "
        f"99% no longer than {wording.elapsed(whole.p99)}.",
    )
    cells.metric(
        "Errors",
        wording.count(whole.errors),
        border=True,
        height="stretch",
        help="Calls that the server did not answer, or answered with an error.",
    )
    _show_time_saved(cells, whole)
    _show_money_saved(cells, whole)


def _show_rate(cells: DeltaGenerator, found: Fetched, window: Window) -> None:
    whole, before = found.whole, found.before
    points = None if whole.hit_rate is None or before.hit_rate is None else (whole.hit_rate - before.hit_rate) * 100
    cells.metric(
        "Hit rate",
        UNKNOWN if whole.hit_rate is None else wording.share(whole.hit_rate),
        None if points is None else f"{points:+.1f} points",
        delta_color="off" if points is None or not round(points, 1) else "normal",
        border=True,
        height="stretch",
        help=f"{whole.hits + whole.near_hits:,} of {wording.counted(whole.texts, 'text')} were found. "
        + (
            f"In the {window.label} before, no text was looked up."
            if before.hit_rate is None
            else f"In the {window.label} before, it was {wording.share(before.hit_rate)}."
        ),
    )


def _show_time_saved(cells: DeltaGenerator, whole: CacheStats) -> None:
    cells.metric(
        "Time saved",
        UNKNOWN if whole.time_saved is None else _span(whole.time_saved),
        border=True,
        height="stretch",
        help="Not measured yet: it is not known what the model takes for a text. The package's vectorizers measure it; "
        "other programs tell it with `cache.record_computation`."
        if whole.time_saved is None
        else "What the texts found would have taken the model, by all its measurements so far.",
    )


def _show_money_saved(cells: DeltaGenerator, whole: CacheStats) -> None:
    if whole.money_saved is None and whole.tokens_saved is not None:
        cells.metric(
            "Tokens saved",
            wording.count(round(whole.tokens_saved)),
            border=True,
            height="stretch",
            help="As the vectorizer counts or estimates them. Set a price below to see what they are worth.",
        )
        return
    cells.metric(
        "Money saved",
        UNKNOWN if whole.money_saved is None else wording.amount(whole.money_saved),
        border=True,
        height="stretch",
        help="Not measured yet: it takes a vectorizer that counts tokens, and a price, which can be set below."
        if whole.money_saved is None
        else "The tokens of the texts found, at the prices set below and in their currency.",
    )


def _span(seconds: float) -> str:
    return wording.elapsed(seconds) if seconds < 1 else wording.duration(seconds)


# -------------------------------------------------------------------------------------------------- charts


def _show_charts(found: Fetched, window: Window, model: str | None) -> None:
    zone = session.zone()
    steps = found.steps
    frame = stats_frames.steps_frame(steps, lambda start, end: windows.step_label(window, start, end, zone))
    length = steps[1].start - steps[0].start
    axis = windows.time_axis(window, steps[0].start, steps[-1].start + length, zone)
    cells = st.grid(2, min_column_width=320, gap=("small", "large"))
    with cells.container():
        st.subheader("Hit rate", anchor=False)
        _draw("rate", trends.hit_rate(frame, axis, session.theme()), _rate_in_words(found.whole, window))
    with cells.container():
        st.subheader("Texts looked up", anchor=False)
        _draw("texts", trends.texts_looked_up(frame, axis, session.theme()), "Bars of hits, near hits and misses.")
    with cells.container():
        st.subheader("How long lookups take", anchor=False)
        _draw("latency", trends.latency(frame, axis, session.theme()), "Lines of what lookups took, by share of them.")
    with cells.container():
        st.subheader("Time saved", anchor=False)
        _show_saved(frame, axis)
    with cells.container():
        _show_models(found.by_model, model)
    with cells.container():
        _show_facts(found.whole)


def _draw(key: str, figure: object, alt: str) -> None:
    st.plotly_chart(figure, key=f"rates_{key}", config=charts.CONFIG, alt=alt)


def _rate_in_words(whole: CacheStats, window: Window) -> str:
    rate = UNKNOWN if whole.hit_rate is None else wording.share(whole.hit_rate)
    return f"The hit rate over the last {window.label}: {rate} in all, with {wording.counted(whole.errors, 'error')}."


def _show_saved(frame: pd.DataFrame, axis: TimeAxis) -> None:
    if frame["saved_so_far"].isna().all():
        st.caption(
            "Not measured yet: it is not known what the model takes for a text. The package's vectorizers measure it "
            "by themselves; other programs tell it with `cache.record_computation`."
        )
        return
    _draw("saved", trends.time_saved(frame, axis, session.theme()), "A line of the computing time saved so far.")


# -------------------------------------------------------------------------------------------------- tables


def _show_models(by_model: dict[str, CacheStats], chosen: str | None) -> None:
    st.subheader("By model", anchor=False)
    frame = stats_frames.hits_by_model_frame(by_model)
    if frame.empty:
        st.caption("No model was named: entries were looked up by their keys alone.")
        return
    _draw("models", trends.hits_by_model(frame, session.theme()), "Bars of hits, near hits and misses of each model.")
    if chosen is not None:
        st.caption("All models are shown here, whichever is chosen above.")


def _show_facts(whole: CacheStats) -> None:
    st.subheader("What happened", anchor=False)
    elsewhere = whole.misses - whole.expired - whole.evicted - whole.corrupt
    facts = {
        "Misses": wording.count(whole.misses),
        "… had expired": _part(whole.expired, whole.misses),
        "… were evicted": _part(whole.evicted, whole.misses),
        "… were damaged": _part(whole.corrupt, whole.misses),
        "… were not there": _part(elsewhere, whole.misses),
        "Stored": f"{wording.counted(whole.sets, 'entry', 'entries')}, {wording.size(whole.bytes_written)}",
        "Dropped": wording.counted(whole.drops, "entry", "entries"),
        "Read": wording.size(whole.bytes_read),
        "Computed": _computed(whole),
        "Not computed twice": wording.counted(whole.flights_saved, "text"),
    }
    st.table(
        [{"fact": fact, "value": value} for fact, value in facts.items()],
        border="horizontal",
        hide_index=True,
        hide_header=True,
    )
    st.caption(
        "Expired: its TTL had run out. Evicted: removed by a full server, or by another program; both as far as that "
        "is on record. Not there: never stored, or dropped. Not computed twice: somebody else was computing the same "
        "text at that moment."
    )


def _part(number: int, whole: int) -> str:
    return f"{number:,} ({wording.share(number / whole)})" if number else wording.count(number)


def _computed(whole: CacheStats) -> str:
    if not whole.texts_computed:
        return "Nothing that was told"
    tokens = f", {wording.counted(whole.tokens_computed, 'token')}" if whole.tokens_computed else ""
    return f"{wording.counted(whole.texts_computed, 'text')}{tokens}, in {_span(whole.compute_seconds)}"


def _show_slow(slow: Sequence[SlowLookup]) -> None:
    st.subheader("Slow lookups", anchor=False)
    if not slow:
        st.caption(
            "The last 100 lookups that took longer than a threshold are listed here: when, how long, for which model. "
            "There is none. The threshold is set where a cache is opened: `EmbeddingsCache(slow_lookup_seconds=0.1)`."
        )
        return
    st.dataframe(
        stats_frames.slow_frame(slow),
        hide_index=True,
        height=min(420, 38 + 35 * len(slow)),
        column_config={
            "at": st.column_config.DatetimeColumn(
                "When", format="D MMM, HH:mm:ss", timezone=session.zone().key, width=120
            ),
            "ms": st.column_config.NumberColumn("Took", format="%.0f ms", width=80),
            "texts": st.column_config.NumberColumn("Texts", format="localized", width=64),
            "hits": st.column_config.NumberColumn("Hits", format="localized", width=64),
            "model": st.column_config.TextColumn("Model", width=280),
            "text": st.column_config.TextColumn("Text", width=220),
            "entry": st.column_config.LinkColumn("Entry", display_text="Look up", width=84),
            "key": st.column_config.TextColumn("Key", width=160),
            "process": st.column_config.TextColumn("Process", width=140),
        },
        key="rates_slow",
    )
    st.caption(
        f"The last {wording.counted(len(slow), 'lookup')} over the threshold, whenever that was and whichever model is "
        "chosen; entry and key are of the first text asked for. The threshold is "
        "`EmbeddingsCache(slow_lookup_seconds=0.1)`; texts are kept only with `slow_lookup_texts=True`."
    )


# -------------------------------------------------------------------------------------------------- nothing yet


def _show_empty(cache: EmbeddingsCache, window: Window, model: str | None) -> None:
    asked = "Nothing was looked up" if model is None else f"{wording.code_span(model, 80)} was not asked for"
    name = wording.code_span(cache.name, 80)
    longer = _longer_window(cache, window, model)
    ever = cache.stats("all", model).texts
    with st.container(border=True):
        st.subheader(f"Nothing in the last {window.label}" if ever else "Nothing to show yet", anchor=False)
        if longer is not None:
            st.write(f"{asked} in the cache {name} in this time; further back there is something.")
            if st.button(
                f"Show the last {longer.label}",
                icon=":material/history:",
                on_click=_switch_to,
                args=(longer,),
                key="rates_longer",
            ):
                st.rerun()
        elif ever:
            st.write(f"{asked} in the cache {name} in this time. Before that, it was {wording.counted(ever, 'text')}.")
        else:
            _teach(cache)


def _longer_window(cache: EmbeddingsCache, window: Window, model: str | None) -> Window | None:
    longer = (each for each in windows.WINDOWS if each.seconds > window.seconds)
    return next((each for each in longer if cache.stats(each.span, model).texts), None)


def _switch_to(window: Window) -> None:
    st.session_state[WINDOW_KEY] = window.span


def _teach(cache: EmbeddingsCache) -> None:
    st.write(
        "When texts are looked up, by this dashboard or by any program that uses this cache, this page shows how many "
        "were found, how long that took, and what it saved. Embed a text twice: a miss, then a hit."
    )
    st.page_link("pages/embed.py", label="Embed a text", icon=":material/bolt:")
    empty_states.sample_data_button(looked_up=True)
    st.write("Or from Python:")
    st.code(
        "from embedcache import EmbeddingsCache, HFTextVectorizer\n"
        f"vectorizer = HFTextVectorizer(cache=EmbeddingsCache({cache.name!r}))\n"
        "vector = vectorizer.embed('What is AI?')  # computed the first time, read after that",
        language=None,  # the colours of highlighted code are too pale to read, in both themes
        wrap_lines=True,
    )


# -------------------------------------------------------------------------------------------------- the page


def _show(window: Window, model: str | None) -> None:
    """The part that refreshes itself."""
    with widgets.errors_as_sentences():
        try:
            cache = session.open_cache(session.cache_name())  # the one that counts, so that its last counts are in
            found = _fetch(cache, window, model)
        except (CacheUnavailableError, EmbeddedServerError):
            _keep_frame_in_step(away=True)
            raise
        _keep_frame_in_step(away=False)
        _offer_new_models(found)
        if not found.whole.texts and not found.whole.errors:
            _show_empty(cache, window, model)
        else:
            _show_found(found, window, model)
        _show_slow(found.slow)


def _show_found(found: Fetched, window: Window, model: str | None) -> None:
    _show_cards(found, window)
    zone = session.zone()
    st.caption(
        "A lookup is one call, of one text or of a batch; hits and misses count texts. "
        f"One step is {window.step_label}, by the server's clock. As of {wording.moment(found.at, zone)} ({zone.key})."
    )
    _show_charts(found, window, model)


widgets.header("Hit rates", "How often the cache answers, how fast, what that saves, and why it misses.")
models = _models()
window, model, live = _choose(models)
st.fragment(_show, run_every=window.refresh_seconds if live else None)(window, model)
with widgets.errors_as_sentences(), st.expander("Token prices", icon=":material/payments:", key="prices"):
    prices.price_editor(session.cache_name(), models)
