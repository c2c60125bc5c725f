"""Junk in the bookkeeping that lies in Redis beside the entries: statistics, prices, slow lookups, audit log, runs.

What others wrote there, or a later version, or a disk that erred: lookups go on, and what reads the bookkeeping passes
over what it cannot read, or says in an error of ours that the key holds something else.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgpack
import pytest
from drawing import junk
from hypothesis import given
from hypothesis import strategies as st
from servers import Server
from test_junk_benchmark import RUN
from world import MODEL, patient, refusal

from embedcache import EmbeddingsCache, audit
from embedcache.benchmark import runs
from embedcache.connection import RedisConnection
from embedcache.flushing import flush_all

Dumped = dict[bytes, bytes]
VECTOR = [0.5, 1.0]


@pytest.fixture
def cache(valkey: Server) -> Iterator[EmbeddingsCache]:
    """A cache with two entries and bookkeeping of every kind."""
    with EmbeddingsCache("c", 500, redis_url=valkey.url, slow_lookup_seconds=0, slow_lookup_texts=True) as made:
        made.mset([{"text": text, "model_name": MODEL, "embedding": VECTOR} for text in ("a", "b")])
        made.mget(["a", "b", "missing"], MODEL)
        made.set_token_price(MODEL, 0.25)
        made.record_computation(MODEL, 2, 0.5, 10)
        made.flush_stats()
        audit.record(made.connection, "c", "ada", "made", detail={"a": 1})
        runs.save(made.connection, RUN)
        yield made


@pytest.fixture
def bookkeeping(cache: EmbeddingsCache, valkey: Server) -> Dumped:
    """All keys but those of the entries, with their values as DUMP gives them."""
    found = [key for key in valkey.raw.scan_iter() if not cache.owns(key.decode())]
    return {key: valkey.raw.dump(key) for key in sorted(found)}


def packed(value: Any) -> bytes:
    try:
        return bytes(msgpack.packb(value, unicode_errors="surrogatepass"))
    except Exception:  # noqa: BLE001 - what no MessagePack can hold
        return b"\xc1"


@st.composite
def spoilt(draw: st.DrawFn, value: bytes) -> bytes:
    """A value cut, with a bit flipped, or something else."""
    way = draw(st.sampled_from(["cut", "flipped", "other", "packed", "number"]))
    at = draw(st.integers(0, max(len(value) - 1, 0)))
    if way == "cut":
        return value[:at]
    if way == "flipped" and value:
        return value[:at] + bytes([value[at] ^ 1 << draw(st.integers(0, 7))]) + value[at + 1 :]
    if way == "packed":
        return packed(draw(junk | st.lists(junk, min_size=6, max_size=7)))
    if way == "number":
        return str(draw(st.integers() | st.floats())).encode()
    return draw(st.binary(max_size=12))


def spoil(server: Server, key: bytes, data: st.DataObject) -> None:
    """Puts junk somewhere into a key."""
    raw, kind = server.raw, server.raw.type(key)
    if data.draw(st.integers(0, 5), label="of another type if 0") == 0:
        raw.delete(key)
        other = data.draw(st.sampled_from(["string", "list", "hash", "zset"]))
        kind = other.encode()
    if kind == b"hash":
        fields = raw.hgetall(key) or {b"a": b"b"}
        field = data.draw(st.sampled_from(sorted(fields)))
        if data.draw(st.booleans(), label="the field's name"):
            raw.hset(key, data.draw(spoilt(field)), fields[field])
        raw.hset(key, field, data.draw(spoilt(fields[field])))
    elif kind == b"list":
        raw.lpush(key, data.draw(spoilt((raw.lrange(key, 0, 0) or [b"a"])[0])))
    elif kind == b"zset":
        raw.zadd(key, {data.draw(spoilt(b"c:00")): data.draw(st.floats(allow_nan=False))})
    else:
        raw.set(key, data.draw(spoilt(raw.get(key) or b"a")))


def look(cache: EmbeddingsCache) -> None:
    """Everything that reads bookkeeping, each whatever became of the others."""
    connection: RedisConnection = cache.connection
    for call in (
        *(lambda window=window: cache.stats(window) for window in ("all", "1h", "60d", "700d")),
        lambda: cache.stats_by_model("all"),
        lambda: cache.stats_series("1h", "1m"),
        cache.slow_lookups,
        cache.token_prices,
        lambda: cache.why("missing", MODEL, max_scan=10),
        lambda: audit.read(connection, "c"),
        lambda: audit.record(connection, "c", "ada", "looked"),
        lambda: runs.list_runs(connection),
        lambda: runs.read_run(connection, RUN.run_id),
    ):
        error = refusal(call)
        assert error is None or str(error)


@patient
@given(data=st.data())
def test_junk_in_bookkeeping_stops_no_lookup(
    cache: EmbeddingsCache, bookkeeping: Dumped, valkey: Server, data: st.DataObject
) -> None:
    for key, value in bookkeeping.items():
        valkey.raw.restore(key, 0, value, replace=True)
    spoil(valkey, data.draw(st.sampled_from(sorted(bookkeeping)), label="key"), data)
    look(cache)
    found = cache.mget(["a", "missing", "b"], MODEL)
    assert [entry is not None for entry in found] == [True, False, True]
    assert refusal(lambda: cache.set("new", MODEL, VECTOR)) is None
    flush_all()
