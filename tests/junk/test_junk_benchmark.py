"""Junk for benchmarks and their saved runs, for statistics as they are read back, and for starting the dashboard."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from public import public
from world import World, patient, tell

from embedcache.benchmark import Environment, Measurement, Run, ScenarioResult, Settings
from embedcache.statistics import CacheStats

OTHERS = public(
    "embedcache.benchmark",
    "embedcache.benchmark.records",
    "embedcache.benchmark.runs",
    "embedcache.launching",
    "embedcache.statistics.CacheStats",
    "embedcache.buckets.SlowLookup",
    "embedcache.explain.Explanation",
    "embedcache.explain.Reason",
    "embedcache.near.NearState",
    "embedcache.errors",
    "embedcache.CacheItem",
    "embedcache.CacheEntry",
    "embedcache.EntrySummary",
    "embedcache.NEVER",
)
BECOMES_ANOTHER = {"embedcache.launching.start", "embedcache.launching.hash_password"}
"""These end this process where nothing is wrong; `test_starting` has what can be wrong."""
MEASURED = Measurement("a", "read", 1, 1, 0.1, 0.1, 0.1, 0.1, (0.1,))
ENVIRONMENT = Environment("0.1", "8", "2", "3.11", "Valkey 9", embedded=False, cpu="a", cpus=2, platform="b", model="")
RUN = Run(
    "000000000000001-00000000", 1.0, 1.0, 1, 10, 3, 8, ENVIRONMENT, (ScenarioResult("batch", (MEASURED, MEASURED)),)
)
FEW = Settings(texts=("a",), iterations=1, scenarios=("sizes",), batch_sizes=(1,), dimension=2)
PLAUSIBLE: dict[str, Any] = {
    "connection": lambda world: [world.connection],
    "url": lambda world: [None, world.server.url],
    "settings": [FEW],
    "vectorizer": lambda world: [None, world.vectorizer],
    "tell": [None, tell],
    "read_only": [False, True],
    "texts": [("a", "b")],
    "iterations": [1, 50],
    "scenarios": [("batch", "sizes")],
    "batch_sizes": [(1, 10)],
    "dimension": [2],
    "run": [RUN],
    "run_id": [RUN.run_id],
    "Run": lambda _: RUN,
    "ScenarioResult": lambda _: RUN.results[0],
    "key": ["batch"],
    "operation": ["read"],
    "CacheStats": lambda _: CacheStats(start=0.0, end=1.0, latencies=((3, 5),)),
    "share": [0.5],
    "place": lambda world: [world.folder],
    "address": [None, "127.0.0.1"],
    "port": [None, 8501],
}


@pytest.mark.parametrize("name", [name for name in OTHERS if name not in BECOMES_ANOTHER])
@patient
@given(data=st.data())
def test_other_things(world: World, name: str, data: st.DataObject) -> None:
    world.check(OTHERS[name], data, PLAUSIBLE)
