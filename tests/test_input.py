"""Bad input: an error that says what is wrong, and nothing written."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from calling import Caller
from servers import Server

from embedcache import EmbeddingsCache
from embedcache.errors import (
    InvalidEmbeddingError,
    InvalidInputError,
    InvalidMetadataError,
    InvalidModelNameError,
    InvalidTextError,
    InvalidTTLError,
)

MODEL = "a/model"
VECTOR = [0.5, -1.0]
NAN, INF = float("nan"), float("inf")


@pytest.fixture
def cache(valkey: Server, caller: Callable[[EmbeddingsCache], Caller]) -> Caller:
    """A cache with one entry in it."""
    cache = caller(EmbeddingsCache("c", ttl=500, redis_url=valkey.url))
    cache.set("kept", MODEL, VECTOR)
    return cache


@pytest.fixture(autouse=True)
def nothing_written(valkey: Server) -> Any:
    """No test leaves anything on the server but the entry that was there before."""
    yield
    kept = EmbeddingsCache("c").key_for("kept", MODEL)
    assert set(valkey.plain_keys()) <= {kept.encode()}


def item(text: Any = "a", embedding: Any = VECTOR, **fields: Any) -> dict[str, Any]:
    return {"text": text, "model_name": MODEL, "embedding": embedding, **fields}


def cyclic() -> dict[str, Any]:
    metadata: dict[str, Any] = {}
    metadata["self"] = metadata
    return metadata


def deep() -> dict[str, Any]:
    metadata: dict[str, Any] = {}
    for _ in range(40):
        metadata = {"a": metadata}
    return metadata


BAD_TEXTS = [
    ("", "empty or blank"),
    (" \n", "empty or blank"),
    (b"", "empty or blank"),
    (None, "a text is str or bytes, not NoneType"),
    (5, "a text is str or bytes, not int"),
    (["a"], "not list"),
    (np.array("a"), "not ndarray"),
    ("a\udcffb", "lone surrogates"),
    ("a" * 10_000_000, "the text is 10,000,000 bytes long; the longest is 8,388,608"),
]
BAD_MODELS = [("", "''"), (" ", "' '"), (None, "None"), (5, "5"), (b"m", "b'm'"), ("\ud800", "surrogates")]
BAD_EMBEDDINGS = [
    ([], "0 components"),
    (np.zeros(0), "0 components"),
    (None, r"shape \(\)"),
    (1.0, r"shape \(\)"),
    ([[1.0, 2.0]], r"shape \(1, 2\); a vector has one dimension"),
    (np.zeros((2, 3)), r"shape \(2, 3\)"),
    ([[1.0], [1.0, 2.0]], "not a vector of numbers"),
    ([1.0, NAN], "NaN, infinity, or a number too large for float32"),
    ([INF], "infinity"),
    (np.array([1.0, -INF]), "infinity"),
    ([1e300], "too large for float32"),
    ("text", r"shape \(\)"),
    (["a", "b"], "not real numbers"),
    ([1.0, "b"], "not real numbers"),
    ([True, False], "holds bool, not real numbers"),
    ([1j], "holds complex128, not real numbers"),
    ([None, 1.0], "holds object, not real numbers"),
    ([object()], "holds object"),
    ([10**400], "holds object"),
    ({"a": 1}, r"shape \(\)"),
    ({1.0, 2.0}, r"shape \(\)"),
    (np.array(["2024-01-01"], "datetime64[D]"), "datetime64"),
    (np.zeros(65_537), "65,537 components; it may have 1 to 65,536"),
]
BAD_METADATA = [
    ([1], "a dict or None, not list"),
    ("text", "not str"),
    ({"a": {1, 2}}, r"metadata\['a'\] is a set"),
    ({"a": b"x"}, "is a bytes"),
    ({"a": NAN}, "nan, which JSON has no word for"),
    ({"a": [1, INF]}, r"metadata\['a'\]\[1\] is inf"),
    ({1: "a"}, "has the key 1; keys are str"),
    ({"a": 2**64}, "more than 64 bits"),
    ({"a": object()}, "is a object, which is not JSON"),
    (deep(), "deeper than 32 levels"),
    (cyclic(), "deeper than 32 levels"),
    ({"a": "x" * 2_000_000}, "2,000,008 bytes; the most is 1,048,576"),
]
BAD_TTLS = [(0, "not 0"), (-1, "not -1"), (1.5, "not 1.5"), (True, "not True"), ("5", "not '5'"), (2**32, "4294967296")]


def named(pairs: list[tuple[Any, str]]) -> Any:
    return pytest.mark.parametrize(("bad", "words"), pairs, ids=[words for _, words in pairs])


# ------------------------------------------------------------------------------------------------ one bad argument


@named(BAD_TEXTS)
def test_a_bad_text(cache: Caller, bad: Any, words: str) -> None:
    for call in (
        lambda: cache.set(bad, MODEL, VECTOR),
        lambda: cache.get(bad, MODEL),
        lambda: cache.exists(bad, MODEL),
        lambda: cache.drop(bad, MODEL),
        lambda: cache.key_for(bad, MODEL),
    ):
        with pytest.raises(InvalidTextError, match=f"^[^:]*{words}"):
            call()
    for call in (
        lambda: cache.mset([item(), item(bad)]),
        lambda: cache.mget(["a", bad], MODEL),
        lambda: cache.mget_embeddings(["a", bad], MODEL),
        lambda: cache.mexists(["a", bad], MODEL),
        lambda: cache.mdrop(["kept", bad], MODEL),
    ):
        with pytest.raises(InvalidTextError, match=f"^item 1: .*{words}") as caught:
            call()
        assert caught.value.index == 1


@named(BAD_MODELS)
def test_a_bad_model_name(cache: Caller, bad: Any, words: str) -> None:
    for call in (
        lambda: cache.set("a", bad, VECTOR),
        lambda: cache.get("a", bad),
        lambda: cache.mget(["a", "b"], bad),
        lambda: cache.mget_embeddings(["a"], bad),
        lambda: cache.mexists(["a"], bad),
        lambda: cache.mdrop(["kept"], bad),
        lambda: cache.key_for("a", bad),
        lambda: cache.mset([item() | {"model_name": bad}]),
    ):
        with pytest.raises(InvalidModelNameError, match=words):
            call()
    with pytest.raises(InvalidModelNameError, match=r"^item 1: ") as caught:
        cache.mset([item(), item("b") | {"model_name": bad}])
    assert caught.value.index == 1


@named(BAD_EMBEDDINGS)
def test_a_bad_embedding(cache: Caller, bad: Any, words: str) -> None:
    with pytest.raises(InvalidEmbeddingError, match=words) as caught:
        cache.set("a", MODEL, bad)
    assert caught.value.index is None
    with pytest.raises(InvalidEmbeddingError, match=f"^item 1: .*{words}") as caught:
        cache.mset([item(), item("b", bad) | {"model_name": "another"}, item("c")])
    assert caught.value.index == 1


@pytest.mark.parametrize("bad", [NAN, INF, -INF])
def test_one_bad_number_in_an_even_batch_is_named(cache: Caller, bad: float) -> None:
    rows = np.ones((600, 8), np.float32)
    rows[437, 5] = bad
    with pytest.raises(InvalidEmbeddingError, match=r"^item 437: the embedding holds NaN, infinity") as caught:
        cache.mset([item(f"text {n}", row) for n, row in enumerate(rows)])
    assert caught.value.index == 437


def test_another_dimension_in_a_batch_is_named(cache: Caller) -> None:
    with pytest.raises(
        InvalidEmbeddingError, match=r"^item 2: the embedding has 3 components, .* same model 2$"
    ) as caught:
        cache.mset([item("a"), item("b"), item("c", [1.0, 2.0, 3.0])])
    assert caught.value.index == 2


@pytest.mark.parametrize("dtype", ["float16", "int8", "float64"])
def test_what_is_not_finite_in_the_stored_dtype(
    valkey: Server, caller: Callable[[EmbeddingsCache], Caller], dtype: str
) -> None:
    cache = caller(EmbeddingsCache("c", redis_url=valkey.url, dtype=dtype))
    too_large = {"float16": 1e6, "int8": 1e300, "float64": INF}[dtype]
    with pytest.raises(InvalidEmbeddingError, match=f"too large for {dtype}"):
        cache.set("a", MODEL, [1.0, too_large])


@named(BAD_METADATA)
def test_bad_metadata(cache: Caller, bad: Any, words: str) -> None:
    with pytest.raises(InvalidMetadataError, match=words):
        cache.set("a", MODEL, VECTOR, bad)
    with pytest.raises(InvalidMetadataError, match=f"^item 1: .*{words}") as caught:
        cache.mset([item(), item("b", metadata=bad)])
    assert caught.value.index == 1


def test_numpy_numbers_in_metadata_are_plain_when_they_are_read(cache: Caller, valkey: Server) -> None:
    metadata = {"score": np.float32(0.5), "n": np.int64(3), "ok": np.bool_(False), "list": (np.uint8(1),)}
    cache.set("kept", MODEL, VECTOR, metadata)
    read = cache.get("kept", MODEL)["metadata"]
    assert read == {"score": 0.5, "n": 3, "ok": False, "list": [1]}
    assert [type(value) for value in read.values()] == [float, int, bool, list]


@named(BAD_TTLS)
def test_a_bad_ttl(cache: Caller, bad: Any, words: str) -> None:
    key = cache.key_for("kept", MODEL)
    for call in (
        lambda: cache.set("a", MODEL, VECTOR, ttl=bad),
        lambda: cache.mset([item()], ttl=bad),
        lambda: cache.mset([item(), item("b")], ttl=bad),
        lambda: cache.expire(key, bad),
        lambda: cache.set_ttl(bad),
        lambda: EmbeddingsCache(ttl=bad),
    ):
        with pytest.raises(InvalidTTLError, match=f"^a TTL is .*{words}"):
            call()
    with pytest.raises(InvalidTTLError, match=f"^item 1: a TTL is .*{words}") as caught:
        cache.mset([item(), item("b", ttl=bad)])
    assert caught.value.index == 1
    assert 400 < cache.remaining_ttl(key) <= 500


@pytest.mark.parametrize("ttl", [np.int64(60), np.uint8(60)])
def test_whole_numbers_of_numpy_are_ttls(cache: Caller, valkey: Server, ttl: Any) -> None:
    own = cache.set("kept", MODEL, VECTOR, ttl=ttl)
    assert 0 < valkey.pttl(own) <= 60_000
    cache.set_ttl(ttl)
    assert cache.ttl == 60
    cache.set("kept", MODEL, VECTOR)
    assert 0 < valkey.pttl(own) <= 60_000


# ------------------------------------------------------------------------------------------------ items and lists


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        ({"text": "b", "model_name": MODEL}, "'embedding' is missing"),
        ({"embedding": VECTOR}, "'model_name', 'text' is missing"),
        ({}, "is missing"),
        (
            item() | {"metdata": {}},
            "unknown 'metdata'; an item has 'embedding', 'metadata', 'model_name', 'text', 'ttl'",
        ),
        (item() | {5: 1, None: 2}, "unknown 5, None"),
        ("text", "an item is a dict, not str"),
        (None, "an item is a dict, not NoneType"),
        (["text", MODEL, VECTOR], "an item is a dict, not list"),
    ],
)
def test_a_bad_item(cache: Caller, bad: Any, words: str) -> None:
    with pytest.raises(InvalidInputError, match=f"^{words}" if words != "is missing" else words):
        cache.mset([bad])
    with pytest.raises(InvalidInputError, match=f"^item 1: .*{words}") as caught:
        cache.mset([item(), bad])
    assert caught.value.index == 1


@pytest.mark.parametrize("single", ["text", b"text"])
def test_a_single_one_where_a_list_is_meant(cache: Caller, single: Any) -> None:
    for call in (
        lambda: cache.mget(single, MODEL),
        lambda: cache.mget_embeddings(single, MODEL),
        lambda: cache.mexists(single, MODEL),
        lambda: cache.mdrop(single, MODEL),
    ):
        with pytest.raises(InvalidInputError, match="give a list of texts, not a single one"):
            call()
    for call in (
        lambda: cache.mget_by_keys(single),
        lambda: cache.mexists_by_keys(single),
        lambda: cache.mdrop_by_keys(single),
    ):
        with pytest.raises(InvalidInputError, match="give a list of keys, not a single one"):
            call()
    for one in (single, item()):
        with pytest.raises(InvalidInputError, match="give a list of items, not a single one"):
            cache.mset(one)


@pytest.mark.parametrize("nothing", [None, 5, object(), 1.5])
def test_what_is_no_list(cache: Caller, nothing: Any) -> None:
    for call in (
        lambda: cache.mset(nothing),
        lambda: cache.mget(nothing, MODEL),
        lambda: cache.mget_embeddings(nothing, MODEL),
        lambda: cache.mexists(nothing, MODEL),
        lambda: cache.mdrop(nothing, MODEL),
        lambda: cache.mget_by_keys(nothing),
        lambda: cache.mexists_by_keys(nothing),
        lambda: cache.mdrop_by_keys(nothing),
    ):
        with pytest.raises(InvalidInputError, match=r"list of (items|texts|keys)"):
            call()


@pytest.mark.parametrize("bad", [None, 5, b"key", ["key"], "c:\ud800"])
def test_a_bad_key(cache: Caller, bad: Any) -> None:
    for call in (
        lambda: cache.get_by_key(bad),
        lambda: cache.exists_by_key(bad),
        lambda: cache.drop_by_key(bad),
        lambda: cache.remaining_ttl(bad),
        lambda: cache.expire(bad, 5),
        lambda: cache.persist(bad),
    ):
        with pytest.raises(InvalidInputError, match="key"):
            call()
    for call in (
        lambda: cache.mget_by_keys([cache.key_for("kept", MODEL), bad]),
        lambda: cache.mexists_by_keys([cache.key_for("kept", MODEL), bad]),
        lambda: cache.mdrop_by_keys([cache.key_for("kept", MODEL), bad]),
    ):
        with pytest.raises(InvalidInputError, match=r"^item 1: .*key"):
            call()
    assert cache.exists("kept", MODEL)


@pytest.mark.parametrize("bad", [0, -1, 1.5, "2", True, [2]])
def test_a_bad_dimension(cache: Caller, bad: Any) -> None:
    for texts in (["kept", "missing"], ["missing"]):
        with pytest.raises(InvalidInputError, match="dimension"):
            cache.mget_embeddings(texts, MODEL, dimension=bad)


@pytest.mark.parametrize("model_name", [None, "", 5, "\ud800"])
def test_a_bad_model_name_that_all_items_share_names_the_first(cache: Caller, model_name: Any) -> None:
    batch = [item("a") | {"model_name": model_name}, item("b") | {"model_name": model_name}]
    with pytest.raises(InvalidModelNameError, match="item 0: ") as caught:
        cache.mset(batch)
    assert caught.value.index == 0
