"""URLs of servers: which kind each one names, what it says, and how it is shown without its password."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qs, unquote, urlsplit

from redis.connection import parse_url

from embedcache.arguments import check_host, check_path
from embedcache.errors import InvalidURLError
from embedcache.sentinel import SENTINEL_PORT

URL_VARIABLE: Final = "EMBEDCACHE_URL"
EMBEDDED_URL: Final = "embedded://"

_SCHEMES: Final = (
    "embedded",
    "redis",
    "rediss",
    "unix",
    "redis+sentinel",
    "rediss+sentinel",
    "redis+cluster",
    "rediss+cluster",
)
_OF_SENTINEL: Final = "+sentinel"
_CLUSTER: Final = "+cluster"
_DEFAULT_PORT: Final = 6379


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
    try:
        url.encode()
    except UnicodeEncodeError:
        raise InvalidURLError("the server's URL holds lone surrogates, which UTF-8 cannot encode") from None
    return scheme


def parse(url: str) -> dict[str, Any]:
    """A URL other than an embedded server's as settings of redis-py's connections.

    One of sentinels gives, in the place of ``host`` and ``port``, their ``sentinel_hosts``, pairs of host and port, and
    the ``service``.

    Raises:
        InvalidURLError: It cannot be read.
    """
    try:
        if _hides_password(url):
            raise ValueError
        return _with_hosts(_parse_sentinels(url) if scheme_of(url).endswith(_OF_SENTINEL) else dict(parse_url(url)))
    except InvalidURLError:
        raise
    except (ValueError, TypeError):
        # Not the cause's words: they may hold the password.
        raise InvalidURLError(
            f"cannot read the server's URL {_shown(url)}: is its port a number, its host a name or an address,"
            " and are special characters of its password written as %XX?"
        ) from None


def _with_hosts(settings: dict[str, Any]) -> dict[str, Any]:
    """The settings, whose hosts are some that can be asked for; a ValueError where they are not."""
    for host, _ in settings.get("sentinel_hosts", [(settings.get("host", "localhost"), 0)]):
        check_host("the host", host)
    return settings


def _parse_sentinels(url: str) -> dict[str, Any]:
    scheme, _, rest = url.partition("://")
    # Not by urlsplit: it has never heard of several hosts, and refuses some of them.
    rest, _, query = rest.partition("?")
    netloc, _, path = rest.partition("/")
    login, at, places = netloc.rpartition("@")
    service, slash, db = path.partition("/")
    if not service or (slash and not db.isdecimal()):
        raise InvalidURLError(
            f"a URL of sentinels names their service, and a database by its number: {scheme}://host:26379/service/0,"
            f" unlike {_shown(url)}"
        )
    settings = parse_url(f"{scheme.removesuffix(_OF_SENTINEL)}://{login}{at}localhost/{db or 0}?{query}")
    own = {"sentinel_hosts": [_host_and_port(place) for place in places.split(",")], "service": unquote(service)}
    return {name: value for name, value in settings.items() if name not in {"host", "port"}} | own


def _host_and_port(place: str) -> tuple[str, int]:
    parts = urlsplit(f"//{place}")
    if not parts.hostname or parts.path:
        raise ValueError
    return parts.hostname, parts.port or SENTINEL_PORT


def is_cluster(url: str) -> bool:
    """Whether a URL names nodes of a Redis Cluster."""
    return scheme_of(url).endswith(_CLUSTER)


def parse_cluster(url: str) -> tuple[list[tuple[str, int]], dict[str, Any]]:
    """The nodes that a URL of a Redis Cluster names, and the settings of redis-py's connections to each of them.

    Raises:
        InvalidURLError: It cannot be read, or names a database: a Cluster has one.
    """
    scheme, _, rest = url.partition("://")
    place = len(rest) - len(rest.lstrip("/"))
    end = next((at for at, letter in enumerate(rest) if at >= place and letter in "/?"), len(rest))
    user, at_sign, hosts = rest[:end].rpartition("@")
    settings: dict[str, Any] = {}
    nodes = []
    for host in hosts.split(","):
        settings = parse(f"{scheme.removesuffix(_CLUSTER)}://{user}{at_sign}{host}{rest[end:]}")
        nodes.append((str(settings.pop("host", "localhost")), int(settings.pop("port", _DEFAULT_PORT))))
    if settings.pop("db", 0):
        raise InvalidURLError(f"a Redis Cluster has one database, 0; take the other out of {_shown(url)}")
    return nodes, settings


def parse_embedded(url: str) -> tuple[Path | None, str | None]:
    """The data folder (None is the user's own) and the memory limit of an ``embedded://`` URL.

    Raises:
        InvalidURLError: It cannot be read, or names a host, or an option that there is not.
    """
    try:
        parts = urlsplit(url)
        folder = unquote(parts.path).rstrip("/")
        check_path("the folder", folder)
    except ValueError:
        raise InvalidURLError(f"cannot read the server's URL {_shown(url)}: write embedded:///folder") from None
    options = parse_qs(parts.query)
    if parts.netloc:
        raise InvalidURLError(f"an embedded server has no host: write {_shown(url).replace('://', ':///', 1)}")
    if unknown := options.keys() - {"maxmemory"}:
        raise InvalidURLError(f"embedded:// has the option maxmemory, not {', '.join(sorted(unknown))}")
    return (Path(folder) if folder else None), options.get("maxmemory", [None])[-1]


def mask_password(url: str) -> str:
    """A readable URL with its passwords, wherever they stand, as ``***``; its scheme alone where that is unclear."""
    if _hides_password(url):
        return f"{url.partition('://')[0]}://…"
    scheme, _, rest = url.partition("#")[0].partition("://")
    rest, _, query = rest.partition("?")
    netloc, slash, path = rest.partition("/")
    login, at, hosts = netloc.rpartition("@")
    user, colon, _ = login.partition(":")
    if query:
        pairs = [pair.partition("=") for pair in query.split("&")]
        query = "?" + "&".join(
            f"{name}=***" if "password" in unquote(name).lower() else f"{name}{equals}{value}"
            for name, equals, value in pairs
        )
    return f"{scheme}://{user}{colon and ':***'}{at}{hosts}{slash}{path}{query}"


def _hides_password(url: str) -> bool:
    """Whether an ``@`` stands behind the host, so that what looks like the host may be a part of a password."""
    scheme, _, rest = url.partition("://")
    rest, _, query = rest.partition("?")
    netloc, _, path = rest.partition("/")
    if scheme == "unix":
        return not netloc.endswith("@") and bool(netloc)  # it has no host
    valueless = [option for option in query.split("&") if "=" not in option or "#" in option]
    return bool(netloc) and "@" in path + netloc.partition("#")[2] + "".join(valueless)


def _shown(url: str) -> str:
    """An unreadable URL for an error message: whole only where it can hold no password, for that may be anywhere."""
    return f"{url.partition('://')[0]}://…" if "@" in url or "password" in unquote(url).lower() else url
