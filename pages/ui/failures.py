"""Failures in words: a sentence for each error of ours, and for what nobody expected a sentence with a reference.

The traceback of the unexpected goes to the log, under the reference that the page shows. No page ever shows one.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import streamlit as st
from streamlit.errors import FragmentHandledException

from embedcache import CacheUnavailableError, EmbedcacheError, InvalidInputError
from embedcache.errors import (
    EmbeddedServerError,
    InvalidURLError,
    ModelUnavailableError,
    ReadOnlyError,
    ServerReplyError,
)
from pages.ui import access, session, wording
from pages.ui.access import NotAdmittedError
from pages.ui.configuration import ConfigurationError
from pages.ui.inputs import UnusableInputError
from pages.ui.starting import ServerStartingError

_EXPECTED: Final = (EmbedcacheError, UnusableInputError, ConfigurationError, NotAdmittedError)
_log = logging.getLogger(__name__)


def is_outage(error: Exception) -> bool:
    """Whether it may pass by itself: the server does not answer, or could not be started, or is starting."""
    return isinstance(error, CacheUnavailableError | EmbeddedServerError | ServerStartingError)


def sentence(error: Exception) -> str:
    """What went wrong and what to do, in Markdown that is safe whatever the error quotes."""
    if isinstance(error, UnusableInputError | ConfigurationError):
        return str(error)
    if isinstance(error, NotAdmittedError):
        return "**You are not logged in any more.** Load the page anew and log in."
    if isinstance(error, ReadOnlyError):
        return f"**Nothing was changed.** {access.why_read_only() or 'This page only looks.'}"
    if isinstance(error, ServerReplyError) and error.code == "NOPERM":
        return (
            f"**The user of this server lacks a right.** It answered {wording.code_span(str(error))}. Whoever runs it"
            " finds the rights that this dashboard needs in `docs/security.md`."
        )
    words = next(
        (words for kind, words in _SENTENCES if isinstance(error, kind)),
        "**This did not work.** {detail} Try again, or choose another server in Settings.",
    )
    address = wording.code_span(session.server().address, limit=200)
    detail = str(error).removeprefix(f"no answer from {session.server().address}: ")  # which the sentence names already
    return words.format(detail=wording.code_span(detail), address=address)


_SENTENCES: Final[tuple[tuple[type[Exception], str], ...]] = (
    (
        CacheUnavailableError,
        "**The server at {address} does not answer.** Start it, or choose another in Settings. This page comes back by "
        "itself, and what you typed stays here. The reason: {detail}",
    ),
    (
        ServerStartingError,
        "**The embedded server is starting.** It reads its entries back first, which takes some seconds for each GB of "
        "them. This page comes by itself.",
    ),
    (
        EmbeddedServerError,
        "**The embedded server cannot be started.** {detail} When that is mended, this page comes back by itself.",
    ),
    (InvalidURLError, "**The server's URL cannot be used.** {detail} Set it right, or choose another in Settings."),
    (ModelUnavailableError, "**The model cannot be loaded.** {detail} Mend that, or choose another model."),
    (
        ServerReplyError,
        "**The server refused.** It answered {detail}. Whoever runs it can tell why; another is chosen in Settings.",
    ),
    (InvalidInputError, "**This cannot be used; nothing was stored or changed.** {detail}"),
)


# ------------------------------------------------------------------------------------------------ the unexpected


@contextmanager
def guard() -> Iterator[None]:
    """Runs a page: what nobody expected ends it with a sentence. Stops and reruns of Streamlit's pass through."""
    try:
        yield
    except FragmentHandledException:
        raise  # `show_unexpected` was called for it already, or Streamlit showed its own words
    except Exception as error:  # noqa: BLE001 - logged, and said on the page
        show_unexpected(error)


def show_unexpected(error: Exception) -> bool:
    """Says that something went wrong which nobody expected; the log has the rest. True: it was said.

    Also what `st.App` calls for what a callback or a fragment raises.
    """
    if isinstance(error, _EXPECTED):  # from a callback, which has no page around it
        st.error(sentence(error), icon=":material/error:")
    else:
        reference = secrets.token_hex(4)
        _log.error("A page failed (%s)", reference, exc_info=error)
        st.error(unexpected(reference), icon=":material/error:")
    st.button(
        "Show the page again",
        icon=":material/refresh:",
        key=f"again_{secrets.token_hex(4)}",
        on_click=st.rerun,  # all of the page, where only a fragment of it failed too
    )
    return True


def unexpected(reference: str) -> str:
    """The sentence for a failure that nobody expected, which the log tells under this reference."""
    return f"**This did not work, and that is our mistake.** The log says more under the reference `{reference}`."
