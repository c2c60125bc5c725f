"""Takes the samples: every contender, every operation, in shuffled rounds on one server."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import redis

from .contenders import OPENERS, OURS, PEERS, Calls, Contender, Opener, open_ours
from .results import ASYNC, TOGETHER, Case, Memory, Timing
from .rounds import (
    Arguments,
    Clock,
    Sampler,
    aseconds_per_call,
    aseconds_together,
    rounds_within,
    sample_rounds,
    seconds_per_call,
    without_gc,
)
from .workload import Workload

TTL_SECONDS = 3_600
SINGLES = 100
"""Calls per sample of an operation on one entry: one alone is too short to time."""
SAMPLE_SECONDS = 0.01
"""A batch that takes less is repeated in each sample, up to so many times."""
MOST_REPEATS = 10
LEAST_ROUNDS, MOST_ROUNDS = 5, 60

ON_ONE = ("get", "set", "exists", "drop")
DROPS = ("drop", "mdrop")
TTL_CHANGES = ("get", "set", "mget", "mget_embeddings", "mset", TOGETHER)
"""Operations that are measured with a TTL too."""
DTYPES = ("float32", "float16", "int8")

Samplers = dict[tuple[Case, str], Sampler]


@dataclass(frozen=True, slots=True)
class Setting:
    """Where and how samples are taken.

    Attributes:
        socket: Of a server that nobody else uses.
        clock: What is read before and after.
        tell: Is told how far it is.
    """

    socket: Path
    clock: Clock
    tell: Callable[[str], None]


def measure(setting: Setting, style: str, work: Workload, seconds: float) -> list[Timing]:
    """Timings of all contenders in one style, sync or async, on this work.

    Args:
        setting: Where and how.
        style: ``sync`` or ``async``.
        work: What all do.
        seconds: For how long samples are taken; a few rounds are taken in any case.
    """
    with asyncio.Runner() as runner, ExitStack() as kept:
        samplers = _Bench(setting, style, work, runner, kept).samplers()
        with without_gc():
            rounds = rounds_within(seconds, LEAST_ROUNDS, MOST_ROUNDS)
            found = sample_rounds(samplers, _told(rounds, setting.tell, f"{work.dimension:,} dimensions, {style}"))
    return [Timing(case, contender, samples) for (case, contender), samples in found.items()]


def _told(rounds: Iterator[int], tell: Callable[[str], None], what: str) -> Iterator[int]:
    for number in rounds:
        tell(f"{what}: round {number + 1}")
        yield number


class _Bench:
    """All contenders over filled caches, in one style; `runner` runs their async calls."""

    def __init__(self, setting: Setting, style: str, work: Workload, runner: asyncio.Runner, kept: ExitStack) -> None:
        self._setting, self._style, self._work = setting, style, work
        self._runner, self._kept = runner, kept

    def samplers(self) -> Samplers:
        """One for each case and contender that can do it, in seconds per entry; all have run once."""
        found: Samplers = {}
        for name in OPENERS:
            for ttl in (None, TTL_SECONDS):
                contender = self._open(name, self._work, ttl)
                self._check(contender)
                found |= self._keeping(contender, ttl)
            found |= self._dropping(name)
        return found

    def _open(self, name: str, work: Workload, ttl: int | None, what: str = "") -> Contender:
        prefix = f"{name.replace(' ', '-')}-{ttl or 'no'}-ttl{what}"
        contender = self._kept.enter_context(OPENERS[name](self._setting.socket, prefix, work, ttl))
        self._kept.callback(lambda: self._runner.run(_awaited(contender.aclose)))
        contender.calls["mset"]()
        return contender

    def _check(self, contender: Contender) -> None:
        """A fast cache that returns something else would win."""
        replies = contender.calls["mget"](), self._runner.run(_awaited(contender.acalls["mget"]))
        if not all(map(contender.is_right, replies)):
            raise RuntimeError(f"{contender.name} did not return the vectors that it was given")

    def _calls(self, contender: Contender) -> Calls:
        return contender.acalls if self._style == ASYNC else contender.calls

    def _case(self, operation: str, ttl: int | None = None) -> Case:
        return Case(self._work.dimension, self._style, operation, ttl is not None)

    def _keeping(self, contender: Contender, ttl: int | None) -> Samplers:
        """Samplers of the operations that leave the entries where they are."""
        found: Samplers = {}
        for operation, call in self._calls(contender).items():
            if operation in DROPS or (ttl is not None and operation not in TTL_CHANGES):
                continue
            sampler = self._singles(call) if operation in ON_ONE else self._batches(call)
            found[self._case(operation, ttl), contender.name] = sampler
        if self._style == ASYNC:
            found[self._case(TOGETHER, ttl), contender.name] = self._together(contender.acalls["get"])
        return found

    def _dropping(self, name: str) -> Samplers:
        """Samplers of removals, on caches of their own that are filled anew for each sample."""
        found: Samplers = {}
        for operation in DROPS:
            some = Workload(SINGLES, self._work.dimension) if operation in ON_ONE else self._work
            contender = self._open(name, some, None, f"-{operation}")
            call = self._calls(contender)[operation]
            once = self._singles(call) if operation in ON_ONE else self._timed(call, [()], self._work.entries)
            found[self._case(operation), name] = _prepared(contender.calls["mset"], once)
        return found

    def _singles(self, call: Callable[..., Any]) -> Sampler:
        return self._timed(call, [(i,) for i in range(min(SINGLES, self._work.entries))], 1)

    def _batches(self, call: Callable[..., Any]) -> Sampler:
        once = self._timed(call, [()], self._work.entries)
        once()  # the first call connects, and loads scripts
        repeats = math.ceil(SAMPLE_SECONDS / (once() * self._work.entries))
        return self._timed(call, [()] * min(repeats, MOST_REPEATS), self._work.entries)

    def _timed(self, call: Callable[..., Any], arguments: Arguments, entries: int) -> Sampler:
        clock = self._setting.clock
        if self._style == ASYNC:
            return lambda: self._runner.run(aseconds_per_call(call, arguments, clock)) / entries
        return lambda: seconds_per_call(call, arguments, clock) / entries

    def _together(self, call: Callable[..., Any]) -> Sampler:
        arguments = [(i,) for i in range(self._work.entries)]
        self._runner.run(aseconds_together(call, arguments))  # opens the pool's connections
        return lambda: self._runner.run(aseconds_together(call, arguments, self._setting.clock))


def _prepared(prepare: Callable[[], object], sampler: Sampler) -> Sampler:
    def prepared() -> float:
        prepare()
        return sampler()

    return prepared


async def _awaited(call: Callable[[], Any]) -> Any:
    return await call()


# ------------------------------------------------------------------------------------------------ memory


def measure_memory(socket: Path, work: Workload) -> list[Memory]:
    """Bytes per entry of every contender, by dtype where it has a choice. Empties the server.

    They are what ``MEMORY USAGE`` says of all keys. Raw redis-py stores our values, so it is left out.
    """
    openers: dict[tuple[str, str], Opener] = {
        (OURS, dtype): partial(open_ours, dtype=dtype, stats=False) for dtype in DTYPES
    }
    openers |= {(name, "JSON"): OPENERS[name] for name in PEERS}
    found = []
    with redis.Redis(unix_socket_path=str(socket)) as server:
        for (name, dtype), opener in openers.items():
            server.flushall()
            with opener(socket, "memory", work, None) as contender:
                contender.calls["mset"]()
                found.append(Memory(work.dimension, name, dtype, _bytes_of_all(server) / work.entries))
        server.flushall()
    return found


def _bytes_of_all(server: redis.Redis) -> int:
    pipeline = server.pipeline(transaction=False)
    for key in server.scan_iter(count=1_000):
        pipeline.memory_usage(key, samples=0)
    return sum(pipeline.execute())
