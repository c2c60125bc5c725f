"""Who this user is, and whether they may change things: a viewer looks, an editor changes.

Three ways in, the first that is set up: Streamlit's OIDC login; a password; or, where the server listens to this
machine alone, none, which makes everybody an editor. With no way set up, nobody gets in.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import Final, Literal, cast

import streamlit as st

from pages.ui import configuration
from pages.ui.configuration import ConfigurationError
from pages.ui.passwords import MalformedHashError, PasswordHash, Throttle

Role = Literal["viewer", "editor"]
Way = Literal["oidc", "password", "open", "closed"]

_ROLE_KEY: Final = "logged_in_as"
_VISITOR_KEY: Final = "visitor"
READ_ONLY_KEY: Final = "read_only"


class NotAdmittedError(Exception):
    """Somebody who is not logged in asked for what is behind the login."""


@dataclass(frozen=True, slots=True)
class Access:
    """What one user may do.

    Attributes:
        role: Viewer or editor.
        name: Who it is, or None where nobody was asked.
        way: How they came in.
    """

    role: Role
    name: str | None
    way: Way


# ------------------------------------------------------------------------------------------------ this user


def way() -> Way:
    """How people come in here; ``closed`` where none was set up and others than this machine can reach the server.

    Raises:
        ConfigurationError: What is set up cannot be understood.
    """
    if configuration.has_oidc():
        return "oidc"
    if configuration.password_hashes():
        return "password"
    return "open" if configuration.listens_to_this_machine_alone() else "closed"


def current() -> Access | None:
    """What this user may do; None where they are not logged in.

    Raises:
        ConfigurationError: What is set up cannot be understood.
    """
    found = way()
    if found == "oidc":
        return _by_oidc()
    if found == "password":
        role = st.session_state.get(_ROLE_KEY)
        return None if role is None else Access(cast("Role", role), None, "password")
    return Access("editor", None, "open") if found == "open" else None


def _by_oidc() -> Access | None:
    if st.user.get("is_logged_in") is not True:
        return None
    email = st.user.get("email")
    named = email if isinstance(email, str) else None
    # An address that its provider has not verified may be anybody's.
    proven = named is not None and st.user.get("email_verified", True) is True
    role: Role = "editor" if proven and named is not None and named.lower() in configuration.editors() else "viewer"
    name = st.user.get("name")
    return Access(role, named or (name if isinstance(name, str) else None), "oidc")


def role() -> Role:
    """This user's role.

    Raises:
        NotAdmittedError: They are not logged in.
        ConfigurationError: What is set up cannot be understood.
    """
    found = current()
    if found is None:
        raise NotAdmittedError("log in first")
    return found.role


def why_read_only() -> str | None:
    """Why this user cannot change anything now, in a sentence; None where they can."""
    if (forced := forced_read_only()) is not None:
        return forced
    if st.session_state.get(READ_ONLY_KEY):
        return "Read-only is switched on. You can switch it off in Settings."
    return None


def actor() -> str:
    """What the audit log calls this user.

    Raises:
        NotAdmittedError: They are not logged in.
    """
    found = current()
    if found is None:
        raise NotAdmittedError("log in first")
    ways = {"oidc": "somebody without an e-mail address", "password": f"{found.role}, by password"}
    return found.name or ways.get(found.way, "somebody on this machine")


def forced_read_only() -> str | None:
    """Why this user cannot change anything whatever they switch, in a sentence; None where they decide."""
    if role() == "viewer":
        return "You are a viewer. Changing things takes an editor."
    if configuration.read_only():
        return "This dashboard is read-only: whoever runs it set it so."
    return None


def may_write() -> bool:
    """Whether this user can change things now."""
    return why_read_only() is None


# ------------------------------------------------------------------------------------------------ coming and going


def log_in(password: str) -> Role | None:
    """Logs this user in with a password; the role that it gives, or None where it is wrong.

    Raises:
        TooManyAttemptsError: Too many were wrong.
        ConfigurationError: A hash that is set cannot be used.
    """
    hashes = _hashes()
    given: list[Role] = []

    def check() -> bool:
        # Both are always tried, so that the time it takes does not tell which is right.
        given.extend(role for role, each in hashes.items() if each.matches(password))
        return bool(given)

    visitor = str(st.session_state.setdefault(_VISITOR_KEY, secrets.token_hex(8)))
    if not _throttle.admit(visitor, check):
        return None
    role: Role = "editor" if "editor" in given else "viewer"
    st.session_state[_ROLE_KEY] = role
    return role


def check_hashes() -> None:
    """Raises `ConfigurationError` where a hash that is set cannot be used."""
    _hashes()


def _hashes() -> dict[Role, PasswordHash]:
    variables = {"editor": configuration.EDITOR_HASH_VARIABLE, "viewer": configuration.VIEWER_HASH_VARIABLE}
    found: dict[Role, PasswordHash] = {}
    for role, text in configuration.password_hashes().items():
        try:
            found[cast("Role", role)] = PasswordHash.parse(text)
        except MalformedHashError as error:
            raise ConfigurationError(
                f"`{variables[role]}` does not hold a password's hash: {error}. "
                "Make one with `embedcache dashboard --hash-password` and set it anew."
            ) from error
    return found


# Not in `st.cache_resource`: any browser may ask Streamlit to clear that, and with it what is known of guesses.
_throttle: Final = Throttle()


def log_out() -> None:
    """Forgets this user and all that they typed and found."""
    found = current()
    st.session_state.clear()
    if found is not None and found.way == "oidc":
        st.logout()
