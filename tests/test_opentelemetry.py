"""What OpenTelemetry is told, by its own SDK: spans, metrics, and nothing of what was asked for."""

from __future__ import annotations

import asyncio
import gc
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis
import redis.asyncio
from calling import Caller
from opentelemetry import trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode
from servers import Server, free_port, running

from embedcache import CacheUnavailableError, EmbeddingsCache, InvalidInputError
from embedcache.errors import ServerReplyError
from embedcache.integrations.opentelemetry import instrument, uninstrument

Wrap = Callable[[EmbeddingsCache], Caller]


class Told:
    """What the SDK was told so far."""

    def __init__(self) -> None:
        self.exporter = InMemorySpanExporter()
        self.tracers = TracerProvider()
        self.tracers.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.reader = InMemoryMetricReader()
        self.meters = MeterProvider([self.reader])

    def by(self, cache: EmbeddingsCache) -> EmbeddingsCache:
        instrument(cache, tracer_provider=self.tracers, meter_provider=self.meters)
        return cache

    @property
    def spans(self) -> tuple[ReadableSpan, ...]:
        return self.exporter.get_finished_spans()

    def attributes(self) -> list[dict[str, Any]]:
        return [dict(span.attributes or {}) for span in self.spans]

    def points(self, name: str) -> list[Any]:
        data = self.reader.get_metrics_data()
        scopes = [scope for each in (data.resource_metrics if data else ()) for scope in each.scope_metrics]
        return [
            point
            for scope in scopes
            for metric in scope.metrics
            if metric.name == name
            for point in metric.data.data_points
        ]

    def counts(self, name: str) -> dict[tuple[str, str], float]:
        return {
            (point.attributes["db.collection.name"], point.attributes["embedcache.model_name"]): point.value
            for point in self.points(name)
        }

    def everything(self) -> str:
        data = self.reader.get_metrics_data()
        return json.dumps([span.to_json() for span in self.spans]) + (data.to_json() if data else "")


@pytest.fixture
def told() -> Iterator[Told]:
    made = Told()
    yield made
    made.tracers.shutdown()
    made.meters.shutdown()


def items(*texts: str) -> list[Any]:
    return [{"text": text, "model_name": "m", "embedding": [1.0, 2.0]} for text in texts]


def test_each_call_is_a_span_by_the_conventions(told: Told, valkey: Server, caller: Wrap) -> None:
    cache = caller(told.by(EmbeddingsCache("docs", redis_url=valkey.url)))
    cache.set("a", "m", [1.0, 2.0])
    cache.mset(items("b", "c"))
    cache.get("a", "m")
    cache.get("nobody", "m")
    cache.mget(["a", "b", "nobody"], "m")
    cache.mget_embeddings(["a", "nobody"], "m")
    cache.get_by_key(cache.cache.key_for("a", "m"))
    cache.clear()
    assert [span.name for span in told.spans] == [
        *("set docs", "mset docs", "get docs", "get docs", "mget docs"),
        *("mget_embeddings docs", "mget_by_keys docs", "clear docs"),
    ]
    assert {span.kind for span in told.spans} == {SpanKind.CLIENT}
    assert {span.status.status_code for span in told.spans} == {StatusCode.UNSET}
    fixed = {"db.system.name": "redis", "db.collection.name": "docs", "server.address": str(valkey.socket)}
    for span, attributes in zip(told.spans, told.attributes(), strict=True):
        assert fixed.items() <= attributes.items()
        assert attributes["db.operation.name"] == span.name.removesuffix(" docs")
    named = ("embedcache.model_name", "db.operation.batch.size", "embedcache.texts", "embedcache.hits")
    assert [tuple(attributes.get(name) for name in named) for attributes in told.attributes()] == [
        ("m", None, None, None),
        (None, 2, None, None),
        ("m", None, 1, 1),
        ("m", None, 1, 0),
        ("m", 3, 3, 2),
        ("m", 2, 2, 1),
        (None, None, 1, 1),
        (None, None, None, None),
    ]


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        (
            "redis://:s3cret@db.example:7000/2",
            {"server.address": "db.example", "server.port": 7000, "db.namespace": "2"},
        ),
        ("rediss://user:s3cret@db.example", {"server.address": "db.example", "server.port": 6379, "db.namespace": "0"}),
        ("redis://db.example?db=3", {"server.address": "db.example", "server.port": 6379, "db.namespace": "3"}),
        ("unix:///run/s?db=4&password=s3cret", {"server.address": "/run/s", "db.namespace": "4"}),
        ("unix:///run/s", {"server.address": "/run/s"}),
        ("embedded:///some/folder", {"server.address": "/some/folder"}),
        ("embedded://", {"server.address": "embedded"}),
    ],
)
def test_where_the_server_is_comes_from_the_url(told: Told, url: str, expected: dict[str, Any]) -> None:
    cache = told.by(EmbeddingsCache("docs", redis_url=url))
    with pytest.raises(InvalidInputError):
        cache.get("", "m")  # fails before anything is connected
    (attributes,) = told.attributes()
    names = ("server.address", "server.port", "db.namespace")
    assert {name: attributes[name] for name in names if name in attributes} == expected
    assert "s3cret" not in told.everything()


