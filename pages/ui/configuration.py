"""What whoever installed the dashboard has set: environment variables, Streamlit's secrets, where the server listens.

Nothing here is a user's. What is set but cannot be understood is an error that says so: it must never open a door.
"""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Mapping
from typing import Any, Final

import streamlit as st

from embedcache.urls import EMBEDDED_URL, URL_VARIABLE

EDITOR_HASH_VARIABLE: Final = "EMBEDCACHE_PASSWORD_HASH"
VIEWER_HASH_VARIABLE: Final = "EMBEDCACHE_VIEWER_PASSWORD_HASH"
READ_ONLY_VARIABLE: Final = "EMBEDCACHE_READ_ONLY"
SECTION: Final = "embedcache"
_OFF: Final = frozenset({"", "0", "false", "no", "off"})


class ConfigurationError(Exception):
    """Something that is set cannot be used. The words say what and how to set it, in Markdown, and quote no secret."""


def default_url() -> str:
    """The URL of the server that is used where a user chose no other, password and all."""
    return os.environ.get(URL_VARIABLE) or EMBEDDED_URL


def is_default_embedded() -> bool:
    """Whether no server was named, so that the embedded one is used."""
    return not os.environ.get(URL_VARIABLE)


def read_only() -> bool:
    """Whether nobody may change anything. Any value but the usual words for no says so."""
    return os.environ.get(READ_ONLY_VARIABLE, "").strip().lower() not in _OFF


def listens_to_this_machine_alone() -> bool:
    """Whether Streamlit's server is bound to a loopback address. Bound to none in particular, it listens to all."""
    address = st.get_option("server.address")
    if not isinstance(address, str):
        return False
    if address.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(address.strip("[]")).is_loopback
    except ValueError:
        return False


def password_hashes() -> dict[str, str]:
    """The hash of each role's password, as it is set; of none where none is."""
    variables = {"editor": EDITOR_HASH_VARIABLE, "viewer": VIEWER_HASH_VARIABLE}
    return {role: os.environ[name] for role, name in variables.items() if name in os.environ}


def has_oidc() -> bool:
    """Whether Streamlit's secrets have the section of its login."""
    return bool(_secrets("auth"))


def oidc_providers() -> list[str | None]:
    """What `st.login` takes for each way to log in: None for the one that is not named, else its name."""
    auth = _secrets("auth")
    named = [str(name) for name, section in auth.items() if isinstance(section, Mapping) and name != "client_kwargs"]
    return [None] if "client_id" in auth or not named else list(named)


def editors() -> frozenset[str]:
    """The e-mail addresses of those who may change things after an OIDC login, in lower case.

    Raises:
        ConfigurationError: It is not a list of texts.
    """
    listed = _secrets(SECTION).get("editors", [])
    if not isinstance(listed, list | tuple) or not all(isinstance(each, str) for each in listed):
        raise ConfigurationError(
            '`editors` in the section `[embedcache]` of the secrets is a list such as `["ada@example.org"]`.'
        )
    return frozenset(each.strip().lower() for each in listed)


def named_servers() -> dict[str, str]:
    """URLs of the servers that the secrets name, passwords and all, by name.

    Raises:
        ConfigurationError: They are not URLs by name.
    """
    named = _secrets(SECTION).get("connections", {})
    if not isinstance(named, Mapping) or not all(isinstance(url, str) for url in named.values()):
        raise ConfigurationError(
            "The section `[embedcache.connections]` of the secrets has a line for each server, such as "
            '`staging = "redis://localhost:6379"`.'
        )
    return {str(name): str(url) for name, url in named.items()}


def _secrets(section: str) -> Mapping[str, Any]:
    if not st.secrets.load_if_toml_exists():
        return {}
    found = st.secrets.get(section, {})
    if not isinstance(found, Mapping):
        raise ConfigurationError(f"`{section}` in the secrets is a section: write `[{section}]` on a line of its own.")
    return found
