"""The windows of time to choose from: their steps, and how a time axis over them is labelled. Knows no streamlit."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo
from typing import Final
from zoneinfo import ZoneInfo

_MINUTE: Final = 60
_HOUR: Final = 3_600
_DAY: Final = 86_400


@dataclass(frozen=True, slots=True)
class Window:
    """A window of time up to now.

    Attributes:
        span: How long it is, as `EmbeddingsCache.stats` takes it.
        label: The same for people.
        step: How long a step of its series is, as `EmbeddingsCache.stats_series` takes it.
        step_label: The same for people.
        seconds: How long the window is, in seconds.
        tick_seconds: How far apart the labels of its axis are.
        refresh_seconds: After how long a page that shows it asks anew: a long window changes slowly, and costs more.
    """

    span: str
    label: str
    step: str
    step_label: str
    seconds: int
    tick_seconds: int
    refresh_seconds: int

    @property
    def in_days(self) -> bool:
        """Whether its steps are days, which are days of UTC in every zone."""
        return self.step.endswith("d")


# Few enough steps that a bar can be told from its neighbours on a phone.
WINDOWS: Final = (
    Window("15m", "15 min", "1m", "1 min", 15 * _MINUTE, 5 * _MINUTE, 5),
    Window("1h", "1 h", "1m", "1 min", _HOUR, 15 * _MINUTE, 5),
    Window("6h", "6 h", "5m", "5 min", 6 * _HOUR, _HOUR, 10),
    Window("24h", "24 h", "30m", "30 min", _DAY, 4 * _HOUR, 30),
    Window("7d", "7 d", "3h", "3 h", 7 * _DAY, _DAY, 60),
    Window("30d", "30 d", "1d", "1 d", 30 * _DAY, 5 * _DAY, 60),
)
BY_SPAN: Final = {window.span: window for window in WINDOWS}
DEFAULT: Final = BY_SPAN["1h"]


@dataclass(frozen=True, slots=True)
class TimeAxis:
    """A time axis: Unix seconds, with labels in the viewer's zone.

    Plotly knows no zones, and local times stored as if they were UTC run backwards for an hour each autumn.

    Attributes:
        title: What it shows, with the zone.
        start: Where it begins.
        end: Where it ends.
        ticks: Where its labels stand.
        texts: What they say.
    """

    title: str
    start: float
    end: float
    ticks: list[float]
    texts: list[str]


def time_axis(window: Window, start: float, end: float, zone: ZoneInfo) -> TimeAxis:
    """The axis of a window that begins and ends at these Unix seconds."""
    if window.in_days:
        ticks = [at + _DAY / 2 for at in _range(start, end, window.tick_seconds)]
        return TimeAxis("day (UTC)", start, end, ticks, [_day(_local(at, UTC)) for at in ticks])
    every = min(window.tick_seconds, 15 * _MINUTE)  # no zone's offset is finer than a quarter of an hour
    first = -(-start // every) * every
    ticks = [at for at in _range(first, end, every) if _second_of_day(at, zone) % window.tick_seconds == 0]
    whole_days = window.tick_seconds == _DAY
    texts = [
        f"{local:%a} {local.day}" if whole_days else f"{local:%H:%M}" for local in (_local(t, zone) for t in ticks)
    ]
    return TimeAxis(f"time ({zone.key})", start, end, ticks, texts)


def step_label(window: Window, start: float, end: float, zone: ZoneInfo) -> str:
    """A step for people: 14:00 to 14:05, with the day where the window is a day or longer."""
    if window.in_days:
        return f"{_day(_local(start, UTC))} (UTC)"
    first, last = _local(start, zone), _local(end, zone)
    day = f"{first:%a} {_day(first)}, " if window.seconds >= _DAY else ""
    return f"{day}{first:%H:%M} to {last:%H:%M}"


def _range(start: float, end: float, step: float) -> list[float]:
    return [start + number * step for number in range(int((end - start) // step) + 1) if start + number * step < end]


def _local(at: float, zone: tzinfo) -> datetime:
    return datetime.fromtimestamp(at, UTC).astimezone(zone)


def _second_of_day(at: float, zone: ZoneInfo) -> int:
    local = _local(at, zone)
    return local.hour * _HOUR + local.minute * _MINUTE + local.second


def _day(local: datetime) -> str:
    return f"{local.day} {local:%b}"