class NotingClient(redis.Redis):
    """Notes the span that is current when a command goes out."""

    seen: trace.SpanContext

    def execute_command(self, *args: Any, **options: Any) -> Any:
        self.seen = trace.get_current_span().get_span_context()
        return super().execute_command(*args, **options)


class AsyncNotingClient(redis.asyncio.Redis):
    seen: trace.SpanContext

    async def execute_command(self, *args: Any, **options: Any) -> Any:
        self.seen = trace.get_current_span().get_span_context()
        return await super().execute_command(*args, **options)


def check_parents(told: Told, request: trace.Span, seen: trace.SpanContext) -> None:
    (span,) = told.spans
    assert trace.get_current_span() is request
    assert seen == span.get_span_context()
    assert span.parent == request.get_span_context()


def test_the_span_is_current_and_the_callers_is_its_parent(told: Told, valkey: Server) -> None:
    with NotingClient(unix_socket_path=str(valkey.socket)) as client:
        cache = told.by(EmbeddingsCache("docs", redis_client=client, stats=False))
        with told.tracers.get_tracer("test").start_as_current_span("request") as request:
            cache.get("a", "m")
            check_parents(told, request, client.seen)
    assert not trace.get_current_span().get_span_context().is_valid


async def test_the_same_async(told: Told, valkey: Server) -> None:
    async with AsyncNotingClient(unix_socket_path=str(valkey.socket)) as client:
        cache = told.by(EmbeddingsCache("docs", async_redis_client=client, stats=False))
        with told.tracers.get_tracer("test").start_as_current_span("request") as request:
            await cache.aget("a", "m")
            check_parents(told, request, client.seen)
    assert not trace.get_current_span().get_span_context().is_valid


async def test_tasks_side_by_side_keep_their_own_span(told: Told, valkey: Server) -> None:
    cache = told.by(EmbeddingsCache("docs", redis_url=valkey.url))
    tracer = told.tracers.get_tracer("test")

    async def request(number: int) -> int:
        with tracer.start_as_current_span(f"request {number}") as outer:
            for _ in range(3):
                await cache.aget(f"text {number}", "m")
            assert trace.get_current_span() is outer
            return outer.get_span_context().span_id

    outer = await asyncio.gather(*map(request, range(8)))
    parents = [span.parent.span_id for span in told.spans if span.name == "get docs" and span.parent]
    assert sorted(parents) == sorted(span_id for span_id in outer for _ in range(3))
    await cache.aclose()


