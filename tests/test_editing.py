"""Metadata replaced in place: on each server, sync and async, and against writers that come in between."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable
from typing import Any

import msgpack
import numpy as np
import pytest
from calling import Caller
from playing import play, written
from servers import Server

from embedcache import NEVER, EmbeddingsCache, codec, editing, packed_layout
from embedcache.errors import EmbedcacheError, ForeignKeyError, InvalidMetadataError, ReadOnlyError, ServerReplyError
from embedcache.keyspace import Keyspace
from embedcache.metadata import pack_metadata
from embedcache.operations import ServerAbilities
from embedcache.scripts import REPLACE_UNCHANGED, only_reads

MODEL = "a/model"
VECTOR = [0.5, -1.0, 2.0]
METADATA = {"source": "handbook", "tags": ["a", {"b": None}], "n": 1}
SPACE = Keyspace("c")
NOPERM = ServerReplyError("NOPERM User u has no permissions to run the 'evalsha' command")


def vector_bytes(value: bytes) -> bytes:
    return value[codec.head_bytes(value) :]


# ------------------------------------------------------------------------------------------------ what changes


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "int8"])
@pytest.mark.parametrize("text", ["a text: with a colon, ü", b"\x89PNG\xff"])
def test_metadata_alone_is_replaced(
    make_cache: Callable[..., Caller], server: Server, dtype: str, text: str | bytes
) -> None:
    cache = make_cache(dtype=dtype)
    key = cache.set(text, MODEL, VECTOR, {"old": True}, ttl=900)
    server.raw.expire(key, 500)
    before, old = server.raw.get(key), cache.cache.connection.client().get(key)
    assert before == old
    for metadata in (METADATA, None, {}, {"long": "x" * 5_000}, {"n": 2}):
        assert cache.set_metadata(key, metadata) is True
        after = server.raw.get(key)
        assert vector_bytes(after) == vector_bytes(before)
        assert 400_000 < server.pttl(key) <= 500_000
        found, earlier = codec.decode_by_key(after, key), codec.decode_by_key(before, key)
        assert found is not None
        assert found["metadata"] == metadata
        assert found["embedding"].tolist() == earlier["embedding"].tolist()
        assert {**found, "metadata": 0, "embedding": 0} == {**earlier, "metadata": 0, "embedding": 0}
    assert cache.get(text, MODEL)["metadata"] == {"n": 2}


def test_an_entry_that_never_expires_does_not_expire_after(cache: Caller, server: Server) -> None:
    key = cache.set("a", MODEL, VECTOR)
    assert cache.set_metadata(key, METADATA) is True
    assert server.pttl(key) == -1
    assert cache.remaining_ttl(key) is NEVER


def test_numpy_numbers_become_plain(cache: Caller) -> None:
    key = cache.set("a", MODEL, VECTOR)
    cache.set_metadata(key, {"score": np.float64(0.5), "pair": (1, np.int64(2))})
    assert cache.get_by_key(key)["metadata"] == {"score": 0.5, "pair": [1, 2]}


def test_nothing_is_counted(server: Server) -> None:
    with EmbeddingsCache("c", redis_url=server.url) as cache:
        key = cache.set("a", MODEL, VECTOR)
        before = cache.process_stats()
        cache.set_metadata(key, METADATA)
        after = cache.process_stats()
    assert (after.sets, after.bytes_written, after.texts) == (before.sets, before.bytes_written, before.texts)


# ------------------------------------------------------------------------------------------------ what is refused


def test_there_is_nothing_to_change(cache: Caller, server: Server) -> None:
    assert cache.set_metadata(cache.key_for("missing", MODEL), METADATA) is False
    assert server.raw.dbsize() == 0


@pytest.mark.parametrize("kind", ["list", "text", "damaged", "another entry"])
def test_what_is_no_entry_is_left_alone(cache: Caller, server: Server, kind: str) -> None:
    key = cache.key_for("a", MODEL)
    if kind == "list":
        server.raw.rpush(key, "x")
    elif kind == "text":
        server.raw.set(key, "no entry")
    elif kind == "damaged":
        cache.set("a", MODEL, VECTOR)
        server.raw.setrange(key, 40, b"\xff\xff")
    else:
        server.raw.set(key, server.raw.get(cache.set("b", MODEL, VECTOR)))
    before = server.raw.dump(key)
    assert cache.set_metadata(key, METADATA) is False
    assert server.raw.dump(key) == before


@pytest.mark.parametrize("metadata", [[1], "text", {"n": float("nan")}, {1: 2}, {"n": 2**70}, {"x": "x" * 1_100_000}])
def test_what_set_refuses_is_refused(cache: Caller, server: Server, metadata: Any) -> None:
    key = cache.set("a", MODEL, VECTOR, {"kept": True})
    before = server.raw.get(key)
    with pytest.raises(InvalidMetadataError):
        cache.set_metadata(key, metadata)
    assert server.raw.get(key) == before


def test_a_key_of_another_cache_is_refused(cache: Caller, make_cache: Callable[..., Caller], server: Server) -> None:
    key = make_cache("c:b").set("a", MODEL, VECTOR)
    before = server.raw.get(key)
    for foreign in (key, "c:", "c:" + "g" * 64, "nonsense"):
        with pytest.raises(ForeignKeyError):
            cache.set_metadata(foreign, METADATA)
    assert server.raw.get(key) == before


def test_a_read_only_cache_refuses(make_cache: Callable[..., Caller], server: Server) -> None:
    key = make_cache().set("a", MODEL, VECTOR)
    before = server.raw.get(key)
    with pytest.raises(ReadOnlyError, match="opened read-only"):
        make_cache(read_only=True).set_metadata(key, METADATA)
    assert server.raw.get(key) == before
    assert not only_reads(REPLACE_UNCHANGED.sha)
    assert not only_reads(REPLACE_UNCHANGED.source)


# ------------------------------------------------------------------------------------------------ where scripts are not


def test_without_scripts_it_works_as_well(server: Server, caller: Callable[[EmbeddingsCache], Caller]) -> None:
    server.raw.execute_command("ACL", "SETUSER", "few", "reset", "on", ">pw", "~c:*", "+@all", "-@scripting")
    try:
        cache = caller(EmbeddingsCache("c", redis_url=f"unix://few:pw@{server.socket}", stats=False))
        key = cache.set("a", MODEL, VECTOR, ttl=900)
        server.raw.expire(key, 500)
        assert cache.set_metadata(key, METADATA) is True
        assert cache.get_by_key(key)["metadata"] == METADATA
        assert cache.drop_by_key(key)
        assert cache.set_metadata(key, METADATA) is False
        assert server.raw.dbsize() == 0
    finally:
        server.raw.execute_command("ACL", "DELUSER", "few")


def test_without_scripts_the_expiry_is_kept(server: Server) -> None:
    with EmbeddingsCache("c", redis_url=server.url, stats=False, refresh_ttl=False) as cache:
        cache._able.scripts = False
        key = cache.set("a", MODEL, VECTOR, ttl=900)
        server.raw.expire(key, 500)
        assert cache.set_metadata(key, METADATA) is True
        assert 400_000 < server.pttl(key) <= 500_000


def test_an_entry_dropped_meanwhile_does_not_come_back() -> None:
    key, value = written({"text": "a", "model_name": MODEL, "embedding": VECTOR}, space=SPACE)
    gone = editing.set_metadata(SPACE, ServerAbilities(), key, METADATA)
    assert play(gone, [[value]], [0], [[None]])[0] is False
    gone = editing.set_metadata(SPACE, ServerAbilities(scripts=False), key, METADATA)
    result, trips = play(gone, [[value]], [None], [[None]])
    assert result is False
    assert [command[0] for (command,) in trips] == ["MGET", "SET", "MGET"]
    assert trips[1][0][-2:] == ("XX", "KEEPTTL")


def test_a_user_without_scripts_takes_the_plain_way_from_then_on() -> None:
    key, value = written({"text": "a", "model_name": MODEL, "embedding": VECTOR}, space=SPACE)
    able = ServerAbilities()
    result, trips = play(editing.set_metadata(SPACE, able, key, METADATA), [[value]], [NOPERM], [b"OK"])
    assert result is True
    assert able.scripts is False
    assert [command[0] for (command,) in trips] == ["MGET", "EVALSHA", "SET"]


# ------------------------------------------------------------------------------------------------ other writers


def test_what_others_wrote_meanwhile_is_not_lost(cache: Caller, server: Server) -> None:
    """While metadata changes, others replace the vector and the TTL: no mixture, and no write of theirs undone."""
    key = cache.set("a", MODEL, [0.0, 0.0], {"n": -1})
    over = threading.Event()
    last: dict[str, int] = {}

    def replace() -> None:
        with EmbeddingsCache("c", redis_url=server.url, stats=False) as other:
            for number in itertools.count(1):
                other.set("a", MODEL, [number, -number], {"n": -1}, ttl=1_000 + number)
                last["number"] = number
                if over.is_set():
                    return
                time.sleep(0.002)

    writer = threading.Thread(target=replace)
    writer.start()
    try:
        for number in range(100):
            assert cache.set_metadata(key, {"n": number}) is True
            entry = cache.get_by_key(key)
            first, second = entry["embedding"].tolist()
            assert first == -second
            assert entry["ttl"] in {None, 1_000 + first}
    finally:
        over.set()
        writer.join()
    assert cache.get_by_key(key)["embedding"].tolist() == [last["number"], -last["number"]]


def test_it_does_not_try_for_ever() -> None:
    key, value = written({"text": "a", "model_name": MODEL, "embedding": VECTOR}, space=SPACE)

    def reply(commands: list[Any]) -> list[Any]:
        return [[value]] if commands[0][0] == "MGET" else [0]

    with pytest.raises(EmbedcacheError, match="written by others at each of 50 tries; try again"):
        play(editing.set_metadata(SPACE, ServerAbilities(), key, METADATA), then=reply)


def test_what_a_later_version_appended_is_kept() -> None:
    key, value = written({"text": "a", "model_name": MODEL, "embedding": VECTOR, "metadata": {"n": 1}}, space=SPACE)
    head = codec.decode_head(value)
    assert head is not None
    identity = b"a:" + MODEL.encode()
    tag = codec.tag_prefix(1, len(MODEL), False) + identity
    rest = msgpack.packb([1.5, {"n": 1}, "appended"])
    later = codec.encode(tag, vector_bytes(value), head.dtype, 60, rest)
    changed = packed_layout.with_metadata(later, key, pack_metadata(METADATA))
    assert changed is not None
    assert codec.decode_by_key(changed, key)["metadata"] == METADATA
    assert msgpack.packb([1.5, METADATA, "appended"]) in changed
