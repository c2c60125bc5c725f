"""What a benchmark measured: plain records, of which the caches and servers that were timed are no part."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from embedcache.arguments import check_choice, check_text

OperationName = Literal["embed", "read", "write"]


@dataclass(frozen=True, slots=True)
class Measurement:
    """What one variant took.

    Attributes:
        variant: What was timed, such as ``One batch``.
        operation: What was done to the texts.
        texts: How many texts one call handled.
        count: How many calls were timed.
        mean: Seconds per call.
        p50: Seconds that half of the calls did not exceed; each percentile is a call that was timed.
        p95: The same of 95 % of the calls.
        p99: The same of 99 % of the calls.
        samples: Seconds of each call, in the order timed. Of a saved run, some of them in ascending order, the shortest
            and the longest included.
        bytes_per_entry: What the server says an entry costs on average, or None where that was not asked.
    """

    variant: str
    operation: OperationName
    texts: int
    count: int
    mean: float
    p50: float
    p95: float
    p99: float
    samples: tuple[float, ...] = ()
    bytes_per_entry: float | None = None

    @property
    def per_text(self) -> float:
        """Seconds per text, by the median."""
        return self.p50 / self.texts

    @property
    def texts_per_second(self) -> float:
        """How many texts a second are handled, by the median."""
        return self.texts / self.p50


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two variants that do the same.

    Attributes:
        baseline: The one to beat.
        variant: The other one.
    """

    baseline: Measurement
    variant: Measurement

    @property
    def speedup(self) -> float:
        """How many times less the variant takes per text, by the medians; under 1 it takes more."""
        return self.baseline.per_text / self.variant.per_text

    @property
    def latency_reduction(self) -> float:
        """Which share of the time per text the variant saves, by the medians; negative where it takes more."""
        return 1 - self.variant.per_text / self.baseline.per_text


@dataclass(frozen=True, slots=True)
class ScenarioResult:
    """What came of one scenario.

    Attributes:
        key: The scenario's key in `benchmark.SCENARIOS`.
        measurements: One for each variant and operation, in the scenario's order.
    """

    key: str
    measurements: tuple[Measurement, ...]

    def of(self, operation: OperationName) -> tuple[Measurement, ...]:
        """The measurements of one operation, in order; the first is what the others are compared with.

        Raises:
            InvalidInputError: There is no such operation.
        """
        check_choice("operation", operation, get_args(OperationName))
        return tuple(each for each in self.measurements if each.operation == operation)

    def comparisons(self, operation: OperationName | None = None) -> list[Comparison]:
        """Each variant beside the first one of the same operation; None takes the scenario's first operation."""
        if operation is None:
            operation = self.measurements[0].operation
        same = self.of(operation)
        return [Comparison(same[0], other) for other in same[1:]]


@dataclass(frozen=True, slots=True)
class Environment:
    """Where a benchmark ran. ``unknown`` is what could not be found out; `model` is empty where none was used."""

    embedcache: str
    redis_py: str
    numpy: str
    python: str
    server: str
    embedded: bool
    cpu: str
    cpus: int
    platform: str
    model: str


@dataclass(frozen=True, slots=True)
class Run:
    """One benchmark.

    Attributes:
        run_id: Names it; ids sort by time.
        at: When it began, in Unix seconds by the clock of the machine that ran it.
        seconds: What it took, from end to end.
        texts: How many texts were used. The texts themselves are not kept.
        characters: How many characters they had together.
        iterations: Timings taken of each variant.
        dimension: Length of the vectors.
        environment: Where it ran.
        results: What was measured, in the order of `benchmark.SCENARIOS`.
    """

    run_id: str
    at: float
    seconds: float
    texts: int
    characters: int
    iterations: int
    dimension: int
    environment: Environment
    results: tuple[ScenarioResult, ...]

    def result(self, key: str) -> ScenarioResult | None:
        """What came of a scenario, or None where it was not run.

        Raises:
            InvalidInputError: The key is not a str.
        """
        check_text("key", key, encodable=False)
        return next((result for result in self.results if result.key == key), None)
