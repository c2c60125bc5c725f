"""What the dashboard's server tells machines: ``/metrics`` for Prometheus, ``/healthz`` for whoever restarts what died.

Both answer without a login, with names of caches and models but nothing of their entries: like the dashboard, on this
machine alone, unless the server is told to listen elsewhere. Neither starts an embedded server that is gone.

And what it does before any page runs: it loads what pages need, and has walks over keys give way to who opens one.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import lru_cache
from typing import Final

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from embedcache import EmbedcacheError, InvalidInputError, apart, inspector
from embedcache.connection import RedisConnection
from embedcache.errors import TransferError
from embedcache.integrations.prometheus import ProcessCollector, SharedCollector
from pages.ui import configuration
from pages.ui.known_names import KnownNames
from pages.ui.returning import ReturnToLink

_NAMES_PATIENCE: Final = 5.0
_FIRST_TIDY_SECONDS: Final = 60.0
_TIDY_SECONDS: Final = 3_600.0
_log: Final = logging.getLogger(__name__)
# Whoever asks asks again soon: better a wrong "unavailable" than an answer that comes too late to be read.
_PATIENCE: Final = {"socket_connect_timeout": 0.5, "socket_timeout": 1.0}


async def healthz(request: Request) -> Response:  # noqa: ARG001 - Starlette's signature
    """200 where the cache's server answers, 503 where it does not. Why not is for the dashboard to tell."""
    try:
        # The client that the pages use is sync; in a thread it holds up no other request.
        seconds = await run_in_threadpool(_round_trip)
    except EmbedcacheError:
        return JSONResponse({"status": "unavailable"}, status_code=503)
    return JSONResponse({"status": "ok", "round_trip_seconds": round(seconds, 6)})


async def metrics(request: Request) -> Response:
    """What this process has counted and what all have, in the format that the scraper asks for; always 200."""
    encode, content_type = choose_encoder(request.headers.get("accept", ""))
    return Response(await run_in_threadpool(_exposition, encode), headers={"Content-Type": content_type})


class WalksGiveWay:
    """ASGI middleware: walks over keys rest from a browser's first request on, a second before a page runs."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves the request, as ASGI has it."""
        if scope["type"] == "http" and "text/html" in Headers(scope=scope).get("accept", ""):
            apart.give_way()
        await self._app(scope, receive, send)


ROUTES: Final = (Route("/healthz", healthz), Route("/metrics", metrics))
MIDDLEWARE: Final = (Middleware(WalksGiveWay), Middleware(ReturnToLink))


@asynccontextmanager
async def load_and_close(app: object) -> AsyncIterator[None]:  # noqa: ARG001 - Streamlit's signature
    """Loads what pages need before anybody is served; in the end sends what was counted, leaves the embedded server.

    Until then, it has copies of entries removed that were kept long enough, whether anybody looks at a page or not.
    Ended by SIGTERM, it raises that signal anew once it has shut down, and nothing registered with `atexit` is called.
    """
    from pages.ui import warmup  # its rooms want Streamlit's runtime, which is made after these routes

    warmup.give_memory_back()
    await run_in_threadpool(warmup.load)
    tidying = asyncio.create_task(_tidy_copies())
    yield
    tidying.cancel()
    await run_in_threadpool(_close)


async def _tidy_copies() -> None:
    await asyncio.sleep(_FIRST_TIDY_SECONDS)
    while True:
        await run_in_threadpool(_tidy)
        await asyncio.sleep(_TIDY_SECONDS)


def _tidy() -> None:
    from pages.ui import exports  # a fifth of a second of imports, for which the first visitor is not to wait

    try:
        exports.tidy()
    except TransferError as error:
        _log.warning("Copies that were kept long enough could not be removed", exc_info=error)


def say_unexpected(error: Exception) -> bool:
    """What Streamlit calls for whatever a callback or a fragment raises, so that no page shows a traceback."""
    from pages.ui import failures  # as above

    return failures.show_unexpected(error)


def _close() -> None:
    from pages.ui import session  # as above

    for cache in session.opened_caches():
        cache.close()
    if _opened.cache_info().currsize:
        _connection(configuration.default_url()).close()


def _round_trip() -> float:
    return inspector.ping(_connection(configuration.default_url()))


def _exposition(encode: Callable[[Collector], bytes]) -> bytes:
    from pages.ui import session  # as above

    try:
        connection = _connection(configuration.default_url())
    except InvalidInputError:  # an address that cannot be read
        connection = None
    registry = CollectorRegistry()
    # Of the default server alone: which servers users added, and what is on them, is theirs.
    ours = [each for each in session.opened_caches() if connection and each.connection.address == connection.address]
    registry.register(ProcessCollector(*ours))
    registry.register(SharedCollector.over(connection, _names(connection) or [session.DEFAULT_CACHE]))
    return encode(registry)


def _names(connection: RedisConnection | None) -> tuple[str, ...]:
    return () if connection is None else _known.names(connection, _NAMES_PATIENCE)


def _connection(url: str) -> RedisConnection:
    with _opening:  # first asked by two at once, it would be opened twice, and one of them never closed
        return _opened(url)


@lru_cache(maxsize=1)
def _opened(url: str) -> RedisConnection:
    return RedisConnection(url, settings=_PATIENCE)


_opening: Final = threading.Lock()
_known: Final = KnownNames("metrics")
