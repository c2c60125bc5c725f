"""The near cache: what it answers and keeps apart, how long, and whose writes end it. The same for sync and async."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from calling import Caller
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from removing import ignore
from servers import Server

from embedcache import EmbeddingsCache
from embedcache.errors import InvalidInputError, InvalidTextError
from embedcache.near import ENTRY_BYTES, NearCache
from embedcache.removal import clear_cache
from embedcache.transfer import export_entries, restore_entries
from embedcache.vectorizers import CustomVectorizer

MODEL = "a/model"
VECTOR = [0.5, -1.0, 2.0]
LONG = 500


@pytest.fixture
def quiet(server: Server) -> Iterator[str]:
    """The URL of a user to whom the server tells no writes: there is nothing but the near cache's own bounds."""
    server.raw.acl_setuser("quiet", enabled=True, passwords=["+pw"], keys=["*"], commands=["+@all", "-client"])
    yield f"unix://quiet:pw@{server.socket}"
    server.raw.acl_deluser("quiet")


@pytest.fixture
def make_near(quiet: str, caller: Callable[[EmbeddingsCache], Caller]) -> Callable[..., Caller]:
    def make(name: str = "c", **options: Any) -> Caller:
        defaults = {"stats": False, "near_cache": 100, "near_ttl": LONG}
        return caller(EmbeddingsCache(name, redis_url=quiet, **defaults | options))

    return make


@pytest.fixture
def near(make_near: Callable[..., Caller]) -> Caller:
    return make_near()


def written_by_others(server: Server, text: str, vector: list[float], **fields: Any) -> str:
    """An entry that a process without our near cache wrote, as far as this one can tell."""
    with EmbeddingsCache("other", redis_url=server.url, stats=False) as other:
        key = other.set(text, MODEL, vector, **fields)
        mine = f"c:{key[-64:]}"
        server.raw.rename(key, mine)
    return mine


def found(entry: Any) -> Any:
    return None if entry is None else entry["embedding"].tolist()


def lookups(cache: Caller, text: str, key: str) -> dict[str, Any]:
    """What each way of looking a text up finds."""
    matrix, mask = cache.mget_embeddings([text], MODEL)
    return {
        "get": found(cache.get(text, MODEL)),
        "mget": found(cache.mget([text], MODEL)[0]),
        "get_by_key": found(cache.get_by_key(key)),
        "mget_by_keys": found(cache.mget_by_keys([key])[0]),
        "mget_embeddings": matrix[0].tolist() if mask[0] else None,
    }


# ------------------------------------------------------------------------------------------------ hits


@pytest.mark.parametrize("first", ["get", "mget", "mget_embeddings", "get_by_key"])
def test_what_one_lookup_found_every_other_finds_without_the_server(near: Caller, server: Server, first: str) -> None:
    key = near.set("a", MODEL, VECTOR)
    asked: dict[str, Callable[[], object]] = {
        "get": lambda: near.get("a", MODEL),
        "mget": lambda: near.mget(["a"], MODEL),
        "mget_embeddings": lambda: near.mget_embeddings(["a"], MODEL),
        "get_by_key": lambda: near.get_by_key(key),
    }
    asked[first]()
    server.raw.delete(key)
    assert set(map(str, lookups(near, "a", key).values())) == {str(VECTOR)}


def test_an_entry_is_the_same_from_near_and_far(near: Caller) -> None:
    near.set("a", MODEL, VECTOR, metadata={"of": ["a", {"b": 1}]}, ttl=LONG)
    far, close = near.get("a", MODEL), near.get("a", MODEL)
    assert near.near_state.entries == 1
    assert list(close) == list(far)
    assert close["embedding"].dtype == far["embedding"].dtype
    assert found(close) == found(far)
    assert {**close, "embedding": None} == {**far, "embedding": None}


def test_str_bytes_and_models_are_told_apart(near: Caller) -> None:
    for text, model, number in (("a", MODEL, 1.0), (b"a", MODEL, 2.0), ("a", "b", 3.0), ("a:b", "c", 4.0)):
        near.set(text, model, [number])
        near.get(text, model)
    asked = [("a", MODEL), (b"a", MODEL), ("a", "b"), ("a:b", "c"), ("a", "b:c")]
    # "a" and b"a" share a key, whose last writer stays; so do the last two.
    assert [found(near.get(*each)) for each in asked] == [None, [2.0], [3.0], [4.0], None]


