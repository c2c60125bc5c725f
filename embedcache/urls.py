"""URLs of servers: which kind each one names, what it says, and how it is shown without its password."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qs, unquote, urlsplit

from redis.connection import parse_url

from embedcache.errors import InvalidURLError

URL_VARIABLE: Final = "EMBEDCACHE_URL"
EMBEDDED_URL: Final = "embedded://"

_SCHEMES: Final = ("embedded", "redis", "rediss", "unix")


def scheme_of(url: str) -> str:
    """The scheme of a server's URL, one of those that we speak.

    Raises:
        InvalidURLError: It has none, or another.
    """
    scheme = url.partition("://")[0] if isinstance(url, str) and "://" in url else ""
    if scheme not in _SCHEMES:
        raise InvalidURLError(
            f"the server's URL starts with one of {', '.join(f'{name}://' for name in _SCHEMES)};"
            f" this one starts with {scheme + '://' if scheme else 'none'}"
        )
    return scheme


def parse(url: str) -> dict[str, Any]:
    """A URL other than an embedded server's as settings of redis-py's connections.

    Raises:
        InvalidURLError: It cannot be read.
    """
    try:
        return dict(parse_url(url))
    except (ValueError, TypeError):
        # Not the cause's words: they may hold the password.
        raise InvalidURLError(
            f"cannot read the server's URL {_shown(url)}: is its port a number,"
            " and are special characters of its password written as %XX?"
        ) from None


def parse_embedded(url: str) -> tuple[Path | None, str | None]:
    """The data folder (None is the user's own) and the memory limit of an ``embedded://`` URL.

    Raises:
        InvalidURLError: It names a host, or an option that there is not.
    """
    parts = urlsplit(url)
    options = parse_qs(parts.query)
    if parts.netloc:
        raise InvalidURLError(f"an embedded server has no host: write {_shown(url).replace('://', ':///', 1)}")
    if unknown := options.keys() - {"maxmemory"}:
        raise InvalidURLError(f"embedded:// has the option maxmemory, not {', '.join(sorted(unknown))}")
    folder = unquote(parts.path).rstrip("/")
    return (Path(folder) if folder else None), options.get("maxmemory", [None])[-1]


def mask_password(url: str) -> str:
    """A readable URL with its password, wherever it stands, as ``***``."""
    parts = urlsplit(url)
    netloc, query = parts.netloc, parts.query
    if parts.password is not None:
        netloc = f"{parts.username or ''}:***@{netloc.rpartition('@')[2]}"
    if query:
        pairs = [pair.partition("=") for pair in query.split("&")]
        query = "?" + "&".join(
            f"{name}=***" if unquote(name).lower() == "password" else f"{name}{equals}{value}"
            for name, equals, value in pairs
        )
    return f"{parts.scheme}://{netloc}{parts.path}{query}"


def _shown(url: str) -> str:
    """An unreadable URL for an error message: whole only where it can hold no password, for that may be anywhere."""
    return f"{url.partition('://')[0]}://…" if "@" in url or "password" in unquote(url).lower() else url
