"""Work on a server that others use: in steps too short to be noticed, with pauses as long as the steps."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from embedcache.arguments import is_number, shown
from embedcache.errors import InvalidInputError

STEP_KEYS: Final = 250
"""Keys changed in one step, which holds a server up for a millisecond or two (measured: 4 to 6 microseconds a key)."""
HALF: Final = 0.5
UNPACED: Final = 1.0

_LONGEST_PAUSE_SECONDS: Final = 0.1


class Pace:
    """How long to wait after each step.

    A step is timed here, from sending to having the answer, which is never less than the server took.

    Args:
        share: How much of the server's time to take, at most: above 0, up to 1, which makes no pauses.

    Raises:
        InvalidInputError: The share is not above 0 and up to 1.
    """

    def __init__(self, share: float = HALF) -> None:
        if not is_number(share) or not 0 < share <= 1:
            raise InvalidInputError(f"a pace is a share of the server's time, above 0 and up to 1, not {shown(share)}")
        self._rest = 1 / share - 1

    @contextmanager
    def step(self) -> Iterator[None]:
        """Around one step; where it succeeds, waits afterwards."""
        started = time.perf_counter()
        yield
        if self._rest:
            time.sleep(min((time.perf_counter() - started) * self._rest, _LONGEST_PAUSE_SECONDS))
