"""Pieces that pages share: the sidebar, sentences for errors, the one-use confirmation, the entry view.

An entry's text, metadata, model and key are a stranger's. They go into `st.code`, `st.json` and table cells, which show
plain text; where only Markdown is to be had, through `wording.code_span`.
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, Literal

import streamlit as st
from streamlit.delta_generator import DeltaGenerator
from streamlit.runtime.pages_manager import PagesManager

from embedcache import NEVER, CacheEntry, CacheUnavailableError, EmbedcacheError, EntrySummary, InvalidInputError
from embedcache.entry import TTL, FloatArray
from embedcache.errors import EmbeddedServerError, InvalidURLError, ModelUnavailableError, ServerReplyError
from embedcache.keyspace import MAX_TTL_SECONDS
from pages.ui import charts, frames, session, wording
from pages.ui.inputs import UnusableInputError

_STRIPS: Final = (
    '<rect x="2" y="4" width="24" height="6" rx="2" fill="#2a86c8"/>'
    '<rect x="2" y="13" width="16" height="6" rx="2" fill="#d9660f"/>'
    '<rect x="2" y="22" width="20" height="6" rx="2" fill="#0f9d76"/>'
)
_MARK: Final = f'<svg xmlns="http://www.w3.org/2000/svg" width="32" height="32" viewBox="0 0 28 32">{_STRIPS}</svg>'
_LOGO: Final = (
    '<svg xmlns="http://www.w3.org/2000/svg" width="176" height="32" viewBox="0 0 176 32">'
    f'{_STRIPS}<text x="36" y="23" font-family="sans-serif" font-size="20" font-weight="600" textLength="128" '
    'fill="#2a86c8">embedcache</text></svg>'
)

Tone = Literal["success", "error", "info"]

_MAX_METADATA_SHOWN: Final = 20_000
_TALL_PIXELS: Final = 240
_MANY_CHARACTERS: Final = 700
_MANY_LINES: Final = 8
_FRAME_KEY: Final = "framed"
_STARTED_OVER_KEY: Final = "started_over"
_NOTICE_KEY: Final = "notice"
_TOKEN_KEY: Final = "confirmation_token"  # noqa: S105 - not a secret, only new each time


# ------------------------------------------------------------------------------------------------ the frame


def sidebar() -> None:
    """The cache selector and the server's badge, on every page."""
    st.session_state[_FRAME_KEY] = True
    st.logo(_LOGO, size="large", icon_image=_MARK)
    found = session.look_at_server()
    with st.sidebar:
        st.selectbox(
            "Cache",
            session.cache_names(),
            key=session.CACHE_KEY,
            index=session.cache_names().index(session.cache_name()),
            accept_new_options=True,
            help="Which cache the pages work on. Type a name to start a new one.",
            persist_state="session",
        )
        _server_badge(found)


def _server_badge(found: session.Server) -> None:
    address = wording.code_span(found.address, limit=200)
    if found.info is not None:
        name = wording.plain_label(f"{found.info.kind} {found.info.version}")
        st.badge(name, icon=":material/check_circle:", color="green", help=f"Answers at {address}")
    elif found.since is None:
        st.badge(
            "Answers", icon=":material/check_circle:", color="green", help=f"It does not say what it is, at {address}"
        )
    else:
        label = f"No answer since {wording.clock(found.since, session.zone())}"
        st.badge(label, icon=":material/error:", color="red", help=f"At {address}")


def metric_cells(columns: int = 4) -> DeltaGenerator:
    """A row of metrics, an even number of them; two by two on a phone."""
    return st.grid(columns, min_column_width=150)


def header(title: str, caption: str) -> None:
    """A page's name, and in one line what it is for."""
    _require_frame()
    st.title(title, anchor=False)
    st.caption(caption)


def _require_frame() -> None:
    """Starts the run over where this page was run without `app.py`.

    Until `st.navigation` has been called once in a process, Streamlit takes the folder `pages/` for the old kind of
    multipage app: the first visitor after a start who asks for /embed gets that file alone, with no frame around it.
    """
    framed = st.session_state.pop(_FRAME_KEY, False)
    if not framed and not st.session_state.get(_STARTED_OVER_KEY):
        st.session_state[_STARTED_OVER_KEY] = True  # once: should Streamlit change this, the page alone beats a loop
        PagesManager.uses_pages_directory = False
        st.rerun()