def test_texts_that_share_a_key_share_its_end(near: Caller, server: Server) -> None:
    near.set("a", MODEL, [1.0])
    near.get("a", MODEL)
    with EmbeddingsCache("other", redis_url=server.url, stats=False) as other:
        server.raw.rename(other.set(b"a", MODEL, [2.0]), near.key_for("a", MODEL))
    assert found(near.get(b"a", MODEL)) == [2.0]
    assert near.get("a", MODEL) is None
    assert near.near_state.entries == 1
    near.drop(b"a", MODEL)
    assert near.get(b"a", MODEL) is None
    assert near.near_state.entries == 0


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "int8"])
def test_vectors_are_read_only_for_good(make_near: Callable[..., Caller], dtype: str) -> None:
    near = make_near(dtype=dtype)
    near.set("a", MODEL, VECTOR)
    first = near.get("a", MODEL)["embedding"]
    expected = first.tolist()
    if first.flags.owndata:  # the caller can have his way with what is his
        first.flags.writeable = True
        first[0] = 9
    for entry in (near.get("a", MODEL), near.mget(["a"], MODEL)[0]):
        assert entry["embedding"].tolist() == expected
        with pytest.raises(ValueError, match="read-only"):
            entry["embedding"][0] = 9
        with pytest.raises(ValueError, match="WRITEABLE"):
            entry["embedding"].flags.writeable = True
        entry["embedding"].shape = (3, 1)
    matrix, _ = near.mget_embeddings(["a"], MODEL)
    matrix[0] = 9  # the caller's own
    assert found(near.get("a", MODEL)) == expected


def test_metadata_is_the_callers_own(near: Caller) -> None:
    near.set("a", MODEL, VECTOR, metadata={"tags": ["x", {"y": 1}]})
    for _ in range(3):
        entry = near.get("a", MODEL)
        assert entry["metadata"] == {"tags": ["x", {"y": 1}]}
        entry["metadata"]["tags"][1]["y"] = 2
        entry["metadata"]["more"] = 1
        entry["text"] = "b"


# ------------------------------------------------------------------------------------------------ batches


def test_a_batch_asks_the_server_only_for_the_rest(near: Caller, server: Server) -> None:
    keys = near.mset([{"text": text, "model_name": MODEL, "embedding": [float(n)]} for n, text in enumerate("abc")])
    near.mget(["a", "c"], MODEL)
    server.raw.delete(*keys)
    written_by_others(server, "b", [7.0])
    texts = ["c", "b", "x", "a", "b"]
    assert [found(entry) for entry in near.mget(texts, MODEL)] == [[2.0], [7.0], None, [0.0], [7.0]]
    matrix, mask = near.mget_embeddings(texts, MODEL)
    assert mask.tolist() == [True, True, False, True, True]
    assert matrix[mask].tolist() == [[2.0], [7.0], [0.0], [7.0]]
    assert np.isnan(matrix[2]).all()
    asked = [keys[2], f"other:{'0' * 64}", keys[1], f"c:{'0' * 64}"]
    assert [found(entry) for entry in near.mget_by_keys(asked)] == [[2.0], None, [7.0], None]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)
@given(
    texts=st.lists(st.sampled_from("abcdefg"), max_size=12),
    stored=st.sets(st.sampled_from("abcdefg")),
    kept=st.sets(st.sampled_from("abcdefg")),
)
def test_row_i_is_the_vector_of_text_i(near: Caller, texts: list[str], stored: set[str], kept: set[str]) -> None:
    near.clear()
    for text in stored:
        near.set(text, MODEL, [float(ord(text)), 1.0])
    for text in kept:
        near.get(text, MODEL)
    expected = [[float(ord(text)), 1.0] if text in stored else None for text in texts]
    assert [found(entry) for entry in near.mget(texts, MODEL)] == expected
    matrix, mask = near.mget_embeddings(texts, MODEL)
    assert [row.tolist() if hit else None for row, hit in zip(matrix, mask, strict=True)] == expected
    keys = [near.key_for(text, MODEL) for text in texts]
    assert [found(entry) for entry in near.mget_by_keys(keys)] == expected


