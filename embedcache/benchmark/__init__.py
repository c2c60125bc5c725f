"""How long the cache takes, beside what it replaces: the timings that the dashboard shows.

A `Scenario` prepares the variants that it compares. `run` times them round by round, each round in the opposite order
of the one before, so that a machine that slows down meanwhile slows them all alike. All happens in throw-away caches of
names of their own, whose entries are dropped in the end and would expire by themselves: no other cache is touched, and
nothing is counted. ::

    measured = run("redis://localhost:6379", Settings(iterations=100), HFTextVectorizer())
    measured.result("cache").comparisons()[0].speedup
"""

from __future__ import annotations

import gc
import os
import platform
import secrets
import time
from collections.abc import Sequence
from contextlib import closing
from importlib.metadata import version
from pathlib import Path
from statistics import fmean
from time import perf_counter_ns
from typing import Final

import numpy as np

from embedcache import __version__, inspector
from embedcache.arguments import check_function, check_kind
from embedcache.benchmark.records import Comparison, Environment, Measurement, OperationName, Run, ScenarioResult
from embedcache.benchmark.scenarios import (
    MAX_ITERATIONS,
    SCENARIOS,
    SENTENCES,
    Bench,
    Scenario,
    Settings,
    Tell,
    Variant,
)
from embedcache.connection import RedisConnection
from embedcache.errors import EmbedcacheError, InvalidInputError, ServerReplyError
from embedcache.vectorizers.base import BaseVectorizer

__all__ = [
    "MAX_ITERATIONS",
    "SCENARIOS",
    "SENTENCES",
    "Comparison",
    "Environment",
    "Measurement",
    "OperationName",
    "Run",
    "Scenario",
    "ScenarioResult",
    "Settings",
    "Tell",
    "run",
]

WARM_UP_ROUNDS: Final = 2
_UNKNOWN: Final = "unknown"
_NANOSECOND: Final = 1e-9


def run(
    url: str | None = None,
    settings: Settings | None = None,
    vectorizer: BaseVectorizer | None = None,
    tell: Tell | None = None,
    *,
    read_only: bool = False,
) -> Run:
    """Runs a benchmark. Nothing else should be at work beside it: two at once slow each other down.

    Args:
        url: The server, as `EmbeddingsCache` takes it.
        settings: What to measure; None is `Settings()`.
        vectorizer: For scenarios that need a model; its own cache is left alone. Without one, vectors are random.
        tell: Called before the model is loaded, and after each timing. What it raises ends the benchmark.
        read_only: Whether its caches are opened read-only, as for a user who may not write: what it measures writes, so
            that the data layer refuses it.

    Raises:
        ReadOnlyError: It was to be read-only.
        InvalidInputError: A scenario needs a vectorizer, and there is none.
        CacheUnavailableError: The server cannot be reached.
        VectorizerError: The model cannot be loaded, or gave no vectors.
        EmbedcacheError: Entries were gone that had just been stored.
    """
    settings = Settings() if settings is None else check_kind("settings", settings, Settings)
    check_function("tell", tell, may_be_none=True)
    if vectorizer is not None:
        check_kind("vectorizer", vectorizer, BaseVectorizer)
    chosen = [scenario for scenario in SCENARIOS.values() if scenario.key in settings.scenarios]
    if needy := [scenario.title for scenario in chosen if scenario.needs_model and vectorizer is None]:
        raise InvalidInputError(f"the scenario {needy[0]!r} needs a vectorizer")
    at, started = time.time(), time.monotonic()
    tell = _tell_nobody if tell is None else tell
    if vectorizer is not None:
        tell(0, 0, "Loading the model")
    with (
        Bench(url, settings, vectorizer, tell, read_only=read_only) as bench,
        closing(RedisConnection(url, read_only=read_only)) as connection,
    ):
        where = find_environment(connection, "" if vectorizer is None else vectorizer.model_name)
        results = _measure(bench, chosen, tell)
    return Run(
        run_id=f"{int(at * 1000):015d}-{secrets.token_hex(4)}",
        at=at,
        seconds=time.monotonic() - started,
        texts=len(bench.texts),
        characters=sum(map(len, bench.texts)),
        iterations=settings.iterations,
        dimension=bench.dimension,
        environment=where,
        results=results,
    )


