"""The sidebar of every page: the cache selector, a badge for the server and one for what this user may do."""

from __future__ import annotations

from typing import Final

import streamlit as st
from streamlit.runtime.pages_manager import PagesManager

from pages.ui import access, connections, links, session, wording
from pages.ui.starting import ServerStartingError

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
_FRAME_KEY: Final = "framed"
_STARTED_OVER_KEY: Final = "started_over"


def logo() -> None:
    """The name at the top."""
    st.logo(_LOGO, size="large", icon_image=_MARK)


def draw() -> None:
    """Draws it, and asks the server once for this run of the page."""
    st.session_state[_FRAME_KEY] = True
    logo()
    links.follow_cache()
    found = session.look_at_server()
    names = session.cache_names()  # once: others may be found a moment later
    with st.sidebar:
        st.selectbox(
            "Cache",
            names,
            key=session.CACHE_KEY,
            index=names.index(session.cache_name()),
            format_func=wording.visible,
            accept_new_options=True,
            help="Which cache the pages work on. Type a name to start a new one.",
            persist_state="session",
        )
        with st.container(horizontal=True, gap="small"):
            _server_badge(found)
            _role_badge()


def _server_badge(found: session.Server) -> None:
    chosen = connections.chosen()
    # Named where there is a choice, so that nobody takes one server for another.
    before = f"{wording.plain_label(chosen.name, 20)}: " if chosen.origin != "default" else ""
    address = wording.code_span(found.address, limit=200)
    if found.info is not None:
        name = wording.plain_label(f"{found.info.kind} {found.info.version}")
        st.badge(f"{before}{name}", icon=":material/check_circle:", color="green", help=f"Answers at {address}")
    elif isinstance(found.error, ServerStartingError):
        st.badge(f"{before}Starting", icon=":material/hourglass_top:", color="blue", help=f"At {address}")
    elif found.since is None:
        told = f"It does not say what it is, at {address}"
        st.badge(f"{before}Answers", icon=":material/check_circle:", color="green", help=told)
    else:
        label = f"{before}No answer since {wording.clock(found.since, session.zone())}"
        st.badge(label, icon=":material/error:", color="red", help=f"At {address}")


def _role_badge() -> None:
    why = session.why_read_only()
    if why is None:
        st.badge("Editor", icon=":material/edit:", color="gray", help="You can change and drop entries.")
    elif access.role() == "viewer":
        st.badge("Viewer", icon=":material/visibility:", color="blue", help=why)
    else:
        st.badge("Read-only", icon=":material/lock:", color="orange", help=why)


def require() -> None:
    """Starts the run over where this page was run without `app.py`.

    Until `st.navigation` has been called once in a process, Streamlit takes the folder `pages/` for the old kind of
    multipage app: the first visitor after a start who asks for /embed gets that file alone, with no frame around it.
    """
    framed = st.session_state.pop(_FRAME_KEY, False)
    if framed:
        return
    if not st.session_state.get(_STARTED_OVER_KEY):
        st.session_state[_STARTED_OVER_KEY] = True  # once: should Streamlit change this, a sentence beats a loop
        PagesManager.uses_pages_directory = False
        st.rerun()
    st.error("This page cannot be shown by itself. Open the dashboard's address without a page's name.")
    st.stop()  # nobody asked who this is
