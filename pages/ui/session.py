"""What a session works with: the server, the caches on it, the chosen cache, the model.

Objects in `st.cache_resource` are shared by all sessions and hold nothing of a user's. What belongs to one user (the
chosen server and cache, what was typed) is in `st.session_state`.
"""

from __future__ import annotations

import contextlib
import hashlib
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Final
from weakref import WeakSet
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import streamlit as st

from embedcache import EmbedcacheError, EmbeddingsCache, HFTextVectorizer, benchmark, inspector
from embedcache.benchmark import Run, Settings, Tell
from embedcache.connection import RedisConnection
from embedcache.entry_layout import LayoutName
from embedcache.errors import ServerReplyError
from embedcache.inspector import ServerInfo
from embedcache.vectorizers.base import BaseVectorizer
from pages.ui import access, connections, starting
from pages.ui.index_shelf import IndexShelf
from pages.ui.known_names import KnownNames

DEFAULT_CACHE: Final = "embedcache"
CACHE_KEY: Final = "chosen_cache"
_SERVER_KEY: Final = "server"
_MODELS_SECONDS: Final = 60.0
_SAMPLED_KEYS: Final = 3_000  # for models that nobody ever asked for: under a tenth of a second
_NAMES_PATIENCE: Final = 0.3
_QUICKLY_SCANNED_KEYS: Final = 250_000  # among more, a wait of that patience would be in vain

_opened: Final[WeakSet[EmbeddingsCache]] = WeakSet()  # `st.cache_resource` does not tell what it holds
_opening: Final = threading.Lock()


@dataclass(frozen=True, slots=True)
class Server:
    """What was found on the server at the start of this run of the page.

    Attributes:
        address: Where it is, without a password.
        info: Its identity and health, or None where it does not answer or does not tell.
        error: Why it does not answer, or not yet, or None where it does.
        refusal: Why it does not tell, though it answers: an ACL may forbid INFO, and a cache works without.
        since: When it was first found not to answer, in Unix seconds, or None.
    """

    address: str
    info: ServerInfo | None = None
    error: EmbedcacheError | None = None
    refusal: ServerReplyError | None = None
    since: float | None = None


# ------------------------------------------------------------------------------------------------ server and caches


def server_url() -> str:
    """The URL of the server that this user works with, password and all: for opening it, never for showing it."""
    return connections.chosen().url


def server_key() -> str:
    """Names the server that this user works with, for keys: the same for the same URL, and nothing of it in it."""
    return _key_of(server_url())


def _key_of(url: str) -> str:
    return hashlib.sha256(url.encode()).hexdigest()[:16]


def switch_server(name: str) -> None:
    """Has this user work with another server of `connections.listed`, and with a cache that is there.

    What was typed stays; what was found on the server before is forgotten.
    """
    connections.choose(name)
    st.session_state.pop(CACHE_KEY, None)
    names = _names_on_server(_NAMES_PATIENCE)
    if names and DEFAULT_CACHE not in names:
        st.session_state[CACHE_KEY] = names[0]


def remove_server(name: str) -> None:
    """Takes a server that this user added off their list; where they worked with it, with the default from now on."""
    if connections.chosen().name == name:
        switch_server(connections.DEFAULT)
    connections.remove(name)


def actor() -> str:
    """What the audit log calls this user."""
    return access.actor()


def may_write() -> bool:
    """Whether this user can change things now; else `why_read_only` says why not."""
    return access.may_write()


def why_read_only() -> str | None:
    """Why this user cannot change anything now, as a sentence for a tooltip; None where they can."""
    return access.why_read_only()


def open_cache(name: str, *, refresh_ttl: bool = True, layout: LayoutName = "packed") -> EmbeddingsCache:
    """The cache of this name on this user's server; all who may do the same with it share it.

    For a user who may not write, and for looking, it is one that the data layer keeps from writing whatever is called.

    Args:
        name: The cache's name.
        refresh_ttl: False for looking at entries: what a person looks at must not live longer for it, and is not
            counted as a hit.
        layout: Of the entries that are to be changed; what is looked at is found in any.

    Raises:
        InvalidInputError: The name or the server's URL cannot be used.
        NotAdmittedError: This user is not logged in.
    """
    return _open(server_url(), name, writes=may_write() and refresh_ttl, layout=layout)


def measuring() -> Callable[[Settings, BaseVectorizer | None, Tell], Run]:
    """`benchmark.run` on this user's server: for a user who may not write now, the data layer refuses its writes."""
    return partial(benchmark.run, server_url(), read_only=not may_write())


