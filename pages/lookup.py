"""Lookup: entries by text and model or by key, why a text missed, and two entries compared."""

import time
from collections.abc import Mapping

import streamlit as st

from embedcache import CacheEntry, EntrySummary
from embedcache.explain import Explanation, Reason
from embedcache.keyspace import split_key
from embedcache.vectorizers import DEFAULT_MODEL
from pages.ui import (
    comparison_view,
    empty_states,
    entry_frames,
    entry_view,
    links,
    many_texts,
    nearest_view,
    session,
    widgets,
    wording,
)
from pages.ui.inputs import UnusableInputError
from pages.ui.many_texts import Looked
from pages.ui.queries import ManyTexts, Query

WAYS = {"text": "By text", "many": "Many texts", "key": "By key"}
QUERY_KEY = "looked_up"
OTHER_KEY = "compared_with"
WHYS_KEY = "explained_misses"
LINKED = ("key", "with")
MOST_SIMILAR = 5
MAX_KEYS_SEARCHED = 20_000  # for what explains a miss: under a fifth of a second

Found = tuple[CacheEntry, EntrySummary]


# -------------------------------------------------------------------------------------------------- controls


def _follow_link() -> None:
    """Takes a key from the page's address, and the one to compare it with, as if they had been typed."""
    linked = links.opened("lookup", LINKED)
    if linked.get("key", "").strip():
        _take_key(linked["key"])
        st.session_state[OTHER_KEY] = linked.get("with")


def _take_key(key: str) -> None:
    """Looks up a key as if it had been typed."""
    st.session_state["lookup_way"] = "key"
    st.session_state["lookup_key"] = key
    st.session_state[OTHER_KEY] = None
    st.session_state[QUERY_KEY] = _query_by_key(key)


def _choose() -> Query | ManyTexts | None:
    """The controls; what to look up if it was pressed, else what was looked up last."""
    way = st.radio(
        "By",
        list(WAYS),
        format_func=lambda option: WAYS[option],
        horizontal=True,
        label_visibility="collapsed",
        key="lookup_way",
        persist_state="session",
    )
    asks = {"text": _ask_text, "many": _ask_texts, "key": _ask_key}
    queries = {"text": _query_by_text, "many": _query_by_texts, "key": lambda key, _: _query_by_key(key)}
    with st.form("lookup", border=False):
        typed, model = asks[way or "text"]()
        pressed = st.form_submit_button("Look up", type="primary", icon=":material/search:")
    if pressed:
        for forgotten in (QUERY_KEY, OTHER_KEY, WHYS_KEY):
            st.session_state.pop(forgotten, None)
        with widgets.errors_as_sentences():
            st.session_state[QUERY_KEY] = queries[way or "text"](typed, model)
    return st.session_state.get(QUERY_KEY)


def _ask_text() -> tuple[str, str]:
    words, options = st.columns([3, 2], gap="large")
    text = words.text_area(
        "Text",
        placeholder="What is machine learning?",
        height=110,
        key="lookup_text",
        persist_state="session",
    )
    with options:
        return text or "", _ask_model()


def _ask_texts() -> tuple[str, str]:
    words, options = st.columns([3, 2], gap="large")
    lines = words.text_area(
        "Texts, one per line",
        placeholder="What is machine learning?\nHow do neural networks work?",
        height=160,
        key="lookup_lines",
        persist_state="session",
    )
    with options:
        return lines or "", _ask_model()


def _ask_model() -> str:
    held = session.models_to_choose(session.cache_name())
    models = held if DEFAULT_MODEL in held else [*held, DEFAULT_MODEL]
    model = st.selectbox(
        "Model",
        models,
        index=models.index(DEFAULT_MODEL) if DEFAULT_MODEL in held else 0,
        format_func=wording.visible,
        accept_new_options=True,
        key="lookup_model",
        persist_state="session",
        help="The models that this cache holds. Type another name to ask for that.",
    )
    return model or ""


def _ask_key() -> tuple[str, str]:
    key = st.text_input(
        "Key",
        placeholder="embedcache: and 64 hex digits",
        key="lookup_key",
        persist_state="session",
    )
    return key or "", ""


def _query_by_text(text: str, model: str) -> Query:
    if not text.strip():
        raise UnusableInputError("There is no text here yet. Type the text whose vector you look for.")
    name, model = session.cache_name(), _named(model)
    return Query(name, session.open_cache(name, refresh_ttl=False).key_for(text, model), text, model)


