"""What a cache promises, on each server, sync and async: entries in, entries out, and nobody else's keys touched."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from calling import Caller
from servers import Server

from embedcache import EmbeddingsCache
from embedcache.errors import ForeignKeyError

MODEL = "a/model"
VECTOR = [0.5, -1.0, 2.0]
METADATA = {"category": "ai", "tags": ["a", {"b": None}], "n": 1, "ratio": 0.5, "ok": True}
GLOB_NAME = "a*?[b-z]\\"


def vector_of(number: int) -> np.ndarray:
    return np.array([number, 1.0], np.float32)


def item(text: Any, embedding: Any = VECTOR, **fields: Any) -> dict[str, Any]:
    return {"text": text, "model_name": MODEL, "embedding": embedding, **fields}


def repr_start(value: object) -> str:
    return repr(value)[:12]


def texts_of(entries: list[Any]) -> list[Any]:
    return [entry and entry["text"] for entry in entries]


# ------------------------------------------------------------------------------------------------ one entry


def test_what_is_set_is_got(cache: Caller) -> None:
    before = time.time()
    key = cache.set("What is it?", MODEL, VECTOR, METADATA)
    after = time.time()
    for entry in (cache.get("What is it?", MODEL), cache.get_by_key(key)):
        assert entry["embedding"].tolist() == VECTOR
        assert before <= entry.pop("inserted_at") <= after
        del entry["embedding"]
        assert entry == {
            "entry_id": key.removeprefix("c:"),
            "key": key,
            "text": "What is it?",
            "model_name": MODEL,
            "metadata": METADATA,
            "ttl": None,
        }
    assert key == cache.key_for("What is it?", MODEL)
    assert cache.owns(key)


def test_without_metadata_there_is_none(cache: Caller) -> None:
    cache.set("a", MODEL, VECTOR)
    cache.set("b", MODEL, VECTOR, {})
    assert cache.get("a", MODEL)["metadata"] is None
    assert cache.get("b", MODEL)["metadata"] == {}


def test_what_was_never_set_is_a_miss(cache: Caller) -> None:
    key = cache.key_for("a", MODEL)
    assert cache.get("a", MODEL) is None
    assert cache.get_by_key(key) is None
    assert cache.exists("a", MODEL) is False
    assert cache.exists_by_key(key) is False
    assert cache.drop("a", MODEL) is False
    assert cache.drop_by_key(key) is False
    assert cache.clear() == 0


def test_an_entry_exists_until_it_is_dropped(cache: Caller) -> None:
    key = cache.set("a", MODEL, VECTOR)
    assert cache.exists("a", MODEL) is True
    assert cache.exists_by_key(key) is True
    assert cache.drop("a", MODEL) is True
    assert cache.get("a", MODEL) is None
    cache.set("a", MODEL, VECTOR)
    assert cache.drop_by_key(key) is True
    assert cache.exists_by_key(key) is False
    assert cache.drop_by_key(key) is False


def test_a_text_is_kept_per_model(cache: Caller) -> None:
    cache.set("a", MODEL, VECTOR)
    assert cache.get("a", "another/model") is None
    assert cache.exists("a", "another/model") is False
    assert cache.mget_embeddings(["a"], "another/model")[1].tolist() == [False]


def test_set_again_takes_the_place_of_what_was_there(cache: Caller) -> None:
    first = cache.set("a", MODEL, VECTOR, {"version": 1}, ttl=50)
    assert cache.set("a", MODEL, [9.0, 8.0]) == first
    entry = cache.get("a", MODEL)
    assert (entry["embedding"].tolist(), entry["metadata"], entry["ttl"]) == ([9, 8], None, None)
    assert cache.remaining_ttl(first).value == "never"


@pytest.mark.parametrize(
    "text", ["Grüße, 世界 🌍", "line\nline\0nul", " padded ", "x" * 100_000, b"\xff\x00\xd8 image", b"a"]
)
def test_any_text_is_kept(cache: Caller, text: str | bytes) -> None:
    key = cache.set(text, MODEL, VECTOR)
    for entry in (cache.get(text, MODEL), cache.get_by_key(key), *cache.mget([text], MODEL)):
        assert entry["text"] == text
        assert type(entry["text"]) is type(text)


def test_two_texts_of_one_key_never_answer_for_each_other(cache: Caller) -> None:
    assert cache.set("a:b", "c", [1.0]) == cache.key_for("a", "b:c")
    assert cache.get("a", "b:c") is None
    assert cache.exists("a", "b:c") is False
    assert cache.mget_embeddings(["a"], "b:c")[1].tolist() == [False]
    assert cache.get("a:b", "c")["embedding"].tolist() == [1]
    cache.set("a", "b:c", [2.0])
    assert cache.get("a", "b:c")["embedding"].tolist() == [2]
    assert cache.get("a:b", "c") is None


def test_a_str_and_its_bytes_never_answer_for_each_other(cache: Caller) -> None:
    cache.set("ab", MODEL, VECTOR)
    assert cache.get(b"ab", MODEL) is None
    assert cache.exists(b"ab", MODEL) is False


def test_bytes_of_numpy_are_bytes(cache: Caller) -> None:
    cache.set(np.bytes_(b"\xff"), MODEL, VECTOR)
    assert cache.get(b"\xff", MODEL)["text"] == b"\xff"


# ------------------------------------------------------------------------------------------------ vectors


@pytest.mark.parametrize(
    ("dtype", "read", "tolerance"),
    [("float32", "float32", 0), ("float64", "float64", 0), ("float16", "float32", 1e-3), ("int8", "float32", 0.02)],
)
def test_each_dtype_comes_back(make_cache: Callable[..., Caller], dtype: str, read: str, tolerance: float) -> None:
    cache = make_cache(dtype=dtype)
    given = np.random.default_rng(7).normal(size=(5, 384)).astype(read)
    names = [f"text {number}" for number in range(5)]
    cache.mset([item(name, row) for name, row in zip(names, given, strict=True)])
    matrix, mask = cache.mget_embeddings(names, MODEL)
    assert mask.all()
    for rows in ([entry["embedding"] for entry in cache.mget(names, MODEL)], matrix):
        assert {row.dtype for row in rows} == {np.dtype(read)}
        np.testing.assert_allclose(rows, given, rtol=tolerance, atol=tolerance)


def test_a_cache_reads_entries_of_every_dtype(make_cache: Callable[..., Caller]) -> None:
    for dtype in ("float32", "float64", "float16", "int8"):
        make_cache(dtype=dtype).set(dtype, MODEL, [1.0, 2.0])
    found = make_cache().mget(["float32", "float64", "float16", "int8"], MODEL)
    for entry in found:
        assert entry["embedding"] == pytest.approx([1, 2], abs=0.02)


@pytest.mark.parametrize("embedding", [[1, 2], (1.0, 2.0), np.array([1, 2]), np.array([1, 2], np.float16), range(1, 3)])
def test_any_vector_of_real_numbers_is_taken(cache: Caller, embedding: Any) -> None:
    cache.set("a", MODEL, embedding)
    assert cache.get("a", MODEL)["embedding"].tolist() == [1, 2]


def test_a_vector_that_is_not_contiguous_is_stored_as_it_reads(cache: Caller) -> None:
    column = np.arange(12, dtype=np.float32).reshape(4, 3)[:, 1]
    cache.mset([item("a", column), item("b", column[::-1])])
    assert cache.get("a", MODEL)["embedding"].tolist() == [1, 4, 7, 10]
    assert cache.get("b", MODEL)["embedding"].tolist() == [10, 7, 4, 1]
    cache.set("c", MODEL, column.astype(">f4"))
    assert cache.get("c", MODEL)["embedding"].tolist() == [1, 4, 7, 10]


def test_an_embedding_that_was_got_is_read_only(cache: Caller) -> None:
    cache.set("a", MODEL, VECTOR)
    embedding = cache.get("a", MODEL)["embedding"]
    with pytest.raises(ValueError, match="read-only"):
        embedding[0] = 9
    copy = embedding.copy()
    copy[0] = 9
    assert cache.get("a", MODEL)["embedding"].tolist() == VECTOR


def test_the_array_that_was_passed_in_may_change_afterwards(cache: Caller) -> None:
    row = np.array([1.0, 2.0], np.float32)
    cache.set("a", MODEL, row)
    row[:] = 0
    assert cache.get("a", MODEL)["embedding"].tolist() == [1, 2]


def test_an_entry_costs_the_server_little_more_than_its_vector(cache: Caller, server: Server) -> None:
    key = cache.set("What is machine learning?", MODEL, np.ones(384, np.float32), {"category": "ai"})
    assert server.raw.strlen(key) <= 1.15 * (4 * 384 + 25 + 200)
    assert server.raw.type(key) == b"string"


# ------------------------------------------------------------------------------------------------ batches


def test_a_batch_is_stored_found_and_dropped(cache: Caller, server: Server) -> None:
    names = ["one", "two", "three"]
    keys = cache.mset([item(name, vector_of(n), metadata={"n": n}) for n, name in enumerate(names)])
    assert keys == [cache.key_for(name, MODEL) for name in names]
    for found in (cache.mget(names, MODEL), cache.mget_by_keys(keys)):
        assert texts_of(found) == names
        assert [entry["metadata"] for entry in found] == [{"n": 0}, {"n": 1}, {"n": 2}]
        assert [entry["embedding"].tolist() for entry in found] == [[0, 1], [1, 1], [2, 1]]
        assert [entry["key"] for entry in found] == keys
    assert cache.mexists(names, MODEL) == cache.mexists_by_keys(keys) == [True, True, True]
    assert cache.mdrop(names[:2], MODEL) == 2
    assert cache.mdrop_by_keys(keys) == 1
    assert server.raw.dbsize() == 0


def test_a_partial_hit_keeps_each_answer_in_its_place(cache: Caller) -> None:
    cache.mset([item(f"text {n}", vector_of(n)) for n in range(0, 10, 3)])
    names = [f"text {n}" for n in reversed(range(10))]
    keys = [cache.key_for(name, MODEL) for name in names]
    hits = [n % 3 == 0 for n in reversed(range(10))]
    for found in (cache.mget(names, MODEL), cache.mget_by_keys(keys)):
        assert texts_of(found) == [name if hit else None for name, hit in zip(names, hits, strict=True)]
    assert cache.mexists(names, MODEL) == cache.mexists_by_keys(keys) == hits
    matrix, mask = cache.mget_embeddings(names, MODEL)
    assert mask.tolist() == hits
    assert matrix[mask].tolist() == [[9, 1], [6, 1], [3, 1], [0, 1]]
    assert np.isnan(matrix[~mask]).all()
    assert matrix.shape == (10, 2)
    assert cache.mdrop(names, MODEL) == 4


def test_a_text_asked_for_twice_is_answered_twice(cache: Caller) -> None:
    key = cache.set("a", MODEL, VECTOR)
    assert texts_of(cache.mget(["a", "b", "a"], MODEL)) == ["a", None, "a"]
    assert texts_of(cache.mget_by_keys([key, key])) == ["a", "a"]
    assert cache.mexists(["a", "a"], MODEL) == [True, True]
    matrix, mask = cache.mget_embeddings(["b", "a", "a"], MODEL)
    assert mask.tolist() == [False, True, True]
    assert matrix[1:].tolist() == [VECTOR, VECTOR]
    assert cache.mdrop(["a", "a"], MODEL) == 1


@pytest.mark.parametrize("ttl", [None, 500])
def test_of_a_text_set_twice_in_a_batch_the_last_stays(cache: Caller, server: Server, ttl: int | None) -> None:
    keys = cache.mset([item("a", [1.0]), item("b", [2.0]), item("a", [3.0])], ttl=ttl)
    assert keys[0] == keys[2]
    assert [entry["embedding"].tolist() for entry in cache.mget(["a", "b"], MODEL)] == [[3], [2]]
    assert server.raw.dbsize() == 2


def test_a_batch_of_several_models_and_dimensions(cache: Caller) -> None:
    cache.mset([item("a", [1.0]), {**item("a", [2.0, 2.0]), "model_name": "another"}, item("b", [3.0])])
    assert texts_of(cache.mget(["a", "b"], MODEL)) == ["a", "b"]
    assert cache.get("a", "another")["embedding"].tolist() == [2, 2]


def test_empty_lists_give_empty_results(cache: Caller) -> None:
    assert cache.mset([]) == cache.mget([], MODEL) == cache.mget_by_keys([]) == []
    assert cache.mexists([], MODEL) == cache.mexists_by_keys([]) == []
    assert cache.mdrop([], MODEL) == cache.mdrop_by_keys([]) == 0
    matrix, mask = cache.mget_embeddings([], MODEL)
    assert (matrix.shape, mask.shape) == ((0, 0), (0,))
    assert cache.mget_embeddings([], MODEL, dimension=3)[0].shape == (0, 3)


@pytest.mark.parametrize("ttl", [None, 500])
def test_a_batch_of_thousands(make_cache: Callable[..., Caller], server: Server, ttl: int | None) -> None:
    cache = make_cache(ttl=ttl)
    names = [f"text {n}" for n in range(2500)]
    keys = cache.mset([item(name, vector_of(n)) for n, name in enumerate(names)])
    assert server.raw.dbsize() == len(set(keys)) == 2500
    assert texts_of(cache.mget(names, MODEL)) == names
    assert texts_of(cache.mget_by_keys(keys)) == names
    matrix, mask = cache.mget_embeddings(names, MODEL)
    assert mask.all()
    assert matrix[:, 0].tolist() == list(range(2500))
    assert cache.mexists(names, MODEL) == cache.mexists_by_keys(keys) == [True] * 2500
    assert cache.mdrop(names[:1200], MODEL) == 1200
    assert cache.clear() == 1300
    assert server.raw.dbsize() == 0


def test_vectors_of_another_dimension_are_misses_in_a_matrix(cache: Caller) -> None:
    cache.set("two", MODEL, [1.0, 2.0])
    cache.set("three", MODEL, [1.0, 2.0, 3.0])
    assert cache.mget_embeddings(["two", "three"], MODEL)[1].tolist() == [True, False]
    matrix, mask = cache.mget_embeddings(["two", "three"], MODEL, dimension=3)
    assert mask.tolist() == [False, True]
    assert matrix[1].tolist() == [1, 2, 3]
    matrix, mask = cache.mget_embeddings(["none"], MODEL)
    assert (matrix.shape, mask.tolist()) == ((1, 0), [False])


# ------------------------------------------------------------------------------------------------ what is not an entry


@pytest.mark.parametrize("ttl", [None, 500])
@pytest.mark.parametrize("kind", ["list", "hash", "set", "text", "empty", "truncated", "flipped bit", "later version"])
def test_what_is_no_entry_under_a_key_of_ours_is_one_miss(
    make_cache: Callable[..., Caller], server: Server, kind: str, ttl: int | None
) -> None:
    cache = make_cache(ttl=ttl)
    keys = cache.mset([item("before"), item("strange"), item("after")])
    key, names = keys[1], ["before", "strange", "after"]
    value = server.raw.getdel(key)
    match kind:
        case "list":
            server.raw.rpush(key, "x")
        case "hash":
            server.raw.hset(key, "field", "x")
        case "set":
            server.raw.sadd(key, "x")
        case "text" | "empty":
            server.raw.set(key, "text" if kind == "text" else "")
        case "truncated":
            server.raw.set(key, value[:-1])
        case "flipped bit":
            server.raw.set(key, value[:-1] + bytes([value[-1] ^ 1]))
        case "later version":
            server.raw.set(key, value[:3] + b"\x02" + value[4:])
    assert texts_of(cache.mget(names, MODEL)) == ["before", None, "after"]
    assert texts_of(cache.mget_by_keys(keys)) == ["before", None, "after"]
    assert cache.mget_embeddings(names, MODEL)[1].tolist() == [True, False, True]
    assert cache.get("strange", MODEL) is None
    if kind not in {"truncated", "flipped bit"}:  # which only reading all of the vector could tell
        assert cache.mexists(names, MODEL) == cache.mexists_by_keys(keys) == [True, False, True]
    assert cache.set("strange", MODEL, VECTOR) == key
    assert cache.get("strange", MODEL)["embedding"].tolist() == VECTOR


# ------------------------------------------------------------------------------------------------ other people's keys


def strangers(name: str) -> list[str]:
    """Keys that are near a cache's and not its own."""
    digits = "0123456789abcdef" * 4
    return [
        f"{name}:b:{digits}",
        f"{name}b:{digits}",
        f"x{name}:{digits}",
        f"{name}:{digits[:-1]}",
        f"{name}:{digits}0",
        f"{name}:{'g' * 64}",
        f"{name}:{digits.upper()}",
        f"{name}:",
        name,
        digits,
        f"aXYbc:{digits}",
    ]


