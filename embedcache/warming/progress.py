"""How far a warming is, how fast it goes, and what came of it: records alone."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from embedcache.arguments import check_kind, gone_through
from embedcache.warming.corpora import BadRow

BAD_ROWS_NAMED: Final = 100
"""Of rows that cannot be used, so many are named; the others are counted."""

_WINDOW_SECONDS: Final = 30.0
"""Rate and time left go by so much of the past: what was cached already goes by a thousand times faster than what is
computed, and says nothing of it."""


@dataclass(slots=True)
class Counts:
    """What was done of one process's part.

    Attributes:
        rows: Rows whose text was dealt with, or that cannot be used.
        hits: Of these, whose text was cached already, or came before in the corpus.
        missing: Distinct texts that the cache lacked.
        computed: Of these, how many were computed and stored.
        failed: Rows that cannot be used.
        fraction: How much of the part was done, from 0 to 1.
        bad_rows: The first of those that cannot be used.
    """

    rows: int = 0
    hits: int = 0
    missing: int = 0
    computed: int = 0
    failed: int = 0
    fraction: float = 0.0
    bad_rows: list[BadRow] = field(default_factory=list)

    def fail(self, bad: BadRow) -> None:
        """Counts a row that cannot be used, and names it where there is room."""
        self.rows += 1
        self.failed += 1
        if len(self.bad_rows) < BAD_ROWS_NAMED:
            self.bad_rows.append(bad)


@dataclass(frozen=True, slots=True)
class WarmProgress:
    """How far a warming is.

    Attributes:
        done: Rows dealt with: hits, computed and failed ones together.
        hits: Rows whose text was cached already, or came before in the corpus.
        computed: Distinct texts computed and stored.
        failed: Rows that cannot be used, or whose text the model refused.
        fraction: How much of the corpus is done, from 0 to 1, by its bytes or, of Parquet, by its rows.
        seconds: Since it began.
        rate: Rows per second, over the last half minute.
        seconds_left: By that speed; None while it is not known, as after the first batch, before which the model loads.
    """

    done: int
    hits: int
    computed: int
    failed: int
    fraction: float
    seconds: float
    rate: float
    seconds_left: float | None


@dataclass(frozen=True, slots=True)
class WarmReport:
    """What a warming did.

    Attributes:
        rows: Rows of the corpus.
        hits: Rows whose text was cached already, or came before in the corpus.
        missing: Distinct texts that the cache lacked.
        computed: Of these, how many were computed and stored; 0 in a dry run.
        failed: Rows that cannot be used, or whose text the model refused.
        bad_rows: The first `BAD_ROWS_NAMED` of these, by their numbers.
        seconds: How long it took, loading the model included.
        dry_run: Whether it only counted.
    """

    rows: int
    hits: int
    missing: int
    computed: int
    failed: int
    bad_rows: tuple[BadRow, ...]
    seconds: float
    dry_run: bool


def add_up(reports: Iterable[WarmReport]) -> WarmReport:
    """One report of several, such as those of Dask's partitions; its seconds are those of all together."""
    several = [check_kind("a report", each, WarmReport) for each in gone_through("reports", reports)]
    bad_rows = [bad for each in several for bad in each.bad_rows]
    return WarmReport(
        rows=sum(each.rows for each in several),
        hits=sum(each.hits for each in several),
        missing=sum(each.missing for each in several),
        computed=sum(each.computed for each in several),
        failed=sum(each.failed for each in several),
        bad_rows=tuple(bad_rows[:BAD_ROWS_NAMED]),
        seconds=sum(each.seconds for each in several),
        dry_run=any(each.dry_run for each in several),
    )


Tell: TypeAlias = Callable[[WarmProgress], object]
"""Told how far a warming is. What it raises ends the work; what was stored stays."""


def tell_nobody(_progress: WarmProgress) -> None:
    """Tells nobody."""


class Progress:
    """What all parts of a warming have done, put together, and how fast.

    Args:
        tell: Told of it.
        parts: In how many parts the corpus is warmed.
        clock: Seconds that only grow.
    """

    def __init__(self, tell: Tell, parts: int = 1, clock: Callable[[], float] = time.monotonic) -> None:
        self._tell = tell
        self._clock = clock
        self._began = clock()
        self._parts = [Counts() for _ in range(parts)]
        self._past = deque([(self._began, 0, 0.0)])
        self._computes = False

    def update(self, part: int, counts: Counts) -> None:
        """Takes what one part has done by now, and tells of the whole."""
        self._parts[part] = counts
        self._tell(self.now())

    def now(self) -> WarmProgress:
        """How far it is."""
        now = self._clock()
        computed = sum(each.computed for each in self._parts)
        done = sum(each.rows for each in self._parts)
        fraction = sum(each.fraction for each in self._parts) / len(self._parts)
        if computed and not self._computes:  # what was before went into loading the model, and is not to be expected
            self._computes = True
            self._past.clear()
        self._past.append((now, done, fraction))
        while len(self._past) > 2 and self._past[1][0] <= now - _WINDOW_SECONDS:  # noqa: PLR2004 - two make a span
            self._past.popleft()
        since, done_then, fraction_then = self._past[0]
        speed = (fraction - fraction_then) / (now - since) if now > since else 0.0
        if now <= since:
            since, done_then = self._began, 0
        seconds_left = (1.0 - fraction) / speed if speed > 0 else None
        return WarmProgress(
            done=done,
            hits=sum(each.hits for each in self._parts),
            computed=computed,
            failed=sum(each.failed for each in self._parts),
            fraction=fraction,
            seconds=now - self._began,
            rate=(done - done_then) / (now - since) if now > since else 0.0,
            seconds_left=0.0 if fraction >= 1 else seconds_left,
        )

    def report(self, *, dry_run: bool) -> WarmReport:
        """What came of it."""
        bad_rows = sorted((bad for each in self._parts for bad in each.bad_rows), key=lambda bad: bad.number)
        return WarmReport(
            rows=sum(each.rows for each in self._parts),
            hits=sum(each.hits for each in self._parts),
            missing=sum(each.missing for each in self._parts),
            computed=sum(each.computed for each in self._parts),
            failed=sum(each.failed for each in self._parts),
            bad_rows=tuple(bad_rows[:BAD_ROWS_NAMED]),
            seconds=self._clock() - self._began,
            dry_run=dry_run,
        )
