"""How long calls wait: whether a round trip is tried again, and the wait for one of an event loop's connections.

A round trip is tried a second time where the connection was lost, not where time ran out: a lost connection is mostly
one that the server or a proxy closed while it was idle, and a new one does; a server that did not answer in time would
only have the caller wait as long again. Who wants that all the same says ``retry_on_timeout=True`` among the settings.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeVar

import redis.asyncio
import redis.asyncio.retry
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError
from redis.retry import Retry

R = TypeVar("R")

RETRIED: Final = (RedisConnectionError,)


def ran_out_of_time(error: BaseException) -> bool:
    """Whether the server is there and did not answer in time."""
    # Where that happens while an async connection is made, redis-py calls it an error of connecting.
    return isinstance(error, RedisTimeoutError) or isinstance(error.__cause__, RedisTimeoutError)


class AsyncRetry(redis.asyncio.retry.Retry):
    """redis-py's own, that takes an async connection whose handshake ran out of time for what it is."""

    async def call_with_retry(
        self,
        do: Callable[[], Awaitable[R]],
        fail: Callable[[Exception], Any] | Callable[[Exception, int], Any],
        is_retryable: Callable[[Exception], bool] | None = None,
        with_failure_count: bool = False,
    ) -> R:
        """As redis-py's."""
        return await super().call_with_retry(do, fail, is_retryable or self._is_retryable, with_failure_count)

    def _is_retryable(self, error: Exception) -> bool:
        return not ran_out_of_time(error) or RedisTimeoutError in self._supported_errors


def as_kind(kind: type[Retry | AsyncRetry], given: Retry | AsyncRetry) -> Retry | AsyncRetry:
    """A ``retry`` among the settings, as the sync or the async client needs it, whichever it was."""
    # redis-py has no public name for these two, and one class for each kind of client.
    errors: Any = given._supported_errors
    return kind(given._backoff, given.get_retries(), errors)


class PatientPool(redis.asyncio.BlockingConnectionPool):
    """An event loop's pool: past its size a call waits for a connection, where redis-py's default pool raises.

    Where a waiting call is cancelled just as it is told of a free connection, another one is told instead (asyncio's
    own conditions do so from Python 3.13 on).

    Args:
        check: Raises what a waiting call is to raise, once there is nothing to wait for: no server.
        settings: As redis-py's.
    """

    def __init__(self, check: Callable[[], None], **settings: Any) -> None:
        super().__init__(timeout=None, **settings)
        self._check = check

    def can_get_connection(self) -> bool:
        """Whether there is a connection to be had; asked whenever a waiting call is told of one."""
        self._check()
        return super().can_get_connection()

    async def get_connection(self, *args: Any, **options: Any) -> Any:
        """A connection, once there is one; `release` gives it back."""
        try:
            return await super().get_connection(*args, **options)  # type: ignore[no-untyped-call]
        except BaseException:
            async with self._condition:
                self._condition.notify_all()
            raise
