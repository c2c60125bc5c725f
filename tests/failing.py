"""Servers that are away, and calls that find them so."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from typing import Any

import pytest
from servers import Server
from working import MODEL

from embedcache import BreakerPolicy, CacheUnavailableError

EAGER = BreakerPolicy(failures=2, first_pause=0.05, longest_pause=0.1)
NEVER_ASKS = BreakerPolicy(failures=2, first_pause=600, longest_pause=600)
QUICK = {"socket_timeout": 1, "socket_connect_timeout": 1}
"""Longer than a server that is well may be kept from the processor of a busy machine."""


def wait_until(is_so: Callable[[], object], seconds: float = 20) -> bool:
    deadline = time.monotonic() + seconds
    while not is_so():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def fails(cache: Any, times: int = 1) -> str:
    """What the last of so many calls says, each of which finds no server."""
    for _ in range(times):
        with pytest.raises(CacheUnavailableError) as caught:
            cache.get("a", MODEL)
    return str(caught.value)


def stop(server: Server) -> None:
    os.kill(server.pid, signal.SIGSTOP)


def resume(server: Server) -> None:
    os.kill(server.pid, signal.SIGCONT)