def test_a_matrix_takes_the_first_hits_dimension_near_or_far(make_near: Callable[..., Caller]) -> None:
    near = make_near(stats=True)
    near.set("short", MODEL, [1.0])
    near.set("long", MODEL, [1.0, 2.0])
    near.set("wide", MODEL, [1.0, 2.0])
    near.get("short", MODEL)
    near.get("wide", MODEL)
    assert near.mget_embeddings(["short", "long", "wide"], MODEL)[1].tolist() == [True, False, False]
    assert near.mget_embeddings(["long", "short"], MODEL)[1].tolist() == [True, False]
    matrix, mask = near.mget_embeddings(["short", "x", "wide"], MODEL, dimension=2)
    assert mask.tolist() == [False, False, True]
    assert matrix.shape == (3, 2)
    counted = near.process_stats()
    assert (counted.hits, counted.near_hits, counted.misses) == (2, 3, 5)


@pytest.mark.parametrize("kept", [True, False])
def test_bad_input_is_named_by_its_place_in_the_whole_batch(near: Caller, *, kept: bool) -> None:
    near.set("a", MODEL, VECTOR)
    if kept:
        near.get("a", MODEL)
    for lookup in (near.mget, near.mget_embeddings):
        with pytest.raises(InvalidTextError) as raised:
            lookup(["a", "a", " ", "b"], MODEL)
        assert raised.value.index == 2
        with pytest.raises(InvalidTextError, match="item 1: a text is str or bytes, not list"):
            lookup(["a", ["b"]], MODEL)
        with pytest.raises(InvalidInputError, match="give a list of texts"):
            lookup("a", MODEL)
        with pytest.raises(InvalidInputError, match="a model name is a str"):
            lookup(["a"], [])
        with pytest.raises(InvalidInputError, match="a model name is a str"):
            lookup([], "")
    with pytest.raises(InvalidTextError):
        near.get([], MODEL)
    with pytest.raises(InvalidInputError, match="item 1: a key is a str"):
        near.mget_by_keys([near.key_for("a", MODEL), 5])


# ------------------------------------------------------------------------------------------------ how long


def test_an_entry_is_out_of_date_by_near_ttl_at_most(make_near: Callable[..., Caller], server: Server) -> None:
    near = make_near(near_ttl=0.4)
    key = near.set("a", MODEL, [1.0])
    near.get("a", MODEL)
    started = time.monotonic()
    written_by_others(server, "a", [2.0])
    assert near.get("a", MODEL) is None or time.monotonic() - started < 0.4
    time.sleep(max(0.0, started + 0.4 - time.monotonic()))
    assert set(map(str, lookups(near, "a", key).values())) == {"[2.0]"}


@pytest.mark.parametrize("refresh", [True, False])
@pytest.mark.parametrize("default", [True, False])
def test_an_entrys_own_ttl_bounds_it_too(
    make_near: Callable[..., Caller], server: Server, *, refresh: bool, default: bool
) -> None:
    near = make_near(refresh_ttl=refresh, ttl=1 if default else None)
    key = near.set("a", MODEL, VECTOR, ttl=None if default else 1)
    time.sleep(0.3)
    near.get("a", MODEL)
    deadline = time.monotonic() + 20
    while server.raw.exists(key):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert set(lookups(near, "a", key).values()) == {None}


def test_a_near_hit_restarts_no_ttl_before_half_of_it_has_passed(
    make_near: Callable[..., Caller], server: Server
) -> None:
    near = make_near(ttl=100)
    key = near.set("a", MODEL, VECTOR)
    server.raw.expire(key, 60)
    near.get("a", MODEL)
    assert 59 <= server.raw.ttl(key) <= 60  # more than half is left
    server.raw.expire(key, 50)
    fresh = make_near(ttl=100)  # one that has not kept it
    fresh.get("a", MODEL)
    assert 99 <= server.raw.ttl(key) <= 100


def test_an_entry_in_use_outlives_its_ttl(make_near: Callable[..., Caller]) -> None:
    near = make_near(ttl=2)
    near.set("a", MODEL, VECTOR)
    for _ in range(12):
        time.sleep(0.3)
        assert near.get("a", MODEL) is not None


# ------------------------------------------------------------------------------------------------ own writes