def _query_by_texts(lines: str, model: str) -> ManyTexts:
    return ManyTexts(session.cache_name(), many_texts.texts_of(lines), _named(model))


def _named(model: str) -> str:
    if not model.strip():
        raise UnusableInputError("There is no model here yet. Choose the model that made the vector.")
    return model


def _query_by_key(key: str) -> Query:
    key = key.strip()
    if not key:
        raise UnusableInputError("There is no key here yet. A key is a cache's name, a colon and 64 hex digits.")
    parts = split_key(key)
    return Query(session.cache_name() if parts is None else parts[0], key)


# -------------------------------------------------------------------------------------------------- fetch


def _fetch(query: Query) -> Found | None:
    """The entry and its summary, or None. Looking does not make it live longer."""
    cache = session.open_cache(query.cache_name, refresh_ttl=False)
    summary, entry = entry_frames.read_entry(cache, query.key)
    if entry is None or summary is None:
        return None
    asked = None if query.text is None or query.model_name is None else (query.text, query.model_name)
    # Texts and models whose names run together share a key: what is there may be another entry.
    return (entry, summary) if asked in {None, (entry["text"], entry["model_name"])} else None


def _explain(query: Query) -> Explanation | None:
    """Why this text or key missed; None where it has not even the form of a key."""
    cache = session.open_cache(query.cache_name, refresh_ttl=False)
    if query.text is None or query.model_name is None:
        return None if split_key(query.key) is None else cache.why_by_key(query.key)
    return cache.why(query.text, query.model_name, max_scan=MAX_KEYS_SEARCHED)


def _look_up(asked: ManyTexts) -> tuple[list[Looked], Mapping[str, Explanation]]:
    """The texts as they are now, and why those missed that did, as it was when they were asked for."""
    cache = session.open_cache(asked.cache_name, refresh_ttl=False)
    looked = many_texts.look_up(cache, asked.texts, asked.model_name)
    if WHYS_KEY not in st.session_state:
        st.session_state[WHYS_KEY] = many_texts.explain(cache, looked, asked.model_name)
    return looked, st.session_state[WHYS_KEY]


# -------------------------------------------------------------------------------------------------- one entry


def _show_one(query: Query) -> None:
    """An entry, or why it is not there."""
    with widgets.errors_as_sentences():
        found = _fetch(query)
        explanation = _explain(query) if found is None else None
    if found is None:
        _show_miss(query, explanation)
        st.stop()
    entry_view.show(query.cache_name, *found)


def _show_miss(query: Query, explanation: Explanation | None) -> None:
    name = wording.code_span(query.cache_name, 80)
    with st.container(border=True):
        st.subheader("Not in the cache", anchor=False)
        if explanation is not None:
            since = explanation.expired_at if explanation.reason is Reason.EXPIRED else explanation.stored_at
            ago = "" if since is None else wording.ago(time.time() - since)
            by_key = query.text is None and explanation.reason is Reason.NEVER_STORED
            words = wording.NEVER_UNDER_KEY if by_key else wording.MISSES[explanation.reason]
            st.write(words.format(name=name, detail=explanation.detail, ago=ago))
            _show_similar(query, explanation)
        else:
            st.write("This has not the form of a key: a cache's name, a colon and 64 hex digits, all lower case.")
        st.page_link("pages/embed.py", label="Embed a text", icon=":material/bolt:")
    if query.text is not None and query.model_name is not None:
        nearest_view.show(query.cache_name, query.text, query.model_name, _take_key)


def _show_similar(query: Query, explanation: Explanation) -> None:
    """What is stored instead, each a click away."""
    cache = session.open_cache(query.cache_name, refresh_ttl=False)
    for text, model_name in explanation.similar[:MOST_SIMILAR]:
        words, link = st.columns([5, 1], vertical_alignment="center")
        words.caption(f"{wording.code_span(text, 160)} under {wording.code_span(model_name, 120)}")
        key = cache.key_for(text, model_name)
        link.button("Open", icon=":material/search:", key=f"open_{key}", on_click=_take_key, args=(key,))


# -------------------------------------------------------------------------------------------------- many texts


