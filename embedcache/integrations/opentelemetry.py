"""OpenTelemetry: a span around each call to the server, and metrics of calls and counts.

::

    instrument(cache)  # with the providers that the program has set up, now or later

Names follow the conventions for database clients (https://opentelemetry.io/docs/specs/semconv/db/), stable since 1.33,
and those for Redis among them:

- ``db.system.name`` is ``redis`` for Valkey as well: it has no name of its own there, and it is Redis's protocol.
- ``db.operation.name`` is the cache's own (``get``, ``mset``), not the commands it sends: spans belong around the
  highest call that says what is meant. ``get_by_key`` is an ``mget_by_keys`` of one key, ``exists`` a ``mexists``.
- ``db.collection.name`` is the cache, ``db.namespace`` the number of the database, if the address says it.
- ``error.type`` is the server's code (``WRONGTYPE``), or what went wrong below (``redis.exceptions.TimeoutError``), or
  else the error's class.

What was asked for is never told: no text, no key, no words of an error but those that say where no answer came from.
"""

from __future__ import annotations

import re
import threading
import traceback
from collections.abc import Callable, Iterable, Sequence
from contextvars import Token
from functools import partial
from time import perf_counter
from types import TracebackType
from typing import Final
from urllib.parse import parse_qs, urlsplit
from weakref import WeakKeyDictionary, WeakSet

import numpy as np

from embedcache import __version__
from embedcache.arguments import check_kind
from embedcache.cache import EmbeddingsCache
from embedcache.errors import CacheUnavailableError, InvalidInputError, ServerReplyError
from embedcache.integrations.instruments import INSTRUMENTS, Instrument, process_records

try:
    from opentelemetry import context, metrics, trace
    from opentelemetry.context import Context
    from opentelemetry.metrics import CallbackOptions, Meter, MeterProvider, Observation
    from opentelemetry.trace import Span, SpanKind, Status, StatusCode, Tracer, TracerProvider
except ImportError as error:
    raise ImportError(
        "embedcache.integrations.opentelemetry needs opentelemetry-api: pip install 'embedcache[otel]'"
    ) from error

_SCOPE: Final = "embedcache"
_SCHEMA_URL: Final = "https://opentelemetry.io/schemas/1.33.0"
_DURATION_BOUNDS: Final = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 10)  # as the conventions advise
_COLLECTION: Final = "db.collection.name"
_MODEL: Final = "embedcache.model_name"
_ERROR_CODE: Final = re.compile(r"[A-Z][A-Z0-9_]*")

Attributes = dict[str, str | int]


def instrument(
    cache: EmbeddingsCache,
    *,
    tracer_provider: TracerProvider | None = None,
    meter_provider: MeterProvider | None = None,
) -> None:
    """Has a cache tell what it does, until `uninstrument`. Done again, it tells the providers given last.

    Args:
        cache: The cache. That it tells keeps it from being collected no more than anything else.
        tracer_provider: Where spans go; None is the program's own, which may be set up later.
        meter_provider: Where metrics go; None is the program's own.

    Raises:
        InvalidInputError: The cache has an observer that is not one of these, or a provider is none.
    """
    if tracer_provider is not None:
        check_kind("tracer_provider", tracer_provider, TracerProvider)
    if meter_provider is not None:
        check_kind("meter_provider", meter_provider, MeterProvider)
    uninstrument(cache)
    if cache.observer is not None:
        raise InvalidInputError(f"cache {cache.name!r} has an observer already: {type(cache.observer).__name__}")
    tracer = trace.get_tracer(_SCOPE, __version__, tracer_provider, _SCHEMA_URL)
    meters = _meters(meter_provider)
    meters.add(cache)
    cache.observer = _Observer(cache, tracer, meters)


def uninstrument(cache: EmbeddingsCache) -> None:
    """Ends what `instrument` began; does nothing where it did not."""
    if isinstance(cache.observer, _Observer):
        cache.observer.meters.discard(cache)
        cache.observer = None


# ------------------------------------------------------------------------------------------------ one call


class _Observer:
    """Makes the spans of one cache. Holds no reference to it, which would be a cycle."""

    def __init__(self, cache: EmbeddingsCache, tracer: Tracer, meters: _Meters) -> None:
        self.tracer = tracer
        self.meters = meters
        self._name = cache.name
        self._attributes = _about(cache)
        self._by_operation: dict[str, tuple[str, Attributes]] = {}

    def about(self, operation: str) -> tuple[str, Attributes]:
        """The span's name, and what all calls of this operation have in common."""
        known = self._by_operation.get(operation)
        if known is None:
            known = f"{operation} {self._name}", self._attributes | {"db.operation.name": operation}
            self._by_operation[operation] = known
        return known

    def __call__(self, operation: str, model_name: str | None) -> _Call:
        return _Call(self, operation, model_name)


class _Call:
    """One call: its span is the current one from `__enter__` to `__exit__`.

    A class rather than a generator with `contextmanager`, which would cost another microsecond per call.
    """

    __slots__ = ("_attributes", "_model_name", "_observer", "_operation", "_span", "_started", "_token")

    def __init__(self, observer: _Observer, operation: str, model_name: str | None) -> None:
        self._observer = observer
        self._operation = operation
        self._model_name = model_name

    def __enter__(self) -> Callable[[object], None]:
        name, self._attributes = self._observer.about(self._operation)
        asked = self._attributes if self._model_name is None else {**self._attributes, _MODEL: self._model_name}
        self._span = self._observer.tracer.start_span(name, kind=SpanKind.CLIENT, attributes=asked)
        # A span that is none (no SDK, no parent) would be current to no purpose.
        valid = self._span.get_span_context().is_valid
        self._token: Token[Context] | None = context.attach(trace.set_span_in_context(self._span)) if valid else None
        self._started = perf_counter()
        return self._done

    def _done(self, result: object) -> None:
        if self._span.is_recording():
            self._span.set_attributes(_about_result(self._operation, result))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace_back: TracebackType | None
    ) -> None:
        seconds = perf_counter() - self._started
        attributes = self._attributes
        if error is not None:
            failure = _about_error(error)
            attributes = attributes | failure
            _record_error(self._span, error, failure)
        self._observer.meters.duration.record(seconds, attributes)  # while the span is current: it is the exemplar
        if self._token is not None:
            context.detach(self._token)
        self._span.end()