@pytest.mark.parametrize("how", ["set", "mset", "drop", "drop_by_key", "clear", "expire", "persist", "set_metadata"])
@pytest.mark.parametrize("writer", ["itself", "another near cache", "no near cache"])
def test_this_processs_writes_are_seen_at_once(
    make_near: Callable[..., Caller], make_cache: Callable[..., Caller], how: str, writer: str
) -> None:
    near = make_near()
    other = {"itself": lambda: near, "another near cache": make_near, "no near cache": make_cache}[writer]()
    key = near.set("a", MODEL, [1.0], metadata={"n": 1}, ttl=LONG)
    near.set("kept", MODEL, [3.0])
    near.mget(["a", "kept"], MODEL)
    writes: dict[str, Callable[[], object]] = {
        "set": lambda: other.set("a", MODEL, [2.0]),
        "mset": lambda: other.mset([{"text": "a", "model_name": MODEL, "embedding": [2.0]}]),
        "drop": lambda: other.drop("a", MODEL),
        "drop_by_key": lambda: other.drop_by_key(key),
        "clear": other.clear,
        "expire": lambda: other.expire(key, 77),
        "persist": lambda: other.persist(key),
        "set_metadata": lambda: other.set_metadata(key, {"n": 2}),
    }
    writes[how]()
    entry = near.get("a", MODEL)
    if how in {"set", "mset"}:
        assert found(entry) == [2.0]
    elif how in {"drop", "drop_by_key", "clear"}:
        assert entry is None
    else:
        assert entry is not None
        assert entry["ttl"] == {"expire": 77, "persist": None, "set_metadata": LONG}[how]
        assert entry["metadata"] == ({"n": 2} if how == "set_metadata" else {"n": 1})
    assert found(near.get("kept", MODEL)) == (None if how == "clear" else [3.0])


def test_removals_and_restores_of_this_process_are_seen_at_once(
    make_near: Callable[..., Caller], quiet: str, tmp_path: Path
) -> None:
    near = make_near()
    near.set("a", MODEL, [1.0])
    export_entries(near.cache.connection, "c", tmp_path / "c.jsonl", file_format="jsonl")
    near.set("a", MODEL, [2.0])
    near.get("a", MODEL)
    restore_entries(near.cache.connection, "c", tmp_path / "c.jsonl", on_conflict="overwrite")
    assert found(near.get("a", MODEL)) == [1.0]
    clear_cache(near.cache.connection, "c", ignore, "me")
    assert near.get("a", MODEL) is None


def test_clear_drops_what_the_server_has_no_longer(near: Caller, server: Server) -> None:
    key = near.set("a", MODEL, VECTOR)
    near.get("a", MODEL)
    server.raw.delete(key)
    assert near.clear() == 0
    assert near.get("a", MODEL) is None


def test_a_cache_whose_name_starts_alike_keeps_its_own(make_near: Callable[..., Caller], server: Server) -> None:
    near, longer = make_near("c"), make_near("c:c")
    key = longer.set("a", MODEL, VECTOR)
    longer.get("a", MODEL)
    server.raw.delete(key)
    near.set("a", MODEL, [9.0])
    near.clear()
    assert found(longer.get("a", MODEL)) == VECTOR


# ------------------------------------------------------------------------------------------------ bounds


def test_the_least_recently_used_goes_first(make_near: Callable[..., Caller], server: Server) -> None:
    near = make_near(near_cache=2)
    for text in "abc":
        near.set(text, MODEL, VECTOR)
    for text in "abac":
        near.get(text, MODEL)
    server.raw.flushdb()
    assert [near.get(text, MODEL) is not None for text in "abc"] == [True, False, True]
    assert near.near_state.entries == 2