@pytest.mark.parametrize("name", ["a", "a:b", GLOB_NAME, "*", "ü"])
def test_clear_leaves_everything_that_is_not_the_caches(
    make_cache: Callable[..., Caller], server: Server, name: str
) -> None:
    others = [make_cache(other) for other in ("a", "a:b", "ab", GLOB_NAME, "*", "ü", "a*") if other != name]
    for other in others:
        other.set("kept", MODEL, VECTOR)
    left = {*strangers(name), f"{name}:".encode() + b"\xff" * 64}
    server.raw.mset(dict.fromkeys(left, "x"))
    cache = make_cache(name)
    cache.mset([item(f"text {n}") for n in range(20)])
    assert cache.clear() == 20
    assert cache.mexists([f"text {n}" for n in range(20)], MODEL) == [False] * 20
    assert all(other.exists("kept", MODEL) for other in others)
    assert server.raw.exists(*left) == len(left)
    assert cache.clear() == 0


@pytest.mark.parametrize("name", ["a", GLOB_NAME])
def test_a_foreign_key_is_not_read_and_not_touched(
    make_cache: Callable[..., Caller], server: Server, name: str
) -> None:
    other = make_cache(f"{name}:b")
    keys = [*strangers(name), other.set("theirs", MODEL, VECTOR)]
    server.raw.mset(dict.fromkeys(keys[:-1], "x"))
    cache = make_cache(name)
    own = cache.set("ours", MODEL, VECTOR)
    assert cache.mget_by_keys(keys) == [None] * len(keys)
    assert cache.mexists_by_keys(keys) == [False] * len(keys)
    assert texts_of(cache.mget_by_keys([keys[-1], own])) == [None, "ours"]
    for key in keys:
        assert cache.get_by_key(key) is None
        assert cache.exists_by_key(key) is False
        assert cache.remaining_ttl(key) is None
        assert not cache.owns(key)
        for refused in (
            lambda key=key: cache.drop_by_key(key),
            lambda key=key: cache.mdrop_by_keys([own, key]),
            lambda key=key: cache.expire(key, 5),
            lambda key=key: cache.persist(key),
        ):
            with pytest.raises(ForeignKeyError, match="is not one of cache"):
                refused()
    assert server.raw.exists(own, *keys) == 1 + len(keys)
    assert {server.pttl(key) for key in keys} == {-1}


def test_caches_of_one_name_share_their_entries(make_cache: Callable[..., Caller], server: Server) -> None:
    make_cache("shared").set("a", MODEL, VECTOR)
    with EmbeddingsCache("shared", redis_url=server.url) as other:
        assert other.get("a", MODEL)["embedding"].tolist() == VECTOR
