"""The embedded server's start: it reads its entries back first, seconds for each GB, and no page waits for that.

Knows no streamlit.
"""

from __future__ import annotations

import time
from typing import Final

from embedcache import EmbedcacheError, inspector
from embedcache.connection import RedisConnection
from embedcache.errors import ServerReplyError
from pages.ui.jobs import Jobs

PATIENCE_SECONDS = 0.5
"""A server with little to read starts in less, and then nobody learns that it was not there."""

_LOOK_SECONDS: Final = 0.02
_START: Final = "start"
_starts: Final = Jobs()


class ServerStartingError(EmbedcacheError):
    """The embedded server is about to be there."""


def check_started(key: str, connection: RedisConnection) -> None:
    """Returns where a server can be asked; starts the embedded one in the background, once for all who want it.

    Args:
        key: Names the server.
        connection: To it. Until this returned once, whoever else uses it waits for the start.

    Raises:
        ServerStartingError: It is starting.
        EmbedcacheError: It could not be started.
    """
    if not connection.is_embedded or connection.is_attached:
        return
    job = _starts.start(key, _START, lambda _: _ask(connection))
    until = time.monotonic() + PATIENCE_SECONDS
    while job.running and time.monotonic() < until:
        time.sleep(_LOOK_SECONDS)
    if job.running:
        raise ServerStartingError("the embedded server is starting")
    if (error := job.result) is not None:
        raise error


def _ask(connection: RedisConnection) -> EmbedcacheError | None:
    try:
        inspector.server_info(connection)
    except ServerReplyError:
        return None  # it is there, and does not say what it is
    except EmbedcacheError as error:
        return error  # not raised: that is for the page to tell, and no accident for the log
    return None
