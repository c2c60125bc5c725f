"""The server tells which of a cache's keys others write, and the near cache drops them: client tracking.

One connection of its own, read by a daemon thread, asks for ``CLIENT TRACKING ON BCAST PREFIX name:`` and is told by
RESP3 pushes (https://valkey.io/topics/client-side-caching). The server then need not remember who read what, and
connections that come and go in a pool make no difference.

While that connection is away the near cache goes by its own TTL alone. It is emptied when the connection is lost and
when it is back, because nobody tells what was written in between. Where the server refuses, by its version or an ACL,
it is not asked again.
"""

from __future__ import annotations

import logging
import os
import threading
from time import monotonic
from typing import Any, Final
from weakref import ReferenceType, WeakSet, ref

from redis.connection import AbstractConnection
from redis.exceptions import RedisError, ResponseError

from embedcache.connection import RedisConnection
from embedcache.near import NearCache

POLL_SECONDS: Final = 0.5
"""How soon the thread notices that it is to end."""
QUIET_SECONDS: Final = 30.0
"""After so long without a word, the server is asked whether it is still there."""
FIRST_PAUSE_SECONDS: Final = 0.5
LONGEST_PAUSE_SECONDS: Final = 30.0

_log = logging.getLogger(__name__)


class Tracking:
    """Has a server tell what others write to one cache.

    It begins with `begin`, from whichever thread; again after `close`, and in a forked child.

    Args:
        connection: Says where the server is. It is not kept alive by this.
        near: What is to drop what was written. It is not kept alive either.
    """

    def __init__(self, connection: RedisConnection, near: NearCache) -> None:
        self._connection = ref(connection)
        self._near = ref(near)
        self._start_over()
        _alive.add(self)

    def _start_over(self) -> None:
        self._lock = threading.Lock()
        self._watch: _Watch | None = None

    @property
    def is_on(self) -> bool:
        """Whether the server is telling now."""
        watch = self._watch
        return watch is not None and watch.on

    def begin(self) -> None:
        """Starts the thread, where there is none."""
        if self._watch is not None:
            return
        with self._lock:
            if self._watch is None:
                watch = _Watch(self._connection, self._near)
                try:
                    threading.Thread(target=watch.run, name="embedcache-near", daemon=True).start()
                except RuntimeError:
                    return  # the interpreter is shutting down
                self._watch = watch

    def close(self) -> None:
        """Ends the thread, which closes its connection within half a second."""
        with self._lock:
            watch, self._watch = self._watch, None
        if watch is not None:
            watch.stopped.set()


class _Watch:
    """What one thread does from `Tracking.begin` to `Tracking.close`."""

    def __init__(self, connection: ReferenceType[RedisConnection], near: ReferenceType[NearCache]) -> None:
        self.stopped = threading.Event()
        self.on = False
        self._connection = connection
        self._near = near
        self._pause = FIRST_PAUSE_SECONDS

    def run(self) -> None:
        """Follows the server's word until it is to end, or the server refuses."""
        while not self._is_over():
            opened = self._open()
            if opened is not None:
                try:
                    self._follow(opened)
                except ResponseError as error:
                    _log.info("the near cache goes by its TTL alone, the server tells no writes: %s", error)
                    return
                except (RedisError, OSError) as error:
                    _log.debug("the near cache's connection: %s", error)
                finally:
                    self._turn_off()
                    opened.disconnect()
            self.stopped.wait(self._pause)
            self._pause = min(2 * self._pause, LONGEST_PAUSE_SECONDS)

    def _is_over(self) -> bool:
        return self.stopped.is_set() or self._near() is None

    def _open(self) -> AbstractConnection | None:
        connection = self._connection()
        return None if connection is None else connection.push_connection()

    def _follow(self, opened: AbstractConnection) -> None:
        near = self._near()
        if near is None:
            return
        opened._parser.set_invalidation_push_handler(self._drop)
        opened.connect()
        opened.send_command("CLIENT", "TRACKING", "ON", "BCAST", "PREFIX", f"{near.name}:")
        opened.read_response()
        near.clear()
        self.on = True
        self._pause = FIRST_PAUSE_SECONDS
        del near
        heard = monotonic()
        while not self._is_over():
            if opened.can_read(timeout=POLL_SECONDS):
                opened.read_response(push_request=True)
                heard = monotonic()
            elif monotonic() - heard > QUIET_SECONDS:
                opened.send_command("PING")
                opened.read_response()
                heard = monotonic()

    def _drop(self, push: list[Any]) -> None:
        """Takes ``["invalidate", keys]``; no keys means all of them."""
        near, keys = self._near(), push[1]
        if near is None:
            return
        if keys is None:
            near.clear()
        else:
            near.drop([key.decode(errors="surrogateescape") for key in keys])

    def _turn_off(self) -> None:
        near = self._near()
        if self.on and near is not None:
            near.clear()
        self.on = False


_alive: WeakSet[Tracking] = WeakSet()


def _start_over_in_child() -> None:
    for tracking in _alive:
        tracking._start_over()


os.register_at_fork(after_in_child=_start_over_in_child)
