"""Back to the link that was opened: after a login by OIDC, Streamlit itself comes with the first page.

The way out, ``/auth/login``, is asked for by the page that was opened; the browser names it as the referrer. A cookie
keeps that page's path and parameters until the way back, ``/oauth2callback``, whose redirect then leads there. Only a
path of this server is ever followed: a cookie that somebody else has set leads no further than a link would.
"""

from __future__ import annotations

from typing import Final
from urllib.parse import quote, unquote, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_WAY_OUT: Final = "/auth/login"
_WAY_BACK: Final = "/oauth2callback"
_COOKIE: Final = "embedcache_opened"
_SECONDS: Final = 600
"""How long somebody may take to log in."""
_MAX_BYTES: Final = 2_000
"""A cookie's limit is 4,096 with its name; what is longer is not kept, and the first page comes."""


class ReturnToLink:
    """ASGI middleware: after a login comes the page whose link was opened."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves the request, as ASGI has it."""
        path = scope.get("path", "")
        if scope["type"] != "http" or not path.endswith((_WAY_OUT, _WAY_BACK)):
            await self._app(scope, receive, send)
            return
        keeps = path.endswith(_WAY_OUT)
        target = _opened(Headers(scope=scope)) if keeps else _kept(HTTPConnection(scope))

        async def send_on(message: Message) -> None:
            if message["type"] == "http.response.start" and target:
                _change(MutableHeaders(scope=message), target, keeps=keeps)
            await send(message)

        await self._app(scope, receive, send_on)


def _change(headers: MutableHeaders, target: str, *, keeps: bool) -> None:
    if "location" not in headers:  # nobody is sent on: the login failed
        return
    if keeps:
        headers.append("set-cookie", f"{_COOKIE}={quote(target, safe='')}; Max-Age={_SECONDS}; {_ATTRIBUTES}")
    else:
        headers["location"] = target
        headers.append("set-cookie", f"{_COOKIE}=; Max-Age=0; {_ATTRIBUTES}")


# Lax: the way back comes from the provider's site, as a link that is followed.
_ATTRIBUTES: Final = "Path=/; HttpOnly; SameSite=Lax"


def _opened(headers: Headers) -> str | None:
    """Path and parameters of the page that asks, where it is one of this server's."""
    try:
        referrer = urlsplit(headers.get("referer", ""))
    except ValueError:  # no address at all
        return None
    if referrer.netloc != headers.get("host"):
        return None
    return _followable(referrer.path + ("?" + referrer.query if referrer.query else ""))


def _kept(request: HTTPConnection) -> str | None:
    return _followable(unquote(request.cookies.get(_COOKIE, "")))


def _followable(target: str) -> str | None:
    """The target, where it is a path of this server and nothing that a browser takes for another."""
    inside = target.startswith("/") and not target.startswith(("//", "/\\"))
    return target if inside and target.isascii() and target.isprintable() and len(target) <= _MAX_BYTES else None