# ------------------------------------------------------------------------------------------------ attributes


def _about(cache: EmbeddingsCache) -> Attributes:
    """What all of a cache's calls have in common."""
    attributes: Attributes = {"db.system.name": "redis", _COLLECTION: cache.name}
    parts = urlsplit(cache.connection.address)
    options = parse_qs(parts.query)
    if parts.scheme == "embedded":
        attributes["server.address"] = parts.path or "embedded"
    elif parts.scheme == "unix":
        attributes["server.address"] = parts.path
        if number := options.get("db"):
            attributes["db.namespace"] = number[-1]
    elif parts.scheme.endswith("+cluster"):
        attributes["server.address"] = parts.netloc.rpartition("@")[2]  # all nodes that were named
    elif parts.hostname:
        attributes["server.address"] = parts.hostname
        attributes["server.port"] = parts.port or 6379
        attributes["db.namespace"] = options["db"][-1] if "db" in options else parts.path.strip("/") or "0"
    return attributes


def _about_result(operation: str, result: object) -> Attributes:
    """How much was asked for and found, as far as the result tells."""
    match operation, result:
        case "get", _:
            return {"embedcache.texts": 1, "embedcache.hits": int(result is not None)}
        case "mget" | "mget_by_keys", list():
            found = sum(entry is not None for entry in result)
            return _about_batch(len(result)) | {"embedcache.texts": len(result), "embedcache.hits": found}
        case "mget_embeddings", (_, np.ndarray() as mask):
            return _about_batch(len(mask)) | {"embedcache.texts": len(mask), "embedcache.hits": int(mask.sum())}
        case _, list():
            return _about_batch(len(result))
    return {}


def _about_batch(size: int) -> Attributes:
    return {"db.operation.batch.size": size} if size > 1 else {}


def _about_error(error: BaseException) -> Attributes:
    if isinstance(error, ServerReplyError) and _ERROR_CODE.fullmatch(error.code):
        return {"error.type": error.code, "db.response.status_code": error.code}
    if isinstance(error, CacheUnavailableError) and error.__cause__ is not None:
        return {"error.type": _class_name(error.__cause__)}
    return {"error.type": _class_name(error)}


def _class_name(error: BaseException) -> str:
    kind = type(error)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def _record_error(span: Span, error: BaseException, failure: Attributes) -> None:
    """Marks the span as failed. Of the error's own words, only those that cannot quote a text or a key are told.

    A server that lacks a command quotes the call, text and all; an input error quotes the key. Nor is the trace
    printed with the errors before it, which may be the caller's.
    """
    if not span.is_recording():
        return
    told = str(error) if isinstance(error, CacheUnavailableError) else str(failure["error.type"])
    frames = "".join(traceback.format_tb(error.__traceback__))
    span.record_exception(error, {"exception.message": told, "exception.stacktrace": frames})
    span.set_attributes(failure)
    span.set_status(Status(StatusCode.ERROR, told))


# ------------------------------------------------------------------------------------------------ metrics


class _Meters:
    """The instruments of one meter, made once for all caches that tell it.

    An observable instrument cannot be taken back. So each of them looks which caches there still are.
    """

    def __init__(self, meter: Meter) -> None:
        self._lock = threading.Lock()
        self._caches: WeakSet[EmbeddingsCache] = WeakSet()
        self.duration = meter.create_histogram(
            "db.client.operation.duration",
            unit="s",
            description="Duration of database client operations.",
            explicit_bucket_boundaries_advisory=_DURATION_BOUNDS,
        )
        for each in INSTRUMENTS:
            meter.create_observable_counter(
                f"{_SCOPE}.{each.name}", [partial(self._observe, each)], unit=each.unit, description=each.help
            )

    def add(self, cache: EmbeddingsCache) -> None:
        """Tells what this cache counts, as long as it lives."""
        with self._lock:
            self._caches.add(cache)

    def discard(self, cache: EmbeddingsCache) -> None:
        """Tells it no more."""
        with self._lock:
            self._caches.discard(cache)

    def _observe(self, told: Instrument, _: CallbackOptions) -> Iterable[Observation]:
        with self._lock:
            caches: Sequence[EmbeddingsCache] = list(self._caches)
        for (cache_name, model_name), records in process_records(caches).items():
            value = told.value(records)
            yield Observation(value, {_COLLECTION: cache_name, _MODEL: model_name})


_global_meters: list[_Meters] = []
_meters_of: WeakKeyDictionary[MeterProvider, _Meters] = WeakKeyDictionary()
_making = threading.Lock()


def _meters(provider: MeterProvider | None) -> _Meters:
    """The instruments of a provider. Made twice, they would be told twice, or not at all."""
    with _making:
        if provider is None:
            if not _global_meters:  # one set before and after the program sets up its own provider
                _global_meters.append(_Meters(metrics.get_meter(_SCOPE, __version__, schema_url=_SCHEMA_URL)))
            return _global_meters[0]
        if provider not in _meters_of:
            _meters_of[provider] = _Meters(provider.get_meter(_SCOPE, __version__, _SCHEMA_URL))
        return _meters_of[provider]
