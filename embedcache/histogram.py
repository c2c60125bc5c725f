"""Latencies counted on a logarithmic scale, so that percentiles of many processes can be taken from their sums.

The scale is HdrHistogram's (https://hdrhistogram.github.io/HdrHistogram/): a duration in whole nanoseconds keeps its
five leading bits, which makes 16 slots per power of two. A slot is at most 1/16 as wide as what it counts, so its
middle is within 3.2 % of every duration in it. Nanosecond to hour are 600 slots, of which a cache uses some twenty.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import accumulate
from math import ceil
from typing import Final

NANOSECONDS: Final = 1e-9
_LEADING_BITS: Final = 5
_STEPS: Final = 1 << (_LEADING_BITS - 1)


def slot_of(nanoseconds: int) -> int:
    """The slot that counts a duration. `embedcache.counters` repeats these lines where a call would cost too much."""
    spare_bits = nanoseconds.bit_length() - _LEADING_BITS
    return spare_bits * _STEPS + (nanoseconds >> spare_bits) if spare_bits > 0 else max(nanoseconds, 0)


def bounds(slot: int) -> tuple[float, float]:
    """The durations that a slot counts, in seconds: from the first up to, not including, the second."""
    spare_bits = max(slot // _STEPS - 1, 0)
    leading = slot - spare_bits * _STEPS
    return (leading << spare_bits) * NANOSECONDS, ((leading + 1) << spare_bits) * NANOSECONDS


def quantile(counts: Mapping[int, int], share: float) -> float | None:
    """The duration in seconds that this share (0 to 1) of those counted did not exceed; None where none were counted.

    Args:
        counts: How many durations fell into each slot.
        share: 0.95 for the 95th percentile.
    """
    slots = sorted(slot for slot, count in counts.items() if count > 0)
    if not slots:
        return None
    totals = list(accumulate(counts[slot] for slot in slots))
    rank = max(ceil(share * totals[-1]), 1)
    low, high = bounds(next(slot for slot, total in zip(slots, totals, strict=True) if total >= rank))
    return (low + high) / 2
