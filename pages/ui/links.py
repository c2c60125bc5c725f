"""Deep links: what a page's address names, and an address that names what a page shows.

A page reads its address when it differs from what the page wrote there itself: that is a link that was opened, or the
browser's way back. So a link is followed once, and what the user does then is not undone by it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import streamlit as st

from pages.ui import session

CACHE: Final = "cache"
_OVERVIEW: Final = "pages/overview.py"
_FOLLOWED_KEY: Final = "followed_links"


def follow_cache() -> None:
    """Chooses the cache that the address names. To be called before the selector is drawn, which comes before pages."""
    named = opened("the frame", [CACHE]).get(CACHE, "")
    if named.strip():
        st.session_state[session.CACHE_KEY] = named


def go_to_overview() -> None:
    """The page at ``/overview``: Streamlit keeps its default page at ``/`` alone, and people type the name."""
    st.switch_page(_OVERVIEW, query_params=st.query_params.to_dict())


def opened(page: str, names: Sequence[str]) -> dict[str, str]:
    """The parameters of the page's address, where it is one that the page has not seen or written; else none.

    Args:
        page: The page's name.
        names: The parameters that it reads.
    """
    asked = {name: st.query_params[name] for name in names if name in st.query_params}
    if asked == _followed().get(page, {}):
        return {}
    _followed()[page] = asked
    return asked


def write(page: str, shown: Mapping[str, str | None], *, name_cache: bool = False) -> None:
    """Makes the address name what the page shows, so that a reload shows it again; None takes a parameter away.

    Where the address names a cache, it goes on naming the chosen one.

    Args:
        page: The page's name.
        shown: The parameters.
        name_cache: Whether the address is to name the chosen cache in any case.
    """
    chosen = session.cache_name()
    named = st.query_params.get(CACHE)
    if named != chosen and (name_cache or named is not None):
        st.query_params[CACHE] = chosen
        _followed()["the frame"] = {CACHE: chosen}
    for name, value in shown.items():
        if value is None:
            st.query_params.pop(name, None)
        elif st.query_params.get(name) != value:
            st.query_params[name] = value
    _followed()[page] = {name: value for name, value in shown.items() if value is not None}


def _followed() -> dict[str, dict[str, str]]:
    """What each page last read in its address, or wrote there."""
    found: dict[str, dict[str, str]] = st.session_state.setdefault(_FOLLOWED_KEY, {})
    return found
