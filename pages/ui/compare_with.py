"""Which entry to compare another with: kept before, or asked for. The comparison is on the page Lookup.

Its address names both: ``?key=…&with=…``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import streamlit as st

from embedcache import CacheEntry, EmbedcacheError
from embedcache.keyspace import split_key
from pages.ui import session, widgets, wording
from pages.ui.inputs import UnusableInputError

PAGE: Final = "pages/lookup.py"
_KEPT_KEY: Final = "kept_for_comparison"
_WAY_KEY: Final = "compare_way"
_KEPT, _TEXT, _KEY = "The one kept", "A text", "A key"


@dataclass(frozen=True, slots=True)
class Kept:
    """The entry that this user keeps for a comparison: its key, and its text for people."""

    key: str
    text: str


def actions(name: str, entry: CacheEntry) -> None:
    """Buttons of an entry's view: compare it, or keep it until another is found."""
    key = entry["key"]
    kept = _kept()
    is_kept = kept is not None and kept.key == key
    with st.container(horizontal=True):
        if st.button("Compare with…", icon=":material/compare_arrows:", key="entry_compare"):
            ask(name, key, entry["model_name"])
        st.button(
            "Kept for comparison" if is_kept else "Keep for comparison",
            icon=":material/check:" if is_kept else ":material/keep:",
            key="entry_keep",
            disabled=is_kept,
            help="Find another entry and choose Compare with… there: this one is offered then.",
            on_click=_keep,
            args=(Kept(key, wording.one_line(entry["text"], 160)),),
        )


def _kept() -> Kept | None:
    found = st.session_state.get(_KEPT_KEY)
    return found if isinstance(found, Kept) else None


def _keep(kept: Kept) -> None:
    st.session_state[_KEPT_KEY] = kept


@st.dialog("Compare with another entry", icon=":material/compare_arrows:")
def ask(name: str, key: str, model_name: str) -> None:
    """Asks for the other entry, and goes to the comparison."""
    kept = _kept()
    offered = [_KEPT] if kept is not None and kept.key != key else []
    way = st.radio(
        "The other entry", [*offered, _TEXT, _KEY], horizontal=True, label_visibility="collapsed", key=_WAY_KEY
    )
    if way == _KEPT and kept is not None:
        st.code(kept.text, language=None, wrap_lines=True)
    typed, model = _ask_for(way or _TEXT, name, model_name)
    if not st.button("Compare", type="primary", icon=":material/compare_arrows:", key="compare_now"):
        return
    try:
        other = kept.key if way == _KEPT and kept is not None else _find(way or _TEXT, name, typed, model)
    except (EmbedcacheError, UnusableInputError) as error:
        widgets.show_error(error)  # in the dialog, where what was typed stays
        return
    st.switch_page(PAGE, query_params={"key": key, "with": other})


def _ask_for(way: str, name: str, model_name: str) -> tuple[str, str]:
    """What is typed for this way of asking, and the model."""
    if way == _KEY:
        return st.text_input("Key", key="compare_key", placeholder=f"{name[:40]}: and 64 hex digits") or "", ""
    if way != _TEXT:
        return "", ""
    text = st.text_area("Text", key="compare_text", height=80, placeholder="How do neural networks work?")
    others = [each for each in session.models_to_choose(name) if each != model_name]
    model = st.selectbox(
        "Model", [model_name, *others], format_func=wording.visible, accept_new_options=True, key="compare_model"
    )
    return text or "", model or ""


def _find(way: str, name: str, typed: str, model: str) -> str:
    """The key of what was asked for, known to be there.

    Raises:
        UnusableInputError: Nothing was typed, or there is no such entry.
        EmbedcacheError: It cannot be asked for.
    """
    if not typed.strip():
        raise UnusableInputError(
            f"There is no {'key' if way == _KEY else 'text'} here yet. Type that of the other entry."
        )
    if way == _KEY:
        key = typed.strip()
        parts = split_key(key)
        if parts is None:
            raise UnusableInputError("This has not the form of a key: a cache's name, a colon and 64 hex digits.")
        there = session.open_cache(parts[0], refresh_ttl=False).exists_by_key(key)
    else:
        cache = session.open_cache(name, refresh_ttl=False)
        key, there = cache.key_for(typed, model), cache.exists(typed, model)
    if not there:
        raise UnusableInputError("There is no such entry. Check the spelling, or choose another.")
    return key