def test_a_server_that_is_away_is_an_error(told: Told, caller: Wrap) -> None:
    port = free_port()
    cache = caller(told.by(EmbeddingsCache("docs", redis_url=f"redis://:s3cret@127.0.0.1:{port}")))
    with pytest.raises(CacheUnavailableError):
        cache.get("a private text", "m")
    (span,) = told.spans
    assert span.status.status_code is StatusCode.ERROR
    assert f"no answer from redis://:***@127.0.0.1:{port}" in str(span.status.description)
    assert dict(span.attributes or {})["error.type"] == "redis.exceptions.ConnectionError"
    (event,) = span.events
    recorded = dict(event.attributes or {})
    assert recorded["exception.type"] == "embedcache.errors.CacheUnavailableError"
    assert "connection.py" in str(recorded["exception.stacktrace"])
    (point,) = told.points("db.client.operation.duration")
    assert point.attributes["error.type"] == "redis.exceptions.ConnectionError"
    assert told.counts("embedcache.errors") == {("docs", "m"): 1}
    assert "private" not in told.everything()
    assert "s3cret" not in told.everything()


def test_an_error_of_the_servers_is_told_by_its_code(told: Told, valkey: Server, caller: Wrap) -> None:
    cache = caller(told.by(EmbeddingsCache("docs", redis_url=valkey.url)))
    key = cache.cache.key_for("a private text", "m")
    valkey.raw.execute_command("CONFIG", "SET", "maxmemory", "1")
    try:
        with pytest.raises(ServerReplyError):
            cache.set("a private text", "m", [1.0])
    finally:
        valkey.raw.execute_command("CONFIG", "SET", "maxmemory", "0")
    (attributes,) = told.attributes()
    assert attributes["error.type"] == attributes["db.response.status_code"] == "OOM"
    assert told.spans[0].status.status_code is StatusCode.ERROR
    for secret in ("private", key, key[-64:]):
        assert secret not in told.everything()


def test_neither_texts_nor_keys_are_told(told: Told, caller: Wrap) -> None:
    """Not even where the error's own words quote them: a command that the server lacks, a key that is a stranger's."""
    with running("valkey9", "--rename-command", "SET", "", "--rename-command", "UNLINK", "") as server:
        cache = caller(told.by(EmbeddingsCache("docs", redis_url=server.url)))
        key = cache.cache.key_for("a private text", "m")
        with pytest.raises(ServerReplyError, match="unknown command"):
            cache.set("a private text", "m", [1.0], metadata={"note": "private"})
        with pytest.raises(ServerReplyError, match=key):
            cache.drop("a private text", "m")
        with pytest.raises(InvalidInputError, match="private"):
            cache.drop_by_key("private:stranger")
        try:
            raise ValueError("private words of the caller's")
        except ValueError:
            with pytest.raises(InvalidInputError):
                cache.get("", "m")
        cache.close()
    assert [span.status.status_code for span in told.spans] == [StatusCode.ERROR] * 4
    assert [len(span.events) for span in told.spans] == [1] * 4
    for secret in ("private", key, key[-64:]):
        assert secret not in told.everything()


def test_durations_and_counts_are_metrics(told: Told, valkey: Server, caller: Wrap) -> None:
    cache = caller(told.by(EmbeddingsCache("docs", redis_url=valkey.url)))
    cache.mset(items("a", "b"))
    cache.mget(["a", "b", "nobody"], "m")
    cache.get("a", "m")
    cache.get("a", "m")
    durations = {point.attributes["db.operation.name"]: point for point in told.points("db.client.operation.duration")}
    assert {name: point.count for name, point in durations.items()} == {"mset": 1, "mget": 1, "get": 2}
    assert durations["get"].explicit_bounds == (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 10)
    spans = [span for span in told.spans if span.name == "get docs"]
    assert 0 < durations["get"].sum <= sum((span.end_time or 0) - (span.start_time or 0) for span in spans) / 1e9
    assert dict(durations["get"].attributes) == {
        "db.system.name": "redis",
        "db.collection.name": "docs",
        "db.operation.name": "get",
        "server.address": str(valkey.socket),
    }
    assert told.counts("embedcache.hits") == {("docs", "m"): 4}
    assert told.counts("embedcache.misses") == {("docs", "m"): 1}
    assert told.counts("embedcache.sets") == {("docs", "m"): 2}


