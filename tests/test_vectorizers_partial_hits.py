"""Any texts with any duplicates, any of them cached: each row is its text's vector, each miss is computed once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from servers import Server
from toy_model import Both, Model, vector_of

from embedcache import CustomVectorizer, EmbeddingsCache
from embedcache.vectorizers import base

CHUNK = 4

some_text = st.text("abcdef", min_size=1, max_size=2) | st.sampled_from([b"\0", b"\xff"])
texts_of_few = st.lists(some_text, max_size=40)
some_of_few = st.sets(some_text)


@pytest.fixture(scope="module")
def small_chunks() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(base, "CHUNK_TEXTS", CHUNK)
        yield


@pytest.fixture(scope="module", params=["sync", "async"])
def runner(request: pytest.FixtureRequest) -> Iterator[asyncio.Runner | None]:
    if request.param == "sync":
        yield None
        return
    with asyncio.Runner() as runner:
        yield runner


@pytest.fixture(scope="module", params=[None, "process", "shared"])
def mode(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.fixture(scope="module")
def cache(start_server: Callable[[str], Server]) -> Iterator[EmbeddingsCache]:
    with EmbeddingsCache("partial hits", redis_url=start_server("valkey9").url) as cache:
        yield cache


@pytest.fixture(scope="module")
def vectorizer(
    small_chunks: None, runner: asyncio.Runner | None, mode: Any, cache: EmbeddingsCache
) -> Iterator[Callable[[Model, set[Any]], Both]]:
    """Makes a vectorizer of a model, over a cache that holds these texts and nothing else."""

    def make(model: Model, cached: set[Any]) -> Both:
        cache.clear()
        ordered = sorted(cached, key=repr)
        cache.mset([{"text": text, "model_name": "toy", "embedding": vector_of(text)} for text in ordered])
        made = CustomVectorizer(vector_of, "toy", cache, embed_many_callable=model, single_flight=mode)
        return Both(made, runner)

    yield make
    if runner is not None:
        runner.run(cache.connection.aclose())


@settings(max_examples=30)  # six times over: sync and async, in three modes
@given(texts=texts_of_few, cached=some_of_few)
def test_row_i_is_the_vector_of_text_i_and_each_distinct_miss_is_computed_once(
    vectorizer: Callable[..., Both], cache: EmbeddingsCache, texts: list[Any], cached: set[Any]
) -> None:
    model = Model()
    report = vectorizer(model, cached).embed_report(texts)
    assert len(report.vectors) == len(texts)
    for row, text in zip(report.vectors, texts, strict=True):
        np.testing.assert_array_equal(row, vector_of(text))
    assert report.hits.tolist() == [text in cached for text in texts]
    assert sorted(model.asked, key=repr) == sorted(set(texts) - cached, key=repr)
    assert cache.mexists(texts, "toy") == [True] * len(texts)


@settings(max_examples=30)
@given(texts=texts_of_few, cached=some_of_few, bad=st.text("abcdef", min_size=1, max_size=2))
def test_an_exception_in_the_model_keeps_what_was_stored_before_it(
    vectorizer: Callable[..., Both], cache: EmbeddingsCache, texts: list[Any], cached: set[Any], bad: str
) -> None:
    model = Model()
    model.fails_at = bad
    made = vectorizer(model, cached - {bad})
    missing = [text for text in dict.fromkeys(texts) if text not in cached - {bad}]
    if bad not in missing:
        made.embed_many(texts)
        return
    with pytest.raises(RuntimeError, match="the model broke"):
        made.embed_many(texts)
    before = missing[: missing.index(bad) // CHUNK * CHUNK]
    assert model.asked == before
    kept = sorted((cached - {bad}) | set(before), key=repr)
    np.testing.assert_array_equal(
        cache.mget_embeddings(kept, "toy")[0], [vector_of(text) for text in kept] or np.empty((0, 0))
    )
    assert not any(cache.mexists(missing[len(before) :], "toy"))
    model.fails_at = None
    np.testing.assert_array_equal(made.embed_many(texts), [vector_of(text) for text in texts])
    assert max(model.times.values()) == 1


@settings(max_examples=30)
@given(
    texts=st.lists(st.text("abcdef", min_size=1, max_size=1), min_size=1),
    cached=st.sets(st.text("abcdef", min_size=1, max_size=1)),
)
def test_what_is_cached_with_another_dimension_is_computed_anew(
    vectorizer: Callable[..., Both], cache: EmbeddingsCache, texts: list[str], cached: set[str]
) -> None:
    """Another model's vectors, under the same name. Where nothing is missing, nobody knows that they are."""
    model = Model()
    made = vectorizer(model, set())
    for text in cached:
        cache.set(text, "toy", np.ones(7))
    found = made.embed_many(texts)
    if set(texts) <= cached:
        assert found.shape == (len(texts), 7)
        return
    np.testing.assert_array_equal(found, [vector_of(text) for text in texts])
    assert set(model.times.values()) == {1}
