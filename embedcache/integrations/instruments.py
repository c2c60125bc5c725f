"""What a cache counts, as monitoring systems name it: the same names for Prometheus and for OpenTelemetry."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, TypeAlias

from embedcache.cache import EmbeddingsCache
from embedcache.statistics import CacheStats


@dataclass(frozen=True, slots=True)
class Instrument:
    """One sum that only grows.

    Attributes:
        attribute: Where `CacheStats` holds it.
        name: What follows ``embedcache_`` or ``embedcache.``.
        unit: By UCUM, as OpenTelemetry wants it (https://ucum.org).
        help: One sentence for people.
    """

    attribute: str
    name: str
    unit: str
    help: str

    def value(self, records: Iterable[CacheStats]) -> float:
        """The sum over these records."""
        return float(sum(getattr(record, self.attribute) for record in records))


INSTRUMENTS: Final = (
    Instrument("hits", "hits", "{text}", "Texts found on the server."),
    Instrument("misses", "misses", "{text}", "Texts not found; those expired, evicted and corrupt are among them."),
    Instrument("near_hits", "near_hits", "{text}", "Texts found in a process's near cache."),
    Instrument("sets", "sets", "{entry}", "Entries stored."),
    Instrument("drops", "drops", "{entry}", "Entries removed on purpose."),
    Instrument("expired", "expired", "{text}", "Misses of entries whose TTL had run out, as far as that can be told."),
    Instrument("evicted", "evicted", "{text}", "Misses of entries that were evicted or removed by another program."),
    Instrument("corrupt", "corrupt", "{text}", "Misses of entries that are there but damaged."),
    Instrument("errors", "errors", "{call}", "Calls that the server did not answer, or answered with an error."),
    Instrument("bytes_read", "read_bytes", "By", "Length of the values read."),
    Instrument("bytes_written", "written_bytes", "By", "Length of the values written."),
    Instrument("texts_computed", "texts_computed", "{text}", "Texts that a model computed."),
    Instrument("compute_seconds", "compute_seconds", "s", "What computing them took."),
    Instrument("tokens_computed", "tokens_computed", "{token}", "Tokens in the texts computed, as told or estimated."),
    Instrument("flights_saved", "flights_saved", "{text}", "Texts that another caller was computing already."),
)

ByCacheAndModel: TypeAlias = dict[tuple[str, str], list[CacheStats]]
"""Records by names of cache and model; the model is empty where none can be named."""


def process_records(caches: Iterable[EmbeddingsCache]) -> ByCacheAndModel:
    """What these objects have counted. Objects of one name come together: a series may be told but once."""
    records: ByCacheAndModel = {}
    for cache in caches:
        for model_name, record in cache.process_stats_by_model().items():
            records.setdefault((cache.name, model_name or ""), []).append(record)
    return records
