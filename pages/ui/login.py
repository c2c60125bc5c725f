"""The page that is shown to who is not logged in: a login, or how to set one up."""

from __future__ import annotations

import math
from typing import Final

import streamlit as st
from streamlit.errors import StreamlitAuthError

from pages.ui import access, configuration, sidebar, wording
from pages.ui.configuration import ConfigurationError
from pages.ui.passwords import TooManyAttemptsError

_PASSWORD_KEY: Final = "typed_password"  # noqa: S105 - the name of a field
_WRONG_KEY: Final = "login_refused"


def is_in() -> bool:
    """Whether this user may see the pages."""
    try:
        return access.current() is not None
    except ConfigurationError:
        return False  # `show` says what is wrong


def show() -> None:
    """Draws the login, or what keeps everybody out and how to change that."""
    sidebar.logo()
    with st.container(horizontal_alignment="center"), st.container(width=480):
        try:
            way = access.way()
            if way == "oidc":
                configuration.editors()  # raises what `is_in` kept to itself
                _show_oidc()
            elif way == "password":
                access.check_hashes()
                _show_password()
            else:
                _show_setup()
        except ConfigurationError as error:
            st.title("Nobody can log in yet", anchor=False)
            st.error(f"**The login is not set up right.** {error}", icon=":material/error:")


def _show_oidc() -> None:
    st.title("Log in", anchor=False)
    st.caption("This dashboard asks who you are before it shows what is cached.")
    for provider in configuration.oidc_providers():
        label = "Log in" if provider is None else f"Log in with {wording.plain_label(provider)}"
        if st.button(label, type="primary", icon=":material/login:", key=f"login_{provider}", width="stretch"):
            _log_in_with(provider)


def _log_in_with(provider: str | None) -> None:
    try:
        st.login(provider)
    except StreamlitAuthError as error:  # Authlib is missing, or a line of the section
        raise ConfigurationError(
            f"Streamlit's login cannot be used: {wording.code_span(str(error))} Install the extra `auth`, and complete "
            "the section `[auth]` of the secrets."
        ) from error


def _show_password() -> None:
    st.title("Log in", anchor=False)
    st.caption("This dashboard asks for a password before it shows what is cached.")
    with st.form("login", border=False):
        st.text_input("Password", type="password", key=_PASSWORD_KEY, autocomplete="current-password")
        st.form_submit_button("Log in", type="primary", icon=":material/login:", on_click=_log_in, width="stretch")
    if refused := st.session_state.pop(_WRONG_KEY, None):
        st.error(refused, icon=":material/error:")


def _log_in() -> None:
    # A callback, so that what is typed is forgotten before anything else runs.
    typed = st.session_state.get(_PASSWORD_KEY) or ""
    st.session_state[_PASSWORD_KEY] = ""
    if not typed:
        st.session_state[_WRONG_KEY] = "There is no password here yet. Type it."
        return
    try:
        role = access.log_in(typed)
    except TooManyAttemptsError as error:
        seconds = wording.counted(math.ceil(error.seconds), "second")
        st.session_state[_WRONG_KEY] = (
            f"**Too many wrong passwords.** This one was not looked at. Try again in {seconds}."
        )
        return
    if role is None:
        st.session_state[_WRONG_KEY] = "**This is not the password.** Try again."


def _show_setup() -> None:
    st.title("Set up a login first", anchor=False)
    st.write(
        "This dashboard can be reached from other machines, and nothing is set up that tells who may see and change "
        "what is cached. So it shows nothing. There are three ways on:"
    )
    st.subheader("A password", anchor=False)
    st.write("Make its hash, and start the dashboard with it. A second one, for those who only look, is optional:")
    st.code(
        "embedcache dashboard --hash-password\n"
        f"export {configuration.EDITOR_HASH_VARIABLE}=scrypt:…\n"
        f"export {configuration.VIEWER_HASH_VARIABLE}=scrypt:…",
        language=None,
        wrap_lines=True,
    )
    st.subheader("Your organisation's login (OIDC)", anchor=False)
    st.write("Fill in the section `[auth]` of `.streamlit/secrets.toml`, and name who may change things:")
    st.code('[embedcache]\neditors = ["ada@example.org"]', language=None, wrap_lines=True)
    st.subheader("This machine alone", anchor=False)
    st.write("Start it with an address that no other machine reaches; then it asks for no login:")
    st.code("embedcache dashboard --address 127.0.0.1", language=None, wrap_lines=True)
