"""Spans of time and sizes as people type them: `36 h`, `7 days`, `10 KiB`. Knows no streamlit.

What cannot be read raises `UnusableInputError`, in our own words.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from pages.ui.inputs import UnusableInputError

_TYPED: Final = re.compile(r"\s*(\d{1,12}(?:[.,]\d{1,6})?)\s*([a-zA-Z]*)\s*", re.ASCII)

_SPANS: Final[Mapping[str, int]] = {
    unit: seconds
    for seconds, units in (
        (1, ("", "s", "sec", "second", "seconds")),
        (60, ("m", "min", "mins", "minute", "minutes")),
        (3_600, ("h", "hr", "hrs", "hour", "hours")),
        (86_400, ("d", "day", "days")),
        (7 * 86_400, ("w", "week", "weeks")),
        (365 * 86_400, ("y", "year", "years")),
    )
    for unit in units
}
_SIZES: Final[Mapping[str, int]] = {
    "": 1,
    "b": 1,
    "byte": 1,
    "bytes": 1,
    "kb": 1_000,
    "mb": 1_000_000,
    "gb": 1_000_000_000,
    "k": 1 << 10,
    "kib": 1 << 10,
    "m": 1 << 20,
    "mib": 1 << 20,
    "g": 1 << 30,
    "gib": 1 << 30,
}


def seconds_of(typed: str) -> float:
    """A span of time in seconds; a number alone is seconds.

    Raises:
        UnusableInputError: It is no span of time.
    """
    number, unit = _parts(typed)
    if unit not in _SPANS:
        raise UnusableInputError("A span of time is a number and a unit: 45 min, 36 h, 7 days, 2 weeks, 1 year.")
    return number * _SPANS[unit]


def bytes_of(typed: str) -> int:
    """A size in bytes; a number alone is bytes. KB are 1,000, KiB 1,024.

    Raises:
        UnusableInputError: It is no size.
    """
    number, unit = _parts(typed)
    if unit not in _SIZES:
        raise UnusableInputError("A size is a number and a unit: 500 B, 10 KiB, 2 MiB.")
    return round(number * _SIZES[unit])


def _parts(typed: str) -> tuple[float, str]:
    found = _TYPED.fullmatch(typed)
    if found is None:
        return 0.0, "?"
    return float(found[1].replace(",", ".")), found[2].lower()
