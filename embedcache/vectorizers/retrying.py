"""Whether to ask a model's server once more, and when.

The official client waits as the server asks, too, but up to two minutes each time, and it asks again where an account
is out of credit. Here all tries of one request begin within seconds that the user sets.
"""

from __future__ import annotations

import random
import time
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from math import isfinite
from typing import Final

FIRST_PAUSE: Final = 0.5
LONGEST_PAUSE: Final = 8.0
_JITTER: Final = 0.25
_TRY_AGAIN: Final = frozenset({408, 409, 429})
_SERVER_ERRORS: Final = 500
_OUT_OF_CREDIT: Final = frozenset({"insufficient_quota", "billing_hard_limit_reached"})


@dataclass(frozen=True, slots=True)
class Failure:
    """A request that brought no vectors.

    Attributes:
        status: The reply's HTTP status; None where there was no whole reply.
        code: The server's own code for it, such as ``rate_limit_exceeded``; empty where it gave none.
        message: What the server, or the connection, says of it, in one line.
        body: All that the server says of it, to look for words in.
        headers: The reply's headers, their names in lower case.
        cause: What the client raised.
    """

    status: int | None
    code: str
    message: str
    body: str
    headers: Mapping[str, str]
    cause: Exception


def retry_after(headers: Mapping[str, str], now: float | None = None) -> float | None:
    """Seconds after which a server wants to be asked again; None where it does not say, or not readably.

    ``retry-after-ms`` is milliseconds; ``retry-after`` seconds or an HTTP date (RFC 9110, 10.2.3).

    Args:
        headers: The reply's, their names in lower case.
        now: Unix seconds; None is now.
    """
    for name, unit in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        try:
            seconds = float(headers.get(name, "")) * unit
        except ValueError:
            continue
        if isfinite(seconds):
            return max(seconds, 0.0)
    try:
        moment = parsedate_to_datetime(headers.get("retry-after", "")).timestamp()
    except (ValueError, OverflowError, OSError):
        return None
    return max(moment - (time.time() if now is None else now), 0.0)


def may_retry(failure: Failure) -> bool:
    """Whether the same request may succeed later."""
    if failure.code in _OUT_OF_CREDIT:
        return False
    asked = failure.headers.get("x-should-retry")  # OpenAI's servers know best
    if asked in {"true", "false"}:
        return asked == "true"
    return failure.status is None or failure.status in _TRY_AGAIN or failure.status >= _SERVER_ERRORS


def pause(failure: Failure, retries: int, left: float) -> float | None:
    """Seconds to wait before the next try; None where there is to be none.

    What the server asks for, else half a second, and twice as long each time, up to 8 s; less up to a quarter by
    chance, so that many that were refused together do not come back together.

    Args:
        failure: How the last try ended.
        retries: How many tries there were after the first.
        left: Seconds within which the next try may begin.
    """
    if not may_retry(failure):
        return None
    seconds = retry_after(failure.headers)
    if seconds is None:
        # No more than 2**10, which is far over the limit.
        longest = min(FIRST_PAUSE * 2 ** min(retries, 10), LONGEST_PAUSE)
        seconds = longest * (1 - _JITTER * random.random())  # noqa: S311 - no secret
    return seconds if seconds <= left else None