def _tell_nobody(done: int, total: int, note: str) -> None:
    """For those who do not wait."""


def _measure(bench: Bench, scenarios: Sequence[Scenario], tell: Tell) -> tuple[ScenarioResult, ...]:
    prepared: list[tuple[Scenario, list[Variant]]] = []
    for scenario in scenarios:
        tell(0, 0, f"Preparing: {scenario.title}")
        prepared.append((scenario, scenario.prepare(bench)))
    rounds = WARM_UP_ROUNDS + bench.settings.iterations
    total = rounds * sum(len(variants) for _, variants in prepared)
    done = 0
    results: list[ScenarioResult] = []
    for scenario, variants in prepared:
        timings = _time_rounds(variants, rounds, done, total, scenario.title, tell)
        done += rounds * len(variants)
        results.append(ScenarioResult(scenario.key, tuple(map(_summed_up, variants, timings))))
    return tuple(results)


def _time_rounds(
    variants: Sequence[Variant], rounds: int, done: int, total: int, title: str, tell: Tell
) -> list[list[float]]:
    """Seconds of each call of each variant, without those that only warm up."""
    samples: list[list[float]] = [[] for _ in variants]
    gc.collect()
    for turn in range(rounds):
        order = range(len(variants)) if turn % 2 else reversed(range(len(variants)))
        for position in order:
            seconds = _time(variants[position], turn)
            if turn >= WARM_UP_ROUNDS:
                samples[position].append(seconds)
            done += 1
            tell(done, total, title)
    return samples


def _time(variant: Variant, turn: int) -> float:
    started = perf_counter_ns()
    reply = variant.call(turn)
    seconds = (perf_counter_ns() - started) * _NANOSECOND
    if not variant.complete(reply):
        raise EmbedcacheError(
            "entries that the benchmark had just stored were gone, so its timings would mean nothing: the server is "
            "full, or somebody is emptying it. Make room, then run it again"
        )
    return seconds


def _summed_up(variant: Variant, samples: Sequence[float]) -> Measurement:
    p50, p95, p99 = np.quantile(samples, (0.5, 0.95, 0.99), method="inverted_cdf").tolist()
    return Measurement(
        variant=variant.name,
        operation=variant.operation,
        texts=variant.texts,
        count=len(samples),
        mean=fmean(samples),
        p50=p50,
        p95=p95,
        p99=p99,
        samples=tuple(samples),
        bytes_per_entry=variant.bytes_per_entry,
    )


# ------------------------------------------------------------------------------------------------ where it ran


def find_environment(connection: RedisConnection, model_name: str) -> Environment:
    """What a benchmark's numbers depend on: versions, server and machine. No address and no host name is in it."""
    try:
        info = inspector.server_info(connection)
        server = f"{info.kind} {info.version}"
    except ServerReplyError:
        server = _UNKNOWN  # an ACL may forbid INFO, and a cache works without
    return Environment(
        embedcache=__version__,
        redis_py=version("redis"),
        numpy=np.__version__,
        python=platform.python_version(),
        server=server,
        embedded=connection.is_embedded,
        cpu=_cpu(),
        cpus=os.cpu_count() or 1,
        platform=f"{platform.system()} {platform.machine()}",
        model=model_name,
    )


def _cpu() -> str:
    known = Path("/proc/cpuinfo")
    if known.is_file():
        for line in known.read_text(errors="replace").splitlines():
            name, _, value = line.partition(":")
            if name.strip() == "model name" and value.strip():
                return value.strip()
    return platform.processor() or platform.machine() or _UNKNOWN