def test_bytes_are_bounded(make_near: Callable[..., Caller]) -> None:
    near = make_near(near_cache_bytes=4 * (ENTRY_BYTES + 500))
    vector = [1.0] * 100
    near.mset([{"text": f"t{n}", "model_name": MODEL, "embedding": vector} for n in range(20)])
    near.mget([f"t{n}" for n in range(20)], MODEL)
    assert near.near_state.entries == 4
    assert near.near_state.bytes <= near.near_state.max_bytes
    near.set("large", MODEL, [1.0] * 2000)
    assert near.get("large", MODEL) is not None
    assert near.near_state.entries == 4  # it is too large to be kept, and turns nobody out
    near.set("told", MODEL, vector, metadata={"much": "x" * 3_000})
    near.get("told", MODEL)
    assert near.near_state.entries < 4
    near.close()
    assert near.near_state.entries == near.near_state.bytes == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"near_cache": -1}, "near_cache is a whole number above zero, not -1"),
        ({"near_cache": 1.5}, "near_cache is a whole number"),
        ({"near_cache": True}, "near_cache is a whole number"),
        ({"near_cache": 1, "near_ttl": 0}, "near_ttl is a number of seconds above zero, not 0"),
        ({"near_cache": 1, "near_ttl": float("inf")}, "near_ttl is a number of seconds"),
        ({"near_cache": 1, "near_ttl": "1"}, "near_ttl is a number of seconds"),
        ({"near_cache": 1, "near_cache_bytes": 0}, "near_cache_bytes is a whole number above zero"),
    ],
)
def test_bounds_that_cannot_be_used(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        EmbeddingsCache("c", **options)


def test_without_one_there_is_no_state() -> None:
    assert EmbeddingsCache("c").near_state is None


def test_a_lookup_under_way_brings_back_nothing_that_was_dropped() -> None:
    entry: Any = {"key": f"c:{'0' * 64}", "text": "a", "model_name": "m", "embedding": np.ones(2), "metadata": None}
    for drop in (lambda near: near.drop([entry["key"]]), lambda near: near.clear(), _drop_many):
        near = NearCache("c", 10)
        generation = near.generation
        drop(near)
        near.keep([(entry, time.monotonic() + 9)], generation)
        assert near.get("a", "m") is None
        near.keep([(entry, time.monotonic() + 9)], near.generation)
        assert near.get("a", "m") is not None


def _drop_many(near: NearCache) -> None:
    near.drop(f"c:{number:064d}" for number in range(10_000))


# ------------------------------------------------------------------------------------------------ counting


def test_near_hits_are_counted_apart(make_near: Callable[..., Caller]) -> None:
    near = make_near(stats=True)
    key = near.set("a", MODEL, VECTOR)
    near.set("b", "other", VECTOR)
    near.get("a", MODEL)  # a hit
    near.get("a", MODEL)
    near.mget(["a", "a", "b"], MODEL)  # a miss
    near.mget_embeddings(["a", "a"], MODEL)
    near.get_by_key(key)
    near.mget_by_keys([key, near.key_for("b", "other"), key])  # a hit
    counted = near.process_stats()
    assert (counted.hits, counted.near_hits, counted.misses) == (2, 8, 1)
    assert counted.lookups == 6
    assert near.process_stats("other").hits == 1
    near.flush_stats()
    assert near.stats("all").near_hits == 8
    assert near.stats("all").hit_rate == pytest.approx(10 / 11)


def test_a_read_only_cache_may_have_one(make_near: Callable[..., Caller], server: Server) -> None:
    key = written_by_others(server, "a", VECTOR, ttl=LONG)
    near = make_near(read_only=True)
    near.get("a", MODEL)
    server.raw.delete(key)
    assert set(map(str, lookups(near, "a", key).values())) == {str(VECTOR)}


def test_vectorizers_look_there_first(make_near: Callable[..., Caller]) -> None:
    near = make_near(stats=True)
    computed: list[str] = []

    def compute(text: Any) -> list[float]:
        computed.append(text)
        return [float(len(text)), 1.0]

    vectorizer = CustomVectorizer(compute, model=MODEL, cache=near.cache)
    for _ in range(3):
        assert vectorizer.embed_many(["a", "bb", "a"]).tolist() == [[1.0, 1.0], [2.0, 1.0], [1.0, 1.0]]
    assert sorted(computed) == ["a", "bb"]
    counted = near.process_stats()
    assert (counted.misses, counted.hits, counted.near_hits) == (2, 2, 2)


def test_the_page_about_it_runs(
    valkey: Server, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("EMBEDCACHE_URL", valkey.url)
    page = (Path(__file__).parent.parent / "docs" / "near_cache.md").read_text()
    (code,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    names: dict[str, Any] = {}
    exec(code, names)  # noqa: S102 - it is ours
    assert capsys.readouterr().out.startswith("NearState(entries=")
    names["cache"].close()