@st.cache_resource(max_entries=64, show_spinner=False, on_release=EmbeddingsCache.close)
def _open(url: str, name: str, *, writes: bool, layout: LayoutName) -> EmbeddingsCache:
    # What a person looks at is no demand: it counts neither for an entry's life nor for the hit rate.
    opened = EmbeddingsCache(name, redis_url=url, read_only=not writes, layout=layout)
    with _opening:
        _opened.add(opened)
    return opened


def opened_caches() -> list[EmbeddingsCache]:
    """Every cache that this process has open, for all sessions."""
    with _opening:
        return list(_opened)


def look_at_server() -> Server:
    """Asks the server how it is, once per run; pages read the answer from `server`."""
    url = server_url()
    for cache in opened_caches():
        cache.connection.forget_outage()  # whoever looks wants to know how it is now
    try:
        connection = open_cache(DEFAULT_CACHE, refresh_ttl=False).connection
        starting.check_started(server_key(), connection)
        found = _found(connection)
        _down_since().pop(url, None)
    except starting.ServerStartingError as error:
        found = Server(connections.masked(url), error=error)
    except EmbedcacheError as error:
        count_again()  # what comes back may hold other entries
        since = _down_since().setdefault(url, time.time())
        found = Server(connections.masked(url), error=error, since=since)
    st.session_state[_SERVER_KEY] = found
    return found


def _found(connection: RedisConnection) -> Server:
    try:
        return Server(connection.address, inspector.server_info(connection))
    except ServerReplyError as refusal:
        return Server(connection.address, refusal=refusal)


def server() -> Server:
    """What `look_at_server` found in this run."""
    found = st.session_state.get(_SERVER_KEY)
    return found if isinstance(found, Server) else look_at_server()


@st.cache_resource(show_spinner=False)
def _down_since() -> dict[str, float]:
    return {}


# ------------------------------------------------------------------------------------------------ what is on it


def models(name: str) -> list[str]:
    """Models of a cache, as far as they are quickly found: those it was asked for, and those of a few of its entries.

    Raises:
        EmbedcacheError: The server does not answer.
    """
    asked_for = open_cache(name, refresh_ttl=False).stats_by_model("all")
    return sorted({*asked_for, *_sampled_models(server_url(), name)})


def models_to_choose(name: str) -> list[str]:
    """Models of a cache, for a control; none while the server does not answer.

    Where all its entries were looked at a short while ago, exactly those they have, most entries first. Where that was
    longer ago, these and what else `models` finds.
    """
    if server().error is not None:
        return []
    shelf, of = index_shelf(), server_key()
    index = shelf.last(of, name)
    held = [] if index is None else [each.model_name for each in index.by_model()]
    if shelf.is_good(of, name):
        return held
    with contextlib.suppress(EmbedcacheError):  # the page asks the same server, and says what is wrong
        return list(dict.fromkeys([*held, *models(name)]))
    return held


@st.cache_data(ttl=_MODELS_SECONDS, max_entries=64, show_spinner=False)
def _sampled_models(url: str, name: str) -> tuple[str, ...]:
    sampled = inspector.find_caches(
        _open(url, DEFAULT_CACHE, writes=False, layout="packed").connection, max_keys=_SAMPLED_KEYS
    )
    return tuple(model for cache in sampled.caches if cache.name == name for model in cache.models)


def count_again() -> None:
    """Makes the next look at the server find its caches and their models anew."""
    _sampled_models.clear()
    _known_names(server_url()).forget()
    index_shelf().outdate(server_key())


@st.cache_resource(show_spinner=False)
def index_shelf() -> IndexShelf:
    """The indexes of caches that are kept for all users; pages ask `pages.ui.indexes` for them."""
    return IndexShelf()


@st.cache_resource(max_entries=64, show_spinner=False, on_release=KnownNames.finish)
def _known_names(url: str) -> KnownNames:
    return KnownNames(_key_of(url))


def _names_on_server(patience: float) -> tuple[str, ...]:
    url = server_url()
    try:
        connection = open_cache(DEFAULT_CACHE, refresh_ttl=False).connection
    except EmbedcacheError:  # a URL that cannot be used; the page says so
        return ()
    return _known_names(url).names(connection, patience)


# ------------------------------------------------------------------------------------------------ this user's


def cache_name() -> str:
    """The name of the cache that this user chose in the sidebar."""
    return str(st.session_state.get(CACHE_KEY) or DEFAULT_CACHE)


def cache_names() -> list[str]:
    """Names to choose from: the caches on the server, this user's choice, and the default."""
    known = server()
    is_large = known.info is not None and known.info.total_keys > _QUICKLY_SCANNED_KEYS
    found = _names_on_server(0 if is_large else _NAMES_PATIENCE) if known.error is None else ()
    return sorted({*found, cache_name(), DEFAULT_CACHE})


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
