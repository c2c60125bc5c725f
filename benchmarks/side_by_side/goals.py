"""What the cache is to reach beside the others, and whether it did."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from .contenders import OURS, RAW, REDISVL
from .results import ASYNC, SYNC, TOGETHER, Case, Results


@dataclass(frozen=True, slots=True)
class SpeedGoal:
    """At least so many times as fast as another contender."""

    style: str
    operation: str
    ttl: bool
    against: str
    least: float

    def applies(self, results: Results) -> bool:
        """Whether this run can judge it: processor time leaves out the waiting that makes up most of a raw call."""
        return self.against != RAW or results.environment["clock"] == "wall"

    def case(self, dimension: int) -> Case:
        """What it is about, at this dimension."""
        return Case(dimension, self.style, self.operation, self.ttl)


@dataclass(frozen=True, slots=True)
class MemoryGoal:
    """At most that part of what an entry of RedisVL takes."""

    dtype: str
    most: float


SPEED_GOALS: Final = (
    SpeedGoal(SYNC, "mget", False, REDISVL, 20),
    SpeedGoal(SYNC, "mget", True, REDISVL, 35),
    SpeedGoal(SYNC, "mset", False, REDISVL, 25),
    SpeedGoal(SYNC, "mget_embeddings", False, REDISVL, 28),
    SpeedGoal(SYNC, "mget_embeddings", False, RAW, 0.75),
    SpeedGoal(SYNC, "get", False, RAW, 0.9),
    SpeedGoal(ASYNC, TOGETHER, False, REDISVL, 15),
)
MEMORY_GOALS: Final = (MemoryGoal("float32", 0.22), MemoryGoal("float16", 0.14), MemoryGoal("int8", 0.09))


@dataclass(frozen=True, slots=True)
class Verdict:
    """One goal at one dimension.

    Attributes:
        what: The goal, for people.
        goal: With its sign and unit.
        got: What was measured, in the same unit.
        reached: Whether that is enough.
    """

    what: str
    goal: str
    got: str
    reached: bool


def verdicts(results: Results) -> list[Verdict]:
    """All goals that this run can judge, at each of its dimensions."""
    return [
        each
        for dimension in results.dimensions
        for each in [*_speed_verdicts(results, dimension), *_memory_verdicts(results, dimension)]
    ]


def speed_goal(results: Results, case: Case, against: str) -> SpeedGoal | None:
    """The goal for this case that this run can judge, if there is one."""
    fitting = (goal for goal in SPEED_GOALS if goal.case(case.dimension) == case and goal.against == against)
    return next((goal for goal in fitting if goal.applies(results)), None)


def _speed_verdicts(results: Results, dimension: int) -> list[Verdict]:
    found = []
    for goal in SPEED_GOALS:
        ratio = results.times_as_fast(goal.case(dimension), OURS, goal.against)
        if ratio is not None and goal.applies(results):
            ttl = ", TTL" if goal.ttl else ""
            what = f"`{goal.operation}`{ttl}, {dimension:,} dimensions, times as fast as {goal.against}"
            found.append(Verdict(what, f"≥ {goal.least:g}", times(ratio), ratio >= goal.least))
    return found


def _memory_verdicts(results: Results, dimension: int) -> list[Verdict]:
    found = []
    for goal in MEMORY_GOALS:
        ratio = results.memory_ratio(dimension, OURS, goal.dtype, REDISVL)
        if ratio is not None:
            what = f"memory of an entry, {goal.dtype}, {dimension:,} dimensions, of {REDISVL}'s"
            found.append(Verdict(what, f"≤ {goal.most:g}", f"{ratio:.3f}", ratio <= goal.most))
    return found


def times(ratio: float) -> str:
    """A ratio with as many digits as it is worth."""
    return f"{ratio:.1f}" if ratio >= 3 else f"{ratio:.2f}"