def _show_many(asked: ManyTexts) -> None:
    """A table of the texts, and below it the one that is ticked."""
    with widgets.errors_as_sentences():
        looked, whys = _look_up(asked)
    missing = [each.text for each in looked if each.summary is None]
    _show_counts(asked, len(looked), len(missing))
    row = _choose_row(looked, whys)
    if missing:
        st.button(
            f"Embed {wording.counted(len(missing), 'missing text')}",
            icon=":material/bolt:",
            key="embed_missing",
            help="Opens Embed with these texts typed in.",
            on_click=_type_in_embed,
            args=(missing,),
        )
    if st.session_state.pop("go_to_embed", False):
        st.switch_page("pages/embed.py")
    if row is None:
        st.caption("Tick a row to see its entry, or why it missed.")
        return
    st.divider()
    _show_one(Query(asked.cache_name, looked[row].key, looked[row].text, asked.model_name))


def _show_counts(asked: ManyTexts, total: int, missing: int) -> None:
    counts = f"**{wording.count(total - missing)} of {wording.counted(total, 'text')} found**"
    st.markdown(f"{counts} under {wording.code_span(asked.model_name, 120)}")
    if missing > many_texts.MAX_EXPLAINED:
        st.caption(f"Why they missed is told of the first {many_texts.MAX_EXPLAINED}; of the others, tick a row.")


def _choose_row(looked: list[Looked], whys: Mapping[str, Explanation]) -> int | None:
    state = st.dataframe(
        many_texts.frame(looked, whys),
        height=min(420, 38 + 35 * len(looked)),
        column_config={
            "result": st.column_config.MultiselectColumn(
                "Result", options=[many_texts.FOUND, many_texts.MISSED], color=["green", "orange"], width=84
            ),
            "why": st.column_config.TextColumn("Why not", width=150),
            "expires": st.column_config.TextColumn("Expires", width=96),
            "memory": st.column_config.TextColumn("Memory", width=76),
            "text": st.column_config.TextColumn("Text", width=260),
            "model": st.column_config.TextColumn("Stored under"),
        },
        on_select="rerun",
        selection_mode="single-row",
        key="lookup_rows",
    )
    rows = state["selection"]["rows"]
    return int(rows[0]) if rows and rows[0] < len(looked) else None


def _type_in_embed(texts: list[str]) -> None:
    st.session_state["embed_source"] = "lines"
    st.session_state["embed_lines"] = "\n".join(texts)
    st.session_state["go_to_embed"] = True


# -------------------------------------------------------------------------------------------------- comparing


def _show_comparison(query: Query, other_key: str) -> None:
    """Two entries side by side; the one alone where the other is not there."""
    with widgets.errors_as_sentences():
        found, other = _fetch(query), _fetch(_query_by_key(other_key))
    st.subheader("Comparison", anchor=False)
    with st.container(horizontal=True):
        st.button("Back to the entry", icon=":material/arrow_back:", key="leave_comparison", on_click=_leave_comparison)
        st.button(
            "Swap", icon=":material/swap_horiz:", key="swap_compared", on_click=_compare, args=(other_key, query.key)
        )
    if found is not None and other is not None:
        comparison_view.show(found, other)
        return
    which = "first" if found is None else "second"
    st.warning(
        f"The {which} entry is not there: it expired, was dropped, or its key is wrong. Go back and choose another.",
        icon=":material/warning:",
    )


def _leave_comparison() -> None:
    st.session_state[OTHER_KEY] = None


def _compare(key: str, other_key: str) -> None:
    _take_key(key)
    st.session_state[OTHER_KEY] = other_key


# -------------------------------------------------------------------------------------------------- the page


def _show_idle() -> None:
    st.caption(
        "Ask for a text that was embedded, under the model that did it: this page shows what is stored with it, how "
        "long it lives, what it costs and its vector, and lets you change its metadata and TTL, compare it with "
        "another, or drop it."
    )
    st.page_link("pages/embed.py", label="Embed a text first", icon=":material/bolt:")
    if not session.models_to_choose(session.cache_name()):  # nothing is in the cache, as far as is known
        empty_states.sample_data_button()


widgets.header(
    "Lookup", "What is stored under a text or a key, how long it lives, what it costs, and why it is missing."
)
with widgets.errors_as_sentences():
    _follow_link()
asked = _choose()
with widgets.errors_as_sentences():
    widgets.require_server()
widgets.show_notice()

other_key = st.session_state.get(OTHER_KEY) if isinstance(asked, Query) else None
links.write("lookup", {"key": asked.key if isinstance(asked, Query) else None, "with": other_key})
if asked is None:
    _show_idle()
elif isinstance(asked, ManyTexts):
    _show_many(asked)
elif other_key:
    _show_comparison(asked, other_key)
else:
    _show_one(asked)
