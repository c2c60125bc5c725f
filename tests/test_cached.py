"""`@cache.cached`: a function from texts to vectors that computes only what is missing."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pytest
from servers import Server
from toy_model import Model, vector_of

from embedcache import NEVER, CustomVectorizer, EmbeddingsCache, InvalidInputError
from embedcache.errors import (
    EmbeddingFailedError,
    InvalidMetadataError,
    InvalidModelNameError,
    InvalidTextError,
    InvalidTTLError,
)

Embed = Callable[[Sequence[Any]], Any]


@pytest.fixture
def cache(valkey: Server) -> Iterator[EmbeddingsCache]:
    with EmbeddingsCache("decorated", redis_url=valkey.url) as cache:
        yield cache


@pytest.fixture
def model() -> Model:
    return Model()


@pytest.fixture(params=["sync", "async"])
def decorate(request: pytest.FixtureRequest, cache: EmbeddingsCache, model: Model) -> Iterator[Callable[..., Embed]]:
    """Decorates the model as a sync or an async function; what comes back is called as a sync one."""
    if request.param == "sync":

        def decorated(**options: Any) -> Embed:
            @cache.cached("toy", **options)
            def embed(texts: list[str]) -> np.ndarray:
                """Its own words."""
                return model(texts)

            return embed

        yield decorated
        return
    with asyncio.Runner() as runner:

        def adecorated(**options: Any) -> Embed:
            @cache.cached("toy", **options)
            async def embed(texts: list[str]) -> np.ndarray:
                await asyncio.sleep(0)
                return model(texts)

            assert inspect.iscoroutinefunction(embed)
            return lambda texts: runner.run(embed(texts))

        yield adecorated


def expected(texts: Sequence[str]) -> np.ndarray:
    return np.array([vector_of(text) for text in texts])


def test_only_what_is_missing_is_computed_each_once(decorate: Callable[..., Embed], model: Model) -> None:
    embed = decorate()
    assert np.array_equal(embed(["b"]), expected(["b"]))
    texts = ["c", "a", "b", "c", "a"]
    vectors = embed(texts)
    assert vectors.dtype == np.float32
    assert np.array_equal(vectors, expected(texts))
    assert model.asked == ["b", "c", "a"]
    assert embed([]).shape[0] == 0


def test_metadata_and_ttl_are_stored(decorate: Callable[..., Embed], cache: EmbeddingsCache) -> None:
    decorate(metadata={"source": "faq"}, ttl=60)(["a"])
    entry = cache.get("a", "toy")
    assert entry is not None
    assert entry["metadata"] == {"source": "faq"}
    assert entry["ttl"] == 60
    cache.set_ttl(50)
    decorate(ttl=NEVER)(["b"])
    assert cache.remaining_ttl(cache.key_for("b", "toy")) is NEVER


def test_what_the_function_raises_is_raised(
    decorate: Callable[..., Embed], cache: EmbeddingsCache, model: Model
) -> None:
    model.fails_at = "bad"
    embed = decorate()
    with pytest.raises(RuntimeError, match="the model broke"):
        embed(["good", "bad"])
    assert cache.mexists(["good", "bad"], "toy") == [False, False]
    model.fails_at = None
    assert np.array_equal(embed(["bad"]), expected(["bad"]))


def test_it_shares_its_entries_with_vectorizers(decorate: Callable[..., Embed], cache: EmbeddingsCache) -> None:
    decorate()(["a"])
    never = CustomVectorizer(lambda _: pytest.fail("it is in the cache"), "toy", cache)
    assert np.array_equal(never.embed("a"), vector_of("a"))


def test_it_works_on_without_its_server(model: Model) -> None:
    with EmbeddingsCache("c", redis_url="unix:///nowhere/at/all.sock") as cache:
        embed = cache.cached("toy")(model)
        assert np.array_equal(embed(["a", "a"]), expected(["a", "a"]))
    assert model.asked == ["a"]


def test_it_keeps_its_name_and_words(cache: EmbeddingsCache) -> None:
    @cache.cached("toy")
    def embed(texts: list[str]) -> list[list[float]]:
        """Its own words."""
        return [[1.0] for _ in texts]

    assert (embed.__name__, embed.__doc__) == ("embed", "Its own words.")  # type: ignore[attr-defined]
    assert inspect.unwrap(embed)(["a", "a"]) == [[1.0], [1.0]]


def test_tasks_that_lack_the_same_text_have_it_computed_once(cache: EmbeddingsCache, model: Model) -> None:
    @cache.cached("toy")
    async def embed(texts: list[str]) -> np.ndarray:
        await asyncio.sleep(0.01)
        return model(texts)

    async def many() -> list[Any]:
        return await asyncio.gather(*(embed(["a", "b"]) for _ in range(8)))

    assert all(np.array_equal(vectors, expected(["a", "b"])) for vectors in asyncio.run(many()))
    assert sorted(model.asked) == ["a", "b"]


def test_an_object_whose_call_is_async(cache: EmbeddingsCache) -> None:
    class Client:
        async def __call__(self, texts: list[str]) -> np.ndarray:
            return expected(texts)

        async def embed(self, texts: list[str]) -> np.ndarray:
            return expected(texts)

    assert np.array_equal(asyncio.run(cache.cached("object")(Client())(["a"])), expected(["a"]))
    assert np.array_equal(asyncio.run(cache.cached("method")(Client().embed)(["a"])), expected(["a"]))


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ([[1.0], [2.0], [3.0]], r"the model gave shape \(3, 1\) for 2 texts"),
        ([1.0, 2.0], r"shape \(2,\) for 2 texts; \(2, d\) was expected"),
        ([[1.0], [1.0, 2.0]], "the function of 'toy' gave something that is not a matrix of numbers"),
        ([[1.0], [float("nan")]], "NaN or infinity for text 1"),
        (None, "the model gave shape"),
        ("words", "the function of 'toy' gave something that is not a matrix of numbers"),
    ],
)
def test_what_is_no_vector_per_text_is_told(cache: EmbeddingsCache, given: Any, words: str) -> None:
    with pytest.raises(EmbeddingFailedError, match=words):
        cache.cached("toy")(lambda _: given)(["a", "b"])
    assert cache.mexists(["a", "b"], "toy") == [False, False]


def test_a_function_that_hides_that_it_is_async(cache: EmbeddingsCache) -> None:
    async def embed(texts: list[str]) -> np.ndarray:
        return expected(texts)

    def hiding(texts: list[str]) -> Any:
        return embed(texts)

    with pytest.raises(EmbeddingFailedError, match="declare it with async def"):
        cache.cached("toy")(hiding)(["a"])


@pytest.mark.parametrize(
    ("texts", "index"), [("one text", None), (["a", ""], 1), (["a", 3], 1), (None, None), (["a", "\ud800"], 1)]
)
def test_texts_that_cannot_be_used(cache: EmbeddingsCache, model: Model, texts: Any, index: int | None) -> None:
    with pytest.raises(InvalidInputError) as caught:
        cache.cached("toy")(model)(texts)
    assert caught.value.index == index
    if index is not None:
        assert isinstance(caught.value, InvalidTextError)
    assert model.asked == []


def test_arguments_are_checked_where_the_function_is_written(cache: EmbeddingsCache) -> None:
    with pytest.raises(InvalidModelNameError):
        cache.cached("")
    with pytest.raises(InvalidTTLError):
        cache.cached("toy", ttl=0)
    with pytest.raises(InvalidMetadataError):
        cache.cached("toy", metadata={"when": object()})
    with pytest.raises(InvalidInputError, match=r"a function from texts to vectors, not str"):
        cache.cached("toy")("embed")  # type: ignore[call-overload]


def test_a_function_of_more_than_texts_is_refused(cache: EmbeddingsCache) -> None:
    def embed(texts: list[str], size: int, key: str = "s3cret") -> list[list[float]]:
        return [[1.0] * size for _ in texts]

    with pytest.raises(InvalidInputError, match=r"embed\(\) cannot be called with texts alone: .*'size'") as caught:
        cache.cached("toy")(embed)  # type: ignore[call-overload]
    assert "s3cret" not in str(caught.value)
