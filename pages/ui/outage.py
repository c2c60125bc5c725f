"""Waiting for a server that does not answer: a page that says so comes back by itself once it does."""

from __future__ import annotations

from typing import Final

import streamlit as st

from embedcache import EmbedcacheError
from pages.ui import connections, session
from pages.ui.jobs import Jobs

_SECONDS: Final = 2.0
_LOOK: Final = "look"
_looks: Final = Jobs()  # one per server for all who wait for it


def wait_for_server() -> None:
    """Looks every 2 s whether the server answers, in the background, and runs the page again when it does."""
    st.button("Try again", icon=":material/refresh:", key="try_again")
    _come_back(session.server_key(), session.server_url())


@st.fragment(run_every=_SECONDS)
def _come_back(key: str, url: str) -> None:
    look = _looks.find(key, _LOOK)
    if look is not None and look.running:
        return
    if look is not None and look.state == "done" and look.result and look.seconds_since_end <= 2 * _SECONDS:
        _looks.forget(key, _LOOK)  # should the page fail all the same, it is asked again before it is run again
        st.rerun()
    _looks.start(key, _LOOK, lambda _: _answers(url))


def _answers(url: str) -> bool:
    try:
        connections.test(url)
    except EmbedcacheError:
        return False
    return True
