"""`WatchedCache`: the half of `EmbeddingsCache` that counts what the other half does, and tells what was counted."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager
from datetime import timedelta
from types import GeneratorType
from typing import TYPE_CHECKING, Final, ParamSpec, Protocol, SupportsFloat, TypeVar, cast

from embedcache import buckets, explain, flushing, statistics
from embedcache.arguments import shown
from embedcache.buckets import SlowLookup, Standing
from embedcache.counters import Batch, NoCounters
from embedcache.entry import Text
from embedcache.entry_layout import EntryLayout
from embedcache.errors import CacheUnavailableError, InvalidInputError, ReadOnlyError, ServerReplyError
from embedcache.explain import Explanation
from embedcache.flushing import Outbox
from embedcache.keyspace import Keyspace, encode_model_name
from embedcache.near_operations import dropping
from embedcache.operations import Operation, ServerAbilities
from embedcache.statistics import CacheStats, Window

if TYPE_CHECKING:
    from embedcache.connection import RedisConnection

P = ParamSpec("P")
R = TypeVar("R")

SLOW_LOOKUP_SECONDS: Final = 0.1
_LARGEST_AMOUNT: Final = 1e9


class Observer(Protocol):
    """Stands around each call to the server, as a tracer does."""

    def __call__(self, operation: str, model_name: str | None) -> AbstractContextManager[Callable[[object], None]]:
        """Entered before the call; what it gives is called with the result, and an error passes through it."""


class WatchedCache:
    """What a cache has counted, in all processes that use it.

    Counting happens in the process; counts are sent to the server at most once a second, and at exit. A process that is
    killed loses at most its last second. Windows are made of whole minutes, hours or days, by the server's clock.

    Methods that ask the server raise `CacheUnavailableError` where it cannot be reached.
    """

    connection: RedisConnection

    def __init__(
        self,
        space: Keyspace,
        connection: RedisConnection,
        layout: EntryLayout,
        *,
        stats: bool,
        slow_lookup_seconds: float | None,
        slow_lookup_texts: bool,
    ) -> None:
        if slow_lookup_seconds is not None and not _is_duration(slow_lookup_seconds):
            raise InvalidInputError(
                f"slow_lookup_seconds is a number from 0 on, or None, not {shown(slow_lookup_seconds)}"
            )
        self.connection = connection
        self.observer: Observer | None = None
        self._space = space
        self._able = ServerAbilities()
        self._layout = layout
        self._made_at = time.time()
        send = sender(connection, Keyspace(space.name), layout.value_type)
        self._outbox = Outbox(send, slow_lookup_seconds, slow_texts=slow_lookup_texts)
        self._counters = self._outbox.counters if stats and not connection.read_only else NoCounters()

    @property
    def read_only(self) -> bool:
        """Whether every write is refused."""
        return self.connection.read_only

    # ---------------------------------------------------------------------------------------- driving

    def _drive(self, operation: Operation[R], model_name: str | None = None, *, writes: bool = False) -> R:
        if not writes:
            return self._watch(_name(operation), model_name, self.connection.drive, operation)
        self._check_writable()
        operation = dropping(self._space.name, operation)
        try:
            return self._watch(_name(operation), model_name, self.connection.drive, operation)
        finally:
            operation.close()  # an error keeps it alive, and the near cache is to drop its keys now

    def _watch(self, name: str, model_name: str | None, call: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """What the call returns, seen by the observer and counted where it fails."""
        observer = self.observer  # read once: another thread may take it away
        try:
            if observer is None:
                return call(*args, **kwargs)
            with observer(name, model_name) as done:
                result = call(*args, **kwargs)
                done(result)
                return result
        except (CacheUnavailableError, ServerReplyError):
            self._counters.count(model_name, errors=1)
            raise

    async def _adrive(self, operation: Operation[R], model_name: str | None = None, *, writes: bool = False) -> R:
        if not writes:
            return await self._awatch(_name(operation), model_name, self.connection.adrive, operation)
        self._check_writable()
        operation = dropping(self._space.name, operation)
        try:
            return await self._awatch(_name(operation), model_name, self.connection.adrive, operation)
        finally:
            operation.close()

    async def _awatch(
        self, name: str, model_name: str | None, call: Callable[P, Awaitable[R]], *args: P.args, **kwargs: P.kwargs
    ) -> R:
        """Async twin of `_watch`."""
        observer = self.observer
        try:
            if observer is None:
                return await call(*args, **kwargs)
            with observer(name, model_name) as done:
                result = await call(*args, **kwargs)
                done(result)
                return result
        except (CacheUnavailableError, ServerReplyError):
            self._counters.count(model_name, errors=1)
            raise

    def _check_writable(self) -> None:
        """Refuses a write, before any round trip.

        The connection refuses it too, but not where there is nothing to remove, and it cannot name the cache.
        """
        if self.read_only:
            raise ReadOnlyError(
                f"cache {self._space.name!r} was opened read-only; open it with read_only=False to change it"
            )

    # ---------------------------------------------------------------------------------------- statistics

    def stats(self, window: Window = "1h", model_name: str | None = None) -> CacheStats:
        """What happened in a window, by all processes that use this cache.

        Args:
            window: How long, up to now (``"15m"``, ``"24h"``, ``"7d"``, ``"2w"``, or a timedelta), ``"all"`` for all
                time, or (start, end), each a datetime or Unix seconds. It is read in minutes, which are kept for 2
                days, hours (60 days) or days (2 years), and widened to whole ones.
            model_name: One model; None sums up all of them.

        Raises:
            InvalidInputError: The window cannot be read.
        """
        statistics.check_window(window)
        self._outbox.try_to_flush()
        return self.connection.drive(statistics.stats(self._space, window, model_name))

    async def astats(self, window: Window = "1h", model_name: str | None = None) -> CacheStats:
        """Async twin of `stats`."""
        statistics.check_window(window)
        await _in_thread(self._outbox.try_to_flush)
        return await self.connection.adrive(statistics.stats(self._space, window, model_name))

    def stats_by_model(self, window: Window = "1h") -> dict[str, CacheStats]:
        """As `stats`, for each model that was used in the window. Misses of keys, which name no model, are in none."""
        statistics.check_window(window)
        self._outbox.try_to_flush()
        return self.connection.drive(statistics.stats_by_model(self._space, window))

    async def astats_by_model(self, window: Window = "1h") -> dict[str, CacheStats]:
        """Async twin of `stats_by_model`."""
        statistics.check_window(window)
        await _in_thread(self._outbox.try_to_flush)
        return await self.connection.adrive(statistics.stats_by_model(self._space, window))

    def stats_series(
        self, window: Window = "1h", step: str | timedelta = "1m", model_name: str | None = None
    ) -> list[CacheStats]:
        """What happened in each step of a window, first to last; a step in which nothing happened is all zeros.

        Args:
            window: As in `stats`, but not ``"all"``.
            step: A whole number of minutes (``"1m"``, ``"15m"``), hours or days. Steps begin at multiples of
                themselves in UTC.
            model_name: As in `stats`.

        Raises:
            InvalidInputError: Window or step cannot be read, or steps so short are no longer kept, or too many.
        """
        statistics.check_series(window, step)
        self._outbox.try_to_flush()
        return self.connection.drive(statistics.series(self._space, window, step, model_name))

    async def astats_series(
        self, window: Window = "1h", step: str | timedelta = "1m", model_name: str | None = None
    ) -> list[CacheStats]:
        """Async twin of `stats_series`."""
        statistics.check_series(window, step)
        await _in_thread(self._outbox.try_to_flush)
        return await self.connection.adrive(statistics.series(self._space, window, step, model_name))

    def stats_series_by_model(self, window: Window = "1h", step: str | timedelta = "1m") -> dict[str, list[CacheStats]]:
        """As `stats_series`, for each model that was used in the window."""
        statistics.check_series(window, step)
        self._outbox.try_to_flush()
        return self.connection.drive(statistics.series_by_model(self._space, window, step))

    async def astats_series_by_model(
        self, window: Window = "1h", step: str | timedelta = "1m"
    ) -> dict[str, list[CacheStats]]:
        """Async twin of `stats_series_by_model`."""
        statistics.check_series(window, step)
        await _in_thread(self._outbox.try_to_flush)
        return await self.connection.adrive(statistics.series_by_model(self._space, window, step))

    def process_stats(self, model_name: str | None = None) -> CacheStats:
        """What this object alone has counted since it was made. Asks no server: prices are not known to it."""
        statistics.check_model(model_name)
        counts = self._counters.lifetime()
        return statistics.build(self._made_at, time.time(), counts, Standing(0.0, {}, {}), model_name)

    def process_stats_by_model(self) -> dict[str | None, CacheStats]:
        """As `process_stats`, for each model apart; None is what no model can be named for."""
        counts, standing, now = self._counters.lifetime(), Standing(0.0, {}, {}), time.time()
        return {
            name: statistics.build(self._made_at, now, {name: each}, standing, name) for name, each in counts.items()
        }

    def flush_stats(self) -> None:
        """Sends what this process has counted so far now, instead of within a second."""
        self._outbox.flush()

    async def aflush_stats(self) -> None:
        """Async twin of `flush_stats`."""
        await _in_thread(self._outbox.flush)

    def slow_lookups(self) -> list[SlowLookup]:
        """The last 100 lookups by all processes that took longer than `slow_lookup_seconds`, last first."""
        self._outbox.try_to_flush()
        return self.connection.drive(buckets.read_slow(self._space))

    async def aslow_lookups(self) -> list[SlowLookup]:
        """Async twin of `slow_lookups`."""
        await _in_thread(self._outbox.try_to_flush)
        return await self.connection.adrive(buckets.read_slow(self._space))

    # ---------------------------------------------------------------------------------------- what vectors cost

    def record_computation(self, model_name: str, texts: int, seconds: float, tokens: int = 0) -> None:
        """Tells what computing vectors took, so that what hits save can be reckoned. Vectorizers do so themselves.

        Args:
            model_name: The model that computed.
            texts: How many texts it computed.
            seconds: What that took.
            tokens: How many tokens they had; 0 where that is not known.

        Raises:
            InvalidInputError: A number is negative, or the name cannot be used.
        """
        encode_model_name(model_name)
        amounts = {"texts": texts, "seconds": seconds, "tokens": tokens}
        for what, amount in amounts.items():
            if not _is_amount(amount) or (what != "seconds" and amount != int(amount)):
                whole = "" if what == "seconds" else "whole "
                raise InvalidInputError(f"{what} is a {whole}number from 0 on, not {shown(amount)}")
        self._counters.count(
            model_name,
            texts_computed=int(texts),
            compute_nanoseconds=round(seconds * 1e9),
            tokens_computed=int(tokens),
        )

    def record_flights_saved(self, model_name: str, texts: int) -> None:
        """Tells of missing texts that were not computed, because another caller computed them at the same time.

        Vectorizers do so themselves.

        Args:
            model_name: The model that would have computed.
            texts: How many texts.

        Raises:
            InvalidInputError: The number is negative or not whole, or the name cannot be used.
        """
        encode_model_name(model_name)
        if not _is_amount(texts) or texts != int(texts):
            raise InvalidInputError(f"texts is a whole number from 0 on, not {shown(texts)}")
        self._counters.count(model_name, flights_saved=int(texts))

    def set_token_price(self, model_name: str, price: float | None) -> None:
        """Sets what 1,000 tokens of a model cost, in a currency of your choice, for all who ask; None forgets it.

        Raises:
            InvalidInputError: The price is negative or no number, or the name cannot be used.
            ReadOnlyError: The cache was opened read-only.
        """
        self._check_writable()
        self.connection.drive(buckets.set_price(self._space, *_checked_price(model_name, price)))

    async def aset_token_price(self, model_name: str, price: float | None) -> None:
        """Async twin of `set_token_price`."""
        self._check_writable()
        await self.connection.adrive(buckets.set_price(self._space, *_checked_price(model_name, price)))

    def token_prices(self) -> dict[str, float]:
        """What 1,000 tokens of each model cost, as set."""
        return self.connection.drive(buckets.read_standing(self._space)).prices

    async def atoken_prices(self) -> dict[str, float]:
        """Async twin of `token_prices`."""
        return (await self.connection.adrive(buckets.read_standing(self._space))).prices

    # ---------------------------------------------------------------------------------------- one lookup explained

    def why(self, text: Text, model_name: str, *, max_scan: int = explain.MAX_SCAN) -> Explanation:
        """Why a lookup of this text and model hits, or misses. It is not counted, and restarts no TTL.

        Args:
            text: What is asked for.
            model_name: Under which model.
            max_scan: Where nothing else explains a miss, look at up to so many keys of the server for a text that
                differs in case, white space or Unicode form alone, or lies under another model.

        Raises:
            InvalidInputError: The text or model name cannot be used.
        """
        self._outbox.try_to_flush()
        return self.connection.drive(self._why(text, model_name, max_scan))

    async def awhy(self, text: Text, model_name: str, *, max_scan: int = explain.MAX_SCAN) -> Explanation:
        """Async twin of `why`."""
        await _in_thread(self._outbox.try_to_flush)
        return await self.connection.adrive(self._why(text, model_name, max_scan))

    def why_by_key(self, key: str) -> Explanation:
        """Why a lookup by this key hits, or misses. It is not counted, and restarts no TTL.

        A key outside the cache's namespace was never stored in it. Other texts are not told of, for a key does not say
        which text it is of; `why` looks for them.

        Raises:
            InvalidInputError: It is no key.
        """
        self._outbox.try_to_flush()
        return self.connection.drive(explain.why_by_key(self._space, key, layout=self._layout))

    async def awhy_by_key(self, key: str) -> Explanation:
        """Async twin of `why_by_key`."""
        await _in_thread(self._outbox.try_to_flush)
        return await self.connection.adrive(explain.why_by_key(self._space, key, layout=self._layout))

    def _why(self, text: Text, model_name: str, max_scan: int) -> Operation[Explanation]:
        return explain.why(self._space, self._able, text, model_name, max_scan=max_scan, layout=self._layout)

    # ---------------------------------------------------------------------------------------- the end

    def close(self) -> None:
        """Sends what was counted and closes the connections that the cache opened; those passed in stay open."""
        self._outbox.try_to_flush()
        flushing.let_go(self._outbox)
        self.connection.close()

    async def aclose(self) -> None:
        """Async twin of `close`; closes the running loop's connections as well."""
        await _in_thread(self._outbox.try_to_flush)
        flushing.let_go(self._outbox)
        await self.connection.aclose()


