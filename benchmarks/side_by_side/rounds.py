"""Interleaved rounds: every round takes one sample of everything that is compared, in an order of its own.

What is compared then sees the same states of the machine, which drifts by more than what is measured. So ratios are
taken within rounds, and the median of them is what counts.
"""

from __future__ import annotations

import asyncio
import gc
import random
import statistics
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager

Sampler = Callable[[], float]
"""Takes one sample: seconds per call."""
Clock = Callable[[], float]
"""`time.perf_counter`, or `time.process_time`: other programs change that less, but it leaves the server out."""
Arguments = Sequence[tuple[object, ...]]
"""One tuple for each call."""


def sample_rounds(samplers: Mapping[str, Sampler], rounds: Iterable[object]) -> dict[str, list[float]]:
    """Seconds per call of each sampler, one for each round; a round for each element of `rounds`."""
    shuffled = random.Random(0)  # noqa: S311 - an order, not a secret
    samples: dict[str, list[float]] = {name: [] for name in samplers}
    for _ in rounds:
        for name in shuffled.sample(list(samplers), len(samplers)):
            samples[name].append(samplers[name]())
    return samples


def seconds_per_call(call: Callable[..., object], arguments: Arguments, clock: Clock = time.perf_counter) -> float:
    """Mean seconds of one call for each of the arguments, in a row."""
    start = clock()
    for each in arguments:
        call(*each)
    return (clock() - start) / len(arguments)


async def aseconds_per_call(
    call: Callable[..., Awaitable[object]], arguments: Arguments, clock: Clock = time.perf_counter
) -> float:
    """Async twin of `seconds_per_call`: one awaited after the other, starting the event loop not counted."""
    start = clock()
    for each in arguments:
        await call(*each)
    return (clock() - start) / len(arguments)


async def aseconds_together(
    call: Callable[..., Awaitable[object]], arguments: Arguments, clock: Clock = time.perf_counter
) -> float:
    """Seconds until calls that are awaited together have all returned, divided by their number."""
    start = clock()
    await asyncio.gather(*(call(*each) for each in arguments))
    return (clock() - start) / len(arguments)


def rounds_within(seconds: float, least: int, most: int) -> Iterator[int]:
    """Counts rounds until that many seconds have passed, but at least and at most so many."""
    start = time.perf_counter()
    for number in range(most):
        if number >= least and time.perf_counter() - start > seconds:
            return
        gc.collect()
        yield number


@contextmanager
def without_gc() -> Iterator[None]:
    """No garbage collection while samples are taken; `rounds_within` collects between rounds."""
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        gc.unfreeze()


def median_ratio(numerators: Sequence[float], denominators: Sequence[float]) -> float:
    """The median of the ratios within each round."""
    return statistics.median(above / below for above, below in zip(numerators, denominators, strict=True))
