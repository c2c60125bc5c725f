"""Which servers a user can choose between, and which one they chose.

The list is that of the installation (the environment's server, those that the secrets name) and what this user added.
What they added, with its password, is in their session alone: never on a disk, never another user's.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, Literal
from urllib.parse import parse_qs, quote, urlsplit, urlunsplit

import streamlit as st

from embedcache import EmbedcacheError, inspector
from embedcache.connection import RedisConnection
from embedcache.errors import ServerReplyError
from embedcache.inspector import ServerInfo
from embedcache.urls import mask_password
from pages.ui import access, configuration, wording
from pages.ui.inputs import UnusableInputError

Origin = Literal["default", "secrets", "mine"]

DEFAULT: Final = "Default"
MAX_NAME: Final = 40
MAX_MINE: Final = 20
_MINE_KEY: Final = "my_connections"
_CHOSEN_KEY: Final = "chosen_connection"
_PATIENCE: Final = {"socket_connect_timeout": 1.0, "socket_timeout": 2.0}
_KEPT: Final = frozenset({_MINE_KEY, _CHOSEN_KEY})


@dataclass(frozen=True, slots=True)
class Connection:
    """One server that can be chosen.

    Attributes:
        name: What it is called in the list.
        url: Its URL, password and all: for opening it, never for showing it.
        origin: Where it comes from: the environment, the secrets, or this user.
    """

    name: str
    url: str = field(repr=False)
    origin: Origin

    @property
    def address(self) -> str:
        """Its URL with the password masked."""
        return masked(self.url)


def masked(url: str) -> str:
    """A URL that can be shown: its password as ``***``, and its scheme alone where it cannot be read."""
    try:
        return mask_password(url)
    except ValueError:
        return url.partition("://")[0] + "://…"


def listed() -> list[Connection]:
    """The servers that this user can choose between, the default first.

    Raises:
        ConfigurationError: Those of the secrets cannot be read.
    """
    named = configuration.named_servers()
    default = Connection(DEFAULT, configuration.default_url(), "default")
    return [
        default,
        *(Connection(name, url, "secrets") for name, url in named.items() if name != DEFAULT),
        *(Connection(name, url, "mine") for name, url in _mine().items() if name not in {DEFAULT, *named}),
    ]


def chosen() -> Connection:
    """The server that this user works with."""
    choices = listed()
    name = st.session_state.get(_CHOSEN_KEY, DEFAULT)
    return next((each for each in choices if each.name == name), choices[0])


def choose(name: str) -> None:
    """Switches this user to another server. What was typed stays; what was found on the one before is forgotten."""
    if name == chosen().name:
        return
    for key, value in list(st.session_state.items()):
        if key not in _KEPT and not isinstance(value, str | int | float | bool):
            del st.session_state[key]
    st.session_state[_CHOSEN_KEY] = name


def add(name: str, url: str, password: str = "") -> Connection:
    """Adds a server to this user's list.

    Args:
        name: What to call it.
        url: Its URL, without a password.
        password: Its password, or nothing.

    Raises:
        UnusableInputError: The name or the URL cannot be used, or this user may not add servers.
    """
    # An embedded:// URL starts a server in a folder, and any other makes this machine knock at an address.
    if access.role() != "editor":
        raise UnusableInputError("You are a viewer. Adding a server takes an editor.")
    name, url = name.strip(), url.strip()
    if not name or len(name) > MAX_NAME:
        raise UnusableInputError(f"Give the server a name of at most {MAX_NAME} characters.")
    if any(each.name == name for each in listed()):
        raise UnusableInputError("There is a server of this name already. Choose another name.")
    if len(_mine()) >= MAX_MINE:
        raise UnusableInputError(f"{MAX_MINE} servers are the most that one session keeps. Remove one first.")
    url = _with_password(url, password)
    _check(url)
    st.session_state[_MINE_KEY] = {**_mine(), name: url}
    return Connection(name, url, "mine")


def remove(name: str) -> None:
    """Takes a server off this user's list."""
    st.session_state[_MINE_KEY] = {each: url for each, url in _mine().items() if each != name}


def test(url: str) -> ServerInfo | ServerReplyError:
    """How a server answers: its identity, or its refusal to tell; asked on a connection of its own.

    Raises:
        EmbedcacheError: It does not answer, or the URL cannot be used.
    """
    connection = RedisConnection(url, settings=_PATIENCE)
    try:
        # The first round trip connects. The second is what working with this server is like.
        inspector.server_info(connection)
        return inspector.server_info(connection)
    except ServerReplyError as refusal:
        return refusal
    finally:
        connection.close()


def _with_password(url: str, password: str) -> str:
    if not url:
        raise UnusableInputError("There is no URL here yet. Type one such as redis://localhost:6379.")
    try:
        parts = urlsplit(url)
        options = parse_qs(parts.query.lower(), keep_blank_values=True)
        holds_password = parts.password is not None or "password" in options
    except ValueError as error:
        raise UnusableInputError("This URL cannot be read. Type one such as redis://localhost:6379.") from error
    if holds_password:
        raise UnusableInputError("Type the password into its own field, where nobody reads it over your shoulder.")
    if any("password" in name for name in options):
        raise UnusableInputError(
            "A password of sentinels, or of a key, is read over your shoulder here. Have whoever runs this dashboard"
            " name the server in its secrets."
        )
    if not password:
        return url
    if parts.scheme == "embedded":
        raise UnusableInputError("An embedded server has no password. Leave that field empty.")
    user, _, host = parts.netloc.rpartition("@")
    netloc = f"{user}:{quote(password, safe='')}@{host}"
    return urlunsplit(parts._replace(netloc=netloc))


def _check(url: str) -> None:
    try:
        RedisConnection(url, settings=_PATIENCE).close()  # reads the URL; nothing is connected before it is asked
    except EmbedcacheError as error:
        raise UnusableInputError(f"**This URL cannot be used.** {wording.code_span(str(error))}") from error


def _mine() -> dict[str, str]:
    mine = st.session_state.get(_MINE_KEY)
    return dict(mine) if isinstance(mine, dict) else {}
