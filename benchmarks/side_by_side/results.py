"""What a comparison measured, as records that go to JSON and back."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from .rounds import median_ratio

SYNC, ASYNC = "sync", "async"
TOGETHER = "aget, together"
"""The operation of many async calls that are awaited together."""


@dataclass(frozen=True, slots=True)
class Case:
    """What is done, and in what setting."""

    dimension: int
    style: str
    operation: str
    ttl: bool = False


@dataclass(frozen=True, slots=True)
class Timing:
    """What one contender took for one case.

    Attributes:
        case: What it did.
        contender: Who did it.
        seconds: Per entry, one for each round. In the same round, all contenders of a case were timed.
    """

    case: Case
    contender: str
    seconds: list[float]

    @property
    def median(self) -> float:
        """Seconds per entry."""
        return statistics.median(self.seconds)


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes of the server's memory that an entry takes, its key included."""

    dimension: int
    contender: str
    dtype: str
    bytes_per_entry: float


@dataclass(frozen=True)
class Results:
    """One run.

    Attributes:
        environment: Machine, versions and state, for people.
        timings: One for each case and contender that can do it.
        memory: One for each dimension, contender and dtype.
    """

    environment: dict[str, Any]
    timings: list[Timing]
    memory: list[Memory]

    def timing(self, case: Case, contender: str) -> Timing | None:
        """What the contender took, or None where it has no such operation."""
        return next((each for each in self.timings if each.case == case and each.contender == contender), None)

    def rival(self, case: Case, contender: str) -> Timing | None:
        """The timing of this contender that ours is compared with.

        Who has no call for vectors alone is there with what users call in place of it: ``mget``.
        """
        found = self.timing(case, contender)
        if found is None and case.operation == "mget_embeddings":
            return self.timing(replace(case, operation="mget"), contender)
        return found

    def times_as_fast(self, case: Case, ours: str, other: str) -> float | None:
        """How many times as fast `ours` is as its rival, within rounds; None where one of them cannot do it."""
        mine, theirs = self.timing(case, ours), self.rival(case, other)
        return None if mine is None or theirs is None else median_ratio(theirs.seconds, mine.seconds)

    def memory_ratio(self, dimension: int, ours: str, dtype: str, other: str) -> float | None:
        """Bytes of an entry of ours, of those of the other one's entry."""
        mine, theirs = self._memory(dimension, ours, dtype), self._memory(dimension, other)
        return None if mine is None or theirs is None else mine.bytes_per_entry / theirs.bytes_per_entry

    def _memory(self, dimension: int, contender: str, dtype: str | None = None) -> Memory | None:
        found = (each for each in self.memory if (each.dimension, each.contender) == (dimension, contender))
        return next((each for each in found if dtype in (None, each.dtype)), None)

    @property
    def dimensions(self) -> list[int]:
        """The dimensions that were measured, in order."""
        return sorted({each.case.dimension for each in self.timings})


def save(results: Results, path: Path) -> None:
    """Writes a run as JSON."""
    plain = asdict(results)
    for timing in plain["timings"]:
        timing["seconds"] = _short(timing["seconds"])
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(plain, indent=1) + "\n")


def load(path: Path) -> Results:
    """A run that `save` wrote."""
    plain = json.loads(path.read_text())
    timings = [Timing(Case(**each["case"]), each["contender"], each["seconds"]) for each in plain["timings"]]
    return Results(plain["environment"], timings, [Memory(**each) for each in plain["memory"]])


def _short(numbers: Iterable[float]) -> list[float]:
    """Four significant digits: what lies below is noise."""
    return [float(f"{number:.4g}") for number in numbers]
