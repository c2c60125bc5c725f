"""Prometheus metrics: one collector over what this process has counted, one over what all processes have.

::

    from prometheus_client import REGISTRY, start_http_server

    REGISTRY.register(ProcessCollector(cache))
    start_http_server(9100, "127.0.0.1")

Names and units follow https://prometheus.io/docs/practices/naming. Every series has the labels ``cache`` and ``model``;
the model is empty where none can be named, as for a miss of a key.

The two collectors differ in the metrics' names (``embedcache_process_hits_total`` and ``embedcache_hits_total``), not
in a label: a `sum` over a label would count each hit twice, and one name may come from one collector only.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator
from itertools import accumulate
from typing import Final, Self

from embedcache import histogram, statistics
from embedcache.arguments import check_text, gone_through
from embedcache.cache import EmbeddingsCache
from embedcache.connection import RedisConnection
from embedcache.errors import CacheUnavailableError, EmbedcacheError, InvalidInputError
from embedcache.integrations.instruments import INSTRUMENTS, process_records
from embedcache.keyspace import Keyspace
from embedcache.statistics import CacheStats

try:
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
    from prometheus_client.metrics_core import Metric
    from prometheus_client.registry import Collector
    from prometheus_client.utils import floatToGoString
except ImportError as error:
    raise ImportError(
        "embedcache.integrations.prometheus needs prometheus-client: pip install 'embedcache[prometheus]'"
    ) from error

SHARED_PREFIX: Final = "embedcache"
PROCESS_PREFIX: Final = "embedcache_process"

BOUNDS: Final = (
    *(0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05),
    *(0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, float("inf")),
)
"""Upper bounds in seconds of the buckets of ``lookup_duration_seconds``."""

_LABELS: Final = ("cache", "model")


class ProcessCollector(Collector):
    """``embedcache_process_...``: what these objects have counted since they were made. Asks no server.

    Args:
        caches: Which ones; those of the same name are added up.
    """

    def __init__(self, *caches: EmbeddingsCache) -> None:
        self._caches = caches

    def describe(self) -> Iterable[Metric]:
        """The metrics without values, so that registering the collector counts nothing."""
        return _Families(PROCESS_PREFIX).all()

    def collect(self) -> Iterator[Metric]:
        """The metrics as they are now."""
        families = _Families(PROCESS_PREFIX)
        for (cache_name, model_name), records in process_records(self._caches).items():
            families.add(cache_name, model_name, records)
        yield from families.all()


class SharedCollector(Collector):
    """``embedcache_...``: what all processes have counted of all time, as their caches' servers have it.

    Register it in one process, or ask with `max` instead of `sum`: each process tells the same. Processes send what
    they count within a second. ``embedcache_up`` is 1 for a cache whose statistics could be read; else it is 0 and
    there is nothing else about it. A server that does not answer is asked once per scrape, however many caches it has.

    Args:
        caches: Which ones.

    Raises:
        InvalidInputError: Two of one name lie on different servers, and nothing would tell them apart.
    """

    def __init__(self, *caches: EmbeddingsCache) -> None:
        self._connections: dict[str, RedisConnection | None] = {}
        for cache in caches:
            known = self._connections.setdefault(cache.name, cache.connection)
            if known is not None and known.address != cache.connection.address:
                raise InvalidInputError(f"two caches are named {cache.name!r}, on different servers")

    @classmethod
    def over(cls, connection: RedisConnection | None, names: Iterable[str]) -> Self:
        """A collector over caches of one server.

        Args:
            connection: The server; None where it cannot be opened, and all its caches are down.
            names: The caches' names.

        Raises:
            InvalidInputError: A name is not a str.
        """
        collector = cls()
        known = [check_text("a cache's name", name) for name in gone_through("names", names)]
        collector._connections = dict.fromkeys(known, connection)
        return collector

    def describe(self) -> Iterable[Metric]:
        """The metrics without values, so that registering the collector asks no server."""
        return [_up(), *_Families(SHARED_PREFIX).all()]

    def collect(self) -> Iterator[Metric]:
        """The metrics as they are now. Raises nothing where a server does not answer."""
        up, families = _up(), _Families(SHARED_PREFIX)
        away: set[str] = set()  # addresses
        for cache_name, connection in self._connections.items():
            found = _read(cache_name, connection, away)
            up.add_metric([cache_name], found is not None)
            for model_name, record in (found or {}).items():
                families.add(cache_name, model_name or "", [record])
        yield up
        yield from families.all()


def _up() -> GaugeMetricFamily:
    return GaugeMetricFamily("embedcache_up", "Whether the cache's statistics could be read.", labels=["cache"])


def _read(name: str, connection: RedisConnection | None, away: set[str]) -> dict[str | None, CacheStats] | None:
    """A cache's statistics of all time; None where they cannot be read. Notes a server that does not answer."""
    if connection is None or connection.address in away:
        return None
    try:
        # Looking at a server is no reason to start one that somebody has stopped.
        return connection.drive(statistics.total_by_model(Keyspace(name)), background=True)
    except CacheUnavailableError:
        away.add(connection.address)
        return None
    except (EmbedcacheError, ValueError):  # refused, or the hash is not one of ours
        return None


class _Families:
    """The metrics of one prefix, filled series by series."""

    def __init__(self, prefix: str) -> None:
        self._counters = [
            (each, CounterMetricFamily(f"{prefix}_{each.name}", each.help, labels=_LABELS)) for each in INSTRUMENTS
        ]
        self._durations = HistogramMetricFamily(
            f"{prefix}_lookup_duration_seconds", "Lookup calls, each of one text or of many.", labels=_LABELS
        )

    def add(self, cache_name: str, model_name: str, records: list[CacheStats]) -> None:
        """Adds the series of one cache and model: the sum of these records."""
        labels = (cache_name, model_name)
        for instrument, family in self._counters:
            family.add_metric(labels, instrument.value(records))
        self._durations.add_metric(labels, *_buckets(pair for record in records for pair in record.latencies))

    def all(self) -> list[Metric]:
        """The metrics, each with the series added so far."""
        return [*(family for _, family in self._counters), self._durations]


def _buckets(latencies: Iterable[tuple[int, int]]) -> tuple[list[tuple[str, float]], float]:
    """Cumulative counts by upper bound, and the sum in seconds, of lookups by slot of `embedcache.histogram`.

    All of a slot goes where its middle lies, so both are within 3.2 %. Bounds on the slots' own edges would make the
    counts exact, and would be numbers that nobody writes into an alert.
    """
    counts = [0] * len(BOUNDS)
    seconds = 0.0
    for slot, count in latencies:
        middle = sum(histogram.bounds(slot)) / 2
        counts[bisect_left(BOUNDS, middle)] += count
        seconds += middle * count
    return list(zip(map(floatToGoString, BOUNDS), accumulate(counts), strict=True)), seconds