# ------------------------------------------------------------------------------------------------ errors


@contextmanager
def errors_as_sentences() -> Iterator[None]:
    """Turns an error of ours into a sentence that says what to do, and ends the run of the page there."""
    try:
        yield
    except (EmbedcacheError, UnusableInputError) as error:
        show_error(error)
        if isinstance(error, CacheUnavailableError | EmbeddedServerError):
            st.button("Try again", icon=":material/refresh:", key="try_again")
        st.stop()


def require_server() -> session.Server:
    """What was found on the server. Pages call it after their controls, so that what was typed stays on the page.

    Raises:
        EmbedcacheError: It does not answer; to be called within `errors_as_sentences`.
    """
    found = session.server()
    if found.error is not None:
        raise found.error
    return found


def show_error(error: Exception) -> None:
    """One error, as a sentence."""
    st.error(sentence(error), icon=":material/error:")


def sentence(error: Exception) -> str:
    """What went wrong and what to do, in Markdown that is safe whatever the error quotes."""
    if isinstance(error, UnusableInputError):
        return str(error)
    words = next((words for kind, words in _SENTENCES if isinstance(error, kind)), "**This did not work.** {detail}")
    address = wording.code_span(session.server().address, limit=200)
    cause = error.__cause__ if isinstance(error, CacheUnavailableError) else None  # its own words repeat the address
    return words.format(detail=wording.code_span(str(cause or error)), address=address)


_SENTENCES: Final[tuple[tuple[type[Exception], str], ...]] = (
    (
        CacheUnavailableError,
        "**The server at {address} does not answer.** Start it, or set `EMBEDCACHE_URL` to another and start the "
        "dashboard again. What you typed stays here. The reason: {detail}",
    ),
    (EmbeddedServerError, "**The embedded server cannot be started.** {detail}"),
    (InvalidURLError, "**`EMBEDCACHE_URL` cannot be used.** {detail} Set it right and start the dashboard again."),
    (ModelUnavailableError, "**The model cannot be loaded.** {detail}"),
    (ServerReplyError, "**The server refused.** It answered {detail}"),
    (InvalidInputError, "**This cannot be used; nothing was stored or changed.** {detail}"),
)


# ------------------------------------------------------------------------------------------------ notices


def leave_notice(tone: Tone, markdown: str) -> None:
    """Keeps a message for the next run of the page, which shows it once."""
    st.session_state[_NOTICE_KEY] = (tone, markdown)


def show_notice() -> None:
    """Shows the message that the last action left, if any."""
    tone, markdown = st.session_state.pop(_NOTICE_KEY, ("info", None))
    if markdown is None:
        return
    icons = {"success": ":material/check_circle:", "error": ":material/error:", "info": ":material/info:"}
    {"success": st.success, "error": st.error, "info": st.info}[tone](markdown, icon=icons[tone])


# ------------------------------------------------------------------------------------------------ confirmation


def new_token() -> str:
    """A token for one confirmation. The one before is void: only the question last asked can be answered."""
    token = secrets.token_hex(8)
    st.session_state[_TOKEN_KEY] = token
    return token


def spend_token(token: str) -> bool:
    """Whether this token is still good; it is not good again. A double click or a rerun thus acts once."""
    if st.session_state.get(_TOKEN_KEY) != token:
        return False
    del st.session_state[_TOKEN_KEY]
    return True


@st.dialog("Drop this entry?", icon=":material/delete:")
def confirm_drop(name: str, key: str, text: str, token: str) -> None:
    """Asks before an entry is dropped, and drops it."""
    st.write("Its vector is computed again the next time somebody embeds this text:")
    st.code(wording.one_line(text, 200), language=None, wrap_lines=True)
    keep, drop = st.columns(2)
    if keep.button("Keep it", width="stretch", key="keep_entry"):
        st.rerun()
    if drop.button(
        "Drop it",
        width="stretch",
        type="primary",
        icon=":material/delete:",
        key="drop_entry",
        on_click=_drop,
        args=(name, key, token),
    ):
        st.rerun()  # closes the dialog