async def _in_thread(work: Callable[[], object]) -> None:
    import asyncio  # whoever awaits has it already; for others it is a sixth of the time that importing this takes

    await asyncio.to_thread(work)


def _name(operation: Operation[R]) -> str:
    """What users call an operation: its generator's name, without the mark of those for one entry."""
    return cast("GeneratorType[object, object, object]", operation).__name__.removesuffix("_one")


def sender(connection: RedisConnection, space: Keyspace, value_type: bytes = b"string") -> flushing.Send:
    """What delivers the counts of a cache to its server; `value_type` is as in `EntryLayout`."""
    able = ServerAbilities()  # its own: what is refused for these keys may be allowed for entries

    def send(batch: Batch, writer: str, number: int, process: str) -> None:
        operation = buckets.add_batch(
            space, able, batch, writer=writer, number=number, process=process, value_type=value_type
        )
        # Counts alone are no reason to start a server that somebody has stopped.
        connection.drive(operation, background=True)

    return send


def _checked_price(model_name: str, price: float | None) -> tuple[str, float | None]:
    encode_model_name(model_name)
    if price is not None and not _is_amount(price):
        raise InvalidInputError(f"a price is a number from 0 on, or None, not {shown(price)}")
    return model_name, price


def _is_amount(value: object) -> bool:
    """Whether this is a number from 0 on that counts may be added up from for centuries."""
    if not isinstance(value, SupportsFloat) or isinstance(value, bool):
        return False
    try:
        return 0 <= float(value) <= _LARGEST_AMOUNT
    except (OverflowError, TypeError, ValueError):  # a number past any float, an array
        return False


def _is_duration(seconds: object) -> bool:
    return isinstance(seconds, int | float) and not isinstance(seconds, bool) and seconds >= 0
