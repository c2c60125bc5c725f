"""Samples of a cache's entries with their vectors."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import redis
from looking import redisvl_hash
from playing import written
from servers import Server

from embedcache import EmbeddingsCache, InvalidInputError, codec, redisvl_format, sampling, walking
from embedcache.connection import RedisConnection
from embedcache.keyspace import Keyspace


@pytest.fixture(params=["scripts", "no scripts"])
def connection(request: pytest.FixtureRequest, server: Server) -> Iterator[RedisConnection]:
    """A connection that may only look, and by which scripts may be run, or may not."""
    login: dict[str, Any] = {}
    if request.param == "no scripts":
        server.raw.execute_command("ACL", "SETUSER", "plain", "reset", "on", ">word", "~*", "+@all", "-@scripting")
        login = {"username": "plain", "password": "word"}
    client = redis.Redis(unix_socket_path=str(server.socket), **login)
    yield RedisConnection(client=client, read_only=True)
    client.close()
    server.raw.execute_command("ACL", "DELUSER", "plain")


def fill(server: Server, count: int, name: str = "c", model: str = "m", dimension: int = 3, **options: Any) -> None:
    vectors = np.random.default_rng(0).normal(size=(count, dimension))
    items = [
        {"text": f"text {n}", "model_name": model, "embedding": vector, "metadata": {"n": n}}
        for n, vector in enumerate(vectors)
    ]
    with EmbeddingsCache(name, redis_url=server.url, stats=False, **options) as cache:
        cache.mset(items)


def test_all_of_a_small_cache_by_model_and_dimension(server: Server, connection: RedisConnection) -> None:
    fill(server, 30)
    fill(server, 20, model="n")
    fill(server, 5, model="n", dimension=2)  # the same keys as five of those before
    fill(server, 9, name="c:d")
    drawn = sampling.sample(connection, "c", 100)
    found = [(group.model_names[0], group.dimension, len(group)) for group in drawn.groups]
    assert found == [("m", 3, 30), ("n", 3, 15), ("n", 2, 5)]
    assert (drawn.entries, drawn.whole, drawn.in_cache, drawn.unreadable) == (50, True, 50, 0)
    with EmbeddingsCache("c", redis_url=server.url, stats=False) as cache:
        for group in drawn.groups:
            for row, entry in enumerate(cache.mget_by_keys(group.keys)):
                assert entry is not None
                assert (entry["text"], entry["model_name"]) == (group.texts[row], group.model_names[row])
                assert (entry["metadata"], entry["inserted_at"]) == (group.metadata[row], group.inserted_at[row])
                assert np.array_equal(entry["embedding"], group.matrix[row])
                assert group.value_bytes[row] == server.raw.strlen(group.keys[row])


def test_one_model_alone(server: Server, connection: RedisConnection) -> None:
    fill(server, 1_200)
    fill(server, 40, model="rare")
    drawn = sampling.sample(connection, "c", 500, "rare")
    assert [set(group.model_names) for group in drawn.groups] == [{"rare"}]
    assert (drawn.entries, drawn.whole, drawn.in_cache) == (40, True, 40)


def test_a_sample_of_many_stops_early_and_reckons_how_many_there_are(valkey: Server) -> None:
    fill(valkey, 20_000)
    fill(valkey, 5_000, name="other")
    with EmbeddingsCache("c", redis_url=valkey.url, read_only=True) as cache:
        valkey.raw.config_resetstat()
        drawn = sampling.sample(cache.connection, "c", 500)
        calls = valkey.raw.info("commandstats")["cmdstat_scan"]["calls"]
    assert drawn.entries == 500
    assert not drawn.whole
    assert calls <= 3
    assert drawn.in_cache == pytest.approx(20_000, rel=0.25)
    numbers = [int(text.split()[1]) for text in drawn.groups[0].texts]
    assert 7_000 < np.mean(numbers) < 13_000  # from all over, not those stored first


def test_looking_changes_nothing(valkey: Server) -> None:
    fill(valkey, 5, ttl=1_000)
    (key, *_) = valkey.raw.keys("c:*")
    valkey.raw.expire(key, 300)
    with EmbeddingsCache("c", redis_url=valkey.url, read_only=True) as cache:
        assert sampling.sample(cache.connection, "c", 10).entries == 5
    assert valkey.raw.ttl(key) <= 300
    assert valkey.raw.dbsize() == 5


def test_what_is_no_entry_is_counted(server: Server, connection: RedisConnection) -> None:
    fill(server, 3)
    damaged, *_ = server.raw.keys("c:*")
    server.raw.setrange(damaged, 70, b"\xff\xff\xff")
    server.raw.set("c:" + "0" * 64, "not an entry")
    server.raw.hset("c:" + "1" * 64, "field", "value")
    server.raw.set("c:" + "2" * 64, server.raw.get(server.raw.keys("c:*")[0]))  # under a key that is not its own
    drawn = sampling.sample(connection, "c", 100)
    assert (drawn.entries, drawn.unreadable) == (2, 4)


@pytest.mark.parametrize("model", [None, "m"])
def test_redisvls_entries_are_drawn_beside_ours(server: Server, connection: RedisConnection, model: str | None) -> None:
    fill(server, 3)
    for digit, fields in enumerate(
        (redisvl_hash("theirs", size=3), redisvl_hash("other", model_name="n"), redisvl_hash(embedding="[1, NaN, 2]"))
    ):
        server.raw.hset("c:" + str(digit) * 64, mapping=fields)
    drawn = sampling.sample(connection, "c", 100, model)
    groups = {group.model_names[0]: group for group in drawn.groups}
    assert (len(groups["m"]), drawn.unreadable, drawn.whole) == (4, 1, True)
    assert ("n" in groups) is (model is None)
    row = groups["m"].texts.index("theirs")
    assert groups["m"].matrix[row].tolist() == [0.25] * 3
    assert groups["m"].inserted_at[row] == 1736455112.5
    assert groups["m"].value_bytes[row] == sum(map(len, redisvl_hash("theirs").values()))


@pytest.mark.parametrize(
    ("stored", "vector"),
    [
        (b"[1, 2.5, -3e-2]", [1.0, 2.5, -0.03]),
        (b"[1e300]", [float("inf")]),
        *((stored, None) for stored in (b"", b"[]", b"[1, NaN]", b"[true]", b"[1", b'{"a": 1}', b"\xff", b"[[1]]")),
        (b"[" * 100_000, None),
    ],
)
def test_redisvls_vectors_are_read(stored: bytes, vector: list[float] | None) -> None:
    found = redisvl_format.decode_vector(stored)
    assert found == vector if vector is None or found is None else found.tolist() == pytest.approx(vector)


def test_vectors_that_are_not_finite_are_there(valkey: Server) -> None:
    """The API refuses to store them; other programs do not."""
    item = {"text": "t", "model_name": "m", "embedding": [1.0, 2.0]}
    key, value = written(item, space=Keyspace("c"))
    start = codec.head_bytes(value)
    head = value[12:start]
    vector = np.array([np.nan, np.inf], dtype="<f4").tobytes()
    valkey.raw.set(key, value[:8] + codec.checksum(head + vector).to_bytes(4, "little") + head + vector)
    with EmbeddingsCache("c", redis_url=valkey.url, read_only=True) as cache:
        drawn = sampling.sample(cache.connection, "c", 10)
    assert np.isnan(drawn.groups[0].matrix[0, 0])
    assert np.isinf(drawn.groups[0].matrix[0, 1])


def test_memory_is_bounded(valkey: Server) -> None:
    fill(valkey, 100, dimension=256)
    with EmbeddingsCache("c", redis_url=valkey.url, read_only=True) as cache:
        drawn = sampling.sample(cache.connection, "c", 100, max_bytes=50_000)
    assert drawn.out_of_room
    assert not drawn.whole
    assert 10 <= drawn.entries <= 50_000 // (2 * 1_024)


def test_progress_is_told_and_may_end_it(valkey: Server) -> None:
    fill(valkey, 3_000)
    told: list[tuple[int, int]] = []

    def stop(done: int, total: int) -> None:
        told.append((done, total))
        if done:
            raise KeyboardInterrupt

    with (
        EmbeddingsCache("c", redis_url=valkey.url, read_only=True) as cache,
        pytest.raises(KeyboardInterrupt),
    ):
        sampling.sample(cache.connection, "c", 2_500, tell=stop)
    assert told[0] == (0, 2_500)
    assert 0 < told[-1][0] < 2_500


def test_an_empty_cache(valkey: Server) -> None:
    with EmbeddingsCache("c", redis_url=valkey.url, read_only=True) as cache:
        drawn = sampling.sample(cache.connection, "c", 10)
    assert (drawn.groups, drawn.entries, drawn.whole, drawn.in_cache) == ((), 0, True, 0)


@pytest.mark.parametrize("count", [0, -1, 20_001])
def test_how_many_is_checked(count: int) -> None:
    with pytest.raises(InvalidInputError, match="from 1 to 20,000"):
        sampling.sample(RedisConnection("unix:///nowhere.sock"), "c", count)


def test_groups_are_joined(valkey: Server) -> None:
    fill(valkey, 3)
    fill(valkey, 2, model="n")
    fill(valkey, 1, model="o", dimension=2)
    with EmbeddingsCache("c", redis_url=valkey.url, read_only=True) as cache:
        groups = sampling.sample(cache.connection, "c", 10).groups
    joined = sampling.join(groups[:2])
    assert (len(joined), joined.model_names) == (5, ("m", "m", "m", "n", "n"))
    assert joined.part([4, 0]).keys == (groups[1].keys[1], groups[0].keys[0])
    with pytest.raises(InvalidInputError, match=r"\[2, 3\]"):
        sampling.join(groups)
    with pytest.raises(InvalidInputError, match="none"):
        sampling.join([])


# ------------------------------------------------------------------------------------------------ reading all


def read(connection: RedisConnection, dimension: int = 3) -> tuple[dict[str, Any], int]:
    """By key, the vectors that were read; and how many were left out."""
    index, found = walking.index_cache(connection, "c", lambda *_: None), {}

    def take(at: Any, vectors: sampling.Vectors) -> None:
        assert index.keys(at) == list(vectors.keys)
        assert vectors.value_bytes.tolist() == index.value_bytes[at].tolist()
        found.update(zip(vectors.keys, vectors.matrix, strict=True))

    told: list[tuple[int, int]] = []
    everything = np.arange(len(index))
    left_out = sampling.read_all(connection, index, everything, dimension, take, lambda *each: told.append(each))
    assert told == sorted(told)
    assert told[-1] == (len(index), len(index))
    return found, left_out


def test_all_entries_are_read_part_by_part(server: Server, connection: RedisConnection) -> None:
    fill(server, 1_300)
    fill(server, 20, name="c:d")
    fill(server, 4, model="short", dimension=2)
    with EmbeddingsCache("c", redis_url=server.url, stats=False) as cache:
        cache.set("x" * 8_388_608, "m", [1.0, 2.0, 3.0])  # more than is read at once
        server.raw.hset(cache.key_for("theirs", "r"), mapping=redisvl_hash("theirs", model_name="r"))
        server.raw.set("c:" + "0" * 64, "no entry")
        found, left_out = read(connection)
        assert (len(found), left_out) == (1_302, 5)
        for entry in cache.mget_by_keys(list(found)):
            if entry is not None:  # RedisVL's is none in this layout
                assert np.array_equal(found[entry["key"]], entry["embedding"])
    assert len(read(connection, 2)[0]) == 4


def test_what_take_raises_ends_the_reading(server: Server, connection: RedisConnection) -> None:
    fill(server, 1_300)
    index, taken = walking.index_cache(connection, "c", lambda *_: None), []

    def take(at: Any, vectors: sampling.Vectors) -> None:
        taken.append(len(vectors))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sampling.read_all(connection, index, np.arange(1_300), 3, take, lambda *_: None)
    assert len(taken) == 1


def test_positions_that_are_none_are_refused(server: Server, connection: RedisConnection) -> None:
    fill(server, 3)
    index = walking.index_cache(connection, "c", lambda *_: None)
    with pytest.raises(InvalidInputError, match="positions are from 0 to 2"):
        sampling.read_all(connection, index, np.array([3]), 3, lambda *_: None, lambda *_: None)
