"""What Prometheus reads: the process's counts, the shared ones, and what it learns when a server is away."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import threading
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families
from servers import Server, free_port, running

from embedcache import EmbeddingsCache, InvalidInputError, histogram
from embedcache.integrations.prometheus import BOUNDS, ProcessCollector, SharedCollector

Samples = dict[tuple[str, ...], float]


def scrape(*collectors: Any) -> Samples:
    """What a scraper reads: values by metric, cache, model and, in a histogram, upper bound."""
    registry = CollectorRegistry()
    for collector in collectors:
        registry.register(collector)
    samples: Samples = {}
    for family in text_string_to_metric_families(generate_latest(registry).decode()):
        for sample in family.samples:
            labels = [sample.labels[name] for name in ("cache", "model", "le") if name in sample.labels]
            series = (sample.name, *labels)
            assert series not in samples, f"{series} is told twice"
            samples[series] = sample.value
    return samples


def used(server: Server, name: str = "docs") -> EmbeddingsCache:
    """A cache with 2 hits and 1 miss of one model, 1 hit of another, 1 miss of a key, and what computing took."""
    cache = EmbeddingsCache(name, redis_url=server.url)
    cache.mset([{"text": text, "model_name": "m", "embedding": [1.0, 2.0]} for text in "ab"])
    cache.set("a", "other", [1.0])
    cache.mget(["a", "b", "c"], "m")
    cache.get("a", "other")
    cache.get_by_key(cache.key_for("never stored", "m"))
    cache.drop("b", "m")
    cache.record_computation("m", texts=3, seconds=1.5, tokens=12)
    return cache


EXPECTED = {
    "hits_total": {"m": 2, "other": 1, "": 0},
    "misses_total": {"m": 1, "other": 0, "": 1},
    "sets_total": {"m": 2, "other": 1, "": 0},
    "drops_total": {"m": 1, "other": 0, "": 0},
    "near_hits_total": {"m": 0, "other": 0, "": 0},
    "expired_total": {"m": 0, "other": 0, "": 0},
    "evicted_total": {"m": 0, "other": 0, "": 0},
    "corrupt_total": {"m": 0, "other": 0, "": 0},
    "errors_total": {"m": 0, "other": 0, "": 0},
    "flights_saved_total": {"m": 0, "other": 0, "": 0},
    "texts_computed_total": {"m": 3, "other": 0, "": 0},
    "compute_seconds_total": {"m": 1.5, "other": 0, "": 0},
    "tokens_computed_total": {"m": 12, "other": 0, "": 0},
    "lookup_duration_seconds_count": {"m": 1, "other": 1, "": 1},
}


@pytest.mark.parametrize("kind", ["process", "shared"])
def test_every_count_is_told_by_cache_and_model(server: Server, kind: str) -> None:
    with used(server) as cache:
        cache.flush_stats()
        collector, prefix = {
            "process": (ProcessCollector(cache), "embedcache_process_"),
            "shared": (SharedCollector(cache), "embedcache_"),
        }[kind]
        samples = scrape(collector)
        stats = cache.process_stats()
    for name, by_model in EXPECTED.items():
        assert {model: samples[prefix + name, "docs", model] for model in by_model} == by_model, name
    for name, expected in (("read_bytes_total", stats.bytes_read), ("written_bytes_total", stats.bytes_written)):
        assert sum(samples[prefix + name, "docs", model] for model in ("m", "other", "")) == expected > 0


def test_the_buckets_are_cumulative_and_agree_with_the_percentiles(valkey: Server) -> None:
    with used(valkey) as cache:
        for _ in range(50):
            cache.get("a", "m")
        samples = scrape(ProcessCollector(cache))
        stats = cache.process_stats("m")
    name = "embedcache_process_lookup_duration_seconds"
    bounds = sorted((key[3] for key in samples if key[0] == f"{name}_bucket" and key[2] == "m"), key=float)
    assert tuple(map(float, bounds)) == BOUNDS
    counts = [samples[f"{name}_bucket", "docs", "m", bound] for bound in bounds]
    assert counts == sorted(counts)
    assert counts[-1] == samples[f"{name}_count", "docs", "m"] == stats.lookups == 51
    median = next(bound for bound, count in zip(BOUNDS, counts, strict=True) if count >= 26)
    assert stats.p50 is not None
    assert max([0.0, *(bound for bound in BOUNDS if bound < median)]) < stats.p50 <= median
    edges = [(histogram.bounds(slot), count) for slot, count in stats.latencies]
    least, most = (sum(bounds[side] * count for bounds, count in edges) for side in (0, 1))
    assert least <= samples[f"{name}_sum", "docs", "m"] <= most
    for bound, count in zip(BOUNDS, counts, strict=True):
        assert sum(many for (_, high), many in edges if high <= bound) <= count
        assert count <= sum(many for (low, _), many in edges if low <= bound)


def test_both_go_into_one_registry_and_are_told_apart(valkey: Server) -> None:
    with used(valkey) as first, EmbeddingsCache("docs", redis_url=valkey.url) as second:
        second.get("a", "m")
        second.flush_stats()
        samples = scrape(ProcessCollector(first), SharedCollector(first))
        assert samples["embedcache_process_hits_total", "docs", "m"] == 2
        assert samples["embedcache_hits_total", "docs", "m"] == 1  # the first has sent nothing yet
        first.flush_stats()
        assert scrape(SharedCollector(first))["embedcache_hits_total", "docs", "m"] == 3


def test_objects_of_one_name_are_one_series(valkey: Server) -> None:
    with used(valkey) as first, EmbeddingsCache("docs", redis_url=valkey.url) as second:
        second.get("a", "m")
        assert scrape(ProcessCollector(first, second))["embedcache_process_hits_total", "docs", "m"] == 3
        first.flush_stats()
        second.flush_stats()
        assert scrape(SharedCollector(first, second))["embedcache_hits_total", "docs", "m"] == 3


def test_caches_of_one_name_on_two_servers_are_refused() -> None:
    one, other = (EmbeddingsCache("docs", redis_url=f"redis://localhost:{port}") for port in (1, 2))
    with pytest.raises(InvalidInputError, match="two caches are named 'docs'"):
        SharedCollector(one, other)


def test_registering_asks_no_server_and_finds_clashes(valkey: Server) -> None:
    away = EmbeddingsCache("docs", redis_url=f"redis://127.0.0.1:{free_port()}")
    registry = CollectorRegistry()
    registry.register(SharedCollector(away))
    registry.register(ProcessCollector(away))
    with pytest.raises(ValueError, match="embedcache_hits_total"):
        registry.register(SharedCollector(away))
    assert away.process_stats().errors == 0
    names = {metric.name for metric in SharedCollector(away).describe()}
    assert {"embedcache_up", "embedcache_hits", "embedcache_lookup_duration_seconds"} <= names
    with used(valkey) as cache:
        cache.flush_stats()
        collected = [metric.name for metric in SharedCollector(cache).collect()]
    assert sorted(names) == sorted(collected)


def test_a_server_that_is_away_is_down_and_the_others_are_told() -> None:
    with running("valkey9") as here, running("valkey9") as gone:
        docs, lost, lost_too = used(here), used(gone, "lost"), used(gone, "lost too")
        collector = SharedCollector(docs, lost, lost_too)
        for cache in (docs, lost, lost_too):
            cache.flush_stats()
        before = scrape(collector)
        assert [before["embedcache_up", name] for name in ("docs", "lost", "lost too")] == [1, 1, 1]
        gone.stop()
        samples = scrape(collector)
        assert [samples["embedcache_up", name] for name in ("docs", "lost", "lost too")] == [1, 0, 0]
        assert {key[1] for key in samples if key[0] != "embedcache_up"} == {"docs"}
        gone.start()
        assert scrape(collector)["embedcache_up", "lost"] == 1
        for cache in (docs, lost, lost_too):
            cache.close()


def test_a_server_that_does_not_answer_is_asked_once_per_scrape() -> None:
    calls: list[socket.socket] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def hang_up() -> None:
            with contextlib.suppress(OSError):
                while True:
                    calls.append(listener.accept()[0])
                    calls[-1].close()

        threading.Thread(target=hang_up, daemon=True).start()
        url = f"redis://127.0.0.1:{listener.getsockname()[1]}"
        caches = [EmbeddingsCache(name, redis_url=url) for name in "abc"]
        assert scrape(SharedCollector(caches[0])) == {("embedcache_up", "a"): 0}
        calls_for_one = len(calls)
        assert scrape(SharedCollector(*caches)) == {("embedcache_up", name): 0 for name in "abc"}
        assert len(calls) == 2 * calls_for_one > 0
        listener.shutdown(socket.SHUT_RDWR)  # ends the thread


def test_statistics_that_cannot_be_read_are_down(valkey: Server) -> None:
    with used(valkey) as cache, used(valkey, "other") as other:
        cache.flush_stats()
        other.flush_stats()
        (key,) = valkey.raw.keys("docs:stats:*:total")
        valkey.raw.delete(key)
        valkey.raw.set(key, "no hash")
        assert scrape(SharedCollector(cache, other))["embedcache_up", "docs"] == 0
        samples = scrape(SharedCollector(cache, other))
        assert (samples["embedcache_up", "docs"], samples["embedcache_up", "other"]) == (0, 1)


def test_counters_never_fall(valkey: Server) -> None:
    cache = used(valkey)
    collectors = ProcessCollector(cache), SharedCollector(cache)
    cache.flush_stats()
    before = scrape(*collectors)
    for _ in range(3):
        cache.mget(["a", "b"], "m")
        cache.mget_by_keys([cache.key_for("a", "m"), cache.key_for("a", "other"), cache.key_for("none", "m")])
        cache.clear()
        cache.flush_stats()
        after = scrape(*collectors)
        assert {key for key, value in before.items() if after[key] < value} == set()
        assert sum(after.values()) > sum(before.values())
        before = after
    cache.close()


def test_a_scrape_tells_no_password_and_no_text() -> None:
    with running("valkey9", port=free_port(), password="s3cret") as server:  # noqa: S106 - a test's
        url = f"redis://:s3cret@127.0.0.1:{server.port}"
        with EmbeddingsCache("docs", redis_url=url) as cache:
            cache.set("a private text", "m", [1.0])
            cache.get("a private text", "m")
            key = cache.key_for("a private text", "m")
            cache.flush_stats()
            registry = CollectorRegistry()
            registry.register(ProcessCollector(cache))
            registry.register(SharedCollector(cache))
            told = generate_latest(registry).decode()
    assert 'embedcache_hits_total{cache="docs",model="m"} 1.0' in told
    for secret in ("s3cret", "private", key):
        assert secret not in told


def test_without_the_library_the_error_says_what_to_install() -> None:
    code = "import sys; sys.modules['prometheus_client'] = None; import embedcache.integrations.prometheus"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "ImportError: embedcache.integrations.prometheus needs prometheus-client" in done.stderr
    assert "pip install 'embedcache[prometheus]'" in done.stderr
