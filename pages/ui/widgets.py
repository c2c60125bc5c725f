"""Pieces that pages share: their head, sentences for errors, notices, the one-use confirmation, TTLs."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, Literal

import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from embedcache import NEVER, EmbedcacheError
from embedcache.entry import TTL
from embedcache.keyspace import MAX_TTL_SECONDS
from pages.ui import failures, outage, session, sidebar, wording
from pages.ui.inputs import UnusableInputError
from pages.ui.starting import ServerStartingError

Tone = Literal["success", "error", "info"]

_NOTICE_KEY: Final = "notice"
_TOKEN_KEY: Final = "confirmation_token"  # noqa: S105 - not a secret, only new each time


def metric_cells(columns: int = 4) -> DeltaGenerator:
    """A row of metrics, an even number of them; two by two on a phone."""
    return st.grid(columns, min_column_width=150)


def header(title: str, caption: str) -> None:
    """A page's name, and in one line what it is for."""
    sidebar.require()
    st.title(title, anchor=False)
    st.caption(caption)


# ------------------------------------------------------------------------------------------------ errors


@contextmanager
def errors_as_sentences() -> Iterator[None]:
    """Turns an error of ours into a sentence that says what to do, and ends the run of the page there."""
    try:
        yield
    except (EmbedcacheError, UnusableInputError) as error:
        show_error(error)
        if failures.is_outage(error):
            outage.wait_for_server()
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
    if isinstance(error, ServerStartingError):
        st.info(failures.sentence(error), icon=":material/hourglass_top:")
    else:
        st.error(failures.sentence(error), icon=":material/error:")


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