def _drop(name: str, key: str, token: str) -> None:
    if not spend_token(token):
        return
    try:
        dropped = session.open_cache(name).drop_by_key(key)
    except EmbedcacheError as error:
        leave_notice("error", sentence(error))
        return
    session.count_again()
    leave_notice("success", "Dropped." if dropped else "It was gone already: it expired, or somebody else dropped it.")


# ------------------------------------------------------------------------------------------------ TTL


def ttl_choice(key: str, default_ttl: int | None) -> TTL:
    """A control for a new entry's TTL; returns what `ttl=` takes.

    Args:
        key: Start of the widgets' keys.
        default_ttl: The cache's own default, in seconds, to name it.
    """
    own = f"Cache's default ({'never' if default_ttl is None else wording.duration(default_ttl)})"
    options = {"default": own, "seconds": "After a time", "never": "Never"}
    chosen = st.radio(
        "Expires",
        list(options),
        format_func=lambda option: options[option],
        horizontal=True,
        key=f"{key}_kind",
        persist_state="session",
        help="How long a vector that is stored now lives. Each hit starts its time again.",
    )
    if chosen == "seconds":
        return seconds_input(f"{key}_seconds", 3_600, persist="session")
    return NEVER if chosen == "never" else None


def seconds_input(key: str, value: int, persist: Literal["session"] | None = None) -> int:
    """A field for whole seconds, and how they read."""
    seconds = st.number_input(
        "Time to live, in seconds",
        min_value=1,
        max_value=MAX_TTL_SECONDS,
        value=value,
        step=60,
        key=key,
        persist_state=persist,
    )
    st.caption(f"That is {wording.duration(seconds)}.")
    return int(seconds)


# ------------------------------------------------------------------------------------------------ the entry view


def entry_view(name: str, entry: CacheEntry, summary: EntrySummary) -> None:
    """One entry: what it is, how long it lives, its vector, and what can be done with it."""
    _entry_metrics(summary)
    left, right = st.columns([5, 6], gap="large")
    with left:
        _entry_words(entry)
    with right:
        _entry_vector(entry)
        _entry_actions(name, entry, summary)


def _entry_metrics(summary: EntrySummary) -> None:
    own = "never" if summary.ttl is None else wording.duration(summary.ttl)
    left = summary.expires_in
    cells = metric_cells()
    cells.metric(
        "Expires",
        wording.until(left),
        border=True,
        help="No TTL: it stays until it is dropped or evicted." if left is None else f"{left:,.1f} s left.",
    )
    cells.metric(
        "Own TTL",
        own,
        border=True,
        help="A hit does not change when it expires."
        if summary.ttl is None
        else f"{wording.counted(summary.ttl, 'second')}. Each hit starts it again; this page does not.",
    )
    cells.metric(
        "Dimension",
        wording.count(summary.dimension),
        border=True,
        help=f"Numbers in the vector, stored as {summary.dtype}.",
    )
    cells.metric(
        "Memory",
        wording.size(summary.memory_bytes),
        border=True,
        help=f"{wording.count(summary.memory_bytes)} bytes on the server, key and bookkeeping included; "
        f"the value itself is {wording.count(summary.value_bytes)} bytes.",
    )


def _entry_words(entry: CacheEntry) -> None:
    st.subheader("Text", anchor=False)
    text_block(entry["text"])
    st.subheader("Metadata", anchor=False)
    metadata_block(entry)
    st.subheader("Identity", anchor=False)
    st.caption("Model")
    st.code(wording.visible(entry["model_name"], 1_024), language=None, wrap_lines=True)
    st.caption("Key")
    st.code(wording.visible(entry["key"]), language=None, wrap_lines=True)
    moment = wording.moment(entry["inserted_at"], session.zone())
    st.caption(f"Stored {wording.ago(time.time() - entry['inserted_at'])}, on {moment} ({session.zone().key})")


