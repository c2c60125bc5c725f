"""`EmbeddingsCache`: the signatures and what they promise. What they do is in `embedcache.operations`."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import numpy.typing as npt

from embedcache import codec, editing, operations
from embedcache.arguments import check_switch
from embedcache.breaker import USUAL_POLICY, BreakerPolicy
from embedcache.entry import NEVER, TTL, CacheEntry, CacheItem, EmbeddingLike, FloatArray, Never, Text
from embedcache.entry_layout import LayoutName
from embedcache.keyspace import Keyspace, check_keys
from embedcache.layouts import entry_layout
from embedcache.near import NEAR_CACHE_BYTES, NEAR_TTL_SECONDS, NearCache
from embedcache.nearby import NearbyCache
from embedcache.operations import Operation
from embedcache.packing import pack_text
from embedcache.watched import SLOW_LOOKUP_SECONDS

if TYPE_CHECKING:
    import redis
    import redis.asyncio

    from embedcache.vectorizers.decorator import CacheDecorator


class EmbeddingsCache(NearbyCache):
    """Embedding vectors in Redis or Valkey under (text, model), with metadata and a TTL.

    Each method has an async twin with an ``a`` before its name. Batch methods take a constant number of round trips,
    whatever the size of the batch; batches over 1,000 entries go in chunks of that many. One object may be shared by
    threads, event loops and forked processes.

    Every method raises `CacheUnavailableError` where the server cannot be reached; one that writes raises
    `ReadOnlyError` where the cache was opened read-only; and every method raises an `InvalidInputError`, before
    anything is written, where an argument cannot be used; in a batch it names the item's index.

    Args:
        name: Prefix of this cache's keys. Caches of different names never see each other's entries.
        ttl: Default TTL in whole seconds; None keeps entries for ever.
        redis_client: A sync redis-py client, of one server or of a Cluster, to use as it is. It is never closed by the
            cache.
        async_redis_client: The same, async. Where only one of the two is given, the other is made from its settings.
        redis_url: ``embedded://[/folder][?maxmemory=2gb]``, ``redis://``, ``rediss://``, ``unix://``,
            ``redis+sentinel://host,host/service``, or ``redis+cluster://`` and ``rediss+cluster://`` with nodes of a
            Redis Cluster (`docs/cluster.md`). None means ``$EMBEDCACHE_URL``, else the embedded server in the user's
            data folder.
        connection_kwargs: Settings for the clients that the cache makes, by redis-py's names.
        dtype: How vectors are stored: ``float32``, ``float64``, ``float16`` or ``int8``. Reading goes by what each
            entry says, so a cache may hold several.
        layout: How entries lie on the server: ``packed``, or ``redisvl``, as RedisVL keeps them, for a cache that
            RedisVL programs use, too (`docs/redisvl.md`). There, dtype is ``float32`` or ``float64``.
        refresh_ttl: Whether a hit starts the entry's own TTL again; a read-only cache's never does.
        stats: Whether hits, misses and the rest are counted; a read-only cache counts nothing.
        slow_lookup_seconds: Lookups that take longer are kept for `slow_lookups`; None keeps none.
        slow_lookup_texts: Whether the start of their text is kept with them.
        read_only: Whether everything that would change something on the server is refused with `ReadOnlyError`, for
            looking at a cache without leaving a trace: not even the entries' idle times change, where the server is
            Valkey or Redis from 7.2 on and makes no use of a client that was passed in.
        near_cache: Entries kept in this process, so that a lookup of one asks no server (`docs/near_cache.md`); 0 keeps
            none. Its metadata is a copy with each lookup, and its hits are counted apart.
        near_ttl: Seconds that an entry of the near cache may be out of date at most. This process's own writes are seen
            at once, others' as soon as the server tells of them, where it has client tracking.
        near_cache_bytes: Bytes that the near cache may take; vectors make up most of them.
        breaker: When calls no longer wait for a server that is away, but raise at once (`docs/reliability.md`); None
            has each call find out. ``connection.outage`` tells whether it is so.

    Raises:
        InvalidInputError: The name, TTL, URL, dtype, layout, a switch or a bound of the near cache cannot be used.
        ClientRefusedError: A client is not a redis-py client of the right kind; or one of two is of a Cluster.
    """

    def __init__(
        self,
        name: str = "embedcache",
        ttl: int | None = None,
        redis_client: redis.Redis | redis.RedisCluster | None = None,
        async_redis_client: redis.asyncio.Redis | redis.asyncio.RedisCluster | None = None,
        redis_url: str | None = None,
        connection_kwargs: Mapping[str, Any] | None = None,
        *,
        dtype: str = "float32",
        layout: LayoutName = "packed",
        refresh_ttl: bool = True,
        stats: bool = True,
        slow_lookup_seconds: float | None = SLOW_LOOKUP_SECONDS,
        slow_lookup_texts: bool = False,
        read_only: bool = False,
        near_cache: int = 0,
        near_ttl: float = NEAR_TTL_SECONDS,
        near_cache_bytes: int = NEAR_CACHE_BYTES,
        breaker: BreakerPolicy | None = USUAL_POLICY,
    ) -> None:
        switches = {"refresh_ttl": refresh_ttl, "stats": stats, "slow_lookup_texts": slow_lookup_texts}
        for option, value in (switches | {"read_only": read_only}).items():
            check_switch(option, value)
        self._dtype = codec.stored_dtype(dtype)
        lies = entry_layout(layout, self._dtype)
        space = Keyspace(name, ttl, lies.hex_bytes)
        near = None if _is_zero(near_cache) else NearCache(name, near_cache, near_ttl, near_cache_bytes)
        # redis-py makes a third of the time that importing this package would take; here it is paid when it is used.
        from embedcache.connection import RedisConnection

        super().__init__(
            space,
            RedisConnection(
                redis_url, redis_client, async_redis_client, connection_kwargs, read_only=read_only, breaker=breaker
            ),
            lies,
            near,
            refresh=refresh_ttl and not read_only,
            stats=stats,
            slow_lookup_seconds=slow_lookup_seconds,
            slow_lookup_texts=slow_lookup_texts,
        )

    def __repr__(self) -> str:
        return f"{type(self).__name__}(name={self.name!r}, ttl={self.ttl!r}, server={self.connection.address!r})"

    # ---------------------------------------------------------------------------------------- about the cache

    @property
    def name(self) -> str:
        """Prefix of this cache's keys."""
        return self._space.name

    @property
    def dtype(self) -> str:
        """How this cache stores vectors."""
        return self._dtype.name

    @property
    def layout(self) -> LayoutName:
        """How entries lie on the server."""
        return self._layout.name

    @property
    def ttl(self) -> int | None:
        """Default TTL in seconds of what is stored from now on; None never expires."""
        return self._space.ttl

    def set_ttl(self, ttl: int | None) -> None:
        """Changes the default TTL, in seconds. Entries that are already stored keep theirs.

        Raises:
            InvalidTTLError: It is not a whole number of seconds above zero, or None.
        """
        self._space = replace(self._space, ttl=ttl)

    def key_for(self, text: Text, model_name: str) -> str:
        """The key under which this text's entry is kept, whether or not there is one."""
        key, _ = pack_text(self._space, text, model_name)
        return key

    def owns(self, key: str) -> bool:
        """Whether a key lies in this cache's namespace. It says nothing of whether it exists."""
        return self._space.owns(*check_keys([key]))

    # ---------------------------------------------------------------------------------------- one entry

    def set(
        self,
        text: Text,
        model_name: str,
        embedding: EmbeddingLike,
        metadata: Mapping[str, Any] | None = None,
        ttl: TTL = None,
    ) -> str:
        """Stores one vector, in place of what was there. Value and TTL go in one command.

        Args:
            text: What was embedded; not blank, at most 8 MiB.
            model_name: The model that made the vector.
            embedding: The vector, shape ``(d,)``, finite.
            metadata: A JSON object to keep beside it; numpy scalars become plain numbers.
            ttl: Seconds to live; None is the cache's default, `NEVER` never expires.

        Returns:
            The entry's key.
        """
        item = _item(text, model_name, embedding, metadata, ttl)
        return self._drive(self._set_one(item), model_name, writes=True)

    async def aset(
        self,
        text: Text,
        model_name: str,
        embedding: EmbeddingLike,
        metadata: Mapping[str, Any] | None = None,
        ttl: TTL = None,
    ) -> str:
        """Async twin of `set`."""
        item = _item(text, model_name, embedding, metadata, ttl)
        return await self._adrive(self._set_one(item), model_name, writes=True)

    def get(self, text: Text, model_name: str) -> CacheEntry | None:
        """The entry of this text and model, or None. A hit starts its own TTL again, if `refresh_ttl`.

        Calls that many threads make at the same time share their round trips.
        """
        near = self._near
        if near is not None and (entry := self._get_near(near, text, model_name)) is not None:
            return entry
        return self._watch("get", model_name, self._get, text, model_name)

    async def aget(self, text: Text, model_name: str) -> CacheEntry | None:
        """Async twin of `get`. Calls that tasks of one loop make at the same time share their round trips."""
        near = self._near
        if near is not None and (entry := self._get_near(near, text, model_name)) is not None:
            return entry
        return await self._awatch("get", model_name, self._aget, text, model_name)

    def exists(self, text: Text, model_name: str) -> bool:
        """Whether this text is cached under this model. No vector is moved, no TTL restarted.

        Whether the stored value is whole, only reading it tells.
        """
        return self.mexists([text], model_name)[0]

    async def aexists(self, text: Text, model_name: str) -> bool:
        """Async twin of `exists`."""
        return (await self.amexists([text], model_name))[0]

    def drop(self, text: Text, model_name: str) -> bool:
        """Removes the entry of this text and model; returns whether there was one."""
        return self.mdrop([text], model_name) == 1

    async def adrop(self, text: Text, model_name: str) -> bool:
        """Async twin of `drop`."""
        return await self.amdrop([text], model_name) == 1

    # ---------------------------------------------------------------------------------------- one entry by key

    def get_by_key(self, key: str) -> CacheEntry | None:
        """The entry under this key; None for a miss and for a key outside the namespace."""
        return self.mget_by_keys([key])[0]

    async def aget_by_key(self, key: str) -> CacheEntry | None:
        """Async twin of `get_by_key`."""
        return (await self.amget_by_keys([key]))[0]

    def exists_by_key(self, key: str) -> bool:
        """Whether this key holds an entry; False for a key outside the namespace."""
        return self.mexists_by_keys([key])[0]

    async def aexists_by_key(self, key: str) -> bool:
        """Async twin of `exists_by_key`."""
        return (await self.amexists_by_keys([key]))[0]

    def drop_by_key(self, key: str) -> bool:
        """Removes the entry under this key; returns whether there was one.

        Raises:
            ForeignKeyError: The key lies outside the namespace.
        """
        return self.mdrop_by_keys([key]) == 1

    async def adrop_by_key(self, key: str) -> bool:
        """Async twin of `drop_by_key`."""
        return await self.amdrop_by_keys([key]) == 1

    # ---------------------------------------------------------------------------------------- many entries

    def mset(self, items: Sequence[CacheItem], ttl: TTL = None) -> list[str]:
        """Stores many entries: all of them are checked before the first is written.

        Args:
            items: Dicts of ``text``, ``model_name``, ``embedding`` and, if wanted, ``metadata`` and ``ttl``. Vectors of
                one model have one dimension. Of one text given twice, the last stays.
            ttl: Seconds to live for items with no TTL of their own; None is the cache's default.

        Returns:
            The keys, in order.
        """
        return self._drive(self._mset(items, ttl), writes=True)

    async def amset(self, items: Sequence[CacheItem], ttl: TTL = None) -> list[str]:
        """Async twin of `mset`."""
        return await self._adrive(self._mset(items, ttl), writes=True)

    def mget(self, texts: Sequence[Text], model_name: str) -> list[CacheEntry | None]:
        """The entries of these texts, in order; None for each miss. One damaged entry is one miss."""
        return self._drive(self._mget(texts, model_name), model_name)

    async def amget(self, texts: Sequence[Text], model_name: str) -> list[CacheEntry | None]:
        """Async twin of `mget`."""
        return await self._adrive(self._mget(texts, model_name), model_name)

    def mget_embeddings(
        self, texts: Sequence[Text], model_name: str, *, dimension: int | None = None
    ) -> tuple[FloatArray, npt.NDArray[np.bool_]]:
        """The vectors of these texts in one matrix: the fast path, with no object per entry.

        Args:
            texts: What to look up; may repeat.
            model_name: The model that made the vectors.
            dimension: The dimension ``d`` to expect; None takes the first hit's. Entries of another are misses.

        Returns:
            A matrix ``(n, d)``, float64 if all hits are stored so, else float32, whose rows of misses are NaN, and a
            mask ``(n,)`` of hits. Without a hit and with no `dimension`, d is 0.
        """
        return self._drive(self._mget_embeddings(texts, model_name, dimension), model_name)

    async def amget_embeddings(
        self, texts: Sequence[Text], model_name: str, *, dimension: int | None = None
    ) -> tuple[FloatArray, npt.NDArray[np.bool_]]:
        """Async twin of `mget_embeddings`."""
        return await self._adrive(self._mget_embeddings(texts, model_name, dimension), model_name)

    def mexists(self, texts: Sequence[Text], model_name: str) -> list[bool]:
        """Whether each text is cached under this model, in order."""
        return self._drive(operations.mexists(self._space, texts, model_name, layout=self._layout), model_name)

    async def amexists(self, texts: Sequence[Text], model_name: str) -> list[bool]:
        """Async twin of `mexists`."""
        return await self._adrive(operations.mexists(self._space, texts, model_name, layout=self._layout), model_name)

    def mdrop(self, texts: Sequence[Text], model_name: str) -> int:
        """Removes the entries of these texts; returns how many there were."""
        return self._drive(operations.mdrop(self._space, self._counters, texts, model_name), model_name, writes=True)

    async def amdrop(self, texts: Sequence[Text], model_name: str) -> int:
        """Async twin of `mdrop`."""
        return await self._adrive(
            operations.mdrop(self._space, self._counters, texts, model_name), model_name, writes=True
        )

    # ---------------------------------------------------------------------------------------- many entries by key

    def mget_by_keys(self, keys: Sequence[str]) -> list[CacheEntry | None]:
        """The entries under these keys, in order; None for a miss and for a key outside the namespace."""
        return self._drive(self._mget_by_keys(keys))

    async def amget_by_keys(self, keys: Sequence[str]) -> list[CacheEntry | None]:
        """Async twin of `mget_by_keys`."""
        return await self._adrive(self._mget_by_keys(keys))

    def mexists_by_keys(self, keys: Sequence[str]) -> list[bool]:
        """Whether each key holds an entry, in order; False for a key outside the namespace."""
        return self._drive(operations.mexists_by_keys(self._space, keys, layout=self._layout))

    async def amexists_by_keys(self, keys: Sequence[str]) -> list[bool]:
        """Async twin of `mexists_by_keys`."""
        return await self._adrive(operations.mexists_by_keys(self._space, keys, layout=self._layout))

    def mdrop_by_keys(self, keys: Sequence[str]) -> int:
        """Removes the entries under these keys; returns how many there were.

        Raises:
            ForeignKeyError: One of the keys lies outside the namespace; nothing was removed.
        """
        return self._drive(operations.mdrop_by_keys(self._space, self._counters, keys), writes=True)

    async def amdrop_by_keys(self, keys: Sequence[str]) -> int:
        """Async twin of `mdrop_by_keys`."""
        return await self._adrive(operations.mdrop_by_keys(self._space, self._counters, keys), writes=True)

    def clear(self) -> int:
        """Removes every entry of this cache and nothing else; returns how many there were."""
        return self._drive(self._clear(), writes=True)

    async def aclear(self) -> int:
        """Async twin of `clear`."""
        return await self._adrive(self._clear(), writes=True)

    # ---------------------------------------------------------------------------------------- TTL

    def remaining_ttl(self, key: str) -> int | Never | None:
        """Seconds until the entry expires, rounded up; `NEVER` if it does not; None if there is no such entry."""
        return self._drive(operations.remaining_ttl(self._space, key))

    async def aremaining_ttl(self, key: str) -> int | Never | None:
        """Async twin of `remaining_ttl`."""
        return await self._adrive(operations.remaining_ttl(self._space, key))

    def expire(self, key: str, ttl: TTL) -> bool:
        """Gives an entry a TTL of its own, with which later hits start again too.

        Args:
            key: The entry's key.
            ttl: Seconds to live from now; None is the cache's default, `NEVER` never expires.

        Returns:
            Whether there was such an entry.

        Raises:
            ForeignKeyError: The key lies outside the namespace.
        """
        return self._drive(self._expire(key, ttl), writes=True)

    async def aexpire(self, key: str, ttl: TTL) -> bool:
        """Async twin of `expire`."""
        return await self._adrive(self._expire(key, ttl), writes=True)

    def persist(self, key: str) -> bool:
        """Keeps an entry for ever; returns whether there was such an entry.

        Raises:
            ForeignKeyError: The key lies outside the namespace.
        """
        return self.expire(key, NEVER)

    async def apersist(self, key: str) -> bool:
        """Async twin of `persist`."""
        return await self.aexpire(key, NEVER)

    # ---------------------------------------------------------------------------------------- metadata

    def set_metadata(self, key: str, metadata: Mapping[str, Any] | None) -> bool:
        """Replaces an entry's metadata, and nothing else: vector, time of storing and TTLs stay as they are.

        No write of somebody else's is lost, but where the server refuses scripts, one between our look and our write.
        It is counted neither as a lookup nor as an entry stored.

        Args:
            key: The entry's key.
            metadata: A JSON object, as in `set`; None keeps none.

        Returns:
            Whether there was such an entry, and whole.

        Raises:
            ForeignKeyError: The key lies outside the namespace.
            EmbedcacheError: Others wrote the entry time and again; nothing was changed.
        """
        return self._drive(self._set_metadata(key, metadata), writes=True)

    async def aset_metadata(self, key: str, metadata: Mapping[str, Any] | None) -> bool:
        """Async twin of `set_metadata`."""
        return await self._adrive(self._set_metadata(key, metadata), writes=True)

    # ---------------------------------------------------------------------------------------- functions

    def cached(self, model_name: str, *, metadata: Mapping[str, Any] | None = None, ttl: TTL = None) -> CacheDecorator:
        """A decorator for any function from texts to vectors, sync or async: only what the cache lacks is computed.

        The function is called with distinct texts, a list of at most 256, and returns their vectors ``(n, d)``. What it
        raises is raised; where the server is away, it is called all the same. Callers that lack the same text at the
        same time have it computed once.

        Args:
            model_name: The name under which vectors are kept. Change it whenever the function's vectors do.
            metadata: Stored beside each vector that is computed.
            ttl: Seconds that such an entry lives; None is the cache's default, `NEVER` never expires.

        Returns:
            What makes of a function one that takes a sequence of texts and returns float32 ``(n, d)``, row i the vector
            of text i. It raises `EmbeddingFailedError` where the function gave anything but a vector per text.

        Raises:
            InvalidInputError: An argument cannot be used, or the function takes more than texts.
        """
        # Vectorizers are a room below this one, and most programs that use a cache do without this door to them.
        from embedcache.vectorizers.decorator import cached

        return cached(self, model_name, metadata, ttl)

    # ---------------------------------------------------------------------------------------- operations

    def _set_one(self, item: CacheItem) -> Operation[str]:
        return operations.set_one(
            self._space, self._able, self._counters, self._dtype, item, now=time.time(), layout=self._layout
        )

    def _mset(self, items: Sequence[CacheItem], ttl: TTL) -> Operation[list[str]]:
        return operations.mset(
            self._space, self._able, self._counters, self._dtype, items, ttl, now=time.time(), layout=self._layout
        )

    def _expire(self, key: str, ttl: TTL) -> Operation[bool]:
        return operations.expire(self._space, self._able, self._counters, key, ttl, layout=self._layout)

    def _set_metadata(self, key: str, metadata: Mapping[str, Any] | None) -> Operation[bool]:
        return editing.set_metadata(self._space, self._able, key, metadata, layout=self._layout)

    # ---------------------------------------------------------------------------------------- the end

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()


def _is_zero(number: object) -> bool:
    return isinstance(number, int) and not isinstance(number, bool) and number == 0


def _item(
    text: Text, model_name: str, embedding: EmbeddingLike, metadata: Mapping[str, Any] | None, ttl: TTL
) -> CacheItem:
    return {"text": text, "model_name": model_name, "embedding": embedding, "metadata": metadata, "ttl": ttl}
