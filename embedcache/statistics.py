"""Statistics as people ask for them: `CacheStats` over a window, or one per step of it.

Windows are made of whole buckets (`embedcache.buckets`), by the server's clock. Sums are kept there and nothing else;
rates, percentiles and savings are worked out here, from sums that were added up over processes and times.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from math import ceil
from typing import Final, SupportsFloat, TypeAlias

from embedcache import histogram
from embedcache.arguments import is_number, shown
from embedcache.buckets import (
    DAYS,
    LAST_MOMENT,
    MINUTES,
    RESOLUTIONS,
    Resolution,
    Standing,
    read_buckets,
    read_standing,
)
from embedcache.counters import SUMS, ByModel, Counts, add_by_model, total
from embedcache.errors import InvalidInputError
from embedcache.keyspace import Keyspace, encode_model_name
from embedcache.operations import Operation

Moment: TypeAlias = datetime | float
Window: TypeAlias = str | timedelta | tuple[Moment, Moment]

ALL_TIME: Final = "all"
_MAX_BUCKETS: Final = 1_500
"""Buckets read for one answer: a day of minutes, or sixty days of hours."""
MAX_STEPS: Final = 3_000
_MAX_SERIES_BUCKETS: Final = 10_000
_UNITS: Final = {"m": 60, "min": 60, "h": 3_600, "d": 86_400, "w": 7 * 86_400}
_SPAN: Final = re.compile(rf"(\d+) ?({'|'.join(sorted(_UNITS, reverse=True))})")


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheStats:
    """What happened in a cache in a window of time, by all processes that use it.

    Attributes:
        start: When the window begins, in Unix seconds by the server's clock.
        end: When it ends.
        model_name: The model it is about; None for all of them together.
        hits: Texts found on the server.
        misses: Texts not found; `expired`, `evicted` and `corrupt` are among them.
        near_hits: Texts found in a process's near cache.
        sets: Entries stored.
        drops: Entries removed on purpose.
        expired: Misses of entries whose TTL had run out, as far as that can be told.
        evicted: Misses of entries that were evicted, or removed by another program, as far as that can be told.
        corrupt: Misses of entries that are there but damaged.
        errors: Calls that the server did not answer, or answered with an error.
        flights_saved: Texts not computed because another caller was computing them already.
        bytes_read: Length of the values read, in bytes.
        bytes_written: Length of the values written, in bytes.
        texts_computed: Texts that the model computed.
        tokens_computed: Tokens in those texts, as the vectorizer says or estimates.
        compute_seconds: What computing them took.
        time_saved: Seconds that hits spared: their number times what the model takes per text, by all of its
            measurements so far. None where no model's time was measured.
        tokens_saved: Tokens that hits spared, reckoned in the same way; None where none were counted.
        money_saved: Those tokens at the prices set for their models; None where no price is set.
        latencies: Lookup calls (of one text, or of a batch) by slot of `embedcache.histogram`, as pairs.
    """

    start: float
    end: float
    model_name: str | None = None
    hits: int = 0
    misses: int = 0
    near_hits: int = 0
    sets: int = 0
    drops: int = 0
    expired: int = 0
    evicted: int = 0
    corrupt: int = 0
    errors: int = 0
    flights_saved: int = 0
    bytes_read: int = 0
    bytes_written: int = 0
    texts_computed: int = 0
    tokens_computed: int = 0
    compute_seconds: float = 0.0
    time_saved: float | None = None
    tokens_saved: float | None = None
    money_saved: float | None = None
    latencies: tuple[tuple[int, int], ...] = field(default=(), repr=False)

    @property
    def texts(self) -> int:
        """Texts looked up."""
        return self.hits + self.near_hits + self.misses

    @property
    def lookups(self) -> int:
        """Lookup calls, each of one text or of many."""
        return sum(count for _, count in self.latencies)

    @property
    def hit_rate(self) -> float | None:
        """Share of texts found, near cache included, from 0 to 1; None where none were looked up."""
        return (self.hits + self.near_hits) / self.texts if self.texts else None

    @property
    def p50(self) -> float | None:
        """Median seconds of a lookup call; None where there was none."""
        return self.percentile(0.5)

    @property
    def p95(self) -> float | None:
        """Seconds that 95 % of lookup calls did not exceed."""
        return self.percentile(0.95)

    @property
    def p99(self) -> float | None:
        """Seconds that 99 % of lookup calls did not exceed."""
        return self.percentile(0.99)

    def percentile(self, share: float) -> float | None:
        """Seconds that this share (0 to 1) of lookup calls did not exceed, to within 3.2 %.

        Raises:
            InvalidInputError: It is no such share.
        """
        if not is_number(share) or not 0 <= share <= 1:
            raise InvalidInputError(f"share is a number from 0 to 1, not {shown(share)}")
        return histogram.quantile(dict(self.latencies), share)


Build: TypeAlias = Callable[[float, float, ByModel, Standing], "CacheStats"]


# ------------------------------------------------------------------------------------------------ windows


@dataclass(frozen=True, slots=True)
class _Buckets:
    """The buckets of a window: their resolution, and when each begins."""

    resolution: Resolution
    starts: range


def _span(window: object) -> float:
    """Seconds of a window or step given as text or timedelta."""
    if isinstance(window, timedelta):
        seconds = window.total_seconds()
    elif isinstance(window, str) and (read := _SPAN.fullmatch(window.strip())):
        seconds = int(read[1]) * _UNITS[read[2]]
    else:
        raise InvalidInputError(
            f"a span of time is written like '15m', '24h', '7d' or '2w', or is a timedelta, not {shown(window)}"
        )
    if seconds <= 0:
        raise InvalidInputError(f"a span of time is longer than none, not {shown(window)}")
    return seconds


def _ends(window: Window, now: float) -> tuple[float, float]:
    """First and last moment of a window in Unix seconds."""
    if not isinstance(window, tuple):
        return now - _span(window), now
    try:
        start, end = map(_moment, window)
    except (TypeError, ValueError, OverflowError, OSError):
        raise InvalidInputError(
            f"a window of two ends is (start, end), each a datetime or Unix seconds, not {shown(window)}"
        ) from None
    if not start < end:
        raise InvalidInputError(f"a window's start lies before its end, not {start} and {end}")
    return start, end


def _moment(given: object) -> float:
    """Unix seconds of one end of a window."""
    if isinstance(given, datetime):
        return given.timestamp()
    if isinstance(given, bool | str) or not isinstance(given, SupportsFloat) or not abs(float(given)) <= LAST_MOMENT:
        raise ValueError(given)
    return float(given)


def check_window(window: Window) -> None:
    """Checks a window before the server is asked.

    Raises:
        InvalidInputError: It cannot be read.
    """
    if not _is_all_time(window):
        _ends(window, 0.0)


def _is_all_time(window: object) -> bool:
    return isinstance(window, str) and window == ALL_TIME  # an array would compare its items


def check_model(model_name: str | None) -> None:
    """Checks the model that statistics are asked of; None is all of them.

    Raises:
        InvalidModelNameError: It cannot be one.
    """
    if model_name is not None:
        encode_model_name(model_name)


def check_series(window: Window, step: str | timedelta) -> float:
    """Checks a series before the server is asked; returns the seconds of a step.

    Raises:
        InvalidInputError: Window or step cannot be read.
    """
    _ends(window, 0.0)
    seconds = _span(step)
    if seconds % MINUTES.seconds:
        raise InvalidInputError(f"a step is a whole number of minutes, not {seconds:g} s")
    return seconds


def _buckets(window: Window, now: float) -> _Buckets:
    """The window in the finest buckets that are still kept and not too many."""
    start, end = _ends(window, now)
    for resolution in RESOLUTIONS:
        starts = _starts(start, end, resolution.seconds, whole_span=not isinstance(window, tuple))
        if starts[0] >= now - resolution.kept_seconds - resolution.seconds and len(starts) <= _MAX_BUCKETS:
            return _Buckets(resolution, starts)
    oldest = DAYS.start(now - DAYS.kept_seconds)
    starts = range(max(starts[0], oldest), max(starts[-1], oldest) + DAYS.seconds, DAYS.seconds)
    return _Buckets(DAYS, starts)


def _starts(start: float, end: float, seconds: int, *, whole_span: bool) -> range:
    """When the buckets of a window begin.

    A window up to now ends in a bucket that is still filling; it has as many buckets as its length says, that one
    among them. A window with two ends has every bucket that it touches.
    """
    last = ceil(end / seconds) * seconds
    first = last - ceil((end - start) / seconds) * seconds if whole_span else int(start // seconds) * seconds
    return range(first, max(last, first + seconds), seconds)


def _until(start: float, stop: float, now: float) -> float:
    """When a window of whole buckets ends: the last one may still be filling."""
    return min(stop, max(now, start))


def _steps(window: Window, step: float, now: float) -> tuple[Resolution, range]:
    """The resolution to read a series in, and when its steps begin."""
    start, end = _ends(window, now)
    steps = _starts(start, end, int(step), whole_span=not isinstance(window, tuple))
    if len(steps) > MAX_STEPS:
        raise InvalidInputError(f"{len(steps):,} steps are more than {MAX_STEPS:,}: choose longer ones")
    resolution = max((each for each in RESOLUTIONS if step % each.seconds == 0), key=lambda each: each.seconds)
    if steps[0] < now - resolution.kept_seconds - step:
        raise InvalidInputError(
            f"steps of {timedelta(seconds=step)} are kept for {resolution.kept_seconds // 86_400} days:"
            " choose longer steps or a later start"
        )
    if len(steps) * step > _MAX_SERIES_BUCKETS * resolution.seconds:
        raise InvalidInputError(
            f"steps of {timedelta(seconds=step)} are read minute by minute: choose whole hours or days"
        )
    return resolution, steps


# ------------------------------------------------------------------------------------------------ questions


def stats(space: Keyspace, window: Window, model_name: str | None) -> Operation[CacheStats]:
    """The sums of a window, over all models or of one."""
    check_model(model_name)
    start, end, counts, standing = yield from _read_window(space, window)
    return build(start, end, counts, standing, model_name)


def stats_by_model(space: Keyspace, window: Window) -> Operation[dict[str, CacheStats]]:
    """The sums of a window, for each model apart."""
    start, end, counts, standing = yield from _read_window(space, window)
    return {name: build(start, end, counts, standing, name) for name in sorted(filter(None, counts))}


def total_by_model(space: Keyspace) -> Operation[dict[str | None, CacheStats]]:
    """The sums of all time for each model apart; None is what no model can be named for."""
    standing = yield from read_standing(space)
    return {name: build(0.0, standing.now, {name: each}, standing, name) for name, each in standing.total.items()}


def _read_window(space: Keyspace, window: Window) -> Operation[tuple[float, float, ByModel, Standing]]:
    check_window(window)
    standing = yield from read_standing(space)
    if _is_all_time(window):
        return 0.0, standing.now, standing.total, standing
    buckets = _buckets(window, standing.now)
    counts: ByModel = {}
    for each in (yield from read_buckets(space, buckets.resolution, buckets.starts)):
        add_by_model(counts, each)
    starts = buckets.starts
    return starts[0], _until(starts[0], starts.stop, standing.now), counts, standing


def series(
    space: Keyspace, window: Window, step: str | timedelta, model_name: str | None
) -> Operation[list[CacheStats]]:
    """The sums of each step of a window, first to last; a step in which nothing happened is all zeros."""
    check_model(model_name)
    return [
        build(start, end, counts, standing, model_name)
        for start, end, counts, standing in (yield from _read_series(space, window, step))
    ]


def series_by_model(space: Keyspace, window: Window, step: str | timedelta) -> Operation[dict[str, list[CacheStats]]]:
    """As `series`, for each model apart."""
    steps = yield from _read_series(space, window, step)
    names = sorted({name for _, _, counts, _ in steps for name in counts if name is not None})
    return {name: [build(start, end, counts, now, name) for start, end, counts, now in steps] for name in names}


def _read_series(
    space: Keyspace, window: Window, step: str | timedelta
) -> Operation[list[tuple[float, float, ByModel, Standing]]]:
    seconds = check_series(window, step)
    standing = yield from read_standing(space)
    resolution, steps = _steps(window, seconds, standing.now)
    found = yield from read_buckets(space, resolution, range(steps[0], steps[-1] + steps.step, resolution.seconds))
    per_step = steps.step // resolution.seconds
    rows = []
    for index, start in enumerate(steps):
        counts: ByModel = {}
        for each in found[index * per_step : (index + 1) * per_step]:
            add_by_model(counts, each)
        rows.append((float(start), _until(start, start + steps.step, standing.now), counts, standing))
    return rows


# ------------------------------------------------------------------------------------------------ answers


def build(start: float, end: float, counts: ByModel, standing: Standing, model_name: str | None) -> CacheStats:
    """The record of these counts: of one model, or of all of them together."""
    chosen: ByModel = counts if model_name is None else {model_name: counts.get(model_name, Counts())}
    added = total(chosen.values())
    sums = {name: getattr(added, name) for name in SUMS if name != "compute_nanoseconds"}
    return CacheStats(
        start=start,
        end=end,
        model_name=model_name,
        **sums,
        compute_seconds=added.compute_nanoseconds * histogram.NANOSECONDS,
        time_saved=_sum_known(_time_saved(each, _costs(name, each, standing)) for name, each in chosen.items()),
        tokens_saved=_sum_known(_tokens_saved(each, _costs(name, each, standing)) for name, each in chosen.items()),
        money_saved=_sum_known(_money_saved(chosen, standing)),
        latencies=tuple(sorted(added.latencies.items())),
    )


def _costs(model_name: str | None, counts: Counts, standing: Standing) -> Counts:
    """What a model's texts have cost so far: of all time where that is on record, else in these counts themselves."""
    ever = standing.total.get(model_name)
    return ever if ever is not None and ever.texts_computed else counts


def _spared(counts: Counts) -> int:
    return counts.hits + counts.near_hits + counts.flights_saved


def _time_saved(counts: Counts, costs: Counts) -> float | None:
    if not costs.texts_computed or not costs.compute_nanoseconds:
        return None
    return _spared(counts) * costs.compute_nanoseconds * histogram.NANOSECONDS / costs.texts_computed


def _tokens_saved(counts: Counts, costs: Counts) -> float | None:
    if not costs.texts_computed or not costs.tokens_computed:
        return None
    return _spared(counts) * costs.tokens_computed / costs.texts_computed


def _money_saved(counts: ByModel, standing: Standing) -> Iterator[float | None]:
    for name, each in counts.items():
        price = standing.prices.get(name) if name is not None else None
        tokens = _tokens_saved(each, _costs(name, each, standing))
        yield None if price is None or tokens is None else tokens / 1_000 * price


def _sum_known(amounts: Iterable[float | None]) -> float | None:
    known = [amount for amount in amounts if amount is not None]
    return sum(known) if known else None
