"""Lookup: one entry, by its text and model or by its key."""

import time
from dataclasses import dataclass

import streamlit as st

from embedcache import CacheEntry, EntrySummary, inspector
from embedcache.explain import Explanation, Reason
from embedcache.keyspace import split_key
from embedcache.vectorizers import DEFAULT_MODEL
from pages.ui import session, widgets, wording
from pages.ui.inputs import UnusableInputError

WAYS = {"text": "By text", "key": "By key"}
QUERY_KEY = "looked_up"
MOST_SIMILAR = 5
MAX_KEYS_SEARCHED = 20_000  # for what explains a miss: under a fifth of a second
LINK_KEY = "linked_key"


@dataclass(frozen=True, slots=True)
class Query:
    """What this user looked up last, so that a rerun finds it again.

    Attributes:
        cache_name: The cache that is asked.
        key: The entry's key.
        text: The text, or None where the key was given.
        model_name: The model, or None where the key was given.
    """

    cache_name: str
    key: str
    text: str | None = None
    model_name: str | None = None


# -------------------------------------------------------------------------------------------------- controls


def _follow_link() -> None:
    """Takes a key from the page's address, once: from then on it is as if it had been typed."""
    linked = st.query_params.get("key")
    if not linked or st.session_state.get(LINK_KEY) == linked:
        return
    st.session_state[LINK_KEY] = linked
    _take_key(linked)


def _take_key(key: str) -> None:
    """Looks up a key as if it had been typed."""
    st.session_state["lookup_way"] = "key"
    st.session_state["lookup_key"] = key
    st.session_state[QUERY_KEY] = _query_by_key(key)


def _choose() -> Query | None:
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
    with st.form("lookup", border=False):
        ask = _ask_key if way == "key" else _ask_text
        typed = ask()
        pressed = st.form_submit_button("Look up", type="primary", icon=":material/search:")
    if pressed:
        st.session_state.pop(QUERY_KEY, None)
        with widgets.errors_as_sentences():
            st.session_state[QUERY_KEY] = _query_by_key(typed[0]) if way == "key" else _query_by_text(*typed)
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
    models = list(session.server().summary(session.cache_name()).models)
    model = options.selectbox(
        "Model",
        models if DEFAULT_MODEL in models else [*models, DEFAULT_MODEL],
        accept_new_options=True,
        key="lookup_model",
        persist_state="session",
        help="The models that this cache holds. Type another name to ask for that.",
    )
    return text or "", model or ""


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
    if not model.strip():
        raise UnusableInputError("There is no model here yet. Choose the model that made the vector.")
    name = session.cache_name()
    return Query(name, session.open_cache(name).key_for(text, model), text, model)


def _query_by_key(key: str) -> Query:
    key = key.strip()
    if not key:
        raise UnusableInputError("There is no key here yet. A key is a cache's name, a colon and 64 hex digits.")
    parts = split_key(key)
    return Query(session.cache_name() if parts is None else parts[0], key)


# -------------------------------------------------------------------------------------------------- fetch


def _fetch(query: Query) -> tuple[CacheEntry, EntrySummary] | None:
    """The entry and its summary, or None. Looking does not make it live longer."""
    cache = session.open_cache(query.cache_name, refresh_ttl=False)
    if query.text is None or query.model_name is None:
        entry = cache.get_by_key(query.key)
    else:
        entry = cache.get(query.text, query.model_name)
    if entry is None:
        return None
    (summary,) = inspector.summarise(cache.connection, [query.key])
    return None if summary is None else (entry, summary)


def _explain(query: Query) -> Explanation | None:
    """Why this text missed; None where a key was asked, of which nothing can be told."""
    if query.text is None or query.model_name is None:
        return None
    cache = session.open_cache(query.cache_name, refresh_ttl=False)
    return cache.why(query.text, query.model_name, max_scan=MAX_KEYS_SEARCHED)


# -------------------------------------------------------------------------------------------------- drawing


def _show_miss(query: Query, explanation: Explanation | None) -> None:
    name = wording.code_span(query.cache_name, 80)
    with st.container(border=True):
        st.subheader("Not in the cache", anchor=False)
        if explanation is not None:
            since = explanation.expired_at if explanation.reason is Reason.EXPIRED else explanation.stored_at
            ago = "" if since is None else wording.ago(time.time() - since)
            st.write(wording.MISSES[explanation.reason].format(name=name, detail=explanation.detail, ago=ago))
            _show_similar(query, explanation)
        elif split_key(query.key) is None:
            st.write("This has not the form of a key: a cache's name, a colon and 64 hex digits, all lower case.")
        else:
            st.write(f"The cache {name} holds nothing under this key. It may have expired, or have been dropped.")
        st.page_link("pages/embed.py", label="Embed a text", icon=":material/bolt:")


def _show_similar(query: Query, explanation: Explanation) -> None:
    """What is stored instead, each a click away."""
    cache = session.open_cache(query.cache_name, refresh_ttl=False)
    for text, model_name in explanation.similar[:MOST_SIMILAR]:
        words, link = st.columns([5, 1], vertical_alignment="center")
        words.caption(f"{wording.code_span(text, 160)} under {wording.code_span(model_name, 120)}")
        key = cache.key_for(text, model_name)
        link.button("Open", icon=":material/search:", key=f"open_{key}", on_click=_take_key, args=(key,))


def _show_idle() -> None:
    st.caption(
        "Ask for a text that was embedded, under the model that did it: this page shows what is stored with it, how "
        "long it lives, what it costs and its vector, and lets you change its TTL or drop it."
    )


# -------------------------------------------------------------------------------------------------- the page

widgets.header("Lookup", "One entry: what is stored, how long it lives, what it costs.")
_follow_link()
query = _choose()

with widgets.errors_as_sentences():
    widgets.require_server()
    found = _fetch(query) if query else None
    explanation = _explain(query) if query and found is None else None
widgets.show_notice()

if query is None:
    _show_idle()
    st.stop()
if found is None:
    _show_miss(query, explanation)
    st.stop()
widgets.entry_view(query.cache_name, *found)
