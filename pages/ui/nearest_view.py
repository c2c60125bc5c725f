"""The cached texts nearest to one that missed: those worded alike, and those that mean alike, each a click away."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Final

import streamlit as st

from embedcache import HFTextVectorizer
from embedcache.connection import RedisConnection
from embedcache.vectorizers import DEFAULT_MODEL
from pages.ui import longwork, nearest, session, wording
from pages.ui.nearest import Nearest

Open = Callable[[str], None]

WORDING_JOB: Final = "nearest in wording"
MEANING_JOB: Final = "nearest in meaning"
_TO_KEY: Final = "nearest_to"
_QUICK_SECONDS: Final = 0.5  # most caches are compared by then, and no bar flashes up for them
_PATIENCE_SECONDS: Final = 10.0  # about what loading the model takes on a slow machine


def show(cache_name: str, text: str, model_name: str, open_entry: Open) -> None:
    """What is nearest to a text that is not cached under this model. Nothing is stored or counted.

    Those worded alike are looked for at once. So are those that mean alike where that is quick; else a button asks.

    Args:
        cache_name: The cache.
        text: The text.
        model_name: Of whose entries.
        open_entry: Called with an entry's key when its button is pressed.
    """
    this = (session.server_key(), cache_name, text, model_name)
    if st.session_state.get(_TO_KEY) != this:
        st.session_state[_TO_KEY] = this
        longwork.forget(WORDING_JOB)
        longwork.forget(MEANING_JOB)
    connection = session.open_cache(cache_name, refresh_ttl=False).connection
    with st.container(border=True):
        st.subheader("Nearest cached texts", anchor=False)
        worded, meant = st.columns(2, gap="large")
        with worded:
            st.markdown("**In wording**")
            _show_worded(partial(nearest.in_wording, connection, cache_name, text, model_name), open_entry)
        with meant:
            st.markdown("**In meaning**")
            _show_meant(connection, cache_name, text, model_name, open_entry)


def _show_worded(work: Callable[..., Nearest], open_entry: Open) -> None:
    job = longwork.find(WORDING_JOB)
    if job is None:
        job = longwork.start(WORDING_JOB, work)
        job.wait(_QUICK_SECONDS)
    if not longwork.shown(job, "Comparing texts"):
        return
    found: Nearest = job.result
    if found.neighbours:
        _show_neighbours(found, "worded", lambda similarity: f"{similarity:.0%}", open_entry)
        st.caption(f"How much of both texts is alike, letter by letter, among {_among(found)}.")
    elif found.compared:
        st.caption(f"No text is worded alike. Yours was compared with {_among(found)}.")
    else:
        st.caption("The cache holds no texts under this model to compare with.")


def _show_meant(connection: RedisConnection, cache_name: str, text: str, model_name: str, open_entry: Open) -> None:
    vectorizer = session.shared_model(DEFAULT_MODEL)
    own = model_name == vectorizer.model_name
    job = longwork.find(MEANING_JOB)
    work = partial(nearest.in_meaning, connection, cache_name, text, model_name, vectorizer)
    if job is None and own and vectorizer.loaded:
        job = longwork.start(MEANING_JOB, work)
        job.wait(_QUICK_SECONDS)
    if job is None or job.state in {"failed", "cancelled"}:
        _ask(work, vectorizer, own)
    if job is None or not longwork.shown(job, "Comparing meanings"):
        return
    found: Nearest = job.result
    if not found.neighbours:
        st.caption("The cache holds nothing under this model to compare with.")
        return
    _show_neighbours(found, "meant", lambda similarity: f"{similarity:.3f}", open_entry)
    judge = "" if own else f" of the vectors that {wording.code_span(vectorizer.model_name)} gives their texts"
    st.caption(f"By cosine similarity{judge} (1: the same direction), among {_among(found)}.")


def _ask(work: Callable[..., Nearest], vectorizer: HFTextVectorizer, own: bool) -> None:
    """The button; pressed, it starts the job, and the page runs again to show it."""
    whose = (
        "compares it with those that are cached"
        if own
        else "compares it with those that the bundled model gives up to "
        f"{wording.count(nearest.MAX_READ_ANEW)} cached texts, for vectors of two models share no space"
    )
    loading = "" if vectorizer.loaded else " Loading the model takes about 5 s the first time."
    pressed = st.button(
        "Find nearest texts",
        icon=":material/near_me:",
        key="find_nearest",
        help=f"Computes the vector of your text, {whose}. Nothing is stored.{loading}",
    )
    if not pressed:
        return
    longwork.forget(MEANING_JOB)
    job = longwork.start(MEANING_JOB, work)
    # Each look at a job ends in a garbage collection of Streamlit's, which holds up the model's imports.
    with st.spinner("Computing the vector of your text"):
        job.wait(_PATIENCE_SECONDS)
    st.rerun()


def _among(found: Nearest) -> str:
    if found.whole and found.compared == 1:
        return "the only entry of this model"
    among = wording.counted(found.compared, "entry", "entries")
    return f"{'all' if found.whole else 'a sample of'} {among} of this model"


def _show_neighbours(found: Nearest, kind: str, shown: Callable[[float], str], open_entry: Open) -> None:
    for neighbour in found.neighbours:
        words, link = st.columns([5, 2], vertical_alignment="center")
        words.markdown(f"**{shown(neighbour.similarity)}** {wording.code_span(neighbour.text, 160)}")
        link.button(
            "Open",
            icon=":material/search:",
            key=f"{kind}_{neighbour.key}",
            on_click=open_entry,
            args=(neighbour.key,),
        )
