"""Who is compared, each used as its documentation says, all over one Unix socket with redis-py, hiredis and a pool.

A contender is a dict from an operation's name to what it calls; what it has no call for is missing there. Operations on
one entry take its number, the others none. Async twins return awaitables.

RedisVL's vectors are lists, as its API takes them. LangChain's cache has no `exists`; its `set` and `drop` are those of
its store, and what it returns are the vectors alone. With a TTL, raw redis-py reads with GETEX and writes with MSETEX,
so that it restarts and sets TTLs as we do; LangChain's reads restart none.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import redis
import redis.asyncio

from embedcache import EmbeddingsCache

from .workload import MODEL, Workload

OURS, REDISVL, LANGCHAIN, RAW = "embedcache", "RedisVL", "LangChain", "raw redis-py"
PEERS = {REDISVL: "redisvl", LANGCHAIN: "langchain-community"}
"""Who else is compared, and the package that brings it."""

ASYNC_CONNECTIONS = 50
"""redis-py's own async pool raises for the 101st call at once; this one lets callers wait. With 50 connections, 1,000
calls together are fastest for RedisVL: a tenth faster than with 4, a quarter faster than with 100."""

PATIENCE = {"socket_timeout": 120.0}
"""For everybody: on a busy machine, the 34 MB of a batch may take longer than the 5 s that clients wait by default."""

Calls = Mapping[str, Callable[..., Any]]
Closer = Callable[[], Awaitable[object]]


@dataclass(frozen=True)
class Contender:
    """One way to do the work.

    Attributes:
        name: For tables.
        calls: From operations to calls.
        acalls: The same, async.
        is_right: Whether a reply of ``mget`` or ``amget`` holds all the vectors.
        aclose: Closes the async connections.
    """

    name: str
    calls: Calls
    acalls: Calls
    is_right: Callable[[Any], bool]
    aclose: Closer


Opener = Callable[[Path, str, Workload, int | None], AbstractContextManager[Contender]]
"""Takes the server's socket, a prefix for keys, the work, and a TTL in seconds or None."""


def missing_peers() -> list[str]:
    """The packages that have to be installed before everybody can be compared."""
    return [package for package in (*PEERS.values(), "langchain-classic") if not _is_installed(package)]


def _is_installed(package: str) -> bool:
    try:
        version(package)
    except PackageNotFoundError:
        return False
    return True


def _client(socket: Path) -> redis.Redis:
    return redis.Redis(unix_socket_path=str(socket), **PATIENCE)


def _async_client(socket: Path) -> redis.asyncio.Redis:
    pool = redis.asyncio.BlockingConnectionPool(
        max_connections=ASYNC_CONNECTIONS,
        timeout=None,
        connection_class=redis.asyncio.UnixDomainSocketConnection,
        path=str(socket),
        **PATIENCE,
    )
    return redis.asyncio.Redis.from_pool(pool)


# ------------------------------------------------------------------------------------------------ ours


@contextmanager
def open_ours(
    socket: Path, name: str, work: Workload, ttl: int | None, dtype: str = "float32", *, stats: bool = True
) -> Iterator[Contender]:
    """This package, as it comes."""
    url = f"unix://{socket}"
    cache = EmbeddingsCache(name, ttl, redis_url=url, connection_kwargs=PATIENCE, dtype=dtype, stats=stats)
    with cache:
        yield Contender(
            OURS,
            _our_calls(cache, work, ""),
            _our_calls(cache, work, "a"),
            lambda reply: _same([entry["embedding"] for entry in reply], work),
            cache.aclose,
        )


def _our_calls(cache: EmbeddingsCache, work: Workload, twin: str) -> Calls:
    texts, vectors, items = work.texts, work.vectors, work.items
    method = _methods(cache, twin)
    set_, get, exists, drop = method("set"), method("get"), method("exists"), method("drop")
    mset, mget, vectors_alone = method("mset"), method("mget"), method("mget_embeddings")
    mexists, mdrop = method("mexists"), method("mdrop")
    return {
        "set": lambda i: set_(texts[i], MODEL, vectors[i]),
        "get": lambda i: get(texts[i], MODEL),
        "exists": lambda i: exists(texts[i], MODEL),
        "drop": lambda i: drop(texts[i], MODEL),
        "mset": lambda: mset(items),
        "mget": lambda: mget(texts, MODEL),
        "mget_embeddings": lambda: vectors_alone(texts, MODEL),
        "mexists": lambda: mexists(texts, MODEL),
        "mdrop": lambda: mdrop(texts, MODEL),
    }


# ------------------------------------------------------------------------------------------------ RedisVL


@contextmanager
def open_redisvl(socket: Path, name: str, work: Workload, ttl: int | None) -> Iterator[Contender]:
    """RedisVL's `EmbeddingsCache`, with clients of our making, since its URLs name no Unix sockets."""
    from redisvl.extensions.cache.embeddings import EmbeddingsCache as RedisVLCache  # an extra; the rest goes without

    client, async_client = _client(socket), _async_client(socket)
    cache = RedisVLCache(name, ttl, redis_client=client, async_redis_client=async_client)
    with client:
        yield Contender(
            REDISVL,
            _redisvl_calls(cache, work, ""),
            _redisvl_calls(cache, work, "a"),
            lambda reply: _same([entry["embedding"] for entry in reply], work),
            async_client.aclose,
        )


