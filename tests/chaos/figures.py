"""What a run of the chaos test has counted, and whether it is what it should be."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from typing import Any

SAMPLES = 5
"""How many failures are shown of each kind."""


@dataclass
class Figures:
    """Counts of one caller, one process or a whole run.

    Attributes:
        calls: Calls of the vectorizer that came to an end.
        texts: Texts that these embedded.
        cancelled: Calls that were cancelled.
        hits: Texts found in the cache.
        errors: Calls of the cache that the server did not answer, or refused.
        acknowledged: Texts that the vectorizer says are stored.
        warnings: Warnings that vectorizers gave.
        slowest: Seconds that the slowest call took.
        wrong: Vectors that are not their text's.
        escaped: Exceptions that a vectorizer let out.
        leaked: Connections in nobody's hands at rest, or open after the end.
        recovered: Processes that found entries again in the end, sync and async.
    """

    calls: int = 0
    texts: int = 0
    cancelled: int = 0
    hits: int = 0
    errors: int = 0
    acknowledged: int = 0
    warnings: int = 0
    slowest: float = 0.0
    wrong: list[str] = field(default_factory=list)
    escaped: list[str] = field(default_factory=list)
    leaked: int = 0
    recovered: int = 0

    def add(self, other: Figures) -> None:
        for each in dataclasses.fields(self):
            mine, theirs = getattr(self, each.name), getattr(other, each.name)
            setattr(self, each.name, max(mine, theirs) if each.name == "slowest" else mine + theirs)

    def dump(self) -> str:
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def load(cls, line: str) -> Figures:
        return cls(**json.loads(line))


@dataclass
class Troubles:
    """What was done to the server, and what it had forgotten afterwards.

    Attributes:
        counts: How often each kind of trouble was made.
        checked: Acknowledged writes that were looked for after an end of the server, each as often as it was.
        lost: How many seconds before the end of the server each lost write was acknowledged.
        lost_beyond: How many of these were acknowledged before what an append-only file may miss.
    """

    counts: dict[str, int] = field(default_factory=dict)
    checked: int = 0
    lost: list[float] = field(default_factory=list)
    lost_beyond: int = 0


@dataclass(frozen=True)
class Outcome:
    """A whole run."""

    seconds: float
    processes: int
    figures: Figures
    troubles: Troubles

    @property
    def failures(self) -> list[str]:
        """Each goal that was missed, in words."""
        figures = self.figures
        found = [
            *(f"wrong vector: {each}" for each in figures.wrong[:SAMPLES]),
            *(f"escaped: {each}" for each in figures.escaped[:SAMPLES]),
        ]
        if lost := self.troubles.lost_beyond:
            found.append(f"{lost} acknowledged writes lost, the oldest {max(self.troubles.lost):.1f} s old")
        if figures.leaked:
            found.append(f"{figures.leaked} connections leaked")
        if figures.recovered != self.processes:
            found.append(f"{self.processes - figures.recovered} of {self.processes} processes did not find the server")
        return found

    def table(self) -> str:
        figures, troubles = self.figures, self.troubles
        oldest = f", the oldest {max(troubles.lost):.2f} s before" if troubles.lost else ""
        made = ", ".join(f"{kind} {count}" for kind, count in troubles.counts.items())
        lines: list[tuple[str, Any]] = [
            ("seconds", f"{self.seconds:.0f}"),
            ("processes", self.processes),
            ("calls", f"{figures.calls:,} of {figures.texts:,} texts; {figures.cancelled:,} more were cancelled"),
            ("hits", f"{figures.hits:,}"),
            ("outages survived", f"{sum(troubles.counts.values())} ({made})"),
            ("calls of the cache that failed", f"{figures.errors:,}, told in {figures.warnings} warnings"),
            ("exceptions that escaped", f"{len(figures.escaped)} (goal 0)"),
            ("wrong vectors", f"{len(figures.wrong)} (goal 0)"),
            ("acknowledged writes", f"{figures.acknowledged:,}; looked for after an end {troubles.checked:,} times"),
            (
                "lost of these",
                f"{len(troubles.lost)}{oldest}; beyond the last second {troubles.lost_beyond} (goal 0)",
            ),
            ("connections leaked", f"{figures.leaked} (goal 0)"),
            ("slowest call", f"{figures.slowest:.2f} s"),
        ]
        width = max(len(name) for name, _ in lines)
        return "\n".join(f"{name:{width}}  {value}" for name, value in lines)
