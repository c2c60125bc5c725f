"""`NearbyCache`: the part of `EmbeddingsCache` that knows whether there is a near cache, and looks there first."""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from embedcache import near_operations, operations
from embedcache.counters import NoCounters
from embedcache.entry import CacheEntry, FloatArray, Text
from embedcache.entry_layout import EntryLayout
from embedcache.keyspace import Keyspace
from embedcache.near import NearCache, NearState
from embedcache.operations import Operation
from embedcache.watched import WatchedCache

if TYPE_CHECKING:
    from embedcache.coalescing import TaskCoalescer, ThreadCoalescer
    from embedcache.connection import RedisConnection

_UNCOUNTED: Final = NoCounters()


class NearbyCache(WatchedCache):
    """Lookups as operations: through the near cache where there is one, else straight to the server."""

    def __init__(
        self,
        space: Keyspace,
        connection: RedisConnection,
        layout: EntryLayout,
        near: NearCache | None,
        *,
        refresh: bool,
        **watching: Any,
    ) -> None:
        super().__init__(space, connection, layout, **watching)
        self._refresh = refresh
        self._near = near
        # asyncio comes with it: as late as the connection.
        from embedcache.coalescing import TaskCoalescer, ThreadCoalescer

        self._tasks: TaskCoalescer[CacheEntry | None] = TaskCoalescer()
        self._threads: ThreadCoalescer[CacheEntry | None] = ThreadCoalescer()
        self._tracking = None
        # Each primary of a Cluster tells of its own keys alone, and they change: there `near_ttl` alone counts.
        if near is not None and not connection.is_cluster:
            from embedcache.tracking import Tracking  # the same

            self._tracking = Tracking(connection, near)

    @property
    def near_state(self) -> NearState | None:
        """What this object's near cache holds, and whether the server tells it of writes; None where it has none."""
        if self._near is None:
            return None
        return self._near.state(tracked=self._tracking is not None and self._tracking.is_on)

    def _get_near(self, near: NearCache, text: Text, model_name: str) -> CacheEntry | None:
        started = perf_counter_ns()
        entry = near.get(text, model_name)
        if entry is not None:
            self._counters.looked_up(model_name, started, (), (), 0, 0, 0, 1)
        return entry

    def _get(self, text: Text, model_name: str) -> CacheEntry | None:
        return self._threads.load(text, model_name, self._get_alone, self._get_together)

    def _get_alone(self, text: Text, model_name: str) -> CacheEntry | None:
        return self.connection.drive(self._get_one(text, model_name))

    def _get_together(self, texts: list[Text], model_name: str) -> list[CacheEntry | None]:
        return self.connection.drive(self._mget(texts, model_name))

    def _aget(self, text: Text, model_name: str) -> Awaitable[CacheEntry | None]:
        return self._tasks.load(text, model_name, self._aget_alone, self._aget_together)

    async def _aget_alone(self, text: Text, model_name: str) -> CacheEntry | None:
        return await self.connection.adrive(self._get_one(text, model_name))

    async def _aget_together(self, texts: list[Text], model_name: str) -> list[CacheEntry | None]:
        return await self.connection.adrive(self._mget(texts, model_name))

    def _get_one(self, text: Text, model_name: str) -> Operation[CacheEntry | None]:
        near = self._near
        if near is None:
            return operations.get_one(
                self._space, self._able, self._counters, text, model_name, refresh=self._refresh, layout=self._layout
            )
        self._begin_tracking()
        return near_operations.get_one(
            near, self._space, self._able, self._counters, text, model_name, refresh=self._refresh, layout=self._layout
        )

    def _mget(self, texts: Sequence[Text], model_name: str) -> Operation[list[CacheEntry | None]]:
        near = self._near
        if near is None:
            return operations.mget(
                self._space, self._able, self._counters, texts, model_name, refresh=self._refresh, layout=self._layout
            )
        self._begin_tracking()
        return near_operations.mget(
            near, self._space, self._able, self._counters, texts, model_name, refresh=self._refresh, layout=self._layout
        )

    def _mget_embeddings(
        self, texts: Sequence[Text], model_name: str, dimension: int | None
    ) -> Operation[tuple[FloatArray, npt.NDArray[np.bool_]]]:
        near = self._near
        if near is None:
            return operations.mget_embeddings(
                self._space,
                self._able,
                self._counters,
                texts,
                model_name,
                dimension=dimension,
                refresh=self._refresh,
                layout=self._layout,
            )
        self._begin_tracking()
        return near_operations.mget_embeddings(
            near,
            self._space,
            self._able,
            self._counters,
            texts,
            model_name,
            dimension=dimension,
            refresh=self._refresh,
            layout=self._layout,
        )

    def look_again(
        self, texts: Sequence[Text], model_name: str, dimension: int | None = None
    ) -> tuple[FloatArray, npt.NDArray[np.bool_]]:
        """As `mget_embeddings`, of texts that were missing a moment ago: not counted once more, no TTL restarted.

        The server is asked, whatever the near cache holds.
        """
        return self._drive(self._look_again(texts, model_name, dimension), model_name)

    async def alook_again(
        self, texts: Sequence[Text], model_name: str, dimension: int | None = None
    ) -> tuple[FloatArray, npt.NDArray[np.bool_]]:
        """Async twin of `look_again`."""
        return await self._adrive(self._look_again(texts, model_name, dimension), model_name)

    def _look_again(
        self, texts: Sequence[Text], model_name: str, dimension: int | None
    ) -> Operation[tuple[FloatArray, npt.NDArray[np.bool_]]]:
        return operations.mget_embeddings(
            self._space,
            self._able,
            _UNCOUNTED,
            texts,
            model_name,
            dimension=dimension,
            refresh=False,
            layout=self._layout,
        )

    def _mget_by_keys(self, keys: Sequence[str]) -> Operation[list[CacheEntry | None]]:
        near = self._near
        if near is None:
            return operations.mget_by_keys(
                self._space, self._able, self._counters, keys, refresh=self._refresh, layout=self._layout
            )
        self._begin_tracking()
        return near_operations.mget_by_keys(
            near, self._space, self._able, self._counters, keys, refresh=self._refresh, layout=self._layout
        )

    def _clear(self) -> Operation[int]:
        return near_operations.emptying(self._space.name, operations.clear(self._space, self._counters))

    def _begin_tracking(self) -> None:
        if self._tracking is not None:
            self._tracking.begin()

    # ---------------------------------------------------------------------------------------- the end

    def close(self) -> None:
        """Sends what was counted and closes the connections that the cache opened; those passed in stay open."""
        self._end_tracking()
        super().close()

    async def aclose(self) -> None:
        """Async twin of `close`; closes the running loop's connections as well."""
        self._end_tracking()
        await super().aclose()

    def _end_tracking(self) -> None:
        if self._tracking is not None:
            self._tracking.close()
        if self._near is not None:
            self._near.clear()