def _redisvl_calls(cache: Any, work: Workload, twin: str) -> Calls:
    texts, lists = work.texts, work.lists
    items = [
        {"content": text, "model_name": MODEL, "embedding": vector} for text, vector in zip(texts, lists, strict=True)
    ]
    method = _methods(cache, twin)
    set_, get, exists, drop = method("set"), method("get"), method("exists"), method("drop")
    mset, mget, mexists, mdrop = method("mset"), method("mget"), method("mexists"), method("mdrop")
    return {
        "set": lambda i: set_(texts[i], MODEL, lists[i]),
        "get": lambda i: get(texts[i], MODEL),
        "exists": lambda i: exists(texts[i], MODEL),
        "drop": lambda i: drop(texts[i], MODEL),
        "mset": lambda: mset(items),
        "mget": lambda: mget(texts, MODEL),
        "mexists": lambda: mexists(texts, MODEL),
        "mdrop": lambda: mdrop(texts, MODEL),
    }


# ------------------------------------------------------------------------------------------------ LangChain


class NoModel:
    """Stands where LangChain asks for a model: everything is cached, so it is never asked."""

    def embed_documents(self, texts: list[str]) -> NoReturn:
        """Tells of a miss."""
        raise RuntimeError(f"{len(texts)} texts were not found in LangChain's cache, for example {texts[0]!r}")

    def embed_query(self, text: str) -> NoReturn:
        """Tells of a miss."""
        self.embed_documents([text])

    async def aembed_documents(self, texts: list[str]) -> NoReturn:
        """Tells of a miss."""
        self.embed_documents(texts)

    async def aembed_query(self, text: str) -> NoReturn:
        """Tells of a miss."""
        self.embed_documents([text])


@contextmanager
def open_langchain(socket: Path, name: str, work: Workload, ttl: int | None) -> Iterator[Contender]:
    """LangChain's `CacheBackedEmbeddings` over `RedisStore`, queries cached too."""
    from langchain_classic.embeddings import CacheBackedEmbeddings  # an extra; the rest goes without
    from langchain_community.storage import RedisStore

    client = _client(socket)
    embedder = CacheBackedEmbeddings.from_bytes_store(
        NoModel(),
        RedisStore(client=client, ttl=ttl, namespace=name),
        namespace=MODEL,
        query_embedding_cache=True,
        key_encoder="sha256",
    )
    with client:
        yield Contender(
            LANGCHAIN,
            _langchain_calls(embedder, work, ""),
            _langchain_calls(embedder, work, "a"),
            lambda reply: _same(reply, work),
            _nothing,
        )


def _langchain_calls(embedder: Any, work: Workload, twin: str) -> Calls:
    texts, lists = work.texts, work.lists
    pairs = list(zip(texts, lists, strict=True))
    method, store = _methods(embedder, twin), _methods(embedder.document_embedding_store, twin)
    embed_query, embed_documents = method("embed_query"), method("embed_documents")
    mset, mdelete = store("mset"), store("mdelete")
    return {
        "set": lambda i: mset([pairs[i]]),
        "get": lambda i: embed_query(texts[i]),
        "drop": lambda i: mdelete([texts[i]]),
        "mset": lambda: mset(pairs),
        "mget": lambda: embed_documents(texts),
        "mdrop": lambda: mdelete(texts),
    }


async def _nothing() -> None:
    """LangChain's async calls are its sync ones in threads: there are no connections to close."""


# ------------------------------------------------------------------------------------------------ raw redis-py


@contextmanager
def open_raw(socket: Path, name: str, work: Workload, ttl: int | None) -> Iterator[Contender]:
    """redis-py moving the bytes of our values under keys that are made beforehand: what no cache can beat by much."""
    with EmbeddingsCache(f"{name}-values", redis_url=f"unix://{socket}", stats=False) as cache:
        keys = cache.mset(work.items)
        client, async_client = _client(socket), _async_client(socket)
        values = {key.replace("-values:", ":"): value for key, value in zip(keys, client.mget(keys), strict=True)}
        cache.mdrop(work.texts, MODEL)
    with client:
        yield Contender(
            RAW,
            _raw_calls(client, values, ttl),
            _raw_calls(async_client, values, ttl),
            lambda reply: reply == list(values.values()),
            async_client.aclose,
        )


def _raw_calls(client: Any, values: dict[str, bytes], ttl: int | None) -> Calls:
    keys, packed = list(values), list(values.values())
    calls: dict[str, Callable[..., Any]] = {
        "set": lambda i: client.set(keys[i], packed[i], ex=ttl),
        "get": lambda i: client.get(keys[i]),
        "exists": lambda i: client.exists(keys[i]),
        "drop": lambda i: client.delete(keys[i]),
        "mset": lambda: client.mset(values),
        "mget": lambda: client.mget(keys),
        "mexists": lambda: _pipelined(client, "exists", keys),
        "mdrop": lambda: client.delete(*keys),
    }
    if ttl is not None:
        calls |= {
            "get": lambda i: client.getex(keys[i], ex=ttl),
            "mset": lambda: client.msetex(values, ex=ttl),
            "mget": lambda: _pipelined(client, "getex", keys, ex=ttl),
        }
    return calls


def _pipelined(client: Any, command: str, keys: list[str], **options: int) -> Any:
    pipeline = client.pipeline(transaction=False)
    queue = getattr(pipeline, command)
    for key in keys:
        queue(key, **options)
    return pipeline.execute()


# ------------------------------------------------------------------------------------------------ all of them

OPENERS: dict[str, Opener] = {
    OURS: open_ours,
    REDISVL: open_redisvl,
    LANGCHAIN: open_langchain,
    RAW: open_raw,
}


def _methods(target: object, twin: str) -> Callable[[str], Callable[..., Any]]:
    """Finds methods by name, or their async twins where `twin` is ``a``."""
    return lambda name: getattr(target, twin + name)


def _same(found: list[Any], work: Workload) -> bool:
    return bool(np.allclose(np.array(found, dtype=np.float32), work.vectors, rtol=0, atol=1e-6))