def text_block(text: str | bytes) -> None:
    """An entry's text as text, cut where it is long, with what was cut said below."""
    st.code(wording.visible(text), language=None, wrap_lines=True, height=_height(text))
    notes: list[str] = []
    if isinstance(text, bytes):
        notes.append(f"Stored as {wording.counted(len(text), 'byte')}.")
    elif len(text) > wording.MAX_TEXT_SHOWN:
        shown = wording.count(wording.MAX_TEXT_SHOWN)
        notes.append(f"The first {shown} of {wording.counted(len(text), 'character')}.")
    if notes:
        st.caption(" ".join(notes))
        st.download_button(
            "Whole text",
            text,
            "text.bin" if isinstance(text, bytes) else "text.txt",
            icon=":material/download:",
            on_click="ignore",
            type="tertiary",
        )


def _height(text: str | bytes) -> int | Literal["content"]:
    lines = text.count("\n") if isinstance(text, str) else 0
    return _TALL_PIXELS if len(text) > _MANY_CHARACTERS or lines > _MANY_LINES else "content"


def metadata_block(entry: CacheEntry) -> None:
    """An entry's metadata as a tree, or as cut text where it is too large for one."""
    metadata = entry["metadata"]
    if not metadata:
        st.caption("None was stored with it.")
        return
    whole = json.dumps(metadata, ensure_ascii=False, indent=2)
    if len(whole) <= _MAX_METADATA_SHOWN:
        st.json(metadata, expanded=2)
        return
    st.code(wording.visible(whole, _MAX_METADATA_SHOWN), language=None, height=_TALL_PIXELS)
    st.caption(f"The first {wording.count(_MAX_METADATA_SHOWN)} of {wording.counted(len(whole), 'character')}.")


def _entry_vector(entry: CacheEntry) -> None:
    vector = entry["embedding"]
    st.subheader("Vector", anchor=False)
    vector_chart(vector, key="entry_vector")
    stem = f"vector-{entry['entry_id'][:12]}"
    with st.container(horizontal=True):
        for kind, content in (
            ("npy", frames.vector_npy(vector)),
            ("json", frames.vector_json(vector)),
            ("csv", frames.vector_csv(vector)),
        ):
            st.download_button(
                f".{kind}",
                content,
                f"{stem}.{kind}",
                icon=":material/download:",
                on_click="ignore",
                key=f"download_{kind}",
            )


def vector_chart(vector: FloatArray, key: str) -> None:
    """The picture of a vector."""
    st.plotly_chart(
        charts.vector_picture(vector, session.theme()),
        key=key,
        config=charts.CONFIG,
        alt=f"The {len(vector):,} values of the vector by position, from {vector.min():.3f} to {vector.max():.3f}.",
    )


def _entry_actions(name: str, entry: CacheEntry, summary: EntrySummary) -> None:
    key, text = entry["key"], wording.one_line(entry["text"], 200)
    st.subheader("Change", anchor=False)
    seconds = seconds_input(f"ttl_of_{entry['entry_id']}", summary.ttl or 3_600)
    with st.container(horizontal=True):
        st.button("Set TTL", icon=":material/timer:", on_click=_change_ttl, args=(name, key, seconds))
        st.button("Never expire", icon=":material/all_inclusive:", on_click=_change_ttl, args=(name, key, NEVER))
        if st.button("Drop entry", icon=":material/delete:"):
            confirm_drop(name, key, text, new_token())


def _change_ttl(name: str, key: str, ttl: TTL) -> None:
    # A callback, so that the page fetches the entry after the change and not before it.
    try:
        changed = session.open_cache(name).expire(key, ttl)
    except EmbedcacheError as error:
        leave_notice("error", sentence(error))
        return
    words = "It never expires now." if ttl is NEVER else f"It expires in {wording.duration(_seconds(ttl))} now."
    gone = "It is gone: it expired, or somebody else dropped it."
    leave_notice("success" if changed else "info", words if changed else gone)


def _seconds(ttl: TTL) -> int:
    return ttl if isinstance(ttl, int) else 0