def test_objects_of_one_name_are_added_up(told: Told, valkey: Server) -> None:
    first, second = (told.by(EmbeddingsCache("docs", redis_url=valkey.url)) for _ in range(2))
    first.get("a", "m")
    second.get("a", "m")
    assert told.counts("embedcache.misses") == {("docs", "m"): 2}
    first.close()
    second.close()


def test_uninstrumented_it_tells_nothing(told: Told, valkey: Server) -> None:
    cache = told.by(EmbeddingsCache("docs", redis_url=valkey.url))
    cache.get("a", "m")
    assert told.counts("embedcache.misses") == {("docs", "m"): 1}
    uninstrument(cache)
    uninstrument(cache)
    cache.get("a", "m")
    assert cache.observer is None
    assert len(told.spans) == 1
    assert told.counts("embedcache.misses") == {}
    told.by(cache)
    told.by(cache)  # twice tells nothing twice
    cache.get("a", "m")
    assert len(told.spans) == 2
    assert told.counts("embedcache.misses") == {("docs", "m"): 3}
    cache.close()


def test_a_cache_that_is_collected_is_told_no_more(told: Told, valkey: Server) -> None:
    cache = told.by(EmbeddingsCache("docs", redis_url=valkey.url))
    cache.get("a", "m")
    assert told.counts("embedcache.misses") == {("docs", "m"): 1}
    cache.close()
    del cache
    gc.collect()
    assert told.counts("embedcache.misses") == {}


def test_anothers_observer_is_left_alone(told: Told) -> None:
    cache = EmbeddingsCache("docs", redis_url="redis://localhost")

    def mine(operation: str, model_name: str | None) -> Any:
        pytest.fail("nothing was called")

    cache.observer = mine
    with pytest.raises(InvalidInputError, match="has an observer already"):
        told.by(cache)
    uninstrument(cache)
    assert cache.observer is mine


def test_with_the_api_alone_calls_work_and_no_sdk_is_loaded(valkey: Server) -> None:
    code = f"""
import sys
sys.modules["opentelemetry.sdk"] = None
from embedcache import EmbeddingsCache
from embedcache.integrations.opentelemetry import instrument
with EmbeddingsCache("docs", redis_url={valkey.url!r}) as cache:
    instrument(cache)
    cache.set("a", "m", [1.0])
    print(cache.get("a", "m")["text"], cache.get("b", "m"))
print([name for name in sys.modules if name.startswith(("opentelemetry.sdk.", "opentelemetry.semconv"))])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "a None\n[]\n"
    assert done.stderr == ""


def test_an_sdk_that_is_set_up_later_is_told_as_well(valkey: Server) -> None:
    code = f"""
from embedcache import EmbeddingsCache
from embedcache.integrations.opentelemetry import instrument
from opentelemetry import metrics, trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

with EmbeddingsCache("docs", redis_url={valkey.url!r}) as cache:
    instrument(cache)
    cache.get("a", "m")
    exporter, reader = InMemorySpanExporter(), InMemoryMetricReader()
    trace.set_tracer_provider(TracerProvider())
    trace.get_tracer_provider().add_span_processor(SimpleSpanProcessor(exporter))
    metrics.set_meter_provider(MeterProvider([reader]))
    cache.get("a", "m")
    instrument(cache)
    cache.get("a", "m")
    print([span.name for span in exporter.get_finished_spans()])
    (scope,) = reader.get_metrics_data().resource_metrics[0].scope_metrics
    print({{m.name: [getattr(p, "value", None) or p.count for p in m.data.data_points] for m in scope.metrics
           if m.name in ("embedcache.misses", "db.client.operation.duration")}})
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    spans, metrics = done.stdout.splitlines()
    assert spans == "['get docs', 'get docs']"
    assert metrics == "{'db.client.operation.duration': [2], 'embedcache.misses': [3.0]}"
    assert done.stderr == ""


def test_without_the_library_the_error_says_what_to_install() -> None:
    code = "import sys; sys.modules['opentelemetry'] = None; import embedcache.integrations.opentelemetry"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "ImportError: embedcache.integrations.opentelemetry needs opentelemetry-api" in done.stderr
    assert "pip install 'embedcache[otel]'" in done.stderr
