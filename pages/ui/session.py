"""What a session works with: the server, the caches on it, the chosen cache, the model.

Objects in `st.cache_resource` are shared by all sessions and hold nothing of a user's. What belongs to one user (the
chosen cache, what was typed) is in `st.session_state`.
"""

from __future__ import annotations

import copy
import os
import threading
import time
from dataclasses import dataclass
from typing import Final
from weakref import WeakSet
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import streamlit as st

from embedcache import EmbedcacheError, EmbeddingsCache, HFTextVectorizer, inspector
from embedcache.connection import EMBEDDED_URL, URL_VARIABLE, mask_password
from embedcache.errors import ServerReplyError
from embedcache.inspector import CacheSummary, ServerInfo, Survey

DEFAULT_CACHE: Final = "embedcache"
CACHE_KEY: Final = "chosen_cache"
_SERVER_KEY: Final = "server"
_SURVEY_SECONDS: Final = 20.0

_opened: Final[WeakSet[EmbeddingsCache]] = WeakSet()  # `st.cache_resource` does not tell what it holds
_opening: Final = threading.Lock()


@dataclass(frozen=True, slots=True)
class Server:
    """What was found on the server at the start of this run of the page.

    Attributes:
        address: Where it is, without a password.
        info: Its identity and health, or None where it does not answer or does not tell.
        survey: The caches on it, or None where it does not answer or does not tell.
        error: Why it does not answer, or None where it does.
        refusal: Why it does not tell, though it answers: an ACL may forbid INFO or SCAN, and a cache works without.
        since: When it was first found not to answer, in Unix seconds, or None.
    """

    address: str
    info: ServerInfo | None = None
    survey: Survey | None = None
    error: EmbedcacheError | None = None
    refusal: ServerReplyError | None = None
    since: float | None = None

    def summary(self, name: str) -> CacheSummary:
        """A cache as the survey found it; one with no entries where there is none of that name."""
        found = self.survey.caches if self.survey else ()
        return next((cache for cache in found if cache.name == name), CacheSummary(name, 0, {}, 0))


# ------------------------------------------------------------------------------------------------ server and caches


def server_url() -> str:
    """The server's URL, password and all: for opening it, never for showing it."""
    return os.environ.get(URL_VARIABLE) or EMBEDDED_URL


def open_cache(name: str, *, refresh_ttl: bool = True) -> EmbeddingsCache:
    """The cache of this name, shared by all sessions.

    Args:
        name: The cache's name.
        refresh_ttl: False for looking at entries: what a person looks at must not live longer for it, and is not
            counted as a hit.

    Raises:
        InvalidInputError: The name or the server's URL cannot be used.
    """
    return _open(server_url(), name, refresh_ttl)


@st.cache_resource(max_entries=64, show_spinner=False, on_release=EmbeddingsCache.close)
def _open(url: str, name: str, refresh_ttl: bool) -> EmbeddingsCache:
    # What a person looks at is no demand: it counts neither for an entry's life nor for the hit rate.
    opened = EmbeddingsCache(name, redis_url=url, refresh_ttl=refresh_ttl, stats=refresh_ttl)
    with _opening:
        _opened.add(opened)
    return opened


def opened_caches() -> list[EmbeddingsCache]:
    """Every cache that this process has open, for all sessions."""
    with _opening:
        return list(_opened)


def look_at_server() -> Server:
    """Asks the server how it is and what is on it, once per run; pages read the answer from `server`."""
    url = server_url()
    try:
        found = _found(url)
        _down_since().pop(url, None)
    except EmbedcacheError as error:
        count_again()  # what comes back may hold other entries
        found = Server(_masked(url), error=error, since=_down_since().setdefault(url, time.time()))
    st.session_state[_SERVER_KEY] = found
    return found


def _found(url: str) -> Server:
    connection = open_cache(DEFAULT_CACHE).connection
    try:
        survey = _survey(url)  # first, so that the round trip that is shown does not count connecting
        return Server(connection.address, inspector.server_info(connection), survey)
    except ServerReplyError as refusal:
        return Server(connection.address, refusal=refusal)


def server() -> Server:
    """What `look_at_server` found in this run."""
    found = st.session_state.get(_SERVER_KEY)
    return found if isinstance(found, Server) else look_at_server()


@st.cache_data(ttl=_SURVEY_SECONDS, max_entries=8, show_spinner="Counting entries")
def _survey(url: str) -> Survey:
    # Kept for a while, because each look walks over the server's keys; our own writes forget it.
    return inspector.find_caches(_open(url, DEFAULT_CACHE, True).connection)


def count_again() -> None:
    """Makes the next look at the server count its entries anew."""
    _survey.clear()


@st.cache_resource(show_spinner=False)
def _down_since() -> dict[str, float]:
    return {}


def _masked(url: str) -> str:
    try:
        return mask_password(url)
    except ValueError:
        return url.partition("://")[0] + "://…"


# ------------------------------------------------------------------------------------------------ this user's


def cache_name() -> str:
    """The name of the cache that this user chose in the sidebar."""
    return str(st.session_state.get(CACHE_KEY) or DEFAULT_CACHE)


def cache_names() -> list[str]:
    """Names to choose from: the caches on the server, this user's choice, and the default."""
    survey = server().survey
    found = {cache.name for cache in survey.caches} if survey else set()
    return sorted(found | {cache_name(), DEFAULT_CACHE})


def zone() -> ZoneInfo:
    """The viewer's time zone, UTC where the browser does not say."""
    try:
        return ZoneInfo(st.context.timezone or "UTC")
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return ZoneInfo("UTC")


def theme() -> str | None:
    """The page's theme, ``light`` or ``dark``; None where the browser has not said yet."""
    kind = st.context.theme.type
    return str(kind) if kind else None


# ------------------------------------------------------------------------------------------------ the model


@st.cache_resource(max_entries=2, show_spinner=False)
def shared_model(model: str) -> HFTextVectorizer:
    """The model of this name, in memory once for all sessions, and loaded by none before it is needed."""
    return HFTextVectorizer(model)


def vectorizer(model: str, cache: EmbeddingsCache) -> HFTextVectorizer:
    """A vectorizer of the shared model over one user's cache.

    A copy, because `.cache` is this user's and the shared object everyone's. Load the shared one first where texts are
    missing, or the copy loads a model of its own.
    """
    mine = copy.copy(shared_model(model))
    mine.cache = cache
    return mine
